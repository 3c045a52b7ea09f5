//! What `shell` and `script` have in common: how a caller says what to run where and as whom, and how
//! what became of it is told.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use muster_plugin_api::{ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest};
use muster_protocol::code;
use serde_json::{Map, Value, json};

use crate::process::{Captured, EffectiveUser, End, LeaveBehind, Program, Run, signal_name};
use crate::reply;

/// Bytes of each stream that the answer holds. Both together, with every byte written as `\u0001`, still fit into
/// a report (`RESULT_BYTES_MAX`); all of it is streamed anyway.
const KEPT_BYTES_MAX: usize = 48 * 1024;

/// Longest single argument or variable that Linux takes, in bytes (`MAX_ARG_STRLEN` without the last NUL).
pub(crate) const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;

/// Most variables of one request.
const VARIABLES_MAX: usize = 256;

/// Longest name of a variable, in bytes.
const VARIABLE_NAME_BYTES_MAX: usize = 255;

/// How and as whom a caller wants something run. Everything is checked.
#[derive(Debug)]
pub(crate) struct Circumstances {
    user: EffectiveUser,
    working_directory: Option<PathBuf>,
    environment: Vec<(String, String)>,
    exit_codes: Vec<i32>,
    leave_behind: LeaveBehind,
}

/// An argument that the description accepts and the plugin does not.
pub(crate) fn invalid(argument: &str, why: &str) -> ActionFailure {
    ActionFailure::new(&code::INVALID_ARGUMENT, format!("input `{argument}` {why}"))
}

/// The path in an argument: absolute, without anything that could mean something else on the way, and in the one
/// spelling that a rule about it would have. `/srv//x` and `/srv/./x` would get around one about `/srv/x`.
pub(crate) fn absolute_path(argument: &str, text: &str) -> Result<PathBuf, ActionFailure> {
    if text.chars().any(char::is_control) {
        return Err(invalid(argument, "holds control characters"));
    }
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    match text.strip_prefix('/') {
        Some(rest) if rest.is_empty() || rest.split('/').all(is_plain) => Ok(PathBuf::from(text)),
        _ => Err(invalid(
            argument,
            "is not an absolute path in its plain form, without `..`, `.`, `//` and a `/` at its end",
        )),
    }
}

/// A text that becomes one argument of a program.
pub(crate) fn argument_text<'a>(argument: &str, text: &'a str) -> Result<&'a str, ActionFailure> {
    if text.contains('\0') {
        return Err(invalid(argument, "holds a NUL, which no program can be given"));
    }
    if text.len() > ARGUMENT_BYTES_MAX {
        let why =
            format!("input `{argument}` has {} bytes, more than the {ARGUMENT_BYTES_MAX} Linux takes", text.len());
        return Err(ActionFailure::new(&code::LIMIT_EXCEEDED, why));
    }
    Ok(text)
}

impl Circumstances {
    /// Reads them from a request, and looks the user up, which may wait for a directory service.
    pub(crate) async fn of(request: &ActionRequest, context: &ActionContext) -> Result<Self, ActionFailure> {
        let working_directory = request.text("working_directory");
        let working_directory = working_directory.map(|text| absolute_path("working_directory", text)).transpose()?;
        let leaves = request.arguments.get("leave_running").and_then(Value::as_bool).unwrap_or(false);
        let looked_up = async {
            match &request.effective_user {
                Some(name) => EffectiveUser::find(name).await,
                None => EffectiveUser::own().await,
            }
        };
        let user = reply::bounded(request, context, looked_up).await?;
        Ok(Self {
            user,
            working_directory,
            environment: environment(request.arguments.get("environment"))?,
            exit_codes: exit_codes(request.arguments.get("exit_codes"))?,
            leave_behind: if leaves { LeaveBehind::Keep } else { LeaveBehind::Stop },
        })
    }

    /// The user it will run as.
    pub(crate) fn user(&self) -> &EffectiveUser {
        &self.user
    }

    /// Where it will start.
    pub(crate) fn directory(&self) -> &Path {
        self.working_directory.as_deref().unwrap_or(&self.user.home)
    }

    /// A program under these circumstances. Its words are for people, so it gets the host's own time
    /// and UTF-8 in place of what programs get whose words are parsed.
    pub(crate) fn program(&self, path: &Path, request: &ActionRequest, context: &ActionContext) -> Program {
        let mut program = Program::new(path, request.time_limit)
            .user(self.user.clone())
            .leave_behind(self.leave_behind)
            .output_bytes_max(KEPT_BYTES_MAX)
            .stream_to(context.output.clone())
            .variable("LC_ALL", "C.UTF-8")
            .without_variable("TZ");
        if let Some(directory) = &self.working_directory {
            program = program.working_directory(directory);
        }
        for (name, value) in &self.environment {
            program = program.variable(name, value);
        }
        program
    }

    /// The answer of a command that was only to be looked at.
    pub(crate) fn would_run(&self, what: &str, more: Map<String, Value>) -> ActionReply {
        let (user, directory) = (&self.user.name, self.directory().display());
        let message = format!("would run {what} as `{user}` in `{directory}`");
        let mut data = self.data();
        data.extend(more);
        Ok(ActionOk::data(data).with_message(message))
    }

    /// The answer of a command that was run.
    pub(crate) fn answer(&self, run: &Run, program: &Program, more: Map<String, Value>) -> ActionReply {
        let mut data = self.data();
        data.extend(outcome(run));
        data.extend(more);
        let exit_code = match run.end {
            End::Exited(exit_code) => exit_code,
            // Every other end is a failure with a code of its own.
            _ => match run.exit_code(program) {
                Err(failure) => return Err(failure.with_data(data)),
                Ok(exit_code) => exit_code,
            },
        };
        if self.exit_codes.contains(&exit_code) {
            return Ok(ActionOk::data(data));
        }
        Err(run.failure(program, exit_code).with_data(data))
    }

    fn data(&self) -> Map<String, Value> {
        let mut data = Map::new();
        data.insert("user".to_owned(), Value::from(self.user.name.as_str()));
        data.insert("working_directory".to_owned(), Value::from(self.directory().display().to_string()));
        data
    }
}

fn outcome(run: &Run) -> Map<String, Value> {
    let (exit_code, signal) = match &run.end {
        End::Exited(exit_code) => (Some(*exit_code), None),
        End::Signalled(number) => (None, Some(signal_name(*number))),
        End::StartFailed(_) | End::TimedOut | End::Cancelled => (None, None),
    };
    let (stdout, stdout_encoding) = written(&run.stdout);
    let (stderr, stderr_encoding) = written(&run.stderr);
    let outcome = json!({
        "exit_code": exit_code,
        "signal": signal,
        "stdout": stdout,
        "stdout_encoding": stdout_encoding,
        "stdout_bytes": run.stdout.total_bytes,
        "stdout_truncated": run.stdout.is_truncated(),
        "stderr": stderr,
        "stderr_encoding": stderr_encoding,
        "stderr_bytes": run.stderr.total_bytes,
        "stderr_truncated": run.stderr.is_truncated(),
        "unstreamed_bytes": run.unstreamed_bytes,
        "duration_ms": u64::try_from(run.duration.as_millis()).unwrap_or(u64::MAX),
        "left_behind": run.left_behind,
        "output_held_open": run.output_held_open,
        "core_dumped": run.core_dumped,
    });
    match outcome {
        Value::Object(outcome) => outcome,
        _ => Map::new(),
    }
}

/// Output as text where it is text, otherwise as base64. A character that the limit cut in two does not
/// make it something else.
fn written(captured: &Captured) -> (String, &'static str) {
    let bytes = captured.bytes.as_slice();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && captured.is_truncated() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match text {
        Some(text) => (text.to_owned(), "text"),
        None => (BASE64_STANDARD.encode(bytes), "base64"),
    }
}

/// The variables in an argument.
fn environment(given: Option<&Value>) -> Result<Vec<(String, String)>, ActionFailure> {
    let Some(Value::Object(given)) = given else { return Ok(Vec::new()) };
    if given.len() > VARIABLES_MAX {
        let why = format!("input `environment` has {} variables, more than {VARIABLES_MAX}", given.len());
        return Err(ActionFailure::new(&code::LIMIT_EXCEEDED, why));
    }
    let mut variables = Vec::with_capacity(given.len());
    for (name, value) in given {
        let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let plain = name.bytes().all(|byte| first(byte) || byte.is_ascii_digit());
        if !plain || !name.bytes().next().is_some_and(first) || name.len() > VARIABLE_NAME_BYTES_MAX {
            let shown: String = name.chars().take(40).flat_map(char::escape_default).collect();
            return Err(invalid("environment", &format!("has `{shown}`, which is no name of a variable")));
        }
        let text = value.as_str().ok_or_else(|| invalid("environment", &format!("has a `{name}` that is no text")))?;
        // The kernel counts `NAME=` too.
        if text.len() + name.len() + 1 > ARGUMENT_BYTES_MAX {
            let why = format!("variable `{name}` has {} bytes, more than Linux takes", text.len());
            return Err(ActionFailure::new(&code::LIMIT_EXCEEDED, why));
        }
        variables.push((name.clone(), argument_text("environment", text)?.to_owned()));
    }
    Ok(variables)
}

/// The exit codes in an argument.
fn exit_codes(given: Option<&Value>) -> Result<Vec<i32>, ActionFailure> {
    let Some(Value::Array(given)) = given else { return Ok(vec![0]) };
    // A command line's `exit_codes=0,1` is a list of texts.
    let code = |value: &Value| {
        let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        number.filter(|code| (0..=255).contains(code)).and_then(|code: i64| code.try_into().ok())
    };
    let codes: Option<Vec<i32>> = given.iter().map(code).collect();
    match codes {
        Some(codes) if !codes.is_empty() => Ok(codes),
        _ => Err(invalid("exit_codes", "takes a list of whole numbers from 0 to 255, at least one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes: &[u8], total_bytes: u64) -> Captured {
        Captured { bytes: bytes.to_vec(), total_bytes }
    }

    #[test]
    fn output_is_text_where_it_is_text() {
        let check = |bytes: &[u8], total: u64, text: &str, encoding: &str| {
            assert_eq!(
                written(&captured(bytes, total)),
                (text.to_owned(), if encoding == "text" { "text" } else { "base64" })
            );
        };
        check("grün\n".as_bytes(), 6, "grün\n", "text");
        check(b"", 0, "", "text");
        check(&[0xff, 0xfe], 2, "//4=", "base64");
        // Cut in the middle of a character, once by the limit and once by the program.
        check(&[b'a', 0xc3], 9, "a", "text");
        check(&[b'a', 0xc3], 2, "YcM=", "base64");
    }

    #[test]
    fn the_largest_answer_fits_into_a_report() {
        let worst = captured(&vec![1; KEPT_BYTES_MAX], 1 << 40);
        let run = Run {
            end: End::Exited(0),
            stdout: worst.clone(),
            stderr: worst,
            duration: std::time::Duration::ZERO,
            left_behind: 0,
            stopped_elsewhere: 0,
            output_held_open: false,
            unstreamed_bytes: 0,
            core_dumped: false,
        };
        let bytes = serde_json::to_string(&outcome(&run)).unwrap().len();
        assert!(bytes + 8192 < muster_protocol::limits::RESULT_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn variables_have_names_and_texts() {
        let read = |value: Value| environment(Some(&value)).map_err(|failure| failure.code.code);
        assert_eq!(read(json!({ "A_1": "x=y\nz" })), Ok(vec![("A_1".to_owned(), "x=y\nz".to_owned())]));
        for wrong in [
            json!({ "": "x" }),
            json!({ "1A": "x" }),
            json!({ "A=B": "x" }),
            json!({ "A B": "x" }),
            json!({ "A\n": "x" }),
            json!({ "BASH_FUNC_x%%": "() { id; }" }),
            json!({ "Ä": "x" }),
            json!({ "A": 1 }),
            json!({ "A": null }),
            json!({ "A": "x\u{0}y" }),
        ] {
            assert_eq!(read(wrong.clone()), Err("invalid-argument"), "{wrong}");
        }
        assert_eq!(read(json!({ "A": "x".repeat(ARGUMENT_BYTES_MAX) })), Err("limit-exceeded"));
        let many: Map<String, Value> = (0..=VARIABLES_MAX).map(|n| (format!("V{n}"), json!(""))).collect();
        assert_eq!(read(Value::Object(many)), Err("limit-exceeded"));
    }

    #[test]
    fn exit_codes_are_numbers_of_a_byte() {
        let read = |value: Value| exit_codes(Some(&value)).ok();
        assert_eq!(read(json!([0, 2, 255])), Some(vec![0, 2, 255]));
        assert_eq!(read(json!(["0", "3"])), Some(vec![0, 3]), "as a command line writes them");
        for wrong in [json!([]), json!([256]), json!([-1]), json!(["x"]), json!([1.5])] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
