use std::collections::BTreeSet;

use super::*;
use crate::outcome::tests::{host, row};
use crate::outcome::{Headline, Reason, count, group};
use muster_protocol::Outcome;
use serde_json::{Value, json};

const WIDE: Look = Look { ascii: false, width: Some(80) };
const NOW: Timestamp = Timestamp(1_795_000_000_000);

fn plain(lines: &[Text]) -> String {
    lines.iter().map(Text::to_plain).collect::<Vec<_>>().join("\n")
}

fn colored(lines: &[Text]) -> String {
    lines.iter().map(|line| line.render(true)).collect::<Vec<_>>().join("\n")
}

fn web(number: usize) -> String {
    format!("web-{number:04}.ams1")
}

/// The fleet of the documented screens: 214 hosts, two of them silent.
fn package_rows() -> Vec<Row> {
    (1..=214)
        .map(|number| match number {
            107 | 113 => Row::not_asked(host(&web(number)), TaskState::NoReply, Reason::SilentInSearch),
            201.. => row(&web(number), Outcome::Succeeded, json!("3.0.11-4"), ""),
            _ => row(&web(number), Outcome::Succeeded, json!("3.0.13-1"), ""),
        })
        .collect()
}

#[test]
fn the_documented_screen_of_run() {
    let rows = package_rows();
    let groups = group(&rows, &Headline { action: None });
    let mut lines = groups_and_end(&groups, &rows, 1_900, WIDE);
    insta::assert_snapshot!("run_80_columns", plain(&lines));
    insta::assert_snapshot!("run_colour", colored(&lines));
    lines = groups_and_end(&groups, &rows, 1_900, Look { ascii: true, width: Some(80) });
    let text = plain(&lines);
    assert!(text.is_ascii(), "{text}");
    insta::assert_snapshot!("run_ascii", text);
    lines = groups_and_end(&groups, &rows, 1_900, Look { ascii: false, width: None });
    insta::assert_snapshot!("run_pipe", plain(&lines));
}

fn groups_and_end(groups: &[Group], rows: &[Row], elapsed_ms: u64, look: Look) -> Vec<Text> {
    let mut lines = super::groups(groups, look);
    lines.push(end(&count(rows), elapsed_ms, look));
    lines
}

#[test]
fn every_kind_of_end_has_its_line() {
    let mut rows = vec![
        row("web-1", Outcome::Succeeded, json!("ok"), ""),
        row("web-2", Outcome::Failed, Value::Null, "No space left on device"),
        row("web-3", Outcome::Failed, Value::Null, "No space left on device"),
        row("web-4", Outcome::TimedOut, Value::Null, "stopped after 30 s"),
        row("web-5", Outcome::Refused, Value::Null, "rule ops/no-prod-root, line 14"),
        row("web-6", Outcome::Cancelled, Value::Null, "by muster:user/max"),
        Row::not_asked(host("web-7"), TaskState::NoReply, Reason::NoQueue),
        Row::not_asked(host("web-8"), TaskState::NotStarted, Reason::StopRule),
        Row::not_asked(host("web-9"), TaskState::NoReply, Reason::Silent),
        Row::not_asked(host("web-10"), TaskState::TimedOut, Reason::Unfinished),
    ];
    if let Some(result) = &mut rows[1].result {
        result.exit_code = Some(1);
    }
    let groups = group(&rows, &Headline { action: None });
    insta::assert_snapshot!("every_end", plain(&groups_and_end(&groups, &rows, 61_000, WIDE)));
}

#[test]
fn lines_fit_the_terminal() {
    let rows: Vec<Row> = (0..90)
        .map(|number| {
            row(&format!("host-{}.{number}.example.com", number * 7), Outcome::Succeeded, json!(number % 2), "")
        })
        .collect();
    let groups = group(&rows, &Headline { action: None });
    for width in [40, 80, 200] {
        for line in super::groups(&groups, Look { ascii: false, width: Some(width) }) {
            assert!(line.width() <= width, "{} > {width}: {}", line.width(), line.to_plain());
        }
    }
}

#[test]
fn a_narrow_terminal_loses_nothing() {
    let refused = row("web2.example.com", Outcome::Refused, Value::Null, "rule ops/no-prod-root, line 14");
    let narrow = Look { ascii: false, width: Some(40) };
    let groups = group(std::slice::from_ref(&refused), &Headline { action: None });
    let lines = super::groups(&groups, narrow);
    insta::assert_snapshot!(plain(&lines), @r"
    1 ⊘ refused  rule ops/no-prod-root,
        line 14
        web2.example.com
    ");
    assert!(lines.iter().all(|line| line.width() <= 40 && !line.to_plain().ends_with(' ')));
    insta::assert_snapshot!(plain(&ping(&[refused], |_| None, NOW, narrow)), @r"
    ⊘ 1 refused  policy-denied
      web2.example.com
    ");
}

#[test]
fn a_host_cannot_write_to_the_terminal() {
    let evil = row("web-1", Outcome::Succeeded, json!("\u{1b}[31mred\u{1b}]0;title\u{7}\nnext\u{202e}"), "");
    let groups = group(&[evil], &Headline { action: None });
    for line in super::groups(&groups, WIDE) {
        let text = line.to_plain();
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}', '\n']), "{text:?}");
    }
}

#[test]
fn the_documented_screen_of_ping() {
    let rows: Vec<Row> = (1..=214)
        .map(|number| match number {
            107 | 113 => Row::not_asked(host(&web(number)), TaskState::NoReply, Reason::SilentInSearch),
            _ => {
                let reply_ms = match number {
                    44 => 388,
                    1..=3 => 61,
                    _ => 14,
                };
                Row { reply_ms: Some(reply_ms), ..row(&web(number), Outcome::Succeeded, Value::Null, "") }
            }
        })
        .collect();
    let last_seen = |name: &HostName| {
        let hours = if name.as_str().starts_with("web-0107") { 3 } else { 9 * 24 };
        Some(NOW.plus_ms(-hours * 60 * 60 * 1000))
    };
    // The line of the silent hosts is as long as it is in the document; 80 columns cut it.
    insta::assert_snapshot!(
        "ping_100_columns",
        plain(&ping(&rows, last_seen, NOW, Look { ascii: false, width: Some(100) }))
    );
    insta::assert_snapshot!("ping_80_columns", plain(&ping(&rows, last_seen, NOW, WIDE)));
    insta::assert_snapshot!("ping_colour", colored(&ping(&rows, last_seen, NOW, WIDE)));
    insta::assert_snapshot!("ping_ascii", plain(&ping(&rows, last_seen, NOW, Look { ascii: true, width: Some(80) })));
}

#[test]
fn percentiles_are_answers_that_came() {
    let rows: Vec<Row> = (1..=100)
        .map(|number| Row { reply_ms: Some(number), ..row(&web(number as usize), Outcome::Succeeded, Value::Null, "") })
        .collect();
    let times = Times::of(&rows).unwrap();
    assert_eq!((times.median_ms, times.p99_ms, times.slowest_ms), (50, 99, 100));
    assert_eq!(Times::of(&rows[..1]).map(|times| (times.median_ms, times.p99_ms)), Some((1, 1)));
    assert_eq!(Times::of(&[]), None);
}

#[test]
fn the_screen_of_a_dry_run() {
    let hosts: BTreeSet<HostName> = (1..=10).map(|number| host(&web(number))).collect();
    let hosts: Vec<&HostName> = hosts.iter().collect();
    let silent = [&host("web-0107.ams1")];
    let not_able =
        BTreeMap::from([("no key for secrets (unknown-action)".to_owned(), BTreeSet::from([host("old-1")]))]);
    let chosen =
        Chosen { hosts: &hosts, silent: &silent, not_able: &not_able, of: 214, seed: Some(7312), waves: &[1, 5, 4] };
    insta::assert_snapshot!("dry_run_waves", plain(&plan("package.status name=openssl", "role = web", &chosen, WIDE)));
}
