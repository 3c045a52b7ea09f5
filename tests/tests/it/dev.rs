//! `muster dev`: what an ordinary user gets from the two programs alone, what is left of it, and how it moves to RabbitMQ.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use muster_broker_config::ServerCertificate;
use muster_tests::newcomer::{Dev, Newcomer};
use muster_tests::programs::PATIENCE;
use muster_tests::rabbit::{Node, NodeOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const HOSTS: [&str; 3] = ["db-01.ams1", "web-01.ams1", "web-02.fra2"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a command that ends with this code.
#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn lines(output: &Output, code: i32) -> Vec<String> {
    let mut lines: Vec<String> = ends(output, code).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process runs; one that nobody has waited for yet does not.
fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Processes whose command line names something below a directory.
fn processes_of(directory: &Path) -> Vec<String> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let line = |number: String| Some(text(&fs::read(format!("/proc/{number}/cmdline")).ok()?).replace('\0', " "));
    let ours = directory.display().to_string();
    numbers.filter(|it| it.parse::<u32>().is_ok_and(runs)).filter_map(line).filter(|it| it.contains(&ours)).collect()
}

fn port(dev: &Dev) -> u16 {
    let url = dev.ready["broker"].as_str().unwrap();
    url.rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap()
}

/// Everything below a directory.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    for entry in entries {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(tree(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn two_programs_are_a_bus_for_an_ordinary_user() {
    let newcomer = Newcomer::new().unwrap();
    let mut dev = newcomer.dev(&[]).unwrap();
    let kept = newcomer.kept();

    // In another terminal, and without a word about contexts: there is no other one.
    assert_eq!(lines(&newcomer.run(&["ping", "--all", "--names"]).unwrap(), 0), HOSTS);
    let web = ["run", "shell.run", "command=id -u", "-t", "role = web", "--jsonl"];
    let told = ends(&newcomer.run(&web).unwrap(), 0);
    let tasks: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tasks: Vec<&Value> = tasks.iter().filter(|line| line["kind"] == "task").collect();
    assert_eq!(tasks.len(), 2, "{told}");
    for task in tasks {
        assert_eq!(task["data"]["stdout"].as_str().unwrap_or_default().trim(), newcomer.uid().to_string(), "{task}");
    }
    // A plugin that keeps something where only root may on an installed host.
    let script = ["run", "script.run", "body=#!/bin/sh\nexit 0\n", "-H", "web-01.ams1", "--names"];
    assert_eq!(lines(&newcomer.run(&script).unwrap(), 0), ["web-01.ams1"]);
    // The policy is one: the database takes two.
    ends(&newcomer.run(&["run", "shell.run", "command=true", "-t", "role = db"]).unwrap(), 6);
    let doctor: Value = serde_json::from_str(&ends(&newcomer.run(&["doctor", "--json"]).unwrap(), 0)).unwrap();
    assert_eq!(doctor["healthy"], true, "{doctor:#}");

    // A second signature, by the colleague of the directory's own configuration.
    let pending = newcomer.home().join("restart.pending");
    let (pending, config) = (pending.to_str().unwrap(), kept.join("config.toml"));
    let keep = format!("--pending={pending}");
    ends(&newcomer.run(&["run", &keep, "shell.run", "command=true", "-H", "db-01.ams1"]).unwrap(), 0);
    let sign = ["approve", pending, "--expect", "1", "--config", config.to_str().unwrap(), "--context", "colleague"];
    ends(&newcomer.run(&sign).unwrap(), 0);
    ends(&newcomer.run(&["send", pending]).unwrap(), 0);

    // Nobody else gets at anything: keys lie in directories that are closed.
    for path in tree(&kept) {
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
        let is_key = path.extension().is_some_and(|extension| extension == "key");
        assert!(!path.is_dir() || mode & 0o077 == 0 || path.ends_with("state/scripts"), "{} {mode:o}", path.display());
        assert!(!is_key || mode == 0o600, "{} {mode:o}", path.display());
    }

    // It is the broker that sites run, with everything that an operator has there.
    let broker = kept.join("broker/broker.toml");
    let status = newcomer.run(&["broker", "status", "--config", broker.to_str().unwrap(), "--json"]).unwrap();
    let status: Value = serde_json::from_str(&ends(&status, 0)).unwrap();
    assert_eq!(status["connections"].as_array().unwrap().len(), HOSTS.len(), "{status:#}");

    // A second one says that there is a first.
    let second = newcomer.run(&["dev"]).unwrap();
    ends(&second, 2);
    let said = text(&second.stderr);
    assert!(said.starts_with("error[dev-running]") && said.contains(&dev.ready["pid"].to_string()), "{said}");
    let status: Value = serde_json::from_str(&ends(&newcomer.run(&["dev", "status", "--json"]).unwrap(), 0)).unwrap();
    assert_eq!(status["pid"], dev.ready["pid"]);
    ends(&newcomer.run(&["dev", "reset"]).unwrap(), 2);

    // An action in a process of its own ends with everything else.
    let long = ["run", "shell.run", "command=sleep 3600", "-H", "web-01.ams1", "--detach"];
    ends(&newcomer.run(&long).unwrap(), 0);
    wait_until("the action", || processes_of(&kept).iter().any(|line| line.contains("run-action")));
    let (status, said) = dev.interrupt().unwrap();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(processes_of(&kept), Vec::<String>::new());
    assert!(TcpStream::connect(("127.0.0.1", port(&dev))).is_err(), "somebody still listens");
    ends(&newcomer.run(&["dev", "status"]).unwrap(), 7);
    let alone = newcomer.run(&["ping", "--all"]).unwrap();
    ends(&alone, 7);
    assert!(text(&alone.stderr).ends_with("try     muster dev\n"), "{}", text(&alone.stderr));

    // What is kept is there again; what was set up for it stays right.
    let before = fs::read(kept.join("ca/ca.pem")).unwrap();
    let mut again = newcomer.dev(&[]).unwrap();
    assert_eq!(fs::read(kept.join("ca/ca.pem")).unwrap(), before);
    assert_eq!(lines(&newcomer.run(&["ping", "--all", "--names"]).unwrap(), 0), HOSTS);
    again.interrupt().unwrap();

    // Nobody waits for a host that is not started any more, nor for those of another directory.
    let cached = ["host", "list", "--cached", "--names"];
    assert_eq!(lines(&newcomer.run(&cached).unwrap(), 0), HOSTS);
    let other = newcomer.home().join("other");
    ends(&newcomer.run(&["dev", "--check", "--agents", "1", "--dir", other.to_str().unwrap()]).unwrap(), 0);
    assert_eq!(lines(&newcomer.run(&cached).unwrap(), 0), HOSTS);
    let mut fewer = newcomer.dev(&["--agents", "2"]).unwrap();
    assert_eq!(lines(&newcomer.run(&cached).unwrap(), 0), HOSTS[1..]);
    fewer.interrupt().unwrap();
    ends(&newcomer.run(&["dev", "reset", "--dir", other.to_str().unwrap()]).unwrap(), 0);
    assert_eq!(lines(&newcomer.run(&cached).unwrap(), 0), HOSTS[1..]);

    ends(&newcomer.run(&["dev", "reset"]).unwrap(), 0);
    assert!(!kept.exists());
    assert!(fs::read_dir(newcomer.home().join(".cache/muster")).unwrap().next().is_none(), "hosts are remembered");
    let contexts = fs::read_to_string(newcomer.home().join(".config/muster/config.toml")).unwrap();
    assert_eq!(contexts.trim(), "", "the context is left");
}

#[test]
fn an_agent_that_dies_is_started_again_and_nothing_outlives_its_owner() {
    let newcomer = Newcomer::new().unwrap();
    let mut dev = newcomer.dev(&["--agents", "2"]).unwrap();
    let first = dev.agents()[0];
    kill(Pid::from_raw(i32::try_from(first).unwrap()), Signal::SIGKILL).unwrap();
    let ended = dev.next("agent_ended").unwrap();
    assert_eq!(ended["host"], "web-01.ams1");
    let status =
        || -> Value { serde_json::from_str(&ends(&newcomer.run(&["dev", "status", "--json"]).unwrap(), 0)).unwrap() };
    assert_ne!(status()["agents"][0]["pid"], first, "a process that has ended is told as running");
    assert_eq!(dev.next("agent_ready").unwrap()["host"], "web-01.ams1");
    let told = status();
    assert_eq!(told["agents"][0]["state"], "connected", "{told:#}");
    assert!(runs(u32::try_from(told["agents"][0]["pid"].as_u64().unwrap()).unwrap()), "{told:#}");
    assert_eq!(lines(&newcomer.run(&["ping", "--all", "--names"]).unwrap(), 0), ["web-01.ams1", "web-02.fra2"]);

    // Killed, so it cannot clean up: its agents notice by themselves.
    dev.kill();
    wait_until("the end of every agent", || processes_of(&newcomer.kept()).is_empty());

    // And what did not end is ended by the next start: an agent whose input somebody else holds.
    let config = newcomer.kept().join("hosts/web-01.ams1/musterd.toml");
    let mut left = Command::new("/bin/sh");
    left.args(["-c", "read -r _", "sh", "--config"]).arg(&config).stdin(std::process::Stdio::piped());
    if nix::unistd::Uid::effective().is_root() {
        std::os::unix::process::CommandExt::uid(&mut left, newcomer.uid());
    }
    let mut left = left.spawn().unwrap();
    // Somebody else has the port now: everything that names it is written anew.
    let taken = port(&dev);
    let other = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let check = newcomer.run(&["dev", "--check", "--agents", "2"]).unwrap();
    ends(&check, 0);
    assert!(!text(&check.stderr).contains(&format!(":{taken}/")), "{}", text(&check.stderr));
    drop(other);
    assert!(left.try_wait().unwrap().is_some(), "it is left: {}", text(&check.stderr));
    assert_eq!(processes_of(&newcomer.kept()), Vec::<String>::new());
}

#[test]
fn agents_that_wait_for_a_broker_in_vain_are_an_error() {
    let newcomer = Newcomer::new().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (url, directory) = (format!("amqps://{free}/muster"), newcomer.home().join("d"));
    let directory = directory.to_str().unwrap();
    let words = ["dev", "--broker", &url, "--agents", "1", "--connect-timeout", "5s", "--dir", directory];
    let vain = newcomer.run(&words).unwrap();
    assert_eq!(ends(&vain, 7), "");
    let said = text(&vain.stderr);
    assert!(said.contains(&format!("error[dev-not-connected]: 1 of 1 agents could not connect to {url}")), "{said}");
    // What the agent said last, and commands that lead to this directory.
    let last = &said[said.find("error[").unwrap()..];
    assert!(last.contains(&format!("`{free}` refuses connections")), "{said}");
    let hint = format!("try     muster --config {directory}/config.toml doctor\n");
    assert!(last.ends_with(&hint) && !said.contains("are connected"), "{said}");
    assert!(!newcomer.home().join(".config/muster/config.toml").exists(), "a context that leads nowhere");
    assert_eq!(processes_of(Path::new(directory)), Vec::<String>::new());
}

#[test]
fn the_second_interrupt_ends_at_once_what_the_first_one_waits_for() {
    let newcomer = Newcomer::new().unwrap();
    let mut dev = newcomer.dev(&["--agents", "1"]).unwrap();
    // It does not listen to whoever asks it to end.
    let stubborn = "command=trap '' TERM INT HUP; sleep 3600 & wait; wait";
    let run = ["run", "shell.run", stubborn, "-H", "web-01.ams1", "--timeout", "1h", "--detach"];
    ends(&newcomer.run(&run).unwrap(), 0);
    wait_until("the action", || processes_of(&newcomer.kept()).iter().any(|line| line.contains("run-action")));
    let signal = |pid: u64| kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGINT).unwrap();
    let pid = dev.ready["pid"].as_u64().unwrap();
    signal(pid);
    wait_until("the first one", || !newcomer.kept().join("running.json").exists());
    let (status, said) = dev.interrupt().unwrap();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("  web-01.ams1  shell.run of user/dev\n") && said.contains("Ctrl-C again"), "{said}");
    assert_eq!(processes_of(&newcomer.kept()), Vec::<String>::new());
}

#[test]
fn what_was_not_made_by_it_is_left_alone() {
    let newcomer = Newcomer::new().unwrap();
    let config = newcomer.home().join(".config/muster/config.toml");
    let own = "# mine\n[context.prod]\nbroker = [\"amqps://mq1.example.com\"]\nca = \"ca.pem\"\ncertificate = \"c\"\nkey = \"k\"\n";
    let shell = format!("mkdir -p {} && cat > {}", config.parent().unwrap().display(), config.display());
    let written = Command::new("/bin/sh").args(["-c", &format!("printf %s '{own}' | ({shell})")]).status().unwrap();
    assert!(written.success());
    // It belongs to whoever ran the shell; he must be able to change it.
    for path in [newcomer.home().join(".config"), newcomer.home().join(".config/muster"), config.clone()] {
        std::os::unix::fs::chown(&path, Some(newcomer.uid()), None).unwrap();
    }

    // Full directories, and others' programs.
    let home = newcomer.home().to_str().unwrap();
    let check = |words: &[&str], code: &str| {
        let refused = newcomer.run(words).unwrap();
        ends(&refused, 2);
        assert!(text(&refused.stderr).starts_with(&format!("error[{code}]")), "{}", text(&refused.stderr));
    };
    check(&["dev", "--dir", home], "dev-directory");
    check(&["dev", "reset", "--dir", home], "dev-directory");
    check(&["dev", "--musterd", "/no/such/program"], "no-musterd");
    check(&["dev", "--context", "prod"], "bad-usage");
    assert!(newcomer.home().join("bin/muster").exists());

    // A context in use because it is the only one stays in use.
    let mut dev = newcomer.dev(&["--agents", "1"]).unwrap();
    let now = fs::read_to_string(&config).unwrap();
    assert!(now.starts_with(&format!("current = \"prod\"\n{own}")), "{now}");
    let list = ["--context", "dev", "ping", "--all", "--names"];
    assert_eq!(lines(&newcomer.run(&list).unwrap(), 0), ["web-01.ams1"]);
    dev.interrupt().unwrap();
    ends(&newcomer.run(&["dev", "reset"]).unwrap(), 0);
    assert_eq!(fs::read_to_string(&config).unwrap(), format!("current = \"prod\"\n{own}"));
}

/// Issue 6: moving to RabbitMQ is a change of one URL plus `muster broker config`.
#[test]
fn a_bus_moves_to_rabbitmq_with_one_address_and_one_command() {
    let newcomer = Newcomer::new().unwrap();
    let mut dev = newcomer.dev(&[]).unwrap();
    let before = newcomer.run(&["run", "shell.run", "command=true", "-t", "role = web", "--names"]).unwrap();
    assert_eq!(lines(&before, 0), ["web-01.ams1", "web-02.fra2"]);
    dev.interrupt().unwrap();

    // A RabbitMQ with the certificate that the bus has already, and nobody in it.
    let pki = newcomer.kept().join("pki");
    let node = Node::start(NodeOptions::new(ServerCertificate {
        ca: pki.join("ca.pem"),
        certificate: pki.join("broker-localhost.pem"),
        key: pki.join("broker-localhost.key"),
    }))
    .unwrap();
    let (ca, out) = (newcomer.kept().join("ca"), tempfile::tempdir().unwrap());
    let config = Command::new(muster_tests::programs::program("muster").unwrap())
        .args(["broker", "config", "--import", "--node", node.name(), "--ca-dir", ca.to_str().unwrap()])
        .args(["--out", out.path().to_str().unwrap(), "--rabbitmqctl", node.rabbitmqctl().to_str().unwrap()])
        .envs(node.environment())
        .output()
        .unwrap();
    ends(&config, 0);

    let url = node.url(&node.site().vhost);
    let mut moved = newcomer.dev(&["--broker", &url]).unwrap();
    assert_eq!(moved.ready["embedded"], false);
    // The same hosts with the same memory, the same user, the same context.
    assert_eq!(lines(&newcomer.run(&["ping", "--all", "--names"]).unwrap(), 0), HOSTS);
    let after = newcomer.run(&["run", "shell.run", "command=true", "-t", "role = web", "--names"]).unwrap();
    assert_eq!(lines(&after, 0), ["web-01.ams1", "web-02.fra2"]);
    let users = node.ctl(&["list_connections", "user"]).unwrap();
    let users: BTreeSet<&str> = users.lines().filter(|line| line.contains("host/")).collect();
    assert_eq!(users.len(), HOSTS.len(), "{users:?}");
    moved.interrupt().unwrap();

    // And back, since nothing was burnt.
    ends(&newcomer.run(&["dev", "--check"]).unwrap(), 0);
}
