//! Everything one host answered, for `-v`, `--format wide` and single hosts.

use muster_protocol::ddl::Action;
use serde_json::Value;

use super::screen::style;
use crate::outcome::{Reason, Row, Written};
use crate::output::{Style, Text, neutral_lines, time};

/// Widest label of an output.
const LABEL_WIDTH_MAX: usize = 24;

/// The lines of one host: its state, every output under the heading of the action's description, what it wrote.
pub(crate) fn lines(row: &Row, action: Option<&Action>, ascii: bool) -> Vec<Text> {
    let mut head = Text::styled(style(row.state), row.state.glyph(ascii)).plain(" ").strong(row.host.as_str());
    head = head.plain(format!("  {}", row.state.label()));
    if let Some(result) = &row.result {
        let exit = result.exit_code.map(|exit_code| format!("  exit {exit_code}")).unwrap_or_default();
        head = head.dim(format!("{exit}  {}  {}", result.code, time::took(result.duration_ms)));
    }
    let mut lines = vec![head];
    if let Some(reason) = row.reason.map(why) {
        let detail =
            row.detail.iter().fold(Text::from("    ").plain(reason), |line, detail| line.plain(": ").plain(detail));
        lines.push(detail);
    }
    if let Some(result) = &row.result {
        if !result.message.is_empty() {
            lines.push(Text::from("    ").plain(&result.message));
        }
        lines.extend(data(&row.data(), action, |name| repeats_output(row, name)));
        if let Some(bytes) = result.truncated_from_bytes {
            lines.push(Text::from("    ").push(Style::Warning, format!("cut by the host; it was {bytes} bytes")));
        }
    }
    if !row.shown {
        lines.extend(written("out", row.stdout.as_ref()));
        lines.extend(written("err", row.stderr.as_ref()));
    }
    if row.missing_reports > 0 {
        let words = format!("{} of its reports never came", row.missing_reports);
        lines.push(Text::from("    ").push(Style::Warning, words));
    }
    lines
}

/// Why the host did not say so itself. Here there is room for what a line of many hosts leaves out.
fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::SilentInSearch => "silent in the search, so it was not asked",
        Reason::Silent => "asked, and it did not confirm the start; the command waits in its queue (--ttl)",
        other => other.label(),
    }
}

/// Whether an output repeats what came as output, such as `stdout` and `stdout_bytes` of a shell's command.
fn repeats_output(row: &Row, name: &str) -> bool {
    let is_of = |stream: &str| {
        name.strip_prefix(stream).is_some_and(|rest| matches!(rest, "" | "_encoding" | "_bytes" | "_truncated"))
    };
    row.stdout.is_some() && is_of("stdout") || row.stderr.is_some() && is_of("stderr")
}

fn data(data: &Value, action: Option<&Action>, hidden: impl Fn(&str) -> bool) -> Vec<Text> {
    let Value::Object(fields) = data else {
        return if data.is_null() { Vec::new() } else { vec![Text::from("    ").plain(plain(data))] };
    };
    let label = |name: &str| {
        let described = action.and_then(|action| action.output.get(name)).map(|output| output.display_as.clone());
        described.filter(|label| !label.is_empty()).unwrap_or_else(|| name.to_owned())
    };
    // In the order of the description, then what it does not name.
    let described =
        action.map(|action| action.output.names().map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default();
    let named = described.iter().filter(|name| fields.contains_key(*name));
    let rest = fields.keys().filter(|name| !described.contains(name));
    let rows: Vec<(String, String)> = named
        .chain(rest)
        .filter(|name| !fields[*name].is_null() && !hidden(name))
        .map(|name| (label(name), plain(&fields[name])))
        .collect();
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0).min(LABEL_WIDTH_MAX);
    let mut lines = Vec::new();
    for (label, value) in rows {
        for (index, part) in value.lines().enumerate() {
            let label = if index == 0 { label.as_str() } else { "" };
            lines.push(Text::from("    ").dim(label).pad_to(4 + width + 2).plain(part));
        }
    }
    lines
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => serde_json::to_string_pretty(value).unwrap_or_default(),
        other => other.to_string(),
    }
}

fn written(label: &str, written: Option<&Written>) -> Vec<Text> {
    let Some(written) = written else { return Vec::new() };
    neutral_lines(&written.text()).map(|line| Text::from("    ").dim(label).plain(" ").plain(line)).collect()
}
