use super::super::manager::Traits;
use super::*;

fn state(status: Condition) -> State {
    State {
        status,
        active: Some(status.word().to_owned()),
        sub: None,
        enabled: Some(false),
        enabled_state: "disabled".to_owned(),
        pid: None,
        since_ms: None,
        result: None,
        exit_code: None,
        restarts: None,
    }
}

fn found(status: Condition, traits: Traits) -> Found {
    Found { unit: "web.service".to_owned(), description: String::new(), state: state(status), traits }
}

#[track_caller]
fn check_plan(action: &str, found: &Found, expected: &str) {
    let planned: Vec<_> = Step::of(action, true)
        .iter()
        .map(|step| match plan(*step, found) {
            Plan::Nothing => "nothing",
            Plan::Do => "do",
            Plan::Refuse(code, _) => code.code,
        })
        .collect();
    assert_eq!(planned.join(", "), expected, "{action} of {found:?}");
}

#[test]
fn what_there_is_to_do() {
    let plain = |status| found(status, Traits::default());
    check_plan("start", &plain(Condition::Stopped), "do");
    check_plan("start", &plain(Condition::Failed), "do");
    check_plan("start", &plain(Condition::Starting), "do");
    check_plan("start", &plain(Condition::Running), "nothing");
    check_plan("stop", &plain(Condition::Running), "do");
    check_plan("stop", &plain(Condition::Stopped), "nothing");
    check_plan("stop", &plain(Condition::Unknown), "do");
    check_plan("restart", &plain(Condition::Stopped), "do");
    check_plan("reload", &plain(Condition::Running), "do");
    check_plan("reload", &plain(Condition::Stopped), "failed");
    check_plan("enable", &plain(Condition::Running), "do, nothing");
    check_plan("disable", &plain(Condition::Running), "nothing, do");
    assert!(Step::of("status", false).is_empty());
}

#[test]
fn what_is_refused() {
    let masked = found(Condition::Stopped, Traits { is_masked: true, ..Traits::default() });
    for action in ["start", "restart"] {
        check_plan(action, &masked, "service-masked");
    }
    check_plan("enable", &masked, "service-masked, service-masked");
    check_plan("disable", &masked, "nothing, nothing");
    check_plan("stop", &found(Condition::Running, masked.traits.clone()), "do");
    let fixed = Traits { can_reload: Some(false), cannot_enable: Some("static".to_owned()), ..Traits::default() };
    check_plan("reload", &found(Condition::Running, fixed.clone()), "cannot-reload");
    let mut unit = found(Condition::Running, fixed);
    unit.state.enabled = None;
    check_plan("enable", &unit, "failed, nothing");
    let offline = Traits { cannot_run: Some("offline".to_owned()), ..Traits::default() };
    check_plan("start", &found(Condition::Unknown, offline.clone()), "not-activated");
    check_plan("enable", &found(Condition::Unknown, offline), "do, not-activated");
}

#[test]
fn enabled_until_the_next_boot_is_not_enabled_for_good() {
    let mut unit = found(Condition::Running, Traits::default());
    unit.state.enabled = Some(true);
    unit.state.enabled_state = "enabled-runtime".to_owned();
    check_plan("enable", &unit, "do, nothing");
    unit.state.enabled_state = "enabled".to_owned();
    check_plan("enable", &unit, "nothing, nothing");
}

#[track_caller]
fn check_reached(verb: Verb, found: &Found, expected: &str) {
    let answer = match reached(verb, found) {
        Reached::Yes => "yes".to_owned(),
        Reached::NotYet => "not yet".to_owned(),
        Reached::Lost(why) => why,
    };
    assert_eq!(answer, expected);
}

#[test]
fn whether_it_is_there() {
    let plain = |status| found(status, Traits::default());
    for verb in [Verb::Start, Verb::Restart, Verb::Reload] {
        check_reached(verb, &plain(Condition::Running), "yes");
        check_reached(verb, &plain(Condition::Starting), "not yet");
        check_reached(verb, &plain(Condition::Reloading), "not yet");
        check_reached(verb, &plain(Condition::Failed), "it failed");
    }
    for (status, expected) in [
        (Condition::Stopped, "yes"),
        (Condition::Failed, "yes"),
        (Condition::Absent, "yes"),
        (Condition::Stopping, "not yet"),
    ] {
        check_reached(Verb::Stop, &plain(status), expected);
    }
    let mut ended = plain(Condition::Stopped);
    ended.state.exit_code = Some(0);
    check_reached(Verb::Start, &ended, "it does not run; it ended by itself (exit code 0)");
    ended.traits.is_oneshot = true;
    check_reached(Verb::Start, &ended, "yes");
    ended.traits.condition_failed = true;
    check_reached(Verb::Start, &ended, "a condition in its unit file does not hold, so systemd did not start it");
    let mut failing = plain(Condition::Starting);
    failing.state.sub = Some("auto-restart".to_owned());
    check_reached(Verb::Start, &failing, "it fails and is started again and again");
    let mut failed = plain(Condition::Failed);
    failed.state.result = Some("exit-code".to_owned());
    failed.state.exit_code = Some(3);
    check_reached(Verb::Start, &failed, "it failed (exit-code, exit code 3)");
}

#[test]
fn whether_it_stays() {
    let mut first = state(Condition::Running);
    first.restarts = Some(1);
    let mut now = found(Condition::Running, Traits::default());
    now.state.restarts = Some(1);
    assert_eq!(unsettled(&first, &now), None);
    now.state.status = Condition::Reloading;
    assert_eq!(unsettled(&first, &now), None, "somebody else may reload it");
    now.state.restarts = Some(2);
    assert_eq!(unsettled(&first, &now).as_deref(), Some("it failed and was started again"));
    now.state.status = Condition::Failed;
    assert_eq!(unsettled(&first, &now).as_deref(), Some("it failed"));
}
