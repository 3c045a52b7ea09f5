//! One question on its way: sends the commands, takes the answers, and says what happens.
//!
//! It does nothing by itself: each [`Asking::next`] sends, receives and lets time pass until there is
//! an event. So the caller's own loop decides what is drawn when, and dropping it stops everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use muster_bus::{BoxFuture, BusError, ConsumerEnd, Delivery, Guarantee, Link, Outgoing, PublishError};
use muster_protocol::code::NEEDS_APPROVAL;
use muster_protocol::{
    HostName, Identity, OutputChunk, ProgressReport, ReplyRoute, RequestId, TaskState, Timestamp, routing,
};
use tokio::time::Instant;

use crate::aside::Aside;
use crate::collect::{Cause, Collector, Counts, Expected, HostRecord, Rules, Taken, output_bytes_per_stream};
use crate::controller::{Controller, Parts};
use crate::error::ClientError;
use crate::follow_up::{self, FollowUp, Part, Wish};
use crate::outage::{Outage, Reopened, Tried};
use crate::pending::Pending;
use crate::question::{Audience, Destinations, OutputWish, Prepared, Question, RUN_GRACE_MS, Sending};
use crate::quiet::Quiet;
use crate::receive::{Rejection, RejectionKey, read_many};

/// Most commands handed to the broker and not confirmed yet.
const IN_FLIGHT_MAX: usize = 256;

/// Most deliveries taken and checked in one go before events are handed out.
const BATCH_MAX: usize = 256;

/// So many are worth one check. More of them together cost each a little less still.
const BATCH_ENOUGH: usize = 64;

/// How long answers are gathered in the middle of a stream.
const GATHERING: Duration = Duration::from_millis(5);

/// How long after a search's end what lies unread still counts, in milliseconds: longer than any silence that is asked for.
const LOOK_BACK_MS: i64 = 1_000;

/// How often what lies unread is taken before time passes: with each delivery come those that are there, at most 256.
const UNREAD_MAX: u32 = 400;

/// No more deliveries are taken in one go once they have so many bytes.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a host that had a pending command before may still say something else, in milliseconds: reports of one host
/// come in the order in which it sends them, or a connection of its own later.
const SETTLE_MS: i64 = 2_000;

/// Most reply queues that are made again on one question. An operator or a policy that takes them away again and again
/// is not to be fought.
const REPLY_QUEUES_MAX: u32 = 5;

/// Most connections in a row that break before a host had the time to answer, and bring no news. A broker, or whatever is in front
/// of it, that takes every connection and breaks it would otherwise be asked for ever: each return gives the hosts their time back.
const CONNECTIONS_IN_VAIN_MAX: u32 = 10;

/// Most rejected deliveries whose host is remembered. More are only counted.
const REJECTIONS_MAX: usize = 100;

/// How much longer than its first answer is waited for a watch stays in queues, in milliseconds.
const FOLLOW_UP_QUEUE_GRACE_MS: i64 = 1_000;

/// Something that happened. The state behind it is in [`Asking::collector`].
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The broker has taken all commands.
    Accepted,
    /// A host began.
    Started(HostName),
    /// A host's action wrote something. Only where [`OutputWish::events`](crate::OutputWish) asks for it;
    /// comes before the event of the report that brought it.
    Output(HostName, Vec<OutputChunk>),
    /// A running host sent news.
    Progress(HostName),
    /// A host ended.
    Finished(HostName),
    /// The host will not answer: it has no queue, or was not asked.
    Unreachable(HostName, Cause),
    /// Hosts whose time has run out.
    GivenUp(Vec<HostName>),
    /// A host answered that was not asked.
    Stranger(HostName),
    /// A host answered after its end; nothing changed.
    Late(HostName),
    /// A message that one must not believe.
    Rejected(Rejection),
    /// The connection broke, or the reply queue was taken away; a way back is tried. With the reason.
    Disconnected(String),
    /// Answers can come again. Who had not ended was asked again.
    Reconnected,
    /// The end; nothing follows.
    Ended(End),
}

/// How a question ended.
#[derive(Debug, Clone)]
pub enum End {
    /// Every host that was waited for is in a final state.
    Complete,
    /// The caller has stopped waiting. Hosts that were asked go on.
    Stopped,
    /// It cannot go on. What has arrived stands.
    Failed(ClientError),
}

impl PartialEq for End {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Complete, Self::Complete) | (Self::Stopped, Self::Stopped) => true,
            (Self::Failed(left), Self::Failed(right)) => left.code() == right.code(),
            _ => false,
        }
    }
}

/// What came of a question.
#[derive(Debug)]
pub struct Summary {
    /// How it ended.
    pub end: End,
    /// Whether the broker has taken everything that was to be sent.
    pub accepted: bool,
    /// What is known of each host.
    pub hosts: BTreeMap<HostName, HostRecord>,
    /// How many hosts are in each state.
    pub counts: Counts,
    /// Hosts that answered without being asked, with the number of their reports.
    pub strangers: BTreeMap<HostName, u32>,
    /// Messages that one must not believe: how many in all.
    pub rejected: u64,
    /// The first of them by code, claimed host and signer.
    pub rejections: BTreeMap<RejectionKey, u64>,
    /// Reports to other requests of this session.
    pub for_another: u64,
    /// How often the connection or the reply queue was lost and came back.
    pub reconnects: u32,
    /// The ids of the messages that were sent.
    pub requests: Vec<RequestId>,
    /// Which request each host was asked about, where hosts were named.
    pub asked: BTreeMap<HostName, RequestId>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// A message to be published and what its arrival means.
#[derive(Clone)]
struct Sendable {
    /// Index of the command, and the host if it goes to one.
    command: usize,
    host: Option<HostName>,
}

/// What is done for hosts that have not ended when answers can come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Who is silent is sent the same bytes, which a host acts on once. Everybody is watched, since an answer may have
    /// gone to the queue that was lost.
    Attach {
        /// Whether what was written before is told again.
        replay: bool,
    },
    /// Who is silent is sent the same bytes.
    Resend,
}

type Sent = (Sendable, Result<(), PublishError>);

/// Whom to wait for, and how long.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    expected: Expected,
    quiet: Option<Quiet>,
    rules: Rules,
    expiration_ms: u64,
    output_events: bool,
    /// Who has signed what is sent, where it may have been sent before with fewer signatures.
    signed_by: Option<BTreeSet<Identity>>,
    again: Again,
}

impl Course {
    pub(crate) fn of_sending(pending: &Pending, sending: &Sending, now: Timestamp) -> Self {
        let left_ms = pending.expires_at().since_ms(now).max(1).unsigned_abs();
        let audience = Audience::Hosts(sending.hosts.intersection(&pending.hosts()).cloned().collect());
        let times = (sending.reply_timeout_ms, sending.time_limit_ms);
        let expiration_ms = sending.queue_ms.clamp(1, left_ms);
        let signed_by = pending.signers().iter().map(|signer| signer.identity.clone()).collect();
        let again = Again::Attach { replay: true };
        let course = Self::new(&audience, &BTreeSet::new(), times, sending.output, expiration_ms, again);
        let rules = Rules { settle_ms: Some(SETTLE_MS), sent_before: sending.sent_before, ..course.rules };
        Self { signed_by: Some(signed_by), rules, ..course }
    }

    pub(crate) fn of_question(question: &Question) -> Self {
        let ttl_ms = u64::try_from(question.ttl_ms).unwrap_or(1).max(1);
        let expiration_ms = question.queue_ms.map_or(ttl_ms, |queue_ms| queue_ms.clamp(1, ttl_ms));
        let times = (question.reply_timeout_ms, question.time_limit_ms);
        let again = Again::Attach { replay: true };
        Self::new(&question.audience, &question.likely, times, question.output, expiration_ms, again)
    }

    pub(crate) fn of_follow_up(follow_up: &FollowUp) -> Result<Self, ClientError> {
        let audience = follow_up.audience()?;
        // Of no use to a host that comes back when nobody waits any more.
        let queue_ms = follow_up.ttl_ms.min(follow_up.reply_timeout_ms.saturating_add(FOLLOW_UP_QUEUE_GRACE_MS));
        let times = (follow_up.reply_timeout_ms, follow_up.time_limit_ms);
        // A request must stop even on a host that is away for a moment.
        let queue_ms = if follow_up.wish == Wish::Cancel { follow_up.ttl_ms } else { queue_ms };
        let expiration_ms = u64::try_from(queue_ms).unwrap_or(1).max(1);
        let again = match follow_up.wish {
            Wish::Watch { follow: true, replay } => Again::Attach { replay },
            Wish::Watch { follow: false, .. } | Wish::Cancel => Again::Resend,
        };
        Ok(Self::new(&audience, &BTreeSet::new(), times, follow_up.output, expiration_ms, again))
    }

    fn new(
        audience: &Audience,
        likely: &BTreeSet<HostName>,
        (start_timeout_ms, time_limit_ms): (i64, i64),
        output: OutputWish,
        expiration_ms: u64,
        again: Again,
    ) -> Self {
        let (expected, quiet, hosts) = match audience {
            Audience::Hosts(hosts) => (Expected::Hosts(hosts.clone()), None, hosts.len()),
            Audience::Everyone | Audience::Matching(_) => {
                (Expected::Anyone, Some(Quiet::new(likely.clone())), likely.len().max(1_000))
            }
        };
        let rules = Rules {
            start_timeout_ms,
            run_timeout_ms: time_limit_ms.saturating_add(RUN_GRACE_MS),
            output_bytes_max: output.keep_bytes.unwrap_or_else(|| output_bytes_per_stream(hosts)),
            output_from_anywhere: output.from_anywhere,
            settle_ms: None,
            sent_before: false,
        };
        Self { expected, quiet, rules, expiration_ms, output_events: output.events, signed_by: None, again }
    }
}

/// A question on its way.
pub struct Asking<'a> {
    controller: &'a mut Controller,
    commands: Vec<Prepared>,
    /// Watch the question since the last return from an outage; those of returns before are forgotten.
    watches: Vec<Prepared>,
    /// The number of the first of them, as [`Sendable`] counts: behind the commands and all watches before.
    first_watch: usize,
    /// How long a host may take to answer, in milliseconds.
    start_timeout_ms: i64,
    /// When the connection came back last.
    came_back: Option<Timestamp>,
    /// Whether a host was heard since then.
    heard: bool,
    in_vain: u32,
    expiration_ms: u64,
    output_events: bool,
    signed_by: Option<BTreeSet<Identity>>,
    again: Again,
    outage: Option<Outage>,
    reply_queues_lost: u32,
    asked: BTreeMap<HostName, RequestId>,
    unsent: VecDeque<Sendable>,
    /// Nothing can be sent before the connection is made again.
    connection_lost: bool,
    sending: FuturesUnordered<BoxFuture<'static, Sent>>,
    collector: Collector,
    quiet: Option<Quiet>,
    /// Deliveries that were taken and not checked yet.
    taken: Vec<Delivery>,
    /// Until when more of them are waited for.
    gather_until: Option<Instant>,
    /// How often something unread was taken since time passed last.
    unread: u32,
    /// Time of day when it began; the steady clock counts on from there.
    began_at: Timestamp,
    began: Instant,
    accepted: bool,
    events: VecDeque<Event>,
    end: Option<End>,
    rejected: u64,
    rejections: BTreeMap<RejectionKey, u64>,
    reconnects: u32,
}

impl std::fmt::Debug for Asking<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking")
            .field("commands", &self.commands.len())
            .field("counts", self.collector.counts())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl<'a> Asking<'a> {
    pub(crate) fn new(controller: &'a mut Controller, course: Course, commands: Vec<Prepared>) -> Self {
        let began_at = controller.now();
        let ids = commands.iter().map(|command| command.id);
        let collector = Collector::new(ids, controller.identity().clone(), course.expected, course.rules, began_at);
        let unsent = sendables(&commands);
        Self {
            controller,
            expiration_ms: course.expiration_ms,
            output_events: course.output_events,
            signed_by: course.signed_by,
            again: course.again,
            outage: None,
            reply_queues_lost: 0,
            watches: Vec::new(),
            first_watch: commands.len(),
            start_timeout_ms: course.rules.start_timeout_ms,
            came_back: None,
            heard: false,
            in_vain: 0,
            asked: commands.iter().flat_map(Prepared::asked).collect(),
            commands,
            // A question to nobody has nothing to wait for.
            accepted: unsent.is_empty(),
            unsent,
            connection_lost: false,
            sending: FuturesUnordered::new(),
            collector,
            quiet: course.quiet,
            taken: Vec::new(),
            gather_until: None,
            unread: 0,
            began_at,
            began: Instant::now(),
            events: VecDeque::new(),
            end: None,
            rejected: 0,
            rejections: BTreeMap::new(),
            reconnects: 0,
        }
    }

    /// Sets aside what is long of results and output, see [`Collector::set_aside_in`].
    pub fn set_aside_in(&mut self, aside: Aside) {
        self.collector.set_aside_in(aside);
    }

    /// The next thing that happens; `None` after [`Event::Ended`]. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.end.is_some() {
                return None;
            }
            // Nobody can answer now, so nobody is late.
            if self.outage.is_some() {
                self.return_from_outage().await;
                continue;
            }
            let now = self.now();
            // A host is silent only once it was asked: what the broker does not take yet is not the host's fault.
            if !self.accepted {
                self.collector.all_sent(now);
            }
            // Whose answer lies here is not late, nor is whoever answered while this stood still.
            if self.read_before_time_passes(now).await {
                continue;
            }
            self.unread = 0;
            let given_up = self.collector.advance(now);
            self.tell_whole();
            if !self.events.is_empty() && given_up.is_empty() {
                continue;
            }
            if !given_up.is_empty() {
                self.events.push_back(Event::GivenUp(given_up));
                continue;
            }
            if self.is_over(now) && !self.taken.is_empty() {
                self.check_taken().await;
                continue;
            }
            if self.is_over(now) {
                // It is not quiet while there is something that nobody has looked at.
                let more = match self.quiet.is_none() || self.is_flooded(now) {
                    true => None,
                    false => self.controller.replies.next().now_or_never().flatten(),
                };
                match more {
                    Some(delivery) => self.on_delivery(delivery).await,
                    None => self.finish_with(End::Complete),
                }
                continue;
            }
            self.wait(now).await;
        }
    }

    /// Before somebody is given up, takes and checks what has come, or notices that the connection has ended meanwhile; whether
    /// there was anything. Not without end: a flood does not stop the clock.
    async fn read_before_time_passes(&mut self, now: Timestamp) -> bool {
        if !self.collector.is_anybody_due(now) {
            return false;
        }
        let unread = match self.accepted && self.unread < UNREAD_MAX {
            true => self.controller.replies.next().now_or_never(),
            false => None,
        };
        match unread {
            None if self.taken.is_empty() => return false,
            None => self.check_taken().await,
            Some(Some(delivery)) => {
                self.unread += 1;
                self.on_delivery(delivery).await;
            }
            Some(None) => self.on_consumer_end().await,
        }
        true
    }

    /// Everything is sent, and everybody who is waited for has ended or it has become quiet. The end of a broadcast's window
    /// waits for answers that keep coming.
    fn is_over(&self, now: Timestamp) -> bool {
        let complete = || self.collector.is_complete(now) && self.stream_ends_at().is_none_or(|at| at <= now);
        self.accepted && (complete() || self.quiet_at().is_some_and(|at| at <= now))
    }

    /// Whether the window has been over for longer than any silence, and what still lies there is of nobody new.
    fn is_flooded(&self, now: Timestamp) -> bool {
        let silent_since = self.stream_ends_at().unwrap_or(self.began_at);
        self.collector.is_complete(now.plus_ms(-LOOK_BACK_MS)) && silent_since <= now.plus_ms(-LOOK_BACK_MS)
    }

    /// From when on a broadcast's answers have ceased.
    fn stream_ends_at(&self) -> Option<Timestamp> {
        let ends_at_ms = self.quiet.as_ref()?.streams_until_ms()?;
        Some(self.began_at.plus_ms(ends_at_ms))
    }

    /// From when on nobody else is likely to answer. Not while somebody is still running.
    fn quiet_at(&self) -> Option<Timestamp> {
        let ends_at_ms = self.quiet.as_ref()?.ends_at_ms()?;
        (self.collector.counts().running == 0 && !self.collector.has_overtaken())
            .then(|| self.began_at.plus_ms(ends_at_ms))
    }

    /// Waits for the first of: a confirmation, a delivery, the next deadline.
    async fn wait(&mut self, now: Timestamp) {
        while !self.connection_lost
            && self.sending.len() < IN_FLIGHT_MAX
            && let Some(sendable) = self.unsent.pop_front()
        {
            let Some(message) = self.message(&sendable) else { continue };
            self.sending.push(send(Arc::clone(&self.controller.link), sendable, message));
        }
        // What is over by now was seen to, or waits for the broker to take the commands.
        let quiet_at = self.quiet_at().filter(|at| *at > now);
        let stream_ends_at = self.stream_ends_at().filter(|at| *at > now);
        let wakeup = self.collector.next_wakeup(now).into_iter().chain(quiet_at).chain(stream_ends_at).min();
        let sleep =
            wakeup.map(|at| self.began + Duration::from_millis(at.since_ms(self.began_at).max(0).unsigned_abs()));
        let gather_until = self.gather_until;
        tokio::select! {
            biased;
            Some(sent) = self.sending.next(), if !self.sending.is_empty() => self.on_sent(sent),
            // Until then nobody looks for more, so that not each of them wakes somebody up.
            () = sleep_until(gather_until), if gather_until.is_some() => self.check_taken().await,
            delivery = self.controller.replies.next(), if gather_until.is_none() => match delivery {
                Some(delivery) => self.on_delivery(delivery).await,
                None => self.on_consumer_end().await,
            },
            () = sleep_until(sleep), if sleep.is_some() => {}
        }
        if !self.accepted && self.unsent.is_empty() && self.sending.is_empty() && self.end.is_none() {
            self.accepted = true;
            self.collector.all_sent(self.now());
            self.events.push_back(Event::Accepted);
        }
    }

    /// The message; none if it is a watch that newer ones have replaced.
    fn message(&self, sendable: &Sendable) -> Option<Outgoing> {
        let watch = || self.watches.get(sendable.command.checked_sub(self.first_watch)?);
        let command = self.commands.get(sendable.command).or_else(watch)?;
        let routing_key = match (&sendable.host, &command.destinations) {
            (Some(host), _) => routing::host_key(host),
            (None, Destinations::Broadcast(key)) => key.clone(),
            (None, Destinations::Hosts(_)) => unreachable!("a command to hosts is sent to each of them"),
        };
        Some(Outgoing {
            exchange: routing::EXCHANGE_COMMAND,
            routing_key,
            content_type: command.content_type.to_owned(),
            body: command.body.clone(),
            signatures: command.signatures.clone(),
            expiration_ms: Some(self.expiration_ms),
            persistent: false,
            mandatory: true,
            correlation_id: Some(command.id.to_string()),
        })
    }

    fn on_sent(&mut self, (sendable, result): Sent) {
        let Err(error) = result else { return };
        let now = self.now();
        match (error, sendable.host.clone()) {
            (PublishError::Unroutable { .. }, Some(host)) => self.unreachable(host, Cause::NoQueue, now),
            (PublishError::Refused { .. }, Some(host)) => self.unreachable(host, Cause::NotSent, now),
            // The same bytes again do no harm: a host runs a request id once. The end of the
            // connection, which is noticed by the consumer, decides whether there is a way to send them.
            (PublishError::Unconfirmed { .. } | PublishError::Bus(BusError::Closed(_)), _)
                if self.controller.replies.ended() == ConsumerEnd::ConnectionLost =>
            {
                // Sent at once it would fail at once, and the end of the connection never be noticed.
                self.connection_lost = true;
                self.unsent.push_back(sendable);
            }
            // It may have arrived; the host's silence or answer will tell.
            (error, Some(host)) if error.may_have_arrived() => self.collector.unconfirmed(&host),
            (error, _) => self.fail(error.into()),
        }
    }

    fn unreachable(&mut self, host: HostName, cause: Cause, now: Timestamp) {
        self.collector.unreachable(&host, cause, now);
        self.events.push_back(Event::Unreachable(host, cause));
    }

    /// Takes a delivery and those that are there already. They are checked at once where few are waited for; in the middle of
    /// a stream a few milliseconds later, together with those that come until then.
    async fn on_delivery(&mut self, first: Delivery) {
        self.taken.push(first);
        self.take_what_is_there();
        if self.taken.len() >= BATCH_ENOUGH || !self.is_in_a_stream() {
            return self.check_taken().await;
        }
        self.gather_until.get_or_insert_with(|| Instant::now() + GATHERING);
    }

    /// Whether so many answers are still to come that it pays to wait for some of them.
    fn is_in_a_stream(&self) -> bool {
        let to_come = match &self.quiet {
            Some(quiet) => quiet.to_come(),
            None => self.collector.counts().pending + self.collector.counts().running,
        };
        to_come >= self.taken.len() + BATCH_ENOUGH
    }

    /// Takes deliveries without waiting. The end of the consumer shows again at the next call.
    fn take_what_is_there(&mut self) {
        let mut bytes: usize = self.taken.iter().map(|delivery| delivery.body.len()).sum();
        while self.taken.len() < BATCH_MAX
            && bytes < BATCH_BYTES_MAX
            && let Some(Some(delivery)) = self.controller.replies.next().now_or_never()
        {
            bytes += delivery.body.len();
            self.taken.push(delivery);
        }
    }

    /// Checks what was taken. What came of it is in `events` before the acknowledgement is awaited, so being cancelled there
    /// loses nothing.
    async fn check_taken(&mut self) {
        self.take_what_is_there();
        if let Some(last) = self.judge_taken()
            && let Err(error) = last.ack_through().await
        {
            tracing::debug!(%error, "Answers could not be acknowledged");
        }
    }

    /// Checks what was taken, and gives the last of it, to be acknowledged with all before.
    fn judge_taken(&mut self) -> Option<Delivery> {
        self.gather_until = None;
        let mut deliveries = std::mem::take(&mut self.taken);
        let (now, time) = (self.now(), self.controller.now());
        let Parts { trust, random, .. } = &mut self.controller.parts;
        for report in read_many(&deliveries, trust, time, random) {
            self.on_report(report, now);
        }
        let done_ms = self.now().since_ms(self.began_at);
        if let Some(quiet) = &mut self.quiet {
            quiet.busy_until(done_ms);
        }
        deliveries.pop()
    }

    fn on_report(&mut self, report: Result<ProgressReport, Rejection>, now: Timestamp) {
        let report = match report {
            Ok(report) => report,
            Err(rejection) => {
                self.rejected += 1;
                let key = rejection.key();
                if self.rejections.len() < REJECTIONS_MAX || self.rejections.contains_key(&key) {
                    *self.rejections.entry(key).or_insert(0) += 1;
                }
                // A flood of them must not become a flood of events.
                if self.rejected <= REJECTIONS_MAX as u64 {
                    self.events.push_back(Event::Rejected(rejection));
                }
                return;
            }
        };
        if self.signed_by.as_ref().is_some_and(|signed_by| is_of_before(&report, signed_by)) {
            tracing::debug!(host = %report.host, "A refusal from before the last signatures");
            return;
        }
        let taken = self.collector.take(&report, now);
        let (host, output) = (report.host, report.output);
        let counts = matches!(taken, Taken::Started | Taken::Progress | Taken::Finished);
        self.heard |= counts;
        if self.output_events && counts && !output.is_empty() {
            self.events.push_back(Event::Output(host.clone(), output));
        }
        if taken == Taken::Finished
            && let Some(quiet) = &mut self.quiet
        {
            quiet.answered(&host, now.since_ms(self.began_at));
        }
        self.events.extend(match taken {
            Taken::Started => Some(Event::Started(host)),
            Taken::Progress => Some(Event::Progress(host)),
            // Told once all is there that it sent before.
            Taken::Finished if self.collector.is_overtaken(&host) => None,
            Taken::Finished => Some(Event::Finished(host)),
            Taken::Stranger => Some(Event::Stranger(host)),
            Taken::Late => Some(Event::Late(host)),
            Taken::Duplicate | Taken::Replayed | Taken::Untold | Taken::ForAnother | Taken::Disorderly => None,
        });
        self.tell_whole();
    }

    /// Tells the end of hosts that reports were waited for after it.
    fn tell_whole(&mut self) {
        self.events.extend(self.collector.take_whole().into_iter().map(Event::Finished));
    }

    async fn on_consumer_end(&mut self) {
        let (link, error) = match self.controller.replies.ended() {
            ConsumerEnd::CancelledByBroker => {
                let queue = routing::reply_queue(&self.controller.route);
                let why = self.controller.replies.why().map(str::to_owned);
                let error = ClientError::ReplyQueueGone { queue, why };
                self.reply_queues_lost += 1;
                if self.reply_queues_lost > REPLY_QUEUES_MAX {
                    return self.fail(error);
                }
                (Some(self.controller.link.clone()), error)
            }
            ConsumerEnd::ConnectionLost | ConsumerEnd::Closed => {
                let error = ClientError::closed(self.controller.link.closed().await);
                if self.was_in_vain() {
                    return self.fail(error);
                }
                (None, error)
            }
        };
        self.events.push_back(Event::Disconnected(error.with_causes()));
        let now = self.now();
        let Controller { parts, route, .. } = &mut *self.controller;
        self.outage = Some(Outage::new((parts.bus.clone(), link), route.clone(), error, now, &mut parts.random));
    }

    /// Whether the connection that has ended was one too many that came back for nothing.
    fn was_in_vain(&mut self) -> bool {
        let lived_ms = self.came_back.map(|at| self.now().since_ms(at));
        let in_vain = !self.heard && lived_ms.is_some_and(|lived_ms| lived_ms < self.start_timeout_ms);
        self.in_vain = if in_vain { self.in_vain + 1 } else { 0 };
        self.in_vain >= CONNECTIONS_IN_VAIN_MAX
    }

    /// Waits for the next thing on the way back to answers.
    async fn return_from_outage(&mut self) {
        let Some(outage) = &mut self.outage else { return };
        let result = tokio::select! {
            biased;
            // What was on its way fails with the connection and is put back, to be sent again.
            Some(sent) = self.sending.next(), if !self.sending.is_empty() => return self.on_sent(sent),
            result = outage.tried() => result,
        };
        let now = self.began_at.plus_ms(i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX));
        match outage.judge(result, now, &mut self.controller.parts.random) {
            Tried::Again => {}
            Tried::GivenUp(error) => self.fail(error),
            Tried::Reopened(reopened) => self.ask_again(reopened),
        }
    }

    /// Answers can come again: hosts get the lost time back, and those that have not ended are asked again. What they
    /// had kept for the queue comes by itself; what had gone to the queue that was lost does not.
    fn ask_again(&mut self, (link, replies): Reopened) {
        self.controller.link = link;
        self.controller.replies = replies;
        self.outage = None;
        self.connection_lost = false;
        self.reconnects += 1;
        let now = self.now();
        (self.came_back, self.heard) = (Some(now), false);
        self.collector.resumed(now);
        self.events.push_back(Event::Reconnected);
        let waiting = std::mem::take(&mut self.unsent);
        let is_waiting = |sendable: &Sendable| {
            waiting.iter().any(|other| (other.command, &other.host) == (sendable.command, &sendable.host))
        };
        let again: Vec<Sendable> = sendables(&self.commands)
            .into_iter()
            .filter(|sendable| !is_waiting(sendable) && self.is_silent(sendable))
            .collect();
        self.unsent =
            waiting.into_iter().filter(|sendable| sendable.command < self.commands.len()).chain(again).collect();
        if let Again::Attach { replay } = self.again
            && let Err(error) = self.attach(replay)
        {
            self.fail(error);
        }
    }

    /// Whether nothing was heard of whoever a message goes to. Of a broadcast nobody knows.
    fn is_silent(&self, sendable: &Sendable) -> bool {
        let state = |host| self.collector.host(host).map(|record| record.state);
        sendable.host.as_ref().is_none_or(|host| state(host) == Some(TaskState::Pending))
    }

    /// Watches every named host that has not ended.
    fn attach(&mut self, replay: bool) -> Result<(), ClientError> {
        let goes_on = |host: &&HostName| self.collector.host(host).is_some_and(|record| !record.is_final());
        let parts: Vec<Part> = self
            .commands
            .iter()
            .filter_map(|command| match &command.destinations {
                Destinations::Hosts(hosts) => {
                    let hosts: BTreeSet<HostName> = hosts.iter().filter(goes_on).cloned().collect();
                    (!hosts.is_empty()).then_some(Part { request: command.about, audience: Audience::Hosts(hosts) })
                }
                Destinations::Broadcast(_) => None,
            })
            .collect();
        let watch = FollowUp::new(Wish::Watch { replay, follow: true }, parts);
        let watches = self.controller.sign(|sender, next_id| follow_up::prepare(&watch, sender, next_id))?;
        self.first_watch += self.watches.len();
        let first = self.first_watch;
        for watch in &watches {
            if let Destinations::Hosts(hosts) = &watch.destinations {
                self.collector.attach(watch.id, hosts);
            }
        }
        let behind = sendables(&watches).into_iter().map(|one| Sendable { command: first + one.command, ..one });
        self.unsent.extend(behind);
        self.watches = watches;
        Ok(())
    }

    fn fail(&mut self, error: ClientError) {
        if !self.accepted && self.collector.counts().pending == self.collector.counts().total() {
            // Nothing was confirmed and nobody has spoken, so nobody was asked as far as is known.
            let now = self.now();
            if matches!(error, ClientError::Publish(_) | ClientError::NobodyListens { .. }) {
                self.collector.not_sent(now);
            }
        }
        self.finish_with(End::Failed(error));
    }

    fn finish_with(&mut self, end: End) {
        if self.end.is_none() {
            self.collector.close();
            self.tell_whole();
            self.unsent.clear();
            self.sending.clear();
            self.outage = None;
            self.events.push_back(Event::Ended(end.clone()));
            self.end = Some(end);
        }
    }

    /// Stops waiting. Hosts that were asked go on; [`Event::Ended`] follows.
    pub fn stop(&mut self) {
        if self.end.is_none() {
            // What has come counts. It is not acknowledged: the queue ends with the session.
            drop(self.judge_taken());
        }
        self.finish_with(End::Stopped);
    }

    /// Runs to the end without looking at the events.
    pub async fn finish(mut self) -> Summary {
        while self.next().await.is_some() {}
        self.into_summary()
    }

    /// What is known of the hosts so far.
    #[must_use]
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Where its answers come to.
    #[must_use]
    pub fn route(&self) -> &ReplyRoute {
        &self.controller.route
    }

    /// The ids of its messages, in the order of their hosts' names.
    pub fn requests(&self) -> impl Iterator<Item = RequestId> {
        self.commands.iter().map(|command| command.id)
    }

    /// Its messages with the hosts that each goes to; none for a broadcast.
    pub fn parts(&self) -> impl Iterator<Item = (RequestId, &[HostName])> {
        self.commands.iter().filter_map(|command| match &command.destinations {
            Destinations::Hosts(hosts) => Some((command.id, hosts.as_slice())),
            Destinations::Broadcast(_) => None,
        })
    }

    /// The request that a host is asked about: its command's, or the one that is cancelled or watched.
    #[must_use]
    pub fn asked_about(&self, host: &HostName) -> Option<RequestId> {
        self.asked.get(host).copied()
    }

    /// How long it has been going on, in milliseconds.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.now().since_ms(self.began_at).max(0).unsigned_abs()
    }

    /// What came of it. Ends it if it has not ended.
    #[must_use]
    pub fn into_summary(mut self) -> Summary {
        self.stop();
        let elapsed_ms = self.elapsed_ms();
        Summary {
            end: self.end.take().unwrap_or(End::Stopped),
            accepted: self.accepted,
            counts: *self.collector.counts(),
            strangers: self.collector.strangers().clone(),
            for_another: self.collector.for_another(),
            rejected: self.rejected,
            rejections: self.rejections,
            reconnects: self.reconnects,
            requests: self.commands.iter().map(|command| command.id).collect(),
            asked: self.asked,
            elapsed_ms,
            hosts: self.collector.into_hosts(),
        }
    }

    /// The time of day as it was when asking began plus what a steady clock has counted since: a
    /// machine's clock that is set in between moves no deadline.
    fn now(&self) -> Timestamp {
        self.began_at.plus_ms(i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// Whether a host refuses what it was sent before, when others had signed it. Such a report can have waited on the host for
/// its reader, and means nothing for what is sent now.
fn is_of_before(report: &ProgressReport, signed_by: &BTreeSet<Identity>) -> bool {
    let refusal = report.result.as_ref().filter(|result| result.code == NEEDS_APPROVAL.code);
    let Some(seen) = refusal.and_then(|result| result.data.get("signers")?.as_array()) else { return false };
    let seen: BTreeSet<&str> = seen.iter().filter_map(|name| name.as_str()).collect();
    let ours: BTreeSet<String> = signed_by.iter().map(ToString::to_string).collect();
    seen.len() != ours.len() || !seen.iter().all(|name| ours.contains(*name))
}

fn sendables(commands: &[Prepared]) -> VecDeque<Sendable> {
    let of = |(command, prepared): (usize, &Prepared)| match &prepared.destinations {
        Destinations::Broadcast(_) => vec![Sendable { command, host: None }],
        Destinations::Hosts(hosts) => hosts.iter().map(|host| Sendable { command, host: Some(host.clone()) }).collect(),
    };
    commands.iter().enumerate().flat_map(of).collect()
}

fn send(link: Arc<dyn Link>, sendable: Sendable, message: Outgoing) -> BoxFuture<'static, Sent> {
    Box::pin(async move {
        let result = link.publish(message, Guarantee::Confirmed).await;
        (sendable, result)
    })
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
