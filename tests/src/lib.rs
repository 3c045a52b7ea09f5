//! The test kit (a private RabbitMQ, a throw-away PKI, agents) and the end-to-end tests.
//!
//! [`pki`] issues certificates, [`rabbit`] runs a broker that knows them, [`programs`] starts the real
//! `musterd` and `muster` against both. Everything ends with the process that started it, also when that
//! process is killed, and nothing listens anywhere but on loopback.

mod cleanup;
pub mod pki;
pub mod programs;
pub mod rabbit;
pub mod small_disk;
pub mod stage;

pub use cleanup::{end_process, watched_directory};
