//! Pending commands as files: where they lie, how they are read, changed and shown.
//!
//! `muster run ... --pending` writes one, `muster approve` adds a signature, `muster send` sends it; `muster pending`
//! lists, shows, merges and discards them. Where no file is named they lie in `$XDG_STATE_HOME/muster/pending` (else
//! below `~/.local/state`), mode 0600, one file each, named after its request. What a file says is believed as far as it
//! is signed, and nothing in it is not signed.

pub(crate) mod store;
mod unusual;
mod view;

use std::path::Path;

use muster_client::PendingError;

pub(crate) use store::Store;
pub(crate) use view::{SCHEMA, View, shown_in_part};

use crate::output::{ExitCode, Failure, number};

/// Why a pending command cannot be read, approved or sent, in the error form.
pub(crate) fn failure(error: &PendingError, path: Option<&Path>) -> Failure {
    let exit = match error {
        PendingError::Expired { .. } | PendingError::FromTheFuture { .. } | PendingError::Differs => {
            ExitCode::NotConfirmed
        }
        PendingError::Verify(_)
        | PendingError::WrongCaller { .. }
        | PendingError::OwnCommand { .. }
        | PendingError::NotAnApprover { .. } => ExitCode::IdentityRejected,
        PendingError::Empty
        | PendingError::TooLarge { .. }
        | PendingError::Malformed { .. }
        | PendingError::Message(_)
        | PendingError::UnknownField { .. }
        | PendingError::AlreadyApproved { .. }
        | PendingError::NoRoom { .. } => ExitCode::Usage,
    };
    let what = match error {
        PendingError::Expired { .. } => "the pending command has expired; nothing was sent or signed".to_owned(),
        PendingError::OwnCommand { .. } => "nobody approves his own command".to_owned(),
        PendingError::AlreadyApproved { .. } => "you have signed it already".to_owned(),
        PendingError::Differs => "these are not the same command; nothing was changed".to_owned(),
        PendingError::NotAnApprover { identity } => format!("`{}` cannot approve", identity.short()),
        PendingError::NoRoom { .. } => "there is no room for one more signature".to_owned(),
        PendingError::TooLarge { bytes } => format!("{} bytes are no pending command", number::count(*bytes)),
        _ => "this is no pending command that hosts would believe".to_owned(),
    };
    let failure = Failure::new(exit, error.code(), what);
    let failure = match path {
        Some(path) => failure.why("file", path.display().to_string()),
        None => failure,
    };
    failure.because(error).hint(format!("muster explain {}", error.code()))
}
