//! What the kernel tells of one process (proc(5)).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;

/// Memory of one process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Proportional set size: each page divided by the number of processes that have it mapped.
    pub pss_bytes: u64,
    /// What it would be if nobody else had anything mapped, such as the C library: the resident set size.
    pub alone_bytes: u64,
    /// What only this process has, and would be free without it: heap, stacks, data it has written to.
    pub private_dirty_bytes: u64,
    /// The proportional set size by what is mapped.
    pub of: PerMapping,
}

/// The proportional set size by what is mapped, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PerMapping {
    /// The program's own file: code and constants, and data that was written to.
    pub program_bytes: u64,
    /// Other files, above all the C library.
    pub libraries_bytes: u64,
    /// The first heap.
    pub heap_bytes: u64,
    /// Everything without a file: further heaps, stacks of threads, large blocks.
    pub anonymous_bytes: u64,
}

/// The memory of a process that runs `program`.
///
/// # Errors
/// The kernel's description cannot be read.
pub(super) fn memory(pid: u32, program: &Path) -> Result<Memory> {
    let program = program.canonicalize().with_context(|| format!("find `{}`", program.display()))?;
    let path = format!("/proc/{pid}/smaps");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read `{path}`"))?;
    Ok(read_mappings(&text, &program.to_string_lossy()))
}

fn read_mappings(text: &str, program: &str) -> Memory {
    let mut memory = Memory::default();
    let mut name = "";
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let Some(key) = first.strip_suffix(':') else {
            // Addresses, permissions, offset, device, inode, and the name up to the end.
            name = line.splitn(6, ' ').nth(5).unwrap_or_default().trim();
            continue;
        };
        let Some(kib) = words.next().and_then(|number| number.parse::<u64>().ok()) else { continue };
        let bytes = kib * 1024;
        match key {
            "Pss" => {
                memory.pss_bytes += bytes;
                *memory.of.place(name, program) += bytes;
            }
            "Rss" => memory.alone_bytes += bytes,
            "Private_Dirty" => memory.private_dirty_bytes += bytes,
            _ => {}
        }
    }
    memory
}

impl PerMapping {
    fn place(&mut self, name: &str, program: &str) -> &mut u64 {
        match name {
            "[heap]" => &mut self.heap_bytes,
            name if name == program => &mut self.program_bytes,
            name if name.starts_with('/') => &mut self.libraries_bytes,
            _ => &mut self.anonymous_bytes,
        }
    }
}

/// Processor time of a process since it began, its ended threads included.
///
/// # Errors
/// The process is gone.
pub(super) fn processor(pid: u32) -> Result<Duration> {
    let clock: ClockId = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?)).context("find the process's clock")?;
    let time = clock_gettime(clock).context("read the process's clock")?;
    Ok(Duration::from(time))
}

/// How many threads a process has, and how often they have gone to sleep so far, which is how often they were woken.
///
/// # Errors
/// The kernel's description cannot be read.
pub(super) fn wakeups(pid: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{pid}/task");
    let (mut threads, mut all) = (0, 0);
    for entry in std::fs::read_dir(&path).with_context(|| format!("list `{path}`"))? {
        // A thread that has just ended is none.
        let Ok(status) = std::fs::read_to_string(entry?.path().join("status")) else { continue };
        threads += 1;
        all += voluntary_switches(&status).context("read the switches of a thread")?;
    }
    Ok((threads, all))
}

fn voluntary_switches(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c0000000-55d0c0100000 r-xp 00001000 08:01 1234                       /usr/sbin/musterd
Size:               1024 kB
Rss:                 200 kB
Pss:                 200 kB
Pss_Dirty:             0 kB
Private_Clean:       200 kB
Private_Dirty:         0 kB
VmFlags: rd ex mr mw me
55d0c1000000-55d0c1100000 rw-p 00000000 00:00 0                          [heap]
Rss:                 100 kB
Pss:                 100 kB
Private_Dirty:       100 kB
7f0000000000-7f0000100000 r-xp 00026000 08:01 99                         /usr/lib/x86_64-linux-gnu/libc.so.6
Rss:                 800 kB
Pss:                  40 kB
Private_Dirty:         0 kB
7f0000200000-7f0000300000 rw-p 00000000 00:00 0 
Rss:                   8 kB
Pss:                   8 kB
Private_Dirty:         8 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
Rss:                  12 kB
Pss:                  12 kB
Private_Dirty:        12 kB
";

    #[test]
    fn memory_is_added_up_by_what_is_mapped() {
        let kib = |count: u64| count * 1024;
        let expected = Memory {
            pss_bytes: kib(360),
            alone_bytes: kib(1120),
            private_dirty_bytes: kib(120),
            of: PerMapping {
                program_bytes: kib(200),
                libraries_bytes: kib(40),
                heap_bytes: kib(100),
                anonymous_bytes: kib(20),
            },
        };
        assert_eq!(read_mappings(SMAPS, "/usr/sbin/musterd"), expected);
        let other = read_mappings(SMAPS, "/usr/sbin/other").of;
        assert_eq!((other.program_bytes, other.libraries_bytes), (0, kib(240)));
    }

    #[test]
    fn this_process_has_memory_time_and_threads() {
        let pid = std::process::id();
        let program = std::env::current_exe().unwrap();
        let memory = memory(pid, &program).unwrap();
        assert!(memory.of.program_bytes > 0 && memory.of.program_bytes < memory.pss_bytes, "{memory:?}");
        assert!(memory.pss_bytes <= memory.alone_bytes, "{memory:?}");
        assert!(processor(pid).unwrap() > Duration::ZERO);
        assert!(wakeups(pid).unwrap().0 > 0);
        assert_eq!(
            voluntary_switches("Name:\ta\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t1\n"),
            Some(7)
        );
    }
}
