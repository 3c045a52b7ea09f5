//! What is to be run: `PLUGIN.ACTION k=v ...` against its description, before anything is sent.

use muster_client::secrets::Secrets;
use muster_plugin_api::MASK;
use muster_protocol::ddl::{Action, ArgumentError, Ddl, Input};
use muster_protocol::{Options, PluginName};
use serde_json::{Map, Value};

use super::input::Inputs;
use crate::catalogue::Catalogue;
use crate::output::{ExitCode, Failure};

/// Most characters of an argument's value in a line for people.
const SHOWN_CHARACTERS_MAX: usize = 40;

/// A value of more bytes than this without a blank is a file's content, whose beginning tells nobody anything.
const BLOB_BYTES_MIN: usize = 512;

/// An action with its arguments, known to fit its description.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) ddl: &'a Ddl,
    pub(crate) action: &'a Action,
    pub(crate) arguments: Map<String, Value>,
    /// Arguments that nobody may see, the hosts apart.
    pub(crate) secrets: Secrets,
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
    /// Checks the inputs against the description.
    ///
    /// # Errors
    /// Exit 2: unknown plugin, action or argument, a value that does not fit, an option that the action does not have.
    pub(crate) fn read(catalogue: &'a Catalogue, action: &str, inputs: &Inputs, how: How) -> Result<Self, Failure> {
        let name = action;
        let (ddl, action) = catalogue.action(name)?;
        let pairs = inputs.pairs.as_slice();
        let mut arguments = action.parse_arguments(pairs).map_err(|error| bad_input(name, action, pairs, &error))?;
        let secret = ddl.secret_inputs(&action.name);
        let secrets = Secrets::new(secret.filter_map(|name| arguments.remove_entry(name)).collect());
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
        Ok(Self { ddl, action, arguments, secrets, options, time_limit_ms })
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
            if value.len() > BLOB_BYTES_MIN && !value.contains(char::is_whitespace) {
                shown
                    .push_str(&format!(" {name}=({} characters)", crate::output::number::count(value.chars().count())));
                continue;
            }
            let cut: String = value.chars().take(SHOWN_CHARACTERS_MAX).collect();
            let mark = if cut.len() < value.len() { "..." } else { "" };
            shown.push_str(&format!(" {name}={cut}{mark}"));
        }
        self.secrets.names().for_each(|name| shown.push_str(&format!(" {name}={MASK}")));
        shown
    }
}

fn bad_input(name: &str, action: &Action, pairs: &[(String, String)], error: &ArgumentError) -> Failure {
    let failure = Failure::new(ExitCode::Usage, "bad-input", format!("{name}: {error}"));
    if action.input.get(error.argument()).is_some_and(Input::is_secret) {
        // Not even a piece of what was given, nor what it comes near to.
        return match error {
            ArgumentError::Missing { argument, .. } => failure
                .why("note", "it is secret, and there is no terminal to ask at")
                .hint(format!("{argument}=@FILE, or {argument}=- with the value piped in")),
            _ => failure.why("given", MASK).hint(format!("muster plugin show {name}")),
        };
    }
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
    failure.hint(format!("muster plugin show {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::input;
    use crate::output::Text;

    fn read(action: &str, words: &[&str], how: How) -> Result<(String, i64), String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let catalogue = Catalogue::builtin();
        let (_, described) = catalogue.action(action).map_err(shown)?;
        let none = || Ok(zeroize::Zeroizing::new(Vec::new()));
        let inputs = input::read(action, described, &words, Vec::new(), none).map_err(shown)?;
        match Wanted::read(&catalogue, action, &inputs, how) {
            Ok(wanted) => Ok((wanted.shown(), wanted.time_limit_ms)),
            Err(failure) => Err(shown(failure)),
        }
    }

    fn shown(failure: Failure) -> String {
        assert_eq!(failure.exit, ExitCode::Usage);
        failure.lines().iter().map(Text::to_plain).collect::<Vec<_>>().join("\n")
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
        insta::assert_snapshot!("bad_input_missing", read("service.status", &[], How::default()).unwrap_err());
        insta::assert_snapshot!("bad_input_form", read("package.status", &["openssl"], How::default()).unwrap_err());
        let how = How { effective_user: Some("joe".to_owned()), ..How::default() };
        insta::assert_snapshot!("bad_input_option", read("package.status", &["name=bash"], how).unwrap_err());
    }
}
