//! A status for people.

use muster_pki::time_text::utc;
use muster_protocol::Timestamp;

use super::gather::seconds;
use super::{ConnectionStatus, RequestStatus, Status, Used};

/// From so many milliseconds without a turn on the agent is called stuck.
const STUCK_MS: u64 = 5_000;

/// Lines of the log that are shown.
const LOG_SHOWN: usize = 5;

/// Columns of a line's name.
const NAME_WIDTH: usize = 13;

/// The whole status as lines, each with a name, and what calls for attention marked by `!`.
#[must_use]
pub fn text(status: &Status) -> String {
    let now = status.now_ms;
    let mut page = Page::default();
    page.line(
        "agent",
        format!(
            "musterd {} of {}, process {}, up {}, {} MiB",
            status.version,
            status.host,
            status.pid,
            span(seconds(status.started_at_ms, now)),
            status.memory_bytes / (1024 * 1024)
        ),
    );
    if status.stalled_ms >= STUCK_MS {
        page.wrong("stuck", format!("the agent took no turn for {}", span(status.stalled_ms / 1000)));
    }
    if !status.held.is_empty() {
        page.wrong("held", format!("{}: somebody waits for the disk with it", status.held.join(", ")));
    }
    connection(&mut page, status, now);
    let certificate = &status.certificate;
    let until = format!("{} until {}", certificate.identity, utc(certificate.not_after_ms));
    page.mark(now > certificate.not_after_ms, "certificate", until);
    if status.revocation_lists.is_empty() {
        page.wrong("revocation", "no list: a stolen certificate would still be believed".to_owned());
    }
    for list in &status.revocation_lists {
        let age = span(seconds(list.made_ms, now));
        let what = format!("list {}, {age} old, {} revoked, next by {}", list.number, list.revoked, utc(list.next_ms));
        page.mark(now > list.next_ms, "revocation", what);
    }
    let policy = &status.policy;
    page.line(
        "policy",
        format!(
            "{}, {} rules, read {} ago, sha256 {}",
            policy.file,
            policy.rules,
            span(seconds(policy.loaded_at_ms, now)),
            policy.sha256.get(..16).unwrap_or(&policy.sha256)
        ),
    );
    let facts = &status.facts;
    let age = facts
        .collected_at_ms
        .map_or_else(|| "not collected yet".to_owned(), |at| format!("collected {} ago", span(seconds(at, now))));
    page.mark(facts.errors > 0, "facts", format!("{} facts, {age}, {} sources failed", facts.count, facts.errors));
    let plugins: Vec<String> = status.plugins.iter().map(|(name, version)| format!("{name} {version}")).collect();
    page.line("plugins", plugins.join(", "));
    page.line("requests", format!("{} at work", status.requests_count));
    for request in &status.requests {
        page.more(&row(request, now));
    }
    if status.requests_count > status.requests.len() {
        page.more(&format!("and {} more", status.requests_count - status.requests.len()));
    }
    queues(&mut page, status);
    let counters: Vec<String> =
        status.counters.iter().map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
    page.line("counted", counters.join(", "));
    if !status.refused.is_empty() {
        let refused: Vec<String> = status.refused.iter().map(|(code, count)| format!("{code} {count}")).collect();
        page.line("refused", refused.join(", "));
    }
    let tasks: Vec<String> = status
        .tasks
        .iter()
        .map(|(name, count)| if *count == 1 { name.clone() } else { format!("{name} ×{count}") })
        .collect();
    page.line("tasks", tasks.join(", "));
    for problem in &status.problems {
        page.wrong("problem", problem.clone());
    }
    let skipped = status.log.len().saturating_sub(LOG_SHOWN);
    for line in &status.log[skipped..] {
        page.line("log", format!("{} ago {} {}", span(seconds(line.at_ms, now)), line.level, line.text));
    }
    page.text
}

fn connection(page: &mut Page, status: &Status, now: Timestamp) {
    match &status.connection {
        ConnectionStatus::Online { broker, since_ms, last_error } => {
            page.line("broker", format!("connected to {broker} for {}", span(seconds(*since_ms, now))));
            if let Some(error) = last_error {
                page.more(&format!("before, {} ago: {}", span(seconds(error.at_ms, now)), error.why));
            }
        }
        ConnectionStatus::Connecting { since_ms, tries, why, next_try_ms } => {
            let since = since_ms.map_or_else(String::new, |at| format!(" for {}", span(seconds(at, now))));
            let next = match next_try_ms {
                Some(at) => format!("next try in {}", span(seconds(now, *at))),
                None => "trying now".to_owned(),
            };
            page.wrong("broker", format!("not connected{since}, {tries} tries, {next}"));
            page.more(&format!("configured: {}", status.brokers.join(", ")));
            if !why.is_empty() {
                page.more(why);
            }
        }
        ConnectionStatus::Stopping => page.wrong("broker", "the agent stops".to_owned()),
    }
}

fn row(request: &RequestStatus, now: Timestamp) -> String {
    if let Some(ended) = &request.ended {
        return format!(
            "{} {} {} ended {} ago ({}), its last report is still to be sent",
            request.id,
            request.caller,
            request.action,
            span(seconds(ended.at_ms, now)),
            ended.code
        );
    }
    let for_s = seconds(request.since_ms, now);
    let limit = request.time_limit_ms.map(|ms| ms / 1000);
    let of = limit.map_or_else(String::new, |limit| format!(" of {}", span(limit)));
    let overdue = if limit.is_some_and(|limit| for_s > limit) { "! " } else { "" };
    let apart = if request.detached { ", detached" } else { "" };
    format!(
        "{overdue}{} {} {} {} for {}{of}{apart}",
        request.id,
        request.caller,
        request.action,
        request.phase.as_str(),
        span(for_s)
    )
}

fn queues(page: &mut Page, status: &Status) {
    let queues = &status.queues;
    match (&queues.spool, queues.spool_on_disk) {
        (Some(spool), Some(on_disk)) => {
            let next = queues.spool_next_try_s.map_or_else(String::new, |s| format!(", next try in {}", span(s)));
            let untold = match queues.ends_untold {
                None | Some(0) => String::new(),
                Some(1) => ", 1 action has ended beside them".to_owned(),
                Some(count) => format!(", {count} actions have ended beside them"),
            };
            page.mark(
                is_nearly_full(spool),
                "spool",
                format!("{} reports wait, {on_disk} on disk{next}{untold}", amount(spool)),
            );
        }
        _ => page.wrong("spool", "held".to_owned()),
    }
    match &queues.journal {
        Some(journal) => {
            let kinds: Vec<String> = journal.iter().map(|(kind, used)| format!("{kind} {}", amount(used))).collect();
            page.mark(journal.values().any(is_nearly_full), "journal", format!("ids remembered: {}", kinds.join(", ")));
        }
        None => page.wrong("journal", "held".to_owned()),
    }
    if let Some(results) = &queues.results {
        page.line("results", format!("{} kept", amount(results)));
    }
    if let Some(lines) = queues.audit_lines {
        page.line("audit log", format!("{lines} lines"));
    }
}

/// Whether nine tenths of a bound are used.
fn is_nearly_full(used: &Used) -> bool {
    let count = used.count_max.is_some_and(|most| used.count * 10 >= most * 9);
    let bytes = used.bytes.zip(used.bytes_max).is_some_and(|(bytes, most)| most > 0 && bytes * 10 >= most * 9);
    count || bytes
}

fn amount(used: &Used) -> String {
    let count = match used.count_max {
        Some(most) => format!("{} of {most}", used.count),
        None => used.count.to_string(),
    };
    match (used.bytes, used.bytes_max) {
        (Some(bytes), Some(most)) => format!("{count} ({} of {} KiB)", bytes / 1024, most / 1024),
        _ => count,
    }
}

/// Seconds in the two largest units that matter.
fn span(s: u64) -> String {
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, name: &str, what: String) {
        self.mark(false, name, what);
    }

    fn wrong(&mut self, name: &str, what: String) {
        self.mark(true, name, what);
    }

    fn mark(&mut self, wrong: bool, name: &str, what: String) {
        let mark = if wrong { '!' } else { ' ' };
        self.text.push_str(&format!("{mark} {name:NAME_WIDTH$}{}\n", clean(&what)));
    }

    fn more(&mut self, what: &str) {
        self.text.push_str(&format!("  {:NAME_WIDTH$}{}\n", "", clean(what)));
    }
}

/// What others have chosen, such as a broker's words, must not act on a terminal or begin a line of its own.
fn clean(text: &str) -> String {
    text.chars().flat_map(|it| if it.is_control() { it.escape_default().collect() } else { vec![it] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        for (s, expected) in [(0, "0 s"), (61, "1 min 1 s"), (3_661, "1 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(span(s), expected);
        }
    }

    #[test]
    fn what_a_broker_says_cannot_begin_a_line() {
        assert_eq!(clean("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
    }
}
