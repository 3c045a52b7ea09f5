//! A full file is set aside while others write lines, and nobody waits for the disk with the log's lock.
//!
//! | step | holds the log | what | where lines go |
//! |---|---|---|---|
//! | make | no | an empty file `LOG.next`, with its name on the disk | the old file |
//! | switch | yes | the old file's last line says that it is full; the new file's first line names it | the new file, from now on |
//! | sync | no | the old file is on the disk, to its last line | |
//! | set aside | for the renaming | the old file gets its number; then, without the log, that is on the disk | |
//! | in place | for the renaming | the new file gets the log's name; then, without the log, that is on the disk | |
//! | prune | for a line each | the oldest files go, each after the line that says so is on the disk | |
//!
//! Whoever begins to wait for the disk between the switch and the sync waits for its end ([`Gate`](crate::synced::Gate)):
//! no line of the new file is promised before all that it follows is on the disk. From then on the two files are the log
//! whatever they are called: a start takes up a `LOG.next` that follows the old file's last line ([`Audit::open`]), and
//! verifying reads it. If it does not follow, the host crashed before the sync, and nothing in it was promised. A name is
//! never given away before the file that had it has another one on the disk.
//!
//! Where the sync fails the old file is written anew, with the lock; until that works no line is written. Where files
//! cannot be renamed the log goes on in the new one, and that is tried again later.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use muster_daemon::disk::{FileIdentity, Open, write_atomic};
use muster_daemon::{Disk, DiskFile};
use muster_protocol::Timestamp;

use super::about_itself as itself;
use super::files;
use super::log::{Audit, Current, FULL, mark_of, opening};
use super::{AuditError, Durability, Event, FileMark};
use crate::core::lock;
use crate::synced::Tracked;

/// A rotation after its switch.
#[derive(Debug)]
pub(super) struct Pending {
    /// The file that is full.
    old: Arc<Tracked>,
    old_length: u64,
    /// The name that it gets.
    aside: PathBuf,
    /// All of the old file is on the disk.
    is_closed: bool,
    is_aside: bool,
    is_in_place: bool,
}

/// A new file that nothing is in yet.
struct Next {
    file: Arc<dyn DiskFile>,
    identity: FileIdentity,
    /// The name that the old one gets.
    aside: PathBuf,
}

/// Rotates the log if it is full, without holding it while the disk syncs. Returns whether it was.
///
/// # Errors
/// When it cannot be; the log goes on, in the same file or in one that has not got its name yet.
pub fn rotate_shared(audit: &Mutex<Audit>, now: Timestamp) -> Result<bool, AuditError> {
    if !lock(audit).begin_rotation() {
        return Ok(false);
    }
    let working = Working { audit };
    let rotated = working.rotate(now).or_else(|error| working.recover(error));
    // Lines about what is removed are waited for, so the way has to be free again.
    drop(working);
    if !rotated? {
        return Ok(false);
    }
    prune_shared(audit, now)?;
    Ok(true)
}

/// Ends a rotation, however it ends.
struct Working<'a> {
    audit: &'a Mutex<Audit>,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut audit = lock(self.audit);
        audit.is_rotating = false;
        audit.gate.end_change();
    }
}

impl Working<'_> {
    fn rotate(&self, now: Timestamp) -> Result<bool, AuditError> {
        let (disk, path) = {
            let audit = lock(self.audit);
            (audit.disk.clone(), audit.path.clone())
        };
        let failed = |action| {
            let path = path.clone();
            move |source| AuditError::Io { action, path, source }
        };
        let names_synced = || disk.sync_directory(files::directory(&path)).map_err(failed("set aside"));
        if lock(self.audit).pending.is_none() {
            let next = Next::make(&*disk, &path).map_err(failed("begin"))?;
            let Some(old) = lock(self.audit).switch(now, next)? else { return Ok(false) };
            old.place().sync().map_err(failed("close"))?;
            lock(self.audit).is_closed();
        }
        lock(self.audit).set_old_aside()?;
        names_synced()?;
        lock(self.audit).put_new_in_place()?;
        names_synced()?;
        lock(self.audit).is_rotated();
        Ok(true)
    }

    fn recover(&self, error: AuditError) -> Result<bool, AuditError> {
        let mut audit = lock(self.audit);
        audit.put_off_rotation();
        if let Err(again) = audit.close_pending() {
            if let Some(current) = &audit.file {
                // Whoever waits for a line in it must not be told that it is on the disk.
                current.file.give_up();
            }
            crate::core::report_error("Could not write the full file of the audit log anew; it is tried again", &again);
        }
        Err(error)
    }
}

fn prune_shared(audit: &Mutex<Audit>, now: Timestamp) -> Result<(), AuditError> {
    let (disk, path, keep_files) = {
        let audit = lock(audit);
        (audit.disk.clone(), audit.path.clone(), audit.rotation.keep_files)
    };
    let failed = |action| {
        let path = path.clone();
        move |source| AuditError::Io { action, path, source }
    };
    for (oldest, mark) in surplus(&*disk, &path, keep_files).map_err(failed("look beside"))? {
        let unsynced = lock(audit).write_unsynced(now, removal(mark, keep_files))?;
        unsynced.sync().inspect_err(|_| lock(audit).sync_failed())?;
        disk.remove_file(&oldest).map_err(failed("remove the oldest file of"))?;
    }
    Ok(())
}

/// The files that rotation removes, oldest first. One that it did not name, or that is damaged, stays.
fn surplus(disk: &dyn Disk, path: &Path, keep_files: usize) -> io::Result<Vec<(PathBuf, FileMark)>> {
    let mut kept = Vec::new();
    for path in files::set_aside(disk, path)? {
        if files::is_numbered(&path)
            && let Some((first, mark)) = mark_of(disk, &path)
        {
            kept.push((first, path, mark));
        }
    }
    kept.sort_by_key(|(first, ..)| *first);
    kept.truncate(kept.len().saturating_sub(keep_files));
    Ok(kept.into_iter().map(|(_, path, mark)| (path, mark)).collect())
}

fn removal(mark: FileMark, keep_files: usize) -> Event {
    let mut event = Event::new(itself::EVENT, itself::REMOVED);
    event.message = format!("rotation removes the oldest file; {keep_files} are kept");
    event.file = Some(mark);
    event
}

impl Next {
    fn make(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let aside = next_aside(disk, path)?;
        let next = files::next(path);
        remove_if_there(disk, &next)?;
        let file = disk.open(&next, Open::New { mode: 0o600 })?;
        let identity = file.metadata()?.identity;
        disk.sync_directory(files::directory(path))?;
        Ok(Self { file, identity, aside })
    }
}

/// The name that the file that is full gets.
fn next_aside(disk: &dyn Disk, path: &Path) -> io::Result<PathBuf> {
    Ok(files::numbered(path, files::next_number(disk, path)?))
}

pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

impl Audit {
    /// Leaves rotation to [`rotate_shared`], so that whoever writes a line does not wait for the disk.
    pub fn defer_rotation(&mut self) {
        self.is_rotation_deferred = true;
    }

    /// Whether the file is full, and nobody is at it.
    #[must_use]
    pub fn is_rotation_due(&self) -> bool {
        !self.is_rotating && self.file.as_ref().is_some_and(|current| current.length >= self.rotate_at)
    }

    fn begin_rotation(&mut self) -> bool {
        let is_due = self.is_rotation_due();
        self.is_rotating |= is_due;
        is_due
    }

    /// Sets a full file aside, and waits for the disk. Where that fails the log goes on in the same file for a while:
    /// a line that is written counts for more than a file of the right size.
    pub(super) fn rotate_if_full(&mut self, now: Timestamp) {
        if self.is_rotation_deferred || !self.is_rotation_due() {
            return;
        }
        let rotated = self.rotate(now);
        self.gate.end_change();
        if let Err(error) = rotated.and_then(|()| self.prune(now)) {
            crate::core::report_error("Could not rotate the audit log; it goes on", &error);
            self.put_off_rotation();
        }
    }

    fn rotate(&mut self, now: Timestamp) -> Result<(), AuditError> {
        if self.pending.is_none() {
            let next = Next::make(&*self.disk, &self.path).map_err(self.failed("begin"))?;
            self.switch(now, next)?;
            self.close_pending()?;
        }
        self.rename_both()
    }

    fn rename_both(&mut self) -> Result<(), AuditError> {
        let directory = files::directory(&self.path).to_owned();
        self.set_old_aside()?;
        self.disk.sync_directory(&directory).map_err(self.failed("set aside"))?;
        self.put_new_in_place()?;
        self.disk.sync_directory(&directory).map_err(self.failed("begin"))?;
        self.is_rotated();
        Ok(())
    }

    /// Goes on with a rotation that a crash has interrupted, or that could not be ended: the full file is on the disk,
    /// and the next one follows it. Gives how many bytes of an unfinished line were cut.
    pub(super) fn resume(&mut self, next: &Path) -> Result<u64, AuditError> {
        let aside = next_aside(&*self.disk, &self.path).map_err(self.failed("look beside"))?;
        let Some(old) = self.file.take() else { return Ok(0) };
        self.set_aside = aside.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned);
        let (_, torn_bytes) = self.go_on(next)?;
        self.pending = Some(Pending {
            old: old.file,
            old_length: old.length,
            aside,
            is_closed: true,
            is_aside: false,
            is_in_place: false,
        });
        if let Err(error) = self.rename_both() {
            crate::core::report_error("Could not end the rotation of the audit log; it goes on", &error);
            self.put_off_rotation();
        }
        Ok(torn_bytes)
    }

    /// After a rotation that failed.
    fn put_off_rotation(&mut self) {
        if self.pending.is_none() {
            // Left behind, the next rotation or start removes it.
            drop(remove_if_there(&*self.disk, &files::next(&self.path)));
        }
        let length = self.file.as_ref().map_or(0, |current| current.length);
        self.rotate_at = length.saturating_add(self.rotation.bytes / 8);
    }

    /// Ends the old file and begins the new one, with the kernel. Gives the old one; `None` if it is not full any
    /// more.
    fn switch(&mut self, now: Timestamp, next: Next) -> Result<Option<Arc<Tracked>>, AuditError> {
        self.ready(now)?;
        if self.file.as_ref().is_none_or(|current| current.length < self.rotate_at) {
            return Ok(None);
        }
        let name = next.aside.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned);
        let closed = Event::new(itself::EVENT, itself::CLOSED).with_message("the file is full");
        self.put(now, &closed, Durability::Written)?;
        let event = opening(self.mark(name.clone()), FULL);
        let (bytes, hash) = self.encode_next(now, &event)?;
        let new = Arc::new(Tracked::new(next.file));
        new.append(&bytes).map_err(self.failed("begin"))?;
        let length = bytes.len() as u64;
        let current = Current { file: new, identity: next.identity, length, has_half_line: false };
        let Some(old) = self.file.replace(current) else { return Ok(None) };
        self.gate.begin_change();
        self.pending = Some(Pending {
            old: old.file.clone(),
            old_length: old.length,
            aside: next.aside,
            is_closed: false,
            is_aside: false,
            is_in_place: false,
        });
        self.previous = hash;
        self.sequence += 1;
        self.first_sequence = self.sequence;
        self.set_aside = name;
        Ok(Some(old.file))
    }

    /// Gives the old file its number, if nobody has done so.
    fn set_old_aside(&mut self) -> Result<(), AuditError> {
        let failed = self.failed("set aside");
        let Some(pending) = self.pending.as_mut().filter(|pending| !pending.is_aside) else { return Ok(()) };
        match self.disk.rename(&self.path, &pending.aside) {
            // Something else has moved it away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(failed)?,
        }
        pending.is_aside = true;
        Ok(())
    }

    /// Gives the new file the log's name, if nobody has done so. That of the old one must be on the disk.
    fn put_new_in_place(&mut self) -> Result<(), AuditError> {
        let failed = self.failed("begin");
        let Some(pending) = self.pending.as_mut().filter(|pending| !pending.is_in_place) else { return Ok(()) };
        self.disk.rename(&files::next(&self.path), &self.path).map_err(failed)?;
        pending.is_in_place = true;
        Ok(())
    }

    /// All of the old file is on the disk, so lines of the new one may be promised.
    fn is_closed(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.is_closed = true;
        }
        self.gate.end_change();
    }

    /// Both names are on the disk.
    fn is_rotated(&mut self) {
        self.pending = None;
        self.rotate_at = self.rotation.bytes;
    }

    /// Sees to it that all of a full file is on the disk, and waits for that.
    pub(super) fn close_pending(&mut self) -> Result<(), AuditError> {
        let Some(pending) = self.pending.as_ref().filter(|pending| !pending.is_closed) else { return Ok(()) };
        if pending.old.place().sync().is_err() {
            // Nobody knows what of it is on the disk, so it is written anew. It still has the log's name.
            let read = pending.old.reader().and_then(|file| file.read_range(0, pending.old_length));
            let bytes = read.map_err(self.failed("read"))?;
            write_atomic(&*self.disk, &self.path, 0o600, &bytes).map_err(Into::into).map_err(self.failed("renew"))?;
        }
        self.is_closed();
        Ok(())
    }

    /// Whether a sync of the full file has failed.
    pub(super) fn has_pending_failed(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.is_closed && pending.old.has_failed())
    }

    /// The name of the file that is written.
    pub(super) fn written_path(&self) -> PathBuf {
        match &self.pending {
            Some(pending) if !pending.is_in_place => files::next(&self.path),
            _ => self.path.clone(),
        }
    }

    /// The oldest files go, and the disk is waited for.
    pub(super) fn prune(&mut self, now: Timestamp) -> Result<(), AuditError> {
        let keep_files = self.rotation.keep_files;
        let oldest = surplus(&*self.disk, &self.path, keep_files).map_err(self.failed("look beside"))?;
        for (path, mark) in oldest {
            self.put(now, &removal(mark, keep_files), Durability::Synced)?;
            self.disk.remove_file(&path).map_err(self.failed("remove the oldest file of"))?;
        }
        Ok(())
    }
}
