//! Files that somebody or a bad disk has changed, and directories that are not ours alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amq_protocol::types::FieldTable;
use muster_daemon::disk::{RealDisk, SimulatedDisk};

use super::crash::{BOUNDS, DIRECTORY, open};
use super::model::Model;
use super::records::{bound, enqueued, queue};
use crate::journal::log::{Bounds, Log};
use crate::journal::reading::Found;
use crate::journal::{JournalError, Record, segment};

const QUEUES: [&str; 3] = ["agent.a", "agent.b", "agent.c"];

/// A journal of several segments, closed in order, and what was in it.
fn closed() -> (SimulatedDisk, Model) {
    let disk = SimulatedDisk::new(1);
    let (mut log, _) = open(&disk, 0);
    let mut records: Vec<Record> = QUEUES.iter().map(|name| queue(name)).collect();
    records.extend(QUEUES.iter().map(|name| bound("cmd", name, "all", FieldTable::default())));
    for message in 1..40 {
        records.push(enqueued(message, None, &[QUEUES[message as usize % 3]], &[message as u8; 90]));
    }
    records.push(Record::Removed { message: 1, queue: QUEUES[1].into() });
    for together in records.chunks(4) {
        together.iter().for_each(|record| log.apply(record));
        log.commit().expect("commit");
    }
    log.close().expect("close");
    let model = Model::of(&log.records().expect("records"));
    (disk, model)
}

fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.file_name().is_some_and(|name| segment::number_of(name).is_some());
    disk.files().into_iter().filter(is_segment).collect()
}

fn reopen(disk: &SimulatedDisk) -> Result<(Log, Found, Model), JournalError> {
    disk.end_process();
    let (log, found) = Log::open(disk.mount(), Path::new(DIRECTORY), BOUNDS, 0)?;
    let model = Model::of(&log.records()?);
    Ok((log, found, model))
}

/// Whether nothing is in `found` that was never published, and nothing else than it was.
fn invents_nothing(found: &Model, published: &Model) -> bool {
    found.queues.iter().all(|(name, messages)| {
        let before = &published.queues[name];
        // An acknowledgement can be what was lost.
        messages.iter().all(|(number, message)| *number == 1 || before.get(number) == Some(message))
    }) && found.bindings.is_subset(&published.bindings)
}

#[test]
fn any_byte_that_changes_is_told_costs_its_record_and_invents_nothing() {
    let (disk, published) = closed();
    let all = segments(&disk);
    assert!(all.len() > 3, "{all:?}");
    for path in &all {
        let content = disk.content(path).expect("content");
        for place in (0..content.len()).step_by(3) {
            let mut changed = content.clone();
            changed[place] ^= 1 << (place % 8);
            disk.put(path, &changed).expect("put");
            let at = format!("byte {place} of {} bytes of {path:?}", content.len());
            match reopen(&disk) {
                Ok((_, found, model)) => {
                    assert!(invents_nothing(&model, &published), "{at}: {model:#?}");
                    let lost = published.messages().difference(&model.messages()).count();
                    // Behind the last commit but one nothing says that it was on the disk: the end may be torn.
                    let is_the_last_commit = path == all.last().expect("one") && place + 40 > content.len();
                    assert!(found.is_damaged() || is_the_last_commit, "{at}: {found:?}");
                    assert!(found.damaged_segments <= 1, "{at}: {found:?}");
                    let is_of_a_queue = found.orphaned_messages > 0;
                    assert!(lost <= 1 || is_of_a_queue, "{at} costs {lost} messages: {found:?}");
                }
                // The number of the format is read before anything else is believed.
                Err(JournalError::NewerFormat { .. }) => panic!("{at}: a checksum covers the format"),
                Err(error) => panic!("{at}: {error}"),
            }
        }
        disk.put(path, &content).expect("put");
    }
}

#[test]
fn damage_is_kept_what_is_whole_is_written_anew_and_the_next_start_finds_nothing_wrong() {
    let (disk, published) = closed();
    let path = segments(&disk)[1].clone();
    let mut content = disk.content(&path).expect("content");
    let middle = content.len() / 2;
    content[middle..middle + 8].fill(0xff);
    disk.put(&path, &content).expect("put");
    let (mut log, found, model) = reopen(&disk).expect("open");
    assert!(found.is_damaged() && found.damaged_segments == 1, "{found:?}");
    assert!(found.damaged_bytes > 0 && found.damaged_bytes < 200, "{found:?}");
    assert_eq!(published.messages().difference(&model.messages()).count(), 1);
    while log.has_work() {
        log.commit().expect("commit");
    }
    drop(log);
    let number = path.file_name().and_then(segment::number_of).expect("a segment");
    let kept = Path::new(DIRECTORY).join(segment::damaged_name(number));
    assert_eq!(disk.content(&kept).as_ref(), Some(&content));
    assert!(!segments(&disk).contains(&path));
    let (_, found, again) = reopen(&disk).expect("open");
    assert!(!found.is_damaged(), "{found:?}");
    assert_eq!(again, model);
}

#[test]
fn a_segment_that_is_gone_is_missed_and_what_is_left_counts() {
    let (_, published) = closed();
    for index in 0..3 {
        let (disk, _) = closed();
        let all = segments(&disk);
        let gone = &all[index];
        disk.mount().remove_file(gone).expect("remove");
        let (mut log, found, model) = reopen(&disk).expect("open");
        assert_eq!(found.missing_segments, 1, "{gone:?}: {found:?}");
        assert!(invents_nothing(&model, &published), "{gone:?}");
        assert!(!model.messages().is_empty() || index == 0);
        // The queues were in the first one.
        assert_eq!(found.orphaned_messages > 0, index == 0, "{found:?}");
        while log.has_work() {
            log.commit().expect("commit");
        }
        drop(log);
        let (_, found, again) = reopen(&disk).expect("open");
        assert!(!found.is_damaged(), "{found:?}");
        assert_eq!(again, model);
    }
}

#[test]
fn at_most_four_damaged_segments_are_kept() {
    let disk = SimulatedDisk::new(2);
    let (mut log, _) = open(&disk, 0);
    log.apply(&queue(QUEUES[0]));
    for round in 0..7_u64 {
        log.apply(&enqueued(round + 1, None, &[QUEUES[0]], &[1; 90]));
        log.commit().expect("commit");
        log.apply(&enqueued(round + 100, None, &[QUEUES[0]], &[2; 90]));
        log.commit().expect("commit");
        log.close().expect("close");
        drop(log);
        let all = segments(&disk).into_iter().map(|path| (disk.content(&path).expect("content"), path));
        let (mut content, path) = all.max_by_key(|(content, _)| content.len()).expect("one");
        content[70] ^= 1;
        disk.put(&path, &content).expect("put");
        let (mut again, found, _) = reopen(&disk).expect("open");
        assert!(found.is_damaged(), "round {round}: {found:?}");
        while again.has_work() {
            again.commit().expect("commit");
        }
        log = again;
    }
    let kept = disk.files().iter().filter(|path| path.to_string_lossy().contains("damaged-")).count();
    assert_eq!(kept, 4);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (disk, _) = closed();
    let path = segments(&disk)[0].clone();
    let mut content = disk.content(&path).expect("content");
    content[8] = 9;
    let sum = crc32fast::hash(&content[..segment::HEADER_BYTES - 4]);
    content[segment::HEADER_BYTES - 4..segment::HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    disk.put(&path, &content).expect("put");
    let before = disk.files();
    let error = reopen(&disk).unwrap_err();
    assert!(matches!(error, JournalError::NewerFormat { found: 9, .. }), "{error}");
    assert_eq!((error.code(), error.is_transient()), ("journal-newer-format", false));
    assert_eq!(disk.files(), before);
}

#[test]
fn a_whole_record_that_nobody_knows_is_refused_and_left_alone() {
    let (disk, _) = closed();
    let path = segments(&disk)[0].clone();
    let mut content = disk.content(&path).expect("content");
    let mut frames = Vec::new();
    segment::Frames::new(1, content.len() as u64, &mut frames).push(|bytes| bytes.extend_from_slice(&[99, 1, 2]));
    let length = content.len();
    content.extend_from_slice(&frames);
    // As if it had been written by somebody who knows: the next segment counts it.
    let next = segments(&disk)[1].clone();
    let mut following = disk.content(&next).expect("content");
    following[28..36].copy_from_slice(&(content.len() as u64).to_le_bytes());
    let sum = crc32fast::hash(&following[..segment::HEADER_BYTES - 4]);
    following[segment::HEADER_BYTES - 4..segment::HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    disk.put(&path, &content).expect("put");
    disk.put(&next, &following).expect("put");
    let error = reopen(&disk).unwrap_err();
    assert!(matches!(error, JournalError::Unreadable { offset, .. } if offset == length as u64), "{error}");
    assert_eq!(error.code(), "journal-unreadable");
}

#[test]
fn a_directory_belongs_to_one_broker_and_to_nobody_else() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("state/journal");
    let disk: Arc<dyn muster_daemon::Disk> = Arc::new(RealDisk);
    let bounds = Bounds::default();
    let (mut log, _) = Log::open(disk.clone(), &directory, bounds, 0).expect("open");
    log.apply(&queue(QUEUES[0]));
    log.commit().expect("commit");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(&directory), 0o700);
    let files: Vec<PathBuf> =
        fs::read_dir(&directory).expect("list").map(|entry| entry.expect("entry").path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
    let error = Log::open(disk.clone(), &directory, bounds, 0).unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    assert_eq!((error.code(), error.is_transient()), ("journal-in-use", true));
    drop(log);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).expect("chmod");
    let error = Log::open(disk.clone(), &directory, bounds, 0).unwrap_err();
    assert!(error.to_string().contains("mode 0750"), "{error}");
    assert_eq!(error.code(), "journal-exposed");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("chmod");
    let (log, _) = Log::open(disk.clone(), &directory, bounds, 0).expect("open");
    assert_eq!(log.size().counts.queues, 1);
    fs::write(place.path().join("file"), "").expect("write");
    let error = Log::open(disk, &place.path().join("file"), bounds, 0).unwrap_err();
    assert_eq!(error.code(), "journal-unusable", "{error}");
}
