//! The broker from outside: as a server with real sockets, real TLS and real clients, and its parts by themselves.

mod contract;
mod session;
mod site;
mod wire;
