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
//! known to the hosts and to the client. Nothing is stored but the context file, a cache for
//! completion, and a small record of what this user has asked.
//!
//! # Invariants
//!
//! - One `Printer` owns both streams. Data goes to standard output, everything else to standard error.
//! - Nothing that came from a host reaches the terminal as a control sequence.
//! - An unknown word is an error with the nearest match, and is never executed.
//! - Every command that does not do what it was asked ends with a `Failure`: a stable code, reasons, what to try.

mod ask;
mod catalogue;
mod cli;
mod codes;
mod commands;
mod complete;
mod context;
mod duration;
#[doc(hidden)]
pub mod fuzzing;
mod invocation;
mod one_host;
mod outcome;
mod output;
mod pending;
mod remembered;
mod requests;
mod session;
mod target;
mod usage;

use std::ffi::OsString;

use clap::FromArgMatches as _;
use invocation::Invocation;
use output::{ExitCode, Failure, Printer, Surely};

/// Runs the program with the words of its command line, the program's own name first.
pub fn main(words: impl IntoIterator<Item = OsString>) -> std::process::ExitCode {
    muster_pki::tls::install_crypto_provider();
    let words: Vec<OsString> = words.into_iter().collect();
    if commands::completion::answer(&words) {
        return std::process::ExitCode::SUCCESS;
    }
    let parsed = cli::command().try_get_matches_from(&words);
    let code = match parsed.and_then(|matches| cli::Cli::from_arg_matches(&matches)) {
        Ok(cli) => {
            let selection = cli.globals.selection();
            let surely = Surely {
                config: selection.config.clone(),
                context: selection.context.clone(),
                dev: matches!(cli.command, cli::Command::Dev(_)),
            };
            let printer = Printer::new(cli.globals.settings()).going_on(surely);
            let invocation = Invocation { printer, selection };
            let result = dispatch(cli.command, &invocation);
            finish(&invocation.printer, result)
        }
        Err(error) => {
            let printer = Printer::new(usage::settings(&words));
            let result = usage::explain(&error, &words, &printer);
            finish(&printer, result)
        }
    };
    code.into()
}

fn finish(printer: &Printer, result: Result<ExitCode, Failure>) -> ExitCode {
    let code = result.unwrap_or_else(|failure| {
        printer.failure(&failure);
        failure.exit
    });
    match printer.end() {
        Ok(()) => code,
        Err(failure) => {
            printer.failure(&failure);
            failure.exit
        }
    }
}

fn dispatch(command: cli::Command, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let printer = &invocation.printer;
    match command {
        cli::Command::Context(command) => commands::context::run(&command, invocation),
        cli::Command::Ping(arguments) => block_on(commands::ping::run(&arguments, invocation)),
        cli::Command::Find(arguments) => block_on(commands::find::run(&arguments, invocation)),
        cli::Command::Run(arguments) => block_on(commands::run::run(&arguments, invocation)),
        cli::Command::Approve(arguments) => commands::approve::run(&arguments, invocation),
        cli::Command::Send(arguments) => block_on(commands::send::run(&arguments, invocation)),
        cli::Command::Pending(command) => commands::pending::run(&command, invocation),
        cli::Command::Watch(arguments) => block_on(commands::watch::run(&arguments, invocation)),
        cli::Command::Cancel(arguments) => block_on(commands::cancel::run(&arguments, invocation)),
        cli::Command::Request(command) => commands::request::run(&command, invocation),
        cli::Command::Host(command) => block_on(commands::host::run(&command, invocation)),
        cli::Command::Plugin(command) => commands::plugin::run(&command, invocation),
        cli::Command::Dev(arguments) => commands::dev::run(&arguments, invocation),
        cli::Command::Doctor(arguments) => block_on(commands::doctor::run(&arguments, invocation)),
        cli::Command::Explain(arguments) => commands::explain::run(&arguments, printer),
        cli::Command::Pki(arguments) => commands::pki::run(&arguments, invocation),
        cli::Command::Broker(command) => commands::broker::run(&command, printer),
        cli::Command::Completion(arguments) => commands::completion::run(&arguments, printer),
    }
}

/// Runs what talks to the broker. The runtime is made here, so that commands without network start at once.
pub(crate) fn block_on(future: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::unexpected("the asynchronous runtime cannot be started", &error))?;
    let result = runtime.block_on(future);
    // A name lookup that hangs must not hold the shell.
    runtime.shutdown_background();
    result
}
