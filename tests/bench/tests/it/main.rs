//! The benchmark in miniature, and what is checked in of it.

mod checked_in;
mod miniature;
