//! Reading a log from its beginning: is every line what was written, where it was written?

use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};

use muster_daemon::{Disk, RealDisk};
use serde::Serialize;

use super::about_itself as itself;
use super::files;
use super::line::{Line, NoLine, decode};
use super::log::mark_of;
use super::{AuditError, Damage, FIRST_PREVIOUS, FileMark, LINE_BYTES_MAX};

/// How often a log that is being rotated meanwhile is read anew.
const TRIES: usize = 5;

/// What was found in a log that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The files, in the order of their lines.
    pub files: Vec<PathBuf>,
    /// How many lines they have together.
    pub lines: u64,
    /// Number of the first line. More than 1 if rotation has removed files, or if not all files were read.
    pub first_sequence: u64,
    /// Number of the last line; 0 if there is none.
    pub last_sequence: u64,
    /// Hash of the last line: note it elsewhere to be able to prove that nothing was cut off.
    pub last_hash: String,
    /// Bytes after the last line end: a line that was being written when the host stopped, or is now.
    pub torn_bytes: u64,
}

/// A line that was noted elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Its number.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
}

impl std::str::FromStr for Anchor {
    type Err = String;

    /// Reads `NUMBER:HASH`, as `musterd audit verify` prints it.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is not NUMBER:HASH", text.escape_default());
        let (sequence, hash) = text.split_once(':').ok_or_else(wrong)?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sequence = sequence.parse().ok().filter(|_| is_hash).ok_or_else(wrong)?;
        Ok(Self { sequence, hash: hash.to_ascii_lowercase() })
    }
}

/// Checks a log from one of its files on to the newest. What came before that file is not looked at.
///
/// # Errors
/// The first line that is not what was written, with its file, or an anchor that is not found.
pub fn verify(from: &Path, anchor: Option<&Anchor>) -> Result<Verified, AuditError> {
    let log = files::log_of(from).unwrap_or_else(|| from.to_owned());
    let disk: &dyn Disk = &RealDisk;
    retrying(disk, &log, || {
        let all = in_order(disk, &log)?;
        let Some(at) = all.iter().position(|file| file.file_name() == from.file_name()) else {
            return Err(not_there(from));
        };
        Chain::new(disk, &log, anchor).read(&all[at..]).map(|chain| chain.verified)
    })
}

/// Checks the whole log whose present file is `path`, across all files that were set aside.
///
/// # Errors
/// As [`verify`]; also when the beginning is missing and no line says that rotation removed it.
pub fn verify_all(path: &Path, anchor: Option<&Anchor>) -> Result<Verified, AuditError> {
    verify_all_on(&RealDisk, path, anchor)
}

/// As [`verify_all`], of a log on another disk than the machine's.
///
/// # Errors
/// As [`verify_all`].
pub fn verify_all_on(disk: &dyn Disk, path: &Path, anchor: Option<&Anchor>) -> Result<Verified, AuditError> {
    retrying(disk, path, || {
        let all = in_order(disk, path)?;
        if all.is_empty() {
            return Err(not_there(path));
        }
        let chain = Chain::new(disk, path, anchor).read(&all)?;
        chain.check_beginning(&all)?;
        if all.last().is_some_and(|last| !files::is_written(path, last)) && !chain.is_closed {
            return Err(AuditError::Broken {
                path: path.to_owned(),
                line: 1,
                damage: Damage::Truncated,
                why: "the file is not there, and the one before does not end as a full one does".to_owned(),
            });
        }
        Ok(chain.verified)
    })
}

/// Reads again if the files have changed meanwhile: an agent at work rotates them.
fn retrying(
    disk: &dyn Disk,
    log: &Path,
    read: impl Fn() -> Result<Verified, AuditError>,
) -> Result<Verified, AuditError> {
    let names = || in_order(disk, log).ok();
    for _ in 1..TRIES {
        let before = names();
        match read() {
            Err(_) if before != names() => {}
            done => return done,
        }
    }
    read()
}

fn not_there(path: &Path) -> AuditError {
    AuditError::Io { action: "open", path: path.to_owned(), source: std::io::Error::from(std::io::ErrorKind::NotFound) }
}

/// All files of a log, in the order of their lines.
///
/// # Errors
/// A file cannot be read, or its first line is none.
pub(super) fn in_order(disk: &dyn Disk, log: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| AuditError::Io { action, path, source }
    };
    let mut all = files::set_aside(disk, log).map_err(failed("look beside", log))?;
    if disk.exists(log).map_err(failed("open", log))? {
        all.push(log.to_owned());
    }
    let mut keyed = Vec::new();
    for path in all {
        let first = match files::first_line(disk, &path) {
            Ok(first) => first.map(|line| line.sequence),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                // Where it stands is only to be guessed; that something is wrong with it is said in any case.
                Some(guess(disk, &path).unwrap_or(u64::MAX))
            }
            Err(error) => return Err(failed("open", &path)(error)),
        };
        // The file that is written comes last, whatever it says.
        keyed.push((path == *log, first.unwrap_or(u64::MAX), path));
    }
    keyed.sort();
    let mut all: Vec<PathBuf> = keyed.into_iter().map(|(.., path)| path).collect();
    // While a full file still has the log's name, lines are in the next one already.
    if let Some(last) = all.last().and_then(|last| mark_of(disk, last))
        && let Some(next) = files::begun(disk, log, &last.1.last_hash)
    {
        all.push(next);
    }
    Ok(all)
}

/// The number of the first line of a file whose first line is damaged: that of the first sound line, less the
/// lines before it.
fn guess(disk: &dyn Disk, path: &Path) -> Option<u64> {
    for (before, bytes) in files::open(disk, path).ok()?.split(b'\n').enumerate() {
        if let Ok(line) = decode(&bytes.ok()?) {
            return Some(line.sequence.saturating_sub(before as u64));
        }
    }
    None
}

struct Chain<'a> {
    disk: &'a dyn Disk,
    log: &'a Path,
    anchor: Option<&'a Anchor>,
    anchor_found: Option<bool>,
    verified: Verified,
    /// What the first line says comes before it.
    first_previous: String,
    /// Whether a line says that rotation removed what came before the first line.
    beginning_was_removed: bool,
    /// Whether the last line says that the file is full.
    is_closed: bool,
}

impl<'a> Chain<'a> {
    fn new(disk: &'a dyn Disk, log: &'a Path, anchor: Option<&'a Anchor>) -> Self {
        let verified = Verified {
            files: Vec::new(),
            lines: 0,
            first_sequence: 1,
            last_sequence: 0,
            last_hash: FIRST_PREVIOUS.to_owned(),
            torn_bytes: 0,
        };
        Self {
            disk,
            log,
            anchor,
            anchor_found: None,
            verified,
            first_previous: FIRST_PREVIOUS.to_owned(),
            beginning_was_removed: false,
            is_closed: false,
        }
    }

    fn read(mut self, all: &[PathBuf]) -> Result<Self, AuditError> {
        for (index, path) in all.iter().enumerate() {
            self.read_file(path, &all[index + 1..])?;
            self.verified.files.push(path.clone());
        }
        match self.anchor {
            Some(anchor) if self.anchor_found != Some(true) => Err(self.anchor_missing(anchor)),
            _ => Ok(self),
        }
    }

    fn anchor_missing(&self, anchor: &Anchor) -> AuditError {
        let (first, last) = (self.verified.first_sequence, self.verified.last_sequence);
        let why = match self.anchor_found {
            Some(_) => format!("line {} has another hash: the log was written anew", anchor.sequence),
            None if anchor.sequence > last => {
                format!("it ends with line {last}, and line {} was there: its end was cut off", anchor.sequence)
            }
            None => format!("line {} came before line {first}, with which the files begin", anchor.sequence),
        };
        AuditError::Anchor { path: self.log.to_owned(), why }
    }

    fn read_file(&mut self, path: &Path, later: &[PathBuf]) -> Result<(), AuditError> {
        let failed = |source| AuditError::Io { action: "read", path: path.to_owned(), source };
        let mut reader = files::open(self.disk, path).map_err(failed)?;
        let is_written = files::is_written(self.log, path);
        let mut number = 0;
        loop {
            number += 1;
            let broken =
                |damage: Damage, why: String| AuditError::Broken { path: path.to_owned(), line: number, damage, why };
            let mut bytes = Vec::new();
            reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut bytes).map_err(failed)?;
            if bytes.is_empty() {
                if number == 1 && !is_written {
                    return Err(broken(Damage::Truncated, "the file is empty".to_owned()));
                }
                return Ok(());
            }
            if bytes.pop_if(|byte| *byte == b'\n').is_none() {
                if bytes.len() == LINE_BYTES_MAX {
                    return Err(broken(Damage::Changed, "is longer than any audit line".to_owned()));
                }
                if !is_written {
                    return Err(broken(Damage::Truncated, "the file ends in the middle of a line".to_owned()));
                }
                self.verified.torn_bytes = bytes.len() as u64;
                return Ok(());
            }
            let line = decode(&bytes).map_err(|why| match why {
                NoLine::Hash => broken(Damage::Changed, "the line does not have the hash that it says".to_owned()),
                NoLine::Shape(why) => broken(Damage::Changed, format!("this is not an audit line: {why}")),
            })?;
            self.take(path, number, line, later)?;
        }
    }

    fn take(&mut self, path: &Path, number: u64, line: Line, later: &[PathBuf]) -> Result<(), AuditError> {
        if self.verified.lines == 0 && line.sequence > 1 {
            self.verified.first_sequence = line.sequence;
            self.first_previous.clone_from(&line.previous);
        } else if Some(line.sequence) != self.verified.last_sequence.checked_add(1) {
            return Err(self.out_of_order(path, number, &line, later));
        } else if line.previous != self.verified.last_hash {
            return Err(AuditError::Broken {
                path: path.to_owned(),
                line: number,
                damage: Damage::Changed,
                why: format!(
                    "line {} of the log names another hash for the line before: one of the two was written anew",
                    line.sequence
                ),
            });
        }
        if let Some(anchor) = self.anchor.filter(|anchor| anchor.sequence == line.sequence) {
            self.anchor_found = Some(anchor.hash == line.hash);
        }
        if line.details.is_about_itself(itself::REMOVED)
            && let Some(mark) = &line.details.file
            && mark.last_sequence + 1 == self.verified.first_sequence
            && mark.last_hash == self.first_previous
        {
            self.beginning_was_removed = true;
        }
        self.is_closed = line.details.is_about_itself(itself::CLOSED);
        self.verified.lines += 1;
        self.verified.last_sequence = line.sequence;
        self.verified.last_hash = line.hash;
        Ok(())
    }

    /// A sound line that does not belong where it stands.
    fn out_of_order(&self, path: &Path, number: u64, line: &Line, later: &[PathBuf]) -> AuditError {
        let (expected, found) = (self.verified.last_sequence + 1, line.sequence);
        let here = |damage, why| AuditError::Broken { path: path.to_owned(), line: number, damage, why };
        if found < expected {
            return here(Damage::Inserted, format!("line {found} of the log stands here again"));
        }
        let rest = std::iter::once(path).chain(later.iter().map(PathBuf::as_path));
        if let Some((place, at)) = rest.filter_map(|file| Some((file, find(self.disk, file, expected)?))).next() {
            let why = format!(
                "line {found} of the log stands where line {expected} belongs, which is in `{}` line {at}",
                place.display()
            );
            return here(Damage::Reordered, why);
        }
        let what = if found == expected + 1 {
            format!("line {expected} of the log is")
        } else {
            format!("lines {expected} to {} of the log are", found - 1)
        };
        let Some(before) = self.verified.files.last().filter(|_| number == 1) else {
            return here(Damage::Removed, format!("{what} missing before this one"));
        };
        // Between two files: is a whole one missing, or the end of the one before?
        match line.details.file.as_ref().and_then(|mark| self.missing_file(mark)) {
            Some(name) => here(Damage::Removed, format!("{what} missing before this one: there is no file `{name}`")),
            None => AuditError::Broken {
                path: before.clone(),
                line: self.lines_of(before) + 1,
                damage: Damage::Truncated,
                why: format!("{what} missing at the end of the file"),
            },
        }
    }

    /// The name of the file that a first line says comes before it, if it is not there.
    fn missing_file(&self, mark: &FileMark) -> Option<String> {
        let name = mark.name.as_ref()?;
        let known = self.verified.files.iter().any(|file| file.file_name().is_some_and(|it| it == name.as_str()));
        (!known).then(|| name.clone())
    }

    fn lines_of(&self, path: &Path) -> u64 {
        let Ok(file) = files::open(self.disk, path) else { return 0 };
        file.split(b'\n').map_while(Result::ok).count() as u64
    }

    /// Whether what is missing at the beginning was removed by rotation.
    fn check_beginning(&self, all: &[PathBuf]) -> Result<(), AuditError> {
        let first = self.verified.first_sequence;
        if first == 1 || self.beginning_was_removed {
            return Ok(());
        }
        let why =
            format!("lines 1 to {} of the log are missing, and no line says that rotation removed them", first - 1);
        Err(AuditError::Broken {
            path: all.first().unwrap_or(&self.log.to_owned()).clone(),
            line: 1,
            damage: Damage::Removed,
            why,
        })
    }
}

/// The place in a file of the sound line with this number.
fn find(disk: &dyn Disk, path: &Path, sequence: u64) -> Option<u64> {
    let lines = files::open(disk, path).ok()?.split(b'\n').map_while(Result::ok);
    let at = lines.enumerate().find(|(_, bytes)| decode(bytes).is_ok_and(|line| line.sequence == sequence))?.0;
    Some(at as u64 + 1)
}
