//! The broker is killed, hangs, and takes nothing because it lacks memory or disk, each in the middle of actions.

use std::time::Duration;

use muster_tests::broker::{Shortage, TestBus};
use muster_tests::stage::Stage;
use nix::sys::signal::Signal;
use rand::RngExt as _;

use super::BROKER;
use super::lab::{HOST, IDENTITIES, KINDS, Lab, eventually, id_and_code, lives, random};

/// The host of the lab on the node that may be broken.
pub(super) struct Broken {
    pub(super) lab: Lab,
}

impl Broken {
    pub(super) fn new() -> Self {
        let mut lab = Lab::started_on(Stage::on(BROKER.breakable(IDENTITIES)), "", |_| {});
        lab.agent.wait_ready().unwrap();
        Self { lab }
    }

    /// The broker's operator's hands.
    pub(super) fn broker(&self) -> &TestBus {
        &self.lab.stage.bus
    }
}

/// Long enough for a host that comes back to a broker on a busy machine.
const PATIENT: [&str; 2] = ["--reply-timeout", "100s"];

#[test]
fn a_broker_killed_at_any_moment_of_a_run_loses_no_command_and_no_end() {
    let broken = Broken::new();
    let (lab, mut random) = (&broken.lab, random());
    for (action, word) in KINDS.into_iter().zip(["one", "two", "three"]) {
        let before = lab.starts().len();
        let until = format!("until={word}");
        let run = lab.begin_run(&format!("lab.{action}"), &[&[until.as_str()], &PATIENT[..]].concat());
        let begun = random.random_bool(0.5);
        if begun {
            lab.started_times(before + 1);
        }
        let later = Duration::from_micros(random.random_range(0..200_000));
        std::thread::sleep(later);
        broken.broker().kill().unwrap();
        // It ends while there is no broker, if it has begun.
        lab.open(word);
        broken.broker().resume().unwrap();
        let finished = run.finish();
        let what =
            format!("{action}, begun {begun}, {later:?}\n{}{}{}", finished.stdout, finished.stderr, lab.agent.log());
        match finished.code {
            0 => {
                let (id, code) = id_and_code(&finished);
                assert_eq!((lab.starts_of(&id), code.as_str()), (1, "ok"), "{what}");
                if begun {
                    assert!(
                        finished.stderr.contains("no answers for now: the connection to the broker broke"),
                        "{what}"
                    );
                    assert!(finished.stderr.contains("answers can come again"), "{what}");
                }
            }
            // It had not connected yet.
            7 => {
                assert!(!begun && lab.starts().len() == before, "{what}");
                assert!(finished.stderr.contains("error[broker-"), "{what}");
            }
            _ => panic!("{what}"),
        }
    }
    lab.run("lab.change", &PATIENT).expect(0);
}

#[test]
fn a_broker_that_hangs_is_noticed_and_everything_goes_on_when_it_does() {
    let broken = Broken::new();
    let lab = &broken.lab;
    let run = lab.begin_run("lab.apart", &[&["until=one"], &PATIENT[..]].concat());
    lab.started_times(1);
    broken.broker().signal(Signal::SIGSTOP).unwrap();
    lab.open("one");
    let ping = lab.begin(&["ping", "-H", HOST]);
    eventually("the command line notices", || run.stderr().contains("no answers for now"));
    eventually("the agent notices", || lab.agent.log().contains("Not connected to the broker"));
    let told = ping.finish().expect(7);
    assert!(
        told.stderr.contains("error[broker-unreachable]") && told.stderr.contains("did not answer in time"),
        "{}",
        told.stderr
    );
    broken.broker().signal(Signal::SIGCONT).unwrap();
    let finished = run.finish().expect(0);
    let (id, code) = id_and_code(&finished);
    assert_eq!((lab.starts_of(&id), code.as_str()), (1, "ok"), "{}", finished.stdout);
    lab.run("lab.change", &PATIENT).expect(0);
}

/// Runs through an alarm of the broker: what was begun before it ends after it, and what is begun in it waits.
#[track_caller]
fn goes_on_after(shortage: Shortage) {
    let broken = Broken::new();
    let lab = &broken.lab;
    let before = lab.begin_run("lab.apart", &["until=one"]);
    let start = lab.started_times(1);
    broken.broker().starve(shortage).unwrap();
    lab.open("one");
    eventually("the action ends", || !lives(start.pid));
    let during = lab.begin_run("lab.change", &PATIENT);
    during.record("plan");
    assert_eq!(lab.starts().len(), 1, "the broker takes nothing");
    broken.broker().feed(shortage).unwrap();
    for run in [before, during] {
        let finished = run.finish().expect(0);
        let (id, code) = id_and_code(&finished);
        assert_eq!((lab.starts_of(&id), code.as_str()), (1, "ok"), "{}", finished.stdout);
    }
}

#[test]
fn a_broker_without_disk_takes_nothing_and_everything_goes_on_after_it() {
    goes_on_after(Shortage::Disk);
}

#[test]
fn a_broker_without_memory_takes_nothing_and_everything_goes_on_after_it() {
    goes_on_after(Shortage::Memory);
}

#[test]
fn a_command_that_a_starved_broker_does_not_take_says_so() {
    let broken = Broken::new();
    broken.broker().starve(Shortage::Memory).unwrap();
    let told = broken.lab.run("lab.change", &[]);
    broken.broker().feed(Shortage::Memory).unwrap();
    assert_eq!(told.code, 5, "{}{}", told.stdout, told.stderr);
    assert!(told.stdout.contains("unconfirmed"), "{}", told.stdout);
    // It may have gone out and may run once the broker takes it, as was said, and once at most.
    broken.lab.run("lab.read", &PATIENT).expect(0);
    let (id, _) = id_and_code(&told);
    assert!(broken.lab.starts_of(&id) <= 1, "{:?}", broken.lab.starts());
}
