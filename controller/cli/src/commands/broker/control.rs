//! Runs `rabbitmqctl`, which has to be on the broker's machine.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::output::{ExitCode, Failure};

/// Seconds that `rabbitmqctl` waits for the broker. An import takes 4 s for 1,000 hosts on two cores.
const TIMEOUT_S: u32 = 600;

/// Which broker, through which program.
#[derive(Debug, Args)]
pub(super) struct Control {
    /// Erlang name of the broker's node, as in rabbit@mq1; without it the local one.
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
    /// RabbitMQ's control program.
    #[arg(long, value_name = "PROGRAM", default_value = "rabbitmqctl")]
    pub(super) rabbitmqctl: PathBuf,
}

impl Control {
    /// Runs one command with `input` on its standard input, and gives its standard output.
    pub(super) fn run(&self, arguments: &[&str], input: &str) -> Result<String, Failure> {
        let mut command = Command::new(self.program());
        command.args(["-q", "--timeout", &TIMEOUT_S.to_string()]);
        if let Some(node) = &self.node {
            command.args(["-n", node]);
        }
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.spawn().and_then(|mut child| {
            let mut pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            // The definitions fit into no pipe, but rabbitmqctl reads all of them before it writes anything.
            match pipe.write_all(input.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => drop(pipe),
            }
            child.wait_with_output()
        });
        let what = format!("`{} {}` did not work", self.rabbitmqctl.display(), arguments.join(" "));
        let failure = Failure::new(ExitCode::Unreachable, "rabbitmqctl", what);
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                return Err(failure
                    .because(&error)
                    .hint("run it on the broker's machine, as root or as the user rabbitmq")
                    .hint("rabbitmqctl export_definitions - | muster broker check --definitions -"));
            }
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = if said.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { said };
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(8).collect();
        Err(failure
            .why("ended", output.status.to_string())
            .why("said", lines.join("\n"))
            .hint("run it on the broker's machine, as root or as the user rabbitmq")
            .hint("rabbitmqctl status"))
    }

    /// Debian keeps RabbitMQ's programs in a folder that is not on every user's search path.
    fn program(&self) -> PathBuf {
        let usual = Path::new("/usr/sbin").join(&self.rabbitmqctl);
        let named = self.rabbitmqctl.components().count() == 1;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).any(|folder| folder.join(&self.rabbitmqctl).is_file());
        if named && !on_path && usual.is_file() { usual } else { self.rabbitmqctl.clone() }
    }
}
