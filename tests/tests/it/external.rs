//! Plugins of one's own with the real programs: the session of the book, Choria's agents, and packs nobody should take.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use muster_tests::programs::{AgentSettings, Finished, Operator};
use muster_tests::stage::{Stage, host};
use serde_json::{Value, json};

use super::BROKER;

const IDENTITIES: [&str; 5] = ["host/web-1.ams1", "host/web-2.ams1", "host/db-1.fra2", "user/lea", "user/max"];

fn fleet() -> [AgentSettings; 3] {
    [
        host("web-1.ams1").fact("role", "web"),
        host("web-2.ams1").fact("role", "web"),
        host("db-1.fra2").fact("role", "db"),
    ]
}

/// Runs `muster` in a folder, as somebody who writes a plugin there.
fn at(desk: &Operator, folder: &Path, words: &[&str]) -> Finished {
    let mut command = desk.command(words).unwrap();
    let output = command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    Finished {
        line: format!("muster {}", words.join(" ")),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn tasks(finished: &Finished) -> Vec<Value> {
    finished.json_lines().expect("JSON lines").into_iter().filter(|line| line["kind"] == "task").collect()
}

/// Host, code and data of each task.
fn ends(finished: &Finished) -> Vec<(String, String, Value)> {
    let text = |task: &Value, key: &str| task[key].as_str().unwrap_or_default().to_owned();
    let mut ends: Vec<_> =
        tasks(finished).iter().map(|task| (text(task, "host"), text(task, "code"), task["data"].clone())).collect();
    ends.sort_by(|one, other| one.0.cmp(&other.0));
    ends
}

fn codes(finished: &Finished) -> Vec<String> {
    ends(finished).into_iter().map(|(_, code, _)| code).collect()
}

/// Written by another process: a file that this one has open for writing could not be executed.
fn script(path: &Path, text: &str) {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn folder(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    path
}

/// With this variable the test writes down what the commands print now, instead of comparing.
const WRITE_BOOK: &str = "MUSTER_WRITE_BOOK";

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/book/src/writing-plugins.md")
}

/// The chapter with these outputs.
fn rewritten(session: &[(String, String)]) -> String {
    let text = fs::read_to_string(book()).unwrap();
    let mut outputs = session.iter();
    let mut parts = text.split("```console\n");
    let mut page = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (block, rest) = part.split_once("```").expect("a block ends");
        page.push_str("```console\n");
        for line in block.lines().filter(|line| line.starts_with("$ ")) {
            let (_, output) = outputs.next().expect("each command was run");
            page.push_str(&format!("{line}\n{}", output.trim_start_matches('\n')));
        }
        page.push_str(&format!("```{rest}"));
    }
    page
}

/// The commands of the book's chapter, each with what it is said to print.
fn session() -> Vec<(String, String)> {
    let text = fs::read_to_string(book()).unwrap();
    let mut session: Vec<(String, String)> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap_or_default().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => session.push((command.to_owned(), String::new())),
                None => session.last_mut().expect("output follows a command").1.push_str(&format!("{line}\n")),
            }
        }
    }
    session
}

/// Hashes, times and sizes are others each time; what is said is the same.
fn normalized(text: &str) -> String {
    let mut normalized = String::new();
    for word in text.split_inclusive(char::is_whitespace) {
        let (word, gap) = word.split_at(word.trim_end().len());
        let is_hash = word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit());
        let mut last = ' ';
        for c in if is_hash { "HASH" } else { word }.chars() {
            let c = if c.is_ascii_digit() { '0' } else { c };
            if c != '0' || !matches!(last, '0' | '.' | ',') {
                normalized.push(c);
            }
            last = c;
        }
        // How wide a column is depends on the numbers in it.
        normalized.push_str(if gap.contains('\n') { "\n" } else { &gap[..gap.len().min(1)] });
    }
    // A machine that is busy takes seconds where an idle one takes milliseconds.
    normalized.replace("0. s", "0 s").replace("0 ms", "0 s")
}

/// docs/book/src/writing-plugins.md, typed as it stands.
#[test]
fn the_session_in_the_book_is_real() {
    let hosts = ["web1.example.com", "web2.example.com", "db1.example.com"];
    let identities: Vec<String> =
        hosts.iter().map(|name| format!("host/{name}")).chain(["user/lea".to_owned()]).collect();
    let stage = Stage::new(BROKER, &identities.iter().map(String::as_str).collect::<Vec<_>>());
    let _agents =
        stage.agents(hosts.map(|name| host(name).fact("role", if name.starts_with("web") { "web" } else { "db" })));
    let lea = stage.operator("lea", &["admins"]);
    let desk = folder(stage.folder().join("desk"));
    let programs = muster_tests::programs::program("muster").unwrap().parent().unwrap().display().to_string();
    let mut session = session();
    assert!(session.len() > 10, "{session:?}");
    let mut wrong = String::new();
    for (command, expected) in &mut session {
        // The operator's environment with a shell in it.
        let known = lea.command(&[]).unwrap();
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .env_clear()
            .envs(known.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("PATH", format!("{programs}:/usr/bin:/bin"))
            .current_dir(&desk)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let actual = String::from_utf8_lossy(&output.stdout).replace(&desk.display().to_string(), ".");
        if normalized(&actual) != normalized(expected) {
            wrong.push_str(&format!("$ {command}\n{actual}--- the book has\n{expected}\n"));
        }
        *expected = actual;
    }
    if std::env::var_os(WRITE_BOOK).is_some() {
        return fs::write(book(), rewritten(&session)).unwrap();
    }
    assert!(wrong.is_empty(), "set {WRITE_BOOK}=1 to have the test write the chapter anew\n{wrong}");
}

/// What the session shows, looked at as data.
#[test]
fn ten_lines_of_shell_reach_three_hosts_and_leave_again() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let agents = stage.agents(fleet());
    let lea = stage.operator("lea", &["admins"]);
    let desk = folder(stage.folder().join("desk"));
    let muster = |words: &[&str]| at(&lea, &desk, words);

    muster(&["plugin", "new", "hello"]).expect(0);
    assert!(fs::read_to_string(desk.join("hello/hello")).unwrap().lines().count() <= 10, "ten lines of shell");
    let checked = muster(&["plugin", "check", "hello"]).expect(0);
    assert!(checked.stdout.contains("hello 1.0.0 keeps the contract"), "{}", checked.stdout);
    muster(&["plugin", "pack", "hello"]).expect(0);

    let planned = muster(&["plugin", "install", "hello-1.0.0.tar.gz", "--all", "--noop", "--jsonl"]).expect(0);
    let changes = |finished: &Finished| -> Vec<String> {
        ends(finished).into_iter().map(|(_, _, data)| data["change"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(changes(&planned), ["installed", "installed", "installed"]);
    for agent in &agents {
        assert!(!agent.folder().join("state/plugins/hello").exists(), "noop changes nothing");
    }
    let installed = muster(&["plugin", "install", "hello-1.0.0.tar.gz", "--all", "--jsonl"]).expect(0);
    assert_eq!(changes(&installed), ["installed", "installed", "installed"]);
    for (host, _, data) in ends(&installed) {
        assert_eq!((&data["activated"], &data["signed_by"]), (&json!(true), &json!(["user/lea"])), "{host}: {data}");
    }

    let greeted = muster(&["run", "hello.greet", "name=Lea", "--all", "--jsonl"]).expect(0);
    let greetings: Vec<String> = ends(&greeted)
        .into_iter()
        .map(|(_, _, data)| data["greeting"].as_str().unwrap_or_default().to_owned())
        .collect();
    let expected = ["db-1.fra2", "web-1.ams1", "web-2.ams1"].map(|host| format!("Hello Lea, this is {host}"));
    assert_eq!(greetings, expected);
    // The new plugin is something to aim at, and to ask a host about.
    let found = muster(&["find", "-t", "plugin = hello and role = web", "--names"]).expect(0);
    assert_eq!(found.stdout.lines().count(), 2, "{}", found.stdout);
    let listed = muster(&["plugin", "list", "--on", "web-1.ams1"]).expect(0);
    assert!(listed.stdout.contains("hello") && listed.stdout.contains("Says hello"), "{}", listed.stdout);

    // A newer version replaces it, in use at once.
    let description = fs::read_to_string(desk.join("hello/hello.json")).unwrap();
    fs::write(desk.join("hello/hello.json"), description.replace("\"1.0.0\"", "\"1.1.0\"")).unwrap();
    let program = fs::read_to_string(desk.join("hello/hello")).unwrap();
    script(&desk.join("hello/hello"), &program.replace("Hello ", "Good morning "));
    muster(&["plugin", "pack", "hello"]).expect(0);
    let upgraded = muster(&["plugin", "install", "hello-1.1.0.tar.gz", "-t", "role = web", "--jsonl"]).expect(0);
    assert_eq!(changes(&upgraded), ["upgraded", "upgraded"]);
    let greeted = muster(&["run", "hello.greet", "name=Lea", "-H", "web-1.ams1", "--jsonl"]).expect(0);
    assert_eq!(ends(&greeted)[0].2["greeting"], "Good morning Lea, this is web-1.ams1");
    // The old one does not come back by itself.
    let downgraded = muster(&["plugin", "install", "hello-1.0.0.tar.gz", "-t", "role = web", "--jsonl"]).expect(3);
    assert_eq!(codes(&downgraded), ["conflict", "conflict"]);

    let removed = muster(&["plugin", "remove", "hello", "--all", "--jsonl"]).expect(0);
    assert_eq!(changes(&removed), ["removed", "removed", "removed"]);
    let gone = muster(&["run", "hello.greet", "name=Lea", "--all", "--jsonl"]);
    assert_eq!(codes(&gone), ["unknown-plugin", "unknown-plugin", "unknown-plugin"]);
    for agent in &agents {
        assert_eq!(fs::read_dir(agent.folder().join("state/plugins")).unwrap().count(), 0);
    }
}

/// A session that outlives a restart: packs are there again when the agent comes back.
#[test]
fn installed_packs_survive_a_restart_of_the_agent() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let mut agents = stage.agents([host("web-1.ams1")]);
    let lea = stage.operator("lea", &["admins"]);
    let desk = folder(stage.folder().join("desk"));
    let muster = |words: &[&str]| at(&lea, &desk, words);
    muster(&["plugin", "new", "hello", "--language", "python"]).expect(0);
    muster(&["plugin", "pack", "hello"]).expect(0);
    muster(&["plugin", "install", "hello-1.0.0.tar.gz", "-H", "web-1.ams1"]).expect(0);
    let mut agent = agents.remove(0);
    agent.kill().unwrap();
    let folder = agent.folder().to_path_buf();
    let name = agent.host().clone();
    let mut agent = muster_tests::programs::AgentProcess::start_in(name, &folder).unwrap();
    agent.wait_ready().unwrap();
    let greeted = muster(&["run", "hello.greet", "name=Lea", "-H", "web-1.ams1", "--jsonl"]).expect(0);
    assert_eq!(ends(&greeted)[0].2["greeting"], "Hello Lea, this is web-1.ams1");
}

/// An agent written for Choria, in Choria's directories, that knows nothing of Muster.
const CHORIA_AGENT: &str = r#"#!/usr/bin/python3
import json, os
with open(os.environ["CHORIA_EXTERNAL_REQUEST"]) as file:
    request = json.load(file)
if os.environ["CHORIA_EXTERNAL_PROTOCOL"].endswith("activation_request"):
    reply = {"activate": True}
elif request["data"]["msg"] == "fail":
    reply = {"statuscode": 1, "statusmsg": "asked to fail", "data": {}}
else:
    print("parroting for " + request["callerid"])
    with open(os.environ["CHORIA_EXTERNAL_FACTS"]) as file:
        role = json.load(file)["role"]
    reply = {"statuscode": 0, "statusmsg": "OK", "data": {"message": role + " says " + request["data"]["msg"]}}
with open(os.environ["CHORIA_EXTERNAL_REPLY"], "w") as file:
    json.dump(reply, file)
"#;

/// As `choria plugin generate ddl` writes them: no word of Muster's in it.
fn choria_description() -> Value {
    json!({
        "$schema": "https://choria.io/schemas/mcorpc/ddl/v1/agent.json",
        "metadata": {
            "license": "Apache-2.0", "author": "A. Admin", "timeout": 20, "name": "parrot", "version": "0.0.1",
            "url": "https://example.com", "description": "Parrot", "provider": "external"
        },
        "actions": [{
            "action": "echo", "display": "always", "description": "Parrots back the received message",
            "input": { "msg": {
                "prompt": "Message", "description": "Message to parrot back", "type": "string", "default": null,
                "optional": false, "validation": "shellsafe", "maxlength": 256
            }},
            "output": { "message": { "description": "Parroted message", "display_as": "Message", "type": "string" } },
            "aggregate": []
        }]
    })
}

#[test]
fn an_agent_of_choria_runs_unchanged() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let plugins = folder(stage.folder().join("puppetlabs/mcollective/plugins"));
    let agents = folder(plugins.join("mcollective/agent"));
    fs::write(agents.join("parrot.json"), choria_description().to_string()).unwrap();
    fs::write(agents.join("parrot.ddl"), "metadata :name => 'parrot'").unwrap();
    script(&agents.join("parrot"), CHORIA_AGENT);
    let mut settings = host("web-1.ams1").fact("role", "web");
    settings.extra_config = format!("\n[plugins]\ndirectories = [{}]\n", Value::from(plugins.display().to_string()));
    let _agents = stage.agents([settings]);
    let lea = stage.operator("lea", &["admins"]);
    let known = folder(stage.folder().join("home/lea/.local/share/muster/plugins"));
    fs::write(known.join("parrot.json"), choria_description().to_string()).unwrap();

    let spoken = lea.run(&["run", "parrot.echo", "msg=hello", "-H", "web-1.ams1", "--jsonl"]).unwrap().expect(0);
    assert_eq!(ends(&spoken)[0].2, json!({ "message": "web says hello" }));
    let failed = lea.run(&["run", "parrot.echo", "msg=fail", "-H", "web-1.ams1", "--jsonl"]).unwrap().expect(3);
    assert_eq!(tasks(&failed)[0]["message"], "asked to fail");
    assert_eq!(codes(&failed), ["failed"]);
}

#[test]
fn a_pack_is_taken_from_nobody_else_and_in_no_other_form() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let agents = stage.agents([host("web-1.ams1")]);
    let lea = stage.operator("lea", &["admins"]);
    let max = stage.operator("max", &["interns"]);
    let desk = folder(stage.folder().join("desk"));
    at(&max, &desk, &["plugin", "new", "hello"]).expect(0);
    at(&max, &desk, &["plugin", "pack", "hello", "--out", "max.tar.gz"]).expect(0);
    // Lea may install, but what Max has signed is not for hosts.
    let refused = at(&lea, &desk, &["plugin", "install", "max.tar.gz", "-H", "web-1.ams1", "--jsonl"]).expect(6);
    assert_eq!(codes(&refused), ["untrusted-pack"]);
    // Max may not install, whoever has signed it.
    at(&lea, &desk, &["plugin", "pack", "hello", "--out", "lea.tar.gz"]).expect(0);
    let refused = at(&max, &desk, &["plugin", "install", "lea.tar.gz", "-H", "web-1.ams1", "--jsonl"]).expect(6);
    assert_eq!(codes(&refused), ["policy-denied"]);
    // A changed pack is refused here; and by the host, if somebody sends it all the same.
    let mut bytes = fs::read(desk.join("lea.tar.gz")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(desk.join("tampered.tar.gz"), &bytes).unwrap();
    at(&lea, &desk, &["plugin", "install", "tampered.tar.gz", "-H", "web-1.ams1"]).expect(2);
    let text = Command::new("base64").arg("-w0").arg(desk.join("tampered.tar.gz")).output().unwrap().stdout;
    fs::write(desk.join("tampered.b64"), text).unwrap();
    let words = ["run", "plugin.install", "pack=@tampered.b64", "-H", "web-1.ams1", "--jsonl"];
    let refused = at(&lea, &desk, &words);
    let code = codes(&refused).remove(0);
    assert!(["checksum-mismatch", "invalid-argument"].contains(&code.as_str()), "{code}");
    assert!(!agents[0].folder().join("state/plugins/hello").exists(), "nothing of it reached the disk");
    // The good one still works.
    at(&lea, &desk, &["plugin", "install", "lea.tar.gz", "-H", "web-1.ams1"]).expect(0);
}

#[test]
fn a_plugin_that_misbehaves_is_told_apart_and_hinders_nobody() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let plugins = folder(stage.folder().join("plugins"));
    let action = |name: &str| {
        json!({
            "action": name, "description": "d", "input": {},
            "output": { "text": { "description": "d", "display_as": "D", "type": "string" } },
            "muster": { "supports": { "cancel": true, "stream": true }, "timeout_s": 2 },
        })
    };
    let names = ["good", "garbage", "nothing", "hang", "crash", "apart"];
    let mut ddl = json!({
        "metadata": { "name": "lab", "version": "1.0", "timeout": 5, "provider": "external" },
        "actions": names.map(action),
    });
    // In a process of its own, as everything that may outlive the agent.
    ddl["actions"][5]["muster"]["detached"] = json!(true);
    ddl["actions"][5]["muster"]["timeout_s"] = json!(60);
    fs::write(plugins.join("lab.json"), ddl.to_string()).unwrap();
    script(
        &plugins.join("lab"),
        "#!/bin/sh\n[ \"$MUSTER_CALL\" = run ] || exit 0\ncase $MUSTER_ACTION in\n\
         good | apart) echo working; echo text=fine >>\"$MUSTER_OUTPUT\" ;;\n\
         garbage) head -c 1000 /dev/urandom; echo '<html>' >\"$CHORIA_EXTERNAL_REPLY\" ;;\n\
         nothing) exit 0 ;;\nhang) trap '' TERM; sleep 600 & wait; sleep 600 ;;\ncrash) kill -ABRT $$ ;;\nesac\n",
    );
    // Beside it one that cannot be used at all.
    fs::write(plugins.join("broken.json"), "{").unwrap();
    let mut settings = host("web-1.ams1");
    settings.extra_config = format!("\n[plugins]\ndirectories = [{}]\n", Value::from(plugins.display().to_string()));
    let agents = stage.agents([settings]);
    let lea = stage.operator("lea", &["admins"]);
    let known = folder(stage.folder().join("home/lea/.local/share/muster/plugins"));
    fs::copy(plugins.join("lab.json"), known.join("lab.json")).unwrap();
    for (name, code, exit) in [
        ("good", "ok", 0),
        ("garbage", "plugin-error", 3),
        ("nothing", "plugin-error", 3),
        ("hang", "timed-out", 3),
        ("crash", "signalled", 3),
        ("apart", "ok", 0),
        ("good", "ok", 0),
    ] {
        let action = format!("lab.{name}");
        let run = lea.run(&["run", &action, "-H", "web-1.ams1", "--jsonl"]).unwrap().expect(exit);
        assert_eq!(codes(&run), [code], "{name}");
    }
    let status = lea.run(&["run", "host.status", "-H", "web-1.ams1", "--jsonl"]).unwrap().expect(0);
    let problems = ends(&status)[0].2["problems"].to_string();
    assert!(problems.contains("broken.json"), "{problems}");
    assert!(agents[0].log().contains("broken.json"), "the log has it too");
}
