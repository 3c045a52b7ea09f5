//! What the agents of `muster dev` are busy with: asked at Ctrl-C, so that nobody waits without knowing for what.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// For all of them. An agent answers at once; one that hangs must not make Ctrl-C hang.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most bytes of an answer: more than an agent tells.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Phases in which an action has a process.
const BUSY: [&str; 3] = ["starting", "running", "stopping"];

/// An action that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Work {
    /// Where.
    pub(super) host: String,
    /// Which.
    pub(super) action: String,
    /// For whom.
    pub(super) caller: String,
}

/// Of the status of an agent, what says what it does. Unknown fields and phases are newer ones.
#[derive(Debug, Deserialize)]
struct Status {
    #[serde(default)]
    requests: Vec<Request>,
}

#[derive(Debug, Deserialize)]
struct Request {
    caller: String,
    action: String,
    phase: String,
}

/// Asks one agent after the other, by name and status socket. Of one that does not answer nothing can be told.
pub(super) async fn ask(agents: impl IntoIterator<Item = (String, PathBuf)>) -> Vec<Work> {
    let deadline = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    for (host, socket) in agents {
        if let Ok(Ok(text)) = tokio::time::timeout_at(deadline, read(socket)).await {
            found.extend(running(&host, &text));
        }
    }
    found
}

async fn read(socket: PathBuf) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    UnixStream::connect(socket).await?.take(ANSWER_BYTES_MAX).read_to_end(&mut text).await?;
    Ok(text)
}

fn running(host: &str, answer: &[u8]) -> Vec<Work> {
    let status: Status = serde_json::from_slice(answer).unwrap_or(Status { requests: Vec::new() });
    let running = status.requests.into_iter().filter(|request| BUSY.contains(&request.phase.as_str()));
    running.map(|request| Work { host: host.to_owned(), action: request.action, caller: request.caller }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_is_waited_for() {
        let answer = r#"{"format":"muster.status/v1","new":1,"requests":[
            {"id":"1","caller":"user/dev","action":"shell.run","phase":"running","since_ms":1,"detached":false},
            {"id":"2","caller":"user/dev","action":"file.read","phase":"deciding","since_ms":1,"detached":false},
            {"id":"3","caller":"user/lea","action":"script.run","phase":"running","since_ms":1,"detached":true}]}"#;
        let found = running("web-01.ams1", answer.as_bytes());
        let shown: Vec<_> = found.iter().map(|it| format!("{} {} {}", it.host, it.action, it.caller)).collect();
        assert_eq!(shown, ["web-01.ams1 shell.run user/dev", "web-01.ams1 script.run user/lea"]);
        assert_eq!(running("web-01.ams1", b""), []);
    }

    #[tokio::test]
    async fn nobody_who_hangs_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let silent = folder.path().join("silent");
        let _listener = tokio::net::UnixListener::bind(&silent).unwrap();
        let agents = vec![("a".to_owned(), silent), ("b".to_owned(), folder.path().join("none"))];
        assert_eq!(ask(agents).await, []);
    }
}
