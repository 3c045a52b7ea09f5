//! Processor time and memory of other processes, exact to the microsecond.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Processor time of a process since its start, in user and system mode together, ended threads included.
///
/// The kernel's clock of the process counts nanoseconds, where `/proc/PID/stat` counts hundredths of a second.
///
/// # Errors
/// There is no such process.
pub fn processor_of(pid: u32) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let clock = clock_getcpuclockid(pid).with_context(|| format!("find the clock of process {pid}"))?;
    Ok(duration(clock_gettime(clock).with_context(|| format!("read the clock of process {pid}"))?))
}

/// Processor time of this process.
///
/// # Errors
/// The kernel does not tell.
pub fn processor_of_self() -> Result<Duration> {
    Ok(duration(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("read this process's clock")?))
}

fn duration(time: TimeSpec) -> Duration {
    Duration::from(time)
}

/// Processor time of all processes of a group that live now.
///
/// # Errors
/// The processes cannot be listed.
pub fn processor_of_group(group: u32) -> Result<Duration> {
    let mut all = Duration::ZERO;
    for pid in processes_of_group(group)? {
        // One that has just ended is none.
        all += processor_of(pid).unwrap_or_default();
    }
    Ok(all)
}

/// Memory that all processes of a group hold.
///
/// # Errors
/// The processes cannot be listed.
pub fn memory_of_group(group: u32) -> Result<u64> {
    let resident = |pid: &u32| status_bytes(*pid, "VmRSS").unwrap_or_default();
    Ok(processes_of_group(group)?.iter().map(resident).sum())
}

fn processes_of_group(group: u32) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The program's name may hold anything but ends with the last parenthesis; then state, parent, group.
        let of_group = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)?.parse().ok());
        if of_group == Some(group) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// A line of `/proc/PID/status` that counts kilobytes, in bytes, such as `VmRSS` or `VmHWM`.
///
/// # Errors
/// There is no such process or line.
pub fn status_bytes(pid: u32, name: &str) -> Result<u64> {
    Ok(field(&read(pid, "status")?, name).with_context(|| format!("process {pid} has no `{name}`"))? * 1024)
}

/// Begins to count a process's peak of memory anew.
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn restart_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("restart the peak of process {pid}"))
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("read `{path}`"))
}

/// The number behind `NAME:` of the kernel's lists.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_clock_memory_and_shares() {
        let own = std::process::id();
        let before = processor_of(own).unwrap();
        let mut sum = 0_u64;
        while processor_of(own).unwrap() < before + Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(processor_of_self().unwrap() >= before + Duration::from_millis(2));
        assert!(status_bytes(own, "VmHWM").unwrap() >= status_bytes(own, "VmRSS").unwrap() / 2);
        assert!(restart_peak(own).is_ok());
        // Beyond the largest number that Linux gives a process.
        assert!(processor_of(4 * 1024 * 1024 + 1).is_err());
    }

    #[test]
    fn the_kernels_lists_are_read_by_name() {
        let text = "VmHWM:\t    1234 kB\nVmRSS:\t     567 kB\nThreads:\t3\n";
        assert_eq!((field(text, "VmRSS"), field(text, "Threads"), field(text, "VmR")), (Some(567), Some(3), None));
    }
}
