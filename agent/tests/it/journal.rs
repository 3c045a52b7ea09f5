//! The journal keeps its promise through crashes, damage and clocks that jump.

use std::fs;
use std::path::PathBuf;

use muster_agent::journal::{Journal, JournalError, Seen, Started};
use muster_protocol::{RequestId, Timestamp};
use proptest::prelude::*;

use crate::kit::{NOW, fresh_id, is_own_process, limit_files, real_disk};

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { path: directory.path().join("journal"), _directory: directory }
    }

    fn open(&self) -> Journal {
        self.open_at(NOW)
    }

    fn open_at(&self, now: Timestamp) -> Journal {
        Journal::open(&real_disk(), &self.path, now).unwrap().0
    }
}

fn started(id: RequestId, read_only: bool) -> Started {
    Started {
        id,
        caller: "muster:user/lea".parse().unwrap(),
        reply_to: "user/lea.s1".parse().unwrap(),
        action: "lab.change".to_owned(),
        read_only,
        at_ms: NOW,
        keep_until_ms: NOW.plus_ms(60_000),
        sequence_reserved: 64,
    }
}

const WINDOW: Timestamp = Timestamp(NOW.0 + 60_000);

#[test]
fn ids_are_known_after_a_restart() {
    let place = Place::new();
    let (running, ended, reading, unknown) = (fresh_id(), fresh_id(), fresh_id(), fresh_id());
    let mut journal = place.open();
    for (id, read_only) in [(running, false), (ended, false), (reading, true)] {
        journal.start(started(id, read_only)).unwrap();
    }
    journal.finish(ended).unwrap();
    journal.reserve_sequence(running, 200).unwrap();
    for journal in [journal, place.open(), place.open()] {
        assert_eq!(journal.seen(&running, WINDOW), Some(Seen::Started));
        assert_eq!(journal.seen(&ended, WINDOW), Some(Seen::Finished));
        assert_eq!(journal.seen(&reading, WINDOW), Some(Seen::Started));
        assert_eq!(journal.seen(&unknown, WINDOW), None);
        let mut unfinished = journal.unfinished();
        unfinished.retain(|started| !started.read_only);
        assert_eq!(unfinished, [Started { sequence_reserved: 200, ..started(running, false) }]);
    }
}

#[test]
fn ids_are_kept_for_the_whole_window_and_not_longer() {
    let place = Place::new();
    let (ended, running) = (fresh_id(), fresh_id());
    let mut journal = place.open();
    journal.start(started(ended, false)).unwrap();
    journal.start(started(running, false)).unwrap();
    journal.finish(ended).unwrap();
    assert_eq!(place.open_at(NOW.plus_ms(59_999)).seen(&ended, WINDOW), Some(Seen::Finished));
    let later = place.open_at(NOW.plus_ms(60_001));
    assert_eq!(later.len(), 1, "what runs is kept, however old");
    // The clock is set back: the dropped id's window is open again, and still it does not run.
    assert_eq!(place.open_at(NOW).seen(&ended, WINDOW), Some(Seen::Forgotten));
    assert_eq!(place.open_at(NOW).seen(&fresh_id(), WINDOW.plus_ms(1)), None, "newer commands run");
}

#[test]
fn a_torn_end_is_cut_off_and_the_rest_is_there() {
    let place = Place::new();
    let (first, second) = (fresh_id(), fresh_id());
    let mut journal = place.open();
    journal.start(started(first, false)).unwrap();
    let whole = fs::read(&place.path).unwrap();
    journal.start(started(second, false)).unwrap();
    let longer = fs::read(&place.path).unwrap();
    drop(journal);
    for cut in whole.len()..longer.len() {
        fs::write(&place.path, &longer[..cut]).unwrap();
        let (mut journal, opened) = Journal::open(&real_disk(), &place.path, NOW).unwrap();
        assert_eq!(opened.torn_bytes, cut - whole.len());
        assert_eq!(opened.damaged_lines, 0);
        assert_eq!(journal.seen(&first, WINDOW), Some(Seen::Started), "cut at {cut}");
        assert_eq!(journal.seen(&second, WINDOW), None, "cut at {cut}");
        journal.start(started(second, false)).unwrap();
        assert_eq!(place.open().seen(&second, WINDOW), Some(Seen::Started), "the next record is whole");
    }
}

#[test]
fn damage_in_the_middle_costs_its_line_only_and_is_kept() {
    let place = Place::new();
    let ids: Vec<RequestId> = (0..3).map(|_| fresh_id()).collect();
    let mut journal = place.open();
    for id in &ids {
        journal.start(started(*id, false)).unwrap();
    }
    let mut bytes = fs::read(&place.path).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let middle = text.find(&ids[1].to_string()).unwrap();
    bytes[middle] ^= 1;
    fs::write(&place.path, &bytes).unwrap();
    let (journal, opened) = Journal::open(&real_disk(), &place.path, NOW).unwrap();
    assert_eq!(opened.damaged_lines, 1);
    assert_eq!(fs::read(opened.kept_at.unwrap()).unwrap(), bytes);
    let seen: Vec<_> = ids.iter().map(|id| journal.seen(id, WINDOW).is_some()).collect();
    assert_eq!(seen, [true, false, true]);
}

#[test]
fn a_journal_of_a_newer_program_is_left_alone() {
    let place = Place::new();
    drop(place.open());
    let newer = fs::read_to_string(&place.path).unwrap();
    let json = "{\"record\":\"format\",\"version\":2}";
    let line = newer.lines().next().unwrap();
    assert!(line.contains("\"version\":1"), "{line}");
    let text = with_checksum(json);
    fs::write(&place.path, &text).unwrap();
    assert!(matches!(Journal::open(&real_disk(), &place.path, NOW), Err(JournalError::Newer { found: 2, .. })));
    assert_eq!(fs::read_to_string(&place.path).unwrap(), text);
}

fn with_checksum(json: &str) -> String {
    use std::fmt::Write as _;
    let mut sum = String::new();
    for byte in <sha2::Sha256 as sha2::Digest>::digest(json.as_bytes()).iter().take(8) {
        write!(sum, "{byte:02x}").unwrap();
    }
    format!("{sum} {} {json}\n", json.len())
}

#[test]
fn a_rewrite_that_fails_is_told_and_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("state");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("journal");
    drop(Journal::open(&real_disk(), &path, NOW).unwrap());
    let mut journal = Journal::open(&real_disk(), &path, NOW).unwrap().0;
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "a file where the directory was").unwrap();
    let error = journal.compact(NOW).unwrap_err();
    assert!(error.to_string().starts_with("rewrite journal"), "{error}");
    assert!(error.is_transient());
    assert_eq!(error.code().code, "journal-failed");
    // Once the disk is well again, so is the journal.
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    journal.compact(NOW).unwrap();
    let id = fresh_id();
    journal.start(started(id, false)).unwrap();
    assert_eq!(Journal::open(&real_disk(), &path, NOW).unwrap().0.seen(&id, WINDOW), Some(Seen::Started));
}

#[test]
fn what_cannot_be_written_does_not_count_as_seen() {
    if !is_own_process("journal::what_cannot_be_written_does_not_count_as_seen") {
        return;
    }
    let place = Place::new();
    let mut journal = place.open();
    let first = fresh_id();
    journal.start(started(first, false)).unwrap();
    // Half of the next record fits.
    let length = fs::metadata(&place.path).unwrap().len();
    limit_files(Some(length + 100));
    let refused = fresh_id();
    let error = journal.start(started(refused, false)).unwrap_err();
    assert!(error.to_string().starts_with("write journal"), "{error}");
    assert_eq!(journal.seen(&refused, WINDOW), None);
    assert_eq!(fs::metadata(&place.path).unwrap().len(), length, "no half record is left");
    // Room again: the journal goes on as if nothing had been.
    limit_files(None);
    journal.start(started(refused, false)).unwrap();
    let (journal, opened) = Journal::open(&real_disk(), &place.path, NOW).unwrap();
    assert_eq!((opened.torn_bytes, opened.damaged_lines), (0, 0));
    assert!(journal.seen(&first, WINDOW).is_some() && journal.seen(&refused, WINDOW).is_some());
}

#[test]
fn the_file_stays_small() {
    let place = Place::new();
    let mut journal = place.open();
    for number in 0..5_000 {
        let now = NOW.plus_ms(number);
        let id = fresh_id();
        journal.start(Started { at_ms: now, keep_until_ms: now.plus_ms(10), ..started(id, true) }).unwrap();
        journal.finish(id).unwrap();
        if journal.is_compaction_due() {
            journal.compact(now).unwrap();
        }
    }
    let length = fs::metadata(&place.path).unwrap().len();
    assert!(length < 400_000, "{length} bytes");
    assert!(place.open().len() < 1_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens to the bytes: opening neither fails nor invents an id.
    #[test]
    fn any_damage_is_survived(position in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let place = Place::new();
        let ids: Vec<RequestId> = (0..3).map(|_| fresh_id()).collect();
        let mut journal = place.open();
        for id in &ids {
            journal.start(started(*id, false)).unwrap();
        }
        let mut bytes = fs::read(&place.path).unwrap();
        let at = position.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        fs::write(&place.path, &bytes).unwrap();
        let (journal, _) = Journal::open(&real_disk(), &place.path, NOW).unwrap();
        prop_assert!(journal.unfinished().iter().all(|started| ids.contains(&started.id)));
        let lost = ids.iter().filter(|id| journal.seen(id, WINDOW).is_none()).count();
        prop_assert!(cut || lost <= 2, "one byte costs its line, and the next if it was the line end");
    }
}

#[test]
fn a_refusal_is_remembered_with_its_code() {
    use muster_protocol::code;
    let place = Place::new();
    let (id, lea) = (fresh_id(), "muster:user/lea".parse().unwrap());
    let mut journal = place.open();
    journal.refuse(id, &lea, &code::POLICY_DENIED, WINDOW, NOW).unwrap();
    // The first code stays.
    journal.refuse(id, &lea, &code::BUSY, WINDOW, NOW).unwrap();
    for journal in [journal, place.open(), place.open()] {
        assert_eq!(journal.seen(&id, WINDOW), Some(Seen::Refused(&code::POLICY_DENIED)));
    }
}

#[test]
fn one_caller_leaves_room_for_others_also_after_a_restart() {
    use muster_agent::journal::Kind;
    let place = Place::new();
    let mut journal = place.open();
    let of =
        |caller: &str, read_only: bool| Started { caller: caller.parse().unwrap(), ..started(fresh_id(), read_only) };
    let half = Kind::Read.budget() / 2;
    for _ in 0..half {
        journal.start(of("user/max", true)).unwrap();
    }
    let refused = |journal: &mut Journal| match journal.start(of("user/max", true)) {
        Err(JournalError::Full { caller, kind, holds }) => (caller.short(), kind, holds),
        other => panic!("{other:?}"),
    };
    let mut journal = {
        assert_eq!(refused(&mut journal), ("user/max".to_owned(), Kind::Read, half));
        drop(journal);
        place.open()
    };
    assert_eq!(refused(&mut journal), ("user/max".to_owned(), Kind::Read, half));
    let said = journal.start(of("user/max", true)).unwrap_err().to_string();
    assert!(said.contains("20000 requests that only read of `user/max`"), "{said}");
    // Others, and other kinds.
    journal.start(of("user/lea", true)).unwrap();
    journal.start(of("user/max", false)).unwrap();
    let max = "user/max".parse().unwrap();
    journal.refuse(fresh_id(), &max, &muster_protocol::code::BUSY, WINDOW, NOW).unwrap();
    // Once the windows are over there is room again.
    let later = Started { at_ms: NOW.plus_ms(60_001), ..of("user/max", true) };
    for started in journal.unfinished() {
        if started.read_only {
            journal.finish(started.id).unwrap();
        }
    }
    journal.start(later).unwrap();
}

#[test]
fn records_of_the_first_agents_are_still_read() {
    let place = Place::new();
    let id = fresh_id();
    let mut journal = place.open();
    journal.start(started(id, false)).unwrap();
    journal.finish(id).unwrap();
    drop(journal);
    let json = format!("{{\"record\":\"finished\",\"id\":\"{id}\",\"keep_until_ms\":{}}}", WINDOW.0);
    let sum = {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(json.as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    fs::write(&place.path, format!("{sum} {} {json}\n", json.len())).unwrap();
    let (journal, opened) = Journal::open(&real_disk(), &place.path, NOW).unwrap();
    assert_eq!((opened.damaged_lines, journal.seen(&id, WINDOW)), (0, Some(Seen::Finished)));
}

#[test]
fn what_did_not_reach_the_disk_counts_as_not_seen() {
    let place = Place::new();
    let mut journal = place.open();
    let (one, two) = (started(fresh_id(), false), started(fresh_id(), false));
    let unsynced = journal.begin(one.clone()).unwrap().expect("an action that changes something is synced");
    // Until the disk has it, a copy is one.
    assert_eq!(journal.seen(&one.id, WINDOW), Some(Seen::Started));
    unsynced.sync().unwrap();
    drop(journal.begin(two.clone()).unwrap());
    journal.sync_failed(two.id);
    assert_eq!((journal.seen(&one.id, WINDOW), journal.seen(&two.id, WINDOW)), (Some(Seen::Started), None));
    assert!(journal.begin(started(fresh_id(), true)).unwrap().is_none());
    let journal = place.open();
    assert_eq!((journal.seen(&one.id, WINDOW), journal.seen(&two.id, WINDOW)), (Some(Seen::Started), None));
}
