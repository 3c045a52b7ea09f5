//! What `muster dev` shows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::agents::{Agent, Event, What};
use super::check;
use super::hosts::Host;
use super::leftovers;
use super::place::Place;
use super::program::command_word;
use crate::context;
use crate::invocation::Invocation;
use crate::output::{Column, ExitCode, Failure, Format, Printer, Style, Table, Text, word};

/// The schema of all documents of `dev`.
const SCHEMA: &str = "muster.dev/v1";

/// What is known of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AgentState {
    /// Its process, while there is one.
    pub(super) pid: Option<u32>,
    connected: bool,
    /// What it said last where it is not connected, or how it ended.
    why: String,
}

impl AgentState {
    /// Takes in what has happened.
    pub(super) fn take(&mut self, what: &What) {
        match what {
            What::Started { pid } => *self = Self { pid: Some(*pid), connected: false, why: String::new() },
            What::Trying { why } | What::Disconnected { why } => {
                (self.connected, self.why) = (false, why.clone());
            }
            What::Connected => (self.connected, self.why) = (true, String::new()),
            What::Ended { how, .. } => *self = Self { pid: None, connected: false, why: how.clone() },
        }
    }

    /// Whether it takes commands.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Why it does not.
    pub(super) fn words(&self) -> &str {
        match (self.why.as_str(), self.pid) {
            ("", Some(_)) => "has said nothing yet",
            ("", None) => "has not been started yet",
            (why, _) => why,
        }
    }

    /// In a word, for programs and people.
    fn state(&self) -> &'static str {
        match (self.connected, self.pid) {
            (true, _) => "connected",
            (false, Some(_)) => "connecting",
            (false, None) => ENDED,
        }
    }
}

/// An agent without a process.
const ENDED: &str = "ended";

/// Everything that is worth showing.
pub(super) struct View<'a> {
    pub(super) place: &'a Place,
    pub(super) url: &'a str,
    pub(super) embedded: bool,
    /// The context in the user's file that leads here, if there is one.
    pub(super) context: Option<&'a str>,
    pub(super) hosts: &'a [Host],
    pub(super) states: Vec<AgentState>,
    pub(super) invocation: &'a Invocation,
}

/// What runs, for programs and for `muster dev status`.
#[derive(Debug, Serialize)]
pub(super) struct Running {
    kind: &'static str,
    pid: u32,
    directory: PathBuf,
    broker: String,
    embedded: bool,
    context: Option<String>,
    config: PathBuf,
    ca_directory: PathBuf,
    agents: Vec<RunningAgent>,
}

#[derive(Debug, Serialize)]
struct RunningAgent {
    host: String,
    role: &'static str,
    dc: &'static str,
    class: &'static str,
    state: &'static str,
    pid: Option<u32>,
    directory: PathBuf,
}

impl Running {
    pub(super) fn new(view: &View<'_>) -> Self {
        let agents = view.hosts.iter().zip(&view.states).map(|(host, state)| RunningAgent {
            host: host.name.to_string(),
            role: host.role,
            dc: host.data_center,
            class: host.class,
            state: state.state(),
            pid: state.pid,
            directory: view.place.host(host.name.as_str()),
        });
        Self {
            kind: "ready",
            pid: std::process::id(),
            directory: view.place.path().to_owned(),
            broker: view.url.to_owned(),
            embedded: view.embedded,
            context: view.context.map(str::to_owned),
            config: view.place.config(),
            ca_directory: view.place.authority(),
            agents: agents.collect(),
        }
    }
}

impl View<'_> {
    /// Says that everything runs, and what to try.
    pub(super) fn show(&self) {
        let printer = &self.invocation.printer;
        match printer.format() {
            Format::Json | Format::Jsonl => printer.document(SCHEMA, &Running::new(self)),
            _ => {
                let mut table = Table::new(["host", "role", "dc", "class", "pid"].map(Column::new));
                for (host, state) in self.hosts.iter().zip(&self.states) {
                    let pid = state.pid.map(|pid| pid.to_string()).unwrap_or_default();
                    table.row([
                        Text::from(host.name.as_str()),
                        host.role.into(),
                        host.data_center.into(),
                        host.class.into(),
                        pid.into(),
                    ]);
                }
                printer.table(&table);
            }
        }
        // Whoever reads it through a pipe waits for it.
        printer.finish();
        if !printer.format().is_for_programs() {
            self.invite(printer);
        }
    }

    fn invite(&self, printer: &Printer) {
        let muster = self.command();
        printer.note(format!("{} agents are connected. In another terminal:", self.hosts.len()));
        printer.note("");
        for words in [
            "ping --all",
            "find -t 'role = web and dc = fra2'",
            "run shell.run command='uptime' -t 'role = web'",
            "run shell.run command='uptime' --all",
            "host facts web-01.ams1 os",
            "plugin list",
            "doctor",
        ] {
            printer.note(Text::from("  ").push(Style::Accent, format!("{muster} {words}")));
        }
        printer.note("");
        printer.note("The database refuses what only one person has signed: its policy says so.");
        let hosts = self.place.path().join("hosts");
        printer.note(format!("Policies, facts and logs of the agents: {}", hosts.display()));
        printer.note("Ctrl-C stops everything. What is kept is there again at the next start.");
    }

    /// The beginning of every command that leads here.
    fn command(&self) -> String {
        let muster = command_word(&check::own_program(), std::env::var_os("PATH").as_deref());
        let named = self.invocation.selection.config.as_ref();
        match self.context {
            None => format!("{muster} --config {}", word(&self.place.config().display().to_string())),
            Some(name) => {
                let file = named.map(|file| format!(" --config {}", word(&file.display().to_string())));
                let muster = format!("{muster}{}", file.unwrap_or_default());
                if self.is_in_use(name) { muster } else { format!("{muster} --context {name}") }
            }
        }
    }

    /// Whether commands go to this context without being told.
    fn is_in_use(&self, name: &str) -> bool {
        let variables = context::variables();
        let locations = context::Locations::detect(&self.invocation.selection, &variables);
        let chosen = context::Files::read(&locations)
            .and_then(|files| context::choose(&context::Selection::default(), &variables, &files, &locations));
        chosen.is_ok_and(|choice| choice.name == name)
    }
}

/// Says what has happened to an agent after everything had begun.
pub(super) fn tell(event: &Event, agents: &[Agent], printer: &Printer) {
    let Some(agent) = agents.get(event.index) else { return };
    if printer.format() == Format::Jsonl {
        printer.record(SCHEMA, &happened(&event.what, agent));
    }
    match &event.what {
        What::Started { pid } => printer.detail(1, format!("The agent of {} runs as process {pid}", agent.host)),
        What::Trying { why } => printer.detail(1, format!("The agent of {} is not connected: {why}", agent.host)),
        What::Connected => printer.note(format!("The agent of {} is connected", agent.host)),
        What::Disconnected { why } => {
            printer.warning(format!("the agent of {} has lost its connection: {why}", agent.host));
        }
        What::Ended { how, log, again_in } => {
            printer.warning(format!("the agent of {} has ended: {how}", agent.host));
            log.iter().for_each(|line| printer.warned(format!("  {line}")));
            printer.warned(match again_in {
                Some(pause) => format!("  it is started again in {} s", seconds(*pause)),
                None => format!("  it has ended too often and stays away; its log: {}", agent.log().display()),
            });
        }
    }
}

fn happened(what: &What, agent: &Agent) -> serde_json::Value {
    let host = agent.host.as_str();
    match what {
        What::Started { pid } => serde_json::json!({ "kind": "agent_started", "host": host, "pid": pid }),
        What::Trying { why } => serde_json::json!({ "kind": "agent_trying", "host": host, "why": why }),
        What::Connected => serde_json::json!({ "kind": "agent_ready", "host": host }),
        What::Disconnected { why } => serde_json::json!({ "kind": "agent_disconnected", "host": host, "why": why }),
        What::Ended { how, again_in, .. } => serde_json::json!({
            "kind": "agent_ended", "host": host, "how": how, "again_in_s": again_in.map(seconds),
        }),
    }
}

fn seconds(pause: Duration) -> u64 {
    pause.as_secs()
}

/// `muster dev status`.
pub(super) fn status(place: &Place, printer: &Printer) -> Result<ExitCode, Failure> {
    let Some(mut running) = place.running()? else {
        return Err(Failure::new(ExitCode::Unreachable, "dev-not-running", "`muster dev` does not run")
            .why("looked", place.path().display().to_string())
            .hint(place.command("")));
    };
    if running.is_null() {
        running = serde_json::json!({ "kind": "changing", "directory": place.path() });
        printer.note("`muster dev` is about to start, or to stop");
    }
    let hosts = place.path().join("hosts");
    let mut agents = running.get_mut("agents").and_then(serde_json::Value::as_array_mut);
    agents.iter_mut().flat_map(|agents| agents.iter_mut()).for_each(|agent| look(agent, &hosts));
    if printer.format().is_json() {
        printer.document(SCHEMA, &running);
        return Ok(ExitCode::Success);
    }
    let mut table = Table::new([Column::new("key"), Column::new("value").text()]);
    for key in ["pid", "directory", "broker", "context", "config"] {
        if let Some(value) = running.get(key) {
            table.row([Text::from(key), shown(value).into()]);
        }
    }
    printer.table(&table);
    let Some(agents) = running.get("agents").and_then(serde_json::Value::as_array) else {
        return Ok(ExitCode::Success);
    };
    let keys = ["host", "state", "pid", "directory"];
    let mut table = Table::new(keys.map(Column::new));
    for agent in agents {
        table.row(keys.map(|key| Text::from(agent.get(key).map(shown).unwrap_or_default())));
    }
    printer.line("");
    printer.table(&table);
    Ok(ExitCode::Success)
}

/// An agent that was killed a moment ago is not told as running.
fn look(agent: &mut serde_json::Value, hosts: &Path) {
    let pid = agent.get("pid").and_then(serde_json::Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
    if pid.is_none_or(|pid| !leftovers::is_running(pid, hosts))
        && let Some(agent) = agent.as_object_mut()
    {
        agent.insert("pid".to_owned(), serde_json::Value::Null);
        agent.insert("state".to_owned(), ENDED.into());
    }
}

fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}
