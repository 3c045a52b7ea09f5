//! The simulated fleet itself: it does the same again, its seeds are good, and nothing undoes that.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops, and says where")]

mod cores;
mod runs;
