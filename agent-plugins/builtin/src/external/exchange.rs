//! The private directory in which a call's request, reply and facts lie.
//!
//! Where the program runs as another user, that user owns the directory and can do in it what he likes. So it lies
//! in one more directory, which belongs to the agent's user: nobody can put another directory in its place, and what
//! is read from it has to be that user's own. Otherwise root would read for him what he may not.

use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::BuildHasher as _;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Once;

use muster_protocol::limits::BODY_BYTES_MAX;
use nix::libc;
use nix::unistd::geteuid;

use crate::process::EffectiveUser;

/// Largest reply, in bytes: no report could carry more.
pub(super) const REPLY_BYTES_MAX: usize = BODY_BYTES_MAX;

/// Where another user finds the files of a call: that user cannot reach the agent's own directories.
const SHARED_DIRECTORY: &str = "/tmp";

/// Beginning of the names of directories of calls; the number of the process that made them follows.
const PREFIX: &str = "muster-call-";

/// The files of one call. They go when this is dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    /// What goes in the end.
    whole: PathBuf,
    directory: PathBuf,
    /// Whose the files have to be that are read, where they are not the agent's.
    owner: Option<u32>,
}

/// What became of a file that the program was to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing: it is as empty as it was.
    Nothing,
    /// This.
    Bytes(Vec<u8>),
    /// More than may be.
    TooMuch,
    /// The file is gone.
    Gone,
    /// Something that is not a file stands there.
    NotAFile,
    /// It cannot be read.
    Unreadable(String),
}

impl Exchange {
    /// Makes the directory with its files: the request and the facts, and two empty ones to be written.
    /// Only the agent's user can look into it, or only `user` where there is one.
    pub(super) fn new(
        work_directory: &Path,
        user: Option<&EffectiveUser>,
        request: &[u8],
        facts: &[u8],
    ) -> io::Result<Self> {
        // An agent that is not root can only call as itself, and needs no other place for that.
        let user = user.filter(|user| user.uid != geteuid().as_raw());
        let whole = make(if user.is_some() { Path::new(SHARED_DIRECTORY) } else { work_directory })?;
        let exchange = Self {
            directory: if user.is_some() { whole.join("call") } else { whole.clone() },
            whole,
            owner: user.map(|user| user.uid),
        };
        if user.is_some() {
            fs::set_permissions(&exchange.whole, fs::Permissions::from_mode(0o711))?;
            DirBuilder::new().mode(0o700).create(&exchange.directory)?;
        }
        for (path, bytes) in [
            (exchange.request(), request),
            (exchange.facts(), facts),
            (exchange.reply(), b"".as_slice()),
            (exchange.output(), b"".as_slice()),
        ] {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            give(&path, user)?;
        }
        give(&exchange.directory, user)?;
        Ok(exchange)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whose the files have to be that the program writes; `None` if they are the agent's own.
    pub(super) fn owner(&self) -> Option<u32> {
        self.owner
    }

    pub(super) fn request(&self) -> PathBuf {
        self.directory.join("request.json")
    }

    pub(super) fn facts(&self) -> PathBuf {
        self.directory.join("facts.json")
    }

    pub(super) fn reply(&self) -> PathBuf {
        self.directory.join("reply.json")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.directory.join("output")
    }

    /// Reads what the program wrote. The program may have put anything there: neither a link is
    /// followed nor a pipe waited for, and another name of somebody else's file is not read either.
    pub(super) fn read(path: &Path, owner: Option<u32>) -> Written {
        let unreadable = |error: io::Error| Written::Unreadable(error.to_string());
        let open = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let file = match open {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Written::Gone,
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Written::NotAFile,
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Written::NotAFile,
            Err(error) => return unreadable(error),
        };
        match file.metadata() {
            Ok(metadata) if !metadata.is_file() => return Written::NotAFile,
            Ok(metadata) if owner.is_some_and(|owner| owner != metadata.uid()) => {
                return Written::Unreadable(format!("it belongs to user {}", metadata.uid()));
            }
            Ok(_) => {}
            Err(error) => return unreadable(error),
        }
        let mut bytes = Vec::new();
        match file.take(REPLY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
            Err(error) => unreadable(error),
            Ok(0) => Written::Nothing,
            Ok(count) if count > REPLY_BYTES_MAX => Written::TooMuch,
            Ok(_) => Written::Bytes(bytes),
        }
    }
}

impl Exchange {
    /// Removes the files, and waits for that. A program can leave so many behind that it takes its time.
    pub(super) async fn remove(mut self) {
        let whole = std::mem::take(&mut self.whole);
        drop(tokio::task::spawn_blocking(move || fs::remove_dir_all(whole)).await);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.whole.as_os_str().is_empty() {
            return;
        }
        // What the program still writes after this is lost with the directory. Where it cannot be removed
        // now, the agent's next start empties its work directory, and the next call the shared one.
        let whole = std::mem::take(&mut self.whole);
        let remove = move || drop(fs::remove_dir_all(whole));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// A directory of a name that nobody can know before, for its owner alone from its first moment on. In the shared
/// directory anybody could otherwise take the name.
fn make(parent: &Path) -> io::Result<PathBuf> {
    static SWEPT: Once = Once::new();
    if parent == Path::new(SHARED_DIRECTORY) {
        SWEPT.call_once(|| sweep(parent));
    }
    // Each state has keys of its own, which come from the system's randomness.
    let random = RandomState::new().hash_one(std::process::id());
    let directory = parent.join(format!("{PREFIX}{}-{random:016x}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&directory)?;
    Ok(directory)
}

/// Takes away what processes that were killed have left: there may be secrets in it. What others have put there under
/// such names is theirs.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse::<u32>().ok());
        let is_ours = || entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == geteuid().as_raw());
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker.to_string()).exists()) && is_ours() {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

fn give(path: &Path, user: Option<&EffectiveUser>) -> io::Result<()> {
    match user {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_the_program_may_have_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let own = geteuid().as_raw();
        let check = |name: &str, owner: Option<u32>, expected: Written| {
            assert_eq!(Exchange::read(&folder.path().join(name), owner), expected, "{name} {owner:?}");
        };
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::hard_link(folder.path().join("secret"), folder.path().join("linked")).unwrap();
        symlink(folder.path().join("secret"), folder.path().join("soft")).unwrap();
        check("linked", None, Written::Bytes(b"secret".to_vec()));
        check("linked", Some(own), Written::Bytes(b"secret".to_vec()));
        // Another name for a file that the effective user may not read, where `fs.protected_hardlinks` is 0.
        check("linked", Some(own + 1), Written::Unreadable(format!("it belongs to user {own}")));
        check("soft", Some(own), Written::NotAFile);
        check(".", None, Written::NotAFile);
        check("nothing", None, Written::Gone);
    }

    #[test]
    fn what_killed_processes_left_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let me = std::process::id();
        for name in [format!("{PREFIX}{me}-1"), format!("{PREFIX}4294967295-1"), format!("{PREFIX}x-1"), "x".to_owned()]
        {
            fs::create_dir_all(folder.path().join(name).join("call")).unwrap();
        }
        symlink("x", folder.path().join(format!("{PREFIX}4294967295-2"))).unwrap();
        sweep(folder.path());
        let left = fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name());
        assert_eq!(left.count(), 4);
        assert!(!folder.path().join(format!("{PREFIX}4294967295-1")).exists());
    }
}
