//! The policy language: which rule decides, and where a wrong one is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use muster_agent::policy::{Known, Policy, Question, STARTER, Shortfall, Verdict};
use muster_pki::{Credentials, Signer};
use muster_protocol::CollectiveName;
use muster_protocol::expr::HostScope;
use serde_json::{Map, Value, json};

use crate::kit::{NOW, Site, host, registry};

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
        ("arg.name = bash and arg.deep.x < 3", true),
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
    let look = Verdict::Allowed { rule: "everybody-may-look".into() };
    let act = Verdict::Allowed { rule: "admins-may-act".into() };
    let no = Verdict::NoRule;
    // action, read_only, as which user, then what becomes of it for max (no group) and for lea (admins)
    for (action, read_only, effective_user, max, lea) in [
        ("host.ping", Some(true), None, &look, &look),
        ("host.facts", Some(true), None, &look, &look),
        ("package.status", Some(true), None, &look, &look),
        ("service.status", Some(true), None, &look, &look),
        ("puppet.last_run_summary", Some(true), None, &look, &look),
        ("package.status", Some(true), Some("root"), &no, &act),
        ("package.status", Some(true), Some("www-data"), &no, &act),
        ("file.fetch", Some(true), None, &no, &act),
        ("file.put", Some(false), None, &no, &act),
        ("package.install", Some(false), None, &no, &act),
        ("service.restart", Some(false), None, &no, &act),
        ("shell.run", Some(false), None, &no, &act),
        ("shell.run", Some(false), Some("root"), &no, &act),
        ("cancel", Some(false), None, &no, &act),
        ("watch", Some(false), None, &no, &act),
        // An action that the host does not know is not taken to be harmless.
        ("site.secrets", None, None, &no, &act),
    ] {
        for (who, expected) in [(&site.max, max), (&site.lea, lea)] {
            for noop in [false, true] {
                let asked = Asked {
                    signers: vec![signer(who)],
                    action,
                    read_only,
                    arguments: Value::Object(Map::new()),
                    noop,
                    effective_user,
                };
                assert_eq!(ask(STARTER, &asked), *expected, "{} {action} {effective_user:?}", who.identity());
            }
        }
    }
    // The groups of a second signer lend the caller nothing.
    let asked = Asked {
        signers: vec![signer(&site.max), signer(&site.lea)],
        action: "package.install",
        read_only: Some(false),
        arguments: Value::Object(Map::new()),
        noop: false,
        effective_user: None,
    };
    assert_eq!(ask(STARTER, &asked), no);
}

#[test]
fn nothing_forbidden_comes_through_beside_something_allowed() {
    let site = Site::new();
    #[track_caller]
    fn check(site: &Site, effect: &str, when: &str, tags: Value, applies: bool) {
        let asked = Asked {
            signers: vec![signer(&site.lea)],
            action: "puppet.runonce",
            read_only: Some(false),
            arguments: json!({ "tags": tags }),
            noop: false,
            effective_user: None,
        };
        let decided = ask(&rule("r", effect, when), &asked) != Verdict::NoRule;
        assert_eq!(decided, applies, "{effect} {when} {tags}");
    }
    for (when, tags, allows, denies) in [
        (r#"arg.tags = "web""#, json!("web"), true, true),
        (r#"arg.tags = "web""#, json!(["web"]), true, true),
        (r#"arg.tags = "web""#, json!(["web", "evil"]), false, true),
        (r#"arg.tags = "web""#, json!(["web", ["evil"]]), false, true),
        (r#"arg.tags = "web""#, json!(["web", {}]), false, true),
        (r#"arg.tags = "web""#, json!([]), false, false),
        (r#"arg.tags in ["web", "mail"]"#, json!(["web", "mail"]), true, true),
        (r#"arg.tags in ["web", "mail"]"#, json!(["web", "evil"]), false, true),
        (r#"arg.tags like "web*""#, json!(["web1", "evil"]), false, true),
        (r#"arg.tags ~ /^web/"#, json!(["web1", "evil"]), false, true),
        (r#"arg.tags != "evil""#, json!(["web", "evil"]), false, true),
        (r#"arg.tags != "evil""#, json!(["web", "mail"]), true, true),
        (r#"not arg.tags = "evil""#, json!(["web", "evil"]), false, true),
        (r#"arg.tags != "web""#, json!(["web", "evil"]), false, true),
        (r#"not (arg.tags = "web" or arg.tags = "mail")"#, json!(["web", "evil"]), false, true),
        (r#"not (arg.tags in ["web", "mail"])"#, json!(["web", "mail"]), false, false),
        (r#"not not arg.tags = "web""#, json!(["web", "evil"]), false, true),
        // What the caller does not choose is read as in a target.
        ("group = admins", json!(["web"]), true, true),
    ] {
        let site = &site;
        check(site, "allow", when, tags.clone(), allows);
        check(site, "deny", when, tags, denies);
    }
}

#[test]
fn the_starter_policy_has_nothing_to_warn_of() {
    let registry = registry();
    let facts = Map::new();
    let known = Known {
        descriptions: registry.iter().map(|registered| registered.plugin.ddl()).collect(),
        facts: Some(&facts),
    };
    let policy = Policy::parse(STARTER, Path::new("policy.toml")).unwrap();
    // The lab has no `file.fetch`; a host has it, active or not.
    let warnings: Vec<_> = policy.warnings(&known).into_iter().map(|warning| warning.message).collect();
    assert_eq!(warnings, ["no action here is called `file.fetch`", "no action here is called `puppet.wait`"]);
    assert_eq!(policy.warnings(&Known::default()), []);
}

#[test]
fn what_is_surely_not_meant_is_said() {
    let registry = registry();
    let Value::Object(facts) = json!({ "role": "web", "os": { "family": "Debian" } }) else { panic!() };
    let known = Known {
        descriptions: registry.iter().map(|registered| registered.plugin.ddl()).collect(),
        facts: Some(&facts),
    };
    let check = |rules: &[(&str, &str)], expected: &[(usize, usize, &str)]| {
        let numbered = rules.iter().enumerate();
        let text: String = numbered.map(|(at, (effect, when))| rule(&format!("r{at}"), effect, when)).collect();
        let found = Policy::parse(&text, Path::new("p")).unwrap().warnings(&known);
        let places: Vec<_> = found.iter().map(|warning| (warning.place.line, warning.place.column)).collect();
        let places_expected: Vec<_> = expected.iter().map(|(line, column, _)| (*line, *column)).collect();
        assert_eq!(places, places_expected, "{rules:?}: {found:#?}");
        for (warning, (.., words)) in found.iter().zip(expected) {
            assert!(warning.message.contains(words), "{rules:?}: {} has no `{words}`", warning.message);
        }
    };
    let (allow, deny) = ("allow", "deny");
    check(&[(allow, "group = a"), (allow, "group = b"), (deny, "action = \"lab.read\"")], &[]);
    // Rules that never decide.
    let after_all = "can never decide: rule `r0` (line 2) decides everything before it";
    check(&[(allow, "true"), (deny, "group = a"), (allow, "true")], &[(6, 8, after_all), (10, 8, after_all)]);
    check(&[(allow, "group = a"), (allow, "group = a")], &[(6, 8, "can never decide: rule `r0` (line 2)")]);
    check(&[(deny, "group = a"), (allow, "group = a and noop = true")], &[(6, 8, "can never decide: rule `r0`")]);
    check(&[(deny, "group = a or noop = true"), (deny, "group = a")], &[(6, 8, "can never decide")]);
    check(&[(allow, "group = a"), (deny, "group = a")], &[(6, 8, "denies only where a value is missing")]);
    check(&[(allow, "group = a and noop = true"), (deny, "group = a")], &[]);
    check(&[(allow, "false")], &[(2, 8, "its condition is `false`")]);
    check(&[(allow, "group = a and false")], &[(2, 8, "`false`")]);
    check(&[(allow, "caller.name = lea and caller.name = max")], &[(2, 8, "`caller.name` cannot have two values")]);
    check(&[(allow, "group = a and group = b")], &[]);
    check(&[(allow, "caller.kind = host")], &[(2, 8, "a caller is a `user` or a `service`")]);
    check(&[(allow, "plugin = lab and action = \"cancel\"")], &[(2, 8, "is not one of plugin `lab`")]);
    // Names.
    check(&[(allow, "plugin = lba")], &[(4, 18, "no plugin here is called `lba`; did you mean `lab`?")]);
    check(&[(allow, "action in [\"lab.read\", \"lab.raed\"]")], &[(4, 33, "did you mean `lab.read`?")]);
    check(&[(allow, "action = read")], &[(4, 18, "an action is written `plugin.action`")]);
    check(&[(allow, "action like \"lab.z*\"")], &[(4, 22, "no action here fits `lab.z*`")]);
    check(&[(allow, "action like \"lab.r*\" or action in [cancel, watch]")], &[]);
    // Arguments.
    let no_name = "no action that the rule is about takes `nmae`; did you mean `arg.name`?";
    check(&[(allow, "action = \"lab.change\" and arg.nmae = x")], &[(4, 35, no_name)]);
    check(&[(allow, "action = \"lab.read\" and arg.name = x")], &[(4, 33, "takes `name`")]);
    check(&[(allow, "arg.name = x and arg.force = true")], &[]);
    check(&[(allow, "action = cancel and arg.caller = \"muster:user/lea\"")], &[]);
    // Facts are a hint: they come and go.
    check(&[(allow, "fact.roel = web")], &[(4, 9, "this host has no `fact.roel` now; did you mean `fact.role`?")]);
    check(&[(allow, "fact.os.family = Debian and fact.os.name = x")], &[(4, 37, "no `fact.os.name`")]);
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

/// A plugin with a secret input, described as a site would.
fn vault() -> muster_plugin_api::Registry {
    struct Vault(muster_protocol::ddl::Ddl);
    impl muster_plugin_api::Plugin for Vault {
        fn ddl(&self) -> &muster_protocol::ddl::Ddl {
            &self.0
        }
        fn run(
            &self,
            _request: muster_plugin_api::ActionRequest,
            _context: muster_plugin_api::ActionContext,
        ) -> muster_plugin_api::BoxFuture<'_, muster_plugin_api::ActionReply> {
            Box::pin(async { unreachable!("nothing runs here") })
        }
    }
    let ddl = json!({
        "metadata": { "name": "vault" },
        "actions": [{
            "action": "open", "output": {},
            "input": {
                "pin": { "prompt": "", "description": "", "type": "string", "optional": true, "default": "0000",
                         "muster": { "secret": true } },
                "door": { "prompt": "", "description": "", "type": "string", "optional": true, "default": "front" }
            }
        }]
    });
    let mut registry = muster_plugin_api::Registry::new();
    let ddl = muster_protocol::ddl::Ddl::parse(&ddl.to_string()).unwrap();
    registry.register(std::sync::Arc::new(Vault(ddl))).unwrap();
    registry
}

#[test]
fn no_rule_sees_a_secret() {
    let site = Site::new();
    let registry = vault();
    let facts = Map::new();
    let (classes, collectives, names, calls) = Default::default();
    let scope = HostScope {
        name: &host(),
        facts: &facts,
        classes: &classes,
        plugins: &names,
        collectives: &collectives,
        calls: &calls,
    };
    let (plugin, action) = ("vault".parse().unwrap(), "open".parse().unwrap());
    // What the policy says is looked at, whatever the rest of the examination makes of a secret in the open.
    let verdict = |rules: &str, arguments: Value| {
        let Value::Object(arguments) = arguments else { panic!() };
        let policy = Policy::parse(rules, Path::new("p")).unwrap();
        let petition = muster_agent::admit::Petition {
            signers: &[signer(&site.lea)],
            plugin: &plugin,
            action: &action,
            arguments: &arguments,
            sealed: None,
            noop: false,
            effective_user: None,
        };
        let mut steps = Vec::new();
        let mut observe = |step: &muster_agent::policy::Step<'_>| steps.push((step.truth, step.decides));
        drop(muster_agent::admit::examine(&petition, &registry, &policy, &scope, &mut observe, || Ok(Map::new())));
        steps
    };
    use muster_protocol::expr::Truth;
    for arguments in [json!({}), json!({ "pin": "1234" }), json!({ "pin": "1234", "door": "back" })] {
        for when in ["arg.pin = \"1234\"", "arg.pin = \"0000\"", "arg.pin like \"*\"", "not arg.pin = x"] {
            assert_eq!(verdict(&rule("r", "allow", when), arguments.clone()), [(Truth::Unknown, false)], "{when}");
            assert_eq!(verdict(&rule("r", "deny", when), arguments.clone()), [(Truth::Unknown, true)], "{when}");
        }
        assert_eq!(verdict(&rule("r", "allow", "has(arg.pin)"), arguments.clone()), [(Truth::False, false)]);
    }
    assert_eq!(verdict(&rule("r", "allow", "arg.door = front"), json!({ "pin": "1" })), [(Truth::True, true)]);
    let known =
        Known { descriptions: registry.iter().map(|registered| registered.plugin.ddl()).collect(), facts: None };
    let told = |effect: &str| {
        let policy = Policy::parse(&rule("r", effect, "arg.pin = x"), Path::new("p")).unwrap();
        policy.warnings(&known).into_iter().map(|warning| warning.message).collect::<Vec<_>>().concat()
    };
    assert!(told("allow").contains("`arg.pin` is a secret of `vault.open`; no rule sees it"), "{}", told("allow"));
    assert!(told("deny").contains("so the rule denies"), "{}", told("deny"));
}

const TWO_PERSONS: &str = r#"
[[rule]]
name = "two"
effect = "allow"
when = 'group = admins'
approvals = [{ group = "sre" }, { count = 1 }]

[[rule]]
name = "lax"
effect = "allow"
when = 'true'
"#;

#[test]
fn a_rule_that_lacks_approvals_never_falls_through() {
    let site = Site::new();
    let person = |credentials: &Credentials, groups: &[&str]| Signer {
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        ..signer(credentials)
    };
    let named = |name: &str, groups: &[&str]| Signer { identity: name.parse().unwrap(), ..person(&site.max, groups) };
    let check = |signers: Vec<Signer>, expected: Result<&str, &str>| {
        let asked = Asked {
            signers,
            action: "lab.change",
            read_only: Some(false),
            arguments: json!({}),
            noop: false,
            effective_user: None,
        };
        let found = match ask(TWO_PERSONS, &asked) {
            Verdict::Allowed { rule } => Ok(rule),
            Verdict::NeedsApproval { rule, missing } => {
                assert_eq!(rule, "two");
                Err(Shortfall::sentence(&missing))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
    };
    let lea = || signer(&site.lea);
    check(vec![lea()], Err("1 more signature by a member of group sre, and 1 more by another user"));
    check(vec![lea(), named("user/max", &["sre"])], Err("1 more signature by another user"));
    check(vec![lea(), named("user/max", &["sre"]), named("user/eve", &[])], Ok("two"));
    check(vec![lea(), named("user/eve", &[]), named("user/max", &["sre"])], Ok("two"));
    check(
        vec![lea(), named("user/max", &["sre"]), named("service/deploy", &["sre"])],
        Err("1 more signature by another user"),
    );
    // Whom the rule is not about is not held by it.
    check(vec![named("user/max", &[])], Ok("lax"));
}

#[test]
fn approvals_are_read_strictly() {
    let check = |effect: &str, approvals: &str, expected: &str| {
        let text = format!("[[rule]]\nname = \"r\"\neffect = \"{effect}\"\nwhen = 'true'\napprovals = {approvals}\n");
        let found = Policy::parse(&text, Path::new("p")).map_or_else(|error| error.to_string(), |_| String::new());
        assert!(if expected.is_empty() { found.is_empty() } else { found.contains(expected) }, "{approvals}: {found}");
    };
    check("allow", "[{ group = \"sre\", count = 2 }, { count = 5 }]", "");
    check("allow", "[{}]", "");
    check("deny", "[{ count = 1 }]", "line 5, column 13: rule `r`: a rule that denies has no use for `approvals`");
    check("allow", "[]", "asks for nobody");
    check("allow", "[{ count = 0 }]", "at least 1");
    check("allow", "[{ count = -1 }]", "at least 1");
    check("allow", "[{ count = 8 }]", "asks for 8 approvals; a message has room for 7 signatures");
    check("allow", "[{ count = 4 }, { group = \"sre\", count = 4 }]", "asks for 8 approvals");
    check("allow", "[{ count = 9223372036854775807 }, { count = 9223372036854775807 }]", "asks for");
    check("allow", "[{ group = \"not a group\" }]", "is no group");
    check("allow", "[{ groups = [\"sre\"] }]", "unknown field `groups`");
    check("allow", "2", "invalid type");
}
