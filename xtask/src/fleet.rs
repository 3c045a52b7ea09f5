//! `cargo xtask fleet` and `cargo xtask storm`: many real agents in one process. Both build optimised, since what they
//! show is how fast things are.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{demo, machine, run};

/// Builds `muster-fleet` and hands over to it: `what` is one of its commands.
///
/// # Errors
/// When something is missing or does not build.
pub(crate) fn fleet(what: &str, arguments: &[&str]) -> Result<()> {
    machine::need_rabbitmq()?;
    run::cargo_step(
        "build the fleet, optimised (the first time takes some minutes)",
        &["build", "--release", "--package", "muster-fleet", "--package", "muster-cli", "--bins"],
    )?;
    let program = demo::target_directory()?.join("release/muster-fleet");
    // In our place, so that Ctrl-C reaches one process, which then stops what it has started.
    let error = Command::new(&program).arg(what).args(arguments).current_dir(run::root()).exec();
    Err(error).with_context(|| format!("start `{}`", program.display()))
}
