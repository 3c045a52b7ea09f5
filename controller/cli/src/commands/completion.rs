//! `muster completion SHELL`: the line for the shell's start-up file, and the answers to the shell.

use std::ffi::OsString;

use clap::{Args, ValueEnum};
use clap_complete::CompleteEnv;

use crate::output::{ExitCode, Failure, Printer};

/// The variable with which the shell asks.
const VARIABLE: &str = "COMPLETE";

/// A shell we have completion for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// The line for `~/.bashrc`.
    Bash,
    /// The line for `~/.zshrc`, behind `compinit`.
    Zsh,
    /// The line for `~/.config/fish/completions/muster.fish`.
    Fish,
}

/// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  \
    muster completion bash >> ~/.bashrc\n  \
    muster completion zsh >> ~/.zshrc\n  \
    muster completion fish > ~/.config/fish/completions/muster.fish")]
pub(crate) struct CompletionArguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the line that makes the shell ask this program. It asks anew in every shell, so that an
/// upgrade needs no new line.
pub(crate) fn run(arguments: &CompletionArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    printer.line(match arguments.shell {
        Shell::Bash => "source <(COMPLETE=bash muster)",
        Shell::Zsh => "source <(COMPLETE=zsh muster)",
        Shell::Fish => "COMPLETE=fish muster | source",
    });
    Ok(ExitCode::Success)
}

/// Answers the shell if it is the one who asks. Says nothing about errors: the prompt is no place for them.
pub(crate) fn answer(words: &[OsString]) -> bool {
    let asked = std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty() && value != "0");
    if asked {
        let directory = std::env::current_dir().ok();
        let environment = CompleteEnv::with_factory(crate::cli::command).var(VARIABLE).bin("muster");
        drop(environment.try_complete(words.iter().cloned(), directory.as_deref()));
    }
    asked
}
