//! A fleet in memory for tests: hosts that answer signed commands as a test wants them to, over
//! [`MemoryBroker`], with a throw-away authority.
//!
//! It lies in a plain module for the reason given in `muster_pki::testing`. The hosts are no agents:
//! they verify nothing and run nothing; what they say is properly signed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use muster_bus::{Bus as _, ConsumeOptions, Delivery, Guarantee, Link, MemoryBroker, Outgoing, QueueSpec};
use muster_daemon::{ManualClock, TaskKind, Tasks};
use muster_pki::testing::TestAuthority;
use muster_pki::{Credentials, Trust};
use muster_protocol::expr::{Expression, HostScope};
use muster_protocol::{
    ActionResult, Cancel, Command, Encoding, HostName, Identity, Inventory, Message as _, Outcome, OutputChunk,
    OutputStream, PayloadType, ProgressReport, ProtocolVersion, ReplyRoute, ReportState, RequestId, Target, Timestamp,
    Watch, decode, encode, routing,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::controller::{Controller, Parts};

/// The time that all clocks of a test fleet show at first.
pub const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// What a host does with a command that is for it.
pub type Behaviour = Arc<dyn Fn(&FakeHost, &Command) -> Vec<Say> + Send + Sync>;

/// What a host does with a message about an earlier command. While it answers a command with waits in
/// between, it answers such messages too.
pub type FollowUpBehaviour = Arc<dyn Fn(&FakeHost, &Later) -> Vec<Say> + Send + Sync>;

/// A message about an earlier command.
#[derive(Debug, Clone, PartialEq)]
pub enum Later {
    /// Stop it.
    Cancel(Cancel),
    /// Tell about it.
    Watch(Watch),
}

impl Later {
    /// The request that is meant.
    #[must_use]
    pub fn request(&self) -> RequestId {
        match self {
            Self::Cancel(cancel) => cancel.request_id,
            Self::Watch(watch) => watch.request_id,
        }
    }

    fn target(&self) -> &Target {
        match self {
            Self::Cancel(cancel) => &cancel.target,
            Self::Watch(watch) => &watch.target,
        }
    }
}

/// What a report answers.
pub trait Answerable {
    /// The id that reports carry.
    fn id(&self) -> RequestId;
    /// Who asked.
    fn caller(&self) -> &Identity;
    /// Where reports go.
    fn reply_to(&self) -> &ReplyRoute;
}

impl Answerable for Command {
    fn id(&self) -> RequestId {
        self.id
    }
    fn caller(&self) -> &Identity {
        &self.caller
    }
    fn reply_to(&self) -> &ReplyRoute {
        &self.reply_to
    }
}

impl Answerable for Later {
    fn id(&self) -> RequestId {
        match self {
            Self::Cancel(cancel) => cancel.id,
            Self::Watch(watch) => watch.id,
        }
    }
    fn caller(&self) -> &Identity {
        match self {
            Self::Cancel(cancel) => &cancel.caller,
            Self::Watch(watch) => &watch.caller,
        }
    }
    fn reply_to(&self) -> &ReplyRoute {
        match self {
            Self::Cancel(cancel) => &cancel.reply_to,
            Self::Watch(watch) => &watch.reply_to,
        }
    }
}

/// One thing that a host does.
#[derive(Debug, Clone)]
pub enum Say {
    /// Signs a report and sends it.
    Report(ProgressReport),
    /// Sends these bytes as they are, as a program that is not ours would: past all size limits.
    Raw(Outgoing),
    /// Waits.
    Wait(Duration),
}

/// A host and what it has.
#[derive(Debug, Clone)]
pub struct FakeHost {
    /// Its name.
    pub name: HostName,
    /// Its certificate and key.
    pub credentials: Credentials,
    /// What targets can name.
    pub inventory: Inventory,
}

impl FakeHost {
    /// A running report.
    #[must_use]
    pub fn running(&self, command: &impl Answerable, sequence: u32) -> ProgressReport {
        ProgressReport {
            protocol: ProtocolVersion::V1,
            request_id: command.id(),
            caller: command.caller().clone(),
            host: self.name.clone(),
            sequence,
            created_at_ms: NOW,
            state: ReportState::Running,
            output: Vec::new(),
            result: None,
        }
    }

    /// A running report with output.
    #[must_use]
    pub fn output(&self, command: &impl Answerable, sequence: u32, offset: u64, text: &str) -> ProgressReport {
        let chunk =
            OutputChunk { stream: OutputStream::Stdout, offset, encoding: Encoding::Text, data: text.to_owned() };
        ProgressReport { output: vec![chunk], ..self.running(command, sequence) }
    }

    /// The last report.
    #[must_use]
    pub fn finished(&self, command: &impl Answerable, sequence: u32, outcome: Outcome, data: Value) -> ProgressReport {
        let code = match outcome {
            Outcome::Succeeded => "ok",
            Outcome::Refused => "policy-denied",
            Outcome::Invalid => "not-running",
            Outcome::Cancelled => "cancelled",
            _ => "failed",
        };
        let result = ActionResult {
            outcome,
            code: code.to_owned(),
            message: String::new(),
            exit_code: None,
            data,
            truncated_from_bytes: None,
            duration_ms: 2,
        };
        ProgressReport { state: ReportState::Finished, result: Some(result), ..self.running(command, sequence) }
    }

    /// A report as it goes onto the bus, signed by this host, to the command's reply route under this host's name.
    ///
    /// # Panics
    /// When the report breaks a rule of the protocol.
    #[must_use]
    pub fn sealed(&self, command: &impl Answerable, report: &ProgressReport) -> Outgoing {
        self.signed(command.reply_to(), report)
    }

    fn signed(&self, reply_to: &ReplyRoute, report: &ProgressReport) -> Outgoing {
        let body = encode(report).expect("a test's report keeps the rules");
        let signature = self.credentials.sign(ProgressReport::TYPE.as_str(), &body);
        Outgoing {
            exchange: routing::EXCHANGE_REPLY,
            routing_key: routing::reply_key(reply_to, &self.name),
            content_type: ProgressReport::TYPE.as_str().to_owned(),
            body: body.into(),
            signatures: serde_json::to_vec(&[signature]).expect("a signature is plain strings").into(),
            expiration_ms: None,
            persistent: false,
            mandatory: false,
            correlation_id: None,
        }
    }

    fn is_meant(&self, target: &Target) -> bool {
        let plugins = self.inventory.plugins.iter().map(|plugin| plugin.name.to_string()).collect();
        let scope = HostScope {
            name: &self.name,
            facts: &self.inventory.facts,
            classes: &self.inventory.classes,
            plugins: &plugins,
            collectives: &self.inventory.collectives,
            calls: &BTreeMap::new(),
        };
        let matches = |filter: &String| Expression::parse(filter).is_ok_and(|expression| expression.matches(&scope));
        target.all
            || ((target.hosts.is_empty() || target.hosts.contains(&self.name))
                && target.filter.as_ref().is_none_or(matches))
    }

    /// What every agent can: `host.ping` and `host.inventory`. `None` for everything else.
    #[must_use]
    pub fn builtin(&self, command: &Command) -> Option<Vec<Say>> {
        if command.plugin.as_str() != "host" {
            return None;
        }
        let data = match command.action.as_str() {
            "ping" => json!({"time_ms": NOW, "agent_version": "0.1.0", "inventory_digest": "d1"}),
            "inventory" => {
                let mut data = serde_json::to_value(&self.inventory).expect("an inventory is JSON");
                data["digest"] = json!("d1");
                data
            }
            _ => return None,
        };
        Some(vec![Say::Report(self.finished(command, 0, Outcome::Succeeded, data))])
    }
}

/// A behaviour: what every agent can, and for other actions what `run` says.
pub fn behaving(run: impl Fn(&FakeHost, &Command) -> Vec<Say> + Send + Sync + 'static) -> Behaviour {
    Arc::new(move |host, command| host.builtin(command).unwrap_or_else(|| run(host, command)))
}

/// A behaviour: every action starts and succeeds with this data.
#[must_use]
pub fn succeeding(data: Value) -> Behaviour {
    behaving(move |host, command| {
        let running = host.running(command, 0);
        vec![Say::Report(running), Say::Report(host.finished(command, 1, Outcome::Succeeded, data.clone()))]
    })
}

/// A broker, an authority and hosts, all in memory. Ends with the test.
#[derive(Debug)]
pub struct Fleet {
    /// The broker.
    pub broker: MemoryBroker,
    /// The authority.
    pub authority: TestAuthority,
    /// The clock of controllers.
    pub clock: ManualClock,
    trust: Trust,
    tasks: Tasks,
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

impl Fleet {
    /// A fleet without hosts.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let authority = TestAuthority::new(NOW).expect("the temporary directory is writable");
        let trust = authority.trust().expect("the authority was just made");
        let clock = ManualClock::new(NOW.as_millis());
        Self { broker: MemoryBroker::new(), authority, clock, trust, tasks: Tasks::new() }
    }

    /// Believes the authority's newest revocation list from now on.
    ///
    /// # Panics
    /// When its files cannot be read.
    pub fn trust_again(&mut self) {
        self.trust = self.authority.trust().expect("the authority's files are readable");
    }

    /// The parts of a controller for `user/NAME`. Each seed gives another session.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn parts(&self, identity: &str, seed: u64) -> Parts {
        let credentials = self.authority.credentials(identity).expect("a test's names are names");
        Parts {
            bus: Arc::new(self.broker.bus(credentials.identity())),
            credentials,
            trust: self.trust.clone(),
            clock: Arc::new(self.clock.clone()),
            random: StdRng::seed_from_u64(seed),
            collective: "main".parse().expect("a plain word"),
        }
    }

    /// A connected controller of `user/lea`.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub async fn controller(&self) -> Controller {
        Controller::connect(self.parts("user/lea", 1)).await.expect("the broker in memory lets everybody in")
    }

    /// Starts hosts with the same behaviour and facts.
    ///
    /// # Panics
    /// When a name is none or the broker refuses the host.
    pub async fn hosts(&self, names: &[&str], facts: Value, behaviour: Behaviour) {
        let identities: Vec<Identity> =
            names.iter().map(|name| Identity::Host(name.parse().expect("a test's names are names"))).collect();
        let all = self.authority.fleet(&identities).expect("a certificate for each");
        let Value::Object(facts) = facts else { panic!("facts are an object") };
        for credentials in all {
            let Identity::Host(name) = credentials.identity().clone() else { panic!("hosts were ordered") };
            let inventory = Inventory {
                collectives: BTreeSet::from(["main".parse().expect("a plain word")]),
                facts: facts.clone(),
                ..Inventory::default()
            };
            self.start(FakeHost { name, credentials, inventory }, Arc::clone(&behaviour)).await;
        }
    }

    /// Starts a host: its queue is bound when this returns. It knows nothing of earlier commands.
    ///
    /// # Panics
    /// When the broker refuses the host.
    pub async fn start(&self, host: FakeHost, behaviour: Behaviour) {
        let nothing: FollowUpBehaviour =
            Arc::new(|host, later| vec![Say::Report(host.finished(later, 0, Outcome::Invalid, Value::Null))]);
        self.start_with(host, behaviour, nothing).await;
    }

    /// Starts hosts that also answer to messages about earlier commands.
    ///
    /// # Panics
    /// When a name is none or the broker refuses the host.
    pub async fn hosts_with(&self, names: &[&str], behaviour: Behaviour, later: FollowUpBehaviour) {
        for name in names {
            let host = FakeHost {
                name: name.parse().expect("a test's names are names"),
                credentials: self.authority.credentials(&format!("host/{name}")).expect("a certificate"),
                inventory: Inventory {
                    collectives: BTreeSet::from(["main".parse().expect("a plain word")]),
                    ..Inventory::default()
                },
            };
            self.start_with(host, Arc::clone(&behaviour), Arc::clone(&later)).await;
        }
    }

    async fn start_with(&self, host: FakeHost, behaviour: Behaviour, later: FollowUpBehaviour) {
        let link = self.broker.bus(host.credentials.identity()).connect().await.expect("connect a host");
        let queue = routing::agent_queue(&host.name);
        link.declare_queue(QueueSpec::durable(&queue)).await.expect("declare");
        let collective = "main".parse().expect("a plain word");
        for key in [routing::KEY_ALL.to_owned(), routing::collective_key(&collective), routing::host_key(&host.name)] {
            link.bind(&queue, routing::EXCHANGE_COMMAND, &key).await.expect("bind");
        }
        let mut commands =
            link.consume(&queue, ConsumeOptions { prefetch: 10, exclusive: true }).await.expect("consume");
        let broker = self.broker.clone();
        self.tasks.spawn(TaskKind::Worker, "fake host", async move {
            let mut answers = FuturesUnordered::new();
            loop {
                tokio::select! {
                    biased;
                    delivery = commands.next() => match delivery {
                        Some(delivery) => {
                            let said = hear(&host, &behaviour, &later, &delivery);
                            answers.push(answer(&host, said, link.as_ref(), &broker, delivery));
                        }
                        None => return,
                    },
                    Some(()) = answers.next(), if !answers.is_empty() => {}
                }
            }
        });
    }
}

/// What the host says, and to where.
fn hear(
    host: &FakeHost,
    behaviour: &Behaviour,
    later: &FollowUpBehaviour,
    delivery: &Delivery,
) -> Option<(ReplyRoute, Vec<Say>)> {
    let about = match PayloadType::from_content_type(&delivery.content_type)? {
        PayloadType::Command => {
            let command = decode::<Command>(&delivery.body).ok().filter(|command| host.is_meant(&command.target))?;
            return Some((command.reply_to.clone(), behaviour(host, &command)));
        }
        PayloadType::Cancel => Later::Cancel(decode(&delivery.body).ok()?),
        PayloadType::Watch => Later::Watch(decode(&delivery.body).ok()?),
        _ => return None,
    };
    host.is_meant(about.target()).then(|| (about.reply_to().clone(), later(host, &about)))
}

async fn answer(
    host: &FakeHost,
    said: Option<(ReplyRoute, Vec<Say>)>,
    link: &dyn Link,
    broker: &MemoryBroker,
    delivery: Delivery,
) {
    // The broker may be gone by now; a fake host does not mind.
    drop(delivery.ack().await);
    let Some((reply_to, said)) = said else { return };
    for say in said {
        let message = match say {
            Say::Report(report) => host.signed(&reply_to, &report),
            Say::Raw(message) => {
                broker.inject(host.credentials.identity(), message);
                continue;
            }
            Say::Wait(time) => {
                tokio::time::sleep(time).await;
                continue;
            }
        };
        drop(link.publish(message, Guarantee::Fire).await);
    }
}
