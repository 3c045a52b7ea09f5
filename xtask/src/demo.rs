//! `cargo xtask demo`: builds, and hands over to the demonstration, which lives in the test kit because it starts the
//! same things the tests start. The broker is the embedded one, so nothing is installed; with `--rabbitmq` the other.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{machine, run};

/// Builds and runs the demonstration.
///
/// # Errors
/// When something is missing, does not build, or (with `--check`) shows a wrong result.
pub(crate) fn demo(arguments: &[&str]) -> Result<()> {
    if let Some(unknown) = arguments.iter().find(|word| !matches!(**word, "--check" | "--rabbitmq")) {
        bail!("`demo` does not know `{unknown}`; it takes --check and --rabbitmq");
    }
    if arguments.contains(&"--rabbitmq") && std::env::var_os("MUSTER_AMQP_URL").is_none() {
        machine::need_rabbitmq()?;
    }
    run::cargo_step(
        "build muster and musterd (the first time takes some minutes)",
        &["build", "--workspace", "--bins"],
    )?;
    let program = target_directory()?.join("debug/muster-demo");
    // In our place, so that Ctrl-C reaches one process, which then stops what it has started.
    let error = Command::new(&program).args(arguments).current_dir(run::root()).exec();
    Err(error).with_context(|| format!("start `{}`", program.display()))
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> Result<std::path::PathBuf> {
    let text = run::output(&run::cargo(), &["metadata", "--no-deps", "--offline", "--format-version", "1"])?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("read cargo metadata")?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(folder.into())
}
