//! What the tests share: an authority, a plugin that does what it is told, an agent, a controller.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_agent::config::{Config, Raw};
use muster_agent::detached::Runner;
use muster_agent::facts::Sources;
use muster_agent::policy::Policy;
use muster_agent::{Agent, Connection, Handle, Materials, Parts, ReloadMaterials, StartError, Stopped};
use muster_bus::{Bus as _, ConsumeOptions, Consumer, Guarantee, Link, MemoryBroker, Outgoing, QueueSpec};
use muster_daemon::{Blocking, Disk, ManualClock, SimulatedDisk, TaskKind, Tasks};
use muster_pki::testing::TestAuthority;
use muster_pki::{Credentials, Trust};
use muster_plugin_api::{
    ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest, BoxFuture, Plugin, Registry,
};
use muster_protocol::ddl::Ddl;
use muster_protocol::routing::{EXCHANGE_COMMAND, EXCHANGE_REPLY, collective_key, reply_binding, reply_queue};
use muster_protocol::{
    Cancel, Command, HostName, Message, Options, OutputStream, PayloadType, ProgressReport, ProtocolVersion,
    ReplyRoute, ReportState, RequestId, Target, Timestamp, Watch, decode, encode,
};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The time at which everything in these tests happens, unless a test moves it.
pub(crate) const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// How long a test waits for what should come at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const HOST: &str = "web1.example.com";

pub(crate) fn host() -> HostName {
    HOST.parse().unwrap()
}

pub(crate) const ALLOW_ALL: &str = "[[rule]]\nname = \"all\"\neffect = \"allow\"\nwhen = 'true'\n";

pub(crate) fn policy(text: &str) -> Policy {
    Policy::parse(text, Path::new("policy.toml")).unwrap()
}

/// A plugin whose actions end in every way an action can end.
pub(crate) struct Lab {
    ddl: Ddl,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let supports = json!({ "noop": true, "effective_user": false, "cancel": true, "stream": true });
        let action = |name: &str, read_only: bool| {
            json!({
                "action": name, "input": {}, "output": {},
                "muster": { "read_only": read_only, "supports": supports, "timeout_s": 30 }
            })
        };
        let mut change = action("change", false);
        change["input"] = json!({
            "name": { "prompt": "", "description": "", "type": "string", "validation": "shellsafe", "maxlength": 20, "optional": false },
            "force": { "prompt": "", "description": "", "type": "boolean", "optional": true, "default": true }
        });
        let mut stubborn = action("stubborn", false);
        stubborn["muster"]["supports"] = json!({});
        let detached = |name: &str| {
            let mut described = action(name, false);
            described["muster"]["detached"] = json!(true);
            described["muster"]["stop_grace_s"] = json!(1);
            described
        };
        let mut long = detached("long");
        let number = json!({ "prompt": "", "description": "", "type": "integer", "optional": true, "default": 1 });
        let text = json!({ "prompt": "", "description": "", "type": "string", "validation": ".", "maxlength": 200,
            "optional": true });
        long["input"] = json!({ "pieces": number, "bytes": number, "kind": text, "gate": text });
        let mut secret = detached("secret");
        secret["input"] = json!({ "password": { "prompt": "", "description": "", "type": "string", "validation": ".",
            "maxlength": 100, "optional": false, "muster": { "secret": true } } });
        let ddl = json!({
            "metadata": { "name": "lab", "version": "1.2.3", "timeout": 30 },
            "actions": [
                action("read", true), change, action("wait", false), action("watch", true), stubborn,
                action("panic", false), action("talk", false), action("large", true), action("fail", false),
                long, secret, detached("stuck"), detached("explode"), detached("leave"), detached("facts")
            ],
            "muster": { "data": [
                { "name": "lab", "input": { "what": { "type": "string", "prompt": "", "description": "" } },
                  "output": { "answer": { "type": "integer", "description": "" } } }
            ] }
        });
        Self { ddl: Ddl::parse(&ddl.to_string()).unwrap() }
    }
}

impl Plugin for Lab {
    fn ddl(&self) -> &Ddl {
        &self.ddl
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            match request.action.as_str() {
                "read" => Ok(ActionOk::data(json!({ "facts": context.host.facts().len() }))),
                "change" => Ok(ActionOk::data(Value::Object(request.arguments))),
                "wait" | "watch" => {
                    context.cancel.cancelled().await;
                    Err(ActionFailure::failed("told to stop"))
                }
                "stubborn" => std::future::pending().await,
                "panic" => panic!("the lab exploded"),
                "talk" => {
                    context.output.write(OutputStream::Stdout, "grüße ".repeat(30_000).into_bytes()).await;
                    context.output.write(OutputStream::Stderr, vec![0xff, 0xfe, b'x']).await;
                    Ok(ActionOk::data(json!({ "said": true })))
                }
                "large" => Ok(ActionOk::data(json!({ "small": 1, "list": vec!["x".repeat(1000); 2000] }))),
                "long" => long(&request, &context).await,
                "stuck" => {
                    context.output.write(OutputStream::Stdout, b"stuck\n".to_vec()).await;
                    // Not even another task can run on this thread.
                    std::thread::sleep(PATIENCE);
                    Ok(ActionOk::default())
                }
                "explode" => panic!("the lab exploded"),
                "leave" => {
                    let program = muster_plugins::process::Program::new("/bin/sh", PATIENCE)
                        .arguments(["-c", "sleep 600 & echo started; wait"])
                        .stream_to(context.output.clone());
                    program.run(&context.cancel).await;
                    Ok(ActionOk::default())
                }
                "secret" => {
                    let password = request.text("password").unwrap().to_owned();
                    context.output.write(OutputStream::Stdout, format!("password={password}\n").into_bytes()).await;
                    Ok(ActionOk::data(json!({ "length": password.len(), "password": password })))
                }
                "facts" => {
                    let work = context.host.work_directory();
                    std::fs::write(work.join("file"), "x").unwrap();
                    Ok(ActionOk::data(json!({
                        "facts": *context.host.facts(), "host": context.host.host(),
                        "digest": context.host.inventory_digest(), "pid": std::process::id(),
                        "broker": context.host.agent_status().broker
                    })))
                }
                "fail" => Err(ActionFailure::failed("it did not work").with_exit_code(3)),
                _ => Err(ActionFailure::unknown_action(&request.action)),
            }
        })
    }

    fn data(
        &self,
        _query: &str,
        arguments: Map<String, Value>,
        _context: ActionContext,
    ) -> BoxFuture<'_, Result<Option<Value>, ActionFailure>> {
        Box::pin(async move {
            match arguments["what"].as_str() {
                Some("everything") => Ok(Some(json!({ "answer": 42 }))),
                Some("hang") => std::future::pending().await,
                _ => Ok(None),
            }
        })
    }
}

/// One piece of the action `long`, by its number.
pub(crate) fn piece(kind: &str, number: usize, bytes: usize) -> Vec<u8> {
    match kind {
        "binary" => (0..bytes).map(|at| u8::try_from((number * 7 + at * 13) % 256).unwrap()).collect(),
        _ => format!("{number} grüße\n").into_bytes().into_iter().cycle().take(bytes).collect(),
    }
}

/// Everything that `long` writes on one stream: even pieces on the one, odd ones on the other.
pub(crate) fn pieces(kind: &str, count: usize, bytes: usize, odd: bool) -> Vec<u8> {
    (0..count).filter(|number| (number % 2 == 1) == odd).flat_map(|number| piece(kind, number, bytes)).collect()
}

/// Writes pieces, the last one only once the gate is open, if there is one: a file that the test makes.
async fn long(request: &ActionRequest, context: &ActionContext) -> ActionReply {
    let number = |name: &str| usize::try_from(request.arguments[name].as_u64().unwrap()).unwrap();
    let (count, bytes) = (number("pieces"), number("bytes"));
    for number in 0..count {
        if number + 1 == count
            && let Some(gate) = request.text("gate")
        {
            while !Path::new(gate).exists() {
                tokio::select! {
                    () = context.cancel.cancelled() => return Err(ActionFailure::failed("told to stop")),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        }
        let stream = if number % 2 == 1 { OutputStream::Stderr } else { OutputStream::Stdout };
        context.output.write(stream, piece(request.text("kind").unwrap_or("text"), number, bytes)).await;
    }
    Ok(ActionOk::data(json!({ "pieces": count })))
}

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register(Arc::new(Lab::new())).unwrap();
    registry.register(Arc::new(muster_plugins::PluginManager::new())).unwrap();
    registry.register(Arc::new(muster_plugins::Host::new())).unwrap();
    registry
}

/// An authority, a user `lea` in the group `admins`, a user `max` without one, and a host.
pub(crate) struct Site {
    pub(crate) authority: TestAuthority,
    pub(crate) trust: Trust,
    pub(crate) lea: Credentials,
    pub(crate) max: Credentials,
    pub(crate) web1: Credentials,
}

impl Site {
    pub(crate) fn new() -> Self {
        let authority = TestAuthority::new(NOW).unwrap();
        Self {
            trust: authority.trust().unwrap(),
            lea: authority.credentials_with_groups("user/lea", &["admins"]).unwrap(),
            max: authority.credentials("user/max").unwrap(),
            web1: authority.credentials(&format!("host/{HOST}")).unwrap(),
            authority,
        }
    }
}

pub(crate) fn route(credentials: &Credentials) -> ReplyRoute {
    ReplyRoute::new(credentials.identity().clone(), "s1".parse().unwrap()).unwrap()
}

/// A request id that no other call gives.
pub(crate) fn fresh_id() -> RequestId {
    RequestId::from_parts(NOW, rand::random())
}

/// A command of `caller` to everybody, made now and valid for a minute.
pub(crate) fn command(caller: &Credentials, action: &str, arguments: Value) -> Command {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    Command {
        protocol: ProtocolVersion::V1,
        id: fresh_id(),
        caller: caller.identity().clone(),
        created_at_ms: NOW,
        expires_at_ms: NOW.plus_ms(60_000),
        collective: "main".parse().unwrap(),
        target: Target::everyone(),
        plugin: "lab".parse().unwrap(),
        action: action.parse().unwrap(),
        arguments,
        sealed: None,
        options: Options::default(),
        reply_to: route(caller),
        requires: Vec::new(),
    }
}

/// A watch with replay that follows.
pub(crate) fn watch(caller: &Credentials, request_id: RequestId) -> Watch {
    Watch {
        protocol: ProtocolVersion::V1,
        id: fresh_id(),
        request_id,
        caller: caller.identity().clone(),
        created_at_ms: NOW,
        expires_at_ms: NOW.plus_ms(60_000),
        collective: "main".parse().unwrap(),
        target: Target::everyone(),
        reply_to: route(caller),
        replay: true,
        follow: true,
        requires: Vec::new(),
    }
}

pub(crate) fn cancel(caller: &Credentials, request_id: RequestId) -> Cancel {
    Cancel {
        protocol: ProtocolVersion::V1,
        id: fresh_id(),
        request_id,
        caller: caller.identity().clone(),
        created_at_ms: NOW,
        expires_at_ms: NOW.plus_ms(60_000),
        collective: "main".parse().unwrap(),
        target: Target::everyone(),
        reply_to: route(caller),
        requires: Vec::new(),
    }
}

/// A message as its sender publishes it.
pub(crate) fn signed<M: Message>(message: &M, signers: &[&Credentials]) -> Outgoing {
    let content_type = M::TYPE.as_str();
    let body = encode(message).unwrap();
    let signatures: Vec<_> = signers.iter().map(|signer| signer.sign(content_type, &body)).collect();
    Outgoing {
        exchange: EXCHANGE_COMMAND,
        routing_key: collective_key(&"main".parse().unwrap()),
        content_type: content_type.to_owned(),
        body: body.into(),
        signatures: serde_json::to_vec(&signatures).unwrap().into(),
        expiration_ms: None,
        persistent: true,
        mandatory: true,
        correlation_id: None,
    }
}

/// Checks until something holds; after [`PATIENCE`] says what was seen last.
pub(crate) async fn eventually(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let mut last = String::new();
    let looking = async {
        loop {
            match look() {
                Ok(()) => return,
                Err(seen) => last = seen,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, looking).await.is_err() {
        panic!("{what} did not come about; last seen: {last}");
    }
}

/// How an agent differs from the ordinary one of these tests.
pub(crate) struct Setup {
    pub(crate) policy: String,
    pub(crate) facts: Value,
    pub(crate) change: fn(&mut Raw),
    pub(crate) reload: Option<ReloadMaterials>,
    pub(crate) runner: Option<Runner>,
    /// One more plugin.
    pub(crate) plugin: Option<Arc<dyn Plugin>>,
    /// Instead of the real one.
    pub(crate) disk: Option<SimulatedDisk>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: ALLOW_ALL.to_owned(),
            facts: json!({ "role": "web", "os": { "family": "Debian" } }),
            change: |_| {},
            reload: None,
            runner: None,
            plugin: None,
            disk: None,
        }
    }
}

/// A whole agent on a bus in memory, and a controller beside it.
pub(crate) struct Stage {
    pub(crate) site: Site,
    pub(crate) broker: MemoryBroker,
    pub(crate) clock: ManualClock,
    pub(crate) state: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            site: Site::new(),
            broker: MemoryBroker::new(),
            clock: ManualClock::new(NOW.as_millis()),
            state: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn materials(&self, policy_text: &str) -> Materials {
        Materials {
            bus: Arc::new(self.broker.bus(self.site.web1.identity())),
            credentials: self.site.web1.clone(),
            trust: self.site.trust.clone(),
            policy: Arc::new(policy(policy_text)),
        }
    }

    pub(crate) fn build(&self, setup: Setup) -> Agent {
        self.try_build(setup).unwrap()
    }

    pub(crate) fn try_build(&self, setup: Setup) -> Result<Agent, StartError> {
        let mut raw = Raw { state_dir: self.state.path().join("state"), ..Raw::default() };
        raw.broker.urls = vec!["amqps://unused.example.com".parse().unwrap()];
        (setup.change)(&mut raw);
        let Value::Object(facts) = setup.facts else { panic!("facts are an object") };
        let classes = BTreeSet::from(["nginx".to_owned()]);
        let mut registry = registry();
        if let Some(plugin) = setup.plugin {
            registry.register(plugin).unwrap();
        }
        let (disk, blocking) = match setup.disk {
            Some(disk) => (disk.mount(), Blocking::Inline),
            None => (real_disk(), Blocking::Threads),
        };
        let parts = Parts {
            materials: self.materials(&setup.policy),
            registry,
            facts: Sources::given(host(), facts, classes),
            clock: Arc::new(self.clock.clone()),
            disk,
            blocking,
            random_seed: 7,
            runner: setup.runner,
            reload: setup.reload,
        };
        Agent::new(Config::from_values(raw).unwrap(), parts)
    }

    /// Starts an agent and waits until it takes commands.
    pub(crate) async fn start(&self, setup: Setup) -> Running {
        let running = self.launch(setup);
        running.online().await;
        running
    }

    /// Starts an agent.
    pub(crate) fn launch(&self, setup: Setup) -> Running {
        let agent = self.build(setup);
        let handle = agent.handle();
        let shutdown = CancellationToken::new();
        let (sender, stopped) = oneshot::channel();
        let tasks = Tasks::new();
        let token = shutdown.clone();
        tasks.spawn(TaskKind::Worker, "agent", async move {
            drop(sender.send(agent.run(token).await));
        });
        Running { handle, shutdown, stopped }
    }

    pub(crate) async fn controller(&self, credentials: &Credentials) -> Controller {
        let link = self.broker.bus(credentials.identity()).connect().await.unwrap();
        let route = route(credentials);
        let queue = reply_queue(&route);
        link.declare_queue(QueueSpec::durable(&queue)).await.unwrap();
        link.bind(&queue, EXCHANGE_REPLY, &reply_binding(&route)).await.unwrap();
        let consumer = link.consume(&queue, ConsumeOptions { prefetch: 100, exclusive: false }).await.unwrap();
        Controller { link, consumer, trust: self.site.trust.clone() }
    }

    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state.path().join("state/audit.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) shutdown: CancellationToken,
    pub(crate) stopped: oneshot::Receiver<Stopped>,
}

impl Running {
    pub(crate) async fn online(&self) {
        let mut connection = self.handle.connection();
        let online = connection.wait_for(|connection| matches!(connection, Connection::Online { .. }));
        tokio::time::timeout(PATIENCE, online).await.expect("the agent connects").unwrap();
    }

    pub(crate) async fn stop(self) -> Stopped {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.stopped).await.expect("the agent stops").unwrap()
    }
}

pub(crate) struct Controller {
    pub(crate) link: Arc<dyn Link>,
    consumer: Consumer,
    trust: Trust,
}

impl Controller {
    pub(crate) async fn publish(&self, message: Outgoing) {
        self.link.publish(message, Guarantee::Confirmed).await.unwrap();
    }

    pub(crate) async fn send<M: Message>(&self, message: &M, signer: &Credentials) {
        self.publish(signed(message, &[signer])).await;
    }

    /// The next report, verified.
    pub(crate) async fn report(&mut self) -> ProgressReport {
        let delivery = tokio::time::timeout(PATIENCE, self.consumer.next()).await.expect("a report comes").unwrap();
        delivery.ack().await.unwrap();
        assert_eq!(delivery.content_type, PayloadType::Report.as_str());
        let signatures = muster_protocol::envelope::parse_signatures(&delivery.signatures).unwrap();
        let signers = self.trust.verify(&delivery.content_type, &delivery.body, &signatures, NOW).unwrap();
        let report: ProgressReport = decode(&delivery.body).unwrap();
        assert_eq!(signers[0].identity.name(), report.host.as_str());
        assert_eq!(delivery.routing_key, format!("user/{}.s1.{}", report.caller.name(), report.host));
        report
    }

    /// Reads until the last report of a request; gives the running ones and the last.
    pub(crate) async fn finished(&mut self, id: RequestId) -> (Vec<ProgressReport>, ProgressReport) {
        let mut running = Vec::new();
        loop {
            let report = self.report().await;
            assert_eq!(report.request_id, id, "an answer to another request: {report:?}");
            match report.state {
                ReportState::Running => running.push(report),
                ReportState::Finished => return (running, report),
            }
        }
    }

    /// The code with which a request ended.
    pub(crate) async fn code(&mut self, id: RequestId) -> String {
        self.finished(id).await.1.result.unwrap().code
    }
}

/// Runs the named test once more in a process of its own, for tests that change limits of the whole
/// process. Returns `true` in that process, where the test should do its work.
pub(crate) fn is_own_process(test: &str) -> bool {
    const CHILD: &str = "MUSTER_TEST_OWN_PROCESS";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// As on a full disk: no file of this process can grow beyond `bytes`; `None` takes that back.
pub(crate) fn limit_files(bytes: Option<u64>) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::signal::{SigHandler, Signal, signal};
    // Without this the system would end the process instead of failing the write.
    #[expect(unsafe_code, reason = "the handler is the system's own, which ignores the signal")]
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes.unwrap_or(hard), hard).unwrap();
}

/// The machine's own disk.
pub(crate) fn real_disk() -> Arc<dyn Disk> {
    Arc::new(muster_daemon::RealDisk)
}

/// A report as it lies in a spool: to `user/lea`, for a minute. Nobody verifies it.
pub(crate) fn waiting_report(request_id: RequestId) -> muster_agent::spool::Parcel {
    let signature = muster_protocol::Signature { keyid: "ab".into(), sig: "AA==".into(), chain: vec!["AA==".into()] };
    muster_agent::spool::Parcel {
        request_id,
        routing_key: "user/lea.s1.web1.example.com".to_owned(),
        content_type: "application/vnd.muster.report.v1+json".to_owned(),
        body: b"{}".to_vec().into(),
        signatures: vec![signature],
        expires_at: crate::binary::now().plus_ms(60_000),
    }
}
