//! The processes that do the work are killed: an action's runner, a plugin's program, a part of them or all.

use std::fs;

use super::lab::{KINDS, Lab, eventually, kill_hard, lives, task};

#[test]
fn a_plugin_that_is_killed_is_told_as_killed() {
    let lab = Lab::new();
    for (round, action) in KINDS.into_iter().enumerate() {
        let run = lab.begin_run(&format!("lab.{action}"), &["until=never"]);
        let start = lab.started_times(round + 1);
        kill_hard(start.pid);
        let finished = run.finish().expect(3);
        let task = task(&finished);
        assert_eq!((&task["code"], &task["state"]), (&"signalled".into(), &"failed".into()), "{task}");
        let message = task["message"].as_str().unwrap();
        assert!(message.contains("was ended by signal SIGKILL"), "{message}");
        assert_eq!(lab.starts_of(&start.request_id), 1);
    }
    lab.check_works();
}

#[test]
fn a_plugin_that_is_killed_with_its_whole_group_is_told_as_killed() {
    let lab = Lab::new();
    for (round, action) in KINDS.into_iter().enumerate() {
        let run = lab.begin_run(&format!("lab.{action}"), &["until=never"]);
        // It is the leader of a session and a group of its own.
        kill_hard(-lab.started_times(round + 1).pid);
        let finished = run.finish().expect(3);
        assert_eq!(task(&finished)["code"], "signalled", "{}", finished.stdout);
    }
    lab.check_works();
}

#[test]
fn half_a_reply_is_no_reply() {
    let lab = Lab::new();
    for action in KINDS {
        let finished = lab.run(&format!("lab.{action}"), &["until=torn"]).expect(3);
        let task = task(&finished);
        assert_eq!(task["code"], "signalled", "{task}");
        assert!(task["data"].is_null(), "what it had begun to answer counts for nothing: {task}");
    }
    let work = lab.state("work");
    eventually("no files of theirs are left", || fs::read_dir(&work).unwrap().count() == 0);
    lab.check_works();
}

#[test]
fn a_runner_that_is_killed_alone_or_with_everything_is_told_as_interrupted() {
    let lab = Lab::new();
    for (round, with_plugin) in [false, true].into_iter().enumerate() {
        let run = lab.begin_run("lab.apart", &["until=never"]);
        let start = lab.started_times(round + 1);
        kill_hard(lab.runner(&start.request_id));
        if with_plugin {
            kill_hard(-start.pid);
        }
        let finished = run.finish().expect(3);
        let task = task(&finished);
        assert_eq!((&task["code"], &task["state"]), (&"interrupted".into(), &"failed".into()), "{task}");
        let message = task["message"].as_str().unwrap();
        assert!(message.contains("was killed; what the action did is not known"), "{message}");
        eventually("the plugin is stopped", || !lives(start.pid));
        assert_eq!(lab.starts_of(&start.request_id), 1);
    }
    lab.check_works();
}

/// An operator who clears a disk: the action is stopped, its end is told, and others may run in its place.
#[test]
fn an_action_whose_directory_is_removed_is_stopped_told_and_gives_its_place_back() {
    let mut lab = Lab::with("[limits]\nconcurrent_actions = 1\n");
    for (round, restarted) in [false, true].into_iter().enumerate() {
        let run = lab.begin_run("lab.apart", &["until=never"]);
        let start = lab.started_times(2 * round + 1);
        if restarted {
            // The agent that looks on is not the one that started it.
            eventually("it has begun", || lab.state("actions").join(&start.request_id).join("begun.json").exists());
            lab.agent.kill().unwrap();
            lab.start_again();
        }
        lab.run("lab.change", &[]).expect(6);
        fs::remove_dir_all(lab.state("actions").join(&start.request_id)).unwrap();
        let finished = run.finish().expect(3);
        let task = task(&finished);
        assert_eq!(task["code"], "interrupted", "{task}");
        let message = task["message"].as_str().unwrap();
        assert!(message.starts_with("the action's directory was removed while it ran"), "{message}");
        assert!(!lives(start.pid), "the plugin was stopped");
        lab.run("lab.change", &[]).expect(0);
    }
    assert_eq!(lab.starts().len(), 4);
    // Nothing of it is left to be told again.
    lab.agent.stop().unwrap();
    lab.start_again();
    assert!(!lab.agent.log().contains("Interrupted by the end of the agent"), "{}", lab.agent.log());
    lab.check_works();
}
