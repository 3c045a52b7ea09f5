//! Secret arguments: from a file on the operator's desk to a script on the host, and nowhere else on the way.

use std::fs;
use std::path::Path;

use muster_tests::programs::{AgentProcess, AgentSettings, Finished, Operator, python_peer, read_line};
use muster_tests::stage::{Stage, host};
use serde_json::Value;

use super::BROKER;

/// What must not be found anywhere.
const SECRET: &str = "correct-horse-battery-staple";

/// Says how long its standard input is and what it begins with, and repeats all of it, as a careless script does.
const SCRIPT: &str = "read -r secret; echo \"length ${#secret}, first ${secret%\"${secret#?}\"}\"; echo \"it is $secret\"; \
                      tr '\\0' ' ' < /proc/$$/cmdline; env; exit 0";

fn scripts(name: &str) -> AgentSettings {
    let mut settings = host(name);
    settings.extra_config.push_str("\n[plugins]\nenabled = [\"script\"]\n\n[log]\nfilter = \"debug\"\n");
    settings
}

fn secret_file(stage: &Stage) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = stage.folder().join("secret");
    fs::write(&path, SECRET).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Every file below `folder` that holds the secret.
fn traces(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            traces(&path, found);
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[track_caller]
fn assert_kept(run: &Finished) {
    assert!(!run.stdout.contains(SECRET) && !run.stderr.contains(SECRET), "{}\n{}", run.stdout, run.stderr);
}

fn tasks(run: &Finished) -> Vec<Value> {
    let lines = run.json_lines().unwrap();
    lines.into_iter().filter(|line| line["kind"] == "task").collect()
}

fn output_of(task: &Value) -> String {
    let text = task.to_string();
    assert!(text.contains("length 28, first c"), "the script got the secret: {text}");
    text
}

#[test]
fn a_secret_reaches_the_scripts_of_its_hosts_and_nobody_else() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "host/web-2.ams1", "user/lea"]);
    let agents: Vec<AgentProcess> = stage.agents([scripts("web-1.ams1"), scripts("web-2.ams1")]);
    let lea: Operator = stage.operator("lea", &["admins"]);
    let secret = secret_file(&stage);
    let argument = format!("secret_input=@{secret}");
    let script = format!("body={SCRIPT}");

    let run = lea.run(&["run", "script.run", &script, &argument, "--all", "--jsonl"]).unwrap().expect(0);
    assert_kept(&run);
    let tasks = tasks(&run);
    assert_eq!(tasks.len(), 2);
    for task in &tasks {
        let output = output_of(task);
        assert!(output.contains("it is ***"), "what a script repeats is masked: {output}");
    }
    let audit = agents[0].audit();
    assert!(audit.contains(r#""secret_input":"***""#), "{audit}");

    // From standard input.
    let run = lea
        .run_with_input(&["run", "script.run", &script, "secret_input=-", "-H", "web-1.ams1", "--jsonl"], SECRET)
        .unwrap()
        .expect(0);
    assert_kept(&run);

    // On the command line it is refused before anything is sent.
    let run = lea.run(&["run", "script.run", &script, &format!("secret_input={SECRET}"), "--all"]).unwrap().expect(2);
    assert_kept(&run);

    // A plan, and a host that cannot open it.
    let plan = lea.run(&["run", "script.run", &script, &argument, "--all", "--dry-run", "--json"]).unwrap().expect(0);
    assert_kept(&plan);
    assert_eq!(plan.json().unwrap()["secrets"], serde_json::json!(["secret_input"]));

    drop(agents);
    let mut found = Vec::new();
    traces(stage.folder(), &mut found);
    assert_eq!(found, [secret], "neither logs nor audit, records, spool or results hold it");
}

#[test]
fn an_independent_program_seals_and_opens() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "host/py-1.ams1", "user/lea"]);
    let _agents = stage.agents([scripts("web-1.ams1")]);
    let member = stage.site().member_in("user/lea", &["admins"]);
    let access = stage.access(&member);
    let port = stage.bus.port().to_string();
    let party = |member: &muster_tests::pki::Member| -> Vec<String> {
        let files = [("--certificate", &member.files.certificate), ("--key", &member.files.key)];
        let mut words: Vec<String> =
            files.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]).collect();
        words.extend(["--broker-port", &port, "--vhost", &stage.bus.vhost].map(str::to_owned));
        words
    };
    let arguments = serde_json::json!({ "body": SCRIPT }).to_string();
    let ask = |secrets: &str, arguments: &str| -> Value {
        let mut words = party(&member);
        let target = r#"{"hosts":["web-1.ams1"]}"#;
        let more = ["--action", "script.run", "--target", target, "--arguments", arguments, "--secrets", secrets];
        words.extend(more.map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = python_peer("controller", &access, &words).unwrap().output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap()
    };
    let sealed = serde_json::json!({ "secret_input": SECRET }).to_string();
    let done = ask(&sealed, &arguments);
    assert_eq!(done["finished"]["web-1.ams1"]["outcome"], "succeeded", "{done}");
    assert!(!done.to_string().contains(SECRET) && done.to_string().contains("length 28"), "{done}");

    // What our own controller would never send.
    let code = |done: &Value| done["finished"]["web-1.ams1"]["code"].as_str().unwrap().to_owned();
    let open = serde_json::json!({ "body": SCRIPT, "secret_input": SECRET }).to_string();
    let done = ask("{}", &open);
    assert_eq!(code(&done), "secret-not-sealed", "{done}");
    assert!(!done.to_string().contains(SECRET), "{done}");
    let hidden = serde_json::json!({ "body": "true" }).to_string();
    assert_eq!(code(&ask(&hidden, "{}")), "invalid-argument", "what is no secret does not come sealed");

    // The other way round: our controller seals, the program opens.
    let python = stage.site().member("host/py-1.ams1");
    let mut words = party(&python);
    words.extend(["--expect", "2"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut child = python_peer("agent", &stage.access(&python), &words).unwrap().spawn().unwrap();
    read_line(&mut child).unwrap();
    let lea = stage.operator_as("lea", &member);
    let argument = format!("secret_input=@{}", secret_file(&stage));
    let run = lea.run(&["run", "script.run", "body=true", &argument, "-H", "py-1.ams1", "--jsonl"]).unwrap().expect(0);
    assert_kept(&run);
    let output = child.wait_with_output().unwrap();
    let opened = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(opened.contains(&format!(r#""opened": {{"secret_input": "{SECRET}"}}"#)), "{opened}");
}

#[test]
fn a_script_without_a_secret_runs_and_what_it_leaves_is_not_waited_for() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "user/lea"]);
    let _agents = stage.agents([scripts("web-1.ams1")]);
    let lea = stage.operator("lea", &["admins"]);
    let check = |body: &str, left_behind: u64| {
        let body = format!("body={body}");
        let run = lea.run(&["run", "script.run", &body, "exit_codes=0,3", "-H", "web-1.ams1", "--jsonl"]).unwrap();
        let task = tasks(&run.expect(0)).remove(0);
        assert_eq!(task["data"]["left_behind"], left_behind, "{task}");
    };
    check("echo hi; exit 3", 0);
    // In the group of the script, with and without its output; its time limit is ten minutes.
    check("sleep 1000 &", 1);
    check("sleep 1000 > /dev/null 2>&1 & sleep 1000 > /dev/null 2>&1 & echo started", 2);
}
