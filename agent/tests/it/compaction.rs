//! The journal is made smaller while it is in use, and nobody waits for the disk with its lock.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use muster_agent::journal::{Journal, Seen, Started, Unsynced, compact_shared};
use muster_daemon::SimulatedDisk;
use muster_daemon::disk::Fault;
use muster_protocol::{RequestId, Timestamp};

use crate::kit::NOW;
use crate::watched::{Hook, watched};

const PATH: &str = "/journal";
const WINDOW: Timestamp = Timestamp(NOW.0 + 60_000);

fn id(number: u8) -> RequestId {
    RequestId::from_parts(NOW, [number; 10])
}

fn started(number: u8) -> Started {
    Started {
        id: id(number),
        caller: "muster:user/lea".parse().unwrap(),
        reply_to: "user/lea.s1".parse().unwrap(),
        action: "lab.change".to_owned(),
        read_only: false,
        at_ms: NOW,
        keep_until_ms: WINDOW,
        sequence_reserved: 64,
    }
}

/// Requests that began while the journal was made smaller, and those that are promised to be on the disk.
struct Outcome {
    promised: Vec<u8>,
    operations: u64,
    /// Whether a smaller file took the journal's place.
    is_smaller: bool,
    began_meanwhile: u8,
}

/// Makes a journal smaller; each time that somebody waits for the disk another request begins. A fault happens at
/// an operation after the preparations.
fn run(disk: &SimulatedDisk, fault: Option<(u64, Fault)>) -> Outcome {
    let hook = Hook::default();
    let watched = watched(disk.mount(), &hook);
    let journal = Arc::new(Mutex::new(Journal::open(&watched, Path::new(PATH), NOW).unwrap().0));
    journal.lock().unwrap().start(started(1)).unwrap();
    let large = Started { action: "x".repeat(100_000), read_only: true, ..started(2) };
    journal.lock().unwrap().start(large).unwrap();
    journal.lock().unwrap().finish(id(2)).unwrap();
    let before = disk.operations();
    if let Some((at, fault)) = fault {
        disk.inject(before + at, fault);
    }
    let waiting: Arc<Mutex<Vec<(u8, Unsynced)>>> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let (held, begun, is_over) = (journal.clone(), waiting.clone(), over.clone());
    assert!(
        hook.set(Box::new(move || {
            let mut journal = held.try_lock().expect("somebody waits for the disk and holds the journal");
            let mut begun = begun.lock().unwrap();
            if is_over.load(Ordering::SeqCst) {
                return;
            }
            let number = 10 + u8::try_from(begun.len()).unwrap();
            if number < 20
                && let Ok(Some(unsynced)) = journal.begin(started(number))
            {
                begun.push((number, unsynced));
            }
        }))
        .is_ok()
    );
    let compacted = compact_shared(&journal, NOW);
    let began_meanwhile = u8::try_from(waiting.lock().unwrap().len()).unwrap();
    let mut promised = vec![1];
    over.store(true, Ordering::SeqCst);
    let all = std::mem::take(&mut *waiting.lock().unwrap());
    for (number, unsynced) in all {
        match unsynced.sync() {
            Ok(()) => promised.push(number),
            Err(_) => journal.lock().unwrap().sync_failed(id(number)),
        }
    }
    Outcome {
        promised,
        operations: disk.operations() - before,
        is_smaller: compacted.unwrap_or(false),
        began_meanwhile,
    }
}

#[test]
fn nobody_waits_for_the_disk_with_the_journal_and_what_begins_meanwhile_is_kept() {
    let disk = SimulatedDisk::new(1);
    let outcome = run(&disk, None);
    assert!(outcome.is_smaller);
    assert!(outcome.began_meanwhile >= 3, "before the swap, after it, and in between: {}", outcome.began_meanwhile);
    assert_eq!(outcome.promised.len(), usize::from(outcome.began_meanwhile) + 1);
    assert!(disk.content(Path::new(PATH)).unwrap().len() < 10_000);
}

#[test]
fn what_was_promised_during_a_compaction_is_there_whatever_happens_to_it() {
    let operations = run(&SimulatedDisk::new(1), None).operations;
    for fault in [Fault::Crash, Fault::NoRoom, Fault::ShortWrite, Fault::InputOutput, Fault::FailedSync] {
        for at in 1..=operations {
            for seed in 0..10 {
                let disk = SimulatedDisk::new(seed);
                let outcome = run(&disk, Some((at, fault)));
                if seed == 0 {
                    disk.end_process()
                } else {
                    disk.end_host(seed)
                }
                let (journal, opened) = Journal::open(&disk.mount(), Path::new(PATH), NOW).unwrap();
                for number in outcome.promised {
                    let seen = journal.seen(&id(number), WINDOW);
                    assert_eq!(seen, Some(Seen::Started), "{fault:?} at {at}, seed {seed}: {number}, {opened:?}");
                }
            }
        }
    }
}
