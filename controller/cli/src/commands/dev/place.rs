//! The directory of `muster dev`: where it is, whose it is, and that only one program uses it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use muster_daemon::write_atomic;
use serde::{Deserialize, Serialize};

use crate::output::{ExitCode, Failure, word};

/// Made first and removed last: what lies beside it is ours, and may be removed.
const MARK: &str = "dev.json";

/// The certificate authority.
const AUTHORITY: &str = "ca";

/// Certificates and keys.
const PKI: &str = "pki";

/// Held locked by the program that runs; says which.
const LOCK: &str = "lock";

/// What runs, for `muster dev status`. Means something only while the lock is held.
const RUNNING: &str = "running.json";

/// Longest path of the directory: the address of a socket has 107 bytes (unix(7)), and the longest name of one below it
/// is `/hosts/edge-06.par1/state/status.sock` with room to spare.
const PATH_BYTES_MAX: usize = 64;

/// With this bit on a directory nobody can replace what others have put into it.
const STICKY: u32 = 0o1000;

/// What is kept from one run to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Form of the file; another one was written by another version.
    #[serde(default)]
    pub(super) version: u32,
    /// The embedded broker's port on loopback, so that what was set up for it stays right.
    #[serde(default)]
    pub(super) port: Option<u16>,
}

/// The form that this version writes.
const VERSION: u32 = 1;

/// The directory, which need not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    path: PathBuf,
}

/// The directory with its lock.
#[derive(Debug)]
pub(super) struct Held {
    place: Place,
    /// What was kept.
    pub(super) kept: Kept,
    /// Whether nothing was there before.
    pub(super) fresh: bool,
    lock: File,
}

impl Place {
    /// The directory that was named, or `$XDG_STATE_HOME/muster/dev`, or the same below `~/.local/state`.
    ///
    /// # Errors
    /// There is no home, or the path is too long for sockets below it.
    pub(super) fn find(named: Option<&Path>, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Failure> {
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        let usual = || absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        let path = match named {
            Some(named) => std::path::absolute(named).map_err(|error| Failure::file("find", named, &error))?,
            None => usual().map(|base| base.join("muster/dev")).ok_or_else(|| {
                wrong("there is no place for its files")
                    .why("why", "neither XDG_STATE_HOME nor HOME is set")
                    .hint("muster dev --dir DIR")
            })?,
        };
        let Some(text) = path.to_str() else {
            return Err(wrong(format!("`{}` is not UTF-8", path.display())).hint("muster dev --dir DIR"));
        };
        if text.len() > PATH_BYTES_MAX {
            return Err(wrong(format!("`{text}` is too long a path"))
                .why(
                    "why",
                    format!("sockets lie below it, so it may have {PATH_BYTES_MAX} bytes and has {}", text.len()),
                )
                .hint("muster dev --dir DIR"));
        }
        Ok(Self { path })
    }

    /// The directory that a file of its certificates lies in, if `muster dev` has made it.
    pub(super) fn of_certificate(file: &Path) -> Option<Self> {
        let path = file.parent().filter(|pki| pki.ends_with(PKI))?.parent()?;
        path.join(MARK).is_file().then(|| Self { path: path.to_owned() })
    }

    /// The directory that an authority lies in, if `muster dev` has made it.
    pub(super) fn of_authority(authority: &Path) -> Option<Self> {
        let path = authority.parent().filter(|_| authority.ends_with(AUTHORITY))?;
        path.join(MARK).is_file().then(|| Self { path: path.to_owned() })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The certificate authority.
    pub(super) fn authority(&self) -> PathBuf {
        self.path.join(AUTHORITY)
    }

    /// Certificates and keys of everybody.
    pub(super) fn pki(&self) -> PathBuf {
        self.path.join(PKI)
    }

    /// The embedded broker's configuration and state.
    pub(super) fn broker(&self) -> PathBuf {
        self.path.join("broker")
    }

    /// Everything of one host.
    pub(super) fn host(&self, name: &str) -> PathBuf {
        self.path.join("hosts").join(name)
    }

    /// A configuration for `muster` with contexts for this directory and nothing else.
    pub(super) fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    fn running_path(&self) -> PathBuf {
        self.path.join(RUNNING)
    }

    /// Makes the directory where it is missing, and takes its lock.
    ///
    /// # Errors
    /// Another program has the lock; the directory cannot be made, is not ours, or others could put something else there.
    pub(super) fn hold(&self) -> Result<Held, Failure> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|error| Failure::file("create", &self.path, &error))?;
        self.check_way()?;
        let kept = self.kept()?;
        let fresh = kept.is_none();
        if fresh {
            self.check_empty()?;
            // What was empty may have been anybody's to look into.
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))
                .map_err(|error| Failure::file("change the mode of", &self.path, &error))?;
        }
        let mut lock = self.open_lock(true)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.runs_already(&mut lock)),
            Err(TryLockError::Error(error)) => return Err(Failure::file("lock", &self.path.join(LOCK), &error)),
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(|error| Failure::file("write", &self.path.join(LOCK), &error))?;
        let mut held = Held { place: self.clone(), kept: kept.unwrap_or_default(), fresh, lock };
        if fresh {
            held.keep(Kept { version: VERSION, port: None })?;
        }
        // Of a program that was killed.
        held.remove_running();
        Ok(held)
    }

    /// What runs here now.
    ///
    /// # Errors
    /// Nothing was ever made here, or it cannot be looked at.
    pub(super) fn running(&self) -> Result<Option<serde_json::Value>, Failure> {
        if self.kept()?.is_none() {
            return Ok(None);
        }
        let lock = match self.open_lock(false) {
            Ok(lock) => lock,
            Err(_) => return Ok(None),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Failure::file("lock", &self.path.join(LOCK), &error)),
            Err(TryLockError::WouldBlock) => {
                let text = fs::read(self.running_path()).unwrap_or_default();
                Ok(Some(serde_json::from_slice(&text).unwrap_or(serde_json::Value::Null)))
            }
        }
    }

    fn open_lock(&self, create: bool) -> Result<File, Failure> {
        let path = self.path.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false).mode(0o600);
        options.open(&path).map_err(|error| Failure::file("open", &path, &error))
    }

    fn runs_already(&self, lock: &mut File) -> Failure {
        let who = holder(lock).map_or("another process".to_owned(), |process| format!("process {process}"));
        Failure::new(ExitCode::Usage, "dev-running", format!("`muster dev` runs already in `{}`", self.path.display()))
            .why("who", who)
            .hint("muster dev --dir DIR  # a second one beside it")
            .hint(self.command("status"))
    }

    /// Nothing is removed while it runs, and somebody who wants it removed wants it stopped.
    fn runs_still(&self, lock: &mut File) -> Failure {
        let what = format!("`muster dev` still runs in `{}`, and nothing was removed", self.path.display());
        let failure = Failure::new(ExitCode::Usage, "dev-running", what);
        let again = format!("{}  # once it has ended", self.reset_command());
        match holder(lock) {
            Some(process) => failure
                .why("who", format!("process {process}; Ctrl-C where it runs stops it, too"))
                .hint(again)
                .hint(format!("kill {process}")),
            None => failure.why("who", "another process; Ctrl-C where it runs stops it").hint(again),
        }
    }

    /// Refuses what belongs to another user, whether it runs or not. What is not there is nobody's.
    ///
    /// # Errors
    /// The directory is not of this user, or cannot be looked at.
    pub(super) fn must_be_of(&self, user: u32) -> Result<(), Failure> {
        let found = match fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Failure::file("look at", &self.path, &error)),
        };
        if found.uid() == user {
            return Ok(());
        }
        Err(wrong(format!("`{}` belongs to somebody else, and nothing was removed", self.path.display()))
            .why("why", format!("user {} has made it, and you are user {user}", found.uid()))
            .hint(format!("sudo -u '#{}' {}", found.uid(), self.reset_here())))
    }

    /// Refuses a directory that `muster dev` runs in.
    ///
    /// # Errors
    /// It runs, with how to stop it; or it cannot be looked at.
    pub(super) fn must_be_still(&self) -> Result<(), Failure> {
        if !self.path.join(MARK).is_file() {
            return Ok(());
        }
        let mut lock = self.open_lock(true)?;
        if lock.try_lock_shared().is_err() {
            return Err(self.runs_still(&mut lock));
        }
        Ok(())
    }

    /// The command for somebody whose usual directory is another one.
    fn reset_here(&self) -> String {
        format!("muster dev reset --dir {}", word(&self.path.display().to_string()))
    }

    /// What was kept, if `muster dev` has made this directory.
    fn kept(&self) -> Result<Option<Kept>, Failure> {
        let path = self.path.join(MARK);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", &path, &error)),
        };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| {
            wrong(format!("`{}` cannot be read", path.display())).because(&error).hint(self.reset_command())
        })?;
        if kept.version > VERSION {
            return Err(wrong(format!("`{}` was made by a newer version of muster", self.path.display()))
                .why("form", format!("{}; this version knows {VERSION}", kept.version))
                .hint("muster dev --dir DIR"));
        }
        Ok(Some(kept))
    }

    fn check_empty(&self) -> Result<(), Failure> {
        let mut entries = fs::read_dir(&self.path).map_err(|error| Failure::file("read", &self.path, &error))?;
        match entries.next() {
            None => Ok(()),
            Some(_) => Err(wrong(format!("`{}` is not empty, and `muster dev` has not made it", self.path.display()))
                .hint("muster dev --dir DIR, with a directory that is empty or not there")),
        }
    }

    /// Agents believe no file on whose way somebody else could put another one, so it is said before they are started.
    fn check_way(&self) -> Result<(), Failure> {
        let path = fs::canonicalize(&self.path).map_err(|error| Failure::file("find", &self.path, &error))?;
        let own = rustix::process::geteuid().as_raw();
        for part in path.ancestors() {
            let found = fs::metadata(part).map_err(|error| Failure::file("look at", part, &error))?;
            let mode = found.mode() & 0o7777;
            if found.uid() != 0 && found.uid() != own {
                return Err(wrong(format!("`{}` belongs to somebody else", part.display()))
                    .why("why", format!("user {} could put other files there; you are user {own}", found.uid()))
                    .hint("muster dev --dir DIR"));
            }
            if mode & 0o022 != 0 && mode & STICKY == 0 {
                return Err(wrong(format!("others can write `{}` (mode {mode:04o})", part.display()))
                    .why("why", "they could put other keys there, and the agents would not start")
                    .hint("muster dev --dir DIR")
                    .hint(format!("chmod go-w {}", part.display())));
            }
        }
        Ok(())
    }

    /// Removes everything, if nothing runs here. `false` if nothing was there.
    ///
    /// # Errors
    /// `muster dev` runs here or has not made the directory, or something cannot be removed.
    pub(super) fn remove(&self) -> Result<bool, Failure> {
        if !self.path.exists() {
            return Ok(false);
        }
        // One that cannot be read any more is ours all the same.
        if !self.path.join(MARK).is_file() {
            self.check_empty().map_err(|mut failure| {
                failure.hints = vec![format!("ls -la {}", word(&self.path.display().to_string()))];
                failure
            })?;
            return Ok(false);
        }
        let mut lock = self.open_lock(true)?;
        if lock.try_lock().is_err() {
            return Err(self.runs_still(&mut lock));
        }
        let failed = |path: &Path, error: &io::Error| Failure::file("remove", path, error);
        let entries = fs::read_dir(&self.path).map_err(|error| failed(&self.path, &error))?;
        for entry in entries {
            let path = entry.map_err(|error| failed(&self.path, &error))?.path();
            if path.ends_with(MARK) || path.ends_with(LOCK) {
                continue;
            }
            let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|error| failed(&path, &error))?;
        }
        // The mark last: what a failure leaves can be removed by the next try.
        for name in [LOCK, MARK] {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
        }
        fs::remove_dir(&self.path).map_err(|error| failed(&self.path, &error))?;
        Ok(true)
    }

    /// `muster dev` with these words, for this directory, as it can be typed.
    pub(super) fn command(&self, words: &str) -> String {
        let space = if words.is_empty() { "" } else { " " };
        let usual = Self::find(None, |name| std::env::var_os(name).map(PathBuf::from));
        match usual.is_ok_and(|usual| usual == *self) {
            true => format!("muster dev{space}{words}"),
            false => format!("muster dev{space}{words} --dir {}", word(&self.path.display().to_string())),
        }
    }

    /// How to begin anew here.
    pub(super) fn reset_command(&self) -> String {
        self.command("reset")
    }
}

impl Held {
    /// Where it is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Writes what is kept.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn keep(&mut self, kept: Kept) -> Result<(), Failure> {
        write(&self.place.path.join(MARK), &serde_json::to_string(&kept).unwrap_or_default())?;
        self.kept = kept;
        Ok(())
    }

    /// Says what runs, for others.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn tell(&self, running: &impl Serialize) -> Result<(), Failure> {
        write(&self.place.running_path(), &serde_json::to_string(running).unwrap_or_default())
    }

    /// Nothing runs any more.
    pub(super) fn remove_running(&self) {
        // One that is left means nothing without the lock.
        drop(fs::remove_file(self.place.running_path()));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.remove_running();
        drop(self.lock.unlock());
    }
}

/// The process that wrote itself into the lock.
fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    drop(lock.rewind().and_then(|()| lock.take(32).read_to_string(&mut text)));
    text.trim().parse().ok()
}

/// Exit 2: the directory cannot be used.
pub(super) fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(ExitCode::Usage, "dev-directory", what)
}

/// Replaces a file, readable by its owner alone.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    write_atomic(path, 0o600, text.as_bytes()).map_err(|error| Failure::file("write", path, error.io()))
}

/// Makes a directory that its owner alone can enter, with its parents.
pub(super) fn make(path: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| Failure::file("create", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(failure: &Failure) -> String {
        failure.hints.join("\n")
    }

    #[test]
    fn what_runs_is_not_removed_and_says_how_to_stop_it() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place { path: directory.path().join("d") };
        let held = place.hold().unwrap();
        for refused in [place.must_be_still().unwrap_err(), place.remove().unwrap_err()] {
            assert_eq!(refused.code, "dev-running");
            assert_eq!(refused.hints.last().unwrap(), &format!("kill {}", std::process::id()));
            assert!(!hints(&refused).contains("muster dev --dir"), "{}", hints(&refused));
        }
        drop(held);
        place.must_be_still().unwrap();
        assert!(place.remove().unwrap());
        assert!(!place.path().exists());
    }

    #[test]
    fn what_is_somebody_elses_is_refused_running_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place { path: directory.path().join("d") };
        let own = rustix::process::geteuid().as_raw();
        place.must_be_of(own + 1).unwrap();
        let held = place.hold().unwrap();
        let running = place.must_be_of(own + 1).unwrap_err();
        drop(held);
        let still = place.must_be_of(own + 1).unwrap_err();
        assert_eq!(running.code, "dev-directory");
        assert_eq!((running.what.as_str(), hints(&running)), (still.what.as_str(), hints(&still)));
        assert_eq!(hints(&still), format!("sudo -u '#{own}' muster dev reset --dir {}", place.path().display()));
        place.must_be_of(own).unwrap();
    }
}
