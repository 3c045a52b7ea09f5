//! What time does to a connection.

use amq_protocol::protocol::{AMQPClass, connection};
use tracing::{debug, info};

use super::Shared;
use super::talk::{Blocked, Phase, Talk, cut};
use crate::outlet::{Outlet as _, Output};

impl Talk {
    /// Bytes came.
    pub(super) fn heard(&mut self, now_ms: i64) {
        self.heard_ms = now_ms;
    }

    /// Bytes went.
    pub(super) fn sent(&mut self, now_ms: i64) {
        self.sent_ms = now_ms;
    }

    pub(super) fn deadline_ms(&self) -> i64 {
        match self.phase {
            Phase::Beginning | Phase::Starting | Phase::Tuning | Phase::Opening => {
                self.began_ms.saturating_add(self.settings.handshake_ms)
            }
            Phase::Running => self.speak_ms().min(self.dead_ms()),
            Phase::Closing { until_ms } => until_ms,
            Phase::Over => i64::MAX,
        }
    }

    /// When the next heartbeat is due: twice in the agreed interval, unless something else was sent.
    fn speak_ms(&self) -> i64 {
        match self.heartbeat_s {
            0 => i64::MAX,
            interval => self.sent_ms.saturating_add(i64::from(interval) * 500),
        }
    }

    /// When the client is taken for dead: after two intervals in which nothing came. While nothing is read, nothing can come.
    fn dead_ms(&self) -> i64 {
        match self.heartbeat_s {
            0 => i64::MAX,
            _ if self.blocked != Blocked::No => i64::MAX,
            interval => self.heard_ms.saturating_add(i64::from(interval) * 2_000),
        }
    }

    pub(super) fn tick(&mut self, shared: &mut impl Shared, now_ms: i64) {
        if now_ms < self.deadline_ms() {
            return;
        }
        match self.phase {
            Phase::Running if now_ms >= self.dead_ms() => {
                info!(connection = self.id.0, user = %self.peer.user, "no heartbeat came");
                self.lost(shared, now_ms);
            }
            Phase::Running => {
                shared.lock().1.send(self.id, Output::Heartbeat);
                self.sent(now_ms);
            }
            phase => {
                debug!(connection = self.id.0, ?phase, "took too long");
                self.lost(shared, now_ms);
            }
        }
    }

    /// The peer has published while the broker is full.
    pub(super) fn block(&mut self, shared: &mut impl Shared) {
        if self.blocked != Blocked::No {
            return;
        }
        self.blocked = Blocked::Yes(self.blocked_notify);
        if self.blocked_notify {
            let blocked = connection::Blocked { reason: cut(&shared.why_full()) };
            self.say(0, AMQPClass::Connection(connection::AMQPMethod::Blocked(blocked)), shared);
        }
    }

    pub(super) fn unblock(&mut self, shared: &mut impl Shared, now_ms: i64) {
        if let Blocked::Yes(told) = std::mem::replace(&mut self.blocked, Blocked::No) {
            self.heard(now_ms);
            if told && self.is_running() {
                let unblocked = connection::AMQPMethod::Unblocked(connection::Unblocked {});
                self.say(0, AMQPClass::Connection(unblocked), shared);
            }
            self.take_stalled(shared, now_ms);
        }
    }
}
