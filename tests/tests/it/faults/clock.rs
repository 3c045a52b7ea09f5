//! The host's clock is wrong or is set while the agent runs. The agent sees a clock of its own (libfaketime), which
//! the test moves; everybody else has the machine's.

use std::fs;
use std::path::{Path, PathBuf};

use muster_bus::{AmqpBus, AmqpSettings, Bus as _, Guarantee, Outgoing};
use muster_daemon::{Clock as _, SystemClock};
use muster_pki::Credentials;
use muster_protocol::routing::{EXCHANGE_COMMAND, collective_key};
use muster_protocol::{
    Command, Message as _, Options, ProtocolVersion, ReplyRoute, RequestId, Target, Timestamp, encode,
};
use muster_tests::programs::program;

use super::lab::{Lab, eventually, id_and_code, task};

/// Debian's package `faketime` brings it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A lab whose agent's clock can be set.
struct Clock {
    lab: Lab,
    offset: PathBuf,
}

impl Clock {
    fn new() -> Self {
        let lab = Lab::new();
        let offset = lab.stage.folder().join("offset");
        fs::write(&offset, "+0s").unwrap();
        let mut clock = Self { lab, offset };
        clock.restart();
        clock
    }

    /// Starts the agent anew, by the clock as it is set.
    fn restart(&mut self) {
        let library = library();
        self.lab.agent.stop().unwrap();
        let environment = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        self.lab.start_again_as(&program("musterd").unwrap(), &environment);
    }

    /// Sets the clock of the agent to so many seconds from the machine's.
    fn set(&self, seconds: i64) {
        // In one step: the agent reads it at any moment.
        let beside = self.offset.with_extension("new");
        fs::write(&beside, format!("{seconds:+}s")).unwrap();
        fs::rename(&beside, &self.offset).unwrap();
    }
}

/// A signed command, to be sent as often as somebody likes.
struct Signed {
    id: RequestId,
    outgoing: Outgoing,
    credentials: Credentials,
}

impl Signed {
    fn new(lab: &Lab) -> Self {
        let credentials = lab.stage.site().member_in("user/lea", &["admins"]).credentials;
        let now = Timestamp(SystemClock.now_ms());
        let id = RequestId::from_parts(now, rand::random());
        let command = Command {
            protocol: ProtocolVersion::V1,
            id,
            caller: credentials.identity().clone(),
            created_at_ms: now,
            expires_at_ms: now.plus_ms(600_000),
            collective: "main".parse().unwrap(),
            target: Target::everyone(),
            plugin: "lab".parse().unwrap(),
            action: "change".parse().unwrap(),
            arguments: serde_json::Map::new(),
            sealed: None,
            options: Options::default(),
            reply_to: ReplyRoute::new(credentials.identity().clone(), "desk".parse().unwrap()).unwrap(),
            requires: Vec::new(),
        };
        let (content_type, body) = (Command::TYPE.as_str(), encode(&command).unwrap());
        let signatures = serde_json::to_vec(&[credentials.sign(content_type, &body)]).unwrap();
        let outgoing = Outgoing {
            exchange: EXCHANGE_COMMAND,
            routing_key: collective_key(&"main".parse().unwrap()),
            content_type: content_type.to_owned(),
            body: body.into(),
            signatures: signatures.into(),
            expiration_ms: None,
            persistent: true,
            mandatory: true,
            correlation_id: None,
        };
        Self { id, outgoing, credentials }
    }

    fn send(&self, lab: &Lab) {
        let urls = lab.stage.bus.urls.iter().map(|url| url.parse().unwrap()).collect();
        let bus = AmqpBus::new(AmqpSettings::new(urls, self.credentials.clone(), lab.stage.site().trust()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let link = bus.connect().await.unwrap();
            link.publish(self.outgoing.clone(), Guarantee::Confirmed).await.unwrap();
            link.close().await;
        });
    }
}

/// The library, wherever this machine's Debian has it.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let here = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let usual = Path::new(LIBRARY).to_owned();
    here.unwrap_or_else(|| panic!("`{}` is missing: apt-get install faketime", usual.display()))
}

#[test]
fn a_clock_that_is_off_is_refused_with_how_far_it_is_off() {
    let clock = Clock::new();
    // Within what is allowed, nobody notices.
    for seconds in [0, 30, -30] {
        clock.set(seconds);
        clock.lab.check_works();
    }
    let starts = clock.lab.starts().len();
    for (seconds, code, told) in [
        (-100, "from-the-future", "in this host's future; 60.000 s are allowed, so the clocks differ by at least"),
        (7_200, "expired", "too late, or the clocks differ by as much"),
    ] {
        clock.set(seconds);
        let refused = clock.lab.run("lab.change", &[]).expect(6);
        let task = task(&refused);
        assert_eq!(task["code"], code, "{task}");
        let message = task["message"].as_str().unwrap();
        assert!(message.contains(told), "{message}");
        // The measured difference, less what the command took to get here.
        let near = if seconds < 0 {
            ["made 99.", "made 98.", "made 97.", "made 100."]
        } else {
            ["made 7200.", "made 7201.", "made 7202.", "made 7203."]
        };
        assert!(near.iter().any(|near| message.contains(near)), "{message}");
    }
    assert_eq!(clock.lab.starts().len(), starts);
    clock.set(0);
    clock.lab.check_works();
}

/// A host whose clock runs away forgets ids that are over by it. When the clock comes back, those commands would be
/// valid again, so it has to remember up to where it has forgotten.
#[test]
fn a_clock_that_is_set_back_lets_no_copy_of_a_command_through() {
    let mut clock = Clock::new();
    let copy = Signed::new(&clock.lab);
    let id = copy.id.to_string();
    copy.send(&clock.lab);
    eventually("it runs", || clock.lab.starts_of(&id) == 1);
    eventually("it ends", || clock.lab.agent.audit().contains(r#""event":"finished""#));
    // Two hours ahead the journal, which is read anew, forgets the id: its command is long over.
    clock.set(7_200);
    clock.restart();
    assert!(!fs::read_to_string(clock.lab.state("journal")).unwrap().contains(&id));
    clock.set(0);
    for round in 1..=2 {
        copy.send(&clock.lab);
        let refusals = || {
            let audit = clock.lab.agent.audit();
            audit.lines().filter(|line| line.contains(&id) && line.contains(r#""code":"replayed""#)).count()
        };
        eventually("it is refused", || refusals() >= round);
        // Also by an agent that starts with the right clock.
        clock.restart();
    }
    assert_eq!(clock.lab.starts_of(&id), 1);
    assert!(clock.lab.agent.audit().contains("this host's clock was later before and has been set back"));
    clock.lab.musterd(&["audit", "verify"]).expect(0);
}

/// Actions that run are neither late nor endless by a clock that is set.
#[test]
fn a_clock_that_is_set_under_a_running_action_changes_nothing_of_it() {
    let clock = Clock::new();
    for (round, seconds) in [86_400, -86_400].into_iter().enumerate() {
        let word = ["one", "two"][round];
        let runs =
            ["change", "apart"].map(|kind| clock.lab.begin_run(&format!("lab.{kind}"), &[&format!("until={word}")]));
        clock.lab.started_times(2 * (round + 1));
        clock.set(seconds);
        clock.lab.open(word);
        for run in runs {
            let (id, code) = id_and_code(&run.finish().expect(0));
            assert_eq!((code.as_str(), clock.lab.starts_of(&id)), ("ok", 1), "{seconds} s");
        }
        clock.set(0);
    }
    clock.lab.check_works();
}
