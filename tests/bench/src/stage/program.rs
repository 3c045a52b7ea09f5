//! The program `muster` itself, as somebody types it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::programs::{Access, Operator, Party};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{Plan, add_bytes, count};
use crate::once::{Ran, elsewhere};
use crate::order::Desk;
use crate::results::{Outcome, Quantity};

/// How long the program may take.
const LIMIT: Duration = Duration::from_secs(240);

/// Bytes that each host writes.
const OUTPUT_BYTES: u64 = 64 * 1_024;

/// Somebody with the program and a home.
#[derive(Debug)]
pub(super) struct Desktop {
    operator: Operator,
    program: PathBuf,
    own: PathBuf,
    names: PathBuf,
}

impl Desktop {
    /// Makes a home below `folder`.
    pub(super) fn new(plan: &Plan, desk: &Desk, folder: &Path) -> Result<Self> {
        let home = folder.join("home");
        let access = Access { urls: vec![desk.url.clone()], ca: desk.ca.clone(), crl: Some(desk.crl.clone()) };
        let party = Party { certificate: desk.certificate.clone(), key: desk.key.clone() };
        let operator = Operator::new(&home, "bench", &access, &party)?;
        let plugins = home.join(".local/share/muster/plugins");
        std::fs::create_dir_all(&plugins)?;
        std::fs::write(plugins.join("fleet.json"), muster_fleet::plugin::description())?;
        let program = plan.programs.join("muster");
        ensure!(program.is_file(), "`{}` is not built", program.display());
        Ok(Self { operator, program, own: plan.own.clone(), names: desk.names.clone() })
    }

    /// Runs `muster` once, which has to say that so many `word`.
    pub(super) async fn run(&self, arguments: &[&str], hosts: usize, word: &str) -> Result<Ran> {
        let command = self.operator.command_of(&self.program, arguments);
        let ran = elsewhere(&self.own, &command, LIMIT).await?;
        ensure!(
            ran.code == 0 && answered(&ran.output, word) == Some(hosts),
            "`muster {}` does not say that {hosts} {word}: it ends with {} and says {:?} {:?}",
            arguments.join(" "),
            ran.code,
            last_line(&ran.output),
            last_line(&ran.errors)
        );
        Ok(ran)
    }

    /// Forgets what the program has learnt, and has the kernel forget the program.
    pub(super) fn forget(&self) -> Result<()> {
        let cache = self.operator.cache();
        if cache.exists() {
            std::fs::remove_dir_all(&cache).with_context(|| format!("remove `{}`", cache.display()))?;
        }
        let file = std::fs::File::open(&self.program)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).context("drop the program's pages")?;
        Ok(())
    }

    /// What the program `muster ping` of everybody costs for each reply.
    pub(super) async fn processor_a_reply(&self, plan: &Plan, outcome: &mut Outcome) -> Result<()> {
        let names = std::fs::read_to_string(&self.names)?;
        let one = names.lines().next().context("a fleet has a host")?;
        for round in 0..plan.warm_ups + plan.rounds {
            let start = self.run(&["ping", "-H", one], 1, ANSWERED).await?;
            let all = self.run(&["ping", "--all"], plan.hosts, ANSWERED).await?;
            if round < plan.warm_ups {
                continue;
            }
            outcome.add(Quantity::ProgramStartUs, start.processor_us);
            outcome.add(Quantity::ProgramUs, (all.processor_us - start.processor_us) / count(plan.hosts.max(2) - 1));
            outcome.add(Quantity::ProgramMs, all.exit_ms);
            add_bytes(outcome, Quantity::ProgramPeakBytes, all.peak_bytes);
        }
        Ok(())
    }

    /// What the program holds while everybody sends 64 KiB.
    pub(super) async fn memory_of_run(&self, plan: &Plan, outcome: &mut Outcome) -> Result<()> {
        let (bytes, names) = (format!("bytes={OUTPUT_BYTES}"), format!("@{}", self.names.display()));
        let ran = self.run(&["run", "fleet.talk", &bytes, "-H", &names], plan.hosts, SUCCEEDED).await?;
        outcome.add(Quantity::ProgramMs, ran.exit_ms);
        add_bytes(outcome, Quantity::ProgramPeakBytes, ran.peak_bytes);
        Ok(())
    }
}

/// What `muster ping` calls hosts that are there.
pub(super) const ANSWERED: &str = "answered";

/// What `muster run` calls hosts that did it.
const SUCCEEDED: &str = "succeeded";

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default()
}

/// The number in front of `word` in the line with the sums, which is the last that begins with one.
#[must_use]
pub fn answered(output: &str, word: &str) -> Option<usize> {
    output.lines().rev().find_map(|line| {
        let (number, rest) = line.trim_start_matches(['✓', ' ']).split_once(' ')?;
        let number = number.replace(',', "").parse().ok()?;
        rest.starts_with(word).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_the_program_are_read() {
        let ping = "HOST  STATE\na1    ✓ answered   16  0.1.0\n✓ 5 answered     median 13 ms · p99 16 ms\n";
        let cases = [
            (ping, "answered", Some(5)),
            ("✓ 10,000 answered     median 13 ms\n", "answered", Some(10_000)),
            ("    5 ✓ done\n10,000 succeeded · 50 ms     not stored\n", "succeeded", Some(10_000)),
            ("9 succeeded · 1 failed\n", "succeeded", Some(9)),
            ("nobody\n", "answered", None),
            ("", "answered", None),
        ];
        for (output, word, expected) in cases {
            assert_eq!(answered(output, word), expected, "{output}");
        }
    }
}
