//! What a program leaves behind: stopped, kept, and found even where it left the session.

use std::fs;
use std::time::Duration;

use muster_plugins::process::{End, LeaveBehind, become_subreaper};

use super::{LONG, SHORT, pid, run, shell};
use crate::support::{Killed, alive, dies, in_a_process_of_its_own, until};

#[tokio::test]
async fn what_may_live_on_does_and_is_counted() {
    let run = run(&shell("sleep 1000 >/dev/null 2>&1 & echo $!", LONG).leave_behind(LeaveBehind::Keep)).await;
    let daemon = Killed(pid(&run));
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    assert!(alive(daemon.0).is_some());
    assert_eq!((run.left_behind, run.output_held_open), (1, false));
}

#[tokio::test]
async fn a_program_that_is_stopped_takes_its_session_with_it_all_the_same() {
    let text = "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo $!; wait";
    let run = run(&shell(text, SHORT).leave_behind(LeaveBehind::Keep)).await;
    assert!(matches!(run.end, End::TimedOut), "{run:?}");
    dies(pid(&run)).await;
}

/// As Puppet does: each program that it runs leads a session, which signals to its own do not reach.
#[tokio::test]
async fn programs_in_sessions_of_their_own_may_finish_and_are_then_stopped() {
    let soon = Duration::from_millis(100);
    let hangs = "setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' >/dev/null 2>&1 & echo $!; wait";
    let out_of_reach = run(&shell(hangs, SHORT)).await;
    let stray = Killed(pid(&out_of_reach));
    assert!(alive(stray.0).is_some(), "{out_of_reach:?}");
    assert_eq!(out_of_reach.stopped_elsewhere, 0);

    let stopped = run(&shell(hangs, SHORT).leave_behind(LeaveBehind::Keep).finish(soon).grace(soon)).await;
    assert!(matches!(stopped.end, End::TimedOut), "{stopped:?}");
    assert!(stopped.stopped_elsewhere >= 1, "{stopped:?}");
    dies(pid(&stopped)).await;

    let directory = tempfile::tempdir().unwrap();
    let done = directory.path().join("done");
    let finishes = "setsid sh -c 'sleep 1; touch \"$0\"' \"$1\" >/dev/null 2>&1 & echo $!; wait";
    let finished = run(&shell(finishes, SHORT).argument(&done).finish(LONG)).await;
    assert!(matches!(finished.end, End::TimedOut), "{finished:?}");
    assert_eq!((finished.stopped_elsewhere, done.exists()), (0, true));
}

/// Starts a daemon in a session of its own that ignores the polite signal, and says its number.
const STRAY: &str = "setsid -f sh -c 'trap \"\" TERM; exec >/dev/null 2>&1; echo $$ > \"$1.new\"; mv \"$1.new\" \"$1\"; \
                     while :; do sleep 1; done' sh \"$1\"; while [ ! -s \"$1\" ]; do sleep 0.01; done; cat \"$1\"";

#[tokio::test]
async fn where_orphans_come_to_us_who_left_the_session_is_stopped_too() {
    if !in_a_process_of_its_own("process::children::where_orphans_come_to_us_who_left_the_session_is_stopped_too") {
        return;
    }
    become_subreaper().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);

    let stopped = run(&shell(STRAY, LONG).argument(file("stopped"))).await;
    let stray = Killed(pid(&stopped));
    assert!(matches!(stopped.end, End::Exited(0)), "{stopped:?}");
    assert!(stopped.left_behind >= 1, "{stopped:?}");
    dies(stray.0).await;

    let hanging = format!("{STRAY}; exec sleep 1000");
    let timed_out = run(&shell(&hanging, SHORT).argument(file("hanging"))).await;
    assert!(matches!(timed_out.end, End::TimedOut), "{timed_out:?}");
    dies(pid(&timed_out)).await;

    let kept = run(&shell(STRAY, LONG).argument(file("kept")).leave_behind(LeaveBehind::Keep)).await;
    let stray = Killed(pid(&kept));
    assert!(kept.left_behind >= 1, "{kept:?}");
    assert!(alive(stray.0).is_some());
    drop(stray);

    // Nobody is left, not even as a zombie: a last run takes away what ended meanwhile.
    let clean = || {
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        children.split_ascii_whitespace().count()
    };
    let last = run(&shell("exit 0", LONG)).await;
    assert!(matches!(last.end, End::Exited(0)), "{last:?}");
    until(clean, |count| *count == 0).await;
}

#[tokio::test]
async fn a_program_that_still_runs_is_nobodys_orphan() {
    if !in_a_process_of_its_own("process::children::a_program_that_still_runs_is_nobodys_orphan") {
        return;
    }
    become_subreaper().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (ready, go) = (directory.path().join("ready"), directory.path().join("go"));
    let text = "sleep 1000 & : > \"$1\"; while [ ! -e \"$2\" ]; do sleep 0.01; done; kill $!; exit 5";
    let long = shell(text, LONG).argument(&ready).argument(&go);
    let short = async {
        until(|| ready.exists(), |exists| *exists).await;
        let run = run(&shell("exit 0", LONG)).await;
        fs::write(&go, "").unwrap();
        run
    };
    let (long, short) = tokio::join!(run(&long), short);
    assert!(matches!((&long.end, &short.end), (End::Exited(5), End::Exited(0))), "{long:?} {short:?}");
    assert_eq!(short.left_behind, 0, "{short:?}");
}
