//! `muster-fleet`: a fleet to try things on, and storms. Started by `cargo xtask fleet` and `cargo xtask storm`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_daemon::{TaskKind, Tasks};
use muster_fleet::baseline::{self, BaselineOptions, baseline, operator};
use muster_fleet::idle::{IdleOptions, measure};
use muster_fleet::inventory::TENTH;
use muster_fleet::storm::{Blow, Measured, StormOptions, storm};
use muster_fleet::{BrokerKind, Fleet, Options, Pauses, Progress};
use muster_protocol::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Thousands of real agents in one process against a real broker.
#[derive(Debug, Parser)]
#[command(name = "muster-fleet")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a fleet and waits for Ctrl-C.
    Run {
        #[command(flatten)]
        fleet: FleetArguments,
    },
    /// Takes the broker away and measures how the fleet comes back.
    Storm {
        #[command(flatten)]
        fleet: FleetArguments,
        /// How the broker goes away; may be given several times.
        #[arg(long, value_enum, default_values_t = [BlowArgument::Kill, BlowArgument::Restart, BlowArgument::CloseAll])]
        blow: Vec<BlowArgument>,
        /// Also with agents that all draw the same pauses.
        #[arg(long)]
        compare: bool,
        /// Hosts that run an action meanwhile.
        #[arg(long, default_value_t = 10)]
        running: usize,
        /// Seconds before each storm: agents count a connection that lived for half a minute as good.
        #[arg(long, default_value_t = 35)]
        settle_s: u64,
        /// Print everything as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compares a fleet with what the broker alone can do.
    Baseline {
        /// The broker.
        #[arg(long, value_enum, default_value_t)]
        broker: BrokerKind,
        /// How many hosts.
        #[arg(long, default_value_t = 1_000)]
        hosts: usize,
        /// Rounds of each that count.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Connections that are opened at the same time.
        #[arg(long, default_value_t = 32)]
        at_once: usize,
        /// Without the echo that uses lapin.
        #[arg(long)]
        no_lapin: bool,
        /// Without the fleet.
        #[arg(long)]
        no_fleet: bool,
        /// Print everything as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs some of the agents of another `muster-fleet`, which asks over standard input.
    #[command(name = "crew", hide = true)]
    Crew,
    /// Measures what a `musterd` costs that has nothing to do.
    Idle {
        /// The program [default: the one beside this].
        #[arg(long)]
        program: Option<PathBuf>,
        /// The broker.
        #[arg(long, value_enum, default_value_t)]
        broker: BrokerKind,
        /// How long to look, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Print everything as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BlowArgument {
    Kill,
    Restart,
    CloseAll,
}

#[derive(Debug, Clone, Args)]
struct FleetArguments {
    /// The broker.
    #[arg(long, value_enum, default_value_t)]
    broker: BrokerKind,
    /// How many hosts.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Seed of names, facts and pauses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds that every report takes before it leaves a host.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Milliseconds that a report may take longer than that, drawn anew for each.
    #[arg(long, default_value_t = 0)]
    jitter_ms: u64,
    /// Hosts whose reports take three seconds more.
    #[arg(long, default_value_t = 0)]
    slow: usize,
    /// Hosts that take commands and say nothing.
    #[arg(long, default_value_t = 0)]
    silent: usize,
    /// Hosts without an agent.
    #[arg(long, default_value_t = 0)]
    absent: usize,
    /// Agents that connect at the same time when the fleet starts.
    #[arg(long, default_value_t = 64)]
    start_at_once: usize,
    /// Where the agents' states go [default: memory].
    #[arg(long)]
    state: Option<PathBuf>,
    /// Most hosts in one process [default: as many as may have their files open, at most 2,500].
    #[arg(long)]
    hosts_per_process: Option<usize>,
}

impl FleetArguments {
    fn options(&self, pauses: Pauses) -> Options {
        Options {
            broker: self.broker,
            seed: self.seed,
            pauses,
            latency: Duration::from_millis(self.latency_ms),
            jitter: Duration::from_millis(self.jitter_ms),
            slow: self.slow,
            silent: self.silent,
            absent: self.absent,
            start_at_once: self.start_at_once,
            state: self.state.clone(),
            hosts_per_process: self.hosts_per_process,
            tell,
            ..Options::new(self.hosts)
        }
    }
}

/// How long a fleet may take to come up or back.
const LIMIT: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let cli = Cli::parse();
    muster_daemon::return_large_blocks();
    muster_pki::tls::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(16).build();
    let done = runtime.context("start a runtime").and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Command::Run { fleet } => run(fleet).await,
                Command::Crew => muster_fleet::remote::serve(tokio::io::stdin(), tokio::io::stdout()).await,
                Command::Baseline { broker, hosts, rounds, at_once, no_lapin, no_fleet, json } => {
                    let (lapin, fleet) = (!no_lapin, !no_fleet);
                    compare(BaselineOptions { broker, hosts, rounds, at_once, lapin, fleet, tell }, json).await
                }
                Command::Idle { program, broker, seconds, json } => {
                    tokio::task::block_in_place(|| idle(program, broker, Duration::from_secs(seconds), json))
                }
                Command::Storm { fleet, blow, compare, running, settle_s, json } => {
                    let pauses = if compare { vec![Pauses::Own, Pauses::Same] } else { vec![Pauses::Own] };
                    let show = Showing { running, settle: Duration::from_secs(settle_s), json };
                    storms(&fleet, &blow, &pauses, show).await
                }
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells people how far the start is.
fn tell(progress: Progress) {
    match progress {
        Progress::Issuing { hosts } => eprintln!("    {hosts} certificates"),
        Progress::BrokerStarts { broker: BrokerKind::RabbitMq, hosts } => eprintln!("    RabbitMQ with {hosts} users"),
        Progress::BrokerStarts { broker: BrokerKind::Embedded, hosts } => {
            eprintln!("    the embedded broker, for {hosts} hosts");
        }
        Progress::Connecting { online, agents, processes: 1 } => eprintln!("    {online} of {agents} agents connected"),
        Progress::Connecting { online, agents, processes } => {
            eprintln!("    {online} of {agents} agents connected, in {processes} processes");
        }
    }
}

/// Does it, or ends at the first signal: what it has started ends with this process, and is removed from the disk then.
async fn unless_interrupted<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    // Before anything begins: until it is listened for, a signal ends this process with no word to anybody.
    let mut stop = Stop::listen()?;
    let (sender, done) = oneshot::channel();
    // In a task of its own: it blocks while the broker starts, and signals have to be heard meanwhile.
    Tasks::new().spawn(TaskKind::Worker, "start", async move { drop(sender.send(work.await)) });
    tokio::select! {
        done = done => done.context("the start panicked")?,
        () = stop.told() => {
            eprintln!("stopped; the broker and the agents end, and what they wrote is removed");
            muster_tests::end_process(130)
        }
    }
}

/// Ctrl-C and the signal that service managers send, from when on they are listened for.
struct Stop {
    interrupted: Signal,
    terminated: Signal,
}

impl Stop {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self { interrupted: listen(SignalKind::interrupt())?, terminated: listen(SignalKind::terminate())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

async fn start(arguments: FleetArguments, pauses: Pauses) -> Result<Fleet> {
    let began = Instant::now();
    eprintln!("==> a broker ({}) and {} agents", arguments.broker, arguments.hosts);
    let options = arguments.options(pauses);
    let fleet = unless_interrupted(async move { Fleet::start(options, LIMIT).await }).await?;
    let took = began.elapsed().as_secs_f64();
    let agents = fleet.options().agents();
    let state = fleet.state(Timestamp(0)).await?;
    eprintln!("    up after {took:.1} s; peak {} connections a second", state.counted.connected_peak());
    eprintln!(
        "    {agents} agents hold {} MiB, the broker {} MiB",
        mib(state.usage.resident_bytes),
        mib(fleet.ground.broker.usage().resident_bytes)
    );
    Ok(fleet)
}

async fn compare(options: BaselineOptions, json: bool) -> Result<()> {
    eprintln!("==> {}, {} hosts, {} rounds", options.broker, options.hosts, options.rounds);
    unless_interrupted(async move {
        let mut first = None;
        baseline(&options, |measured| {
            if json {
                println!("{}", serde_json::json!(measured));
            } else {
                show_baseline(&measured, first.get_or_insert_with(|| measured.clone()));
            }
        })
        .await
    })
    .await
}

fn show_baseline(measured: &baseline::Measured, raw: &baseline::Measured) {
    let [least, median, most] = measured.round_us.map(|us| us / 1_000);
    println!(
        "{}: round {:.2} x the raw one ({median} ms, {least} to {most}), connects {:.2} x ({} a second)",
        measured.what,
        ratio(measured.round_us[1], raw.round_us[1]),
        ratio(measured.connected_per_second, raw.connected_per_second),
        measured.connected_per_second
    );
    println!(
        "  processor per host and round: broker {} us, hosts {} us, controller {} us",
        measured.broker_us, measured.hosts_us, measured.controller_us
    );
    println!(
        "  processor per connection: broker {} us, hosts {} us",
        measured.connect_broker_us, measured.connect_hosts_us
    );
    println!(
        "  memory: hosts {} MiB, broker {} MiB, of it for each connection {} KiB",
        measured.hosts_kib / 1_024,
        measured.broker_kib / 1_024,
        kib(measured.connection_bytes)
    );
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to.max(1) as f64
}

fn mib(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

async fn run(arguments: FleetArguments) -> Result<()> {
    // Before it is up, so that no signal after that is missed.
    let mut stop = Stop::listen()?;
    let fleet = start(arguments, Pauses::Own).await?;
    let operator = operator(&fleet.ground)?;
    println!("The fleet is up. As its operator:\n");
    println!("  export HOME={0} XDG_CONFIG_HOME={0}/.config XDG_CACHE_HOME={0}/.cache", operator.home().display());
    println!("  muster ping --all\n  muster find -t 'role = web and dc = ams1'");
    println!("  muster find -t '{TENTH}'    # exactly a tenth\n\nCtrl-C ends it.");
    stop.told().await;
    eprintln!("==> stopping; once more to end at once");
    let left = unless_interrupted(fleet.stop()).await?;
    eprintln!("    {} interrupted, {} reports left, {} failed", left.interrupted, left.reports, left.failed);
    Ok(())
}

fn idle(program: Option<PathBuf>, broker: BrokerKind, window: Duration, json: bool) -> Result<()> {
    let program = program.map_or_else(|| muster_tests::programs::program("musterd"), Ok)?;
    eprintln!("==> `{}` idle for {} s", program.display(), window.as_secs());
    let idle = measure(&IdleOptions { broker, window, ..IdleOptions::new(program) })?;
    if json {
        println!("{}", serde_json::to_string(&idle)?);
        return Ok(());
    }
    println!("  program                    {} KiB", kib(idle.program_bytes));
    for (when, memory) in
        [("mostly", &idle.memory), ("at most", &idle.memory_peak), ("after facts", &idle.memory_after_refresh)]
    {
        println!("  memory, {when:<18} {} KiB PSS, {} KiB alone", kib(memory.pss_bytes), kib(memory.alone_bytes));
        let of = &memory.of;
        println!(
            "                             program {}, libraries {}, heap {}, other {}; dirty {} KiB",
            kib(of.program_bytes),
            kib(of.libraries_bytes),
            kib(of.heap_bytes),
            kib(of.anonymous_bytes),
            kib(memory.private_dirty_bytes)
        );
    }
    println!("  threads                    {}", idle.threads);
    println!(
        "  processor                  {:.4} % of a core, {:.0} us a minute, {:.0} wake-ups a minute",
        idle.processor_percent, idle.processor_us_per_minute, idle.wakeups_per_minute
    );
    println!(
        "  network                    {:.0} bytes a minute of TLS, {:.0} with TCP and IP",
        idle.tls_bytes_per_minute, idle.wire_bytes_per_minute
    );
    println!("  of the window              {:?}", idle.wire);
    println!("  facts and announcement     {:.0} us, {:?}", idle.refresh.processor_us, idle.refresh.wire);
    Ok(())
}

fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

struct Showing {
    running: usize,
    settle: Duration,
    json: bool,
}

async fn storms(arguments: &FleetArguments, blows: &[BlowArgument], pauses: &[Pauses], how: Showing) -> Result<()> {
    for &pauses in pauses {
        let mut fleet = start(arguments.clone(), pauses).await?;
        for blow in blows {
            let blow = match blow {
                BlowArgument::Kill => Blow::Kill,
                BlowArgument::Restart => Blow::Restart,
                BlowArgument::CloseAll => Blow::CloseAll,
            };
            tokio::time::sleep(how.settle).await;
            eprintln!("==> {blow:?}, pauses {pauses:?}");
            let measured = storm(&mut fleet, StormOptions { running: how.running, ..StormOptions::new(blow) }).await?;
            if how.json {
                println!("{}", serde_json::json!({ "pauses": format!("{pauses:?}"), "measured": measured }));
            } else {
                show(&measured);
            }
            anyhow::ensure!(measured.started_twice == 0, "an action ran twice");
        }
        let left = fleet.stop().await?;
        eprintln!(
            "    stopped: {} interrupted, {} reports left, {} failed",
            left.interrupted, left.reports, left.failed
        );
    }
    Ok(())
}

fn show(measured: &Measured) {
    let s = |ms: u64| format!("{:.1} s", std::time::Duration::from_millis(ms).as_secs_f64());
    println!("  broker away for            {}", s(measured.broker_away_ms));
    println!("  half / all agents back     {} / {}", s(measured.half_back_ms), s(measured.all_back_ms));
    println!("  complete ping after        {}", s(measured.ping_complete_ms));
    println!("  ping before / after        {} / {}", s(measured.ping_before_ms), s(measured.ping_after_ms));
    let connecting = &measured.connecting;
    println!(
        "  attempts, after it was up  {}, {:.2} for each agent",
        connecting.attempts, measured.attempts_per_agent_after
    );
    println!("  attempts a second, peak    {}", connecting.attempts_peak());
    println!("  connections a second, peak {}", connecting.connected_peak());
    println!("  failed attempts            {} {:?}", connecting.failed_all(), connecting.failed);
    println!(
        "  broker                     {} of processor, {} MiB",
        s(measured.broker_processor_ms),
        mib(measured.broker_resident_bytes)
    );
    println!(
        "  agents together            {} of processor, {} MiB",
        s(measured.agents_processor_ms),
        mib(measured.agents_resident_bytes)
    );
    println!("  announcements lost         {}", measured.presence_lost);
    println!("  answers of what ran        {} of {}", measured.running_answered, measured.running_begun);
}
