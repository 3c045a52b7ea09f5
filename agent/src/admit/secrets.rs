//! Secret arguments of a command: taken only sealed, opened only after the policy has allowed the action.
//!
//! What the description marks as secret must not come in the open, and what it does not mark must not come
//! sealed: rules of the policy look at open arguments, and nobody may hide one from them.

use std::collections::BTreeSet;

use muster_plugin_api::MASK;
use muster_protocol::ddl::Action;
use muster_protocol::{Command, SealedArguments, code};
use serde_json::{Map, Value};

use super::Refusal;

/// Opens the sealed arguments of a command on this host.
pub type Unseal<'a> = dyn Fn(&Command) -> Result<Map<String, Value>, Refusal> + 'a;

/// The names of the arguments of an action that are secrets.
pub(crate) fn names(action: &Action) -> BTreeSet<String> {
    action.input.iter().filter(|(_, input)| input.is_secret()).map(|(name, _)| name.to_owned()).collect()
}

/// Puts open and sealed arguments together. `unseal` is called only if there is something to open and its
/// names are in order.
pub(super) fn join(
    action: &Action,
    open: &Map<String, Value>,
    sealed: Option<&SealedArguments>,
    unseal: impl FnOnce() -> Result<Map<String, Value>, Refusal>,
) -> Result<Map<String, Value>, Refusal> {
    let secret = names(action);
    if let Some(name) = open.keys().find(|name| secret.contains(*name)) {
        let why = format!("argument `{name}` is a secret and came in the open");
        return Err(Refusal::new(&code::SECRET_NOT_SEALED, why));
    }
    let Some(sealed) = sealed else { return Ok(open.clone()) };
    if let Some(name) = sealed.names.iter().find(|name| !secret.contains(*name)) {
        let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
        let why = format!("argument `{shown}` came sealed and is no secret of `{}`; send it in the open", action.name);
        return Err(Refusal::new(&code::INVALID_ARGUMENT, why));
    }
    let mut all = open.clone();
    all.extend(unseal()?);
    Ok(all)
}

/// The arguments as they may be shown and recorded.
pub(crate) fn masked(arguments: &Map<String, Value>, secrets: &BTreeSet<String>) -> Map<String, Value> {
    let mut shown = arguments.clone();
    for (name, value) in &mut shown {
        if secrets.contains(name) {
            *value = Value::from(MASK);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn action() -> Action {
        let text = r#"{"action": "run", "input": {
            "body": {"type": "string"},
            "token": {"type": "string", "muster": {"secret": true}}
        }}"#;
        serde_json::from_str(text).unwrap()
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn sealed(names: &[&str]) -> SealedArguments {
        SealedArguments {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            public_key: String::new(),
            values: muster_protocol::SealedBox::encode(b"", b""),
            recipients: std::collections::BTreeMap::new(),
        }
    }

    #[track_caller]
    fn check(open: Value, names: Option<&[&str]>, expected: Result<Value, &str>) {
        let sealed = names.map(sealed);
        let inside = || Ok(object(json!({ "token": "s3cret" })));
        let joined = join(&action(), &object(open), sealed.as_ref(), inside);
        assert_eq!(joined.map(Value::Object).map_err(|refusal| refusal.code.code), expected);
    }

    #[test]
    fn secrets_come_sealed_and_nothing_else_does() {
        check(json!({"body": "true"}), None, Ok(json!({"body": "true"})));
        check(json!({"body": "true"}), Some(&["token"]), Ok(json!({"body": "true", "token": "s3cret"})));
        check(json!({"body": "true", "token": "x"}), None, Err("secret-not-sealed"));
        check(json!({}), Some(&["body"]), Err("invalid-argument"));
        check(json!({}), Some(&["nobody"]), Err("invalid-argument"));
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        let arguments = object(json!({"body": "true", "token": {"deep": "s3cret"}}));
        assert_eq!(masked(&arguments, &names(&action())), object(json!({"body": "true", "token": "***"})));
    }
}
