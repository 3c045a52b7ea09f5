//! Services of an OpenRC that runs: `rc-service` for what they do, the links of its runlevels for the boot.

use std::fs;
use std::path::PathBuf;

use muster_plugin_api::{ActionFailure, BoxFuture};

use super::ServicePaths;
use super::manager::{Bounds, Carried, Condition, Found, Listed, LogLine, Manager, State, Traits, Verb, words};
use super::sysv::{self, Script};
use crate::process::{End, Program, find_program};

/// The runlevel that a service is added to, as `rc-update add` does without one. It is OpenRC's ordinary one.
const RUNLEVEL: &str = "default";

/// OpenRC that runs.
#[derive(Debug)]
pub(super) struct OpenRc {
    rc_service: PathBuf,
    rc_update: PathBuf,
    paths: ServicePaths,
}

impl OpenRc {
    /// `None` without its programs.
    pub(super) fn new(paths: &ServicePaths) -> Option<Self> {
        Some(Self {
            rc_service: find_program("rc-service", &paths.programs)?,
            rc_update: find_program("rc-update", &paths.programs)?,
            paths: paths.clone(),
        })
    }

    fn rc_service(&self, name: &str, verb: &str, bounds: Bounds<'_>) -> Program {
        Program::new(&self.rc_service, bounds.left()).arguments(["--nocolor", "--", name, verb])
    }

    /// In which runlevels it is.
    fn runlevels(&self, name: &str) -> Vec<String> {
        let levels = fs::read_dir(&self.paths.openrc_runlevels).into_iter().flatten().flatten();
        let has = |level: &fs::DirEntry| level.path().join(name).symlink_metadata().is_ok();
        let mut names: Vec<_> = levels.filter(has).filter_map(|level| level.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// OpenRC keeps the state of each service as a link in a directory of that name.
    fn has_mark(&self, mark: &str, name: &str) -> bool {
        self.paths.openrc_runtime.join(mark).join(name).symlink_metadata().is_ok()
    }

    fn marked_status(&self, name: &str) -> Condition {
        let marks = [
            ("stopping", Condition::Stopping),
            ("starting", Condition::Starting),
            ("inactive", Condition::Starting),
            ("failed", Condition::Failed),
            ("started", Condition::Running),
        ];
        let mark = marks.iter().find(|(mark, _)| self.has_mark(mark, name));
        self.checked(mark.map_or(Condition::Stopped, |(_, status)| *status), name)
    }

    /// What OpenRC does not say: that a start failed, once it counts as stopped; and that the process is gone, unless
    /// its own program started it. Debian's package uses dpkg's, so that it never notices there.
    fn checked(&self, status: Condition, name: &str) -> Condition {
        match status {
            Condition::Stopped if self.has_mark("failed", name) => Condition::Failed,
            Condition::Running if sysv::lost_its_process(&self.paths, name) => Condition::Failed,
            status => status,
        }
    }

    fn found(&self, script: Script, status: Condition, exit_code: Option<i32>) -> Found {
        let levels = self.runlevels(&script.name);
        let enabled = levels.iter().any(|level| starts(level));
        let pid = sysv::running_pid(&self.paths, &script.name).filter(|_| status == Condition::Running);
        Found {
            unit: script.path.display().to_string(),
            description: script.description,
            state: State {
                status,
                active: None,
                sub: None,
                enabled: Some(enabled),
                enabled_state: if levels.is_empty() { "disabled".to_owned() } else { levels.join(" ") },
                pid,
                since_ms: None,
                result: None,
                exit_code,
                restarts: None,
            },
            traits: Traits::default(),
        }
    }
}

/// The exit codes of OpenRC's `status`; 1 and 2 come from scripts that follow the LSB.
fn status_of(exit_code: i32) -> Condition {
    match exit_code {
        0 => Condition::Running,
        3 => Condition::Stopped,
        4 => Condition::Stopping,
        // Inactive means: started, and waiting for something, such as a cable.
        8 | 16 => Condition::Starting,
        1 | 2 | 32 => Condition::Failed,
        _ => Condition::Unknown,
    }
}

/// Runlevels of the way down start nothing.
fn starts(runlevel: &str) -> bool {
    !matches!(runlevel, "shutdown" | "off" | "reboot" | "halt")
}

fn script_name(found: &Found) -> &str {
    found.unit.rsplit('/').next().unwrap_or_default()
}

impl Manager for OpenRc {
    fn provider(&self) -> &'static str {
        "openrc"
    }

    fn find<'a>(&'a self, name: &'a str, bounds: Bounds<'a>) -> BoxFuture<'a, Result<Option<Found>, ActionFailure>> {
        Box::pin(async move {
            let Some(script) = Script::find(&self.paths.init_scripts, name) else { return Ok(None) };
            let program = self.rc_service(&script.name, "status", bounds);
            let run = program.run(bounds.cancel).await;
            let exit_code = match run.end {
                End::Exited(exit_code) => exit_code,
                _ => run.exit_code(&program)?,
            };
            let status = self.checked(status_of(exit_code), &script.name);
            Ok(Some(self.found(script, status, Some(exit_code))))
        })
    }

    fn carry_out<'a>(&'a self, verb: Verb, found: &'a Found, bounds: Bounds<'a>) -> BoxFuture<'a, Carried> {
        let program = self.rc_service(script_name(found), verb.word(), bounds);
        Box::pin(sysv::carry_out(program, verb, bounds))
    }

    fn set_enabled<'a>(
        &'a self,
        enabled: bool,
        found: &'a Found,
        bounds: Bounds<'a>,
    ) -> BoxFuture<'a, Result<(), ActionFailure>> {
        Box::pin(async move {
            let name = script_name(found);
            let program = Program::new(&self.rc_update, bounds.left()).arguments(["--nocolor"]);
            let program = if enabled {
                program.arguments(["--", "add", name, RUNLEVEL])
            } else {
                program
                    .arguments(["--", "del", name])
                    .arguments(self.runlevels(name).iter().filter(|level| starts(level)))
            };
            let run = program.run(bounds.cancel).await;
            match run.exit_code(&program)? {
                0 => Ok(()),
                code => Err(run.failure(&program, code)),
            }
        })
    }

    fn log<'a>(&'a self, _found: &'a Found, _bounds: Bounds<'a>) -> BoxFuture<'a, Vec<LogLine>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn list<'a>(&'a self, _bounds: Bounds<'a>) -> BoxFuture<'a, Result<Vec<Listed>, ActionFailure>> {
        let services = Script::all(&self.paths.init_scripts).into_iter().map(|script| {
            let name = script.name.clone();
            let status = self.marked_status(&name);
            let found = self.found(script, status, None);
            Listed {
                name,
                state: words(&found.state),
                status,
                enabled: found.state.enabled,
                enabled_state: found.state.enabled_state,
                unit: found.unit,
                description: found.description,
            }
        });
        Box::pin(std::future::ready(Ok(services.collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_openrc() {
        let statuses: Vec<_> = [0, 1, 3, 4, 8, 16, 32, 77].map(status_of).iter().map(|status| status.word()).collect();
        assert_eq!(statuses, ["running", "failed", "stopped", "stopping", "starting", "starting", "failed", "unknown"]);
    }
}
