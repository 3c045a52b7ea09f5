//! `muster broker run`: the embedded broker, until somebody stops it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueHint};
use muster_broker::config::{self, Config, Places, Raw};
use muster_broker::control::{ControlSocket, Request};
use muster_broker::server::status::MembersStatus;
use muster_broker::server::{Server, ServerError, Settings};
use muster_daemon::config::{ConfigError, Loaded, Sources};
use muster_daemon::service_manager::{self, Notices};
use muster_daemon::signals::{Request as Signal, Signals};
use muster_daemon::{Disk as _, RealDisk, SystemClock, Tasks, logging};
use muster_pki::PkiError;
use muster_pki::time_text::utc;
use muster_protocol::OutputStream;

use crate::output::{ExitCode, Failure, Printer, Text, word};

/// How long the end may take: farewells, and the last write of the journal.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Which configuration a broker has.
#[derive(Debug, Args)]
pub(super) struct File {
    /// The broker's configuration file. Without it /etc/muster/broker.toml, or ~/.config/muster/broker.toml for an
    /// ordinary user.
    #[arg(long, value_name = "FILE", env = "MUSTER_BROKER_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

/// Arguments of `broker run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    file: File,
    /// Listen here and not where the file says; may be repeated.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Check the configuration and everything that it names, and end.
    #[arg(long)]
    check: bool,
    /// Print the configuration in force with the origin of each value, and end.
    #[arg(long, conflicts_with = "check")]
    print_config: bool,
}

impl File {
    /// Where it is, and whether somebody has named it.
    fn path(&self, places: &Places) -> (PathBuf, bool) {
        self.config.clone().map_or_else(|| (places.file(), false), |path| (path, true))
    }

    /// Where the broker that was started with it can be asked. It may be another user's, where root asks, and what is wrong
    /// in it by now does not matter to what runs.
    pub(super) fn reach(&self) -> Result<PathBuf, Failure> {
        let places = Places::of_process();
        let (path, is_named) = self.path(&places);
        let reach = |sources| Config::reach(sources, &places);
        reach(config::sources(&path, is_named, std::env::vars()))
            // A drop-in may be what cannot be read.
            .or_else(|error| reach(Sources::new().file(&path)).map_err(|_| error))
            .map_err(|error| match &error {
                ConfigError::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    let what = "you may not read the configuration of this broker, and so not ask it";
                    Failure::new(ExitCode::IdentityRejected, "broker-not-yours", what)
                        .why("file", path.display().to_string())
                        .why("why", "only root and the user that the broker runs as are answered")
                        .hint(format!("sudo {}", self.command("status")))
                }
                _ => unusable(&path, &error)
                    .why("note", "it says where the broker is asked; a broker that runs goes on")
                    .hint(format!("muster explain {}", error.code())),
            })
    }

    /// Whether somebody has named it.
    pub(super) fn is_named(&self) -> bool {
        self.config.is_some()
    }

    /// A command of `muster broker` about the same broker, as it can be typed.
    pub(super) fn command(&self, words: &str) -> String {
        match &self.config {
            Some(config) => format!("muster broker {words} --config {}", word(&config.display().to_string())),
            None => format!("muster broker {words}"),
        }
    }

    /// Reads it.
    pub(super) fn load(&self) -> Result<(Loaded<Raw>, Config), Failure> {
        let places = Places::of_process();
        let (path, is_named) = self.path(&places);
        // The process reads it again from another directory.
        let path = std::path::absolute(&path).unwrap_or(path);
        let sources = config::sources(&path, is_named, std::env::vars());
        Config::load(sources, &places).map_err(|error| {
            unusable(&path, &error)
                .hint(format!("{}  # once it is right", self.command("run --check")))
                .hint(format!("muster explain {}", error.code()))
        })
    }
}

/// Runs the broker, or looks at its configuration.
pub(super) fn run(arguments: &RunArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    let (loaded, config) = arguments.file.load()?;
    let config = config.listening(&arguments.listen);
    if arguments.print_config {
        let text = config
            .effective(loaded)
            .print(&[])
            .map_err(|error| Failure::unexpected("cannot print the configuration", &error))?;
        printer.verbatim(&text);
        return Ok(ExitCode::Success);
    }
    if arguments.check {
        let settings = config.settings(Arc::new(SystemClock)).map_err(|error| failure(&error, &config))?;
        let until = settings.credentials.not_after();
        Server::check(&settings).map_err(|error| failure(&error, &config))?;
        printer.line(format!(
            "good: {}, certificate valid until {}, state in {}",
            settings.credentials.identity().short(),
            utc(until),
            config.state_dir().display()
        ));
        if let Some(words) = list_missing(&settings) {
            printer.warning(words);
        }
        return Ok(ExitCode::Success);
    }
    logging::init(&config.log()).map_err(|error| Failure::unexpected("cannot start logging", &error))?;
    muster_daemon::return_large_blocks();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::unexpected("the asynchronous runtime cannot be started", &error))?;
    let code = runtime.block_on(serve(&arguments.file, &arguments.listen, &config, printer));
    // A thread that hangs on a dead disk must not hold up the end.
    runtime.shutdown_background();
    code
}

/// What to say of a revocation list that is not where it is read from. One that is there and broken is an error before.
fn list_missing(settings: &Settings) -> Option<String> {
    let path = settings.files.crl.as_ref().filter(|path| !path.exists())?;
    let lists: Vec<String> = settings.trust.crl_info().iter().map(|list| list.number.to_string()).collect();
    let holds = match &lists[..] {
        [] => "none is in force: a certificate that was stolen is still believed".to_owned(),
        lists => format!("list {}, which was in force before, holds", lists.join(", ")),
    };
    Some(format!("the revocation list `{}` is not there; {holds}; copy the CA's `crl.pem` to it", path.display()))
}

async fn serve(file: &File, listen: &[SocketAddr], config: &Config, printer: &Printer) -> Result<ExitCode, Failure> {
    let mut signals = Signals::install().map_err(|error| Failure::unexpected("cannot listen for signals", &error))?;
    prepare(config.state_dir())?;
    let settings = config.settings(Arc::new(SystemClock)).map_err(|error| failure(&error, config))?;
    let authorities = settings.trust.authorities();
    let ca: Vec<&str> = authorities.iter().filter_map(|it| it.fingerprint().get(..16)).collect();
    let tasks = Tasks::new();
    let server = Server::start(settings, &tasks).map_err(|error| failure(&error, config))?;
    let runtime = tokio::runtime::Handle::current();
    let reload = {
        let (config, listen) = (file.config.clone(), listen.to_vec());
        move || -> Result<Settings, ServerError> {
            let (_, config) = File { config: config.clone() }.load().map_err(|failure| unread(&failure))?;
            config.listening(&listen).settings(Arc::new(SystemClock))
        }
    };
    let _control = ControlSocket::serve(config.control(), {
        let (server, reload) = (server.clone(), reload.clone());
        move |request| {
            // What is woken belongs to the runtime.
            let _inside = runtime.enter();
            server.obey(request, &reload)
        }
    })
    .map_err(|error| Failure::new(ExitCode::Usage, error.code(), "the broker cannot be asked").because(&error))?;
    announce(&server, &ca, config, printer);
    let mut notices = Notices::of_process();
    notices.say("READY=1\n");
    let stopping = tasks.stopping().clone();
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::Stop => break,
                Signal::EndNow => return Ok(ExitCode::Interrupted),
                Signal::Reload => {
                    service_manager::tell("RELOADING=1\n");
                    drop(server.obey(Request::Reload, &reload));
                    notices.say("READY=1\n");
                }
            },
            () = notices.again() => {}
            // A part without which there is no broker has failed.
            () = stopping.cancelled() => break,
        }
    }
    service_manager::tell("STOPPING=1\n");
    tracing::info!("Stopping");
    let late = tokio::select! {
        biased;
        late = tasks.shutdown(STOP_LIMIT) => late,
        () = ended_at_once(&mut signals) => return Ok(ExitCode::Interrupted),
    };
    match tasks.failed() {
        Some(task) => {
            Err(Failure::new(ExitCode::Unexpected, "unexpected", format!("the broker's task `{task}` failed")))
        }
        None if late.is_empty() => Ok(ExitCode::Success),
        None => Ok(ExitCode::Interrupted),
    }
}

async fn ended_at_once(signals: &mut Signals) {
    while signals.next().await != Signal::EndNow {}
}

/// Makes the directory of state, which nobody else may enter.
fn prepare(directory: &Path) -> Result<(), Failure> {
    let unusable = |error: std::io::Error| {
        Failure::new(ExitCode::Usage, "file", format!("the state directory `{}` cannot be used", directory.display()))
            .because(&error)
            .hint("muster broker run --print-config")
    };
    if directory.symlink_metadata().is_ok() {
        muster_daemon::trusted::check_trusted(directory).map_err(unusable)?;
    }
    RealDisk.make_private_directory(directory).map_err(unusable)?;
    muster_daemon::trusted::check_trusted(directory).map_err(unusable)
}

/// Says where it listens and whom it believes.
fn announce(server: &Server, ca: &[&str], config: &Config, printer: &Printer) {
    let status = server.status(false);
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    let members = match status.members {
        MembersStatus::Issued => "everybody with a valid certificate".to_owned(),
        MembersStatus::Listed { count } => format!("{count} identities of a list"),
    };
    let lists: Vec<String> = status
        .revocation_lists
        .iter()
        .map(|list| format!("revocation list {} ({} revoked)", list.number, list.revoked))
        .collect();
    let lists = if lists.is_empty() { "no revocation list".to_owned() } else { lists.join(", ") };
    // Flushed at once: the next line may be weeks away.
    printer.output(
        OutputStream::Stdout,
        [
            format!("{} listens at {}, virtual host {}", status.identity, listen.join(", "), status.virtual_host),
            format!("trusts CA {} with {lists}; lets in {members}", ca.join(", ")),
            format!("state in {}, control socket {}", config.state_dir().display(), config.control().display()),
            format!("certificate valid until {}", utc(status.certificate_not_after_ms)),
        ]
        .map(Text::from),
    );
    if config::is_root() {
        tracing::warn!("The broker runs as root and needs nothing of root's: give it a user of its own");
    }
    tracing::info!(identity = status.identity, listen = listen.join(", "), "The broker listens");
}

pub(super) fn unusable(path: &Path, error: &ConfigError) -> Failure {
    let failure = Failure::new(ExitCode::Usage, error.code(), "the broker's configuration cannot be used");
    match error {
        ConfigError::Invalid { problems } => {
            problems.iter().fold(failure, |failure, problem| failure.why("wrong", problem.to_string()))
        }
        other => failure.why("file", path.display().to_string()).because(other),
    }
}

fn failure(error: &ServerError, config: &Config) -> Failure {
    let mut failure = Failure::new(ExitCode::Usage, error.code(), "the broker does not start").because(error);
    if let ServerError::Pki(error) = error {
        if matches!(error, PkiError::ForeignServer { .. } | PkiError::NotServing { .. }) {
            failure = failure.why("cert", config.certificate().display().to_string());
        }
        if matches!(error, PkiError::ForeignServer { .. } | PkiError::ForeignCrl { .. }) {
            failure = failure.why("ca", config.ca().display().to_string());
        }
        for remedy in error.remedies() {
            failure = failure.hint(remedy);
        }
    }
    failure.hint(format!("muster explain {}", error.code()))
}

/// A failure to read the configuration again, for the log and whoever has asked.
fn unread(failure: &Failure) -> ServerError {
    let why: Vec<&str> = failure.why.iter().map(|(_, why)| why.as_str()).collect();
    ServerError::Configuration { why: why.join("\n") }
}

#[cfg(test)]
mod tests {
    use muster_pki::testing::TestAuthority;
    use muster_protocol::Timestamp;

    use super::*;

    #[test]
    fn a_list_that_is_not_there_is_said_by_the_check() {
        muster_pki::tls::install_crypto_provider();
        let now = Timestamp(1_700_000_000_000);
        let authority = TestAuthority::new(now).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let crl = directory.path().join("crl.pem");
        let trust = muster_pki::Trust::from_pem(&authority.ca_pem()).unwrap();
        let mut settings = Settings::new(authority.broker("broker/mq1").unwrap(), trust);
        assert_eq!(list_missing(&settings), None, "no file is watched");
        settings.files.crl = Some(crl.clone());
        let none = list_missing(&settings).unwrap();
        assert!(none.contains("none is in force") && none.contains(crl.to_str().unwrap()), "{none}");
        let list = authority.crl_pem().unwrap();
        settings.trust.install_crl(list.as_bytes(), now).unwrap();
        let kept = list_missing(&settings).unwrap();
        assert!(kept.contains("which was in force before, holds"), "{kept}");
        std::fs::write(&crl, list).unwrap();
        assert_eq!(list_missing(&settings), None);
    }
}
