//! Looking at the actions of a host from outside of its agent: those that have ended without anybody having been told.

use std::path::Path;

use muster_daemon::Disk;
use muster_protocol::{Identity, RequestId, Timestamp};
use serde::Serialize;

use super::directory::ActionDirectory;
use crate::journal::{JournalError, Started};
use crate::state::files;

/// An action in a process of its own that has ended and whose last report is not made yet: the broker has to take
/// what the action wrote first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Untold {
    /// The request.
    pub request_id: RequestId,
    /// Who asked.
    pub caller: Identity,
    /// `plugin.action`.
    pub action: String,
    /// The stable code.
    pub code: String,
    /// When it ended.
    pub ended_at_ms: Timestamp,
}

/// Those among the actions of a directory of state, oldest request first. None where there is no journal.
///
/// # Errors
/// The journal cannot be read, or a newer program wrote it.
pub fn untold(disk: &dyn Disk, state_dir: &Path) -> Result<Vec<Untold>, JournalError> {
    let Some(journal) = crate::journal::look(disk, &state_dir.join(files::JOURNAL))? else { return Ok(Vec::new()) };
    let (actions, spool) = (state_dir.join(files::ACTIONS), state_dir.join(files::SPOOL));
    // By what has not ended, so that a day of kept results is not read.
    let of = |started: Started| {
        let directory = ActionDirectory::of(&actions, started.id);
        let is_spooled = disk.metadata(&spool.join(format!("{}.json", started.id))).is_ok();
        if is_spooled || !directory.has_reply() {
            return None;
        }
        let (order, reply) = (directory.order().good()?, directory.reply().good()?);
        Some(Untold {
            request_id: started.id,
            action: order.name(),
            caller: order.caller,
            code: reply.code,
            ended_at_ms: reply.ended_at_ms,
        })
    };
    Ok(journal.unfinished.into_iter().filter_map(of).collect())
}
