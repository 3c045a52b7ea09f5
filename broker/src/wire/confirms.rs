//! Joins confirms.
//!
//! `multiple` in a confirm means every message of the channel up to that one, so a run of neighbours may become one only if
//! nothing before it is still open: a persistent message's confirm waits for the disk, and later ones overtake it.

use std::collections::BTreeMap;

use crate::ids::{ChannelNumber, DeliveryTag};

/// Most gaps of one channel that are remembered. Beyond, nothing is joined on that channel any more.
const GAPS_MAX: usize = 256;

/// Confirms that have not been written, of one channel, with the same answer and numbers in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) channel: ChannelNumber,
    pub(super) taken: bool,
    first: DeliveryTag,
    last: DeliveryTag,
}

/// What is to be written of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// One confirm with `multiple`.
    Joined(DeliveryTag),
    /// Each by itself, from the first to the last.
    Single(DeliveryTag, DeliveryTag),
}

/// The confirms of a connection.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    run: Option<Run>,
    /// Few: one for each channel that has confirms.
    channels: Vec<(ChannelNumber, Channel)>,
}

/// What has been confirmed on a channel.
#[derive(Debug)]
struct Channel {
    /// Everything before it has been.
    next: DeliveryTag,
    /// What has been beyond it: first and last of each stretch.
    ahead: BTreeMap<DeliveryTag, DeliveryTag>,
    /// Too many stretches came; from now on each is confirmed by itself.
    lost: bool,
}

impl Default for Channel {
    fn default() -> Self {
        Self { next: 1, ahead: BTreeMap::new(), lost: false }
    }
}

impl Confirms {
    /// Takes a confirm. A run that it does not continue is to be written first.
    pub(super) fn add(&mut self, channel: ChannelNumber, tag: DeliveryTag, taken: bool) -> Option<Run> {
        if let Some(run) = &mut self.run
            && run.channel == channel
            && run.taken == taken
            && run.last.checked_add(1) == Some(tag)
        {
            run.last = tag;
            return None;
        }
        self.run.replace(Run { channel, taken, first: tag, last: tag })
    }

    /// Takes the run that waits.
    pub(super) fn take(&mut self) -> Option<Run> {
        self.run.take()
    }

    /// Decides how a run is written, and remembers that it was.
    pub(super) fn written(&mut self, run: Run) -> Written {
        let channel = match self.channels.iter().position(|(number, _)| *number == run.channel) {
            Some(index) => &mut self.channels[index].1,
            None => {
                self.channels.push((run.channel, Channel::default()));
                &mut self.channels.last_mut().expect("one was just added").1
            }
        };
        if channel.confirm(run.first, run.last) && run.first < run.last {
            Written::Joined(run.last)
        } else {
            Written::Single(run.first, run.last)
        }
    }

    /// A channel begins anew, and its numbers with it.
    pub(super) fn forget(&mut self, channel: ChannelNumber) {
        self.channels.retain(|(number, _)| *number != channel);
    }
}

impl Channel {
    /// Whether nothing before `first` is open.
    fn confirm(&mut self, first: DeliveryTag, last: DeliveryTag) -> bool {
        if self.lost {
            return false;
        }
        if first > self.next {
            if self.ahead.len() >= GAPS_MAX {
                self.lost = true;
                self.ahead = BTreeMap::new();
                return false;
            }
            // Stretches that touch are one.
            let before = self.ahead.range(..first).next_back().map(|(first, last)| (*first, *last));
            let start = match before {
                Some((start, end)) if end.checked_add(1) == Some(first) => start,
                _ => first,
            };
            let end = last.checked_add(1).and_then(|after| self.ahead.remove(&after)).unwrap_or(last);
            self.ahead.insert(start, end);
            return false;
        }
        self.next = self.next.max(last.saturating_add(1));
        while let Some(entry) = self.ahead.first_entry().filter(|entry| *entry.key() <= self.next) {
            self.next = self.next.max(entry.remove().saturating_add(1));
        }
        true
    }
}
