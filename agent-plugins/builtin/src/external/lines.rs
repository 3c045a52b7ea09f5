//! The reply as lines, for programs that write no JSON: `MUSTER_OUTPUT`.
//!
//! ```text
//! free_bytes=12884901888
//! .message=there is room
//! report<<END
//! several
//! lines
//! END
//! ```
//!
//! The name is an output of the action, and its type says how the text is read; an output of type
//! `array` takes its name several times, one element each, or once with a JSON array. `.message`
//! is the line for people.

use muster_protocol::ddl::{Action, ValueType};
use serde_json::{Map, Number, Value};

/// The name of the line for people. No output can be called so.
const MESSAGE: &str = ".message";

/// What the lines say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Lines {
    pub(super) data: Map<String, Value>,
    pub(super) message: Option<String>,
}

/// Reads lines. The error names the line.
pub(super) fn parse(text: &str, action: &Action) -> Result<Lines, String> {
    let mut read = Lines::default();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| format!("line {number} of MUSTER_OUTPUT {what}");
        let (name, value) = match (line.split_once('='), line.split_once("<<")) {
            (Some((name, value)), other) if other.is_none_or(|(before, _)| name.len() < before.len()) => {
                (name, value.to_owned())
            }
            (_, Some((name, end))) => {
                let mut block = Vec::new();
                loop {
                    match lines.next() {
                        Some((line, _)) if line == end => break,
                        Some((line, _)) => block.push(line),
                        None => return Err(wrong(format!("begins a block whose end `{end}` does not come"))),
                    }
                }
                (name, block.join("\n"))
            }
            _ => return Err(wrong("is neither NAME=VALUE nor NAME<<END".to_owned())),
        };
        put(&mut read, name, &value, action).map_err(wrong)?;
    }
    Ok(read)
}

fn put(read: &mut Lines, name: &str, text: &str, action: &Action) -> Result<(), String> {
    if name == MESSAGE {
        read.message = Some(text.to_owned());
        return Ok(());
    }
    let Some(output) = action.output.get(name) else {
        let known: Vec<&str> = action.output.names().collect();
        return Err(format!(
            "gives `{name}`, which action `{}` does not have; it has {}",
            action.name,
            known.join(", ")
        ));
    };
    let value = value(&output.kind, text)
        .ok_or_else(|| format!("gives `{name}` a value that is not of type {}", output.kind.as_str()))?;
    match (read.data.get_mut(name), value) {
        (None, value) => drop(read.data.insert(name.to_owned(), value)),
        (Some(Value::Array(present)), Value::Array(more)) => present.extend(more),
        (Some(_), _) => return Err(format!("gives `{name}` a second time")),
    }
    Ok(())
}

/// The value that a text means for a type. An empty text is no number.
fn value(kind: &ValueType, text: &str) -> Option<Value> {
    let json = || serde_json::from_str::<Value>(text).ok();
    match kind {
        ValueType::String | ValueType::List | ValueType::Unknown(_) => Some(text.into()),
        ValueType::Integer => {
            let text = text.trim();
            text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
        }
        ValueType::Number | ValueType::Float => {
            value(&ValueType::Integer, text).or_else(|| Number::from_f64(text.trim().parse().ok()?).map(Value::Number))
        }
        ValueType::Boolean => match text.trim() {
            "true" | "yes" | "1" => Some(true.into()),
            "false" | "no" | "0" => Some(false.into()),
            _ => None,
        },
        ValueType::Array if text.trim_start().starts_with('[') => json().filter(Value::is_array),
        ValueType::Array => Some(Value::Array(vec![text.into()])),
        ValueType::Hash => json().filter(Value::is_object),
        ValueType::Any => Some(json().unwrap_or_else(|| text.into())),
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::ddl::Ddl;
    use serde_json::json;

    use super::*;

    fn action() -> Action {
        let output = |kind: &str| json!({ "description": "d", "display_as": "D", "type": kind });
        let ddl = json!({
            "metadata": { "name": "lab" },
            "actions": [{ "action": "try", "output": {
                "text": output("string"), "count": output("integer"), "share": output("number"), "done": output("boolean"),
                "list": output("array"), "map": output("hash"), "message": output("string"),
            }}],
        });
        Ddl::parse(&ddl.to_string()).unwrap().actions.remove(0)
    }

    #[track_caller]
    fn check(text: &str, data: Value, message: Option<&str>) {
        let read = parse(text, &action()).unwrap();
        assert_eq!((Value::Object(read.data), read.message.as_deref()), (data, message), "{text}");
    }

    #[test]
    fn the_type_of_the_output_says_what_a_text_means() {
        check("", json!({}), None);
        check("text=a = b<<c\n\ncount= 7 \n", json!({ "text": "a = b<<c", "count": 7 }), None);
        check("share=0.5\ndone=yes\n.message=ok", json!({ "share": 0.5, "done": true }), Some("ok"));
        check("message=an output", json!({ "message": "an output" }), None);
        check("list=a\nlist=b, c\n", json!({ "list": ["a", "b, c"] }), None);
        check("list=[1, 2]\nmap={\"a\": 1}", json!({ "list": [1, 2], "map": { "a": 1 } }), None);
        check("text<<END\none\n\ncount=2\nEND\ncount=3", json!({ "text": "one\n\ncount=2", "count": 3 }), None);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let failure = |text: &str| parse(text, &action()).unwrap_err();
        assert_eq!(failure("\nhello"), "line 2 of MUSTER_OUTPUT is neither NAME=VALUE nor NAME<<END");
        assert_eq!(failure("count=many"), "line 1 of MUSTER_OUTPUT gives `count` a value that is not of type integer");
        assert_eq!(failure("count="), "line 1 of MUSTER_OUTPUT gives `count` a value that is not of type integer");
        assert_eq!(failure("text=a\ntext=b"), "line 2 of MUSTER_OUTPUT gives `text` a second time");
        assert_eq!(failure("text<<END\na"), "line 1 of MUSTER_OUTPUT begins a block whose end `END` does not come");
        assert!(failure("size=1").contains("`size`, which action `try` does not have; it has "));
    }
}
