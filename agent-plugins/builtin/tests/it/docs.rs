//! The table of `docs/plugins/` is true as far as a machine can tell: which actions it covers, in which words,
//! and that the tests it names are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use muster_plugin_api::builtin_ddls;

const WORDS: [&str; 3] = ["tested really", "tested with recorded output", "not supported"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A line of a table whose first cell is a name in backticks.
#[derive(Debug, PartialEq)]
struct Row {
    page: String,
    action: String,
    platform: String,
    how: String,
    proof: String,
}

/// The rows of one page. Text between fences is an example.
fn rows(page: &str, text: &str) -> Vec<Row> {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        !fenced && line.starts_with("| `")
    });
    let cells = lines.filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let action = cells[0].strip_prefix('`')?.strip_suffix('`')?;
        // Other tables, of arguments for example, have no action in their first cell.
        let is_action = action
            .split_once('.')
            .is_some_and(|(plugin, _)| builtin_ddls().iter().any(|ddl| ddl.name().as_str() == plugin));
        is_action.then(|| (action.to_owned(), cells))
    });
    cells
        .map(|(action, cells)| {
            assert_eq!(cells.len(), 4, "{page}: `{action}` has {} cells, not 4", cells.len());
            let cell = |index: usize| cells[index].to_owned();
            Row { page: page.to_owned(), action, platform: cell(1), how: cell(2), proof: cell(3) }
        })
        .collect()
}

fn all_rows() -> Vec<Row> {
    let directory = repository().join("docs/plugins");
    let mut pages: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    let pages = pages.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    pages.flat_map(|path| rows(&named(path), &fs::read_to_string(path).unwrap())).collect()
}

fn actions() -> BTreeSet<String> {
    let ddls = builtin_ddls().iter();
    ddls.flat_map(|ddl| ddl.actions.iter().map(move |action| format!("{}.{}", ddl.name(), action.name))).collect()
}

#[test]
fn every_action_has_a_row_and_every_row_an_action() {
    let rows = all_rows();
    let covered: BTreeSet<&str> = rows.iter().map(|row| row.action.as_str()).collect();
    let actions = actions();
    let missing: Vec<_> = actions.iter().filter(|action| !covered.contains(action.as_str())).collect();
    assert!(missing.is_empty(), "no row in docs/plugins/*.md has {missing:?}");
    let strange: Vec<_> = rows.iter().filter(|row| !actions.contains(&row.action)).collect();
    assert!(strange.is_empty(), "there is no such action: {strange:?}");
}

#[test]
fn every_row_says_how_and_names_its_tests() {
    for row in all_rows() {
        assert!(WORDS.contains(&row.how.as_str()), "`{}` is none of {WORDS:?}: {row:?}", row.how);
        assert!(!row.platform.is_empty() && !row.proof.is_empty(), "{row:?}");
        if row.how == "not supported" {
            continue;
        }
        for file in row.proof.split(',').map(|file| file.trim().trim_matches('`')) {
            let places = [Path::new(env!("CARGO_MANIFEST_DIR")).join(file), repository().join(file)];
            let text = places.iter().find_map(|path| fs::read_to_string(path).ok());
            let text = text.unwrap_or_else(|| panic!("there is no `{file}`: {row:?}"));
            assert!(text.contains("#[test]") || text.contains("#[tokio::test"), "`{file}` has no test: {row:?}");
        }
    }
}

#[test]
fn every_page_is_linked() {
    let readme = fs::read_to_string(repository().join("docs/plugins/README.md")).unwrap();
    for entry in fs::read_dir(repository().join("docs/plugins")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || readme.contains(&format!("({name})")), "README.md does not link `{name}`");
    }
}

#[test]
fn rows_are_read_as_they_are_written() {
    let page = "| action | platform |\n|---|---|\n| `host.ping` | every Linux | tested really | tests/it/host.rs |\n\
                | `path` | a | b |\n```\n| `host.status` | x | y | z |\n```\n";
    let expected = Row {
        page: "x.md".to_owned(),
        action: "host.ping".to_owned(),
        platform: "every Linux".to_owned(),
        how: "tested really".to_owned(),
        proof: "tests/it/host.rs".to_owned(),
    };
    assert_eq!(rows("x.md", page), [expected]);
}
