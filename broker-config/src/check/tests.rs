use serde_json::json;

use super::*;
use crate::definitions::{Definitions, definitions};
use crate::site::Site;

fn expected() -> Definitions {
    definitions(&Site::new(["host/web1", "host/web2", "user/lea"].map(|name| name.parse().unwrap())))
}

/// Changes a broker that is as it should be and compares the codes of what is found.
#[track_caller]
fn found(change: impl FnOnce(&mut Definitions), codes: &[&str]) -> Vec<Finding> {
    let mut actual = expected();
    change(&mut actual);
    let findings = check(&actual, &expected());
    let found: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(found, codes, "{findings:#?}");
    findings
}

fn user(name: &str, tags: &[&str]) -> User {
    serde_json::from_value(json!({ "name": name, "password_hash": "x", "tags": tags })).unwrap()
}

fn binding(source: &str, kind: &str, destination: &str, key: &str) -> Binding {
    Binding {
        source: source.to_owned(),
        vhost: "muster".to_owned(),
        destination: destination.to_owned(),
        destination_type: kind.to_owned(),
        routing_key: key.to_owned(),
        arguments: serde_json::Map::new(),
    }
}

#[test]
fn a_broker_as_generated_has_no_findings() {
    found(|_| {}, &[]);
    found(
        |broker| {
            broker.bindings = vec![
                binding("cmd", "queue", "agent.web1", "all"),
                binding("cmd", "queue", "agent.web1", "host.web1"),
                binding("reply", "queue", "reply.user/lea.s1", "user/lea.s1.#"),
                binding("reply", "queue", "reply.service/jobs.s1", "presence.#"),
            ];
        },
        &[],
    );
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let vhosts = Definitions { vhosts: expected().vhosts, ..Definitions::default() };
    let findings = check(&vhosts, &expected());
    let codes: BTreeSet<&str> = findings.iter().map(|finding| finding.code).collect();
    // Nothing is said about the permissions of a user who is missing altogether.
    assert_eq!(codes, BTreeSet::from(["missing-exchange", "missing-user", "missing-policy"]));
    assert!(findings.iter().all(|finding| finding.remedy == IMPORT));
    found(|broker| broker.permissions.truncate(2), &["missing-permission"]);
    found(|broker| broker.users.retain(|user| !user.name.ends_with("web1")), &["missing-user"]);
}

#[test]
fn a_mistyped_virtual_host_is_one_finding() {
    let mut typed = expected();
    typed.vhosts[0].name = "mustre".to_owned();
    let findings = check(&expected(), &typed);
    let [finding] = findings.as_slice() else { panic!("{findings:#?}") };
    assert_eq!((finding.code, finding.subject.as_str()), ("missing-vhost", "virtual host mustre"));
    assert_eq!(finding.what, "does not exist; there is `muster`");
    assert_eq!(finding.remedy, format!("if the name is right: {IMPORT}"));
}

#[test]
fn a_missing_topic_permission_is_too_open() {
    let findings = found(|broker| broker.topic_permissions.truncate(5), &["too-open"]);
    assert_eq!(findings[0].subject, "topic permissions of muster:user/lea on reply");
}

#[test]
fn a_wider_permission_shows_what_it_lets_through() {
    #[track_caller]
    fn widened(write: &str, code: &str, shown: &str) {
        let findings = found(|broker| write.clone_into(&mut broker.permissions[0].write), &[code]);
        assert!(findings[0].what.starts_with(shown), "{}", findings[0].what);
    }
    widened(".*", "too-open", "allows `cmd`");
    widened(r"^(agent\.web1|reply|cmd)\z", "too-open", "allows `cmd`");
    widened(r"agent\.web1|^reply\z", "too-open", "allows `xagent.web1`");
    widened("^(agent.web1|reply)$", "too-open", "allows `agentxweb1`");
    widened(r"^(agent\..*|reply)\z", "too-open", "allows `agent.web1x`");
    widened(r"^reply\z", "too-narrow", "refuses `agent.web1`");
    widened(r"^(reply|agent\.web1)\z", "other-pattern", "is `");
    widened("(?<x", "other-pattern", "is `(?<x`, which cannot be judged");
    widened("", "too-narrow", "refuses `reply`");

    let findings = found(|broker| ".*".clone_into(&mut broker.topic_permissions[0].read), &["too-open"]);
    assert_eq!(findings[0].subject, "topic permissions of muster:host/web1 on cmd: read");
}

#[test]
fn people_who_should_not_be_there_are_named() {
    found(|broker| broker.users.push(user("guest", &["administrator"])), &["guest-user"]);
    found(|broker| broker.users.push(user("muster:host/gone", &[])), &["unknown-user"]);
    found(|broker| broker.users.push(user("ops", &["administrator"])), &["administrator"]);
    found(|broker| broker.users.push(user("ops", &["impersonator"])), &["impersonator"]);
    found(|broker| broker.users.push(user("another-application", &[])), &[]);
    found(|broker| "x".clone_into(&mut broker.users[0].password_hash), &["password"]);
    found(|broker| broker.users[0].tags.push("management".to_owned()), &["tags"]);
    found(|broker| broker.users[0].limits.clear(), &["other-limits"]);
    let grant = |user: &str, vhost: &str| Permission {
        user: user.to_owned(),
        vhost: vhost.to_owned(),
        configure: ".*".to_owned(),
        write: ".*".to_owned(),
        read: ".*".to_owned(),
    };
    found(|broker| broker.permissions.push(grant("ops", "muster")), &["foreign-access"]);
    found(|broker| broker.permissions.push(grant("muster:user/lea", "/")), &["foreign-access"]);
    found(|broker| broker.permissions.push(grant("another-application", "/")), &[]);
}

#[test]
fn what_was_changed_by_hand_is_found() {
    found(|broker| broker.exchanges[0].durable = false, &["wrong-exchange"]);
    found(
        |broker| drop(broker.exchanges[0].arguments.insert("alternate-exchange".to_owned(), json!("tap"))),
        &["wrong-exchange"],
    );
    found(|broker| drop(broker.policies.remove(0)), &["missing-policy"]);
    found(|broker| broker.policies[0].priority = 1, &["other-policy"]);
    found(|broker| "mine".clone_into(&mut broker.policies[0].name), &["missing-policy", "foreign-policy"]);
    let upstream = json!({ "vhost": "muster", "component": "federation-upstream", "name": "far", "value": {} });
    found(|broker| broker.parameters.push(serde_json::from_value(upstream).unwrap()), &["foreign-parameter"]);
}

#[test]
fn foreign_bindings_are_found() {
    for foreign in [
        binding("cmd", "queue", "tap", "#"),
        binding("cmd", "queue", "agent.web1", "#"),
        binding("cmd", "queue", "agent.web1", "host.web2"),
        binding("cmd", "exchange", "reply", "all"),
        binding("reply", "exchange", "cmd", "user/lea.s1.#"),
        binding("reply", "queue", "agent.web1", "presence.#"),
        binding("reply", "queue", "reply.user/lea.s1", "presence.#"),
        binding("reply", "queue", "reply.user/lea.s1", "user/tom.s1.#"),
        binding("reply", "queue", "reply.broker/mq1.s1", "presence.#"),
    ] {
        found(|broker| broker.bindings.push(foreign), &["foreign-binding"]);
    }
    found(|broker| broker.bindings.push(binding("amq.topic", "queue", "other", "#")), &[]);
}

#[test]
fn the_worst_comes_first() {
    let findings = found(
        |broker| {
            broker.policies[0].priority = 1;
            broker.users.push(user("guest", &[]));
        },
        &["guest-user", "other-policy"],
    );
    assert!(findings[0].severity > findings[1].severity);
}

#[test]
fn ten_thousand_hosts_are_checked_without_a_square() {
    let identities = (0..10_000).map(|index| format!("host/web-{index}.example.com").parse().unwrap());
    let expected = definitions(&Site::new(identities));
    assert!(check(&expected, &expected).is_empty());
}

/// The same for the broker of a site, or for the centre.
#[track_caller]
fn found_at(name: &str, change: impl FnOnce(&mut Definitions), codes: &[&str]) {
    let text = "[center]\naddresses = ['mq']\n[[site]]\nname = 'ams1'\nbroker = 'mq.ams1'\nhosts = ['*.ams1']\ncollectives = ['main']\n";
    let role = crate::Sites::parse(text).unwrap().role(name).unwrap();
    let names = ["host/web1", "host/web1.ams1", "user/lea", "broker/mq.ams1"].map(|name| name.parse().unwrap());
    let expected = definitions(&Site { role, ..Site::new(names) });
    let mut actual = expected.clone();
    change(&mut actual);
    let findings = check(&actual, &expected);
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), codes, "{findings:#?}");
}

#[test]
fn a_link_is_part_of_what_is_expected() {
    found_at("ams1", |_| {}, &[]);
    found_at("ams1", |broker| broker.parameters.clear(), &["missing-link", "missing-link"]);
    found_at("ams1", |broker| broker.bindings.clear(), &["missing-link"]);
    found_at("ams1", |broker| broker.queues.clear(), &["missing-link"]);
    found_at("ams1", |broker| broker.queues[0].durable = false, &["other-link"]);
    found_at("ams1", |broker| broker.global_parameters[0]["value"] = json!("rabbit@mq"), &["other-link"]);
    found_at("ams1", |broker| broker.parameters[0].value["max-hops"] = json!(9), &["other-link"]);
    found_at("ams1", |broker| broker.parameters[0].name = "other".to_owned(), &["missing-link", "foreign-parameter"]);
    // Another collective than the site's: the host is refused by its own broker, so somebody else has bound it.
    let elsewhere = binding("cmd", "queue", "agent.web1.ams1", "collective.other");
    found_at("ams1", |broker| broker.bindings.push(elsewhere), &["foreign-binding"]);
}

#[test]
fn a_site_binds_at_the_centre_what_it_may_hear() {
    found_at("center", |_| {}, &[]);
    let federated = |destination: &str, key: &str| binding("cmd", "exchange", destination, key);
    for (destination, key, codes) in [
        ("federation: cmd -> ams1 A", "all", &[][..]),
        ("federation: cmd -> ams1 B", "host.web1.ams1", &[]),
        ("federation: cmd -> ams1 B", "collective.main", &[]),
        ("federation: cmd -> ams1 B", "host.web1", &["foreign-binding"]),
        ("federation: cmd -> ams1 B", "#", &["foreign-binding"]),
        ("federation: cmd -> fra2 A", "all", &["foreign-binding"]),
        ("reply", "all", &["foreign-binding"]),
    ] {
        found_at("center", |broker| broker.bindings.push(federated(destination, key)), codes);
    }
    found_at("center", |broker| broker.users.retain(|user| !user.name.contains("broker")), &["missing-user"]);
}
