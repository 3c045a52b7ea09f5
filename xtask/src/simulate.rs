//! The simulated fleet, by seeds.

use anyhow::Result;

use crate::run;

/// Builds the simulation, optimised, and runs it with these arguments. It says itself what it does.
///
/// # Errors
/// A seed that broke a promise, or words that the simulation does not know.
pub(crate) fn simulate(arguments: &[&str]) -> Result<()> {
    let mut words = vec!["run", "--quiet", "--profile", "simulate", "--package", "muster-simulation"];
    words.extend(["--bin", "muster-simulate", "--"]);
    words.extend(arguments);
    run::cargo_step("run the simulated fleet", &words)
}
