//! Actions in processes of their own, with the real programs on the real broker: the agent is stopped, killed and
//! started again under them, and nothing of what they write is lost or comes twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use muster_bus::{AmqpBus, AmqpSettings, Bus as _, ConsumeOptions, Consumer, Guarantee, Link, Outgoing, QueueSpec};
use muster_daemon::{Clock as _, SystemClock};
use muster_pki::{Credentials, Trust};
use muster_protocol::envelope::parse_signatures;
use muster_protocol::routing::{EXCHANGE_COMMAND, EXCHANGE_REPLY, collective_key, reply_binding, reply_queue};
use muster_protocol::{
    ActionResult, Cancel, Command, Encoding, Message, Options, OutputStream, ProgressReport, ProtocolVersion,
    ReplyRoute, RequestId, Target, Timestamp, Watch, decode, encode,
};
use muster_tests::programs::{AgentProcess, AgentSettings};
use muster_tests::stage::{Stage, host};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::BROKER;

const HOST: &str = "web-1.ams1";
const IDENTITIES: [&str; 3] = ["host/web-1.ams1", "user/lea", "user/max"];

/// The longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(120);

fn settings() -> AgentSettings {
    let mut settings = host(HOST);
    settings.extra_config = "[plugins]\nenabled = [\"shell\"]\n".to_owned();
    settings
}

/// A controller made of nothing but the bus, so that it sees every report as it came.
struct Desk {
    link: Arc<dyn Link>,
    consumer: Consumer,
    credentials: Credentials,
    trust: Trust,
}

impl Desk {
    async fn new(stage: &Stage) -> Self {
        let credentials = stage.site().member_in("user/lea", &["admins"]).credentials;
        let trust = stage.site().trust();
        let urls = stage.bus.urls.iter().map(|url| url.parse().unwrap()).collect();
        let bus = AmqpBus::new(AmqpSettings::new(urls, credentials.clone(), trust.clone()));
        let link = bus.connect().await.unwrap();
        let route = Self::route_of(&credentials);
        let queue = reply_queue(&route);
        link.declare_queue(QueueSpec::durable(&queue)).await.unwrap();
        link.bind(&queue, EXCHANGE_REPLY, &reply_binding(&route)).await.unwrap();
        let consumer = link.consume(&queue, ConsumeOptions { prefetch: 100, exclusive: true }).await.unwrap();
        Self { link, consumer, credentials, trust }
    }

    fn route_of(credentials: &Credentials) -> ReplyRoute {
        ReplyRoute::new(credentials.identity().clone(), "desk".parse().unwrap()).unwrap()
    }

    fn times() -> (RequestId, Timestamp, Timestamp) {
        let now = Timestamp(SystemClock.now_ms());
        (RequestId::from_parts(now, rand::random()), now, now.plus_ms(60_000))
    }

    async fn send<M: Message>(&self, message: &M) {
        let content_type = M::TYPE.as_str();
        let body = encode(message).unwrap();
        let signatures = [self.credentials.sign(content_type, &body)];
        let message = Outgoing {
            exchange: EXCHANGE_COMMAND,
            routing_key: collective_key(&"main".parse().unwrap()),
            content_type: content_type.to_owned(),
            body: body.into(),
            signatures: serde_json::to_vec(&signatures).unwrap().into(),
            expiration_ms: None,
            persistent: true,
            mandatory: true,
            correlation_id: None,
        };
        self.link.publish(message, Guarantee::Confirmed).await.unwrap();
    }

    /// Runs a text in the shell.
    async fn shell(&self, text: &str) -> RequestId {
        let (id, created_at_ms, expires_at_ms) = Self::times();
        let Value::Object(arguments) = json!({ "command": text }) else { unreachable!() };
        let command = Command {
            protocol: ProtocolVersion::V1,
            id,
            caller: self.credentials.identity().clone(),
            created_at_ms,
            expires_at_ms,
            collective: "main".parse().unwrap(),
            target: Target::everyone(),
            plugin: "shell".parse().unwrap(),
            action: "run".parse().unwrap(),
            arguments,
            sealed: None,
            options: Options::default(),
            reply_to: Self::route_of(&self.credentials),
            requires: Vec::new(),
        };
        self.send(&command).await;
        id
    }

    async fn cancel(&self, request_id: RequestId) -> RequestId {
        let (id, created_at_ms, expires_at_ms) = Self::times();
        let cancel = Cancel {
            protocol: ProtocolVersion::V1,
            id,
            request_id,
            caller: self.credentials.identity().clone(),
            created_at_ms,
            expires_at_ms,
            collective: "main".parse().unwrap(),
            target: Target::everyone(),
            reply_to: Self::route_of(&self.credentials),
            requires: Vec::new(),
        };
        self.send(&cancel).await;
        id
    }

    async fn watch(&self, request_id: RequestId) -> RequestId {
        let (id, created_at_ms, expires_at_ms) = Self::times();
        let watch = Watch {
            protocol: ProtocolVersion::V1,
            id,
            request_id,
            caller: self.credentials.identity().clone(),
            created_at_ms,
            expires_at_ms,
            collective: "main".parse().unwrap(),
            target: Target::everyone(),
            reply_to: Self::route_of(&self.credentials),
            replay: true,
            follow: true,
            requires: Vec::new(),
        };
        self.send(&watch).await;
        id
    }

    /// The next report, verified.
    async fn report(&mut self) -> ProgressReport {
        let delivery = tokio::time::timeout(LIMIT, self.consumer.next()).await.expect("a report comes").unwrap();
        delivery.ack().await.unwrap();
        let signatures = parse_signatures(&delivery.signatures).unwrap();
        let now = Timestamp(SystemClock.now_ms());
        self.trust.verify(&delivery.content_type, &delivery.body, &signatures, now).unwrap();
        decode(&delivery.body).unwrap()
    }

    /// Reads until each of the requests has ended.
    async fn finish(&mut self, streams: &mut Streams, ids: &[RequestId]) {
        while !ids.iter().all(|id| streams.0.get(id).is_some_and(|stream| stream.result.is_some())) {
            let report = self.report().await;
            streams.take(report);
        }
    }

    /// Reads until a request has written so much.
    async fn written(&mut self, streams: &mut Streams, id: RequestId, bytes: usize) {
        while streams.0.get(&id).is_none_or(|stream| stream.bytes.values().map(Vec::len).sum::<usize>() < bytes) {
            let report = self.report().await;
            streams.take(report);
        }
    }
}

/// What came for one request.
#[derive(Debug, Default)]
struct Stream {
    next: u32,
    repeated: usize,
    bytes: BTreeMap<OutputStream, Vec<u8>>,
    result: Option<ActionResult>,
    ends: usize,
}

/// What came, by request. Takes every number once, in order, and nothing with a gap.
#[derive(Debug, Default)]
struct Streams(BTreeMap<RequestId, Stream>);

impl Streams {
    fn take(&mut self, report: ProgressReport) {
        let stream = self.0.entry(report.request_id).or_default();
        if report.sequence < stream.next {
            stream.repeated += 1;
            return;
        }
        assert_eq!(report.sequence, stream.next, "a report is missing");
        stream.next += 1;
        for chunk in report.output {
            let bytes = stream.bytes.entry(chunk.stream).or_default();
            assert_eq!(chunk.offset, bytes.len() as u64, "in report {}", report.sequence);
            match chunk.encoding {
                Encoding::Text => bytes.extend_from_slice(chunk.data.as_bytes()),
                Encoding::Base64 => {
                    bytes.extend(base64::engine::general_purpose::STANDARD.decode(&chunk.data).unwrap());
                }
            }
        }
        if let Some(result) = report.result {
            stream.ends += 1;
            stream.result = Some(result);
        }
    }

    fn of(&self, id: RequestId) -> (&[u8], &[u8], &ActionResult) {
        let stream = &self.0[&id];
        let bytes = |name| stream.bytes.get(&name).map_or(&[][..], Vec::as_slice);
        assert_eq!(stream.ends, 1);
        (bytes(OutputStream::Stdout), bytes(OutputStream::Stderr), stream.result.as_ref().unwrap())
    }
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(test);
}

fn action(agent: &AgentProcess, id: RequestId) -> PathBuf {
    agent.folder().join("state/actions").join(id.to_string())
}

fn begun(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("begun.json")).unwrap()).unwrap()
}

/// Steady output on both streams, for some seconds.
const STEADY: &str =
    "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo \"line $i ✓\"; echo \"note $i\" >&2; sleep 0.1; done";

#[track_caller]
fn check_steady(streams: &Streams, id: RequestId) {
    let (stdout, stderr, result) = streams.of(id);
    let lines = |word: &str, tail: &str| (1..=60).map(|i| format!("{word} {i}{tail}\n")).collect::<String>();
    assert_eq!(String::from_utf8_lossy(stdout), lines("line", " ✓"));
    assert_eq!(String::from_utf8_lossy(stderr), lines("note", ""));
    assert_eq!((result.code.as_str(), &result.data["exit_code"]), ("ok", &json!(0)), "{}", result.message);
    assert_eq!(result.truncated_from_bytes, None);
}

#[test]
fn an_agent_that_is_stopped_and_killed_meanwhile_tells_everything_once() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let mut agent = stage.agents([settings()]).remove(0);
    run(async {
        let mut desk = Desk::new(&stage).await;
        let mut streams = Streams::default();
        let id = desk.shell(STEADY).await;
        desk.written(&mut streams, id, 20).await;
        let before = begun(&action(&agent, id));
        assert!(agent.stop().unwrap().success(), "it does not wait for such an action");
        assert!(!agent.log().contains("Interrupting"), "{}", agent.log());
        let mut agent = AgentProcess::start_in(HOST.parse().unwrap(), agent.folder()).unwrap();
        agent.wait_ready().unwrap();
        desk.written(&mut streams, id, 300).await;
        agent.kill().unwrap();
        let mut agent = AgentProcess::start_in(HOST.parse().unwrap(), agent.folder()).unwrap();
        agent.wait_ready().unwrap();
        desk.finish(&mut streams, &[id]).await;
        check_steady(&streams, id);
        assert_eq!(begun(&action(&agent, id)), before, "it was started once");
        // It can still be seen, and nothing else comes.
        let watch = desk.watch(id).await;
        desk.finish(&mut streams, &[watch]).await;
        check_steady(&streams, watch);
        check_steady(&streams, id);
        let ends = agent
            .audit()
            .lines()
            .filter(|line| line.contains("\"finished\"") && line.contains(&id.to_string()))
            .count();
        assert_eq!(ends, 1, "{}", agent.audit());
    });
}

#[test]
fn fifty_megabytes_and_binary_output_come_whole() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents([settings()]);
    run(async {
        let mut desk = Desk::new(&stage).await;
        let mut streams = Streams::default();
        let id = desk.shell("yes 0123456789abcde | head -c 50000000").await;
        let watch = desk.watch(id).await;
        desk.finish(&mut streams, &[id, watch]).await;
        for id in [id, watch] {
            let (stdout, stderr, result) = streams.of(id);
            assert_eq!((stdout.len(), stderr.len(), result.code.as_str()), (50_000_000, 0, "ok"));
            assert!(stdout.chunks(16).all(|line| line == b"0123456789abcde\n"));
            assert_eq!(result.data["stdout_bytes"], json!(50_000_000));
        }
        let file = desk.shell("f=$(mktemp); head -c 3000001 /dev/urandom >$f; cat $f; sha256sum <$f >&2; rm $f").await;
        desk.finish(&mut streams, &[file]).await;
        let (stdout, stderr, result) = streams.of(file);
        assert_eq!((stdout.len(), result.code.as_str()), (3_000_001, "ok"));
        assert_eq!(String::from_utf8_lossy(stderr).split(' ').next().unwrap(), sha256(stdout));
    });
}

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(bytes).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn cancelling_in_the_middle_stops_everybody_and_says_by_whom() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let agent = stage.agents([settings()]).remove(0);
    run(async {
        let mut desk = Desk::new(&stage).await;
        let mut streams = Streams::default();
        let id = desk.shell("sh -c 'echo $$; trap \"\" TERM; while :; do sleep 1; done' & wait").await;
        desk.written(&mut streams, id, 2).await;
        let first = desk.cancel(id).await;
        let second = desk.cancel(id).await;
        desk.finish(&mut streams, &[id, first, second]).await;
        let (stdout, _, result) = streams.of(id);
        assert_eq!(result.code, "cancelled");
        assert!(result.message.contains("cancelled by user/lea"), "{}", result.message);
        let stubborn: i32 = String::from_utf8_lossy(stdout).trim().parse().unwrap();
        assert!(!lives(stubborn), "who ignores the polite signal lives");
        assert_eq!(streams.of(first).2.code, "ok");
        let again = desk.cancel(id).await;
        desk.finish(&mut streams, &[again]).await;
        assert_eq!(streams.of(again).2.code, "not-running");
        assert!(agent.audit().contains(&format!("cancels {id}")));
    });
}

/// Whether a process runs; one that is over and was not taken away by its parent does not.
fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_runner_that_is_killed_is_reported_with_and_without_an_agent() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let mut agent = stage.agents([settings()]).remove(0);
    run(async {
        let mut desk = Desk::new(&stage).await;
        let mut streams = Streams::default();
        for restart in [false, true] {
            let id = desk.shell("echo $$; sleep 600 & wait").await;
            desk.written(&mut streams, id, 2).await;
            let directory = action(&agent, id);
            if restart {
                agent.kill().unwrap();
            }
            let runner = i32::try_from(begun(&directory)["pid"].as_i64().unwrap()).unwrap();
            kill(Pid::from_raw(runner), Signal::SIGKILL).unwrap();
            if restart {
                let folder = agent.folder().to_owned();
                agent = AgentProcess::start_in(HOST.parse().unwrap(), &folder).unwrap();
                agent.wait_ready().unwrap();
            }
            desk.finish(&mut streams, &[id]).await;
            let (stdout, _, result) = streams.of(id);
            assert_eq!(result.code, "interrupted");
            assert!(result.message.contains("was killed") && result.message.contains("stopped"), "{}", result.message);
            let shell: i32 = String::from_utf8_lossy(stdout).trim().parse().unwrap();
            assert!(!lives(shell), "the shell lives");
        }
    });
}
