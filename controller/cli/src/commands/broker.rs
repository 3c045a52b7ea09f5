//! `muster broker`: what RabbitMQ needs, and whether a running one has it; and the embedded broker, run and asked.

mod check;
mod config;
mod control;
mod documents;
mod operate;
mod run;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use muster_broker_config::{Role, Sites, SitesError};
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
        muster broker config --identity host/web1 --identity user/lea --out ./broker\n  \
        muster broker config --ca-dir /etc/muster/ca --sites sites.toml --out ./brokers\n  \
        muster broker config --ca-dir /etc/muster/ca --sites sites.toml --broker ams1 --out ./ams1 --import")]
    Config(config::ConfigArguments),
    /// Say what is missing or too open on a running broker.
    #[command(before_help = "Examples:\n  \
        muster broker check --ca-dir /etc/muster/ca\n  \
        muster broker check --ca-dir /etc/muster/ca --node rabbit@mq1 --json\n  \
        muster broker check --ca-dir /etc/muster/ca --sites sites.toml --broker ams1\n  \
        rabbitmqctl export_definitions - | muster broker check --definitions - --ca-dir /etc/muster/ca")]
    Check(check::CheckArguments),
    /// Run the embedded broker: AMQP over mutual TLS for one machine, in this program.
    #[command(before_help = "Examples:\n  \
        muster broker run\n  \
        muster broker run --config ./broker.toml --check\n  \
        muster broker run --config ./broker.toml --listen 127.0.0.1:5671")]
    Run(run::RunArguments),
    /// Say how the embedded broker on this machine is.
    #[command(before_help = "Examples:\n  \
        muster broker status\n  \
        muster broker status --list queues\n  \
        muster broker status --json")]
    Status(operate::StatusArguments),
    /// Have the embedded broker read its configuration and certificates again.
    #[command(before_help = "Examples:\n  \
        muster broker reload\n  \
        muster broker reload --config ./broker.toml")]
    Reload(operate::ReloadArguments),
    /// Close connections to the embedded broker.
    #[command(before_help = "Examples:\n  \
        muster broker close --identity host/web1\n  \
        muster broker close --all --reason \"moving to another machine\"")]
    Close(operate::CloseArguments),
    /// Delete a queue of the embedded broker with what is in it.
    #[command(before_help = "Examples:\n  \
        muster broker delete-queue agent.web1\n  \
        muster broker delete-queue agent.web1 --config ./broker.toml")]
    DeleteQueue(operate::QueueArguments),
    /// Remove what waits in a queue of the embedded broker.
    #[command(before_help = "Examples:\n  \
        muster broker purge-queue agent.web1\n  \
        muster broker purge-queue agent.web1 --config ./broker.toml")]
    PurgeQueue(operate::QueueArguments),
}

/// Runs a verb of `broker`.
pub(crate) fn run(command: &BrokerCommand, printer: &Printer) -> Result<ExitCode, Failure> {
    match command {
        BrokerCommand::Config(arguments) => config::run(arguments, printer),
        BrokerCommand::Check(arguments) => check::run(arguments, printer),
        BrokerCommand::Run(arguments) => run::run(arguments, printer),
        BrokerCommand::Status(arguments) => operate::status(arguments, printer),
        BrokerCommand::Reload(arguments) => operate::reload(arguments, printer),
        BrokerCommand::Close(arguments) => operate::close(arguments, printer),
        BrokerCommand::DeleteQueue(arguments) => operate::delete_queue(arguments, printer),
        BrokerCommand::PurgeQueue(arguments) => operate::purge_queue(arguments, printer),
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
    /// Several brokers: the description of the central one and of those of sites.
    #[arg(long, value_name = "FILE")]
    sites: Option<PathBuf>,
    /// With --sites: this broker only, `center` or the name of a site.
    #[arg(long, value_name = "NAME", requires = "sites")]
    broker: Option<String>,
}

impl Members {
    /// What each broker that is meant is among the others: one, or all of the description with their names.
    fn roles(&self) -> Result<Vec<(Option<String>, Role)>, Failure> {
        let Some(file) = &self.sites else { return Ok(vec![(None, Role::Alone)]) };
        let text = std::fs::read_to_string(file).map_err(|error| Failure::file("read", file, &error))?;
        let failure = |error| unusable_sites(file, &error);
        let sites = Sites::parse(&text).map_err(failure)?;
        match &self.broker {
            Some(name) => Ok(vec![(None, sites.role(name).map_err(failure)?)]),
            None => sites.names().map(|name| Ok((Some(name.to_owned()), sites.role(name).map_err(failure)?))).collect(),
        }
    }

    /// The role of the only broker that is meant.
    fn role(&self) -> Result<Role, Failure> {
        let mut roles = self.roles()?;
        match (roles.pop(), roles.is_empty()) {
            (Some((_, role)), true) => Ok(role),
            _ => Err(Failure::usage("the description has several brokers, and this is about one")
                .hint("--broker center, or --broker with the name of a site")),
        }
    }

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

fn unusable_sites(file: &Path, error: &SitesError) -> Failure {
    Failure::new(ExitCode::Usage, error.code(), format!("the sites of {} cannot be used", file.display()))
        .because(error)
        .hint("docs/book/src/sites.md has an example")
}

/// A virtual host's name goes into URLs, file names and commands of ours.
fn vhost(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if text.is_empty() || text.len() > 63 || !text.chars().all(plain) {
        return Err("a virtual host has 1 to 63 characters of a-z, A-Z, 0-9, -, _, . and /".to_owned());
    }
    Ok(text.to_owned())
}
