//! `musterd policy check` and `musterd policy test`.

use std::fs;

use serde_json::Value;

use crate::binary::Folder;

fn rule(name: &str, effect: &str, when: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\neffect = \"{effect}\"\nwhen = '{when}'\n")
}

#[track_caller]
fn check(folder: &Folder, arguments: &[&str], code: i32, words: &[&str]) -> String {
    let output = folder.run(arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said = format!("{stdout}{stderr}");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say `{word}`: {said}");
    }
    said
}

#[test]
fn a_policy_is_checked_with_places_and_exit_codes() {
    let folder = Folder::new();
    check(&folder, &["policy", "check"], 0, &["2 rules, 0 warnings"]);
    let draft = folder.path("draft.toml");
    let path = draft.to_str().unwrap();
    let text = [
        rule("a", "allow", "true"),
        rule("b", "deny", "plugin = pakcage"),
        rule("c", "deny", "fact.no_such_fact = 1 and plugin = host"),
    ];
    fs::write(&draft, text.concat()).unwrap();
    let said = check(
        &folder,
        &["policy", "check", path],
        0,
        &[
            &format!("{path}:6:8: warning: rule `b`: can never decide: rule `a` (line 2)"),
            &format!("{path}:8:18: warning: rule `b`: no plugin here is called `pakcage`; did you mean `package`?"),
            &format!("{path}:12:9: hint: rule `c`: this host has no `fact.no_such_fact` now"),
            "3 rules, 3 warnings",
        ],
    );
    assert_eq!(said.lines().count(), 5, "{said}");
    check(&folder, &["policy", "check", "--strict", path], 1, &["3 warnings"]);
    fs::write(&draft, [rule("a", "alow", "nmae = 1"), rule("a", "deny", "x y")].concat()).unwrap();
    let said = check(
        &folder,
        &["policy", "check", path],
        1,
        &[
            ":3:10: error: ",
            ":4:9: error: rule `a`: a policy knows no `nmae`",
            ":6:8: error: ",
            ":8:11: error: ",
            "4 errors",
        ],
    );
    assert_eq!(said.lines().count(), 5, "{said}");
    let json = check(&folder, &["policy", "check", "--json", path], 1, &[]);
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&value["good"], &value["findings"][0]["line"]), (&false.into(), &3.into()));
    check(&folder, &["policy", "check", "/nonexistent"], 1, &["/nonexistent: error: read policy"]);
    check(&folder, &["policy", "chekc"], 2, &["check"]);
    // What its author's directory lets others write is checked all the same, and that is said.
    fs::write(&draft, rule("a", "allow", "group = admins")).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o664)).unwrap();
    check(&folder, &["policy", "check", path], 0, &["warning: read policy", "chmod go-w", "1 rule, 1 warning"]);
    // Where there is no agent there are no facts, and the built-in plugins.
    fs::remove_file(folder.path("musterd.toml")).unwrap();
    check(&folder, &["policy", "check", path], 0, &["were not at hand"]);
    check(&folder, &["policy", "check"], 2, &["name the file"]);
}

#[test]
fn a_request_is_tried_rule_by_rule() {
    let folder = Folder::new();
    let lea = ["policy", "test", "--caller", "user/lea"];
    let with = |more: &[&'static str]| [&lea[..], more].concat();
    let said = check(&folder, &with(&["--action", "host.ping"]), 0, &["allowed by rule `everybody-may-look`"]);
    assert!(said.contains("allow  everybody-may-look  true       decides\n"), "{said}");
    assert!(said.contains("allow  admins-may-act      not asked\n"), "{said}");
    check(
        &folder,
        &with(&["--action", "package.install", "name=openssl"]),
        6,
        &["refused; the sender is told: policy-denied: no rule allows it"],
    );
    check(
        &folder,
        &with(&["--action", "host.ping", "--effective-user", "root"]),
        6,
        &["everybody-may-look  false", "no rule allows it"],
    );
    check(&folder, &with(&["--action", "cancel", "action=package.install", "caller=user/max"]), 6, &["no rule"]);
    let admin = ["--group", "admins", "--action"];
    check(&folder, &with(&[&admin[..], &["cancel", "action=package.install", "caller=user/max"]].concat()), 0, &[]);
    check(&folder, &with(&[&admin[..], &["watch", "action=package.install", "caller=user/max"]].concat()), 0, &[]);
    // Allowed by the policy and refused by the description: the sender is told so, and so is who tries.
    check(&folder, &with(&[&admin[..], &["host.pong"]].concat()), 6, &["unknown-action: "]);
    check(&folder, &with(&[&admin[..], &["package.status", "nmae=x"]].concat()), 6, &["unknown-argument: "]);
    for (words, why) in [
        (&["--action", "ping"][..], "`ping` is not an action"),
        (&["--action", "host.ping", "x"], "`x` is no argument"),
        (&["--action", "host.ping", "--fact", "x"], "`x` is no fact"),
        (&["--action", "cancel", "caller=user/max"], "which action"),
        (&["--action", "cancel", "action=a.b", "caller=user/lea"], "no policy is asked"),
        (&[], "--action"),
    ] {
        check(&folder, &with(words), 2, &[why]);
    }
    check(&folder, &["policy", "test", "--caller", "host/web1", "--action", "host.ping"], 2, &["not a user"]);
}

#[test]
fn what_was_missing_is_named() {
    let folder = Folder::new();
    let draft = folder.path("draft.toml");
    let text = [
        rule("frozen", "deny", "read_only = false and fact.freeze = true"),
        rule("two", "allow", "fact.stage = production and signatures >= 2"),
        rule("elsewhere", "allow", "fact.stage != production and class = web and arg.name like \"web-*\""),
    ];
    fs::write(&draft, text.concat()).unwrap();
    let try_out = |code: i32, more: &[&str], words: &[&str]| {
        let common = ["policy", "test", "--file", draft.to_str().unwrap(), "--caller", "user/lea", "--action"];
        check(&folder, &[&common[..], more].concat(), code, words)
    };
    try_out(
        6,
        &["package.install", "name=x"],
        &[
            "frozen     unknown    decides\n",
            "`fact.freeze` is not there: fact.freeze = true",
            "policy-denied: rule `frozen` may deny it: a value that the rule needs is not there",
        ],
    );
    let thawed = ["--fact", "freeze=false", "--fact", "stage=production"];
    try_out(6, &[&["package.status", "name=web-1"][..], &thawed].concat(), &["no rule allows it"]);
    try_out(0, &[&["package.status", "name=x", "--signer", "user/max"][..], &thawed].concat(), &["rule `two`"]);
    let test = ["--fact", "freeze=false", "--fact", "stage=test", "--class", "web"];
    try_out(0, &[&["package.status", "name=web-1"][..], &test].concat(), &["rule `elsewhere`"]);
    let json = try_out(6, &[&["host.ping", "--json"][..], &test].concat(), &[]);
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["allowed"], false);
    assert_eq!(value["code"], "policy-denied");
    assert_eq!(value["rules"][2]["truth"], "unknown");
    assert_eq!(value["rules"][2]["missing"][0]["name"], "arg.name");
    assert_eq!(value["rules"][0]["truth"], "false");
}

#[test]
fn a_policy_says_who_has_to_approve() {
    let folder = Folder::new();
    let draft = folder.path("draft.toml");
    let path = draft.to_str().unwrap();
    let two =
        |when: &str| format!("{}approvals = [{{ group = \"sre\" }}, {{ count = 1 }}]\n", rule("two", "allow", when));
    fs::write(&draft, two("plugin = cancel")).unwrap();
    check(&folder, &["policy", "check", path], 0, &["`approvals` are never asked for `cancel`: stopping"]);
    fs::write(&draft, [two("true"), rule("lax", "allow", "true")].concat()).unwrap();
    check(&folder, &["policy", "check", path], 0, &["rule `lax`: can never decide: rule `two` (line 2)"]);

    let base = ["policy", "test", "--caller", "user/lea", "--action", "service.restart", "name=ssh", "--file", path];
    let test = |more: &[&str], code: i32, words: &[&str]| check(&folder, &[&base[..], more].concat(), code, words);
    test(
        &[],
        6,
        &[
            "approvals: 1 of group sre, 1 of any users",
            "needs-approval: rule `two` needs 1 more signature by a member of group sre, and 1 more by another user",
        ],
    );
    let approved = ["--signer", "user/max=sre,dba", "--signer", "user/eve"];
    test(&approved, 0, &["allowed by rule `two`"]);
    test(&["--signer", "service/deploy=sre"], 6, &["1 more signature by a member of group sre, and 1 more"]);
    test(&["--signer", "user/lea=sre"], 2, &["`user/lea` signs twice"]);
    test(&["--signer", "host/web1"], 2, &["is not a user or a service"]);
    let said = test(&["--signer", "user/max=sre", "--json"], 6, &[]);
    let value: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(value["missing_approvals"], serde_json::json!([{ "count": 1 }]), "{value}");
    assert_eq!(value["rules"][0]["approvals"][0], serde_json::json!({ "group": "sre", "count": 1 }), "{value}");

    // Stopping and watching take nobody else.
    let stop = ["policy", "test", "--caller", "user/lea", "--action", "cancel", "caller=user/max"];
    check(&folder, &[&stop[..], &["action=service.restart", "--file", path]].concat(), 0, &["allowed by rule `two`"]);
}
