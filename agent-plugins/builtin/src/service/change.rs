//! Changes a service: decides what there is to do, has it done, waits until it is so, and says what is different.
//!
//! # The data and how it flows
//!
//! An action is one [`Step`] or two (enabling *now* also starts). For each, [`plan`] looks at the state before and
//! says: nothing to do, do it, or why not. The manager carries it out and says what became of the job; [`reached`]
//! then judges the state that the service is in, again and again until it is the wanted one, is lost, or the time to
//! wait is over. All judgements are plain functions over data.

use std::time::Duration;

use muster_plugin_api::{ActionFailure, ActionOk, ActionReply, ActionRequest, CancellationToken};
use muster_protocol::{Code, code};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::manager::{Bounds, Carried, Condition, Ending, Found, Job, LogLine, Manager, Memory, State, Verb, words};
use crate::reply;

/// How long a service is watched after it is up. Most of what fails right after the start does so in the first
/// second: a port that is taken, a file that is missing, a wrong option.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// Time between two looks at a service.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What is kept of the time limit for the last look and the log.
const RESERVE: Duration = Duration::from_secs(3);

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Run(Verb),
    SetEnabled(bool),
}

impl Step {
    /// The steps of an action; none for an action that changes nothing.
    pub(super) fn of(action: &str, now: bool) -> &'static [Self] {
        match (action, now) {
            ("start", _) => &[Self::Run(Verb::Start)],
            ("stop", _) => &[Self::Run(Verb::Stop)],
            ("restart", _) => &[Self::Run(Verb::Restart)],
            ("reload", _) => &[Self::Run(Verb::Reload)],
            ("enable", false) => &[Self::SetEnabled(true)],
            ("enable", true) => &[Self::SetEnabled(true), Self::Run(Verb::Start)],
            ("disable", false) => &[Self::SetEnabled(false)],
            ("disable", true) => &[Self::SetEnabled(false), Self::Run(Verb::Stop)],
            _ => &[],
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Run(verb) => verb.word(),
            Self::SetEnabled(true) => "enable",
            Self::SetEnabled(false) => "disable",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Run(Verb::Start) => "started",
            Self::Run(Verb::Stop) => "stopped",
            Self::Run(Verb::Restart) => "restarted",
            Self::Run(Verb::Reload) => "reloaded",
            Self::SetEnabled(true) => "enabled",
            Self::SetEnabled(false) => "disabled",
        }
    }

    /// What makes it unnecessary.
    fn already(self) -> &'static str {
        match self {
            Self::Run(Verb::Start | Verb::Restart | Verb::Reload) => "running",
            Self::Run(Verb::Stop) => "stopped",
            _ => self.done(),
        }
    }
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq)]
enum Plan {
    Nothing,
    Do,
    Refuse(&'static Code, String),
}

fn plan(step: Step, found: &Found) -> Plan {
    let (state, traits) = (&found.state, &found.traits);
    let starts = matches!(step, Step::Run(Verb::Start | Verb::Restart) | Step::SetEnabled(true));
    if traits.is_masked && starts {
        return Plan::Refuse(&code::SERVICE_MASKED, "it is masked, so nothing may start it".to_owned());
    }
    match step {
        Step::Run(_) if traits.cannot_run.is_some() => {
            Plan::Refuse(&code::NOT_ACTIVATED, traits.cannot_run.clone().unwrap_or_default())
        }
        Step::Run(Verb::Start) if state.status.is_up() => Plan::Nothing,
        Step::Run(Verb::Stop) if state.status.is_down() => Plan::Nothing,
        Step::Run(Verb::Reload) if traits.can_reload == Some(false) => {
            Plan::Refuse(&code::CANNOT_RELOAD, "it has no way to reload; restart it".to_owned())
        }
        Step::Run(Verb::Reload) if state.status.is_down() => {
            Plan::Refuse(&code::FAILED, format!("it does not run (it is {}), so it cannot reload", words(state)))
        }
        Step::SetEnabled(enabled) => match &traits.cannot_enable {
            // What lasts until the next boot only is not what was asked for.
            _ if state.enabled == Some(enabled) && !(enabled && state.enabled_state.ends_with("-runtime")) => {
                Plan::Nothing
            }
            Some(why) => Plan::Refuse(&code::FAILED, why.clone()),
            None => Plan::Do,
        },
        Step::Run(_) => Plan::Do,
    }
}

/// Whether a service is in the state that a step is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reached {
    Yes,
    NotYet,
    /// It will not get there.
    Lost(String),
}

fn reached(verb: Verb, found: &Found) -> Reached {
    let (state, traits) = (&found.state, &found.traits);
    if verb == Verb::Stop {
        return match state.status {
            status if status.is_down() => Reached::Yes,
            // An init script without `status`: its exit code is all there is.
            Condition::Unknown => Reached::Yes,
            _ => Reached::NotYet,
        };
    }
    match state.status {
        Condition::Running | Condition::Unknown => Reached::Yes,
        Condition::Reloading | Condition::Stopping => Reached::NotYet,
        Condition::Starting if state.sub.as_deref() == Some("auto-restart") => {
            Reached::Lost("it fails and is started again and again".to_owned())
        }
        Condition::Starting => Reached::NotYet,
        Condition::Stopped if traits.condition_failed => {
            Reached::Lost("a condition in its unit file does not hold, so systemd did not start it".to_owned())
        }
        Condition::Stopped if traits.is_oneshot && is_success(state) => Reached::Yes,
        Condition::Stopped => Reached::Lost(format!("it does not run; it ended by itself{}", end_of(state))),
        Condition::Failed => Reached::Lost(format!("it failed{}", end_of(state))),
        Condition::Absent => Reached::Lost("it is gone".to_owned()),
    }
}

fn is_success(state: &State) -> bool {
    state.result.as_deref().is_none_or(|result| result == "success")
}

/// How the main process ended, as far as it is known.
fn end_of(state: &State) -> String {
    match (state.result.as_deref().filter(|result| *result != "success"), state.exit_code) {
        // The exit code of a script's `status` is no process's.
        _ if state.active.is_none() => String::new(),
        (Some(result), Some(code)) => format!(" ({result}, exit code {code})"),
        (Some(result), None) => format!(" ({result})"),
        (None, Some(code)) => format!(" (exit code {code})"),
        (None, None) => String::new(),
    }
}

/// Whether a service that was up did not stay up as it was.
fn unsettled(first: &State, now: &Found) -> Option<String> {
    if let Reached::Lost(why) = reached(Verb::Start, now) {
        return Some(why);
    }
    if !now.state.status.is_up() {
        return Some(format!("it did not stay up: it is {}", words(&now.state)));
    }
    let again = match (first.restarts, now.state.restarts) {
        (Some(before), Some(after)) => after > before,
        _ => false,
    };
    again.then(|| format!("it failed and was started again{}", end_of(&now.state)))
}

/// The answer: the keys of the description's output.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    name: String,
    unit: String,
    provider: &'static str,
    before: State,
    after: Option<State>,
    changed: bool,
    job: Option<Job>,
    log: Vec<LogLine>,
}

/// A change that is being made.
pub(super) struct Change<'a> {
    manager: &'a dyn Manager,
    cancel: &'a CancellationToken,
    name: &'a str,
    started: Instant,
    /// How long to wait for the state.
    wait: Duration,
    report: Report,
    now: Found,
    memory: Memory,
}

/// Why a step did not succeed.
struct Failed {
    failure: ActionFailure,
    /// Whether the service was asked to do something, so that its log may tell why.
    tried: bool,
}

impl<'a> Change<'a> {
    pub(super) fn new(
        manager: &'a dyn Manager,
        request: &'a ActionRequest,
        cancel: &'a CancellationToken,
        name: &'a str,
        found: Found,
        started: Instant,
    ) -> Self {
        let asked = request.arguments.get("wait_s").and_then(Value::as_u64).map(Duration::from_secs);
        let possible = request.time_limit.saturating_sub(RESERVE.min(request.time_limit / 4));
        let report = Report {
            name: name.to_owned(),
            unit: found.unit.clone(),
            provider: manager.provider(),
            before: found.state.clone(),
            after: None,
            changed: false,
            job: None,
            log: Vec::new(),
        };
        let wait = asked.map_or(possible, |asked| asked.min(possible));
        Self { manager, cancel, name, started, wait, report, now: found, memory: None }
    }

    fn waiting(&self) -> Bounds<'a> {
        Bounds { deadline: self.started + self.wait, cancel: self.cancel }
    }

    /// A look at the service may go on a little after the wait: the time limit has room for it.
    fn looking(&self) -> Bounds<'a> {
        Bounds { deadline: self.waiting().deadline + RESERVE, cancel: self.cancel }
    }

    /// Says what would be done.
    pub(super) fn noop(mut self, steps: &[Step]) -> ActionReply {
        let mut would = Vec::new();
        for step in steps {
            match plan(*step, &self.now) {
                Plan::Refuse(code, why) => return Err(self.with_report(self.failure(*step, code, &why))),
                Plan::Nothing => {}
                Plan::Do => would.push(step.done()),
            }
        }
        self.report.changed = !would.is_empty();
        let message = match would[..] {
            [] => format!("`{}` would be left as it is: {}", self.name, already(steps)),
            _ => format!("`{}` would be {}", self.name, would.join(" and ")),
        };
        Ok(reply::answer(&self.report)?.with_message(message))
    }

    /// Does all steps, up to the first that fails.
    pub(super) async fn make(mut self, steps: &[Step]) -> ActionReply {
        let mut done = Vec::new();
        for step in steps {
            match self.step(*step).await {
                Ok(true) => done.push(step.done()),
                Ok(false) => {}
                Err(Failed { failure, tried }) => return Err(self.failed(failure, tried).await),
            }
        }
        self.report.after = Some(self.now.state.clone());
        let mut message = match done[..] {
            [] => format!("`{}` is {} already", self.name, already(steps)),
            _ => format!("`{}` was {}", self.name, done.join(" and ")),
        };
        if !is_success(&self.now.state) && self.now.state.status.is_down() {
            message.push_str(&format!(", but not cleanly{}", end_of(&self.now.state)));
        }
        if self.now.traits.is_outdated {
            message.push_str("; its unit file has changed since systemd read it (`systemctl daemon-reload`)");
        }
        Ok(reply::answer(&self.report)?.with_message(message))
    }

    /// Whether it did anything.
    async fn step(&mut self, step: Step) -> Result<bool, Failed> {
        match plan(step, &self.now) {
            Plan::Nothing => return Ok(false),
            Plan::Refuse(code, why) => {
                return Err(Failed { failure: self.failure(step, code, &why), tried: false });
            }
            Plan::Do => {}
        }
        self.report.changed = true;
        match step {
            Step::Run(verb) => self.run(verb).await.map_err(|failure| Failed { failure, tried: true })?,
            Step::SetEnabled(enabled) => {
                let set = self.set_enabled(enabled).await;
                set.map_err(|failure| Failed { failure, tried: false })?;
            }
        }
        Ok(true)
    }

    async fn set_enabled(&mut self, enabled: bool) -> Result<(), ActionFailure> {
        self.manager.set_enabled(enabled, &self.now, self.waiting()).await?;
        self.look(self.looking()).await?;
        let state = &self.now.state;
        // Indirect units have nothing to enable themselves and pass it on to others.
        if state.enabled == Some(enabled) || state.enabled.is_none() {
            return Ok(());
        }
        let why = format!("nothing went wrong, but it is {} afterwards", state.enabled_state);
        Err(self.failure(Step::SetEnabled(enabled), &code::FAILED, &why))
    }

    async fn run(&mut self, verb: Verb) -> Result<(), ActionFailure> {
        let Carried { job, ending, lines, memory } = self.manager.carry_out(verb, &self.now, self.waiting()).await;
        self.report.job = Some(job.clone());
        self.report.log = lines;
        self.memory = memory;
        let step = Step::Run(verb);
        match ending {
            Ending::Refused(failure) => return Err(failure),
            Ending::Cancelled => {
                let why = "somebody cancelled it; what had begun may go on";
                return Err(self.failure(step, &code::CANCELLED, why));
            }
            Ending::Waited => return Err(self.failure(step, &code::TIMED_OUT, &self.waited())),
            Ending::Over => {}
        }
        let went_well = match (&job.result, job.exit_code) {
            (Some(result), _) => matches!(result.as_str(), "done" | "skipped"),
            (None, exit_code) => exit_code.is_none_or(|code| code == 0),
        };
        if !went_well {
            let why = self.why_job(&job).await;
            let failure = self.failure(step, &code::FAILED, &why);
            return Err(ActionFailure { exit_code: job.exit_code, ..failure });
        }
        self.arrive(verb).await
    }

    /// Why a job did not end well: the job's result, and the unit's.
    async fn why_job(&mut self, job: &Job) -> String {
        let after = self.look(self.last_look(&CancellationToken::new())).await;
        let unit = match after {
            Ok(()) if self.now.state.status == Condition::Failed => end_of(&self.now.state),
            _ => String::new(),
        };
        match (&job.result, job.exit_code, &job.error) {
            (_, Some(code), Some(meaning)) => format!("its init script ended with exit code {code} ({meaning})"),
            (_, Some(code), None) if self.report.provider != "systemd" => {
                format!("its init script ended with exit code {code}")
            }
            (Some(result), ..) => format!("the job ended with the result `{result}`{unit}"),
            (None, ..) => format!("the job failed, and its result is not known{unit}"),
        }
    }

    /// Waits for the state, and watches whether it lasts.
    async fn arrive(&mut self, verb: Verb) -> Result<(), ActionFailure> {
        let since = Instant::now();
        // A script's daemon may need a moment to write its process number; systemd knows at once.
        let patience = if self.report.provider == "systemd" { Duration::ZERO } else { SETTLE };
        loop {
            self.look(self.looking()).await?;
            match reached(verb, &self.now) {
                Reached::Yes => break,
                Reached::Lost(why) if since.elapsed() >= patience => {
                    return Err(self.failure(Step::Run(verb), &code::FAILED, &why));
                }
                _ => self.pause(verb).await?,
            }
        }
        let watches = matches!(verb, Verb::Start | Verb::Restart)
            && self.now.state.status.is_up()
            && !self.now.traits.is_oneshot
            && !self.now.traits.settles_at_once;
        let first = self.now.state.clone();
        let until = (Instant::now() + SETTLE).min(self.waiting().deadline);
        while watches && Instant::now() < until {
            self.pause(verb).await?;
            self.look(self.looking().at_most(RESERVE)).await?;
            if let Some(why) = unsettled(&first, &self.now) {
                return Err(self.failure(Step::Run(verb), &code::FAILED, &why));
            }
        }
        Ok(())
    }

    async fn pause(&self, verb: Verb) -> Result<(), ActionFailure> {
        let bounds = self.waiting();
        if bounds.left().is_zero() {
            return Err(self.failure(Step::Run(verb), &code::TIMED_OUT, &self.waited()));
        }
        tokio::select! {
            () = self.cancel.cancelled() => {
                let why = "somebody cancelled it while it waited for the state";
                Err(self.failure(Step::Run(verb), &code::CANCELLED, why))
            }
            () = tokio::time::sleep(LOOK_INTERVAL.min(bounds.left())) => Ok(()),
        }
    }

    async fn look(&mut self, bounds: Bounds<'_>) -> Result<(), ActionFailure> {
        if let Some(found) = self.manager.find(self.name, bounds).await? {
            self.now = found;
        } else {
            // A unit without a file is forgotten when it has stopped.
            self.now.state.status = Condition::Absent;
            self.now.state.pid = None;
        }
        Ok(())
    }

    /// For what is read after a failure, also after a cancel.
    fn last_look<'b>(&self, nobody: &'b CancellationToken) -> Bounds<'b> {
        Bounds::within(RESERVE, nobody)
    }

    fn waited(&self) -> String {
        let seconds = self.wait.as_secs_f32();
        let goes_on = if self.report.provider == "systemd" { "; systemd goes on with the job" } else { "" };
        format!("it was not so within {seconds} s{goes_on}")
    }

    fn failure(&self, step: Step, code: &'static Code, why: &str) -> ActionFailure {
        ActionFailure::new(code, format!("could not {} `{}`: {why}", step.word(), self.name))
    }

    async fn failed(mut self, failure: ActionFailure, tried: bool) -> ActionFailure {
        let nobody = CancellationToken::new();
        // The failure is what counts; without a last look the answer has no `after`.
        if self.look(self.last_look(&nobody)).await.is_ok() {
            self.report.after = Some(self.now.state.clone());
        }
        if tried {
            let mut log = self.manager.log(&self.now, self.last_look(&nobody)).await;
            self.report.log.append(&mut log);
            if *failure.code == code::TIMED_OUT || *failure.code == code::FAILED {
                let state = words(&self.now.state);
                let failure = ActionFailure { message: format!("{}; it is {state}", failure.message), ..failure };
                return self.with_report(failure);
            }
        }
        self.with_report(failure)
    }

    fn with_report(&self, failure: ActionFailure) -> ActionFailure {
        match reply::answer(&self.report) {
            Ok(ActionOk { data, .. }) => failure.with_data(data),
            Err(_) => failure,
        }
    }
}

fn already(steps: &[Step]) -> String {
    steps.iter().map(|step| step.already()).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests;
