//! The runner, with real processes.

mod children;
mod streams;
mod user;

use std::fs;
use std::path::Path;
use std::time::Duration;

use muster_plugin_api::CancellationToken;
use muster_plugins::process::{End, Program, Run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{alive, dies, script, until};

const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(300);

fn shell(text: &str, limit: Duration) -> Program {
    Program::new("/bin/sh", limit).arguments(["-c", text, "sh"]).grace(SHORT)
}

async fn run(program: &Program) -> Run {
    program.run(&CancellationToken::new()).await
}

fn pid(run: &Run) -> i32 {
    run.stdout.text().trim().parse().unwrap_or_else(|_| panic!("no process number in {run:?}"))
}

#[tokio::test]
async fn exit_code_and_both_outputs() {
    let program = shell("echo out; echo err >&2; exit 3", LONG);
    let run = run(&program).await;
    assert!(matches!(run.end, End::Exited(3)), "{run:?}");
    assert_eq!((run.stdout.text().as_str(), run.stderr.text().as_str()), ("out\n", "err\n"));
    assert_eq!((run.left_behind, run.output_held_open), (0, false));
    let failure = run.failure(&program, 3);
    assert_eq!((failure.message.as_str(), failure.exit_code), ("`sh` ended with exit code 3: err", Some(3)));
}

#[tokio::test]
async fn arguments_are_never_a_shells_text() {
    let run = run(&Program::new("/bin/echo", LONG).arguments(["$(id)", "a;b", "`x`", "'"])).await;
    assert_eq!(run.stdout.text(), "$(id) a;b `x` '\n");
}

#[tokio::test]
async fn the_environment_is_clean_and_there_is_no_input() {
    let run_ = run(&Program::new("/usr/bin/env", LONG).variable("EXTRA", "1")).await;
    let mut variables: Vec<_> = run_.stdout.text().lines().map(str::to_owned).collect();
    variables.sort();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(variables, ["EXTRA=1", "HOME=/", "LC_ALL=C", path, "TZ=UTC"]);
    let run_ = run(&shell("cat; pwd", LONG)).await;
    assert_eq!(run_.stdout.text(), "/\n");
}

#[tokio::test]
async fn a_program_that_cannot_start_is_an_end_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    fs::write(&plain, "not a program").unwrap();
    let lost = directory.path().join("lost");
    script(&lost, "#!/no/such/interpreter -x\necho never\n");
    let garbage = directory.path().join("garbage");
    script(&garbage, "echo this is no script");
    for (path, why) in [
        (Path::new("/no/such/program"), "it does not exist"),
        (&plain, "it is not executable"),
        (directory.path(), "it is a directory"),
        (&lost, "its interpreter `/no/such/interpreter` does not exist"),
        (&garbage, "it is neither a program of this system nor a script whose first line names its interpreter"),
    ] {
        let program = Program::new(path, LONG);
        let run = run(&program).await;
        assert!(matches!(run.end, End::StartFailed(_)), "{run:?}");
        let failure = run.exit_code(&program).unwrap_err();
        assert_eq!(failure.code.code, "start-failed");
        assert!(failure.message.ends_with(&format!("could not be started: {why}")), "{failure}");
    }
    let elsewhere = Program::new("/bin/true", LONG).working_directory(&plain);
    let failure = run(&elsewhere).await.exit_code(&elsewhere).unwrap_err();
    assert!(failure.message.ends_with("/plain` is not a directory"), "{failure}");
}

#[tokio::test]
async fn output_is_kept_up_to_a_limit_and_counted_beyond() {
    let program = shell("head -c 1000000 /dev/zero; echo much >&2", LONG).output_bytes_max(1000);
    let run = run(&program).await;
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    assert_eq!((run.stdout.bytes.len(), run.stdout.total_bytes), (1000, 1_000_000));
    assert!(run.stdout.is_truncated() && !run.stderr.is_truncated());
    let failure = run.exit_code(&program).unwrap_err();
    assert_eq!(failure.message, "`sh` wrote 1000000 bytes, more than the 1000 that are kept");
}

#[tokio::test]
async fn a_signal_from_elsewhere_is_reported() {
    let program = shell("kill -KILL $$", LONG);
    let run = run(&program).await;
    assert!(matches!(run.end, End::Signalled(9)), "{run:?}");
    let failure = run.exit_code(&program).unwrap_err();
    assert_eq!((failure.code.code, failure.message.as_str()), ("signalled", "`sh` was ended by signal SIGKILL"));
}

#[tokio::test]
async fn a_crash_is_a_signal_and_leaves_no_image_of_the_memory() {
    let directory = tempfile::tempdir().unwrap();
    let program = shell("ulimit -c; kill -SEGV $$", LONG).working_directory(directory.path());
    let run = run(&program).await;
    assert!(matches!(run.end, End::Signalled(11)), "{run:?}");
    assert_eq!((run.stdout.text().as_str(), run.core_dumped), ("0\n", false));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    assert_eq!(run.exit_code(&program).unwrap_err().message, "`sh` was ended by signal SIGSEGV");
}

#[tokio::test]
async fn who_ignores_the_polite_signal_is_killed_after_the_grace() {
    let run = run(&shell("trap '' TERM; echo $$; while :; do sleep 1; done", SHORT)).await;
    assert!(matches!(run.end, End::TimedOut), "{run:?}");
    dies(pid(&run)).await;
}

#[tokio::test]
async fn after_its_time_it_is_stopped() {
    let program = shell("exec sleep 1000", SHORT);
    let run = run(&program).await;
    assert!(matches!(run.end, End::TimedOut), "{run:?}");
    let failure = run.exit_code(&program).unwrap_err();
    assert_eq!((failure.code.code, failure.message.as_str()), ("timed-out", "`sh` did not end within 300ms"));
}

/// Runs a shell's text that makes the file `$1` when it is ready, and cancels it then.
async fn run_until_ready(text: &str, grace: Duration) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let program = shell(text, LONG).argument(&ready).grace(grace);
    let cancel = CancellationToken::new();
    let (run, ()) = tokio::join!(program.run(&cancel), async {
        until(|| ready.exists(), |exists| *exists).await;
        cancel.cancel();
    });
    assert!(matches!(run.end, End::Cancelled), "{run:?}");
    assert_eq!(run.exit_code(&program).unwrap_err().code.code, "cancelled");
    run
}

#[tokio::test]
async fn it_is_asked_politely_first() {
    let text = "trap 'echo bye; exit 0' TERM; : > \"$1\"; while :; do sleep 0.01; done";
    assert_eq!(run_until_ready(text, LONG).await.stdout.text(), "bye\n");
}

#[tokio::test]
async fn it_can_be_cancelled() {
    let run = run_until_ready("echo $$; : > \"$1\"; exec sleep 1000", LONG).await;
    dies(pid(&run)).await;
}

#[tokio::test]
async fn a_grandchild_that_ignores_the_polite_signal_dies_too() {
    let text = "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo $!; : > \"$1\"; wait; sleep 1000";
    let run = run_until_ready(text, SHORT).await;
    dies(pid(&run)).await;
}

#[tokio::test]
async fn a_grandchild_outlives_neither_the_program_nor_its_grace() {
    let text = "(trap '' TERM; : > \"$1\"; while :; do sleep 1; done) & echo $!; wait";
    let run = run_until_ready(text, SHORT).await;
    assert!(run.left_behind > 0, "{run:?}");
    dies(pid(&run)).await;
}

#[tokio::test]
async fn what_it_leaves_behind_is_found_and_stopped() {
    let run = run(&shell("sleep 1000 & echo $!", LONG)).await;
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    assert_eq!((run.left_behind, run.output_held_open), (1, false));
    dies(pid(&run)).await;
}

#[tokio::test]
async fn jobs_in_groups_of_their_own_are_found_too() {
    let program = Program::new("/bin/bash", LONG).arguments(["-c", "set -m; sleep 1000 >/dev/null 2>&1 & echo $!"]);
    let run = run(&program.grace(SHORT)).await;
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    assert_eq!(run.left_behind, 1);
    dies(pid(&run)).await;
}

#[tokio::test]
async fn a_daemon_that_left_on_purpose_is_left_alone_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let text = "setsid -f sh -c 'echo $$ > \"$1.new\"; mv \"$1.new\" \"$1\"; exec sleep 1000' sh \"$1\"; \
                while [ ! -s \"$1\" ]; do sleep 0.01; done; cat \"$1\"";
    let run = run(&shell(text, LONG).argument(&file)).await;
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    let daemon = pid(&run);
    assert!(alive(daemon).is_some());
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    dies(daemon).await;
    assert_eq!((run.left_behind, run.output_held_open), (0, true));
}

#[tokio::test]
async fn what_is_cancelled_before_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let started = directory.path().join("started");
    let cancel = CancellationToken::new();
    cancel.cancel();
    let run = shell(": > \"$1\"", LONG).argument(&started).run(&cancel).await;
    assert!(matches!(run.end, End::Cancelled), "{run:?}");
    assert!(!started.exists());
}

#[tokio::test]
async fn who_drops_the_future_ends_the_whole_session() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pids");
    let text = "trap '' TERM; sleep 1000 & echo $$ $! > \"$1.new\"; mv \"$1.new\" \"$1\"; wait; sleep 1000";
    let program = shell(text, LONG).argument(&file);
    let cancel = CancellationToken::new();
    tokio::select! {
        run = program.run(&cancel) => panic!("it ended: {run:?}"),
        _ = until(|| file.exists(), |exists| *exists) => {}
    }
    for pid in fs::read_to_string(&file).unwrap().split_ascii_whitespace() {
        dies(pid.parse().unwrap()).await;
    }
}

#[tokio::test]
async fn a_script_runs_by_its_interpreter() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script");
    script(&path, "#!/bin/sh\necho \"$1\"\n");
    assert_eq!(run(&Program::new(&path, LONG).argument("x y")).await.stdout.text(), "x y\n");
}
