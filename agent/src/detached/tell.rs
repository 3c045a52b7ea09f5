//! Telling of a detached action: its output as numbered reports from the disk, then how it ended.
//!
//! One report at a time, each confirmed by the broker before the next one is read. So a broker that is slow or
//! away makes nobody wait and no memory grow: what is not sent yet is on disk.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use muster_bus::PublishError;
use muster_protocol::{OutputChunk, code};
use tokio::time::Instant;

use super::cursor::{CursorLog, Place, Sent, after_lost_lines};
use super::directory::{Reply, Totals};
use super::live::{Live, is_of_another_boot};
use super::source::{Portion, Source};
use super::state::Event;
use crate::audit::Event as AuditEvent;
use crate::core::{Core, chain, lock, report_error};
use crate::execute::FLUSH_INTERVAL;
use crate::outbox::{Addressee, Care};
use crate::report::{Address, Ending, running};

/// Output that waited on disk for longer than a connection was away and is still sent, in bytes. Of more the
/// oldest is left out, visibly; a watch shows all of it.
const BACKLOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Pause after a report that the broker did not take although there is a connection.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Most of an action's output, of each stream, that its last report carries where no running ones are wanted:
/// two chunks.
const CHUNKS_AT_END: usize = 2;

/// Why telling ended before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The agent stops, or who asked wants no more.
    Stopped,
    /// Nobody is there to read it.
    Unread,
}

/// Reports to one reader, numbered.
pub(crate) struct Teller {
    pub(crate) core: Arc<Core>,
    pub(crate) address: Address,
    pub(crate) sequence: u32,
    /// Where numbers are written down; a watch needs none.
    pub(crate) log: Option<CursorLog>,
    pub(crate) addressee: Addressee,
}

impl Teller {
    /// Sends output as it comes until the action has ended and all of it was sent.
    pub(crate) async fn output(&mut self, source: &mut Option<Source>, live: &Live) -> io::Result<Result<(), Cut>> {
        let mut more = live.output.subscribe();
        let mut ended = live.ended.subscribe();
        let mut sent_at = Instant::now();
        let mut away = false;
        loop {
            more.mark_unchanged();
            // Before reading: what was written before the end is read after it was seen.
            let has_ended = *ended.borrow_and_update();
            let at_end = self.with(source, move |source| {
                if away {
                    source.skip(BACKLOG_BYTES_MAX)?;
                }
                source.fill()
            });
            let at_end = at_end.await?;
            away = false;
            let Some(current) = source.as_mut() else { return Ok(Ok(())) };
            let flush_at = sent_at + FLUSH_INTERVAL;
            let is_last = has_ended && at_end;
            if current.is_full() || is_last || (!current.is_empty() && Instant::now() >= flush_at) {
                let portion = current.take(is_last);
                if !portion.chunks.is_empty() {
                    let skipped = current.has_skipped();
                    match self.send(portion, skipped).await? {
                        Ok(waited) => away = waited,
                        Err(cut) => return Ok(Err(cut)),
                    }
                    sent_at = Instant::now();
                    continue;
                }
                if is_last && current.is_empty() {
                    return Ok(Ok(()));
                }
                // The beginning of a character waits for the rest of it.
                sent_at = Instant::now();
            }
            let flush_due = !current.is_empty();
            tokio::select! {
                biased;
                () = self.core.tasks.stopping().cancelled() => return Ok(Err(Cut::Stopped)),
                changed = more.changed() => if changed.is_err() { return Ok(Err(Cut::Stopped)) },
                changed = ended.changed() => if changed.is_err() { return Ok(Err(Cut::Stopped)) },
                () = tokio::time::sleep_until(sent_at + FLUSH_INTERVAL), if flush_due => {}
            }
        }
    }

    /// Reading a disk may take its time; the connection must not wait for it.
    async fn with<T: Send + 'static>(
        &self,
        source: &mut Option<Source>,
        work: impl FnOnce(&mut Source) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(mut taken) = source.take() else { return Err(io::Error::other("reading was interrupted")) };
        let done = self.core.blocking.run(move || {
            let done = work(&mut taken);
            (taken, done)
        });
        let (taken, done) = done.await.map_err(io::Error::other)?;
        *source = Some(taken);
        done
    }

    /// Says that it runs, and no more.
    pub(crate) async fn begun(&mut self) -> io::Result<Result<bool, Cut>> {
        let place = Place::default();
        let portion = Portion { chunks: Vec::new(), place, from: Totals::default(), to: Totals::default() };
        self.send(portion, false).await
    }

    async fn send(&mut self, portion: Portion, skipped: bool) -> io::Result<Result<bool, Cut>> {
        let Portion { chunks, place, from, to } = portion;
        let sent = Sent { sequence: self.sequence, place, from, to, skipped, last: false };
        self.note(&sent)?;
        self.sequence = self.sequence.saturating_add(1);
        Ok(self.deliver(sent.sequence, chunks).await)
    }

    pub(crate) fn note(&mut self, sent: &Sent) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.note(sent))
    }

    /// Sends a running report until the broker has it. Returns whether that had to wait for a connection.
    pub(crate) async fn deliver(&self, sequence: u32, chunks: Vec<OutputChunk>) -> Result<bool, Cut> {
        let report = running(&self.address, &self.core.host, sequence, self.core.now(), chunks);
        let mut link = self.core.link.subscribe();
        let mut waited = false;
        loop {
            let has_link = link.borrow_and_update().is_some();
            if !has_link {
                waited = true;
                tokio::select! {
                    biased;
                    () = self.core.tasks.stopping().cancelled() => return Err(Cut::Stopped),
                    changed = link.changed() => if changed.is_err() { return Err(Cut::Stopped) },
                }
                continue;
            }
            let delivered = tokio::select! {
                biased;
                () = self.core.tasks.stopping().cancelled() => return Err(Cut::Stopped),
                delivered = self.core.deliver_running(&self.address, &report, self.addressee) => delivered,
            };
            match delivered {
                Ok(()) => return Ok(waited),
                Err(PublishError::Unroutable { .. }) => return Err(Cut::Unread),
                Err(PublishError::TooLarge { .. }) => return Ok(waited),
                Err(error) => {
                    tracing::debug!(request.id = %self.address.request_id, error = chain(&error), "A report waits on disk");
                    waited = true;
                    tokio::select! {
                        biased;
                        () = self.core.tasks.stopping().cancelled() => return Err(Cut::Stopped),
                        changed = link.changed() => if changed.is_err() { return Err(Cut::Stopped) },
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                    }
                }
            }
        }
    }
}

/// Tells of an action to its end. Returns whether it came to that; if not, the next start goes on.
pub(super) async fn tell(core: &Arc<Core>, live: &Arc<Live>) -> bool {
    match tell_all(core, live).await {
        Ok(Ok(())) => true,
        Ok(Err(_)) => false,
        Err(error) => {
            report_error("Could not read or record what an action's reports carry; only its end is told", &error);
            wait_for_end(core, live).await && conclude(core, live, None, None, true).await
        }
    }
}

async fn wait_for_end(core: &Arc<Core>, live: &Arc<Live>) -> bool {
    let mut ended = live.ended.subscribe();
    tokio::select! {
        biased;
        () = core.tasks.stopping().cancelled() => false,
        ended = ended.wait_for(|ended| *ended) => ended.is_ok(),
    }
}

/// Makes the last report of an action that ran in an agent which ended before it could: there is its result and
/// nothing else. Its number lies behind all that were noted ahead.
async fn tell_result(core: &Arc<Core>, live: &Arc<Live>) -> bool {
    let id = live.order.request_id;
    let noted = lock(&core.journal).unfinished().into_iter().find(|started| started.id == id);
    let sequence = noted.map_or(u32::MAX - 1, |started| started.sequence_reserved);
    let (core, address, addressee) = (core.clone(), live.order.address(), Addressee::MayBeAway);
    let teller = Teller { core: core.clone(), address, sequence, log: None, addressee };
    // That it ended was written into the audit log before there was a result.
    conclude(&core, live, Some(teller), None, false).await
}

async fn tell_all(core: &Arc<Core>, live: &Arc<Live>) -> io::Result<Result<(), Cut>> {
    if live.directory.is_result() && *live.ended.borrow() {
        return Ok(if tell_result(core, live).await { Ok(()) } else { Err(Cut::Stopped) });
    }
    let (log, last) = CursorLog::open(&live.directory.cursor())?;
    let concluded_before = last.is_some_and(|last| last.last);
    if *live.ended.borrow() && !concluded_before {
        note_end(core, live);
    }
    let address = live.order.address();
    let addressee = Addressee::MayBeAway;
    let mut teller = Teller { core: core.clone(), address, sequence: 0, log: Some(log), addressee };
    if let Some(last) = &last {
        let host_restarted = live.begun().is_some_and(|begun| is_of_another_boot(&begun));
        teller.sequence = match (last.last, host_restarted) {
            (true, _) => last.sequence,
            (false, true) => after_lost_lines(Some(last)),
            (false, false) => {
                let chunks = Source::again(&live.directory, last)?;
                if let Err(cut) = teller.deliver(last.sequence, chunks).await {
                    return Ok(Err(cut));
                }
                last.sequence.saturating_add(1)
            }
        };
    }
    let mut source = Some(match &last {
        Some(last) => Source::behind(&live.directory, last)?,
        None => Source::beginning(&live.directory)?,
    });
    if live.order.progress && !concluded_before {
        if last.is_none()
            && let Err(cut) = teller.begun().await?
        {
            return Ok(Err(cut));
        }
        if let Err(cut) = teller.output(&mut source, live).await? {
            return Ok(Err(cut));
        }
    } else if !wait_for_end(core, live).await {
        return Ok(Err(Cut::Stopped));
    }
    let told = conclude(core, live, Some(teller), source, !concluded_before).await;
    Ok(if told { Ok(()) } else { Err(Cut::Stopped) })
}

/// Writes into the audit log that an action has ended: as soon as that is known, not only once it can be told, since
/// the broker may be away for long. Once, also over restarts of the agent.
pub(super) fn note_end(core: &Core, live: &Live) {
    if let Some(reply) = live.reply()
        && live.has_news(&reply)
    {
        note(core, live, &reply.ending());
    }
}

fn note(core: &Core, live: &Live, ending: &Ending) {
    core.note(finished_event(live, ending));
    // Where there is no directory any more, nobody finds it again either.
    if let Err(error) = live.directory.end_noted()
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "Could not record that the audit log has the end of an action");
    }
}

/// Makes the last report and sees that it is safe.
async fn conclude(
    core: &Arc<Core>,
    live: &Arc<Live>,
    teller: Option<Teller>,
    mut source: Option<Source>,
    is_news: bool,
) -> bool {
    let id = live.order.request_id;
    drop(live.apply(Event::CaughtUp, &*core.clock));
    let reply = live.reply().unwrap_or_else(|| {
        tracing::error!(request.id = %id, "The reply of an action that was there cannot be read any more");
        let what = "how the action ended was written down and cannot be read any more; what it did is not known";
        Reply::new(&Ending::new(&code::INTERRUPTED, what), core.now())
    });
    let mut ending = reply.ending();
    let mut output = Vec::new();
    if let Some(source) = source.as_mut()
        && !live.order.progress
    {
        (output, ending.output_truncated_from) = output_at_end(source, &ending, reply.written);
    }
    if source.is_some_and(|source| source.has_skipped()) || teller.is_none() {
        ending.output_truncated_from = Some(reply.written.sum());
    }
    let mut sequence = teller.as_ref().map_or(u32::MAX - 1, |teller| teller.sequence);
    if let Some(mut teller) = teller {
        let place = Place::default();
        let all = reply.kept;
        let sent = Sent { sequence, place, from: all, to: all, skipped: false, last: true };
        sequence = sent.sequence;
        if let Err(error) = teller.note(&sent) {
            report_error("Could not record that the last report of an action is made", &error);
        }
    }
    if is_news && live.has_news(&reply) {
        note(core, live, &ending);
    }
    // A report in the spool says it already; made again it would say the same under the same number.
    if !lock(&core.spool).holds_outcome(id) {
        core.send_finished(&live.order.address(), sequence, output, ending, Care::Durable).await;
    }
    core.record_finish(id, false).await;
    core.profiles_due.add(&live.order.plugin);
    core.counters.actions_finished.add_one();
    drop(live.apply(Event::Kept, &*core.clock));
    true
}

/// What fits into the last report where no running ones were wanted, and how much there was if not all does.
fn output_at_end(source: &mut Source, ending: &Ending, written: Totals) -> (Vec<OutputChunk>, Option<u64>) {
    let mut output: Vec<OutputChunk> = Vec::new();
    let mut to = Totals::default();
    for _ in 0..CHUNKS_AT_END {
        let Ok(at_end) = source.fill() else { break };
        let portion = source.take(at_end);
        output.extend(portion.chunks);
        to = portion.to;
    }
    let cut = ending.output_truncated_from.or((to.sum() < written.sum()).then_some(written.sum()));
    (output, cut)
}

pub(super) fn finished_event(live: &Live, ending: &Ending) -> AuditEvent {
    let mut event = AuditEvent::new("finished", ending.code.outcome().as_str());
    event.request_id = Some(live.order.request_id.to_string());
    event.caller = Some(live.order.caller.to_string());
    event.action = Some(live.order.name());
    event.code = Some(ending.code.code.to_owned());
    event.message.clone_from(&ending.message);
    event
}
