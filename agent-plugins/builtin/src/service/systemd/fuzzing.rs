//! Doors for the fuzzer: what reads systemd's answers.

use super::{journal, show, wire};

/// `systemctl show`.
pub(in super::super) fn show(text: &str) {
    if let Ok(Some(found)) = show::parse(text) {
        let _ = show::listed(&found);
    }
}

/// `journalctl --output=json`.
pub(in super::super) fn journal(text: &str) {
    for entry in journal::parse(text) {
        let _ = (entry.time_us(), entry.text());
    }
}

/// A message of the system bus. Its length is known from its first bytes.
pub fn bus_message(bytes: &[u8]) {
    let Ok(message) = wire::decode(bytes) else { return };
    if let Some(Ok(fixed)) = bytes.get(..wire::FIXED_BYTES).map(<&[u8; wire::FIXED_BYTES]>::try_from)
        && let Ok(length) = wire::message_bytes(fixed)
    {
        assert_eq!(length, bytes.len(), "both know its length");
    }
    drop(message.body());
}
