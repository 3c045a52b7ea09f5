//! A host that answers with everything a terminal obeys: whatever the format, none of it comes out, neither on a
//! terminal nor in a pipe.

use std::process::{Command as Program, Stdio};

use muster_protocol::{Encoding, HostName, Outcome, OutputChunk, OutputStream, routing};
use muster_tests::programs::Operator;
use muster_tests::stage::Stage;
use serde_json::{Value, json};

use super::BROKER;
use super::rogue::{Rogue, finished, next_command};

/// Clears, retitles, types, writes the clipboard, links, moves, reports, reorders, hides; as C1 too.
const EVIL: &str = "A\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}]52;c;cm0gLXJmIC8K\u{7}\u{1b}]8;;http://evil\u{1b}\\B\u{9b}31m\
                    \u{90}+q544e\u{9c}\u{1b}[6n\rC\u{8}\u{8}\u{202e}D\u{2066}\u{200b}\u{feff}\u{e0041}\u{85}\u{2028}\u{7f}\u{0}E";

fn values() -> Value {
    json!({
        "text": EVIL,
        EVIL: EVIL,
        "list": [EVIL, { EVIL: [EVIL] }],
        "inventory_digest": EVIL,
        "agent_version": EVIL,
        "time": EVIL,
        "pong": EVIL,
    })
}

/// What is left of a text once our own colours and the carriage returns of a terminal's line discipline are gone.
fn acting(text: &str) -> Vec<char> {
    let mut rest = text.replace("\r\n", "\n");
    // Colours and the clearing of the footer's line, as our printer writes them.
    for own in [
        "\u{1b}[0m",
        "\u{1b}[1m",
        "\u{1b}[2m",
        "\u{1b}[31m",
        "\u{1b}[32m",
        "\u{1b}[33m",
        "\u{1b}[36m",
        "\u{1b}[1;31m",
        "\r\u{1b}[K",
        "\r\u{1b}[2K",
    ] {
        rest = rest.replace(own, "");
    }
    let acts = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{200b}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    rest.chars().filter(acts).collect()
}

/// Runs `muster` behind a pseudo-terminal, by the program `script`.
fn on_terminal(operator: &Operator, arguments: &[&str]) -> (String, String) {
    let line = operator.command(arguments).unwrap();
    let quoted: Vec<String> = std::iter::once(line.get_program())
        .chain(line.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut script = Program::new("script");
    script.args(["-q", "-e", "-c", &quoted.join(" "), "/dev/null"]).env_clear();
    script.envs(line.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm-256color");
    let output = script.stdin(Stdio::null()).output().expect("`script`, of the package bsdutils, is there");
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn piped(operator: &Operator, arguments: &[&str]) -> (String, String) {
    let output = operator.command(arguments).unwrap().output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("what is written is UTF-8");
    (text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_host_says_acts_on_a_terminal() {
    let stage = Stage::new(BROKER, &["host/evil.ams1", "user/lea"]);
    let rogue = Rogue::open(&stage, "host/evil.ams1").await;
    let keys = ["host.evil.ams1", "all", "collective.main"];
    let mut commands = rogue.listen("agent.evil.ams1", routing::EXCHANGE_COMMAND, &keys).await;
    let name: HostName = "evil.ams1".parse().unwrap();
    // Whatever is asked, it answers three times: words, bytes, and an end nobody knows.
    let answering = async {
        let mut turn = 0u32;
        loop {
            let (command, _) = next_command(&mut commands).await;
            turn += 1;
            let mut report = finished(&command, &name, 0, EVIL, values());
            let data = format!("{EVIL}\n{EVIL}");
            let chunk = |stream, data: &str, encoding| OutputChunk { stream, offset: 0, encoding, data: data.into() };
            report.output = vec![
                chunk(OutputStream::Stdout, &data, Encoding::Text),
                // ESC ] 5 2, C1 and what is not UTF-8, as bytes.
                chunk(OutputStream::Stderr, "G101Mjt4B5sxbf/+kA==", Encoding::Base64),
            ];
            let result = report.result.as_mut().unwrap();
            if turn % 3 == 1 {
                result.outcome = Outcome::Failed;
                result.code = EVIL.into();
            } else if turn % 3 == 2 {
                result.outcome = Outcome::Unknown(EVIL.chars().take(30).collect());
            }
            rogue.answer(&command, &report, rogue.credentials()).await;
        }
    };
    let lea = stage.operator("lea", &[]);
    let lines: &[&[&str]] = &[
        &["run", "host.ping", "-H", "evil.ams1"],
        &["run", "host.ping", "-H", "evil.ams1", "--wide"],
        &["run", "host.ping", "-H", "evil.ams1", "--stream"],
        &["run", "host.facts", "-H", "evil.ams1", "-v"],
        &["run", "host.facts", "-H", "evil.ams1", "--json"],
        &["run", "host.facts", "-H", "evil.ams1", "--jsonl", "--stream"],
        &["run", "host.facts", "-H", "evil.ams1", "--csv"],
        &["ping", "-H", "evil.ams1"],
        &["find", "--all"],
        &["host", "list"],
        &["host", "show", "evil.ams1"],
        &["plugin", "list", "--host", "evil.ams1"],
        &["doctor"],
    ];
    let asking = tokio::task::spawn_blocking(move || {
        let mut failures = Vec::new();
        let mut seen = 0;
        for arguments in lines {
            for (place, (out, err)) in [("pipe", piped(&lea, arguments)), ("terminal", on_terminal(&lea, arguments))] {
                seen += usize::from(out.contains("owned") || err.contains("owned"));
                let found = [acting(&out), acting(&err)].concat();
                if !found.is_empty() {
                    failures.push(format!("{place}: {arguments:?}: {found:?}\n{out:?}\n{err:?}"));
                }
            }
        }
        // A test that showed nothing of it would prove nothing.
        assert!(seen >= 8, "what the host says was shown by {seen} lines only");
        failures
    });
    let failures: Vec<String> = tokio::select! {
        () = answering => unreachable!("it answers for ever"),
        failures = asking => failures.unwrap(),
    };
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
