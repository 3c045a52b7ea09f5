//! The words of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::explain::ExplainArguments;
use crate::output::{ColorChoice, Format, Settings};

/// Help: one line, examples, usage, flags, where to read more.
const TEMPLATE: &str = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Ask, find and run on many hosts at once.
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version,
    help_template = TEMPLATE,
    before_help = "Examples:\n  \
        muster ping -t 'role = web'\n  \
        muster run package.status name=openssl -t 'os.family = \"Debian\"'\n  \
        muster doctor",
    after_help = "More: docs/book/src/cli.md",
    infer_subcommands = false,
    arg_required_else_help = true,
    max_term_width = 100,
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
    #[arg(long, global = true, value_name = "NAME", env = "MUSTER_CONTEXT", hide_env = true)]
    pub(crate) context: Option<String>,
    /// Read this config file only.
    #[arg(long, global = true, value_name = "FILE", env = "MUSTER_CONFIG", hide_env = true)]
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

/// What to do: a daily verb, or a noun with a verb of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Explain an error code, or list all of them.
    Explain(ExplainArguments),
}
