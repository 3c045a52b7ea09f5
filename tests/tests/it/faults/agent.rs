//! The agent is killed, stopped for a while, and started again, also as another program.

use std::fs;
use std::time::Duration;

use muster_tests::programs::program;
use nix::sys::signal::Signal;
use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::lab::{Lab, ends, eventually, id_and_code, lives, random, task};

/// How often each kind of action has its agent killed.
const KILLS: usize = 8;

/// What has happened when the agent is killed, a random moment later.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The command line has been started.
    Asked,
    /// The request is in the journal.
    Recorded,
    /// The program of the plugin runs.
    Started,
    /// The end is in the audit log.
    Ended,
}

impl Moment {
    const ALL: [Self; 4] = [Self::Asked, Self::Recorded, Self::Started, Self::Ended];

    fn has_come(self, lab: &Lab, before: &Before) -> bool {
        match self {
            Self::Asked => true,
            Self::Recorded => length(lab, "journal") > before.journal,
            Self::Started => lab.starts().len() > before.starts,
            Self::Ended => ends(lab) > before.ends,
        }
    }
}

/// What there was before the request.
struct Before {
    journal: u64,
    starts: usize,
    ends: usize,
}

fn length(lab: &Lab, file: &str) -> u64 {
    fs::metadata(lab.state(file)).map_or(0, |meta| meta.len())
}

/// The journal and the audit log are whole, whatever happened to the process that wrote them.
#[track_caller]
fn check_records(lab: &Lab) {
    lab.musterd(&["audit", "verify"]).expect(0);
    let log = lab.agent.log();
    assert!(!log.contains("The journal had damage"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// Kills the agent at random moments of a request, over and over.
fn kill_at_random_moments(action: &str, random: &mut SmallRng) {
    let mut lab = Lab::new();
    for round in 0..KILLS {
        let before = Before { journal: length(&lab, "journal"), starts: lab.starts().len(), ends: ends(&lab) };
        let moment = Moment::ALL[random.random_range(0..Moment::ALL.len())];
        // Between its end and the broker's confirmation lie a few milliseconds, and both losses that this test has found.
        let longest_us = if matches!(moment, Moment::Ended) { 8_000 } else { 40_000 };
        let later = Duration::from_micros(random.random_range(0..longest_us));
        let run = lab.begin_run(&format!("lab.{action}"), &[]);
        eventually(&format!("{moment:?}"), || moment.has_come(&lab, &before));
        std::thread::sleep(later);
        lab.agent.kill().unwrap();
        lab.start_again();
        let finished = run.finish();
        let (id, code) = id_and_code(&finished);
        let starts = lab.starts_of(&id);
        let what = format!("round {round}: {moment:?} and {later:?}: {code}, {starts} starts\n{}", lab.agent.log());
        assert!(starts <= 1, "{what}");
        match code.as_str() {
            "ok" => assert_eq!((starts, finished.code), (1, 0), "{what}"),
            // The agent died after it had promised an answer, and before the action's own process had begun.
            "start-failed" if action == "apart" => {
                assert_eq!((starts, finished.code), (0, 3), "{what}");
                let message = task(&finished)["message"].as_str().unwrap().to_owned();
                assert!(message.ends_with("so nothing was done"), "{message}");
            }
            "interrupted" => {
                // What runs by itself is not interrupted by the agent's end, unless it was not there yet.
                assert!(action != "apart" || starts == 0, "{what}");
                assert_eq!(finished.code, 3, "{what}");
                let message = task(&finished)["message"].as_str().unwrap().to_owned();
                assert!(message.starts_with("the agent or the host stopped while the action ran"), "{message}");
                let is_known = action == "read" || message.ends_with("; what it did is not known");
                assert!(is_known, "{message}");
            }
            _ => panic!("{what}\n{}", finished.stdout),
        }
        check_records(&lab);
    }
    // It works as if nothing had been.
    lab.run(&format!("lab.{action}"), &[]).expect(0);
}

#[test]
fn an_agent_killed_at_any_moment_starts_nothing_twice_and_tells_what_it_did_not_finish() {
    kill_at_random_moments("change", &mut random());
}

#[test]
fn an_agent_killed_at_any_moment_finds_its_detached_action_and_tells_how_it_really_ended() {
    kill_at_random_moments("apart", &mut random());
}

#[test]
fn an_agent_killed_at_any_moment_of_a_reading_action_reads_once_and_says_so() {
    kill_at_random_moments("read", &mut random());
}

/// An agent that does not run is dropped by the broker, and what it had taken without an acknowledgement comes again.
#[test]
fn an_agent_that_was_stopped_for_a_while_takes_up_where_it_was() {
    let lab = Lab::new();
    let change = lab.begin_run("lab.change", &["until=one"]);
    let apart = lab.begin_run("lab.apart", &["until=one"]);
    lab.started_times(2);
    lab.agent.signal(Signal::SIGSTOP).unwrap();
    lab.open("one");
    let silent = lab.run("lab.read", &["--reply-timeout", "1s"]).expect(5);
    assert_eq!(task(&silent)["state"], "no_reply", "{}", silent.stdout);
    // It waits for the host.
    let waiting = lab.begin_run("lab.read", &["--reply-timeout", "60s"]);
    waiting.record("accepted");
    lab.agent.signal(Signal::SIGCONT).unwrap();
    for run in [change, apart, waiting] {
        let (id, code) = id_and_code(&run.finish().expect(0));
        assert_eq!((code.as_str(), lab.starts_of(&id)), ("ok", 1));
    }
    check_records(&lab);
}

#[test]
fn an_agent_restarted_or_upgraded_under_an_action_of_its_own_tells_how_it_really_ended() {
    let mut lab = Lab::new();
    let musterd = program("musterd").unwrap();
    let folder = lab.stage.folder().to_owned();
    let (older, newer) = (folder.join("musterd-older"), folder.join("musterd-newer"));
    for copy in [&older, &newer] {
        fs::copy(&musterd, copy).unwrap();
    }
    lab.agent.stop().unwrap();
    lab.start_again_as(&older, &[]);
    let run = lab.begin_run("lab.apart", &["until=one"]);
    let start = lab.started_times(1);
    // As a package does it: the file is replaced first, then the agent is told to stop.
    fs::remove_file(&older).unwrap();
    assert!(lab.agent.stop().unwrap().success(), "it does not wait for what runs by itself");
    lab.start_again_as(&newer, &[]);
    assert!(lives(start.pid), "it goes on");
    lab.open("one");
    let (id, code) = id_and_code(&run.finish().expect(0));
    assert_eq!((code.as_str(), lab.starts_of(&id)), ("ok", 1));
    check_records(&lab);
    lab.check_works();
}

/// What runs in the agent itself is waited for; what is sent meanwhile is done by the next one.
#[test]
fn an_agent_that_is_told_to_stop_waits_for_its_actions_and_the_next_one_does_the_rest() {
    let mut lab = Lab::new();
    let run = lab.begin_run("lab.change", &["until=one"]);
    lab.started_times(1);
    lab.agent.signal(Signal::SIGTERM).unwrap();
    eventually("it stops", || lab.agent.log().contains("Stopping running=1"));
    let next = lab.begin_run("lab.change", &["--reply-timeout", "60s"]);
    next.record("accepted");
    lab.open("one");
    eventually("it ends", || lab.agent.ended().unwrap().is_some());
    assert!(lab.agent.ended().unwrap().unwrap().success());
    assert_eq!(task(&run.finish().expect(0))["code"], "ok");
    assert_eq!(lab.starts().len(), 1);
    lab.start_again();
    let (id, code) = id_and_code(&next.finish().expect(0));
    assert_eq!((code.as_str(), lab.starts_of(&id)), ("ok", 1));
}
