//! What a new process does to itself between its birth and the program: other user, other directory,
//! no inherited files.
//!
//! Everything is looked up and allocated before; what is left are system calls, since between fork
//! and exec of a process with threads nothing else is safe.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, getegid, geteuid, setgroups, setresgid, setresuid};
use tokio::process::Command;

use super::record::Note;
use super::user::EffectiveUser;

/// Files that programs make can be read by all and written by their owner, as after a login. The agent's own
/// mask would make a package's configuration readable to root only.
const FILE_MASK: Mode = Mode::S_IWGRP.union(Mode::S_IWOTH);

/// Descriptors looked at where the kernel has no call for "all others" (before Linux 5.11).
const DESCRIPTORS_MAX: i32 = 65_536;

/// What the new process will do.
#[derive(Debug)]
pub(super) struct Preparation {
    identity: Option<(Uid, Gid, Vec<Gid>)>,
    directory: CString,
    /// Whether `/` will do where the directory cannot be entered.
    or_root: bool,
    /// How large an image of its memory the program may allow itself again.
    core_bytes_max: rlim_t,
    note: Option<Note>,
}

impl Preparation {
    /// Decides what is to be done. Fails for a directory that cannot be one.
    pub(super) fn new(user: Option<&EffectiveUser>, directory: Option<&Path>) -> io::Result<Self> {
        let (wanted, or_root) = match (directory, user) {
            (Some(directory), _) => (directory, false),
            (None, Some(user)) => (user.home.as_path(), true),
            (None, None) => (Path::new("/"), false),
        };
        let invalid = |_| io::Error::new(io::ErrorKind::InvalidInput, "the working directory has a NUL in its name");
        let directory = CString::new(wanted.as_os_str().as_bytes()).map_err(invalid)?;
        let identity = user.filter(|user| must_change_to(user)).map(|user| {
            let groups = user.groups.iter().copied().map(Gid::from_raw).collect();
            (Uid::from_raw(user.uid), Gid::from_raw(user.gid), groups)
        });
        let (_, core_bytes_max) = getrlimit(Resource::RLIMIT_CORE)?;
        Ok(Self { identity, directory, or_root, core_bytes_max, note: Note::prepare() })
    }

    /// Hands it to the command. Runs after the file descriptors 0 to 2 are in place.
    #[expect(
        unsafe_code,
        reason = "only between fork and exec can a process change its groups and then its user; \
                                    the standard library has no other place for it"
    )]
    pub(super) fn install(self, command: &mut Command) {
        // SAFETY: `apply` makes system calls only; it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || self.apply().map_err(io::Error::from));
        }
    }

    fn apply(&self) -> nix::Result<()> {
        // First, while it may still do everything.
        if let Some(note) = &self.note {
            note.write();
        }
        umask(FILE_MASK);
        // A program that crashes with a secret in its memory leaves no copy of it on disk. A daemon that it starts
        // may still ask for one.
        setrlimit(Resource::RLIMIT_CORE, 0, self.core_bytes_max)?;
        if let Some((uid, gid, groups)) = &self.identity {
            // In this order: who has given up the user may not change the groups any more.
            setgroups(groups)?;
            setresgid(*gid, *gid, *gid)?;
            setresuid(*uid, *uid, *uid)?;
            if geteuid() != *uid || getegid() != *gid {
                return Err(nix::Error::EPERM);
            }
        }
        // As the user, so that nobody is put where they could not have gone themselves.
        match chdir(self.directory.as_c_str()) {
            Err(_) if self.or_root => chdir(c"/")?,
            entered => entered?,
        }
        close_on_exec();
        Ok(())
    }
}

/// An agent that is not root can only stay who it is; for everybody else the kernel decides, and says no.
fn must_change_to(user: &EffectiveUser) -> bool {
    geteuid().is_root() || user.uid != geteuid().as_raw() || user.gid != getegid().as_raw()
}

/// Keeps all descriptors but 0 to 2 from the program, also those that a library opened without care.
/// They are only marked: the standard library still needs one to tell that the program did not start.
#[expect(unsafe_code, reason = "nix has no close_range")]
fn close_on_exec() {
    // SAFETY: marks descriptors of this process, which is about to become another program.
    unsafe {
        let done = libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if done != 0 {
            for descriptor in 3..DESCRIPTORS_MAX {
                libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}
