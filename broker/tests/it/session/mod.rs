//! Sessions over a real engine, driven with bytes that the library makes.

mod access;
mod channels;
mod client;
mod contents;
mod handshake;
mod laws;
mod refusals;
mod stalled;
mod time;
