//! The broker as a server: real sockets, real TLS, real clients.

mod bounds;
mod client;
mod contract;
mod control;
mod site;
mod tls;
