//! The tests that the tables of promises name: each exists, and no row of such a table is without one.
//!
//! A document says what is guaranteed and which test shows it, as `path/from/the/root.rs::name_of_the_test` in a
//! code span. A test that is renamed or removed would leave a promise behind that nothing holds any more.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// The documents with such tables. One that is not there yet names nothing.
const DOCUMENTS: &[&str] = &["docs/reliability.md", "docs/security.md"];

/// What separates the file from the test.
const SEPARATOR: &str = ".rs::";

/// The heading that the last column of a table of promises begins with.
const COLUMN: &str = "test";

/// Fails with every test that does not exist and every row without one, or says how many there are.
///
/// # Errors
/// When a document cannot be read, or names a test that does not exist.
pub(crate) fn check_and_tell() -> Result<()> {
    let root = run::root();
    let mut findings = Vec::new();
    let mut count = 0;
    for document in DOCUMENTS {
        let path = root.join(document);
        if !path.exists() {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read `{document}`"))?;
        for row in rows_without_a_test(&text) {
            findings.push(format!("{document}: no test shows `{row}`"));
        }
        for (file, name) in named(&text) {
            count += 1;
            match fs::read_to_string(root.join(&file)) {
                Err(_) => findings.push(format!("{document}: there is no file `{file}`")),
                Ok(source) if !has_test(&source, &name) => {
                    findings.push(format!("{document}: there is no test `{name}` in `{file}`"));
                }
                Ok(_) => {}
            }
        }
    }
    if !findings.is_empty() {
        bail!("{} promises are not held by a test:\n  {}", findings.len(), findings.join("\n  "));
    }
    eprintln!("==> promises: {count} tests named, all there");
    Ok(())
}

/// File and name of each test in a code span.
fn named(text: &str) -> Vec<(String, String)> {
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    spans
        .filter_map(|span| {
            let (file, name) = span.split_once(SEPARATOR)?;
            Some((format!("{file}.rs"), name.to_owned()))
        })
        .collect()
}

/// The first cells of the rows that name no test, in tables whose last column is for tests.
fn rows_without_a_test(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let Some(row) = line.trim().strip_prefix('|') else {
            in_table = false;
            continue;
        };
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        let last = cells.last().copied().unwrap_or_default();
        if in_table {
            let is_line = cells.iter().all(|cell| !cell.is_empty() && cell.chars().all(|c| matches!(c, '-' | ':')));
            if !is_line && named(last).is_empty() {
                found.push(cells.first().copied().unwrap_or_default().to_owned());
            }
        } else {
            in_table = last.to_lowercase().starts_with(COLUMN);
        }
    }
    found
}

/// Whether a source has a test function of this name: the word `test` stands in an attribute above it.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let words = line.strip_prefix("async ").unwrap_or(line);
        let Some(rest) = words.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name)) else { return false };
        let attributes =
            lines[..at].iter().rev().take_while(|above| above.starts_with("#[") || above.starts_with("//"));
        rest.starts_with('(') && attributes.into_iter().any(|line| line.starts_with("#[") && line.contains("test"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_that_a_promise_names_is_there() {
        check_and_tell().unwrap();
    }

    #[test]
    fn tests_are_found_by_file_and_name() {
        let source = "#[test]\nfn one() {}\n\n#[tokio::test]\n// why\nasync fn two() {}\n\nfn three() {}\n#[test]\nfn four_more() {}\n";
        for (name, expected) in [("one", true), ("two", true), ("three", false), ("four", false), ("five", false)] {
            assert_eq!(has_test(source, name), expected, "{name}");
        }
        let text = "| a | `x/y.rs::one`, `x/y.rs::two` |\nsee `cargo test` and `z.rs::three`\n";
        let found: Vec<String> = named(text).into_iter().map(|(file, name)| format!("{file} {name}")).collect();
        assert_eq!(found, ["x/y.rs one", "x/y.rs two", "z.rs three"]);
    }

    #[test]
    fn a_row_without_a_test_is_found() {
        let text = "| fault | test |\n|---|---|\n| shown | `a.rs::b` |\n| hoped | |\n\n| word | meaning |\n|---|---|\n| a | b |\n";
        assert_eq!(rows_without_a_test(text), ["hoped"]);
    }
}
