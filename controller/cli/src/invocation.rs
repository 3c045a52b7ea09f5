//! What every command is given: how to say things, and which context was chosen.

use muster_daemon::{Clock as _, SystemClock};
use muster_protocol::Timestamp;

use crate::context::{self, Context, Selection};
use crate::output::{Failure, Printer};
use crate::session::Session;

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// Writes everything the command says.
    pub(crate) printer: Printer,
    /// What was said about contexts on the command line.
    pub(crate) selection: Selection,
}

impl Invocation {
    /// The chosen context.
    ///
    /// # Errors
    /// None is configured or chosen, or it is incomplete or wrong. Exit code 2.
    pub(crate) fn context(&self) -> Result<Context, Failure> {
        context::load(&self.selection)
    }

    /// A session with the broker of the chosen context, ready to ask.
    ///
    /// # Errors
    /// As [`Self::context`]; the identity cannot be used (exit code 8); no broker answers (7).
    pub(crate) async fn session(&self) -> Result<Session, Failure> {
        let context = self.context()?;
        Session::open(context, self.now()).await
    }

    /// The time of day.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now_ms())
    }
}
