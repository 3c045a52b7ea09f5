//! `package`, with the real package managers in throw-away roots, and with recorded output where one is not at hand.

mod apk;
mod apt;
mod debian;
mod injection;
mod locks;
mod rpm;
mod rpms;
mod status;
