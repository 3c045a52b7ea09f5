//! A host that has no more files, no more processes, or no more places for actions.

use std::process::Command;
use std::time::{Duration, Instant};

use muster_tests::programs::{AgentProcess, Finished};

use super::lab::{Begun, HOST, KINDS, Lab, eventually, id_and_code, task};

/// Longer than a thread of the agent waits for work that may come.
const IDLE: Duration = Duration::from_secs(4);

const NO_FILES: &str = "Too many open files";

/// Limits an agent that runs, as an operator's hand does. As the agent's own user: root may lack the right to change
/// the limits of others.
#[track_caller]
fn limit(lab: &Lab, user: u32, what: &str, soft: &str) {
    let (user, group) = (format!("--reuid={user}"), format!("--regid={user}"));
    let output = Command::new("setpriv")
        .args([&user, &group, "--clear-groups", "prlimit"])
        .args(["--pid", &lab.agent.pid().to_string(), &format!("--{what}={soft}:")])
        .output()
        .expect("this test needs `setpriv` and `prlimit` (Debian package util-linux)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What is asked of a host that lacks something is told with a code and the system's words, and does not start.
#[track_caller]
fn check_told(lab: &Lab, finished: &Finished, why: &str) {
    let task = task(finished);
    let code = task["code"].as_str().unwrap();
    assert!([("journal-failed", 6), ("start-failed", 3)].contains(&(code, finished.code)), "{}", finished.stdout);
    let message = task["message"].as_str().unwrap();
    assert!(message.contains(why), "{message}");
    assert_eq!(lab.starts_of(&id_and_code(finished).0), 0, "it did not start, it says");
}

#[test]
fn an_agent_without_file_descriptors_tells_so_lives_and_works_again_with_them() {
    let lab = Lab::new();
    lab.check_works();
    let until = lab.begin_run("lab.change", &["until=one"]);
    let before = lab.started_times(KINDS.len() + 1);
    // What is open stays open: nothing more can be opened.
    limit(&lab, 0, "nofile", "3");
    for kind in KINDS {
        check_told(&lab, &lab.run(&format!("lab.{kind}"), &[]), NO_FILES);
    }
    // What ran ends, and what it said is told, though its reply cannot be opened any more.
    lab.open("one");
    let ended = task(&until.finish());
    assert_eq!(ended["code"], "plugin-error", "{ended}");
    assert!(ended["message"].as_str().unwrap().contains(NO_FILES), "{ended}");
    assert_eq!(ended["stdout"], "begun\ndone\n", "{ended}");
    assert_eq!(lab.starts_of(&before.request_id), 1);
    limit(&lab, 0, "nofile", "1024");
    lab.check_works();
    assert!(!lab.agent.log().contains("panicked"), "{}", lab.agent.log());
    lab.musterd(&["audit", "verify"]).expect(0);
}

/// A user whom nobody else in this machine is, so that the processes of others do not count: root has no limit.
fn nobody_else() -> u32 {
    20_000 + std::process::id() % 40_000
}

#[test]
fn an_agent_that_may_start_no_process_tells_so_lives_and_works_again_when_it_may() {
    let mut lab = Lab::new();
    lab.agent.stop().unwrap();
    let folder = lab.agent.folder().to_owned();
    let user = nobody_else();
    let (new_user, new_group) = (format!("--reuid={user}"), format!("--regid={user}"));
    let keep = "-all,+dac_override,+dac_read_search,+fowner,+chown";
    let (inherited, ambient) = (format!("--inh-caps={keep}"), format!("--ambient-caps={keep}"));
    let wrapper = ["setpriv", &new_user, &new_group, "--clear-groups", &inherited, &ambient];
    lab.agent = AgentProcess::start_under(HOST.parse().unwrap(), &folder, &wrapper).unwrap();
    lab.agent.wait_ready().unwrap();
    lab.check_works();
    // Threads that wait for a disk come and go; an agent that is idle has as few as it ever has.
    let threads = || std::fs::read_dir(format!("/proc/{}/task", lab.agent.pid())).unwrap().count();
    let mut since = (threads(), Instant::now());
    eventually("no thread comes or goes", || {
        if threads() != since.0 {
            since = (threads(), Instant::now());
        }
        since.1.elapsed() > IDLE
    });
    limit(&lab, user, "nproc", "1");
    for _ in 0..2 {
        for kind in KINDS {
            check_told(&lab, &lab.run(&format!("lab.{kind}"), &[]), "Resource temporarily unavailable");
        }
    }
    limit(&lab, user, "nproc", "1000");
    lab.check_works();
    assert!(!lab.agent.log().contains("panicked"), "{}", lab.agent.log());
    lab.musterd(&["audit", "verify"]).expect(0);
}

#[test]
fn more_requests_at_once_than_a_host_has_places_are_refused_and_work_later() {
    const PLACES: usize = 2;
    const ASKED: usize = 8;
    let lab = Lab::with(&format!("[limits]\nconcurrent_actions = {PLACES}\nconcurrent_reads = {PLACES}\n"));
    for (round, kind) in KINDS.into_iter().enumerate() {
        let before = round * (PLACES + 1);
        let word = ["one", "two", "three"][round];
        let (action, until) = (format!("lab.{kind}"), format!("until={word}"));
        let mut runs: Vec<Begun> = (0..ASKED).map(|_| lab.begin_run(&action, &[&until])).collect();
        // All at once: as many as there are places begin, whichever they are, and each other is told.
        let mut refused = 0;
        while refused < ASKED - PLACES {
            let mut ended = None;
            eventually("somebody is refused", || {
                ended = runs.iter_mut().position(Begun::has_ended);
                ended.is_some()
            });
            let finished = runs.swap_remove(ended.unwrap()).finish().expect(6);
            let task = task(&finished);
            assert_eq!((&task["state"], &task["code"]), (&"refused".into(), &"busy".into()), "{task}");
            let message = task["message"].as_str().unwrap();
            assert!(message.contains(&format!("run already; {PLACES} may")), "{message}");
            assert_eq!(lab.starts_of(&id_and_code(&finished).0), 0);
            refused += 1;
        }
        lab.started_times(before + PLACES);
        // The other kind has places of its own.
        let other = if kind == "read" { "lab.change" } else { "lab.read" };
        lab.run(other, &[]).expect(0);
        lab.open(word);
        for run in runs {
            let (id, code) = id_and_code(&run.finish().expect(0));
            assert_eq!((code.as_str(), lab.starts_of(&id)), ("ok", 1));
        }
        assert_eq!(lab.starts().len(), before + PLACES + 1);
    }
    lab.check_works();
}
