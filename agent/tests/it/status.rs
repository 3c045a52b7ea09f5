//! What an agent says of itself on its socket, and what the program says where none answers.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_agent::status::socket::{SocketError, StatusSocket, ask, ask_within};
use muster_agent::status::{ConnectionStatus, Phase, Status, show};
use serde_json::{Value, json};

use crate::binary::Folder;
use crate::kit::{PATIENCE, Setup, Stage, cancel, command, eventually};

#[tokio::test]
async fn a_status_shows_requests_queues_and_counters_and_no_secret() {
    let stage = Stage::new();
    let agent = stage.start(Setup::default()).await;
    let mut lea = stage.controller(&stage.site.lea).await;
    let wait = command(&stage.site.lea, "wait", json!({}));
    lea.send(&wait, &stage.site.lea).await;
    lea.report().await;
    let refused = command(&stage.site.lea, "nonsense", json!({}));
    lea.send(&refused, &stage.site.lea).await;
    assert_eq!(lea.code(refused.id).await, "unknown-action");

    let status = agent.handle.status().unwrap();
    assert!(matches!(&status.connection, ConnectionStatus::Online { .. }), "{:?}", status.connection);
    let request = &status.requests[0];
    assert_eq!((request.id.as_str(), request.action.as_str()), (wait.id.to_string().as_str(), "lab.wait"));
    assert_eq!((request.caller.as_str(), request.phase), ("user/lea", Phase::Running));
    assert_eq!((request.time_limit_ms, status.requests_count), (Some(30_000), 1));
    assert_eq!(status.refused, [("unknown-action".to_owned(), 1)].into());
    let journal = status.queues.journal.as_ref().unwrap();
    assert_eq!((journal["change"].count, journal["refusal"].count), (1, 1));
    assert_eq!(status.certificate.identity, "host/web1.example.com");
    assert_eq!((status.policy.rules, status.policy.sha256.len()), (1, 64));
    assert!(status.tasks.contains_key("beat") && status.held.is_empty(), "{status:?}");
    let shown = show::text(&status);
    for word in ["lab.wait running for 0 s of 30 s", "connected to", "change 1 of 40000", "unknown-action 1"] {
        assert!(shown.contains(word), "`{word}` is not in\n{shown}");
    }
    assert!(shown.lines().all(|line| !line.starts_with('!')), "{shown}");

    lea.send(&cancel(&stage.site.lea, wait.id), &stage.site.lea).await;
    let looking = agent.handle.clone();
    eventually("the end of the action", || {
        let left = looking.status().unwrap().requests_count;
        if left == 0 { Ok(()) } else { Err(format!("{left} requests")) }
    })
    .await;
    agent.stop().await;
    assert!(looking.status().is_none(), "an agent that has ended tells nothing");
}

/// A status of an agent that cannot reach its broker.
async fn some_status() -> Status {
    let stage = Stage::new();
    let agent = stage.start(Setup::default()).await;
    let status = agent.handle.status().unwrap();
    agent.stop().await;
    status
}

#[tokio::test]
async fn a_socket_is_private_survives_a_crash_and_is_not_stolen() {
    let status = some_status().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("status.sock");
    assert!(matches!(ask(&path), Err(SocketError::NobodyListens { .. })));
    // Left behind by an agent that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(ask(&path), Err(SocketError::NobodyListens { .. })));

    let told = status.clone();
    let socket = StatusSocket::serve(&path, move || Some(told.clone())).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&path).unwrap(), status);
    // Somebody who connects and goes, or stays and does not read, does not keep others from their answer.
    drop(UnixStream::connect(&path).unwrap());
    let _silent = UnixStream::connect(&path).unwrap();
    assert_eq!(ask(&path).unwrap(), status);
    let second = StatusSocket::serve(&path, || None);
    assert!(matches!(second, Err(SocketError::Taken { by: "another agent", .. })), "{second:?}");
    assert_eq!(ask(&path).unwrap(), status, "the first one still has it");
    drop(socket);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    let on_a_file = StatusSocket::serve(&path, || None);
    assert!(matches!(on_a_file, Err(SocketError::Taken { .. })), "{on_a_file:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_socket_where_others_can_write_is_not_made() {
    let status = some_status().await;
    let directory = tempfile::tempdir().unwrap();
    let (target, link) = (directory.path().join("target"), directory.path().join("status.sock"));
    let serve = || {
        let told = status.clone();
        StatusSocket::serve(&link, move || Some(told.clone()))
    };
    for mode in [0o777, 0o1777, 0o770] {
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = serve().map(drop).unwrap_err();
        assert_eq!(refused.code(), "status-socket", "{mode:o}");
        assert!(!link.exists(), "{mode:o}");
    }
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // A link in its place is not followed: neither made at, nor changed.
    std::fs::write(&target, "precious").unwrap();
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(matches!(serve(), Err(SocketError::Taken { .. })));
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o644);
    std::fs::remove_file(&link).unwrap();
    drop(serve().unwrap());
}

/// A `musterd` that is killed when it goes out of scope.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(config: &Path) -> Agent {
    let mut child = Command::new(env!("CARGO_BIN_EXE_musterd"))
        .arg("--config")
        .arg(config)
        .env_clear()
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = lines.any(|line| line.unwrap().contains("Not connected to the broker"));
    // What it logs later must not fill the pipe and hold it up.
    std::thread::spawn(move || lines.for_each(drop));
    assert!(told, "the agent ended before it tried to connect");
    Agent(child)
}

#[test]
fn the_program_tells_what_is_wrong_with_and_without_an_agent() {
    let folder = Folder::new();
    let nobody = folder.run(&["status"]);
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert_eq!(nobody.status.code(), Some(3), "{said}");
    assert!(said.contains("no agent listens at") && said.contains("systemctl status musterd"), "{said}");
    assert!(
        String::from_utf8_lossy(&nobody.stdout).contains("0 reports wait on disk") || !folder.path("state").exists()
    );

    let agent = start(&folder.path("musterd.toml"));
    let shown = folder.check(
        &["status"],
        true,
        &["! broker", "not connected for", "amqps://127.0.0.1:1", "WARN Not connected"],
    );
    assert!(shown.contains("host/web1.example.com until"), "{shown}");
    let json: Value = serde_json::from_str(&folder.check(&["status", "--json"], true, &[])).unwrap();
    assert_eq!((&json["format"], &json["connection"]["state"]), (&"muster.status/v1".into(), &"connecting".into()));
    assert_eq!(json["pid"], agent.0.id());
    assert!(json["log"][0]["text"].as_str().unwrap().contains("127.0.0.1:1"), "{}", json["log"]);

    // A thread of the agent that hangs is what one wants to hear of: stop the process's work, not its word.
    drop(agent);
    let killed = folder.run(&["status", "--json"]);
    assert_eq!(killed.status.code(), Some(3));
    let json: Value = serde_json::from_slice(&killed.stdout).unwrap();
    assert_eq!((&json["error"]["code"], &json["in_use"]), (&"no-agent".into(), &false.into()));
    assert_eq!(json["spool_reports"], 0);
}

#[test]
fn an_agent_that_does_not_answer_is_called_that() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("status.sock");
    // As of a process that was stopped: the kernel takes the connection, and nobody says anything.
    let _listens = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = ask_within(&path, Duration::from_millis(1)).unwrap_err();
    assert_eq!((error.code(), error.is_transient()), ("no-answer", true));
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(why, "it did not answer in 0 s: its process is stopped, or hangs");
}

/// The program says so as well, of a process that somebody has stopped.
#[test]
fn a_stopped_agent_is_told_with_how_to_go_on() {
    use nix::sys::signal::{Signal, kill};
    let folder = Folder::new();
    let agent = start(&folder.path("musterd.toml"));
    let pid = nix::unistd::Pid::from_raw(agent.0.id().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let asked = folder.run(&["status"]);
    kill(pid, Signal::SIGCONT).unwrap();
    let said = String::from_utf8_lossy(&asked.stderr);
    assert_eq!(asked.status.code(), Some(3), "{said}");
    for words in ["does not answer with its status", "it did not answer in 10 s", "and listens", "kill -CONT"] {
        assert!(said.contains(words), "`{words}` is not in {said}");
    }
}

#[tokio::test]
async fn an_agent_whose_thread_hangs_still_answers_and_says_so() {
    let stage = Stage::new();
    let agent = stage.start(Setup::default()).await;
    let handle = agent.handle.clone();
    let (sender, status) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let began = Instant::now();
        let stuck = loop {
            let status = handle.status().unwrap();
            if status.stalled_ms > 5_000 || began.elapsed() > PATIENCE {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        sender.send(stuck).unwrap();
    });
    // The runtime has one thread, and this is it.
    let stuck = status.recv_timeout(PATIENCE).unwrap();
    assert!(stuck.stalled_ms > 5_000, "{} ms", stuck.stalled_ms);
    assert!(show::text(&stuck).contains("! stuck"), "{}", show::text(&stuck));
    agent.stop().await;
}
