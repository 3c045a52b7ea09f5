//! `resources.txt`: the resources of the last catalog, one `type[title]` a line, all in lower case.

use std::collections::BTreeMap;

use serde::Serialize;

/// How many of one type there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TypeCount {
    #[serde(rename = "type")]
    kind: String,
    count: u64,
}

/// Counts the resources by type, most frequent first.
pub(super) fn count(text: &str) -> (u64, Vec<TypeCount>) {
    let mut counts = BTreeMap::<&str, u64>::new();
    for (kind, _) in text.lines().filter_map(parts) {
        *counts.entry(kind).or_default() += 1;
    }
    let total = counts.values().sum();
    let mut types: Vec<_> =
        counts.into_iter().map(|(kind, count)| TypeCount { kind: kind.to_owned(), count }).collect();
    types.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.kind.cmp(&b.kind)));
    (total, types)
}

/// Whether the resource is among them, in any case: the file does not tell `/etc/motd` from `/etc/MOTD`.
pub(super) fn manages(text: &str, resource: &str) -> bool {
    let Some((kind, title)) = parts(resource) else { return false };
    let (kind, title) = (kind.to_lowercase(), title.to_lowercase());
    text.lines().filter_map(parts).any(|(other_kind, other)| other_kind == kind && other == title)
}

/// Type and title of `type[title]`.
pub(super) fn parts(resource: &str) -> Option<(&str, &str)> {
    let (kind, title) = resource.trim().strip_suffix(']')?.split_once('[')?;
    let plain = kind.starts_with(|c: char| c.is_ascii_alphabetic())
        && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'));
    (plain && !title.is_empty()).then_some((kind, title))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "file[/etc/motd]\npackage[ntp]\nfile[/etc/x[1]]\n\ngarbage\nmy::thing[a]\nfile[]\n";

    #[test]
    fn counting() {
        let (total, types) = count(FILE);
        let types: Vec<_> = types.iter().map(|of| (of.kind.as_str(), of.count)).collect();
        assert_eq!((total, types), (4, vec![("file", 2), ("my::thing", 1), ("package", 1)]));
        assert_eq!(count("").0, 0);
    }

    #[test]
    fn looking_for_one() {
        for (resource, expected) in [
            ("File[/etc/motd]", true),
            ("file[/etc/motd]", true),
            ("File[/etc/x[1]]", true),
            ("My::Thing[a]", true),
            ("File[/ETC/motd]", true),
            ("Package[/etc/motd]", false),
            ("/etc/motd", false),
            ("File[]", false),
            ("[x]", false),
            ("", false),
        ] {
            assert_eq!(manages(FILE, resource), expected, "{resource}");
        }
    }
}
