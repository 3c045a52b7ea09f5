//! `cargo xtask fuzz`: throws made-up bytes at every reader of bytes that somebody else wrote.
//!
//! The targets and their laws are in `fuzz/targets`; `fuzz/engine` puts libFuzzer around them. Stable Rust has the
//! compiler's half of coverage as LLVM options, so neither a nightly compiler nor `cargo-fuzz` is needed; a C++ compiler is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{machine, run};

/// Where the engine is built and works. Below the target directory, so that `cargo clean` takes it along.
const DIRECTORY: &str = "target/fuzz";

/// The engine: a workspace of its own.
const ENGINE: &str = "fuzz/engine/Cargo.toml";

/// Counts edges and shows the operands of comparisons to libFuzzer (SanitizerCoverage; no sanitizer is linked).
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// What is built for coverage: our own code and the libraries that take foreign bytes apart for it. The rest would only
/// make the build longer and each input slower.
const COVERED: &[&str] = &[
    "muster_",
    "asn1_rs",
    "der_parser",
    "flate2",
    "granit_parser",
    "miniz_oxide",
    "nom",
    "oid_registry",
    "regex_lite",
    "roxmltree",
    "serde_json",
    "serde_saphyr",
    "tar",
    "toml",
    "winnow",
    "x509_parser",
];

/// Where set, this program is called by cargo in the compiler's place.
pub(crate) const WRAPPER: &str = "MUSTER_FUZZ_RUSTC";

/// Seconds for one target where nothing else is said.
const SECONDS_DEFAULT: u64 = 30;

/// Seconds for one target in `cargo xtask test`. It looks for what is easy to find; the corpus holds the rest.
const SECONDS_IN_TEST: u64 = 1;

/// Most memory of a target, in MiB. The agent itself lives on less.
const MEMORY_MIB_MAX: u64 = 1024;

/// Longest that one input may take, in seconds. Readers need microseconds; this is for a busy machine.
const INPUT_S_MAX: u64 = 10;

/// What is asked for.
struct Order {
    /// Targets; all of them if none is named.
    targets: Vec<String>,
    seconds: u64,
    jobs: usize,
    /// Reduce what was found to the smallest set and check it in.
    minimise: bool,
}

impl Order {
    fn read(words: &[&str]) -> Result<Self> {
        let mut order = Self { targets: Vec::new(), seconds: SECONDS_DEFAULT, jobs: 1, minimise: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64> {
                let text = words.next().with_context(|| format!("`{word}` needs a number"))?;
                text.parse().with_context(|| format!("`{word} {text}`: not a number"))
            };
            match *word {
                "--seconds" => order.seconds = number()?.max(1),
                "--jobs" => order.jobs = usize::try_from(number()?)?.max(1),
                "--minimise" => order.minimise = true,
                option if option.starts_with('-') => bail!(
                    "`{option}` is not an option; usage: cargo xtask fuzz [TARGET ...] [--seconds N] [--jobs N] [--minimise]"
                ),
                target => order.targets.push(target.to_owned()),
            }
        }
        Ok(order)
    }
}

/// Where the targets are described.
const TARGETS: &str = "fuzz/targets/src";

/// The names of all targets, from their source: this program does not link them.
fn known_targets() -> Result<Vec<String>> {
    let folder = run::root().join(TARGETS);
    let entries = fs::read_dir(&folder).with_context(|| format!("read `{}`", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.context("read the folder of targets")?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
            names.extend(text.lines().filter_map(named_in).map(ToOwned::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// The name in the first line of a target that tells it: `name: "journal",`, alone or behind `Target {`.
fn named_in(line: &str) -> Option<&str> {
    let behind = line.strip_prefix("    name: \"").or_else(|| Some(line.split_once("Target { name: \"")?.1))?;
    behind.split_once('"').map(|(name, _)| name)
}

fn check_names(names: &[String], known: &[String]) -> Result<()> {
    match names.iter().find(|name| !known.contains(name)) {
        Some(name) => bail!("there is no target `{name}`; there are {}", known.join(", ")),
        None => Ok(()),
    }
}

/// Calls the compiler, given as the first word, with the flags for coverage where the crate is one of [`COVERED`].
///
/// # Errors
/// When the compiler cannot be started.
pub(crate) fn compile(words: &[String]) -> Result<bool> {
    let (compiler, words) = words.split_first().context("cargo names the compiler")?;
    let after = |option: &str| words.iter().position(|word| word == option).and_then(|at| words.get(at + 1));
    let covered = after("--target").is_some()
        && after("--crate-name").is_some_and(|name| COVERED.iter().any(|covered| name.starts_with(covered)));
    let flags = if covered { FLAGS } else { &[] };
    let status =
        Command::new(compiler).args(words).args(flags).status().with_context(|| format!("start `{compiler}`"))?;
    Ok(status.success())
}

/// Runs the targets that are asked for.
///
/// # Errors
/// When a law is broken, or the engine cannot be built.
pub(crate) fn fuzz(words: &[&str]) -> Result<()> {
    let order = Order::read(words)?;
    // Before minutes are spent on building.
    check_names(&order.targets, &known_targets()?)?;
    let engine = Engine::build()?;
    let targets = engine.targets(&order.targets)?;
    if order.minimise {
        return targets.iter().try_for_each(|target| engine.minimise(target));
    }
    engine.run_all(&targets, order.seconds, order.jobs)
}

/// The bounded run of `cargo xtask test`.
///
/// # Errors
/// As [`fuzz`].
pub(crate) fn in_test() -> Result<()> {
    let engine = Engine::build()?;
    let targets = engine.targets(&[])?;
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    engine.run_all(&targets, SECONDS_IN_TEST, jobs)
}

/// A target as the engine names it.
#[derive(Clone)]
struct Target {
    name: String,
    bytes_max: String,
}

/// What a run of one target came to.
struct Outcome {
    name: String,
    executions: u64,
    seconds: f64,
    new_inputs: u64,
    edges: u64,
    memory_mib: u64,
    /// Files with inputs that break a law.
    crashes: Vec<PathBuf>,
    log: PathBuf,
}

struct Engine {
    program: PathBuf,
    directory: PathBuf,
}

impl Engine {
    fn build() -> Result<Self> {
        machine::need_cxx()?;
        let directory = run::root().join(DIRECTORY);
        follow_the_main_lock()?;
        let host = run::output("rustc", &["--print", "host-tuple"])?;
        let host = host.trim();
        let started = Instant::now();
        eprintln!("==> build the fuzzing engine");
        // With an explicit target, build scripts and macros can be told from what is built for coverage.
        let status = Command::new(run::cargo())
            .args(["build", "--locked", "--manifest-path", ENGINE, "--target", host])
            .env("CARGO_TARGET_DIR", directory.join("build"))
            .env("RUSTC_WRAPPER", std::env::current_exe().context("find this program")?)
            .env(WRAPPER, "1")
            .current_dir(run::root())
            .status()
            .context("start cargo")?;
        if !status.success() {
            bail!("the fuzzing engine cannot be built: cargo ended with {status}");
        }
        eprintln!("    build the fuzzing engine: done in {:.1} s", started.elapsed().as_secs_f64());
        let program = directory.join("build").join(host).join("debug/muster-fuzz-engine");
        let engine = Self { program, directory };
        let status =
            engine.command().env("MUSTER_FUZZ_PREPARE", &engine.directory).status().context("start the engine")?;
        if !status.success() {
            bail!("the engine cannot write its starting inputs: it ended with {status}");
        }
        Ok(engine)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(run::root()).stdin(Stdio::null()).env("RUST_BACKTRACE", "1");
        command
    }

    /// The targets of these names; all for none.
    fn targets(&self, names: &[String]) -> Result<Vec<Target>> {
        let table = fs::read_to_string(self.directory.join("targets")).context("read the table of targets")?;
        let all: Vec<Target> = table
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, bytes_max)| Target { name: name.to_owned(), bytes_max: bytes_max.to_owned() })
            .collect();
        check_names(names, &all.iter().map(|target| target.name.clone()).collect::<Vec<_>>())?;
        Ok(all.into_iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
    }

    /// The command line for a target: limits, dictionary, and where failing inputs go.
    fn on(&self, target: &Target) -> Command {
        let own = self.directory.join(&target.name);
        let mut command = self.command();
        command
            .env("MUSTER_FUZZ_TARGET", &target.name)
            .arg(format!("-max_len={}", target.bytes_max))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-timeout={INPUT_S_MAX}"))
            .arg(format!("-artifact_prefix={}/", own.join("failed").display()));
        // libFuzzer refuses an empty dictionary.
        let words = own.join("words");
        if fs::metadata(&words).is_ok_and(|meta| meta.len() > 0) {
            command.arg(format!("-dict={}", words.display()));
        }
        command
    }

    fn run_all(&self, targets: &[Target], seconds: u64, jobs: usize) -> Result<()> {
        eprintln!("==> fuzz {} targets for {seconds} s each, {jobs} at a time", targets.len());
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || -> Result<Vec<Outcome>> {
            let mut outcomes = Vec::new();
            while let Some(target) = targets.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                let outcome = self.run_one(target, seconds)?;
                outcome.tell();
                outcomes.push(outcome);
            }
            Ok(outcomes)
        };
        let outcomes = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let mut outcomes = Vec::new();
            for worker in workers {
                outcomes.extend(worker.join().expect("a worker does not panic")?);
            }
            Ok::<_, anyhow::Error>(outcomes)
        })?;
        let executions: u64 = outcomes.iter().map(|outcome| outcome.executions).sum();
        let spent: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
        eprintln!("    {executions} executions in {spent:.0} s of {} targets", outcomes.len());
        let broken: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.crashes.is_empty()).collect();
        if broken.is_empty() {
            return Ok(());
        }
        let rows: Vec<String> = broken.iter().map(|outcome| self.explain(outcome)).collect();
        bail!("{} targets have inputs that break a law:\n{}", broken.len(), rows.join("\n"))
    }

    fn run_one(&self, target: &Target, seconds: u64) -> Result<Outcome> {
        let own = self.directory.join(&target.name);
        let (found, failed, log) = (own.join("found"), own.join("failed"), own.join("log"));
        for directory in [&found, &failed] {
            fs::create_dir_all(directory).with_context(|| format!("make `{}`", directory.display()))?;
        }
        let before = files(&failed)?;
        let output = fs::File::create(&log).with_context(|| format!("make `{}`", log.display()))?;
        let started = Instant::now();
        let status = self
            .on(target)
            .arg(format!("-max_total_time={seconds}"))
            .arg("-print_final_stats=1")
            .args([&found, &own.join("seeds")])
            .stdout(Stdio::null())
            .stderr(output)
            .status()
            .context("start the engine")?;
        let text = String::from_utf8_lossy(&fs::read(&log).context("read the engine's log")?).into_owned();
        let statistic = |name: &str| {
            let line = text.lines().rev().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
            line.and_then(|rest| rest.trim_start_matches(':').trim().parse().ok()).unwrap_or(0)
        };
        let crashes: Vec<PathBuf> = files(&failed)?.into_iter().filter(|file| !before.contains(file)).collect();
        if !status.success() && crashes.is_empty() {
            bail!("the engine ended with {status} on `{}`; see {}", target.name, log.display());
        }
        let edges = |line: &str| line.split_once("cov: ")?.1.split(' ').next()?.parse().ok();
        Ok(Outcome {
            name: target.name.clone(),
            executions: statistic("number_of_executed_units"),
            seconds: started.elapsed().as_secs_f64(),
            new_inputs: statistic("new_units_added"),
            edges: text.lines().rev().find_map(edges).unwrap_or(0),
            memory_mib: statistic("peak_rss_mb"),
            crashes,
            log,
        })
    }

    fn explain(&self, outcome: &Outcome) -> String {
        let log = fs::read_to_string(&outcome.log).unwrap_or_default();
        let said = |line: &&str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
        let said: Vec<&str> = log.lines().filter(said).collect();
        let replay = |file: &PathBuf| {
            format!("  MUSTER_FUZZ_TARGET={} {} {}", outcome.name, self.program.display(), file.display())
        };
        let replays: Vec<String> = outcome.crashes.iter().map(replay).collect();
        format!(
            "{}: {}\n{}\n  (fix it, and keep the input in fuzz/past/{}.txt)",
            outcome.name,
            said.join("; "),
            replays.join("\n"),
            outcome.name
        )
    }

    /// Reduces seeds and finds to the smallest set that reaches as much, and checks that in.
    fn minimise(&self, target: &Target) -> Result<()> {
        let own = self.directory.join(&target.name);
        let merged = own.join("merged");
        if merged.exists() {
            fs::remove_dir_all(&merged).context("remove the last merge")?;
        }
        fs::create_dir_all(&merged).context("make a directory")?;
        fs::create_dir_all(own.join("found")).context("make a directory")?;
        let mut merge = self.on(target);
        merge.arg("-merge=1").args([&merged, &own.join("seeds"), &own.join("found")]);
        let status = merge.stdout(Stdio::null()).stderr(Stdio::null()).status().context("start the engine")?;
        if !status.success() {
            bail!("merging the inputs of `{}` ended with {status}", target.name);
        }
        let mut keep = self.command();
        let status = keep.env("MUSTER_FUZZ_TARGET", &target.name).env("MUSTER_FUZZ_KEEP", &merged).status();
        if !status.context("start the engine")?.success() {
            bail!("the corpus of `{}` cannot be written", target.name);
        }
        eprintln!("    {}: {} inputs", target.name, files(&merged)?.len());
        Ok(())
    }
}

impl Outcome {
    fn tell(&self) {
        let broken = match self.crashes.len() {
            0 => String::new(),
            count => format!(", {count} BREAK A LAW"),
        };
        eprintln!(
            "    {:<20} {:>9} executions in {:>5.1} s, {:>5} edges, {:>4} new inputs, {:>4} MiB{broken}",
            self.name, self.executions, self.seconds, self.edges, self.new_inputs, self.memory_mib
        );
    }
}

/// Makes the engine's lock file anew from the main one where a crate has got another dependency since, so that both
/// build the same versions.
fn follow_the_main_lock() -> Result<()> {
    let up_to_date = |locked: bool| {
        let mut command = Command::new(run::cargo());
        command.args(["tree", "--manifest-path", ENGINE, "--quiet", "--depth", "0"]).current_dir(run::root());
        command.args(locked.then_some("--locked")).stdout(Stdio::null());
        command.stderr(if locked { Stdio::null() } else { Stdio::inherit() });
        command.status().context("start cargo")
    };
    if up_to_date(true)?.success() {
        return Ok(());
    }
    eprintln!("    the engine's lock file follows the main one");
    let lock = run::root().join("fuzz/engine/Cargo.lock");
    fs::copy(run::root().join("Cargo.lock"), &lock).with_context(|| format!("write `{}`", lock.display()))?;
    if up_to_date(false)?.success() { Ok(()) } else { bail!("`{}` cannot be made", lock.display()) }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("list `{}`", directory.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_does_not_exist_is_told_without_building() {
        let known = known_targets().expect("the sources are there");
        // What is checked in for each target is named after it.
        let corpus = fs::read_dir(run::root().join("fuzz/corpus")).expect("the corpus is there");
        let mut stems: Vec<String> = corpus
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        stems.sort();
        assert_eq!(known, stems);
        assert!(check_names(&["journal".to_owned(), "policy".to_owned()], &known).is_ok());
        let said = check_names(&["journal".to_owned(), "nosuch".to_owned()], &known).expect_err("it does not exist");
        assert!(said.to_string().starts_with("there is no target `nosuch`; there are action-directory, "), "{said}");
    }
}
