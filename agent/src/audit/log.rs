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
use super::{AuditError, Damage, Event, FIRST_PREVIOUS, FileMark};
use crate::synced::{Place, Tracked};

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
    disk: Arc<dyn Disk>,
    path: PathBuf,
    host: String,
    rotation: Rotation,
    /// `None` between two steps of a rotation that could not be ended.
    file: Option<Current>,
    /// Hash of the last line.
    previous: String,
    /// Number of the last line.
    sequence: u64,
    /// Number of the first line of the file that is written.
    first_sequence: u64,
    /// Name of the file that was set aside last.
    set_aside: Option<String>,
    /// From which size on rotation is tried; beyond [`Rotation::bytes`] after it failed.
    rotate_at: u64,
    limiter: Limiter,
}

/// A line that the kernel has and the disk may not.
#[derive(Debug)]
#[must_use]
pub struct Unsynced {
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
        self.place.sync().map_err(failed)
    }
}

/// The file that is written.
#[derive(Debug)]
struct Current {
    file: Arc<Tracked>,
    identity: FileIdentity,
    length: u64,
    /// Half a line may be behind the end, which could not be cut off.
    has_half_line: bool,
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
            limiter: Limiter::default(),
        };
        audit.sweep().map_err(audit.failed("clean up beside"))?;
        let mut torn_bytes = 0;
        let mut last = None;
        let exists = disk.exists(path).map_err(audit.failed("open"))?;
        if exists {
            let mut current = Current::open(&**disk, path).map_err(audit.failed("open"))?;
            let tail = current.file.reader().and_then(read_tail).map_err(audit.failed("read"))?;
            torn_bytes = tail.torn_bytes;
            if torn_bytes > 0 {
                current.file.set_length(tail.length).map_err(audit.failed("cut the torn end of"))?;
                current.length = tail.length;
            }
            last = audit.take_up(path, &tail)?;
            audit.file = Some(current);
        }
        match last {
            Some(line) if line.details.is_about_itself(itself::CLOSED) => {
                audit.put_aside()?;
                audit.begin(now, FULL)?;
            }
            Some(_) => {}
            None => audit.begin_at_start(now)?,
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
    fn begin_at_start(&mut self, now: Timestamp) -> Result<(), AuditError> {
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
            return Ok(());
        };
        let file = self.disk.open(&path, Open::Read).map_err(self.failed("open"))?;
        let tail = read_tail(&*file).map_err(self.failed("read"))?;
        let last = self.take_up(&path, &tail)?;
        self.set_aside = path.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned);
        let was_full = last.is_some_and(|line| line.details.is_about_itself(itself::CLOSED));
        self.begin(now, if was_full { FULL } else { MISSING_AT_START })
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
        Ok(Unsynced { place, path: self.path.clone() })
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
    fn ready(&mut self, now: Timestamp) -> Result<(), AuditError> {
        if self.file.as_ref().is_some_and(|current| current.file.has_failed()) {
            self.renew()?;
        }
        let failed = self.failed("cut the torn end of");
        let Some(current) = &mut self.file else { return self.begin(now, FULL) };
        if current.has_half_line {
            current.file.set_length(current.length).map_err(failed)?;
            current.has_half_line = false;
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
        if self.file.as_ref().is_some_and(|current| current.file.has_failed())
            && let Err(error) = self.renew()
        {
            crate::core::report_error("Could not write the audit log anew after a failed sync", &error);
        }
    }

    /// Writes the file anew after a sync of it has failed: what it was to write may be lost on the disk, and is
    /// still read.
    fn renew(&mut self) -> Result<(), AuditError> {
        let Some(current) = &self.file else { return Ok(()) };
        let found = match self.disk.metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed("look at")(error)),
        };
        if found.identity != current.identity {
            return Ok(());
        }
        let read = current.file.reader().and_then(|file| file.read_range(0, current.length));
        let bytes = read.map_err(self.failed("read"))?;
        write_atomic(&*self.disk, &self.path, 0o600, &bytes).map_err(Into::into).map_err(self.failed("renew"))?;
        self.file = Some(Current::open(&*self.disk, &self.path).map_err(self.failed("open"))?);
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

    fn put(&mut self, now: Timestamp, event: &Event, durability: Durability) -> Result<(), AuditError> {
        let failed_to_encode = self.failed("encode a line of");
        let encoded = encode(&self.previous, self.sequence + 1, now, &self.host, event);
        let (bytes, hash) = encoded.map_err(|source| failed_to_encode(source.into()))?;
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

    /// Sets a full file aside. Where that fails the log goes on in the same file for a while: a line that is
    /// written counts for more than a file of the right size.
    fn rotate_if_full(&mut self, now: Timestamp) {
        let length = self.file.as_ref().map_or(0, |current| current.length);
        if length < self.rotate_at {
            return;
        }
        let rotated = self
            .close(now)
            .and_then(|()| self.put_aside())
            .and_then(|()| self.begin(now, FULL))
            .and_then(|()| self.prune(now));
        match rotated {
            Ok(()) => self.rotate_at = self.rotation.bytes,
            Err(error) => {
                crate::core::report_error("Could not rotate the audit log; it goes on", &error);
                self.rotate_at = length.saturating_add(self.rotation.bytes / 8);
            }
        }
    }

    /// Step 1: the last line of the file.
    fn close(&mut self, now: Timestamp) -> Result<(), AuditError> {
        let event = Event::new(itself::EVENT, itself::CLOSED).with_message("the file is full");
        self.put(now, &event, Durability::Synced)
    }

    /// Step 2: the file gets its number.
    fn put_aside(&mut self) -> Result<(), AuditError> {
        let number = files::next_number(&*self.disk, &self.path).map_err(self.failed("look beside"))?;
        let aside = files::numbered(&self.path, number);
        self.disk.rename(&self.path, &aside).map_err(self.failed("set aside"))?;
        self.file = None;
        self.set_aside = aside.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned);
        self.disk.sync_directory(files::directory(&self.path)).map_err(self.failed("set aside"))
    }

    /// Step 3: a new file with its first line.
    fn begin(&mut self, now: Timestamp, why: &str) -> Result<(), AuditError> {
        let event = opening(self.mark(self.set_aside.clone()), why);
        let encoded = encode(&self.previous, self.sequence + 1, now, &self.host, &event);
        let (bytes, hash) = encoded.map_err(|source| self.failed("encode a line of")(source.into()))?;
        write_atomic(&*self.disk, &self.path, 0o600, &bytes).map_err(Into::into).map_err(self.failed("begin"))?;
        self.file = Some(Current::open(&*self.disk, &self.path).map_err(self.failed("open"))?);
        self.previous = hash;
        self.sequence += 1;
        self.first_sequence = self.sequence;
        Ok(())
    }

    /// Steps 4 and 5: the oldest files go. One that rotation did not name, or that is damaged, stays.
    fn prune(&mut self, now: Timestamp) -> Result<(), AuditError> {
        let mut kept = Vec::new();
        for path in files::set_aside(&*self.disk, &self.path).map_err(self.failed("look beside"))? {
            if files::is_numbered(&path)
                && let Some((first, mark)) = mark_of(&*self.disk, &path)
            {
                kept.push((first, path, mark));
            }
        }
        kept.sort_by_key(|(first, ..)| *first);
        for (_, path, mark) in kept.iter().take(kept.len().saturating_sub(self.rotation.keep_files)) {
            self.note_removal(now, mark)?;
            self.disk.remove_file(path).map_err(self.failed("remove the oldest file of"))?;
        }
        Ok(())
    }

    fn note_removal(&mut self, now: Timestamp, mark: &FileMark) -> Result<(), AuditError> {
        let mut event = Event::new(itself::EVENT, itself::REMOVED);
        event.message = format!("rotation removes the oldest file; {} are kept", self.rotation.keep_files);
        event.file = Some(mark.clone());
        self.put(now, &event, Durability::Synced)
    }

    /// The file that is written, or was written last.
    fn mark(&self, name: Option<String>) -> FileMark {
        FileMark {
            name,
            lines: (self.sequence + 1).saturating_sub(self.first_sequence),
            last_sequence: self.sequence,
            last_hash: self.previous.clone(),
        }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> AuditError + use<> {
        let path = self.path.clone();
        move |source| AuditError::Io { action, path, source }
    }
}

const FULL: &str = "the file before is full";
const MOVED: &str = "something else has moved the file away";
const MISSING_AT_START: &str = "there was no file when the agent started, and the one before was not full";

fn opening(mark: FileMark, why: &str) -> Event {
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
fn mark_of(disk: &dyn Disk, path: &Path) -> Option<(u64, FileMark)> {
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

    /// Stops a rotation behind each of its steps, as a crash would, and goes on with a new start.
    #[test]
    fn a_crash_behind_any_step_of_a_rotation_leaves_a_whole_chain() {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        for stop_behind in 0..=6 {
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
            let steps: [&dyn Fn(&mut Audit); 6] = [
                &|audit| audit.close(NOW).unwrap(),
                &|audit| audit.put_aside().unwrap(),
                // The new file is written beside its place first.
                &|_| fs::write(path.with_file_name(".audit.jsonl.1.0.new"), "{\"half").unwrap(),
                &|audit| audit.begin(NOW, FULL).unwrap(),
                &|audit| audit.note_removal(NOW, &mark_of(&RealDisk, &oldest).unwrap().1).unwrap(),
                &|_| fs::remove_file(&oldest).unwrap(),
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
