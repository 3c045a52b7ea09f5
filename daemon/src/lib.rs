//! What every long-running program needs, and nothing it is about.
//!
//! # The data and how it flows
//!
//! A program starts with [`config::load`] (file, drop-ins, environment; each value with its origin),
//! then [`logging::init`], then a runtime, then [`Tasks`], in which everything that runs at the same time
//! is spawned under a name. [`signals::shutdown_requested`] says when to stop; [`Tasks::shutdown`] stops,
//! with one deadline, and says who did not. Time comes from a [`Clock`], pauses between tries from a
//! [`Backoff`], and state goes to a [`Disk`]; what waits for it does so through [`Blocking`].
//!
//! # Non-goals
//!
//! No domain: nothing here knows hosts, messages or brokers. No metrics.
//!
//! # Invariants
//!
//! - No task is lost and no panic unseen: `tokio::spawn` is called in [`Tasks`] only.
//! - The time of day is read in [`SystemClock`] only.
//! - A file is either wholly the old or wholly the new one, and never readable by more than its mode says.

mod backoff;
mod blocking;
mod clock;
pub mod config;
pub mod disk;
pub mod logging;
mod memory;
mod recent;
pub mod service_manager;
pub mod signals;
mod stacks;
mod tasks;
pub mod terminal;
pub mod trusted;

pub use backoff::Backoff;
pub use blocking::{Blocking, Panicked, runtime_with_threads};
pub use clock::{Clock, ManualClock, SystemClock};
pub use disk::{Disk, DiskFile, RealDisk, SimulatedDisk, WriteError};
pub use memory::{let_go_of_idle_memory, return_large_blocks, share_heaps};
pub use recent::{Recent, Remembered};
pub use stacks::{STACK_BYTES, deepen_stacks};
pub use tasks::{TaskKind, Tasks};

/// Replaces the content of a file on the machine's own disk in one step, as [`disk::write_atomic`] does.
///
/// # Errors
/// The directory is missing, not writable or full.
pub fn write_atomic(path: &std::path::Path, mode: u32, bytes: &[u8]) -> Result<(), WriteError> {
    disk::write_atomic(&RealDisk, path, mode, bytes)
}
