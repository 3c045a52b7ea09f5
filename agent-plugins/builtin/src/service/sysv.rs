//! Services through init scripts, as the Linux Standard Base describes them ("Init Script Actions").

pub(super) mod links;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_plugin_api::{ActionFailure, BoxFuture};
use muster_protocol::code;

pub(super) use self::links::is_enabled;
use super::manager::{
    Bounds, Carried, Condition, Ending, Found, Job, Listed, LogLine, Manager, State, Traits, Verb, words,
};
use super::{ServicePaths, name};
use crate::process::{End, LeaveBehind, Program, is_executable};

/// How long one script's `status` may take in a list: one that hangs must not hide the others.
const LISTED_STATUS_LIMIT: Duration = Duration::from_secs(5);

/// Of a script so much is read; the header and the verbs are near the start, or at least not behind a megabyte.
const SCRIPT_BYTES_MAX: u64 = 1024 * 1024;

/// Scripts that are not services: they are the machinery of the boot itself.
const MACHINERY: &[&str] = &["rc", "rcS", "README", "skeleton", "functions"];

/// Init scripts without a manager behind them.
#[derive(Debug, Clone)]
pub(super) struct Sysv {
    paths: ServicePaths,
}

impl Sysv {
    /// `None` without a directory of scripts.
    pub(super) fn new(paths: &ServicePaths) -> Option<Self> {
        paths.init_scripts.is_dir().then(|| Self { paths: paths.clone() })
    }

    /// What the script says about itself, if it says anything: its exit code.
    async fn ask(&self, script: &Script, bounds: Bounds<'_>) -> Result<Option<i32>, ActionFailure> {
        if !script.knows_status {
            return Ok(None);
        }
        let program = Program::new(&script.path, bounds.left()).argument("status");
        let run = program.run(bounds.cancel).await;
        match run.end {
            // However much it wrote: only the code counts.
            End::Exited(exit_code) => Ok(Some(exit_code)),
            _ => run.exit_code(&program).map(Some),
        }
    }

    fn found(&self, script: Script, exit_code: Option<i32>) -> Found {
        let pid = running_pid(&self.paths, &script.name);
        let status = match exit_code {
            Some(code) => status_of(code),
            // Without `status` only the process number speaks, and its absence says nothing.
            None if pid.is_some() => Condition::Running,
            None => Condition::Unknown,
        };
        let enabled = is_enabled(&self.paths.runlevels, &script.name);
        Found {
            unit: script.path.display().to_string(),
            description: script.description,
            state: State {
                status,
                active: None,
                sub: None,
                enabled: Some(enabled),
                enabled_state: if enabled { "enabled" } else { "disabled" }.to_owned(),
                pid: pid.filter(|_| status == Condition::Running),
                since_ms: None,
                result: None,
                exit_code,
                restarts: None,
            },
            traits: Traits::default(),
        }
    }
}

/// An init script.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) description: String,
    knows_status: bool,
}

impl Script {
    /// The script of that name. The name cannot lead elsewhere: it was checked.
    pub(super) fn find(directory: &Path, name: &str) -> Option<Self> {
        let name = name::script(name)?;
        let path = directory.join(name);
        if !is_executable(&path) {
            return None;
        }
        use std::io::Read;
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).ok()?;
        file.take(SCRIPT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let description = links::header(&text, "Short-Description").unwrap_or_default().to_owned();
        Some(Self { path, name: name.to_owned(), description, knows_status: knows_status(&text) })
    }

    /// All scripts of a directory, by name.
    pub(super) fn all(directory: &Path) -> Vec<Self> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names.retain(|name| !MACHINERY.contains(&name.as_str()) && name::check(name).is_ok());
        names.iter().filter_map(|name| Self::find(directory, name)).collect()
    }
}

/// Whether a script can be asked for `status`: an older one would take the word for a mistake, and what it then
/// does or answers means nothing. A program is asked, since only it knows; so is a script that hands its words on.
fn knows_status(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let hands_on =
        |line: &str| line.starts_with("exec ") && ["$1", "$@", "$*"].iter().any(|words| line.contains(words));
    // Red Hat's scripts may leave `status` to their library of functions.
    let has = |line: &str| line.split(|c| !is_word(c)).any(|word| word == "status" || word == "functions");
    let mut lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
    !text.starts_with("#!") || lines.any(|line| has(line) || hands_on(line))
}

/// The exit codes of `status`.
fn status_of(exit_code: i32) -> Condition {
    match exit_code {
        0 => Condition::Running,
        // Dead, but its pid file or lock file exists: it did not stop by itself.
        1 | 2 => Condition::Failed,
        3 => Condition::Stopped,
        _ => Condition::Unknown,
    }
}

/// What the exit codes of all other verbs mean.
fn meaning(exit_code: i32) -> Option<&'static str> {
    Some(match exit_code {
        2 => "invalid or excess arguments",
        3 => "unimplemented feature",
        4 => "insufficient privilege",
        5 => "program not installed",
        6 => "program not configured",
        7 => "program not running",
        _ => return None,
    })
}

/// What its pid file says, if that process exists.
pub(super) fn running_pid(paths: &ServicePaths, name: &str) -> Option<u32> {
    filed_pid(paths, name).filter(|pid| exists(paths, *pid))
}

/// Whether its pid file names a process that is gone.
pub(super) fn lost_its_process(paths: &ServicePaths, name: &str) -> bool {
    filed_pid(paths, name).is_some_and(|pid| !exists(paths, pid))
}

fn filed_pid(paths: &ServicePaths, name: &str) -> Option<u32> {
    let text = fs::read_to_string(paths.pid_files.join(format!("{name}.pid"))).ok()?;
    text.lines().next()?.trim().parse().ok()
}

fn exists(paths: &ServicePaths, pid: u32) -> bool {
    paths.processes.join(pid.to_string()).is_dir()
}

/// Runs a script's verb. The daemons that it starts live on.
pub(super) async fn carry_out(program: Program, verb: Verb, bounds: Bounds<'_>) -> Carried {
    let program = program.leave_behind(LeaveBehind::Keep);
    let run = program.run(bounds.cancel).await;
    let mut job = Job::of(verb);
    let mut lines = LogLine::of_output("stdout", &run.stdout.text());
    lines.extend(LogLine::of_output("stderr", &run.stderr.text()));
    let ending = match run.end {
        End::Exited(exit_code) => {
            job.exit_code = Some(exit_code);
            job.result = Some(if exit_code == 0 { "done" } else { "failed" }.to_owned());
            job.error = meaning(exit_code).map(str::to_owned);
            if verb == Verb::Reload && exit_code == 3 {
                let message = "its init script does not know `reload`";
                Ending::Refused(ActionFailure::new(&code::CANNOT_RELOAD, message).with_exit_code(exit_code))
            } else {
                Ending::Over
            }
        }
        End::TimedOut => Ending::Waited,
        End::Cancelled => Ending::Cancelled,
        End::StartFailed(_) | End::Signalled(_) => match run.exit_code(&program) {
            Err(failure) => Ending::Refused(failure),
            Ok(_) => Ending::Over,
        },
    };
    Carried { job, ending, lines, memory: None }
}

impl Manager for Sysv {
    fn provider(&self) -> &'static str {
        "sysv"
    }

    fn find<'a>(&'a self, name: &'a str, bounds: Bounds<'a>) -> BoxFuture<'a, Result<Option<Found>, ActionFailure>> {
        Box::pin(async move {
            let Some(script) = Script::find(&self.paths.init_scripts, name) else { return Ok(None) };
            let exit_code = self.ask(&script, bounds).await?;
            Ok(Some(self.found(script, exit_code)))
        })
    }

    fn carry_out<'a>(&'a self, verb: Verb, found: &'a Found, bounds: Bounds<'a>) -> BoxFuture<'a, Carried> {
        let program = Program::new(&found.unit, bounds.left()).argument(verb.word());
        Box::pin(carry_out(program, verb, bounds))
    }

    fn set_enabled<'a>(
        &'a self,
        enabled: bool,
        found: &'a Found,
        bounds: Bounds<'a>,
    ) -> BoxFuture<'a, Result<(), ActionFailure>> {
        Box::pin(links::set_enabled(&self.paths, enabled, Path::new(&found.unit), bounds))
    }

    fn log<'a>(&'a self, _found: &'a Found, _bounds: Bounds<'a>) -> BoxFuture<'a, Vec<LogLine>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn list<'a>(&'a self, bounds: Bounds<'a>) -> BoxFuture<'a, Result<Vec<Listed>, ActionFailure>> {
        Box::pin(async move {
            let mut services = Vec::new();
            for script in Script::all(&self.paths.init_scripts) {
                let exit_code = match self.ask(&script, bounds.at_most(LISTED_STATUS_LIMIT)).await {
                    Err(failure) if *failure.code == code::CANCELLED || bounds.left().is_zero() => return Err(failure),
                    // One that hangs or crashes is in a state that nobody knows.
                    answer => answer.unwrap_or_default(),
                };
                let name = script.name.clone();
                let found = self.found(script, exit_code);
                services.push(Listed {
                    name,
                    state: words(&found.state),
                    status: found.state.status,
                    enabled: found.state.enabled,
                    enabled_state: found.state.enabled_state,
                    unit: found.unit,
                    description: found.description,
                });
            }
            Ok(services)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_scripts_can_be_asked() {
        for text in [
            "#!/bin/sh\ncase $1 in\n start) ;; status) ;; esac\n",
            "#!/bin/sh\ncase \"$1\" in start|stop|status) ;; esac\n",
            "#!/bin/sh\n. /etc/rc.d/init.d/functions\n",
            "#!/bin/sh\nexec /opt/app/ctl \"$1\"\n",
            "\x7fELF\x02",
        ] {
            assert!(knows_status(text), "{text}");
        }
        for text in [
            "#!/bin/sh\ncase $1 in\n start) exec sleep 9 ;; stop) ;; esac\n",
            "#!/bin/sh\n# there is no status here\ncase $1 in start) exit_status=1 ;; esac\n",
        ] {
            assert!(!knows_status(text), "{text}");
        }
    }

    #[test]
    fn exit_codes_of_the_lsb() {
        let statuses: Vec<_> = [0, 1, 2, 3, 4, 150, -1].map(status_of).iter().map(|status| status.word()).collect();
        assert_eq!(statuses, ["running", "failed", "failed", "stopped", "unknown", "unknown", "unknown"]);
        assert_eq!((meaning(5), meaning(1)), (Some("program not installed"), None));
    }
}
