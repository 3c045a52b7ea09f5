//! The disk that an agent keeps its state on is full, cannot be written, was cleared by somebody, or damaged.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use muster_tests::programs::{AgentProcess, Finished};
use muster_tests::small_disk::FailingDisk;

use super::lab::{HOST, KINDS, Lab, eventually, id_and_code, kill_hard, lives, task};

/// Room for the agent's reserve (2 MiB) and its work, and soon full.
const SMALL_BYTES: u64 = 6 * 1024 * 1024;

/// Room for an ext4 file system with its journal, and for the agent.
const FAILING_BYTES: u64 = 24 * 1024 * 1024;

const NO_ROOM: &str = "No space left on device";

/// A request that did not start since there was no room, for its record or, where the last block of the journal had
/// some left, for its files.
#[track_caller]
fn check_not_started(lab: &Lab, finished: &Finished) {
    let task = task(finished);
    let code = task["code"].as_str().unwrap();
    assert!([("journal-failed", 6), ("start-failed", 3)].contains(&(code, finished.code)), "{task}");
    assert!(task["message"].as_str().unwrap().contains(NO_ROOM), "{task}");
    assert_eq!(lab.starts_of(&id_and_code(finished).0), 0, "it did not start, it says");
}

/// A request that was refused since it could not be recorded, and that therefore did not start.
#[track_caller]
fn check_refused(lab: &Lab, finished: Finished, why: &str) {
    let finished = finished.expect(6);
    let task = task(&finished);
    assert_eq!((&task["state"], &task["code"]), (&"refused".into(), &"journal-failed".into()), "{task}");
    assert!(task["message"].as_str().unwrap().contains(why), "{task}");
    let (id, _) = id_and_code(&finished);
    assert_eq!(lab.starts_of(&id), 0, "it was refused and started");
}

#[test]
fn on_a_full_disk_nothing_begins_what_runs_is_told_and_all_works_again_with_room() {
    let mut lab = Lab::on_small_disk(SMALL_BYTES);
    lab.check_works();
    let before = lab.starts().len();
    let gate = lab.stage.folder().join("gate");
    let command = format!("command=while [ ! -e '{}' ]; do sleep 0.05; done; exit 7", gate.display());
    let shell = lab.begin_run("shell.run", &[&command]);
    let change = lab.begin_run("lab.change", &["until=one"]);
    lab.started_times(before + 1);
    eventually("the shell begins", || begun(&lab) > 0);
    lab.disk.as_ref().unwrap().fill().unwrap();
    for kind in ["change", "apart"] {
        check_not_started(&lab, &lab.run(&format!("lab.{kind}"), &[]));
    }
    // There is room for how something ended, even where its program found none for what it had to say.
    fs::write(gate, "").unwrap();
    let ended = task(&shell.finish().expect(3));
    assert_eq!((&ended["exit_code"], &ended["code"]), (&7.into(), &"failed".into()), "{ended}");
    lab.open("one");
    let (id, code) = id_and_code(&change.finish());
    assert!(["ok", "failed"].contains(&code.as_str()), "{code}");
    assert_eq!(lab.starts_of(&id), 1);
    // That room is no room to begin something.
    for kind in ["change", "apart"] {
        check_refused(&lab, lab.run(&format!("lab.{kind}"), &[]), NO_ROOM);
    }
    assert_eq!(lab.starts().len(), before + 1);

    // Killed while the disk is full: what has ended stays ended.
    lab.agent.kill().unwrap();
    lab.disk.as_ref().unwrap().make_room().unwrap();
    lab.start_again();
    assert!(!lab.agent.log().contains("Interrupted by the end of the agent"), "{}", lab.agent.log());
    lab.check_works();
    lab.musterd(&["audit", "verify"]).expect(0);
    eventually("there is a reserve again", || lab.state("reserve").exists());
}

/// How many actions in processes of their own have begun and not ended.
fn begun(lab: &Lab) -> usize {
    let directories = fs::read_dir(lab.state("actions")).unwrap().flatten();
    directories.filter(|it| it.path().join("begun.json").exists() && !it.path().join("reply.json").exists()).count()
}

/// The process that runs the action finds the room that the agent keeps by itself; and without a restart all works
/// again.
#[test]
fn an_action_of_its_own_ends_on_a_full_disk_with_the_room_that_is_kept() {
    let lab = Lab::on_small_disk(SMALL_BYTES);
    let gate = lab.stage.folder().join("gate");
    let command = format!("command=while [ ! -e '{}' ]; do sleep 0.05; done; exit 7", gate.display());
    let shell = lab.begin_run("shell.run", &[&command]);
    eventually("the shell begins", || begun(&lab) > 0);
    lab.disk.as_ref().unwrap().fill().unwrap();
    fs::write(gate, "").unwrap();
    assert_eq!(task(&shell.finish().expect(3))["exit_code"], 7);
    check_refused(&lab, lab.run("lab.apart", &[]), NO_ROOM);
    lab.disk.as_ref().unwrap().make_room().unwrap();
    lab.check_works();
}

#[test]
fn an_agent_that_cannot_write_does_not_start_and_says_so() {
    let mut lab = Lab::on_small_disk(SMALL_BYTES);
    lab.check_works();
    lab.agent.stop().unwrap();
    lab.disk.as_ref().unwrap().set_read_only(true).unwrap();
    let folder = lab.agent.folder().to_owned();
    lab.agent = AgentProcess::start_in(HOST.parse().unwrap(), &folder).unwrap();
    eventually("it ends", || lab.agent.ended().unwrap().is_some());
    assert_eq!(lab.agent.ended().unwrap().and_then(|status| status.code()), Some(1));
    assert!(lab.agent.log().contains("Read-only file system"), "{}", lab.agent.log());
    lab.disk.as_ref().unwrap().set_read_only(false).unwrap();
    lab.start_again();
    lab.check_works();
}

/// What ext4 does by itself when it finds an error.
#[test]
fn a_disk_that_turns_read_only_under_the_agent_begins_nothing_and_works_again_once_repaired() {
    let mut disk = None;
    let mut lab = Lab::started("", |folder| {
        let state = folder.join(HOST).join("state");
        disk = Some(FailingDisk::mount(&folder.join("image"), &state, FAILING_BYTES).unwrap());
    });
    let mut disk = disk.unwrap();
    lab.agent.wait_ready().unwrap();
    lab.check_works();
    let before = lab.starts().len();
    let change = lab.begin_run("lab.change", &["until=one"]);
    let apart = lab.begin_run("lab.apart", &["until=one"]);
    lab.started_times(before + 2);
    let of_its_own = lab.starts().into_iter().rfind(|start| start.action == "apart").unwrap();
    let runner = lab.runner(&of_its_own.request_id);
    disk.fail().unwrap();
    for kind in KINDS {
        check_refused(&lab, lab.run(&format!("lab.{kind}"), &[]), "Read-only file system");
    }
    assert_eq!(lab.starts().len(), before + 2);
    // What runs in the agent ends and is told. What runs by itself ends, and waits for a disk that takes how.
    lab.open("one");
    let change = change.finish().expect(3);
    assert!(task(&change)["stderr"].as_str().unwrap().contains("Read-only file system"), "{}", change.stdout);
    let (id, code) = id_and_code(&change);
    assert_eq!((code.as_str(), lab.starts_of(&id)), ("failed", 1), "its program could not write its answer");
    eventually("it says so", || lab.agent.log().contains("Could not write an action's reply"));
    assert!(lab.agent.log().contains("Read-only file system"), "{}", lab.agent.log());
    // As a host that is started again does it.
    lab.agent.stop().unwrap();
    kill_hard(runner);
    eventually("nobody has files open", || !lives(runner));
    disk.repair().unwrap();
    lab.start_again();
    let (id, code) = id_and_code(&apart.finish().expect(3));
    assert_eq!((code.as_str(), lab.starts_of(&id)), ("interrupted", 1));
    assert!(!lab.agent.log().contains("panicked"), "{}", lab.agent.log());
    lab.check_works();
    lab.musterd(&["audit", "verify"]).expect(0);
    lab.agent.stop().unwrap();
}

/// An operator's hand in the state directory of an agent that runs.
#[test]
fn a_state_that_is_removed_under_the_agent_is_noticed_and_forgets_no_request() {
    let mut lab = Lab::new();
    let (id, _) = id_and_code(&lab.run("lab.change", &[]).expect(0));
    fs::remove_file(lab.state("journal")).unwrap();
    fs::remove_file(lab.state("audit.jsonl")).unwrap();
    lab.check_works();
    let journal = fs::read_to_string(lab.state("journal")).unwrap();
    assert!(journal.contains(&id), "what it held was written anew");
    assert!(lab.agent.log().contains("The journal was removed by something else"), "{}", lab.agent.log());

    // All of it: nothing begins that could not be recorded.
    let starts = lab.starts().len();
    fs::remove_dir_all(lab.agent.folder().join("state")).unwrap();
    for kind in KINDS {
        check_refused(&lab, lab.run(&format!("lab.{kind}"), &[]), "No such file or directory");
    }
    assert_eq!(lab.starts().len(), starts);
    lab.agent.stop().unwrap();
    lab.start_again();
    lab.check_works();
}

/// Puts bytes into the middle of a file, as a bad block would.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4].copy_from_slice(b"\0\xff\0\xff");
    fs::write(path, bytes).unwrap();
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn damage_is_found_at_the_start_kept_and_told_and_the_agent_works_on() {
    let mut lab = Lab::new();
    lab.check_works();
    lab.check_works();
    lab.agent.kill().unwrap();
    damage(&lab.state("journal"));
    append(&lab.state("journal"), "half a rec");
    fs::write(lab.state("spool").join("019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab.json"), "{\"half\":").unwrap();
    append(&lab.state("audit.jsonl"), "{\"half\":");
    lab.start_again();
    let log = lab.agent.log();
    for said in ["The journal had damage", "A file in the spool is not a report; it was set aside"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert!(lab.state("journal.damaged").exists(), "whoever looks into it finds the bytes as they were");
    lab.check_works();
    // A line that was torn by a crash is not damage of the chain; a line that was changed is.
    lab.musterd(&["audit", "verify"]).expect(0);
    lab.agent.stop().unwrap();
    damage(&lab.state("audit.jsonl"));
    let verified = lab.musterd(&["audit", "verify"]).expect(1);
    assert!(
        format!("{}{}", verified.stdout, verified.stderr).contains("line"),
        "{}{}",
        verified.stdout,
        verified.stderr
    );
}
