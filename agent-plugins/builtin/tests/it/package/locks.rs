//! Somebody else is at work with packages.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use muster_plugin_api::{ActionContext, ActionReply, CancellationToken, OutputSink, Plugin, conformance};
use muster_plugins::Package;
use serde_json::{Value, json};

use super::debian::{Deb, Debian};
use crate::support::{run, until};

/// A process that holds a record lock on a file, as apt and dpkg do, until it is dropped.
pub(super) struct Locker(Child);

impl Locker {
    pub(super) fn hold(file: &Path) -> Self {
        // struct flock on 64-bit Linux: type, whence, start, length, process. 1 is F_WRLCK.
        let program = "use Fcntl; $| = 1; open(my $f, '+>>', $ARGV[0]) or die $!;\
                       my $l = pack('s s x4 q q i x4', F_WRLCK, 0, 0, 0, 0); fcntl($f, F_SETLK, $l) or die $!;\
                       print \"held\\n\"; <STDIN>;";
        let mut child = Command::new("perl")
            .args(["-e", program])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Another program at work with packages, which does not outlive its test.
pub(super) struct Other(Child);

impl Other {
    pub(super) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap())
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn succeeds(&mut self) -> bool {
        self.0.wait().unwrap().success()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        // Fails where it has ended, which is as it should be.
        let _ended = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _reaped = self.0.wait();
    }
}

fn with_foo() -> Debian {
    let debian = Debian::new();
    debian.publish(&Deb { name: "foo", version: "1", ..Deb::default() });
    debian.publish(&Deb { name: "bar", version: "1", ..Deb::default() });
    debian.update();
    debian
}

/// Starts an action whose output can be watched.
async fn watched(
    plugin: &Package,
    action: &str,
    arguments: Value,
    output: OutputSink,
    cancel: CancellationToken,
) -> ActionReply {
    let request = conformance::sample_request(action, arguments).unwrap();
    plugin.run(request, ActionContext { output, ..conformance::context(cancel) }).await
}

#[tokio::test]
async fn a_lock_that_is_not_let_go_names_its_holder() {
    for file in
        ["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock", "var/cache/apt/archives/lock"]
    {
        let debian = with_foo();
        let locker = Locker::hold(&debian.path(file));
        let failure =
            run(&debian.plugin(), "install", json!({ "name": "foo", "lock_timeout_s": 1 })).await.unwrap_err();
        assert_eq!(failure.code.code, "conflict", "{failure}");
        let path = debian.path(file).display().to_string();
        assert!(failure.message.contains(&format!("`{path}` is held by process {}", locker.pid())), "{failure}");
        let holder = &failure.data["holder"];
        assert_eq!((&holder["pid"], &holder["lock"]), (&json!(locker.pid()), &json!(path)));
        assert!(holder["command"].as_str().unwrap().starts_with("perl"), "{holder}");
        assert_eq!(debian.state("foo"), "");
    }
}

#[tokio::test]
async fn a_lock_that_is_let_go_is_waited_for() {
    let debian = with_foo();
    let plugin = debian.plugin();
    let locker = Locker::hold(&debian.path("var/lib/dpkg/lock-frontend"));
    let (sink, mut output) = OutputSink::channel(64);
    let conductor = async {
        let first = output.recv().await.unwrap();
        let line = String::from_utf8(first.bytes).unwrap();
        assert!(line.contains(&format!("held by process {}", locker.pid())), "{line}");
        drop(locker);
        while output.recv().await.is_some() {}
    };
    let action =
        watched(&plugin, "install", json!({ "name": "foo", "lock_timeout_s": 60 }), sink, CancellationToken::new());
    let (reply, ()) = tokio::join!(action, conductor);
    let data = reply.unwrap().data;
    assert_eq!((&data["packages"][0]["name"], &data["packages"][0]["tries"]), (&json!("foo"), &json!(2)));
    assert!(data["waited_ms"].as_u64().unwrap() > 0, "{data}");
}

#[tokio::test]
async fn waiting_can_be_cancelled() {
    let debian = with_foo();
    let plugin = debian.plugin();
    let _locker = Locker::hold(&debian.path("var/lib/dpkg/lock-frontend"));
    let (sink, mut output) = OutputSink::channel(64);
    let cancel = CancellationToken::new();
    let conductor = async {
        output.recv().await.unwrap();
        cancel.cancel();
    };
    let action = watched(&plugin, "install", json!({ "name": "foo", "lock_timeout_s": 60 }), sink, cancel.clone());
    let (reply, ()) = tokio::join!(action, conductor);
    let failure = reply.unwrap_err();
    assert_eq!(failure.code.code, "cancelled");
    assert!(failure.message.contains("nothing was changed"), "{failure}");
}

#[tokio::test]
async fn two_installs_at_once_both_succeed_one_after_the_other() {
    let debian = Debian::new();
    let log = debian.path("log");
    let script = |name: &str| {
        format!("#!/bin/sh\necho begin {name} >> {log}\nsleep 0.3\necho end {name} >> {log}\n", log = log.display())
    };
    for name in ["one", "two"] {
        let text = script(name);
        debian.publish(&Deb { name, version: "1", scripts: &[("postinst", &text)], ..Deb::default() });
    }
    debian.update();
    // Two plugins, as in two processes of detached actions.
    let (first, second) = (debian.plugin(), debian.plugin());
    let (one, two) = tokio::join!(
        run(&first, "install", json!({ "name": "one" })),
        run(&second, "install", json!({ "name": "two" }))
    );
    let names = |reply: ActionReply| {
        let data = reply.unwrap().data;
        data["packages"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect::<Vec<_>>()
    };
    // Each answer has its own package and nothing of the other's.
    assert_eq!((names(one), names(two)), (vec![json!("one")], vec![json!("two")]));
    let lines = fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = lines.lines().collect();
    let (begun, ended) = (lines[0].strip_prefix("begin ").unwrap(), lines[1].strip_prefix("end ").unwrap());
    assert_eq!((begun, lines.len()), (ended, 4), "{lines:?}");
}

#[tokio::test]
async fn an_apt_get_of_somebody_else_is_waited_for() {
    let debian = with_foo();
    let (began, go_on) = (debian.path("began"), debian.path("go-on"));
    let script =
        format!("#!/bin/sh\ntouch {}\nuntil [ -e {} ]; do sleep 0.05; done\n", began.display(), go_on.display());
    debian.publish(&Deb { name: "slow", version: "1", scripts: &[("postinst", &script)], ..Deb::default() });
    debian.update();
    let mut other = Command::new("apt-get");
    let mut other =
        Other::start(other.env("APT_CONFIG", debian.path("apt.conf")).args(["-q", "-y", "install", "slow"]));
    until(|| began.exists(), |began| *began).await;
    let plugin = debian.plugin();
    let (sink, mut output) = OutputSink::channel(64);
    let conductor = async {
        let line = String::from_utf8(output.recv().await.unwrap().bytes).unwrap();
        assert!(line.contains(&format!("process {} (`apt-get install`)", other.pid())), "{line}");
        fs::write(&go_on, "").unwrap();
        while output.recv().await.is_some() {}
    };
    let action =
        watched(&plugin, "install", json!({ "name": "foo", "lock_timeout_s": 60 }), sink, CancellationToken::new());
    let (reply, ()) = tokio::join!(action, conductor);
    let data = reply.unwrap().data;
    assert_eq!(data["packages"].as_array().unwrap().len(), 1, "{data}");
    assert!(other.succeeds());
    assert_eq!(debian.state("slow"), "install ok installed 1");
}

#[tokio::test]
async fn reading_does_not_wait() {
    let debian = with_foo();
    let _locker = Locker::hold(&debian.path("var/lib/dpkg/lock-frontend"));
    let plugin = debian.plugin();
    for action in ["count", "list", "list_updates"] {
        let limit = Duration::from_secs(30);
        crate::support::run_within(&plugin, action, json!({}), limit).await.unwrap();
    }
}
