//! The words of the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::commands::approve::ApproveArguments;
use crate::commands::broker::BrokerCommand;
use crate::commands::cancel::CancelArguments;
use crate::commands::completion::CompletionArguments;
use crate::commands::context::ContextCommand;
use crate::commands::dev::DevArguments;
use crate::commands::doctor::DoctorArguments;
use crate::commands::explain::ExplainArguments;
use crate::commands::find::FindArguments;
use crate::commands::host::HostCommand;
use crate::commands::pending::PendingCommand;
use crate::commands::ping::PingArguments;
use crate::commands::pki::PkiArguments;
use crate::commands::plugin::PluginCommand;
use crate::commands::request::RequestCommand;
use crate::commands::run::RunArguments;
use crate::commands::send::SendArguments;
use crate::commands::watch::WatchArguments;
use crate::context::Selection;
use crate::output::{ColorChoice, Format, Settings};

/// Help: one line, examples, usage, flags, where to read more.
const TEMPLATE: &str = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Ask, find and run on many hosts at once.
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version,
    before_help = "Examples:\n  \
        muster ping -t 'role = web'\n  \
        muster run package.status name=openssl -t 'os.family = \"Debian\"'\n  \
        muster doctor",
    infer_subcommands = false,
    arg_required_else_help = true,
    max_term_width = 80
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Use this context of the config file.
    #[arg(long, global = true, value_name = "NAME", add = crate::complete::contexts())]
    pub(crate) context: Option<String>,
    /// Read this config file only.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Form of the data on standard output.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t, hide_default_value = true)]
    pub(crate) format: Format,
    /// Short for `--format json`.
    #[arg(long, global = true, group = "short_format", conflicts_with = "format")]
    pub(crate) json: bool,
    /// Short for `--format jsonl`.
    #[arg(long, global = true, group = "short_format", conflicts_with = "format")]
    pub(crate) jsonl: bool,
    /// Short for `--format names`.
    #[arg(long, global = true, group = "short_format", conflicts_with = "format")]
    pub(crate) names: bool,
    /// When to colour.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t, hide_default_value = true)]
    pub(crate) color: ColorChoice,
    /// Only ASCII glyphs.
    #[arg(long, global = true)]
    pub(crate) ascii: bool,
    /// Neither remarks nor progress.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Say more; twice for still more.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Globals {
    /// Which context was asked for.
    pub(crate) fn selection(&self) -> Selection {
        Selection { context: self.context.clone(), config: self.config.clone() }
    }

    /// How the printer should write.
    pub(crate) fn settings(&self) -> Settings {
        let format = match (self.json, self.jsonl, self.names) {
            (true, ..) => Format::Json,
            (_, true, _) => Format::Jsonl,
            (.., true) => Format::Names,
            _ => self.format,
        };
        Settings { format, color: self.color, ascii: self.ascii, quiet: self.quiet, verbose: self.verbose }
    }
}

/// The whole command line, with the same layout of help everywhere.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command().disable_help_flag(true).arg(
        // The short form is the only one: nobody has to look twice.
        clap::Arg::new("help")
            .long("help")
            .short('h')
            .help("Print this help")
            .global(true)
            .action(clap::ArgAction::HelpShort),
    );
    lay_out(command, "muster")
}

/// Gives a command and those below it the layout, and the chapter of the book that has them.
fn lay_out(command: clap::Command, chapter: &str) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let command = command.help_template(TEMPLATE).after_help(format!("More: docs/book/src/cli.md#{chapter}"));
    names.into_iter().fold(command, |command, name| {
        let chapter = if chapter == "muster" { format!("muster-{name}") } else { chapter.to_owned() };
        command.mut_subcommand(name, |verb| lay_out(verb, &chapter))
    })
}

/// What to do: a daily verb, or a noun with a verb of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See which hosts answer, and how fast.
    Ping(PingArguments),
    /// See which hosts match a target.
    Find(FindArguments),
    /// Run an action of a plugin on hosts.
    Run(RunArguments),
    /// Sign a pending command of somebody else, once you have seen what it is.
    Approve(ApproveArguments),
    /// Send a pending command of yours, and show what comes of it.
    Send(SendArguments),
    /// List, show, merge and discard pending commands.
    #[command(subcommand, before_help = "Examples:\n  muster pending list\n  muster pending show last")]
    Pending(PendingCommand),
    /// Attach to a request again, until its end.
    Watch(WatchArguments),
    /// Stop a request on its hosts.
    Cancel(CancelArguments),
    /// List what was asked from here lately.
    #[command(subcommand, before_help = "Examples:\n  muster request list")]
    Request(RequestCommand),
    /// List hosts, show what they are and have.
    #[command(subcommand, before_help = "Examples:\n  muster host list\n  muster host facts web1.example.com os")]
    Host(HostCommand),
    /// List what can be run, show what it takes.
    #[command(subcommand, before_help = "Examples:\n  muster plugin list\n  muster plugin show package.status")]
    Plugin(PluginCommand),
    /// Choose, show and add contexts: which broker, as whom.
    #[command(subcommand, before_help = "Examples:\n  muster context list\n  muster context use prod")]
    Context(ContextCommand),
    /// Write what a broker needs, and check a running one.
    #[command(
        subcommand,
        before_help = "Examples:\n  muster broker config --ca-dir /etc/muster/ca --out ./broker\n  muster broker check --ca-dir /etc/muster/ca"
    )]
    Broker(BrokerCommand),
    /// Keep a certificate authority and issue certificates.
    #[command(before_help = "Examples:\n  muster pki init --ca-dir ./ca\n  muster pki issue user/lea --out ./lea")]
    Pki(Box<PkiArguments>),
    /// Run a bus, a certificate authority and three agents on this machine.
    #[command(before_help = "Examples:\n  muster dev\n  muster dev --agents 8\n  muster dev reset")]
    Dev(Box<DevArguments>),
    /// Check everything between here and the hosts, and say what to do.
    Doctor(DoctorArguments),
    /// Explain an error code, or list all of them.
    Explain(ExplainArguments),
    /// Set up completion for a shell.
    Completion(CompletionArguments),
}
