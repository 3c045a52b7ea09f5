//! `muster dev --check`: asks what a newcomer would ask, compares, and ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::hosts::Host;
use crate::output::{ExitCode, Failure, Printer, word};

/// How long one command may take on a machine that is busy with everything else.
const PATIENCE: Duration = Duration::from_secs(120);

/// One command with what it has to say.
struct Step {
    words: Vec<&'static str>,
    /// Lines of standard output, in any order.
    lines: BTreeSet<String>,
    code: i32,
}

/// Runs every step with the real program, over the real broker.
///
/// # Errors
/// The first step that says something else than it should.
pub(super) async fn run(program: &Path, config: &Path, hosts: &[Host], printer: &Printer) -> Result<(), Failure> {
    for step in steps(hosts) {
        let found = ask(program, config, &step.words).await?;
        let said = format!("muster {}", step.words.iter().map(|it| word(it)).collect::<Vec<_>>().join(" "));
        if found.code != Some(step.code) || found.lines != step.lines {
            let show = |lines: &BTreeSet<String>| lines.iter().cloned().collect::<Vec<_>>().join(", ");
            return Err(Failure::new(ExitCode::Unexpected, "dev-check", format!("`{said}` did not do what it should"))
                .why("expected", format!("exit code {}: {}", step.code, show(&step.lines)))
                .why("found", format!("exit code {}: {}", found.code.unwrap_or(-1), show(&found.lines)))
                .why("said", found.errors.trim().to_owned())
                .hint("muster dev  # then the command by hand"));
        }
        printer.note(format!("{} {said}", printer.glyph("✓", "+")));
    }
    Ok(())
}

fn steps(hosts: &[Host]) -> Vec<Step> {
    let names = |which: &dyn Fn(&&Host) -> bool| hosts.iter().filter(which).map(|host| host.name.to_string()).collect();
    let everybody = names(&|_| true);
    let web: BTreeSet<String> = names(&|host| host.role == "web");
    let databases = hosts.iter().any(|host| host.role == "db");
    let mut steps = vec![
        Step { words: vec!["ping", "--all", "--names"], lines: everybody, code: 0 },
        Step { words: vec!["find", "-t", "role = web", "--names"], lines: web.clone(), code: 0 },
        Step {
            words: vec!["run", "shell.run", "command=test $((6 * 7)) = 42", "-t", "role = web", "--names"],
            lines: web,
            code: 0,
        },
    ];
    if databases {
        // The policy of a database wants a second signature.
        let words = vec!["run", "shell.run", "command=true", "-t", "role = db", "--names"];
        steps.push(Step { words, lines: names(&|host| host.role == "db"), code: 6 });
    }
    steps
}

/// What came of a command.
struct Found {
    code: Option<i32>,
    lines: BTreeSet<String>,
    errors: String,
}

async fn ask(program: &Path, config: &Path, words: &[&str]) -> Result<Found, Failure> {
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(words).stdin(Stdio::null()).kill_on_drop(true);
    // They would win over the file.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MUSTER_")) {
        command.env_remove(name);
    }
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::unexpected(format!("`{}` cannot be run", program.display()), error)
    };
    let output = tokio::time::timeout(PATIENCE, command.output()).await.map_err(|late| failed(&late))?;
    let output = output.map_err(|error| failed(&error))?;
    Ok(Found {
        code: output.status.code(),
        lines: String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// This program, also after the file was replaced by a newer one.
pub(super) fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("muster"))
}
