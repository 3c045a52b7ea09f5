//! The broker from outside: as a server with real sockets, real TLS and real clients, and its parts by themselves.

#![expect(clippy::unwrap_used, reason = "what does not work out fails the test")]

mod bounds;
mod client;
mod contract;
mod control;
mod session;
mod site;
mod tls;
mod wire;
