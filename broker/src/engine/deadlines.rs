//! What happens because time passes: messages and queues expire.
//!
//! Each queue stands in the list of deadlines at most once, perhaps too early: its head may have been taken since. A tick
//! that comes too early looks again and moves it. So nothing is done for a message that is delivered in time.

use super::Engine;
use super::keys::QueueKey;
use super::queue::NEVER;
use crate::outlet::Outlet;

impl Engine {
    /// Drops what has expired and queues whose time without consumers is over; call it at [`Engine::next_deadline`].
    pub fn tick(&mut self, now_ms: i64, outlet: &mut impl Outlet) {
        while let Some(&(deadline, key)) = self.deadlines.first() {
            if deadline > now_ms {
                return;
            }
            self.deadlines.pop_first();
            let Some(queue) = self.queues.get_mut(key) else { continue };
            queue.scheduled_ms = NEVER;
            queue.used_ms.get_or_insert(now_ms);
            if queue.expires_at_ms() <= now_ms {
                self.remove_queue(key, outlet);
            } else {
                self.drop_expired(key, now_ms, outlet);
                self.schedule(key);
            }
        }
    }

    /// When [`Engine::tick`] has something to do, at the earliest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<i64> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Sees to it that a queue stands in the list of deadlines in time.
    pub(super) fn schedule(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let deadline = queue.deadline_ms();
        if deadline >= queue.scheduled_ms {
            return;
        }
        if queue.scheduled_ms != NEVER {
            self.deadlines.remove(&(queue.scheduled_ms, key));
        }
        queue.scheduled_ms = deadline;
        self.deadlines.insert((deadline, key));
    }
}
