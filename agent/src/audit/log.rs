//! The log that is written.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_daemon::Disk;
use muster_daemon::disk::{FileIdentity, Open, write_atomic};
use muster_protocol::Timestamp;

use super::about_itself as itself;
use super::files::{self, Tail, read_tail};
use super::limit::{Limiter, WINDOW_MS, Who};
use super::line::{Line, decode, encode};
use super::rotation::{Pending, remove_if_there};
use super::{AuditError, Damage, Event, FIRST_PREVIOUS, FileMark};
use crate::synced::{Gate, Place, Tracked};

/// How durable a line must be before the caller goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk.
    Synced,
    /// With the kernel.
    Written,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// From which size on a file is full, in bytes.
    pub bytes: u64,
    /// How many full files are kept beside the one that is written.
    pub keep_files: usize,
}

impl Default for Rotation {
    /// At most 512 MiB together, which is some hundred thousand lines.
    fn default() -> Self {
        Self { bytes: 32 * 1024 * 1024, keep_files: 15 }
    }
}

/// The open audit log of one host.
#[derive(Debug)]
pub struct Audit {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) host: String,
    pub(super) rotation: Rotation,
    /// `None` where none could be begun yet.
    pub(super) file: Option<Current>,
    /// Hash of the last line.
    pub(super) previous: String,
    /// Number of the last line.
    pub(super) sequence: u64,
    /// Number of the first line of the file that is written.
    pub(super) first_sequence: u64,
    /// Name of the file that was set aside last.
    pub(super) set_aside: Option<String>,
    /// From which size on rotation is tried; beyond [`Rotation::bytes`] after it failed.
    pub(super) rotate_at: u64,
    /// Whether somebody else calls [`rotate_shared`](super::rotate_shared).
    pub(super) is_rotation_deferred: bool,
    /// Whether somebody is at it.
    pub(super) is_rotating: bool,
    /// A rotation whose new file is written already and is not in its place.
    pub(super) pending: Option<Pending>,
    /// Keeps those who wait for the disk until a rotation has ended.
    pub(super) gate: Arc<Gate>,
    limiter: Limiter,
}

/// A line that the kernel has and the disk may not.
#[derive(Debug)]
#[must_use]
pub struct Unsynced {
    gate: Arc<Gate>,
    place: Place,
    path: PathBuf,
}

impl Unsynced {
    /// Waits until the line is on the disk.
    ///
    /// # Errors
    /// When nobody knows whether it is.
    pub fn sync(&self) -> Result<(), AuditError> {
        let failed = |source| AuditError::Io { action: "sync", path: self.path.clone(), source };
        self.gate.pass();
        self.place.sync().map_err(failed)
    }
}

/// The file that is written.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) file: Arc<Tracked>,
    pub(super) identity: FileIdentity,
    pub(super) length: u64,
    /// Half a line may be behind the end, which could not be cut off.
    pub(super) has_half_line: bool,
}

impl Current {
    /// Opens the file, or makes it. That a new one has its name on the disk is waited for.
    fn open(disk: &dyn Disk, path: &Path) -> std::io::Result<Self> {
        let is_new = !disk.exists(path)?;
        let file = disk.open(path, Open::Append { mode: 0o600 })?;
        if is_new {
            disk.sync_directory(files::directory(path))?;
        }
        let metadata = file.metadata()?;
        let (identity, length) = (metadata.identity, metadata.length);
        Ok(Self { file: Arc::new(Tracked::new(file)), identity, length, has_half_line: false })
    }
}

impl Audit {
    /// Opens the log in `path`, or begins one. A half-written last line is cut off and that fact becomes the
    /// next line; a rotation that was interrupted is ended.
    ///
    /// # Errors
    /// When a file cannot be read or written, or its last line is not an audit line: appending to it would hide
    /// that.
    pub fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        host: &str,
        now: Timestamp,
        rotation: Rotation,
    ) -> Result<Self, AuditError> {
        let mut audit = Self {
            disk: disk.clone(),
            path: path.to_owned(),
            host: host.to_owned(),
            rotation,
            file: None,
            previous: FIRST_PREVIOUS.to_owned(),
            sequence: 0,
            first_sequence: 1,
            set_aside: None,
            rotate_at: rotation.bytes,
            is_rotation_deferred: false,
            is_rotating: false,
            pending: None,
            gate: Arc::default(),
            limiter: Limiter::default(),
        };
        audit.sweep().map_err(audit.failed("clean up beside"))?;
        let exists = disk.exists(path).map_err(audit.failed("open"))?;
        let (last, mut torn_bytes) = if exists { audit.go_on(path)? } else { (None, 0) };
        match last {
            Some(line) if line.details.is_about_itself(itself::CLOSED) => {
                // Whoever was to sync it may have ended before.
                let synced = audit.file.as_ref().map_or(Ok(()), |current| current.file.reader()?.sync_data());
                synced.map_err(audit.failed("close"))?;
                torn_bytes += match files::begun(&**disk, path, &audit.previous) {
                    Some(next) => audit.resume(&next)?,
                    None => audit.put_aside().and_then(|()| audit.begin(now, FULL)).map(|()| 0)?,
                };
            }
            Some(_) => {}
            None => torn_bytes += audit.begin_at_start(now)?,
        }
        if audit.pending.is_none() {
            // What lies there follows nothing.
            remove_if_there(&**disk, &files::next(path)).map_err(audit.failed("clean up beside"))?;
        }
        if torn_bytes > 0 {
            let message = format!("cut {torn_bytes} bytes of an unfinished line off the end");
            audit.put(now, &Event::new("agent", "recovered").with_message(message), Durability::Written)?;
        }
        if let Err(error) = audit.prune(now) {
            crate::core::report_error("Could not remove the oldest file of the audit log", &error);
        }
        Ok(audit)
    }

    /// Opens a file to go on in it, and cuts off a half-written line. Gives the last line, if there is one, and how
    /// many bytes were cut.
    pub(super) fn go_on(&mut self, path: &Path) -> Result<(Option<Line>, u64), AuditError> {
        let mut current = Current::open(&*self.disk, path).map_err(self.failed("open"))?;
        let tail = current.file.reader().and_then(read_tail).map_err(self.failed("read"))?;
        if tail.torn_bytes > 0 {
            current.file.set_length(tail.length).map_err(self.failed("cut the torn end of"))?;
            current.length = tail.length;
        }
        let last = self.take_up(path, &tail)?;
        self.file = Some(current);
        Ok((last, tail.torn_bytes))
    }

    /// Goes on in the file that a rotation has begun, if a crash has left one that follows the last line; begins one
    /// otherwise. Gives how many bytes of an unfinished line were cut.
    fn begin_next(&mut self, now: Timestamp, why: &str) -> Result<u64, AuditError> {
        let Some(next) = files::begun(&*self.disk, &self.path, &self.previous) else {
            self.begin(now, why)?;
            return Ok(0);
        };
        self.disk.rename(&next, &self.path).map_err(self.failed("begin"))?;
        self.disk.sync_directory(files::directory(&self.path)).map_err(self.failed("begin"))?;
        let path = self.path.clone();
        self.go_on(&path).map(|(_, torn_bytes)| torn_bytes)
    }

    /// Goes on from the last line of a file. Gives that line, if there is one.
    fn take_up(&mut self, path: &Path, tail: &Tail) -> Result<Option<Line>, AuditError> {
        let Some(bytes) = &tail.last_line else { return Ok(None) };
        let broken = |line: u64, why: &str| AuditError::Broken {
            path: path.to_owned(),
            line,
            damage: Damage::Changed,
            why: why.to_owned(),
        };
        let Ok(line) = decode(bytes) else {
            let lines =
                files::open(&*self.disk, path).map_or(0, |file| file.split(b'\n').map_while(Result::ok).count());
            return Err(broken(lines as u64, "the last line is not an audit line"));
        };
        let first = files::first_line(&*self.disk, path).ok().flatten();
        let first = first.ok_or_else(|| broken(1, "the first line is not an audit line"))?;
        self.first_sequence = first.sequence;
        self.sequence = line.sequence;
        self.previous.clone_from(&line.hash);
        Ok(Some(line))
    }

    /// Begins a file where there is none: the first one of all, or the one after the newest that was set aside.
    /// Gives how many bytes of an unfinished line were cut.
    fn begin_at_start(&mut self, now: Timestamp) -> Result<u64, AuditError> {
        let mut newest: Option<(u64, PathBuf)> = None;
        for path in files::set_aside(&*self.disk, &self.path).map_err(self.failed("look beside"))? {
            match files::first_line(&*self.disk, &path) {
                Ok(Some(first)) if newest.as_ref().is_none_or(|(sequence, _)| first.sequence > *sequence) => {
                    newest = Some((first.sequence, path));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "A file beside the audit log is not part of it")
                }
            }
        }
        let Some((_, path)) = newest else {
            self.file = Some(Current::open(&*self.disk, &self.path).map_err(self.failed("open"))?);
            return Ok(0);
        };
        let file = self.disk.open(&path, Open::Read).map_err(self.failed("open"))?;
        let tail = read_tail(&*file).map_err(self.failed("read"))?;
        let last = self.take_up(&path, &tail)?;
        self.set_aside = path.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned);
        let was_full = last.is_some_and(|line| line.details.is_about_itself(itself::CLOSED));
        if was_full {
            return self.begin_next(now, FULL);
        }
        self.begin(now, MISSING_AT_START)?;
        Ok(0)
    }

    /// Removes what a crash left of a file that was being begun.
    fn sweep(&self) -> std::io::Result<()> {
        let Some(name) = self.path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
        let begun = format!(".{name}.");
        let directory = files::directory(&self.path);
        let entries = match self.disk.list(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            if entry.name.to_str().is_some_and(|found| found.starts_with(&begun) && found.ends_with(".new")) {
                self.disk.remove_file(&directory.join(&entry.name))?;
            }
        }
        Ok(())
    }

    /// Number of the last line, and its hash: the head of the chain.
    #[must_use]
    pub fn head(&self) -> (u64, &str) {
        (self.sequence, &self.previous)
    }

    /// Appends a line. Refusals of one caller beyond
    /// [`REFUSALS_PER_WINDOW`](super::REFUSALS_PER_WINDOW) are counted instead, and told in one line later.
    ///
    /// # Errors
    /// When the line could not be written as durably as asked; nothing of it is left in the file
    /// unless cutting it off failed too.
    pub fn write(&mut self, now: Timestamp, event: Event, durability: Durability) -> Result<(), AuditError> {
        let who = match event.decision.as_str() {
            "refused" | "ignored" => Some(event.caller.clone().map_or(Who::Strangers, Who::Caller)),
            _ => None,
        };
        self.write_limited(now, event, durability, who)
    }

    /// Appends a line that the caller waits for: once what is given back is synced it is on the disk. Waiting takes
    /// no lock, so that a slow disk holds up nobody else.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_unsynced(&mut self, now: Timestamp, event: Event) -> Result<Unsynced, AuditError> {
        self.settle(now)?;
        self.ready(now)?;
        self.put(now, &event, Durability::Written)?;
        let failed = self.failed("write");
        let missing = || failed(std::io::Error::from(std::io::ErrorKind::NotFound));
        let place = self.file.as_ref().map(|current| current.file.place()).ok_or_else(missing)?;
        // If the file is full now, closing it syncs it too.
        self.rotate_if_full(now);
        Ok(Unsynced { gate: self.gate.clone(), place, path: self.path.clone() })
    }

    /// Appends a line about a message whose sender is not verified. All such senders are one caller.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_unverified(&mut self, now: Timestamp, event: Event) -> Result<(), AuditError> {
        self.write_limited(now, event, Durability::Written, Some(Who::Strangers))
    }

    fn write_limited(
        &mut self,
        now: Timestamp,
        mut event: Event,
        durability: Durability,
        who: Option<Who>,
    ) -> Result<(), AuditError> {
        self.settle(now)?;
        if who.is_some_and(|who| !self.limiter.admits(who, now)) {
            return Ok(());
        }
        event.cut_refused_arguments().map_err(|source| self.failed("encode a line of")(source.into()))?;
        self.ready(now)?;
        self.put(now, &event, durability)?;
        self.rotate_if_full(now);
        Ok(())
    }

    /// Tells how many refusals were left out in windows that are over.
    ///
    /// # Errors
    /// As [`write`](Self::write); what could not be told is told later.
    pub fn settle(&mut self, now: Timestamp) -> Result<(), AuditError> {
        let over = self.limiter.take_over(now);
        self.tell_left_out(now, over)
    }

    /// Tells how many refusals were left out until now, for the end of the agent.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn settle_all(&mut self, now: Timestamp) -> Result<(), AuditError> {
        let all = self.limiter.take_all();
        self.tell_left_out(now, all)
    }

    fn tell_left_out(&mut self, now: Timestamp, counts: Vec<(Who, u64)>) -> Result<(), AuditError> {
        let mut failed = None;
        for (who, count) in counts {
            let mut event = Event::new(itself::EVENT, itself::LEFT_OUT);
            let of = match &who {
                Who::Strangers => "unverified senders",
                Who::Others => "other callers",
                Who::Caller(caller) => {
                    event.caller = Some(caller.clone());
                    caller.as_str()
                }
            };
            event.message = format!("{count} further refusals of {of} in {} s", WINDOW_MS / 1000);
            event.count = Some(count);
            let written = self.ready(now).and_then(|()| self.put(now, &event, Durability::Written));
            if let Err(error) = written {
                self.limiter.put_back(who, count, now);
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Makes sure that the file is there and is the one that was written last.
    pub(super) fn ready(&mut self, now: Timestamp) -> Result<(), AuditError> {
        if !self.is_rotating {
            self.close_pending()?;
        }
        if self.file.as_ref().is_some_and(|current| current.file.has_failed()) {
            self.renew()?;
        }
        let failed = self.failed("cut the torn end of");
        let Some(current) = &mut self.file else { return self.begin(now, FULL) };
        if current.has_half_line {
            current.file.set_length(current.length).map_err(failed)?;
            current.has_half_line = false;
        }
        if self.pending.is_some() {
            // Its name is not the log's yet.
            return Ok(());
        }
        let found = match self.disk.metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.lose(now, MOVED),
            Err(error) => return Err(self.failed("look at")(error)),
        };
        if found.identity == current.identity {
            return if found.length < current.length { self.cut(now, found.length) } else { Ok(()) };
        }
        if found.length == 0 {
            return self.lose(now, MOVED);
        }
        // A copy of the log in its own place continues it as well as the original.
        let other = Current::open(&*self.disk, &self.path).map_err(self.failed("open"))?;
        let tail = other.file.reader().and_then(read_tail).map_err(self.failed("read"))?;
        let last = tail.last_line.as_deref().and_then(|bytes| decode(bytes).ok());
        if tail.torn_bytes == 0 && last.is_some_and(|line| line.hash == self.previous) {
            // Lines are promised in it from now on, so its name has to be on the disk.
            let directory = files::directory(&self.path);
            self.disk.sync_directory(directory).map_err(self.failed("open"))?;
            self.file = Some(other);
            return Ok(());
        }
        Err(AuditError::Replaced { path: self.path.clone() })
    }

    /// Somebody waited for the disk in vain ([`Unsynced::sync`]). What the disk lost is written anew at once, if it
    /// can be; otherwise before the next line.
    pub fn sync_failed(&mut self) {
        let has_failed = |audit: &Self| audit.file.as_ref().is_some_and(|current| current.file.has_failed());
        // While a rotation syncs the full file nobody else waits for it here.
        let closed = if self.has_pending_failed() { self.close_pending() } else { Ok(()) };
        let renewed = closed.and_then(|()| if has_failed(self) { self.renew() } else { Ok(()) });
        if let Err(error) = renewed {
            crate::core::report_error("Could not write the audit log anew after a failed sync", &error);
        }
    }

    /// Writes the file anew after a sync of it has failed: what it was to write may be lost on the disk, and is
    /// still read.
    pub(super) fn renew(&mut self) -> Result<(), AuditError> {
        let Some(current) = &self.file else { return Ok(()) };
        let path = self.written_path();
        let found = match self.disk.metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed("look at")(error)),
        };
        if found.identity != current.identity {
            return Ok(());
        }
        let read = current.file.reader().and_then(|file| file.read_range(0, current.length));
        let bytes = read.map_err(self.failed("read"))?;
        write_atomic(&*self.disk, &path, 0o600, &bytes).map_err(Into::into).map_err(self.failed("renew"))?;
        self.file = Some(Current::open(&*self.disk, &path).map_err(self.failed("open"))?);
        tracing::warn!(path = %self.path.display(), "The audit log was written anew, since a sync of it had failed");
        Ok(())
    }

    /// Goes on in a new file, since something else took the old one away.
    fn lose(&mut self, now: Timestamp, why: &str) -> Result<(), AuditError> {
        tracing::warn!(path = %self.path.display(), "The audit log was moved away by something else");
        self.file = None;
        self.set_aside = None;
        self.begin(now, why)
    }

    /// Goes on after something else has cut the file.
    fn cut(&mut self, now: Timestamp, left: u64) -> Result<(), AuditError> {
        tracing::warn!(path = %self.path.display(), "The audit log was cut by something else");
        let mark = self.mark(None);
        let failed = self.failed("cut the torn end of");
        let Some(current) = &mut self.file else { return Ok(()) };
        let lost = current.length - left;
        let cut_torn = current
            .file
            .reader()
            .and_then(read_tail)
            .and_then(|tail| current.file.set_length(tail.length).map(|()| tail));
        current.length = cut_torn.map_err(failed)?.length;
        if current.length == 0 {
            self.first_sequence = self.sequence + 1;
            let event = opening(mark, "something else has emptied the file");
            return self.put(now, &event, Durability::Synced);
        }
        let mut event = Event::new(itself::EVENT, itself::CUT);
        event.message = format!("something else has cut {lost} bytes off the end of the file");
        event.file = Some(mark);
        self.put(now, &event, Durability::Synced)
    }

    pub(super) fn put(&mut self, now: Timestamp, event: &Event, durability: Durability) -> Result<(), AuditError> {
        if durability == Durability::Synced {
            // A line is not on the disk before what it follows.
            self.close_pending()?;
        }
        let (bytes, hash) = self.encode_next(now, event)?;
        let failed = self.failed("write");
        let Some(current) = &mut self.file else {
            return Err(failed(std::io::Error::from(std::io::ErrorKind::NotFound)));
        };
        if let Err(error) = append(&current.file, &bytes, durability) {
            // A half line would break the chain for every line after it.
            if let Err(error) = current.file.set_length(current.length) {
                current.has_half_line = true;
                tracing::error!(path = %self.path.display(), %error, "Could not cut a half-written audit line off");
            }
            self.sync_failed();
            return Err(failed(error));
        }
        current.length += bytes.len() as u64;
        self.previous = hash;
        self.sequence += 1;
        Ok(())
    }

    /// The next line, and its hash.
    pub(super) fn encode_next(&self, now: Timestamp, event: &Event) -> Result<(Vec<u8>, String), AuditError> {
        let encoded = encode(&self.previous, self.sequence + 1, now, &self.host, event);
        encoded.map_err(|source| self.failed("encode a line of")(source.into()))
    }

    /// A full file that a crash has left in its place gets its number.
    fn put_aside(&mut self) -> Result<(), AuditError> {
        let number = files::next_number(&*self.disk, &self.path).map_err(self.failed("look beside"))?;
        let aside = files::numbered(&self.path, number);
        self.disk.rename(&self.path, &aside).map_err(self.failed("set aside"))?;
        self.file = None;
        self.set_aside = aside.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned);
        self.disk.sync_directory(files::directory(&self.path)).map_err(self.failed("set aside"))
    }

    /// Begins a new file with its first line, both or neither.
    fn begin(&mut self, now: Timestamp, why: &str) -> Result<(), AuditError> {
        let event = opening(self.mark(self.set_aside.clone()), why);
        let (bytes, hash) = self.encode_next(now, &event)?;
        write_atomic(&*self.disk, &self.path, 0o600, &bytes).map_err(Into::into).map_err(self.failed("begin"))?;
        self.file = Some(Current::open(&*self.disk, &self.path).map_err(self.failed("open"))?);
        self.previous = hash;
        self.sequence += 1;
        self.first_sequence = self.sequence;
        Ok(())
    }

    /// The file that is written, or was written last.
    pub(super) fn mark(&self, name: Option<String>) -> FileMark {
        FileMark {
            name,
            lines: (self.sequence + 1).saturating_sub(self.first_sequence),
            last_sequence: self.sequence,
            last_hash: self.previous.clone(),
        }
    }

    pub(super) fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> AuditError + use<> {
        let path = self.path.clone();
        move |source| AuditError::Io { action, path, source }
    }
}

pub(super) const FULL: &str = "the file before is full";
const MOVED: &str = "something else has moved the file away";
const MISSING_AT_START: &str = "there was no file when the agent started, and the one before was not full";

pub(super) fn opening(mark: FileMark, why: &str) -> Event {
    let mut event = Event::new(itself::EVENT, itself::CONTINUED).with_message(why);
    event.file = Some(mark);
    event
}

fn append(file: &Arc<Tracked>, bytes: &[u8], durability: Durability) -> std::io::Result<()> {
    file.append(bytes)?;
    match durability {
        Durability::Synced => file.place().sync(),
        Durability::Written => Ok(()),
    }
}

/// Number of a file's first line, and its mark; `None` if it is damaged.
pub(super) fn mark_of(disk: &dyn Disk, path: &Path) -> Option<(u64, FileMark)> {
    let first = files::first_line(disk, path).ok()??.sequence;
    let tail = read_tail(&*disk.open(path, Open::Read).ok()?).ok()?;
    let last = decode(&tail.last_line?).ok()?;
    let mark = FileMark {
        name: path.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned),
        lines: (last.sequence + 1).saturating_sub(first),
        last_sequence: last.sequence,
        last_hash: last.hash,
    };
    Some((first, mark))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use muster_daemon::RealDisk;

    use super::super::{Anchor, verify_all};
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);
    const SMALL: Rotation = Rotation { bytes: 1_500, keep_files: 2 };

    fn line(audit: &mut Audit, number: u64) {
        audit
            .write(NOW, Event::new("command", "allowed").with_message(number.to_string()), Durability::Written)
            .unwrap();
    }

    /// What an agent of 0.2 leaves, which closed, set aside and began files one behind the other: a crash behind any of
    /// its steps.
    #[test]
    fn a_rotation_that_an_older_agent_has_begun_is_ended() {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        for stop_behind in 0..=5 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("audit.jsonl");
            let mut audit = Audit::open(&disk, &path, "web1", NOW, SMALL).unwrap();
            // Two full files are there already, so that this rotation also removes one.
            for number in 0.. {
                line(&mut audit, number);
                if files::set_aside(&*disk, &path).unwrap().len() == 2 {
                    break;
                }
            }
            line(&mut audit, 100);
            let head = audit.sequence;
            let oldest = files::numbered(&path, 1);
            let closed = Event::new(itself::EVENT, itself::CLOSED).with_message("the file is full");
            let steps: [&dyn Fn(&mut Audit); 5] = [
                &|audit| audit.put(NOW, &closed, Durability::Synced).unwrap(),
                &|audit| audit.put_aside().unwrap(),
                // The new file is written beside its place first.
                &|_| fs::write(path.with_file_name(".audit.jsonl.1.0.new"), "{\"half").unwrap(),
                &|audit| audit.begin(NOW, FULL).unwrap(),
                &|audit| audit.prune(NOW).unwrap(),
            ];
            for step in &steps[..stop_behind] {
                step(&mut audit);
            }
            drop(audit);
            verify_all(&path, None).unwrap_or_else(|error| panic!("behind step {stop_behind}: {error}"));
            let mut audit = Audit::open(&disk, &path, "web1", NOW, SMALL).unwrap();
            line(&mut audit, 101);
            assert!(audit.sequence > head, "{stop_behind}");
            let anchor = Anchor { sequence: audit.sequence, hash: audit.previous.clone() };
            let verified = verify_all(&path, Some(&anchor));
            let verified = verified.unwrap_or_else(|error| panic!("after step {stop_behind}: {error}"));
            assert_eq!(verified.last_sequence, audit.sequence);
            assert!(!path.with_file_name(".audit.jsonl.1.0.new").exists());
            let full = files::set_aside(&*disk, &path).unwrap().len();
            assert_eq!((full, oldest.exists()), (2, stop_behind == 0), "behind step {stop_behind}");
        }
    }
}
