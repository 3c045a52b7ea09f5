//! `file.put` and `file.remove`: a file as it should be, in one step, or not at all.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, fchown};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use muster_plugin_api::{ActionContext, ActionFailure, ActionReply, ActionRequest};
use muster_protocol::code;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{Group, UnlinkatFlags, getegid, geteuid, linkat, unlinkat};
use serde_json::{Value, json};

use super::entry::{Entry, Kind, PERMISSIONS, STEP_BYTES, too_large};
use super::reach::{Parent, Reach};
use super::work::Steps;
use crate::digest::sha256_hex;
use crate::execution::invalid;
use crate::process::EffectiveUser;
use crate::reply;

/// Mode of a new file.
const MODE_DEFAULT: u32 = 0o644;

/// Mode of a new file with a secret in it.
const SECRET_MODE_DEFAULT: u32 = 0o600;

/// The file as a caller wants it.
#[derive(Debug)]
pub(super) struct Put {
    content: Vec<u8>,
    is_secret: bool,
    sha256: String,
    expected: Option<Expected>,
    owner: Option<String>,
    group: Option<String>,
    mode: Option<u32>,
    /// The name's ending under which the old file is kept.
    backup: Option<String>,
    /// Name of the file until it has its own.
    temporary: String,
    noop: bool,
    bytes_max: u64,
}

/// What must be there before anything is done.
#[derive(Debug)]
enum Expected {
    Absent,
    Sha256(String),
}

/// How the file will be.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// A file under a name of ours, which goes unless it gets its own.
struct Temporary<'a> {
    parent: &'a Parent,
    name: &'a str,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _has_its_own_name_now = unlinkat(&self.parent.directory, self.name, UnlinkatFlags::NoRemoveDir);
    }
}

impl Put {
    pub(super) fn of(request: &ActionRequest, context: &ActionContext, bytes_max: u64) -> Result<Self, ActionFailure> {
        let (given, is_secret) = match (request.text("content"), request.text("secret_content")) {
            (Some(_), Some(_)) => return Err(invalid("secret_content", "cannot be given together with `content`")),
            (Some(content), None) => (content, false),
            (None, Some(content)) => (content, true),
            (None, None) => {
                let why = "there is neither an input `content` nor `secret_content`";
                return Err(ActionFailure::new(&code::MISSING_ARGUMENT, why));
            }
        };
        let content = match request.text("encoding") {
            Some("base64") => {
                let packed: String = given.split_ascii_whitespace().collect();
                let name = if is_secret { "secret_content" } else { "content" };
                // Where it is wrong would tell something of a secret.
                BASE64_STANDARD.decode(packed).map_err(|_| invalid(name, "is not base64"))?
            }
            _ => given.as_bytes().to_vec(),
        };
        if content.len() as u64 > bytes_max {
            return Err(too_large(content.len() as u64, bytes_max));
        }
        let sha256 = sha256_hex(&content);
        if let Some(announced) = request.text("sha256")
            && announced != sha256
        {
            let why = "the content that came does not have the checksum `sha256`; nothing was changed";
            return Err(ActionFailure::new(&code::CHECKSUM_MISMATCH, why));
        }
        let mode = request.text("mode").map(|text| u32::from_str_radix(text, 8)).transpose();
        let mode = mode.ok().filter(|mode| mode.is_none_or(|mode| mode <= PERMISSIONS));
        let backup = request.arguments.get("backup").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            content,
            is_secret,
            sha256,
            expected: expected(request),
            owner: request.text("owner").map(str::to_owned),
            group: request.text("group").map(str::to_owned),
            mode: mode.ok_or_else(|| invalid("mode", "is not made of three octal digits, such as 0640"))?,
            backup: backup.then(|| format!(".muster-{}", context.host.now().0)),
            temporary: format!(".muster-{}", request.request_id),
            noop: request.noop,
            bytes_max,
        })
    }

    pub(super) fn apply(&self, reach: &Reach, steps: &Steps) -> ActionReply {
        let parent = reach.parent()?;
        let before = plain(parent.entry().map_err(|errno| reach.failure(errno))?)?;
        let old_sha256 = before.as_ref().map(|entry| entry.sha256(self.bytes_max, steps)).transpose()?;
        check_expected(self.expected.as_ref(), old_sha256.as_deref())?;
        let content_changed = old_sha256.as_deref() != Some(self.sha256.as_str());
        let wanted = self.wanted(before.as_ref(), content_changed)?;
        let mode_changed = before.as_ref().is_none_or(|entry| entry.mode != wanted.mode);
        let owner_changed = before.as_ref().is_none_or(|entry| (entry.uid, entry.gid) != (wanted.uid, wanted.gid));
        let changed = content_changed || mode_changed || owner_changed;

        let mut backup = None;
        let replaces = content_changed && before.is_some();
        if let Some(ending) = self.backup.as_ref().filter(|_| replaces) {
            backup = Some(format!("{}{ending}", parent.name.to_string_lossy()));
        }
        if changed && !self.noop {
            if content_changed {
                self.replace(reach, &parent, before.as_ref(), &wanted, backup.as_deref(), steps)?;
            } else if let Some(entry) = &before {
                let file = entry.open()?;
                steps.commit()?;
                dress(&file, &wanted).map_err(|error| ActionFailure::failed(format!("owner or mode: {error}")))?;
            }
        }
        let after = if self.noop { None } else { parent.entry().map_err(|errno| reach.failure(errno))? };
        let shown = |sha256: Option<&str>| if self.is_secret { None } else { sha256.map(str::to_owned) };
        let after = match (&after, self.noop) {
            (Some(_), false) => Entry::summary(after.as_ref(), shown(Some(&self.sha256)).as_deref()),
            _ => json!({
                "exists": true,
                "size_bytes": self.content.len(),
                "mode": format!("{:04o}", wanted.mode),
                "owner": super::entry::user_name(wanted.uid),
                "group": super::entry::group_name(wanted.gid),
                "sha256": shown(Some(&self.sha256)),
            }),
        };
        let backup = backup.map(|name| reach.path().with_file_name(name).display().to_string());
        reply::answer(&json!({
            "path": reach.path().display().to_string(),
            "changed": changed,
            "created": before.is_none(),
            "content_changed": content_changed,
            "mode_changed": mode_changed,
            "owner_changed": owner_changed,
            "before": Entry::summary(before.as_ref(), shown(old_sha256.as_deref()).as_deref()),
            "after": after,
            "backup": backup,
        }))
    }

    /// Owner, group and mode: as asked, otherwise as they are. Set-user-id and set-group-id do not
    /// pass over to another content, and not to another owner either: nobody asked for their rights.
    fn wanted(&self, before: Option<&Entry>, content_changed: bool) -> Result<Wanted, ActionFailure> {
        let owner = self.owner.as_deref().map(EffectiveUser::resolve).transpose()?;
        let group = self.group.as_deref().map(group_number).transpose()?;
        let mode_default = if self.is_secret { SECRET_MODE_DEFAULT } else { MODE_DEFAULT };
        let uid = owner.map(|user| user.uid).or(before.map(|entry| entry.uid)).unwrap_or(geteuid().as_raw());
        let gid = group.or(before.map(|entry| entry.gid)).unwrap_or(getegid().as_raw());
        let owner_changed = before.is_some_and(|entry| (entry.uid, entry.gid) != (uid, gid));
        let keeps = if content_changed || owner_changed { PERMISSIONS } else { u32::MAX };
        Ok(Wanted { uid, gid, mode: self.mode.or(before.map(|entry| entry.mode & keeps)).unwrap_or(mode_default) })
    }

    fn replace(
        &self,
        reach: &Reach,
        parent: &Parent,
        before: Option<&Entry>,
        wanted: &Wanted,
        backup: Option<&str>,
        steps: &Steps,
    ) -> Result<(), ActionFailure> {
        let failure = |errno| reach.failure(errno);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&parent.directory, self.temporary.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let mut file = File::from(opened.map_err(failure)?);
        let _temporary = Temporary { parent, name: &self.temporary };
        let cannot = |error: std::io::Error| {
            ActionFailure::failed(format!("the new content of `{}` cannot be written: {error}", reach.path().display()))
        };
        for step in self.content.chunks(STEP_BYTES) {
            steps.go_on()?;
            file.write_all(step).map_err(cannot)?;
        }
        dress(&file, wanted).map_err(cannot)?;
        file.sync_all().map_err(cannot)?;
        if !parent.is_still(before).map_err(failure)? {
            let why = format!("`{}` was changed by somebody else meanwhile; nothing was done", reach.path().display());
            return Err(ActionFailure::new(&code::CONFLICT, why));
        }
        steps.commit()?;
        let (directory, name) = (&parent.directory, parent.name.as_os_str());
        if let Some(backup) = backup {
            // A second name for the old file: it keeps everything, owner and times included.
            linkat(directory, name, directory, backup, AtFlags::empty()).map_err(|errno| {
                ActionFailure::failed(format!("the old file cannot be kept as `{backup}`: {}", errno.desc()))
            })?;
        }
        renameat(directory, self.temporary.as_str(), directory, name).map_err(failure)?;
        sync(parent).map_err(failure)
    }
}

/// A file to be gone.
#[derive(Debug)]
pub(super) struct Remove {
    expected: Option<Expected>,
    noop: bool,
    bytes_max: u64,
}

impl Remove {
    pub(super) fn of(request: &ActionRequest, bytes_max: u64) -> Self {
        Self { expected: expected(request), noop: request.noop, bytes_max }
    }

    pub(super) fn apply(&self, reach: &Reach, steps: &Steps) -> ActionReply {
        let path = reach.path().display().to_string();
        let failure = |errno| reach.failure(errno);
        // Where the directory is missing, the file is too.
        if reach.entry()?.is_none() {
            return reply::answer(&json!({ "path": path, "changed": false, "before": Entry::summary(None, None) }));
        }
        let parent = reach.parent()?;
        let before = plain(parent.entry().map_err(failure)?)?;
        let sha256 = match (&before, &self.expected) {
            // A file that is too large to be hashed can be removed all the same, unless its content matters.
            (Some(entry), None) if entry.size_bytes > self.bytes_max => None,
            (Some(entry), _) => Some(entry.sha256(self.bytes_max, steps)?),
            (None, _) => None,
        };
        if before.is_some() {
            check_expected(self.expected.as_ref(), sha256.as_deref())?;
        }
        if before.is_some() && !self.noop {
            if !parent.is_still(before.as_ref()).map_err(failure)? {
                let why = format!("`{path}` was changed by somebody else meanwhile; nothing was done");
                return Err(ActionFailure::new(&code::CONFLICT, why));
            }
            steps.commit()?;
            unlinkat(&parent.directory, parent.name.as_os_str(), UnlinkatFlags::NoRemoveDir).map_err(failure)?;
            sync(&parent).map_err(failure)?;
        }
        reply::answer(&json!({
            "path": path,
            "changed": before.is_some(),
            "before": Entry::summary(before.as_ref(), sha256.as_deref()),
        }))
    }
}

/// Everything but a plain file, or nothing, is refused.
fn plain(entry: Option<Entry>) -> Result<Option<Entry>, ActionFailure> {
    match entry {
        Some(entry) if entry.kind != Kind::File => {
            let word = entry.kind.word().replace('_', " ");
            Err(ActionFailure::failed(format!("there is a {word} at the path, and only plain files are touched")))
        }
        entry => Ok(entry),
    }
}

fn expected(request: &ActionRequest) -> Option<Expected> {
    request.text("expected_sha256").map(|text| match text {
        "absent" => Expected::Absent,
        digits => Expected::Sha256(digits.to_owned()),
    })
}

fn check_expected(expected: Option<&Expected>, found: Option<&str>) -> Result<(), ActionFailure> {
    let why = match (expected, found) {
        (None, _) | (Some(Expected::Absent), None) => return Ok(()),
        (Some(Expected::Sha256(wanted)), Some(found)) if wanted == found => return Ok(()),
        (Some(Expected::Absent), Some(_)) => "there is a file already",
        (Some(Expected::Sha256(_)), None) => "there is no file",
        (Some(Expected::Sha256(_)), Some(_)) => "the file that is there does not have the checksum `expected_sha256`",
    };
    Err(ActionFailure::new(&code::CHECKSUM_MISMATCH, format!("{why}; nothing was changed")))
}

/// By the one name that the host gives it, as for users: a rule about the name must not be walked around.
fn group_number(name: &str) -> Result<u32, ActionFailure> {
    let found = Group::from_name(name)
        .map_err(|errno| ActionFailure::failed(format!("cannot look up group {name:?}: {errno}")))?;
    let found = found.filter(|group| group.name == name).map(|group| group.gid.as_raw());
    found.ok_or_else(|| invalid("group", "is not the name of a group of this host"))
}

/// Owner first: changing it takes permissions away.
fn dress(file: &File, wanted: &Wanted) -> std::io::Result<()> {
    let now = std::os::unix::fs::MetadataExt::uid(&file.metadata()?);
    let group = std::os::unix::fs::MetadataExt::gid(&file.metadata()?);
    if (now, group) != (wanted.uid, wanted.gid) {
        fchown(file, Some(wanted.uid), Some(wanted.gid))?;
    }
    file.set_permissions(std::fs::Permissions::from_mode(wanted.mode))
}

/// Makes the change of names durable.
fn sync(parent: &Parent) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = File::from(openat(&parent.directory, ".", flags, Mode::empty())?);
    directory.sync_all().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)))
}
