//! `file`: look at, fetch, put and remove files below directories that the host's administrator has opened.
//!
//! # The data and how it flows
//!
//! A path is first matched with the opened directories as text, then walked from there by the kernel,
//! which refuses every way out ([`reach`]). What is found is held open and looked at before anything is
//! read ([`entry`]), so that nothing can be put in its place in between. A new content is written beside
//! the old file and takes its name in one step ([`put`]). All of it is blocking work on a thread of its
//! own, which stops at the next step when it is told to ([`work`]).
//!
//! # Non-goals
//!
//! Directories are neither made nor removed nor listed. Access control lists, extended attributes and
//! hard links of a file that is replaced stay with the old file.

mod entry;
mod fetch;
mod put;
mod reach;
mod work;

use std::path::PathBuf;

use muster_plugin_api::{ActionContext, ActionFailure, ActionReply, ActionRequest, BoxFuture, NotActivated, Plugin};
use muster_protocol::ddl::Ddl;
use serde_json::{Value, json};

use crate::reply;
use entry::{Entry, Kind};
use put::{Put, Remove};
use reach::Reach;
use work::Steps;

/// What the plugin `file` may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    /// Directories below which it may look at and fetch files. None by default.
    pub read_roots: Vec<PathBuf>,
    /// Directories below which it may put and remove files. None by default.
    pub write_roots: Vec<PathBuf>,
    /// Bytes of the largest file that it reads, hashes or replaces.
    pub bytes_max: u64,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self { read_roots: Vec::new(), write_roots: Vec::new(), bytes_max: 64 * 1024 * 1024 }
    }
}

/// The plugin `file`.
#[derive(Debug)]
pub struct File {
    settings: FileSettings,
}

impl File {
    /// The plugin, with these settings.
    #[must_use]
    pub fn new(settings: FileSettings) -> Self {
        Self { settings }
    }

    async fn run(&self, request: ActionRequest, context: ActionContext) -> ActionReply {
        let Some(path) = request.text("path") else { return Err(ActionFailure::unknown_action(&request.action)) };
        let bytes_max = self.settings.bytes_max;
        let read = || Reach::of(path, &self.settings.read_roots, "read");
        let write = || Reach::of(path, &self.settings.write_roots, "written");
        let checksum = request.arguments.get("checksum").and_then(Value::as_bool).unwrap_or(false);
        match request.action.as_str() {
            "status" => {
                let reach = read()?;
                work::run(&request, &context, move |steps| status(&reach, checksum, bytes_max, steps)).await
            }
            "fetch" => {
                let (reach, part) = (read()?, fetch::Part::of(&request)?);
                work::run(&request, &context, move |steps| part.fetch(&reach, checksum, bytes_max, steps)).await
            }
            "put" => {
                let (reach, put) = (write()?, Put::of(&request, &context, bytes_max)?);
                work::run(&request, &context, move |steps| put.apply(&reach, steps)).await
            }
            "remove" => {
                let (reach, remove) = (write()?, Remove::of(&request, bytes_max));
                work::run(&request, &context, move |steps| remove.apply(&reach, steps)).await
            }
            _ => Err(ActionFailure::unknown_action(&request.action)),
        }
    }
}

fn status(reach: &Reach, checksum: bool, bytes_max: u64, steps: &Steps) -> ActionReply {
    let path = reach.path().display().to_string();
    let Some(entry) = reach.entry()? else {
        return reply::answer(&json!({ "path": path, "exists": false, "type": "absent" }));
    };
    let sha256 = if checksum && entry.kind == Kind::File { Some(entry.sha256(bytes_max, steps)?) } else { None };
    reply::answer(&json!({
        "path": path,
        "exists": true,
        "type": entry.kind.word(),
        "size_bytes": entry.size_bytes,
        "mode": entry.mode_text(),
        "owner": entry::user_name(entry.uid),
        "uid": entry.uid,
        "group": entry::group_name(entry.gid),
        "gid": entry.gid,
        "mtime_ms": entry.mtime_ms,
        "sha256": sha256,
    }))
}

impl Entry {
    /// The file's state as it stands in answers before and after a change.
    fn summary(entry: Option<&Self>, sha256: Option<&str>) -> Value {
        match entry {
            None => json!({ "exists": false }),
            Some(entry) => json!({
                "exists": true,
                "size_bytes": entry.size_bytes,
                "mode": entry.mode_text(),
                "owner": entry::user_name(entry.uid),
                "group": entry::group_name(entry.gid),
                "sha256": sha256,
            }),
        }
    }
}

impl Plugin for File {
    fn ddl(&self) -> &Ddl {
        reply::description("file")
    }

    fn activate(&self) -> Result<(), NotActivated> {
        if self.settings.read_roots.is_empty() && self.settings.write_roots.is_empty() {
            return Err(NotActivated::new(
                "no directory is opened: `plugins.file.read_roots` and `plugins.file.write_roots` are empty",
            ));
        }
        Ok(())
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            self.run(request, context).await
        })
    }
}
