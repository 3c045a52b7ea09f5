//! What an approver should look at twice. A pure function over what will be signed.

use muster_client::Pending;
use muster_protocol::Timestamp;
use muster_protocol::ddl::Action;
use serde_json::Value;

use super::view::is_plain;
use crate::context::Context;
use crate::output::{number, time};

/// A command that lives longer than this, in milliseconds, is more than a visit to the next desk.
const LONG_MS: i64 = 4 * 60 * 60 * 1000;

/// Less than this, in milliseconds, may not be enough to give it back.
const SHORT_MS: i64 = 5 * 60 * 1000;

/// What is unusual, most serious first. `action` is the description that this machine has, if it has one.
pub(super) fn unusual(pending: &Pending, action: Option<&Action>, context: &Context, now: Timestamp) -> Vec<String> {
    let command = pending.command();
    let mut found = Vec::new();
    let name = format!("{}.{}", command.plugin, command.action);
    match action {
        None => found
            .push(format!("`{name}` is not described on this machine: what it does, and its arguments, are unchecked")),
        Some(action) => {
            // Secrets are sealed; what is open is checked as far as it goes.
            let mut known = action.clone();
            known.input.retain(|_, input| !input.is_secret());
            if let Err(error) = known.validate(&command.arguments) {
                found.push(format!("hosts would refuse the arguments: {error}"));
            }
        }
    }
    for (argument, value) in &command.arguments {
        if !is_plain(argument) || !texts(value).all(is_plain) {
            found.push(format!(
                "argument `{argument}` has characters that look like others or cannot be seen; they are shown as \\u{{...}}"
            ));
        }
    }
    if let Some(sealed) = &command.sealed {
        let names: Vec<&str> = sealed.names.iter().map(String::as_str).collect();
        found.push(format!("you cannot see the values of {}: only the hosts can", names.join(", ")));
    }
    if matches!(command.plugin.as_str(), "shell" | "script") {
        found.push("it runs lines that its caller wrote: read them to the end".to_owned());
    }
    if let Some(user) = &command.options.effective_user {
        found.push(format!("it runs as user `{user}` of the hosts"));
    }
    if pending.hosts().len() > context.confirm_above {
        found.push(format!("it is for {}", number::counted(pending.hosts().len(), "host", "hosts")));
    }
    if command.collective != context.collective {
        found.push(format!("it is for collective `{}`; yours is `{}`", command.collective, context.collective));
    }
    let lives_ms = command.expires_at_ms.since_ms(command.created_at_ms);
    if lives_ms > LONG_MS {
        found.push(format!("it can be sent for {} after it was made", time::span(lives_ms)));
    }
    let left_ms = command.expires_at_ms.since_ms(now);
    if (0..SHORT_MS).contains(&left_ms) {
        found.push(format!("it expires in {}", time::span(left_ms)));
    }
    found
}

/// Every text in a value, names of fields included.
fn texts(value: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Value::String(text) => Box::new(std::iter::once(text.as_str())),
        Value::Array(elements) => Box::new(elements.iter().flat_map(texts)),
        Value::Object(fields) => {
            Box::new(fields.iter().flat_map(|(name, value)| std::iter::once(name.as_str()).chain(texts(value))))
        }
        _ => Box::new(std::iter::empty()),
    }
}
