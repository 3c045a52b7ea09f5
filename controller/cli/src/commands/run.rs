//! `muster run PLUGIN.ACTION`: runs an action on hosts and says what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use muster_client::limit::{Amount, shuffled};
use muster_client::wave::{StopRule, WavePlan};
use muster_client::{Asking, Audience, End, Pending, Question, REPLY_TIMEOUT_MS_DEFAULT, Sending, TTL_MS_DEFAULT};
use muster_protocol::{HostName, RequestId, TaskState, Timestamp};

use crate::ask::WaitArguments;
use crate::ask::action::{How, Wanted};
use crate::ask::aftermath::{
    say_go_on, say_incomplete, say_needs_approval, say_raw, say_sent_before, say_silent, say_stop,
};
use crate::ask::conclude::{self, Head};
use crate::ask::confirm::{Guard, confirm};
use crate::ask::drive::{Course, Driven, Until, drive};
use crate::ask::follow::Stop;
use crate::ask::input;
use crate::ask::keys::{self, Keys};
use crate::ask::no_match;
use crate::ask::record::{EndRecord, Plan, SCHEMA};
use crate::ask::scene::{Scene, Stage};
use crate::ask::screen::{self, Look};
use crate::ask::search::{Found, matched, search};
use crate::ask::silently;
use crate::ask::stranger;
use crate::ask::stream::Live;
use crate::catalogue::Catalogue;
use crate::commands::pend;
use crate::duration::Length;
use crate::invocation::Invocation;
use crate::outcome::{Reason, Row, count, exit_code};
use crate::output::{Column, ExitCode, Failure, Format, Printer, Table, Text, number};
use crate::requests::{Outcome, RecordError, Request};
use crate::session::failure_after;
use crate::target::{Chosen, Target, TargetArguments};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  \
    muster run package.status name=openssl -t 'os.family = \"Debian\"'\n  \
    muster run service.status name=ssh -H web1.example.com,web2.example.com\n  \
    muster run puppet.status --all --limit 10% --wave 1,10%,rest --stop-after 1\n  \
    muster run puppet.runonce -t role=web --detach\n  \
    muster run service.restart name=nginx -t role=web --pending --ttl 4h")]
pub(crate) struct RunArguments {
    /// What to run: PLUGIN.ACTION.
    #[arg(value_name = "PLUGIN.ACTION", add = crate::complete::actions())]
    pub(crate) action: String,
    /// Inputs of the action: NAME=VALUE, NAME=@FILE, NAME=@- from standard input, or NAME:=JSON.
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
    /// How long the command lives: a host that comes back before that still runs it. With `--pending`: how long the
    /// others have to sign it and you to send it [default: 60s; with --pending 1h].
    #[arg(long, visible_alias = "valid-for", value_name = "TIME")]
    pub(crate) ttl: Option<Length>,
    /// Run as this user of the hosts.
    #[arg(long, value_name = "USER", value_parser = user_name)]
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
    #[command(flatten)]
    pub(crate) output: OutputArguments,
    /// Sign the command and keep it in a file instead of sending it, so that others can sign it too.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        conflicts_with_all = ["dry_run", "wave", "stop_after", "stream", "raw", "detach"]
    )]
    pub(crate) pending: Option<Option<PathBuf>>,
    /// Wait until the hosts have begun, and no longer; `muster watch` attaches again.
    #[arg(long, visible_alias = "async", conflicts_with_all = ["wave", "stop_after", "stream", "raw"])]
    pub(crate) detach: bool,
}

/// What is done with output while it comes.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "How to run")]
pub(crate) struct OutputArguments {
    /// Show output as it comes, each line behind its host's name. One host alone is always shown so.
    #[arg(long)]
    pub(crate) stream: bool,
    /// Write the output of one host as it is, byte for byte, and nothing else to standard output.
    #[arg(long, conflicts_with = "stream")]
    pub(crate) raw: bool,
}

impl OutputArguments {
    /// How the output of so many hosts is shown.
    ///
    /// # Errors
    /// Exit 2: raw bytes of several hosts or for a terminal, or a stream in a format that has none.
    pub(crate) fn live(self, hosts: usize, printer: &Printer) -> Result<Live, Failure> {
        let format = printer.format();
        let for_people = matches!(format, Format::Table | Format::Wide);
        if self.raw {
            if !for_people {
                return Err(Failure::usage("`--raw` writes no document").hint("--jsonl --stream, for bytes in records"));
            }
            if hosts > 1 {
                let what = format!("`--raw` is for one host, and {} are meant; nothing was sent", number::count(hosts));
                return Err(Failure::usage(what).hint("--stream, for lines behind the names of their hosts"));
            }
            if printer.data_to_terminal() {
                return Err(Failure::usage("`--raw` does not write to a terminal, which would obey the bytes")
                    .hint("the same command with > FILE, or without --raw"));
            }
            return Ok(Live::Raw);
        }
        match format {
            Format::Jsonl if self.stream => Ok(Live::Records),
            Format::Table | Format::Wide if self.stream && hosts != 1 => Ok(Live::Prefixed),
            Format::Table | Format::Wide if hosts == 1 => Ok(Live::Lines),
            Format::Json | Format::Names | Format::Csv if self.stream => {
                Err(Failure::usage("this format has no place for output while it comes").hint("--jsonl --stream"))
            }
            _ => Ok(Live::Off),
        }
    }
}

/// Runs the action on the target.
///
/// # Errors
/// Words that do not fit, nobody matches, no confirmation, no broker.
pub(crate) async fn run(arguments: &RunArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    // Everything that can be wrong without a network is said without one.
    let printer = &invocation.printer;
    let catalogue = Catalogue::load(invocation.context().ok().as_ref())?;
    let (_, action) = catalogue.action(&arguments.action)?;
    let prompts = input::to_prompt(&arguments.action, action, &arguments.inputs, printer.can_ask())?;
    let mut stop = Stop::by_operator(arguments.wait.wait_for.map(|length| length.as_millis()))
        .map_err(|error| Failure::unexpected("signals cannot be listened to", &error))?;
    let prompted = silently::ask(prompts, printer, &mut stop).await?;
    let inputs = input::read(&arguments.action, action, &arguments.inputs, prompted, input::stdin)?;
    if inputs.used_stdin && arguments.target.uses_stdin() {
        return Err(Failure::usage("standard input cannot be both names of hosts and an input").hint("-H @FILE"));
    }
    inputs.warnings.iter().for_each(|warning| printer.warning(warning));
    let wanted = Wanted::read(&catalogue, &arguments.action, &inputs, arguments.way.how())?;
    drop(inputs);
    let target = arguments.target.read(&format!("run {}", wanted.shown()))?;
    let mut stage = Stage::open(invocation, &mut stop).await?;
    let mut scene = stage.scene(&invocation.printer, stop);
    let result = execute(&wanted, &target, &arguments.way, &arguments.wait, &mut scene).await;
    stage.close(&invocation.printer).await;
    result
}

impl WayArguments {
    /// What of it concerns the action.
    pub(crate) fn how(&self) -> How {
        How {
            noop: self.noop,
            effective_user: self.effective_user.clone(),
            timeout_ms: self.timeout.map(|length| length.as_millis()),
        }
    }
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
    let mut chosen = target.choose(hosts, scene.fresh_seed);
    // A limit takes from those that are there; the others are none of its business.
    let silent = if chosen.seed.is_some() { BTreeSet::new() } else { silent };
    let live = way.output.live(chosen.hosts.len(), scene.printer)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut keys = Keys::default();
    if !wanted.secrets.is_empty() {
        keys = keys::fetch(scene, &chosen.hosts).await?;
        chosen.hosts.retain(|host| keys.keys.contains_key(host));
        rows.append(&mut keys.without.clone());
    }
    let sizes = way.wave.clone().unwrap_or_else(WavePlan::one).sizes(chosen.hosts.len());
    let all_silent: BTreeSet<HostName> = silent.union(&keys.silent()).cloned().collect();
    let plan = plan(wanted, target, way, scene, &chosen, (&all_silent, keys.not_able()), &sizes);
    if way.dry_run {
        show_plan(&plan, wanted, target, scene, &chosen, &sizes);
        if !target.needs_discovery() {
            stranger::warn(scene.printer, scene.cache, &chosen.hosts);
        }
        return Ok(ExitCode::Success);
    }
    let printer = scene.printer;
    if let (Format::Table | Format::Wide, None) = (printer.format(), &way.pending) {
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
    let order = target.seed.or(chosen.seed);
    let journey = Journey { wanted, way, wait, live, keys, signed: None };
    if let Some(place) = &way.pending {
        return pend::write(&journey, place.as_deref(), &chosen.hosts, &plan, scene);
    }
    journey.carry_out(scene, plan, Crew { hosts: chosen.hosts, order, sizes }, rows, silent).await
}

/// Who is asked, and in which order.
pub(crate) struct Crew {
    pub(crate) hosts: BTreeSet<HostName>,
    /// What the order is chosen by.
    pub(crate) order: Option<u64>,
    /// The sizes of the waves.
    pub(crate) sizes: Vec<usize>,
}

impl Journey<'_> {
    /// Sends everything and says what came of it. `rows` are of hosts that are not asked, `silent` those that were not heard
    /// when hosts were searched.
    pub(crate) async fn carry_out(
        self,
        scene: &mut Scene<'_>,
        plan: Plan,
        crew: Crew,
        mut rows: Vec<Row>,
        silent: BTreeSet<HostName>,
    ) -> Result<ExitCode, Failure> {
        let (wanted, way, wait, live) = (self.wanted, self.way, self.wait, self.live);
        let printer = scene.printer;
        if printer.format() == Format::Jsonl {
            printer.record(SCHEMA, &plan);
        }
        let went = self.waves(scene, crew).await;
        rows.extend(went.rows);
        rows.extend(silent.into_iter().map(|host| Row::not_asked(host, TaskState::NoReply, Reason::SilentInSearch)));
        rows.sort_by(|one, other| one.host.cmp(&other.host));
        let mut end = went.end;
        let exit = match (scene.stop.stopped(), &went.error) {
            (Some(stopped), _) => stopped.exit_code(),
            (None, Some(failure)) => failure.exit,
            (None, None) if end.end == "detached" => {
                // What has begun is what was asked for.
                let left: Vec<Row> = rows.iter().filter(|row| row.state != TaskState::Running).cloned().collect();
                exit_code(&left, &wait.tolerate)
            }
            (None, None) => exit_code(&rows, &wait.tolerate),
        };
        end.exit_code = exit.number();
        let request_id = end.request_id;
        if live == Live::Raw {
            // Standard output is the host's. A success needs no words then.
            end.warn(printer);
            say_raw(printer, &rows, Some(wanted.action));
        } else {
            conclude::show(scene, Some(wanted.action), Head::Plan(Box::new(plan)), &rows, &end);
        }
        if let Some(failure) = went.error {
            say_go_on(printer, end.request_id);
            return Err(failure.why("note", "hosts that were asked go on; what had arrived stands above"));
        }
        say_stop(scene, &rows, way, &end);
        say_silent(scene, &rows, wanted, went.alive_until);
        say_needs_approval(scene, &rows, self.signed.map(|signed| signed.file));
        if self.signed.is_some() {
            say_sent_before(scene, &rows, request_id);
        }
        say_incomplete(live, went.missing_bytes, exit, request_id)?;
        Ok(exit)
    }
}

/// What the waves came to.
struct Went {
    rows: Vec<Row>,
    end: EndRecord,
    error: Option<Failure>,
    /// Until when a host that has it queued may run the command that was sent last.
    alive_until: Option<Timestamp>,
    missing_bytes: u64,
}

/// How all waves are sent.
pub(crate) struct Journey<'a> {
    pub(crate) wanted: &'a Wanted<'a>,
    pub(crate) way: &'a WayArguments,
    pub(crate) wait: &'a WaitArguments,
    pub(crate) live: Live,
    pub(crate) keys: Keys,
    /// What is sent, where it has been signed before.
    pub(crate) signed: Option<Signed<'a>>,
}

/// A pending command on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) pending: &'a Pending,
    /// Its file.
    pub(crate) file: &'a Path,
    /// How long a host that is away may still take it, in milliseconds.
    pub(crate) queue_ms: i64,
    /// Whether it was sent from here before.
    pub(crate) sent_before: bool,
}

impl Journey<'_> {
    /// Asks wave after wave, each with commands of its own, until all are asked or it has to stop.
    async fn waves(&self, scene: &mut Scene<'_>, Crew { hosts, order, sizes }: Crew) -> Went {
        let hosts: Vec<HostName> = hosts.into_iter().collect();
        // With a seed the first waves are a sample of all, not the beginning of the alphabet.
        let hosts = match order {
            Some(seed) => shuffled(hosts, seed),
            None => hosts,
        };
        let total = hosts.len();
        let mut left = hosts.into_iter();
        let end = EndRecord::new("complete", ExitCode::Success, 0);
        let mut went = Went { rows: Vec::new(), end, error: None, alive_until: None, missing_bytes: 0 };
        let mut request = None;
        let many = sizes.len();
        for (index, size) in sizes.into_iter().enumerate() {
            let wave: BTreeSet<HostName> = left.by_ref().take(size).collect();
            let label = if many > 1 { format!("wave {}/{many}", index + 1) } else { "running".to_owned() };
            let question = self.question(scene.printer, wave.clone());
            went.alive_until = Some(match self.signed {
                Some(signed) => scene.now().plus_ms(signed.queue_ms).min(signed.pending.expires_at()),
                None => scene.now().plus_ms(question.ttl_ms),
            });
            let course = Course {
                label: &label,
                total,
                done_before: went.rows.len(),
                action: Some(self.wanted.action),
                live: self.live,
                from_start: true,
                until: if self.way.detach { Until::Begun } else { Until::Ended },
            };
            let Driven { summary, rows, missing_bytes } = match self.wave(scene, &question, course, &mut request).await
            {
                Ok(driven) => driven,
                Err(failure) => {
                    went.error = Some(failure);
                    went.end.end = "failed";
                    let not_sent = |host| Row::not_asked(host, TaskState::NotStarted, Reason::NotSent);
                    went.rows.extend(wave.into_iter().map(not_sent));
                    break;
                }
            };
            went.end.request_id = request.as_ref().map(|request: &Request| request.id);
            went.end.note(&summary);
            went.end.duration_ms += summary.elapsed_ms;
            went.rows.extend(rows);
            went.missing_bytes = went.missing_bytes.saturating_add(missing_bytes);
            if let End::Failed(error) = &summary.end {
                let failure = failure_after(error, &summary, scene.context);
                let request = went.end.request_id.filter(|_| summary.accepted);
                went.error = Some(match request {
                    Some(request) => failure.hint(format!("muster watch {request}, once the broker answers")),
                    None => failure,
                });
                went.end.error = went.error.as_ref().map(|failure| failure.code);
                went.end.end = "failed";
                break;
            }
            if let Some(stopped) = scene.stop.stopped() {
                went.end.end = stopped.end();
                break;
            }
            if self.way.detach {
                went.end.end = "detached";
            }
            let rule = self.way.stop_after.map(|after| StopRule { after });
            if left.len() > 0 && rule.is_some_and(|rule| rule.stops(&count(&went.rows), total)) {
                went.end.end = "stop_rule";
                break;
            }
        }
        let reason = if went.end.end == "stop_rule" { Reason::StopRule } else { Reason::NotReached };
        went.rows.extend(left.map(|host| Row::not_asked(host, TaskState::NotStarted, reason)));
        if let (Some(_), Some(request)) = (&self.signed, &request) {
            keep_outcome(scene, request, &went.rows);
        }
        went
    }

    /// Asks one wave. What is sent is kept before, so that it can be cancelled whatever happens to this program.
    async fn wave(
        &self,
        scene: &mut Scene<'_>,
        question: &Question,
        course: Course<'_>,
        request: &mut Option<Request>,
    ) -> Result<Driven, Failure> {
        let (requests, printer) = (scene.requests.clone(), scene.printer);
        let (context, now) = (scene.context.name.clone(), scene.now());
        let keep = |asking: &Asking<'_>| {
            let parts = asking.parts().map(|(id, hosts)| (id, hosts.iter().cloned().collect::<BTreeSet<HostName>>()));
            let wave: BTreeMap<RequestId, BTreeSet<HostName>> = parts.collect();
            let Some(first) = asking.requests().next() else { return };
            let request = request.get_or_insert_with(|| Request {
                id: first,
                asked_at: now,
                context,
                action: format!("{}.{}", self.wanted.plugin(), self.wanted.action.name),
                what: self.wanted.shown(),
                time_limit_ms: question.time_limit_ms,
                ttl_ms: self.signed.map_or(question.ttl_ms, |signed| signed.queue_ms),
                read_only: self.wanted.action.muster.read_only || self.wanted.options.noop,
                commands: BTreeMap::new(),
                outcome: Outcome::default(),
            });
            if let Err(error) = requests.keep(request, &wave) {
                say_not_kept(printer, &error);
            }
            request.add(wave);
        };
        let Some(signed) = self.signed else {
            return drive(scene, |controller| controller.ask(question), course, keep).await;
        };
        let Audience::Hosts(hosts) = &question.audience else { unreachable!("a wave has names") };
        let sending = Sending {
            sent_before: signed.sent_before,
            hosts: hosts.clone(),
            queue_ms: signed.queue_ms.max(1).unsigned_abs(),
            reply_timeout_ms: question.reply_timeout_ms,
            time_limit_ms: question.time_limit_ms,
            output: question.output,
        };
        drive(scene, |controller| controller.send(signed.pending, &sending), course, keep).await
    }

    pub(crate) fn question(&self, printer: &Printer, hosts: BTreeSet<HostName>) -> Question {
        let Self { wanted, way, wait, .. } = self;
        let for_people = !printer.format().is_json();
        let output = self.live.wish(hosts.len(), for_people);
        let audience = Audience::Hosts(hosts);
        let mut question = Question::new(audience, wanted.plugin().clone(), wanted.action.name.clone());
        question.arguments = wanted.arguments.clone();
        question.secrets = wanted.secrets.clone();
        question.sealing_keys = self.keys.keys.clone();
        question.options = wanted.options.clone();
        question.reply_timeout_ms = wait.reply_timeout.map_or(REPLY_TIMEOUT_MS_DEFAULT, |length| length.as_millis());
        question.ttl_ms = way.ttl.map_or(TTL_MS_DEFAULT.max(question.reply_timeout_ms), |length| length.as_millis());
        question.time_limit_ms = wanted.time_limit_ms;
        question.output = output;
        question
    }
}

fn say_not_kept(printer: &Printer, error: &RecordError) {
    let chain = Failure::unexpected("", error).why.into_iter().map(|(_, why)| why);
    let why = chain.collect::<Vec<_>>().join(": ");
    printer.detail(1, format!("the request was not kept for `muster cancel` and `watch`: {why}"));
}

/// Keeps what came of a pending command, for `muster pending list`.
pub(crate) fn keep_outcome(scene: &Scene<'_>, request: &Request, rows: &[Row]) {
    if let Err(error) = scene.requests.keep_outcome(request, &Outcome::of(rows)) {
        say_not_kept(scene.printer, &error);
    }
}

fn plan(
    wanted: &Wanted<'_>,
    target: &Target,
    way: &WayArguments,
    scene: &Scene<'_>,
    chosen: &Chosen,
    (silent, not_able): (&BTreeSet<HostName>, BTreeMap<HostName, String>),
    sizes: &[usize],
) -> Plan {
    let known: BTreeSet<&HostName> = chosen.hosts.iter().chain(silent).chain(not_able.keys()).collect();
    Plan {
        kind: "plan",
        context: scene.context.name.clone(),
        plugin: wanted.plugin().to_string(),
        action: wanted.action.name.to_string(),
        arguments: wanted.arguments.clone(),
        secrets: wanted.secrets.names().map(str::to_owned).collect(),
        noop: way.noop,
        effective_user: way.effective_user.clone(),
        target: target.shown(),
        matched: if chosen.seed.is_some() { chosen.of } else { known.len() },
        hosts: chosen.hosts.iter().cloned().collect(),
        silent: silent.iter().cloned().collect(),
        not_able,
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

fn show_plan(plan: &Plan, wanted: &Wanted<'_>, target: &Target, scene: &Scene<'_>, chosen: &Chosen, sizes: &[usize]) {
    let printer = scene.printer;
    match printer.format() {
        Format::Json | Format::Jsonl => printer.document(SCHEMA, plan),
        Format::Names => chosen.hosts.iter().for_each(|host| printer.line(host.as_str())),
        Format::Csv => {
            let mut table = Table::new([Column::new("host"), Column::new("state")]);
            let mut row = |host: &HostName, state: &str| table.row([Text::from(host.as_str()), Text::from(state)]);
            chosen.hosts.iter().for_each(|host| row(host, "will_run"));
            plan.silent.iter().for_each(|host| row(host, "silent"));
            plan.not_able.keys().for_each(|host| row(host, "not_able"));
            printer.table(&table);
        }
        Format::Table | Format::Wide => {
            let hosts: Vec<&HostName> = chosen.hosts.iter().collect();
            let silent: Vec<&HostName> = plan.silent.iter().collect();
            let mut not_able: BTreeMap<String, BTreeSet<HostName>> = BTreeMap::new();
            for (host, why) in &plan.not_able {
                not_able.entry(why.clone()).or_default().insert(host.clone());
            }
            let chosen = screen::Chosen {
                hosts: &hosts,
                silent: &silent,
                not_able: &not_able,
                of: plan.matched,
                seed: chosen.seed,
                waves: sizes,
            };
            let lines = screen::plan(&wanted.shown(), &target.shown(), &chosen, Look::of(printer));
            lines.into_iter().for_each(|line| printer.line(line));
        }
    }
}
/// A user of hosts, who need not be one of this machine. An empty variable of a script names nobody.
fn user_name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty; leave --effective-user out to run as the agent does".to_owned()),
        _ if text.len() > 256 || text.chars().any(char::is_control) => {
            Err("a user name has at most 256 bytes and no control characters".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}
