//! From what a program wrote to the answer of an action, checked against the description.

use muster_plugin_api::{ActionFailure, ActionOk, ActionReply};
use muster_protocol::ddl::{Action, ValueType};
use muster_protocol::limits::JSON_DEPTH_MAX;
use muster_protocol::{Code, code};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::exchange::{REPLY_BYTES_MAX, Written};
use super::lines;

/// Longest piece of a reply that cannot be read which a message repeats, in characters.
const EXCERPT_CHARACTERS_MAX: usize = 80;

/// Deepest nesting of a reply's data: what a message allows, less the report around it.
const DATA_DEPTH_MAX: usize = JSON_DEPTH_MAX - 8;

/// The reply to a request, as Choria defines it.
#[derive(Debug, Deserialize)]
struct RpcReply {
    #[serde(default)]
    statuscode: i64,
    #[serde(default)]
    statusmsg: Option<String>,
    #[serde(default)]
    data: Value,
}

/// The reply to an activation check.
#[derive(Debug, Deserialize)]
struct ActivationReply {
    activate: bool,
}

/// What the program of an action has said, and how it ended.
#[derive(Debug)]
pub(super) struct Answer {
    /// The reply's file.
    pub(super) reply: Written,
    /// The file of lines.
    pub(super) output: Written,
    /// The exit code.
    pub(super) exit_code: i32,
    /// What to say of an exit code that means failure.
    pub(super) failure: ActionFailure,
}

/// Codes of Choria's replies, and ours.
const STATUS_CODES: &[(i64, &Code)] = &[
    (1, &code::FAILED),
    (2, &code::UNKNOWN_ACTION),
    (3, &code::MISSING_ARGUMENT),
    (4, &code::INVALID_ARGUMENT),
    (5, &code::FAILED),
];

fn broken(message: impl Into<String>) -> ActionFailure {
    ActionFailure::new(&code::PLUGIN_ERROR, message)
}

/// The answer to a request, and what should be changed in the plugin although the answer stands.
pub(super) fn answer(action: &Action, answer: Answer) -> (ActionReply, Option<String>) {
    let Answer { reply, output, exit_code, failure } = answer;
    match (content("reply", reply), content("MUSTER_OUTPUT", output)) {
        // A program that has failed may have left half a file.
        (Err(_), _) | (_, Err(_)) if exit_code != 0 => (Err(failure), None),
        (Err(why), _) | (_, Err(why)) => (Err(why), None),
        (Ok(Some(_)), Ok(Some(_))) => {
            let why = "the plugin wrote both a reply and MUSTER_OUTPUT; one of them has to do";
            (Err(broken(why)), None)
        }
        (Ok(None), Ok(None)) if exit_code != 0 => (Err(failure), None),
        (Ok(None), Ok(None)) => (Err(broken("the plugin ended well and wrote no reply")), None),
        (Ok(Some(text)), Ok(None)) => from_reply(action, &text, exit_code, failure),
        (Ok(None), Ok(Some(text))) => match lines::parse(&text, action) {
            Err(_) if exit_code != 0 => (Err(failure), None),
            Err(why) => (Err(broken(why)), None),
            Ok(lines) if exit_code == 0 => complete(action, lines.data, lines.message.unwrap_or_default()),
            Ok(lines) => {
                // An empty line for people says less than the exit code does.
                let failure = match lines.message.filter(|message| !message.trim().is_empty()) {
                    Some(message) => ActionFailure { message, ..failure },
                    None => failure,
                };
                (Err(failure.with_data(Value::Object(lines.data))), None)
            }
        },
    }
}

fn content(what: &str, written: Written) -> Result<Option<String>, ActionFailure> {
    match written {
        Written::Nothing => Ok(None),
        Written::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(broken(format!("the plugin's {what} is not UTF-8"))),
        },
        Written::TooMuch => Err(ActionFailure::new(
            &code::LIMIT_EXCEEDED,
            format!("the plugin's {what} is larger than {REPLY_BYTES_MAX} bytes"),
        )),
        // Programs that have nothing to say may take the file of lines away; the reply is the contract.
        Written::Gone if what != "reply" => Ok(None),
        Written::Gone => Err(broken("the plugin removed its reply file")),
        Written::NotAFile => Err(broken(format!("the plugin put something that is not a file where its {what} was"))),
        Written::Unreadable(why) => Err(broken(format!("the plugin's {what} cannot be read: {why}"))),
    }
}

fn json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, ActionFailure> {
    let refused = |why: String| {
        let start: String = text.chars().take(EXCERPT_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
        broken(format!("the plugin's reply is not what the contract says ({why}); it begins with `{start}`"))
    };
    let value: Value = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
    // An array would be taken for the fields in their order.
    if !value.is_object() {
        return Err(refused("not a JSON object".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| refused(error.to_string()))
}

/// How deep arrays and objects nest. The reader of JSON has bounded it before.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn from_reply(action: &Action, text: &str, exit_code: i32, failure: ActionFailure) -> (ActionReply, Option<String>) {
    let reply: RpcReply = match json(text) {
        Ok(reply) => reply,
        Err(_) if exit_code != 0 => return (Err(failure), None),
        Err(why) => return (Err(why), None),
    };
    if depth(&reply.data) > DATA_DEPTH_MAX {
        let message = format!("the `data` of the plugin's reply nests deeper than {DATA_DEPTH_MAX} levels");
        return (Err(broken(message)), None);
    }
    let data = match reply.data {
        Value::Object(data) => data,
        Value::Null => Map::new(),
        _ => return (Err(broken("the `data` of the plugin's reply is not an object")), None),
    };
    let said = reply.statusmsg.unwrap_or_default();
    if reply.statuscode == 0 {
        if exit_code != 0 {
            let message = format!("{}, although its reply says that all went well", failure.message);
            return (Err(ActionFailure { message, ..failure }.with_data(Value::Object(data))), None);
        }
        // Choria's helper libraries say so in every good reply; it tells nobody anything.
        let said = if said == "OK" { String::new() } else { said };
        return complete(action, data, said);
    }
    let Some((_, meant)) = STATUS_CODES.iter().find(|(number, _)| *number == reply.statuscode) else {
        let message = format!("the plugin replied with the status code {}, which is none", reply.statuscode);
        return (Err(broken(message).with_data(Value::Object(data))), None);
    };
    let message =
        if said.trim().is_empty() { format!("the plugin failed with status code {}", reply.statuscode) } else { said };
    let failure = ActionFailure::new(meant, message).with_data(Value::Object(data));
    let failure = if exit_code == 0 { failure } else { failure.with_exit_code(exit_code) };
    (Err(failure), None)
}

/// Checks data against the outputs and fills in their defaults. Keys that are not described stay: Choria
/// lets them through, and nobody is served by their loss.
fn complete(action: &Action, mut data: Map<String, Value>, message: String) -> (ActionReply, Option<String>) {
    let mut wrong = Vec::new();
    let mut undescribed = Vec::new();
    for (name, value) in &data {
        match action.output.get(name).map(|output| &output.kind) {
            None => undescribed.push(format!("`{name}`")),
            Some(ValueType::Unknown(_)) => {}
            Some(kind) if value.is_null() || kind.fits(value) => {}
            Some(kind) => wrong.push(format!("`{name}` is not of type {}", kind.as_str())),
        }
    }
    if !wrong.is_empty() {
        let message = format!("the plugin's reply does not fit its description: {}", wrong.join(", "));
        return (Err(broken(message).with_data(Value::Object(data))), None);
    }
    for (name, output) in action.output.iter().filter(|(_, output)| !output.default.is_null()) {
        if !data.contains_key(name) {
            data.insert(name.to_owned(), output.default.clone());
        }
    }
    let remark = (!undescribed.is_empty())
        .then(|| format!("the reply of action `{}` has {}, not described", action.name, undescribed.join(", ")));
    (Ok(ActionOk { data: Value::Object(data), message }), remark)
}

/// Whether the plugin can work here. Choria's plugins say so in a reply; others by ending well or not.
pub(super) fn activation(reply: Written, exit_code: i32, said: Option<String>) -> Result<(), String> {
    let reply = match reply {
        // Whoever answers an activation check by its exit code may clean up behind itself.
        Written::Gone => Written::Nothing,
        other => other,
    };
    let said = || said.unwrap_or_else(|| format!("its activation check ended with exit code {exit_code}"));
    match content("reply", reply).map_err(|failure| failure.message)? {
        _ if exit_code != 0 => Err(said()),
        None => Ok(()),
        Some(text) => match json::<ActivationReply>(&text) {
            Ok(reply) if reply.activate => Ok(()),
            Ok(_) => Err("it says that it is not for this host".to_owned()),
            Err(failure) => Err(failure.message),
        },
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::ddl::Ddl;
    use serde_json::json;

    use super::*;

    fn action() -> Action {
        let output = |kind: &str| json!({ "description": "d", "display_as": "D", "type": kind });
        let ddl = json!({ "metadata": { "name": "lab" }, "actions": [{ "action": "try", "output": {
            "text": output("string"),
            "count": { "description": "d", "display_as": "D", "type": "integer", "default": 7 },
        }}]});
        Ddl::parse(&ddl.to_string()).unwrap().actions.remove(0)
    }

    fn bytes(text: &str) -> Written {
        if text.is_empty() { Written::Nothing } else { Written::Bytes(text.into()) }
    }

    /// `code message data`, or `ok message data`.
    #[track_caller]
    fn check(reply: Written, output: &str, exit_code: i32, expected: (&str, &str, Value)) {
        let failure = ActionFailure::failed("`lab` ended with exit code 3: no luck").with_exit_code(exit_code);
        let what = format!("{reply:?} {output:?} {exit_code}");
        let (got, _) = answer(&action(), Answer { reply, output: bytes(output), exit_code, failure });
        let got = match &got {
            Ok(ok) => ("ok", ok.message.as_str(), ok.data.clone()),
            Err(failure) => (failure.code.code, failure.message.as_str(), failure.data.clone()),
        };
        assert_eq!(got, expected, "{what}");
    }

    #[test]
    fn every_reply_has_its_meaning() {
        let ok = |text: &str| bytes(&format!(r#"{{"statuscode":0,"statusmsg":"OK","data":{{"text":"{text}"}}}}"#));
        let no_luck = "`lab` ended with exit code 3: no luck";
        check(ok("a"), "", 0, ("ok", "", json!({ "text": "a", "count": 7 })));
        check(bytes("{}"), "", 0, ("ok", "", json!({ "count": 7 })));
        check(
            bytes(r#"{"statuscode":0,"statusmsg":"fine","data":null}"#),
            "",
            0,
            ("ok", "fine", json!({ "count": 7 })),
        );
        check(bytes(r#"{"data":{"extra":1}}"#), "", 0, ("ok", "", json!({ "extra": 1, "count": 7 })));
        check(Written::Nothing, "text=a\ncount=1", 0, ("ok", "", json!({ "text": "a", "count": 1 })));
        for (status, code) in [
            (1, "failed"),
            (2, "unknown-action"),
            (3, "missing-argument"),
            (4, "invalid-argument"),
            (5, "failed"),
            (6, "plugin-error"),
            (-1, "plugin-error"),
        ] {
            let reply = format!(r#"{{"statuscode":{status},"statusmsg":"no","data":{{"text":"a"}}}}"#);
            let message = if code == "plugin-error" {
                format!("the plugin replied with the status code {status}, which is none")
            } else {
                "no".to_owned()
            };
            check(bytes(&reply), "", 0, (code, &message, json!({ "text": "a" })));
        }
        check(Written::Nothing, "", 3, ("failed", no_luck, Value::Null));
        check(bytes("half a rep"), "", 3, ("failed", no_luck, Value::Null));
        check(Written::Gone, "", 3, ("failed", no_luck, Value::Null));
        check(Written::Nothing, "text=a\n.message=told you", 3, ("failed", "told you", json!({ "text": "a" })));
        check(Written::Nothing, "text=a\n.message= ", 3, ("failed", no_luck, json!({ "text": "a" })));
        let silent = bytes(r#"{"statuscode":1,"statusmsg":" "}"#);
        check(silent, "", 0, ("failed", "the plugin failed with status code 1", json!({})));
        check(
            ok("a"),
            "",
            3,
            (
                "failed",
                "`lab` ended with exit code 3: no luck, although its reply says that all went well",
                json!({ "text": "a" }),
            ),
        );
    }

    #[test]
    fn everything_that_is_no_reply_is_told_apart() {
        let broken = |reply: Written, output: &str, message: &str| {
            check(reply, output, 0, ("plugin-error", message, Value::Null));
        };
        broken(Written::Nothing, "", "the plugin ended well and wrote no reply");
        broken(bytes(" \n"), "", "the plugin ended well and wrote no reply");
        broken(Written::Gone, "", "the plugin removed its reply file");
        broken(Written::NotAFile, "", "the plugin put something that is not a file where its reply was");
        broken(Written::Bytes(vec![0xff]), "", "the plugin's reply is not UTF-8");
        broken(
            bytes("[0]"),
            "",
            "the plugin's reply is not what the contract says (not a JSON object); it begins with `[0]`",
        );
        broken(bytes(r#"{"data":[]}"#), "", "the `data` of the plugin's reply is not an object");
        broken(bytes("{}"), "text=a", "the plugin wrote both a reply and MUSTER_OUTPUT; one of them has to do");
        broken(Written::Nothing, "nonsense", "line 1 of MUSTER_OUTPUT is neither NAME=VALUE nor NAME<<END");
        let deep = format!(r#"{{"data":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        broken(bytes(&deep), "", "the `data` of the plugin's reply nests deeper than 24 levels");
        check(
            Written::TooMuch,
            "",
            0,
            ("limit-exceeded", "the plugin's reply is larger than 1048576 bytes", Value::Null),
        );
        check(
            bytes(r#"{"data":{"text":1,"count":"a"}}"#),
            "",
            0,
            (
                "plugin-error",
                "the plugin's reply does not fit its description: `count` is not of type integer, `text` is not of type string",
                json!({ "text": 1, "count": "a" }),
            ),
        );
    }

    #[test]
    fn what_is_not_described_is_kept_and_remarked() {
        let failure = ActionFailure::failed("x");
        let reply = bytes(r#"{"data":{"extra":1}}"#);
        let (_, remark) = answer(&action(), Answer { reply, output: Written::Nothing, exit_code: 0, failure });
        assert_eq!(remark.as_deref(), Some("the reply of action `try` has `extra`, not described"));
    }

    #[test]
    fn an_activation_check_is_a_reply_or_an_exit_code() {
        #[track_caller]
        fn check(reply: &str, exit_code: i32, expected: Result<(), &str>) {
            let got = activation(bytes(reply), exit_code, None);
            assert_eq!(got.as_ref().map_err(String::as_str).copied(), expected, "{reply} {exit_code}");
        }
        check(r#"{"activate":true}"#, 0, Ok(()));
        check(r#"{"activate":false}"#, 0, Err("it says that it is not for this host"));
        check("", 0, Ok(()));
        check("", 1, Err("its activation check ended with exit code 1"));
        check(r#"{"activate":true}"#, 1, Err("its activation check ended with exit code 1"));
        assert_eq!(activation(Written::Gone, 1, Some("no disk".to_owned())), Err("no disk".to_owned()));
        assert!(activation(bytes("yes"), 0, None).unwrap_err().contains("is not what the contract says"));
    }
}
