//! What survives a restart: durable exchanges and queues, their bindings, and the persistent messages in them.
//!
//! # Purpose
//!
//! A confirm of a persistent message in a durable queue means that it is on the disk. Agents and controllers free what they
//! keep when they are confirmed, so a confirm that meant less would lose messages with the process. Why it is built so, and
//! what it costs: [ADR 0036](../../../docs/adr/0036-a-bounded-journal.md).
//!
//! # The data and how it flows
//!
//! ```text
//! engine ── Record ──► inbox ──────────► state ──── group ───► segment ──► on the disk
//!                        ▲       thread: what is     (encode)   append,       │
//! server ── confirm ─────┘       durable now, and               fdatasync     │
//!    ▲                           what of it is unwritten                      │
//!    └──────────────────────────── released confirms ◄────────────────────────┘
//! ```
//!
//! The engine says what changes ([`Record`]), under its lock, into an inbox in memory. A thread takes everything that has
//! come while the last group was on its way (group commit), applies it to its own picture of what is durable
//! (`state`), and writes what of that is not on the disk yet as one group with one sync (`log`). Then the confirms
//! that waited are released ([`Journal::released`]). It writes states, not events: a message that was acknowledged
//! before its turn is never written, and what could not be written is simply still unwritten.
//!
//! Groups are appended to segments (`segment`). A group counts when its last frame, the commit, is whole. Each thing that
//! is kept lies in the segment where it was last written; when too much of all segments is of no use, what is still of use
//! in the oldest is written again with the next groups, and then the oldest is deleted. The engine takes no part in it.
//!
//! A start reads the segments (`reading`), drops what has expired, and gives the state to the engine as the fewest records.
//!
//! # Non-goals
//!
//! Nothing that is not durable: neither transient messages nor exclusive queues nor who has got which message. After a
//! restart every message may have been delivered before, and is delivered as such.
//!
//! # Invariants
//!
//! - What was confirmed is there after any crash. What was never published is not.
//! - What was acknowledged, and whose group is on the disk, does not come again. Acknowledgements since then may be lost.
//! - The order of a queue is the order of the messages' numbers.
//! - Segments are deleted from the oldest on, after a commit on the disk that says so. So the record of a removal is never
//!   deleted before what it removes.
//! - After an error nothing is confirmed until a later group, in another segment, is on the disk. What a failed sync left in a
//!   file never counts.
//! - Damage is told and kept for whoever looks into it; it is never taken for the end of the journal.

mod codec;
mod error;
pub mod fuzzing;
mod handle;
mod held;
mod log;
mod reading;
mod record;
mod segment;
mod state;
mod status;

pub use codec::encode;
pub use error::JournalError;
pub use handle::Journal;
pub use log::Bounds;
pub use reading::Found;
pub use record::Record;
pub use status::{JournalStatus, Pressure};

#[cfg(test)]
pub(crate) use tests::kept;

#[cfg(test)]
mod tests;
