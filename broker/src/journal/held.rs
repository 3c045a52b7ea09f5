//! Confirms that wait for the disk.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{ChannelNumber, ConnectionId};
use crate::outlet::Output;

/// A channel, or for what belongs to none, the connection.
type Line = (ConnectionId, Option<ChannelNumber>);

/// A confirm, and the records that must be on the disk before it is sent.
#[derive(Debug)]
struct Waiting {
    /// So many records.
    after: u64,
    line: Line,
    /// Tells it from one of another channel that got the number later.
    turn: u64,
    output: Output,
}

#[derive(Debug)]
struct Ahead {
    count: usize,
    turn: u64,
}

/// Confirms in the order in which they may be sent.
///
/// Those of one channel keep their order, whatever each waits for: whoever merges neighbours into one with `multiple` must
/// not confirm what still waits.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// `after` never falls.
    waiting: VecDeque<Waiting>,
    /// How many wait, where any does.
    lines: BTreeMap<Line, Ahead>,
    turns: u64,
}

fn line_of(connection: ConnectionId, output: &Output) -> Line {
    match output {
        Output::Confirm { channel, .. } | Output::Return { channel, .. } => (connection, Some(*channel)),
        _ => (connection, None),
    }
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether something is ahead of this one.
    pub(super) fn is_behind(&self, connection: ConnectionId, output: &Output) -> bool {
        self.lines.contains_key(&line_of(connection, output))
    }

    /// Holds one until so many records are on the disk.
    pub(super) fn hold(&mut self, after: u64, connection: ConnectionId, output: Output) {
        // It may wait for less than the last one, and is sent with it.
        let after = self.waiting.back().map_or(after, |last| last.after.max(after));
        let line = line_of(connection, &output);
        let turns = &mut self.turns;
        let ahead = self.lines.entry(line).or_insert_with(|| {
            *turns += 1;
            Ahead { count: 0, turn: *turns }
        });
        ahead.count += 1;
        self.waiting.push_back(Waiting { after, line, turn: ahead.turn, output });
    }

    /// Those that may be sent now.
    pub(super) fn release(&mut self, durable: u64, into: &mut Vec<(ConnectionId, Output)>) {
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.after <= durable) {
            let Some(ahead) = self.lines.get_mut(&waiting.line).filter(|ahead| ahead.turn == waiting.turn) else {
                continue;
            };
            ahead.count -= 1;
            if ahead.count == 0 {
                self.lines.remove(&waiting.line);
            }
            into.push((waiting.line.0, waiting.output));
        }
    }

    /// Forgets those of a channel that is closed: another one may get its number, and would take them for its own.
    pub(super) fn forget_channel(&mut self, connection: ConnectionId, channel: ChannelNumber) {
        self.lines.remove(&(connection, Some(channel)));
    }

    /// Forgets those of a connection that is gone.
    pub(super) fn forget_connection(&mut self, connection: ConnectionId) {
        let lines: Vec<Line> = self
            .lines
            .range((connection, None)..=(connection, Some(ChannelNumber::MAX)))
            .map(|(line, _)| *line)
            .collect();
        for line in lines {
            self.lines.remove(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn confirm(channel: ChannelNumber, tag: u64) -> Output {
        Output::Confirm { channel, tag, taken: true }
    }

    fn tags(released: &[(ConnectionId, Output)]) -> Vec<(u64, ChannelNumber, u64)> {
        let tag = |(connection, output): &(ConnectionId, Output)| match output {
            Output::Confirm { channel, tag, .. } => (connection.0, *channel, *tag),
            other => panic!("{other:?}"),
        };
        released.iter().map(tag).collect()
    }

    #[test]
    fn a_confirm_of_a_channel_that_was_closed_never_reaches_the_next_one_with_its_number() {
        let mut held = Held::default();
        let one = ConnectionId(1);
        held.hold(1, one, confirm(1, 1));
        held.hold(1, one, confirm(2, 1));
        held.forget_channel(one, 1);
        assert!(!held.is_behind(one, &confirm(1, 1)));
        held.hold(2, one, confirm(1, 1));
        let mut released = Vec::new();
        held.release(1, &mut released);
        assert_eq!(tags(&released), [(1, 2, 1)]);
        held.release(2, &mut released);
        assert_eq!(tags(&released), [(1, 2, 1), (1, 1, 1)]);
        assert!(held.lines.is_empty() && held.waiting.is_empty());
    }

    #[test]
    fn a_connection_that_is_gone_takes_all_of_its_channels_along() {
        let mut held = Held::default();
        for connection in 1..=3 {
            for channel in [1, ChannelNumber::MAX] {
                held.hold(1, ConnectionId(connection), confirm(channel, 1));
            }
        }
        held.forget_connection(ConnectionId(2));
        let mut released = Vec::new();
        held.release(1, &mut released);
        assert_eq!(tags(&released), [(1, 1, 1), (1, ChannelNumber::MAX, 1), (3, 1, 1), (3, ChannelNumber::MAX, 1)]);
    }

    proptest! {
        /// Each is released once, not before its records are on the disk, and in its channel's order.
        #[test]
        fn each_is_released_once_in_order_and_not_too_early(
            steps in prop::collection::vec((1_u64..4, 1_u16..3, 0_u64..3, prop::bool::weighted(0.3)), 1..60),
        ) {
            let (mut held, mut recorded) = (Held::default(), 0_u64);
            let mut needs = BTreeMap::new();
            let mut next: BTreeMap<(u64, ChannelNumber), u64> = BTreeMap::new();
            let mut released = Vec::new();
            for (connection, channel, records, syncs) in steps {
                recorded += records;
                let tag = next.entry((connection, channel)).and_modify(|tag| *tag += 1).or_insert(1);
                held.hold(recorded, ConnectionId(connection), confirm(channel, *tag));
                needs.insert((connection, channel, *tag), recorded);
                if syncs {
                    // As if the last records were still on their way.
                    let durable = recorded - records;
                    held.release(durable, &mut released);
                    for confirmed in tags(&released) {
                        prop_assert!(needs[&confirmed] <= durable);
                    }
                }
            }
            held.release(recorded, &mut released);
            let mut seen: BTreeMap<(u64, ChannelNumber), u64> = BTreeMap::new();
            for (connection, channel, tag) in tags(&released) {
                let last = seen.insert((connection, channel), tag).unwrap_or(0);
                prop_assert_eq!(tag, last + 1);
            }
            prop_assert_eq!(seen, next);
        }
    }
}
