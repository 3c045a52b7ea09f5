//! The broker as a server: real sockets, real TLS, real clients.

mod contract;
mod site;
