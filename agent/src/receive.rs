//! What becomes of one delivery: decide, record, acknowledge, run or refuse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_bus::Delivery;
use muster_daemon::TaskKind;
use muster_pki::Signer;
use muster_plugin_api::{ActionContext, OutputSink};
use muster_protocol::envelope::CONTENT_TYPE_CRL;
use muster_protocol::expr::{Call, Literal};
use muster_protocol::{Cancel, Code, Command, Identity, RequestId, Timestamp, Watch, code};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admit::{
    Addressed, Authorized, Decision, Host, Incoming, KnownAction, Received, Refusal, Rejected, RunningAction, Silence,
    Verified, decide_cancel, decide_command, decide_watch, keep_until, verify,
};
use crate::audit::{Event, shortened};
use crate::core::{Core, Running, StopReason, chain, lock};
use crate::execute::{self, Begun};
use crate::journal::{JournalError, Started, compact_shared};
use crate::outbox::Care;
use crate::report::{Address, Ending};
use crate::status::{AtHand, Phase};
use crate::watching;

/// How long plugins may take to answer the data calls of a target, all of them together. A host that
/// cannot tell in time whether it is meant says nothing.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Most data calls of one target that are answered.
const CALLS_MAX: usize = 16;

/// A message whose target asked plugins something, with their answers.
pub(crate) struct Resolved {
    delivery: Delivery,
    incoming: Incoming,
    answers: BTreeMap<String, Value>,
}

/// Where [`Resolved`] messages come back to.
pub(crate) type ResolvedSender = mpsc::Sender<Resolved>;

/// Handles a delivery. The caller handles them one after the other, so that between the look into the
/// journal and the record in it no other copy of the same command can get in.
pub(crate) async fn handle(core: &Arc<Core>, delivery: Delivery, resolved: &ResolvedSender) {
    core.counters.messages_received.add_one();
    if delivery.content_type == CONTENT_TYPE_CRL && delivery.oversized.is_none() {
        core.install_revocation_list(&delivery.body);
        return acknowledge(&delivery).await;
    }
    let received = Received {
        content_type: delivery.content_type.clone(),
        body: delivery.body.clone(),
        signatures: delivery.signatures.clone(),
        redelivered: delivery.redelivered,
        oversized: delivery.oversized,
    };
    match verify(&received, &core.materials().trust, core.now()) {
        Ok(incoming) => decide(core, delivery, incoming, None, resolved).await,
        Err(rejected) => {
            reject(core, &rejected).await;
            acknowledge(&delivery).await;
        }
    }
}

/// Handles a message whose target's data calls were answered.
pub(crate) async fn handle_resolved(core: &Arc<Core>, resolved: Resolved, sender: &ResolvedSender) {
    let Resolved { delivery, incoming, answers } = resolved;
    decide(core, delivery, incoming, Some(answers), sender).await;
}

async fn decide(
    core: &Arc<Core>,
    delivery: Delivery,
    incoming: Incoming,
    answers: Option<BTreeMap<String, Value>>,
    resolved: &ResolvedSender,
) {
    let _put_down = core.pulse.take_up(at_hand(core, &incoming));
    match incoming {
        Incoming::Command(verified) => {
            match with_host(core, answers.as_ref(), |host| decide_command(&verified, host, core.now())) {
                Decision::Silence(why) => silence(core, &verified, why, "command"),
                Decision::Refuse(refusal) => refuse_command(core, &verified, &refusal).await,
                Decision::Resolve(calls) => {
                    return resolve(core, delivery, Incoming::Command(verified), calls, resolved.clone());
                }
                Decision::Run(authorized) => return run(core, &delivery, authorized).await,
            }
        }
        Incoming::Cancel(verified) => {
            match with_host(core, answers.as_ref(), |host| decide_cancel(&verified, host, core.now())) {
                Decision::Silence(why) => silence(core, &verified, why, "cancel"),
                Decision::Refuse(refusal) => {
                    let event = cancel_event(&verified, "refused");
                    refuse(core, &verified, &refusal, event, Care::Confirmed).await;
                }
                Decision::Resolve(calls) => {
                    return resolve(core, delivery, Incoming::Cancel(verified), calls, resolved.clone());
                }
                Decision::Run(authorized) => cancel(core, &authorized).await,
            }
        }
        Incoming::Watch(verified) => {
            match with_host(core, answers.as_ref(), |host| decide_watch(&verified, host, core.now())) {
                Decision::Silence(why) => silence(core, &verified, why, "watch"),
                Decision::Refuse(refusal) => {
                    let event = watch_event(&verified, "refused");
                    refuse(core, &verified, &refusal, event, Care::Confirmed).await;
                }
                Decision::Resolve(calls) => {
                    return resolve(core, delivery, Incoming::Watch(verified), calls, resolved.clone());
                }
                Decision::Run(authorized) => {
                    let mut event = watch_event(authorized.verified(), "allowed");
                    event.rule.clone_from(&authorized.grant().rule);
                    core.note(event);
                    watching::start(core, &authorized);
                }
            }
        }
    }
    acknowledge(&delivery).await;
}

/// What is being decided on, for whoever asks what the agent does.
fn at_hand(core: &Core, incoming: &Incoming) -> AtHand {
    let (id, caller, action) = match incoming {
        Incoming::Command(it) => {
            let command = it.message();
            (command.id, &command.caller, format!("{}.{}", command.plugin, command.action))
        }
        Incoming::Cancel(it) => (it.message().id, &it.message().caller, "cancel".to_owned()),
        Incoming::Watch(it) => (it.message().id, &it.message().caller, "watch".to_owned()),
    };
    AtHand { id, caller: caller.clone(), action, phase: Phase::Deciding, since: core.now() }
}

/// Takes everything a decision depends on as it is now.
fn with_host<T>(core: &Core, answers: Option<&BTreeMap<String, Value>>, decide: impl FnOnce(&Host<'_>) -> T) -> T {
    let facts = core.facts.current();
    let plugins = core.plugins();
    let policy = core.materials().policy;
    let running: BTreeMap<RequestId, RunningAction> = lock(&core.running)
        .iter()
        .filter(|(_, running)| !running.ended)
        .map(|(id, running)| (*id, running.action.clone()))
        .collect();
    let journal = lock(&core.journal);
    decide(&Host {
        name: &core.host,
        collectives: core.config.collectives(),
        facts: &facts,
        plugin_names: &plugins.names,
        registry: &plugins.registry,
        policy: &policy,
        limits: core.limits(),
        seen: &|id, keep_until| journal.seen(id, keep_until),
        unseal: &|command| core.unseal(command),
        running: &running,
        known: &|id| core.known_action(id),
        answers,
    })
}

/// Gives a delivery's responsibility from the broker to the journal.
pub(crate) async fn acknowledge(delivery: &Delivery) {
    if let Err(error) = delivery.ack().await {
        // It comes again, and is recognised.
        tracing::debug!(error = chain(&error), "A delivery could not be acknowledged");
    }
}

async fn reject(core: &Arc<Core>, rejected: &Rejected) {
    core.counters.messages_rejected.add_one();
    let refusal = &rejected.refusal;
    core.pulse.count_refusal(refusal.code);
    tracing::warn!(code = refusal.code.code, "Refused a message: {}", refusal.message);
    let mut event = Event::new("command", "refused").with_message(&refusal.message);
    event.code = Some(refusal.code.code.to_owned());
    event.body_sha256 = Some(rejected.body_sha256.clone());
    signed_by(&mut event, &rejected.signers);
    if let Some(lapsed) = &rejected.lapsed {
        event.request_id = Some(lapsed.id().to_string());
        event.caller = Some(lapsed.caller().to_string());
    }
    if rejected.signers.is_empty() {
        core.note_unverified(event)
    } else {
        core.note(event)
    }
    if let Some(lapsed) = &rejected.lapsed
        && with_host(core, None, |host| lapsed.is_answered(host))
    {
        // A certificate that is not valid yet will be: what was answered with a refusal must not run then.
        let keep_until = lapsed.keep_until(core.limits());
        if let Err(error) = record_refusal(core, lapsed.id(), lapsed.caller(), refusal.code, keep_until).await {
            crate::core::report_error("Could not record a refused request; a repeat of it may run", &error);
        }
        let address =
            Address { request_id: lapsed.id(), caller: lapsed.caller().clone(), reply_to: lapsed.reply_to().clone() };
        let ending = Ending::new(refusal.code, &refusal.message);
        core.send_finished(&address, 0, Vec::new(), ending, Care::Cheap).await;
    }
}

fn silence<M: Addressed>(core: &Core, verified: &Verified<M>, why: Silence, kind: &str) {
    let id = verified.message().id();
    match why {
        Silence::OtherCollective | Silence::NotInTarget => {
            core.counters.commands_not_mine.add_one();
            tracing::debug!(request.id = %id, ?why, "Not for this host");
        }
        Silence::Recovered => {
            core.counters.commands_recovered.add_one();
            tracing::info!(request.id = %id, "Delivered again after a broken connection; it was recorded before");
            let mut event = base_event(verified, kind, "ignored");
            event.message = "delivered again by the broker; the first delivery was recorded".to_owned();
            core.note(event);
        }
    }
}

async fn refuse_command(core: &Arc<Core>, verified: &Verified<Command>, refusal: &Refusal) {
    // Nobody waits for the details of a ping; what somebody watches is worth a confirmation.
    let care = if verified.message().options.progress { Care::Confirmed } else { Care::Cheap };
    if refusal.answer
        && refusal.is_for_good()
        && let Err(error) = {
            let command = verified.message();
            let keep_until = keep_until(command, core.limits());
            record_refusal(core, command.id, &command.caller, refusal.code, keep_until).await
        }
    {
        crate::core::report_error("Could not record a refused request; a repeat of it may run", &error);
    }
    refuse(core, verified, refusal, command_event(core, verified, "refused"), care).await;
}

/// Records that a request is refused: once its sender knows that nothing was started, no copy may run.
async fn record_refusal(
    core: &Arc<Core>,
    id: RequestId,
    caller: &Identity,
    code: &'static Code,
    keep_until: Timestamp,
) -> Result<(), JournalError> {
    let (journal, now) = (core.journal.clone(), core.now());
    lock(&journal).refuse(id, caller, code, keep_until, now)?;
    if !lock(&journal).is_compaction_due() {
        return Ok(());
    }
    // The id is recorded already; a file that stays larger than it need be is no reason to warn of a repeat.
    let compact = move || compact_shared(&journal, now);
    match core.blocking.run(compact).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => crate::core::report_error("Could not make the journal smaller", &error),
        Err(error) => crate::core::report_error("Could not make the journal smaller", &error),
    }
    Ok(())
}

async fn refuse<M: Addressed>(
    core: &Arc<Core>,
    verified: &Verified<M>,
    refusal: &Refusal,
    mut event: Event,
    care: Care,
) {
    core.counters.commands_refused.add_one();
    core.pulse.count_refusal(refusal.code);
    let message = verified.message();
    tracing::info!(
        request.id = %message.id(),
        caller = %message.caller(),
        code = refusal.code.code,
        "Refused: {}",
        refusal.message
    );
    event.code = Some(refusal.code.code.to_owned());
    event.rule.clone_from(&refusal.rule);
    event.message.clone_from(&refusal.message);
    core.note(event);
    if refusal.answer {
        let ending = Ending { data: refusal.data.clone(), ..Ending::new(refusal.code, &refusal.message) };
        core.send_finished(&address(message), 0, Vec::new(), ending, care).await;
    }
}

async fn run(core: &Arc<Core>, delivery: &Delivery, authorized: Authorized<Command>) {
    let command = authorized.message();
    let grant = authorized.grant();
    let started = Started {
        id: command.id,
        caller: command.caller.clone(),
        reply_to: command.reply_to.clone(),
        action: format!("{}.{}", command.plugin, command.action),
        read_only: grant.read_only,
        at_ms: core.now(),
        keep_until_ms: keep_until(command, core.limits()),
        sequence_reserved: execute::first_reservation(),
    };
    let mut event = command_event(core, authorized.verified(), "allowed");
    event.rule = Some(grant.rule.clone());
    event.arguments = Some(shortened(grant.masked_arguments()));
    core.pulse.phase(Phase::Recording);
    match core.record_start(started, event).await {
        Ok(()) => {
            // What only reads may be over before it is acknowledged, which then happens with its report. An action that
            // changes something begins when the delivery is the journal's.
            let read_only = grant.read_only;
            if !read_only {
                acknowledge(delivery).await;
            }
            tracing::info!(
                request.id = %command.id,
                caller = %command.caller,
                rule = grant.rule,
                "Runs {}.{}",
                command.plugin,
                command.action
            );
            match execute::start(core, authorized) {
                Begun::Over(over) => over.tell(delivery).await,
                Begun::Running if read_only => acknowledge(delivery).await,
                Begun::Running => {}
            }
        }
        Err(error) => {
            crate::core::report_error("Could not record a request, so it does not run", &error);
            let refusal = Refusal::new(&code::JOURNAL_FAILED, chain(&error));
            refuse_command(core, authorized.verified(), &refusal).await;
            acknowledge(delivery).await;
        }
    }
}

async fn cancel(core: &Arc<Core>, authorized: &Authorized<Cancel>) {
    let cancel = authorized.message();
    let reason = StopReason::Cancelled { by: cancel.caller.clone() };
    let told = lock(&core.running).get(&cancel.request_id).filter(|running| !running.ended).map(|running| {
        let mut before = None;
        // Whoever comes second finds a reason there already and changes nothing.
        running.stop.send_if_modified(|current| {
            before.clone_from(current);
            if before.is_none() {
                *current = Some(reason);
            }
            before.is_none()
        });
        before
    });
    let mut event = cancel_event(authorized.verified(), "allowed");
    event.rule.clone_from(&authorized.grant().rule);
    core.note(event);
    let ending = match told {
        Some(None) => Ending::new(&code::OK, "the action was told to stop"),
        Some(Some(StopReason::Cancelled { by })) => {
            Ending::new(&code::OK, format!("the action was told to stop before, by {}", by.short()))
        }
        Some(Some(StopReason::TimedOut)) => Ending::new(&code::OK, "the action is being stopped: its time is over"),
        Some(Some(StopReason::Shutdown)) => Ending::new(&code::OK, "the action is being stopped: the agent stops"),
        None => Ending::new(&code::NOT_RUNNING, "the request has just ended"),
    };
    core.send_finished(&address(cancel), 0, Vec::new(), ending, Care::Confirmed).await;
}

/// Asks plugins what the target wants to know, beside everything else that goes on.
fn resolve(core: &Arc<Core>, delivery: Delivery, incoming: Incoming, calls: Vec<Call>, sender: ResolvedSender) {
    let asked = core.clone();
    core.tasks.spawn(TaskKind::Worker, "resolve", async move {
        let answers = tokio::select! {
            biased;
            () = asked.shutdown.cancelled() => return,
            answers = answer(&asked, &calls) => answers,
        };
        // If nobody takes it any more, the connection is gone and the broker delivers again.
        drop(sender.send(Resolved { delivery, incoming, answers }).await);
    });
}

async fn answer(core: &Arc<Core>, calls: &[Call]) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    let plugins = core.plugins();
    let cancel = CancellationToken::new();
    let _stop_with_us = cancel.clone().drop_guard();
    let asking = async {
        for call in calls.iter().take(CALLS_MAX) {
            let arguments: Vec<Value> = call.arguments().iter().map(json).collect();
            let context = ActionContext { cancel: cancel.clone(), output: OutputSink::discard(), host: core.clone() };
            match plugins.registry.data(call.function(), &arguments, context).await {
                Ok(Some(value)) => {
                    answers.insert(call.canonical(), value);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%call, error = chain(&error), "A data call of a target has no answer"),
            }
        }
    };
    if tokio::time::timeout(RESOLVE_TIMEOUT, asking).await.is_err() {
        tracing::warn!(limit_s = RESOLVE_TIMEOUT.as_secs(), "Data calls of a target took too long");
    }
    answers
}

fn json(literal: &Literal) -> Value {
    match literal {
        Literal::Boolean(value) => Value::Bool(*value),
        Literal::Text(text) => Value::String(text.clone()),
        Literal::Number(number) => match number.as_integer().and_then(|number| i64::try_from(number).ok()) {
            Some(number) => Value::from(number),
            None => Value::from(number.as_float()),
        },
    }
}

fn address<M: Addressed>(message: &M) -> Address {
    Address { request_id: message.id(), caller: message.caller().clone(), reply_to: message.reply_to().clone() }
}

fn base_event<M: Addressed>(verified: &Verified<M>, kind: &str, decision: &str) -> Event {
    let mut event = Event::new(kind, decision);
    event.request_id = Some(verified.message().id().to_string());
    event.body_sha256 = Some(verified.body_sha256().to_owned());
    signed_by(&mut event, verified.signers());
    event
}

fn signed_by(event: &mut Event, signers: &[Signer]) {
    if let Some(first) = signers.first() {
        event.caller = Some(first.identity.to_string());
        event.groups = first.groups.iter().map(ToString::to_string).collect();
        event.certificate = Some(first.fingerprint.clone());
    }
    if signers.len() > 1 {
        event.signers = signers.iter().map(|signer| signer.identity.to_string()).collect();
    }
}

fn command_event(core: &Core, verified: &Verified<Command>, decision: &str) -> Event {
    let command = verified.message();
    let mut event = base_event(verified, "command", decision);
    event.action = Some(format!("{}.{}", command.plugin, command.action));
    event.arguments = Some(shortened(core.shown_arguments(command)));
    event.noop = command.options.noop;
    event.effective_user.clone_from(&command.options.effective_user);
    event
}

fn cancel_event(verified: &Verified<Cancel>, decision: &str) -> Event {
    let mut event = base_event(verified, "cancel", decision);
    event.message = format!("cancels {}", verified.message().request_id);
    event
}

fn watch_event(verified: &Verified<Watch>, decision: &str) -> Event {
    let mut event = base_event(verified, "watch", decision);
    event.message = format!("watches {}", verified.message().request_id);
    event
}

impl Core {
    /// Who sent a request that can be told about, and what it was: one that runs or whose result is kept.
    fn known_action(&self, id: &RequestId) -> Option<KnownAction> {
        if let Some(Running { action, .. }) = lock(&self.running).get(id) {
            return Some(KnownAction { caller: action.caller.clone(), action: action.action.clone() });
        }
        if let Some(live) = lock(&self.detached).get(id) {
            return Some(KnownAction { caller: live.order.caller.clone(), action: live.order.name() });
        }
        let results = lock(&self.results);
        let kept = results.get(id)?;
        Some(KnownAction { caller: kept.caller.clone(), action: kept.action.clone() })
    }
}
