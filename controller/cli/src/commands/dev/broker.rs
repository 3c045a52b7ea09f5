//! The broker of `muster dev`: the embedded one, in this process, or one that somebody else runs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use muster_broker::server::{Server, ServerError, Settings};
use muster_bus::BrokerUrl;
use muster_daemon::Tasks;
use muster_pki::{Credentials, Trust};
use muster_protocol::routing::VHOST_DEFAULT;

use super::certificates::{self, BROKER};
use super::place::{Held, Kept};
use crate::commands::pki;
use crate::output::{ExitCode, Failure};

/// What the broker may take to say goodbye to everybody.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A broker that agents and users can be sent to.
#[derive(Debug)]
pub(super) struct Broker {
    /// Its address, for configurations.
    pub(super) url: String,
    /// The tasks of the embedded one.
    tasks: Option<Tasks>,
}

impl Broker {
    /// Uses the one that was named, or starts the embedded one on the port that it had before, or on a free one.
    ///
    /// # Errors
    /// It cannot listen, or its files cannot be read.
    pub(super) fn start(named: Option<&BrokerUrl>, held: &mut Held) -> Result<Self, Failure> {
        if let Some(named) = named {
            return Ok(Self { url: named.to_string(), tasks: None });
        }
        let (tasks, port) = match embedded(held, held.kept.port) {
            // Somebody else has the port now. Everything that names it is written anew.
            Err(Unstarted::Taken(_)) if held.kept.port.is_some() => embedded(held, None),
            started => started,
        }
        .map_err(Failure::from)?;
        if held.kept.port != Some(port) {
            held.keep(Kept { port: Some(port), ..held.kept.clone() })?;
        }
        Ok(Self { url: format!("amqps://127.0.0.1:{port}/{VHOST_DEFAULT}"), tasks: Some(tasks) })
    }

    /// Whether it runs in this process.
    pub(super) fn is_embedded(&self) -> bool {
        self.tasks.is_some()
    }

    /// Waits until the embedded one has failed. Never ends with another one; safe to cancel.
    pub(super) async fn failed(&self) -> &'static str {
        match &self.tasks {
            Some(tasks) => {
                tasks.stopping().cancelled().await;
                tasks.failed().unwrap_or("broker")
            }
            None => std::future::pending().await,
        }
    }

    /// Stops the embedded one, after it has told everybody.
    pub(super) async fn stop(self) {
        if let Some(tasks) = self.tasks {
            tasks.shutdown(STOP_PATIENCE).await;
        }
    }
}

/// Why the embedded broker did not start.
enum Unstarted {
    /// The port is in use.
    Taken(ServerError),
    /// Anything else.
    Failed(Failure),
}

impl From<Unstarted> for Failure {
    fn from(unstarted: Unstarted) -> Self {
        match unstarted {
            Unstarted::Failed(failure) => failure,
            Unstarted::Taken(error) => {
                Failure::new(ExitCode::Unexpected, error.code(), "the embedded broker cannot be started")
                    .because(&error)
            }
        }
    }
}

fn embedded(held: &Held, port: Option<u16>) -> Result<(Tasks, u16), Unstarted> {
    let place = held.place();
    let own = certificates::files(place, BROKER).map_err(Unstarted::Failed)?;
    let (ca, crl) = certificates::trust(place);
    let unreadable = |error| Unstarted::Failed(pki::failure(error).hint(place.reset_command()));
    let credentials = Credentials::load(&own.certificate, &own.key).map_err(unreadable)?;
    let trust = Trust::load(&ca, Some(&crl)).map_err(unreadable)?;
    let mut settings = Settings::new(credentials, trust);
    settings.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)))];
    settings.files.crl = Some(crl);
    let tasks = Tasks::new();
    match Server::start(settings, &tasks) {
        Ok(server) => Ok((tasks, server.local_addr().port())),
        Err(error @ ServerError::Listen { .. }) if is_in_use(&error) => Err(Unstarted::Taken(error)),
        Err(error) => Err(Unstarted::Failed(
            Failure::new(ExitCode::Unexpected, error.code(), "the embedded broker cannot be started").because(&error),
        )),
    }
}

fn is_in_use(error: &ServerError) -> bool {
    // A port that the system gives to nobody any more is as good as taken.
    matches!(error, ServerError::Listen { source, .. }
        if matches!(source.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied))
}
