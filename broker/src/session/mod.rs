//! One connection as a state machine without I/O: bytes in, calls of the engine, outputs to the outlet.

use std::sync::Arc;

use crate::access::{Peer, Users};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::ids::ConnectionId;
use crate::outlet::Outlet;
use crate::wire::Terms;

/// What all sessions share, behind one lock.
#[derive(Debug)]
pub struct Broker {
    /// Exchanges, queues, consumers.
    pub engine: Engine,
    /// Connections and channels of each user.
    pub users: Users,
}

/// The way to what is shared. The server locks when [`Shared::lock`] is first called, and keeps the lock until all bytes
/// it gave to [`Session::received`] are handled; bytes that only complete no frame, heartbeats and contents need none.
pub trait Shared {
    /// Where outputs go.
    type Outlet: Outlet;

    /// What is shared, and where outputs go. Called often in one batch.
    fn lock(&mut self) -> (&mut Broker, &mut Self::Outlet);
}

/// What every session of a broker goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The virtual host.
    pub vhost: String,
    /// The largest frame in bytes, header and end included, that is offered.
    pub frame_bytes_max: u32,
    /// The highest channel number that is offered.
    pub channels_max: u16,
    /// Seconds between heartbeats that are offered; 0 is none.
    pub heartbeat_s: u16,
    /// The largest content in bytes.
    pub message_bytes_max: u64,
    /// Milliseconds from the first byte to `connection.open`.
    pub handshake_ms: i64,
    /// Milliseconds that a client has to answer `connection.close`.
    pub close_ms: i64,
    /// What the broker calls itself, and its version.
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
    /// Reads nothing until [`Session::unblock`]: it has published while the broker is full.
    Blocked,
    /// Writes what waits in the outbox, closes the socket, and drops the session. It has left the engine already.
    Over,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    id: ConnectionId,
    peer: Peer,
    settings: Arc<Settings>,
}

#[expect(unused_variables, clippy::unimplemented, reason = "the shape, before the work")]
impl Session {
    /// A connection whose TLS handshake is done. The engine hears of it with `connection.open`.
    #[must_use]
    pub fn new(id: ConnectionId, peer: Peer, settings: Arc<Settings>, now_ms: i64) -> Self {
        Self { id, peer, settings }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whose it is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Takes bytes that the client sent, all of them; an incomplete frame is kept.
    pub fn received(&mut self, bytes: &[u8], shared: &mut impl Shared, now_ms: i64) -> Progress {
        unimplemented!()
    }

    /// Bytes have been written to the socket: no heartbeat is due for a while.
    pub fn sent(&mut self, now_ms: i64) {
        unimplemented!()
    }

    /// When [`Session::tick`] has something to do, in milliseconds since the epoch. Later after [`Session::received`] and
    /// [`Session::sent`]; calling `tick` too early does nothing, so the server need not move its timer each time.
    #[must_use]
    pub fn deadline_ms(&self) -> i64 {
        unimplemented!()
    }

    /// Sends a heartbeat, ends a dead connection, a handshake that takes too long, a close that is not answered.
    pub fn tick(&mut self, shared: &mut impl Shared, now_ms: i64) -> Progress {
        unimplemented!()
    }

    /// Ends the connection for a reason of the broker's own ([`Fault::connection_forced`]): `connection.close` is sent and
    /// answered or not, within `close_ms`.
    pub fn close(&mut self, fault: &Fault, shared: &mut impl Shared, now_ms: i64) -> Progress {
        unimplemented!()
    }

    /// The broker is no longer full: tells the client, if it was told so.
    pub fn unblock(&mut self, shared: &mut impl Shared) {
        unimplemented!()
    }

    /// The socket is gone. To be called unless the session is over; harmless twice.
    pub fn lost(&mut self, shared: &mut impl Shared, now_ms: i64) {
        unimplemented!()
    }

    /// What the client may be sent, for [`crate::wire::Encoder`]. It changes during the handshake only.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms { frame_bytes_max: self.settings.frame_bytes_max, cancel_notify: true }
    }
}
