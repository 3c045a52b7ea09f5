//! The policy language: which rule decides, and where a wrong one is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use muster_agent::policy::{Policy, Question, STARTER, Verdict};
use muster_pki::{Credentials, Signer};
use muster_protocol::CollectiveName;
use muster_protocol::expr::HostScope;
use serde_json::{Map, Value, json};

use crate::kit::{NOW, Site, host};

fn signer(credentials: &Credentials) -> Signer {
    Signer {
        identity: credentials.identity().clone(),
        groups: credentials.groups().clone(),
        fingerprint: credentials.fingerprint().to_owned(),
        not_after: NOW,
    }
}

struct Asked<'a> {
    signers: Vec<Signer>,
    action: &'a str,
    read_only: Option<bool>,
    arguments: Value,
    noop: bool,
    effective_user: Option<&'a str>,
}

fn ask(policy: &str, asked: &Asked<'_>) -> Verdict {
    let Value::Object(facts) = json!({ "role": "web", "group": "trap", "effective_user": "trap" }) else { panic!() };
    let Value::Object(arguments) = asked.arguments.clone() else { panic!() };
    let classes = BTreeSet::from(["nginx".to_owned()]);
    let collectives = BTreeSet::from(["main".parse::<CollectiveName>().unwrap()]);
    let scope = HostScope {
        name: &host(),
        facts: &facts,
        classes: &classes,
        plugins: &BTreeSet::new(),
        collectives: &collectives,
        calls: &BTreeMap::new(),
    };
    let question = Question {
        signers: &asked.signers,
        plugin: asked.action.split('.').next().unwrap(),
        action: asked.action,
        read_only: asked.read_only,
        arguments: &arguments,
        noop: asked.noop,
        effective_user: asked.effective_user,
    };
    Policy::parse(policy, Path::new("policy.toml")).unwrap().ask(&question, &scope)
}

fn rule(name: &str, effect: &str, when: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\neffect = \"{effect}\"\nwhen = '{when}'\n")
}

#[test]
fn every_name_of_the_scope_has_its_value() {
    let site = Site::new();
    let asked = Asked {
        signers: vec![signer(&site.lea), signer(&site.max)],
        action: "package.status",
        read_only: Some(true),
        arguments: json!({ "name": "bash", "deep": { "x": [1, 2] } }),
        noop: true,
        effective_user: Some("www"),
    };
    for (when, holds) in [
        ("caller = \"muster:user/lea\"", true),
        ("caller.kind = user and caller.name = lea", true),
        ("caller.name = max", false),
        ("group = admins", true),
        ("group = trap", false),
        ("signer = \"muster:user/max\" and signatures = 2", true),
        ("signatures >= 3", false),
        ("plugin = package and action = \"package.status\"", true),
        ("plugin = lab", false),
        ("read_only = true and noop = true and effective_user = www", true),
        ("arg.name = bash and arg.deep.x = 2", true),
        ("arg.name = zsh", false),
        ("has(arg.nothing)", false),
        ("arg.nothing = 1", false),
        ("name = \"web1.example.com\" and class = nginx and collective = main", true),
        ("fact.role = web and fact.group = trap", true),
        ("fact.role = db", false),
    ] {
        let expected = if holds { Verdict::Allowed { rule: "r".into() } } else { Verdict::NoRule };
        assert_eq!(ask(&rule("r", "allow", when), &asked), expected, "{when}");
    }
    // What the command does not say is missing, whatever the host's facts are called.
    let bare = Asked { effective_user: None, read_only: None, ..asked };
    for when in ["effective_user = trap", "read_only = true", "not effective_user = www"] {
        assert_eq!(ask(&rule("r", "allow", when), &bare), Verdict::NoRule, "{when}");
    }
}

#[test]
fn the_first_rule_that_applies_decides() {
    let site = Site::new();
    let asked = Asked {
        signers: vec![signer(&site.lea)],
        action: "lab.change",
        read_only: Some(false),
        arguments: json!({}),
        noop: false,
        effective_user: None,
    };
    let denied = |rule: &str, certain| Verdict::Denied { rule: rule.into(), certain };
    let allowed = |rule: &str| Verdict::Allowed { rule: rule.into() };
    let (yes, no, unknown) = ("true", "false", "arg.missing = 1");
    for (rules, expected) in [
        (vec![], Verdict::NoRule),
        (vec![("a", "allow", no)], Verdict::NoRule),
        (vec![("a", "allow", yes), ("b", "deny", yes)], allowed("a")),
        (vec![("a", "deny", yes), ("b", "allow", yes)], denied("a", true)),
        (vec![("a", "deny", no), ("b", "allow", yes)], allowed("b")),
        (vec![("a", "allow", unknown), ("b", "allow", yes)], allowed("b")),
        (vec![("a", "allow", unknown)], Verdict::NoRule),
        (vec![("a", "deny", unknown), ("b", "allow", yes)], denied("a", false)),
        (vec![("a", "deny", "has(arg.missing) and arg.missing = 1"), ("b", "allow", yes)], allowed("b")),
    ] {
        let text: String = rules.iter().map(|(name, effect, when)| rule(name, effect, when)).collect();
        assert_eq!(ask(&text, &asked), expected, "{rules:?}");
    }
}

#[test]
fn the_starter_policy_lets_everybody_look_and_admins_act() {
    let site = Site::new();
    for (who, read_only, expected) in [
        (&site.max, true, Verdict::Allowed { rule: "everybody-may-look".into() }),
        (&site.max, false, Verdict::NoRule),
        (&site.lea, true, Verdict::Allowed { rule: "everybody-may-look".into() }),
        (&site.lea, false, Verdict::Allowed { rule: "admins-may-act".into() }),
    ] {
        let asked = Asked {
            signers: vec![signer(who)],
            action: "lab.x",
            read_only: Some(read_only),
            arguments: Value::Object(Map::new()),
            noop: false,
            effective_user: None,
        };
        assert_eq!(ask(STARTER, &asked), expected, "{} {read_only}", who.identity());
    }
}

#[test]
fn a_wrong_rule_is_found_where_it_is() {
    #[track_caller]
    fn check(text: &str, line: usize, column: usize, words: &[&str]) {
        let error = Policy::parse(text, Path::new("/etc/muster/policy.toml")).unwrap_err().to_string();
        let place = format!("policy `/etc/muster/policy.toml` line {line}, column {column}: ");
        assert!(error.starts_with(&place), "{error}");
        for word in words {
            assert!(error.contains(word), "{error} has no {word}");
        }
    }
    let head = "# a comment\n[[rule]]\nname = \"ü\"\neffect = \"allow\"\n";
    check(&format!("{head}when = 'action = = x'\n"), 5, 18, &["rule `ü`"]);
    check(&format!("{head}when = \"\"\"\naction = \"a\"\n and and\"\"\"\n"), 7, 6, &[]);
    check(&format!("{head}when = 'calller.name = lea'\n"), 5, 9, &["`calller`", "did you mean `caller`?"]);
    check(&format!("{head}when = 'os.family = Debian'\n"), 5, 9, &["fact.os.family"]);
    check(&format!("{head}when = 'caller.nmae = lea'\n"), 5, 9, &["caller.nmae"]);
    check(&format!("{head}when = 'package(\"x\").version = 1'\n"), 5, 9, &["a policy cannot"]);
    check(&format!("{head}when = 'true'\n{head}when = 'true'\n"), 8, 8, &["two rules"]);
    check("[[rule]]\nname = \"a\"\neffect = \"maybe\"\nwhen = 'true'\n", 3, 10, &["maybe"]);
    check("[[rule]]\nname = \"a\"\neffect = \"allow\"\nwen = 'true'\n", 4, 1, &["wen"]);
    check("[[rules]]\n", 1, 3, &["rules"]);
    check("rule = \n", 1, 8, &[]);
    let many: String = (0..1001).map(|number| rule(&format!("r{number}"), "allow", "true")).collect();
    assert!(Policy::parse(&many, Path::new("p")).unwrap_err().to_string().contains("more than 1000 rules"));
    assert!(Policy::load(Path::new("/nonexistent/policy.toml")).unwrap_err().to_string().contains("/nonexistent"));
}
