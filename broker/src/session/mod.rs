//! One connection as a state machine without I/O: bytes in, calls of the engine, outputs to the outlet.
//!
//! # The data and how it flows
//!
//! [`Session::received`] takes the bytes of a connection in whatever pieces they come. Frames are read
//! ([`crate::wire`]), methods are looked at in the light of what has been said before, what the peer may do is asked
//! ([`crate::access`]), contents are put together, and the [`Engine`] is called. What is answered goes, like everything that
//! the engine says, through the [`Outlet`]. [`Session::tick`] is called when time has passed: heartbeats, and an end to what
//! takes too long.
//!
//! A refusal is a [`Fault`]. It ends the channel or the connection, as AMQP has it (section 4.10): `close` is sent, and
//! everything but the answer is ignored.
//!
//! # Non-goals
//!
//! No I/O, no clock, no TLS: whose certificate it is has been decided before ([`Peer`]).
//!
//! # Invariants
//!
//! - However the same bytes are cut, the same calls are made and the same outputs given.
//! - Nothing reaches the engine before `connection.open` was granted, and nothing after the connection's end.
//! - What is kept of a peer's bytes is bounded: one frame, contents up to a limit, 255 bytes for each channel.
//! - Codes and words of refusals are RabbitMQ's where it has some.

mod arguments;
mod basic;
mod channel;
mod handshake;
mod heartbeat;
mod methods;
mod stalled;
mod talk;

use std::borrow::Cow;
use std::sync::Arc;

use crate::access::{Peer, Users};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::ids::ConnectionId;
use crate::noise::Noise;
use crate::outlet::Outlet;
use crate::wire::{Reader, Terms};

use talk::Talk;

/// What all sessions share, behind one lock.
#[derive(Debug)]
pub struct Broker {
    /// Exchanges, queues, consumers.
    pub engine: Engine,
    /// Connections and channels of each user.
    pub users: Users,
    /// What the log has said of exceptions.
    pub noise: Noise,
}

/// The way to what is shared. The server locks when [`Shared::lock`] is first called, and keeps the lock until all bytes
/// it gave to [`Session::received`] are handled; bytes that only complete no frame, heartbeats and contents need none.
pub trait Shared {
    /// Where outputs go.
    type Outlet: Outlet;

    /// What is shared, and where outputs go. Called often in one batch.
    fn lock(&mut self) -> (&mut Broker, &mut Self::Outlet);

    /// Why publishers wait, for those of them that want to know (`connection.blocked`). Asked while they do.
    fn why_full(&mut self) -> Cow<'static, str> {
        LOW_ON_MEMORY.into()
    }
}

/// RabbitMQ's words.
pub(crate) const LOW_ON_MEMORY: &str = "low on memory";

/// What every session of a broker goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The virtual host.
    pub vhost: String,
    /// The largest frame in bytes, header and end included, that is offered.
    pub frame_bytes_max: u32,
    /// Most channels at once that are offered.
    pub channels_max: u16,
    /// Seconds between heartbeats that are offered; 0 is none.
    pub heartbeat_s: u16,
    /// The largest content in bytes.
    pub message_bytes_max: u64,
    /// Milliseconds from the beginning to `connection.open`.
    pub handshake_ms: i64,
    /// Milliseconds that a client has to answer `connection.close`.
    pub close_ms: i64,
    /// What the broker calls itself.
    pub product: &'static str,
    /// Its version.
    pub version: &'static str,
    /// A name of this broker for clients (`cluster_name`).
    pub cluster_name: String,
}

/// What the server does next with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Reads on.
    Reading,
    /// Reads nothing until [`Session::unblock`]: it has published while the broker is full, or declared something durable
    /// while the disk takes no more.
    Blocked,
    /// Writes what waits in the outbox, closes the socket, and drops the session. It has left the engine already.
    Over,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    reader: Reader,
    talk: Talk,
    /// What came behind a message that a full broker does not take. At most what was read at once.
    held: Vec<u8>,
}

impl Session {
    /// A connection whose TLS handshake is done. The engine hears of it with `connection.open`.
    #[must_use]
    pub fn new(id: ConnectionId, peer: Peer, settings: Arc<Settings>, now_ms: i64) -> Self {
        Self { reader: Reader::new(), talk: Talk::new(id, peer, settings, now_ms), held: Vec::new() }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.talk.id
    }

    /// Whose it is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.talk.peer
    }

    /// Whether `connection.open` was granted and nothing has ended it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.talk.is_running()
    }

    /// Open channels, those included whose exception has not been answered.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.talk.channels()
    }

    /// Takes bytes that the client sent, all of them; an incomplete frame is kept, and so is what follows a message that a full
    /// broker does not take.
    pub fn received(&mut self, bytes: &[u8], shared: &mut impl Shared, now_ms: i64) -> Progress {
        self.talk.heard(now_ms);
        if self.held.is_empty() {
            return self.take(bytes, shared, now_ms);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        self.take(&held, shared, now_ms)
    }

    fn take(&mut self, mut bytes: &[u8], shared: &mut impl Shared, now_ms: i64) -> Progress {
        while self.talk.listens() {
            if self.talk.progress() == Progress::Blocked {
                self.held = bytes.to_vec();
                break;
            }
            match self.reader.next(&mut bytes, self.talk.frame_bytes_max()) {
                Ok(Some(frame)) => self.talk.frame(&frame, shared, now_ms),
                Ok(None) => break,
                // Where the next frame would begin cannot be known any more.
                Err(fault) => {
                    self.talk.end(&fault, (0, 0), shared, now_ms);
                    self.talk.stop_listening();
                }
            }
        }
        self.talk.progress()
    }

    /// Bytes have been written to the socket: no heartbeat is due for a while.
    pub fn sent(&mut self, now_ms: i64) {
        self.talk.sent(now_ms);
    }

    /// When [`Session::tick`] has something to do, in milliseconds since the epoch. Later after [`Session::received`] and
    /// [`Session::sent`]; calling `tick` too early does nothing, so the server need not move its timer each time.
    #[must_use]
    pub fn deadline_ms(&self) -> i64 {
        self.talk.deadline_ms()
    }

    /// Sends a heartbeat, ends a dead connection, a handshake that takes too long, a close that is not answered.
    pub fn tick(&mut self, shared: &mut impl Shared, now_ms: i64) -> Progress {
        self.talk.tick(shared, now_ms);
        self.talk.progress()
    }

    /// Ends the connection for a reason of the broker's own ([`Fault::connection_forced`]): `connection.close` is sent and
    /// answered or not, within `close_ms`. A connection that was not open is over at once.
    pub fn close(&mut self, fault: &Fault, shared: &mut impl Shared, now_ms: i64) -> Progress {
        self.talk.close(fault, shared, now_ms);
        self.talk.progress()
    }

    /// The broker is no longer full: tells the client, if it was told so, and takes what was not taken. That may make it full
    /// again.
    pub fn unblock(&mut self, shared: &mut impl Shared, now_ms: i64) -> Progress {
        self.talk.unblock(shared, now_ms);
        if self.held.is_empty() {
            return self.talk.progress();
        }
        self.received(&[], shared, now_ms)
    }

    /// The socket is gone. To be called unless the session is over; harmless twice.
    pub fn lost(&mut self, shared: &mut impl Shared, now_ms: i64) {
        self.talk.lost(shared, now_ms);
    }

    /// What the client may be sent, for [`crate::wire::Encoder`]. It changes during the handshake only.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.talk.terms()
    }
}
