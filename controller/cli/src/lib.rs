//! `muster`, the operator's command line.
//!
//! # The data and how it flows
//!
//! [`main`] parses the words (`cli`), picks the context (`context`) and hands both to one module
//! of `commands`. A command builds a plain result value, and `output` turns it into a table or JSON
//! and chooses the exit code. What needs the bus goes through `session`, which joins the context's
//! certificate, trust and broker to a `muster_client` controller.
//!
//! # Non-goals
//!
//! No decision about hosts is taken here: who matches, what is allowed and what came back is
//! known to the hosts and to the client. Nothing is stored but the context file and a cache for
//! completion.
//!
//! # Invariants
//!
//! - One `Printer` owns both streams. Data goes to standard output, everything else to standard error.
//! - Nothing that came from a host reaches the terminal as a control sequence.
//! - An unknown word is an error with the nearest match, and is never executed.
//! - Every command that does not do what it was asked ends with a `Failure`: a stable code, reasons, what to try.

mod cli;
mod codes;
mod commands;
mod output;
mod usage;

use std::ffi::OsString;

use clap::Parser as _;
use output::{ExitCode, Failure, Printer};

/// Runs the program with the words of its command line, the program's own name first.
pub fn main(words: impl IntoIterator<Item = OsString>) -> std::process::ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let code = match cli::Cli::try_parse_from(&words) {
        Ok(cli) => {
            let printer = Printer::new(cli.globals.settings());
            finish(&printer, dispatch(cli, &printer))
        }
        Err(error) => {
            let printer = Printer::new(usage::settings(&words));
            finish(&printer, usage::explain(&error, &printer))
        }
    };
    code.into()
}

fn finish(printer: &Printer, result: Result<ExitCode, Failure>) -> ExitCode {
    let code = result.unwrap_or_else(|failure| {
        printer.failure(&failure);
        failure.exit
    });
    printer.finish();
    code
}

fn dispatch(cli: cli::Cli, printer: &Printer) -> Result<ExitCode, Failure> {
    match cli.command {
        cli::Command::Explain(arguments) => commands::explain::run(&arguments, printer),
    }
}
