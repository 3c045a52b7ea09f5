//! `cargo xtask growth`: larger fleets than anybody can run, from what was measured.

use anyhow::Result;

use crate::run;

/// Where the tables and pictures of the usual plan are.
const FOLDER: &str = "docs/performance/growth";

/// Plays the plan. Without words the checked-in files are made anew, `--check` alone compares them; with words of its own it
/// prints the tables, unless they say where to write.
///
/// # Errors
/// Words that the program does not know, or files that differ.
pub(crate) fn growth(arguments: &[&str]) -> Result<()> {
    let mut words = vec!["run", "--quiet", "--release", "--package", "muster-growth", "--"];
    words.extend(arguments);
    if arguments.is_empty() || arguments == ["--check"] {
        words.extend(["--out", FOLDER]);
    }
    run::cargo_step("play larger fleets", &words)
}
