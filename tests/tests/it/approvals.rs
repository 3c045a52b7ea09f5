//! The two-person rule: what one person has signed does nothing until others have signed the same bytes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use muster_tests::pki::Member;
use muster_tests::programs::{Access, AgentProcess, AgentSettings, Finished, Operator, Party, python_peer};
use muster_tests::stage::{Stage, host};
use serde_json::Value;

use super::BROKER;

const HOSTS: [&str; 2] = ["web-1.ams1", "web-2.ams1"];

const IDENTITIES: [&str; 4] = ["host/web-1.ams1", "host/web-2.ams1", "user/lea", "user/bob"];

/// Looking is for everybody; anything else takes the caller's group and other people.
fn policy(approvals: &str) -> String {
    format!(
        "[[rule]]\nname = \"look\"\neffect = \"allow\"\nwhen = 'read_only = true'\n\n\
         [[rule]]\nname = \"more-eyes\"\neffect = \"allow\"\nwhen = 'group = admins'\napprovals = {approvals}\n\n\
         [[rule]]\nname = \"lax\"\neffect = \"allow\"\nwhen = 'group = admins'\n"
    )
}

fn settings(name: &str, approvals: &str) -> AgentSettings {
    let mut settings = host(name);
    settings.policy = policy(approvals);
    settings.extra_config.push_str("\n[plugins]\nenabled = [\"shell\", \"script\"]\n");
    settings
}

fn agents(stage: &Stage, approvals: &str) -> Vec<AgentProcess> {
    stage.agents(HOSTS.map(|name| settings(name, approvals)))
}

/// A file to which every start of the action adds a line.
struct Starts(PathBuf);

impl Starts {
    fn new(stage: &Stage) -> Self {
        Self(stage.folder().join("starts"))
    }

    fn command(&self) -> String {
        format!("command=echo started >> {}", self.0.display())
    }

    fn count(&self) -> usize {
        fs::read_to_string(&self.0).unwrap_or_default().lines().count()
    }
}

/// Makes a pending command on both hosts and gives its file.
#[track_caller]
fn pending(lea: &Operator, command: &str, file: &Path, more: &[&str]) -> Value {
    let place = format!("--pending={}", file.display());
    let words = [&["run", "shell.run", command, "-H", "web-1.ams1,web-2.ams1", &place, "--json"][..], more].concat();
    let view = lea.run(&words).unwrap().expect(0).json().unwrap();
    assert_eq!(view["schema"], "muster.pending/v1", "{view}");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    view
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn codes(run: &Finished) -> Vec<String> {
    let whole = run.json().unwrap();
    let mut codes: Vec<String> =
        whole["tasks"].as_array().unwrap().iter().map(|task| task["code"].as_str().unwrap_or("-").to_owned()).collect();
    codes.sort();
    codes
}

#[test]
fn one_signature_does_nothing_and_two_run_it_once() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let agents = agents(&stage, "[{ group = \"sre\" }]");
    let (lea, bob, eve) =
        (stage.operator("lea", &["admins"]), stage.operator("bob", &["sre"]), stage.operator("eve", &[]));
    let starts = Starts::new(&stage);
    let command = starts.command();

    let alone = lea.run(&["run", "shell.run", &command, "-H", "web-1.ams1,web-2.ams1"]).unwrap().expect(6);
    assert!(alone.stdout.contains("needs-approval"), "{}", alone.stdout);
    assert!(alone.stdout.contains("1 more signature by a member of group sre"), "{}", alone.stdout);
    assert!(alone.stderr.contains("muster run --pending shell.run 'command=echo"), "{}", alone.stderr);
    assert_eq!(starts.count(), 0);

    // Where no file is named it lies in the usual place, and is found by its id.
    let words = ["run", "--pending", "shell.run", &command, "-H", "web-1.ams1,web-2.ams1", "--json"];
    let view = lea.run(&words).unwrap().expect(0).json().unwrap();
    let (file, id) = (PathBuf::from(view["file"].as_str().unwrap()), view["request_id"].as_str().unwrap());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let listed = lea.run(&["pending", "list", "--json"]).unwrap().expect(0).json().unwrap();
    assert_eq!((&listed["pending"][0]["request_id"], &listed["pending"][0]["state"]), (&id.into(), &"waiting".into()));

    // Too early, and with somebody who is not asked for: the same answer, and nothing starts.
    let early = lea.run(&["send", "last", "--json"]).unwrap().expect(6);
    assert_eq!(codes(&early), ["needs-approval", "needs-approval"]);
    let task = &early.json().unwrap()["tasks"][0];
    assert_eq!(task["data"]["missing"], serde_json::json!([{ "count": 1, "groups": ["sre"] }]), "{task}");
    let kept = || -> (Value, Value) {
        let listed = lea.run(&["pending", "list", "--json"]).unwrap().expect(0).json().unwrap();
        (listed["pending"][0]["state"].clone(), listed["pending"][0]["outcome"].clone())
    };
    assert_eq!(kept(), ("waiting".into(), serde_json::json!({ "needs_approval": 2 })));
    let (of_eve, of_bob) = (stage.folder().join("eve.pending"), stage.folder().join("bob.pending"));
    fs::copy(&file, &of_eve).unwrap();
    fs::copy(&file, &of_bob).unwrap();
    eve.run(&["approve", text(&of_eve), "--yes"]).unwrap().expect(0);
    let wrong = lea.run(&["send", "last", text(&of_eve), "--json"]).unwrap().expect(6);
    assert_eq!(codes(&wrong), ["needs-approval", "needs-approval"]);
    assert_eq!(starts.count(), 0);

    // Nobody signs without a word.
    bob.run(&["approve", text(&of_bob)]).unwrap().expect(9);
    bob.run(&["approve", text(&of_bob), "--expect", "3"]).unwrap().expect(9);
    let approved = bob.run(&["approve", text(&of_bob), "--expect", "2"]).unwrap().expect(0);
    for shown in [
        "shell.run",
        "echo started",
        "2 hosts",
        "web-[1-2].ams1",
        "user/lea (group admins",
        view["digest"].as_str().unwrap(),
    ] {
        assert!(approved.stdout.contains(shown), "`{shown}` is not shown:\n{}", approved.stdout);
    }
    assert!(approved.stderr.contains("user/lea sends it with:  muster send"), "{}", approved.stderr);
    let shown = lea.run(&["pending", "show", text(&of_bob)]).unwrap().expect(0);
    assert!(shown.stdout.contains("  approved by user/bob (group sre"), "{}", shown.stdout);
    let again = bob.run(&["approve", text(&of_bob), "--yes", "--json"]).unwrap().expect(2);
    assert!(again.stderr.contains("already-approved") || again.stdout.contains("already-approved"), "{again:?}");

    let sent = lea.run(&["send", "last", text(&of_bob), "--json"]).unwrap().expect(0);
    assert_eq!(codes(&sent), ["ok", "ok"]);
    assert_eq!(starts.count(), 2);
    for agent in &agents {
        let audit = agent.audit();
        let allowed = audit.lines().find(|line| line.contains("\"allowed\"") && line.contains(id)).unwrap();
        assert!(allowed.contains("muster:user/lea") && allowed.contains("muster:user/bob"), "{allowed}");
    }

    // A second time is harmless, and the request is known as any other.
    let twice = lea.run(&["send", "last", text(&of_bob), "--json"]).unwrap().expect(6);
    assert_eq!(codes(&twice), ["replayed", "replayed"]);
    assert!(twice.stderr.contains(&format!("muster watch {id}")), "{}", twice.stderr);
    assert_eq!(starts.count(), 2);
    let requests = lea.run(&["request", "list", "--json"]).unwrap().expect(0).json().unwrap();
    assert_eq!(requests["requests"][0]["request_id"], id, "{requests}");
    lea.run(&["watch", id, "--no-follow"]).unwrap().expect(0);
    assert_eq!(kept(), ("sent".into(), serde_json::json!({ "succeeded": 2 })), "also after it was sent a second time");
    let table = lea.run(&["pending", "list"]).unwrap().expect(0);
    assert!(table.stdout.contains("2 succeeded"), "{}", table.stdout);
    lea.run(&["pending", "discard", "last"]).unwrap().expect(0);
    assert!(!file.exists());
    lea.run(&["send", "last"]).unwrap().expect(4);
}

#[test]
fn what_hosts_have_refused_for_good_is_said_and_not_waited_for() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let denying = HOSTS.map(|name| {
        let mut settings = settings(name, "[{ group = \"sre\" }]");
        settings.policy = "[[rule]]\nname = \"look\"\neffect = \"allow\"\nwhen = 'read_only = true'\n".to_owned();
        settings
    });
    let agents = stage.agents(denying);
    let lea = stage.operator("lea", &["admins"]);
    let words = ["run", "--pending", "shell.run", "command=true", "-H", "web-1.ams1,web-2.ams1"];
    lea.run(&words).unwrap().expect(0);
    let first = lea.run(&["send", "last", "--json"]).unwrap().expect(6);
    assert_eq!(codes(&first), ["policy-denied", "policy-denied"]);
    let listed = lea.run(&["pending", "list"]).unwrap().expect(0);
    assert!(listed.stdout.contains("sent") && listed.stdout.contains("2 refused"), "{}", listed.stdout);
    // With a reply timeout beyond the patience of any test: what they say is the last word.
    let again = lea.run(&["send", "last", "--reply-timeout", "1h"]).unwrap().expect(6);
    assert!(again.stderr.contains("2 hosts have refused it before and will not take the same"), "{}", again.stderr);
    assert!(!again.stderr.contains("may still run it") && !again.stderr.contains("muster watch"), "{}", again.stderr);
    let listed = lea.run(&["pending", "list", "--json"]).unwrap().expect(0).json().unwrap();
    assert_eq!(listed["pending"][0]["outcome"], serde_json::json!({ "refused": 2 }), "{listed}");
    drop(agents);
}

#[test]
fn three_people_sign_copies_and_the_caller_merges_them() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = agents(&stage, "[{ group = \"sre\" }, { count = 1 }]");
    let (lea, bob, eve) =
        (stage.operator("lea", &["admins"]), stage.operator("bob", &["sre"]), stage.operator("eve", &[]));
    let starts = Starts::new(&stage);
    let file = stage.folder().join("x.pending");
    let view = pending(&lea, &starts.command(), &file, &[]);
    let copy = stage.folder().join("copy.pending");
    fs::copy(&file, &copy).unwrap();
    let alone = stage.folder().join("bob.approval");
    bob.run(&["approve", text(&file), "--signature-only", text(&alone), "--yes"]).unwrap().expect(0);
    eve.run(&["approve", text(&copy), "--yes"]).unwrap().expect(0);

    // One of them is not enough, however it comes.
    let one = lea.run(&["send", text(&file), text(&copy), "--json"]).unwrap().expect(6);
    assert_eq!(codes(&one), ["needs-approval", "needs-approval"]);
    // Signatures for other bytes are for nothing, and change nothing.
    let other = stage.folder().join("other.pending");
    pending(&lea, &starts.command(), &other, &[]);
    let before = fs::read(&other).unwrap();
    lea.run(&["pending", "merge", text(&other), text(&alone)]).unwrap().expect(9);
    lea.run(&["pending", "merge", text(&other), text(&copy)]).unwrap().expect(9);
    assert_eq!(fs::read(&other).unwrap(), before);

    let merged = lea.run(&["pending", "merge", text(&file), text(&copy), text(&alone), "--json"]).unwrap().expect(0);
    let signers = &merged.json().unwrap()["signers"];
    assert_eq!(signers[0], "muster:user/lea", "the caller stays the first: {signers}");
    assert_eq!(signers.as_array().unwrap().len(), 3);
    let shown = lea.run(&["pending", "show", text(&file), "--json"]).unwrap().expect(0).json().unwrap();
    assert_eq!(shown["digest"], view["digest"]);

    // Somebody else's program comes to the same signers.
    let member = stage.site().member_in("user/lea", &["admins"]);
    let checked =
        python_peer("verify", &stage.access(&member), &["--all-signers", text(&file)]).unwrap().output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(&verdict[text(&file)], signers, "{said}");

    // To the one host first, then to the other; each runs it once.
    let sent = lea.run(&["send", text(&file), "--wave", "1,rest", "--json"]).unwrap().expect(0);
    assert_eq!(codes(&sent), ["ok", "ok"]);
    assert_eq!(starts.count(), 2);
}

#[test]
fn what_is_wrong_with_a_file_or_its_signers_is_found_before_anything_is_sent() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = agents(&stage, "[{ group = \"sre\" }]");
    let (lea, bob) = (stage.operator("lea", &["admins"]), stage.operator("bob", &["sre"]));
    let starts = Starts::new(&stage);
    let file = stage.folder().join("x.pending");
    let view = pending(&lea, &starts.command(), &file, &[]);
    let check = |who: &Operator, words: &[&str], code: i32, expected: &str| {
        let done = who.run(words).unwrap().expect(code);
        assert!(format!("{}{}", done.stdout, done.stderr).contains(expected), "{words:?}: {done:?}");
    };
    let both = |name: &str, content: &[u8], code: i32, expected: &str| {
        let path = stage.folder().join(name);
        fs::write(&path, content).unwrap();
        check(&bob, &["approve", text(&path), "--yes"], code, expected);
        check(&lea, &["send", text(&path)], code, expected);
    };

    // The caller himself, also by another certificate of his that has the group.
    check(&lea, &["approve", text(&file), "--yes"], 8, "own-command");
    let again = stage.site().member_in("user/lea", &["sre"]);
    check(&stage.operator_as("lea-again", &again), &["approve", text(&file), "--yes"], 8, "own-command");
    let service = stage.site().member_in("service/deploy", &["sre"]);
    check(&stage.operator_as("deploy", &service), &["approve", text(&file), "--yes"], 8, "not-an-approver");
    // Who is not the caller cannot send it: the answers would not come to him.
    let approved = stage.folder().join("approved.pending");
    fs::copy(&file, &approved).unwrap();
    check(&bob, &["approve", text(&approved), "--yes"], 0, "signed as user/bob");
    check(&bob, &["send", text(&approved)], 8, "not-the-caller");

    // Another command under the same signatures.
    let mut envelope: Value = serde_json::from_slice(&fs::read(&approved).unwrap()).unwrap();
    let payload = envelope["payload"].as_str().unwrap().to_owned();
    let at = payload.len() / 2;
    let other = if payload.as_bytes()[at] == b'A' { "B" } else { "A" };
    envelope["payload"] = Value::from(format!("{}{other}{}", &payload[..at], &payload[at + 1..]));
    both("tampered", envelope.to_string().as_bytes(), 8, "bad-signature");
    // The approver's signature first, or alone: it is no command of his.
    let mut envelope: Value = serde_json::from_slice(&fs::read(&approved).unwrap()).unwrap();
    envelope["signatures"].as_array_mut().unwrap().reverse();
    both("turned", envelope.to_string().as_bytes(), 8, "wrong-identity");
    envelope["signatures"].as_array_mut().unwrap().truncate(1);
    both("alone", envelope.to_string().as_bytes(), 8, "wrong-identity");

    both("empty", b"", 2, "bad-pending");
    both("nothing", b"{}\n", 2, "bad-pending");
    both("deep", "[".repeat(1_000_000).as_bytes(), 2, "bad-pending");
    both("binary", &[0xff; 4096], 2, "bad-pending");
    let large = stage.folder().join("large");
    fs::File::create(&large).unwrap().set_len(100 * 1024 * 1024).unwrap();
    check(&bob, &["approve", text(&large), "--yes"], 2, "bad-pending");
    check(&bob, &["approve", text(stage.folder()), "--yes"], 2, "regular file");
    check(&bob, &["approve", "/dev/zero", "--yes"], 2, "regular file");
    check(&bob, &["approve", "no-such-file", "--yes"], 2, "no-pending");
    check(&bob, &["pending", "discard", text(&large)], 2, "bad-pending");
    assert!(large.exists());

    // Its time is over: here, before anybody is asked anything.
    let late = stage.folder().join("late.pending");
    pending(&lea, &starts.command(), &late, &["--ttl", "1s"]);
    loop {
        let shown = bob.run(&["pending", "show", text(&late), "--json"]).unwrap().expect(0).json().unwrap();
        if shown["expired"] == true {
            break;
        }
        std::thread::yield_now();
    }
    check(&bob, &["approve", text(&late), "--yes"], 9, "pending-expired");
    check(&lea, &["send", text(&late)], 9, "pending-expired");

    // A file that is there is never overwritten.
    let place = format!("--pending={}", file.display());
    check(&lea, &["run", "shell.run", &starts.command(), "-H", "web-1.ams1", &place], 2, "file");
    let now = lea.run(&["pending", "show", text(&file), "--json"]).unwrap().expect(0).json().unwrap();
    assert_eq!(now["digest"], view["digest"]);
    assert_eq!(starts.count(), 0);
}

/// A desk that does not know the revocation list.
fn careless(stage: &Stage, name: &str, member: &Member) -> Operator {
    let access = Access { crl: None, ..stage.access(member) };
    Operator::new(&stage.folder().join("home").join(name), "test", &access, &Party::from(member)).unwrap()
}

#[test]
fn an_approver_who_was_revoked_counts_for_nothing() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let site = stage.site();
    let mallory = site.keep("approver-mallory", site.authority().revoked("user/mallory").unwrap());
    // The agent starts after the revocation and so has the list.
    let fresh = site.keep("web-1-after", site.authority().credentials("host/web-1.ams1").unwrap());
    let (settings, folder) = (settings("web-1.ams1", "[{ count = 1 }]"), stage.folder().join("fresh"));
    let mut agent = AgentProcess::start(&settings, &stage.access(&fresh), &Party::from(&fresh), &folder).unwrap();
    agent.wait_ready().unwrap();
    let lea = careless(&stage, "lea", &site.member_in("user/lea", &["admins"]));
    let starts = Starts::new(&stage);
    let file = stage.folder().join("x.pending");
    let place = format!("--pending={}", file.display());
    lea.run(&["run", "shell.run", &starts.command(), "-H", "web-1.ams1", &place]).unwrap().expect(0);
    careless(&stage, "mallory", &mallory).run(&["approve", text(&file), "--yes"]).unwrap().expect(0);
    let sent = lea.run(&["send", text(&file), "--json"]).unwrap().expect(6);
    assert_eq!(codes(&sent), ["revoked-certificate"]);
    assert!(sent.stdout.contains("user/mallory"), "{}", sent.stdout);
    assert_eq!(starts.count(), 0);
    // Whoever knows the list is told before.
    let told = stage.operator_as(
        "told",
        &site.keep("told", site.authority().credentials_with_groups("user/lea", &["admins"]).unwrap()),
    );
    let refused = told.run(&["send", text(&file)]).unwrap().expect(8);
    assert!(refused.stderr.contains("revoked-certificate"), "{}", refused.stderr);
}

#[test]
fn an_approver_sees_what_he_signs_and_nothing_acts_on_his_terminal() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = agents(&stage, "[{ group = \"sre\" }]");
    let (lea, bob) = (stage.operator("lea", &["admins"]), stage.operator("bob", &["sre"]));
    let file = stage.folder().join("x.pending");
    // It clears the screen, hides the rest of a line, turns its order, and has a letter of another alphabet.
    let command = "command=echo \u{1b}[2J\u{1b}]0;x\u{7}a\rb\u{202e}c\u{200b}d \u{430}\nrm -rf /tmp/x";
    pending(&lea, command, &file, &[]);
    for words in [&["pending", "show"][..], &["approve", "--yes"][..]] {
        let shown = bob.run(&[words, &[text(&file)][..]].concat()).unwrap().expect(0);
        let said = format!("{}{}", shown.stdout, shown.stderr);
        let bad = said.chars().find(|character| !character.is_ascii_graphic() && !matches!(character, ' ' | '\n'));
        assert_eq!(bad, None, "{said}");
        for part in ["\\u{1b}[2J", "\\u{202e}", "\\u{200b}", "\\u{430}", "| rm -rf /tmp/x", "cannot be seen"] {
            assert!(shown.stdout.contains(part) || shown.stderr.contains(part), "`{part}` is not shown: {said}");
        }
    }
}

#[test]
fn secrets_wait_sealed() {
    const SECRET: &str = "correct-horse-battery-staple";
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = agents(&stage, "[{ group = \"sre\" }]");
    let (lea, bob) = (stage.operator("lea", &["admins"]), stage.operator("bob", &["sre"]));
    let (file, secret) = (stage.folder().join("x.pending"), stage.folder().join("secret"));
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let place = format!("--pending={}", file.display());
    let words = [
        "run",
        "script.run",
        "body=read -r it; echo \"length ${#it}\"",
        &format!("secret_input=@{}", secret.display()),
    ];
    lea.run(&[&words[..], &["-H", "web-1.ams1,web-2.ams1", &place]].concat()).unwrap().expect(0);
    assert!(!fs::read_to_string(&file).unwrap().contains(SECRET));
    let shown = bob.run(&["approve", text(&file), "--yes"]).unwrap().expect(0);
    assert!(shown.stdout.contains("secret_input = ***"), "{}", shown.stdout);
    assert!(shown.stderr.contains("you cannot see the values of secret_input"), "{}", shown.stderr);
    let sent = lea.run(&["send", text(&file), "--json"]).unwrap().expect(0);
    assert!(sent.stdout.matches("length 28").count() >= 2, "{}", sent.stdout);
}

#[test]
fn an_independent_program_has_its_command_signed_by_two() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = agents(&stage, "[{ group = \"sre\" }]");
    let (lea, bob) = (stage.site().member_in("user/lea", &["admins"]), stage.site().member_in("user/bob", &["sre"]));
    let starts = Starts::new(&stage);
    let port = stage.bus.port().to_string();
    let arguments = serde_json::json!({ "command": starts.command().trim_start_matches("command=") }).to_string();
    let ask = |more: &[&str]| -> Value {
        let target = r#"{"hosts":["web-1.ams1"]}"#;
        let words = [
            &["--certificate", text(&lea.files.certificate), "--key", text(&lea.files.key)][..],
            &["--broker-port", &port, "--vhost", &stage.bus.vhost, "--action", "shell.run"],
            &["--target", target, "--arguments", &arguments],
            more,
        ];
        let output = python_peer("controller", &stage.access(&lea), &words.concat()).unwrap().output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str::<Value>(&said).unwrap()["finished"]["web-1.ams1"].clone()
    };
    let cosign = format!("{}:{}", bob.files.certificate.display(), bob.files.key.display());
    let alone = ask(&[]);
    assert_eq!(alone["code"], "needs-approval", "{alone}");
    assert_eq!(alone["data"]["signers"], serde_json::json!(["muster:user/lea"]), "{alone}");
    assert_eq!(starts.count(), 0);
    assert_eq!(ask(&["--cosign", &cosign])["code"], "ok");
    assert_eq!(starts.count(), 1);
}

/// `muster` in a terminal of its own, with a line typed into it.
fn typed(operator: &Operator, words: &[&str], line: &str) -> (Option<i32>, String) {
    let muster = operator.command(words).unwrap();
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let command: Vec<String> = std::iter::once(muster.get_program()).chain(muster.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &command.join(" "), "/dev/null"]).env_clear();
    for (name, value) in muster.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut said = Vec::new();
    // It is there before anything is typed: a terminal would echo it in front of the question.
    while !String::from_utf8_lossy(&said).contains("anything else to stop:") {
        let mut some = [0; 4096];
        match stdout.read(&mut some).unwrap() {
            0 => break,
            count => said.extend_from_slice(&some[..count]),
        }
    }
    child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    stdout.read_to_end(&mut said).unwrap();
    (child.wait().unwrap().code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn an_approver_types_the_number_of_hosts() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = agents(&stage, "[{ group = \"sre\" }]");
    let (lea, bob) = (stage.operator("lea", &["admins"]), stage.operator("bob", &["sre"]));
    let file = stage.folder().join("x.pending");
    pending(&lea, "command=true", &file, &[]);
    let before = fs::read(&file).unwrap();
    for wrong in ["y\n", "\n", "3\n", "\u{4}"] {
        let (code, said) = typed(&bob, &["approve", text(&file)], wrong);
        assert_eq!(code, Some(9), "{wrong:?}: {said}");
        assert!(said.contains("nothing was signed"), "{said}");
    }
    assert_eq!(fs::read(&file).unwrap(), before);
    // What has expired can be discarded wherever it lies, and nothing else with it.
    lea.run(&["pending", "discard", "--expired", text(&file)]).unwrap().expect(2);
    let late = stage.folder().join("late.pending");
    pending(&lea, "command=true", &late, &["--ttl", "1s"]);
    loop {
        let done = lea.run(&["pending", "discard", "--expired", text(stage.folder())]).unwrap().expect(0);
        if done.stderr.contains("removed 1 pending command") {
            break;
        }
    }
    assert!(file.exists() && !late.exists());
    let (code, said) = typed(&bob, &["approve", text(&file)], "2\n");
    assert_eq!(code, Some(0), "{said}");
    lea.run(&["send", text(&file)]).unwrap().expect(0);
}
