//! `musterd audit`: is the log whole, and what stands in it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use muster_agent::audit;

use super::{Files, complain, print};

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no line was changed, removed or put in between.
    Verify {
        /// The log [default: the one of the configuration].
        file: Option<PathBuf>,
    },
}

pub(crate) fn run(command: &AuditCommand, files: &Files) -> ExitCode {
    let AuditCommand::Verify { file } = command;
    match verify(files, file.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error, files);
            ExitCode::FAILURE
        }
    }
}

fn verify(files: &Files, file: Option<&Path>) -> anyhow::Result<()> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => files.load()?.1.audit_file().to_owned(),
    };
    let verified = audit::verify(&path)?;
    let torn = match verified.torn_bytes {
        0 => String::new(),
        bytes => format!("\n{bytes} bytes of an unfinished line follow"),
    };
    print(&format!("{} lines, all in order\nlast hash {}{torn}\n", verified.lines, verified.last_hash))
}
