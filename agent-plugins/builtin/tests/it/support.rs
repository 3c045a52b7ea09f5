//! What the tests share: scripts, calls, and waiting for a condition.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use muster_plugin_api::{ActionReply, ActionRequest, CancellationToken, Plugin, conformance};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::Instant;

/// Writes an executable script, through another process: a file that this one has open for writing
/// could be inherited by a program that a neighbouring test starts, and then not be executed.
pub(crate) fn script(path: &Path, text: &str) {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Validates the arguments as an agent does and runs the action.
pub(crate) async fn run(plugin: &dyn Plugin, action: &str, arguments: Value) -> ActionReply {
    run_within(plugin, action, arguments, Duration::from_secs(60)).await
}

pub(crate) async fn run_within(
    plugin: &dyn Plugin,
    action: &str,
    arguments: Value,
    time_limit: Duration,
) -> ActionReply {
    let request = conformance::sample_request(action, arguments).unwrap();
    let described = plugin.ddl().action(&request.action).unwrap();
    let arguments = described.validate(&request.arguments).unwrap();
    plugin.run(ActionRequest { arguments, time_limit, ..request }, conformance::context(CancellationToken::new())).await
}

/// Runs an action with the options of a command: as a user, or only to see what it would do.
pub(crate) async fn run_with(
    plugin: &dyn Plugin,
    action: &str,
    arguments: Value,
    change: impl FnOnce(&mut ActionRequest),
) -> ActionReply {
    let mut request = conformance::sample_request(action, arguments).unwrap();
    request.time_limit = Duration::from_secs(60);
    let described = plugin.ddl().action(&request.action).unwrap();
    request.arguments = described.validate(&request.arguments).unwrap();
    change(&mut request);
    plugin.run(request, conformance::context(CancellationToken::new())).await
}

/// The code with which a host refuses these arguments: its description's check, or the plugin's own.
pub(crate) async fn refusal(plugin: &dyn Plugin, action: &str, arguments: Value) -> Option<&'static str> {
    let described = plugin.ddl().action(&action.parse().unwrap()).unwrap();
    if let Err(error) = described.validate(arguments.as_object().unwrap()) {
        return Some(error.code().code);
    }
    run(plugin, action, arguments).await.err().map(|failure| failure.code.code)
}

/// Asks a question as a target expression does.
pub(crate) async fn ask(plugin: &dyn Plugin, query: &str, arguments: &[Value]) -> Option<Value> {
    let arguments = plugin.ddl().data_query(query).unwrap().validate(arguments).unwrap();
    plugin.data(query, arguments, conformance::context(CancellationToken::new())).await.unwrap()
}

#[track_caller]
pub(crate) fn conforms(broken: Vec<String>) {
    assert!(broken.is_empty(), "the contract is broken:\n{}", broken.join("\n"));
}

/// Waits until a condition holds, up to a minute; then fails with the last status.
pub(crate) async fn until<T: std::fmt::Debug>(mut status: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let last = status();
        if done(&last) {
            return last;
        }
        assert!(Instant::now() < deadline, "the condition did not come true; the last status was {last:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The state letter of a process; `None` if there is none or it is only a zombie.
pub(crate) fn alive(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    (!matches!(state, 'Z' | 'X')).then_some(state)
}

pub(crate) async fn dies(pid: i32) {
    until(|| alive(pid), Option::is_none).await;
}

/// Runs a test again in a process of its own, for what concerns a process as a whole. True in there; false in the
/// outer one, when it went well.
pub(crate) fn in_a_process_of_its_own(test: &str) -> bool {
    const MARK: &str = "MUSTER_TEST_ALONE";
    if std::env::var_os(MARK).is_some_and(|marked| marked == test) {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args([test, "--exact", "--nocapture"]).env(MARK, test).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    // Zero tests would be a success too.
    assert!(output.status.success() && said.contains("1 passed"), "{test}: {said}");
    false
}

/// Kills a process at the end of a test, whatever becomes of the test.
#[derive(Debug)]
pub(crate) struct Killed(pub(crate) i32);

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}
