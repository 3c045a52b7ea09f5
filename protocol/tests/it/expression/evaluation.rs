//! What expressions come to on a host.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::expr::{Expression, HostScope, MapScope, Scope, Truth};
use muster_protocol::{CollectiveName, HostName};
use serde_json::{Map, Value, json};

struct Host {
    name: HostName,
    facts: Map<String, Value>,
    classes: BTreeSet<String>,
    plugins: BTreeSet<String>,
    collectives: BTreeSet<CollectiveName>,
    calls: BTreeMap<String, Value>,
}

impl Host {
    fn new(facts: Value) -> Self {
        let Value::Object(facts) = facts else { panic!("facts are an object") };
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            name: "web1.example.com".parse().unwrap(),
            facts,
            classes: texts(&["apache::ssl", "legacy"]),
            plugins: texts(&["host", "package"]),
            collectives: ["main", "ams1"].map(|name| name.parse().unwrap()).into(),
            calls: BTreeMap::from([
                (r#"package("openssl")"#.to_owned(), json!({"version": "3.0.11-1~deb12u2", "status": "installed"})),
                (r#"package("none")"#.to_owned(), Value::Null),
            ]),
        }
    }

    fn scope(&self) -> HostScope<'_> {
        HostScope {
            name: &self.name,
            facts: &self.facts,
            classes: &self.classes,
            plugins: &self.plugins,
            collectives: &self.collectives,
            calls: &self.calls,
        }
    }
}

fn typical() -> Host {
    Host::new(json!({
        "os": {"family": "Debian", "release": {"major": "12", "full": "12.5"}},
        "cpus": 8, "load": 0.75, "virtual": true, "virtual_text": "true",
        "kernel": "5.9.0", "python": "3.9", "uptime": "86400", "temperature": "-5",
        "roles": ["web", "cache"], "empty": [], "nothing": null,
        "disks": [{"name": "sda", "size": 500}, {"name": "sdb", "size": 2000}, {"label": "x"}],
        "mountpoints": {"/": {"size": 10}}, "name": "a fact", "big": 9_007_199_254_740_993_i64,
        "nested": [[1, 2], [3]],
    }))
}

#[track_caller]
fn check_in(scope: &dyn Scope, source: &str, expected: Truth) {
    let expression = Expression::parse(source).unwrap_or_else(|error| panic!("{}", error.render(source)));
    assert_eq!(expression.evaluate(scope), expected, "{source}");
    let negated = Expression::parse(&format!("not ({source})")).unwrap();
    assert_eq!(negated.evaluate(scope), !expected, "not ({source})");
}

#[track_caller]
fn check(source: &str, expected: Truth) {
    check_in(&typical().scope(), source, expected);
}

use Truth::{False, True, Unknown};

#[test]
fn texts_compare_exactly() {
    check("os.family = Debian", True);
    check("os.family = debian", False);
    check("os.family != RedHat", True);
    check("os.family in [Debian, Ubuntu]", True);
    check("os.family not in [Debian, Ubuntu]", False);
    check("os.family < Ebian", True);
    check("os.family like D*n", True);
    check("os.family not like d*", True);
    check("os.family ~ ebi", True);
    check("os.family ~ '^ebi'", False);
    check("os.family !~ '^ebi'", True);
    check("os.family ~ '(?i)DEB'", True);
}

#[test]
fn numbers_compare_as_numbers() {
    check("cpus = 8", True);
    check("cpus = 8.0", True);
    check("cpus > 10", False);
    check("cpus >= 8 and cpus <= 8 and not cpus < 8 and not cpus > 8", True);
    check("load < 0.8", True);
    check("load > -1", True);
    check("cpus in [2, 4, 8]", True);
    check("cpus = \"8\"", True);
    check("cpus < \"10\"", True);
    check("big = 9007199254740993", True);
    check("big = 9007199254740992", False);
    check("big < 99999999999999999999999999999999999999999999", True);
}

#[test]
fn a_text_that_looks_like_a_number_meets_a_number() {
    check("uptime > 9000", True);
    check("uptime = 86400", True);
    check("os.release.major >= 9", True);
    check("temperature < 0", True);
    check("temperature < -4.5", True);
    check("os.family > 5", Unknown);
    check("os.family = 5", False);
    check("os.family != 5", True);
}

#[test]
fn versions_compare_as_versions() {
    check("kernel < 5.10", True);
    check("kernel < 5.10.0", True);
    check("python < 3.10", True);
    check("python = 3.9", True);
    check("python = 3.90", False);
    check("os.release.full >= 12 and os.release.full < 13", True);
    check(r#"package("openssl").version < "3.0.13""#, True);
    check(r#"package("openssl").version > "3.0.11-1~deb12u1""#, True);
    check(r#"package("openssl").version >= "3.0.11""#, True);
    check("os.family < 1.0.0", Unknown);
    check("kernel = \"5.9.0\"", True);
    check("kernel = \"5.09.0\"", False);
    check("kernel <= \"5.09.0\" and kernel >= \"5.09.0\"", True);
}

#[test]
fn booleans_compare_with_booleans() {
    check("virtual = true", True);
    check("virtual != false", True);
    check("virtual_text = true", True);
    check("virtual = \"true\"", True);
    check("cpus = true", False);
    check("virtual > 1", Unknown);
    check("virtual = 1", False);
}

#[test]
fn a_list_passes_if_any_element_does() {
    check("roles = web", True);
    check("roles = db", False);
    check("roles != db", True);
    check("roles != web", False);
    check("roles ~ '^c'", True);
    check("roles !~ '^c'", False);
    check("roles like w*", True);
    check("roles in [db, cache]", True);
    check("roles not in [db, cache]", False);
    check("roles[1] = cache", True);
    check("roles[2] = cache", Unknown);
    check("empty = x", False);
    check("empty != x", True);
    check("has(empty)", True);
    check("nested = 3", True);
    check("disks.name = sdb", True);
    check("disks.size > 1000", True);
    check("disks[0].size > 1000", False);
    check("disks.serial = 1", Unknown);
}

#[test]
fn what_is_missing_is_unknown_and_never_matches() {
    check("env = prod", Unknown);
    check("env != prod", Unknown);
    check("not env = prod", Unknown);
    check("nothing = x", Unknown);
    check("has(nothing)", False);
    check("has(env)", False);
    check("has(os.family.x)", False);
    check("os = Debian", Unknown);
    check("not has(env) or env != prod", True);
    check("env = prod and os.family = RedHat", False);
    check("env = prod or os.family = Debian", True);
    check("env = prod and os.family = Debian", Unknown);
    check(r#"package("none").version = 1"#, Unknown);
    check(r#"package("unresolved").version = 1"#, Unknown);
    check(r#"has(package("none"))"#, False);
    check(r#"has(package("openssl"))"#, True);
    check(r#"package("openssl") = 1"#, Unknown);
}

#[test]
fn truth_follows_kleene() {
    let source = |truth: Truth| match truth {
        True => "true",
        False => "false",
        Unknown => "missing = 1",
    };
    for left in [False, Unknown, True] {
        for right in [False, Unknown, True] {
            check(&format!("{} and {}", source(left), source(right)), left.min(right));
            check(&format!("{} or {}", source(left), source(right)), left.max(right));
        }
    }
}

#[test]
fn a_host_has_names_beside_its_facts() {
    check("name = web1.example.com", True);
    check("name like *.example.com", True);
    check("fact.name = 'a fact'", True);
    check("class = legacy", True);
    check("not class = apache", True);
    check("class ~ '^apache::'", True);
    check("plugin = package", True);
    check("collective in [ams1]", True);
    check("name.x = 1", Unknown);
    check(r#"mountpoints."/".size = 10"#, True);
    check("fact.os.family = Debian", True);
}

#[test]
fn a_policy_sees_the_request_before_the_host() {
    let mut host = typical();
    host.facts.insert("effective_user".to_owned(), json!("root"));
    host.facts.insert("arg".to_owned(), json!({"name": "from a fact"}));
    host.facts.insert("caller".to_owned(), json!({"secret": 1}));
    let base = host.scope();
    let scope = MapScope::over(&base)
        .set("caller", json!("muster:user/lea"))
        .set("caller.kind", json!("user"))
        .set("group", json!(["ops", "web"]))
        .set("action", json!("package.status"))
        .set("arg", json!({"version": "1.2"}))
        .set("read_only", json!(true))
        .set("effective_user", None);
    for (source, expected) in [
        ("caller = 'muster:user/lea'", True),
        ("caller.kind = user", True),
        ("caller.secret = 1", Unknown),
        ("group = ops", True),
        ("action like package.*", True),
        ("arg.version < 1.10", True),
        ("arg.name = 'from a fact'", Unknown),
        ("has(arg.name)", False),
        ("read_only = true", True),
        ("effective_user = root", Unknown),
        ("has(effective_user)", False),
        ("name = web1.example.com", True),
        ("fact.effective_user = root", True),
        ("class = legacy", True),
        (r#"package("openssl").status = installed"#, True),
    ] {
        check_in(&scope, source, expected);
    }
    check_in(&MapScope::new(), "a = 1", Unknown);
    check_in(&MapScope::new().set("a", json!({"b": {"c": 1}})), "a.b.c = 1", True);
    check_in(&MapScope::new().set("a.b", json!(1)).set("a", json!({"b": 2})), "a.b = 1", True);
    check_in(&MapScope::new().set("a.b", json!(1)), r#"a = 1 or fact."a.b" = 1"#, Unknown);
    check_in(&MapScope::new().set("a.b.c", json!(1)), r#"a."b.c" = 1"#, Unknown);
}
