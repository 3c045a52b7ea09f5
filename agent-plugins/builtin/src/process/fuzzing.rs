//! Doors for the fuzzer: what reads the process table.

use super::{session, strays};

/// `/proc/PID/stat`, which a process can write its name into.
pub fn read(text: &str) {
    let _ = session::Process::parse(4711, text);
    let _ = strays::parse_started(text);
}
