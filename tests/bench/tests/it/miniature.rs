//! Every scenario with ten hosts and a real broker: is everything there and complete? No time is looked at.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use muster_bench::page::{FILE_PAGE, FILE_RESULTS};
use muster_bench::results::{Quantity, Results, Scenario};
use muster_fleet::BrokerKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const HOSTS: usize = 10;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

fn bench(arguments: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_muster-bench"));
    assert!(
        ["muster", "musterd"].iter().all(|name| program.with_file_name(name).is_file()),
        "`muster` and `musterd` are not built; run `cargo build --workspace --bins`"
    );
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a scenario must have measured, besides what every exchange has.
fn expected(scenario: Scenario) -> BTreeSet<Quantity> {
    use Quantity as Q;
    let exchange = [
        Q::CompleteMs,
        Q::EndedMs,
        Q::RawCompleteMs,
        Q::ControllerUs,
        Q::AgentsUs,
        Q::RawOwnUs,
        Q::BrokerUs,
        Q::RawBrokerUs,
        Q::ControllerPeakBytes,
        Q::CommandBytes,
        Q::ReplyBytes,
        Q::Reports,
    ];
    match scenario {
        Scenario::Run64k => exchange.into_iter().chain([Q::ProgramMs, Q::ProgramPeakBytes]).collect(),
        Scenario::Ping | Scenario::Filter | Scenario::Run1k | Scenario::Named | Scenario::Two | Scenario::Lapin => {
            exchange.into()
        }
        Scenario::Storm => {
            [Q::ReadyPerSecond, Q::RawReadyPerSecond, Q::FleetBytes, Q::BrokerBytes, Q::ConnectionBytes].into()
        }
        Scenario::Cpu => [Q::ProgramStartUs, Q::ProgramUs, Q::ProgramMs, Q::ProgramPeakBytes].into(),
        Scenario::Idle => [
            Q::IdlePssBytes,
            Q::IdleRefreshedPssBytes,
            Q::IdlePrivateBytes,
            Q::AgentBinaryBytes,
            Q::IdleUsPerMinute,
            Q::IdleWakeUpsPerMinute,
            Q::IdleTlsPerMinute,
            Q::IdleWirePerMinute,
        ]
        .into(),
        Scenario::Few => [
            Q::ColdFirstByteMs,
            Q::ColdExitMs,
            Q::WarmFirstByteMs,
            Q::WarmExitMs,
            Q::NamedFirstByteMs,
            Q::NamedExitMs,
            Q::ProgramStartUs,
            Q::ProgramPeakBytes,
        ]
        .into(),
    }
}

#[test]
fn every_scenario_is_complete_with_ten_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let out_text = out.to_str().unwrap();
    let arguments = ["--hosts", "10", "--rounds", "1", "--idle-s", "1", "--date", "2026-01-02T03:04:05Z"];
    let output = bench(&[&arguments[..], &["--revision", "abc", "--out", out_text]].concat()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");

    let results = Results::load(&out.join(FILE_RESULTS)).unwrap();
    let run = &results.runs[0];
    assert_eq!((run.taken_at.as_str(), run.revision.as_deref(), run.rounds), ("2026-01-02T03:04:05Z", Some("abc"), 1));
    let found: Vec<_> = results.outcomes.iter().map(|outcome| (outcome.scenario, outcome.broker)).collect();
    let expected_outcomes: Vec<_> =
        Scenario::ALL.iter().flat_map(|scenario| BrokerKind::ALL.map(|broker| (*scenario, broker))).collect();
    assert_eq!(found, expected_outcomes, "{stderr}");
    for outcome in &results.outcomes {
        let scenario = outcome.scenario;
        assert_eq!((&outcome.failed, &outcome.baseline_failed), (&None, &None), "{scenario:?}\n{stderr}");
        let quantities: BTreeSet<Quantity> = outcome.samples.keys().copied().collect();
        assert_eq!(quantities, expected(scenario), "{scenario:?}");
        if scenario.needs_fleet() {
            assert_eq!(outcome.hosts, HOSTS);
        }
        for (quantity, samples) in &outcome.samples {
            // Of a few replies the difference of two processes may be anything.
            // So few connections may fit into memory that the broker has already.
            let any = matches!(quantity, Quantity::ProgramUs | Quantity::ConnectionBytes);
            let sound = |sample: &f64| sample.is_finite() && (*sample > 0.0 || any);
            // An agent that is looked at for a second may say nothing in it.
            let quiet = matches!(
                quantity,
                Quantity::IdleTlsPerMinute | Quantity::IdleWirePerMinute | Quantity::IdleWakeUpsPerMinute
            );
            assert!(
                !samples.is_empty() && (quiet || samples.iter().all(sound)),
                "{scenario:?} {quantity:?} {samples:?}"
            );
        }
    }
    // Reports of 64 KiB are longer than that, and one command names its ten hosts.
    let large = results.of(Scenario::Run64k).next().unwrap();
    assert!(large.spread(Quantity::ReplyBytes).unwrap().median > 65_536.0);

    let page = std::fs::read_to_string(out.join(FILE_PAGE)).unwrap();
    assert!(page.contains("| full ping | 10 | embedded |") && page.contains("](ratio.svg)"), "{page}");
    assert!(stdout.contains("Times against the raw echo\n") && !stdout.contains("failed"), "{stdout}");

    // The page again, from the results alone.
    let again = folder.path().join("again");
    let file = out.join(FILE_RESULTS);
    let rendered = bench(&["--render", file.to_str().unwrap(), "--out", again.to_str().unwrap()]).output().unwrap();
    assert!(rendered.status.success());
    assert_eq!(std::fs::read_to_string(again.join(FILE_PAGE)).unwrap(), page);
}

/// Processes with this word in their environment.
fn marked(mark: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let has_mark = |path: &PathBuf| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
    };
    entries.filter(has_mark).collect()
}

#[test]
fn an_interrupted_benchmark_leaves_no_process_and_keeps_what_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mark = format!("MUSTER_BENCH_TEST={}", folder.path().display());
    let (name, value) = mark.split_once('=').unwrap();
    let mut child =
        bench(&["--hosts", "10", "--rounds", "300", "--only", "ping,named", "--out", out.to_str().unwrap()])
            .env(name, value)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    // The ping is over once the next one begins.
    assert!(lines.any(|line| line.contains("hosts: 100 named hosts")), "the second scenario did not begin");
    assert!(marked(&mark).len() >= 3, "benchmark, stage and controller: {:?}", marked(&mark));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(!child.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("stopped before everything was measured")), "{rest:?}");
    let began = Instant::now();
    while !marked(&mark).is_empty() {
        assert!(began.elapsed() < LIMIT, "left behind: {:?}", marked(&mark));
        std::thread::sleep(Duration::from_millis(50));
    }
    let results = Results::load(&out.join(FILE_RESULTS)).unwrap();
    let found: Vec<Scenario> = results.outcomes.iter().map(|outcome| outcome.scenario).collect();
    assert_eq!(found, [Scenario::Ping]);
}
