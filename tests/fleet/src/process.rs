//! What processes cost, as the kernel counts it (proc(5)).

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// Processor time and memory of some processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time since they started, in user and system mode together.
    pub processor: Duration,
    /// Memory that they hold now, in bytes.
    pub resident_bytes: u64,
}

/// What all processes of a group cost.
///
/// # Errors
/// The kernel's description cannot be read.
pub fn usage_of_group(group: u32) -> Result<Usage> {
    let mut all = Usage::default();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has just ended is none.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if let Some((of_group, usage)) = read(&stat)
            && of_group == group
        {
            all.processor += usage.processor;
            all.resident_bytes += usage.resident_bytes;
        }
    }
    Ok(all)
}

/// What this process costs.
///
/// # Errors
/// The kernel's description cannot be read.
pub fn usage_of_self() -> Result<Usage> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, usage) = read(&stat).context("read /proc/self/stat")?;
    // That file counts in hundredths of a second.
    Ok(Usage { processor: processor_of_self()?, ..usage })
}

/// Processor time of this process, in microseconds' steps.
///
/// # Errors
/// The kernel does not say.
pub fn processor_of_self() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("ask for this process's usage")?;
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}

/// A time of the kernel's.
pub(crate) fn micros(time: nix::sys::time::TimeVal) -> Duration {
    let micros = time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_usec());
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// Process group and usage from a line of `/proc/PID/stat`. The program's name may hold anything but ends with the last
/// parenthesis.
fn read(stat: &str) -> Option<(u32, Usage)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // Counted from the state, which is the third field of all.
    let ticks = number(11)? + number(12)?;
    let usage = Usage {
        processor: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        resident_bytes: number(21)? * PAGE_BYTES,
    };
    Some((u32::try_from(number(2)?).ok()?, usage))
}

/// `USER_HZ`, which is 100 on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Bytes of a page on the processors that the fleet runs on.
const PAGE_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read_whatever_the_program_is_called() {
        let line = "12 (a) b) S 1 77 77 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1000 900000 256 18446744073709551615";
        let expected = Usage { processor: Duration::from_secs(2), resident_bytes: 1024 * 1024 };
        assert_eq!(read(line), Some((77, expected)));
        assert_eq!(read("12 (a"), None);
        assert!(usage_of_self().unwrap().resident_bytes > 0);
    }
}
