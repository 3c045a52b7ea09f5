//! Changing packages: queue up, look, do, look again, answer.
//!
//! The answer is the difference between the database before and after, whatever the program said in between,
//! and it is given also when the transaction failed half way. Fetching can be stopped at any time; a step that
//! changes packages is left to finish, since tearing it off leaves packages half configured. Only the time
//! limit ends it all the same.

use std::time::Duration;

use muster_plugin_api::{ActionContext, ActionFailure, ActionReply, CancellationToken};
use muster_protocol::{OutputStream, code};
use nix::unistd::geteuid;
use serde::Serialize;
use tokio::time::Instant;

use super::database::Asking;
use super::denied::{denied, explained};
use super::diff::{Change, Touched, diff};
use super::entry::Snapshot;
use super::goal::{Goal, Permits, Plan, plan, verify};
use super::lock::{Holder, Turn, take_turn};
use super::manager::{Manager, Phase, Planned, Step, Task};
use crate::process::{End, LeaveBehind, Run};
use crate::reply;

/// Time between two looks at locks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Time until a program that found a lock taken runs again; each time it says so.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last look at the database may take: it has to be taken whatever happened before.
const LAST_LOOK_LIMIT: Duration = Duration::from_secs(30);

/// Part of the time limit that is kept for the end, and at most this.
const RESERVE_PART: u32 = 20;
const RESERVE_MAX: Duration = Duration::from_secs(15);

/// Most packages in one answer. With the longest names of Debian that is half of what a report may hold.
const ROWS_MAX: usize = 1500;

/// Output of a simulation that is kept, in bytes: some 100 bytes for each of 20,000 packages.
const SIMULATION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a changing action was asked.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) goal: Goal,
    pub(super) permits: Permits,
    /// Fetch what the repositories have before anything else.
    pub(super) refresh: bool,
    /// How long to wait for somebody else's lock.
    pub(super) lock_timeout: Duration,
    /// How long all of it may take.
    pub(super) time_limit: Duration,
}

/// The answer: the keys of the description's output.
#[derive(Debug, Default, Serialize)]
struct Answer {
    provider: &'static str,
    installer: &'static str,
    changed: bool,
    packages: Vec<Touched>,
    left_out: usize,
    unchanged: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    planned: Option<Vec<Planned>>,
    waited_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<Holder>,
}

/// A transaction on its way.
struct Work<'a> {
    manager: &'a dyn Manager,
    context: &'a ActionContext,
    deadline: Instant,
    lock_deadline: Instant,
    tries: u32,
    waited: Duration,
    holder: Option<Holder>,
    /// Who was last said to be waited for.
    told: Option<Holder>,
    /// Held from the first look at the database to the last.
    turn: Option<Turn>,
    /// Whether a step that changes packages was started.
    applied: bool,
}

/// Does what was asked.
pub(super) async fn run(manager: &dyn Manager, order: &Order, context: &ActionContext) -> ActionReply {
    let mut work = Work::new(manager, order, context);
    work.take_turn().await.map_err(|failure| work.failed(failure, Answer::default()))?;
    let before = work.look().await?;
    let plan = plan(manager, &order.goal, order.permits, &before);
    let done = work.perform(order, &plan).await;
    if !work.applied {
        return match done {
            Ok(()) => work.answer(Answer::default(), plan),
            Err(failure) => Err(work.failed(failure, Answer { unchanged: plan.unchanged, ..Answer::default() })),
        };
    }
    let never = CancellationToken::new();
    let after = manager.database().entries(None, Asking { limit: LAST_LOOK_LIMIT, cancel: &never }).await.map(Snapshot);
    let after = match (after, &done) {
        (Ok(after), _) => after,
        (Err(look), Ok(())) => {
            let message = format!("packages were changed, but what became of them could not be seen: {look}");
            return Err(work.failed(ActionFailure::failed(message), Answer::default()));
        }
        (Err(look), Err(failure)) => {
            let message = format!("{failure}; what became of the packages could not be seen: {look}");
            return Err(work.failed(ActionFailure { message, ..failure.clone() }, Answer::default()));
        }
    };
    let mut packages = diff(&before, &after, manager.database().order(), manager.database().keeps_configuration());
    packages.iter_mut().for_each(|touched| touched.tries = work.tries);
    let answer = Answer { changed: !packages.is_empty(), packages, ..Answer::default() };
    match done.and_then(|()| verify(manager, &order.goal, &after)) {
        Ok(()) => work.answer(answer, plan),
        Err(failure) => Err(work.failed(failure, Answer { unchanged: plan.unchanged, ..answer })),
    }
}

/// Says what would be done.
pub(super) async fn simulate(manager: &dyn Manager, order: &Order, context: &ActionContext) -> ActionReply {
    let work = Work::new(manager, order, context);
    let before = work.look().await?;
    let mut plan = plan(manager, &order.goal, order.permits, &before);
    let mut planned = Vec::new();
    for task in &plan.tasks {
        if *task == Task::Refresh {
            plan.notes.push("would fetch what the repositories have".to_owned());
            continue;
        }
        work.check_known(task).await?;
        let step = manager.simulation(task)?;
        let run = work.read(&step).await?;
        planned.extend(manager.planned(task, &run, &before)?);
    }
    let left_out = planned.len().saturating_sub(ROWS_MAX);
    planned.truncate(ROWS_MAX);
    let answer = Answer { planned: Some(planned), left_out, ..Answer::default() };
    work.answer(answer, plan)
}

/// Asks which updates there are.
pub(super) async fn updates(
    manager: &dyn Manager,
    limit: Duration,
    context: &ActionContext,
) -> Result<Vec<super::manager::Update>, ActionFailure> {
    let order = Order {
        goal: Goal::UpdateAll,
        permits: Permits::default(),
        refresh: false,
        lock_timeout: Duration::ZERO,
        time_limit: limit,
    };
    let work = Work::new(manager, &order, context);
    let before = work.look().await?;
    let run = work.read(&manager.update_query()?).await?;
    manager.updates(&run.stdout.text(), &before)
}

impl<'a> Work<'a> {
    fn new(manager: &'a dyn Manager, order: &Order, context: &'a ActionContext) -> Self {
        let now = Instant::now();
        let reserve = (order.time_limit / RESERVE_PART).min(RESERVE_MAX);
        Self {
            manager,
            context,
            deadline: now + order.time_limit.saturating_sub(reserve),
            lock_deadline: now + order.lock_timeout,
            tries: 1,
            waited: Duration::ZERO,
            holder: None,
            told: None,
            turn: None,
            applied: false,
        }
    }

    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn look(&self) -> Result<Snapshot, ActionFailure> {
        let asking = Asking { limit: self.remaining(), cancel: &self.context.cancel };
        self.manager.database().entries(None, asking).await.map(Snapshot)
    }

    /// Takes our own place in the queue, then waits until nobody else is at work.
    async fn take_turn(&mut self) -> Result<(), ActionFailure> {
        let directory = self.manager.database().directory().to_owned();
        let unlockable = |error| {
            let message = format!("`{}` cannot be locked: {error}", directory.display());
            ActionFailure::failed(message)
        };
        let mut told = false;
        loop {
            match take_turn(&directory).map_err(unlockable)? {
                Ok(turn) => {
                    self.turn = Some(turn);
                    break;
                }
                Err(holder) => self.wait_for(holder, &mut told, LOOK_INTERVAL).await?,
            }
        }
        self.wait_for_others().await
    }

    /// Waits until nobody holds a lock of the package manager.
    async fn wait_for_others(&mut self) -> Result<(), ActionFailure> {
        let locks = self.manager.locks();
        let mut told = false;
        loop {
            // A lock that cannot be looked at is left to the package manager, which says so better.
            match locks.iter().find_map(|lock| lock.holder().ok().flatten()) {
                None => return Ok(()),
                Some(holder) => self.wait_for(holder, &mut told, LOOK_INTERVAL).await?,
            }
        }
    }

    /// One more look later, unless it is too late. Says once whom it waits for.
    async fn wait_for(&mut self, holder: Holder, told: &mut bool, interval: Duration) -> Result<(), ActionFailure> {
        let since = Instant::now();
        if since >= self.lock_deadline.min(self.deadline) {
            let limit = self.waited.as_secs();
            let message =
                format!("`{}` is held by {holder}, and was not let go within {limit} s", holder.lock.display());
            self.holder = Some(holder);
            return Err(ActionFailure::new(&code::CONFLICT, message));
        }
        if !*told {
            *told = true;
            self.tries += 1;
        }
        if self.told.as_ref() != Some(&holder) {
            let line = format!("Waiting for `{}`, which is held by {holder}\n", holder.lock.display());
            self.context.output.write(OutputStream::Stderr, line.into_bytes()).await;
            self.told = Some(holder);
        }
        tokio::select! {
            () = self.context.cancel.cancelled() => {
                return Err(ActionFailure::new(&code::CANCELLED, "it was stopped while it waited for a lock; nothing was changed"));
            }
            () = tokio::time::sleep(interval) => {}
        }
        self.waited += since.elapsed();
        Ok(())
    }

    async fn perform(&mut self, order: &Order, plan: &Plan) -> Result<(), ActionFailure> {
        if order.refresh && !plan.tasks.is_empty() {
            self.steps(&Task::Refresh).await?;
        }
        for task in &plan.tasks {
            self.check_known(task).await?;
            self.steps(task).await?;
        }
        Ok(())
    }

    async fn steps(&mut self, task: &Task) -> Result<(), ActionFailure> {
        for step in self.manager.steps(task)? {
            if self.context.cancel.is_cancelled() {
                return Err(ActionFailure::new(&code::CANCELLED, "it was stopped before the next step"));
            }
            self.step(&step).await?;
        }
        Ok(())
    }

    /// Runs a step, again where somebody else took the lock in between.
    async fn step(&mut self, step: &Step) -> Result<(), ActionFailure> {
        let never = CancellationToken::new();
        loop {
            let program = step.program(self.remaining()).stream_to(self.context.output.clone());
            let (program, cancel) = match step.phase {
                Phase::Fetch => (program, &self.context.cancel),
                // Package scripts start daemons, which are there to stay.
                Phase::Apply => (program.leave_behind(LeaveBehind::Keep), &never),
            };
            self.applied |= step.phase == Phase::Apply;
            let run = program.run(cancel).await;
            let exit_code = match run.end {
                End::Exited(exit_code) => exit_code,
                _ => run.exit_code(&program)?,
            };
            if step.successes.contains(&exit_code) {
                return Ok(());
            }
            if let Some(line) = denied(&run) {
                return Err(refused(&line, exit_code));
            }
            if !self.manager.was_locked(&run, exit_code) {
                return Err(complaint(&run).map_or_else(
                    || run.failure(&program, exit_code),
                    |line| ActionFailure::failed(line).with_exit_code(exit_code),
                ));
            }
            let unknown =
                || Holder { lock: self.manager.database().directory().to_owned(), pid: None, command: String::new() };
            let holder = self.manager.locks().iter().find_map(super::lock::LockFile::suspect).unwrap_or_else(unknown);
            let mut told = false;
            self.wait_for(holder, &mut told, RETRY_INTERVAL).await?;
            self.wait_for_others().await?;
        }
    }

    /// Runs a step that only reads, and keeps what it says.
    async fn read(&self, step: &Step) -> Result<Run, ActionFailure> {
        let program = step.program(self.remaining()).output_bytes_max(SIMULATION_BYTES_MAX);
        let run = program.run(&self.context.cancel).await;
        let exit_code = run.exit_code(&program)?;
        if step.successes.contains(&exit_code) {
            return Ok(run);
        }
        if let Some(line) = denied(&run) {
            return Err(refused(&line, exit_code));
        }
        if self.manager.was_locked(&run, exit_code) {
            let holder = self.manager.locks().iter().find_map(super::lock::LockFile::suspect);
            let who = holder.map_or_else(|| "another program".to_owned(), |holder| holder.to_string());
            return Err(ActionFailure::new(&code::CONFLICT, format!("{who} is at work with packages")));
        }
        Err(complaint(&run).map_or_else(
            || run.failure(&program, exit_code),
            |line| ActionFailure::failed(line).with_exit_code(exit_code),
        ))
    }

    /// Refuses names that no repository has, before the manager takes them for a pattern or a wish to remove.
    async fn check_known(&self, task: &Task) -> Result<(), ActionFailure> {
        let Task::Install { specs, .. } = task else { return Ok(()) };
        let Some(step) = self.manager.known(specs) else { return Ok(()) };
        let run = self.read(&step).await?;
        let unknown = self.manager.unknown_names(specs, &run.stdout.text());
        if unknown.is_empty() {
            return Ok(());
        }
        let names = unknown.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Err(ActionFailure::failed(format!(
            "no repository of this host has {names}, as far as it knows; `refresh=true` asks them again"
        )))
    }

    fn complete(&self, mut answer: Answer) -> Answer {
        answer.provider = self.manager.database().provider();
        answer.installer = self.manager.installer();
        answer.waited_ms = u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX);
        answer.left_out += answer.packages.len().saturating_sub(ROWS_MAX);
        answer.packages.truncate(ROWS_MAX);
        answer
    }

    fn answer(&self, answer: Answer, plan: Plan) -> ActionReply {
        let summary = match &answer.planned {
            Some(planned) => sum_up("would be", planned.iter().map(|one| one.change)),
            None => sum_up("", answer.packages.iter().map(|one| one.change)),
        };
        let mut notes = plan.notes;
        if self.applied && self.context.cancel.is_cancelled() {
            notes.push("it was told to stop while packages were changed, which was left to finish".to_owned());
        }
        let refreshed = plan.tasks.contains(&Task::Refresh) && answer.planned.is_none();
        let summary = if refreshed { "what the repositories have was fetched".to_owned() } else { summary };
        let message = std::iter::once(summary).chain(notes).collect::<Vec<_>>().join("; ");
        let answer = self.complete(Answer { unchanged: plan.unchanged, ..answer });
        Ok(reply::answer(&answer)?.with_message(message))
    }

    /// A failure with what was changed all the same.
    fn failed(&self, failure: ActionFailure, mut answer: Answer) -> ActionFailure {
        answer.holder.clone_from(&self.holder);
        let answer = self.complete(answer);
        let changed = answer.packages.len() + answer.left_out;
        let message = match changed {
            0 => failure.message.clone(),
            1 => format!("{}; 1 package was changed until then", failure.message),
            _ => format!("{}; {changed} packages were changed until then", failure.message),
        };
        let data = reply::answer(&answer).map(|ok| ok.data).unwrap_or_default();
        ActionFailure { message, data, ..failure }
    }
}

/// What becomes of a run that had too few rights.
fn refused(line: &str, exit_code: i32) -> ActionFailure {
    ActionFailure::failed(explained(line, geteuid().as_raw())).with_exit_code(exit_code)
}

/// The line in which a program says what is wrong, past warnings and progress.
fn complaint(run: &Run) -> Option<String> {
    const MARKS: &[&str] = &["E: ", "Error: ", "ERROR: ", "error: ", "dpkg: error", "dpkg: dependency problems"];
    let (stderr, stdout) = (run.stderr.text(), run.stdout.text());
    let lines = stderr.lines().chain(stdout.lines()).map(str::trim);
    let marked = |line: &&str| MARKS.iter().any(|mark| line.starts_with(mark));
    let mut found = lines.filter(marked);
    let first = found.next()?;
    // dpkg says with which package it had trouble; apt's own line after it says only that dpkg had.
    let rest = if first.ends_with(':') {
        stderr.lines().map(str::trim).skip_while(|line| *line != first).nth(1)
    } else {
        None
    };
    let line = rest.map_or_else(|| first.to_owned(), |rest| format!("{first} {rest}"));
    Some(line.chars().take(400).collect())
}

/// `3 packages: 2 installed, 1 updated`.
fn sum_up(would: &str, changes: impl Iterator<Item = Change>) -> String {
    let mut counts: Vec<(Change, usize)> = Vec::new();
    for change in changes {
        match counts.iter_mut().find(|(known, _)| *known == change) {
            Some((_, count)) => *count += 1,
            None => counts.push((change, 1)),
        }
    }
    let total: usize = counts.iter().map(|(_, count)| count).sum();
    let noun = if total == 1 { "package" } else { "packages" };
    let would = if would.is_empty() { String::new() } else { format!("{would} ") };
    match total {
        0 if would.is_empty() => "nothing had to be changed".to_owned(),
        0 => "nothing would be changed".to_owned(),
        _ => {
            let parts: Vec<_> = counts.iter().map(|(change, count)| format!("{count} {}", change.as_str())).collect();
            format!("{total} {noun} {would}changed: {}", parts.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        assert_eq!(sum_up("", [].into_iter()), "nothing had to be changed");
        assert_eq!(sum_up("would be", [].into_iter()), "nothing would be changed");
        assert_eq!(sum_up("", [Change::Installed].into_iter()), "1 package changed: 1 installed");
        let several = [Change::Updated, Change::Installed, Change::Updated];
        assert_eq!(sum_up("would be", several.into_iter()), "3 packages would be changed: 2 updated, 1 installed");
    }
}
