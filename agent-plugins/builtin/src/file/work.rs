//! Blocking work on a thread of its own that can be told to stop up to the point of no return.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use muster_plugin_api::{ActionContext, ActionFailure, ActionReply, ActionRequest};
use muster_protocol::code;

const RUNNING: u8 = 0;
const STOPPED: u8 = 1;
const COMMITTED: u8 = 2;

/// How far the work is, for it and for who waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps(Arc<AtomicU8>);

impl Steps {
    /// Between two steps: goes on unless somebody said stop.
    pub(super) fn go_on(&self) -> Result<(), ActionFailure> {
        if self.0.load(Ordering::SeqCst) == STOPPED { Err(stopped()) } else { Ok(()) }
    }

    /// Before the step that changes something: from here on the work goes to its end.
    pub(super) fn commit(&self) -> Result<(), ActionFailure> {
        match self.0.compare_exchange(RUNNING, COMMITTED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) | Err(COMMITTED) => Ok(()),
            Err(_) => Err(stopped()),
        }
    }

    /// Whether it will stop without having changed anything.
    fn stop(&self) -> bool {
        self.0.compare_exchange(RUNNING, STOPPED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

fn stopped() -> ActionFailure {
    ActionFailure::new(&code::CANCELLED, "it was stopped before anything was changed")
}

/// Does the work, until it ends, its time is over or it is cancelled. Once it has begun to change something, its
/// end is awaited: that takes no longer than to rename a file.
pub(super) async fn run(
    request: &ActionRequest,
    context: &ActionContext,
    work: impl FnOnce(&Steps) -> ActionReply + Send + 'static,
) -> ActionReply {
    let steps = Steps::default();
    let mut task = tokio::task::spawn_blocking({
        let steps = steps.clone();
        move || work(&steps)
    });
    let broke = |error| Err(ActionFailure::new(&code::PLUGIN_ERROR, format!("it broke: {error}")));
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => {
            if steps.stop() {
                return Err(stopped());
            }
        }
        done = &mut task => return done.unwrap_or_else(broke),
        () = tokio::time::sleep(request.time_limit) => {
            if steps.stop() {
                let why = format!("it did not end within {:?}; nothing was changed", request.time_limit);
                return Err(ActionFailure::new(&code::TIMED_OUT, why));
            }
        }
    }
    task.await.unwrap_or_else(broke)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_begun_to_change_is_not_stopped_and_what_is_stopped_changes_nothing() {
        let steps = Steps::default();
        assert!(steps.go_on().is_ok() && steps.commit().is_ok());
        assert!(!steps.stop());
        assert!(steps.go_on().is_ok() && steps.commit().is_ok());

        let steps = Steps::default();
        assert!(steps.stop());
        assert_eq!(steps.go_on().unwrap_err().code.code, "cancelled");
        assert_eq!(steps.commit().unwrap_err().code.code, "cancelled");
    }
}
