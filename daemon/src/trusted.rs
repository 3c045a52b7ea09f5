//! Files that decide what a program does, and that nobody else may have written or be able to replace.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::RealDisk;
use crate::disk::{Disk as _, Metadata};

/// Checks that a file or directory that decides what a program does can be written by nobody but root or
/// the program's own user.
///
/// # Errors
/// It cannot be looked at, or somebody else can write it; the message says what to do.
pub fn check_trusted(path: &Path) -> io::Result<()> {
    judge(path, &RealDisk.metadata(path)?)?;
    check_way(path)
}

/// Checks owner and mode of what was found at `path`, without the way to it.
///
/// # Errors
/// Somebody else than root or the program's own user owns it or can write it.
pub fn judge(path: &Path, found: &Metadata) -> io::Result<()> {
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let (owner, mode) = (found.owner, found.mode);
    if owner != 0 && owner != nix::unistd::Uid::effective().as_raw() {
        return refused(format!(
            "it belongs to user {owner}, not to root or this program's user: chown root {}",
            path.display()
        ));
    }
    if mode & 0o022 != 0 {
        return refused(format!("others can write it (mode {mode:04o}): chmod go-w {}", path.display()));
    }
    Ok(())
}

/// Most symbolic links on the way to a file; the kernel has the same bound.
const LINKS_MAX: usize = 40;

/// With this bit on a directory nobody can replace what others have put into it.
const STICKY: u32 = 0o1000;

/// Checks every directory and every link on the way to `path`, itself left out: whoever can write one of them can
/// put another file or directory there, also between a look at it and its use.
///
/// # Errors
/// One of them cannot be looked at, or belongs to or can be written by somebody else.
pub fn check_way(path: &Path) -> io::Result<()> {
    let parts = |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let mut ahead = parts(&std::path::absolute(path)?);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = ahead.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        // A part that is absolute begins anew.
        let next = at.join(part);
        let metadata = std::fs::symlink_metadata(&next)?;
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        if metadata.is_symlink() || !ahead.is_empty() {
            if owner != 0 && owner != nix::unistd::Uid::effective().as_raw() {
                return refused(format!(
                    "`{0}` on the way to it belongs to user {owner}, who can put something else there: chown root {0}",
                    next.display()
                ));
            }
            if metadata.is_dir() && mode & 0o022 != 0 && mode & STICKY == 0 {
                return refused(format!(
                    "others can write `{0}` on the way to it (mode {mode:04o}): chmod go-w {0}",
                    next.display()
                ));
            }
        }
        if metadata.is_symlink() {
            links += 1;
            if links > LINKS_MAX {
                return refused(format!("more than {LINKS_MAX} links lead to it"));
            }
            ahead.extend(parts(&std::fs::read_link(&next)?));
        } else {
            at = next;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn nothing_on_the_way_can_be_replaced_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        for name in ["open", "open/inside", "shared", "shared/inside", "closed"] {
            create_dir(base.join(name)).unwrap();
            mode(&base.join(name), 0o755);
        }
        for name in ["open/inside/file", "shared/inside/file", "closed/file", "open/file"] {
            write(base.join(name), "").unwrap();
            mode(&base.join(name), 0o644);
        }
        symlink("../closed/file", base.join("open/link")).unwrap();
        symlink("open/link", base.join("two")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        symlink("closed", base.join("direct")).unwrap();
        let check = |name: &str, expected: Option<&str>| {
            let found = check_trusted(&base.join(name)).err().map(|error| error.to_string());
            match (expected, found) {
                (None, found) => assert_eq!(found, None, "{name}"),
                (Some(words), found) => {
                    assert!(found.as_ref().is_some_and(|it| it.contains(words)), "{name}: {found:?}")
                }
            }
        };
        for name in ["open/inside/file", "shared/inside/file", "closed/file", "open/link", "two", "direct/file"] {
            check(name, None);
        }
        mode(&base.join("open"), 0o777);
        // As /tmp: others may put things there and replace nobody's.
        mode(&base.join("shared"), 0o1777);
        for name in ["open/inside/file", "open/file", "open/link", "two", "open/inside"] {
            check(name, Some("others can write `"));
        }
        for name in ["shared/inside/file", "closed/file", "direct/file"] {
            check(name, None);
        }
        check("loop", Some(""));
        if nix::unistd::Uid::effective().is_root() {
            mode(&base.join("open"), 0o755);
            nix::unistd::chown(&base.join("open"), Some(nix::unistd::Uid::from_raw(12_345)), None).unwrap();
            check("open/inside/file", Some("belongs to user 12345"));
            // A link of somebody else's in a directory where nobody replaces what is others'. Most kernels refuse to
            // follow it by themselves.
            symlink(base.join("closed/file"), base.join("shared/his")).unwrap();
            std::os::unix::fs::lchown(base.join("shared/his"), Some(12_345), None).unwrap();
            check("shared/his", Some(""));
            let found = check_way(&base.join("shared/his")).unwrap_err().to_string();
            assert!(found.contains("belongs to user 12345"), "{found}");
        }
    }
}
