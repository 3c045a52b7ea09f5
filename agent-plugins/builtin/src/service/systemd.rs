//! Services through `systemctl show`, whose output is made for programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use muster_plugin_api::{ActionFailure, CancellationToken};

use super::Status;
use crate::process::Program;

const PROPERTIES: &str =
    "Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,ActiveEnterTimestamp,InactiveEnterTimestamp";

pub(super) async fn status(
    systemctl: &Path,
    name: &str,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<Option<Status>, ActionFailure> {
    let program = Program::new(systemctl, limit)
        .arguments(["show", "--no-pager"])
        .argument(format!("--property={PROPERTIES}"))
        .arguments(["--", name]);
    let run = program.run(cancel).await;
    match run.exit_code(&program)? {
        0 => parse(name, &run.stdout.text()),
        code => Err(run.failure(&program, code)),
    }
}

fn parse(name: &str, output: &str) -> Result<Option<Status>, ActionFailure> {
    let properties: BTreeMap<&str, &str> = output.lines().filter_map(|line| line.split_once('=')).collect();
    let get = |key: &str| properties.get(key).copied().unwrap_or_default();
    let (load, active, sub) = (get("LoadState"), get("ActiveState"), get("SubState"));
    if load.is_empty() || active.is_empty() {
        return Err(ActionFailure::failed("systemctl gave no state"));
    }
    // A unit whose file is gone may still run.
    if load == "not-found" && active == "inactive" {
        return Ok(None);
    }
    let (status, entered) = match active {
        "active" => ("running", get("ActiveEnterTimestamp")),
        "reloading" | "refreshing" => ("reloading", get("ActiveEnterTimestamp")),
        "activating" => ("starting", ""),
        "deactivating" => ("stopping", ""),
        "inactive" => ("stopped", get("InactiveEnterTimestamp")),
        "failed" => ("failed", get("InactiveEnterTimestamp")),
        _ => ("unknown", ""),
    };
    // For a masked unit the state of its file is empty in some versions.
    let enabled_state = match get("UnitFileState") {
        "" => load,
        state => state,
    };
    Ok(Some(Status {
        name: name.to_owned(),
        status,
        enabled: enabled(enabled_state),
        enabled_state: enabled_state.to_owned(),
        pid: get("MainPID").parse().ok().filter(|pid| *pid != 0),
        since_ms: parse_time(entered),
        state: format!("{active}/{sub}"),
        unit: get("Id").to_owned(),
        provider: "systemd",
    }))
}

/// The words of `systemctl is-enabled`. For a unit that others pull in, or that a program made, the
/// question does not apply.
fn enabled(state: &str) -> Option<bool> {
    match state {
        "enabled" | "enabled-runtime" | "alias" => Some(true),
        "disabled" | "masked" | "masked-runtime" | "linked" | "linked-runtime" | "bad" => Some(false),
        _ => None,
    }
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
        UnitFileState=enabled\nInactiveEnterTimestamp=\nActiveEnterTimestamp=Fri 2026-11-20 08:15:00 UTC\n";

    #[test]
    fn a_running_service() {
        let expected = Status {
            name: "ssh".to_owned(),
            status: "running",
            enabled: Some(true),
            enabled_state: "enabled".to_owned(),
            pid: Some(614),
            since_ms: Some(1_795_162_500_000),
            state: "active/running".to_owned(),
            unit: "ssh.service".to_owned(),
            provider: "systemd",
        };
        assert_eq!(parse("ssh", RUNNING).unwrap(), Some(expected));
    }

    #[track_caller]
    fn check(load: &str, active: &str, file: &str, expected: (&str, Option<bool>, &str)) {
        let output = format!(
            "MainPID=0\nId=x.service\nLoadState={load}\nActiveState={active}\nSubState=dead\nUnitFileState={file}\n"
        );
        let status = parse("x", &output).unwrap().unwrap();
        assert_eq!((status.status, status.enabled, status.enabled_state.as_str()), expected);
        assert_eq!((status.pid, status.since_ms), (None, None));
    }

    #[test]
    fn every_state_of_a_unit() {
        check("loaded", "inactive", "disabled", ("stopped", Some(false), "disabled"));
        check("loaded", "failed", "enabled", ("failed", Some(true), "enabled"));
        check("loaded", "activating", "static", ("starting", None, "static"));
        check("loaded", "deactivating", "indirect", ("stopping", None, "indirect"));
        check("loaded", "reloading", "enabled-runtime", ("reloading", Some(true), "enabled-runtime"));
        check("masked", "inactive", "", ("stopped", Some(false), "masked"));
        check("loaded", "maintenance", "generated", ("unknown", None, "generated"));
        check("not-found", "active", "", ("running", None, "not-found"));
    }

    #[test]
    fn no_such_service_and_no_answer() {
        let missing = "MainPID=0\nId=nope.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n";
        assert_eq!(parse("nope", missing).unwrap(), None);
        assert!(parse("x", "").is_err());
    }
}
