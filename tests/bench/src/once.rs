//! Runs a program once and says what it cost.
//!
//! A process of our own does it (`muster-bench once`), which has no other children: so the kernel's account of ended
//! children is this program's account, and its peak of memory is not that of a benchmark with a fleet inside.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

/// Most bytes of what it wrote that are kept of each stream: the end, where the sums are.
const KEPT_BYTES: usize = 16 * 1024;

/// What a program did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Milliseconds from before it was started to the first byte on standard output; to its end where there was none.
    pub first_byte_ms: f64,
    /// Milliseconds from before it was started until it was gone.
    pub exit_ms: f64,
    /// Its processor time, in microseconds.
    pub processor_us: f64,
    /// Most memory that it held, in bytes.
    pub peak_bytes: u64,
    /// How much it wrote to standard output, in bytes.
    pub output_bytes: u64,
    /// The end of standard output.
    pub output: String,
    /// The end of standard error.
    pub errors: String,
}

/// Runs a program with its own arguments and this process's environment.
///
/// # Errors
/// It cannot be started.
pub fn run(program: &str, arguments: &[String]) -> Result<Ran> {
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{program}`"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut output, errors) = (stdout.context("standard output was asked for")?, stderr.context("so was the other")?);
    let reader = thread::spawn(move || Kept::read(errors, started));
    let output = Kept::read(&mut output, started)?;
    let errors = reader.join().map_err(|_| anyhow::anyhow!("reading standard error panicked"))??;
    let status = child.wait().context("wait for the program")?;
    let exit = started.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask what it cost")?;
    let processor = duration(usage.user_time()) + duration(usage.system_time());
    Ok(Ran {
        code: status.code().unwrap_or(-1),
        first_byte_ms: ms(output.first.unwrap_or(exit)),
        exit_ms: ms(exit),
        processor_us: processor.as_secs_f64() * 1e6,
        peak_bytes: u64::try_from(usage.max_rss()).unwrap_or_default() * 1024,
        output_bytes: output.bytes,
        output: output.text(),
        errors: errors.text(),
    })
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn duration(time: TimeVal) -> Duration {
    Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or_default())
}

/// The end of a stream, and when it began.
#[derive(Debug)]
struct Kept {
    first: Option<Duration>,
    bytes: u64,
    end: Vec<u8>,
}

impl Kept {
    fn read(mut stream: impl std::io::Read, started: Instant) -> Result<Self> {
        let mut kept = Self { first: None, bytes: 0, end: Vec::new() };
        let mut buffer = vec![0; KEPT_BYTES];
        loop {
            let read = stream.read(&mut buffer).context("read what the program writes")?;
            if read == 0 {
                return Ok(kept);
            }
            kept.first.get_or_insert_with(|| started.elapsed());
            kept.bytes += read as u64;
            kept.end.extend_from_slice(&buffer[..read]);
            let too_many = kept.end.len().saturating_sub(KEPT_BYTES);
            kept.end.drain(..too_many);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.end).into_owned()
    }
}

/// Has another process run a program, for at most `limit`.
///
/// # Errors
/// It cannot be started, or takes longer.
pub async fn elsewhere(own: &Path, command: &Command, limit: Duration) -> Result<Ran> {
    let mut outer = tokio::process::Command::new(own);
    outer.arg("once").arg("--").arg(command.get_program()).args(command.get_args());
    outer.env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    let what = || format!("run `{}`", command.get_program().display());
    let output = tokio::time::timeout(limit, outer.output()).await;
    let output = output.with_context(|| format!("{} within {} s", what(), limit.as_secs()))?.with_context(what)?;
    ensure!(output.status.success(), "{}: {}", what(), String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Ran {
        run("/bin/sh", &["-c".to_owned(), script.to_owned()]).unwrap()
    }

    #[test]
    fn code_output_and_cost_are_told() {
        let ran = shell("echo one; echo two >&2; exit 3");
        assert_eq!((ran.code, ran.output.as_str(), ran.errors.as_str(), ran.output_bytes), (3, "one\n", "two\n", 4));
        assert!(ran.first_byte_ms > 0.0 && ran.first_byte_ms <= ran.exit_ms);
        assert!(ran.processor_us > 0.0 && ran.peak_bytes > 100_000);
        assert_eq!(shell("kill -9 $$").code, -1);
    }

    #[test]
    fn of_much_output_the_end_is_kept_and_all_is_counted() {
        let ran = shell("i=0; while [ $i -lt 3000 ]; do echo 0123456789; i=$((i+1)); done; echo end");
        assert_eq!((ran.output_bytes, ran.output.len()), (33_004, KEPT_BYTES));
        assert!(ran.output.ends_with("\nend\n"));
    }
}
