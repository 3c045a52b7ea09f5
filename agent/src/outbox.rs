//! Reports on their way out.
//!
//! | report | how it leaves |
//! |---|---|
//! | running | at once or not at all; a gap in the numbers shows the loss |
//! | end of a read-only action that nobody watches (`progress` off), such as a ping | at once if there is a connection, else from memory |
//! | any other end or refusal of a read-only action | from memory, until the broker confirms |
//! | end of an action that changes something | from the spool on disk, until the broker confirms |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_bus::{BusError, CloseReason, Guarantee, Link, Outgoing, PublishError};
use muster_protocol::routing::{EXCHANGE_REPLY, reply_key};
use muster_protocol::{Code, MessageError, PayloadType, ProgressReport, Signature, encode};
use tokio::time::Instant;

use crate::audit::{Durability, Event};
use crate::core::{Core, RecordError, chain, lock, report_error};
use crate::report::{self, Address, Ending};
use crate::spool::{Keep, Key, Parcel, SpoolState, Why};
use crate::state::files;

/// How long the broker keeps a running report that nobody reads: longer than a controller that was
/// busy for a moment needs, shorter than its reply queue lives.
const RUNNING_EXPIRATION_MS: u64 = 60_000;

/// Pause after a report could not be sent although there is a connection. A report whose reader is not there
/// waits by itself; others go on.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Shortest pause between two looks through the spool that nothing new is the reason for.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause between two tries to send a report whose reader is not there. It grows with the time that the
/// reader has been away.
const UNROUTABLE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often the spool is looked through without a reason: reports expire.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How a final report is kept until it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// On disk.
    Durable,
    /// In memory.
    Confirmed,
    /// Handed to the connection, if there is one; else as `Confirmed`.
    Cheap,
}

/// The last report of a request, signed.
pub(crate) struct Signed {
    code: &'static Code,
    parcel: Parcel,
}

/// What is known about the reader of a running report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addressee {
    /// It may come back; until then nobody keeps the report.
    MayBeAway,
    /// Without its queue there is no use in going on.
    MustBeThere,
}

impl Core {
    /// Sends a running report and waits until the broker has it.
    pub(crate) async fn deliver_running(
        &self,
        address: &Address,
        report: &ProgressReport,
        addressee: Addressee,
    ) -> Result<(), PublishError> {
        let body = match encode(report) {
            Ok(body) => body,
            Err(error) => {
                report_encoding(&error);
                return Ok(());
            }
        };
        let parcel = self.signed(address, body);
        let mut message = outgoing(&parcel, RUNNING_EXPIRATION_MS, false);
        message.mandatory = addressee == Addressee::MustBeThere;
        // Without a link it is as if it had broken just now.
        let Some(link) = self.link() else { return Err(PublishError::Bus(BusError::Closed(CloseReason::Requested))) };
        link.publish(message, Guarantee::Confirmed).await?;
        self.counters.reports_sent.add_one();
        Ok(())
    }

    /// Sends a running report if there is a connection.
    pub(crate) async fn send_running(&self, address: &Address, report: &ProgressReport) {
        let body = match encode(report) {
            Ok(body) => body,
            Err(error) => return report_encoding(&error),
        };
        let parcel = self.signed(address, body);
        match self.link() {
            Some(link) => self.fire(&*link, &parcel, RUNNING_EXPIRATION_MS).await,
            None => self.counters.reports_lost.add_one(),
        }
    }

    /// Signs the last report of a request and makes sure that it arrives, or that its loss is recorded.
    pub(crate) async fn send_finished(
        &self,
        address: &Address,
        sequence: u32,
        output: Vec<muster_protocol::OutputChunk>,
        ending: Ending,
        care: Care,
    ) {
        if let Some(signed) = self.sign_finished(address, sequence, output, ending) {
            self.send_signed(signed, care).await;
        }
    }

    /// Makes and signs the last report of a request.
    pub(crate) fn sign_finished(
        &self,
        address: &Address,
        sequence: u32,
        output: Vec<muster_protocol::OutputChunk>,
        ending: Ending,
    ) -> Option<Signed> {
        let code = ending.code;
        match report::finished(address, &self.host, sequence, self.now(), output, ending) {
            Ok(body) => Some(Signed { code, parcel: self.signed(address, body) }),
            Err(error) => {
                report_encoding(&error);
                None
            }
        }
    }

    /// Makes sure that the last report of a request arrives, or that its loss is recorded.
    pub(crate) async fn send_signed(&self, Signed { code, parcel }: Signed, care: Care) {
        if care == Care::Cheap
            && let Some(link) = self.link()
        {
            return self.fire(&*link, &parcel, self.keep_ms()).await;
        }
        if let Err(error) = self.keep(parcel.clone(), care).await {
            tracing::error!(
                request.id = %parcel.request_id,
                error = chain(&error),
                "Could not keep a final report until it is confirmed; trying to send it once"
            );
            self.send_once(&parcel, code.code).await;
            self.settle(&parcel).await;
        }
        self.spool_changed.notify_one();
    }

    /// Puts a report into the spool; onto the disk without holding up everything else.
    async fn keep(&self, parcel: Parcel, care: Care) -> Result<(), RecordError> {
        let spool = self.spool.clone();
        match care {
            Care::Durable => {
                let reserve = self.reserve.clone();
                let (audit, now) = (self.audit.clone(), self.now());
                let put = move || {
                    let mut witness = |parcel: &Parcel| {
                        let written = lock(&audit).write(now, given_up(parcel, EVICTED), Durability::Written);
                        if let Err(error) = &written {
                            report_error("Could not record that a report gives way; it stays", error);
                        }
                        written.is_ok()
                    };
                    reserve.use_for(|| lock(&spool).put(parcel.clone(), Keep::OnDisk, now, &mut witness))
                };
                let (_, evicted) = self.blocking.run(put).await??;
                for parcel in &evicted {
                    self.counters.reports_given_up.add_one();
                    tracing::warn!(request.id = %parcel.request_id, why = EVICTED, "Gave up a final report");
                    self.settle(parcel).await;
                }
            }
            Care::Confirmed | Care::Cheap => {
                lock(&spool).put(parcel, Keep::InMemory, self.now(), &mut |_| true)?;
            }
        }
        Ok(())
    }

    /// Records the end of a request that only read once its report has left memory: until then a restart would have
    /// to tell of it. While it is at work its end is still to come: what has left is the answer to a copy of it.
    async fn settle(&self, parcel: &Parcel) {
        let is_at_work = lock(&self.running).get(&parcel.request_id).is_some_and(|running| !running.ended);
        if !is_at_work && lock(&self.journal).is_unfinished_read(&parcel.request_id) {
            self.record_finish(parcel.request_id, true).await;
        }
    }

    /// Makes the room for ends on the disk anew where it was used.
    fn keep_reserve(&self) {
        if let Err(error) = self.reserve.ensure() {
            tracing::warn!(%error, "There is no room on the disk to keep for the ends of actions");
        }
    }

    /// A report, signed by the host as it is now.
    fn signed(&self, address: &Address, body: Vec<u8>) -> Parcel {
        let signatures = vec![self.materials().credentials.sign(PayloadType::Report.as_str(), &body)];
        Parcel {
            request_id: address.request_id,
            routing_key: reply_key(&address.reply_to, &self.host),
            content_type: PayloadType::Report.as_str().to_owned(),
            body: body.into(),
            signatures,
            expires_at: self.now().plus_ms(i64::try_from(self.keep_ms()).unwrap_or(i64::MAX)),
        }
    }

    fn keep_ms(&self) -> u64 {
        u64::try_from(self.config.report_keep().as_millis()).unwrap_or(u64::MAX)
    }

    async fn fire(&self, link: &dyn Link, parcel: &Parcel, expiration_ms: u64) {
        let message = outgoing(parcel, expiration_ms, false);
        match link.publish(message, Guarantee::Fire).await {
            Ok(()) => self.counters.reports_sent.add_one(),
            Err(error) => {
                self.counters.reports_lost.add_one();
                tracing::debug!(request.id = %parcel.request_id, error = chain(&error), "A report was not sent");
            }
        }
    }

    async fn send_once(&self, parcel: &Parcel, code: &str) {
        let sent = match self.link() {
            Some(link) => link.publish(outgoing(parcel, self.keep_ms(), true), Guarantee::Confirmed).await.is_ok(),
            None => false,
        };
        if !sent {
            // Nothing keeps it that could be kept on.
            let _recorded = self.give_up(
                parcel,
                &format!("no room to keep it, and it could not be sent; its code was {code}"),
                Durability::Synced,
            );
        }
    }

    /// Records that a report is given up. False if that cannot be recorded: a report that is kept stays then.
    fn give_up(&self, parcel: &Parcel, why: &str, durability: Durability) -> bool {
        let event = given_up(parcel, why);
        let write = || {
            if durability == Durability::Written {
                return lock(&self.audit).write(self.now(), event.clone(), durability);
            }
            let unsynced = lock(&self.audit).write_unsynced(self.now(), event.clone())?;
            unsynced.sync().inspect_err(|_| lock(&self.audit).sync_failed())
        };
        let written = self.reserve.use_for(write);
        self.rotate_audit();
        if let Err(error) = written {
            report_error("Could not record that a report is given up", &error);
            return false;
        }
        self.counters.reports_given_up.add_one();
        tracing::warn!(request.id = %parcel.request_id, why, "Gave up a final report");
        true
    }

    /// Writes down what waits and why, for whoever looks at the host. Returns it.
    fn show_spool(&self, before: Option<SpoolState>) -> Option<SpoolState> {
        let state = lock(&self.spool).state(self.now());
        if before.as_ref().is_some_and(|before| before.is_like(&state)) {
            return before;
        }
        let bytes = serde_json::to_vec(&state).unwrap_or_default();
        match self.state.write_unsynced(files::SPOOL_STATE, &bytes) {
            Ok(()) => Some(state),
            Err(error) => {
                tracing::debug!(%error, "Could not write down what waits in the spool");
                before
            }
        }
    }

    /// Sends what waits in the spool, for as long as the agent lives.
    pub(crate) async fn empty_spool_forever(self: Arc<Self>) {
        let mut link = self.link.subscribe();
        let mut shown = None;
        loop {
            self.settle_audit();
            self.keep_reserve();
            self.keep_revocation_lists();
            let blocked = self.empty_spool().await;
            shown = self.show_spool(shown);
            let pause = if blocked { RETRY_PAUSE } else { SWEEP_INTERVAL };
            let next = lock(&self.spool).next_retry();
            let wake_at = wake_at(Instant::now(), pause, next.filter(|_| !blocked && self.link().is_some()));
            tokio::select! {
                biased;
                () = self.tasks.stopping().cancelled() => return,
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    lock(&self.spool).retry_all();
                }
                // While the broker takes nothing, each new report would only try all the others again.
                () = self.spool_changed.notified(), if !blocked => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Tries to send each report that is due once. Returns whether the broker, although there is a connection, does
    /// not take what it is sent.
    pub(crate) async fn empty_spool(&self) -> bool {
        // One at a time: two would send the same report twice.
        let _sending = self.spool_sending.lock().await;
        let expired = lock(&self.spool).expired(self.now());
        for (key, parcel) in expired {
            if self.give_up(&parcel, "it could not be delivered before it expired", durability(key)) {
                lock(&self.spool).remove(key);
                self.settle(&parcel).await;
            }
        }
        let waiting = lock(&self.spool).waiting(Instant::now());
        for key in waiting {
            let Some(link) = self.link() else { return false };
            let parcel = lock(&self.spool).get(key).cloned();
            let Some(kept) = parcel else { continue };
            let Some(parcel) = self.signed_anew(&kept) else {
                if self.give_up(&kept, OF_ANOTHER_HOST, durability(key)) {
                    lock(&self.spool).remove(key);
                }
                continue;
            };
            let left_ms = u64::try_from(parcel.expires_at.since_ms(self.now())).unwrap_or(0).max(1);
            match link.publish(outgoing(&parcel, left_ms, true), Guarantee::Confirmed).await {
                Ok(()) => {
                    self.counters.reports_sent.add_one();
                    lock(&self.spool).remove(key);
                    self.settle(&parcel).await;
                }
                // What the broker does not take now, it does not take from the next report either.
                Err(error) if self.not_sent(key, &parcel, &error) => return true,
                Err(_) if lock(&self.spool).get(key).is_none() => self.settle(&parcel).await,
                Err(_) => {}
            }
        }
        false
    }

    /// A report as the host signs it now. What was signed with a certificate that has been replaced since may not be
    /// believed any more when it arrives. `None` of what another host says, or of what is no report: a directory of state
    /// that was copied to this host must not make it vouch for the other one.
    fn signed_anew(&self, parcel: &Parcel) -> Option<Parcel> {
        let credentials = self.materials().credentials;
        if parcel.signatures.iter().any(|signature| signature.keyid == credentials.fingerprint()) {
            return Some(parcel.clone());
        }
        let report = muster_protocol::decode::<ProgressReport>(&parcel.body).ok();
        if parcel.content_type != PayloadType::Report.as_str() || report?.host != self.host {
            return None;
        }
        let signatures = vec![credentials.sign(&parcel.content_type, &parcel.body)];
        Some(Parcel { signatures, ..parcel.clone() })
    }

    /// Returns whether the broker is what is in the way.
    fn not_sent(&self, key: Key, parcel: &Parcel, error: &PublishError) -> bool {
        let for_good = match error {
            PublishError::Unroutable { .. } => {
                let away_ms = lock(&self.spool).note_unroutable(key, self.now());
                lock(&self.spool).note_try(key, Why::Unroutable);
                match away_ms {
                    Some(away_ms) => {
                        let away = Duration::from_millis(u64::try_from(away_ms).unwrap_or(0));
                        let pause = away.clamp(RETRY_PAUSE, UNROUTABLE_PAUSE_MAX);
                        lock(&self.spool).put_off(key, Instant::now() + pause);
                        return false;
                    }
                    None => Some("its reader's queue has been gone for five minutes"),
                }
            }
            // The reader's queue is full: that is nobody else's matter either.
            PublishError::Refused { .. } => {
                let mut spool = lock(&self.spool);
                spool.note_try(key, Why::Refused);
                spool.put_off(key, Instant::now() + RETRY_PAUSE);
                return false;
            }
            PublishError::TooLarge { .. } => Some("it is larger than the broker takes"),
            _ => None,
        };
        match for_good {
            Some(why) => {
                if self.give_up(parcel, why, durability(key)) {
                    lock(&self.spool).remove(key);
                } else {
                    lock(&self.spool).put_off(key, Instant::now() + UNROUTABLE_PAUSE_MAX);
                }
            }
            None => {
                lock(&self.spool).note_try(key, Why::Unconfirmed);
                tracing::debug!(request.id = %parcel.request_id, error = chain(error), "A final report waits in the spool");
            }
        }
        for_good.is_none()
    }
}

const OF_ANOTHER_HOST: &str = "it is no report of this host, and this host does not sign it";

const EVICTED: &str = "its room was needed for the end of an action that changed something";

fn given_up(parcel: &Parcel, why: &str) -> Event {
    let mut event = Event::new("report", "given_up").with_message(why);
    event.request_id = Some(parcel.request_id.to_string());
    event
}

/// How the loss of a report is recorded: of one that would have survived the host, so that the record does too.
fn durability(key: Key) -> Durability {
    if key.is_durable() { Durability::Synced } else { Durability::Written }
}

/// When the spool is looked at again. A report whose time has come and that could not be sent all the same, because
/// there is no connection or the broker takes nothing, must not make the agent try without a pause.
fn wake_at(now: Instant, pause: Duration, next_retry: Option<Instant>) -> Instant {
    next_retry.map_or(now + pause, |at| at.clamp(now + RETRY_PAUSE_MIN.min(pause), now + pause))
}

fn outgoing(parcel: &Parcel, expiration_ms: u64, care: bool) -> Outgoing {
    Outgoing {
        exchange: EXCHANGE_REPLY,
        routing_key: parcel.routing_key.clone(),
        content_type: parcel.content_type.clone(),
        body: parcel.body.clone(),
        signatures: signatures_header(&parcel.signatures),
        expiration_ms: Some(expiration_ms),
        persistent: care,
        mandatory: care,
        correlation_id: Some(parcel.request_id.to_string()),
    }
}

/// The header's text for these signatures.
pub(crate) fn signatures_header(signatures: &[Signature]) -> Bytes {
    serde_json::to_vec(signatures).expect("signatures hold only texts").into()
}

fn report_encoding(error: &MessageError) {
    // The builder keeps within all limits, so this is a mistake of the program.
    tracing::error!(%error, "A report could not be encoded");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the simulation: a report that was put off came due while there was no connection, and the agent looked
    /// through its spool without end.
    #[tokio::test(start_paused = true)]
    async fn the_spool_is_never_looked_at_again_at_once() {
        let now = Instant::now() + Duration::from_secs(100);
        let (pause, ago) = (Duration::from_secs(60), |seconds| now.checked_sub(Duration::from_secs(seconds)));
        assert_eq!(wake_at(now, pause, None), now + pause);
        assert_eq!(wake_at(now, pause, ago(90)), now + RETRY_PAUSE_MIN);
        assert_eq!(wake_at(now, pause, Some(now)), now + RETRY_PAUSE_MIN);
        assert_eq!(wake_at(now, pause, Some(now + Duration::from_secs(7))), now + Duration::from_secs(7));
        assert_eq!(wake_at(now, pause, Some(now + Duration::from_secs(600))), now + pause);
    }
}
