//! What survives a crash of the broker or of the host at any step, and a disk that fails.

use std::path::Path;
use std::sync::Arc;

use muster_daemon::disk::{Fault, SimulatedDisk};

use super::model::{Changes, Model};
use crate::journal::log::{Bounds, Log};

pub(super) const DIRECTORY: &str = "/state/journal";
/// Small, so that segments follow each other and are emptied all the time.
pub(super) const BOUNDS: Bounds = Bounds { bytes_max: 16 * 1024, segment_bytes: 1024 };

pub(super) fn open(disk: &SimulatedDisk, now_ms: i64) -> (Log, Model) {
    let (log, found) = Log::open(disk.mount(), Path::new(DIRECTORY), BOUNDS, now_ms).expect("open");
    assert!(!found.is_damaged(), "{found:?}");
    let model = Model::of(&log.records().expect("what was read"));
    (log, model)
}

/// A broker's life on a disk: changes, and commits in between. Ends early where the disk ends.
struct Life {
    model: Model,
    /// What the state was at each commit that was tried since the last one that worked, that one first.
    possible: Vec<Model>,
    failures: u64,
}

impl Life {
    fn begin(model: Model) -> Self {
        Self { possible: vec![model.clone()], model, failures: 0 }
    }

    fn live(&mut self, disk: &SimulatedDisk, log: &mut Log, changes: &mut Changes, turns: usize) {
        for turn in 0..turns {
            for record in changes.next(&self.model) {
                self.model.apply(&record);
                log.apply(&record);
            }
            if turn % 3 == 2 {
                self.commit(log);
            }
            if disk.is_down() {
                return;
            }
        }
        self.commit(log);
    }

    fn commit(&mut self, log: &mut Log) {
        match log.commit() {
            Ok(_) => self.possible = vec![self.model.clone()],
            Err(_) => {
                self.failures += 1;
                self.possible.push(self.model.clone());
            }
        }
    }
}

/// How many uses of the disk a life takes that nothing disturbs.
fn operations(seed: u64, turns: usize) -> u64 {
    let disk = SimulatedDisk::new(seed);
    let (mut log, model) = open(&disk, 0);
    let mut life = Life::begin(model);
    life.live(&disk, &mut log, &mut Changes::new(seed, 1, 200), turns);
    assert_eq!(life.failures, 0);
    disk.operations()
}

#[test]
fn power_that_is_lost_at_any_step_loses_nothing_that_was_confirmed_and_invents_nothing() {
    for seed in 0..2 {
        let all = operations(seed, 240);
        assert!(all > 150, "only {all} steps");
        for step in 1..=all {
            let disk = SimulatedDisk::new(seed);
            disk.inject(step, Fault::Crash);
            let mut changes = Changes::new(seed, 1, 200);
            let mut life = Life::begin(Model::default());
            if let Ok((mut log, _)) = Log::open(disk.mount(), Path::new(DIRECTORY), BOUNDS, 0) {
                life.live(&disk, &mut log, &mut changes, 240);
            }
            // Twice: the first start is cut off as well.
            for cut in [true, false] {
                disk.end_host(seed ^ step);
                disk.clear_faults();
                if cut {
                    disk.inject(disk.operations() + 1 + step % 7, Fault::Crash);
                }
                let opened = Log::open(disk.mount(), Path::new(DIRECTORY), BOUNDS, 0);
                let Ok((mut log, found)) = opened else {
                    assert!(cut, "step {step} of seed {seed}: {opened:?}");
                    continue;
                };
                let model = Model::of(&log.records().expect("what was read"));
                assert!(!found.is_damaged(), "step {step} of seed {seed}: {found:?}");
                assert!(
                    life.possible.contains(&model),
                    "step {step} of seed {seed}: {model:#?}\nis none of {:#?}",
                    life.possible
                );
                assert_eq!((found.orphaned_messages, found.orphaned_bindings), (0, 0), "step {step} of seed {seed}");
                life = Life::begin(model);
                life.live(&disk, &mut log, &mut changes, 30);
            }
        }
    }
}

#[test]
fn a_broker_that_is_killed_at_any_step_loses_nothing_either() {
    let (seed, turns) = (7, 150);
    for step in 1..=operations(seed, turns) {
        let disk = SimulatedDisk::new(seed);
        disk.inject(step, Fault::Crash);
        let mut life = Life::begin(Model::default());
        if let Ok((mut log, _)) = Log::open(disk.mount(), Path::new(DIRECTORY), BOUNDS, 0) {
            life.live(&disk, &mut log, &mut Changes::new(seed, 1, 200), turns);
        }
        disk.end_process();
        disk.clear_faults();
        let (_, model) = open(&disk, 0);
        assert!(life.possible.contains(&model), "step {step}");
    }
}

#[test]
fn a_disk_that_fails_once_at_any_step_confirms_nothing_then_and_everything_later() {
    for fault in [Fault::NoRoom, Fault::ShortWrite, Fault::InputOutput, Fault::FailedSync] {
        let (seed, turns) = (11, 120);
        let mut fired = 0;
        for step in 1..=operations(seed, turns) {
            let disk = SimulatedDisk::new(seed);
            disk.inject(step, fault);
            let Ok((mut log, _)) = Log::open(disk.mount(), Path::new(DIRECTORY), BOUNDS, 0) else { continue };
            let mut life = Life::begin(Model::default());
            life.live(&disk, &mut log, &mut Changes::new(seed, 1, 200), turns);
            fired += disk.faults_fired();
            assert_eq!(life.possible.len(), 1, "{fault:?} at step {step}: the last commit failed");
            disk.end_host(step);
            let (_, model) = open(&disk, 0);
            assert_eq!(model, life.model, "{fault:?} at step {step}");
        }
        assert!(fired > 20, "{fault:?} had an effect only {fired} times");
    }
}

#[test]
fn a_disk_that_fails_from_any_step_on_keeps_what_was_confirmed_and_takes_the_rest_when_it_works_again() {
    for fault in [Fault::NoRoom, Fault::ShortWrite, Fault::FailedSync] {
        let (seed, turns) = (13, 90);
        for step in 1..=operations(seed, turns) {
            for works_again in [false, true] {
                let disk = SimulatedDisk::new(seed);
                disk.inject_from(step, fault);
                let Ok((mut log, _)) = Log::open(disk.mount(), Path::new(DIRECTORY), BOUNDS, 0) else { continue };
                let mut life = Life::begin(Model::default());
                life.live(&disk, &mut log, &mut Changes::new(seed, 1, 200), turns);
                if works_again {
                    disk.clear_faults();
                    life.commit(&mut log);
                    assert_eq!(life.possible.len(), 1);
                }
                disk.end_host(step);
                disk.clear_faults();
                let (_, model) = open(&disk, 0);
                assert!(life.possible.contains(&model), "{fault:?} from step {step}, works again: {works_again}");
            }
        }
    }
}

#[test]
fn what_has_expired_while_no_broker_ran_is_not_there_and_never_comes_back() {
    let disk = SimulatedDisk::new(3);
    let (mut log, model) = open(&disk, 0);
    let mut life = Life::begin(model);
    life.live(&disk, &mut log, &mut Changes::new(3, 1, 50), 400);
    drop(log);
    let mut expected = life.model.clone();
    expected.expire(500);
    assert_ne!(expected, life.model, "something has to expire");
    let (mut log, model) = open(&disk, 500);
    assert_eq!(model, expected);
    log.commit().expect("commit");
    drop(log);
    // The clock is set back.
    let (_, model) = open(&disk, 0);
    assert_eq!(model, expected);
}

#[test]
fn a_journal_keeps_within_its_bound_and_gives_back_what_is_of_no_use() {
    let disk = SimulatedDisk::new(5);
    let (mut log, mut model) = open(&disk, 0);
    let mut changes = Changes::new(5, 1, 300);
    let mut held_back = 0;
    for turn in 0..20_000 {
        // As publishers wait: nothing new is taken while too much is of use.
        let is_full = log.size().live_bytes > BOUNDS.live_bytes_max();
        for record in changes.next(&model) {
            if is_full && matches!(record, crate::journal::Record::Enqueued { .. }) {
                held_back += 1;
                continue;
            }
            model.apply(&record);
            log.apply(&record);
        }
        if turn % 3 == 0 {
            log.commit().expect("commit");
        }
        let size = log.size();
        assert!(size.bytes <= BOUNDS.bytes_max, "turn {turn}: {size:?}");
    }
    assert!(held_back > 0, "it was never full");
    assert!(changes.numbers() > 3_000);
    for (queue, message) in model.messages() {
        log.apply(&crate::journal::Record::Removed { message, queue: queue.as_str().into() });
    }
    while log.has_work() {
        log.commit().expect("commit");
    }
    let size = log.size();
    assert!(size.bytes <= 6 * BOUNDS.segment_bytes, "{size:?}");
    assert_eq!(size.counts.messages, 0);
    let on_disk: usize = disk.files().iter().filter_map(|path| disk.content(path)).map(|content| content.len()).sum();
    assert_eq!(on_disk as u64, size.bytes);
}

#[test]
fn what_is_acknowledged_before_its_turn_is_never_written() {
    let disk = SimulatedDisk::new(1);
    let (mut log, _) = open(&disk, 0);
    let mut changes = Changes::new(1, 1, 400);
    let mut model = Model::default();
    while model.queues.len() < 3 {
        for record in changes.next(&model) {
            model.apply(&record);
            log.apply(&record);
        }
    }
    log.commit().expect("commit");
    let before = log.size();
    for message in 1_000..1_100 {
        let queue: Arc<str> = model.queues.keys().next().expect("one").as_str().into();
        log.apply(&super::records::enqueued(message, None, &[&queue], &[7; 400]));
        log.apply(&crate::journal::Record::Removed { message, queue });
    }
    assert!(!log.has_work());
    log.commit().expect("commit");
    assert_eq!(log.size(), before);
}
