//! What `runonce` is asked for, and the arguments for Puppet that follow from it.

use muster_plugin_api::{ActionFailure, ActionRequest};
use muster_protocol::code;
use serde_json::Value;

/// What Puppet is always told.
///
/// One run, in the foreground; exit codes that tell changes from failures; what it does to the standard
/// output, without colours; no cached catalog in place of one that cannot be had; and no waiting for a
/// certificate. All of them are known to Puppet 4 and everything since.
const FIXED: &[&str] = &[
    "agent",
    "--onetime",
    "--no-daemonize",
    "--detailed-exitcodes",
    "--verbose",
    "--logdest",
    "console",
    "--color=false",
    "--no-usecacheonfailure",
    "--waitforcert",
    "0",
];

/// Longest splay, in seconds: a day.
const SPLAY_LIMIT_S_MAX: i64 = 86_400;

/// Most tags.
const TAGS_MAX: usize = 100;

/// The arguments of one run.
///
/// # Errors
/// With the code `invalid-argument` where a value could be taken for something else, or two contradict each other.
pub(super) fn arguments(request: &ActionRequest) -> Result<Vec<String>, ActionFailure> {
    let flag = |name: &str| request.arguments.get(name).and_then(Value::as_bool);
    let mut arguments: Vec<String> = FIXED.iter().map(|&argument| argument.to_owned()).collect();
    if request.noop {
        arguments.push("--noop".to_owned());
    }
    for (name, option) in [("tags", "--tags"), ("skip_tags", "--skip_tags")] {
        let tags = request.texts(name);
        if tags.len() > TAGS_MAX {
            return Err(refusal(name, &format!("more than {TAGS_MAX} tags")));
        }
        if let Some(wrong) = tags.iter().find(|tag| !is_tag(tag)) {
            return Err(refusal(name, &format!("`{}` is no tag", wrong.escape_default())));
        }
        if !tags.is_empty() {
            arguments.extend([option.to_owned(), tags.join(",")]);
        }
    }
    if let Some(environment) = request.text("environment") {
        if !is_environment(environment) {
            return Err(refusal("environment", &format!("`{}` is no environment", environment.escape_default())));
        }
        arguments.extend(["--environment".to_owned(), environment.to_owned()]);
    }
    let limit = request.arguments.get("splaylimit").and_then(Value::as_i64);
    match (flag("splay"), flag("force") == Some(true), limit) {
        (Some(true), true, _) | (_, true, Some(_)) => {
            return Err(refusal("force", "`force` runs at once, `splay` and `splaylimit` do not; give one of them"));
        }
        (Some(false), _, Some(_)) => return Err(refusal("splaylimit", "there is no splay to limit")),
        (Some(false), ..) | (None, true, _) => arguments.push("--no-splay".to_owned()),
        (Some(true), ..) | (None, _, Some(_)) => arguments.push("--splay".to_owned()),
        (None, false, None) => {}
    }
    if let Some(limit) = limit {
        if !(1..=SPLAY_LIMIT_S_MAX).contains(&limit) {
            return Err(refusal("splaylimit", &format!("{limit} is not between 1 and {SPLAY_LIMIT_S_MAX} seconds")));
        }
        arguments.extend(["--splaylimit".to_owned(), limit.to_string()]);
    }
    if flag("ignoreschedules") == Some(true) {
        arguments.push("--ignoreschedules".to_owned());
    }
    match flag("use_cached_catalog") {
        Some(true) => arguments.push("--use_cached_catalog".to_owned()),
        Some(false) => arguments.push("--no-use_cached_catalog".to_owned()),
        None => {}
    }
    Ok(arguments)
}

fn refusal(argument: &str, why: &str) -> ActionFailure {
    ActionFailure::new(&code::INVALID_ARGUMENT, format!("argument `{argument}`: {why}"))
}

/// Puppet's own rule (`Puppet::Util::Tagging`) in ASCII: nothing that an option could begin with, and no comma.
fn is_tag(tag: &str) -> bool {
    tag.len() <= 200
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.' | b'-'))
}

/// Puppet's own rule (`Puppet::Node::Environment.valid_name?`).
fn is_environment(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use muster_plugin_api::conformance::sample_request;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(given: Value, noop: bool, expected: Result<&str, &str>) {
        let request = ActionRequest { noop, ..sample_request("runonce", given.clone()).unwrap() };
        let found = arguments(&request).map(|all| all[FIXED.len()..].join(" ")).map_err(|failure| failure.message);
        match expected {
            Ok(expected) => assert_eq!(found.as_deref(), Ok(expected), "{given}"),
            Err(expected) => assert!(found.as_ref().is_err_and(|why| why.contains(expected)), "{given}: {found:?}"),
        }
    }

    #[test]
    fn what_puppet_is_told() {
        check(json!({}), false, Ok(""));
        check(json!({}), true, Ok("--noop"));
        check(
            json!({ "tags": ["web", "my::class"], "skip_tags": ["slow"] }),
            false,
            Ok("--tags web,my::class --skip_tags slow"),
        );
        check(json!({ "tags": [] }), false, Ok(""));
        check(json!({ "environment": "test_2" }), true, Ok("--noop --environment test_2"));
        check(json!({ "splay": true, "splaylimit": 60 }), false, Ok("--splay --splaylimit 60"));
        check(json!({ "splaylimit": 60 }), false, Ok("--splay --splaylimit 60"));
        check(json!({ "splay": false }), false, Ok("--no-splay"));
        check(json!({ "force": true }), false, Ok("--no-splay"));
        check(json!({ "force": true, "splay": false }), false, Ok("--no-splay"));
        check(
            json!({ "ignoreschedules": true, "use_cached_catalog": true }),
            false,
            Ok("--ignoreschedules --use_cached_catalog"),
        );
        check(json!({ "ignoreschedules": false, "use_cached_catalog": false }), false, Ok("--no-use_cached_catalog"));
    }

    #[test]
    fn nothing_gets_in_as_something_else() {
        for tag in ["--server", "-x", "", "a,b", "a b", "a\n--server", "a\0", "a;id", "$(id)", "é", "x --server evil"]
        {
            check(json!({ "tags": ["good", tag] }), false, Err("is no tag"));
            check(json!({ "skip_tags": [tag] }), false, Err("is no tag"));
            check(json!({ "environment": tag }), false, Err("is no environment"));
        }
        check(json!({ "environment": "../../etc" }), false, Err("is no environment"));
        check(json!({ "tags": vec!["a"; 101] }), false, Err("more than 100"));
        check(json!({ "splaylimit": 0 }), false, Err("not between"));
        check(json!({ "splaylimit": 86_401 }), false, Err("not between"));
        check(json!({ "force": true, "splay": true }), false, Err("give one of them"));
        check(json!({ "force": true, "splaylimit": 5 }), false, Err("give one of them"));
        check(json!({ "splay": false, "splaylimit": 5 }), false, Err("no splay to limit"));
    }
}
