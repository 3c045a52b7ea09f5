//! A pending command as it is shown: every signed field, in words and as a document.

use std::path::Path;

use muster_client::Pending;
use muster_pki::Signer;
use muster_plugin_api::MASK;
use muster_protocol::ddl::Action;
use muster_protocol::{HostName, RequestId, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use super::unusual::unusual;
use crate::context::Context;
use crate::output::{Text, fold, number, time};

/// Schema of its documents.
pub(crate) const SCHEMA: &str = "muster.pending/v1";

/// Most characters of an argument's value that are shown without `--full`.
const VALUE_CHARACTERS_MAX: usize = 2_000;

/// Width of the column of labels.
const LABEL_WIDTH: usize = 14;

/// Who has signed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SignerRecord {
    identity: String,
    groups: Vec<String>,
    certificate: String,
    certificate_until: String,
}

impl SignerRecord {
    fn of(signer: &Signer) -> Self {
        Self {
            identity: signer.identity.to_string(),
            groups: signer.groups.iter().map(ToString::to_string).collect(),
            certificate: signer.fingerprint.clone(),
            certificate_until: time::rfc3339(signer.not_after),
        }
    }

    fn line(&self) -> String {
        let name = self.identity.strip_prefix("muster:").unwrap_or(&self.identity);
        let groups = match self.groups.as_slice() {
            [] => "no group".to_owned(),
            [one] => format!("group {one}"),
            several => format!("groups {}", several.join(", ")),
        };
        format!("{name} ({groups}; certificate {})", &self.certificate[..self.certificate.len().min(16)])
    }
}

/// Everything that was signed, and who did.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct View {
    pub(crate) kind: &'static str,
    pub(crate) file: String,
    pub(crate) request_id: RequestId,
    pub(crate) digest: String,
    /// The caller first.
    pub(crate) signers: Vec<SignerRecord>,
    pub(crate) caller: String,
    pub(crate) created_at: String,
    pub(crate) expires_at: String,
    pub(crate) expired: bool,
    pub(crate) collective: String,
    pub(crate) plugin: String,
    pub(crate) action: String,
    pub(crate) arguments: Map<String, Value>,
    /// Names of secret arguments. Only the hosts can open their values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<String>,
    pub(crate) noop: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effective_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) requires: Vec<String>,
    /// How many signed commands it is.
    pub(crate) commands: usize,
    pub(crate) hosts: Vec<HostName>,
    /// What to look at twice.
    pub(crate) warnings: Vec<String>,
    #[serde(skip)]
    made: Timestamp,
    #[serde(skip)]
    until: Timestamp,
    #[serde(skip)]
    description: Option<String>,
}

impl View {
    /// The view of a checked one. `action` is its description on this machine.
    pub(crate) fn of(
        pending: &Pending,
        path: &Path,
        action: Option<&Action>,
        context: &Context,
        now: Timestamp,
    ) -> Self {
        let command = pending.command();
        Self {
            kind: "pending",
            file: path.display().to_string(),
            request_id: pending.id(),
            digest: pending.digest(),
            signers: pending.signers().iter().map(SignerRecord::of).collect(),
            caller: command.caller.to_string(),
            created_at: time::rfc3339(command.created_at_ms),
            expires_at: time::rfc3339(command.expires_at_ms),
            expired: now.since_ms(command.expires_at_ms) >= 0,
            collective: command.collective.to_string(),
            plugin: command.plugin.to_string(),
            action: command.action.to_string(),
            arguments: command.arguments.clone(),
            secrets: command.sealed.iter().flat_map(|sealed| sealed.names.iter().cloned()).collect(),
            noop: command.options.noop,
            effective_user: command.options.effective_user.clone(),
            timeout_ms: command.options.timeout_ms,
            requires: command.requires.clone(),
            commands: pending.count(),
            hosts: pending.hosts().into_iter().collect(),
            warnings: unusual(pending, action, context, now),
            made: command.created_at_ms,
            until: command.expires_at_ms,
            description: action.map(|action| action.description.clone()).filter(|text| !text.is_empty()),
        }
    }

    /// For people. All hosts are named, folded into ranges; `full` gives each a line, and values at any length.
    pub(crate) fn lines(&self, now: Timestamp, full: bool) -> Vec<Text> {
        let mut lines = vec![Text::from("pending ").strong(self.request_id.to_string())];
        let mut line = |label: &str, text: Text| {
            lines.push(Text::from("  ").dim(label).pad_to(LABEL_WIDTH).join(text));
        };
        line("action", Text::new().strong(format!("{}.{}", self.plugin, self.action)));
        if let Some(description) = &self.description {
            line("", Text::new().dim(first_line(description)));
        }
        for (name, value) in &self.arguments {
            let limit = if full { usize::MAX } else { VALUE_CHARACTERS_MAX };
            let (mut shown, count) = value_lines(value, limit);
            if count > limit {
                shown.push(format!("... {} characters; --full shows all", number::count(count)));
            }
            let head = Text::new().strong(visible(name)).plain(" = ");
            match shown.as_slice() {
                [one] => line("argument", head.plain(one)),
                several => {
                    line("argument", head);
                    several.iter().for_each(|text| line("", Text::from("  ").plain(text)));
                }
            }
        }
        for name in &self.secrets {
            line("secret", Text::new().strong(visible(name)).plain(" = ").plain(MASK));
        }
        line("noop", Text::from(if self.noop { "yes: nothing is changed" } else { "no" }));
        if let Some(user) = &self.effective_user {
            line("as user", Text::from(visible(user)));
        }
        if let Some(timeout_ms) = self.timeout_ms {
            line("time limit", Text::from(time::span(i64::try_from(timeout_ms).unwrap_or(i64::MAX))));
        }
        let hosts: Vec<&str> = self.hosts.iter().map(HostName::as_str).collect();
        line("hosts", Text::new().strong(number::counted(hosts.len(), "host", "hosts")));
        let names = if full { hosts.iter().map(|host| (*host).to_owned()).collect() } else { fold::fold(hosts) };
        names.iter().for_each(|name| line("", Text::from(name)));
        line("collective", Text::from(&self.collective));
        for (index, signer) in self.signers.iter().enumerate() {
            line(if index == 0 { "caller" } else { "approved by" }, Text::from(signer.line()));
        }
        line("made", Text::from(format!("{}, {}", self.created_at, time::ago(self.made, now))));
        let left = if self.expired { "expired".to_owned() } else { time::ago(self.until, now) };
        line("until", Text::from(format!("{}, {left}", self.expires_at)));
        if self.commands > 1 {
            line("commands", Text::from(format!("{}, alike but for ids and hosts", self.commands)));
        }
        line("digest", Text::from(format!("sha256:{}", self.digest)));
        lines
    }
}

/// A warning for each argument of which [`View::lines`] shows only the beginning without `full`.
pub(crate) fn shown_in_part(arguments: &Map<String, Value>) -> Vec<String> {
    let is_cut = |value: &Value| value_lines(value, VALUE_CHARACTERS_MAX).1 > VALUE_CHARACTERS_MAX;
    let warn =
        |name: &String| format!("argument `{name}` is shown in part: read all of it with --full before you sign");
    arguments.iter().filter(|(_, value)| is_cut(value)).map(|(name, _)| warn(name)).collect()
}

/// A value in lines: text of several lines as they are, marked, everything else as JSON. At most `limit` characters of it are
/// in them; with them comes how many it has, counted as it is written here, since JSON takes more than one for some.
fn value_lines(value: &Value, limit: usize) -> (Vec<String>, usize) {
    let (text, has_lines) = match value {
        Value::String(text) if text.contains('\n') => (text.clone(), true),
        other => (other.to_string(), false),
    };
    let cut: String = text.chars().take(limit).collect();
    let lines = match has_lines {
        true => cut.split('\n').map(|line| format!("| {}", visible(line))).collect(),
        false => vec![visible(&cut)],
    };
    (lines, text.chars().count())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Whether every character of a text is one that can only be read as itself.
pub(super) fn is_plain(text: &str) -> bool {
    text.chars().all(|character| character.is_ascii_graphic() || matches!(character, ' ' | '\n' | '\t'))
}

/// The text with everything that is not printable ASCII written out, so that what is signed is what was read: no letter that looks
/// like another, nothing that a terminal would act on, nothing that cannot be seen.
fn visible(text: &str) -> String {
    let shown = |character: char| match character {
        ' '..='~' => character.to_string(),
        other => other.escape_unicode().to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_only_be_read_as_itself() {
        let check = |text: &str, expected: &str| {
            assert_eq!(visible(text), expected);
            assert_eq!(is_plain(text), text == expected, "{text:?}");
        };
        check("rm -rf /tmp/x", "rm -rf /tmp/x");
        check("a\u{1b}[2Jb", "a\\u{1b}[2Jb");
        check("pa\u{200b}th", "pa\\u{200b}th");
        check("p\u{430}ypal", "p\\u{430}ypal");
        check("\u{202e}txt.exe", "\\u{202e}txt.exe");
        check("\r", "\\u{d}");
        let lines = |text: &str, limit: usize| value_lines(&Value::from(text), limit).0;
        assert_eq!(lines("a \n\tb\n", 99), ["| a ", "| \\u{9}b", "| "]);
        assert_eq!(lines("one ", 99), ["\"one \""], "blanks at the end are seen");
        assert_eq!(lines("a\nbcd", 3), ["| a", "| b"]);
    }

    /// Before, the characters of the text were counted and those of its JSON were cut, so that the end of a command
    /// behind a row of tabs or quotes was neither shown nor told to be missing.
    #[test]
    fn whatever_is_left_out_is_told() {
        let check = |value: Value| {
            let (whole, written) = value_lines(&value, usize::MAX);
            for limit in 1..=written {
                let (shown, count) = value_lines(&value, limit);
                assert_eq!(count, written, "{value}");
                assert_eq!(shown == whole, limit == written, "{value} in {limit}");
            }
        };
        check(Value::from(format!("true{}; rm -rf /", "\t".repeat(20))));
        check(Value::from(format!("echo {}; rm -rf /", "\"\\".repeat(20))));
        check(Value::from("\u{1}\u{e4}\u{1}; rm -rf /"));
        check(Value::from("one\ntwo\t\nthree"));
        check(serde_json::json!({"a": ["\t\t", 1.5, null], "\"b\"": true}));
        let arguments = serde_json::json!({"a": "x".repeat(1_998), "b": "x".repeat(1_999), "c": "\t".repeat(1_000)});
        let warned = shown_in_part(arguments.as_object().unwrap());
        assert_eq!(warned.len(), 2, "with its quotes it has 2,000, 2,001 and 2,002 characters");
        assert!(warned[0].contains("`b`") && warned[1].contains("`c`"), "{warned:?}");
    }
}
