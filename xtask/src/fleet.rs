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
    machine::need_rabbitmq()?;
    let program = build()?;
    hand_over(&program, &[&[what], arguments].concat())
}

/// Measures the `musterd` that ships, with nothing to do.
///
/// # Errors
/// As [`fleet`].
pub(crate) fn idle(arguments: &[&str]) -> Result<()> {
    machine::need_rabbitmq()?;
    machine::need_sockets()?;
    let agent = package::shipped_agent()?;
    let program = build()?;
    let agent = agent.to_str().context("the target folder's name is not UTF-8")?;
    hand_over(&program, &[&["idle", "--program", agent], arguments].concat())
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
