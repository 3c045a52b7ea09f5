//! `muster run PLUGIN.ACTION`: runs an action on hosts and says what came of it.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use muster_client::limit::{Amount, shuffled};
use muster_client::wave::{StopRule, WavePlan};
use muster_client::{Asking, Audience, End, Event, Question, REPLY_TIMEOUT_MS_DEFAULT, Summary, TTL_MS_DEFAULT};
use muster_protocol::{HostName, RequestId, TaskState, Timestamp};

use crate::ask::WaitArguments;
use crate::ask::action::{How, Wanted};
use crate::ask::confirm::{Guard, confirm};
use crate::ask::counter::Counter;
use crate::ask::details;
use crate::ask::follow::{Stop, Stopped, follow};
use crate::ask::no_match;
use crate::ask::record::{Accepted, CountsRecord, EndRecord, GroupRecord, Plan, SCHEMA, Task, Whole};
use crate::ask::scene::{Scene, Stage};
use crate::ask::screen::{self, Look};
use crate::ask::search::{Found, matched, search};
use crate::ask::stranger;
use crate::catalogue::Catalogue;
use crate::duration::Length;
use crate::invocation::Invocation;
use crate::outcome::{Group, Headline, Reason, Row, count, exit_code, group, summary};
use crate::output::{Column, ExitCode, Failure, Format, Style, Table, Text, fold, number};
use crate::session::client_failure;
use crate::target::{Chosen, Target, TargetArguments, quoted};

/// Most failures that are told while others still run; all are told at the end.
const LIVE_FAILURES_MAX: usize = 10;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  \
    muster run package.status name=openssl -t 'os.family = \"Debian\"'\n  \
    muster run service.status name=ssh -H web1.example.com,web2.example.com\n  \
    muster run puppet.status --all --limit 10% --wave 1,10%,rest --stop-after 1")]
pub(crate) struct RunArguments {
    /// What to run: PLUGIN.ACTION.
    #[arg(value_name = "PLUGIN.ACTION", add = crate::complete::actions())]
    pub(crate) action: String,
    /// Inputs of the action: NAME=VALUE, NAME=@FILE, or NAME:=JSON.
    #[arg(value_name = "NAME=VALUE", add = crate::complete::arguments())]
    pub(crate) inputs: Vec<String>,
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    #[command(flatten)]
    pub(crate) way: WayArguments,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

/// How it is to be run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How to run")]
pub(crate) struct WayArguments {
    /// Show who would be hit, and send nothing.
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Let the hosts say what they would do, and change nothing.
    #[arg(long)]
    pub(crate) noop: bool,
    /// Time limit of the action on each host.
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Length>,
    /// How long the command lives: a host that comes back before that still runs it.
    #[arg(long, value_name = "TIME")]
    pub(crate) ttl: Option<Length>,
    /// Run as this user of the hosts.
    #[arg(long, value_name = "USER")]
    pub(crate) effective_user: Option<String>,
    /// Ask in parts: sizes or shares, the last one repeats: `1,10%,rest`.
    #[arg(long, value_name = "SIZES")]
    pub(crate) wave: Option<WavePlan>,
    /// Send no further wave once so many hosts, or such a share of all, have failed.
    #[arg(long, value_name = "N|N%")]
    pub(crate) stop_after: Option<Amount>,
    /// Go on only if exactly so many hosts match.
    #[arg(long, value_name = "N")]
    pub(crate) expect: Option<usize>,
}

/// Runs the action on the target.
///
/// # Errors
/// Words that do not fit, nobody matches, no confirmation, no broker.
pub(crate) async fn run(arguments: &RunArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    // Everything that can be wrong without a network is said without one.
    let catalogue = Catalogue::load(invocation.context().ok().as_ref())?;
    let way = &arguments.way;
    let how = How {
        noop: way.noop,
        effective_user: way.effective_user.clone(),
        timeout_ms: way.timeout.map(|length| length.as_millis()),
    };
    let wanted = Wanted::read(&catalogue, &arguments.action, &arguments.inputs, how)?;
    let target = arguments.target.read(&format!("run {}", wanted.shown()))?;
    let mut stop = Stop::by_operator(arguments.wait.wait_for.map(|length| length.as_millis()))
        .map_err(|error| Failure::unexpected("signals cannot be listened to", &error))?;
    let mut stage = Stage::open(invocation, &mut stop).await?;
    let mut scene = stage.scene(&invocation.printer, stop);
    let result = execute(&wanted, &target, way, &arguments.wait, &mut scene).await;
    stage.close(&invocation.printer).await;
    result
}

pub(crate) async fn execute(
    wanted: &Wanted<'_>,
    target: &Target,
    way: &WayArguments,
    wait: &WaitArguments,
    scene: &mut Scene<'_>,
) -> Result<ExitCode, Failure> {
    let found = search(scene, target, None).await?;
    if found.hosts.is_empty() {
        return Err(no_match::explain(scene, target, &found.nobody()).await);
    }
    let Found { hosts, silent, .. } = found;
    let chosen = target.choose(hosts, scene.fresh_seed);
    // A limit takes from those that are there; the others are none of its business.
    let silent = if chosen.seed.is_some() { BTreeSet::new() } else { silent };
    let sizes = way.wave.clone().unwrap_or_else(WavePlan::one).sizes(chosen.hosts.len());
    let plan = plan(wanted, target, way, scene, &chosen, &silent, &sizes);
    if way.dry_run {
        show_plan(&plan, wanted, target, scene, &chosen, &silent, &sizes);
        if !target.needs_discovery() {
            stranger::warn(scene.printer, scene.cache, &chosen.hosts);
        }
        return Ok(ExitCode::Success);
    }
    let printer = scene.printer;
    if let Format::Table | Format::Wide = printer.format() {
        printer.note(plan_line(wanted, target, scene, &chosen));
    }
    let guard = Guard {
        count: chosen.hosts.len(),
        confirm_above: scene.context.confirm_above,
        read_only: wanted.action.muster.read_only || wanted.options.noop,
        expect: way.expect,
        context: &scene.context.name,
    };
    confirm(&guard, printer, &mut scene.stop).await?;
    if printer.format() == Format::Jsonl {
        printer.record(SCHEMA, &plan);
    }
    let order = target.seed.or(chosen.seed);
    let course = waves(wanted, way, wait, scene, &chosen, order, sizes).await;
    let mut rows = course.rows;
    rows.extend(silent.into_iter().map(|host| Row::not_asked(host, TaskState::NoReply, Reason::SilentInSearch)));
    rows.sort_by(|one, other| one.host.cmp(&other.host));
    let exit = match (scene.stop.stopped(), &course.error) {
        (Some(Stopped::Interrupted), _) => ExitCode::Interrupted,
        (Some(Stopped::WaitedEnough), _) => ExitCode::StoppedWaiting,
        (None, Some(failure)) => failure.exit,
        (None, None) => exit_code(&rows, &wait.tolerate),
    };
    let mut end = course.end;
    end.exit_code = exit.number();
    show(wanted, scene, plan, &rows, end);
    if let Some(failure) = course.error {
        return Err(failure.why("note", "hosts that were asked go on; what had arrived stands above"));
    }
    say_stop(scene, &rows, way);
    say_silent(scene, &rows, wanted, course.alive_until);
    Ok(exit)
}

/// What the waves came to.
struct Course {
    rows: Vec<Row>,
    end: EndRecord,
    error: Option<Failure>,
    /// Until when a host that has it queued may run the command that was sent last.
    alive_until: Option<Timestamp>,
}

/// Asks wave after wave, each with commands of its own, until all are asked or it has to stop.
async fn waves(
    wanted: &Wanted<'_>,
    way: &WayArguments,
    wait: &WaitArguments,
    scene: &mut Scene<'_>,
    chosen: &Chosen,
    order: Option<u64>,
    sizes: Vec<usize>,
) -> Course {
    let hosts: Vec<HostName> = chosen.hosts.iter().cloned().collect();
    // With a seed the first waves are a sample of all, not the beginning of the alphabet.
    let hosts = match order {
        Some(seed) => shuffled(hosts, seed),
        None => hosts,
    };
    let total = hosts.len();
    let mut left = hosts.into_iter();
    let end = EndRecord::new("complete", ExitCode::Success, 0);
    let mut course = Course { rows: Vec::new(), end, error: None, alive_until: None };
    let many = sizes.len();
    for (index, size) in sizes.into_iter().enumerate() {
        let wave: BTreeSet<HostName> = left.by_ref().take(size).collect();
        let label = if many > 1 { format!("wave {}/{many}", index + 1) } else { "running".to_owned() };
        let question = question(wanted, way, wait, wave.clone());
        course.alive_until = Some(scene.now().plus_ms(question.ttl_ms));
        let summary = match one_wave(scene, &question, &label, total, course.rows.len(), wanted).await {
            Ok(summary) => summary,
            Err(failure) => {
                course.error = Some(failure);
                course.end.end = "failed";
                course
                    .rows
                    .extend(wave.into_iter().map(|host| Row::not_asked(host, TaskState::NotStarted, Reason::NotSent)));
                break;
            }
        };
        course.end.note(&summary);
        course.end.duration_ms += summary.elapsed_ms;
        course.rows.extend(rows(&summary));
        if let End::Failed(error) = &summary.end {
            course.error = Some(client_failure(error, scene.context));
            course.end.error = course.error.as_ref().map(|failure| failure.code);
            course.end.end = "failed";
            break;
        }
        if let Some(stopped) = scene.stop.stopped() {
            course.end.end = match stopped {
                Stopped::Interrupted => "interrupted",
                Stopped::WaitedEnough => "stopped_waiting",
            };
            break;
        }
        let rule = way.stop_after.map(|after| StopRule { after });
        if left.len() > 0 && rule.is_some_and(|rule| rule.stops(&count(&course.rows), total)) {
            course.end.end = "stop_rule";
            break;
        }
    }
    let reason = if course.end.end == "stop_rule" { Reason::StopRule } else { Reason::NotReached };
    course.rows.extend(left.map(|host| Row::not_asked(host, TaskState::NotStarted, reason)));
    course
}

fn question(wanted: &Wanted<'_>, way: &WayArguments, wait: &WaitArguments, hosts: BTreeSet<HostName>) -> Question {
    let mut question = Question::new(Audience::Hosts(hosts), wanted.plugin().clone(), wanted.action.name.clone());
    question.arguments = wanted.arguments.clone();
    question.options = wanted.options.clone();
    question.reply_timeout_ms = wait.reply_timeout.map_or(REPLY_TIMEOUT_MS_DEFAULT, |length| length.as_millis());
    question.ttl_ms = way.ttl.map_or(TTL_MS_DEFAULT.max(question.reply_timeout_ms), |length| length.as_millis());
    question.time_limit_ms = wanted.time_limit_ms;
    question
}

/// Asks one wave and shows how it goes.
async fn one_wave(
    scene: &mut Scene<'_>,
    question: &Question,
    label: &str,
    total: usize,
    done_before: usize,
    wanted: &Wanted<'_>,
) -> Result<Summary, Failure> {
    let printer = scene.printer;
    let context = scene.context;
    let ascii = printer.ascii();
    let jsonl = printer.format() == Format::Jsonl;
    let headline = Headline { action: Some(wanted.action) };
    let mut asking = scene.controller.ask(question).map_err(|error| client_failure(&error, context))?;
    let requests: Vec<RequestId> = asking.requests().collect();
    let request = |index: usize| requests.get(index / muster_client::HOSTS_PER_COMMAND).copied();
    let place: BTreeMap<HostName, usize> = match &question.audience {
        Audience::Hosts(hosts) => hosts.iter().cloned().zip(0..).collect(),
        Audience::Everyone | Audience::Matching(_) => BTreeMap::new(),
    };
    let mut told = BTreeSet::new();
    let mut counter = Counter::new(printer, total, label);
    let mut failures_told = 0;
    follow(&mut asking, &mut scene.stop, |asking, event| {
        match event {
            Event::Accepted if jsonl => {
                let request_ids = requests.iter().map(ToString::to_string).collect();
                printer.record(
                    SCHEMA,
                    &Accepted { kind: "accepted", request_ids, hosts: asking.collector().counts().total() },
                );
            }
            Event::Finished(host) => {
                let Some(record) = asking.collector().host(host) else { return };
                let row = Row::of(host, record, place.get(host).and_then(|index| request(*index)));
                // As it comes, so that whoever reads the lines can act on the first while the last is out.
                if jsonl && row.state.is_final() && told.insert(host.clone()) {
                    printer.record(SCHEMA, &Task::of(&row, None));
                }
                if row.state == TaskState::Failed && total > 1 && failures_told < LIVE_FAILURES_MAX && printer.live() {
                    failures_told += 1;
                    printer.note(
                        Text::styled(Style::Bad, row.state.glyph(ascii))
                            .plain(format!(" {host}  {}", headline.of(&row))),
                    );
                }
            }
            _ => {}
        }
        let counts = asking.collector().counts();
        counter.update(done_before + counts.total() - counts.pending - counts.running, || tally(asking, ascii));
    })
    .await;
    drop(counter);
    let summary = asking.into_summary();
    if jsonl {
        for row in rows(&summary).iter().filter(|row| !told.contains(&row.host)) {
            printer.record(SCHEMA, &Task::of(row, scene.cache.last_seen(&row.host)));
        }
    }
    let now = scene.now();
    for (host, record) in &summary.hosts {
        if record.first_report_ms.is_some() {
            scene.cache.seen(host, None, now);
        }
    }
    Ok(summary)
}

/// `✓ 7,388  ✗ 12  ? 3`: the states that occur, behind the counter.
fn tally(asking: &Asking<'_>, ascii: bool) -> Text {
    let counts = asking.collector().counts();
    TaskState::ALL.into_iter().filter(|state| counts.of(*state) > 0).fold(Text::new(), |text, state| {
        let gap = if text.is_empty() { "" } else { "  " };
        let count = number::count(counts.of(state));
        text.plain(gap).push(screen::style(state), state.glyph(ascii)).plain(" ").plain(count)
    })
}

fn rows(summary: &Summary) -> Vec<Row> {
    // Names go into commands in their order, so the place of a host says which command asked it.
    let request = |index: usize| summary.requests.get(index / muster_client::HOSTS_PER_COMMAND).copied();
    summary.hosts.iter().enumerate().map(|(index, (host, record))| Row::of(host, record, request(index))).collect()
}

fn plan(
    wanted: &Wanted<'_>,
    target: &Target,
    way: &WayArguments,
    scene: &Scene<'_>,
    chosen: &Chosen,
    silent: &BTreeSet<HostName>,
    sizes: &[usize],
) -> Plan {
    Plan {
        kind: "plan",
        context: scene.context.name.clone(),
        plugin: wanted.plugin().to_string(),
        action: wanted.action.name.to_string(),
        arguments: wanted.arguments.clone(),
        noop: way.noop,
        effective_user: way.effective_user.clone(),
        target: target.shown(),
        matched: chosen.of + silent.len(),
        hosts: chosen.hosts.iter().cloned().collect(),
        silent: silent.iter().cloned().collect(),
        seed: chosen.seed,
        waves: if sizes.len() > 1 { sizes.to_vec() } else { Vec::new() },
        dry_run: way.dry_run,
    }
}

fn plan_line(wanted: &Wanted<'_>, target: &Target, scene: &Scene<'_>, chosen: &Chosen) -> Text {
    let dot = Look::of(scene.printer).dot();
    let noop = if wanted.options.noop { format!("{dot}noop") } else { String::new() };
    Text::from(matched(target, chosen, dot))
        .plain(dot)
        .strong(wanted.shown())
        .plain(noop)
        .plain(dot)
        .join(scene.context.label())
}

fn show_plan(
    plan: &Plan,
    wanted: &Wanted<'_>,
    target: &Target,
    scene: &Scene<'_>,
    chosen: &Chosen,
    silent: &BTreeSet<HostName>,
    sizes: &[usize],
) {
    let printer = scene.printer;
    match printer.format() {
        Format::Json | Format::Jsonl => printer.document(SCHEMA, plan),
        Format::Names => chosen.hosts.iter().for_each(|host| printer.line(host.as_str())),
        Format::Csv => {
            let mut table = Table::new([Column::new("host"), Column::new("state")]);
            chosen.hosts.iter().for_each(|host| table.row([Text::from(host.as_str()), Text::from("will_run")]));
            silent.iter().for_each(|host| table.row([Text::from(host.as_str()), Text::from("silent")]));
            printer.table(&table);
        }
        Format::Table | Format::Wide => {
            let hosts: Vec<&HostName> = chosen.hosts.iter().collect();
            let silent: Vec<&HostName> = silent.iter().collect();
            let (of, seed) = (chosen.of + silent.len(), chosen.seed);
            let chosen = screen::Chosen { hosts: &hosts, silent: &silent, of, seed, waves: sizes };
            let lines = screen::plan(&wanted.shown(), &target.shown(), &chosen, Look::of(printer));
            lines.into_iter().for_each(|line| printer.line(line));
        }
    }
}

fn show(wanted: &Wanted<'_>, scene: &Scene<'_>, plan: Plan, rows: &[Row], end: EndRecord) {
    let printer = scene.printer;
    let headline = Headline { action: Some(wanted.action) };
    let groups: Vec<Group> = group(rows, &headline);
    let counts = count(rows);
    match printer.format() {
        Format::Json => {
            let tasks = rows.iter().map(|row| Task::of(row, scene.cache.last_seen(&row.host))).collect();
            let groups = groups.iter().map(GroupRecord::of).collect();
            let counts = CountsRecord::of(&counts);
            printer.document(SCHEMA, &Whole { kind: "job", plan, tasks, counts, groups, end: end.clone() });
        }
        Format::Jsonl => {
            // The records of hosts that were asked went out with their wave.
            for row in rows.iter().filter(|row| row.request.is_none()) {
                printer.record(SCHEMA, &Task::of(row, scene.cache.last_seen(&row.host)));
            }
            groups.iter().for_each(|group| printer.record(SCHEMA, &GroupRecord::of(group)));
            printer.record(SCHEMA, &CountsRecord::of(&counts));
            printer.record(SCHEMA, &end);
        }
        Format::Names => rows.iter().for_each(|row| printer.line(row.host.as_str())),
        Format::Csv => printer.table(&table(rows, &headline)),
        Format::Table | Format::Wide => {
            let look = Look::of(printer);
            let single = rows.len() == 1;
            if !single {
                screen::groups(&groups, look).into_iter().for_each(|line| printer.line(line));
            }
            if single || printer.verbose() > 0 || printer.format() == Format::Wide {
                for row in rows {
                    details::lines(row, Some(wanted.action), look.ascii)
                        .into_iter()
                        .for_each(|line| printer.line(line));
                }
            }
            printer.line(screen::end(&counts, end.duration_ms, look));
        }
    }
    end.warn(printer);
}

fn table(rows: &[Row], headline: &Headline<'_>) -> Table {
    let columns = ["host", "state", "reason", "code", "exit_code", "duration_ms", "headline", "message", "data"];
    let mut table = Table::new(columns.map(Column::new));
    for row in rows {
        let result = row.result.as_ref();
        let number = |number: Option<String>| Text::from(number.unwrap_or_default());
        table.row([
            Text::from(row.host.as_str()),
            Text::from(row.state.word()),
            Text::from(row.reason.map(Reason::word).unwrap_or_default()),
            Text::from(result.map(|result| result.code.as_str()).unwrap_or_default()),
            number(result.and_then(|result| result.exit_code).map(|code| code.to_string())),
            number(result.map(|result| result.duration_ms.to_string())),
            Text::from(headline.of(row)),
            Text::from(result.map(|result| result.message.as_str()).unwrap_or_default()),
            Text::from(
                result
                    .filter(|result| !result.data.is_null())
                    .map(|result| result.data.to_string())
                    .unwrap_or_default(),
            ),
        ]);
    }
    table
}

/// After an early end: what goes on, and how to see more.
fn say_stop(scene: &Scene<'_>, rows: &[Row], way: &WayArguments) {
    let counts = count(rows);
    let unfinished = counts.pending + counts.running;
    match scene.stop.stopped() {
        Some(stopped) if unfinished > 0 => {
            let hosts = number::counted(unfinished, "host that was asked goes on", "hosts that were asked go on");
            scene.printer.note(format!("{}; {hosts}", stopped.words()));
        }
        _ => {}
    }
    let failures = rows.iter().any(|row| row.reason == Some(Reason::StopRule));
    if failures && let Some(after) = way.stop_after {
        scene.printer.note(format!("stopped by --stop-after {after}: {}", summary(&counts, ", ")));
    }
}

/// What silence may mean: a command that waits in a queue, or a name that is not one.
fn say_silent(scene: &Scene<'_>, rows: &[Row], wanted: &Wanted<'_>, alive_until: Option<Timestamp>) {
    let of = |reason: Reason| rows.iter().filter(move |row| row.reason == Some(reason)).map(|row| &row.host);
    let queued: Vec<&str> = of(Reason::Silent).map(HostName::as_str).collect();
    let harmless = wanted.action.muster.read_only || wanted.options.noop;
    if let Some(until) = alive_until.filter(|_| !queued.is_empty() && !harmless) {
        let hosts = number::counted(queued.len(), "silent host has", "silent hosts have");
        let until = crate::output::time::rfc3339(until);
        let names = quoted(&fold::fold(queued).join(","));
        scene.printer.note(format!("{hosts} the command queued and may still run it until {until} (--ttl)"));
        scene.printer.note(format!("  see who is back: muster ping -H {names}"));
    }
    stranger::warn(scene.printer, scene.cache, of(Reason::NoQueue));
}
