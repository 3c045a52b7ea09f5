//! Typed words to JSON values, and lists back to words.

use serde_json::{Number, Value};

/// `a`, `a or b`, `a, b or c`; `nothing` where there is none.
pub(super) fn list_or_none(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// The first characters of a text, with everything that a terminal might obey escaped.
pub(super) fn cut(text: &str, characters: usize) -> String {
    let mut shown: String = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == characters {
            shown.push_str("...");
            break;
        }
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// `true`, `yes`, `on`, `1` and their opposites, in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

pub(super) fn whole_number(text: &str) -> Option<Value> {
    text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
}

pub(super) fn number(text: &str) -> Option<Value> {
    let fraction = || text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number);
    whole_number(text).or_else(fraction)
}

/// A JSON array, or words between commas. An empty text is an empty array.
pub(super) fn array(text: &str) -> Option<Value> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).ok().filter(Value::is_array);
    }
    if text.is_empty() {
        return Some(Value::Array(Vec::new()));
    }
    Some(text.split(',').map(|word| Value::from(word.trim())).collect())
}
