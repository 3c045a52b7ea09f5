//! What the shell can propose: contexts, hosts, facts and their values, actions, arguments, codes.
//!
//! Everything comes from local files. Where they are missing, broken or too slow, nothing is
//! proposed and nothing is said: a prompt is no place for an error.

use std::ffi::OsStr;
use std::sync::mpsc;
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use muster_client::cache::HostCache;
use muster_daemon::{Clock as _, SystemClock};
use muster_protocol::Timestamp;
use muster_protocol::ddl::{Input, ValueType};

use crate::catalogue::Catalogue;
use crate::context::{self, Context, Files, Locations, Selection};
use crate::remembered;
use crate::requests::Requests;

/// How long reading the local files may take.
const BUDGET: Duration = Duration::from_millis(150);

/// A proposal and what it is.
type Proposal = (String, Option<String>);

/// Names of contexts.
pub(crate) fn contexts() -> ArgValueCompleter {
    completer(|_, typed| {
        let locations = Locations::detect(&Selection::default(), &context::variables());
        let files = Files::read(&locations).ok()?;
        Some(starting(files.raw.context.into_keys().map(|name| (name, None)), typed))
    })
}

/// Names of hosts that have answered before; after a comma, the next one.
pub(crate) fn hosts() -> ArgValueCompleter {
    completer(|line, typed| {
        let (before, last) = typed.rsplit_once(',').map_or(("", typed), |(before, last)| (before, last));
        let prefix = if before.is_empty() { String::new() } else { format!("{before},") };
        let cache = line.cache()?;
        let names = cache.hosts().keys().map(ToString::to_string).filter(|name| name.starts_with(last));
        Some(names.map(|name| (format!("{prefix}{name}"), None)).collect())
    })
}

/// Names and values for a target expression.
pub(crate) fn targets() -> ArgValueCompleter {
    completer(|line, typed| {
        let mut cache = line.cache()?;
        let names: Vec<String> = cache.names().into_iter().collect();
        Some(target(typed, &names, |path| cache.values(path).into_iter().collect()))
    })
}

/// Paths of facts.
pub(crate) fn facts() -> ArgValueCompleter {
    completer(|line, typed| Some(starting(line.cache()?.names().into_iter().map(|name| (name, None)), typed)))
}

/// `PLUGIN.ACTION`; before the dot, the plugins.
pub(crate) fn actions() -> ArgValueCompleter {
    completer(|line, typed| {
        let catalogue = line.catalogue();
        let all = catalogue.iter().flat_map(|ddl| {
            ddl.actions
                .iter()
                .map(|action| (format!("{}.{}", ddl.name(), action.name), Some(action.description.clone())))
        });
        Some(starting(all, typed))
    })
}

/// `PLUGIN` or `PLUGIN.ACTION`.
pub(crate) fn plugins_and_actions() -> ArgValueCompleter {
    completer(|line, typed| {
        let catalogue = line.catalogue();
        let plugins = catalogue.iter().map(|ddl| (ddl.name().to_string(), Some(ddl.metadata.description.clone())));
        let actions = catalogue.iter().filter(|ddl| typed.starts_with(&format!("{}.", ddl.name()))).flat_map(|ddl| {
            ddl.actions
                .iter()
                .map(|action| (format!("{}.{}", ddl.name(), action.name), Some(action.description.clone())))
        });
        Some(starting(plugins.chain(actions), typed))
    })
}

/// `key=value` for the action that stands earlier in the line.
pub(crate) fn arguments() -> ArgValueCompleter {
    completer(|line, typed| {
        let catalogue = line.catalogue();
        let action = line.words.iter().find_map(|word| catalogue.action(word).ok());
        let (_, action) = action?;
        // Bash breaks words at `=`, so the value may stand alone behind the key and the sign.
        if let [.., key, sign] = line.before()
            && sign == "="
        {
            return Some(starting(values(action.input.get(key)?), typed));
        }
        Some(match typed.split_once('=') {
            Some((key, value)) => starting(values(action.input.get(key)?), value)
                .into_iter()
                .map(|(value, help)| (format!("{key}={value}"), help))
                .collect(),
            None => {
                let inputs = action.input.iter();
                starting(inputs.map(|(name, input)| (format!("{name}="), Some(input.description.clone()))), typed)
            }
        })
    })
}

/// Requests that were made from here, newest first.
pub(crate) fn requests() -> ArgValueCompleter {
    completer(|_, typed| {
        let last = ("last".to_owned(), Some("the newest of all".to_owned()));
        let all = Requests::of_user().all();
        let all = all.into_iter().rev().map(|request| (request.id.to_string(), Some(request.what)));
        Some(starting(std::iter::once(last).chain(all), typed))
    })
}

/// Codes of `muster explain`.
pub(crate) fn codes() -> ArgValueCompleter {
    completer(|_, typed| {
        let all = crate::codes::all().map(|row| (row.code.to_owned(), Some(row.summary.to_owned())));
        Some(starting(all, typed))
    })
}

/// The values an input can take, where they can be listed.
fn values(input: &Input) -> Vec<Proposal> {
    let listed = input.values.iter().cloned();
    let boolean = matches!(input.kind, ValueType::Boolean).then_some(["true", "false"]);
    let default = input.usable_default().and_then(serde_json::Value::as_str);
    let all = listed.chain(boolean.into_iter().flatten().map(str::to_owned)).chain(default.map(str::to_owned));
    let mut all: Vec<Proposal> = all.map(|value| (value, None)).collect();
    all.dedup();
    all
}

fn starting(all: impl IntoIterator<Item = Proposal>, typed: &str) -> Vec<Proposal> {
    all.into_iter().filter(|(text, _)| text.starts_with(typed)).collect()
}

/// The command line that is being typed.
#[derive(Debug, Clone, Default)]
struct Line {
    words: Vec<String>,
    index: usize,
}

impl Line {
    /// As the shell's script hands it over: the words behind `--`, and which one is completed.
    fn read() -> Self {
        let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
        let words: Vec<String> = words.filter_map(|word| word.into_string().ok()).collect();
        let index = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
        Self { index: index.unwrap_or(words.len().saturating_sub(1)), words }
    }

    /// The words before the one that is completed.
    fn before(&self) -> &[String] {
        &self.words[..self.index.min(self.words.len())]
    }

    fn flag(&self, name: &str) -> Option<String> {
        let joined = format!("{name}=");
        let separate = self.words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
        separate.or_else(|| self.words.iter().find_map(|word| word.strip_prefix(&joined).map(str::to_owned)))
    }

    fn context(&self) -> Option<Context> {
        let config = self.flag("--config").map(Into::into);
        context::load(&Selection { context: self.flag("--context"), config }).ok()
    }

    fn cache(&self) -> Option<HostCache> {
        Some(remembered::hosts(&self.context()?, Timestamp(SystemClock.now_ms())))
    }

    fn catalogue(&self) -> Catalogue {
        Catalogue::load(self.context().as_ref()).unwrap_or_else(|_| Catalogue::builtin())
    }
}

/// A completer that gives up after its budget. The thread it leaves behind ends with the process, a moment later.
fn completer(
    propose: impl Fn(&Line, &str) -> Option<Vec<Proposal>> + Clone + Send + Sync + 'static,
) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let Some(typed) = typed.to_str().map(str::to_owned) else { return Vec::new() };
        let propose = propose.clone();
        let (sender, receiver) = mpsc::sync_channel(1);
        let lookup = move || {
            // Zsh hands over the opening quote of an unfinished word, bash does not.
            let typed = typed.trim_start_matches(['\'', '"']);
            // Nobody listens any more once the budget is spent.
            drop(sender.send(propose(&Line::read(), typed).unwrap_or_default()));
        };
        if std::thread::Builder::new().name("complete".to_owned()).spawn(lookup).is_err() {
            return Vec::new();
        }
        let proposals = receiver.recv_timeout(BUDGET).unwrap_or_default();
        proposals.into_iter().map(|(text, help)| CompletionCandidate::new(text).help(help.map(Into::into))).collect()
    })
}

/// Proposals for a target expression: a name, the values behind `NAME =`, or `and` and `or` behind a whole condition.
fn target(typed: &str, names: &[String], mut values: impl FnMut(&str) -> Vec<(String, usize)>) -> Vec<Proposal> {
    let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/' | '"');
    let start = typed.rfind(|c| !in_word(c)).map_or(0, |index| index + 1);
    let (head, word) = typed.split_at(start);
    let before = head.trim_end();
    let propose = |text: &str, help: Option<String>| (format!("{head}{text}"), help);
    if let Some(left) = ["!=", ">=", "<=", "=", ">", "<", "~"].iter().find_map(|sign| before.strip_suffix(sign)) {
        let path = left.trim_end().rsplit(|c: char| !in_word(c)).next().unwrap_or_default();
        let listed = values(path).into_iter().map(|(value, hosts)| (literal(&value), hosts));
        let fitting = listed.filter(|(value, _)| value.trim_matches('"').starts_with(word.trim_matches('"')));
        return fitting
            .map(|(value, hosts)| propose(&value, Some(crate::output::number::counted(hosts, "host", "hosts"))))
            .collect();
    }
    let last = before.rsplit([' ', '(']).next().unwrap_or_default();
    let begins = before.is_empty() || before.ends_with('(') || matches!(last, "and" | "or" | "not");
    let choices: Vec<&str> = match begins {
        true => names.iter().map(String::as_str).chain(["not"]).collect(),
        false => vec!["and", "or"],
    };
    choices.into_iter().filter(|choice| choice.starts_with(word)).map(|choice| propose(choice, None)).collect()
}

/// A value as it is written in an expression.
fn literal(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !value.is_empty() && value.chars().all(plain) {
        true => value.to_owned(),
        false => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_proposed_word_by_word() {
        let names = ["os.family", "os.name", "role"].map(str::to_owned);
        let check = |typed: &str, expected: &[&str]| {
            let values = |path: &str| match path {
                "os.family" => vec![("Debian".to_owned(), 3), ("Red Hat".to_owned(), 1)],
                _ => Vec::new(),
            };
            let proposals: Vec<String> = target(typed, &names, values).into_iter().map(|(text, _)| text).collect();
            assert_eq!(proposals, expected, "{typed}");
        };
        check("", &["os.family", "os.name", "role", "not"]);
        check("os.", &["os.family", "os.name"]);
        check("os.family = ", &["os.family = Debian", "os.family = \"Red Hat\""]);
        check("os.family=D", &["os.family=Debian"]);
        check("os.family = \"R", &["os.family = \"Red Hat\""]);
        check("os.family = Debian ", &["os.family = Debian and", "os.family = Debian or"]);
        check("os.family = Debian and ro", &["os.family = Debian and role"]);
        check("not (os.n", &["not (os.name"]);
        check("unknown = ", &[]);
    }

    #[test]
    fn flags_of_the_line_count() {
        let line = |text: &str| Line { words: text.split(' ').map(str::to_owned).collect(), index: 0 };
        assert_eq!(line("muster --context lab ping").flag("--context").as_deref(), Some("lab"));
        assert_eq!(line("muster ping --context=lab").flag("--context").as_deref(), Some("lab"));
        assert_eq!(line("muster ping").flag("--context"), None);
    }
}
