//! What `apt-get --simulate` and `apt-cache show` say.
//!
//! The simulation is text, and apt has nothing better for it; its form has been the same since apt 0.5 and is
//! what other tools read. A line that begins as one of its kinds and does not go on as it should is an error.

use std::cmp::Ordering;

use super::super::diff::Change;
use super::super::manager::{Planned, Update};
use super::super::version;

/// One line of `Inst`: `Inst NAME[:ARCH] [OLD] (NEW ORIGIN[, ORIGIN] [ARCH]) [...]`.
struct Inst<'a> {
    name: &'a str,
    arch: &'a str,
    old: Option<&'a str>,
    new: &'a str,
    origin: &'a str,
}

fn inst(line: &str) -> Option<Inst<'_>> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let (old, rest) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (old, rest) = rest.split_once("] ")?;
            (Some(old), rest)
        }
        None => (None, rest),
    };
    let (inside, _after) = rest.strip_prefix('(')?.split_once(')')?;
    let (new, rest) = inside.split_once(' ')?;
    let (origin, arch) = rest.rsplit_once('[')?;
    let arch = arch.strip_suffix(']')?;
    Some(Inst { name: name.split(':').next()?, arch, old, new, origin: origin.trim() })
}

/// `Remv NAME[:ARCH] [OLD] ...` and `Purg NAME[:ARCH] [OLD] ...`.
fn gone<'a>(line: &'a str, word: &str) -> Option<(&'a str, Option<&'a str>, &'a str)> {
    let (name, rest) = line.strip_prefix(word)?.split_once(' ')?;
    let (old, _after) = rest.strip_prefix('[')?.split_once(']')?;
    let (name, arch) = name.split_once(':').map_or((name, None), |(name, arch)| (name, Some(arch)));
    Some((name, arch, old))
}

/// What would be done; the line that is not understood otherwise.
pub(in super::super) fn planned(output: &str) -> Result<Vec<Planned>, String> {
    let mut planned: Vec<Planned> = Vec::new();
    for line in output.lines() {
        let understood = match line.split(' ').next() {
            Some("Inst") => inst(line).map(|inst| Planned {
                name: inst.name.to_owned(),
                arch: Some(inst.arch.to_owned()),
                change: match inst.old.map(|old| version::debian(old, inst.new)) {
                    None => Change::Installed,
                    Some(Ordering::Less) => Change::Updated,
                    Some(Ordering::Equal) => Change::Reinstalled,
                    Some(Ordering::Greater) => Change::Downgraded,
                },
                from: inst.old.map(str::to_owned),
                to: Some(inst.new.to_owned()),
            }),
            Some(word @ ("Remv" | "Purg")) => gone(line, &format!("{word} ")).map(|(name, arch, old)| Planned {
                name: name.to_owned(),
                arch: arch.map(str::to_owned),
                change: if word == "Purg" { Change::Purged } else { Change::Removed },
                from: Some(old.to_owned()),
                to: None,
            }),
            // A package that is unpacked already and only to be configured has no `Inst`.
            Some("Conf") => match line.strip_prefix("Conf ").and_then(|rest| rest.split_once(" (")) {
                Some((name, rest)) => {
                    let name = name.split(':').next().unwrap_or(name);
                    if planned.iter().any(|one| one.name == name) {
                        continue;
                    }
                    let version = rest.split(' ').next().map(str::to_owned);
                    let change = Change::Configured;
                    Some(Planned { name: name.to_owned(), arch: None, change, from: version.clone(), to: version })
                }
                None => None,
            },
            _ => continue,
        };
        planned.push(understood.ok_or_else(|| line.to_owned())?);
    }
    Ok(planned)
}

/// Installed packages that would be brought to a newer version; the line that is not understood otherwise.
pub(in super::super) fn updates(output: &str) -> Result<Vec<Update>, String> {
    let mut updates = Vec::new();
    for line in output.lines().filter(|line| line.starts_with("Inst ")) {
        let inst = inst(line).ok_or_else(|| line.to_owned())?;
        if let Some(old) = inst.old {
            updates.push(Update {
                name: inst.name.to_owned(),
                arch: Some(inst.arch.to_owned()),
                installed: Some(old.to_owned()),
                available: inst.new.to_owned(),
                repository: Some(inst.origin.to_owned()),
            });
        }
    }
    Ok(updates)
}

/// Names and architectures of the stanzas that `apt-cache show` wrote.
pub(in super::super) fn shown(output: &str) -> Vec<(String, String)> {
    let mut shown = Vec::new();
    let mut name = String::new();
    for line in output.lines() {
        if let Some(package) = line.strip_prefix("Package: ") {
            package.trim().clone_into(&mut name);
        } else if let Some(arch) = line.strip_prefix("Architecture: ") {
            shown.push((std::mem::take(&mut name), arch.trim().to_owned()));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(output: &str, expected: &[(&str, &str, Option<&str>, Option<&str>)]) {
        let planned = planned(output).unwrap();
        let seen: Vec<_> = planned
            .iter()
            .map(|one| (one.name.as_str(), one.change.as_str(), one.from.as_deref(), one.to.as_deref()))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_lines_of_a_simulation() {
        check(
            "Reading package lists...\nInst bar (2.0-1 localhost [all])\nConf bar (2.0-1 localhost [all])\n",
            &[("bar", "installed", None, Some("2.0-1"))],
        );
        check(
            "Inst libc6 [2.36-9] (2.36-10 Debian:12.7/stable, Debian-Security:12/stable [amd64]) []\n",
            &[("libc6", "updated", Some("2.36-9"), Some("2.36-10"))],
        );
        check(
            "Inst libc6:i386 [2.36-10] (2.36-9 Debian:12.7/stable [i386]) [libc6:amd64 on libc6:i386]\n",
            &[("libc6", "downgraded", Some("2.36-10"), Some("2.36-9"))],
        );
        check(
            "Remv foo [1.0-1]\nPurg bar [2.0-1] [baz:amd64 ]\n",
            &[("foo", "removed", Some("1.0-1"), None), ("bar", "purged", Some("2.0-1"), None)],
        );
        check("Conf half (1.0-1 localhost [all])\n", &[("half", "configured", Some("1.0-1"), Some("1.0-1"))]);
        check("0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n", &[]);
    }

    #[test]
    fn a_line_of_another_form_is_an_error() {
        for bad in ["Inst foo", "Inst foo 1.0", "Inst foo (1.0", "Remv foo", "Conf foo", "Inst foo [1.0] bar"] {
            assert_eq!(planned(bad), Err(bad.to_owned()));
        }
    }

    #[test]
    fn updates_are_what_is_installed_already() {
        let output = "Inst new (1 Debian:12 [all])\nInst old [1] (2 Debian-Security:12/stable-security [amd64])\n";
        let updates = updates(output).unwrap();
        assert_eq!(updates.len(), 1);
        assert_eq!((updates[0].name.as_str(), updates[0].available.as_str()), ("old", "2"));
        assert_eq!(updates[0].repository.as_deref(), Some("Debian-Security:12/stable-security"));
    }

    #[test]
    fn what_apt_cache_shows() {
        let output = "Package: foo\nVersion: 1\nArchitecture: all\nDescription: x\n Package: bar\n\nPackage: baz\nArchitecture: amd64\n";
        assert_eq!(shown(output), [("foo".to_owned(), "all".to_owned()), ("baz".to_owned(), "amd64".to_owned())]);
    }
}
