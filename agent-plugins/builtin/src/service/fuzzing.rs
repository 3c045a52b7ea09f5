//! Doors for the fuzzer: what reads the answers of service managers.

pub use super::systemd::fuzzing::bus_message;
use super::{name, systemd, sysv};
use crate::fuzzing::Reader;

/// Readers of text.
pub const READERS: &[Reader] = &[
    ("systemctl-show", systemd::fuzzing::show),
    ("journalctl", systemd::fuzzing::journal),
    ("init-script", |text| {
        let _ = sysv::links::header(text, "Provides");
    }),
    ("name", |text| {
        if name::check(text).is_ok() {
            let unit = name::unit(text);
            assert!(!unit.starts_with('-') && !unit.contains(['/', '\0', '\n', ' ']), "{unit:?}");
            let _ = name::script(text);
            drop(name::check_change(text));
        }
    }),
];
