//! `muster pki publish`: hands a revocation list to every agent over the bus.
//!
//! The list needs no signature of the sender: the authority has signed it, agents check that, and take none
//! that is older than the one they have. So whoever may publish commands may carry it, and nobody can forge it.

use std::path::PathBuf;

use clap::Args;
use muster_bus::{Bus as _, Guarantee, Outgoing};
use muster_client::ClientError;
use muster_protocol::envelope::CONTENT_TYPE_CRL;
use muster_protocol::routing;

use super::answer::{CrlView, Shown};
use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure};
use crate::session::{Login, client_failure};

/// How long the broker keeps the list for agents that are away, in milliseconds: as long as it keeps an
/// agent's queue.
const KEPT_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Args)]
pub(super) struct PublishArguments {
    /// The list, PEM or DER, as `muster pki revoke` and `muster pki crl` write it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn run(arguments: &PublishArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let path = &arguments.file;
    let list = std::fs::read(path).map_err(|error| {
        Failure::new(ExitCode::Usage, "file", format!("`{}` cannot be read", path.display()))
            .why("why", error.to_string())
            .hint("muster pki crl --out crl.pem")
    })?;
    let context = invocation.context()?;
    let now = invocation.now();
    let login = Login::load(&context, now)?;
    // What agents would not take is not sent.
    let status = login.trust.install_crl(&list, now).map_err(super::failure)?;
    let asked = |error: ClientError| client_failure(&error, &context);
    let link = login.bus(&context).connect().await.map_err(|error| asked(ClientError::Bus(error)))?;
    let message = Outgoing {
        exchange: routing::EXCHANGE_COMMAND,
        routing_key: routing::KEY_ALL.to_owned(),
        content_type: CONTENT_TYPE_CRL.to_owned(),
        body: list.into(),
        signatures: Vec::new().into(),
        expiration_ms: Some(KEPT_MS),
        persistent: true,
        mandatory: true,
        correlation_id: None,
    };
    let sent = link.publish(message, Guarantee::Confirmed).await;
    link.close().await;
    sent.map_err(|error| asked(ClientError::from(error)))?;
    Shown::crl("publish", CrlView::new(&status.info, now), Some(path.clone())).print(&invocation.printer);
    invocation
        .printer
        .note("the broker has it for every agent; those that are away get it within a day, later ones from their file");
    Ok(ExitCode::Success)
}
