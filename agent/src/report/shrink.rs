//! Cutting a result that is too large, so that what is left is still of the shape its reader expects.

use muster_protocol::limits::RESULT_BYTES_MAX;
use serde_json::{Map, Value};

/// Deepest nesting of result data: a report wraps it into two more levels, and a message may nest 32.
const DEPTH_MAX: usize = 28;

/// Gives the data back as it is, or cut to fit together with the size it had.
pub(super) fn to_fit(data: Value) -> (Value, Option<u64>) {
    let size = size_of(&data);
    if size <= RESULT_BYTES_MAX && depth_of(&data) <= DEPTH_MAX {
        return (data, None);
    }
    (cut(data, RESULT_BYTES_MAX, DEPTH_MAX), Some(size as u64))
}

fn size_of(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |text| text.len())
}

fn depth_of(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth_of).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// At most `room` bytes of JSON. Small values are kept whole, and what they leave over goes to the
/// larger ones: of a short status and a long list, the list is cut.
fn cut(value: Value, room: usize, depth: usize) -> Value {
    if size_of(&value) <= room && depth_of(&value) <= depth {
        return value;
    }
    match value {
        Value::String(text) => Value::String(cut_string(&text, room)),
        Value::Array(list) if depth > 0 => cut_list(list, room, depth),
        Value::Object(map) if depth > 0 => cut_map(map, room, depth),
        _ => Value::Null,
    }
}

fn cut_string(text: &str, room: usize) -> String {
    // A byte of text can take six in JSON.
    let mut length = text.floor_char_boundary(room.saturating_sub(2).min(text.len()));
    while length > 0 && size_of(&Value::from(&text[..length])) > room {
        length = text.floor_char_boundary(length / 2);
    }
    text[..length].to_owned()
}

fn cut_list(list: Vec<Value>, room: usize, depth: usize) -> Value {
    let mut left = room.saturating_sub(2);
    let mut kept = Vec::new();
    for value in list {
        let value = cut(value, left, depth - 1);
        let size = size_of(&value) + 1;
        if size > left {
            break;
        }
        left -= size;
        kept.push(value);
    }
    Value::Array(kept)
}

fn cut_map(map: Map<String, Value>, room: usize, depth: usize) -> Value {
    let mut left = room.saturating_sub(2);
    let mut by_size: Vec<(String, Value)> = map.into_iter().collect();
    by_size.sort_by_key(|(_, value)| size_of(value));
    let mut kept = Map::new();
    for (name, value) in by_size {
        let name_size = size_of(&Value::from(name.as_str())) + 2;
        let value = cut(value, left.saturating_sub(name_size), depth - 1);
        let size = name_size + size_of(&value);
        if size > left {
            break;
        }
        left -= size;
        kept.insert(name, value);
    }
    Value::Object(kept)
}
