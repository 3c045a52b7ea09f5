//! The screens of `ping`, `find` and `run` for people. Golden tests hold them to the documented ones.

use std::collections::{BTreeMap, BTreeSet};

use muster_client::Counts;
use muster_protocol::{HostName, TaskState, Timestamp};

use crate::outcome::{Group, Reason, Row, summary};
use crate::output::{Printer, Style, Text, fold, number, time};

/// Columns for the number of hosts of a group.
const COUNT_WIDTH: usize = 5;

/// Spaces between what came out and the hosts.
const HOSTS_GAP: usize = 4;

/// Widest column for what came out where nothing is cut.
const HEADLINE_WIDTH_UNCUT: usize = 60;

/// Least room for the names of hosts; below it the mark of a difference is left out.
const NAMES_WIDTH_MIN: usize = 12;

/// Up to so many names stand as they are, so that they can be copied.
const FEW: usize = 2;

/// Most names of silent hosts that are told with the time they were last seen.
const SILENT_NAMES_MAX: usize = 3;

/// How the lines are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Only ASCII.
    pub(crate) ascii: bool,
    /// Columns of the terminal; `None` to cut nothing.
    pub(crate) width: Option<usize>,
}

impl Look {
    /// How a printer's lines are drawn.
    pub(crate) fn of(printer: &Printer) -> Self {
        Self { ascii: printer.ascii(), width: printer.cut_width() }
    }

    /// The mark between parts of a line.
    pub(crate) fn dot(self) -> &'static str {
        if self.ascii { " - " } else { " · " }
    }

    /// Widest column for what came out; the hosts stand behind it. More takes a line of its own.
    fn headline_width(self) -> usize {
        self.width.map_or(HEADLINE_WIDTH_UNCUT, |width| width / 2)
    }

    pub(crate) fn fitted(self, line: Text) -> Text {
        match self.width {
            Some(width) => line.cut_to(width, self.ascii),
            None => line,
        }
    }
}

/// How a state is coloured. The glyph beside it says the same.
pub(crate) fn style(state: TaskState) -> Style {
    match state {
        TaskState::Succeeded => Style::Good,
        TaskState::Failed => Style::Bad,
        TaskState::TimedOut | TaskState::NoReply | TaskState::Refused => Style::Warning,
        TaskState::Running | TaskState::Pending | TaskState::Cancelled | TaskState::NotStarted => Style::Dim,
    }
}

/// One line a group: how many, what, who, and whether it differs from most.
pub(crate) fn groups(groups: &[Group], look: Look) -> Vec<Text> {
    let words: Vec<Text> = groups.iter().map(|group| Text::from(what(group, look))).collect();
    let short = |words: &Text| words.width() <= look.headline_width();
    let widest = words.iter().filter(|words| short(words)).map(Text::width).max().unwrap_or(0);
    let counts: Vec<String> = groups.iter().map(|group| number::count(group.hosts.len())).collect();
    let count_width = counts.iter().map(String::len).max().unwrap_or(0).max(COUNT_WIDTH);
    let mut lines = Vec::new();
    for ((group, words), count) in groups.iter().zip(words).zip(counts) {
        let start = Text::from(" ".repeat(count_width - count.len()))
            .strong(count)
            .plain(" ")
            .push(style(group.state), group.state.glyph(look.ascii))
            .plain(" ");
        let column = count_width + 3 + widest + HOSTS_GAP;
        let beside = short(&words) && look.width.is_none_or(|width| column + hosts_width(group) <= width);
        if beside || short(&words) && group.hosts.len() > FEW {
            lines.push(with_hosts(start.join(words).pad_to(column), group, look));
        } else {
            // What went wrong is worth a line of its own; the hosts stand below.
            lines.extend(wrapped(start, &words.to_plain(), look));
            let start = Text::new().pad_to(count_width + 3);
            match group.hosts.len() {
                ..=FEW if group.differs_from.is_none() => {
                    lines.extend(wrapped(start, &names(group.hosts.iter()), look));
                }
                _ => lines.push(with_hosts(start, group, look)),
            }
        }
    }
    lines
}

/// Columns that the names of a group of few hosts take; more of them are folded and cut.
fn hosts_width(group: &Group) -> usize {
    if group.hosts.len() > FEW { 0 } else { Text::from(names(group.hosts.iter())).width() }
}

/// A text behind `start`, on as many lines as it needs: broken between words, and within a word only
/// where it is longer than a line.
fn wrapped(start: Text, text: &str, look: Look) -> Vec<Text> {
    let indent = start.width();
    let Some(width) = look.width.filter(|width| indent < *width) else { return vec![look.fitted(start.plain(text))] };
    let mut lines = Vec::new();
    let mut line = start;
    let mut gap = String::new();
    for word in text.split_inclusive(' ') {
        let shown = word.trim_end_matches(' ');
        if shown.is_empty() {
            gap.push_str(word);
            continue;
        }
        if line.width() > indent && line.width() + gap.len() + Text::from(shown).width() > width {
            lines.push(std::mem::replace(&mut line, Text::new().pad_to(indent)));
            gap.clear();
        }
        line = line.plain(&gap);
        for character in shown.chars() {
            let next = Text::from(character.to_string());
            if line.width() > indent && line.width() + next.width() > width {
                lines.push(std::mem::replace(&mut line, Text::new().pad_to(indent)));
            }
            line = line.join(next);
        }
        word[shown.len()..].clone_into(&mut gap);
    }
    lines.push(line);
    lines
}

/// Appends the names of a group's hosts, and the mark of a difference at the right edge.
fn with_hosts(line: Text, group: &Group, look: Look) -> Text {
    let names = names(group.hosts.iter());
    let Some(most) = group.differs_from else { return look.fitted(line.plain(names)) };
    let mark = format!("<- differs from {}", number::count(most));
    let Some(width) = look.width else {
        return line.plain(names).plain("  ").push(Style::Warning, mark);
    };
    let room = width.saturating_sub(line.width() + mark.len() + 2);
    if room < NAMES_WIDTH_MIN {
        return look.fitted(line.plain(names));
    }
    line.join(Text::from(names).cut_to(room, look.ascii)).pad_to(width - mark.len()).push(Style::Warning, mark)
}

/// Names on one line: two as they are, so that they can be copied, more of them folded.
fn names<'a>(hosts: impl ExactSizeIterator<Item = &'a HostName>) -> String {
    let few = hosts.len() <= FEW;
    let names: Vec<&str> = hosts.map(HostName::as_str).collect();
    if few { names.join(", ") } else { fold::fold_line(names) }
}

/// The words of a group: what came out of a success, else the state and why.
fn what(group: &Group, look: Look) -> String {
    let headline = if look.ascii { group.headline.replace(" · ", " - ") } else { group.headline.clone() };
    if let Some(words) = &group.words {
        return words.clone();
    }
    let says_itself = group.state == TaskState::Failed && headline.starts_with("exit ");
    match group.state {
        TaskState::Succeeded => headline,
        _ if says_itself => headline,
        state if headline.is_empty() => state.label().to_owned(),
        state => format!("{}  {headline}", state.label()),
    }
}

/// `212 succeeded · 2 no reply · 1.9 s`, and that nothing is kept.
pub(crate) fn end(counts: &Counts, elapsed_ms: u64, look: Look) -> Text {
    let line = Text::from(summary(counts, look.dot())).plain(look.dot()).plain(time::took(elapsed_ms));
    let remark = "not stored";
    match look.width {
        Some(width) if line.width() + remark.len() + 2 <= width => {
            line.pad_to(46.min(width - remark.len())).plain("  ").dim(remark)
        }
        _ => line,
    }
}

/// The times of the answers to a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Times {
    median_ms: i64,
    p99_ms: i64,
    slowest_ms: i64,
    slowest: HostName,
}

impl Times {
    /// Measures answers; `None` without any.
    pub(crate) fn of(rows: &[Row]) -> Option<Self> {
        let mut answers: Vec<(i64, &HostName)> =
            rows.iter().filter_map(|row| row.reply_ms.map(|reply_ms| (reply_ms, &row.host))).collect();
        answers.sort();
        // The nearest rank: the smallest time within which that part of the hosts has answered.
        let rank = |percent: usize| answers.get((answers.len() * percent).div_ceil(100).saturating_sub(1));
        let (slowest_ms, slowest) = answers.last()?;
        Some(Self { median_ms: rank(50)?.0, p99_ms: rank(99)?.0, slowest_ms: *slowest_ms, slowest: (*slowest).clone() })
    }
}

/// The lines of a ping: who answered and how fast, who is silent, who answered something else.
pub(crate) fn ping(
    rows: &[Row],
    last_seen: impl Fn(&HostName) -> Option<Timestamp>,
    now: Timestamp,
    look: Look,
) -> Vec<Text> {
    let mut lines = Vec::new();
    let answered: Vec<Row> = rows.iter().filter(|row| row.state == TaskState::Succeeded).cloned().collect();
    let (no_queue, silent): (Vec<&Row>, Vec<&Row>) =
        rows.iter().filter(|row| row.state == TaskState::NoReply).partition(|row| row.reason == Some(Reason::NoQueue));
    let unheard: Vec<&Row> = rows.iter().filter(|row| !row.state.is_final()).collect();
    let start = |state: TaskState, words: String| {
        Text::styled(style(state), state.glyph(look.ascii)).plain(" ").plain(words).pad_to(17)
    };
    if let Some(times) = Times::of(&answered) {
        let words = format!("{} answered", number::count(answered.len()));
        let dot = look.dot();
        let line = start(TaskState::Succeeded, words)
            .plain(format!("median {} ms{dot}p99 {} ms{dot}slowest ", times.median_ms, times.p99_ms))
            .plain(times.slowest.as_str())
            .plain(format!(" {} ms", times.slowest_ms));
        lines.push(look.fitted(line));
    }
    let mut others: Vec<&Row> = rows.iter().filter(|row| row.state.is_final()).collect();
    others.retain(|row| row.state != TaskState::Succeeded && row.state != TaskState::NoReply);
    for state in
        [TaskState::Failed, TaskState::TimedOut, TaskState::Refused, TaskState::Cancelled, TaskState::NotStarted]
    {
        let of: Vec<&&Row> = others.iter().filter(|row| row.state == state).collect();
        if let Some(first) = of.first() {
            let why = first.result.as_ref().map(|result| format!("{}  ", result.code)).unwrap_or_default();
            let words = format!("{} {}", number::count(of.len()), state.label());
            let names = fold::fold_line(of.iter().map(|row| row.host.as_str()));
            let line = start(state, words).plain(&why).plain(&names);
            // Both say something: neither is cut for the other where few hosts are meant.
            match of.len() <= FEW && look.width.is_some_and(|width| line.width() > width) {
                true => {
                    let words = format!("{} {}  {why}{names}", number::count(of.len()), state.label());
                    let glyph = Text::styled(style(state), state.glyph(look.ascii)).plain(" ");
                    lines.extend(wrapped(glyph, &words, look));
                }
                false => lines.push(look.fitted(line)),
            }
        }
    }
    if !silent.is_empty() {
        let words = format!("{} silent", number::count(silent.len()));
        let line = start(TaskState::NoReply, words);
        lines.push(look.fitted(line.join(silent_names(&silent, last_seen, now, look))));
    }
    for (state, words, rows) in
        [(TaskState::NoReply, "without a queue", no_queue), (TaskState::Pending, "not heard yet", unheard)]
    {
        if !rows.is_empty() {
            let line = start(state, format!("{} {words}", number::count(rows.len())));
            let names = fold::fold_line(rows.iter().map(|row| row.host.as_str()));
            lines.push(look.fitted(line.plain("  ").plain(names)));
        }
    }
    lines
}

fn silent_names(
    silent: &[&Row],
    last_seen: impl Fn(&HostName) -> Option<Timestamp>,
    now: Timestamp,
    look: Look,
) -> Text {
    if silent.len() > SILENT_NAMES_MAX {
        return Text::from(fold::fold_line(silent.iter().map(|row| row.host.as_str())));
    }
    let parts: Vec<String> = silent
        .iter()
        .map(|row| match last_seen(&row.host) {
            Some(seen) => format!("{} last seen {}", row.host, time::ago(seen, now)),
            None => format!("{} never seen from here", row.host),
        })
        .collect();
    Text::from(parts.join(look.dot()))
}

/// What `--dry-run` shows instead of running.
pub(crate) fn plan(shown: &str, target: &str, chosen: &Chosen<'_>, look: Look) -> Vec<Text> {
    let row = |count: usize, word: &str, text: Text| {
        let count = number::count(count);
        let line = Text::from(" ".repeat(7usize.saturating_sub(count.len()))).strong(count).plain(" ").plain(word);
        look.fitted(line.pad_to(20).join(text))
    };
    let names = |hosts: &[&HostName]| Text::from(names(hosts.iter().copied()));
    let mut lines = vec![Text::styled(Style::Strong, "PLAN").plain("  ").plain(shown)];
    lines.push(row(chosen.of, "match", Text::from(target)));
    if let Some(seed) = chosen.seed {
        lines.push(row(chosen.hosts.len(), "chosen", Text::from(format!("--seed {seed}"))));
    }
    lines.push(row(chosen.hosts.len(), "will run", names(chosen.hosts)));
    if !chosen.silent.is_empty() {
        lines.push(row(chosen.silent.len(), "silent", names(chosen.silent)));
    }
    for (why, hosts) in chosen.not_able {
        let hosts: Vec<&HostName> = hosts.iter().collect();
        lines.push(row(hosts.len(), "not able", names(&hosts).plain("  ").dim(why)));
    }
    if chosen.waves.len() > 1 {
        let sizes: Vec<String> = chosen.waves.iter().map(|size| number::count(*size)).collect();
        lines.push(row(chosen.waves.len(), "waves", Text::from(sizes.join(", "))));
    }
    lines.push(Text::from("Nothing was sent."));
    lines
}

/// Who a plan is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen<'a> {
    pub(crate) hosts: &'a [&'a HostName],
    pub(crate) silent: &'a [&'a HostName],
    /// Hosts that lack what the action needs, by what that is.
    pub(crate) not_able: &'a BTreeMap<String, BTreeSet<HostName>>,
    pub(crate) of: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) waves: &'a [usize],
}

#[cfg(test)]
mod tests;
