//! The trait that every plugin implements.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use muster_protocol::ddl::Ddl;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::action::{ActionFailure, ActionReply, ActionRequest};
use crate::host::HostView;
use crate::output::OutputSink;

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A set of actions behind one description.
pub trait Plugin: Send + Sync {
    /// The description. Always the same one.
    fn ddl(&self) -> &Ddl;

    /// Whether the plugin can work on this host. Asked once at start; must be quick.
    ///
    /// # Errors
    /// Says what the host lacks. The agent then answers its actions with `not-activated`.
    fn activate(&self) -> Result<(), NotActivated> {
        Ok(())
    }

    /// Runs an action to its end. The future must end soon after `context.cancel` fires or
    /// `request.time_limit` has passed, leave nothing running, and must not panic on any request
    /// that the description accepts. An action that is not in the description, and an option that
    /// the action does not support, are refused with the proper code.
    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply>;

    /// Answers a question of a target expression, one of `ddl().muster.data`. The arguments are
    /// validated. `None` means: this does not exist here, so that a comparison with it is unknown.
    /// Must change nothing: it runs before the host's policy is asked.
    ///
    /// # Errors
    /// When the question could not be answered, which is not the same as "does not exist".
    fn data(
        &self,
        query: &str,
        arguments: Map<String, Value>,
        context: ActionContext,
    ) -> BoxFuture<'_, Result<Option<Value>, ActionFailure>> {
        let failure = ActionFailure::failed(format!("plugin `{}` answers no query `{query}`", self.ddl().name()));
        drop((arguments, context));
        Box::pin(std::future::ready(Err(failure)))
    }

    /// What the plugin watches as a whole. Asked after each of its changing actions and whenever the
    /// agent collects facts; must change nothing.
    ///
    /// # Errors
    /// When it could not be found out.
    fn profiles(&self, context: ActionContext) -> BoxFuture<'_, Result<Vec<Profile>, ActionFailure>> {
        drop(context);
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// The state of something a plugin watches as a whole, such as all installed packages. The agent
/// announces it when its digest changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name, such as `packages`.
    pub name: &'static str,
    /// SHA-256 of `data` or of what it was made from, hexadecimal.
    pub digest: String,
    /// What there is; at most [`PROFILE_BYTES_MAX`](muster_protocol::limits::PROFILE_BYTES_MAX) bytes of JSON.
    pub data: Value,
}

/// What an action gets beside its request.
#[derive(Clone)]
pub struct ActionContext {
    /// Fires when the action is to stop. The agent then still wants an answer.
    pub cancel: CancellationToken,
    /// Takes output while the action runs.
    pub output: OutputSink,
    /// The agent around it.
    pub host: Arc<dyn HostView>,
}

impl fmt::Debug for ActionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionContext").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

/// Why a plugin cannot work on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotActivated {
    /// What the host lacks.
    pub why: String,
}

impl NotActivated {
    /// Says what the host lacks.
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}
