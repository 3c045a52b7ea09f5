//! The journal with its thread.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use muster_daemon::disk::{Fault, SimulatedDisk};

use super::crash::DIRECTORY;
use super::model::Model;
use super::records::{enqueued, queue};
use crate::ids::ConnectionId;
use crate::journal::log::Bounds;
use crate::journal::{Journal, Pressure, Record};
use crate::outlet::Output;

/// Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(60);
const QUEUE: &str = "agent.web1";
const BOUNDS: Bounds = Bounds { bytes_max: 64 * 1024, segment_bytes: 4 * 1024 };

fn confirm(tag: u64) -> Output {
    Output::Confirm { channel: 1, tag, taken: true }
}

/// A journal and what it has released.
struct Running {
    journal: Arc<Journal>,
    woken: Arc<(Mutex<u64>, Condvar)>,
    released: Vec<(ConnectionId, Output)>,
}

fn start(disk: &SimulatedDisk, bounds: Bounds) -> (Running, Model) {
    let (journal, records) = Journal::open(disk.mount(), Path::new(DIRECTORY), bounds, 0).expect("open");
    let woken = Arc::new((Mutex::new(0), Condvar::new()));
    let wake = woken.clone();
    journal
        .start(move || {
            *wake.0.lock().expect("lock") += 1;
            wake.1.notify_all();
        })
        .expect("start");
    (Running { journal: Arc::new(journal), woken, released: Vec::new() }, Model::of(&records))
}

impl Running {
    /// Waits, woken by the journal, until this holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Journal, &[(ConnectionId, Output)]) -> bool) {
        let give_up_at = Instant::now() + SOON;
        let mut woken = self.woken.0.lock().expect("lock");
        loop {
            self.journal.released(&mut self.released);
            if holds(&self.journal, &self.released) {
                return;
            }
            assert!(Instant::now() < give_up_at, "{what}: {:?}", self.journal.status());
            // What shows in the status only is not told.
            woken = self.woken.1.wait_timeout(woken, Duration::from_millis(20)).expect("lock").0;
        }
    }

    fn publish(&self, message: u64, bytes: usize) -> Option<Output> {
        self.journal.record(enqueued(message, None, &[QUEUE], &vec![5; bytes]));
        self.journal.hold(ConnectionId(1), confirm(message))
    }
}

fn tags(released: &[(ConnectionId, Output)]) -> Vec<u64> {
    let tag = |output: &Output| match output {
        Output::Confirm { tag, .. } => *tag,
        other => panic!("{other:?}"),
    };
    released.iter().map(|(_, output)| tag(output)).collect()
}

#[test]
fn a_confirm_comes_when_its_message_is_on_the_disk_and_not_before() {
    let disk = SimulatedDisk::new(1);
    let (mut running, _) = start(&disk, BOUNDS);
    assert!(running.journal.hold(ConnectionId(1), confirm(1)).is_some(), "there is nothing to wait for");
    running.journal.record(queue(QUEUE));
    assert!(running.publish(2, 100).is_none(), "it is not on the disk");
    running.until("a confirm", |_, released| released.len() == 1);
    // The power fails at this very moment.
    disk.end_host(1);
    assert_eq!(tags(&running.released), [2]);
    let (again, model) = start(&disk, BOUNDS);
    assert_eq!(model.queues[QUEUE].keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(again.journal.status().messages, 1);
}

#[test]
fn what_nobody_waits_for_is_written_a_moment_later() {
    let disk = SimulatedDisk::new(1);
    let (mut running, _) = start(&disk, BOUNDS);
    running.journal.record(queue(QUEUE));
    running.until("a queue", |journal, _| journal.status().queues == 1 && journal.status().groups_total == 1);
    disk.end_host(1);
    let (_, model) = start(&disk, BOUNDS);
    assert!(model.queues.contains_key(QUEUE));
}

#[test]
fn many_confirms_share_a_group() {
    let disk = SimulatedDisk::new(1);
    let (mut running, _) = start(&disk, Bounds::default());
    running.journal.record(queue(QUEUE));
    for message in 1..=5_000 {
        assert!(running.publish(message, 10).is_none());
    }
    running.until("all confirms", |_, released| released.len() == 5_000);
    assert_eq!(tags(&running.released), (1..=5_000).collect::<Vec<u64>>());
    let status = running.journal.status();
    assert!(status.groups_total < 5_000, "{status:?}");
    assert_eq!((status.messages, status.waiting_confirms, status.records_total), (5_000, 0, 5_001));
}

#[test]
fn a_full_disk_confirms_nothing_and_says_why_until_there_is_room() {
    let disk = SimulatedDisk::new(1);
    let (mut running, _) = start(&disk, BOUNDS);
    running.journal.record(queue(QUEUE));
    assert!(running.publish(1, 100).is_none());
    running.until("a confirm", |_, released| released.len() == 1);
    disk.inject_from(disk.operations() + 1, Fault::NoRoom);
    assert!(running.publish(2, 100).is_none());
    running.until("pressure", |journal, _| journal.is_pressed());
    let Some(Pressure::Failing { error, .. }) = running.journal.pressure() else { panic!("it has to fail") };
    assert!(error.contains("No space left on device"), "{error}");
    assert!(running.journal.pressure().expect("pressure").reason().starts_with("the journal cannot be written: "));
    // Consumers go on meanwhile.
    running.journal.record(Record::Removed { message: 1, queue: QUEUE.into() });
    assert!(running.publish(3, 100).is_none());
    running.until("another try", |journal, _| journal.status().failures_total > 1);
    assert_eq!(running.released.len(), 1, "nothing is confirmed");
    disk.clear_faults();
    running.until("the other confirms", |journal, released| released.len() == 3 && !journal.is_pressed());
    assert_eq!(running.journal.pressure(), None);
    disk.end_host(1);
    let (_, model) = start(&disk, BOUNDS);
    assert_eq!(model.queues[QUEUE].keys().copied().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn publishers_wait_when_too_much_is_of_use_and_go_on_when_some_of_it_is_gone() {
    let disk = SimulatedDisk::new(1);
    let (mut running, _) = start(&disk, BOUNDS);
    running.journal.record(queue(QUEUE));
    let mut message = 0;
    while !running.journal.is_pressed() {
        message += 1;
        assert!(running.publish(message, 400).is_none());
        running.until("a confirm", |_, released| released.len() as u64 == message);
    }
    let max = BOUNDS.live_bytes_max();
    assert!(matches!(running.journal.pressure(), Some(Pressure::Full { live_bytes_max, .. }) if live_bytes_max == max));
    running.journal.record(Record::Removed { message: 1, queue: QUEUE.into() });
    running.until("one less", |journal, _| journal.status().messages == message - 1);
    assert!(running.journal.is_pressed(), "it does not stop and go with each message");
    for other in 2..=message / 2 {
        running.journal.record(Record::Removed { message: other, queue: QUEUE.into() });
    }
    running.until("room", |journal, _| !journal.is_pressed());
}

#[test]
fn a_bound_that_is_lowered_while_it_runs_holds_up_publishers_and_one_that_is_raised_lets_them_go_on() {
    let disk = SimulatedDisk::new(1);
    let (mut running, _) = start(&disk, BOUNDS);
    assert!(!running.journal.is_pressed());
    for bytes_max in [0, 1] {
        running.journal.limit(bytes_max);
        assert!(matches!(running.journal.pressure(), Some(Pressure::Full { live_bytes_max: 0, .. })));
        let before = *running.woken.0.lock().expect("lock");
        running.journal.limit(BOUNDS.bytes_max);
        assert!(!running.journal.is_pressed());
        // Somebody has to be told, or publishers wait for ever.
        let give_up_at = Instant::now() + SOON;
        let mut woken = running.woken.0.lock().expect("lock");
        while *woken == before {
            assert!(Instant::now() < give_up_at, "nobody is told");
            woken = running.woken.1.wait_timeout(woken, SOON).expect("lock").0;
        }
    }
    // What is there is kept, whatever the bound.
    running.journal.record(queue(QUEUE));
    assert!(running.publish(1, 10).is_none());
    running.until("a confirm", |_, released| released.len() == 1);
}

#[test]
fn publishers_that_are_faster_than_the_disk_wait_for_it() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = Journal::open(disk.mount(), Path::new(DIRECTORY), Bounds::default(), 0).expect("open");
    journal.record(queue(QUEUE));
    // No thread writes yet.
    for message in 1..=40 {
        journal.record(enqueued(message, None, &[QUEUE], &vec![1; 1024 * 1024]));
        if journal.is_pressed() {
            break;
        }
    }
    let Some(Pressure::Behind { waiting_bytes }) = journal.pressure() else { panic!("{:?}", journal.status()) };
    assert!((32 * 1024 * 1024..35 * 1024 * 1024).contains(&waiting_bytes), "{waiting_bytes}");
    let woken = Arc::new((Mutex::new(0), Condvar::new()));
    journal.start(|| ()).expect("start");
    Running { journal: Arc::new(journal), woken, released: Vec::new() }
        .until("no pressure", |journal, _| !journal.is_pressed());
}

#[test]
fn what_was_recorded_before_the_end_is_there_after_it_and_the_directory_is_free() {
    let disk = SimulatedDisk::new(1);
    let (mut running, _) = start(&disk, BOUNDS);
    running.journal.record(queue(QUEUE));
    assert!(running.publish(1, 10).is_none());
    running.journal.close();
    running.journal.released(&mut running.released);
    assert_eq!(tags(&running.released), [1]);
    // Later ones are not kept, and not confirmed.
    assert!(running.publish(2, 10).is_none());
    running.journal.released(&mut running.released);
    assert_eq!(tags(&running.released), [1]);
    let (again, model) = start(&disk, BOUNDS);
    assert_eq!(model.queues[QUEUE].keys().copied().collect::<Vec<_>>(), [1]);
    drop(again);
}
