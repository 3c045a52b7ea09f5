//! What the embedded broker reads from its own disk.

use muster_broker::journal::Record;
use muster_broker::journal::fuzzing::{Kept, Started, segment};

use crate::Target;
use crate::input::Input;

/// A journal of one or two segments: any bytes, or frames with right checksums, one byte of which is changed afterwards or not.
pub(crate) const BROKER_JOURNAL: Target = Target {
    name: "broker-journal",
    bytes_max: 2048,
    seeds: &["fuzz/seeds/broker-journal/"],
    words: &[
        "\u{4}\u{7}agent.a\u{1}",
        "\u{5}\u{7}agent.a",
        "\u{6}\u{0}\u{7}agent.a\u{3}cmd",
        "\u{8}\u{1}\u{0}\u{3}cmd",
        "\u{9}\u{1}\u{7}agent.a",
    ],
    run: journal,
};

fn journal(input: &[u8]) {
    let mut input = Input(input);
    match input.byte() {
        b'r' => any_bytes(input.rest()),
        b'd' => {
            let (place, mask) = (input.short(), input.byte() | 1);
            let entries = entries(input.rest());
            one_byte_changed(&entries, usize::from(place), mask);
        }
        _ => whole(&entries(input.rest())),
    }
}

/// Entries behind their lengths; a length of 0 ends a group.
fn entries(mut bytes: &[u8]) -> Vec<Option<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (entry, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        entries.push((*length > 0).then_some(entry));
        bytes = rest;
    }
    entries
}

/// Reading does not change anything, and what is read, written anew and read again is the same.
fn keeps(kept: &Kept) -> Option<Started> {
    let (Ok(first), Ok(second)) = (kept.start(false), kept.start(false)) else { return None };
    assert_eq!((&first.records, &first.found), (&second.records, &second.found));
    kept.start(true).expect("it could be read");
    let again = kept.start(false).expect("what was written anew is read");
    assert_eq!(again.records, first.records, "nothing is lost on the way");
    assert!(!again.found.is_damaged(), "what was written anew is whole: {:?}", again.found);
    Some(first)
}

fn any_bytes(bytes: &[u8]) {
    if let Some(started) = keeps(&Kept::new(&[bytes])) {
        assert_eq!(started.records, [], "chance makes no checksums");
    }
}

fn whole(entries: &[Option<&[u8]>]) {
    // Cut in two, the first segment holds nothing that the second counts.
    let (one, two) = (segment(1, 0, entries), segment(2, 1, entries));
    for kept in [Kept::new(&[&one]), Kept::new(&[&one, &two])] {
        if let Some(started) = keeps(&kept) {
            assert!(!started.found.is_damaged(), "{:?}", started.found);
            invents_nothing(&started, entries);
        }
    }
}

fn one_byte_changed(entries: &[Option<&[u8]>], place: usize, mask: u8) {
    let mut bytes = segment(1, 0, entries);
    let place = place % bytes.len();
    bytes[place] ^= mask;
    if let Some(started) = keeps(&Kept::new(&[&bytes])) {
        invents_nothing(&started, entries);
    }
}

fn invents_nothing(started: &Started, entries: &[Option<&[u8]>]) {
    let was_written = |bytes: &[u8]| {
        bytes.is_empty()
            || entries.iter().flatten().any(|entry| entry.windows(bytes.len()).any(|window| window == bytes))
    };
    for record in &started.records {
        match record {
            Record::Enqueued { content, queues, .. } => {
                assert!(was_written(&content.body) && was_written(&content.properties));
                assert!(!queues.is_empty() && queues.iter().all(|queue| was_written(queue.as_bytes())));
            }
            Record::QueueDeclared(spec) => assert!(was_written(spec.name.as_bytes())),
            Record::ExchangeDeclared(spec) => assert!(was_written(spec.name.as_bytes())),
            Record::Bound(spec) => assert!(was_written(spec.source.as_bytes()) && was_written(spec.key.as_bytes())),
            Record::ExchangeDeleted { .. }
            | Record::QueueDeleted { .. }
            | Record::Unbound(_)
            | Record::Removed { .. } => {
                panic!("a state has nothing that is gone: {record:?}")
            }
        }
    }
}
