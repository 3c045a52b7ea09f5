//! What a benchmark runs on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use muster_tests::rabbit::Installation;

use crate::results::Machine;

/// Describes this machine.
///
/// # Errors
/// RabbitMQ is installed and does not tell its version, or the kernel does not tell what it should.
pub fn describe() -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read `{path}`"));
    let release = read("/proc/sys/kernel/osrelease")?;
    Ok(Machine {
        processors: std::thread::available_parallelism().context("count the processors")?.get(),
        processor: processor(&read("/proc/cpuinfo")?),
        memory_bytes: memory(&read("/proc/meminfo")?).context("/proc/meminfo has no MemTotal")?,
        kernel: format!("Linux {}", release.trim()),
        system: system(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        rabbitmq: Installation::find().ok().map(|installation| rabbitmq(&installation.control)).transpose()?,
        erlang: Installation::find().ok().map(|_| erlang()).transpose()?,
    })
}

/// The machine's load over one, five and fifteen minutes.
///
/// # Errors
/// The kernel does not tell.
pub fn load() -> Result<[f64; 3]> {
    let text = fs::read_to_string("/proc/loadavg").context("read `/proc/loadavg`")?;
    let loads: Vec<f64> = text.split_whitespace().take(3).filter_map(|word| word.parse().ok()).collect();
    loads.try_into().ok().context("/proc/loadavg has no three loads")
}

fn processor(cpuinfo: &str) -> String {
    let named = |name: &str| {
        cpuinfo
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim().to_owned()))
    };
    named("model name").or_else(|| named("Model")).unwrap_or_else(|| "unknown processor".to_owned())
}

fn memory(meminfo: &str) -> Option<u64> {
    let kilobytes = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(kilobytes.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn system(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "unknown system".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The version that RabbitMQ's own tool prints; it needs no running node for that.
fn rabbitmq(control: &Path) -> Result<String> {
    let home = tempfile::tempdir()?;
    let output = Command::new(control).arg("version").env("HOME", home.path()).output();
    let output = output.with_context(|| format!("start `{}`", control.display()))?;
    ensure!(output.status.success(), "`{} version` ends with {}", control.display(), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().last().unwrap_or_default().trim().to_owned())
}

fn erlang() -> Result<String> {
    let script = "io:format(\"~s\", [erlang:system_info(otp_release)]), halt().";
    let output = Command::new("erl").args(["-noshell", "-eval", script]).output().context("start `erl`")?;
    ensure!(output.status.success(), "`erl` ends with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_what_the_kernel_and_the_system_say() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: Fast 9000\nmodel name\t: Slow\n"), "Fast 9000");
        assert_eq!(processor(""), "unknown processor");
        assert_eq!(memory("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 * 1024 * 1024));
        assert_eq!(memory("MemFree: 1 kB\n"), None);
        assert_eq!(
            system("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(system(""), "unknown system");
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = describe().unwrap();
        assert!(machine.processors > 0 && machine.memory_bytes > 0);
        assert!(machine.rabbitmq.is_none_or(|version| version.contains('.')));
        assert!(machine.erlang.is_none_or(|release| !release.is_empty()));
        assert!(load().unwrap().iter().all(|load| *load >= 0.0));
    }
}
