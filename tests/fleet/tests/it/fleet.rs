//! Fleets in several processes, and with odd hosts.

use std::time::Duration;

use muster_client::Audience;
use muster_client::discover::ping;
use muster_fleet::inventory::TENTH;
use muster_fleet::{BrokerKind, Fleet, Options};
use muster_protocol::{TaskState, Timestamp};

/// How long a small fleet may take for anything on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

on_both_brokers!(
    a_fleet_in_several_processes_answers_as_one_and_odd_hosts_do_what_they_are_told,
    the_same_ground_takes_one_fleet_after_the_other,
);

async fn a_fleet_in_several_processes_answers_as_one_and_odd_hosts_do_what_they_are_told(broker: BrokerKind) {
    let options = Options {
        broker,
        jitter: Duration::from_millis(50),
        slow: 2,
        slow_latency: Duration::from_millis(300),
        silent: 3,
        absent: 4,
        hosts_per_process: Some(15),
        ..Options::new(40)
    };
    let fleet = Fleet::start(options, LIMIT).await.unwrap();
    assert_eq!(fleet.processes(), 3);
    let state = fleet.state(Timestamp(0)).await.unwrap();
    assert_eq!((state.agents, state.online, state.counted.connected), (36, 36, 36), "{state:?}");
    assert!(state.usage.resident_bytes > 0 && state.failed.is_none());

    let mut controller = fleet.controller().await.unwrap();
    let answering: std::collections::BTreeSet<_> = fleet.answering().cloned().collect();
    assert_eq!(answering.len(), 33);
    let everyone = ping(Audience::Everyone, 20_000, answering.clone());
    let summary = controller.ask(&everyone).unwrap().finish().await;
    assert_eq!(summary.counts.of(TaskState::Succeeded), 33);
    let silent = fleet.hosts().filter(|host| !answering.contains(*host));
    assert!(silent.into_iter().all(|host| !summary.hosts.contains_key(host)));
    // Hosts are numbered from 0: 3, 13 and 23 answer, 33 is silent.
    let tenth = ping(Audience::Matching(TENTH.to_owned()), 2_000, Default::default());
    let summary = controller.ask(&tenth).unwrap().finish().await;
    assert_eq!(
        summary.counts.of(TaskState::Succeeded),
        4 - usize::from(!answering.contains(fleet.hosts().nth(33).unwrap()))
    );
    controller.close().await;

    fleet.restart_meter().await.unwrap();
    assert_eq!(fleet.state(Timestamp(0)).await.unwrap().counted.attempts, 0);
    let left = fleet.stop().await.unwrap();
    assert_eq!(left.failed, 0, "{left:?}");
}

async fn the_same_ground_takes_one_fleet_after_the_other(broker: BrokerKind) {
    let ground = muster_fleet::Ground::prepare(broker, 12, 3).unwrap();
    assert!(
        Fleet::start_on(muster_fleet::Ground::prepare(broker, 1, 3).unwrap(), Options::new(2), LIMIT).await.is_err()
    );
    let fleet = Fleet::start_on(ground, Options::new(5), LIMIT).await.unwrap();
    let (left, ground) = fleet.leave().await;
    assert_eq!(left.unwrap().failed, 0);
    assert_eq!(ground.queues().unwrap().len(), 5, "an agent's queue outlives it");
    ground.clear().unwrap();
    let fleet = Fleet::start_on(ground, Options::new(12), LIMIT).await.unwrap();
    assert_eq!(fleet.online(Timestamp(0)).await.unwrap(), 12);
    fleet.stop().await.unwrap();
}

/// Starts `muster-fleet run` with a directory for everything it writes, and interrupts it once it says `when`.
fn interrupt(when: &str, more: &[&str]) -> (std::process::ExitStatus, tempfile::TempDir) {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let directory = tempfile::tempdir().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_muster-fleet"))
        .args(["run", "--hosts", "6", "--state"])
        .arg(directory.path())
        .args(more)
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stderr.take().unwrap()).lines();
    let said = lines.by_ref().map(Result::unwrap).find(|line| line.contains(when));
    assert!(said.is_some(), "it never says `{when}`");
    kill(Pid::from_raw(i32::try_from(program.id()).unwrap()), Signal::SIGINT).unwrap();
    // Until it has ended, and so has everybody whom it handed its standard error.
    lines.for_each(drop);
    (program.wait().unwrap(), directory)
}

#[test]
fn whenever_a_fleet_is_interrupted_nothing_is_left_behind() {
    // When, further arguments, exit code.
    let cases: [(&str, &[&str], i32); 6] = [
        ("certificates", &[], 130),
        ("RabbitMQ with", &["--broker", "rabbitmq"], 130),
        ("embedded broker, for", &["--broker", "embedded"], 130),
        ("0 of 6 agents connected", &["--hosts-per-process", "3"], 130),
        ("agents hold", &["--hosts-per-process", "3"], 0),
        ("agents hold", &["--broker", "embedded"], 0),
    ];
    for (when, more, code) in cases {
        let (status, directory) = interrupt(when, more);
        assert_eq!(status.code(), Some(code), "at `{when}`");
        let deadline = std::time::Instant::now() + LIMIT;
        let left =
            || std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        while !left().is_empty() {
            assert!(std::time::Instant::now() < deadline, "interrupted at `{when}`, it leaves {:?}", left());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
