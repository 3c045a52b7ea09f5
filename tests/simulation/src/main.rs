//! `muster-simulate`: runs seeds. `cargo xtask simulate` builds and starts it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program for developers")]

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use muster_simulation::{FaultKind, Options, Outcome, Site, Tally, run};

const USAGE: &str = "\
usage: muster-simulate [--seed N] [--seeds COUNT] [--hosts H] [--steps S] [--without KIND,KIND] [--only KIND,KIND]
                       [--for SECONDS] [--keep-going] [--trace]
  --seed N        the first seed; drawn from the system without it
  --seeds COUNT   how many seeds, one after the other (1)
  --for SECONDS   no further seed once so many seconds have passed
  --hosts H       how many hosts, instead of what the seed says
  --steps S       how many questions everybody asks, instead of what the seed says
  --without ...   faults that do not happen
  --only ...      the only faults that happen
  --keep-going    go on after a seed that fails, and list all that did
  --trace         print what happens, with everybody's logs
  --help          print this";

/// Most hosts that a seed chooses by itself.
const HOSTS: usize = 100;

struct Wanted {
    options: Options,
    seeds: u64,
    seconds: Option<u64>,
    keep_going: bool,
}

fn main() -> ExitCode {
    match work() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn read(arguments: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { options: Options::new(rand::random()), seeds: 1, seconds: None, keep_going: false };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("`{word}` needs a value\n{USAGE}"));
        match word.as_str() {
            "--seed" => wanted.options.seed = value()?.parse().context("`--seed` is a number")?,
            "--seeds" => wanted.seeds = value()?.parse().context("`--seeds` is a number")?,
            "--for" => wanted.seconds = Some(value()?.parse().context("`--for` is a number of seconds")?),
            "--hosts" => wanted.options.hosts = Some(value()?.parse().context("`--hosts` is a number")?),
            "--steps" => wanted.options.steps = Some(value()?.parse().context("`--steps` is a number")?),
            "--without" => wanted.options.without.extend(kinds(value()?)?),
            "--only" => {
                let only = kinds(value()?)?;
                wanted.options.without = FaultKind::ALL.into_iter().filter(|kind| !only.contains(kind)).collect();
            }
            "--keep-going" => wanted.keep_going = true,
            "--trace" => wanted.options.print = true,
            _ => bail!("`{word}` is not an option\n{USAGE}"),
        }
    }
    Ok(wanted)
}

fn kinds(text: &str) -> Result<Vec<FaultKind>> {
    text.split(',').map(|name| name.trim().parse().map_err(anyhow::Error::msg)).collect()
}

fn work() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return Ok(true);
    }
    let wanted = read(&arguments)?;
    let site = Arc::new(Site::new(wanted.options.hosts.unwrap_or(HOSTS)).context("make certificates")?);
    let (total, began) = (Tally::default(), tokio::time::Instant::now());
    let mut failed = Vec::new();
    for number in 0..wanted.seeds {
        if wanted.seconds.is_some_and(|seconds| began.elapsed().as_secs() >= seconds) {
            break;
        }
        let options = Options { seed: wanted.options.seed.wrapping_add(number), ..wanted.options.clone() };
        let outcome = run(&options, &site);
        total.merge(&outcome.tally);
        total.add_seed();
        if outcome.violations.is_empty() {
            let (digest, lines) = &outcome.digest;
            println!("seed {} good, {lines} lines, trace {digest}", options.seed);
            continue;
        }
        failed.push(options.seed);
        tell(&outcome, wanted.keep_going);
        if !wanted.keep_going {
            break;
        }
    }
    println!("in {} s: {total}", began.elapsed().as_secs());
    if !failed.is_empty() {
        println!("{} seeds failed: {failed:?}", failed.len());
    }
    Ok(failed.is_empty())
}

fn tell(outcome: &Outcome, short: bool) {
    let Some(first) = outcome.violations.first() else { return };
    println!("seed {} FAILED: {}: {}", outcome.options.seed, first.invariant, first.what);
    if short {
        return;
    }
    for violation in &outcome.violations[1..] {
        println!("  also: {}: {}", violation.invariant, violation.what);
    }
    println!("the last lines of its trace:");
    for line in &outcome.last_lines {
        println!("  {line}");
    }
    println!("to do the same again: {} --trace", outcome.options.command());
}
