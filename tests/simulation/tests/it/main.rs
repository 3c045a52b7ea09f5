//! The simulated fleet itself: it does the same again, its seeds are good, and nothing undoes that.

mod cores;
mod runs;
