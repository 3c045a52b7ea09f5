//! The benchmark in miniature, and what is checked in of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops, and says where")]

mod checked_in;
mod miniature;
