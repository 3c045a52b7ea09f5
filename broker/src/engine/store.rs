//! Messages in memory, each once, counted while a queue, a channel or an outbox refers to it.
//!
//! Invariant: `bytes` is the sum over the messages held, plus a fixed part for each reference; it is 0 when nothing is.

use std::sync::Arc;

use slotmap::SlotMap;

use super::keys::StoredKey;
use crate::message::Message;

/// Bytes that a reference takes: an entry of a queue, a channel or an outbox.
pub(super) const REFERENCE_BYTES: usize = 64;

#[derive(Debug)]
struct Stored {
    message: Arc<Message>,
    references: u32,
    /// In the journal; 0 is not there.
    number: u64,
}

/// The messages.
#[derive(Debug)]
pub(super) struct Store {
    messages: SlotMap<StoredKey, Stored>,
    bytes: usize,
    bytes_max: usize,
    full: bool,
    number_last: u64,
}

impl Store {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { messages: SlotMap::with_key(), bytes: 0, bytes_max, full: false, number_last: 0 }
    }

    /// Takes a message, with one reference that the caller releases.
    pub(super) fn insert(&mut self, message: Arc<Message>) -> StoredKey {
        self.bytes += message.size() + REFERENCE_BYTES;
        self.full |= self.bytes > self.bytes_max;
        self.messages.insert(Stored { message, references: 1, number: 0 })
    }

    /// One more reference.
    pub(super) fn hold(&mut self, key: StoredKey) {
        let Some(stored) = self.messages.get_mut(key) else { return };
        stored.references += 1;
        self.bytes += REFERENCE_BYTES;
        self.full |= self.bytes > self.bytes_max;
    }

    /// One reference less; the last one lets the message go.
    pub(super) fn release(&mut self, key: StoredKey) {
        let Some(stored) = self.messages.get_mut(key) else { return };
        stored.references -= 1;
        let mut freed = REFERENCE_BYTES;
        if stored.references == 0 {
            freed += stored.message.size();
            self.messages.remove(key);
        }
        self.bytes -= freed;
        // Four fifths: far enough below that publishers do not start and stop with every message.
        self.full &= self.bytes > self.bytes_max / 5 * 4;
    }

    pub(super) fn message(&self, key: StoredKey) -> Option<&Arc<Message>> {
        self.messages.get(key).map(|stored| &stored.message)
    }

    /// Its number in the journal, given now if it has none.
    pub(super) fn number(&mut self, key: StoredKey) -> u64 {
        let Some(stored) = self.messages.get_mut(key) else { return 0 };
        if stored.number == 0 {
            self.number_last += 1;
            stored.number = self.number_last;
        }
        stored.number
    }

    /// Its number in the journal, if it is there.
    pub(super) fn journaled(&self, key: StoredKey) -> Option<u64> {
        self.messages.get(key).map(|stored| stored.number).filter(|&number| number != 0)
    }

    /// Says which number a message of before the restart has.
    pub(super) fn set_number(&mut self, key: StoredKey, number: u64) {
        if let Some(stored) = self.messages.get_mut(key) {
            stored.number = number;
            self.number_last = self.number_last.max(number);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Full from the bound on until four fifths of it; with no room at all, always.
    pub(super) fn is_full(&self) -> bool {
        self.full || self.bytes_max == 0
    }

    /// Takes another bound.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.full = self.bytes > bytes_max;
    }
}
