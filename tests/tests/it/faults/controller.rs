//! The command line goes away in the middle: killed, told to end, its terminal closed, its reader gone.

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lab::{Begun, HOST, Lab, kill_hard, task};

/// What goes on without the command line, by one that joins before the end and one that comes after it.
#[track_caller]
fn check_goes_on(lab: &Lab, request_id: &str, word: &str) {
    let watch = lab.begin(&["watch", request_id, "-H", HOST, "--jsonl"]);
    watch.record("accepted");
    lab.open(word);
    let finished = watch.finish().expect(0);
    assert_eq!(task(&finished)["data"]["text"], "done", "{}", finished.stdout);
    let after = lab.lea.run(&["watch", request_id, "-H", HOST, "--jsonl"]).unwrap().expect(0);
    assert_eq!(task(&after)["code"], "ok", "{}", after.stdout);
    assert_eq!(lab.starts_of(request_id), 1);
}

#[test]
fn a_command_line_that_is_killed_changes_nothing_and_its_request_can_be_watched() {
    let lab = Lab::new();
    for (round, (action, word)) in [("change", "one"), ("apart", "two")].into_iter().enumerate() {
        let run = lab.begin_run(&format!("lab.{action}"), &[&format!("until={word}")]);
        let start = lab.started_times(round + 1);
        kill_hard(run.pid());
        drop(run);
        // It wrote down what it had asked before it asked.
        let listed = lab.lea.run(&["request", "list", "--json"]).unwrap().expect(0).json().unwrap();
        assert_eq!(listed["requests"][0]["request_id"], start.request_id.as_str(), "{listed}");
        check_goes_on(&lab, &start.request_id, word);
    }
    // A report that nobody takes holds up nothing.
    lab.check_works();
}

#[test]
fn a_command_line_that_is_told_to_end_says_what_goes_on() {
    let lab = Lab::new();
    let signals = [(Signal::SIGINT, "one"), (Signal::SIGTERM, "two")];
    for (round, (signal, word)) in signals.into_iter().enumerate() {
        let run = lab.begin_run("lab.apart", &[&format!("until={word}")]);
        let start = lab.started_times(round + 1);
        kill(Pid::from_raw(run.pid()), signal).unwrap();
        let ended = run.finish().expect(130);
        assert!(ended.stderr.contains("interrupted; 1 host that was asked goes on"), "{signal}: {}", ended.stderr);
        assert!(ended.stderr.contains("muster watch"), "{signal}: {}", ended.stderr);
        check_goes_on(&lab, &start.request_id, word);
    }
}

/// A terminal that is closed ends the command line at once, as it ends every other program, unless it was started to
/// outlive it.
#[test]
fn a_closed_terminal_ends_the_command_line_and_nothing_else() {
    let lab = Lab::new();
    let run = lab.begin_run("lab.apart", &["until=one"]);
    let start = lab.started_times(1);
    kill(Pid::from_raw(run.pid()), Signal::SIGHUP).unwrap();
    run.finish().expect(-1);
    check_goes_on(&lab, &start.request_id, "one");

    // As `nohup` and a job in the background of a shell do.
    let words = ["run", "lab.apart", "until=two", "-H", HOST, "--jsonl"];
    let mut command = std::process::Command::new("/usr/bin/nohup");
    let known = lab.lea.command(&words).unwrap();
    command.arg(known.get_program()).args(known.get_args()).env_clear();
    command.envs(known.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    let run = Begun::new(command, &words);
    lab.started_times(2);
    kill(Pid::from_raw(run.pid()), Signal::SIGHUP).unwrap();
    lab.open("two");
    run.finish().expect(0);
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_waiting_and_not_the_action() {
    let lab = Lab::new();
    let words = ["run", "lab.apart", "until=one", "-H", HOST, "--jsonl"];
    let mut command = lab.lea.command(&words).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    // `head -1`
    let first = muster_tests::programs::read_line(&mut child).unwrap();
    assert!(first.contains(r#""kind":"plan""#), "{first}");
    let start = lab.started_times(1);
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(10), "{said}");
    assert!(said.contains("nobody reads the output any more; 1 host that was asked goes on"), "{said}");
    check_goes_on(&lab, &start.request_id, "one");
}
