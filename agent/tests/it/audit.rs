//! The audit log: what was changed afterwards is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use muster_agent::audit::{
    Anchor, Audit, AuditError, Damage, Durability, Event, REFUSALS_PER_WINDOW, Rotation, Verified, verify, verify_all,
};
use muster_protocol::Timestamp;
use proptest::prelude::*;

use crate::kit::NOW;

/// A log that rotates after some lines.
const SMALL: Rotation = Rotation { bytes: 2_000, keep_files: 3 };

fn open(path: &Path) -> Audit {
    Audit::open(&crate::kit::real_disk(), path, "web1", NOW, Rotation::default()).unwrap()
}

fn log(directory: &Path, lines: usize) -> PathBuf {
    let path = directory.join("audit.jsonl");
    let mut audit = open(&path);
    for number in 0..lines {
        let event = Event::new("command", "allowed").with_message(format!("line {number}"));
        audit.write(NOW, event, if number == 0 { Durability::Synced } else { Durability::Written }).unwrap();
    }
    path
}

#[track_caller]
fn broken_at(path: &Path, place: (&str, u64), expected: Damage) {
    match verify_all(path, None) {
        Err(AuditError::Broken { path, line, damage, .. }) => {
            assert_eq!((path.file_name().unwrap().to_str().unwrap(), line, damage), (place.0, place.1, expected));
        }
        other => panic!("not found {expected:?} at {place:?}: {other:?}"),
    }
}

#[test]
fn a_log_verifies_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    log(directory.path(), 3);
    let path = log(directory.path(), 2);
    let verified = verify_all(&path, None).unwrap();
    assert_eq!((verified.lines, verified.torn_bytes), (5, 0));
    let audit = open(&path);
    assert_eq!(audit.head(), (5, verified.last_hash.as_str()));
    assert_eq!(verify_all(&log(&directory.path().join("."), 0), None).unwrap().lines, 5);
}

#[test]
fn whatever_is_changed_is_found_at_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(directory.path(), 5);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let check = |lines: &[&str], line: u64, damage: Damage| {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        broken_at(&path, ("audit.jsonl", line), damage);
    };
    let changed = lines[2].replace("line 2", "line X");
    check(&[lines[0], lines[1], &changed, lines[3], lines[4]], 3, Damage::Changed);
    let last = lines[4].replace("line 4", "line X");
    check(&[lines[0], lines[1], lines[2], lines[3], &last], 5, Damage::Changed);
    check(&[lines[0], lines[1], lines[3], lines[4]], 3, Damage::Removed);
    check(&[lines[0], lines[2], lines[1], lines[3], lines[4]], 2, Damage::Reordered);
    check(&[lines[1], lines[2]], 1, Damage::Removed);
    check(&[lines[0], lines[0], lines[1]], 2, Damage::Inserted);
    check(&[lines[0], "{}", lines[1]], 2, Damage::Changed);
    check(&[lines[0], "", lines[1]], 2, Damage::Changed);
    // Whoever knows how a line gets its hash can write one anew, and the line after it still tells.
    let other = tempfile::tempdir().unwrap();
    let mut forged = open(&other.path().join("audit.jsonl"));
    for number in 0..3 {
        let message = if number == 2 { "line X".to_owned() } else { format!("line {number}") };
        forged.write(NOW, Event::new("command", "allowed").with_message(message), Durability::Written).unwrap();
    }
    let forged = fs::read_to_string(other.path().join("audit.jsonl")).unwrap();
    let forged: Vec<&str> = forged.lines().collect();
    check(&[lines[0], lines[1], forged[2], lines[3], lines[4]], 4, Damage::Changed);
    // Lines cut off the end leave a chain that is whole: only what was noted elsewhere tells.
    fs::write(&path, &text).unwrap();
    let whole = verify_all(&path, None).unwrap();
    let anchor = Anchor { sequence: whole.last_sequence, hash: whole.last_hash };
    verify_all(&path, Some(&anchor)).unwrap();
    fs::write(&path, lines[..4].join("\n") + "\n").unwrap();
    assert_eq!(verify_all(&path, None).unwrap().lines, 4);
    let why = |anchor: &Anchor| verify_all(&path, Some(anchor)).unwrap_err().to_string();
    assert!(why(&anchor).contains("its end was cut off"), "{}", why(&anchor));
    let rewritten = Anchor { sequence: 2, hash: anchor.hash };
    assert!(why(&rewritten).contains("line 2 has another hash"), "{}", why(&rewritten));
}

#[test]
fn nothing_a_caller_sends_can_begin_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut audit = open(&path);
    let evil = "x\"}\n{\"previous\":\"\u{2028}\u{0}";
    let mut event = Event::new("command", "refused").with_message(evil);
    event.arguments = serde_json::json!({ evil: evil }).as_object().cloned();
    audit.write(NOW, event, Durability::Written).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    assert_eq!(verify_all(&path, None).unwrap().lines, 1);
}

#[test]
fn a_torn_end_is_cut_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(directory.path(), 2);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{{\"previous\":\"half")).unwrap();
    assert_eq!(verify_all(&path, None).unwrap().torn_bytes, 17);
    drop(open(&path));
    assert_eq!(verify_all(&path, None).unwrap().lines, 3);
    assert!(fs::read_to_string(&path).unwrap().contains("cut 17 bytes"));
}

#[test]
fn a_log_whose_end_is_not_ours_is_not_continued() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(directory.path(), 1);
    fs::write(&path, "something else\n").unwrap();
    assert!(matches!(Audit::open(&crate::kit::real_disk(), &path, "web1", NOW, SMALL), Err(AuditError::Broken { .. })));
}

#[test]
fn a_flood_from_strangers_is_counted_and_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut audit = open(&path);
    for _ in 0..10_000 {
        audit.write_unverified(NOW, Event::new("command", "refused")).unwrap();
    }
    assert_eq!(verify_all(&path, None).unwrap().lines, u64::from(REFUSALS_PER_WINDOW));
    audit.settle(NOW.plus_ms(60_000)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("9940 further refusals of unverified senders in 60 s"), "{text}");
}

#[test]
fn one_caller_cannot_fill_the_disk_and_others_are_still_heard() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut audit = open(&path);
    let refused = |caller: &str| {
        let mut event = Event::new("command", "refused");
        event.caller = Some(caller.to_owned());
        event
    };
    for number in 0..5_000 {
        audit.write(NOW.plus_ms(number / 100), refused("muster:user/max"), Durability::Written).unwrap();
    }
    audit.write(NOW, refused("muster:user/lea"), Durability::Written).unwrap();
    // What is allowed is always a line.
    for _ in 0..100 {
        let mut event = Event::new("command", "allowed");
        event.caller = Some("muster:user/max".to_owned());
        audit.write(NOW, event, Durability::Written).unwrap();
    }
    let lines = || fs::read_to_string(&path).unwrap().lines().count();
    assert_eq!(lines(), 60 + 1 + 100);
    // The next line, whatever it is about, comes behind the count.
    audit.write(NOW.plus_ms(61_000), refused("muster:user/lea"), Durability::Written).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let told: serde_json::Value = serde_json::from_str(text.lines().nth(161).unwrap()).unwrap();
    assert_eq!(told["details"]["decision"], "left_out");
    assert_eq!(told["details"]["caller"], "muster:user/max");
    assert_eq!(told["details"]["count"], 4_940);
    assert_eq!(told["details"]["message"], "4940 further refusals of muster:user/max in 60 s");
    assert_eq!(lines(), 163);
    for _ in 0..70 {
        audit.write(NOW.plus_ms(62_000), refused("muster:user/max"), Durability::Written).unwrap();
    }
    audit.settle_all(NOW.plus_ms(62_001)).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("10 further refusals of muster:user/max"));
    verify_all(&path, None).unwrap();
}

/// Writes lines until so many files have been set aside in all. Gives the head.
fn rotated(path: &Path, rotation: Rotation, files: u64) -> (u64, String) {
    let mut audit = Audit::open(&crate::kit::real_disk(), path, "web1", NOW, rotation).unwrap();
    for number in 0.. {
        audit
            .write(NOW, Event::new("command", "allowed").with_message(number.to_string()), Durability::Written)
            .unwrap();
        if path.with_file_name(format!("audit.jsonl.{files:06}")).exists() {
            break;
        }
    }
    audit.write(NOW, Event::new("command", "allowed").with_message("the last"), Durability::Written).unwrap();
    let (sequence, hash) = audit.head();
    (sequence, hash.to_owned())
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn rotation_keeps_the_chain_and_so_many_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let head = rotated(&path, SMALL, 2);
    let all = verify_all(&path, None).unwrap();
    assert_eq!((all.first_sequence, all.last_sequence, all.lines), (1, head.0, head.0));
    assert_eq!(all.last_hash, head.1);
    assert_eq!(names(directory.path()), ["audit.jsonl", "audit.jsonl.000001", "audit.jsonl.000002"]);
    let head = rotated(&path, SMALL, 7);
    let kept = ["audit.jsonl", "audit.jsonl.000005", "audit.jsonl.000006", "audit.jsonl.000007"];
    assert_eq!(names(directory.path()), kept);
    for name in kept {
        assert_eq!(fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::metadata(directory.path().join(name)).unwrap().len() < SMALL.bytes + 1_500);
    }
    let all = verify_all(&path, None).unwrap();
    assert_eq!((all.files.len(), all.last_sequence), (4, head.0));
    assert!(all.first_sequence > 1);
    // The first line of a file names the one before.
    let first = fs::read_to_string(directory.path().join("audit.jsonl.000006")).unwrap();
    let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let before = fs::read_to_string(directory.path().join("audit.jsonl.000005")).unwrap();
    let last: serde_json::Value = serde_json::from_str(before.lines().last().unwrap()).unwrap();
    assert_eq!(first["details"]["file"]["name"], "audit.jsonl.000005");
    assert_eq!(first["details"]["file"]["lines"], before.lines().count());
    assert_eq!(first["details"]["file"]["last_hash"], last["hash"]);
    // From any point on, also without what came before.
    let from = |name: &str| verify(&directory.path().join(name), None).unwrap();
    assert_eq!((from("audit.jsonl.000006").files.len(), from("audit.jsonl").files.len()), (3, 1));
    assert_eq!(from("audit.jsonl.000006").last_hash, head.1);
    let anchor = Anchor { sequence: first["sequence"].as_u64().unwrap(), hash: first["hash"].as_str().unwrap().into() };
    verify_all(&path, Some(&anchor)).unwrap();
    let gone = Anchor { sequence: 1, ..anchor };
    assert!(verify_all(&path, Some(&gone)).unwrap_err().to_string().contains("came before line"));
}

#[test]
fn a_file_that_somebody_removed_is_told_from_one_that_rotation_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let check = |removed: &str, place: (&str, u64), damage| {
        for name in names(directory.path()) {
            fs::remove_file(directory.path().join(name)).unwrap();
        }
        rotated(&path, SMALL, 5);
        verify_all(&path, None).unwrap();
        fs::remove_file(directory.path().join(removed)).unwrap();
        broken_at(&path, place, damage);
    };
    check("audit.jsonl.000003", ("audit.jsonl.000004", 1), Damage::Removed);
    check("audit.jsonl.000004", ("audit.jsonl.000005", 1), Damage::Removed);
    // The present file, where the one before is full, looks as behind a crash; the next start says so.
    fs::write(directory.path().join("audit.jsonl.000005"), "").unwrap();
    broken_at(&path, ("audit.jsonl.000005", 1), Damage::Truncated);
}

#[test]
fn the_end_of_a_full_file_cannot_be_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    rotated(&path, SMALL, 2);
    let first = directory.path().join("audit.jsonl.000001");
    let text = fs::read_to_string(&first).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(&first, lines[..lines.len() - 2].join("\n") + "\n").unwrap();
    broken_at(&path, ("audit.jsonl.000001", lines.len() as u64 - 1), Damage::Truncated);
    fs::write(&first, &text[..text.len() - 10]).unwrap();
    broken_at(&path, ("audit.jsonl.000001", lines.len() as u64), Damage::Truncated);
}

#[test]
fn what_logrotate_does_is_noticed_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let beside = |name: &str| directory.path().join(name);
    let mut audit = open(&path);
    let write = |audit: &mut Audit, message: &str| {
        audit.write(NOW, Event::new("command", "allowed").with_message(message), Durability::Written)
    };
    let first = |path: &Path| fs::read_to_string(path).unwrap().lines().next().unwrap().to_owned();
    write(&mut audit, "a").unwrap();
    // Moved away.
    fs::rename(&path, beside("audit.jsonl.1")).unwrap();
    write(&mut audit, "b").unwrap();
    assert!(first(&path).contains("something else has moved the file away"), "{}", first(&path));
    verify_all(&path, None).unwrap();
    // Moved away and an empty one put in its place.
    fs::rename(&path, beside("audit.jsonl-20261121")).unwrap();
    fs::write(&path, "").unwrap();
    write(&mut audit, "c").unwrap();
    assert!(first(&path).contains("moved"));
    // Copied and emptied.
    fs::copy(&path, beside("audit.jsonl.3")).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    write(&mut audit, "d").unwrap();
    assert!(first(&path).contains("something else has emptied the file"));
    let all = verify_all(&path, None).unwrap();
    assert_eq!((all.files.len(), all.last_sequence), (4, audit.head().0));
    // A copy in its place is as good.
    fs::copy(&path, beside("copy")).unwrap();
    fs::rename(beside("copy"), &path).unwrap();
    write(&mut audit, "e").unwrap();
    verify_all(&path, None).unwrap();
    // Cut: what is missing is missing, and a line says since when.
    let text = fs::read_to_string(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(text.len() as u64 - 10).unwrap();
    write(&mut audit, "f").unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("something else has cut 10 bytes off the end"));
    broken_at(&path, ("audit.jsonl", 3), Damage::Removed);
    // Another file in its place: nothing is written into it.
    fs::write(beside("other"), "something else\n").unwrap();
    fs::rename(beside("other"), &path).unwrap();
    assert!(matches!(write(&mut audit, "g"), Err(AuditError::Replaced { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "something else\n");
}

#[test]
fn a_start_without_the_file_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    rotated(&path, SMALL, 2);
    fs::remove_file(&path).unwrap();
    verify_all(&path, None).unwrap();
    fs::rename(directory.path().join("audit.jsonl.000002"), &path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(directory.path().join("audit.jsonl.000002"), lines[..2].join("\n") + "\n").unwrap();
    fs::remove_file(&path).unwrap();
    broken_at(&path, ("audit.jsonl", 1), Damage::Truncated);
    drop(Audit::open(&crate::kit::real_disk(), &path, "web1", NOW, SMALL).unwrap());
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("there was no file when the agent started, and the one before was not full"), "{text}");
}

#[test]
fn a_rotation_that_fails_does_not_stop_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let rotation = Rotation { keep_files: 100, ..SMALL };
    let mut audit = Audit::open(&crate::kit::real_disk(), &path, "web1", NOW, rotation).unwrap();
    // A directory stands where the full file should go.
    fs::create_dir_all(directory.path().join("audit.jsonl.000001/x")).unwrap();
    for number in 0..40 {
        audit
            .write(NOW, Event::new("command", "allowed").with_message(number.to_string()), Durability::Written)
            .unwrap();
    }
    assert_eq!(verify_all(&path, None).unwrap().last_sequence, audit.head().0);
    assert!(directory.path().join("audit.jsonl.next").is_file(), "lines are in the file that has not got its name yet");
    // A restart meanwhile cannot end it either, and goes on.
    let mut audit = Audit::open(&crate::kit::real_disk(), &path, "web1", NOW, rotation).unwrap();
    audit.write(NOW, Event::new("command", "allowed"), Durability::Synced).unwrap();
    assert_eq!(verify_all(&path, None).unwrap().last_sequence, audit.head().0);
    fs::remove_dir_all(directory.path().join("audit.jsonl.000001")).unwrap();
    for number in 0..40 {
        audit
            .write(NOW, Event::new("command", "allowed").with_message(number.to_string()), Durability::Written)
            .unwrap();
    }
    assert!(directory.path().join("audit.jsonl.000001").is_file());
    assert!(!directory.path().join("audit.jsonl.next").exists());
    verify_all(&path, None).unwrap();
}

/// The files of a log with some rotations behind it, and their text.
static CHAIN: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    rotated(&directory.path().join("audit.jsonl"), Rotation { bytes: 1_200, keep_files: 3 }, 4);
    let read = |name: String| {
        let path = directory.path().join(name);
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    };
    names(directory.path()).into_iter().map(read).collect()
});

#[test]
fn the_chain_that_is_damaged_below_is_whole() {
    let lines: Vec<Vec<Vec<u8>>> = CHAIN.iter().map(|(_, bytes)| vec![bytes.clone()]).collect();
    assert_eq!(check_damaged(&CHAIN, &lines).unwrap().files.len(), 4);
}

fn check_damaged(files: &[(PathBuf, Vec<u8>)], damaged: &[Vec<Vec<u8>>]) -> Result<Verified, AuditError> {
    let directory = tempfile::tempdir().unwrap();
    for ((path, _), lines) in files.iter().zip(damaged) {
        fs::write(directory.path().join(path.file_name().unwrap()), lines.concat()).unwrap();
    }
    verify_all(&directory.path().join("audit.jsonl"), None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Any byte that is another, any line that is missing, doubled or elsewhere is found.
    #[test]
    fn any_damage_in_a_chain_of_files_is_found(
        what in 0..5_u8,
        at in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let files = &*CHAIN;
        let mut lines: Vec<Vec<Vec<u8>>> = files
            .iter()
            .map(|(_, bytes)| bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect())
            .collect();
        let places: Vec<(usize, usize)> =
            lines.iter().enumerate().flat_map(|(file, lines)| (0..lines.len()).map(move |line| (file, line))).collect();
        let (file, line) = *at.get(&places);
        // `audit.jsonl` sorts first and is the file that is written.
        let is_last = file == 0 && line + 1 == lines[0].len();
        match what {
            0 => {
                let at = other.index(lines[file][line].len());
                prop_assume!(lines[file][line][at] != byte);
                lines[file][line][at] = byte;
            }
            1 => {
                // That the last line of all is missing, a chain cannot tell.
                prop_assume!(!is_last);
                lines[file].remove(line);
            }
            2 => {
                let copy = lines[file][line].clone();
                lines[file].insert(line, copy);
            }
            3 => {
                let (to_file, to_line) = *other.get(&places);
                prop_assume!((file, line) != (to_file, to_line));
                let here = lines[file][line].clone();
                lines[file][line] = std::mem::replace(&mut lines[to_file][to_line], here);
            }
            _ => {
                let (to_file, to_line) = *other.get(&places);
                let copy = lines[file][line].clone();
                lines[to_file].insert(to_line, copy);
            }
        }
        match check_damaged(files, &lines) {
            Err(_) => {}
            // Without its line end the last line looks like one that was being written.
            Ok(verified) => prop_assert!(is_last && what == 0 && verified.torn_bytes > 0, "{what} {file} {line}"),
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Where a chain is whole it says so, however it was written.
    #[test]
    fn a_log_that_nobody_touched_is_whole(
        sizes in prop::collection::vec(0..900_usize, 1..40),
        restart_each in 1..9_usize,
        keep_files in 1..4_usize,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let rotation = Rotation { bytes: 1_500, keep_files };
        let mut audit = Audit::open(&crate::kit::real_disk(), &path, "web1", NOW, rotation).unwrap();
        for (number, size) in sizes.iter().enumerate() {
            if number % restart_each == 0 {
                audit = Audit::open(&crate::kit::real_disk(), &path, "web1", NOW, rotation).unwrap();
            }
            let at = Timestamp(NOW.as_millis() + number as i64);
            audit.write(at, Event::new("command", "allowed").with_message("ü".repeat(*size)), Durability::Written).unwrap();
            if number % 8 == 0 {
                verify_all(&path, None).unwrap();
            }
        }
        let verified = verify_all(&path, None).unwrap();
        prop_assert_eq!((verified.last_sequence, verified.last_hash.as_str()), audit.head());
        prop_assert!(verified.files.len() <= keep_files + 1);
    }
}

#[test]
fn long_lines_are_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let long = "y".repeat(500_000);
    for _ in 0..2 {
        let mut audit = open(&path);
        audit.write(NOW, Event::new("command", "allowed").with_message(&long), Durability::Written).unwrap();
    }
    assert_eq!(verify_all(&path, None).unwrap().lines, 2);
}

#[test]
fn long_arguments_are_cut_where_a_command_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut audit = open(&path);
    let long = "ü".repeat(100_000);
    for (decision, name) in [("refused", long.as_str()), ("refused", "short"), ("allowed", long.as_str())] {
        let mut event = Event::new("command", decision);
        event.arguments = Some(serde_json::Map::from_iter([("name".to_owned(), name.into())]));
        audit.write(NOW, event, Durability::Written).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let arguments = |line: usize| &lines[line]["details"]["arguments"];
    assert_eq!(arguments(0)["bytes"], 200_011);
    assert!(arguments(0)["cut"].as_str().unwrap().starts_with("{\"name\":\"üü"));
    assert!(text.lines().next().unwrap().len() < 2_000);
    assert_eq!(arguments(1)["name"], "short");
    assert_eq!(arguments(2)["name"], long);
    assert_eq!(verify_all(&path, None).unwrap().lines, 3);
}
