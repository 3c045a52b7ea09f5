//! One run from its seed to its verdict.

use std::sync::{Arc, Once};
use std::time::Duration;

use muster_bus::MemoryBroker;
use muster_daemon::{TaskKind, Tasks};
use tokio::time::Instant;

use crate::attacker;
use crate::chaos::Chaos;
use crate::clock::SimulatedClock;
use crate::controllers::{Person, Verdicts};
use crate::host::{self, Host, SimulatedCrash};
use crate::judge;
use crate::network::Network;
use crate::options::{FaultKind, Options};
use crate::plugin::PANIC;
use crate::random::Random;
use crate::site::{NOW, Site};
use crate::stage::Stage;
use crate::tally::Tally;
use crate::trace::Trace;
use crate::world::{Violation, World};

/// Longest simulated time that people take for their questions.
const WORK: Duration = Duration::from_secs(3_600);

/// How long everybody has, once all faults have healed, to tell what there is to tell: longer than a report without
/// a reader is kept.
const QUIET: Duration = Duration::from_secs(20 * 60);

/// How long agents may take to stop.
const STOP: Duration = Duration::from_secs(120);

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run.
    pub options: Options,
    /// Digest of the trace, and its lines.
    pub digest: (String, u64),
    /// The first promise that was broken, if one was, and those after it.
    pub violations: Vec<Violation>,
    /// The last lines of the trace.
    pub last_lines: Vec<String>,
    /// What was done.
    pub tally: Tally,
}

std::thread_local! {
    static PANICS: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Notes panics that nobody planned, instead of printing those that somebody did.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let said = panic.payload().downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| panic.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
            if said == PANIC || panic.payload().is::<SimulatedCrash>() {
                return;
            }
            PANICS.with_borrow_mut(|panics| {
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                panics.push(format!("{place}: {said}"));
            });
            before(panic);
        }));
    });
}

/// Lets a fleet live through the faults that a seed brings, and judges what came of it.
///
/// # Panics
/// When no thread or runtime can be had.
#[must_use]
pub fn run(options: &Options, site: &Arc<Site>) -> Outcome {
    watch_panics();
    let (options, site) = (options.clone(), site.clone());
    // A thread of its own, so that nothing of an earlier run is left in it.
    let thread = std::thread::Builder::new().stack_size(16 * 1024 * 1024).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime needs nothing that could be missing");
        let subscriber = options.print.then(|| {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_max_level(tracing::Level::DEBUG)
                .without_time()
                .finish()
        });
        match subscriber {
            Some(subscriber) => tracing::subscriber::with_default(subscriber, || runtime.block_on(live(options, site))),
            None => runtime.block_on(live(options, site)),
        }
    });
    thread.expect("a thread can be had").join().expect("a run does not panic")
}

async fn live(options: Options, site: Arc<Site>) -> Outcome {
    let (trace, tally) = (Trace::new(options.print), Tally::default());
    let world = World::new(trace.clone(), tally.clone());
    let mut random = Random::of(options.seed, "run");
    let count = options.hosts.unwrap_or_else(|| match random.below(20) {
        0 => 60 + random.below(40),
        1..=4 => 10 + random.below(20),
        _ => 1 + random.below(8),
    });
    let count = count.min(site.hosts.len());
    let began = Instant::now();
    let names: Vec<_> = (0..count).map(crate::site::host_name).collect();
    let network = Network::new(&options, &trace, &tally, &world, &names);
    let broker = MemoryBroker::new();
    network.install(&broker);
    broker.limit_queues("agent.", 1_000);
    let mut hosts = Vec::with_capacity(count);
    for (index, (name, credentials)) in names.iter().zip(&site.hosts).enumerate() {
        let clock = SimulatedClock::new(began, NOW);
        world.add_host(name.clone(), clock.clone());
        match Host::new(options.seed, index, credentials.clone(), clock) {
            Ok(host) => hosts.push(Arc::new(host)),
            Err(error) => world.violate("there is room for the files of a run", error.to_string()),
        }
    }
    let stage = Stage {
        options: Arc::new(options.clone()),
        site: site.clone(),
        broker,
        network,
        world: world.clone(),
        trace: trace.clone(),
        tally: tally.clone(),
        hosts: Arc::new(hosts),
    };
    trace.note(format_args!("seed {} with {count} hosts", options.seed));
    let verdicts = Verdicts::default();
    unfold(&stage, &verdicts, &mut random).await;
    judge::judge(&stage, &verdicts.all());
    for panic in PANICS.take() {
        world.violate("no task panics", panic);
    }
    tally.add_many("simulated seconds", began.elapsed().as_secs());
    tally.add_many("hosts", count as u64);
    tally.add_many("operations on disks", stage.hosts.iter().map(|host| host.disk.operations()).sum());
    Outcome { options, digest: trace.digest(), violations: world.violations(), last_lines: trace.last(), tally }
}

/// Everything from the first start to the last stop.
async fn unfold(stage: &Stage, verdicts: &Verdicts, random: &mut Random) {
    let (machines, people_tasks, faults) = (Tasks::new(), Tasks::new(), Tasks::new());
    for host in stage.hosts.iter() {
        if random.per_mille(100) && stage.options.has(FaultKind::Clock) {
            host.clock.set_wrong_by_ms(i64::try_from(random.between(0, 40_000)).unwrap_or(0) - 20_000);
        }
        host::spawn(host, stage, &machines);
    }
    tokio::time::sleep(random.pause(0, 3_000)).await;
    let questions = stage.options.steps.unwrap_or(2 + random.below(12));
    let site = &stage.site;
    let everybody = [&site.lea, &site.rita, &site.max, &site.eve, &site.lea];
    let people: Vec<Arc<Person>> = everybody
        .into_iter()
        .enumerate()
        .map(|(number, credentials)| Person::new(stage, number, credentials, verdicts, &people_tasks))
        .collect();
    let chaos = Chaos::new(stage, &people, &faults);
    faults.spawn(TaskKind::Worker, "chaos", chaos.go_on());
    faults.spawn(TaskKind::Worker, "attacker", attacker::attack(stage.clone()));
    let work = futures_util::future::join_all(people.iter().map(|person| person.clone().work(questions)));
    if tokio::time::timeout(WORK, work).await.is_err() {
        stage.world.violate("every request ends", format!("people still wait after {} s", WORK.as_secs()));
    }
    // What was asked for beside the questions has its own limits.
    tokio::time::sleep(Duration::from_secs(30)).await;
    stage.trace.note("everything heals");
    faults.kill();
    stage.network.heal();
    stage.broker.start();
    stage.broker.set_blocked(None);
    for host in stage.hosts.iter() {
        stage.world.changed(host.index, |_| host.heal());
    }
    people.iter().for_each(|person| person.heal());
    tokio::time::sleep(QUIET).await;
    for host in stage.hosts.iter() {
        if !host.is_online() {
            stage.world.violate("an agent comes back", format!("{} is not connected", host.name));
        }
    }
    let left = people_tasks.running();
    if !left.is_empty() {
        stage.world.violate("every request ends", format!("still at work: {}", left.join(", ")));
    }
    stage.hosts.iter().for_each(|host| host.end());
    let stopped = async {
        while !machines.running().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    if tokio::time::timeout(STOP, stopped).await.is_err() {
        stage.world.violate("an agent stops", format!("some still run after {} s", STOP.as_secs()));
    }
    machines.kill();
    people_tasks.kill();
    tokio::task::yield_now().await;
}
