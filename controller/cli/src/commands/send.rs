//! `muster send FILE`: sends a pending command of ours, and shows what comes of it as `run` does.
//!
//! It is a command of its own and not a flag of `run`, because nothing of what `run` takes can be chosen any more: action,
//! arguments and hosts are signed. What is left to choose is how it is sent and waited for.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Args, ValueHint};
use muster_client::limit::Amount;
use muster_client::secrets::Secrets;
use muster_client::wave::WavePlan;
use muster_client::{Approval, Pending, REPLY_TIMEOUT_MS_DEFAULT, TTL_MS_DEFAULT};
use muster_protocol::{HostName, Timestamp};
use serde_json::Value;

use super::run::{Crew, Journey, OutputArguments, Signed, WayArguments};
use crate::ask::WaitArguments;
use crate::ask::action::Wanted;
use crate::ask::follow::Stop;
use crate::ask::keys::Keys;
use crate::ask::record::Plan;
use crate::ask::scene::{Scene, Stage};
use crate::ask::screen::Look;
use crate::catalogue::Catalogue;
use crate::duration::Length;
use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, Format, Text, number, time};
use crate::pending::{Store, failure, store};
use crate::session::{Login, client_failure};

/// Arguments of `send`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  \
    muster send last\n  \
    muster send restart.pending bob.approval\n  \
    muster send restart.pending --wave 1,10%,rest --stop-after 1")]
pub(crate) struct SendArguments {
    /// The pending command: its file, some characters of its id, or `last`. Further files: copies of it that others have
    /// signed, or their signatures alone.
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<String>,
    #[command(flatten)]
    pub(crate) way: SendWay,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

/// How it is to be sent.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How to send")]
pub(crate) struct SendWay {
    /// How long a host that is away may still take it; never longer than it lives [default: 60s].
    #[arg(long, value_name = "TIME")]
    pub(crate) queue_for: Option<Length>,
    /// Send in parts: sizes or shares, the last one repeats: `1,10%,rest`.
    #[arg(long, value_name = "SIZES")]
    pub(crate) wave: Option<WavePlan>,
    /// Send no further wave once so many hosts, or such a share of all, have failed.
    #[arg(long, value_name = "N|N%")]
    pub(crate) stop_after: Option<Amount>,
    /// Go on only if it is for exactly so many hosts.
    #[arg(long, value_name = "N")]
    pub(crate) expect: Option<usize>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
    /// Wait until the hosts have begun, and no longer; `muster watch` attaches again.
    #[arg(long, visible_alias = "async", conflicts_with_all = ["wave", "stop_after", "stream", "raw"])]
    pub(crate) detach: bool,
}

/// Sends it.
///
/// # Errors
/// No such file, it has expired, it is somebody else's; no broker.
pub(crate) async fn run(arguments: &SendArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let context = invocation.context()?;
    let catalogue = Catalogue::load(Some(&context))?;
    let login = Login::load(&context, invocation.now())?;
    let path = Store::of_user().find(&arguments.files[0])?;
    let pending = gather(&path, &arguments.files[1..], &login, invocation.now())?;
    if pending.caller() != login.credentials.identity() {
        let (caller, identity) = (pending.caller().clone(), login.credentials.identity().clone());
        let error = muster_client::ClientError::NotTheCaller { caller, identity };
        return Err(client_failure(&error, &context));
    }
    let mut stop = Stop::by_operator(arguments.wait.wait_for.map(|length| length.as_millis()))
        .map_err(|error| Failure::unexpected("signals cannot be listened to", &error))?;
    let mut stage = Stage::open_for(invocation, context, login, &pending, &mut stop).await?;
    let mut scene = stage.scene(&invocation.printer, stop);
    let result = execute(arguments, &pending, &path, &catalogue, &mut scene).await;
    stage.close(&invocation.printer).await;
    result
}

/// The pending command with the signatures of all files. Whether its time is over is looked at first: nothing else matters then.
///
/// # Errors
/// A file is missing or wrong; it has expired.
pub(crate) fn gather(path: &Path, more: &[String], login: &Login, now: Timestamp) -> Result<Pending, Failure> {
    let mut pending = store::load(path, &login.trust, now)?;
    pending.check_time(now).map_err(|error| failure(&error, Some(path)))?;
    for file in more {
        let file = Path::new(file);
        let approvals = approvals(file, login, now)?;
        pending.add(&approvals, &login.trust, now).map_err(|error| failure(&error, Some(file)))?;
    }
    Ok(pending)
}

/// The signatures of others in a file: a copy of a pending command, or signatures alone.
///
/// # Errors
/// The file is missing or wrong.
pub(crate) fn approvals(file: &Path, login: &Login, now: Timestamp) -> Result<Vec<Approval>, Failure> {
    let bytes = store::read(file)?;
    let found = match Approval::is_one(&bytes) {
        true => Approval::read(&bytes),
        false => Pending::read(&bytes, &login.trust, now).map(|copy| copy.approvals()),
    };
    found.map_err(|error| failure(&error, Some(file)))
}

pub(crate) async fn execute(
    arguments: &SendArguments,
    pending: &Pending,
    path: &Path,
    catalogue: &Catalogue,
    scene: &mut Scene<'_>,
) -> Result<ExitCode, Failure> {
    let (command, hosts) = (pending.command(), pending.hosts());
    let name = format!("{}.{}", command.plugin, command.action);
    let (ddl, action) = catalogue.action(&name)?;
    let limit_s = i64::try_from(ddl.timeout_s(action)).unwrap_or(i64::MAX / 1_000);
    let asked_ms = command.options.timeout_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    let secrets = command.sealed.iter().flat_map(|sealed| &sealed.names);
    let wanted = Wanted {
        ddl,
        action,
        arguments: command.arguments.clone(),
        // Only the hosts can open the values; here they are names.
        secrets: Secrets::new(secrets.map(|name| (name.clone(), Value::Null)).collect()),
        options: command.options.clone(),
        time_limit_ms: asked_ms.unwrap_or_else(|| limit_s.saturating_mul(1_000)),
    };
    let SendWay { queue_for, wave, stop_after, expect, output, detach } = arguments.way.clone();
    if let Some(expected) = expect.filter(|expected| *expected != hosts.len()) {
        let hosts = number::counted(hosts.len(), "host", "hosts");
        let what = format!("it is for {hosts}, not {}; nothing was sent", number::count(expected));
        return Err(Failure::new(ExitCode::NotConfirmed, "plan-changed", what)
            .hint(format!("muster pending show {}", path.display())));
    }
    let live = output.live(hosts.len(), scene.printer)?;
    let sizes = wave.clone().unwrap_or_else(WavePlan::one).sizes(hosts.len());
    let way = WayArguments { wave, stop_after, output, detach, ..WayArguments::default() };
    let reply_ms = arguments.wait.reply_timeout.map_or(REPLY_TIMEOUT_MS_DEFAULT, |length| length.as_millis());
    let queue_ms = queue_for.map_or(TTL_MS_DEFAULT.max(reply_ms), |length| length.as_millis());
    let sent_before = scene.requests.all().iter().any(|request| request.commands.contains_key(&pending.id()));
    let journey = Journey {
        wanted: &wanted,
        way: &way,
        wait: &arguments.wait,
        live,
        keys: Keys::default(),
        signed: Some(Signed { pending, file: path, queue_ms, sent_before }),
    };
    if let Format::Table | Format::Wide = scene.printer.format() {
        scene.printer.note(line(pending, &wanted, scene));
    }
    let plan = plan(pending, &wanted, &hosts, scene, &sizes);
    journey.carry_out(scene, plan, Crew { hosts, order: None, sizes }, Vec::new(), BTreeSet::new()).await
}

/// `pending 9f3c21ab · service.restart name=nginx · 3 hosts · signed by user/lea, user/bob · main`.
fn line(pending: &Pending, wanted: &Wanted<'_>, scene: &Scene<'_>) -> Text {
    let dot = Look::of(scene.printer).dot();
    let signers: Vec<String> = pending.signers().iter().map(|signer| signer.identity.short()).collect();
    Text::from("pending ")
        .strong(pending.id().short())
        .plain(dot)
        .plain(wanted.shown())
        .plain(dot)
        .plain(number::counted(pending.hosts().len(), "host", "hosts"))
        .plain(dot)
        .plain(format!("signed by {}", signers.join(", ")))
        .plain(dot)
        .plain(format!("until {}", time::rfc3339(pending.expires_at())))
        .plain(dot)
        .join(scene.context.label())
}

fn plan(
    pending: &Pending,
    wanted: &Wanted<'_>,
    hosts: &BTreeSet<HostName>,
    scene: &Scene<'_>,
    sizes: &[usize],
) -> Plan {
    Plan {
        kind: "plan",
        context: scene.context.name.clone(),
        plugin: wanted.plugin().to_string(),
        action: wanted.action.name.to_string(),
        arguments: wanted.arguments.clone(),
        secrets: wanted.secrets.names().map(str::to_owned).collect(),
        noop: wanted.options.noop,
        effective_user: wanted.options.effective_user.clone(),
        target: format!("pending {}", pending.id()),
        matched: hosts.len(),
        hosts: hosts.iter().cloned().collect(),
        silent: Vec::new(),
        not_able: Default::default(),
        seed: None,
        waves: if sizes.len() > 1 { sizes.to_vec() } else { Vec::new() },
        dry_run: false,
    }
}
