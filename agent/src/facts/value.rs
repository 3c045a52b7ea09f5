//! Bounds and merging of fact values.

use serde_json::{Map, Value};

/// Deepest nesting of a fact. An inventory wraps facts into three more levels, and a message may nest 32.
pub(super) const DEPTH_MAX: usize = 16;

/// Most values one source may give, nested ones counted.
pub(super) const VALUES_MAX: usize = 5_000;

/// Most bytes one file or one executable may give.
pub(super) const SOURCE_BYTES_MAX: usize = 256 * 1024;

/// Most bytes of JSON of all facts together: they have to fit into one announcement of a megabyte.
pub(super) const TOTAL_BYTES_MAX: usize = 512 * 1024;

const NAME_BYTES_MAX: usize = 255;

/// Checks what one source gave.
pub(super) fn check(values: &Map<String, Value>) -> Result<(), String> {
    let mut count = 0;
    check_map(values, 1, &mut count)
}

fn check_map(values: &Map<String, Value>, depth: usize, count: &mut usize) -> Result<(), String> {
    for (name, value) in values {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let shown: String = name.chars().take(40).flat_map(char::escape_default).collect();
            return Err(format!("`{shown}` is not a name of a fact"));
        }
        check_value(value, depth, count)?;
    }
    Ok(())
}

fn check_value(value: &Value, depth: usize, count: &mut usize) -> Result<(), String> {
    *count += 1;
    if *count > VALUES_MAX {
        return Err(format!("gives more than {VALUES_MAX} values"));
    }
    if depth > DEPTH_MAX {
        return Err(format!("nests deeper than {DEPTH_MAX} levels"));
    }
    match value {
        Value::Array(list) => list.iter().try_for_each(|value| check_value(value, depth + 1, count)),
        Value::Object(map) => check_map(map, depth + 1, count),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Puts `value` under `name`: maps are merged, anything else replaces what was there.
pub(super) fn merge(into: &mut Map<String, Value>, name: String, value: Value) {
    match (into.get_mut(&name), value) {
        (Some(Value::Object(before)), Value::Object(new)) => {
            for (name, value) in new {
                merge(before, name, value);
            }
        }
        (_, value) => {
            into.insert(name, value);
        }
    }
}

/// Removes a dotted path; `*` stands for every key at its place.
pub(super) fn remove_path(values: &mut Map<String, Value>, path: &str) {
    match path.split_once('.') {
        None => {
            values.remove(path);
        }
        Some(("*", rest)) => {
            for value in values.values_mut().filter_map(Value::as_object_mut) {
                remove_path(value, rest);
            }
        }
        Some((name, rest)) => {
            if let Some(Value::Object(inner)) = values.get_mut(name) {
                remove_path(inner, rest);
            }
        }
    }
}

/// Length of the values as JSON, in bytes.
pub(super) fn size_bytes(values: &Map<String, Value>) -> usize {
    serde_json::to_vec(values).map_or(usize::MAX, |text| text.len())
}
