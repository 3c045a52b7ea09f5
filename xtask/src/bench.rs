//! `cargo xtask bench`: Muster against the bare broker, measured.

use anyhow::Result;

use crate::{demo, fleet, machine, run};

/// Takes the programs as they ship, which takes minutes to build.
const SHIPPED: &str = "--shipped";

/// Makes pictures and page again: nothing of a machine is needed.
const RENDER: &str = "--render";

/// Builds everything optimised and hands over to `muster-bench`.
///
/// # Errors
/// When something is missing or does not build.
pub(crate) fn bench(arguments: &[&str]) -> Result<()> {
    let renders = arguments.iter().any(|argument| argument.starts_with(RENDER));
    if !renders {
        // Both are measured if none is named.
        fleet::need_broker(fleet::broker(arguments).unwrap_or_default())?;
        machine::need_sockets()?;
    }
    let packages = ["muster-bench", "muster-fleet", "muster-cli", "muster-agent"].map(|package| ["--package", package]);
    let packages = [packages.as_flattened(), &["--bins"]].concat();
    run::cargo_step(
        "build optimised (the first time takes some minutes)",
        &[&["build", "--release"][..], if renders { &["--package", "muster-bench", "--bins"] } else { &packages }]
            .concat(),
    )?;
    let target = demo::target_directory()?;
    let mut own: Vec<String> = Vec::new();
    let rest: Vec<&str> = arguments.iter().copied().filter(|argument| *argument != SHIPPED).collect();
    if rest.len() < arguments.len() {
        let shipped = ["build", "--profile", "dist", "--package", "muster-cli", "--package", "muster-agent", "--bins"];
        run::cargo_step("build the programs as they ship (this takes some minutes)", &shipped)?;
        let folder = target.join("dist").display().to_string();
        own.extend(["--programs".to_owned(), folder, "--programs-profile".to_owned(), "dist".to_owned()]);
    }
    if let (false, Some(revision)) = (renders, revision()) {
        own.extend(["--revision".to_owned(), revision]);
    }
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    fleet::hand_over(&target.join("release/muster-bench"), &[&own, rest.as_slice()].concat())
}

/// The revision of the source, where it is a checkout; with a mark where it was changed since.
fn revision() -> Option<String> {
    let revision = run::output("git", &["rev-parse", "--short=12", "HEAD"]).ok()?;
    let changed = run::output("git", &["status", "--porcelain", "--untracked-files=no"]).ok()?;
    let mark = if changed.trim().is_empty() { "" } else { "-changed" };
    Some(format!("{}{mark}", revision.trim()))
}
