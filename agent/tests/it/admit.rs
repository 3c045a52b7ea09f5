//! The decision: each step refuses what it should, in the documented order, and nothing else gets through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use muster_agent::admit::{
    Decision, Host, Incoming, KnownAction, Limits, Received, Refusal, RunningAction, Silence, decide_cancel,
    decide_command, decide_watch, verify,
};
use muster_agent::facts::Facts;
use muster_agent::journal::Seen;
use muster_bus::Outgoing;
use muster_pki::Credentials;
use muster_protocol::{CollectiveName, Command, PayloadType, ProtocolVersion, RequestId, Target, Timestamp};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::kit::{self, ALLOW_ALL, NOW, Site, command, fresh_id, host, policy, registry, route, signed};

const LIMITS: Limits = Limits {
    concurrent_watches: 1,
    command_window: Duration::from_secs(3_600),
    clock_skew: Duration::from_secs(60),
    action_time: Duration::from_secs(86_400),
    concurrent_actions: 2,
    concurrent_reads: 2,
};

fn received(message: Outgoing) -> Received {
    Received {
        content_type: message.content_type,
        body: message.body,
        signatures: message.signatures,
        redelivered: false,
        oversized: None,
    }
}

/// A host and everything about it that a decision depends on.
struct World {
    site: Site,
    policy: &'static str,
    seen: Option<Seen>,
    running: BTreeMap<RequestId, RunningAction>,
    answers: Option<BTreeMap<String, Value>>,
    now: Timestamp,
}

/// What came out, in a form that a table can hold.
#[derive(Debug, PartialEq)]
enum Came {
    Silence(Silence),
    /// Code, and whether it is answered.
    Refused(&'static str, bool),
    Asks(Vec<String>),
    /// The rule.
    Runs(String),
}

impl World {
    fn new() -> Self {
        Self { site: Site::new(), policy: ALLOW_ALL, seen: None, running: BTreeMap::new(), answers: None, now: NOW }
    }

    fn with_host<T>(&self, decide: impl FnOnce(&Host<'_>) -> T) -> T {
        let Value::Object(values) = json!({ "role": "web", "os": { "family": "Debian" } }) else { unreachable!() };
        let facts = Facts { values: values.into(), classes: BTreeSet::from(["nginx".to_owned()]), ..Facts::default() };
        decide(&Host {
            name: &host(),
            collectives: &BTreeSet::from(["main".parse::<CollectiveName>().unwrap()]),
            facts: &facts,
            plugin_names: &BTreeSet::from(["lab".to_owned()]),
            registry: &registry(),
            policy: &policy(self.policy),
            limits: &LIMITS,
            seen: &|_, _| self.seen,
            unseal: &|_| unreachable!("no command here has secrets"),
            running: &self.running,
            known: &|id| {
                self.running.get(id).map(|it| KnownAction { caller: it.caller.clone(), action: it.action.clone() })
            },
            answers: self.answers.as_ref(),
        })
    }

    fn decide(&self, received: &Received) -> (Came, String) {
        let refused = |refusal: Refusal| (Came::Refused(refusal.code.code, refusal.answer), refusal.message);
        match verify(received, &self.site.trust, self.now) {
            Err(rejected) => {
                assert!(!rejected.refusal.answer);
                let answer = rejected.lapsed.is_some_and(|lapsed| self.with_host(|host| lapsed.is_answered(host)));
                refused(Refusal { answer, ..rejected.refusal })
            }
            Ok(Incoming::Command(verified)) => match self.with_host(|host| decide_command(&verified, host, self.now)) {
                Decision::Silence(why) => (Came::Silence(why), String::new()),
                Decision::Refuse(refusal) => refused(refusal),
                Decision::Resolve(calls) => {
                    (Came::Asks(calls.iter().map(ToString::to_string).collect()), String::new())
                }
                Decision::Run(authorized) => (Came::Runs(authorized.grant().rule.clone()), String::new()),
            },
            Ok(Incoming::Cancel(verified)) => match self.with_host(|host| decide_cancel(&verified, host, self.now)) {
                Decision::Silence(why) => (Came::Silence(why), String::new()),
                Decision::Refuse(refusal) => refused(refusal),
                Decision::Resolve(calls) => {
                    (Came::Asks(calls.iter().map(ToString::to_string).collect()), String::new())
                }
                Decision::Run(authorized) => {
                    (Came::Runs(authorized.grant().rule.clone().unwrap_or_else(|| "own".into())), String::new())
                }
            },
            Ok(Incoming::Watch(verified)) => match self.with_host(|host| decide_watch(&verified, host, self.now)) {
                Decision::Silence(why) => (Came::Silence(why), String::new()),
                Decision::Refuse(refusal) => refused(refusal),
                Decision::Resolve(calls) => {
                    (Came::Asks(calls.iter().map(ToString::to_string).collect()), String::new())
                }
                Decision::Run(authorized) => {
                    (Came::Runs(authorized.grant().rule.clone().unwrap_or_else(|| "own".into())), String::new())
                }
            },
        }
    }

    #[track_caller]
    fn check(&self, received: &Received, expected: Came) -> String {
        let (came, message) = self.decide(received);
        assert_eq!(came, expected, "{message}");
        message
    }

    /// Checks what becomes of lea's `lab.change name=x`, changed.
    #[track_caller]
    fn check_change(&self, change: impl FnOnce(&mut Command), expected: Came) -> String {
        let mut command = command(&self.site.lea, "change", json!({ "name": "x" }));
        change(&mut command);
        // Signed as it is, also where our own encoder would refuse: the other side may be anybody's.
        let body = serde_json::to_vec(&command).unwrap();
        self.check(&raw(&body, PayloadType::Command, &[&self.site.lea]), expected)
    }
}

fn raw(body: &[u8], kind: PayloadType, signers: &[&Credentials]) -> Received {
    let signatures: Vec<_> = signers.iter().map(|signer| signer.sign(kind.as_str(), body)).collect();
    Received {
        content_type: kind.as_str().to_owned(),
        body: Bytes::copy_from_slice(body),
        signatures: serde_json::to_vec(&signatures).unwrap().into(),
        redelivered: false,
        oversized: None,
    }
}

fn runs() -> Came {
    Came::Runs("all".to_owned())
}

fn refused(code: &'static str) -> Came {
    Came::Refused(code, true)
}

fn unanswered(code: &'static str) -> Came {
    Came::Refused(code, false)
}

#[test]
fn an_ordinary_command_runs() {
    World::new().check_change(|_| {}, runs());
}

#[test]
fn strangers_get_no_answer() {
    let world = World::new();
    let site = &world.site;
    let good = || received(signed(&command(&site.lea, "read", json!({})), &[&site.lea]));
    let check = |received: Received, code: &'static str| world.check(&received, unanswered(code));

    check(Received { oversized: Some(2_000_000), body: Bytes::new(), ..good() }, "too-large");
    check(Received { body: vec![b' '; 1024 * 1024 + 1].into(), ..good() }, "too-large");
    check(Received { content_type: "application/json".into(), ..good() }, "unknown-type");
    check(Received { content_type: String::new(), ..good() }, "unknown-type");
    check(Received { content_type: PayloadType::Report.as_str().into(), ..good() }, "unknown-type");
    check(Received { content_type: PayloadType::Cancel.as_str().into(), ..good() }, "bad-signature");
    check(Received { signatures: Bytes::new(), ..good() }, "unsigned");
    check(Received { signatures: Bytes::from_static(b"[]"), ..good() }, "unsigned");
    check(Received { signatures: Bytes::from_static(b"{}"), ..good() }, "bad-envelope");
    check(Received { signatures: vec![b'['; 20_000].into(), ..good() }, "too-large");
    check(Received { body: good().body.slice(..50), ..good() }, "bad-signature");

    let of = |signer: &Credentials| received(signed(&command(signer, "read", json!({})), &[signer]));
    check(of(&Site::new().lea), "untrusted-certificate");
    // Both signatures have to be right.
    let lea = command(&site.lea, "read", json!({}));
    check(received(signed(&lea, &[&site.lea, &site.lea])), "bad-envelope");
}

#[test]
fn whose_certificate_has_lapsed_is_told_so() {
    let world = World::new();
    let site = &world.site;
    let authority = &site.authority;
    let of = |signer: &Credentials| received(signed(&command(signer, "read", json!({})), &[signer]));
    world.check(&of(&authority.expired("user/old").unwrap()), refused("expired-certificate"));
    world.check(&of(&authority.not_yet_valid("user/new").unwrap()), refused("expired-certificate"));
    let revoked = authority.revoked("user/eve").unwrap();
    world.check(&of(&revoked), runs());
    site.trust.install_crl(authority.crl_pem().unwrap().as_bytes(), NOW).unwrap();
    let why = world.check(&of(&revoked), refused("revoked-certificate"));
    assert!(why.contains("`user/eve` is revoked"), "{why}");
    let lea = command(&site.lea, "read", json!({}));
    world.check(&received(signed(&lea, &[&site.lea, &revoked])), refused("revoked-certificate"));
    let cancel = kit::cancel(&revoked, lea.id);
    let body = serde_json::to_vec(&cancel).unwrap();
    world.check(&raw(&body, PayloadType::Cancel, &[&revoked]), refused("revoked-certificate"));
}

#[test]
fn a_lapsed_certificate_alone_gets_no_answer() {
    let mut world = World::new();
    let site = &world.site;
    let eve = site.authority.revoked("user/eve").unwrap();
    let rogue = site.authority.revoked("host/rogue.example.com").unwrap();
    site.trust.install_crl(site.authority.crl_pem().unwrap().as_bytes(), NOW).unwrap();
    let of = |world: &World, signers: &[&Credentials], change: &dyn Fn(&mut Command), expected| {
        let mut command = command(&eve, "read", json!({}));
        change(&mut command);
        world.check(&raw(&serde_json::to_vec(&command).unwrap(), PayloadType::Command, signers), expected);
    };
    let silent = || unanswered("revoked-certificate");
    of(&world, &[&eve], &|_| {}, refused("revoked-certificate"));
    // In the name of, or with an answer for, somebody else.
    of(&world, &[&eve], &|it| it.caller = site.lea.identity().clone(), silent());
    of(&world, &[&eve], &|it| it.reply_to = command(&site.lea, "read", json!({})).reply_to, silent());
    of(&world, &[&eve, &site.lea], &|_| {}, refused("revoked-certificate"));
    of(&world, &[&eve, &rogue], &|_| {}, silent());
    of(&world, &[&rogue], &|it| it.caller = rogue.identity().clone(), silent());
    // To another host. What a filter comes to is not told to somebody who is revoked.
    of(&world, &[&eve], &|it| it.collective = "other".parse().unwrap(), silent());
    of(&world, &[&eve], &|it| it.target = Target::named(["db1".parse().unwrap()]), silent());
    for filter in FILTERS {
        of(&world, &[&eve], &|it| it.target = Target::matching(*filter), refused("revoked-certificate"));
    }
    of(&world, &[&eve], &|it| it.protocol = ProtocolVersion::Unknown("muster/2".into()), silent());
    // Not her signature, or not over these bytes.
    let good = received(signed(&command(&eve, "read", json!({})), &[&eve]));
    let other = received(signed(&command(&eve, "read", json!({})), &[&eve]));
    world.check(&Received { signatures: other.signatures, ..good.clone() }, silent());
    world.check(&Received { content_type: PayloadType::Cancel.as_str().into(), ..good }, silent());
    // What ran while the certificate counted has its own answer.
    for seen in [Seen::Started, Seen::Finished, Seen::Forgotten] {
        world.seen = Some(seen);
        of(&world, &[&eve], &|_| {}, silent());
    }
}

/// Filters that hold here, that do not, whose names are missing, that ask a plugin, and that are no filters.
const FILTERS: &[&str] = &[
    "role = web",
    "role = db",
    "no.such.fact = 1",
    "lab(\"everything\").answer = 42",
    "role = web and lab(\"everything\").answer = 42",
    "role = = web",
];

#[test]
fn who_may_do_nothing_learns_nothing_from_who_answers() {
    let mut world = World::new();
    world.policy = "[[rule]]\nname = \"max\"\neffect = \"allow\"\nwhen = 'caller.name = max'\n";
    let lea = world.site.lea.clone();
    let narrow =
        |filter: &str| [Target::matching(filter), Target { filter: Some(filter.into()), ..Target::named([host()]) }];
    let mut check = |now: Timestamp, seen: Option<Seen>, change: &dyn Fn(&mut Command), expected: &'static str| {
        (world.now, world.seen) = (now, seen);
        for target in FILTERS.iter().flat_map(|filter| narrow(filter)) {
            world.check_change(
                |command| {
                    command.target = target.clone();
                    change(command);
                },
                refused(expected),
            );
            // As little from a request that nobody has sent, to be stopped or to be looked at.
            let cancel = muster_protocol::Cancel { target: target.clone(), ..kit::cancel(&lea, fresh_id()) };
            let body = serde_json::to_vec(&cancel).unwrap();
            world.check(&raw(&body, PayloadType::Cancel, &[&lea]), refused("not-running"));
            if seen.is_none() {
                let watch = muster_protocol::Watch { target, ..kit::watch(&lea, fresh_id()) };
                let body = serde_json::to_vec(&watch).unwrap();
                world.check(&raw(&body, PayloadType::Watch, &[&lea]), refused("unknown-request"));
            }
        }
    };
    check(NOW, None, &|_| {}, "policy-denied");
    check(NOW, None, &|command| command.plugin = "nonsense".parse().unwrap(), "policy-denied");
    check(NOW, None, &|command| command.requires = vec!["teleport".into()], "policy-denied");
    check(NOW, None, &|command| command.expires_at_ms = NOW.plus_ms(3_600_001), "policy-denied");
    check(NOW.plus_ms(75_500), None, &|_| {}, "policy-denied");
    check(NOW.plus_ms(-75_500), None, &|_| {}, "policy-denied");
    check(NOW, Some(Seen::Refused(&muster_protocol::code::POLICY_DENIED)), &|_| {}, "replayed");
}

#[test]
fn no_copy_is_answered_as_if_the_request_had_not_run() {
    let mut world = World::new();
    let (id, action) = running(&world.site, false, true);
    let copy = |command: &mut Command| command.id = id;
    let denied = "[[rule]]\nname = \"nobody\"\neffect = \"deny\"\nwhen = 'true'\n";
    // Somebody holds a copy back until its time is over, or until the policy has changed.
    for (policy, late_ms) in [(ALLOW_ALL, 75_500), (denied, 0), (denied, 75_500)] {
        (world.policy, world.now) = (policy, NOW.plus_ms(late_ms));
        for seen in [Seen::Started, Seen::Finished, Seen::Forgotten] {
            (world.seen, world.running) = (Some(seen), BTreeMap::new());
            world.check_change(copy, refused("replayed"));
        }
        // Or until the journal has forgotten it, which it may once nobody may obey it any more.
        (world.seen, world.running) = (None, BTreeMap::from([(id, action.clone())]));
        world.check_change(copy, refused("replayed"));
    }
    // One whose certificate has been revoked since is not told so where his action runs.
    let eve = world.site.authority.revoked("user/eve").unwrap();
    world.site.trust.install_crl(world.site.authority.crl_pem().unwrap().as_bytes(), NOW).unwrap();
    let mut command = command(&eve, "read", json!({}));
    command.id = id;
    world.check(&received(signed(&command, &[&eve])), unanswered("revoked-certificate"));
}

#[test]
fn what_is_signed_and_is_no_message_gets_no_answer() {
    let world = World::new();
    let lea = &world.site.lea;
    let check =
        |body: &[u8], code: &'static str| world.check(&raw(body, PayloadType::Command, &[lea]), unanswered(code));
    check(b"", "malformed");
    check(b"{", "malformed");
    check(b"{\"protocol\":\"muster/1\"}", "malformed");
    check(b"{\"protocol\":\"muster/2\"}", "unsupported-version");
    check(format!("{{\"protocol\":{}}}", "[".repeat(40)).as_bytes(), "too-deep");
    world.check_change(
        |command| command.protocol = ProtocolVersion::Unknown("muster/9".into()),
        unanswered("unsupported-version"),
    );
    world.check_change(|command| command.target = Target::default(), unanswered("malformed"));
    world.check_change(|command| command.expires_at_ms = command.created_at_ms, unanswered("malformed"));
    world.check_change(|command| command.expires_at_ms = NOW.plus_ms(100_000_000), unanswered("malformed"));
}

#[test]
fn nobody_speaks_for_somebody_else() {
    let world = World::new();
    let site = &world.site;
    let of_lea = command(&site.lea, "read", json!({}));
    world.check(&received(signed(&of_lea, &[&site.max])), unanswered("wrong-identity"));
    world.check(&received(signed(&of_lea, &[&site.max, &site.lea])), unanswered("wrong-identity"));
    world.check(&received(signed(&of_lea, &[&site.lea, &site.max])), runs());
    world.check(&received(signed(&of_lea, &[&site.web1])), unanswered("wrong-identity"));
    world.check(&received(signed(&of_lea, &[&site.lea, &site.web1])), unanswered("wrong-identity"));
    // A host that commands in its own name, and answers that would go to somebody else.
    world.check_change(|command| command.caller = site.web1.identity().clone(), unanswered("wrong-identity"));
    world.check_change(|command| command.reply_to = route(&site.max), unanswered("wrong-identity"));
}

#[test]
fn the_window_is_judged_by_this_hosts_clock_and_the_skew_is_told() {
    let mut world = World::new();
    let check = |world: &World, expected| world.check_change(|_| {}, expected);
    world.now = NOW.plus_ms(59_999);
    check(&world, runs());
    world.now = NOW.plus_ms(60_000);
    check(&world, refused("expired"));
    world.now = NOW.plus_ms(75_500);
    let message = check(&world, refused("expired"));
    assert!(message.contains("75.500 s ago") && message.contains("15.500 s too late"), "{message}");
    world.now = NOW.plus_ms(-60_000);
    check(&world, runs());
    world.now = NOW.plus_ms(-60_001);
    let message = check(&world, refused("from-the-future"));
    assert!(message.contains("60.001 s") && message.contains("60.000 s are allowed"), "{message}");
    world.now = NOW;
    world.check_change(|command| command.expires_at_ms = NOW.plus_ms(3_600_000), runs());
    let message =
        world.check_change(|command| command.expires_at_ms = NOW.plus_ms(3_600_001), refused("window-too-long"));
    assert!(message.contains("3600.001 s"), "{message}");
    // Who is not meant says nothing, however wrong the command is.
    world.now = NOW.plus_ms(75_500);
    world.check_change(
        |command| command.target = Target::named(["other.example.com".parse().unwrap()]),
        Came::Silence(Silence::NotInTarget),
    );
    world.check_change(
        |command| command.target = Target::matching("lab(\"everything\").answer = 42"),
        unanswered("expired"),
    );
}

#[test]
fn features_that_must_not_be_ignored_are_not() {
    let world = World::new();
    world.check_change(|command| command.requires = vec!["noop".into(), "timeout".into()], runs());
    let message =
        world.check_change(|command| command.requires = vec!["tele\nport".into()], refused("unsupported-feature"));
    assert!(message.contains("`tele\\nport`"), "{message}");
}

#[test]
fn the_target_decides_whether_the_host_says_anything() {
    let world = World::new();
    let silence = || Came::Silence(Silence::NotInTarget);
    let named = |names: &[&str]| Target::named(names.iter().map(|name| name.parse().unwrap()));
    let both = |name: &str, filter: &str| Target { filter: Some(filter.into()), ..named(&[name]) };
    for (target, expected) in [
        (Target::everyone(), runs()),
        (named(&["db1", kit::HOST]), runs()),
        (named(&["db1"]), silence()),
        (Target::matching("role = web"), runs()),
        (Target::matching("role = db"), silence()),
        (Target::matching("no.such.fact = 1"), silence()),
        (Target::matching("not no.such.fact = 1"), silence()),
        (Target::matching("class = nginx and plugin = lab and collective = main"), runs()),
        (Target::matching("name like \"web*\""), runs()),
        (both(kit::HOST, "role = web"), runs()),
        (both(kit::HOST, "role = db"), silence()),
        (both("db1", "role = web"), silence()),
        (both("db1", "role = = web"), silence()),
        (Target::matching("role = = web"), refused("bad-target")),
        (Target::matching("role = web or lab(\"everything\").answer = 42"), runs()),
        (Target::matching("role = db and lab(\"everything\").answer = 42"), silence()),
        (
            Target::matching("role = web and lab(\"everything\").answer = 42 and lab(\"everything\").x = 1"),
            Came::Asks(vec!["lab(\"everything\")".into()]),
        ),
    ] {
        let shown = format!("{target:?}");
        let mut command = command(&world.site.lea, "read", json!({}));
        command.target = target;
        let (came, message) = world.decide(&received(signed(&command, &[&world.site.lea])));
        assert_eq!(came, expected, "{shown}: {message}");
    }
    world.check_change(|command| command.collective = "lab".parse().unwrap(), Came::Silence(Silence::OtherCollective));
}

#[test]
fn answers_to_data_calls_settle_the_target() {
    let mut world = World::new();
    let target = |command: &mut Command| command.target = Target::matching("lab(\"everything\").answer >= 42");
    for (answers, expected) in [
        (json!({ "lab(\"everything\")": { "answer": 42 } }), runs()),
        (json!({ "lab(\"everything\")": { "answer": 41 } }), Came::Silence(Silence::NotInTarget)),
        (json!({}), Came::Silence(Silence::NotInTarget)),
    ] {
        world.answers = Some(serde_json::from_value(answers).unwrap());
        world.check_change(target, expected);
    }
}

#[test]
fn a_request_runs_at_most_once() {
    let mut world = World::new();
    for seen in [Seen::Started, Seen::Finished] {
        world.seen = Some(seen);
        world.check_change(|_| {}, refused("replayed"));
        let again = Received {
            redelivered: true,
            ..received(signed(&command(&world.site.lea, "read", json!({})), &[&world.site.lea]))
        };
        world.check(&again, Came::Silence(Silence::Recovered));
    }
    // What was refused is told again: the first answer may have been lost.
    world.seen = Some(Seen::Refused(&muster_protocol::code::BUSY));
    world.check_change(|_| {}, refused("replayed"));
    let again = Received {
        redelivered: true,
        ..received(signed(&command(&world.site.lea, "read", json!({})), &[&world.site.lea]))
    };
    world.check(&again, refused("busy"));
    world.seen = Some(Seen::Forgotten);
    let message = world.check_change(|_| {}, refused("replayed"));
    assert!(message.contains("set back"), "{message}");
    // The broker's word that it delivers again counts for nothing where the id is not known.
    world.seen = None;
    let first = received(signed(&command(&world.site.lea, "read", json!({})), &[&world.site.lea]));
    world.check(&Received { redelivered: true, ..first }, runs());
}

#[test]
fn the_policy_comes_before_the_plugin() {
    let mut world = World::new();
    world.policy = "[[rule]]\nname = \"reads\"\neffect = \"allow\"\nwhen = 'read_only = true'\n";
    let message = world.check_change(|_| {}, refused("policy-denied"));
    assert_eq!(message, "no rule allows it");
    let message = world.check_change(|command| command.plugin = "nonsense".parse().unwrap(), refused("policy-denied"));
    assert!(message.contains("no rule allows it") && message.contains("`nonsense`"), "{message}");
    world.check_change(
        |command| {
            command.action = "read".parse().unwrap();
            command.arguments = Map::new();
        },
        Came::Runs("reads".into()),
    );
    // A rule about an argument sees its default: leaving `force` out is not the way around it.
    world.policy = "[[rule]]\nname = \"no-force\"\neffect = \"deny\"\nwhen = 'arg.force = true'\n\
                    [[rule]]\nname = \"all\"\neffect = \"allow\"\nwhen = 'true'\n";
    let message = world.check_change(|_| {}, refused("policy-denied"));
    assert_eq!(message, "rule `no-force` denies it");
    world.check_change(|command| drop(command.arguments.insert("force".into(), json!(false))), runs());
    // Where the value is missing altogether the rule applies too.
    let message = world.check_change(|command| command.action = "wait".parse().unwrap(), refused("policy-denied"));
    assert!(message.contains("may deny"), "{message}");
}

#[test]
fn plugin_action_and_arguments_have_to_exist_and_fit() {
    let world = World::new();
    let check = |change: fn(&mut Command), code: &'static str| world.check_change(change, refused(code));
    check(|command| command.plugin = "nonsense".parse().unwrap(), "unknown-plugin");
    check(|command| command.action = "nonsense".parse().unwrap(), "unknown-action");
    check(|command| command.arguments = Map::new(), "missing-argument");
    check(|command| drop(command.arguments.insert("nmae".into(), json!("x"))), "unknown-argument");
    check(|command| drop(command.arguments.insert("name".into(), json!("x; rm -rf /"))), "invalid-argument");
    check(|command| drop(command.arguments.insert("name".into(), json!(1))), "invalid-argument");
    check(|command| drop(command.arguments.insert("name".into(), json!("x".repeat(21)))), "invalid-argument");
}

#[test]
fn options_are_honoured_or_refused() {
    let world = World::new();
    let stubborn = |command: &mut Command| {
        command.action = "stubborn".parse().unwrap();
        command.arguments = Map::new();
    };
    world.check_change(|command| command.options.noop = true, runs());
    let noop = |command: &mut Command| {
        stubborn(command);
        command.options.noop = true;
    };
    world.check_change(noop, refused("unsupported-option"));
    world.check_change(|command| command.options.effective_user = Some("root".into()), refused("unsupported-option"));
    world.check_change(|command| command.options.timeout_ms = Some(86_400_000), runs());
    world.check_change(|command| command.options.timeout_ms = Some(86_400_001), refused("unsupported-option"));
}

fn running(site: &Site, read_only: bool, can_cancel: bool) -> (RequestId, RunningAction) {
    let action = RunningAction {
        caller: site.lea.identity().clone(),
        action: "lab.wait".into(),
        can_cancel,
        read_only,
        is_watch: false,
    };
    (fresh_id(), action)
}

#[test]
fn a_busy_host_says_so_and_still_answers_questions() {
    let mut world = World::new();
    world.running = (0..2).map(|_| running(&world.site, false, true)).collect();
    world.check_change(|_| {}, refused("busy"));
    let read = |command: &mut Command| {
        command.action = "read".parse().unwrap();
        command.arguments = Map::new();
    };
    world.check_change(read, runs());
    world.running.extend((0..2).map(|_| running(&world.site, true, true)));
    world.check_change(read, refused("busy"));
}

#[test]
fn a_watch_is_for_the_caller_and_for_whom_the_policy_allows() {
    let mut world = World::new();
    let (id, action) = running(&world.site, false, false);
    world.running.insert(id, action.clone());
    let check = |world: &World, id: RequestId, caller: &Credentials, expected: Came| {
        let message = kit::watch(caller, id);
        world.check(&received(signed(&message, &[caller])), expected);
    };
    let (lea, max) = (world.site.lea.clone(), world.site.max.clone());
    check(&world, id, &lea, Came::Runs("own".into()));
    check(&world, id, &max, Came::Runs("all".into()));
    check(&world, fresh_id(), &lea, refused("unknown-request"));
    world.policy = "[[rule]]\nname = \"read\"\neffect = \"allow\"\nwhen = 'read_only = true'\n";
    check(&world, id, &lea, Came::Runs("own".into()));
    check(&world, id, &max, refused("policy-denied"));
    world.policy =
        "[[rule]]\nname = \"w\"\neffect = \"allow\"\nwhen = 'action = watch and arg.action = \"lab.wait\"'\n";
    check(&world, id, &max, Came::Runs("w".into()));
    // As many as may be, and the same one again.
    let copy = kit::watch(&lea, id);
    world.running.insert(copy.id, RunningAction { action: "watch".into(), is_watch: true, ..action });
    check(&world, id, &lea, refused("busy"));
    world.check(&received(signed(&copy, &[&lea])), unanswered("replayed"));
    // They take no room of anything else.
    world.policy = ALLOW_ALL;
    world.check_change(|_| {}, runs());
}

#[test]
fn a_command_and_a_watch_never_share_an_id() {
    let mut world = World::new();
    let (id, action) = running(&world.site, false, true);
    let watching = RunningAction { action: "watch".into(), is_watch: true, ..action.clone() };
    let taken = fresh_id();
    world.running = BTreeMap::from([(id, action), (taken, watching)]);
    // It would push the watch off the list, whose end would then take the command off it.
    world.check_change(|command| command.id = taken, unanswered("replayed"));
    // The action with this id may have ended and not be reported yet, and is not in the list that is asked then.
    let mut message = kit::watch(&world.site.lea, id);
    message.id = fresh_id();
    for seen in [Seen::Started, Seen::Finished, Seen::Refused(&muster_protocol::code::BUSY)] {
        world.seen = Some(seen);
        world.check(&received(signed(&message, &[&world.site.lea])), unanswered("replayed"));
    }
}

#[test]
fn a_cancellation_is_for_the_caller_and_for_whom_the_policy_allows() {
    let mut world = World::new();
    let (id, action) = running(&world.site, false, true);
    let (stubborn, fixed) = running(&world.site, false, false);
    world.running = BTreeMap::from([(id, action), (stubborn, fixed)]);
    world.policy = "[[rule]]\nname = \"nothing\"\neffect = \"deny\"\nwhen = 'true'\n";
    let of = |who: &Credentials, id| received(signed(&kit::cancel(who, id), &[who]));
    let site = &world.site;
    world.check(&of(&site.lea, id), Came::Runs("own".into()));
    world.check(&of(&site.max, id), refused("policy-denied"));
    world.check(&of(&site.lea, fresh_id()), refused("not-running"));
    world.check(&of(&site.lea, stubborn), refused("unsupported-option"));
    world.check(&received(signed(&kit::cancel(&site.lea, id), &[&site.max])), unanswered("wrong-identity"));
    let world = World {
        policy: "[[rule]]\nname = \"max\"\neffect = \"allow\"\nwhen = 'action = cancel and caller.name = max and arg.action = \"lab.wait\"'\n",
        ..world
    };
    world.check(&of(&world.site.max, id), Came::Runs("max".into()));
    let late = World { now: NOW.plus_ms(100_000), ..world };
    late.check(&of(&late.site.lea, id), refused("expired"));
}

thread_local! {
    static WORLD: World = World::new();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever bit is changed on the way, in the body, the signatures or the type: nothing runs.
    #[test]
    fn one_changed_bit_never_runs(position in any::<prop::sample::Index>(), bit in 0u8..8) {
        WORLD.with(|world| {
            let whole = received(signed(&command(&world.site.lea, "change", json!({ "name": "x" })), &[&world.site.lea]));
            let lengths = [whole.body.len(), whole.signatures.len(), whole.content_type.len()];
            let mut at = position.index(lengths.iter().sum());
            let mut parts = [whole.body.to_vec(), whole.signatures.to_vec(), whole.content_type.into_bytes()];
            for part in &mut parts {
                if at < part.len() {
                    part[at] ^= 1 << bit;
                    break;
                }
                at -= part.len();
            }
            let [body, signatures, content_type] = parts;
            let changed = Received {
                content_type: String::from_utf8_lossy(&content_type).into_owned(),
                body: body.into(),
                signatures: signatures.into(),
                redelivered: false,
                oversized: None,
            };
            let (came, message) = world.decide(&changed);
            prop_assert!(matches!(came, Came::Refused(_, false)), "{came:?} {message}");
            Ok(())
        })?;
    }
}

const TWO: &str = "[[rule]]\nname = \"two\"\neffect = \"allow\"\nwhen = 'true'\napprovals = [{ group = \"sre\" }]\n\
    [[rule]]\nname = \"lax\"\neffect = \"allow\"\nwhen = 'true'\n";

#[test]
fn a_second_person_signs_the_same_bytes_or_nothing_runs() {
    let world = World { policy: TWO, ..World::new() };
    let site = &world.site;
    let sre = site.authority.credentials_with_groups("user/sam", &["sre"]).unwrap();
    let command = command(&site.lea, "change", json!({ "name": "x" }));
    let body = serde_json::to_vec(&command).unwrap();
    let of = |signers: &[&Credentials]| raw(&body, PayloadType::Command, signers);

    let said = world.check(&of(&[&site.lea]), refused("needs-approval"));
    assert_eq!(said, "rule `two` needs 1 more signature by a member of group sre");
    world.check(&of(&[&site.lea, &site.max]), refused("needs-approval"));
    world.check(&of(&[&site.lea, &sre]), Came::Runs("two".into()));
    world.check(&of(&[&site.lea, &site.max, &sre]), Came::Runs("two".into()));
    world.check(&of(&[&site.lea, &sre, &site.max]), Came::Runs("two".into()));

    // An approval is worth nothing without the caller, nor as the caller's.
    world.check(&of(&[&sre]), unanswered("wrong-identity"));
    world.check(&of(&[&sre, &site.lea]), unanswered("wrong-identity"));
    // Nor for other bytes, however alike.
    let mut other = command.clone();
    other.id = fresh_id();
    let other = serde_json::to_vec(&other).unwrap();
    let mut moved = raw(&other, PayloadType::Command, &[&site.lea]);
    let mut signatures: Vec<Value> = serde_json::from_slice(&moved.signatures).unwrap();
    let approved: Vec<Value> = serde_json::from_slice(&of(&[&site.lea, &sre]).signatures).unwrap();
    signatures.push(approved[1].clone());
    moved.signatures = serde_json::to_vec(&signatures).unwrap().into();
    world.check(&moved, unanswered("bad-signature"));
    // Nor of a host, nor of the caller by another certificate of his.
    let again = site.authority.credentials_with_groups("user/lea", &["sre"]).unwrap();
    world.check(&of(&[&site.lea, &again]), unanswered("bad-envelope"));
    world.check(&of(&[&site.lea, &site.web1]), unanswered("wrong-identity"));
    // A service that has the group does not count as a person.
    let service = site.authority.credentials_with_groups("service/deploy", &["sre"]).unwrap();
    world.check(&of(&[&site.lea, &service]), refused("needs-approval"));
}

#[test]
fn whoever_may_stop_needs_no_second_person() {
    let mut world = World { policy: TWO, ..World::new() };
    let (id, action) = running(&world.site, false, true);
    world.running.insert(id, action);
    let max = world.site.max.clone();
    world.check(&received(signed(&kit::cancel(&max, id), &[&max])), Came::Runs("two".into()));
}

#[test]
fn whoever_watches_what_is_somebody_elses_needs_whom_the_rule_names() {
    let mut world = World { policy: TWO, ..World::new() };
    let (id, action) = running(&world.site, false, true);
    world.running.insert(id, action);
    let (lea, max) = (world.site.lea.clone(), world.site.max.clone());
    let sre = world.site.authority.credentials_with_groups("user/sam", &["sre"]).unwrap();
    let watch = kit::watch(&max, id);
    let said = world.check(&received(signed(&watch, &[&max])), refused("needs-approval"));
    assert_eq!(said, "rule `two` needs 1 more signature by a member of group sre");
    world.check(&received(signed(&watch, &[&max, &lea])), refused("needs-approval"));
    world.check(&received(signed(&watch, &[&max, &sre])), Came::Runs("two".into()));
    // One's own takes nobody.
    world.check(&received(signed(&kit::watch(&lea, id), &[&lea])), Came::Runs("own".into()));
}

proptest! {
    /// One more right signature never turns a request that runs into one that is refused.
    #[test]
    fn signatures_only_add(order in Just(vec![0usize, 1, 2, 3]).prop_shuffle(), first in 0usize..=4) {
        let world = World { policy: TWO, ..World::new() };
        let site = &world.site;
        let others = [
            site.authority.credentials_with_groups("user/a", &["sre"]).unwrap(),
            site.authority.credentials_with_groups("user/b", &["dba"]).unwrap(),
            site.authority.credentials_with_groups("user/c", &["sre", "dba"]).unwrap(),
            site.authority.credentials_with_groups("service/d", &["sre"]).unwrap(),
        ];
        let command = command(&site.lea, "change", json!({ "name": "x" }));
        let body = serde_json::to_vec(&command).unwrap();
        let mut signers = vec![&site.lea];
        let mut ran = false;
        for index in order.into_iter().take(first) {
            signers.push(&others[index]);
            let runs = world.decide(&raw(&body, PayloadType::Command, &signers)).0 == Came::Runs("two".into());
            prop_assert!(runs || !ran, "{index} took it back");
            prop_assert_eq!(runs, ran || index == 0 || index == 2);
            ran = runs;
        }
    }
}
