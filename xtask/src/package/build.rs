//! How the two programs are built that ship.
//!
//! `muster` runs now and then on a few machines and is built to be fast, `musterd` waits on all of them and is built to
//! be small. Each is built by itself, so that neither has the features of the other's libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{commit_time, remove, text};
use crate::{demo, run};

/// The profile of `muster` that ships.
pub(super) const DIST: &str = "dist";

/// The profile of `musterd` that ships.
const DIST_AGENT: &str = "dist-agent";

/// Longest `musterd` that ships, in bytes. What it is made of, and what was done about it, is in
/// docs/performance/idle.md.
const AGENT_BYTES_MAX: u64 = 9_700_000;

/// Builds both programs and gives the folder with them.
///
/// The packaged build has a target folder of its own, since its flags differ: no path of the machine goes into the
/// programs, neither from Rust nor from C.
pub(super) fn build(root: &Path, output: &Path, profile: &str) -> Result<PathBuf> {
    if profile == "dev" {
        // The tests' own build: fast, and good for looking at the packages only.
        run::cargo_step("build the programs", &["build", "--workspace", "--bins", "--locked"])?;
        return Ok(root.join("target/debug"));
    }
    let target = output.join("build");
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .context("find cargo's folder: neither CARGO_HOME nor HOME is set")?;
    let maps = [(text(&target), "/build"), (text(root), "/muster"), (home, "/cargo")];
    let flags: Vec<String> = maps.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    let c: Vec<String> = maps.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
    let variables = [("CFLAGS", c.join(" ")), ("SOURCE_DATE_EPOCH", commit_time(root)?)];
    let built = output.join("built");
    remove(&built)?;
    std::fs::create_dir_all(&built).context("make a folder for the programs")?;
    for program in [muster(profile), musterd(profile)] {
        let path = program.build(root, &target, &flags, &variables)?;
        std::fs::copy(&path, built.join(program.name)).with_context(|| format!("copy `{}`", path.display()))?;
    }
    if profile == DIST {
        check_size(&built.join("musterd"))?;
    }
    Ok(built)
}

/// Builds `musterd` as it ships, except for paths, beside everything else that is built here.
///
/// # Errors
/// When it does not build, or is too large.
pub(crate) fn shipped_agent() -> Result<PathBuf> {
    let path = musterd(DIST).build(&run::root(), &demo::target_directory()?, &[], &[])?;
    check_size(&path)?;
    Ok(path)
}

/// One of the two, and how it is built.
struct Program {
    name: &'static str,
    package: &'static str,
    profile: String,
    flags: &'static [&'static str],
}

fn muster(profile: &str) -> Program {
    Program { name: "muster", package: "muster-cli", profile: profile.to_owned(), flags: &[] }
}

fn musterd(profile: &str) -> Program {
    let (profile, flags) = if profile == DIST { (DIST_AGENT, AGENT_FLAGS) } else { (profile, &[][..]) };
    Program { name: "musterd", package: "muster-agent", profile: profile.to_owned(), flags }
}

/// What makes the agent smaller and no profile can say: with frame pointers the unwinding of a function is described in
/// fewer words, which is more than its code grows by.
const AGENT_FLAGS: &[&str] = &["-Cforce-frame-pointers=yes"];

impl Program {
    fn build(&self, root: &Path, target: &Path, flags: &[String], variables: &[(&str, String)]) -> Result<PathBuf> {
        eprintln!("==> build {} with profile {} (some minutes)", self.name, self.profile);
        let flags: Vec<&str> = self.flags.iter().copied().chain(flags.iter().map(String::as_str)).collect();
        let status = Command::new(run::cargo())
            .args(["build", "--locked", "--profile", &self.profile, "-p", self.package, "--bin", self.name])
            .arg("--target-dir")
            .arg(target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir(root)
            .status()
            .context("start cargo")?;
        if !status.success() {
            bail!("build {}: cargo ended with {status}", self.name);
        }
        Ok(target.join(&self.profile).join(self.name))
    }
}

/// Refuses an agent that has grown beyond what is promised.
fn check_size(program: &Path) -> Result<()> {
    let path = program.display();
    let bytes = std::fs::metadata(program).with_context(|| format!("look at `{path}`"))?.len();
    eprintln!("    musterd has {bytes} bytes, at most {AGENT_BYTES_MAX} ship");
    ensure!(
        bytes <= AGENT_BYTES_MAX,
        "`{path}` has {bytes} bytes, more than the {AGENT_BYTES_MAX} that ship; docs/performance/idle.md says how to \
         find what has grown"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_has_grown_is_refused() {
        let folder = std::env::temp_dir().join(format!("muster-size-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("musterd");
        for (bytes, good) in [(AGENT_BYTES_MAX, true), (AGENT_BYTES_MAX + 1, false)] {
            // A hole takes no room.
            std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
            assert_eq!(check_size(&path).is_ok(), good, "{bytes}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_what_ships_is_built_small() {
        assert_eq!((musterd("dist").profile.as_str(), musterd("dist").flags), (DIST_AGENT, AGENT_FLAGS));
        assert_eq!((musterd("release").profile.as_str(), musterd("release").flags.len()), ("release", 0));
        assert_eq!(muster("dist").profile, DIST);
    }
}
