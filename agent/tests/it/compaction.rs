//! The journal is made smaller while it is in use, and nobody waits for the disk with its lock.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use muster_agent::journal::{Journal, Seen, Started, Unsynced, compact_shared};
use muster_daemon::disk::{DirectoryEntry, Fault, Metadata, Open};
use muster_daemon::{Disk, DiskFile, SimulatedDisk};
use muster_protocol::{RequestId, Timestamp};

use crate::kit::NOW;

const PATH: &str = "/journal";
const WINDOW: Timestamp = Timestamp(NOW.0 + 60_000);

type Hook = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// A disk that says when somebody waits for it.
struct Watched {
    disk: Arc<dyn Disk>,
    hook: Hook,
}

struct WatchedFile {
    file: Arc<dyn DiskFile>,
    hook: Hook,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl std::fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatchedFile")
    }
}

fn tell(hook: &Hook) {
    if let Some(hook) = hook.get() {
        hook();
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(WatchedFile { file, hook: self.hook.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_directory(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.disk.list(path)
    }
    fn make_private_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.make_private_directory(path)
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.disk.metadata(path)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        tell(&self.hook);
        self.disk.sync_directory(path)
    }
    fn unused_name(&self) -> String {
        self.disk.unused_name()
    }
}

impl DiskFile for WatchedFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        tell(&self.hook);
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        tell(&self.hook);
        self.file.sync_all()
    }
    fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

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
    let watched: Arc<dyn Disk> = Arc::new(Watched { disk: disk.mount(), hook: hook.clone() });
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
