//! Steps 6 to 16: may this caller do this, here, now?

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_plugin_api::Registry;
use muster_protocol::expr::HostScope;
use muster_protocol::{
    Cancel, CollectiveName, Command, FEATURES, HostName, Identity, RequestId, Timestamp, Watch, code,
};
use serde_json::Value;

use super::examine::{ForeignRequest, Permitted, Petition, examine_foreign, permit};
use super::secrets::Unseal;
use super::target::{self, Match};
use super::{Addressed, Authorized, CancelGrant, CommandGrant, Decision, Refusal, Silence, Verified, WatchGrant};
use crate::facts::Facts;
use crate::journal::Seen;
use crate::policy::{CANCEL, Policy};

/// The host's own bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest time between a command's creation and expiry.
    pub command_window: Duration,
    /// How far a command's creation may lie in this host's future.
    pub clock_skew: Duration,
    /// Longest time an action may ask for.
    pub action_time: Duration,
    /// How many actions that change something may run at once.
    pub concurrent_actions: usize,
    /// How many actions that only read may run at once.
    pub concurrent_reads: usize,
    /// How many watches may run at once.
    pub concurrent_watches: usize,
}

/// An action that runs, as far as a decision needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningAction {
    /// Who asked for it.
    pub caller: Identity,
    /// `plugin.action`.
    pub action: String,
    /// Whether it can be stopped.
    pub can_cancel: bool,
    /// Whether it only reads.
    pub read_only: bool,
    /// Whether it is a watch, which has a limit of its own.
    pub is_watch: bool,
}

/// A request that somebody may want to be told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAction {
    /// Who asked for it.
    pub caller: Identity,
    /// `plugin.action`.
    pub action: String,
}

/// Everything about the host that a decision depends on, at one moment.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Its name.
    pub name: &'a HostName,
    /// The collectives it listens to.
    pub collectives: &'a BTreeSet<CollectiveName>,
    /// Its facts and classes.
    pub facts: &'a Facts,
    /// Names of the plugins that can work here.
    pub plugin_names: &'a BTreeSet<String>,
    /// The plugins.
    pub registry: &'a Registry,
    /// Its policy.
    pub policy: &'a Policy,
    /// Its bounds.
    pub limits: &'a Limits,
    /// What the journal knows about an id that must be remembered until a time.
    pub seen: &'a dyn Fn(&RequestId, Timestamp) -> Option<Seen>,
    /// Opens the sealed arguments of a command.
    pub unseal: &'a Unseal<'a>,
    /// What runs.
    pub running: &'a BTreeMap<RequestId, RunningAction>,
    /// What can be told about: requests that run, and those whose results are kept.
    pub known: &'a dyn Fn(&RequestId) -> Option<KnownAction>,
    /// Answers to the data calls of the target, once they were asked for.
    pub answers: Option<&'a BTreeMap<String, Value>>,
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Host<'a> {
    pub(super) fn scope<'s>(&'s self, answers: &'s BTreeMap<String, Value>) -> HostScope<'s>
    where
        'a: 's,
    {
        HostScope {
            name: self.name,
            facts: &self.facts.values,
            classes: &self.facts.classes,
            plugins: self.plugin_names,
            collectives: self.collectives,
            calls: answers,
        }
    }
}

/// Until when an id must be remembered so that the command cannot get through a second time: its
/// expiry, and the allowed skew on top for a clock that is set back.
#[must_use]
pub fn keep_until(message: &impl Addressed, limits: &Limits) -> Timestamp {
    remember_until(message.expires_at(), limits)
}

pub(super) fn remember_until(expires_at: Timestamp, limits: &Limits) -> Timestamp {
    expires_at.plus_ms(millis(limits.clock_skew))
}

/// Decides about a command.
#[must_use]
pub fn decide_command(verified: &Verified<Command>, host: &Host<'_>, now: Timestamp) -> Decision<Command> {
    let decided = address(verified, host).and_then(|()| {
        check_seen(verified, host)?;
        let permitted = permit_command(verified, host)?;
        aim(verified, host, now)?;
        Ok(grant_command(verified, host, permitted)?)
    });
    conclude(verified, decided)
}

/// Decides about a cancellation. A second copy of one does no harm, so its id is not remembered.
#[must_use]
pub fn decide_cancel(verified: &Verified<Cancel>, host: &Host<'_>, now: Timestamp) -> Decision<Cancel> {
    let decided = address(verified, host).and_then(|()| {
        let grant = grant_cancel(verified, host)?;
        aim(verified, host, now)?;
        Ok(grant)
    });
    conclude(verified, decided)
}

/// Decides about a watch. Its id is not remembered: a second copy tells the same reader the same again.
#[must_use]
pub fn decide_watch(verified: &Verified<Watch>, host: &Host<'_>, now: Timestamp) -> Decision<Watch> {
    let decided = address(verified, host).and_then(|()| {
        let grant = grant_watch(verified, host)?;
        aim(verified, host, now)?;
        Ok(grant)
    });
    conclude(verified, decided)
}

fn conclude<M: Addressed>(verified: &Verified<M>, decided: Result<M::Grant, End>) -> Decision<M> {
    match decided {
        Ok(grant) => Decision::Run(Authorized { verified: verified.clone(), grant }),
        Err(End::Silence(why)) => Decision::Silence(why),
        Err(End::Refuse(refusal)) => Decision::Refuse(refusal),
        Err(End::Resolve(calls)) => Decision::Resolve(calls),
    }
}

/// An end of the way that is not a grant.
enum End {
    Silence(Silence),
    Refuse(Refusal),
    Resolve(Vec<muster_protocol::expr::Call>),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// Steps 6 to 8: from whom, and whether the sender means this host as far as he has said himself. Nothing here
/// depends on what the host knows of itself.
fn address<M: Addressed>(verified: &Verified<M>, host: &Host<'_>) -> Result<(), End> {
    let message = &verified.message;
    check_caller(verified).map_err(Refusal::unanswered)?;
    if !host.collectives.contains(message.collective()) {
        return Err(End::Silence(Silence::OtherCollective));
    }
    if !target::names(message.target(), host.name) {
        return Err(End::Silence(Silence::NotInTarget));
    }
    Ok(())
}

/// Steps 11 to 13, for whom the policy lets: when, and whether the filter of the target holds here.
fn aim<M: Addressed>(verified: &Verified<M>, host: &Host<'_>, now: Timestamp) -> Result<(), End> {
    let message = &verified.message;
    let refusal = check_window(message, host.limits, now).and_then(|()| check_features(message.requires())).err();
    match (target::check(message.target(), host)?, refusal) {
        (Match::No, _) => Err(End::Silence(Silence::NotInTarget)),
        (Match::Yes, None) => Ok(()),
        (Match::Yes, Some(refusal)) => Err(End::Refuse(refusal)),
        (Match::Depends(calls), None) => Err(End::Resolve(calls)),
        // Plugins are not put to work for a command that is refused anyway, so whether the host is
        // meant stays open, and it says nothing.
        (Match::Depends(_), Some(refusal)) => Err(End::Refuse(refusal.unanswered())),
    }
}

fn check_caller<M: Addressed>(verified: &Verified<M>) -> Result<(), Refusal> {
    let caller = verified.message.caller();
    let wrong = |message: String| Err(Refusal::new(&code::WRONG_IDENTITY, message));
    match verified.signers.first() {
        Some(signer) if signer.identity == *caller => {}
        Some(signer) => {
            return wrong(format!(
                "the caller is `{}`, the first signature is of `{}`",
                caller.short(),
                signer.identity.short()
            ));
        }
        None => return wrong("nobody signed".to_owned()),
    }
    // The decoder has checked the next two as well; here the line between strangers and callers is drawn.
    if !caller.is_controller() {
        return wrong(format!("`{}` is not a user or a service", caller.short()));
    }
    if verified.message.reply_to().controller() != caller {
        return wrong(format!("the answers would go to `{}`, not to the caller", verified.message.reply_to()));
    }
    if let Some(other) = verified.signers.iter().find(|signer| !signer.identity.is_controller()) {
        return wrong(format!("`{}` signed too, and is not a user or a service", other.identity.short()));
    }
    Ok(())
}

fn check_window(message: &impl Addressed, limits: &Limits, now: Timestamp) -> Result<(), Refusal> {
    let age_ms = now.since_ms(message.created_at());
    let window_ms = message.expires_at().since_ms(message.created_at());
    let allowed_ms = millis(limits.clock_skew);
    if age_ms < -allowed_ms {
        return Err(Refusal::new(
            &code::FROM_THE_FUTURE,
            format!(
                "made {} in this host's future; {} are allowed, so the clocks differ by at least {}",
                seconds(-age_ms),
                seconds(allowed_ms),
                seconds(-age_ms)
            ),
        ));
    }
    if window_ms > millis(limits.command_window) {
        return Err(Refusal::new(
            &code::WINDOW_TOO_LONG,
            format!("lives {}; this host allows {}", seconds(window_ms), seconds(millis(limits.command_window))),
        ));
    }
    let late_ms = now.since_ms(message.expires_at());
    if late_ms >= 0 {
        return Err(Refusal::new(
            &code::EXPIRED,
            format!(
                "made {} ago by this host's clock and valid for {}: it came {} too late, or the clocks differ by as much",
                seconds(age_ms),
                seconds(window_ms),
                seconds(late_ms)
            ),
        ));
    }
    Ok(())
}

fn check_features(requires: &[String]) -> Result<(), Refusal> {
    match requires.iter().find(|feature| !FEATURES.contains(&feature.as_str())) {
        None => Ok(()),
        Some(feature) => {
            let shown: String = feature.chars().take(64).flat_map(char::escape_default).collect();
            Err(Refusal::new(&code::UNSUPPORTED_FEATURE, format!("this agent does not know the feature `{shown}`")))
        }
    }
}

fn check_seen(verified: &Verified<Command>, host: &Host<'_>) -> Result<(), End> {
    let message = &verified.message;
    let refuse = |before: &str, why: &str| {
        let refusal = Refusal::new(&code::REPLAYED, why);
        Err(End::Refuse(Refusal { data: serde_json::json!({ "before": before }), ..refusal }))
    };
    if host.running.get(&message.id).is_some_and(|running| running.is_watch) {
        return Err(End::Refuse(Refusal::new(&code::REPLAYED, "a watch with this id runs").unanswered()));
    }
    match (host.seen)(&message.id, keep_until(message, host.limits)) {
        // The journal may forget an id once the command's time is over; that its action runs, or how it ended, is
        // known for longer. No refusal may take the place of that answer.
        None if host.running.contains_key(&message.id) => refuse("started", "the request runs here already"),
        None if (host.known)(&message.id).is_some() => refuse("ended", "the request has ended here already"),
        None => Ok(()),
        Some(Seen::Started | Seen::Finished) if verified.redelivered => Err(End::Silence(Silence::Recovered)),
        // The broker delivers it again because the first delivery was not acknowledged, so the answer may be lost.
        Some(Seen::Refused(code)) if verified.redelivered => {
            Err(End::Refuse(Refusal::new(code, "refused before, when the request was delivered the first time")))
        }
        Some(Seen::Refused(_)) => refuse("refused", "the request has been refused here already"),
        Some(Seen::Started) => refuse("started", "the request has been started here already"),
        Some(Seen::Finished) => refuse("ended", "the request has ended here already"),
        Some(Seen::Forgotten) => refuse(
            "unknown",
            "the request may have been seen: this host's clock was later before and has been set back",
        ),
    }
}

/// Step 10: what the policy says. The filter of the target has not been looked at, so that who may do nothing here
/// gets the same answer whether it holds or not.
fn permit_command<'a>(verified: &Verified<Command>, host: &Host<'a>) -> Result<Permitted<'a>, Refusal> {
    let none = BTreeMap::new();
    permit(&Petition::of(verified), host.registry, host.policy, &host.scope(&none), &mut |_| {})
}

/// Steps 14 to 16.
fn grant_command(
    verified: &Verified<Command>,
    host: &Host<'_>,
    permitted: Permitted<'_>,
) -> Result<CommandGrant, Refusal> {
    let command = &verified.message;
    let examined = permitted.examine(&Petition::of(verified), || (host.unseal)(command))?;
    let (action, ddl) = (examined.action, examined.plugin.ddl());
    let time_limit = check_time_limit(command, host.limits, ddl.timeout_s(action))?;
    check_room(host, action.muster.read_only)?;
    Ok(CommandGrant {
        plugin: examined.plugin.clone(),
        rule: examined.rule,
        read_only: action.muster.read_only,
        can_cancel: action.muster.supports.cancel,
        arguments: examined.arguments,
        secrets: examined.secrets,
        time_limit,
    })
}

fn check_time_limit(command: &Command, limits: &Limits, described_timeout_s: u64) -> Result<Duration, Refusal> {
    let asked = command.options.timeout_ms.map_or(Duration::from_secs(described_timeout_s), Duration::from_millis);
    if asked > limits.action_time {
        return Err(Refusal::new(
            &code::UNSUPPORTED_OPTION,
            format!("a time limit of {} s; this host allows {} s", asked.as_secs(), limits.action_time.as_secs()),
        ));
    }
    Ok(asked)
}

fn check_room(host: &Host<'_>, read_only: bool) -> Result<(), Refusal> {
    let counts = |action: &&RunningAction| action.read_only == read_only && !action.is_watch;
    let running = host.running.values().filter(counts).count();
    let (limit, what) = if read_only {
        (host.limits.concurrent_reads, "actions that only read")
    } else {
        (host.limits.concurrent_actions, "actions")
    };
    if running >= limit {
        return Err(Refusal::new(&code::BUSY, format!("{running} {what} run already; {limit} may")));
    }
    Ok(())
}

fn grant_cancel(verified: &Verified<Cancel>, host: &Host<'_>) -> Result<CancelGrant, Refusal> {
    let cancel = &verified.message;
    let Some(running) = host.running.get(&cancel.request_id) else {
        return Err(Refusal::new(&code::NOT_RUNNING, format!("request {} does not run here", cancel.request_id)));
    };
    let rule = if running.caller == cancel.caller {
        None
    } else {
        let none = BTreeMap::new();
        let request = ForeignRequest { id: cancel.request_id, caller: &running.caller, action: &running.action };
        let scope = host.scope(&none);
        Some(examine_foreign(CANCEL, &request, &verified.signers, host.policy, &scope, &mut |_| {})?)
    };
    if !running.can_cancel {
        return Err(Refusal::new(
            &code::UNSUPPORTED_OPTION,
            format!("action `{}` cannot be cancelled once it runs", running.action),
        ));
    }
    Ok(CancelGrant { rule })
}

fn grant_watch(verified: &Verified<Watch>, host: &Host<'_>) -> Result<WatchGrant, Refusal> {
    let watch = &verified.message;
    if host.running.contains_key(&watch.id) {
        return Err(Refusal::new(&code::REPLAYED, "this watch runs already").unanswered());
    }
    if matches!(
        (host.seen)(&watch.id, keep_until(watch, host.limits)),
        Some(Seen::Started | Seen::Finished | Seen::Refused(_))
    ) {
        return Err(Refusal::new(&code::REPLAYED, "a command had this id").unanswered());
    }
    let Some(known) = (host.known)(&watch.request_id) else {
        return Err(Refusal::new(&code::UNKNOWN_REQUEST, format!("nothing is known of request {}", watch.request_id)));
    };
    let rule = if known.caller == watch.caller {
        None
    } else {
        let none = BTreeMap::new();
        let request = ForeignRequest { id: watch.request_id, caller: &known.caller, action: &known.action };
        let scope = host.scope(&none);
        Some(examine_foreign("watch", &request, &verified.signers, host.policy, &scope, &mut |_| {})?)
    };
    let (running, most) = (host.running.values().filter(|it| it.is_watch).count(), host.limits.concurrent_watches);
    if running >= most {
        return Err(Refusal::new(&code::BUSY, format!("{running} watches run already; {most} may")));
    }
    Ok(WatchGrant { rule })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03} s", ms / 1000, (ms % 1000).abs())
}
