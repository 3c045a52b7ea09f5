//! The broker of `muster dev`: the embedded one, in this process, or one that somebody else runs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_broker::config::{self, Config, Places};
use muster_broker::control::ControlSocket;
use muster_broker::server::{Server, ServerError};
use muster_bus::BrokerUrl;
use muster_daemon::config::ConfigError;
use muster_daemon::{SystemClock, Tasks};
use muster_protocol::routing::VHOST_DEFAULT;

use super::certificates::{self, BROKER};
use super::place::{Held, Kept, Place, make, write};
use crate::output::{ExitCode, Failure};

/// What the broker may take to say goodbye to everybody.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A broker that agents and users can be sent to.
#[derive(Debug)]
pub(super) struct Broker {
    /// Its address, for configurations.
    pub(super) url: String,
    embedded: Option<Embedded>,
}

/// The broker in this process.
#[derive(Debug)]
struct Embedded {
    tasks: Tasks,
    /// Answers `muster broker status` as long as it is there.
    _control: ControlSocket,
}

impl Broker {
    /// Uses the one that was named, or starts the embedded one on the port that it had before, or on a free one.
    ///
    /// # Errors
    /// It cannot listen, or its files cannot be read.
    pub(super) fn start(named: Option<&BrokerUrl>, held: &mut Held) -> Result<Self, Failure> {
        if let Some(named) = named {
            return Ok(Self { url: named.to_string(), embedded: None });
        }
        let (embedded, port) = match embedded(held, held.kept.port) {
            // Somebody else has the port now. Everything that names it is written anew.
            Err(Unstarted::Taken(_)) if held.kept.port.is_some() => embedded(held, None),
            started => started,
        }
        .map_err(Failure::from)?;
        if held.kept.port != Some(port) {
            held.keep(Kept { port: Some(port), ..held.kept.clone() })?;
        }
        Ok(Self { url: format!("amqps://127.0.0.1:{port}/{VHOST_DEFAULT}"), embedded: Some(embedded) })
    }

    /// Whether it runs in this process.
    pub(super) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Waits until the embedded one has failed. Never ends with another one; safe to cancel.
    pub(super) async fn failed(&self) -> &'static str {
        match &self.embedded {
            Some(Embedded { tasks, .. }) => {
                tasks.stopping().cancelled().await;
                tasks.failed().unwrap_or("broker")
            }
            None => std::future::pending().await,
        }
    }

    /// Stops the embedded one, after it has told everybody.
    pub(super) async fn stop(self) {
        if let Some(embedded) = self.embedded {
            embedded.tasks.shutdown(STOP_PATIENCE).await;
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

fn failed(code: &'static str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(ExitCode::Unexpected, code, "the embedded broker cannot be started").because(error)
}

/// The configuration file of the embedded broker, which `muster broker` takes too.
pub(super) fn file(place: &Place) -> PathBuf {
    place.broker().join("broker.toml")
}

fn configuration(place: &Place, port: u16) -> Result<String, Failure> {
    let text = |path: PathBuf| toml::Value::String(path.display().to_string()).to_string();
    let own = certificates::files(place, BROKER)?;
    let (ca, crl) = certificates::trust(place);
    Ok(format!(
        "# Written by `muster dev` at each start. Changes of yours belong into broker.d/, in files that end with .toml.\n\n\
         listen = [\"127.0.0.1:{port}\"]\nstate_dir = {state}\n\n\
         [pki]\nca = {ca}\ncrl = {crl}\ncertificate = {certificate}\nkey = {key}\n",
        state = text(place.broker().join("state")),
        ca = text(ca),
        crl = text(crl),
        certificate = text(own.certificate),
        key = text(own.key),
    ))
}

fn embedded(held: &Held, port: Option<u16>) -> Result<(Embedded, u16), Unstarted> {
    let place = held.place();
    for directory in ["broker.d", "state"] {
        make(&place.broker().join(directory)).map_err(Unstarted::Failed)?;
    }
    let path = file(place);
    let text = configuration(place, port.unwrap_or(0)).map_err(Unstarted::Failed)?;
    write(&path, &text).map_err(Unstarted::Failed)?;
    // Without variables: they are meant for another broker.
    let read = move || {
        let sources = config::sources(&path, true, []);
        Config::load(sources, &Places::of_process()).map(|(_, config)| config)
    };
    let config = read().map_err(|error| Unstarted::Failed(failed(error.code(), &error)))?;
    let unusable = |error: ServerError| Unstarted::Failed(failed(error.code(), &error).hint(place.reset_command()));
    let settings = config.settings(Arc::new(SystemClock)).map_err(unusable)?;
    let tasks = Tasks::new();
    let server = Server::start(settings, &tasks).map_err(|error| match is_in_use(&error) {
        true => Unstarted::Taken(error),
        false => unusable(error),
    })?;
    let port = server.local_addr().port();
    // Now that it is known, for whoever reads the file.
    let text = configuration(place, port).map_err(Unstarted::Failed)?;
    write(&file(place), &text).map_err(Unstarted::Failed)?;
    let runtime = tokio::runtime::Handle::current();
    let control = ControlSocket::serve(config.control(), move |request| {
        // What is woken belongs to the runtime.
        let _inside = runtime.enter();
        let reload = || match read() {
            Ok(config) => config.settings(Arc::new(SystemClock)),
            Err(ConfigError::Invalid { problems }) => {
                let why: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Err(ServerError::Configuration { why: why.join("\n") })
            }
            Err(error) => Err(ServerError::Configuration { why: with_causes(&error) }),
        };
        server.obey(request, reload)
    });
    let control = control.map_err(|error| Unstarted::Failed(failed(error.code(), &error)))?;
    Ok((Embedded { tasks, _control: control }, port))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

fn is_in_use(error: &ServerError) -> bool {
    // A port that the system gives to nobody any more is as good as taken.
    matches!(error, ServerError::Listen { source, .. }
        if matches!(source.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied))
}
