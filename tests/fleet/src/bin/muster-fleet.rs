//! `muster-fleet`: a fleet to try things on, and storms. Started by `cargo xtask fleet` and `cargo xtask storm`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_fleet::idle::{IdleOptions, measure};
use muster_fleet::storm::{Blow, Measured, StormOptions, storm};
use muster_fleet::{Fleet, Options, Pauses};
use muster_tests::programs::{Access, Operator, Party};
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
    /// Measures what a `musterd` costs that has nothing to do.
    Idle {
        /// The program [default: the one beside this].
        #[arg(long)]
        program: Option<PathBuf>,
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
    /// How many hosts.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Seed of names, facts and pauses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds that every report takes before it leaves a host.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
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
}

impl FleetArguments {
    fn options(&self, pauses: Pauses) -> Options {
        Options {
            seed: self.seed,
            pauses,
            latency: Duration::from_millis(self.latency_ms),
            slow: self.slow,
            silent: self.silent,
            absent: self.absent,
            start_at_once: self.start_at_once,
            state: self.state.clone(),
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
                Command::Run { fleet } => run(&fleet).await,
                Command::Idle { program, seconds, json } => {
                    tokio::task::block_in_place(|| idle(program, Duration::from_secs(seconds), json))
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

async fn start(arguments: &FleetArguments, pauses: Pauses) -> Result<Fleet> {
    let began = Instant::now();
    eprintln!("==> a broker and {} agents", arguments.hosts);
    let fleet = Fleet::start(arguments.options(pauses), LIMIT).await?;
    let took = began.elapsed().as_secs_f64();
    let agents = fleet.options().agents();
    eprintln!("    up after {took:.1} s; peak {} connections a second", fleet.meter.counted().connected_peak());
    let usage = muster_fleet::usage_of_self()?;
    eprintln!(
        "    {agents} agents hold {} MiB, the broker {} MiB",
        mib(usage.resident_bytes),
        mib(fleet.ground.broker.usage().resident_bytes)
    );
    Ok(fleet)
}

fn mib(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

async fn run(arguments: &FleetArguments) -> Result<()> {
    let fleet = start(arguments, Pauses::Own).await?;
    let lea = fleet.ground.site.member_in("user/lea", &["admins"]);
    let access =
        Access { urls: vec![fleet.ground.broker.url()], ca: lea.files.ca.clone(), crl: Some(lea.files.crl.clone()) };
    let party = Party { certificate: lea.files.certificate.clone(), key: lea.files.key.clone() };
    let home = fleet.ground.site.directory().join("lea-home");
    Operator::new(&home, "fleet", &access, &party)?;
    println!("The fleet is up. As its operator:\n");
    println!("  export HOME={0} XDG_CONFIG_HOME={0}/.config XDG_CACHE_HOME={0}/.cache", home.display());
    println!("  muster ping --all\n  muster find -t 'role = web and dc = ams1'\n\nCtrl-C ends it.");
    tokio::signal::ctrl_c().await?;
    let left = fleet.stop().await?;
    eprintln!("    {} interrupted, {} reports left, {} failed", left.interrupted, left.reports, left.failed);
    Ok(())
}

fn idle(program: Option<PathBuf>, window: Duration, json: bool) -> Result<()> {
    let program = program.map_or_else(|| muster_tests::programs::program("musterd"), Ok)?;
    eprintln!("==> `{}` idle for {} s", program.display(), window.as_secs());
    let idle = measure(&IdleOptions { window, ..IdleOptions::new(program) })?;
    if json {
        println!("{}", serde_json::to_string(&idle)?);
        return Ok(());
    }
    println!("  program                    {} KiB", kib(idle.program_bytes));
    for (when, memory) in [("idle", &idle.memory), ("after facts", &idle.memory_after_refresh)] {
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
        let mut fleet = start(arguments, pauses).await?;
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
