//! What dnf and yum write: lines of our own format where they can, their table of a transaction otherwise.
//!
//! The table is text for people, and there is nothing better for a transaction that is not to happen. Its form
//! is the same in yum 3 and dnf 4: headings that end in a colon, then rows of name, architecture, version,
//! repository and size, of which a long name pushes the rest to the next line.

use std::cmp::Ordering;

use super::super::diff::Change;
use super::super::entry::{Entry, Snapshot};
use super::super::manager::{Planned, Update};
use super::super::version;

/// The line after the table.
pub(super) const END: &str = "Transaction Summary";

/// The installed version that a package replaces: the newest of its name and architecture.
fn installed<'a>(before: &'a Snapshot, name: &str, arch: &str) -> Option<&'a Entry> {
    let same_name = || before.0.iter().filter(|entry| entry.name == name);
    let newest = |a: &&Entry, b: &&Entry| version::rpm(&a.full, &b.full);
    same_name().filter(|entry| entry.arch == arch).max_by(newest).or_else(|| same_name().max_by(newest))
}

fn heading(line: &str) -> Option<Change> {
    match line.trim().strip_suffix(':')? {
        text if text.starts_with("Installing") => Some(Change::Installed),
        "Upgrading" | "Updating" | "Updating for dependencies" => Some(Change::Updated),
        "Downgrading" => Some(Change::Downgraded),
        "Reinstalling" => Some(Change::Reinstalled),
        text if text.starts_with("Removing") || text == "Erasing" => Some(Change::Removed),
        _ => None,
    }
}

/// The version without the epoch 0, which is what rpm has where there is none.
fn version_of(text: &str) -> String {
    text.strip_prefix("0:").unwrap_or(text).to_owned()
}

/// What would be done; the words that are not understood otherwise.
pub(in super::super) fn planned(output: &str, before: &Snapshot) -> Result<Vec<Planned>, String> {
    let mut planned = Vec::new();
    // Under headings such as "Skipping packages with conflicts:" nothing would be done.
    let mut change: Option<Change> = None;
    let mut words: Vec<&str> = Vec::new();
    for line in output.lines().take_while(|line| !line.starts_with(END)) {
        if !line.starts_with(' ') {
            if !words.is_empty() {
                return Err(words.join(" "));
            }
            if line.ends_with(':') {
                change = heading(line);
            }
            continue;
        }
        let Some(change) = change else { continue };
        if let Some(replaced) = line.trim().strip_prefix("replacing ") {
            let mut of = replaced.split_whitespace();
            let name = of.next().ok_or_else(|| line.to_owned())?;
            let (name, arch) = name.rsplit_once('.').map_or((name, None), |(name, arch)| (name, Some(arch)));
            let from = of.next().map(version_of);
            let arch = arch.map(str::to_owned);
            planned.push(Planned { name: name.to_owned(), arch, change: Change::Removed, from, to: None });
            continue;
        }
        words.extend(line.split_whitespace());
        // Name, architecture, version, repository, size, and its unit where it has one.
        let [name, arch, version, _repository, size, ..] = words[..] else { continue };
        if words.len() > 6 || !size.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(words.join(" "));
        }
        let to = version_of(version);
        let was = installed(before, name, arch).map(|entry| entry.full.clone());
        planned.push(match change {
            Change::Removed => {
                Planned { name: name.to_owned(), arch: Some(arch.to_owned()), change, from: Some(to), to: None }
            }
            // Where several versions may be installed, one more replaces none.
            Change::Installed => {
                Planned { name: name.to_owned(), arch: Some(arch.to_owned()), change, from: None, to: Some(to) }
            }
            _ => Planned { name: name.to_owned(), arch: Some(arch.to_owned()), change, from: was, to: Some(to) },
        });
        words.clear();
    }
    if words.is_empty() { Ok(planned) } else { Err(words.join(" ")) }
}

/// Lines of `repoquery --upgrades` in our format. Of several newer versions the newest counts.
pub(in super::super) fn repoquery(output: &str, before: &Snapshot) -> Result<Vec<Update>, String> {
    let mut updates: Vec<Update> = Vec::new();
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        let [name, epoch, version, release, arch, repository, "."] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(line.to_owned());
        };
        let available = version_of(&format!("{epoch}:{version}-{release}"));
        offer(&mut updates, before, name, arch, available, repository);
    }
    Ok(updates)
}

/// Lines of yum's `check-update`: `NAME.ARCH  VERSION  REPOSITORY`, up to the list of what is obsoleted.
pub(in super::super) fn check_update(output: &str, before: &Snapshot) -> Result<Vec<Update>, String> {
    let mut updates: Vec<Update> = Vec::new();
    let rows = output.lines().take_while(|line| !line.starts_with("Obsoleting"));
    let mut words: Vec<&str> = Vec::new();
    for line in rows.filter(|line| !line.trim().is_empty()) {
        words.extend(line.split_whitespace());
        let [package, version, repository] = words[..] else { continue };
        let (name, arch) = package.rsplit_once('.').ok_or_else(|| line.to_owned())?;
        offer(&mut updates, before, name, arch, version_of(version), repository);
        words.clear();
    }
    if words.is_empty() { Ok(updates) } else { Err(words.join(" ")) }
}

fn offer(updates: &mut Vec<Update>, before: &Snapshot, name: &str, arch: &str, available: String, repository: &str) {
    let offered = updates.iter_mut().find(|update| update.name == name && update.arch.as_deref() == Some(arch));
    match offered {
        Some(update) if version::rpm(&update.available, &available) == Ordering::Less => {
            update.available = available;
            update.repository = Some(repository.to_owned());
        }
        Some(_) => {}
        None => updates.push(Update {
            name: name.to_owned(),
            arch: Some(arch.to_owned()),
            installed: installed(before, name, arch).map(|entry| entry.full.clone()),
            available,
            repository: Some(repository.to_owned()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::entry::INSTALLED;
    use super::*;

    fn before() -> Snapshot {
        let entry = |name: &str, full: &str| Entry {
            name: name.to_owned(),
            ensure: full.to_owned(),
            installed: true,
            version: String::new(),
            release: None,
            epoch: None,
            arch: "x86_64".to_owned(),
            status: INSTALLED.to_owned(),
            full: full.to_owned(),
            stamp: String::new(),
        };
        Snapshot(vec![entry("openssl", "1:3.0.7-27.el9"), entry("kernel", "5-1"), entry("kernel", "6-1")])
    }

    const TABLE: &str = "\
Last metadata expiration check: 0:00:01 ago on Sat Nov 21 03:56:56 2026.
Dependencies resolved.
================================================================================
 Package          Architecture        Version              Repository      Size
================================================================================
Upgrading:
 openssl          x86_64              1:3.0.7-28.el9       baseos         1.2 M
Installing dependencies:
 a-package-with-a-very-long-name-that-needs-its-own-line
                  noarch              0:2.0-1              appstream      5.4 k
     replacing  old-name.x86_64 1.0-1
Removing dependent packages:
 foo              noarch              1.0-1                @t                0  

Transaction Summary
================================================================================
Upgrade  1 Package
";

    #[test]
    fn a_table_with_a_long_name() {
        // The line of headings is skipped, since no heading came before it.
        let planned = planned(TABLE, &before()).unwrap();
        let seen: Vec<_> = planned
            .iter()
            .map(|one| (one.name.as_str(), one.change.as_str(), one.from.as_deref(), one.to.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("openssl", "updated", Some("1:3.0.7-27.el9"), Some("1:3.0.7-28.el9")),
                ("a-package-with-a-very-long-name-that-needs-its-own-line", "installed", None, Some("2.0-1")),
                ("old-name", "removed", Some("1.0-1"), None),
                ("foo", "removed", Some("1.0-1"), None),
            ]
        );
    }

    #[test]
    fn what_is_skipped_is_not_planned() {
        let output = "Skipping packages with conflicts:\n foo  noarch  1.0-1  t  5 k\nTransaction Summary\n";
        assert_eq!(planned(output, &before()).unwrap(), []);
        assert_eq!(planned("Nothing to do.\nComplete!\n", &before()).unwrap(), []);
    }

    #[test]
    fn a_row_of_another_form_is_an_error() {
        for bad in ["Installing:\n foo noarch\n\nTransaction Summary\n", "Installing:\n a b c d e f g h\n"] {
            assert!(planned(bad, &before()).is_err(), "{bad}");
        }
    }

    #[test]
    fn updates_in_both_forms() {
        let lines = "openssl\t1\t3.0.7\t28.el9\tx86_64\tbaseos\t.\nopenssl\t1\t3.0.7\t29.el9\tx86_64\tbaseos\t.\n";
        let updates = repoquery(lines, &before()).unwrap();
        assert_eq!(updates.len(), 1);
        assert_eq!(updates[0].available, "1:3.0.7-29.el9");
        assert_eq!(updates[0].installed.as_deref(), Some("1:3.0.7-27.el9"));
        let rows = "\nopenssl.x86_64    1:3.0.7-28.el9    baseos\nkernel.x86_64\n     7-1    updates\nObsoleting Packages\nx.noarch 1 y\n";
        let updates = check_update(rows, &before()).unwrap();
        let seen: Vec<_> =
            updates.iter().map(|one| (one.name.as_str(), one.available.as_str(), one.installed.as_deref())).collect();
        assert_eq!(seen, [("openssl", "1:3.0.7-28.el9", Some("1:3.0.7-27.el9")), ("kernel", "7-1", Some("6-1"))]);
        assert!(repoquery("openssl 3\n", &before()).is_err());
    }
}
