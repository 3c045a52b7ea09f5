//! The program `musterd`: what its commands print and how they end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use muster_pki::testing::TestAuthority;
use muster_protocol::Timestamp;

/// A folder with everything an agent needs.
pub(crate) struct Folder {
    directory: tempfile::TempDir,
    authority: TestAuthority,
}

pub(crate) fn now() -> Timestamp {
    Timestamp(muster_daemon::Clock::now_ms(&muster_daemon::SystemClock))
}

impl Folder {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = TestAuthority::new(now()).unwrap();
        let folder = Self { directory, authority };
        let host = folder.authority.credentials("host/web1.example.com").unwrap();
        folder.authority.write(&host, &folder.path("pki")).unwrap();
        fs::write(folder.path("policy.toml"), muster_agent::policy::STARTER).unwrap();
        folder.config(|text| text);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config(&self, change: impl FnOnce(String) -> String) {
        let at = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "state_dir = \"{}\"\n[broker]\nurls = [\"amqps://127.0.0.1:1\"]\n[pki]\nca = \"{}\"\ncrl = \"{}\"\n\
             certificate = \"{}\"\nkey = \"{}\"\n[policy]\nfile = \"{}\"\n[facts]\ndirectory = \"{}\"\n",
            at("state"),
            at("pki/ca.pem"),
            at("pki/crl.pem"),
            at("pki/host-web1.example.com.pem"),
            at("pki/host-web1.example.com.key"),
            at("policy.toml"),
            at("facts.d"),
        );
        fs::write(self.path("musterd.toml"), change(text)).unwrap();
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_musterd"));
        Command::new(program)
            .args(arguments)
            .args(["--config".as_ref(), self.path("musterd.toml").as_os_str()])
            .env_clear()
            .output()
            .unwrap()
    }

    #[track_caller]
    pub(crate) fn check(&self, arguments: &[&str], good: bool, words: &[&str]) -> String {
        let output = self.run(arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.success(), good, "{arguments:?}: {stdout}{stderr}");
        let said = if good { stdout.into_owned() } else { stderr.into_owned() };
        for word in words {
            assert!(said.contains(word), "{arguments:?} does not say `{word}`: {said}");
        }
        said
    }
}

#[test]
fn a_good_configuration_is_called_good() {
    let folder = Folder::new();
    folder.check(&["check-config"], true, &["good: host/web1.example.com, 2 policy rules, certificate valid until"]);
    folder.check(&["--version"], true, &[concat!("musterd ", env!("CARGO_PKG_VERSION"))]);
    let printed = folder.check(&["--print-config"], true, &["state_dir = ", "musterd.toml:1", "# default"]);
    assert!(printed.contains("limits.clock_skew_s = 60  # default"), "{printed}");
    let starter = folder.check(&["print-starter-policy"], true, &["[[rule]]"]);
    assert_eq!(starter, muster_agent::policy::STARTER);
}

#[test]
fn check_config_says_everything_that_is_wrong() {
    let folder = Folder::new();
    folder.config(|text| text.replace("state_dir", "state_dri"));
    folder.check(&["check-config"], false, &["musterd.toml:1: unknown key `state_dri`, did you mean `state_dir`?"]);
    folder.config(|text| format!("{text}[limits]\nconcurrent_actions = 0\n"));
    folder.check(&["check-config"], false, &["limits.concurrent_actions", "1 to 256"]);
    folder.config(|text| {
        format!("{text}[limits]\nconcurrent_actions = \"lots\"\n[brokr]\nx = 1\n[log]\nformat = \"yaml\"\n")
            .replace("host-web1.example.com", "nothing")
            .replace("policy.toml", "no-policy.toml")
    });
    let said = folder.check(
        &["check-config"],
        false,
        &[
            "unknown key `brokr`, did you mean `broker`?",
            "`limits.concurrent_actions` is \"lots\"; accepted: a whole number from 1 to 256",
            "`log.format` is \"yaml\"; accepted: `text`, `json`",
            "`pki.certificate`: there is no file",
            "  try  here: muster pki request host/HOST --out DIR",
            "`pki.key`: there is no file",
            "`policy.file`: there is no file",
            "  try  musterd print-starter-policy > ",
        ],
    );
    assert_eq!(said.matches("error: ").count(), 6, "{said}");
    folder.config(|text| format!("host = \"web2\"\n{text}"));
    folder.check(&["check-config"], false, &["web1.example.com", "`web2`"]);
    folder.config(|text| text);
    fs::write(folder.path("policy.toml"), "[[rule]]\nname = \"a\"\neffect = \"allow\"\nwhen = 'x y'\n").unwrap();
    folder.check(&["check-config"], false, &["policy.toml` line 4, column 11"]);
    let rules = "[[rule]]\nname = \"a\"\neffect = \"maybe\"\nwhen = 'x y'\n\
                 [[rule]]\nname = \"a\"\neffect = \"deny\"\nwhen = 'nmae = x'\n";
    fs::write(folder.path("policy.toml"), rules).unwrap();
    let said = folder.check(&["check-config"], false, &["line 3, column 10", "line 4", "line 6, column 8", "line 8"]);
    assert_eq!(said.matches("error: ").count(), 4, "{said}");
    fs::remove_file(folder.path("policy.toml")).unwrap();
    fs::write(folder.path("pki/ca.pem"), "rubbish").unwrap();
    // Both at once.
    folder.check(&["check-config"], false, &["policy.toml", "ca.pem"]);
    let other = TestAuthority::new(now()).unwrap();
    fs::write(folder.path("pki/ca.pem"), other.ca_pem()).unwrap();
    fs::remove_file(folder.path("pki/crl.pem")).unwrap();
    folder.check(&["check-config"], false, &["would not be accepted"]);
    fs::remove_file(folder.path("pki/host-web1.example.com.key")).unwrap();
    folder.check(&["check-config"], false, &["host-web1.example.com.key"]);
    fs::remove_file(folder.path("musterd.toml")).unwrap();
    let said =
        folder.check(&["check-config"], false, &["there is no configuration", "musterd.toml", "  try  ", "--config"]);
    assert_eq!(said, folder.check(&[], false, &[]));
    folder.check(&["chek-config"], false, &["'check-config'"]);
}

#[test]
fn an_open_key_is_named_with_the_command_that_closes_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let key = folder.path("pki/host-web1.example.com.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let expected = format!("  try  chmod 600 {}\n", key.display());
    folder.check(&["check-config"], false, &["`pki.key`", "0644", &expected]);
}

#[test]
fn what_others_can_write_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let mode = |name: &str, mode| fs::set_permissions(folder.path(name), fs::Permissions::from_mode(mode)).unwrap();
    for name in ["musterd.toml", "policy.toml", "pki/ca.pem", "pki/crl.pem", "pki/host-web1.example.com.pem"] {
        for open in [0o664, 0o646] {
            mode(name, open);
            folder.check(&["check-config"], false, &[&format!("chmod go-w {}", folder.path(name).display())]);
        }
        mode(name, 0o644);
        folder.check(&["check-config"], true, &["good"]);
    }
    // Whoever can write a directory on the way can put another file there.
    for name in ["pki", ""] {
        mode(name, 0o777);
        let said = folder.path(name).display().to_string();
        folder.check(
            &["check-config"],
            false,
            &["on the way to it", &format!("chmod go-w {}", said.trim_end_matches('/'))],
        );
        let started = String::from_utf8_lossy(&folder.run(&[]).stderr).into_owned();
        assert!(started.contains("on the way to it"), "{started}");
        mode(name, 0o755);
        folder.check(&["check-config"], true, &["good"]);
    }
    fs::create_dir(folder.path("state")).unwrap();
    mode("state", 0o777);
    folder.check(&["check-config"], false, &[&format!("chmod go-w {}", folder.path("state").display())]);
    let said = String::from_utf8_lossy(&folder.run(&[]).stderr).into_owned();
    assert!(said.contains(&format!("chmod go-w {}", folder.path("state").display())), "{said}");
}

/// Before, the start was refused only once the directory had been emptied of old work and its journal written anew.
#[test]
fn a_state_directory_that_others_can_replace_is_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    fs::create_dir_all(folder.path("outer/state/work")).unwrap();
    fs::write(folder.path("outer/state/work/kept"), "").unwrap();
    for (name, mode) in [("outer/state/work", 0o700), ("outer/state", 0o700), ("outer", 0o777)] {
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let (usual, other) = (folder.path("state"), folder.path("outer/state"));
    folder.config(|text| text.replace(usual.to_str().unwrap(), other.to_str().unwrap()));
    let output = folder.run(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("on the way to it"), "{said}");
    let left = || fs::read_dir(&other).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left(), ["work"], "nothing was made");
    assert!(other.join("work/kept").exists(), "nothing was removed");
}

#[test]
fn the_agent_itself_only_warns_of_unknown_keys() {
    let folder = Folder::new();
    folder.config(|text| format!("new_key = 1\n{text}"));
    let printed = folder.check(&["--print-config"], true, &["# ", "`new_key`", "ignored"]);
    assert!(printed.lines().all(|line| !line.starts_with("new_key")), "{printed}");
    // It would start; that it cannot is for another reason.
    fs::remove_file(folder.path("policy.toml")).unwrap();
    let output = folder.run(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("new_key") && said.contains("policy.toml"), "{said}");
}

#[test]
fn facts_are_printed_as_the_agent_would_use_them() {
    let folder = Folder::new();
    fs::create_dir(folder.path("facts.d")).unwrap();
    fs::write(
        folder.path("facts.d/site.json"),
        "{\"rack\": \"r7\", \"evil\": \"a\\u001b]0;x\\u0007\u{9b}2J\u{202e}\"}",
    )
    .unwrap();
    fs::write(folder.path("facts.d/bad.json"), "{").unwrap();
    let text = folder.check(&["facts"], true, &[]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["facts"]["rack"], "r7");
    // What a fact says acts on no terminal.
    assert!(text.chars().all(|c| c == '\n' || !muster_daemon::terminal::acts(c)), "{text}");
    assert_eq!(value["facts"]["evil"], "a\u{1b}]0;x\u{7}\u{9b}2J\u{202e}");
    assert_eq!(value["facts"]["muster"]["host"], "web1.example.com");
    assert!(value["errors"][0]["source"].as_str().unwrap().ends_with("bad.json"), "{}", value["errors"]);
}

#[test]
fn the_spool_is_listed() {
    use muster_agent::spool::{Keep, Spool};
    let folder = Folder::new();
    folder.check(&["spool", "list"], true, &["0 reports, 0 bytes (at most 1000, 33554432 bytes)\n"]);
    let (mut spool, _) = Spool::open(&crate::kit::real_disk(), &folder.path("state/spool")).unwrap();
    let request_id = crate::kit::fresh_id();
    spool.put(crate::kit::waiting_report(request_id), Keep::OnDisk, now(), &mut |_| true).unwrap();
    fs::write(folder.path("state/spool/x.damaged"), "rubbish").unwrap();
    let list = |words: &[&str]| {
        let output = folder.run(&["spool", "list"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert_eq!(output.status.code(), Some(3), "a file is damaged");
        said
    };
    let said = list(&[&request_id.to_string(), "until 20", "x.damaged is not a report"]);
    assert!(said.contains("\n1 report, 2 bytes (") && said.contains("to user/lea.s1.web1.example.com\n"), "{said}");
    assert!(said.contains("  since 20") && said.ends_with("not needed as evidence\n"), "{said}");
    let mut state = spool.state(now());
    state.waiting[0].tries = 3;
    state.waiting[0].why = muster_agent::spool::Why::Unroutable;
    fs::write(folder.path("state/spool.json"), serde_json::to_vec(&state).unwrap()).unwrap();
    list(&["  its reader has no queue (tried 3 times)\n", "in the agent's memory 0 reports, at 20"]);
    let list: serde_json::Value = serde_json::from_slice(&folder.run(&["spool", "list", "--json"]).stdout).unwrap();
    assert_eq!(list["reports"][0]["request_id"], request_id.to_string());
    assert_eq!((&list["reports"][0]["why"], &list["reports"][0]["tries"]), (&"unroutable".into(), &3.into()));
    assert!(list["damaged"][0]["file"].as_str().unwrap().ends_with("x.damaged"));
}

#[test]
fn the_journal_is_listed_while_an_agent_could_use_it() {
    use muster_agent::journal::{Journal, Started};
    let folder = Folder::new();
    folder.check(&["journal", "list"], false, &["there is no journal in"]);
    fs::create_dir_all(folder.path("state")).unwrap();
    let path = folder.path("state/journal");
    let (mut journal, _) = Journal::open(&crate::kit::real_disk(), &path, now()).unwrap();
    let started = |read_only| Started {
        id: crate::kit::fresh_id(),
        caller: "muster:user/lea".parse().unwrap(),
        reply_to: "user/lea.s1".parse().unwrap(),
        action: "lab.change".to_owned(),
        read_only,
        at_ms: now(),
        keep_until_ms: now().plus_ms(60_000),
        sequence_reserved: 1,
    };
    let (running, ended) = (started(false), started(true));
    journal.start(running.clone()).unwrap();
    journal.start(ended.clone()).unwrap();
    journal.finish(ended.id).unwrap();
    let before = fs::read(&path).unwrap();
    let row = format!("{}  user/lea  lab.change  changes  since 20", running.id);
    let counts = "1 of 40000 that change something, 1 of 40000 that only read, 0 of 20000 refused, the last until 20";
    folder.check(&["journal", "list"], true, &[&row, "1 running or interrupted\n", counts]);
    let text = folder.check(&["journal", "list", "--json"], true, &[]);
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["unfinished"][0]["id"], running.id.to_string());
    assert_eq!(fs::read(&path).unwrap(), before, "looking changes nothing");
    // A torn end and a damaged line are told.
    let mut damaged = before.clone();
    damaged[60] ^= 1;
    damaged.extend_from_slice(b"half");
    fs::write(&path, &damaged).unwrap();
    let output = folder.run(&["journal", "list"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("4 bytes of an unfinished record") && said.contains("1 line is damaged"), "{said}");
    assert_eq!(output.status.code(), Some(3));
}
