//! `muster broker config|check`: what RabbitMQ needs, and whether a running one has it.

mod check;
mod config;
mod control;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use muster_daemon::{Clock as _, SystemClock};
use muster_pki::Authority;
use muster_pki::authority::RecordState;
use muster_protocol::routing::VHOST_DEFAULT;
use muster_protocol::{Identity, Timestamp};

use crate::output::{ExitCode, Failure, Printer};

/// Verbs of `broker`.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Write rabbitmq.conf, definitions, plugin list and a README for a broker.
    #[command(before_help = "Examples:\n  \
        muster broker config --ca-dir /etc/muster/ca --out ./broker\n  \
        muster broker config --ca-dir /etc/muster/ca --out ./broker --import\n  \
        muster broker config --identity host/web1 --identity user/lea --out ./broker")]
    Config(config::ConfigArguments),
    /// Say what is missing or too open on a running broker.
    #[command(before_help = "Examples:\n  \
        muster broker check --ca-dir /etc/muster/ca\n  \
        muster broker check --ca-dir /etc/muster/ca --node rabbit@mq1 --json\n  \
        rabbitmqctl export_definitions - | muster broker check --definitions - --ca-dir /etc/muster/ca")]
    Check(check::CheckArguments),
}

/// Runs a verb of `broker`.
pub(crate) fn run(command: &BrokerCommand, printer: &Printer) -> Result<ExitCode, Failure> {
    match command {
        BrokerCommand::Config(arguments) => config::run(arguments, printer),
        BrokerCommand::Check(arguments) => check::run(arguments, printer),
    }
}

/// Who is meant to log in, and where.
#[derive(Debug, Args)]
struct Members {
    /// CA directory: every valid certificate in it may log in.
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Somebody who may log in, host/NAME, user/NAME or service/NAME; may be repeated.
    #[arg(long, value_name = "KIND/NAME", value_delimiter = ',')]
    identity: Vec<Identity>,
    /// Virtual host.
    #[arg(long, value_name = "NAME", default_value = VHOST_DEFAULT, value_parser = vhost)]
    vhost: String,
}

impl Members {
    /// The identities asked for, and those with a certificate that is in force.
    fn identities(&self) -> Result<BTreeSet<Identity>, Failure> {
        let mut identities: BTreeSet<Identity> = self.identity.iter().cloned().collect();
        if let Some(directory) = &self.ca_dir {
            let now = Timestamp(SystemClock.now_ms());
            let authority = Authority::open(directory, now).map_err(super::pki::failure)?;
            let valid = authority.list().iter().filter(|record| record.state(now) == RecordState::Valid);
            identities.extend(valid.map(|record| record.identity.clone()));
        }
        Ok(identities)
    }
}

/// A virtual host's name goes into URLs, file names and commands of ours.
fn vhost(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if text.is_empty() || text.len() > 63 || !text.chars().all(plain) {
        return Err("a virtual host has 1 to 63 characters of a-z, A-Z, 0-9, -, _, . and /".to_owned());
    }
    Ok(text.to_owned())
}
