//! What a command that asks hosts acts in.

use std::time::Duration;

use muster_client::aside::{Aside, FILE_BYTES_MAX, MEMORY_BYTES_MAX};
use muster_client::cache::HostCache;
use muster_client::discover::refresh;
use muster_client::{Controller, Pending};
use muster_protocol::{HostName, Timestamp};
use rand::Rng as _;

use super::follow::Stop;
use crate::context::Context;
use crate::invocation::Invocation;
use crate::output::{Failure, Printer};
use crate::pending::Store;
use crate::remembered;
use crate::requests::Requests;
use crate::session::{Login, Session};

/// Most inventories that are fetched after a command, so that the next one knows more: where nobody was known before, and the
/// whole window was waited for.
const LEARN_HOSTS_FIRST: usize = 200;

/// How long is waited for them, in milliseconds. Everything is printed by then.
const LEARN_MS_FIRST: i64 = 500;

/// Most inventories that are fetched after any other command. Each costs the controller about as much as a reply.
const LEARN_HOSTS_MAX: usize = 20;

/// How long is waited for them, in milliseconds.
const LEARN_MS_MAX: i64 = 100;

/// How long the connection's polite end may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// Everything a command needs to ask hosts and to say what came of it.
pub(crate) struct Scene<'a> {
    /// Says it.
    pub(crate) printer: &'a Printer,
    /// Where.
    pub(crate) context: &'a Context,
    /// Asks.
    pub(crate) controller: &'a mut Controller,
    /// Remembers.
    pub(crate) cache: &'a mut HostCache,
    /// Keeps what was asked.
    pub(crate) requests: Requests,
    /// When to stop.
    pub(crate) stop: Stop,
    /// Where pending commands go that no file is named for.
    pub(crate) pending: Store,
    /// The words of the command line, without the program's own name.
    pub(crate) words: Vec<String>,
    /// Chooses hosts for a limit where no seed was given.
    pub(crate) fresh_seed: u64,
    /// Where long answers go.
    pub(crate) aside: Aside,
    /// Whether no host was remembered when the command began.
    pub(crate) knew_nobody: bool,
}

impl Scene<'_> {
    /// The time of day.
    pub(crate) fn now(&self) -> Timestamp {
        self.controller.now()
    }

    /// Fetches inventories that are not known, for completion and for searches that end early. Done
    /// after everything is said, for a moment only, and never an error.
    pub(crate) async fn learn(&mut self, hosts: impl IntoIterator<Item = HostName>) {
        self.printer.finish();
        let now = self.now();
        for host in self.controller.overheard() {
            if self.cache.last_seen(&host).is_none() {
                self.printer.note(format!("{host} answered after the end; the next search waits for it"));
            }
            self.cache.seen(&host, None, now);
        }
        let hosts = hosts.into_iter().collect();
        let (hosts_max, window_ms) = match self.knew_nobody {
            true => (LEARN_HOSTS_FIRST, LEARN_MS_FIRST),
            false => (LEARN_HOSTS_MAX, LEARN_MS_MAX),
        };
        if let Err(error) = refresh(self.controller, self.cache, hosts, hosts_max, window_ms).await {
            tracing::debug!(%error, "Inventories could not be fetched");
        }
    }
}

/// A session with what is remembered of its hosts.
pub(crate) struct Stage {
    session: Session,
    cache: HostCache,
}

impl Stage {
    /// Connects, and reads what is remembered.
    ///
    /// # Errors
    /// As [`Invocation::session`].
    pub(crate) async fn open(invocation: &Invocation, stop: &mut Stop) -> Result<Self, Failure> {
        let opened = stop.unless(invocation.session()).await;
        Ok(Self::of(opened.map_err(|stopped| stopped.failure("the connection was made"))??, invocation))
    }

    /// Connects as the session that a pending command names.
    ///
    /// # Errors
    /// As [`Self::open`]; the command is another caller's.
    pub(crate) async fn open_for(
        invocation: &Invocation,
        context: Context,
        login: Login,
        pending: &Pending,
        stop: &mut Stop,
    ) -> Result<Self, Failure> {
        let opened = stop.unless(Session::open_for(context, login, pending)).await;
        Ok(Self::of(opened.map_err(|stopped| stopped.failure("the connection was made"))??, invocation))
    }

    fn of(session: Session, invocation: &Invocation) -> Self {
        let cache = remembered::hosts(&session.context, invocation.now());
        session.recall();
        Self { session, cache }
    }

    /// The scene on it.
    pub(crate) fn scene<'a>(&'a mut self, printer: &'a Printer, stop: Stop) -> Scene<'a> {
        let Session { controller, context } = &mut self.session;
        let knew_nobody = self.cache.hosts().is_empty();
        Scene {
            printer,
            context,
            controller,
            cache: &mut self.cache,
            requests: Requests::of_user(),
            stop,
            pending: Store::of_user(),
            words: std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect(),
            fresh_seed: u64::from(rand::rng().next_u32()),
            aside: Aside::new(remembered::place_for_answers(context), MEMORY_BYTES_MAX, FILE_BYTES_MAX),
            knew_nobody,
        }
    }

    /// Keeps what was learnt and closes the connection.
    pub(crate) async fn close(mut self, printer: &Printer) {
        if let Err(error) = self.cache.save() {
            printer.detail(1, format!("what was learnt of the hosts could not be kept: {error}"));
        }
        if let Err(error) = self.session.remember() {
            printer.detail(1, format!("checked certificates could not be kept: {error}"));
        }
        // A broker that has gone away does not answer to a goodbye.
        drop(tokio::time::timeout(GOODBYE, self.session.close()).await);
    }
}
