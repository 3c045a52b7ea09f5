//! The user that a program runs as.

use std::ffi::CString;
use std::path::PathBuf;

use muster_plugin_api::ActionFailure;
use muster_protocol::code;
use nix::unistd::{User, geteuid, getgrouplist};

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
    /// Looks a user up by the one name that the host itself gives them. Neither a number nor another spelling of the
    /// name will do: whoever decides by the name what is allowed must not be walked around with a second one.
    ///
    /// The host's own directory services are asked, which may wait for the network; in a future use
    /// [`EffectiveUser::find`].
    ///
    /// # Errors
    /// With the code `unknown-user` if there is none, the name cannot be one, or the host calls the user otherwise;
    /// `failed` if the directory services did not answer.
    pub fn resolve(name: &str) -> Result<Self, ActionFailure> {
        let unknown = |why: &str| Err(ActionFailure::new(&code::UNKNOWN_USER, format!("{name:?} {why}")));
        let never = |character: char| character.is_control() || matches!(character, ':' | '/' | ',');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with(['-', '+', '~']) || name.contains(never) {
            return unknown("is not the name of a user");
        }
        let found = match User::from_name(name) {
            Ok(Some(found)) if found.name == name => found,
            Ok(Some(found)) => return unknown(&format!("is called {:?} on this host; give that name", found.name)),
            Ok(None) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                return unknown("is a number; give the user's name");
            }
            Ok(None) => return unknown("is not a user of this host"),
            Err(error) => return Err(lost("account", name, error)),
        };
        Self::with_groups(found).map_err(|error| lost("groups", name, error))
    }

    /// Looks a user up as [`EffectiveUser::resolve`] does, without holding up the runtime's thread.
    ///
    /// # Errors
    /// As [`EffectiveUser::resolve`].
    pub async fn find(name: &str) -> Result<Self, ActionFailure> {
        let name = name.to_owned();
        aside(move || Self::resolve(&name)).await
    }

    /// The user that this process is, for a program that should have that user's environment.
    ///
    /// # Errors
    /// As [`EffectiveUser::resolve`].
    pub async fn own() -> Result<Self, ActionFailure> {
        aside(|| {
            let (uid, name) = (geteuid(), geteuid().to_string());
            match User::from_uid(uid).map_err(|error| lost("account", &name, error))? {
                Some(found) => Self::with_groups(found).map_err(|error| lost("groups", &name, error)),
                None => {
                    Err(ActionFailure::new(&code::UNKNOWN_USER, format!("number {name} is not a user of this host")))
                }
            }
        })
        .await
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

fn lost(what: &str, name: &str, error: nix::Error) -> ActionFailure {
    ActionFailure::failed(format!("cannot look up the {what} of user {name:?}: {error}"))
}

async fn aside(
    look: impl FnOnce() -> Result<EffectiveUser, ActionFailure> + Send + 'static,
) -> Result<EffectiveUser, ActionFailure> {
    let looked = tokio::task::spawn_blocking(look).await;
    looked.unwrap_or_else(|error| Err(ActionFailure::failed(format!("cannot look up the user: {error}"))))
}
