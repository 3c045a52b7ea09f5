//! A connection after its handshakes with TCP and TLS: one task that reads, writes and keeps time.
//!
//! Each poll does what there is to do, in this order, until nothing is left or its share of work is used up: orders of
//! others, what is due by the clock, writing, reading. Whether it is its turn at all, and how large its share is, is said in
//! [`turns`](super::turns). What is written goes through one buffer of the thread and one
//! system call for everything that waits; more is made only when the socket has taken it.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::ServerConnection;
use tokio::io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::hub::{Hub, Turn};
use super::line::{Line, Orders};
use super::scratch::{self, WRITE_BYTES};
use super::turns::{Begin, Next, Slice, Standing, Wakes};
use crate::fault::Fault;
use crate::ids::ConnectionId;
use crate::outlet::Output;
use crate::session::{Progress, Session};
use crate::wire::Encoder;

/// Reads before a connection is closed: what the client has said before counts.
const LAST_READS_MAX: usize = 8;

/// Bytes of answers that may wait before nothing more is read from their connection: whoever asks has to read the
/// answers. Four thousand confirms, or one large message that comes back.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

/// How long the end of a connection may take: the last frames, and the other end's last word.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// Looks at whether a client may stay. Its answer is the reason to end the connection.
pub(super) type Recheck = dyn Fn(&Line, &[u8]) -> Option<Fault> + Send + Sync;

/// A connection that is served until it ends.
pub(super) struct Connection {
    hub: Arc<Hub>,
    line: Arc<Line>,
    standing: Standing,
    stream: TcpStream,
    tls: Box<ServerConnection>,
    session: Box<Session>,
    encoder: Encoder,
    /// What was taken from the outbox and is not written.
    outputs: VecDeque<Output>,
    /// Bytes of messages that were written since the engine was last told at once.
    undrained: usize,
    drained_soon_bytes: usize,
    timer: Pin<Box<Sleep>>,
    timer_ms: i64,
    stage: Stage,
    /// Bytes of those of them that the client has asked for.
    answers_bytes: usize,
    recheck: Arc<Recheck>,
    /// Why it is closed as soon as it is open: only then a client hears the reason.
    farewell: Option<Fault>,
    /// What the handshake has read beyond its end.
    fresh: bool,
}

/// What is done with it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Read and written.
    Open,
    /// Written only: it has published while the broker is full.
    Blocked,
    /// The last frames are written.
    Flushing,
    /// Everything is written; the other end may still have something on the way, and a reset would overtake our last words.
    Lingering,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// As AMQP has it, or by our decision.
    Closed,
    /// The other end hung up without a word.
    HungUp,
    /// The network, or bytes that are not TLS.
    Broken(io::Error),
}

/// One step of a connection's work.
enum Step {
    /// Something was done.
    Done,
    /// Nothing can be done now.
    Idle,
}

impl Connection {
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the connection owns")]
    pub(super) fn new(
        hub: Arc<Hub>,
        line: Arc<Line>,
        stream: TcpStream,
        tls: ServerConnection,
        session: Session,
        outbox_bytes_max: usize,
        recheck: Arc<Recheck>,
        farewell: Option<Fault>,
    ) -> Self {
        Self {
            standing: hub.turns.join(&session.peer().user, line.id),
            hub,
            line,
            stream,
            tls: Box::new(tls),
            session: Box::new(session),
            encoder: Encoder::new(),
            outputs: VecDeque::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_ms: i64::MIN,
            stage: Stage::Open,
            answers_bytes: 0,
            undrained: 0,
            drained_soon_bytes: (outbox_bytes_max / 8).min(WRITE_BYTES),
            recheck,
            farewell,
            fresh: true,
        }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.line.id
    }

    fn round(&mut self, context: &mut Context<'_>) -> Result<Step, End> {
        self.keep_time(context)?;
        let (outputs, orders) = self.line.take();
        self.answers_bytes += outputs.iter().map(answer_bytes).sum::<usize>();
        match self.outputs.is_empty() {
            true => self.outputs = outputs,
            false => self.outputs.extend(outputs),
        }
        let obeyed = self.obey(orders, context)?;
        let wrote = self.write(context)?;
        let read = match self.stage {
            Stage::Open if !self.is_congested() => self.read(context)?,
            Stage::Lingering => self.discard(context)?,
            Stage::Open | Stage::Blocked | Stage::Flushing => Step::Idle,
        };
        // What this task has put into its own outbox wakes nobody: it looks again.
        Ok(match (obeyed, wrote, read) {
            (Step::Idle, Step::Idle, Step::Idle) => Step::Idle,
            _ => Step::Done,
        })
    }

    /// Whether the client asks faster than it reads the answers.
    fn is_congested(&self) -> bool {
        self.answers_bytes > ANSWERS_BYTES_MAX
    }

    fn obey(&mut self, orders: Orders, context: &mut Context<'_>) -> Result<Step, End> {
        if orders.is_empty() {
            return Ok(Step::Idle);
        }
        if orders.look && self.stage == Stage::Blocked && self.has_hung_up() {
            return Err(End::HungUp);
        }
        if orders.unblock && self.stage == Stage::Blocked {
            self.stage = Stage::Open;
            let now_ms = self.hub.now_ms();
            let progress = self.session.unblock(&mut self.hub.turn(Some(self.line.id)), now_ms);
            self.follow(progress);
        }
        let mut close = orders.close;
        if close.is_none() && orders.recheck {
            let certificate = self.tls.peer_certificates().and_then(|chain| chain.first());
            close = (self.recheck)(&self.line, certificate.map(AsRef::as_ref).unwrap_or_default());
        }
        if let Some(fault) = close
            && matches!(self.stage, Stage::Open | Stage::Blocked)
        {
            // What the client has said before, such as an acknowledgement, still counts; after the close nothing does.
            for _ in 0..LAST_READS_MAX {
                if self.stage != Stage::Open || matches!(self.read(context)?, Step::Idle) {
                    break;
                }
            }
            if !matches!(self.stage, Stage::Open | Stage::Blocked) {
                return Ok(Step::Done);
            }
            let now_ms = self.hub.now_ms();
            let progress = self.session.close(&fault, &mut self.hub.turn(Some(self.line.id)), now_ms);
            // The answer has to be read.
            self.stage = Stage::Open;
            self.follow(progress);
        }
        Ok(Step::Done)
    }

    /// Whether the client has hung up, also where something that it sent before was not read.
    fn has_hung_up(&self) -> bool {
        let ready = std::pin::pin!(self.stream.ready(Interest::READABLE));
        let polled = ready.poll(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn follow(&mut self, mut progress: Progress) {
        while matches!(self.stage, Stage::Open | Stage::Blocked) {
            match progress {
                Progress::Reading => return,
                Progress::Blocked if self.stage == Stage::Blocked => return,
                Progress::Blocked if self.hub.block(&self.line) => self.stage = Stage::Blocked,
                // It is not full any more. What was not taken may make it so again.
                Progress::Blocked => {
                    let now_ms = self.hub.now_ms();
                    progress = self.session.unblock(&mut self.hub.turn(Some(self.line.id)), now_ms);
                }
                Progress::Over => self.leave(),
            }
        }
    }

    /// From now on only what waits is written.
    fn leave(&mut self) {
        self.stage = Stage::Flushing;
        self.arm(self.hub.now_ms().saturating_add(i64::try_from(LEAVE_LIMIT.as_millis()).unwrap_or(0)));
    }

    /// Does what is due, and sees to it that the task is woken for the next.
    fn keep_time(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        loop {
            let now_ms = self.hub.now_ms();
            match self.stage {
                Stage::Open | Stage::Blocked => {
                    let deadline_ms = self.session.deadline_ms();
                    if deadline_ms <= now_ms {
                        let progress = self.session.tick(&mut self.hub.turn(Some(self.line.id)), now_ms);
                        if progress == Progress::Over {
                            self.leave();
                        }
                        // A session that wants the same moment again gets it a little later.
                        if self.session.deadline_ms() <= now_ms {
                            self.arm(now_ms + 1);
                        }
                        if self.session.deadline_ms() > now_ms || self.stage == Stage::Flushing {
                            continue;
                        }
                    } else if self.timer_ms > deadline_ms || self.timer_ms <= now_ms {
                        // The timer is moved only if it would be late or is over; one that is early asks again.
                        self.arm(deadline_ms);
                    }
                }
                Stage::Flushing | Stage::Lingering if self.timer_ms <= now_ms => return Err(End::Closed),
                Stage::Flushing | Stage::Lingering => {}
            }
            match self.timer.as_mut().poll(context) {
                // The clock of the timer and the time of day are two.
                Poll::Ready(()) if self.timer_ms > self.hub.now_ms() => self.arm(self.timer_ms),
                Poll::Ready(()) => {}
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn arm(&mut self, at_ms: i64) {
        let wait_ms = at_ms.saturating_sub(self.hub.now_ms()).max(1).unsigned_abs();
        self.timer_ms = at_ms;
        self.timer.as_mut().reset(Instant::now() + Duration::from_millis(wait_ms));
    }

    /// Writes what waits, as much as the socket takes.
    fn write(&mut self, context: &mut Context<'_>) -> Result<Step, End> {
        let mut step = Step::Idle;
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut Socket { stream: &mut self.stream, context }) {
                    Ok(_) => step = Step::Done,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(step),
                    Err(error) => return Err(End::Broken(error)),
                }
            }
            if self.outputs.is_empty() {
                break;
            }
            self.encrypt().map_err(End::Broken)?;
        }
        if self.stage == Stage::Flushing {
            self.tls.send_close_notify();
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut Socket { stream: &mut self.stream, context }) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(step),
                    Err(error) => return Err(End::Broken(error)),
                }
            }
            self.stage = Stage::Lingering;
            match Pin::new(&mut self.stream).poll_shutdown(context) {
                Poll::Ready(Err(error)) => return Err(End::Broken(error)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            step = Step::Done;
        }
        Ok(step)
    }

    /// Makes frames of what waits, as many as go together, and encrypts them.
    fn encrypt(&mut self) -> io::Result<()> {
        let terms = self.session.terms();
        let (plain, held) = scratch::with(|scratch| {
            let plain = &mut scratch.plain;
            let mut held = 0;
            while plain.len() < WRITE_BYTES {
                let Some(output) = self.outputs.pop_front() else { break };
                held += output.message_bytes();
                self.answers_bytes -= answer_bytes(&output);
                self.encoder.push(&output, terms, plain);
            }
            self.encoder.finish(plain);
            self.tls.writer().write_all(plain)?;
            io::Result::Ok((plain.len(), held))
        })?;
        if self.outputs.is_empty() {
            self.outputs = VecDeque::new();
        }
        self.line.count_sent(plain);
        if held > 0 {
            self.undrained += held;
            // Small deliveries, as ten thousand hosts get them at once, need no turn each: the engine hears of them with
            // the next turn that anybody takes. A consumer with much to read waits for the next piece.
            let soon = self.undrained >= self.drained_soon_bytes;
            self.hub.drained(self.line.id, held, soon);
            if soon {
                self.undrained = 0;
            }
        }
        self.session.sent(self.hub.now_ms());
        Ok(())
    }

    /// Reads what has come, at most one buffer of it.
    fn read(&mut self, context: &mut Context<'_>) -> Result<Step, End> {
        if std::mem::take(&mut self.fresh) {
            self.take_plain()?;
            return Ok(Step::Done);
        }
        // The session needs no buffer of the thread, so it can be called while they are lent.
        scratch::with(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch.read);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(Step::Idle),
                Poll::Ready(Err(error)) => return Err(End::Broken(error)),
                Poll::Ready(Ok(())) => {}
            }
            let mut bytes = buffer.filled();
            if bytes.is_empty() {
                return Err(End::HungUp);
            }
            // All of it, also when the broker is full meanwhile: what was read is not to be had again.
            while !bytes.is_empty() && matches!(self.stage, Stage::Open | Stage::Blocked) {
                self.tls.read_tls(&mut bytes).map_err(End::Broken)?;
                if let Err(error) = self.tls.process_new_packets() {
                    // The alert that says why, if it can be sent.
                    let mut socket = Socket { stream: &mut self.stream, context };
                    while self.tls.wants_write() && self.tls.write_tls(&mut socket).is_ok() {}
                    return Err(End::Broken(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
                self.take_plain()?;
            }
            Ok(Step::Done)
        })
    }

    /// Hands what was decrypted to the session.
    fn take_plain(&mut self) -> Result<(), End> {
        let now_ms = self.hub.now_ms();
        let mut progress = Progress::Reading;
        let (session, line) = (&mut self.session, &self.line);
        let hung_up = in_turns(&self.hub, line.id, &mut self.tls.reader(), |turn, bytes| {
            if progress != Progress::Over {
                progress = session.received(bytes, turn, now_ms);
            }
            line.count_received(bytes.len());
        });
        let hung_up = hung_up.map_err(End::Broken)?;
        self.line.note(self.session.is_open(), self.session.channels());
        self.follow(progress);
        if self.session.is_open()
            && let Some(fault) = self.farewell.take()
        {
            self.line.close(fault);
        }
        match hung_up && self.stage == Stage::Open {
            true => Err(End::HungUp),
            false => Ok(()),
        }
    }

    /// Reads what nobody wants any more, until the other end hangs up.
    fn discard(&mut self, context: &mut Context<'_>) -> Result<Step, End> {
        scratch::with(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch.read);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => Ok(Step::Idle),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Ok(Step::Done),
                Poll::Ready(_) => Err(End::Closed),
            }
        })
    }
}

/// Hands on what there is to read, with a turn for each piece, which is at most a record of TLS: others have theirs in
/// between. Tells whether nothing comes any more, since the last word of TLS was said.
fn in_turns(
    hub: &Hub,
    own: ConnectionId,
    reader: &mut impl io::BufRead,
    mut take: impl FnMut(&mut Turn<'_>, &[u8]),
) -> io::Result<bool> {
    loop {
        let size = match reader.fill_buf() {
            Ok([]) => return Ok(true),
            Ok(bytes) => {
                take(&mut hub.turn(Some(own)), bytes);
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        reader.consume(size);
    }
}

/// What an answer takes while it waits. Deliveries are the engine's to bound, which knows what the client has not read.
fn answer_bytes(output: &Output) -> usize {
    match output {
        Output::Deliver { .. } => 0,
        other => std::mem::size_of::<Output>() + other.message_bytes(),
    }
}

impl Future for Connection {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        this.line.listen(context.waker());
        let began_us = this.hub.uptime_us();
        match this.standing.begin(&this.hub.turns, began_us, || Arc::clone(&this.line)) {
            Begin::Work => {}
            Begin::Wait => return Poll::Pending,
            Begin::Yield => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let mut slice = Slice::new(began_us);
        let has_more = loop {
            match this.round(context) {
                Ok(Step::Done) if slice.goes_on(this.hub.uptime_us()) => {}
                Ok(Step::Done) => break true,
                Ok(Step::Idle) => break false,
                Err(end) => return Poll::Ready(end),
            }
        };
        let now_us = this.hub.uptime_us();
        let used_us = now_us.saturating_sub(began_us);
        match this.standing.end(&this.hub.turns, used_us, has_more, now_us, || Arc::clone(&this.line)) {
            // Others are waiting too.
            Next::Yield => context.waker().wake_by_ref(),
            Next::Wait => {}
        }
        Poll::Pending
    }
}

impl Wakes for Arc<Line> {
    fn wake(&self) {
        Line::wake(self);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let now_ms = self.hub.now_ms();
        self.session.lost(&mut self.hub.turn(Some(self.line.id)), now_ms);
        self.hub.leave(&self.line);
        self.hub.turns.leave(&self.standing);
    }
}

/// Writes what the socket takes now, and has the task woken when it takes more.
struct Socket<'a, 'b> {
    stream: &'a mut TcpStream,
    context: &'a mut Context<'b>,
}

impl Socket<'_, '_> {
    fn done(written: Poll<io::Result<usize>>) -> io::Result<usize> {
        match written {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl io::Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::done(Pin::new(&mut *self.stream).poll_write(self.context, bytes))
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Self::done(Pin::new(&mut *self.stream).poll_write_vectored(self.context, pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Read};

    use muster_daemon::{Clock as _, SystemClock};
    use muster_pki::testing::TestAuthority;
    use muster_protocol::Timestamp;
    use rustls::ClientConnection;

    use super::*;
    use crate::access::Users;
    use crate::engine::Engine;
    use crate::noise::Noise;
    use crate::server::Limits;
    use crate::session::{Broker, Shared as _};

    /// A reader that looks, whenever more is read, whether others could have their turn.
    struct Watched<'a, R> {
        hub: &'a Hub,
        reader: R,
        free: Vec<bool>,
    }

    impl<R: BufRead> Read for Watched<'_, R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reader.read(buffer)
        }
    }

    impl<R: BufRead> BufRead for Watched<'_, R> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            self.free.push(self.hub.is_free());
            self.reader.fill_buf()
        }

        fn consume(&mut self, amount: usize) {
            self.reader.consume(amount);
        }
    }

    #[test]
    fn each_record_of_tls_has_a_turn_of_its_own() {
        muster_pki::tls::install_crypto_provider();
        let now = Timestamp(SystemClock.now_ms());
        let authority = TestAuthority::new(now).unwrap();
        let trust = authority.trust().unwrap();
        let of_server = muster_pki::tls::server_config(&authority.broker("broker/mq1").unwrap(), &trust, now).unwrap();
        let of_client = muster_pki::tls::client_config(&authority.credentials("user/lea").unwrap(), &trust).unwrap();
        let mut server = ServerConnection::new(of_server).unwrap();
        let mut client = ClientConnection::new(of_client, "localhost".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut std::mem::take(&mut bytes).as_slice()).unwrap();
            server.process_new_packets().unwrap();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut std::mem::take(&mut bytes).as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        // Large and small ones, in one read.
        for size in [8_000, 10, 5_000, 1] {
            client.writer().write_all(&vec![b'x'; size]).unwrap();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
        }
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            server.process_new_packets().unwrap();
        }
        let engine = Engine::new(Limits::default().engine, Vec::new(), Vec::new());
        let broker = Broker { engine, users: Users::new(), noise: Noise::default() };
        let hub = Hub::new(broker, None, Arc::new(SystemClock), 1);
        let mut watched = Watched { hub: &hub, reader: server.reader(), free: Vec::new() };
        let mut pieces = Vec::new();
        let over = in_turns(&hub, ConnectionId(1), &mut watched, |turn, bytes| {
            turn.lock();
            assert!(!hub.is_free(), "it is its turn");
            pieces.push(bytes.len());
        });
        assert!(!over.unwrap());
        assert_eq!(pieces, [8_000, 10, 5_000, 1]);
        assert_eq!(watched.free, [true; 5], "others could have theirs before each, and after the last");
    }
}
