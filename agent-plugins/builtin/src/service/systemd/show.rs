//! Reads what `systemctl show` says about a unit. Pure.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use muster_plugin_api::ActionFailure;

use super::super::manager::{Condition, Found, Listed, State, Traits, words};

/// What is asked about a unit. A systemd that does not know one of them leaves it out.
pub(super) const PROPERTIES: &str = "Id,Description,LoadState,ActiveState,SubState,UnitFileState,SourcePath,Type,Result,\
    MainPID,ExecMainCode,ExecMainStatus,NRestarts,CanReload,ConditionResult,ConditionTimestamp,NeedDaemonReload,\
    ActiveEnterTimestamp,InactiveEnterTimestamp";

/// `CLD_EXITED` of waitid(2), which is what systemd writes for a process that ended by itself.
const EXITED: &str = "1";

/// One property of the answer.
pub(super) fn property<'a>(output: &'a str, key: &str) -> Option<&'a str> {
    output.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).filter(|value| !value.is_empty())
}

/// The unit that the answer is about; `None` if there is no such unit.
pub(super) fn parse(output: &str) -> Result<Option<Found>, ActionFailure> {
    let properties: BTreeMap<&str, &str> = output.lines().filter_map(|line| line.split_once('=')).collect();
    let get = |key: &str| properties.get(key).copied().unwrap_or_default();
    let (load, active, unit) = (get("LoadState"), get("ActiveState"), get("Id"));
    if load.is_empty() || active.is_empty() || unit.is_empty() {
        return Err(ActionFailure::failed("systemctl gave no state"));
    }
    // A unit whose file is gone may still run.
    if load == "not-found" && active == "inactive" {
        return Ok(None);
    }
    let (status, entered) = match active {
        "active" => (Condition::Running, get("ActiveEnterTimestamp")),
        "reloading" | "refreshing" => (Condition::Reloading, get("ActiveEnterTimestamp")),
        "activating" => (Condition::Starting, ""),
        "deactivating" => (Condition::Stopping, ""),
        "inactive" => (Condition::Stopped, get("InactiveEnterTimestamp")),
        "failed" => (Condition::Failed, get("InactiveEnterTimestamp")),
        _ => (Condition::Unknown, ""),
    };
    // For a masked unit the state of its file is empty in some versions.
    let enabled_state = match get("UnitFileState") {
        "" => load,
        state => state,
    };
    let text = |key: &str| Some(get(key)).filter(|value| !value.is_empty()).map(str::to_owned);
    let state = State {
        status,
        active: Some(active.to_owned()),
        sub: text("SubState"),
        enabled: enabled(enabled_state),
        enabled_state: enabled_state.to_owned(),
        pid: get("MainPID").parse().ok().filter(|pid| *pid != 0),
        since_ms: parse_time(entered),
        result: text("Result"),
        exit_code: get("ExecMainStatus").parse().ok().filter(|_| get("ExecMainCode") == EXITED),
        restarts: get("NRestarts").parse().ok(),
    };
    let traits = Traits {
        is_masked: load == "masked",
        is_oneshot: get("Type") == "oneshot",
        can_reload: Some(get("CanReload") == "yes"),
        cannot_run: None,
        cannot_enable: cannot_enable(enabled_state),
        // Before the first start the result is `no` too.
        condition_failed: get("ConditionResult") == "no" && !get("ConditionTimestamp").is_empty(),
        is_outdated: get("NeedDaemonReload") == "yes",
        settles_at_once: !unit.ends_with(".service"),
    };
    let description = get("Description").to_owned();
    Ok(Some(Found { unit: unit.to_owned(), description, state, traits }))
}

/// The words of `systemctl is-enabled`. For a unit that others pull in, or that a program made, the
/// question does not apply.
pub(super) fn enabled(state: &str) -> Option<bool> {
    match state {
        "enabled" | "enabled-runtime" | "alias" => Some(true),
        "disabled" | "masked" | "masked-runtime" | "linked" | "linked-runtime" | "bad" => Some(false),
        _ => None,
    }
}

/// Why enabling or disabling a unit with such a file does nothing.
pub(super) fn cannot_enable(state: &str) -> Option<String> {
    let why = match state {
        "static" => "its unit file has no [Install] section: it starts when another unit needs it",
        "transient" => "it is transient: a program made it, and it has no file of its own",
        _ => return None,
    };
    Some(why.to_owned())
}

/// A loaded unit in a list.
pub(super) fn listed(found: &Found) -> Listed {
    Listed {
        name: short(&found.unit),
        unit: found.unit.clone(),
        status: found.state.status,
        state: words(&found.state),
        enabled: found.state.enabled,
        enabled_state: found.state.enabled_state.clone(),
        description: found.description.clone(),
    }
}

/// A unit that has a file but is not loaded, and so does not run.
pub(super) fn listed_file(unit: &str, state: &str) -> Listed {
    Listed {
        name: short(unit),
        unit: unit.to_owned(),
        status: Condition::Stopped,
        state: "not loaded".to_owned(),
        enabled: enabled(state),
        enabled_state: state.to_owned(),
        description: String::new(),
    }
}

fn short(unit: &str) -> String {
    unit.strip_suffix(".service").unwrap_or(unit).to_owned()
}

/// `Fri 2026-11-20 08:15:00 UTC`; the runner sets the time zone.
fn parse_time(text: &str) -> Option<i64> {
    let time = DateTime::strptime("%a %Y-%m-%d %H:%M:%S UTC", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "MainPID=614\nId=ssh.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\
        UnitFileState=enabled\nType=notify\nResult=success\nNRestarts=2\nCanReload=yes\nExecMainCode=0\n\
        ExecMainStatus=0\nConditionResult=yes\nNeedDaemonReload=no\nDescription=OpenBSD Secure Shell = server\n\
        InactiveEnterTimestamp=\nActiveEnterTimestamp=Fri 2026-11-20 08:15:00 UTC\n";

    #[test]
    fn a_running_service() {
        let found = parse(RUNNING).unwrap().unwrap();
        let expected = State {
            status: Condition::Running,
            active: Some("active".to_owned()),
            sub: Some("running".to_owned()),
            enabled: Some(true),
            enabled_state: "enabled".to_owned(),
            pid: Some(614),
            since_ms: Some(1_795_162_500_000),
            result: Some("success".to_owned()),
            exit_code: None,
            restarts: Some(2),
        };
        assert_eq!(found.state, expected);
        assert_eq!((found.unit.as_str(), found.description.as_str()), ("ssh.service", "OpenBSD Secure Shell = server"));
        assert_eq!(found.traits, Traits { can_reload: Some(true), ..Traits::default() });
    }

    #[track_caller]
    fn check(load: &str, active: &str, file: &str, expected: (Condition, Option<bool>, &str)) {
        let output = format!(
            "MainPID=0\nId=x.service\nLoadState={load}\nActiveState={active}\nSubState=dead\nUnitFileState={file}\n"
        );
        let state = parse(&output).unwrap().unwrap().state;
        assert_eq!((state.status, state.enabled, state.enabled_state.as_str()), expected);
        assert_eq!((state.pid, state.since_ms, state.exit_code, state.restarts), (None, None, None, None));
    }

    #[test]
    fn every_state_of_a_unit() {
        check("loaded", "inactive", "disabled", (Condition::Stopped, Some(false), "disabled"));
        check("loaded", "failed", "enabled", (Condition::Failed, Some(true), "enabled"));
        check("loaded", "activating", "static", (Condition::Starting, None, "static"));
        check("loaded", "deactivating", "indirect", (Condition::Stopping, None, "indirect"));
        check("loaded", "reloading", "enabled-runtime", (Condition::Reloading, Some(true), "enabled-runtime"));
        check("masked", "inactive", "", (Condition::Stopped, Some(false), "masked"));
        check("loaded", "maintenance", "generated", (Condition::Unknown, None, "generated"));
        check("not-found", "active", "", (Condition::Running, None, "not-found"));
    }

    #[test]
    fn an_exit_code_only_of_a_process_that_exited() {
        let output = |code: u8| {
            format!("Id=x.service\nLoadState=loaded\nActiveState=failed\nExecMainCode={code}\nExecMainStatus=15\n")
        };
        assert_eq!(parse(&output(1)).unwrap().unwrap().state.exit_code, Some(15));
        assert_eq!(parse(&output(2)).unwrap().unwrap().state.exit_code, None, "15 is a signal here");
    }

    #[test]
    fn a_condition_counts_once_it_was_looked_at() {
        let output = |time: &str| {
            format!(
                "Id=x.service\nLoadState=loaded\nActiveState=inactive\nConditionResult=no\nConditionTimestamp={time}\n"
            )
        };
        assert!(!parse(&output("")).unwrap().unwrap().traits.condition_failed);
        assert!(parse(&output("Fri 2026-11-20 08:15:00 UTC")).unwrap().unwrap().traits.condition_failed);
    }

    #[test]
    fn no_such_service_and_no_answer() {
        let missing = "MainPID=0\nId=nope.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n";
        assert_eq!(parse(missing).unwrap(), None);
        assert!(parse("").is_err());
    }
}
