//! Unconfirmed messages that are in lapin's line and not written yet.
//!
//! lapin writes in a thread of its own. A sender that waits until its message is written is woken by that thread,
//! which on a busy machine costs more than the message, and nothing is won: a message that is written may be lost as
//! well. So small messages are left in the line, and what is put there in one go leaves in one TLS record. How much may
//! be left is bounded; beyond that a sender waits as for a large message, so that an action that prints without end
//! is held up by the broker as before.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

/// Largest message that is left in the line, in bytes: an ordinary report with its signature has two to four thousand.
const LEFT_MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Most that is left there of one connection, in bytes.
const LEFT_BYTES_MAX: usize = 64 * 1024;

/// Resolves when a message is written, or will not be.
pub(super) type Written = BoxFuture<'static, lapin::Result<()>>;

/// What was left in the line, oldest first.
#[derive(Default)]
pub(super) struct Line {
    left: Mutex<Left>,
}

#[derive(Default)]
struct Left {
    /// Each with its size.
    messages: VecDeque<(usize, Written)>,
    bytes: usize,
}

impl Left {
    /// Forgets what has been written. lapin writes in order, so that is at the front.
    fn forget_written(&mut self) {
        while let Some((bytes, written)) = self.messages.front_mut() {
            if written.now_or_never().is_none() {
                return;
            }
            self.bytes -= *bytes;
            self.messages.pop_front();
        }
    }
}

impl Line {
    /// Leaves a message of so many bytes in the line, whose future resolves when it is written; gives it back where it
    /// has to be waited for.
    pub(super) fn leave(&self, bytes: usize, written: Written) -> Option<Written> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.forget_written();
        if bytes > LEFT_MESSAGE_BYTES_MAX || left.bytes + bytes > LEFT_BYTES_MAX {
            return Some(written);
        }
        left.bytes += bytes;
        left.messages.push_back((bytes, written));
        None
    }

    /// Waits until everything that is in the line now is written.
    pub(super) async fn written(&self) {
        let messages = {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.bytes = 0;
            std::mem::take(&mut left.messages)
        };
        for (_, written) in messages {
            // Whoever left it does not want to know.
            drop(written.await);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// A message that is written when the sender says so, or goes.
    fn message() -> (oneshot::Sender<()>, Written) {
        let (sender, written) = oneshot::channel();
        (sender, written.map(|_| Ok(())).boxed())
    }

    #[test]
    fn what_is_left_in_the_line_is_bounded() {
        let line = Line::default();
        let mut senders = VecDeque::new();
        let mut leave = |bytes| {
            let (sender, written) = message();
            senders.push_back(sender);
            (line.leave(bytes, written).is_none(), senders.len())
        };
        assert_eq!(leave(LEFT_MESSAGE_BYTES_MAX + 1), (false, 1), "too large");
        for number in 0..LEFT_BYTES_MAX / LEFT_MESSAGE_BYTES_MAX {
            assert_eq!(leave(LEFT_MESSAGE_BYTES_MAX), (true, number + 2));
        }
        assert!(!leave(1).0, "the line is full");
        // The oldest is written: the first sender belongs to the message that was never left.
        drop(senders.drain(..2));
        let (_sender, written) = message();
        assert!(line.leave(1, written).is_none(), "there is room again");
    }

    #[tokio::test]
    async fn everything_that_was_left_is_waited_for() {
        let line = Line::default();
        let (first, written) = message();
        assert!(line.leave(10, written).is_none());
        let (second, written) = message();
        assert!(line.leave(10, written).is_none());
        let mut waiting = Box::pin(line.written());
        assert!((&mut waiting).now_or_never().is_none());
        first.send(()).unwrap();
        assert!((&mut waiting).now_or_never().is_none());
        second.send(()).unwrap();
        waiting.await;
        assert_eq!(line.left.lock().unwrap().bytes, 0);
    }
}
