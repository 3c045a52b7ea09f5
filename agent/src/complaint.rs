//! Something that is wrong, on standard error: what, why, and what to try.

use std::io::Write as _;
use std::path::Path;

use muster_agent::policy::PolicyError;
use muster_daemon::config::{ConfigError, Problem};
use muster_daemon::terminal::harmless;
use muster_pki::PkiError;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    what: String,
    why: Vec<String>,
    tries: Vec<String>,
}

impl Complaint {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), why: Vec::new(), tries: Vec::new() }
    }

    /// An error with its causes as reasons.
    pub(crate) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string);
        Self { what: error.to_string(), why: causes.collect(), tries: Vec::new() }
    }

    /// An error of the command as a whole.
    pub(crate) fn of_any(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<PkiError>() {
            Some(pki) => Self::of_pki(pki),
            None => Self {
                what: error.to_string(),
                why: error.chain().skip(1).map(ToString::to_string).collect(),
                tries: Vec::new(),
            },
        }
    }

    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.tries.push(hint.into());
        self
    }

    fn of_pki(error: &PkiError) -> Self {
        Self { tries: error.remedies(), ..Self::of(error) }
    }

    /// A file that a key of the configuration names. `missing` says how to get one.
    pub(crate) fn of_file(key: &str, path: &Path, error: &PkiError, missing: &[String]) -> Self {
        match error {
            PkiError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Self {
                what: format!("`{key}`: there is no file `{}`", path.display()),
                why: Vec::new(),
                tries: missing.to_vec(),
            },
            _ => {
                let mut complaint = Self::of_pki(error);
                complaint.what = format!("`{key}`: {}", complaint.what);
                complaint
            }
        }
    }

    pub(crate) fn of_policy(error: &PolicyError) -> Self {
        match error {
            PolicyError::Read { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::new(format!("`policy.file`: there is no file `{}`", path.display()))
                    .why("without a policy nothing would be allowed")
                    .hint(format!("musterd print-starter-policy > {}", path.display()))
            }
            _ => Self::of(error),
        }
    }

    /// What is wrong with the configuration itself. `file` is its main file.
    pub(crate) fn of_config(error: &ConfigError, file: &Path) -> Vec<Self> {
        match error {
            ConfigError::Invalid { problems } => problems.iter().map(Self::of_problem).collect(),
            ConfigError::Read { path, source } if path == file && source.kind() == std::io::ErrorKind::NotFound => {
                vec![
                    Self::new(format!("there is no configuration: no file `{}`", path.display()))
                        .hint(format!(
                            "copy the example, `dist/etc/musterd.toml`, to `{}` and set `broker.urls`",
                            path.display()
                        ))
                        .hint("musterd --config FILE, or MUSTERD_CONFIG=FILE, if it is elsewhere"),
                ]
            }
            _ => vec![Self::of(error)],
        }
    }

    pub(crate) fn of_problem(problem: &Problem) -> Self {
        Self::new(problem.to_string())
    }

    /// Writes it to standard error.
    pub(crate) fn print(&self) {
        // Where standard error is closed there is nobody to tell.
        drop(std::io::stderr().lock().write_all(harmless(&self.text()).as_bytes()));
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.what.trim_end());
        let mut lines = |label: &str, more: &[String]| {
            for entry in more {
                text.push_str(&format!("  {label}  {}\n", entry.trim_end().replace('\n', "\n       ")));
            }
        };
        lines("why", &self.why);
        lines("try", &self.tries);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_remedies_stand_below() {
        let complaint = Complaint::new("no luck").why("rain\nand wind").hint("a coat").hint("tomorrow");
        assert_eq!(complaint.text(), "error: no luck\n  why  rain\n       and wind\n  try  a coat\n  try  tomorrow\n");
    }

    #[test]
    fn an_open_key_comes_with_the_command_that_closes_it() {
        let error = PkiError::KeyExposed { path: "/k".into(), mode: 0o644 };
        let text = Complaint::of_file("pki.key", Path::new("/k"), &error, &[]).text();
        assert!(text.starts_with("error: `pki.key`: ") && text.ends_with("\n  try  chmod 600 /k\n"), "{text}");
    }
}
