//! Asks many hosts: publishes a signed command, then collects, verifies and adds up the reports.
//!
//! # The data and how it flows
//!
//! A [`Controller`] is one session: a connection and a reply queue that is read before anything is
//! published. A [`Question`] becomes signed commands, by broadcast or once per named host.
//! [`Asking`] sends them and hands every report, whose signature and signer were checked
//! ([`receive`]), to the [`collect::Collector`], which alone decides the state of each host. What
//! happens comes out as [`Event`]s, what came of it as a [`Summary`].
//!
//! A [`FollowUp`] stops a request that was sent before or attaches to it again, by the same way: it is a
//! message of its own with reports of its own.
//!
//! Around it: [`discover`] finds the hosts that match a target, [`cache`] remembers what they were,
//! [`limit`] and [`wave`] choose who is asked when, [`fold`] makes deltas for an execution service.
//!
//! # Non-goals
//!
//! No output for people, no configuration, no memory of jobs. One question at a time per session.
//!
//! # Invariants
//!
//! - Nothing is published before the consumer for the answers is live.
//! - A report counts only if its signature is right, the signer is the host it names, and it is made
//!   out to this caller and one of this question's requests. Everything else is counted apart.
//! - Every host that was asked is in exactly one state, and final states never change.
//! - Memory per host is bounded, whatever the host sends.
//! - Whoever loses the connection in the middle asks again when it is back: the same bytes where nothing was heard, and a
//!   watch where something was, so an answer that went to the lost queue is told again.
//! - Nothing runs in the background: dropping [`Asking`] stops it.

pub mod aggregate;
pub mod aside;
mod asking;
pub mod cache;
pub mod collect;
mod controller;
pub mod discover;
mod error;
pub mod fold;
mod follow_up;
pub mod limit;
pub mod ordered;
mod outage;
pub mod output;
pub mod pending;
mod question;
mod quiet;
pub mod receive;
pub mod secrets;
pub mod sequence;
pub mod testing;
pub mod wave;

pub use asking::{Asking, End, Event, Summary};
pub use collect::{Cause, Collector, Counts, HostRecord};
pub use controller::{Controller, Parts};
pub use error::{ClientError, FailureClass};
pub use follow_up::{FollowUp, Part, Wish};
pub use pending::{Approval, Pending, PendingError};
pub use question::{
    Audience, HOSTS_PER_COMMAND, OutputWish, Question, REPLY_TIMEOUT_MS_DEFAULT, RUN_GRACE_MS, Sending, TTL_MS_DEFAULT,
    WINDOW_MS_DEFAULT,
};
pub use quiet::Quiet;
