//! The inputs of an action as environment variables, for programs that read no JSON.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::ddl::Action;
use serde_json::{Map, Value};

/// Longest value that becomes a variable, in bytes: the kernel takes 128 KiB for one.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Most bytes of all such values: the kernel takes 2 MiB for arguments and environment together, and
/// a quarter of a small stack limit.
const VALUES_BYTES_MAX: usize = 256 * 1024;

/// Variables for a program, and the names of inputs that have none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct InputVariables {
    pub(super) variables: Vec<(String, String)>,
    /// In the request only, since they are too long.
    pub(super) omitted: Vec<String>,
}

/// The variable of an input: `MUSTER_INPUT_` and its name in capitals, `_` for `-`.
pub fn variable(input: &str) -> String {
    format!("MUSTER_INPUT_{}", input.to_ascii_uppercase().replace('-', "_"))
}

/// The names of inputs that would share a variable, if two of an action do. None of them gets one.
pub fn shared_variables(action: &Action) -> BTreeSet<String> {
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in action.input.names() {
        names.entry(variable(name)).or_default().push(name);
    }
    names.into_values().filter(|names| names.len() > 1).flatten().map(str::to_owned).collect()
}

/// Texts as they are, numbers and booleans as in JSON, arrays and objects as JSON. Never a secret, and
/// nothing for null. The error names a text that cannot be a variable.
pub(super) fn inputs(
    action: &Action,
    arguments: &Map<String, Value>,
    secrets: &BTreeSet<String>,
) -> Result<InputVariables, String> {
    let shared = shared_variables(action);
    let mut result = InputVariables::default();
    let mut total = 0;
    for (name, value) in arguments.iter().filter(|(name, _)| !secrets.contains(*name)) {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if text.contains('\0') {
            return Err(name.clone());
        }
        if shared.contains(name) || text.len() > VALUE_BYTES_MAX || total + text.len() > VALUES_BYTES_MAX {
            result.omitted.push(name.clone());
            continue;
        }
        total += text.len();
        result.variables.push((variable(name), text));
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use muster_protocol::ddl::Ddl;
    use serde_json::json;

    use super::*;

    #[test]
    fn inputs_become_variables() {
        let input = json!({ "prompt": "P", "description": "d", "type": "any", "optional": true });
        let ddl = json!({ "metadata": { "name": "lab" }, "actions": [{ "action": "try", "input": {
            "name": input, "max-size": input, "list": input, "key": input, "a-b": input, "a_b": input, "big": input,
        }}]});
        let action = Ddl::parse(&ddl.to_string()).unwrap().actions.remove(0);
        let Value::Object(arguments) = json!({
            "name": "a b\nc", "max-size": 7, "list": ["x", 1], "key": "secret", "a-b": 1, "big": "x".repeat(70_000),
        }) else {
            unreachable!()
        };
        let secrets = BTreeSet::from(["key".to_owned()]);
        let made = inputs(&action, &arguments, &secrets).unwrap();
        let expected = [("LIST", "[\"x\",1]"), ("MAX_SIZE", "7"), ("NAME", "a b\nc")];
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| (format!("MUSTER_INPUT_{name}"), (*value).to_owned())).collect();
        assert_eq!(made.variables, expected);
        assert_eq!(made.omitted, ["a-b", "big"]);

        let Value::Object(with_nul) = json!({ "name": "a\u{0}b" }) else { unreachable!() };
        assert_eq!(inputs(&action, &with_nul, &secrets), Err("name".to_owned()));
    }
}
