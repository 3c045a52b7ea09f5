//! The audit log is rotated while it is in use, and nobody waits for the disk with its lock.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use muster_agent::audit::{Anchor, Audit, Durability, Event, Rotation, Unsynced, rotate_shared, verify_all_on};
use muster_daemon::SimulatedDisk;
use muster_daemon::disk::Fault;

use crate::kit::NOW;
use crate::watched::{Hook, watched};

const PATH: &str = "/audit.jsonl";
const ROTATION: Rotation = Rotation { bytes: 1_500, keep_files: 1 };

fn event(number: usize) -> Event {
    Event::new("command", "allowed").with_message(format!("line {number}."))
}

fn head(audit: &Audit) -> Anchor {
    let (sequence, hash) = audit.head();
    Anchor { sequence, hash: hash.to_owned() }
}

struct Outcome {
    /// Lines that were written meanwhile and are promised to be on the disk.
    promised: Vec<(usize, Anchor)>,
    /// Those that are promised to be with the kernel.
    written: Vec<(usize, Anchor)>,
    operations: u64,
    is_rotated: bool,
}

/// Rotates a log; each time that somebody waits for the disk another line is written. A fault happens at an operation
/// after the preparations.
fn run(disk: &SimulatedDisk, fault: Option<(u64, Fault)>) -> Outcome {
    let hook = Hook::default();
    let mut audit = Audit::open(&watched(disk.mount(), &hook), Path::new(PATH), "web1", NOW, ROTATION).unwrap();
    audit.defer_rotation();
    let audit = Arc::new(Mutex::new(audit));
    // One full file is there already, so that this rotation also removes one.
    for is_first in [true, false] {
        while !audit.lock().unwrap().is_rotation_due() {
            audit.lock().unwrap().write(NOW, event(0), Durability::Written).unwrap();
        }
        assert!(!is_first || rotate_shared(&audit, NOW).unwrap());
    }
    let before = disk.operations();
    if let Some((at, fault)) = fault {
        disk.inject(before + at, fault);
    }
    let waiting: Arc<Mutex<Vec<(usize, Anchor, Unsynced)>>> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let (held, lines, is_over) = (audit.clone(), waiting.clone(), over.clone());
    assert!(
        hook.set(Box::new(move || {
            if is_over.load(Ordering::SeqCst) {
                return;
            }
            let Ok(mut audit) = held.try_lock() else {
                // What has failed is written anew with the lock.
                assert!(fault.is_some(), "somebody waits for the disk and holds the audit log");
                return;
            };
            let mut lines = lines.lock().unwrap();
            let number = 1 + lines.len();
            if let Ok(unsynced) = audit.write_unsynced(NOW, event(number)) {
                lines.push((number, head(&audit), unsynced));
            }
        }))
        .is_ok()
    );
    let rotated = rotate_shared(&audit, NOW);
    over.store(true, Ordering::SeqCst);
    let all = std::mem::take(&mut *waiting.lock().unwrap());
    let written = all.iter().map(|(number, anchor, _)| (*number, anchor.clone())).collect();
    let mut promised = Vec::new();
    for (number, anchor, unsynced) in all {
        match unsynced.sync() {
            Ok(()) => promised.push((number, anchor)),
            Err(_) => audit.lock().unwrap().sync_failed(),
        }
    }
    Outcome { promised, written, operations: disk.operations() - before, is_rotated: rotated.unwrap_or(false) }
}

/// How often a line is in the files of the log.
fn count(disk: &SimulatedDisk, number: usize) -> usize {
    let wanted = format!("\"line {number}.\"");
    let files: Vec<PathBuf> = disk.files();
    files.iter().map(|path| String::from_utf8(disk.content(path).unwrap()).unwrap().matches(&wanted).count()).sum()
}

#[test]
fn nobody_waits_for_the_disk_with_the_log_and_lines_written_meanwhile_are_kept() {
    let disk = SimulatedDisk::new(1);
    let outcome = run(&disk, None);
    assert!(outcome.is_rotated);
    // The new name, the full file, two renamings, and the line about the file that is removed.
    assert_eq!(outcome.promised.len(), 5);
    let names: Vec<String> = disk.files().iter().map(|path| path.display().to_string()).collect();
    assert_eq!(names, ["/audit.jsonl", "/audit.jsonl.000002"]);
    disk.end_host(1);
    for (number, anchor) in &outcome.promised {
        assert_eq!(count(&disk, *number), 1, "{number}");
        verify_all_on(&*disk.mount(), Path::new(PATH), Some(anchor)).unwrap();
    }
}

#[test]
fn what_was_written_during_a_rotation_is_in_the_chain_whatever_happens_to_it() {
    let operations = run(&SimulatedDisk::new(1), None).operations;
    for fault in [Fault::Crash, Fault::NoRoom, Fault::ShortWrite, Fault::InputOutput, Fault::FailedSync] {
        for at in 1..=operations {
            for seed in 0..10 {
                let context = format!("{fault:?} at {at}, seed {seed}");
                let disk = SimulatedDisk::new(seed);
                let outcome = run(&disk, Some((at, fault)));
                let expected = if seed == 0 {
                    disk.end_process();
                    outcome.written
                } else {
                    disk.end_host(seed);
                    outcome.promised
                };
                let mount = disk.mount();
                let mut audit = Audit::open(&mount, Path::new(PATH), "web1", NOW, ROTATION)
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                for (number, anchor) in &expected {
                    verify_all_on(&*mount, Path::new(PATH), Some(anchor))
                        .unwrap_or_else(|error| panic!("{context}: line {number}: {error}"));
                    assert_eq!(count(&disk, *number), 1, "{context}: line {number}");
                }
                audit.write(NOW, event(100), Durability::Synced).unwrap_or_else(|error| panic!("{context}: {error}"));
                disk.end_host(seed);
                verify_all_on(&*disk.mount(), Path::new(PATH), Some(&head(&audit)))
                    .unwrap_or_else(|error| panic!("{context}: afterwards: {error}"));
            }
        }
    }
}
