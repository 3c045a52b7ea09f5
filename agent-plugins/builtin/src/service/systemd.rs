//! Services of a running systemd.
//!
//! States are read with `systemctl show`, whose output is made for programs, and enabling is systemctl's work too.
//! Jobs are asked for over the system bus ([`bus`]), because only there systemd says what became of them. Where there
//! is no bus, `systemctl start` and the journal stand in for it.

mod bus;
pub(super) mod fuzzing;
mod journal;
mod offline;
mod show;
mod wire;

use std::path::{Path, PathBuf};

use muster_plugin_api::{ActionFailure, BoxFuture};
use muster_protocol::code;

use self::bus::{Bus, BusError, JobId};
use self::journal::Journal;
pub(super) use self::offline::Offline;
use super::manager::{Bounds, Carried, Ending, Found, Job, Listed, LogLine, Manager, Verb};
use super::{ServicePaths, name, sysv};
use crate::process::{Program, Run, find_program};

/// How long a job that was taken back may need to say so.
const CANCEL_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// What `systemctl` may write: states of some thousand units.
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A systemd that runs.
#[derive(Debug)]
pub(super) struct Systemd {
    systemctl: Systemctl,
    journal: Option<Journal>,
    bus: PathBuf,
    runlevels: PathBuf,
}

/// The program that speaks to systemd.
#[derive(Debug, Clone)]
struct Systemctl(PathBuf);

impl Systemctl {
    async fn run(&self, words: &[&str], bounds: Bounds<'_>) -> (Program, Run) {
        let program = Program::new(&self.0, bounds.left())
            .arguments(["--no-pager", "--no-ask-password"])
            .arguments(words)
            .output_bytes_max(LIST_BYTES_MAX);
        let run = program.run(bounds.cancel).await;
        (program, run)
    }

    /// What it wrote, if it ended well.
    async fn ask(&self, words: &[&str], bounds: Bounds<'_>) -> Result<String, ActionFailure> {
        let (program, run) = self.run(words, bounds).await;
        match run.exit_code(&program)? {
            0 => Ok(run.stdout.text()),
            code => Err(run.failure(&program, code)),
        }
    }

    /// Names and states of all services that have a file, in the columns of `list-unit-files`. No column but
    /// the last can hold a blank.
    async fn unit_files(&self, bounds: Bounds<'_>) -> Result<Vec<(String, String)>, ActionFailure> {
        let words = ["list-unit-files", "--type=service", "--no-legend", "--plain", "--full"];
        let output = self.ask(&words, bounds).await?;
        let files = output.lines().filter_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            Some((columns.next()?.to_owned(), columns.next()?.to_owned()))
        });
        Ok(files.filter(|(unit, state)| !unit.contains("@.") && state != "alias").collect())
    }

    async fn set_enabled(&self, enabled: bool, unit: &str, bounds: Bounds<'_>) -> Result<(), ActionFailure> {
        let verb = if enabled { "enable" } else { "disable" };
        self.ask(&[verb, "--", unit], bounds).await.map(drop)
    }
}

impl Systemd {
    /// `None` without `systemctl`.
    pub(super) fn new(paths: &ServicePaths) -> Option<Self> {
        Some(Self {
            systemctl: Systemctl(find_program("systemctl", &paths.programs)?),
            journal: find_program("journalctl", &paths.programs).map(Journal::new),
            bus: paths.system_bus.clone(),
            runlevels: paths.runlevels.clone(),
        })
    }

    async fn show(&self, unit: &str, bounds: Bounds<'_>) -> Result<Option<Found>, ActionFailure> {
        let properties = format!("--property={}", show::PROPERTIES);
        let output = self.systemctl.ask(&["show", &properties, "--", unit], bounds).await?;
        let mut found = show::parse(&output)?;
        if let Some(found) = &mut found {
            self.enabled_script(found, &output);
        }
        Ok(found)
    }

    /// systemd does not know whether a unit that it made from an init script starts at boot: the links do.
    fn enabled_script(&self, found: &mut Found, output: &str) {
        if found.state.enabled_state == "generated"
            && let Some(script) = show::property(output, "SourcePath").map(Path::new)
            && script.parent().is_some_and(|parent| parent.ends_with("init.d"))
            && let Some(name) = script.file_name().and_then(|name| name.to_str())
        {
            found.state.enabled = Some(sysv::is_enabled(&self.runlevels, name));
        }
    }

    async fn over_bus(&self, mut bus: Bus, verb: Verb, unit: &str, bounds: Bounds<'_>) -> Carried {
        let member = match verb {
            Verb::Start => "StartUnit",
            Verb::Stop => "StopUnit",
            Verb::Restart => "RestartUnit",
            Verb::Reload => "ReloadUnit",
        };
        let mut job = Job::of(verb);
        let carried = |job, ending, bus: Bus| Carried { job, ending, lines: Vec::new(), memory: Some(Box::new(bus)) };
        bus.hold(unit).await;
        let id = match bus.start_job(member, unit).await {
            Ok(id) => id,
            Err(error) => {
                if let BusError::Refused { name, .. } = &error {
                    job.error = Some(name.clone());
                }
                return carried(job, Ending::Refused(refusal(verb, unit, &error)), bus);
            }
        };
        job.id = Some(id.number);
        let ending = tokio::select! {
            biased;
            result = bus.job_result(&id) => {
                // A bus that goes away with the job, as when it is the bus that is restarted, tells nothing
                // about the job: then the state of the unit decides.
                job.result = result.ok();
                Ending::Over
            }
            () = bounds.cancel.cancelled() => Ending::Cancelled,
            () = tokio::time::sleep_until(bounds.deadline) => Ending::Waited,
        };
        if ending == Ending::Cancelled {
            job.result = take_back(&mut bus, &id).await;
        }
        carried(job, ending, bus)
    }

    /// Without a bus: `systemctl` waits for the job and says only whether it went well (exit code 0 means `done`,
    /// or that nothing had to be done). Otherwise systemd's own record in the journal has the result.
    async fn by_program(&self, verb: Verb, unit: &str, bounds: Bounds<'_>) -> Carried {
        let last = match &self.journal {
            Some(journal) => journal.last_time(unit, bounds).await,
            None => None,
        };
        let (program, run) = self.systemctl.run(&[verb.word(), "--", unit], bounds).await;
        let mut job = Job::of(verb);
        let lines = LogLine::of_output("systemctl", &run.stderr.text());
        let ending = match run.exit_code(&program) {
            Ok(0) => {
                job.result = Some("done".to_owned());
                Ending::Over
            }
            Ok(exit_code) => {
                job.exit_code = Some(exit_code);
                if let Some(journal) = &self.journal {
                    job.result = journal.job_result(unit, verb.word(), last, bounds).await;
                }
                Ending::Over
            }
            Err(failure) if *failure.code == code::CANCELLED => Ending::Cancelled,
            Err(failure) if *failure.code == code::TIMED_OUT => Ending::Waited,
            Err(failure) => Ending::Refused(failure),
        };
        Carried { job, ending, lines, memory: None }
    }
}

/// Takes a job back and waits a moment for it to be over.
async fn take_back(bus: &mut Bus, id: &JobId) -> Option<String> {
    bus.cancel_job(id).await.ok()?;
    tokio::time::timeout(CANCEL_PATIENCE, bus.job_result(id)).await.ok()?.ok()
}

/// systemd's names for errors are stable; its texts are for people.
fn refusal(verb: Verb, unit: &str, error: &BusError) -> ActionFailure {
    let name = match error {
        BusError::Refused { name, .. } => name.strip_prefix("org.freedesktop.systemd1.").unwrap_or_default(),
        _ => "",
    };
    let code = match (name, verb) {
        ("NoSuchUnit", _) => &code::UNKNOWN_SERVICE,
        ("UnitMasked", _) => &code::SERVICE_MASKED,
        ("JobTypeNotApplicable", Verb::Reload) => &code::CANNOT_RELOAD,
        _ => &code::FAILED,
    };
    ActionFailure::new(code, format!("systemd did not take the job to {} `{unit}`: {error}", verb.word()))
}

impl Manager for Systemd {
    fn provider(&self) -> &'static str {
        "systemd"
    }

    fn find<'a>(&'a self, name: &'a str, bounds: Bounds<'a>) -> BoxFuture<'a, Result<Option<Found>, ActionFailure>> {
        Box::pin(async move { self.show(&name::unit(name), bounds).await })
    }

    fn carry_out<'a>(&'a self, verb: Verb, found: &'a Found, bounds: Bounds<'a>) -> BoxFuture<'a, Carried> {
        Box::pin(async move {
            match tokio::time::timeout(bounds.left(), Bus::connect(&self.bus)).await {
                Ok(Ok(bus)) => self.over_bus(bus, verb, &found.unit, bounds).await,
                Ok(Err(_)) | Err(_) => self.by_program(verb, &found.unit, bounds).await,
            }
        })
    }

    fn set_enabled<'a>(
        &'a self,
        enabled: bool,
        found: &'a Found,
        bounds: Bounds<'a>,
    ) -> BoxFuture<'a, Result<(), ActionFailure>> {
        Box::pin(self.systemctl.set_enabled(enabled, &found.unit, bounds))
    }

    fn log<'a>(&'a self, found: &'a Found, bounds: Bounds<'a>) -> BoxFuture<'a, Vec<LogLine>> {
        Box::pin(async move {
            match &self.journal {
                Some(journal) => journal.lines(&found.unit, bounds).await,
                None => Vec::new(),
            }
        })
    }

    fn list<'a>(&'a self, bounds: Bounds<'a>) -> BoxFuture<'a, Result<Vec<Listed>, ActionFailure>> {
        Box::pin(async move {
            let properties = format!("--property={}", show::PROPERTIES);
            // The pattern is systemctl's, not a shell's.
            let loaded = self.systemctl.ask(&["show", &properties, "--", "*.service"], bounds).await?;
            let files = self.systemctl.unit_files(bounds).await?;
            let mut services = Vec::new();
            for block in loaded.split("\n\n") {
                if let Ok(Some(mut found)) = show::parse(block) {
                    self.enabled_script(&mut found, block);
                    services.push(show::listed(&found));
                }
            }
            for (unit, state) in files {
                if !services.iter().any(|service| service.unit == unit) {
                    services.push(show::listed_file(&unit, &state));
                }
            }
            Ok(services)
        })
    }
}
