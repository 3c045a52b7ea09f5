//! `muster-growth`: started by `cargo xtask growth`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use muster_growth::constants::Constants;
use muster_growth::curve;
use muster_growth::page::{Asked, File, files};

/// What larger fleets need, from what was measured.
#[derive(Debug, Parser)]
#[command(name = "muster-growth")]
struct Cli {
    /// Hosts to plan for; may be repeated [default: 100000 and 1000000].
    #[arg(long, value_name = "N", value_delimiter = ',')]
    hosts: Vec<usize>,
    /// Sites to plan with; may be repeated [default: 10 and 100].
    #[arg(long, value_name = "N", value_delimiter = ',')]
    sites: Vec<usize>,
    /// Measured numbers to use in place of the checked-in ones.
    #[arg(long, value_name = "FILE", default_value = "docs/performance/growth/constants.json")]
    constants: PathBuf,
    /// Results of `cargo xtask bench` to compare with.
    #[arg(long, value_name = "FILE", default_value = "docs/performance/growth/measured.json")]
    results: PathBuf,
    /// Cores of the machine that they were measured on.
    #[arg(long, value_name = "N", default_value_t = 2)]
    cores: usize,
    /// Folder for the files; without it the tables are printed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write nothing, and fail if the files in the folder differ.
    #[arg(long, requires = "out")]
    check: bool,
}

/// More hosts than this need more memory than a developer's machine has.
const HOSTS_MAX: usize = 5_000_000;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let mut asked = Asked::default();
    if !cli.hosts.is_empty() {
        asked.hosts.clone_from(&cli.hosts);
    }
    if !cli.sites.is_empty() {
        asked.sites.clone_from(&cli.sites);
    }
    if asked.hosts.iter().any(|hosts| *hosts == 0 || *hosts > HOSTS_MAX) {
        bail!("--hosts takes 1 to {HOSTS_MAX}");
    }
    if asked.sites.iter().any(|sites| *sites == 0 || *sites > 10_000) || cli.cores == 0 {
        bail!("--sites takes 1 to 10000, --cores at least 1");
    }
    let (constants, table) = Constants::parse(&read(&cli.constants)?)?;
    let curve = curve::read(&read(&cli.results)?)?;
    let made = files(&constants, &table, &curve, cli.cores, &asked);
    match &cli.out {
        None => made.iter().filter(|file| file.name.ends_with(".md")).for_each(|file| print!("{}", file.text)),
        Some(folder) if cli.check => compare(folder, &made)?,
        Some(folder) => write(folder, &made)?,
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
}

fn compare(folder: &Path, made: &[File]) -> Result<()> {
    for file in made {
        let path = folder.join(file.name);
        if read(&path)? != file.text {
            bail!("`{}` is not what its numbers give: run `cargo xtask growth`", path.display());
        }
    }
    Ok(())
}

fn write(folder: &Path, made: &[File]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("create `{}`", folder.display()))?;
    for file in made {
        let path = folder.join(file.name);
        std::fs::write(&path, &file.text).with_context(|| format!("write `{}`", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
