//! The user that a program runs as.

use std::ffi::CString;
use std::path::PathBuf;

use muster_plugin_api::ActionFailure;
use muster_protocol::code;
use nix::unistd::{Uid, User, geteuid, getgrouplist};

/// Longest name that is looked up, in bytes. The kernel's tools stop at 32; directory services allow more.
const NAME_BYTES_MAX: usize = 256;

/// A user of this host with everything a login would give them: all groups, home and shell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveUser {
    /// The login name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the primary group.
    pub gid: u32,
    /// The numbers of all groups, the primary one included.
    pub groups: Vec<u32>,
    /// The home directory, which need not exist.
    pub home: PathBuf,
    /// The login shell, which may be one that lets nobody in.
    pub shell: PathBuf,
}

impl EffectiveUser {
    /// Looks a user up by name, or by number if a user has that number.
    ///
    /// The host's own directory services are asked, which may wait for the network; in a future use
    /// [`EffectiveUser::find`].
    ///
    /// # Errors
    /// With the code `unknown-user` if there is none or the name cannot be one; `failed` if the
    /// directory services did not answer.
    pub fn resolve(name: &str) -> Result<Self, ActionFailure> {
        let unknown = |why: &str| Err(ActionFailure::new(&code::UNKNOWN_USER, format!("{name:?} {why}")));
        let never = |character: char| character.is_control() || matches!(character, ':' | '/' | ',');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with(['-', '+', '~']) || name.contains(never) {
            return unknown("is not the name of a user");
        }
        let lost = |what: &str, error: nix::Error| ActionFailure::failed(format!("{what} of user {name:?}: {error}"));
        let by_name = User::from_name(name).map_err(|error| lost("cannot look up the account", error))?;
        let found = match (by_name, number(name)) {
            (Some(user), _) => user,
            (None, Some(uid)) => {
                let by_number = User::from_uid(Uid::from_raw(uid));
                match by_number.map_err(|error| lost("cannot look up the account", error))? {
                    Some(user) => user,
                    None => return unknown("is not the number of a user on this host"),
                }
            }
            (None, None) => return unknown("is not a user of this host"),
        };
        Self::with_groups(found).map_err(|error| lost("cannot look up the groups", error))
    }

    /// Looks a user up as [`EffectiveUser::resolve`] does, without holding up the runtime's thread.
    ///
    /// # Errors
    /// As [`EffectiveUser::resolve`].
    pub async fn find(name: &str) -> Result<Self, ActionFailure> {
        let name = name.to_owned();
        let looked = tokio::task::spawn_blocking(move || Self::resolve(&name)).await;
        looked.unwrap_or_else(|error| Err(ActionFailure::failed(format!("cannot look up the user: {error}"))))
    }

    /// The user that this process is, for a program that should have that user's environment.
    ///
    /// # Errors
    /// As [`EffectiveUser::resolve`].
    pub async fn own() -> Result<Self, ActionFailure> {
        Self::find(&geteuid().as_raw().to_string()).await
    }

    fn with_groups(user: User) -> nix::Result<Self> {
        let name = CString::new(user.name.as_str()).map_err(|_| nix::Error::EINVAL)?;
        let groups = getgrouplist(&name, user.gid)?;
        Ok(Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
            home: user.dir,
            shell: user.shell,
        })
    }
}

/// Only plain digits: `0x10` and ` 7` are names, and nobody's.
fn number(name: &str) -> Option<u32> {
    let plain = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    // The highest number means "nobody at all" to the kernel's calls.
    plain.then(|| name.parse().ok())?.filter(|uid| *uid != u32::MAX)
}
