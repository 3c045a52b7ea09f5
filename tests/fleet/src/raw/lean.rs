//! All connections in one loop: a read, a write and a TLS record for each answer.
//!
//! Answers wait while many bytes of others are on their way: a broker whose queue is full drops what nobody has asked it to
//! confirm, and the echo does not ask.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConnection;

use super::connection::{Connection, receive};
use super::scanner::{Message, Scanner};

/// Bytes that are read from one connection at once.
const READ_BYTES: usize = 256 * 1024;

/// Most connections that are looked at after one call of the kernel.
const EVENTS_MAX: usize = 1_024;

/// Bytes of answers that are on their way at most: a quarter of what the reply queue holds
/// (`muster_broker_config`'s policy for reply queues). Short answers never reach it.
const UNDER_WAY_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// An answer: frames that differ from host to host, and frames that do not.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) head: Box<[u8]>,
    pub(super) body: Arc<[u8]>,
    /// Bytes of the content alone.
    pub(super) bytes: u64,
}

/// What a connection does with a message.
pub(super) enum Role {
    /// It counts it.
    Counts { messages: usize, bytes: u64 },
    /// It sends these answers, chosen by who asks.
    Answers {
        by_controller: Vec<Vec<Answer>>,
        /// Whether it does this time.
        now: bool,
    },
}

/// One connection.
pub(super) struct Peer {
    socket: TcpStream,
    tls: ClientConnection,
    scanner: Scanner,
    pub(super) role: Role,
}

/// All connections of an echo, served by whoever calls [`Loop::run`].
pub(super) struct Loop {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    pub(super) peers: Vec<Peer>,
    /// Answers that are owed, as peer and controller.
    owed: VecDeque<(usize, u8)>,
    /// Bytes of answers that were sent and not counted yet.
    under_way: u64,
    /// The first byte of every request, before its mark is put on it.
    plain: u8,
    /// Requests of other rounds are not answered: hosts that need not answer one may read it when the next has begun.
    round: Round,
}

/// Which round a request belongs to. Its mark is this and who asks, in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Round(u8);

impl Round {
    /// Rounds that can be told apart.
    const COUNT: u8 = 64;

    /// The round after this one.
    pub(super) fn next(self) -> Self {
        Self((self.0 + 1) % Self::COUNT)
    }

    /// The mark of a request of the controller with this number, 0 or 1.
    pub(super) fn mark(self, controller: u8) -> u8 {
        self.0 * 2 + controller
    }

    /// The controller's number, from the mark of a request of this round.
    pub(super) fn controller(self, mark: u8) -> Option<u8> {
        (mark / 2 == self.0).then_some(mark % 2)
    }
}

impl Loop {
    /// A loop without connections, for requests whose body begins with `plain`.
    pub(super) fn new(plain: u8) -> Result<Self> {
        Ok(Self {
            poll: Poll::new().context("make an epoll instance")?,
            events: Events::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_BYTES],
            peers: Vec::new(),
            owed: VecDeque::new(),
            under_way: 0,
            plain,
            round: Round::default(),
        })
    }

    /// Takes over an open connection.
    pub(super) fn add(&mut self, connection: Connection, role: Role) -> Result<()> {
        let Connection { tls, socket, plain } = connection;
        socket.set_read_timeout(None)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(self.peers.len()), both).context("watch a connection")?;
        let mut scanner = Scanner::default();
        scanner.feed(&plain, |_| {})?;
        self.peers.push(Peer { socket, tls, scanner, role });
        Ok(())
    }

    /// Sends prepared frames from a connection.
    pub(super) fn send(&mut self, peer: usize, frames: &[u8]) -> Result<()> {
        let peer = &mut self.peers[peer];
        peer.tls.writer().write_all(frames)?;
        peer.flush()
    }

    /// Serves all connections until `done`, which is asked after every look at the kernel's list.
    pub(super) fn run(&mut self, limit: Duration, mut done: impl FnMut(&[Peer]) -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !done(&self.peers) {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "answers are missing after {} s", limit.as_secs());
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.context("wait for connections")?,
            }
            for event in &self.events {
                let number = event.token().0;
                let peer = &mut self.peers[number];
                if event.is_readable() {
                    let came = peer.read(&mut self.buffer, self.plain)?;
                    self.under_way = self.under_way.saturating_sub(came.counted);
                    let of_now = came.marks.into_iter().filter_map(|mark| self.round.controller(mark));
                    self.owed.extend(of_now.map(|controller| (number, controller)));
                }
                peer.flush()?;
                // What is owed, as long as not too much is under way.
                while self.under_way < UNDER_WAY_BYTES_MAX
                    && let Some((number, controller)) = self.owed.pop_front()
                {
                    let peer = &mut self.peers[number];
                    self.under_way += peer.answer(controller)?;
                    peer.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Begins a round, and forgets what the one before has left.
    pub(super) fn begin(&mut self, round: Round) {
        self.round = round;
        self.owed.clear();
        self.under_way = 0;
    }
}

/// What was read from a connection.
#[derive(Default)]
struct Came {
    /// The marks of the requests: who asked.
    marks: Vec<u8>,
    /// Bytes of answers.
    counted: u64,
}

impl Peer {
    fn read(&mut self, buffer: &mut [u8], plain: u8) -> Result<Came> {
        let (scanner, role) = (&mut self.scanner, &mut self.role);
        let mut came = Came::default();
        let mut take = |message: Message| match role {
            Role::Counts { messages, bytes } => {
                *messages += 1;
                *bytes += message.bytes;
                came.counted += message.bytes;
            }
            Role::Answers { now: false, .. } => {}
            Role::Answers { now: true, .. } => came.marks.push(message.first ^ plain),
        };
        loop {
            match self.socket.read(buffer) {
                Ok(0) => bail!("the broker hangs up in the middle of a measurement"),
                Ok(read) => {
                    receive(&mut self.tls, &buffer[..read], |bytes| scanner.feed(bytes, &mut take))?;
                    // Less than asked for: there was no more, and the kernel tells of what comes next.
                    if read < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read"),
            }
        }
        Ok(came)
    }

    /// Sends the answers to a request of this controller, and says how many bytes of content that is.
    fn answer(&mut self, controller: u8) -> Result<u64> {
        let Role::Answers { by_controller, .. } = &self.role else { return Ok(0) };
        let answers = by_controller.get(usize::from(controller)).context("a request of nobody")?;
        let parts: Vec<IoSlice<'_>> =
            answers.iter().flat_map(|answer| [IoSlice::new(&answer.head), IoSlice::new(&answer.body)]).collect();
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let written = self.tls.writer().write_vectored(&parts)?;
        ensure!(written == size, "TLS takes {written} of {size} bytes");
        Ok(answers.iter().map(|answer| answer.bytes).sum())
    }

    fn flush(&mut self) -> Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                // The kernel tells when there is room.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("send"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_who_asks_and_in_which_round() {
        let mut round = Round::default();
        for _ in 0..200 {
            let before = round;
            round = round.next();
            for controller in [0, 1] {
                let mark = round.mark(controller);
                assert_eq!((round.controller(mark), before.controller(mark)), (Some(controller), None));
            }
        }
    }
}
