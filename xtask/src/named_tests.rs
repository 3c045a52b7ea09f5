//! The tests that the tables of promises name: each exists, and no row of such a table is without one.
//!
//! A document says what is guaranteed and which test shows it, as `path/from/the/root.rs::name_of_the_test` in a
//! code span. A test that is renamed or removed would leave a promise behind that nothing holds any more.
//!
//! Such a table has a column for each broker, too. It says `✓` where one of the row's tests runs on that broker, and does not
//! where none does: what is said in words, or a `–` where no broker takes part.

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
        findings.extend(wrong_brokers(&text, runs_on).into_iter().map(|wrong| format!("{document}: {wrong}")));
        for (file, name) in named(&text) {
            count += 1;
            match fs::read_to_string(root.join(&file)) {
                Err(_) => findings.push(format!("{document}: there is no file `{file}`")),
                Ok(source) if !has_test(&source, &name) && !is_on_both(&source, &name) => {
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

/// The columns of brokers, each with the module of the end-to-end tests that run on it.
const BROKERS: [(&str, &str); 2] = [("RabbitMQ", "rabbitmq"), ("embedded", "embedded")];

/// What says that a test runs on a broker.
const RUNS: &str = "✓";

/// The folder of the end-to-end tests. Their `main.rs` says which files are tests of which broker.
const END_TO_END: &str = "tests/tests/it/";

/// The macro that makes a test for each broker of a function.
const ON_BOTH: &str = "on_both_brokers!";

/// The folder of the embedded broker, whose tests run on nothing else.
const EMBEDDED: &str = "broker/";

/// The cells about brokers that do not say what is so, in tables of promises. `runs_on` tells whether a test, by its file
/// and name, runs on the broker of a module.
fn wrong_brokers(text: &str, runs_on: impl Fn(&str, &str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut columns: Option<Vec<(usize, &str)>> = None;
    for line in text.lines() {
        let Some(row) = line.trim().strip_prefix('|') else {
            columns = None;
            continue;
        };
        let cells = cells(row);
        let last = cells.last().map_or("", String::as_str);
        let Some(columns) = &columns else {
            let place = |name: &str| cells.iter().position(|cell| *cell == name);
            let brokers = BROKERS.iter().filter_map(|(name, module)| Some((place(name)?, *module)));
            let brokers: Vec<(usize, &str)> =
                if last.to_lowercase().starts_with(COLUMN) { brokers.collect() } else { Vec::new() };
            if last.to_lowercase().starts_with(COLUMN) && brokers.len() < BROKERS.len() {
                found.push(format!("the table `{}` has no column for each broker", row.trim()));
            }
            columns = Some(brokers);
            continue;
        };
        let tests = named(last);
        for (at, module) in columns {
            let cell = cells.get(*at).map_or("", String::as_str);
            let runs = tests.iter().any(|(file, name)| runs_on(file, name, module));
            if !tests.is_empty() && (cell.is_empty() || runs != cell.starts_with(RUNS)) {
                let first = cells.first().map_or("", String::as_str);
                found.push(format!("`{first}`: tests run on `{module}`: {runs}; its column says `{cell}`"));
            }
        }
    }
    found
}

/// Whether a test runs on the broker of this module.
fn runs_on(file: &str, name: &str, module: &str) -> bool {
    let read = |file: &str| fs::read_to_string(run::root().join(file)).unwrap_or_default();
    if let Some(path) = file.strip_prefix(END_TO_END) {
        let own = path.split(['/', '.']).next().unwrap_or_default();
        return modules(&read(&format!("{END_TO_END}main.rs")), module).iter().any(|listed| listed == own);
    }
    if file.starts_with(EMBEDDED) {
        return module == "embedded";
    }
    is_on_both(&read(file), name)
}

/// Whether a source makes a test for each broker of this function.
fn is_on_both(source: &str, name: &str) -> bool {
    source.split(ON_BOTH).skip(1).any(|tests| {
        let tests = tests.split(';').next().unwrap_or_default();
        tests.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
    })
}

/// The cells of a row, without the bars around it.
fn cells(row: &str) -> Vec<String> {
    // A bar within a cell is written with a backslash.
    let row = row.replace(r"\|", "\0");
    row.trim_end_matches('|').split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// The modules that are declared inside a module.
fn modules(source: &str, module: &str) -> Vec<String> {
    let begin = format!("mod {module} {{");
    let inside = source.lines().skip_while(|line| *line != begin).skip(1).take_while(|line| *line != "}");
    inside.filter_map(|line| Some(line.trim().strip_prefix("mod ")?.strip_suffix(';')?.to_owned())).collect()
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
    fn a_broker_on_which_nothing_runs_is_found() {
        let table = |rabbitmq: &str, embedded: &str| {
            format!(
                "| fault | RabbitMQ | embedded | test |\n|---|---|---|---|\n| f | {rabbitmq} | {embedded} | `a.rs::b` |\n"
            )
        };
        let on = |runs: &'static [&'static str]| move |_: &str, _: &str, module: &str| runs.contains(&module);
        assert_eq!(wrong_brokers(&table("✓", "✓"), on(&["rabbitmq", "embedded"])), [""; 0]);
        assert_eq!(wrong_brokers(&table("✓", "has none"), on(&["rabbitmq"])), [""; 0]);
        assert_eq!(wrong_brokers(&table("–", "–"), on(&[])), [""; 0]);
        assert_eq!(wrong_brokers(&table("✓", "✓"), on(&["rabbitmq"])).len(), 1);
        assert_eq!(wrong_brokers(&table("✓", "–"), on(&["rabbitmq", "embedded"])).len(), 1);
        assert_eq!(wrong_brokers(&table("✓", ""), on(&["rabbitmq"])).len(), 1);
        assert_eq!(wrong_brokers("| fault | test |\n|---|---|\n| f | `a.rs::b` |\n", on(&[])).len(), 1);
        assert_eq!(wrong_brokers("| word | meaning |\n|---|---|\n| f | `a.rs::b` |\n", on(&[])), [""; 0]);
    }

    #[test]
    fn the_modules_of_a_broker_are_found() {
        let source = "mod a;\nmod one {\n    mod b;\n    mod c;\n}\n\nmod two {\n    mod d;\n}\n";
        assert_eq!(modules(source, "one"), ["b", "c"]);
        assert_eq!(modules(source, "two"), ["d"]);
    }

    #[test]
    fn a_row_without_a_test_is_found() {
        let text = "| fault | test |\n|---|---|\n| shown | `a.rs::b` |\n| hoped | |\n\n| word | meaning |\n|---|---|\n| a | b |\n";
        assert_eq!(rows_without_a_test(text), ["hoped"]);
    }
}
