//! What a channel was given and has not acknowledged, in the order of delivery tags.

use std::collections::VecDeque;

use super::keys::{ConsumerKey, QueueKey};
use super::queue::Entry;
use crate::ids::DeliveryTag;

/// One delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) tag: DeliveryTag,
    pub(super) queue: QueueKey,
    /// Who got it; nobody for `basic.get`.
    pub(super) consumer: Option<ConsumerKey>,
    pub(super) entry: Entry,
}

/// The deliveries. One taken from the middle leaves a gap, which is closed when gaps are more than half: taking any one
/// costs the same on average, whichever way a client acknowledges.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    deliveries: VecDeque<(DeliveryTag, Option<Delivery>)>,
    gaps: usize,
}

impl Unacked {
    pub(super) fn len(&self) -> usize {
        self.deliveries.len() - self.gaps
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        self.deliveries.push_back((delivery.tag, Some(delivery)));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries.iter().filter_map(|(_, delivery)| delivery.as_ref())
    }

    /// Takes one.
    pub(super) fn take(&mut self, tag: DeliveryTag) -> Option<Delivery> {
        let at = self.find(tag)?;
        let taken = self.deliveries.get_mut(at)?.1.take()?;
        self.gaps += 1;
        self.close_gaps();
        Some(taken)
    }

    /// Takes all up to one, which must be there; all for 0.
    pub(super) fn take_to(&mut self, tag: DeliveryTag) -> Option<Vec<Delivery>> {
        let count = if tag == 0 {
            self.deliveries.len()
        } else {
            let at = self.find(tag)?;
            self.deliveries.get(at)?.1?;
            at + 1
        };
        let taken: Vec<Delivery> = self.deliveries.drain(..count).filter_map(|(_, delivery)| delivery).collect();
        self.gaps -= count - taken.len();
        self.close_gaps();
        Some(taken)
    }

    fn find(&self, tag: DeliveryTag) -> Option<usize> {
        // Nearly always the first: clients acknowledge in the order in which they got.
        if self.deliveries.front()?.0 == tag {
            return Some(0);
        }
        self.deliveries.binary_search_by_key(&tag, |(tag, _)| *tag).ok()
    }

    fn close_gaps(&mut self) {
        while self.deliveries.front().is_some_and(|(_, delivery)| delivery.is_none()) {
            self.deliveries.pop_front();
            self.gaps -= 1;
        }
        if self.gaps > self.deliveries.len() / 2 {
            self.deliveries.retain(|(_, delivery)| delivery.is_some());
            self.gaps = 0;
        }
        if self.deliveries.capacity() > KEPT && self.deliveries.len() < self.deliveries.capacity() / 8 {
            self.deliveries.shrink_to(KEPT);
        }
    }
}

/// A channel keeps room for so many; more is given back when it is no longer needed.
const KEPT: usize = 32;
