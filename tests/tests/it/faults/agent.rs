//! The agent is killed, stopped for a while, and started again, also as another program.

use std::fs;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::lab::{Lab, ends, eventually, id_and_code, random, task};

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
        let later = Duration::from_micros(random.random_range(0..40_000));
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
