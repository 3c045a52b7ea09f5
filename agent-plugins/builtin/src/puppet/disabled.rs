//! Puppet's lock against runs: a file that an administrator puts there, with the reason.
//!
//! The file and its form are part of Puppet's interface for other programs, so that `enable` and
//! `disable` need not start Puppet. It appears whole or not at all, and never in place of another.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use muster_plugin_api::{ActionFailure, ActionRequest};
use muster_protocol::{RequestId, Timestamp, code};
use serde::Serialize;
use serde_json::{Value, json};

use super::files;

/// The key of the reason in Puppet's lock file.
const REASON_KEY: &str = "disabled_message";

/// Longest reason that is repeated, in characters.
const REASON_CHARACTERS_MAX: usize = 1000;

/// That Puppet is disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disabled {
    /// Why, in the words of who did it; may be empty.
    pub(super) reason: String,
    /// Since when.
    pub(super) since_ms: Option<i64>,
    /// What is wrong with the file, if something is.
    pub(super) problem: Option<String>,
}

/// What `enable` and `disable` answer: the keys of their descriptions' outputs.
#[derive(Debug, Serialize)]
pub(super) struct Switched {
    status: &'static str,
    enabled: bool,
    changed: bool,
    reason: String,
    previous_reason: Option<String>,
    previous_since_ms: Option<i64>,
}

impl Disabled {
    /// Looks whether Puppet is disabled. Whatever stands in the file, if it is there, it counts: Puppet does not
    /// run then.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let since_ms = files::written_ms(path);
        match files::text(path) {
            Ok(None) => None,
            Ok(Some(text)) => Some(Self { reason: reason(&text), since_ms, problem: None }),
            Err(failure) => Some(Self { reason: String::new(), since_ms, problem: Some(failure.message) }),
        }
    }

    /// The failure of an action that Puppet's being disabled forbids.
    pub(super) fn failure(&self) -> ActionFailure {
        let why = if self.reason.is_empty() { "no reason was given".to_owned() } else { self.reason.clone() };
        let message = format!("Puppet is disabled on this host: {why}");
        let data = json!({ "disabled_message": self.reason, "disabled_since_ms": self.since_ms });
        ActionFailure::new(&code::DISABLED, message).with_data(data)
    }
}

fn reason(text: &str) -> String {
    let reason = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(lock)) => lock.get(REASON_KEY).and_then(Value::as_str).unwrap_or_default().to_owned(),
        // Somebody made the file by hand.
        _ => text.trim().to_owned(),
    };
    files::cut(&reason, REASON_CHARACTERS_MAX)
}

/// The reason to disable Puppet with: what the request says, or who asks and when.
///
/// # Errors
/// With the code `invalid-argument` when it holds control characters: Puppet writes it into its log, where
/// they would forge lines.
fn wanted_reason(request: &ActionRequest, now: Timestamp) -> Result<Option<String>, ActionFailure> {
    match request.text("reason") {
        None => Ok(None),
        Some(reason) if reason.chars().any(char::is_control) => {
            let message = "the reason holds a control character, such as a line break".to_owned();
            Err(ActionFailure::new(&code::INVALID_ARGUMENT, message))
        }
        Some(reason) if reason.trim().is_empty() => Ok(Some(default_reason(request, now))),
        Some(reason) => Ok(Some(reason.trim().to_owned())),
    }
}

fn default_reason(request: &ActionRequest, now: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(now.0).map(|at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    format!("disabled with Muster by {} at {}", request.caller, at.unwrap_or_default())
}

/// Disables Puppet.
///
/// # Errors
/// With the code `conflict` when it is disabled for another reason and the request does not say `force`.
pub(super) fn disable(path: &Path, request: &ActionRequest, now: Timestamp) -> Result<Switched, ActionFailure> {
    let force = request.arguments.get("force").and_then(Value::as_bool).unwrap_or_default();
    let wanted = wanted_reason(request, now)?;
    let reason = wanted.clone().unwrap_or_else(|| default_reason(request, now));
    let answer = |changed: bool, reason: String, previous: Option<Disabled>| Switched {
        status: "disabled",
        enabled: false,
        changed,
        reason,
        previous_since_ms: previous.as_ref().and_then(|previous| previous.since_ms),
        previous_reason: previous.map(|previous| previous.reason),
    };
    // A second time round the loop: somebody disabled it between the look and the try.
    for _ in 0..2 {
        let previous = Disabled::read(path);
        if let Some(there) = &previous {
            if wanted.as_ref().is_none_or(|wanted| *wanted == there.reason) {
                return Ok(answer(false, there.reason.clone(), previous));
            }
            if !force {
                let message = format!(
                    "Puppet is disabled already, for another reason: {}. `force=true` puts the new one in its place",
                    if there.reason.is_empty() { "none was given" } else { &there.reason }
                );
                let data = answer(false, there.reason.clone(), previous.clone());
                let data = serde_json::to_value(data).unwrap_or_default();
                return Err(ActionFailure::new(&code::CONFLICT, message).with_data(data));
            }
        }
        if request.noop {
            return Ok(answer(true, reason, previous));
        }
        match put(path, &reason, previous.is_some(), &request.request_id) {
            Ok(()) => return Ok(answer(true, reason, previous)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(files::failure(path, "written", &error)),
        }
    }
    Err(ActionFailure::new(&code::CONFLICT, "somebody else disables and enables Puppet at this moment"))
}

/// Puts the lock there, whole: written beside its place, then linked (which fails if one is there) or renamed.
fn put(path: &Path, reason: &str, replace: bool, request: &RequestId) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    // Missing where Puppet was installed and never ran. Puppet sets owner and mode when it does.
    fs::create_dir_all(directory)?;
    let temporary = temporary(path, request);
    let written = write(&temporary, reason)
        .and_then(|()| if replace { fs::rename(&temporary, path) } else { fs::hard_link(&temporary, path) });
    // After the renaming there is none; after anything else it must go.
    let _gone = fs::remove_file(&temporary);
    written?;
    File::open(directory)?.sync_all()
}

/// A name that no other request takes, in this process or another.
fn temporary(path: &Path, request: &RequestId) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{request}"));
    path.with_file_name(name)
}

fn write(path: &Path, reason: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(json!({ REASON_KEY: reason }).to_string().as_bytes())?;
    file.sync_all()
}

/// Enables Puppet.
///
/// # Errors
/// When the lock cannot be removed.
pub(super) fn enable(path: &Path, request: &ActionRequest) -> Result<Switched, ActionFailure> {
    let previous = Disabled::read(path);
    let mut changed = previous.is_some();
    if changed && !request.noop {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if files::is_missing(&error) => changed = false,
            Err(error) => return Err(files::failure(path, "removed", &error)),
        }
    }
    Ok(Switched {
        status: "enabled",
        enabled: true,
        changed,
        reason: String::new(),
        previous_since_ms: previous.as_ref().and_then(|previous| previous.since_ms),
        previous_reason: previous.map(|previous| previous.reason),
    })
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn reasons_as_they_are_found() {
        let long = "x".repeat(2000);
        for (text, expected) in [
            ("{\"disabled_message\":\"moving the database, lea\"}", "moving the database, lea"),
            ("{\"disabled_message\":\"\"}", ""),
            ("{\"disabled_message\":7}", ""),
            ("{}", ""),
            ("", ""),
            ("by hand\n", "by hand"),
            ("[1]", "[1]"),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
        assert_eq!(reason(&long).chars().count(), 1001);
    }
}
