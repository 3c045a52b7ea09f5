//! The test kit's own embedded broker: it ends with its owner, however that ends.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use muster_tests::broker::Broker as _;
use muster_tests::embedded::Embedded;
use muster_tests::programs::PATIENCE;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::BROKER;

fn start() -> Embedded {
    Embedded::start(BROKER.options().admitting(["user/lea"])).unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_broker_leaves_nothing_behind() {
    let broker = start();
    let (pid, directory) = (broker.pid().unwrap(), broker.directory().to_owned());
    broker.stop().unwrap();
    assert!(kill(Pid::from_raw(i32::try_from(pid).unwrap()), None).is_err(), "the process still runs");
    drop(broker);
    assert!(!directory.exists(), "{}", directory.display());
}

/// Set for the process that [`a_broker_dies_with_its_process`] kills: the file it writes pid and directory to.
const HOLD: &str = "MUSTER_TEST_HOLD_BROKER";

#[test]
fn a_broker_dies_with_its_process() {
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::embedded_broker::holds_a_broker_for_another_test"])
        .env(HOLD, report.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let read = || {
        let text = std::fs::read_to_string(report.path()).unwrap_or_default();
        let (pid, directory) = text.strip_suffix('\n')?.split_once(' ')?;
        Some((Pid::from_raw(pid.parse().ok()?), PathBuf::from(directory)))
    };
    wait_until("the other process starts a broker", || read().is_some());
    let (pid, directory) = read().unwrap();
    assert!(kill(pid, None).is_ok(), "the broker runs");
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_until("its directory is removed", || !directory.exists());
    // Whoever takes care of orphans on this machine may take his time with one that is over.
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    wait_until("the broker ends", || state().rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')));
}

/// Not a test by itself: the process that [`a_broker_dies_with_its_process`] starts and kills.
#[test]
fn holds_a_broker_for_another_test() {
    let Some(report) = std::env::var_os(HOLD) else { return };
    let broker = start();
    std::fs::write(report, format!("{} {}\n", broker.pid().unwrap(), broker.directory().display())).unwrap();
    // Longer than anybody waits: the other test kills this process long before.
    std::thread::sleep(4 * PATIENCE);
}
