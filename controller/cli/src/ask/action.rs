//! What is to be run: `PLUGIN.ACTION k=v ...` against its description, before anything is sent.

use std::io::Read as _;
use std::path::Path;

use muster_protocol::ddl::{Action, ArgumentError, Ddl};
use muster_protocol::{Options, PluginName};
use serde_json::{Map, Value};

use crate::catalogue::Catalogue;
use crate::output::{ExitCode, Failure};

/// Most bytes of a value from a file. A whole command may have 1 MiB.
const VALUE_BYTES_MAX: u64 = 768 * 1024;

/// Most characters of an argument's value in a line for people.
const SHOWN_CHARACTERS_MAX: usize = 40;

/// An action with its arguments, known to fit its description.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) ddl: &'a Ddl,
    pub(crate) action: &'a Action,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) options: Options,
    /// The action's time limit, in milliseconds.
    pub(crate) time_limit_ms: i64,
}

/// How it is to be run.
#[derive(Debug, Clone, Default)]
pub(crate) struct How {
    pub(crate) noop: bool,
    pub(crate) effective_user: Option<String>,
    pub(crate) timeout_ms: Option<i64>,
}

impl<'a> Wanted<'a> {
    /// Reads the words.
    ///
    /// # Errors
    /// Exit 2: unknown plugin, action or argument, a value that does not fit, an option that the action does not have.
    pub(crate) fn read(catalogue: &'a Catalogue, action: &str, words: &[String], how: How) -> Result<Self, Failure> {
        let name = action;
        let (ddl, action) = catalogue.action(name)?;
        let mut pairs = Vec::with_capacity(words.len());
        for word in words {
            pairs.push(pair(name, word)?);
        }
        let arguments = action.parse_arguments(&pairs).map_err(|error| bad_input(name, &pairs, &error))?;
        let supports = &action.muster.supports;
        let without = |option: &str, what: &str| {
            Failure::new(ExitCode::Usage, "unsupported-option", format!("{name} cannot {what}; nothing was sent"))
                .why("given", option.to_owned())
                .hint(format!("muster plugin show {name}"))
        };
        if how.noop && !supports.noop {
            return Err(without("--noop", "be tried without effect"));
        }
        if how.effective_user.is_some() && !supports.effective_user {
            return Err(without("--effective-user", "run as another user"));
        }
        let ddl_limit_ms = i64::try_from(ddl.timeout_s(action)).unwrap_or(i64::MAX / 1_000).saturating_mul(1_000);
        let options = Options {
            noop: how.noop,
            effective_user: how.effective_user,
            timeout_ms: how.timeout_ms.map(|ms| ms.max(1).unsigned_abs()),
            progress: true,
        };
        let time_limit_ms = how.timeout_ms.unwrap_or(ddl_limit_ms);
        Ok(Self { ddl, action, arguments, options, time_limit_ms })
    }

    /// The plugin.
    pub(crate) fn plugin(&self) -> &PluginName {
        self.ddl.name()
    }

    /// Action and arguments on one line: `package.status name=openssl`.
    pub(crate) fn shown(&self) -> String {
        let mut shown = format!("{}.{}", self.ddl.name(), self.action.name);
        for (name, value) in &self.arguments {
            let value = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let cut: String = value.chars().take(SHOWN_CHARACTERS_MAX).collect();
            let mark = if cut.len() < value.len() { "..." } else { "" };
            shown.push_str(&format!(" {name}={cut}{mark}"));
        }
        shown
    }
}

/// `k=v`, or `k=@FILE` for a value from a file; `k=@@v` for a value that begins with `@`.
fn pair(action: &str, word: &str) -> Result<(String, String), Failure> {
    let Some((name, value)) = word.split_once('=') else {
        return Err(Failure::usage(format!("`{word}` is not an input: write NAME=VALUE"))
            .hint(format!("muster plugin show {action}")));
    };
    let value = match value.strip_prefix('@') {
        None => value.to_owned(),
        Some(rest) if rest.starts_with('@') => rest.to_owned(),
        Some(path) => {
            let mut text = String::new();
            let read =
                std::fs::File::open(path).and_then(|file| file.take(VALUE_BYTES_MAX + 1).read_to_string(&mut text));
            read.map_err(|error| Failure::file("read", Path::new(path), &error))?;
            if text.len() as u64 > VALUE_BYTES_MAX {
                return Err(Failure::usage(format!("`{path}` is larger than {VALUE_BYTES_MAX} bytes")));
            }
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
    };
    Ok((name.to_owned(), value))
}

fn bad_input(action: &str, pairs: &[(String, String)], error: &ArgumentError) -> Failure {
    let failure = Failure::new(ExitCode::Usage, "bad-input", format!("{action}: {error}"));
    let meant = error.suggestion().map(|suggestion| format!("did you mean `{suggestion}`?"));
    // As it was typed: `NAME:=JSON` has its colon in front of the split.
    let json = pairs.iter().any(|(name, _)| name.strip_suffix(':') == Some(error.argument()));
    let equals = if json { ":=" } else { "=" };
    let failure = match (error.given(), meant) {
        (Some(given), Some(meant)) => failure.why("given", format!("{}{equals}{given}      {meant}", error.argument())),
        (Some(given), None) => failure.why("given", format!("{}{equals}{given}", error.argument())),
        (None, Some(meant)) => failure.why("given", format!("{}      {meant}", error.argument())),
        (None, None) => failure,
    };
    failure.hint(format!("muster plugin show {action}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Text;

    fn read(action: &str, words: &[&str], how: How) -> Result<(String, i64), String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let catalogue = Catalogue::builtin();
        match Wanted::read(&catalogue, action, &words, how) {
            Ok(wanted) => Ok((wanted.shown(), wanted.time_limit_ms)),
            Err(failure) => {
                assert_eq!(failure.exit, ExitCode::Usage);
                Err(failure.lines().iter().map(Text::to_plain).collect::<Vec<_>>().join("\n"))
            }
        }
    }

    #[test]
    fn arguments_are_typed_and_shown() {
        let how = How::default();
        assert_eq!(
            read("package.status", &["name=openssl"], how),
            Ok(("package.status name=openssl".to_owned(), 30_000))
        );
        let how = How { timeout_ms: Some(5_000), ..How::default() };
        assert_eq!(read("host.ping", &[], how), Ok(("host.ping".to_owned(), 5_000)));
    }

    #[test]
    fn a_value_may_come_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        std::fs::write(&path, "bash\n").unwrap();
        let word = format!("name=@{}", path.display());
        assert_eq!(read("package.status", &[&word], How::default()).unwrap().0, "package.status name=bash");
    }

    #[test]
    fn what_does_not_fit_is_not_sent() {
        insta::assert_snapshot!(
            "bad_input_unknown",
            read("package.status", &["nmae=openssl"], How::default()).unwrap_err()
        );
        insta::assert_snapshot!(
            "bad_input_invalid",
            read("package.status", &["name=a b"], How::default()).unwrap_err()
        );
        let json = read("package.status", &["name:={"], How::default()).unwrap_err();
        assert!(json.contains("given   name:={"), "{json}");
        insta::assert_snapshot!("bad_input_missing", read("package.status", &[], How::default()).unwrap_err());
        insta::assert_snapshot!("bad_input_form", read("package.status", &["openssl"], How::default()).unwrap_err());
        let how = How { effective_user: Some("joe".to_owned()), ..How::default() };
        insta::assert_snapshot!("bad_input_option", read("package.status", &["name=bash"], how).unwrap_err());
    }
}
