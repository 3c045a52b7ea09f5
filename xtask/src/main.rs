//! `cargo xtask TASK`: what a developer and CI run, so that both run the same.
//!
//! ```text
//! demo [--check] [--rabbitmq]  build, start a private broker and five agents, show what Muster does
//! test [FILTER]       everything: format, lints, arrows, licences, generated files, all tests
//! check               the quick half of `test`: no test binaries are run
//! arrows              compare the crates' dependencies with the allowed ones
//! links               find dead links in the documents
//! promises            find tests that the tables of promises name and that do not exist
//! fleet [--hosts N]   start N real agents in one process with a broker, and wait; --broker embedded; --help for more
//! storm [--hosts N]   take the broker away from such a fleet, and measure how it comes back
//! idle [--seconds N]  measure what the agent that ships costs while it has nothing to do
//! growth [--hosts N]  what fleets of 100,000 and 1,000,000 hosts need, from what was measured; --sites N, --check
//! bench [--quick]     measure Muster against the bare broker, RabbitMQ and the embedded one; --help for more, --shipped for the programs as they ship
//! simulate [--seed N]  a fleet of real agents in simulated time, under faults from a seed; --seeds COUNT
//! fuzz [TARGET ...]   throw made-up bytes at the readers; --seconds N, --jobs N, --minimise
//! generate [--check]  write, or only compare, the files that are made from code
//! book                build the book with mdbook, where that is installed
//! package [--check]   make Debian and RPM packages; try them in a fresh root
//! reproducible        build the packages twice, in two places, and compare
//! supply              licences, banned and doubled libraries, sources, notes on crates that touch keys
//! ```
//!
//! This crate depends on nothing of ours: it must build in seconds on a fresh machine, and say what
//! it does while the rest builds.
#![expect(clippy::print_stderr, reason = "a terminal program for developers")]

mod arrows;
mod bench;
mod demo;
mod fleet;
mod fuzz;
mod generate;
mod growth;
mod links;
mod machine;
mod named_tests;
mod package;
mod run;
mod simulate;
mod supply;
mod test;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask demo [--check] [--rabbitmq] | test [FILTER] | check | fleet | storm | idle | growth | bench | simulate | fuzz [TARGET]\n       \
     | arrows | links | promises | generate [--check] | book\n       \
     | package [--profile dist|dev] [--check] | reproducible | supply";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if std::env::var_os(fuzz::WRAPPER).is_some() {
        return match fuzz::compile(&arguments) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let done = match words.as_slice() {
        ["demo", rest @ ..] => demo::demo(rest),
        ["fuzz", rest @ ..] => fuzz::fuzz(rest),
        ["growth", rest @ ..] => growth::growth(rest),
        ["simulate", rest @ ..] => simulate::simulate(rest),
        ["test"] => test::everything(None),
        ["test", filter] => test::everything(Some(filter)),
        ["fleet", rest @ ..] => fleet::fleet("run", rest),
        ["storm", rest @ ..] => fleet::fleet("storm", rest),
        ["idle", rest @ ..] => fleet::idle(rest),
        ["bench", rest @ ..] => bench::bench(rest),
        ["check"] => test::quick(),
        ["links"] => links::check_and_tell(),
        ["promises"] => named_tests::check_and_tell(),
        ["arrows"] => arrows::check_and_tell(),
        ["generate"] => generate::generate(false),
        ["generate", "--check"] => generate::generate(true),
        ["package", rest @ ..] => package::package(rest),
        ["reproducible"] => package::reproducible(),
        ["supply"] => supply::check(),
        ["book"] => run::step("build the book", "mdbook", &["build", "docs"]),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
