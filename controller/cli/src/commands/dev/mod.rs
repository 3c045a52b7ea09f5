//! `muster dev`: a whole bus on one machine, for whoever has the two programs and nothing else.
//!
//! # The data and how it flows
//!
//! ```text
//! place ──► certificates ──► broker ──► hosts ──► contexts ──► agents ──► view
//! lock,     CA, keys         listens    files     for muster    processes   what to try
//! leftovers
//! ```
//!
//! Everything lies in one directory ([`place`]), which is locked while this runs and kept for the next time. The embedded
//! broker is in this process ([`broker`]), each agent is a `musterd` of its own ([`agents`]) that ends when its standard
//! input does, and that this process holds. So nothing is left, however this ends; and if something were, the next
//! start would find it ([`leftovers`]).
//!
//! # Non-goals
//!
//! It is no way to run a site: the authority's key lies beside everything else, and whoever has this directory is
//! everybody. It changes nothing outside that directory but one context of the user's configuration file ([`contexts`]).

mod agents;
mod broker;
mod certificates;
mod check;
mod contexts;
mod hosts;
mod leftovers;
mod place;
mod program;
mod view;
mod work;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use muster_bus::BrokerUrl;
use muster_daemon::signals::Signals;
use muster_protocol::HostName;
use tokio::time::Instant;

use self::agents::{Agent, Agents, Event, What};
use self::broker::Broker;
use self::hosts::Host;
use self::place::{Held, Place};
use self::view::{AgentState, Running, View};
use crate::context;
use crate::duration::Length;
use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, Printer, number, word};
use crate::remembered;

/// After so long without everybody being connected, it is said who is awaited.
const QUIET: Duration = Duration::from_secs(5);

/// What is left of an earlier run may take this long to end.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(15);

/// Arguments of `dev`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DevArguments {
    #[command(subcommand)]
    verb: Option<DevVerb>,
    #[command(flatten)]
    directory: Directory,
    /// How many agents to run.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    agents: u8,
    /// The agent's program [default: beside this one, else on the search path].
    #[arg(long, value_name = "FILE")]
    musterd: Option<PathBuf>,
    /// Use this broker, which knows the directory's certificates, instead of the embedded one.
    #[arg(long, value_name = "URL")]
    broker: Option<BrokerUrl>,
    /// Start, ask what a newcomer would ask, compare, stop.
    #[arg(long)]
    check: bool,
    /// How long the agents may take to connect for the first time.
    #[arg(long, value_name = "TIME", default_value = "2m")]
    connect_timeout: Length,
    /// Leave the user's configuration file alone.
    #[arg(long)]
    no_context: bool,
}

/// Where everything lies.
#[derive(Debug, Args)]
struct Directory {
    /// Keep everything in this directory [default: $XDG_STATE_HOME/muster/dev].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Verbs of `dev`.
#[derive(Debug, Subcommand)]
enum DevVerb {
    /// Say what runs, and where.
    #[command(before_help = "Examples:\n  muster dev status\n  muster dev status --json")]
    Status(Directory),
    /// Remove all that `muster dev` keeps: certificates, agents' state, the context.
    #[command(before_help = "Examples:\n  muster dev reset")]
    Reset(Directory),
}

impl Directory {
    fn place(&self) -> Result<Place, Failure> {
        Place::find(self.dir.as_deref(), |name| std::env::var_os(name).map(PathBuf::from))
    }
}

/// Runs `dev`, or a verb of it.
pub(crate) fn run(arguments: &DevArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let (directory, done) = match &arguments.verb {
        Some(DevVerb::Status(directory)) => {
            (directory, directory.place().and_then(|place| view::status(&place, &invocation.printer)))
        }
        Some(DevVerb::Reset(directory)) => (directory, directory.place().and_then(|place| reset(&place, invocation))),
        None => (&arguments.directory, crate::block_on(start(arguments, invocation))),
    };
    done.map_err(|failure| stay(failure, directory.dir.as_deref()))
}

/// What is proposed is about the directory that was named, and not about the usual one.
fn stay(mut failure: Failure, named: Option<&Path>) -> Failure {
    let Some(named) = named else { return failure };
    let flag = format!(" --dir {}", word(&named.display().to_string()));
    for hint in failure.hints.iter_mut().filter(|hint| hint.starts_with("muster dev") && !hint.contains(" --dir ")) {
        // A remark may follow the command.
        let end = hint.find(", ").into_iter().chain(hint.find("  # ")).min().unwrap_or(hint.len());
        hint.insert_str(end, &flag);
    }
    failure
}

/// What starts the broker of a context again, if `muster dev` is what runs it. `ca` is the context's authority.
pub(crate) fn start_command(ca: &Path) -> Option<String> {
    let place = Place::of_certificate(ca)?;
    Some(place.command(""))
}

/// The configuration of the embedded broker that `muster dev` runs for this user, if it does.
pub(crate) fn running_broker() -> Option<PathBuf> {
    let place = Directory { dir: None }.place().ok()?;
    let running = place.running().ok()??;
    let embedded = running.get("embedded").and_then(serde_json::Value::as_bool);
    embedded.unwrap_or(false).then(|| broker::file(&place))
}

/// Where broker, agents and contexts read the revocation list, if the authority is one of `muster dev`.
pub(crate) fn list_of(authority: &Path) -> Option<PathBuf> {
    let place = Place::of_authority(&std::path::absolute(authority).ok()?)?;
    Some(certificates::trust(&place).1)
}

/// Removes everything, the context first: one that leads nowhere is worse than none.
fn reset(place: &Place, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let printer = &invocation.printer;
    place.must_be_of(rustix::process::geteuid().as_raw())?;
    place.must_be_still()?;
    leftovers::end(&place.path().join("hosts"), LEFTOVER_PATIENCE);
    let locations = context::Locations::detect(&invocation.selection, &context::variables());
    if let Some(path) = locations.user.as_deref()
        && let Some(text) = contexts::plan_removal(&context::read(path)?, place)
    {
        context::write(path, &text, None)?;
        printer.note(format!("Removed context `{}` from {}", contexts::NAME, path.display()));
    }
    // While the certificate is there that says whose hosts they were.
    let forgotten = remembered::forget(&certificates::trust(place).0)
        .map_err(|error| Failure::unexpected("what is remembered of the hosts cannot be removed", &error))?;
    if forgotten {
        printer.note("Forgot the hosts that commands have seen");
    }
    match place.remove()? {
        true => printer.note(format!("Removed {}", place.path().display())),
        false => printer.note(format!("Nothing is kept in {}", place.path().display())),
    }
    Ok(ExitCode::Success)
}

async fn start(arguments: &DevArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let printer = &invocation.printer;
    refuse_other_context(invocation)?;
    // Before anything is started that would have to be stopped.
    let mut signals =
        Signals::install().map_err(|error| Failure::unexpected("signals cannot be listened for", &error))?;
    let own = check::own_program();
    let musterd = program::find(arguments.musterd.as_deref(), Some(&own), std::env::var_os("PATH").as_deref())?;
    let mut held = arguments.directory.place()?.hold()?;
    warn(printer, &musterd).await;
    let ended = end_leftovers(held.place()).await;
    if ended > 0 {
        let processes = number::counted(ended, "process", "processes");
        printer.note(format!("Ended {processes} that an earlier run had left"));
    }
    let hosts = hosts::first(usize::from(arguments.agents))?;
    let names: Vec<_> = hosts.iter().map(|host| host.name.clone()).collect();
    printer.note(match held.fresh {
        true => format!("Making a certificate authority and certificates in {}", held.place().path().display()),
        false => format!("Going on with what is kept in {}", held.place().path().display()),
    });
    certificates::provide(held.place(), &names, invocation.now())?;
    forget_others(held.place(), &names, invocation);
    let broker = Broker::start(arguments.broker.as_ref(), &mut held)?;
    let where_it_is = if broker.is_embedded() { "embedded broker" } else { "broker" };
    printer.note(format!("Using the {where_it_is} at {}", broker.url));
    let mut agents = None;
    let worked = tokio::select! {
        biased;
        worked = work(arguments, invocation, &held, &broker, &hosts, musterd, &mut agents) => worked,
        () = asked_to_stop(&mut signals) => Ok(ExitCode::Success),
    };
    held.remove_running();
    printer.note(format!("Stopping {} and everything it has started", program_name(&broker)));
    let stopped = async {
        if agents.is_some() {
            say_what_goes_on(held.place(), &hosts, printer).await;
        }
        if let Some(agents) = agents.take() {
            agents.stop().await;
        }
        // What an agent has started in a process of its own goes on without it. Not here.
        let ended = end_leftovers(held.place()).await;
        if ended > 0 {
            let actions = number::counted(ended, "action", "actions");
            printer.note(format!("Ended {actions} that agents had started in processes of their own"));
        }
        broker.stop().await;
    };
    tokio::select! {
        biased;
        () = stopped => worked,
        () = asked_to_stop(&mut signals) => {
            // What was to be waited for is not any more: agents, their actions, and whatever those have started.
            kill(held.place()).await;
            printer.warning("ended at once, at the second signal: what ran was killed");
            Ok(ExitCode::Interrupted)
        }
    }
}

/// Says what may hold up the end, and for how long.
async fn say_what_goes_on(place: &Place, hosts: &[Host], printer: &Printer) {
    let sockets = hosts.iter().map(|host| (host.name.to_string(), host.status_socket(place)));
    let work = work::ask(sockets).await;
    if work.is_empty() {
        return;
    }
    printer.note(format!("What runs has {} s to end by itself; Ctrl-C again kills it:", hosts::STOP_TIMEOUT_S));
    for it in work {
        printer.note(format!("  {}  {} of {}", it.host, it.action, it.caller));
    }
}

/// Commands must not wait for hosts of an earlier run that this one does not have. What cannot be forgotten is only waited for.
fn forget_others(place: &Place, names: &[HostName], invocation: &Invocation) {
    let all = hosts::first(hosts::HOSTS_MAX).unwrap_or_default();
    let others = all.into_iter().map(|host| host.name).filter(|name| !names.contains(name)).collect();
    if let Err(error) = remembered::forget_hosts(&certificates::trust(place).0, &others, invocation.now()) {
        invocation.printer.detail(1, format!("Could not forget the hosts of earlier runs: {error}"));
    }
}

/// Kills what has a configuration below this directory, on a thread that may wait.
async fn kill(place: &Place) {
    let hosts = place.path().join("hosts");
    // Only a thread that panics fails, and that is said by itself.
    drop(tokio::task::spawn_blocking(move || leftovers::kill(&hosts)).await);
}

fn program_name(broker: &Broker) -> &'static str {
    if broker.is_embedded() { "the broker, the agents" } else { "the agents" }
}

/// Ends what has a configuration below this directory, on a thread that may wait.
async fn end_leftovers(place: &Place) -> usize {
    let hosts = place.path().join("hosts");
    tokio::task::spawn_blocking(move || leftovers::end(&hosts, LEFTOVER_PATIENCE)).await.unwrap_or(0)
}

/// A terminal that is closed stops it as Ctrl-C does.
async fn asked_to_stop(signals: &mut Signals) {
    signals.next().await;
}

/// `--context prod` cannot mean that `prod` is to become ours.
fn refuse_other_context(invocation: &Invocation) -> Result<(), Failure> {
    match invocation.selection.context.as_deref() {
        None | Some(contexts::NAME) => Ok(()),
        Some(other) => {
            Err(Failure::usage(format!("`muster dev` makes the context `{}`, not `{other}`", contexts::NAME))
                .hint("muster dev"))
        }
    }
}

/// What somebody should know before it starts.
async fn warn(printer: &Printer, musterd: &Path) {
    if rustix::process::geteuid().is_root() {
        printer.warning("you are root, and so the agents may change everything on this machine");
        printer.warned("  an ordinary user is enough for all that `muster dev` does");
    }
    let mut command = tokio::process::Command::new(musterd);
    let output = command.arg("--version").stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let told = match tokio::time::timeout(Duration::from_secs(10), output).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => String::new(),
    };
    let version = told.strip_prefix("musterd ").unwrap_or(&told);
    if version != env!("CARGO_PKG_VERSION") {
        let found = if version.is_empty() { "another one" } else { version };
        printer.warning(format!(
            "{} is of version {found}, and this is {}",
            musterd.display(),
            env!("CARGO_PKG_VERSION")
        ));
    }
}

/// Writes the agents' files and the contexts, starts the agents, and looks after them.
async fn work(
    arguments: &DevArguments,
    invocation: &Invocation,
    held: &Held,
    broker: &Broker,
    hosts: &[Host],
    musterd: PathBuf,
    running: &mut Option<Agents>,
) -> Result<ExitCode, Failure> {
    let (printer, place) = (&invocation.printer, held.place());
    for host in hosts {
        host.prepare(place, &broker.url)?;
    }
    contexts::write_own(place, &broker.url)?;
    let list: Vec<Agent> = hosts
        .iter()
        .map(|host| Agent { host: host.name.clone(), folder: place.host(host.name.as_str()), program: musterd.clone() })
        .collect();
    let agents = running.insert(Agents::start(&list));
    let mut states = vec![AgentState::default(); list.len()];
    let begun = Instant::now();
    let mut quiet_until = begun + QUIET;
    let deadline = begun + Duration::from_millis(arguments.connect_timeout.as_millis().unsigned_abs());
    while !states.iter().all(AgentState::is_connected) {
        let event = tokio::select! {
            biased;
            event = agents.next() => event,
            name = broker.failed() => return Err(broker_failed(name, place)),
            () = tokio::time::sleep_until(deadline) => None,
            () = tokio::time::sleep_until(quiet_until) => {
                quiet_until = deadline + QUIET;
                say_who_is_awaited(&list, &states, &broker.url, printer);
                continue;
            }
        };
        let Some(event) = event else { return Err(not_connected(&list, &states, place, broker, begun.elapsed())) };
        first_event(&event, &list, &mut states, place)?;
    }
    // A check leaves nothing behind but its own directory, and nobody needs one that leads nowhere.
    let context = match arguments.no_context || arguments.check {
        true => None,
        false => provide_context(invocation, place, &broker.url)?,
    };
    let mut view = View {
        place,
        url: &broker.url,
        embedded: broker.is_embedded(),
        context: context.as_deref(),
        hosts,
        states,
        invocation,
    };
    held.tell(&Running::new(&view))?;
    if arguments.check {
        check::run(&check::own_program(), &place.config(), hosts, printer).await?;
        printer.note("Everything is as it should be");
        return Ok(ExitCode::Success);
    }
    view.show();
    loop {
        tokio::select! {
            biased;
            event = agents.next() => {
                let Some(event) = event else { return Ok(ExitCode::Success) };
                if let Some(state) = view.states.get_mut(event.index) {
                    state.take(&event.what);
                }
                held.tell(&Running::new(&view))?;
                view::tell(&event, &list, printer);
            }
            name = broker.failed() => return Err(broker_failed(name, place)),
        }
    }
}

/// What happens before everybody was connected once: an agent that ends then has something to say, and is not tried again.
fn first_event(event: &Event, agents: &[Agent], states: &mut [AgentState], place: &Place) -> Result<(), Failure> {
    let (Some(agent), Some(state)) = (agents.get(event.index), states.get_mut(event.index)) else { return Ok(()) };
    state.take(&event.what);
    let What::Ended { how, log, .. } = &event.what else { return Ok(()) };
    let what = format!("the agent of {} ended instead of connecting", agent.host);
    let failure = Failure::new(ExitCode::Unexpected, "dev-agent", what).why("ended", how.clone());
    let failure = match log.is_empty() {
        true => failure,
        false => failure.why("log", log.join("\n")),
    };
    Err(failure
        .hint(format!("{}  # to begin anew", place.reset_command()))
        .hint(format!("less {}", word(&agent.log().display().to_string()))))
}

/// Somebody sees nothing happen, and is told why.
fn say_who_is_awaited(agents: &[Agent], states: &[AgentState], url: &str, printer: &Printer) {
    printer.note(format!("Still waiting for agents to connect to {url}:"));
    for (agent, state) in agents.iter().zip(states).filter(|(_, state)| !state.is_connected()) {
        printer.note(format!("  {}  {}", agent.host, state.words()));
    }
}

/// Exit 7: whoever waits for hosts would wait in vain.
fn not_connected(agents: &[Agent], states: &[AgentState], place: &Place, broker: &Broker, waited: Duration) -> Failure {
    let missing = states.iter().filter(|state| !state.is_connected()).count();
    let what = format!(
        "{missing} of {} agents could not connect to {} within {} s",
        agents.len(),
        broker.url,
        waited.as_secs()
    );
    let waiting = agents.iter().zip(states).filter(|(_, state)| !state.is_connected());
    let failure = waiting
        .fold(Failure::new(ExitCode::Unreachable, "dev-not-connected", what), |failure, (agent, state)| {
            failure.why(agent.host.to_string(), state.words().to_owned())
        });
    let path = |path: PathBuf| word(&path.display().to_string());
    if broker.is_embedded() {
        return failure
            .hint(format!("{}  # to begin anew", place.reset_command()))
            .hint(format!("less {}", agents.first().map(|agent| path(agent.log())).unwrap_or_default()));
    }
    failure
        .why("need", "a broker that runs there, believes this directory's authority and knows its identities")
        .hint(format!(
            "muster broker config --ca-dir {} --out DIR --import, on the broker's machine",
            path(place.authority())
        ))
        .hint(format!("muster --config {} doctor", path(place.config())))
}

fn broker_failed(name: &str, place: &Place) -> Failure {
    Failure::new(ExitCode::Unexpected, "unexpected", "the embedded broker has stopped by itself")
        .why("task", name)
        .hint(format!("{}  # to see what it says", place.command("-v")))
}

/// Adds the context to the user's file. Gives its name, if it leads here.
fn provide_context(invocation: &Invocation, place: &Place, url: &str) -> Result<Option<String>, Failure> {
    let printer = &invocation.printer;
    let variables = context::variables();
    let locations = context::Locations::detect(&invocation.selection, &variables);
    let Some(path) = locations.user.clone() else { return Ok(None) };
    let text = context::read(&path)?;
    // A file that was named need not be there yet.
    let known = if path.exists() || !locations.named { Some(context::Files::read(&locations)?.raw) } else { None };
    let known = known.unwrap_or_default();
    let names: Vec<String> = known.context.keys().cloned().collect();
    match contexts::plan(&text, &names, known.current.as_deref(), place, url)? {
        contexts::Change::None => {}
        contexts::Change::Foreign => {
            printer.warning(format!("there is another context `{}`, which stays as it is", contexts::NAME));
            return Ok(None);
        }
        contexts::Change::Write { text: changed, pinned } => {
            if !contexts::keeps_others(&text, &changed) {
                printer.warning(format!("{} cannot be changed line by line, and stays as it is", path.display()));
                return Ok(None);
            }
            context::write(&path, &changed, known.current.as_deref().or(pinned.as_deref()))?;
            printer.note(format!("Wrote context `{}` to {}", contexts::NAME, path.display()));
            if let Some(pinned) = pinned {
                printer.note(format!("Commands without --context go to `{pinned}`, as before"));
            }
        }
    }
    for row in context::KEYS.iter().filter(|row| variables.contains_key(row.variable)) {
        printer.warning(format!("{} is set and wins over the context", row.variable));
    }
    Ok(Some(contexts::NAME.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_stays_in_the_directory_that_was_named() {
        let check = |named: Option<&str>, hint: &str, expected: &str| {
            let failure = stay(Failure::usage("x").hint(hint), named.map(Path::new));
            assert_eq!(failure.hints, [expected]);
        };
        check(Some("/my dir"), "muster dev --musterd FILE", "muster dev --musterd FILE --dir '/my dir'");
        check(Some("/d"), "muster dev, then the command by hand", "muster dev --dir /d, then the command by hand");
        check(Some("/d"), "muster dev reset  # then, again", "muster dev reset --dir /d  # then, again");
        check(Some("/d"), "muster dev reset --dir /e", "muster dev reset --dir /e");
        check(Some("/d"), "less /d/log", "less /d/log");
        check(None, "muster dev", "muster dev");
    }
}
