//! `cargo xtask fleet` and `cargo xtask storm`: many real agents in one process; `cargo xtask idle`: one real `musterd`.
//! All build optimised, since what they show is how fast, or how small, things are.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{demo, machine, package, run};

/// Builds `muster-fleet` and hands over to it: `what` is one of its commands.
///
/// # Errors
/// When something is missing or does not build.
pub(crate) fn fleet(what: &str, arguments: &[&str]) -> Result<()> {
    need_broker(broker(arguments).unwrap_or(RABBITMQ))?;
    let program = build()?;
    hand_over(&program, &[&[what], arguments].concat())
}

/// Measures the `musterd` that ships, with nothing to do.
///
/// # Errors
/// As [`fleet`].
pub(crate) fn idle(arguments: &[&str]) -> Result<()> {
    need_broker(broker(arguments).unwrap_or(RABBITMQ))?;
    machine::need_sockets()?;
    let agent = package::shipped_agent()?;
    let program = build()?;
    let agent = agent.to_str().context("the target folder's name is not UTF-8")?;
    hand_over(&program, &[&["idle", "--program", agent], arguments].concat())
}

/// The word for the broker that has to be installed, which is the default of a fleet.
const RABBITMQ: &str = "rabbitmq";

/// The word for the one that has not.
const EMBEDDED: &str = "embedded";

/// What `--broker` says.
pub(crate) fn broker<'a>(arguments: &[&'a str]) -> Option<&'a str> {
    const OPTION: &str = "--broker";
    let behind = |index: usize| arguments.get(index + 1).copied();
    arguments.iter().enumerate().find_map(|(index, argument)| match argument.strip_prefix(OPTION)? {
        "" => behind(index),
        word => word.strip_prefix('='),
    })
}

/// Makes sure that a broker can be started. What it is called is for the program to check.
///
/// # Errors
/// When it is not there and cannot be installed.
pub(crate) fn need_broker(word: &str) -> Result<()> {
    if word == EMBEDDED {
        return Ok(());
    }
    machine::need_rabbitmq().with_context(|| format!("or do without: `--broker {EMBEDDED}`"))
}

fn build() -> Result<PathBuf> {
    run::cargo_step(
        "build the fleet, optimised (the first time takes some minutes)",
        &["build", "--release", "--package", "muster-fleet", "--package", "muster-cli", "--bins"],
    )?;
    Ok(demo::target_directory()?.join("release/muster-fleet"))
}

/// In our place, so that Ctrl-C reaches one process, which then stops what it has started.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn hand_over(program: &Path, arguments: &[&str]) -> Result<()> {
    let error = Command::new(program).args(arguments).current_dir(run::root()).exec();
    Err(error).with_context(|| format!("start `{}`", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_read_however_it_is_given() {
        let cases: &[(&[&str], Option<&str>)] = &[
            (&["--hosts", "10"], None),
            (&["--broker", "embedded", "--hosts", "10"], Some("embedded")),
            (&["--hosts=10", "--broker=rabbitmq"], Some("rabbitmq")),
            (&["--broker"], None),
            (&["--brokers", "x"], None),
        ];
        for (arguments, expected) in cases {
            assert_eq!(broker(arguments), *expected, "{arguments:?}");
        }
        assert!(need_broker(EMBEDDED).is_ok());
    }
}
