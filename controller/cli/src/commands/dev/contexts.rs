//! The context `dev`: added to the user's configuration file without changing what his other commands do.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Table;

use super::certificates::{self, COLLEAGUE, Files, USER};
use super::place::{Place, write};
use crate::context::{self, NewContext, quoted};
use crate::output::Failure;

/// Its name.
pub(super) const NAME: &str = "dev";

/// The other one, in the file of the directory only.
const COLLEAGUE_NAME: &str = "colleague";

/// What is to be done to the user's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It says what it should.
    None,
    /// It gets this text.
    Write {
        text: String,
        /// The context that was in use because it was the only one, and is now named.
        pinned: Option<String>,
    },
    /// There is a context of this name that is not ours.
    Foreign,
}

/// The lines of the context, for one identity.
fn lines(place: &Place, url: &str, files: &Files) -> Vec<String> {
    let (ca, crl) = certificates::trust(place);
    let line = |key: &str, path: &Path| format!("{key} = {}", quoted(&path.display().to_string()));
    vec![
        format!("broker = [{}]", quoted(url)),
        line("ca", &ca),
        line("crl", &crl),
        line("certificate", &files.certificate),
        line("key", &files.key),
    ]
}

/// Writes the configuration of the directory itself: both contexts, nothing else.
///
/// # Errors
/// It cannot be written.
pub(super) fn write_own(place: &Place, url: &str) -> Result<(), Failure> {
    let mut text = format!(
        "# Written by `muster dev` at each start. `muster --config` with this file needs no other.\n\ncurrent = {}\n",
        quoted(NAME)
    );
    for (name, identity) in [(NAME, USER), (COLLEAGUE_NAME, COLLEAGUE)] {
        let lines = lines(place, url, &certificates::files(place, identity)?);
        text = context::add(&text, &NewContext { name: name.to_owned(), lines });
    }
    write(&place.config(), &text)
}

/// What the user's file has to become, so that `--context dev` is ours and everything else is as it was.
///
/// `known` are the contexts of all files together, `current` the one that they choose.
pub(super) fn plan(
    text: &str,
    known: &[String],
    current: Option<&str>,
    place: &Place,
    url: &str,
) -> Result<Change, Failure> {
    let lines = lines(place, url, &certificates::files(place, USER)?);
    let wanted = NewContext { name: NAME.to_owned(), lines };
    let here = ours(text, place);
    if known.iter().any(|name| name == NAME) && here != Some(true) {
        return Ok(Change::Foreign);
    }
    let without = if here == Some(true) { remove(text, NAME) } else { text.to_owned() };
    let others: Vec<&String> = known.iter().filter(|name| *name != NAME).collect();
    // With a second context beside it, the only one would not be in use any more by itself.
    let pinned = match (others.as_slice(), current) {
        ([only], None) => Some((*only).clone()),
        _ => None,
    };
    let base = match &pinned {
        Some(only) => context::set_current(&without, only),
        None => without,
    };
    let changed = context::add(&base, &wanted);
    if same(text, &changed) {
        return Ok(Change::None);
    }
    Ok(Change::Write { text: changed, pinned })
}

/// The user's file without the context, if it is ours; `None` if there is nothing to do.
pub(super) fn plan_removal(text: &str, place: &Place) -> Option<String> {
    if ours(text, place) != Some(true) {
        return None;
    }
    let is_choice = |line: &str| {
        let value = line.trim().strip_prefix("current").and_then(|rest| rest.trim_start().strip_prefix('='));
        value.is_some_and(|value| value.trim() == quoted(NAME))
    };
    let text = remove(text, NAME);
    let top = text.lines().take_while(|line| !line.trim_start().starts_with('[')).count();
    let kept: Vec<&str> =
        text.lines().enumerate().filter(|(at, line)| *at >= top || !is_choice(line)).map(|(_, line)| line).collect();
    Some(if kept.is_empty() { String::new() } else { kept.join("\n") + "\n" })
}

/// Whether the file's context of this name belongs to this directory; `None` if there is none.
fn ours(text: &str, place: &Place) -> Option<bool> {
    let table: Table = text.parse().ok()?;
    let ca = table.get("context")?.get(NAME)?.get("ca").and_then(toml::Value::as_str);
    Some(ca.is_some_and(|ca| Path::new(ca) == certificates::trust(place).0))
}

/// Takes a context's lines away, from its heading to the next one.
fn remove(text: &str, name: &str) -> String {
    let heading = format!("[context.{name}]");
    let mut kept: Vec<&str> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.trim_start().starts_with('[') {
            inside = line.trim() == heading;
            // The empty line before it came with it.
            if inside && kept.last().is_some_and(|last| last.trim().is_empty()) {
                kept.pop();
            }
        }
        if !inside {
            kept.push(line);
        }
    }
    if kept.is_empty() { String::new() } else { kept.join("\n") + "\n" }
}

/// Whether both texts say the same.
fn same(one: &str, other: &str) -> bool {
    let table = |text: &str| text.parse::<Table>().ok();
    table(one).is_some() && table(one) == table(other)
}

/// Whether a changed text says of all contexts but ours what the old one said.
pub(super) fn keeps_others(before: &str, after: &str) -> bool {
    let others = |text: &str| -> Option<BTreeMap<String, toml::Value>> {
        let table: Table = text.parse().ok()?;
        let contexts = table.get("context").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        Some(contexts.into_iter().filter(|(name, _)| name != NAME).collect())
    };
    matches!((others(before), others(after)), (Some(before), Some(after)) if before == after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "amqps://127.0.0.1:5671/muster";

    fn place() -> Place {
        Place::find(Some(Path::new("/home/lea/.local/state/muster/dev")), |_| None).unwrap()
    }

    fn contexts(text: &str) -> Vec<String> {
        let table: Table = text.parse().unwrap();
        table.get("context").and_then(toml::Value::as_table).map(|it| it.keys().cloned().collect()).unwrap_or_default()
    }

    fn planned(text: &str) -> Change {
        let table: Table = text.parse().unwrap();
        let current = table.get("current").and_then(toml::Value::as_str);
        let change = plan(text, &contexts(text), current, &place(), URL).unwrap();
        if let Change::Write { text: changed, .. } = &change {
            assert!(keeps_others(text, changed), "{changed}");
        }
        change
    }

    #[test]
    fn the_context_in_use_stays_in_use() {
        let check = |text: &str, pinned: Option<&str>, current: Option<&str>| {
            let Change::Write { text: changed, pinned: found } = planned(text) else { panic!("{text}") };
            assert_eq!(found.as_deref(), pinned, "{text}");
            let table: Table = changed.parse().unwrap();
            assert_eq!(table.get("current").and_then(toml::Value::as_str), current, "{changed}");
            assert!(contexts(&changed).contains(&NAME.to_owned()), "{changed}");
            assert_eq!(planned(&changed), Change::None, "{changed}");
        };
        check("", None, None);
        check("# mine\n[context.prod]\nca = \"x\"\n", Some("prod"), Some("prod"));
        check("current = \"prod\"\n[context.prod]\n", None, Some("prod"));
        check("[context.lab]\n[context.prod]\n", None, None);
    }

    #[test]
    fn another_address_replaces_ours_alone() {
        let Change::Write { text: first, .. } = planned("# a\n[context.prod] # b\nca = \"x\"\n# c\n") else { panic!() };
        let changed = plan(&first, &contexts(&first), Some("prod"), &place(), "amqps://mq1/muster").unwrap();
        let Change::Write { text, pinned: None } = changed else { panic!("{changed:?}") };
        assert!(text.contains("amqps://mq1/muster") && !text.contains(URL), "{text}");
        assert!(text.starts_with("current = \"prod\"\n# a\n[context.prod] # b\nca = \"x\"\n# c\n"), "{text}");
        let removed = plan_removal(&text, &place()).unwrap();
        assert_eq!(removed, "current = \"prod\"\n# a\n[context.prod] # b\nca = \"x\"\n# c\n");
    }

    #[test]
    fn somebody_elses_context_is_left_alone() {
        for text in ["[context.dev]\nca = \"/elsewhere/ca.pem\"\n", "[context.dev]\n"] {
            assert_eq!(planned(text), Change::Foreign, "{text}");
            assert_eq!(plan_removal(text, &place()), None, "{text}");
        }
        // In a file of the system.
        assert_eq!(plan("", &[NAME.to_owned()], None, &place(), URL).unwrap(), Change::Foreign);
    }

    #[test]
    fn a_removed_context_is_not_chosen_any_more() {
        let Change::Write { text, .. } = planned("") else { panic!() };
        let chosen = context::set_current(&text, NAME);
        assert_eq!(plan_removal(&chosen, &place()).unwrap().trim(), "");
        assert_eq!(plan_removal("", &place()), None);
    }
}
