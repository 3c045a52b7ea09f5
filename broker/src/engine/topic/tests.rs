//! Against a matcher that is plainly right: it goes through both keys word by word, with every way a `#` can be meant.

use proptest::prelude::*;
use slotmap::SlotMap;

use super::Tree;
use crate::engine::keys::{ExchangeKey, Target};

fn matches(binding: &[&str], routing: &[&str]) -> bool {
    match (binding.split_first(), routing.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((&"#", rest)), None) => matches(rest, routing),
        (Some((&"#", rest)), Some((_, further))) => matches(rest, routing) || matches(binding, further),
        (Some(_), None) => false,
        (Some((&"*", rest)), Some((_, further))) => matches(rest, further),
        (Some((word, rest)), Some((other, further))) => word == other && matches(rest, further),
    }
}

fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// Binding keys, some of which are taken away again, and what a routing key finds then.
fn check(bindings: &[String], gone: &[bool], routing: &str) {
    let (mut tree, mut numbers) = (Tree::default(), SlotMap::<ExchangeKey, ()>::with_key());
    let mut added = Vec::new();
    for key in bindings {
        let target = Target::Exchange(numbers.insert(()));
        tree.list(key).unwrap().push(target);
        added.push((key, target));
    }
    let mut expected = Vec::new();
    for (at, (key, target)) in added.iter().enumerate() {
        if gone.get(at).copied().unwrap_or(false) {
            tree.existing(key).unwrap().retain(|other| other != target);
            tree.prune(key);
        } else if matches(&words(key), &words(routing)) {
            expected.push(*target);
        }
    }
    let mut found = Vec::new();
    tree.matching(routing, &mut found);
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "bindings {bindings:?} without {gone:?}, key {routing:?}");
}

#[test]
fn keys_that_are_easily_got_wrong() {
    for (binding, routing, expected) in [
        ("#", "", true),
        ("#", "a", true),
        ("#", "a.b.c", true),
        ("*", "", false),
        ("*", "a.b", false),
        ("a.#", "a", true),
        ("a.#", "a.b.c", true),
        ("a.#", "b", false),
        ("#.a", "a", true),
        ("#.a", "b.c.a", true),
        ("#.a.#", "b.a.c", true),
        ("#.#", "a", true),
        ("a.*.#", "a", false),
        ("a.#.*", "a.b", true),
        ("a..b", "a..b", true),
        ("a.*.b", "a..b", true),
        ("", "", true),
        ("", "a", false),
        ("user/alice.#", "user/alice.web1", true),
        ("user/alice.#", "user/alicf.web1", false),
        ("a*", "ab", false),
    ] {
        assert_eq!(matches(&words(binding), &words(routing)), expected, "the test's own matcher: {binding} {routing}");
        check(&[binding.to_owned()], &[], routing);
    }
}

#[test]
fn many_hashes_are_no_trap() {
    // A matcher that tries every way would need 2^60 of them here.
    let mut tree = Tree::default();
    let mut numbers = SlotMap::<ExchangeKey, ()>::with_key();
    tree.list(&["#.a"; 60].join(".")).unwrap().push(Target::Exchange(numbers.insert(())));
    let mut found = Vec::new();
    tree.matching(&["a"; 59].join("."), &mut found);
    assert_eq!(found.len(), 0);
    tree.matching(&["a"; 120].join("."), &mut found);
    assert_eq!(found.len(), 1);
}

#[test]
fn an_empty_tree_is_one_node() {
    let mut tree = Tree::default();
    for key in ["a.b.c", "a.*.#", "a.b", ""] {
        tree.list(key).unwrap();
    }
    for key in ["a.b", "a.b.c", "", "a.*.#"] {
        tree.prune(key);
    }
    assert_eq!(tree.nodes.len(), 1);
}

proptest! {
    #[test]
    fn finds_what_the_plain_matcher_finds(
        bindings in prop::collection::vec("([ab*#]?(\\.[ab*#]){0,4})", 0..12),
        gone in prop::collection::vec(any::<bool>(), 12),
        routing in "([abc]?(\\.[abc]){0,5})",
    ) {
        check(&bindings, &gone, &routing);
    }
}
