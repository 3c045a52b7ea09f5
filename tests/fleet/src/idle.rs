//! What one agent costs that has nothing to do: the real `musterd`, alone with a private broker.
//!
//! # What is measured
//!
//! [`measure`] starts the program that it is given, waits until it takes commands and has settled, and then looks for a
//! while how much it does. Memory is the kernel's proportional set size, in which a page that others have mapped too
//! counts in parts, and beside it what would count if nobody else had anything mapped. Processor time is what the
//! kernel has charged to the process, in nanoseconds. What goes over the wire is asked of the socket itself: bytes of
//! TLS, and segments, from which follows what TCP and IP add.
//!
//! What happens less often than the look takes is made to happen at its end: a reload collects facts and announces
//! the host, which an agent does by itself every ten and every five minutes. Its cost is spread over that time.
//!
//! # Non-goals
//!
//! No verdict. The bounds are in `docs/performance/idle.md`; how close a machine comes to them is for people to read.

mod process;
mod wire;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_protocol::Identity;
use muster_tests::pki::Site;
use muster_tests::programs::{Access, AgentProcess, Party};
use muster_tests::stage::host;
use nix::sys::signal::Signal;
use serde::Serialize;

pub use process::{Memory, PerMapping};
use process::{memory, processor, wakeups};
pub use wire::Wire;

use crate::broker::{Broker, BrokerKind};

/// How to measure.
#[derive(Debug, Clone)]
pub struct IdleOptions {
    /// The `musterd` to measure.
    pub program: PathBuf,
    /// The broker that it is connected to.
    pub broker: BrokerKind,
    /// How long to let it settle after it takes commands.
    pub settle: Duration,
    /// How long to look. Heartbeats come several times a minute, so a minute shows their rate.
    pub window: Duration,
}

impl IdleOptions {
    /// Looks for a minute, after ten seconds.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            broker: BrokerKind::default(),
            settle: Duration::from_secs(10),
            window: Duration::from_secs(60),
        }
    }
}

/// What an idle agent costs.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// Length of the program's file, in bytes.
    pub program_bytes: u64,
    /// Memory during the window: the middle one of looks that are [`MEMORY_INTERVAL`] apart.
    pub memory: Memory,
    /// The most of them. An agent lets go of what it does not need every five seconds, and takes again what it does.
    pub memory_peak: Memory,
    /// Memory right after facts were collected and the host was announced once more.
    pub memory_after_refresh: Memory,
    /// Threads.
    pub threads: u64,
    /// How long was looked, in milliseconds.
    pub window_ms: u64,
    /// Processor time of one minute with its part of what happens less often, in microseconds.
    pub processor_us_per_minute: f64,
    /// The same as a part of a core, in percent.
    pub processor_percent: f64,
    /// How often threads were woken in a minute, without what happens less often.
    pub wakeups_per_minute: f64,
    /// Bytes of TLS in both directions in a minute, with their part of an announcement.
    pub tls_bytes_per_minute: f64,
    /// The same with the headers of TCP over IPv4.
    pub wire_bytes_per_minute: f64,
    /// What went over the connection during the window.
    pub wire: Wire,
    /// What a reload cost: facts collected, and the host announced.
    pub refresh: Refresh,
}

/// What happens now and then, measured once.
#[derive(Debug, Clone, Serialize)]
pub struct Refresh {
    /// Processor time, in microseconds.
    pub processor_us: f64,
    /// What went over the wire.
    pub wire: Wire,
}

/// How often an agent announces itself, by default.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(300);

/// How often an agent collects facts, by default.
const FACTS_INTERVAL: Duration = Duration::from_secs(600);

/// The longest window in which no announcement falls: pauses differ by a tenth.
const QUIET_MAX: Duration = Duration::from_secs(265);

/// Between two looks at the memory. No divisor of the intervals in which an agent does something.
pub const MEMORY_INTERVAL: Duration = Duration::from_millis(2_300);

/// How long a reload may take until all of it has been sent and acknowledged.
const REFRESH_TIME: Duration = Duration::from_secs(3);

/// Measures an idle agent. Blocks for somewhat longer than the window.
///
/// # Errors
/// The broker is not installed or does not start, the agent does not come up or does not stay connected, a window is too
/// long, or the system does not tell what it should.
pub fn measure(options: &IdleOptions) -> Result<Idle> {
    ensure!(
        options.settle + options.window <= QUIET_MAX,
        "an idle agent announces itself every five minutes: look for {} s at most",
        QUIET_MAX.as_secs()
    );
    let program_bytes =
        std::fs::metadata(&options.program).with_context(|| format!("look at `{}`", options.program.display()))?.len();
    let site = Site::new()?;
    let identity: Identity = "host/web-1.ams1".parse().context("a host's identity")?;
    let broker = Broker::start(options.broker, &site, [identity])?;
    let member = site.member("host/web-1.ams1");
    let access = Access { urls: vec![broker.url()], ca: member.files.ca.clone(), crl: Some(member.files.crl.clone()) };
    let folder = tempfile::Builder::new().prefix("muster-idle-").tempdir()?;
    let settings = host("web-1.ams1");
    AgentProcess::prepare(&settings, &access, &Party::from(&member), folder.path())?;
    let mut agent = AgentProcess::start_as(settings.host, folder.path(), &options.program, &[])?;
    agent.wait_ready()?;
    sleep(options.settle);

    let before = Look::now(agent.pid())?;
    let mut looks = Vec::new();
    while before.at.elapsed() < options.window {
        sleep(MEMORY_INTERVAL.min(options.window.saturating_sub(before.at.elapsed())));
        looks.push(memory(agent.pid(), &options.program)?);
    }
    let after = Look::now(agent.pid())?;
    let (memory_idle, memory_peak) = middle_and_most(looks).context("look for longer")?;
    agent.signal(Signal::SIGHUP)?;
    sleep(REFRESH_TIME);
    let refreshed = Look::now(agent.pid())?;
    let memory_after_refresh = memory(agent.pid(), &options.program)?;
    agent.stop()?;

    let window = after.since(&before);
    let refresh = refreshed.since(&after);
    let per_minute = |value: f64| value * 60.0 / window.elapsed.as_secs_f64();
    let part = |interval: Duration| 60.0 / interval.as_secs_f64();
    let processor_us_per_minute =
        per_minute(micros(window.processor)) + micros(refresh.processor) * part(FACTS_INTERVAL);
    let with_announcements =
        |of: fn(&Wire) -> u64| per_minute(bytes(of(&window.wire))) + bytes(of(&refresh.wire)) * part(PRESENCE_INTERVAL);
    Ok(Idle {
        program_bytes,
        memory: memory_idle,
        memory_peak,
        memory_after_refresh,
        threads: after.threads,
        window_ms: u64::try_from(window.elapsed.as_millis())?,
        processor_us_per_minute,
        processor_percent: processor_us_per_minute / 60e6 * 100.0,
        wakeups_per_minute: per_minute(bytes(window.wakeups)),
        tls_bytes_per_minute: with_announcements(Wire::tls_bytes),
        wire_bytes_per_minute: with_announcements(Wire::bytes),
        wire: window.wire,
        refresh: Refresh { processor_us: micros(refresh.processor), wire: refresh.wire },
    })
}

fn middle_and_most(mut looks: Vec<Memory>) -> Option<(Memory, Memory)> {
    looks.sort_by_key(|memory| memory.pss_bytes);
    Some((*looks.get(looks.len() / 2)?, *looks.last()?))
}

/// The counters of a process at one moment.
struct Look {
    at: Instant,
    processor: Duration,
    threads: u64,
    wakeups: u64,
    wire: Wire,
}

/// What was counted between two of them.
struct Counted {
    elapsed: Duration,
    processor: Duration,
    wakeups: u64,
    wire: Wire,
}

impl Look {
    fn now(pid: u32) -> Result<Self> {
        let (threads, wakeups) = wakeups(pid)?;
        Ok(Self { at: Instant::now(), processor: processor(pid)?, threads, wakeups, wire: wire::of_process(pid)? })
    }

    fn since(&self, before: &Self) -> Counted {
        Counted {
            elapsed: self.at - before.at,
            processor: self.processor.saturating_sub(before.processor),
            wakeups: self.wakeups.saturating_sub(before.wakeups),
            wire: self.wire.since(&before.wire),
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A count that is far below what a floating point number holds exactly.
#[expect(clippy::cast_precision_loss, reason = "counts of some minutes stay below 2^52")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_most_of_several_looks() {
        let of = |pss_bytes| Memory { pss_bytes, ..Memory::default() };
        assert_eq!(middle_and_most(vec![of(9), of(1), of(4)]), Some((of(4), of(9))));
        assert_eq!(middle_and_most(vec![of(9)]), Some((of(9), of(9))));
        assert_eq!(middle_and_most(Vec::new()), None);
    }
}
