use muster_protocol::Timestamp;
use proptest::prelude::*;

use super::*;

fn signer(identity: &str, groups: &[&str]) -> Signer {
    Signer {
        identity: identity.parse().unwrap(),
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        fingerprint: String::new(),
        not_after: Timestamp(0),
    }
}

fn requirement(group: Option<&str>, count: usize) -> Requirement {
    Requirement { group: group.map(|group| group.parse().unwrap()), count }
}

/// `"sre:1 *:2"`.
fn approvals(text: &str) -> Approvals {
    let one = |word: &str| {
        let (group, count) = word.split_once(':').unwrap();
        requirement((group != "*").then_some(group), count.parse().unwrap())
    };
    Approvals::new(text.split_whitespace().map(one).collect())
}

/// `"user/bob:sre,dba user/eve"`, besides the caller `user/lea` of group `sre`.
fn signers(text: &str) -> Vec<Signer> {
    let one = |word: &str| {
        let (identity, groups) = word.split_once(':').unwrap_or((word, ""));
        signer(identity, &groups.split(',').filter(|group| !group.is_empty()).collect::<Vec<_>>())
    };
    std::iter::once(signer("user/lea", &["sre"])).chain(text.split_whitespace().map(one)).collect()
}

#[test]
fn who_is_missing() {
    let check = |wanted: &str, signed: &str, expected: &str| {
        let missing = approvals(wanted).missing(&signers(signed));
        assert_eq!(Shortfall::sentence(&missing), expected, "{wanted} / {signed}");
    };
    check("", "", "");
    check("*:1", "", "1 more signature by another user");
    check("*:1", "user/bob", "");
    check("*:2", "user/bob", "1 more signature by another user");
    check("*:2", "", "2 more signatures by other users");
    check("sre:1", "", "1 more signature by a member of group sre");
    check("sre:1", "user/bob:dba", "1 more signature by a member of group sre");
    check("sre:1", "user/bob:dba,sre", "");
    // The caller is of the group, and never counts; neither does his name a second time.
    check("sre:1", "user/lea:sre", "1 more signature by a member of group sre");
    check("sre:2", "user/bob:sre user/bob:sre", "1 more signature by a member of group sre");
    // Nor do services and hosts.
    check("*:1", "service/deploy host/web1.example.com", "1 more signature by another user");
    // One person fills one place.
    check("sre:1 *:2", "user/bob:sre", "2 more signatures by other users");
    check("sre:1 *:2", "user/bob:sre user/eve user/tom", "");
    check("sre:1 dba:1", "user/bob:sre,dba", "1 more signature by a member of group dba or sre");
    // Whatever the order, nobody is spent on a place that somebody else could fill.
    check("*:1 sre:1", "user/bob:sre user/eve", "");
    check("*:1 sre:1", "user/eve user/bob:sre", "");
    check("sre:1 dba:1", "user/bob:sre,dba user/eve:sre", "");
    check("sre:1 dba:1", "user/eve:sre user/bob:sre,dba", "");
    check("sre:1 dba:2", "", "1 more signature by a member of group sre, and 2 more by members of group dba");
    // Either would do: bob can stand in for the one or the other.
    check("*:1 sre:1", "user/bob:sre", "1 more signature by another user");
}

#[test]
fn without_a_caller_nothing_is_approved() {
    assert_eq!(approvals("*:1").missing(&[]), [Shortfall { count: 1, groups: Vec::new() }]);
}

const GROUPS: [&str; 3] = ["a", "b", "c"];

fn any_requirements() -> impl Strategy<Value = Vec<Requirement>> {
    let one = (prop::option::of(prop::sample::select(&GROUPS[..])), 1usize..=3);
    prop::collection::vec(one, 0..4)
        .prop_map(|all| all.into_iter().map(|(group, count)| requirement(group, count)).collect())
}

fn any_approvers() -> impl Strategy<Value = Vec<Vec<&'static str>>> {
    prop::collection::vec(prop::sample::subsequence(&GROUPS[..], 0..=3), 0..6)
}

fn people(groups: &[Vec<&str>]) -> Vec<Signer> {
    let one = |(index, groups): (usize, &Vec<&str>)| signer(&format!("user/p{index}"), groups);
    std::iter::once(signer("user/lea", &GROUPS)).chain(groups.iter().enumerate().map(one)).collect()
}

/// Places that stay empty at best, found by trying everything.
fn tried_all(places: &[Option<GroupName>], free: &[&Signer]) -> usize {
    let Some((place, rest)) = places.split_first() else { return 0 };
    let mut best = 1 + tried_all(rest, free);
    for (index, signer) in free.iter().enumerate() {
        if place.as_ref().is_none_or(|group| signer.groups.contains(group)) {
            let left: Vec<&Signer> = [&free[..index], &free[index + 1..]].concat();
            best = best.min(tried_all(rest, &left));
        }
    }
    best
}

fn total(missing: &[Shortfall]) -> usize {
    missing.iter().map(|one| one.count).sum()
}

proptest! {
    #[test]
    fn nobody_is_asked_for_in_vain_and_nobody_too_few(requirements in any_requirements(), groups in any_approvers()) {
        let signers = people(&groups);
        let places: Vec<Option<GroupName>> =
            requirements.iter().flat_map(|one| std::iter::repeat_n(one.group.clone(), one.count)).collect();
        let free: Vec<&Signer> = signers[1..].iter().collect();
        let missing = Approvals::new(requirements).missing(&signers);
        prop_assert_eq!(total(&missing), tried_all(&places, &free));
    }

    /// One more signature of whoever is asked for helps; of somebody else it does not, and never harms.
    #[test]
    fn who_is_asked_for_helps_and_nobody_harms(
        requirements in any_requirements(),
        groups in any_approvers(),
        new in prop::sample::subsequence(&GROUPS[..], 0..=3),
        at in 0usize..6,
    ) {
        let approvals = Approvals::new(requirements);
        let mut signers = people(&groups);
        let before = approvals.missing(&signers);
        let asked_for = before.iter().any(|one| {
            one.groups.is_empty() || one.groups.iter().any(|group| new.contains(&group.as_str()))
        });
        signers.insert(1 + at.min(groups.len()), signer("user/new", &new));
        let after = approvals.missing(&signers);
        prop_assert_eq!(total(&after) + usize::from(asked_for), total(&before));
    }

    /// The order of requirements and signatures does not matter.
    #[test]
    fn no_order_matters(requirements in any_requirements(), groups in any_approvers()) {
        let (mut signers, mut turned) = (people(&groups), requirements.clone());
        let missing = total(&Approvals::new(requirements).missing(&signers));
        turned.reverse();
        signers[1..].reverse();
        prop_assert_eq!(total(&Approvals::new(turned).missing(&signers)), missing);
    }
}
