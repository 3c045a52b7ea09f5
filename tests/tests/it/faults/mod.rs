//! Real faults, end to end: the real programs on a real broker, and what somebody who looks on sees of it.
//!
//! Each test is a row of `docs/reliability.md`, which says what is guaranteed; the name of the test stands in it.

mod agent;
mod authority;
mod broker;
mod certificates;
mod clock;
mod controller;
mod disk;
mod lab;
mod limits;
mod network;
mod operator;
mod process;

use super::BROKER;
