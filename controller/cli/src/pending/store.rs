//! The files of pending commands.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_client::Pending;
use muster_client::pending::PENDING_BYTES_MAX;
use muster_daemon::write_atomic;
use muster_pki::Trust;
use muster_protocol::{RequestId, Timestamp};

use super::failure;
use crate::output::{ExitCode, Failure};

/// What their names end with.
const EXTENSION: &str = "pending";

/// Fewest characters of an id that name one.
const GIVEN_CHARACTERS_MIN: usize = 4;

/// How often a file that another process changes is tried, and the pause in between: two seconds in all. Who changes
/// one reads, signs nothing any more, writes and lets go.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The place of pending commands that nobody has named a file for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    directory: Option<PathBuf>,
}

impl Store {
    /// That of the process's user; none where there is no place for it.
    pub(crate) fn of_user() -> Self {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        Self { directory: base.map(|base| base.join("muster").join("pending")) }
    }

    /// A directory.
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory: Some(directory) }
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Where a new one goes.
    ///
    /// # Errors
    /// Exit 2: there is no place for it. 1: the directory cannot be made.
    pub(crate) fn place_for(&self, id: RequestId) -> Result<PathBuf, Failure> {
        let Some(directory) = &self.directory else {
            return Err(Failure::usage(
                "there is no place for pending commands: neither XDG_STATE_HOME nor HOME is set",
            )
            .hint("--pending=FILE"));
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| Failure::file("make", directory, &error))?;
        Ok(directory.join(format!("{id}.{EXTENSION}")))
    }

    /// All files here, oldest first: ids begin with the time.
    ///
    /// # Errors
    /// Exit 2: the directory is there and cannot be read.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::file("read", directory, &error)),
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        paths.sort();
        Ok(paths)
    }

    /// The file that is meant: a path, some characters of the id of one that lies here, or `last`.
    ///
    /// # Errors
    /// Exit 2: none or several fit. 4: `last` where none is.
    pub(crate) fn find(&self, given: &str) -> Result<PathBuf, Failure> {
        let path = Path::new(given);
        if given.contains('/') || path.exists() {
            return Ok(path.to_owned());
        }
        let files = self.files()?;
        if given == "last" {
            return files.into_iter().next_back().ok_or_else(|| {
                let what = "no pending command lies here";
                self.placed(Failure::new(ExitCode::NoMatch, "no-pending", what)).hint("muster run ... --pending")
            });
        }
        let typed = given.to_ascii_lowercase();
        let fits = |path: &&PathBuf| {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            typed.len() >= GIVEN_CHARACTERS_MIN && (name.starts_with(&typed) || name.ends_with(&typed))
        };
        match files.iter().filter(fits).collect::<Vec<_>>().as_slice() {
            [one] => Ok((*one).clone()),
            [] => {
                let what = format!("there is no file `{given}`, and no pending command with an id like it");
                Err(self.placed(Failure::new(ExitCode::Usage, "no-pending", what)).hint("muster pending list"))
            }
            several => {
                let what = format!("`{given}` fits {} pending commands", several.len());
                let failure = Failure::new(ExitCode::Usage, "ambiguous-pending", what);
                let shown = several.iter().rev().take(3);
                let failure = shown.fold(failure, |failure, path| failure.why("fits", path.display().to_string()));
                Err(failure.hint("more characters of the id"))
            }
        }
    }

    fn placed(&self, failure: Failure) -> Failure {
        let place = self.directory.as_ref().map(|directory| directory.display().to_string());
        failure.why("kept in", place.unwrap_or_else(|| "nothing: neither XDG_STATE_HOME nor HOME is set".to_owned()))
    }
}

/// The bytes of a file, as many as a pending command may have and one more.
///
/// # Errors
/// Exit 2: it is not there, is no file, or cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: &io::Error| Failure::file("read", path, error);
    // A pipe or a device would keep us waiting, or never end.
    let is_file = fs::metadata(path).map_err(|error| failed(&error))?.is_file();
    if !is_file {
        return Err(failed(&io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(PENDING_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    Ok(bytes)
}

/// The pending command in a file, checked.
///
/// # Errors
/// As [`read`]; what is in it is no pending command that hosts would believe.
pub(crate) fn load(path: &Path, trust: &Trust, now: Timestamp) -> Result<Pending, Failure> {
    Pending::read(&read(path)?, trust, now).map_err(|error| failure(&error, Some(path)))
}

/// Writes a new file that only its owner can read.
///
/// # Errors
/// Exit 2: something lies there already, or it cannot be written.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::file("write", path, &error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half of one is nothing that anybody should find.
        drop(fs::remove_file(path));
        failed(error)
    })
}

/// Changes the pending command in a file: read anew, so that what somebody else has added meanwhile stays, and replaced in one
/// step while nobody else does the same.
///
/// # Errors
/// As [`load`]; the file is somebody else's; another process holds it; `change` fails.
pub(crate) fn update<T>(
    path: &Path,
    trust: &Trust,
    now: Timestamp,
    change: impl FnOnce(&mut Pending) -> Result<T, Failure>,
) -> Result<(Pending, T), Failure> {
    check_owner(path)?;
    let lock = lock(path)?;
    let mut pending = load(path, trust, now)?;
    let changed = change(&mut pending)?;
    let mode = lock.metadata().map_or(0o600, |metadata| metadata.mode() & 0o777);
    write_atomic(path, mode, &pending.to_bytes())
        .map_err(|error| Failure::unexpected("cannot write the file", &error))?;
    drop(lock);
    Ok((pending, changed))
}

/// Refuses to replace a file of somebody else: it would become ours, and its owner could not read it any more.
///
/// # Errors
/// Exit 2: it is not ours.
pub(crate) fn check_owner(path: &Path) -> Result<(), Failure> {
    let owner = fs::metadata(path).map_err(|error| Failure::file("read", path, &error))?.uid();
    match fs::metadata("/proc/self").map(|us| us.uid()) {
        Ok(us) if us != owner => {
            let what =
                format!("`{}` belongs to another user of this machine, who could not read it any more", path.display());
            Err(Failure::new(ExitCode::Usage, "foreign-file", what)
                .hint("cp it, and approve the copy")
                .hint(format!("muster approve {} --signature-only OUT", path.display())))
        }
        _ => Ok(()),
    }
}

/// Locks the file that lies at `path` now.
fn lock(path: &Path) -> Result<File, Failure> {
    let failed = |error: &io::Error| Failure::file("lock", path, error);
    for _ in 0..LOCK_TRIES {
        let file = File::open(path).map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {
                // Whoever held it before has put another file in its place.
                let (ours, there) = (file.metadata(), fs::metadata(path));
                let (ours, there) = (ours.map_err(|error| failed(&error))?, there.map_err(|error| failed(&error))?);
                if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
                    return Ok(file);
                }
            }
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
    Err(failed(&io::Error::other("another process holds it")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use muster_client::testing::{Fleet, NOW};
    use muster_client::{Audience, Question};
    use muster_protocol::HostName;

    use super::*;

    async fn pending(fleet: &Fleet) -> Pending {
        let mut controller = fleet.controller().await;
        let hosts = [HostName::new("web1").unwrap()].into();
        let mut question = Question::new(Audience::Hosts(hosts), "host".parse().unwrap(), "ping".parse().unwrap());
        question.ttl_ms = 3_600_000;
        controller.write(&question).unwrap()
    }

    #[tokio::test]
    async fn a_pending_command_is_found_by_its_file_and_by_its_id() {
        let (folder, fleet) = (tempfile::tempdir().unwrap(), Fleet::new());
        let store = Store::at(folder.path().join("pending"));
        assert_eq!(store.find("last").unwrap_err().exit, ExitCode::NoMatch);
        assert_eq!(store.files().unwrap(), Vec::<PathBuf>::new());
        let made = pending(&fleet).await;
        let path = store.place_for(made.id()).unwrap();
        create(&path, &made.to_bytes()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let id = made.id().to_string();
        for given in ["last", id.as_str(), &id[..8], &id[id.len() - 4..], &id.to_uppercase(), path.to_str().unwrap()] {
            assert_eq!(store.find(given).unwrap(), path, "{given}");
        }
        for given in ["abc", "ffff", ""] {
            assert_eq!(store.find(given).unwrap_err().code, "no-pending", "{given}");
        }
        let other = path.with_file_name(format!("{}ffff-ffff.pending", &id[..8]));
        create(&other, b"x").unwrap();
        assert_eq!(store.find(&id[..8]).unwrap_err().code, "ambiguous-pending");
        // What is there is never overwritten, and nothing is left of what could not be written.
        assert_eq!(create(&path, b"y").unwrap_err().code, "file");
        assert_eq!(fs::read(&path).unwrap(), made.to_bytes());
    }

    /// Everybody signs the same file at the same time, and nobody's signature is lost.
    #[tokio::test]
    async fn those_who_sign_at_once_do_not_lose_each_other() {
        let (folder, fleet) = (tempfile::tempdir().unwrap(), Fleet::new());
        let made = pending(&fleet).await;
        let path = folder.path().join("x.pending");
        create(&path, &made.to_bytes()).unwrap();
        let trust = fleet.authority.trust().unwrap();
        std::thread::scope(|scope| {
            for name in ["a", "b", "c", "d", "e", "f"] {
                let approvals =
                    made.approve(&fleet.authority.credentials(&format!("user/{name}")).unwrap(), NOW).unwrap();
                let (path, trust) = (&path, &trust);
                scope.spawn(move || {
                    update(path, trust, NOW, |there| {
                        there.add(&approvals, trust, NOW).map_err(|error| failure(&error, None))
                    })
                    .unwrap();
                });
            }
        });
        let all = load(&path, &trust, NOW).unwrap();
        assert_eq!(all.signers().len(), 7);
        assert_eq!(all.caller().short(), "user/lea");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
    }

    #[tokio::test]
    async fn the_file_of_another_user_stays_his() {
        let (folder, fleet) = (tempfile::tempdir().unwrap(), Fleet::new());
        let made = pending(&fleet).await;
        let path = folder.path().join("x.pending");
        create(&path, &made.to_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let trust = fleet.authority.trust().unwrap();
        update(&path, &trust, NOW, |_| Ok(())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "who could read it still can");
        if chown(&path, Some(12_345), None).is_err() {
            // Only root can give a file away, and the tests run as root.
            return;
        }
        assert_eq!(update(&path, &trust, NOW, |_| Ok(())).unwrap_err().code, "foreign-file");
        assert_eq!(fs::read(&path).unwrap(), made.to_bytes());
    }
}
