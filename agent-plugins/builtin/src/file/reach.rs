//! From a path to what is there, without ever leaving the opened directory.
//!
//! The kernel walks the path itself (openat2(2) with `RESOLVE_BENEATH`): links that stay below the
//! directory are followed, all others are refused, whatever changes meanwhile. Where the kernel does not
//! know that call (before Linux 5.6, or in a sandbox without it), no link is followed at all.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use muster_plugin_api::ActionFailure;
use muster_protocol::code;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, fstatat};

use super::entry::Entry;
use crate::execution::absolute_path;

/// A path below an opened directory, as text: nothing has been touched yet.
#[derive(Debug)]
pub(super) struct Reach {
    path: PathBuf,
    root: PathBuf,
    relative: PathBuf,
}

/// The directory that holds a path's last part, held open.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
}

impl Reach {
    /// Matches a path with the opened directories; of several the deepest one counts.
    pub(super) fn of(path: &str, roots: &[PathBuf], what_for: &str) -> Result<Self, ActionFailure> {
        let path = absolute_path("path", path)?;
        let below = roots.iter().filter_map(|root| Some((root, path.strip_prefix(root).ok()?.to_owned())));
        let found = below.filter(|(_, relative)| !relative.as_os_str().is_empty());
        let deepest = found.min_by_key(|(_, relative)| relative.components().count());
        let Some((root, relative)) = deepest else {
            let why = format!(
                "`{}` is not below a directory that the host's administrator has opened to be {what_for}",
                path.display()
            );
            return Err(ActionFailure::new(&code::OUTSIDE_ROOTS, why));
        };
        Ok(Self { root: root.clone(), relative, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is at the path itself, which may be a link; `None` if nothing is.
    pub(super) fn entry(&self) -> Result<Option<Entry>, ActionFailure> {
        self.look(OFlag::O_NOFOLLOW)
    }

    /// What the path leads to.
    pub(super) fn target(&self) -> Result<Option<Entry>, ActionFailure> {
        self.look(OFlag::empty())
    }

    fn look(&self, follow: OFlag) -> Result<Option<Entry>, ActionFailure> {
        let root = self.open_root()?;
        // Without O_PATH already opening a device or a pipe would do something.
        match beneath(&root, &self.relative, OFlag::O_PATH | follow) {
            Ok(found) => Entry::of(found).map(Some).map_err(|errno| self.failure(errno)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(self.failure(errno)),
        }
    }

    /// The directory in which the path's last part is, or would be.
    pub(super) fn parent(&self) -> Result<Parent, ActionFailure> {
        let root = self.open_root()?;
        let name = self.relative.file_name().unwrap_or_default().to_owned();
        let above = self.relative.parent().filter(|above| !above.as_os_str().is_empty());
        let directory = match above {
            None => root,
            Some(above) => {
                let opened = beneath(&root, above, OFlag::O_PATH | OFlag::O_DIRECTORY);
                opened.map_err(|errno| match errno {
                    Errno::ENOENT | Errno::ENOTDIR => {
                        let directory = self.root.join(above);
                        ActionFailure::failed(format!("there is no directory `{}`", directory.display()))
                    }
                    errno => self.failure(errno),
                })?
            }
        };
        Ok(Parent { directory, name })
    }

    fn open_root(&self) -> Result<OwnedFd, ActionFailure> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(&self.root, flags, Mode::empty()).map_err(|errno| {
            ActionFailure::failed(format!("the opened directory `{}` cannot be entered: {errno}", self.root.display()))
        })
    }

    /// What went wrong with this path.
    pub(super) fn failure(&self, errno: Errno) -> ActionFailure {
        let path = self.path.display();
        match errno {
            Errno::EXDEV | Errno::ELOOP => ActionFailure::new(
                &code::OUTSIDE_ROOTS,
                format!(
                    "`{path}` leads over a link that is not followed: out of `{}`, or in a circle",
                    self.root.display()
                ),
            ),
            errno => ActionFailure::failed(format!("`{path}`: {}", errno.desc())),
        }
    }
}

impl Parent {
    /// What has the name now; `None` if nothing has.
    pub(super) fn entry(&self) -> nix::Result<Option<Entry>> {
        let name = self.name.as_os_str();
        match openat(&self.directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(found) => Entry::of(found).map(Some),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the name still stands for exactly that, unchanged.
    pub(super) fn is_still(&self, before: Option<&Entry>) -> nix::Result<bool> {
        match (fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW), before) {
            (Ok(now), Some(before)) => Ok(before.is(&now)),
            (Ok(_), None) => Ok(false),
            (Err(Errno::ENOENT), before) => Ok(before.is_none()),
            (Err(errno), _) => Err(errno),
        }
    }
}

fn beneath(root: &OwnedFd, relative: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(root, relative, how) {
        Err(Errno::ENOSYS | Errno::EPERM) => step_by_step(root, relative, flags),
        // Something above was renamed while the kernel walked. It says: try again.
        Err(Errno::EAGAIN) => openat2(root, relative, how),
        opened => opened,
    }
}

/// Walks part by part and follows no link.
fn step_by_step(root: &OwnedFd, relative: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let names: Vec<&OsStr> = relative.components().map(Component::as_os_str).collect();
    let (last, above) = names.split_last().ok_or(Errno::ENOENT)?;
    let mut directory: Option<OwnedFd> = None;
    for name in above {
        let within = directory.as_ref().unwrap_or(root);
        let pass = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = openat(within, *name, pass, Mode::empty())?;
        if Entry::is_link(&next)? {
            return Err(Errno::ELOOP);
        }
        directory = Some(next);
    }
    let within = directory.as_ref().unwrap_or(root);
    if last.as_bytes() == b".." {
        return Err(Errno::EXDEV);
    }
    let found = openat(within, *last, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    // Whoever wanted the link itself gets it; whoever wanted what it leads to does not.
    if !flags.contains(OFlag::O_NOFOLLOW) && Entry::is_link(&found)? {
        return Err(Errno::ELOOP);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn matched(path: &str, roots: &[&str]) -> Result<(String, String), &'static str> {
        let roots: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
        let shown = |path: &Path| path.display().to_string();
        match Reach::of(path, &roots, "read") {
            Ok(reach) => Ok((shown(&reach.root), shown(&reach.relative))),
            Err(failure) => Err(failure.code.code),
        }
    }

    #[test]
    fn a_path_is_below_a_root_by_whole_names() {
        let check = |path: &str, root: &str, relative: &str| {
            let roots = ["/srv/app", "/srv/app/conf", "/etc/muster.d/"];
            assert_eq!(matched(path, &roots), Ok((root.to_owned(), relative.to_owned())), "{path}");
        };
        check("/srv/app/x", "/srv/app", "x");
        check("/srv/app/conf", "/srv/app", "conf");
        check("/srv/app/conf/a/b", "/srv/app/conf", "a/b");
        check("/etc/muster.d/x", "/etc/muster.d/", "x");
        let roots = ["/srv/app"];
        for outside in ["/srv/app", "/srv/apple", "/srv", "/", "/etc/shadow", "/-oFoo", "/--"] {
            assert_eq!(matched(outside, &roots), Err("outside-roots"), "{outside}");
        }
        for wrong in [
            "",
            "x",
            "srv/app/x",
            "/srv/app/../x",
            "/srv/app/..",
            "/srv/app/",
            "/srv//app/x",
            "//srv/app/x",
            "/srv/app/./x",
            "/srv/app/x/.",
            "/srv/app/x/",
            "/srv/app/x\ny",
            "/srv/app/x\0y",
            "/srv/app/\u{1b}[0m",
            "-oFoo",
            "--",
            "~/x",
        ] {
            assert_eq!(matched(wrong, &roots), Err("invalid-argument"), "{wrong:?}");
        }
        assert_eq!(matched("/srv/app/x; rm -rf y", &roots).unwrap().1, "x; rm -rf y");
        assert_eq!(matched("/x", &[]), Err("outside-roots"));
    }

    #[test]
    fn with_and_without_openat2_nobody_gets_out() {
        let directory = tempfile::tempdir().unwrap();
        let root_path = directory.path().join("root");
        fs::create_dir_all(root_path.join("sub")).unwrap();
        fs::write(root_path.join("sub/file"), "in").unwrap();
        fs::write(directory.path().join("secret"), "out").unwrap();
        symlink("sub/file", root_path.join("inner")).unwrap();
        symlink("sub", root_path.join("inner-directory")).unwrap();
        symlink("../secret", root_path.join("outer")).unwrap();
        symlink(directory.path().join("secret"), root_path.join("absolute")).unwrap();
        symlink("..", root_path.join("up")).unwrap();
        symlink("circle", root_path.join("circle")).unwrap();
        symlink("/proc/self/root", root_path.join("magic")).unwrap();
        let root = open(&root_path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let by_kernel = |path: &str| beneath(&root, Path::new(path), OFlag::O_PATH).map(drop);
        let by_hand = |path: &str| step_by_step(&root, Path::new(path), OFlag::O_PATH).map(drop);
        for (path, kernel, hand) in [
            ("sub/file", Ok(()), Ok(())),
            ("nothing", Err(Errno::ENOENT), Err(Errno::ENOENT)),
            ("sub/file/below", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("inner", Ok(()), Err(Errno::ELOOP)),
            ("inner-directory/file", Ok(()), Err(Errno::ELOOP)),
            ("outer", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("absolute", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("up/secret", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("magic/etc/shadow", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("circle", Err(Errno::ELOOP), Err(Errno::ELOOP)),
            ("..", Err(Errno::EXDEV), Err(Errno::EXDEV)),
        ] {
            assert_eq!(by_kernel(path), kernel, "{path}");
            assert_eq!(by_hand(path), hand, "{path}");
        }
    }
}
