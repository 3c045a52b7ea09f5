//! Bytes to frames and back.
//!
//! # The data and how it flows
//!
//! A [`Reader`] takes the bytes of a connection in whatever pieces they come and gives [`Frame`]s, which borrow from them.
//! Methods are read into `amq-protocol`'s types, content headers only as far as the broker acts on them; properties and
//! bodies stay the bytes they are, and are written so again. An [`Encoder`] turns the outputs of one connection into bytes.
//!
//! # Non-goals
//!
//! No I/O and no state of channels. What may come when, a session knows.
//!
//! # Invariants
//!
//! - A frame's size is judged before its payload is waited for; at most one incomplete frame is kept, and none of a body.
//! - A table is looked over, with bounds on its depth and its values, before the library reads it, and before a message that
//!   has one is handed on.
//! - However the same bytes are cut, the same frames come, bodies cut differently apart.

mod confirms;
mod encoder;
mod fields;
pub(crate) mod header;
pub(crate) mod method;
mod reader;
mod table;

pub use encoder::{Encoder, Terms};
pub use reader::{Frame, Reader};
