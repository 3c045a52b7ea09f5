//! Attackers with the real programs and a real broker before them: somebody who has stolen a host's certificate,
//! somebody who administers the broker, a host that floods whoever asks it, and one that writes to a terminal.
//!
//! What needs neither broker nor processes is tested in the crate it is about; `docs/security.md` has all of it in
//! one table.

mod broker_admin;
mod flood;
mod rogue;
mod stolen_host;
mod terminal;

use super::BROKER;
