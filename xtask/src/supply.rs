//! What comes in from outside: `cargo deny`, and that the notes in `docs/supply-chain.md` are about the versions
//! that are built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::run;

/// The version of `cargo-deny` that is installed where there is none.
const DENY_VERSION: &str = "0.20.2";

/// The page with a row for each crate that touches keys.
const NOTES: &str = "docs/supply-chain.md";

/// `cargo xtask supply`.
///
/// # Errors
/// When something is not as `deny.toml` and the notes say.
pub(crate) fn check() -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(run::root().join(path)).with_context(|| format!("read `{path}`"));
    let wrong = stale_notes(&read(NOTES)?, &read("Cargo.lock")?);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let deny = deny()?;
    let arguments = ["--offline", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"];
    run::step("licences, banned and doubled libraries, sources", &deny.to_string_lossy(), &arguments)
}

/// `cargo-deny` from the path, or our own copy, which is built where it is missing.
fn deny() -> Result<PathBuf> {
    let on_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|folder| folder.join("cargo-deny")).find(|it| it.is_file()));
    if let Some(found) = on_path {
        return Ok(found);
    }
    let tools = run::root().join("target/tools");
    let program = tools.join("bin/cargo-deny");
    if !program.is_file() {
        let what = format!("cargo-deny is not installed: build version {DENY_VERSION} in `target/tools`, once");
        let tools = tools.to_string_lossy();
        run::cargo_step(&what, &["install", "cargo-deny", "--version", DENY_VERSION, "--locked", "--root", &tools])?;
    }
    Ok(program)
}

/// Rows of the notes that are about another version than the lock file's, one sentence each.
fn stale_notes(notes: &str, lock: &str) -> Vec<String> {
    let locked = locked(lock);
    let rows: Vec<(&str, &str)> = notes.lines().filter_map(row).collect();
    if rows.is_empty() {
        return vec![format!("`{NOTES}` has no table of crates that touch keys")];
    }
    let stale = |(name, version): (&str, &str)| {
        let found = locked.get(name).map(Vec::as_slice).unwrap_or_default();
        if found.contains(&version) {
            return None;
        }
        let there =
            if found.is_empty() { "is not used any more".to_owned() } else { format!("is {}", found.join(", ")) };
        let page = Path::new(NOTES).display();
        Some(format!("`{name}` {there}; `{page}` is about {version}: look at what changed, then correct its row"))
    };
    rows.into_iter().filter_map(stale).collect()
}

/// Name and version of a row such as "| `rustls` | 0.23.46 | ...".
fn row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let name = cells.next()?.strip_suffix('`')?;
    let version = cells.next()?;
    version.starts_with(|first: char| first.is_ascii_digit()).then_some((name, version))
}

fn locked(lock: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = None;
    let value = |line: &'_ str, key: &str| -> Option<(usize, usize)> {
        let rest = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        Some((line.len() - rest.len(), line.len() - 1))
    };
    for line in lock.lines() {
        if let Some((from, to)) = value(line, "name") {
            name = line.get(from..to);
        } else if let (Some((from, to)), Some(name)) = (value(line, "version"), name) {
            versions.entry(name).or_default().extend(line.get(from..to));
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"one\"\nversion = \"1.2.3\"\n\n[[package]]\nname = \"two\"\nversion = \"0.1.0\"\n\n\
                        [[package]]\nname = \"two\"\nversion = \"0.2.0\"\n";

    #[test]
    fn a_row_about_another_version_is_stale() {
        let check = |rows: &str, expected: &[&str]| {
            let found = stale_notes(rows, LOCK);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{found}");
            }
        };
        check("| `one` | 1.2.3 | what |\n| `two` | 0.1.0 | what |", &[]);
        check("| `one` | 1.2.4 | what |", &["`one` is 1.2.3; "]);
        check("| `two` | 0.3.0 | what |", &["`two` is 0.1.0, 0.2.0; "]);
        check("| `gone` | 1.0.0 | what |", &["`gone` is not used any more; "]);
        check("no table", &["`docs/supply-chain.md` has no table"]);
    }

    #[test]
    fn the_notes_are_about_what_is_built() {
        let read = |path: &str| std::fs::read_to_string(run::root().join(path)).unwrap();
        assert_eq!(stale_notes(&read(NOTES), &read("Cargo.lock")), Vec::<String>::new());
    }
}
