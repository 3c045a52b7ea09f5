//! From a configuration to an agent that runs, and its signals.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use muster_agent::config::{self, Config};
use muster_agent::detached::{Order, Runner};
use muster_agent::facts::Sources;
use muster_agent::policy::Policy;
use muster_agent::status::LogLine;
use muster_agent::status::socket::StatusSocket;
use muster_agent::{Agent, Materials, Parts, host_name};
use muster_bus::{AmqpBus, AmqpSettings};
use muster_daemon::service_manager::Notices;
use muster_daemon::signals::{Request, Signals};
use muster_daemon::{
    Blocking, Clock as _, RealDisk, Recent, Remembered, SystemClock, TaskKind, Tasks, let_go_of_idle_memory, logging,
    runtime_with_threads,
};
use muster_pki::{Credentials, Trust, tls};
use muster_plugin_api::{Plugin, Registry};
use muster_protocol::{HostName, Identity, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::commands::{Files, complain};
use crate::complaint::Complaint;
use crate::{input, notify};

/// Threads for work that blocks: the journal's syncs and name lookups. There is little of either.
const BLOCKING_THREADS: usize = 4;

/// What stopping may take beyond the configured time: interrupting, flushing, closing.
const STOP_EXTRA: Duration = Duration::from_secs(25);

/// How often memory is let go of that is not in use. Each time costs half a millisecond, with what is mapped again
/// after it; twice as often it would cost as much as everything else that an idle agent does.
const LET_GO_INTERVAL: Duration = Duration::from_secs(5);

/// One thread runs everything: an idle agent must cost next to nothing, and nothing it does itself
/// takes long.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    runtime_with_threads(builder.enable_all(), BLOCKING_THREADS).context("start the runtime")
}

/// Runs the agent to its end.
///
/// With `until_input_ends` it stops when standard input does. A signal of the kernel at the parent's end would need no
/// pipe, but is lost where the parent has ended before it is asked for, and comes when the thread that started the agent
/// ends.
pub(crate) fn agent(files: &Files, until_input_ends: bool) -> ExitCode {
    let (config, recent) = match files.load() {
        Ok((_, config, unknown)) => {
            let recent = match logging::init_remembering(config.log()) {
                Ok(recent) => recent,
                Err(error) => {
                    complain(&anyhow::Error::from(error), files);
                    return ExitCode::FAILURE;
                }
            };
            for problem in unknown {
                tracing::warn!("Configuration: {problem}; ignored");
            }
            (config, recent)
        }
        Err(error) => {
            complain(&error, files);
            return ExitCode::FAILURE;
        }
    };
    match run(config, files, recent, until_input_ends) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("Could not start: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, files: &Files, recent: Recent, until_input_ends: bool) -> anyhow::Result<ExitCode> {
    tls::install_crypto_provider();
    let runtime = runtime()?;
    let stop_limit = config.stop_timeout() + STOP_EXTRA;
    let end = runtime.block_on(async {
        let signals = Signals::install().context("listen for signals")?;
        let input = if until_input_ends { Some(input::pipe().context("listen to standard input")?) } else { None };
        let socket = config.status_socket().to_owned();
        let agent = build(config, files)?;
        let handle = agent.handle();
        // Without it the agent works as it should.
        let _socket = serve_status(&socket, handle.clone(), recent)
            .inspect_err(|error| tracing::warn!("`musterd status` will find no agent: {error:#}"))
            .ok();
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new();
        if let Some(input) = input {
            tasks.spawn(TaskKind::Worker, "input", stop_at_end(input, shutdown.clone(), stop_limit));
        }
        tasks.spawn(TaskKind::Worker, "notify", notify::report(handle.clone()));
        tasks.spawn(TaskKind::Worker, "memory", let_go_forever(tasks.stopping().clone()));
        let end = tokio::select! {
            biased;
            stopped = agent.run(shutdown.clone()) => Some(stopped),
            () = obey(signals, handle, shutdown, stop_limit) => None,
        };
        anyhow::Ok(end)
    })?;
    // A thread that hangs on a dead disk must not hold up the end.
    runtime.shutdown_background();
    Ok(match end {
        Some(stopped) if stopped.failed.is_none() => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => {
            tracing::warn!("Ended at once, at the second signal");
            ExitCode::FAILURE
        }
    })
}

/// An agent waits most of the time. What its start has needed, and what the last action has, is not to count as in use
/// meanwhile: neither free blocks of its heaps, nor pages of its program.
async fn let_go_forever(stopping: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LET_GO_INTERVAL) => let_go_of_idle_memory(),
        }
    }
}

/// Answers `musterd status` from now on.
fn serve_status(path: &Path, handle: muster_agent::Handle, recent: Recent) -> anyhow::Result<StatusSocket> {
    let look = move || {
        let mut status = handle.status()?;
        status.log = recent.lines().into_iter().map(log_line).collect();
        Some(status)
    };
    Ok(StatusSocket::serve(path, look)?)
}

fn log_line(line: Remembered) -> LogLine {
    LogLine { at_ms: Timestamp(line.at_ms), level: line.level.to_string(), text: line.text }
}

/// Whoever started the agent has ended, or wants it to end.
async fn stop_at_end(mut input: input::Pipe, shutdown: CancellationToken, stop_limit: Duration) {
    input.ended().await;
    tracing::info!("Standard input has ended: stopping");
    notify::stopping(stop_limit);
    shutdown.cancel();
}

/// Turns signals into requests to the agent. Ends when the process should end at once.
async fn obey(mut signals: Signals, handle: muster_agent::Handle, shutdown: CancellationToken, stop_limit: Duration) {
    let mut notices = Notices::of_process();
    loop {
        let request = tokio::select! {
            biased;
            request = signals.next() => request,
            () = notices.again() => continue,
        };
        match request {
            Request::Stop => {
                notify::stopping(stop_limit);
                shutdown.cancel();
            }
            Request::EndNow => return,
            Request::Reload => {
                notify::reloading();
                handle.reload().await;
                notify::reloaded(&mut notices);
            }
        }
    }
}

fn build(config: Config, files: &Files) -> anyhow::Result<Agent> {
    let materials = materials(&config)?;
    let host = host_name(&config, &materials)?;
    let parts = Parts {
        materials,
        registry: muster_agent::plugins::builtin(&config)?,
        facts: Sources::of_host(&config, host),
        clock: Arc::new(SystemClock),
        disk: Arc::new(RealDisk),
        blocking: Blocking::Threads,
        random_seed: rand::random(),
        runner: Some(runner(files)),
        reload: Some(Box::new({
            let config = config.clone();
            move || self::materials(&config).map_err(|error| format!("{error:#}"))
        })),
    };
    let state_dir = config.state_dir().to_owned();
    let check = || {
        muster_agent::state::check_trusted(&state_dir)
            .with_context(|| format!("trust state directory `{}`", state_dir.display()))
    };
    // Before anything in it is removed or written, and not after: it may be somewhere else than was meant.
    if state_dir.symlink_metadata().is_ok() {
        check()?;
    }
    let agent = Agent::new(config, parts)?;
    // One that was not there is by now. Nothing has been done yet with what was read from it.
    check()?;
    Ok(agent)
}

/// How an action gets a process of its own: this very program, also after the file was replaced by a newer
/// one, with the same configuration.
fn runner(files: &Files) -> Runner {
    let mut arguments = files.arguments();
    arguments.push("run-action".into());
    let environment = std::env::vars_os().filter(|(name, _)| is_for_runner(name)).collect();
    Runner { program: "/proc/self/exe".into(), arguments, environment }
}

/// Values of the configuration, and how to reach the log; not where to tell the service manager.
fn is_for_runner(variable: &std::ffi::OsStr) -> bool {
    let name = variable.as_encoded_bytes();
    name.starts_with(config::ENVIRONMENT_PREFIX.as_bytes()) || name == b"JOURNAL_STREAM"
}

/// Runs one detached action, as the process that an agent has started for it.
pub(crate) fn run_action(files: &Files, directory: &Path) -> ExitCode {
    let config = match files.load() {
        Ok((_, config, _)) => config,
        Err(error) => {
            complain(&error, files);
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = logging::init(config.log()) {
        complain(&anyhow::Error::from(error), files);
        return ExitCode::FAILURE;
    }
    match muster_agent::detached::run_action(directory, Arc::new(SystemClock), |order| ordered(&config, order)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("Could not run the action of `{}`: {:#}", directory.display(), anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}

/// The plugin that an order is for, if it is the one that was allowed.
fn ordered(config: &Config, order: &Order) -> Result<Arc<dyn Plugin>, String> {
    let registry = muster_agent::plugins::unasked(config).map_err(|error| error.to_string())?;
    let found = registry.get(&order.plugin).ok_or_else(|| format!("there is no plugin `{}` any more", order.plugin))?;
    let plugin = found.plugin.clone();
    let version = &plugin.ddl().metadata.version;
    if *version != order.plugin_version {
        return Err(format!(
            "plugin `{}` was replaced: version {} was allowed, now it is {version}",
            order.plugin, order.plugin_version
        ));
    }
    Ok(plugin)
}

/// Reads what can be read again: certificates, revocation list, policy.
fn materials(config: &Config) -> anyhow::Result<Materials> {
    let credentials = Credentials::load(config.certificate(), config.key())?;
    let trust = trust(config)?;
    for (key, path) in identity_files(config) {
        match muster_agent::state::check_trusted(path) {
            // Those that must be there have been read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            checked => checked.with_context(|| format!("`{key}`: `{}` cannot be trusted", path.display()))?,
        }
    }
    let policy = Policy::load(config.policy_file())?;
    let mut settings = AmqpSettings::new(config.broker_urls().to_vec(), credentials.clone(), trust.clone());
    settings.heartbeat_s = config.heartbeat_s();
    // What a host says without waiting for confirms is always under keys that are its own.
    settings.one_channel = true;
    settings.connect_timeout = config.connect_timeout();
    Ok(Materials { bus: Arc::new(AmqpBus::new(settings)), credentials, trust, policy: Arc::new(policy) })
}

fn trust(config: &Config) -> anyhow::Result<Trust> {
    let list = existing(config.crl())?;
    Ok(Trust::load(config.ca(), list)?)
}

/// The path, if there is a file.
fn existing(path: &Path) -> anyhow::Result<Option<&Path>> {
    let exists = path.try_exists().with_context(|| format!("look for `{}`", path.display()))?;
    Ok(exists.then_some(path))
}

/// All plugins of this host as far as they are known without running any.
pub(crate) fn registry(config: &Config) -> anyhow::Result<Registry> {
    Ok(muster_agent::plugins::unasked(config)?)
}

/// Checks what `check-config` checks beyond the file itself. Gives a summary if nothing is missing.
pub(crate) fn check(config: &Config, complaints: &mut Vec<Complaint>) -> Option<String> {
    let before = complaints.len();
    let credentials = check_credentials(config, complaints);
    let trust = check_trust(config, complaints);
    let policy = Policy::load_all(config.policy_file())
        .map_err(|errors| complaints.extend(errors.iter().map(Complaint::of_policy)))
        .ok();
    check_identity_files(config, complaints);
    check_state_directory(config, complaints);
    if let Some(credentials) = &credentials {
        check_certificate(config, credentials, trust.as_ref(), complaints);
    }
    match (credentials, policy) {
        (Some(credentials), Some(policy)) if complaints.len() == before => Some(format!(
            "good: {}, {} policy rules, certificate valid until {}",
            credentials.identity().short(),
            policy.rules().len(),
            muster_pki::time_text::utc(credentials.not_after())
        )),
        _ => None,
    }
}

/// Whoever can put others in their place decides who this host is, and whom it obeys.
fn identity_files(config: &Config) -> [(&'static str, &Path); 4] {
    [
        ("pki.key", config.key()),
        ("pki.certificate", config.certificate()),
        ("pki.ca", config.ca()),
        ("pki.crl", config.crl()),
    ]
}

fn check_identity_files(config: &Config, complaints: &mut Vec<Complaint>) {
    for (key, path) in identity_files(config) {
        // One that is not there has been complained about.
        if let Err(error) = muster_agent::state::check_trusted(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            let what = format!("`{key}`: `{}` cannot be trusted", path.display());
            complaints.push(Complaint::new(what).why(error.to_string()));
        }
    }
}

/// Looks at the directory of the agent's state as its start does. One that is not there yet is made then.
fn check_state_directory(config: &Config, complaints: &mut Vec<Complaint>) {
    let path = config.state_dir();
    match muster_agent::state::check_trusted(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => complaints
            .push(Complaint::new(format!("`state_dir`: `{}` cannot be used", path.display())).why(error.to_string())),
        Ok(()) if !path.is_dir() => {
            complaints.push(Complaint::new(format!("`state_dir`: `{}` is not a directory", path.display())));
        }
        Ok(()) => {}
    }
}

/// How a host gets a certificate.
fn ways_to_a_certificate(config: &Config) -> Vec<String> {
    let host = config.host().map_or_else(|| "HOST".to_owned(), ToString::to_string);
    vec![
        format!("here: muster pki request host/{host} --out DIR"),
        format!("where the CA is: muster pki sign host-{host}.csr --out DIR"),
        format!(
            "put the certificate at `{}` and its key at `{}`, mode 0600",
            config.certificate().display(),
            config.key().display()
        ),
    ]
}

/// Looks at certificate and key each by itself, then at both.
fn check_credentials(config: &Config, complaints: &mut Vec<Complaint>) -> Option<Credentials> {
    let (certificate, key) = (config.certificate(), config.key());
    let before = complaints.len();
    if let Err(error) = muster_pki::Certificate::load(certificate) {
        complaints.push(Complaint::of_file("pki.certificate", certificate, &error, &ways_to_a_certificate(config)));
    }
    if let Err(error) = muster_pki::PrivateKey::load(key) {
        let missing = ["it was made with the request for the certificate, and it stays on the host: move it here"];
        complaints.push(Complaint::of_file("pki.key", key, &error, &missing.map(ToOwned::to_owned)));
    }
    if complaints.len() > before {
        return None;
    }
    Credentials::load(certificate, key)
        .map_err(|error| complaints.push(Complaint::of_file("pki.certificate", certificate, &error, &[])))
        .ok()
}

fn check_trust(config: &Config, complaints: &mut Vec<Complaint>) -> Option<Trust> {
    let ca = config.ca();
    let missing = [format!("copy `ca.pem` of the CA to `{}`; it came with the certificate", ca.display())];
    let authorities = Trust::load(ca, None);
    if let Err(error) = &authorities {
        complaints.push(Complaint::of_file("pki.ca", ca, error, &missing));
        return None;
    }
    trust(config)
        .map_err(|error| {
            complaints.push(match error.downcast_ref::<muster_pki::PkiError>() {
                Some(pki) => Complaint::of_file("pki.crl", config.crl(), pki, &[]),
                None => Complaint::of_any(&error),
            });
        })
        .ok()
}

fn check_certificate(
    config: &Config,
    credentials: &Credentials,
    trust: Option<&Trust>,
    complaints: &mut Vec<Complaint>,
) {
    let path = config.certificate().display();
    match (credentials.identity(), config.host()) {
        (Identity::Host(certificate), Some(configured)) if certificate != configured => complaints.push(
            Complaint::new(format!("certificate `{path}` is of host `{certificate}`, and `host` says `{configured}`"))
                .hint("remove `host` from the configuration, or get a certificate for that name"),
        ),
        (Identity::Host(_), _) => {}
        (other, _) => complaints.push(Complaint::new(format!(
            "certificate `{path}` is of `{}`, and an agent needs one of a host",
            other.short()
        ))),
    }
    let now = Timestamp(SystemClock.now_ms());
    if now > credentials.not_after() {
        let renew = "where the CA is: muster pki sign REQUEST --renew --out DIR";
        complaints.push(
            Complaint::new(format!("certificate `{path}` has expired"))
                .why(format!("it was valid until {}", muster_pki::time_text::utc(credentials.not_after())))
                .hint(renew),
        );
        return;
    }
    let Some(trust) = trust else { return };
    let probe = credentials.sign("application/octet-stream", b"");
    if let Err(error) = trust.verify("application/octet-stream", b"", &[probe], now) {
        complaints.push(
            Complaint::new(format!("certificate `{path}` would not be accepted with `{}`", config.ca().display()))
                .why(error.to_string()),
        );
    }
}

/// The host's name from its certificate or the configuration, as far as either can be read.
pub(crate) fn certificate_host(config: &Config) -> Option<HostName> {
    let from_certificate = muster_pki::Certificate::load(config.certificate()).ok();
    match from_certificate.map(|certificate| certificate.identity()) {
        Some(Ok(Identity::Host(name))) => Some(name),
        _ => config.host().cloned(),
    }
}
