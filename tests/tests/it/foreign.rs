//! AMQP clients that are not ours against each broker: Python's pika, method by method; Python's `amqp`, which Celery uses;
//! and RabbitMQ's own client for Erlang, which comes with every RabbitMQ.
//!
//! Who runs them may do everything in the virtual host, since they use exchanges and queues that nobody of ours has.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use muster_tests::broker::{Kind, TestBus};
use muster_tests::rabbit::Installation;
use serde_json::Value;

use super::BROKER;

const WHO: &str = "service/conformance";

fn bus() -> TestBus {
    BROKER.hostile([WHO], WHO)
}

/// Runs a program of the folder `foreign` as `WHO`.
fn run(program: &str, arguments: &[&str], bus: &TestBus, more: &[&str]) -> Output {
    let member = bus.site.member(WHO);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign").join(arguments[0]);
    let mut command = Command::new(program);
    command.arg(script).args(&arguments[1..]);
    for (flag, path) in
        [("--ca", &member.files.ca), ("--certificate", &member.files.certificate), ("--key", &member.files.key)]
    {
        command.arg(flag).arg(path);
    }
    command.args(["--port", &bus.port().to_string(), "--vhost", &bus.vhost]).args(more);
    // Where RabbitMQ has the libraries of its own client.
    let plugins = Installation::find().expect("RabbitMQ is installed").libraries;
    command.env("ERL_LIBS", plugins).env("HOME", "/nonexistent");
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// The cases that the table of methods names as what shows its rows.
fn named_in_the_book() -> Vec<String> {
    let book = include_str!("../../../docs/book/src/broker-methods.md");
    let last_cells = book.lines().filter_map(|line| line.strip_prefix('|')?.trim_end_matches('|').rsplit('|').next());
    let spans = last_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let is_case = |span: &&str| span.contains('_') && span.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    spans.filter(is_case).map(ToOwned::to_owned).collect()
}

/// Runs one to its end, which must be good.
#[track_caller]
fn check(program: &str, arguments: &[&str], last_words: &str) {
    let output = run(program, arguments, &bus(), &[]);
    assert!(output.status.success() && said(&output).trim_end().ends_with(last_words), "{}", said(&output));
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn pika_gets_the_same_answers_method_by_method() {
    let bus = bus();
    let kind = if BROKER == Kind::Embedded { "embedded" } else { "rabbitmq" };
    let output = run("/usr/bin/python3", &["pika_conformance.py"], &bus, &["--broker", kind]);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let cases: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed: Vec<String> = cases.iter().filter(|case| case["ok"] != true).map(Value::to_string).collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert!(output.status.success(), "{}", said(&output));
    let named = named_in_the_book();
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<&String> =
        named.iter().filter(|name| !cases.iter().any(|case| case["case"] == name.as_str())).collect();
    assert!(missing.is_empty(), "the book names cases that are not there: {missing:?}");
}

#[test]
fn python_amqp_works() {
    check("/usr/bin/python3", &["py_amqp_client.py"], "closed");
}

#[test]
fn rabbitmqs_own_client_for_erlang_works() {
    check("escript", &["erlang_client.escript"], "closed");
}
