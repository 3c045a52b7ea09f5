//! A host with a plugin that writes down each of its starts, and somebody who may use it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_tests::pki::Member;
use muster_tests::programs::{AgentProcess, AgentSettings, Finished, Operator, Party};
use muster_tests::small_disk::SmallDisk;
use muster_tests::stage::{Stage, host};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use super::BROKER;

/// The host.
pub(super) const HOST: &str = "web-1.ams1";

/// Who is known to the broker.
pub(super) const IDENTITIES: [&str; 3] = ["host/web-1.ams1", "user/lea", "user/max"];

/// The longest that anything may take here.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// What the plugin does: it notes its start, says so, waits for a file or a moment, and answers.
const PROGRAM: &str = r#"#!/bin/sh
[ "$MUSTER_CALL" = run ] || exit 0
echo "$MUSTER_ACTION $MUSTER_REQUEST_ID $$" >>"$MUSTER_PLUGIN_DIRECTORY/starts"
echo begun
case "$MUSTER_INPUT_UNTIL" in
  "") sleep 0.2 ;;
  torn) printf '{"statuscode":0,"data":{"te' >"$CHORIA_EXTERNAL_REPLY"; printf 'text=hal' >>"$MUSTER_OUTPUT"; kill -9 $$ ;;
  *) while [ ! -e "$MUSTER_PLUGIN_DIRECTORY/$MUSTER_INPUT_UNTIL" ]; do sleep 0.05; done ;;
esac
echo done
echo "text=done" >>"$MUSTER_OUTPUT"
"#;

/// The three kinds of actions: one that changes something in the agent's own process, one in a process of its own, and
/// one that only reads.
pub(super) const KINDS: [&str; 3] = ["change", "apart", "read"];

fn description() -> Value {
    let action = |name: &str| {
        json!({
            "action": name, "description": "d",
            "input": { "until": {
                "prompt": "p", "description": "d", "type": "string", "optional": true, "validation": "^[a-z]+$",
                "maxlength": 20
            }},
            "output": { "text": { "description": "d", "display_as": "D", "type": "string" } },
            "muster": {
                "supports": { "cancel": true, "stream": true }, "timeout_s": 60,
                "detached": name == "apart", "read_only": name == "read",
            },
        })
    };
    json!({
        "metadata": { "name": "lab", "version": "1.0", "timeout": 60, "provider": "external" },
        "actions": KINDS.map(action),
    })
}

/// One start of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// Which of [`KINDS`].
    pub(super) action: String,
    /// For which request.
    pub(super) request_id: String,
    /// The plugin's process.
    pub(super) pid: i32,
}

/// The host with its agent, and the user `lea`, who may do everything.
pub(super) struct Lab {
    /// Where all of it happens. Dropped after the agent.
    pub(super) agent: AgentProcess,
    pub(super) lea: Operator,
    /// Where the agent keeps its state, if that is a disk of its own.
    pub(super) disk: Option<SmallDisk>,
    pub(super) stage: Stage,
}

impl Lab {
    /// An agent that is ready.
    pub(super) fn new() -> Self {
        Self::with("")
    }

    /// An agent with these lines at the end of its configuration.
    pub(super) fn with(extra_config: &str) -> Self {
        let mut lab = Self::started(extra_config, |_| {});
        lab.agent.wait_ready().unwrap();
        lab
    }

    /// An agent that was started, with files that `prepare` may have changed before.
    pub(super) fn started(extra_config: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self::started_on(Stage::new(BROKER, &IDENTITIES), extra_config, prepare)
    }

    /// The same on a stage of the test's own.
    pub(super) fn started_on(stage: Stage, extra_config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let settings = settings(stage.folder(), extra_config);
        fs::create_dir_all(stage.folder().join(HOST)).unwrap();
        prepare(stage.folder());
        let agent = stage.start(&settings);
        Self::of(stage, agent)
    }

    /// An agent whose state is on a disk of so many bytes.
    pub(super) fn on_small_disk(bytes: u64) -> Self {
        let mut disk = None;
        let mut lab = Self::started("", |folder| {
            disk = Some(SmallDisk::mount(&folder.join(HOST).join("state"), bytes).unwrap());
        });
        lab.disk = disk;
        lab.agent.wait_ready().unwrap();
        lab
    }

    /// An agent with a certificate of its own, whose files others do not use.
    pub(super) fn as_member(stage: Stage, member: &Member) -> Self {
        let settings = settings(stage.folder(), "");
        let folder = stage.folder().join(HOST);
        let agent = AgentProcess::start(&settings, &stage.access(member), &Party::from(member), &folder).unwrap();
        let mut lab = Self::of(stage, agent);
        lab.agent.wait_ready().unwrap();
        lab
    }

    fn of(stage: Stage, agent: AgentProcess) -> Self {
        let lea = stage.operator("lea", &["admins"]);
        know_plugin(stage.folder(), "lea");
        Self { agent, lea, disk: None, stage }
    }

    /// Has the agent read its files again, and waits until it has.
    #[track_caller]
    pub(super) fn reload(&self) {
        let reloads = || self.agent.audit().matches(r#""decision":"reloaded""#).count();
        let before = reloads();
        self.agent.signal(Signal::SIGHUP).unwrap();
        eventually("the reload", || reloads() > before);
    }

    /// A file or directory of the agent's state.
    pub(super) fn state(&self, name: &str) -> PathBuf {
        self.agent.folder().join("state").join(name)
    }

    /// Every start that the plugin wrote down.
    pub(super) fn starts(&self) -> Vec<Start> {
        let text = fs::read_to_string(plugins(self.stage.folder()).join("starts")).unwrap_or_default();
        let start = |line: &str| {
            let mut words = line.split(' ').map(ToOwned::to_owned);
            let mut word = || words.next().unwrap();
            Start { action: word(), request_id: word(), pid: word().parse().unwrap() }
        };
        text.lines().map(start).collect()
    }

    /// How often a request was started.
    pub(super) fn starts_of(&self, request_id: &str) -> usize {
        self.starts().iter().filter(|start| start.request_id == request_id).count()
    }

    /// Waits until there are so many starts, and gives the last one.
    #[track_caller]
    pub(super) fn started_times(&self, count: usize) -> Start {
        eventually("the action starts", || self.starts().len() >= count);
        self.starts().swap_remove(count - 1)
    }

    /// Lets actions that wait for this word go on.
    pub(super) fn open(&self, word: &str) {
        fs::write(plugins(self.stage.folder()).join(word), "").unwrap();
    }

    /// Starts `muster` and lets it run.
    pub(super) fn begin(&self, words: &[&str]) -> Begun {
        Begun::new(self.lea.command(words).unwrap(), words)
    }

    /// Runs an action, as data.
    pub(super) fn run(&self, action: &str, more: &[&str]) -> Finished {
        self.lea.run(&run_words(action, more)).unwrap()
    }

    /// Begins to run an action, as data.
    pub(super) fn begin_run(&self, action: &str, more: &[&str]) -> Begun {
        self.begin(&run_words(action, more))
    }

    /// The process that runs a detached action.
    #[track_caller]
    pub(super) fn runner(&self, request_id: &str) -> i32 {
        let begun = fs::read(self.state("actions").join(request_id).join("begun.json")).unwrap();
        let begun: Value = serde_json::from_slice(&begun).unwrap();
        i32::try_from(begun["pid"].as_i64().unwrap()).unwrap()
    }

    /// Runs each kind of action once: everything works.
    #[track_caller]
    pub(super) fn check_works(&self) {
        for kind in KINDS {
            let finished = self.run(&format!("lab.{kind}"), &[]).expect(0);
            assert_eq!(task(&finished)["data"]["text"], "done", "{}", finished.stdout);
        }
    }

    /// Starts an agent on what the last one has left, and waits until it is ready.
    pub(super) fn start_again(&mut self) {
        self.start_again_as(&muster_tests::programs::program("musterd").unwrap(), &[]);
    }

    /// The same with another copy of the program, and with these variables in its environment.
    pub(super) fn start_again_as(&mut self, program: &Path, environment: &[(&str, &str)]) {
        let folder = self.agent.folder().to_owned();
        self.agent = AgentProcess::start_as(HOST.parse().unwrap(), &folder, program, environment).unwrap();
        self.agent.wait_ready().unwrap();
    }

    /// Runs a subcommand of `musterd` on this agent's files.
    pub(super) fn musterd(&self, words: &[&str]) -> Finished {
        let mut command = Command::new(muster_tests::programs::program("musterd").unwrap());
        command.arg("--config").arg(self.agent.folder().join("musterd.toml")).args(words).env_clear();
        let output = command.stdin(Stdio::null()).output().unwrap();
        Finished {
            line: format!("musterd {}", words.join(" ")),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The words that run an action on the one host.
fn run_words<'a>(action: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["run", action, "-H", HOST, "--jsonl"], more].concat()
}

/// Settings of an agent that has the plugin.
pub(super) fn settings(folder: &Path, extra_config: &str) -> AgentSettings {
    let directory = plugins(folder);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("lab.json"), description().to_string()).unwrap();
    script(&directory.join("lab"), PROGRAM);
    let mut settings = host(HOST);
    settings.extra_config = format!(
        "\n[plugins]\nenabled = [\"shell\", \"script\", \"file\"]\ndirectories = [{}]\n{extra_config}",
        Value::from(directory.display().to_string())
    );
    settings
}

/// Lets the command line of a user know the plugin.
pub(super) fn know_plugin(folder: &Path, user: &str) {
    let known = folder.join("home").join(user).join(".local/share/muster/plugins");
    fs::create_dir_all(&known).unwrap();
    fs::write(known.join("lab.json"), description().to_string()).unwrap();
}

fn plugins(folder: &Path) -> PathBuf {
    folder.join("plugins")
}

/// Written by another process: a file that this one has open for writing could not be executed.
pub(super) fn script(path: &Path, text: &str) {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A `muster` that runs while the test goes on. What it says goes into files, so that nobody has to read along.
pub(super) struct Begun {
    line: String,
    child: Child,
    folder: tempfile::TempDir,
}

impl Begun {
    pub(super) fn new(mut command: Command, words: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("muster-said-").tempdir().unwrap();
        let file = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
        let child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Self { line: format!("muster {}", words.join(" ")), child, folder }
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Whether it is over.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(super) fn stdout(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).unwrap()
    }

    pub(super) fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    /// The first record of a kind, once it is there.
    #[track_caller]
    pub(super) fn record(&self, kind: &str) -> Value {
        let mut found = None;
        eventually(&format!("a record `{kind}` of `{}`", self.line), || {
            let text = self.stdout();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let mut records = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            found = records.find(|record| record["kind"] == kind);
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits for its end.
    #[track_caller]
    pub(super) fn finish(mut self) -> Finished {
        let mut status = None;
        eventually(&format!("the end of `{}`", self.line), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        Finished {
            line: self.line.clone(),
            code: status.and_then(|status| status.code()).unwrap_or(-1),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // Only one that a failed test has left behind is still there.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The one task of a run.
#[track_caller]
pub(super) fn task(finished: &Finished) -> Value {
    let mut tasks = finished.json_lines().unwrap();
    tasks.retain(|record| record["kind"] == "task");
    assert_eq!(tasks.len(), 1, "`{}`\n{}{}", finished.line, finished.stdout, finished.stderr);
    tasks.remove(0)
}

/// The id of a run's request, and the code of its one task.
#[track_caller]
pub(super) fn id_and_code(finished: &Finished) -> (String, String) {
    let accepted = finished.json_lines().unwrap().into_iter().find(|record| record["kind"] == "accepted");
    let id = accepted.expect("it was accepted")["request_ids"][0].as_str().unwrap().to_owned();
    (id, task(finished)["code"].as_str().unwrap_or_default().to_owned())
}

/// Kills a process, or with a negative number a group, without a warning.
#[track_caller]
pub(super) fn kill_hard(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// How many actions have ended.
pub(super) fn ends(lab: &Lab) -> usize {
    lab.agent.audit().lines().filter(|line| line.contains(r#""event":"finished""#)).count()
}

/// Waits for a condition.
#[track_caller]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "not within {} s: {what}", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs; one that is over and was not taken away by its parent does not.
pub(super) fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Random numbers from a seed that is printed; `MUSTER_TEST_SEED` gives one of before.
#[expect(clippy::print_stdout, reason = "shown by the test runner if the test fails")]
pub(super) fn random() -> SmallRng {
    let given = std::env::var("MUSTER_TEST_SEED").ok().map(|text| text.parse().expect("a number"));
    let seed = given.unwrap_or_else(rand::random::<u64>);
    println!("MUSTER_TEST_SEED={seed}");
    SmallRng::seed_from_u64(seed)
}
