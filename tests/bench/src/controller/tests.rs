use std::collections::BTreeMap;

use muster_client::{Counts, HostRecord};

use super::*;

fn hosts(names: &[&str]) -> BTreeSet<HostName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn summary(end: End) -> Summary {
    Summary {
        end,
        accepted: true,
        hosts: BTreeMap::<HostName, HostRecord>::new(),
        counts: Counts::default(),
        strangers: BTreeMap::new(),
        rejected: 0,
        rejections: BTreeMap::new(),
        for_another: 0,
        reconnects: 0,
        requests: Vec::new(),
        asked: BTreeMap::new(),
        elapsed_ms: 0,
    }
}

#[test]
fn whatever_is_not_complete_and_believed_is_a_flaw() {
    let stranger = [("c.example.com".parse().unwrap(), 1)];
    let cases = [
        ("good", summary(End::Complete), hosts(&[]), None),
        ("missing", summary(End::Complete), hosts(&["a.example.com"]), Some("0 of 1 hosts succeeded")),
        ("stopped", summary(End::Stopped), hosts(&[]), Some("ended as Stopped")),
        ("rejected", Summary { rejected: 2, ..summary(End::Complete) }, hosts(&[]), Some("2 reports could not")),
        (
            "stranger",
            Summary { strangers: stranger.into(), ..summary(End::Complete) },
            hosts(&[]),
            Some("1 other host"),
        ),
        ("lost", Summary { reconnects: 1, ..summary(End::Complete) }, hosts(&[]), Some("lost 1 times")),
    ];
    for (name, summary, expected, words) in cases {
        let found = flaw(&summary, &expected, 0);
        match words {
            None => assert_eq!(found, None, "{name}"),
            Some(words) => assert!(found.as_ref().is_some_and(|found| found.contains(words)), "{name}: {found:?}"),
        }
    }
}
