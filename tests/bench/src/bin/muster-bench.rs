//! `muster-bench`: measures Muster against the bare broker. Started by `cargo xtask bench`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_bench::results::{Outcome, Run, Scenario};
use muster_bench::run::{Options, render_again, run};
use muster_bench::stage::{Plan, Word, small, with_fleet};
use muster_bench::{controller, machine, once};
use muster_daemon::{Clock as _, SystemClock};
use muster_fleet::BrokerKind;
use tokio::io::AsyncReadExt as _;

/// Measures Muster against the bare broker in the same run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    run: RunArguments,
}

/// The processes of a benchmark. Nobody types these.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Stage { plan: String },
    #[command(hide = true)]
    Controller { desk: String },
    #[command(hide = true)]
    Once {
        program: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    /// In under five minutes: 1,000 hosts, few rounds, the scenarios that say most, results in `target/bench`.
    #[arg(long)]
    quick: bool,
    /// On which broker: one after the other for each number of hosts, or only one [default: both].
    #[arg(long, value_enum, default_value_t, hide_default_value = true)]
    broker: Brokers,
    /// Numbers of hosts [default: 100,1000,5000,10000; with --quick 1000].
    #[arg(long, value_delimiter = ',', value_name = "N,N,...", value_parser = clap::value_parser!(u32).range(10..=50_000))]
    hosts: Vec<u32>,
    /// Scenarios [default: all; with --quick ping,run-1k,storm,cpu,few]: ping, filter, run-1k, run-64k, named, two, lapin, storm, cpu, idle, few.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", value_parser = scenario)]
    only: Vec<Scenario>,
    /// Rounds that count [default: 7; with --quick 3].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: Option<u32>,
    /// Folder for results, pictures and page [default: docs/performance; with --quick target/bench].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the results that are there, except for what is measured anew.
    #[arg(long)]
    keep: bool,
    /// Measure nothing: make pictures and page again from these results.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "broker", "hosts", "only", "rounds", "keep"])]
    render: Option<PathBuf>,
    /// When it began, for the results [default: now].
    #[arg(long, value_name = "TIME")]
    date: Option<String>,
    /// How long an idle agent is looked at, in seconds [default: 120; with --quick 30].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=250))]
    idle_s: Option<u64>,
    /// Folder with `muster` and `musterd` [default: that of this program].
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Cargo's profile of those, for the results [default: that of this program].
    #[arg(long, value_name = "NAME")]
    programs_profile: Option<String>,
    /// Revision of the source, for the results.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

/// What `--quick` measures.
const QUICK: [Scenario; 5] = [Scenario::Ping, Scenario::Run1k, Scenario::Storm, Scenario::Cpu, Scenario::Few];

/// The brokers of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[value(rename_all = "lowercase")]
enum Brokers {
    /// Each.
    #[default]
    Both,
    /// RabbitMQ, as the system has it.
    RabbitMq,
    /// `muster broker run`.
    Embedded,
}

impl Brokers {
    fn kinds(self) -> Vec<BrokerKind> {
        match self {
            Self::Both => BrokerKind::ALL.to_vec(),
            Self::RabbitMq => vec![BrokerKind::RabbitMq],
            Self::Embedded => vec![BrokerKind::Embedded],
        }
    }
}

fn scenario(word: &str) -> Result<Scenario> {
    Scenario::read(word).with_context(|| {
        let words = Scenario::ALL.map(Scenario::word).join(", ");
        format!("there is no scenario `{word}`; there are {words}")
    })
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Part::Once { program, arguments }) = &cli.part {
        return told(once::run(program, arguments).and_then(|ran| {
            println!("{}", serde_json::to_string(&ran)?);
            Ok(())
        }));
    }
    muster_daemon::return_large_blocks();
    muster_pki::tls::install_crypto_provider();
    let mut builder = match cli.part {
        // As the program `muster` does it.
        Some(Part::Controller { .. }) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().max_blocking_threads(16).build().context("start a runtime");
    told(runtime.and_then(|runtime| {
        let done = runtime.block_on(part(cli));
        // A thread that waits for standard input would hold it up for ever.
        runtime.shutdown_timeout(END_LIMIT);
        done
    }))
}

/// How long what still runs may take at the end.
const END_LIMIT: Duration = Duration::from_secs(10);

fn told(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn part(cli: Cli) -> Result<()> {
    match cli.part {
        Some(Part::Stage { plan }) => {
            let plan = serde_json::from_str(&plan).context("read the plan")?;
            let mut words = tokio::io::stdin();
            // Whoever started this is gone, or wants it to stop: everything is taken down by being dropped.
            tokio::select! {
                biased;
                _ = words.read_u8() => bail!("stopped"),
                done = stage(plan) => done,
            }
        }
        Some(Part::Controller { desk }) => {
            controller::serve(&serde_json::from_str(&desk).context("read the desk")?).await
        }
        Some(Part::Once { .. }) => unreachable!("done before a runtime was started"),
        None => whole(cli.run).await,
    }
}

async fn stage(plan: Plan) -> Result<()> {
    let emit = |outcome: Outcome| say(&Word::Outcome(Box::new(outcome)));
    let done = if plan.hosts == 0 { small(plan, emit).await } else { with_fleet(plan, emit).await };
    if let Err(error) = &done {
        say(&Word::Failed(format!("{error:#}")))?;
    }
    done
}

fn say(word: &Word) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(word)?)?;
    Ok(output.flush()?)
}

async fn whole(arguments: RunArguments) -> Result<()> {
    let usual = if arguments.quick { "target/bench" } else { "docs/performance" };
    let out = arguments.out.unwrap_or_else(|| usual.into());
    if let Some(file) = arguments.render {
        return render_again(&file, &out);
    }
    let own = std::env::current_exe().context("find this program")?;
    let beside = own.parent().context("a program has a folder")?.to_path_buf();
    let profile = profile(&beside);
    let only: BTreeSet<Scenario> = arguments.only.into_iter().collect();
    let usual: &[Scenario] = if arguments.quick { &QUICK } else { &Scenario::ALL };
    let scenarios = if only.is_empty() { usual.iter().copied().collect() } else { only };
    let usual: &[u32] = if arguments.quick { &[1_000] } else { &[100, 1_000, 5_000, 10_000] };
    let hosts = if arguments.hosts.is_empty() { usual.to_vec() } else { arguments.hosts };
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 7 });
    let plan = Plan {
        hosts: 0,
        broker: BrokerKind::default(),
        scenarios: BTreeSet::new(),
        rounds: usize::try_from(rounds)?,
        warm_ups: if arguments.quick { 1 } else { 2 },
        programs: arguments.programs.unwrap_or(beside),
        own,
        idle_s: arguments.idle_s.unwrap_or(if arguments.quick { 30 } else { 120 }),
    };
    let taken_at = match arguments.date {
        Some(date) => date,
        None => jiff::Timestamp::from_millisecond(SystemClock.now_ms())?.strftime("%FT%TZ").to_string(),
    };
    let description = Run {
        taken_at,
        load_before: machine::load()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: arguments.revision,
        programs_profile: arguments.programs_profile.unwrap_or_else(|| profile.clone()),
        profile,
        rounds: plan.rounds,
        warm_ups: plan.warm_ups,
    };
    let hosts = hosts.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>()?;
    let brokers = arguments.broker.kinds();
    let options = Options { hosts, brokers, scenarios, plan, out, keep: arguments.keep };
    run(&options, machine::describe()?, description).await
}

/// Cargo's profile, from the folder that it puts programs into.
fn profile(folder: &std::path::Path) -> String {
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    folder.file_name().map_or_else(|| "unknown".to_owned(), |name| name.to_string_lossy().replace("debug", "dev"))
}
