//! How far a fleet is from what the broker alone can do: the raw echo, lapin's echo and the real fleet, one after the
//! other on one ground.
//!
//! This is the quick look for whoever works on one of the parts; `cargo xtask bench` is the whole picture.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_tests::programs::{Access, Operator, Party};
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::blocking::blocking;
use crate::broker::BrokerKind;
use crate::fleet::Fleet;
use crate::ground::Ground;
use crate::options::{Options, Progress};
use crate::process::micros;
use crate::raw::{Echo, Kind, Messages};

/// How long a fleet may take to come up.
const FLEET_LIMIT: Duration = Duration::from_secs(900);

/// What is compared.
#[derive(Debug, Clone)]
pub struct BaselineOptions {
    /// On which broker.
    pub broker: BrokerKind,
    /// How many hosts.
    pub hosts: usize,
    /// Rounds of each, after one that does not count.
    pub rounds: usize,
    /// Connections that are opened at the same time.
    pub at_once: usize,
    /// Whether lapin's echo is measured, too.
    pub lapin: bool,
    /// Whether the fleet is.
    pub fleet: bool,
    /// Is told how far the start is.
    pub tell: fn(Progress),
}

/// What one kind of hosts costs. Times are in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// On which broker.
    pub broker: BrokerKind,
    /// What was measured: `lean`, `lapin` or `fleet`.
    pub what: &'static str,
    /// How many hosts.
    pub hosts: usize,
    /// Connections per second while they came up.
    pub connected_per_second: u64,
    /// Processor time of the broker for one connection that came up.
    pub connect_broker_us: u64,
    /// Processor time of the hosts for the same.
    pub connect_hosts_us: u64,
    /// Of the rounds: shortest, median, longest.
    pub round_us: [u64; 3],
    /// Processor time of the broker for one host and round.
    pub broker_us: u64,
    /// Processor time of the hosts for the same; of an echo with its controller.
    pub hosts_us: u64,
    /// Processor time of `muster ping` for the same. 0 for an echo.
    pub controller_us: u64,
    /// Memory of the hosts together, in KiB; of an echo with its controller.
    pub hosts_kib: u64,
    /// Memory of the broker, in KiB.
    pub broker_kib: u64,
    /// Memory that the broker took for each connection that came up, in bytes. Less than one needs where the broker had some left
    /// from those before.
    pub connection_bytes: u64,
}

/// Sums of the rounds.
#[derive(Debug, Default)]
struct Rounds {
    took: Vec<Duration>,
    broker: Duration,
    hosts: Duration,
    controller: Duration,
}

impl Rounds {
    fn measured(mut self, broker: BrokerKind, what: &'static str, hosts: usize) -> Measured {
        self.took.sort_unstable();
        let at = |index: usize| self.took.get(index).map_or(0, |took| us(*took));
        let each = |sum: Duration| us(sum) / u64::try_from(hosts * self.took.len()).unwrap_or(1).max(1);
        Measured {
            broker,
            what,
            hosts,
            connected_per_second: 0,
            connect_broker_us: 0,
            connect_hosts_us: 0,
            round_us: [at(0), at(self.took.len() / 2), at(self.took.len().saturating_sub(1))],
            broker_us: each(self.broker),
            hosts_us: each(self.hosts),
            controller_us: each(self.controller),
            hosts_kib: 0,
            broker_kib: 0,
            connection_bytes: 0,
        }
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Measures everything that is asked for and hands each on as soon as it is there.
///
/// # Errors
/// Something does not come up, or answers are missing.
pub async fn baseline(options: &BaselineOptions, mut each: impl FnMut(Measured)) -> Result<()> {
    let mut ground = Ground::prepare_and_tell(options.broker, options.hosts, 1, options.tell)?;
    let messages = Messages::ping(&ground).await?;
    each(echo(&ground, options, Kind::Lean, &messages)?);
    if options.lapin {
        each(echo(&ground, options, Kind::Lapin, &messages)?);
    }
    if options.fleet {
        let (measured, left) = fleet(ground, options).await?;
        ground = left;
        each(measured);
    }
    ground.stop()
}

fn echo(ground: &Ground, options: &BaselineOptions, kind: Kind, messages: &Messages) -> Result<Measured> {
    let hosts = options.hosts;
    let (broker_before, own_before, started) = (ground.broker.usage(), crate::processor_of_self()?, Instant::now());
    let mut echo = Echo::start(ground, hosts, options.at_once, kind, messages)?;
    // A lean echo knows better: afterwards it has waited for the broker to settle.
    let took = echo.storm().map_or_else(|| started.elapsed(), |storm| storm.took);
    let connections = u64::try_from(hosts)?.max(1);
    let after = ground.broker.usage();
    let connect_broker_us = us(after.processor.saturating_sub(broker_before.processor)) / connections;
    let connection_bytes = after.resident_bytes.saturating_sub(broker_before.resident_bytes) / connections;
    let connect_hosts_us = us(crate::processor_of_self()?.saturating_sub(own_before)) / connections;
    echo.round(ground)?;
    let mut rounds = Rounds::default();
    for _ in 0..options.rounds {
        let round = echo.round(ground)?;
        rounds.took.push(round.took);
        rounds.broker += round.broker;
        rounds.hosts += round.own;
    }
    let memory = (crate::usage_of_self()?.resident_bytes / 1_024, ground.broker.usage().resident_bytes / 1_024);
    echo.stop(ground)?;
    let what = match kind {
        Kind::Lean => "lean",
        Kind::Lapin => "lapin",
    };
    Ok(Measured {
        connected_per_second: connections * 1_000_000 / us(took).max(1),
        connect_broker_us,
        connect_hosts_us,
        hosts_kib: memory.0,
        broker_kib: memory.1,
        connection_bytes,
        ..rounds.measured(options.broker, what, hosts)
    })
}

async fn fleet(ground: Ground, options: &BaselineOptions) -> Result<(Measured, Ground)> {
    let hosts = options.hosts;
    let fleet_options = Options {
        tell: options.tell,
        start_at_once: options.at_once,
        // Never in this process: its own costs are the controller's.
        ..Options::new(hosts)
    };
    let (broker_before, own_before, started) = (ground.broker.usage(), crate::processor_of_self()?, Instant::now());
    let fleet = Fleet::start_on(ground, fleet_options, FLEET_LIMIT).await?;
    let took = started.elapsed();
    let connections = u64::try_from(hosts)?.max(1);
    let after = fleet.ground.broker.usage();
    let connect_broker_us = us(after.processor.saturating_sub(broker_before.processor)) / connections;
    let connection_bytes = after.resident_bytes.saturating_sub(broker_before.resident_bytes) / connections;
    let usage = fleet.usage().await?;
    let here = if fleet.processes() == 1 { own_before } else { Duration::ZERO };
    let connect_hosts_us = us(usage.processor.saturating_sub(here)) / connections;
    let operator = operator(&fleet.ground)?;
    ping(&operator, hosts)?;
    let mut rounds = Rounds::default();
    for _ in 0..options.rounds {
        let (broker, agents, controller) =
            (fleet.ground.broker.usage().processor, fleet.usage().await?.processor, processor_of_children()?);
        rounds.took.push(ping(&operator, hosts)?);
        rounds.broker += fleet.ground.broker.usage().processor.saturating_sub(broker);
        rounds.hosts += fleet.usage().await?.processor.saturating_sub(agents);
        rounds.controller += processor_of_children()?.saturating_sub(controller);
    }
    let usage = fleet.usage().await?;
    let broker_kib = fleet.ground.broker.usage().resident_bytes / 1_024;
    let (left, ground) = fleet.leave().await;
    let left = left?;
    ensure!(left.failed == 0, "{} agents failed", left.failed);
    let measured = Measured {
        connected_per_second: connections * 1_000_000 / us(took).max(1),
        connect_broker_us,
        connect_hosts_us,
        hosts_kib: usage.resident_bytes / 1_024,
        broker_kib,
        connection_bytes,
        ..rounds.measured(options.broker, "fleet", hosts)
    };
    Ok((measured, ground))
}

/// Processor time of children that have ended and were waited for.
fn processor_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask for the children's usage")?;
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}

/// The command line of `user/lea`, who may do everything.
///
/// # Errors
/// Its files cannot be written, or `muster` is not built.
pub fn operator(ground: &Ground) -> Result<Operator> {
    let lea = ground.site.member_in("user/lea", &["admins"]);
    let access = Access { urls: vec![ground.broker.url()], ca: lea.files.ca.clone(), crl: Some(lea.files.crl.clone()) };
    let party = Party { certificate: lea.files.certificate.clone(), key: lea.files.key };
    Operator::new(&ground.site.directory().join("lea-home"), "fleet", &access, &party)
}

/// One `muster ping --all` as a process of its own. Says how long the whole process took.
fn ping(operator: &Operator, hosts: usize) -> Result<Duration> {
    let started = Instant::now();
    let finished = blocking(|| operator.run(&["ping", "--all"]))?;
    let took = started.elapsed();
    let answered = answered(&finished.stdout);
    ensure!(answered == Some(hosts), "{answered:?} of {hosts} answer: {}{}", finished.stdout, finished.stderr);
    Ok(took)
}

/// How many hosts answered, from the line that says so.
fn answered(text: &str) -> Option<usize> {
    // In front of the sums there may be a line for each host that says `answered`, too.
    text.match_indices(" answered").find_map(|(at, _)| {
        let digits: Vec<char> = text[..at].chars().rev().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        digits.into_iter().rev().filter(char::is_ascii_digit).collect::<String>().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_answers_is_read_from_what_people_see() {
        let cases = [
            ("✓ 1,000 answered median 308 ms · p99 380 ms", Some(1_000)),
            ("a\n✓ 5 answered · 2 silent", Some(5)),
            ("app-0010.fra2 ✓ answered 14 0.1.0\n✓ 20 answered median 14 ms", Some(20)),
            ("nobody is there", None),
            ("who answered", None),
        ];
        for (text, expected) in cases {
            assert_eq!(answered(text), expected, "{text}");
        }
    }

    #[test]
    fn rounds_become_a_cost_for_each_host() {
        let ms = Duration::from_millis;
        let rounds = Rounds { took: vec![ms(3), ms(1), ms(2)], broker: ms(30), hosts: ms(60), controller: ms(3) };
        let measured = rounds.measured(BrokerKind::RabbitMq, "lean", 10);
        assert_eq!(measured.round_us, [1_000, 2_000, 3_000]);
        assert_eq!((measured.broker_us, measured.hosts_us, measured.controller_us), (1_000, 2_000, 100));
        assert_eq!(Rounds::default().measured(BrokerKind::Embedded, "lean", 0).round_us, [0; 3]);
    }
}
