//! Everything that is kept survives a crash between any two uses of the disk, and every failure of the disk.
//!
//! One script of work is run on a simulated disk again and again: once for each operation that it makes, which then
//! crashes or fails. What the calls returned is the promise; what is found afterwards is compared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use muster_agent::audit::{Anchor, Audit, Durability, Event, Rotation, rotate_shared, verify_all_on};
use muster_agent::journal::{Journal, Seen, Started, compact_shared};
use muster_agent::reserve::Reserve;
use muster_agent::spool::{Keep, Parcel, Spool};
use muster_agent::state::StateDirectory;
use muster_daemon::disk::Fault;
use muster_daemon::{Disk, SimulatedDisk};
use muster_protocol::{RequestId, Signature, Timestamp, code};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::kit::NOW;

const STATE: &str = "/var/lib/muster";
const WINDOW: Timestamp = Timestamp(NOW.0 + 60_000);
/// Small, so that the script rotates, and removes the oldest files.
const ROTATION: Rotation = Rotation { bytes: 1_000, keep_files: 2 };

/// An id that is the same each time.
fn id(number: u8) -> RequestId {
    RequestId::from_parts(NOW, [number; 10])
}

fn started(id: RequestId, read_only: bool) -> Started {
    Started {
        id,
        caller: "muster:user/lea".parse().unwrap(),
        reply_to: "user/lea.s1".parse().unwrap(),
        action: "lab.change".to_owned(),
        read_only,
        at_ms: NOW,
        keep_until_ms: WINDOW,
        sequence_reserved: 64,
    }
}

fn parcel(request_id: RequestId) -> Parcel {
    Parcel {
        request_id,
        routing_key: "user/lea.s1.web1".to_owned(),
        content_type: "application/vnd.muster.report.v1+json".to_owned(),
        body: format!("report of {request_id}").into_bytes().into(),
        signatures: vec![Signature { keyid: "ab".into(), sig: "AA==".into(), chain: vec!["AA==".into()] }],
        expires_at: NOW.plus_ms(1_000_000),
    }
}

fn event(number: u8) -> Event {
    Event::new("command", "allowed").with_message(format!("request {}", id(number)))
}

/// What calls returned, and so what must be true from then on.
#[derive(Debug, Default)]
struct Promised {
    /// Changing requests whose start, and reading ones whose end or refusal, was reported as recorded.
    started: BTreeSet<u8>,
    /// Those whose end was reported as recorded, on the disk.
    ended: BTreeSet<u8>,
    /// All that were ever given to the journal.
    attempted: BTreeSet<u8>,
    /// Requests that only read or were refused: a crash of the host may take them.
    written: BTreeSet<u8>,
    /// Reports that were kept, and not removed since.
    kept: BTreeSet<u8>,
    /// Reports that were removed, or given up.
    removed: BTreeSet<u8>,
    /// The audit log's last line that is on the disk.
    synced: Option<Anchor>,
    /// The audit log's last line that is with the kernel.
    line: Option<Anchor>,
    /// How many calls failed.
    errors: usize,
}

impl Promised {
    fn noted<T, E: std::error::Error>(&mut self, result: Result<T, E>) -> Option<T> {
        result.inspect_err(|_| self.errors += 1).ok()
    }
}

struct Opened {
    _state: StateDirectory,
    journal: Mutex<Journal>,
    audit: Mutex<Audit>,
    spool: Spool,
    reserve: Reserve,
    /// What opening told of damage.
    torn: usize,
    damaged: usize,
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(STATE).join(name)
}

fn open(disk: &Arc<dyn Disk>) -> Result<Opened, Box<dyn std::error::Error>> {
    let state = StateDirectory::open(disk, Path::new(STATE))?;
    let (journal, journal_opened) = Journal::open(disk, &state.file("journal"), NOW)?;
    let mut audit = Audit::open(disk, &state.file("audit.jsonl"), "web1", NOW, ROTATION)?;
    audit.defer_rotation();
    let (spool, spool_opened) = Spool::open(disk, &state.file("spool"))?;
    let reserve = Reserve::new(disk.clone(), state.file("reserve"), 4_096);
    Ok(Opened {
        _state: state,
        journal: Mutex::new(journal),
        audit: Mutex::new(audit),
        spool,
        reserve,
        torn: journal_opened.torn_bytes,
        damaged: journal_opened.damaged_lines + spool_opened.damaged.len() + spool_opened.unreadable.len(),
    })
}

impl Opened {
    fn start(&mut self, promised: &mut Promised, number: u8) {
        promised.attempted.insert(number);
        let result = self.journal.lock().unwrap().start(started(id(number), false));
        if promised.noted(result).is_some() {
            promised.started.insert(number);
        }
    }

    fn read(&mut self, promised: &mut Promised, number: u8) {
        promised.attempted.insert(number);
        let result = self.journal.lock().unwrap().start(started(id(number), true));
        if promised.noted(result).is_some() {
            promised.written.insert(number);
        }
    }

    fn refuse(&mut self, promised: &mut Promised, number: u8) {
        promised.attempted.insert(number);
        let lea = "muster:user/lea".parse().unwrap();
        let result = self.journal.lock().unwrap().refuse(id(number), &lea, &code::POLICY_DENIED, WINDOW, NOW);
        if promised.noted(result).is_some() {
            promised.written.insert(number);
        }
    }

    fn end(&mut self, promised: &mut Promised, number: u8) {
        let Self { journal, reserve, .. } = self;
        let result = reserve.use_for(|| journal.get_mut().unwrap().finish(id(number)));
        if promised.noted(result).is_some() {
            promised.ended.insert(number);
        }
    }

    fn line(&mut self, promised: &mut Promised, number: u8, durable: bool) {
        let audit = &self.audit;
        if durable {
            let written = audit.lock().unwrap().write_unsynced(NOW, event(number));
            let synced =
                written.and_then(|unsynced| unsynced.sync().inspect_err(|_| audit.lock().unwrap().sync_failed()));
            if promised.noted(synced).is_some() {
                promised.synced = Some(self.head());
                promised.line = promised.synced.clone();
            }
        } else {
            let written = audit.lock().unwrap().write(NOW, event(number), Durability::Written);
            if promised.noted(written).is_some() {
                promised.line = Some(self.head());
            }
        }
        let rotated = rotate_shared(audit, NOW);
        promised.noted(rotated);
    }

    fn head(&self) -> Anchor {
        let audit = self.audit.lock().unwrap();
        let (sequence, hash) = audit.head();
        Anchor { sequence, hash: hash.to_owned() }
    }

    fn keep(&mut self, promised: &mut Promised, number: u8) {
        let result = self.spool.put(parcel(id(number)), Keep::OnDisk, NOW, &mut |_| true);
        if promised.noted(result).is_some() {
            promised.kept.insert(number);
        }
    }

    /// As the agent does when the broker has confirmed.
    fn confirm(&mut self, promised: &mut Promised, number: u8) {
        let keys = self.spool.waiting(Instant::now());
        if let Some(key) = keys.into_iter().find(|key| key.request_id() == id(number)) {
            promised.kept.remove(&number);
            promised.removed.insert(number);
            self.spool.remove(key);
        }
    }

    fn compact(&mut self, promised: &mut Promised) {
        let result = compact_shared(&self.journal, NOW);
        promised.noted(result);
    }
}

/// What an agent does in a busy minute, in little.
fn work(agent: &mut Opened, promised: &mut Promised) {
    let ensured = agent.reserve.ensure();
    promised.noted(ensured);
    agent.start(promised, 1);
    agent.line(promised, 1, true);
    agent.read(promised, 2);
    agent.line(promised, 2, false);
    agent.keep(promised, 1);
    agent.end(promised, 1);
    agent.refuse(promised, 3);
    agent.end(promised, 2);
    agent.start(promised, 4);
    agent.confirm(promised, 1);
    let compacted = agent.journal.lock().unwrap().compact(NOW);
    promised.noted(compacted);
    for number in 10..16 {
        agent.start(promised, number);
        agent.line(promised, number, number % 2 == 0);
        agent.keep(promised, number);
        agent.end(promised, number);
    }
    agent.confirm(promised, 12);
    // Much that is not needed any more, so that the journal is worth being made smaller.
    let large = Started { action: "x".repeat(80_000), ..started(id(16), true) };
    let begun = agent.journal.lock().unwrap().start(large);
    promised.attempted.insert(16);
    promised.noted(begun);
    agent.end(promised, 16);
    agent.compact(promised);
    agent.start(promised, 20);
    agent.line(promised, 20, true);
    agent.end(promised, 4);
    agent.keep(promised, 4);
}

/// Opens what a crash has left and compares it with what was promised.
fn check(disk: &SimulatedDisk, promised: &Promised, host_crashed: bool, told_damage: bool, context: &str) {
    let mount = disk.mount();
    let agent = open(&mount).unwrap_or_else(|error| panic!("{context}: cannot be opened: {error}"));
    let journal = agent.journal.lock().unwrap();
    for number in &promised.started {
        let seen = journal.seen(&id(*number), WINDOW);
        assert!(seen.is_some(), "{context}: request {number} is forgotten");
        if promised.ended.contains(number) {
            assert_eq!(seen, Some(Seen::Finished), "{context}: request {number} looks interrupted");
        }
    }
    if !host_crashed {
        for number in &promised.written {
            assert!(journal.seen(&id(*number), WINDOW).is_some(), "{context}: request {number} is forgotten");
        }
    }
    let known: BTreeSet<RequestId> = promised.attempted.iter().map(|number| id(*number)).collect();
    let unfinished = journal.unfinished();
    assert!(unfinished.iter().all(|started| known.contains(&started.id)), "{context}: an id nobody wrote");
    assert!(journal.len() <= known.len(), "{context}");
    if !host_crashed && !told_damage {
        assert_eq!(agent.damaged, 0, "{context}: damage where there was none");
    }

    let waiting: BTreeMap<RequestId, Parcel> = agent
        .spool
        .waiting(Instant::now())
        .into_iter()
        .map(|key| (key.request_id(), agent.spool.get(key).unwrap().clone()))
        .collect();
    for number in &promised.kept {
        assert_eq!(waiting.get(&id(*number)), Some(&parcel(id(*number))), "{context}: report {number} is lost");
    }
    for (request_id, found) in &waiting {
        assert_eq!(found, &parcel(*request_id), "{context}: another report than was kept");
    }

    let anchor = if host_crashed { &promised.synced } else { &promised.line };
    let log = path("audit.jsonl");
    // Rotation may have removed the line since; then the beginning says so.
    match verify_all_on(&*mount, &log, anchor.as_ref()) {
        Ok(verified) => assert_eq!(verified.torn_bytes, 0, "{context}: a torn end is left"),
        Err(error) => {
            let first = verify_all_on(&*mount, &log, None).map(|verified| verified.first_sequence);
            let is_rotated = first.as_ref().is_ok_and(|first| anchor.as_ref().is_some_and(|it| it.sequence < *first));
            assert!(is_rotated, "{context}: {error}");
        }
    }
    drop(journal);
    no_left_overs(disk, context);
    let promised = goes_on(agent, &mount, context);
    // What the start has repaired is as durable as what was never broken.
    disk.end_host(disk.operations());
    let mount = disk.mount();
    let agent = open(&mount).unwrap_or_else(|error| panic!("{context}: cannot be opened again: {error}"));
    let seen = agent.journal.lock().unwrap().seen(&id(50), WINDOW);
    assert_eq!(seen, Some(Seen::Finished), "{context}: after a crash of the host too");
    verify_all_on(&*mount, &log, promised.synced.as_ref())
        .unwrap_or_else(|error| panic!("{context}: after a crash of the host too: {error}"));
}

fn no_left_overs(disk: &SimulatedDisk, context: &str) {
    let is_left = |path: &std::path::PathBuf| {
        let name = path.to_str().unwrap();
        name.ends_with(".new") || name.ends_with(".next")
    };
    let left: Vec<_> = disk.files().into_iter().filter(is_left).collect();
    assert!(left.is_empty(), "{context}: {left:?}");
}

/// It works as before.
fn goes_on(mut agent: Opened, mount: &Arc<dyn Disk>, context: &str) -> Promised {
    let mut promised = Promised::default();
    agent.start(&mut promised, 50);
    agent.end(&mut promised, 50);
    for number in 50..60 {
        agent.line(&mut promised, number, true);
    }
    agent.keep(&mut promised, 50);
    agent.compact(&mut promised);
    assert_eq!(promised.errors, 0, "{context}: afterwards it does not work");
    verify_all_on(&**mount, &path("audit.jsonl"), promised.synced.as_ref())
        .unwrap_or_else(|error| panic!("{context}: afterwards: {error}"));
    promised
}

/// Runs the script with one fault. Gives what was promised, and whether opening worked at all.
fn run(disk: &SimulatedDisk) -> Promised {
    let mut promised = Promised::default();
    match open(&disk.mount()) {
        Ok(mut agent) => work(&mut agent, &mut promised),
        Err(_) => promised.errors += 1,
    }
    promised
}

/// The numbers of the script's operations.
fn operations() -> std::ops::RangeInclusive<u64> {
    let disk = SimulatedDisk::new(0);
    let promised = run(&disk);
    assert_eq!(promised.errors, 0);
    let names: Vec<String> = disk.files().iter().map(|path| path.display().to_string()).collect();
    assert!(names.iter().filter(|name| name.contains("audit.jsonl.")).count() == 2, "it rotates: {names:?}");
    assert!(!names.iter().any(|name| name.ends_with("audit.jsonl.000001")), "and removes: {names:?}");
    1..=disk.operations()
}

/// How many crashes of the host are tried for each operation; more in a night's run.
fn seeds() -> u64 {
    std::env::var("MUSTER_CRASH_SEEDS").map_or(2, |text| text.parse().expect("MUSTER_CRASH_SEEDS is a number"))
}

#[test]
fn a_crash_of_the_process_at_any_step_loses_nothing() {
    for at in operations() {
        let disk = SimulatedDisk::new(at);
        disk.inject(at, Fault::Crash);
        let promised = run(&disk);
        assert!(disk.is_down(), "{at}");
        disk.end_process();
        check(&disk, &promised, false, false, &format!("process crash at operation {at}"));
    }
}

#[test]
fn a_crash_of_the_host_at_any_step_loses_nothing_that_was_promised() {
    for at in operations() {
        for seed in 0..seeds() {
            let disk = SimulatedDisk::new(at);
            disk.inject(at, Fault::Crash);
            let promised = run(&disk);
            disk.end_host(at * 1_000 + seed);
            check(&disk, &promised, true, false, &format!("host crash at operation {at}, seed {seed}"));
        }
    }
}

#[test]
fn a_disk_that_fails_once_at_any_step_is_told_and_nothing_is_lost() {
    for fault in [Fault::NoRoom, Fault::ShortWrite, Fault::InputOutput, Fault::FailedSync] {
        for at in operations() {
            for end_host in [false, true] {
                let context = format!("{fault:?} at operation {at}, host crashed: {end_host}");
                let disk = SimulatedDisk::new(at);
                disk.inject(at, fault);
                let promised = run(&disk);
                if disk.faults_fired() == 0 {
                    // It does not fit the operation: a sync never lacks room.
                    continue;
                }
                if end_host {
                    disk.end_host(at)
                } else {
                    disk.end_process()
                }
                check(&disk, &promised, end_host, true, &context);
            }
        }
    }
}

#[test]
fn a_disk_that_is_full_from_any_step_on_refuses_and_works_again_later() {
    for at in operations() {
        let context = format!("full from operation {at} on");
        let disk = SimulatedDisk::new(at);
        disk.inject_from(at, Fault::NoRoom);
        let promised = run(&disk);
        disk.clear_faults();
        disk.end_process();
        check(&disk, &promised, false, true, &context);
    }
}

#[test]
fn the_torn_end_of_the_journal_is_told() {
    let mut told = 0;
    for seed in 0..100 {
        let disk = SimulatedDisk::new(seed);
        let mut agent = open(&disk.mount()).unwrap();
        let mut promised = Promised::default();
        for number in 1..5 {
            agent.read(&mut promised, number);
        }
        disk.end_host(seed);
        let agent = open(&disk.mount()).unwrap();
        let left = agent.journal.lock().unwrap().len();
        assert!(agent.damaged == 0 && left <= 4);
        told += usize::from(agent.torn > 0);
    }
    assert!(told > 20, "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Any bits of any file: never a panic, never an id or a report that nobody wrote, and the damage is told.
    #[test]
    fn flipped_bits_are_told_and_invent_nothing(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8), 1..4),
    ) {
        let disk = SimulatedDisk::new(0);
        let promised = run(&disk);
        disk.end_process();
        let files: Vec<_> = disk
            .files()
            .into_iter()
            .filter(|path| !path.ends_with("lock") && !path.ends_with("reserve"))
            .collect();
        let mut changed = BTreeMap::new();
        for (file, place, bit) in &flips {
            let path = &files[file.index(files.len())];
            let bytes = changed.entry(path.clone()).or_insert_with(|| disk.content(path).unwrap());
            let at = place.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        changed.retain(|path, bytes| disk.content(path).as_ref() != Some(bytes));
        for (path, bytes) in &changed {
            disk.put(path, bytes).unwrap();
        }
        let is_changed = |name: &str| changed.keys().any(|path| path.to_str().unwrap().contains(name));
        let mount = disk.mount();
        let log = path("audit.jsonl");
        if is_changed("audit.jsonl") {
            prop_assert!(verify_all_on(&*mount, &log, promised.line.as_ref()).is_err(), "the audit log looks whole");
        }
        let (journal, opened) = Journal::open(&mount, &path("journal"), NOW).unwrap();
        let known: BTreeSet<RequestId> = promised.attempted.iter().map(|number| id(*number)).collect();
        prop_assert!(journal.unfinished().iter().all(|started| known.contains(&started.id)));
        let sound = known.iter().filter(|id| journal.seen(id, WINDOW).is_some()).count();
        prop_assert_eq!(sound, journal.len(), "an id nobody wrote");
        prop_assert_eq!(is_changed("/journal"), opened.torn_bytes + opened.damaged_lines > 0);
        let (spool, opened) = Spool::open(&mount, &path("spool")).unwrap();
        let damaged = changed.keys().filter(|path| path.to_str().unwrap().contains("/spool/")).count();
        prop_assert_eq!(opened.damaged.len(), damaged);
        prop_assert_eq!(spool.len() + damaged, promised.kept.len());
        for key in spool.waiting(Instant::now()) {
            prop_assert_eq!(spool.get(key), Some(&parcel(key.request_id())));
        }
        // Opening it may find the damage only at the end; it never goes on as if nothing had been.
        if Audit::open(&mount, &log, "web1", NOW, ROTATION).is_ok() && is_changed("audit.jsonl") {
            prop_assert!(verify_all_on(&*mount, &log, promised.line.as_ref()).is_err());
        }
    }
}
