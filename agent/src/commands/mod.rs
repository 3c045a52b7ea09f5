//! The command line of `musterd`.

mod audit;
mod journal;
mod policy;
mod spool;
mod status;
mod surroundings;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use muster_agent::config::{self, Config, FILE_DEFAULT, Raw};
use muster_agent::facts::{FactStore, Sources};
use muster_agent::policy::STARTER;
use muster_daemon::config::{ConfigError, Loaded, Problem};
use muster_daemon::terminal::harmless;
use muster_daemon::{Clock as _, SystemClock};
use muster_protocol::{HostName, Timestamp};

use crate::complaint::Complaint;
use crate::start;

/// The agent on every host: takes signed commands, decides by the host's own policy, runs them, reports.
#[derive(Debug, Parser)]
#[command(name = "musterd", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    files: Files,

    /// Print the effective configuration with the origin of each value, and end.
    #[arg(long)]
    print_config: bool,

    /// Stop when standard input, which must be a pipe, ends: the agent does not outlive whoever started it.
    #[arg(long)]
    until_input_ends: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

/// Which configuration to read.
#[derive(Debug, Clone, Args)]
pub(crate) struct Files {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "MUSTERD_CONFIG", default_value = FILE_DEFAULT)]
    config: PathBuf,

    /// Directory of further files [default: the file's name with `.d` in place of `.toml`].
    #[arg(long, global = true, value_name = "DIRECTORY", env = "MUSTERD_CONFIG_DIR")]
    config_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check configuration, certificates and policy, and say everything that is wrong.
    CheckConfig,
    /// Ask the agent that runs on this host what it is doing; exit code 3 if none answers.
    Status {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the facts and classes the agent would use, as JSON.
    Facts,
    /// Print the policy to begin with.
    PrintStarterPolicy,
    /// Check a policy, and try what it says.
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Look at the final reports that wait for the broker.
    Spool {
        #[command(subcommand)]
        command: spool::SpoolCommand,
    },
    /// Look at the requests that this host remembers.
    Journal {
        #[command(subcommand)]
        command: journal::JournalCommand,
    },
    /// Look at the audit log.
    Audit {
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Run one action in a process of its own. Agents do that.
    #[command(hide = true)]
    RunAction {
        /// The action's directory.
        directory: PathBuf,
    },
}

/// How a look at the agent's files ended that could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// Everything is as it was written.
    Whole,
    /// Something is damaged; what it is was printed.
    Damaged,
}

impl Looked {
    pub(crate) fn of(is_whole: bool) -> Self {
        if is_whole { Self::Whole } else { Self::Damaged }
    }
}

/// Exit code where something could be looked at and is not as it should be: damage, or an agent that does not answer.
pub(crate) const NOT_AS_IT_SHOULD_BE: u8 = 3;

/// Reads the command line, does what it says, and gives the exit code: 0 good, 1 not, 2 wrong usage,
/// [`NOT_AS_IT_SHOULD_BE`].
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        _ if cli.print_config => print_config(&cli.files),
        None => return start::agent(&cli.files, cli.until_input_ends),
        Some(Command::RunAction { directory }) => return start::run_action(&cli.files, directory),
        Some(Command::CheckConfig) => return check_config(&cli.files),
        Some(Command::Status { json }) => return status::run(*json, &cli.files),
        Some(Command::Facts) => facts(&cli.files),
        Some(Command::PrintStarterPolicy) => print(STARTER),
        Some(Command::Policy { command }) => return policy::run(command, &cli.files),
        Some(Command::Spool { command }) => return looked(spool::run(command, &cli.files), &cli.files),
        Some(Command::Journal { command }) => return looked(journal::run(command, &cli.files), &cli.files),
        Some(Command::Audit { command }) => return audit::run(command, &cli.files),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error, &cli.files);
            ExitCode::FAILURE
        }
    }
}

/// Says how a look ended.
pub(crate) fn looked(looked: anyhow::Result<Looked>, files: &Files) -> ExitCode {
    match looked {
        Ok(Looked::Whole) => ExitCode::SUCCESS,
        Ok(Looked::Damaged) => ExitCode::from(NOT_AS_IT_SHOULD_BE),
        Err(error) => {
            complain(&error, files);
            ExitCode::FAILURE
        }
    }
}

impl Files {
    fn drop_ins(&self) -> PathBuf {
        self.config_dir.clone().unwrap_or_else(|| self.config.with_extension("d"))
    }

    /// The arguments that make another process read the same.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--config".into(), absolute(&self.config).into()];
        if let Some(directory) = &self.config_dir {
            arguments.extend(["--config-dir".into(), absolute(directory).into()]);
        }
        arguments
    }

    fn sources(&self) -> muster_daemon::config::Sources {
        config::sources(&self.config, &self.drop_ins(), std::env::vars())
    }

    /// Reads the configuration as the agent does: unknown keys are told beside it.
    pub(crate) fn load(&self) -> anyhow::Result<(Loaded<Raw>, Config, Vec<Problem>)> {
        Ok(Config::load(self.sources())?)
    }
}

/// The runner works in another directory. A path that cannot be made absolute stays as it is, and is complained about.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Prints to standard output; facts and messages in it are words of others and act on no terminal. A reader that has
/// gone is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(harmless(text).as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}

/// Prints an error to standard error, each problem of a configuration by itself.
pub(crate) fn complain(error: &anyhow::Error, files: &Files) {
    match error.downcast_ref::<ConfigError>() {
        Some(error) => Complaint::of_config(error, &files.config).iter().for_each(Complaint::print),
        None => Complaint::of_any(error).print(),
    }
}

fn print_config(files: &Files) -> anyhow::Result<()> {
    let (loaded, _, unknown) = files.load()?;
    // The configuration names files of secrets and holds none.
    let mut text = loaded.print(&[]).context("print the configuration")?;
    for problem in unknown {
        text.push_str(&format!("# {problem}; ignored\n"));
    }
    print(&text)
}

fn check_config(files: &Files) -> ExitCode {
    let mut complaints = Vec::new();
    let config = match Config::load_partial(files.sources()) {
        Ok((read, problems)) => {
            complaints.extend(problems.iter().map(Complaint::of_problem));
            read.map(|(_, config)| config)
        }
        Err(error) => {
            complaints = Complaint::of_config(&error, &files.config);
            None
        }
    };
    let summary = config.and_then(|config| start::check(&config, &mut complaints));
    complaints.iter().for_each(Complaint::print);
    match summary {
        Some(summary) if complaints.is_empty() => {
            if print(&format!("{summary}\n")).is_err() {
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

fn facts(files: &Files) -> anyhow::Result<()> {
    let (_, config, _) = files.load()?;
    let host = match start::certificate_host(&config) {
        Some(host) => host,
        None => kernel_host().context("neither certificate nor configuration say the host's name")?,
    };
    let store = FactStore::new(Sources::of_host(&config, host));
    let now = Timestamp(SystemClock.now_ms());
    let facts = start::runtime()?.block_on(store.refresh(now));
    let shown = serde_json::json!({ "facts": *facts.values, "classes": facts.classes, "errors": facts.errors });
    print(&format!("{}\n", serde_json::to_string_pretty(&shown)?))
}

pub(crate) fn kernel_host() -> Option<HostName> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    HostName::new(name.trim().to_lowercase()).ok()
}
