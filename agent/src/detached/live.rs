//! A detached action in the memory of its agent.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use muster_daemon::Clock;
use muster_plugins::process::boot_id;
use muster_protocol::Timestamp;
use nix::sys::inotify::WatchDescriptor;
use tokio::sync::watch;

use super::directory::{ActionDirectory, Begun, Found, Order, Reply, uptime_ms};
use super::notice::{self, Listener, Notices};
use super::state::{self, Effect, Event, Sighting, State};
use crate::core::lock;

/// When and how an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) at: Timestamp,
    pub(crate) code: String,
}

/// What is known of an action, and ways to learn that something has changed.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) order: Order,
    pub(crate) directory: ActionDirectory,
    state: Mutex<State>,
    begun: Mutex<Option<Begun>>,
    /// What is known of the end where the directory is gone, in which it would stand.
    lost: Mutex<Option<Reply>>,
    /// When and with which code it ended, for whoever asks and must not wait for the disk.
    end: Mutex<Option<End>>,
    /// This agent has noted the end.
    noted: AtomicBool,
    /// Counts up when something other than output has changed.
    pub(crate) seen: watch::Sender<u64>,
    /// Counts up when output has come.
    pub(crate) output: watch::Sender<u64>,
    /// How it ended is on disk, with all output.
    pub(crate) ended: watch::Sender<bool>,
}

impl Live {
    pub(crate) fn new(order: Order, directory: ActionDirectory, state: State) -> Arc<Self> {
        let ended = watch::Sender::new(!state.is_running());
        Arc::new(Self {
            order,
            directory,
            state: Mutex::new(state),
            begun: Mutex::default(),
            lost: Mutex::default(),
            end: Mutex::default(),
            noted: AtomicBool::new(false),
            seen: watch::Sender::new(0),
            output: watch::Sender::new(0),
            ended,
        })
    }

    pub(crate) fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Moves on, and says what is to be done.
    pub(crate) fn apply(&self, event: Event, clock: &dyn Clock) -> Vec<Effect> {
        let mut state = lock(&self.state);
        let (next, effects) = state::next(state.clone(), event, Timestamp(clock.now_ms()));
        *state = next;
        let has_ended = !state.is_running();
        drop(state);
        self.ended.send_if_modified(|ended| std::mem::replace(ended, has_ended) != has_ended);
        effects
    }

    /// Looks at the directory. `now` is the agent's time.
    pub(crate) fn look(&self, starter_gone: bool, now: Timestamp) -> io::Result<Sighting> {
        // In this order: whoever is gone now has written before what is looked for after.
        let (alive, removed) = match self.directory.try_lock() {
            Ok(lock) => (lock.is_none(), false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (self.process_lives(starter_gone), true),
            Err(error) => return Err(error),
        };
        let reply =
            (self.directory.has_reply() && self.directory.reply().good().is_some()) || lock(&self.lost).is_some();
        let begun = self.begun();
        let other_boot = begun.as_ref().is_some_and(is_of_another_boot);
        let uptime = if other_boot { None } else { uptime_ms() };
        let ends_by = begun.map(|begun| begun.ends_by(now, uptime));
        Ok(Sighting { alive, starter_gone, ends_by, other_boot, reply, removed })
    }

    /// Whether the runner lives, for as long as nobody can ask for its lock: by what it wrote when it began, or
    /// else by what this agent started.
    fn process_lives(&self, starter_gone: bool) -> bool {
        match self.begun() {
            Some(begun) => begun.is_process(),
            None => !starter_gone,
        }
    }

    /// How it ended, if that is known.
    pub(crate) fn reply(&self) -> Option<Reply> {
        self.directory.reply().good().or_else(|| lock(&self.lost).clone())
    }

    /// Keeps what is known of the end in memory, since there is no place on disk for it.
    pub(super) fn keep_lost(&self, reply: Reply) {
        *lock(&self.lost) = Some(reply);
    }

    /// When and how it ended, as far as this agent has seen it; never waits for the disk.
    pub(crate) fn end(&self) -> Option<End> {
        lock(&self.end).clone()
    }

    /// Remembers how it ended. Returns whether the end has to be noted: nobody has before.
    pub(super) fn has_news(&self, reply: &Reply) -> bool {
        *lock(&self.end) = Some(End { at: reply.ended_at_ms, code: reply.code.clone() });
        !self.noted.swap(true, Ordering::SeqCst) && !self.directory.is_end_noted()
    }

    /// What the runner wrote when it began; read once.
    pub(crate) fn begun(&self) -> Option<Begun> {
        let mut begun = lock(&self.begun);
        if begun.is_none()
            && let Found::There(read) = self.directory.begun()
        {
            *begun = Some(read);
        }
        begun.clone()
    }
}

/// Whether the host has restarted since.
pub(super) fn is_of_another_boot(begun: &Begun) -> bool {
    boot_id().is_none_or(|now| now != begun.boot_id)
}

/// Who is told about changes in which directory.
#[derive(Debug)]
pub(crate) struct Changes {
    /// `None` where the kernel has none for us: then everybody looks often.
    notices: Option<Notices>,
    watched: Mutex<HashMap<WatchDescriptor, Weak<Live>>>,
}

impl Changes {
    /// Nobody is told anything.
    pub(crate) fn none() -> Self {
        Self { notices: None, watched: Mutex::default() }
    }

    pub(crate) fn new() -> Self {
        let notices = Notices::new().inspect_err(|error| {
            tracing::warn!(%error, "The kernel tells of no changes in directories; looking for them instead");
        });
        Self { notices: notices.ok(), watched: Mutex::default() }
    }

    /// Has an action told about what changes in its directory, as long as the value lives. `None` if it is
    /// not told and has to look.
    pub(crate) fn tell<'a>(&'a self, live: &Arc<Live>) -> Option<Told<'a>> {
        let notices = self.notices.as_ref()?;
        match notices.watch(live.directory.path(), notice::ALL) {
            Ok(descriptor) => {
                lock(&self.watched).insert(descriptor, Arc::downgrade(live));
                Some(Told { changes: self, descriptor })
            }
            Err(error) => {
                tracing::warn!(%error, "Changes in a directory have to be looked for");
                None
            }
        }
    }

    /// A listener for [`Changes::pass_on`], within a runtime.
    pub(crate) fn listen(&self) -> Option<io::Result<Listener>> {
        self.notices.as_ref().map(Notices::listen)
    }

    /// Passes on what the kernel tells.
    pub(crate) async fn pass_on(&self, listener: &Listener) -> io::Result<()> {
        for event in listener.next().await? {
            let name = event.name.as_ref().and_then(|name| name.to_str());
            let watched = lock(&self.watched);
            // Where the directory is not known the queue has overflowed, and everybody looks.
            let told: Vec<Arc<Live>> = match watched.get(&event.wd) {
                Some(live) => live.upgrade().into_iter().collect(),
                None => watched.values().filter_map(Weak::upgrade).collect(),
            };
            for live in told {
                match name {
                    // What the agent itself writes is no news.
                    Some("cursor") => {}
                    Some("output") => live.output.send_modify(|count| *count += 1),
                    Some(_) => live.seen.send_modify(|count| *count += 1),
                    None => {
                        live.output.send_modify(|count| *count += 1);
                        live.seen.send_modify(|count| *count += 1);
                    }
                }
            }
        }
        Ok(())
    }
}

/// See [`Changes::tell`].
pub(crate) struct Told<'a> {
    changes: &'a Changes,
    descriptor: WatchDescriptor,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        lock(&self.changes.watched).remove(&self.descriptor);
        if let Some(notices) = &self.changes.notices {
            notices.unwatch(self.descriptor);
        }
    }
}
