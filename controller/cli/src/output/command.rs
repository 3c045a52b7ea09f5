//! Commands that are shown so that somebody can type them as they are.

use std::path::PathBuf;

/// What the command line said beside its words that decides where a further command goes. Without it the same words would
/// ask another broker, or remove something else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surely {
    /// `--config FILE`.
    pub(crate) config: Option<PathBuf>,
    /// `--context NAME`.
    pub(crate) context: Option<String>,
    /// `muster dev` itself was typed, which writes its context into the file of `--config`.
    pub(crate) dev: bool,
}

impl Surely {
    /// The command with the flags that lead it where this one went. What is no command of ours stays as it is.
    pub(crate) fn typable(&self, command: &str) -> String {
        let Some(rest) = command.strip_prefix("muster ") else { return command.to_owned() };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (takes_config, takes_context) = match words.first().copied() {
            // Their `--config` is another one, or they ask no broker.
            None | Some("broker" | "explain" | "completion") => (false, false),
            Some("pki") => (words.get(1) == Some(&"publish"), words.get(1) == Some(&"publish")),
            Some("plugin") => (true, !matches!(words.get(1).copied(), Some("new" | "pack" | "check"))),
            Some("dev") => (self.dev, false),
            // The one that is meant stands there, or all are.
            Some("context") => {
                (true, words.get(1) == Some(&"show") && words.get(2).is_none_or(|it| it.starts_with('-')))
            }
            Some(_) => (true, true),
        };
        let says = |flag: &str| {
            words.iter().any(|it| *it == flag || it.strip_prefix(flag).is_some_and(|it| it.starts_with('=')))
        };
        let mut typable = "muster".to_owned();
        let config = self.config.as_ref().filter(|_| takes_config && !says("--config"));
        if let Some(config) = config {
            typable.push_str(&format!(" --config {}", word(&config.display().to_string())));
        }
        if let Some(context) = self.context.as_ref().filter(|_| takes_context && !says("--context")) {
            typable.push_str(&format!(" --context {}", word(context)));
        }
        typable.push(' ');
        typable.push_str(rest);
        typable
    }
}

/// A word as a shell reads it.
pub(crate) fn word(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=,:@%+".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_where_the_one_before_went() {
        let said = |config: Option<&str>, context: Option<&str>, dev| Surely {
            config: config.map(Into::into),
            context: context.map(Into::into),
            dev,
        };
        let both = said(Some("my files/c.toml"), Some("lab"), false);
        let check = |surely: &Surely, command: &str, expected: &str| assert_eq!(surely.typable(command), expected);
        check(&both, "muster doctor", "muster --config 'my files/c.toml' --context lab doctor");
        check(&both, "muster context list", "muster --config 'my files/c.toml' context list");
        check(
            &both,
            "muster context show --origin",
            "muster --config 'my files/c.toml' --context lab context show --origin",
        );
        check(
            &both,
            "muster context show prod --origin",
            "muster --config 'my files/c.toml' context show prod --origin",
        );
        check(&both, "muster broker status --list queues", "muster broker status --list queues");
        check(&both, "muster explain no-match", "muster explain no-match");
        check(&both, "muster pki list", "muster pki list");
        check(&both, "muster plugin new NAME", "muster --config 'my files/c.toml' plugin new NAME");
        check(&both, "muster dev", "muster dev");
        check(
            &said(Some("c.toml"), None, true),
            "muster dev reset --dir /x",
            "muster --config c.toml dev reset --dir /x",
        );
        check(&both, "muster --context prod ping", "muster --config 'my files/c.toml' --context prod ping");
        check(&both, "ls -l /etc", "ls -l /etc");
        check(&Surely::default(), "muster doctor", "muster doctor");
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_more_into_it() {
        for (text, expected) in [("a-1.b/c", "a-1.b/c"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")] {
            assert_eq!(word(text), expected);
        }
    }
}
