//! Running other programs, with a line that says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// The repository's root: the parent of this crate's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.to_path_buf(), Path::to_path_buf)
}

/// Cargo, as it called us.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Runs a program in the root with its output shown, and says how long it took.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn step(what: &str, program: &str, arguments: &[&str]) -> Result<()> {
    let started = Instant::now();
    eprintln!("==> {what}");
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .status()
        .with_context(|| format!("{what}: start `{program}`"))?;
    if !status.success() {
        bail!("{what}: `{program} {}` ended with {status}", arguments.join(" "));
    }
    eprintln!("    {what}: done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Runs cargo as a step.
///
/// # Errors
/// As [`step`].
pub(crate) fn cargo_step(what: &str, arguments: &[&str]) -> Result<()> {
    step(what, &cargo(), arguments)
}

/// Runs a program in the root and gives its standard output.
///
/// # Errors
/// When it cannot be started, does not succeed, or does not write UTF-8.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .with_context(|| format!("start `{program}`"))?;
    if !output.status.success() {
        bail!(
            "`{program} {}` ended with {}\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("read the output of `{program}`"))
}
