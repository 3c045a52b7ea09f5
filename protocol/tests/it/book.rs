//! The examples in the book are true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use muster_protocol::envelope::pre_authentication_encoding;
use muster_protocol::expr::mco::{McoFilters, translate};
use muster_protocol::expr::{Expression, HostScope, Truth};
use muster_protocol::{Command, HostName, PayloadType, decode};
use serde_json::{Map, Value, json};

/// The fenced blocks of a chapter: language and content.
fn blocks(chapter: &str) -> Vec<(String, String)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/book/src").join(chapter);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut blocks = Vec::new();
    let mut open: Option<(String, Vec<&str>)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((language.to_owned(), Vec::new())),
            (Some(_), Some(_)) => {
                let (language, lines) = open.take().unwrap();
                blocks.push((language, lines.join("\n")));
            }
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{chapter} has a block that is not closed");
    blocks
}

fn of<'a>(blocks: &'a [(String, String)], language: &str) -> Vec<&'a str> {
    let found: Vec<&str> = blocks.iter().filter(|(name, _)| name == language).map(|(_, text)| text.as_str()).collect();
    assert!(!found.is_empty(), "no block of `{language}`");
    found
}

/// Lines of the form `LEFT → RIGHT`.
fn pairs<'a>(blocks: &'a [(String, String)], language: &str) -> Vec<(&'a str, &'a str)> {
    let lines = of(blocks, language).into_iter().flat_map(str::lines);
    lines
        .map(|line| line.split_once('→').unwrap_or_else(|| panic!("{line} has no arrow")))
        .map(|(left, right)| (left.trim(), right.trim()))
        .collect()
}

fn parse(source: &str) -> Expression {
    Expression::parse(source).unwrap_or_else(|error| panic!("{}", error.render(source)))
}

#[test]
fn expressions_are_expressions_and_print_as_shown() {
    let blocks = blocks("expressions.md");
    for line in of(&blocks, "expression").into_iter().flat_map(str::lines) {
        parse(line);
    }
    for (source, canonical) in pairs(&blocks, "canonical") {
        assert_eq!(parse(source).as_str(), canonical);
    }
}

#[test]
fn expressions_come_to_what_is_shown() {
    let blocks = blocks("expressions.md");
    let facts: Map<String, Value> = serde_json::from_str(of(&blocks, "host")[0]).unwrap();
    let name = HostName::new("web1.example.com").unwrap();
    let texts = |words: [&str; 2]| BTreeSet::from(words.map(str::to_owned));
    let (classes, plugins) = (texts(["apache::ssl", "legacy"]), texts(["host", "package"]));
    let collectives = BTreeSet::from(["main", "ams1"].map(|name| name.parse().unwrap()));
    let openssl = json!({"version": "3.0.11-1~deb12u2", "status": "installed"});
    let calls = BTreeMap::from([(r#"package("openssl")"#.to_owned(), openssl)]);
    let scope = HostScope {
        name: &name,
        facts: &facts,
        classes: &classes,
        plugins: &plugins,
        collectives: &collectives,
        calls: &calls,
    };
    let examples = pairs(&blocks, "evaluated");
    assert!(examples.len() > 60);
    for (source, expected) in examples {
        let expected = match expected {
            "true" => Truth::True,
            "false" => Truth::False,
            "unknown" => Truth::Unknown,
            other => panic!("{other} is no truth"),
        };
        assert_eq!(parse(source).evaluate(&scope), expected, "{source}");
    }
}

#[test]
fn errors_look_as_shown() {
    for block in of(&blocks("expressions.md"), "error") {
        let source = block.lines().next().unwrap();
        let error = Expression::parse(source).expect_err(source);
        assert_eq!(error.render(source), block);
    }
}

#[test]
fn filters_of_mcollective_become_what_is_shown() {
    for (line, expected) in pairs(&blocks("expressions.md"), "mco") {
        let (option, given) = line.split_once(' ').unwrap();
        let given = vec![given.to_owned()];
        let mut filters = McoFilters::default();
        match option {
            "-F" => filters.facts = given,
            "-C" => filters.classes = given,
            "-A" => filters.agents = given,
            "-I" => filters.identities = given,
            "-S" => filters.compound = given,
            other => panic!("{other} is no filter"),
        }
        assert_eq!(translate(&filters).unwrap().as_str(), expected, "{line}");
    }
}

/// The worked example: type and body as given come to the bytes as given.
#[test]
fn the_pre_authentication_encoding_is_as_shown() {
    let blocks = blocks("protocol.md");
    let (kind, body) = (of(&blocks, "payload-type")[0], of(&blocks, "payload")[0]);
    assert_eq!(PayloadType::from_content_type(kind), Some(PayloadType::Command));
    let bytes = pre_authentication_encoding(kind, body.as_bytes());
    let shown = of(&blocks, "hexdump")[0];
    assert_eq!(hexdump(&bytes), shown, "\n{}\n", hexdump(&bytes));
    decode::<Command>(body.as_bytes()).expect("the example is a command");
}

/// Sixteen bytes a line: offset, hexadecimal, and what is printable ASCII.
fn hexdump(bytes: &[u8]) -> String {
    let line = |(number, chunk): (usize, &[u8])| {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            chunk.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        format!("{:04x}  {:<47}  {text}", number * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn messages_in_the_book_are_messages() {
    for block in of(&blocks("protocol.md"), "command") {
        decode::<Command>(block.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
    for block in of(&blocks("protocol.md"), "report") {
        decode::<muster_protocol::ProgressReport>(block.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
    for block in of(&blocks("protocol.md"), "announcement") {
        decode::<muster_protocol::Announcement>(block.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
}

/// Every code stands in the protocol's table beside the outcome that goes with it.
#[test]
fn every_code_is_in_the_table() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/book/src/protocol.md");
    let text = fs::read_to_string(path).unwrap();
    for row in muster_protocol::code::ALL {
        let outcome = format!("| `{}` |", row.outcome().as_str());
        let line = text.lines().find(|line| line.starts_with(&outcome)).unwrap_or_else(|| panic!("{outcome}"));
        assert!(line.contains(&format!("`{}`", row.code)), "{} is missing in {outcome}", row.code);
    }
}
