//! Signed archives of plugins: made, checked, put in place.
//!
//! # The data and how it flows
//!
//! A plugin's folder becomes a [`Pack`]: `NAME-VERSION.tar.gz` with the folder's files, `manifest.json`
//! with the name, mode, size and SHA-256 of each, and `manifest.dsse`, the signature over exactly
//! those bytes by the packer's certificate. [`Pack::open`] reads an archive within fixed bounds and
//! compares every file with the manifest; [`Pack::verify`] says who signed it and whether that is
//! somebody who may; a [`Store`] puts it in place in one step, replaces and removes it.
//!
//! # Non-goals
//!
//! What a plugin may do is no matter of its archive: the host's policy decides about each command.
//! Nothing here talks to a bus.
//!
//! # Invariants
//!
//! - Nothing is written before every byte was compared with the signed manifest.
//! - An archive has regular files alone, below one folder, with names that cannot mean anything else:
//!   no link, no device, no absolute path, no `..`, no hidden file, no name twice.
//! - Memory and disk that an archive can take are bounded before it is unpacked.
//! - The same files, signer and time give the same bytes.

mod archive;
mod error;
mod folder;
#[doc(hidden)]
pub mod fuzzing;
mod manifest;
mod pack;
mod store;

pub use error::PackError;
pub use folder::read_folder;
pub use manifest::{FILES_MAX, FileEntry, Manifest, PATH_BYTES_MAX};
pub use pack::{Content, PACK_BYTES_MAX, PAYLOAD_TYPE, Pack, UNPACKED_BYTES_MAX};
pub use store::{Allow, Change, Installed, Store};
