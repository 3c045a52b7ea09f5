//! The test kit (a private RabbitMQ or embedded broker, a throw-away PKI, agents) and the end-to-end tests.
//!
//! [`pki`] issues certificates, [`broker`] runs a broker that knows them, one of two kinds ([`rabbit`], [`embedded`]), and
//! [`programs`] starts the real `musterd` and `muster` against both. Everything ends with the process that started it, also when that
//! process is killed, and nothing listens anywhere but on loopback.

pub mod broker;
mod cleanup;
pub mod embedded;
pub mod newcomer;
pub mod pki;
pub mod programs;
pub mod rabbit;
pub mod small_disk;
pub mod stage;

pub use cleanup::{end_process, watched_directory};
