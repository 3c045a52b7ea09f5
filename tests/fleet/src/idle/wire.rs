//! What went over a process's one connection, as its socket has counted it.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

/// What one connection has carried, as seen by its owner. What was sent twice counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Wire {
    /// Bytes of TLS that were sent.
    pub sent_bytes: u64,
    /// Bytes of TLS that were received.
    pub received_bytes: u64,
    /// Segments that were sent, those that only acknowledge included.
    pub sent_segments: u64,
    /// Segments that were received.
    pub received_segments: u64,
}

/// IPv4 and TCP with timestamps, which Linux uses by default: 20 + 20 + 12. IPv6 has 20 more.
const HEADER_BYTES: u64 = 52;

impl Wire {
    /// Bytes of TLS in both directions.
    #[must_use]
    pub fn tls_bytes(&self) -> u64 {
        self.sent_bytes + self.received_bytes
    }

    /// Bytes in both directions with the headers of TCP over IPv4.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tls_bytes() + (self.sent_segments + self.received_segments) * HEADER_BYTES
    }

    /// What has come since an earlier look at the same connection.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes.saturating_sub(before.sent_bytes),
            received_bytes: self.received_bytes.saturating_sub(before.received_bytes),
            sent_segments: self.sent_segments.saturating_sub(before.sent_segments),
            received_segments: self.received_segments.saturating_sub(before.received_segments),
        }
    }
}

/// Asks the kernel for the one connection of a process.
///
/// # Errors
/// `ss` of iproute2 is missing, or the process has no connection or several.
pub(super) fn of_process(pid: u32) -> Result<Wire> {
    let output = Command::new("ss")
        .args(["-tinpOH", "state", "established"])
        .output()
        .context("start `ss`, which is in the package iproute2")?;
    if !output.status.success() {
        bail!("`ss` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let owner = format!("pid={pid},");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(&owner)).collect();
    ensure!(lines.len() == 1, "process {pid} has {} connections where one was expected", lines.len());
    read(lines[0]).with_context(|| format!("read what `ss` says: {}", lines[0]))
}

/// Reads a line of `ss -tiO`. Counters that are still zero are left out there.
fn read(line: &str) -> Option<Wire> {
    let counter = |name: &str| -> Option<u64> {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
        word.map_or(Some(0), |number| number.parse().ok())
    };
    let wire = Wire {
        sent_bytes: counter("bytes_sent")?,
        received_bytes: counter("bytes_received")?,
        sent_segments: counter("segs_out")?,
        received_segments: counter("segs_in")?,
    };
    // A connection over TLS has carried something.
    (wire.sent_segments > 0 && wire.received_segments > 0).then_some(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_connection() {
        let line = "0 0 127.0.0.1:40000 127.0.0.1:5671 users:((\"musterd\",pid=77,fd=9)) ts sack cubic wscale:7,7 \
                    rto:204 bytes_sent:2880 bytes_acked:2881 bytes_received:3300 segs_out:14 segs_in:17 data_segs_out:9";
        let wire = read(line).unwrap();
        assert_eq!(wire, Wire { sent_bytes: 2880, received_bytes: 3300, sent_segments: 14, received_segments: 17 });
        assert_eq!((wire.tls_bytes(), wire.bytes()), (6180, 6180 + 31 * 52));
        let later = Wire { sent_bytes: 2910, sent_segments: 15, ..wire };
        assert_eq!(later.since(&wire), Wire { sent_bytes: 30, sent_segments: 1, ..Wire::default() });
        assert_eq!(read("0 0 127.0.0.1:40000 127.0.0.1:5671 segs_out:1x"), None);
        assert_eq!(read("nothing of this kind"), None);
    }
}
