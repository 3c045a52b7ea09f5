//! Tests that every plugin must pass, whoever wrote it.
//!
//! [`check`] looks at the description, then calls the plugin the way an agent does, including what
//! an agent would have refused before, and returns every promise that is broken as a sentence.
//! A plugin's own tests give it one [`Sample`] or more for each action.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::ddl::{Action, Ddl, Named, Output, ValueType};
use muster_protocol::{
    ActionName, Code, HostName, Identity, InstalledPlugin, Inventory, PluginName, RequestId, Timestamp, UserName, code,
};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::action::{ActionFailure, ActionReply, ActionRequest};
use crate::host::{AgentStatus, HostView, RevocationList};
use crate::output::OutputSink;
use crate::plugin::{ActionContext, BoxFuture, Plugin};
use crate::store::{InstallReport, PluginRecord, PluginStore, RemoveReport};

/// How long an action may take to end after it was told to: far more than it should.
const PATIENCE: Duration = Duration::from_secs(20);

/// The time limit of a request that is to succeed.
const ORDINARY_LIMIT: Duration = Duration::from_secs(30);

/// A call that a plugin must answer.
#[derive(Debug, Clone)]
pub struct Sample {
    name: String,
    arguments: Map<String, Value>,
    succeeds: bool,
    is_query: bool,
}

impl Sample {
    /// A call of an action that must succeed. `arguments` is an object.
    #[must_use]
    pub fn succeeds(action: &str, arguments: Value) -> Self {
        Self { name: action.to_owned(), arguments: object(arguments), succeeds: true, is_query: false }
    }

    /// A call of an action that must fail, with arguments that the description accepts.
    #[must_use]
    pub fn fails(action: &str, arguments: Value) -> Self {
        Self { succeeds: false, ..Self::succeeds(action, arguments) }
    }

    /// A question that must be answered, with something or with "not there".
    #[must_use]
    pub fn query(query: &str, arguments: Value) -> Self {
        Self { is_query: true, ..Self::succeeds(query, arguments) }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Checks a plugin against the contract. Returns nothing where it keeps all of it.
///
/// What is checked: the description parses again to itself, has no warnings, describes everything
/// and bounds every action's time; each action has a sample; samples end as they say, with data
/// that the description names, of the types it names; an unknown action is refused; options are
/// honoured or refused; a cancelled action and one without time end soon, in failure only with the
/// code for that; queries answer with the keys they describe.
pub async fn check(plugin: &dyn Plugin, samples: &[Sample]) -> Vec<String> {
    let mut broken = description(plugin.ddl());
    if let Err(not) = plugin.activate() {
        broken.push(format!("it does not activate, so it cannot be checked: {not}"));
        return broken;
    }
    for action in &plugin.ddl().actions {
        if !samples.iter().any(|sample| !sample.is_query && sample.name == action.name.as_str()) {
            broken.push(format!("action `{}` has no sample", action.name));
        }
    }
    for query in &plugin.ddl().muster.data {
        if !samples.iter().any(|sample| sample.is_query && sample.name == query.name.as_str()) {
            broken.push(format!("query `{}` has no sample", query.name));
        }
    }
    unknown_action(plugin, &mut broken).await;
    for sample in samples {
        let mut found = Vec::new();
        if sample.is_query {
            query(plugin, sample, &mut found).await;
        } else {
            action(plugin, sample, &mut found).await;
        }
        broken.extend(found.into_iter().map(|what| format!("`{}`: {what}", sample.name)));
    }
    broken
}

fn description(ddl: &Ddl) -> Vec<String> {
    let mut broken = ddl.warnings();
    let again = serde_json::to_string(ddl).map(|text| Ddl::parse(&text));
    if !matches!(&again, Ok(Ok(again)) if again == ddl) {
        broken.push("the description does not parse again to itself".to_owned());
    }
    let mut need = |what: String, text: &str| {
        if text.trim().is_empty() {
            broken.push(format!("{what} is empty"));
        }
    };
    need("the version".to_owned(), &ddl.metadata.version);
    need("the description of the plugin".to_owned(), &ddl.metadata.description);
    for action in &ddl.actions {
        need(format!("the description of `{}`", action.name), &action.description);
        for (name, input) in action.input.iter() {
            need(format!("the description of input `{name}` of `{}`", action.name), &input.description);
        }
        for (name, output) in action.output.iter() {
            need(format!("the description of output `{name}` of `{}`", action.name), &output.description);
            need(format!("the heading of output `{name}` of `{}`", action.name), &output.display_as);
        }
    }
    if ddl.actions.is_empty() && ddl.muster.data.is_empty() {
        broken.push("there is neither an action nor a query".to_owned());
    }
    broken
}

async fn unknown_action(plugin: &dyn Plugin, broken: &mut Vec<String>) {
    let Ok(name) = ActionName::new("no-such-action-anywhere") else { return };
    let reply = ask(plugin, request(name, Map::new()), CancellationToken::new()).await;
    expect_refusal("an unknown action", reply, &code::UNKNOWN_ACTION, broken);
}

async fn action(plugin: &dyn Plugin, sample: &Sample, broken: &mut Vec<String>) {
    let described = ActionName::new(sample.name.as_str()).ok().and_then(|name| plugin.ddl().action(&name));
    let Some(described) = described else {
        broken.push("the sample's action is not in the description".to_owned());
        return;
    };
    let arguments = match described.validate(&sample.arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            broken.push(format!("the sample does not fit the description: {error}"));
            return;
        }
    };
    let ordinary = request(described.name.clone(), arguments);

    let reply = ask(plugin, ordinary.clone(), CancellationToken::new()).await;
    answer_is_described(described, &reply, broken);
    match &reply {
        Some(Ok(_)) if !sample.succeeds => broken.push("it succeeds, but should fail".to_owned()),
        Some(Err(failure)) if sample.succeeds => broken.push(format!("it fails: {failure}")),
        _ => {}
    }

    let supports = described.muster.supports;
    let noop = ActionRequest { noop: true, ..ordinary.clone() };
    let reply = ask(plugin, noop, CancellationToken::new()).await;
    if supports.noop {
        answer_is_described(described, &reply, broken);
        if matches!(&reply, Some(Err(failure)) if *failure.code == code::UNSUPPORTED_OPTION) {
            broken.push("it refuses noop, which it says it supports".to_owned());
        }
    } else {
        expect_refusal("noop", reply, &code::UNSUPPORTED_OPTION, broken);
    }
    if !supports.effective_user {
        let as_user = ActionRequest { effective_user: Some("nobody".to_owned()), ..ordinary.clone() };
        let reply = ask(plugin, as_user, CancellationToken::new()).await;
        expect_refusal("an effective user", reply, &code::UNSUPPORTED_OPTION, broken);
    }

    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let reply = ask(plugin, ordinary.clone(), cancelled).await;
    if supports.cancel {
        ends_in("it was cancelled", &reply, sample, &code::CANCELLED, broken);
    }
    let hurried = ActionRequest { time_limit: Duration::from_millis(1), ..ordinary };
    let reply = ask(plugin, hurried, CancellationToken::new()).await;
    ends_in("it had a millisecond", &reply, sample, &code::TIMED_OUT, broken);
}

async fn query(plugin: &dyn Plugin, sample: &Sample, broken: &mut Vec<String>) {
    let Some(described) = plugin.ddl().data_query(&sample.name) else {
        broken.push("the sample's query is not in the description".to_owned());
        return;
    };
    let in_order: Vec<Value> = described.input.names().map_while(|name| sample.arguments.get(name).cloned()).collect();
    if let Err(error) = described.validate(&in_order) {
        broken.push(format!("the sample does not fit the description: {error}"));
        return;
    }
    let answer = plugin.data(&sample.name, sample.arguments.clone(), context(CancellationToken::new()));
    match tokio::time::timeout(PATIENCE, answer).await {
        Err(_) => broken.push("the query does not end".to_owned()),
        Ok(Err(failure)) => broken.push(format!("the query fails: {failure}")),
        Ok(Ok(None)) => {}
        Ok(Ok(Some(Value::Object(data)))) => data_is_described(&described.output, &data, broken),
        Ok(Ok(Some(_))) => broken.push("the query's answer is not an object".to_owned()),
    }
}

/// `None` if it does not end.
async fn ask(plugin: &dyn Plugin, request: ActionRequest, cancel: CancellationToken) -> Option<ActionReply> {
    let limit = request.time_limit + PATIENCE;
    tokio::time::timeout(limit, plugin.run(request, context(cancel))).await.ok()
}

fn expect_refusal(what: &str, reply: Option<ActionReply>, expected: &Code, broken: &mut Vec<String>) {
    match reply {
        None => broken.push(format!("asked for {what}, it does not end")),
        Some(Ok(_)) => broken.push(format!("it accepts {what}")),
        Some(Err(ActionFailure { code, .. })) if code == expected => {}
        Some(Err(ActionFailure { code, .. })) => {
            broken.push(format!("it refuses {what} with `{}`, not `{}`", code.code, expected.code));
        }
    }
}

/// Ending well is allowed, it was faster then; so is the failure it has anyway.
fn ends_in(when: &str, reply: &Option<ActionReply>, sample: &Sample, expected: &Code, broken: &mut Vec<String>) {
    match reply {
        None => broken.push(format!("{when}, but it does not end")),
        Some(Err(failure)) if sample.succeeds && failure.code != expected => {
            broken.push(format!("{when}, and it fails with `{}`, not `{}`", failure.code.code, expected.code));
        }
        _ => {}
    }
}

fn answer_is_described(action: &Action, reply: &Option<ActionReply>, broken: &mut Vec<String>) {
    let (data, may_be_null) = match reply {
        None => return broken.push("it does not end".to_owned()),
        Some(Ok(ok)) => (&ok.data, false),
        Some(Err(failure)) => {
            if Code::find(failure.code.code).is_none() {
                broken.push(format!("its code `{}` is not in the table", failure.code.code));
            }
            if failure.message.trim().is_empty() {
                broken.push("it fails without a message".to_owned());
            }
            (&failure.data, true)
        }
    };
    match data {
        Value::Object(data) => data_is_described(&action.output, data, broken),
        Value::Null if may_be_null => {}
        _ => broken.push("its data is not an object".to_owned()),
    }
}

fn data_is_described(outputs: &Named<Output>, data: &Map<String, Value>, broken: &mut Vec<String>) {
    for (key, value) in data {
        match outputs.get(key).map(|output| &output.kind) {
            None => broken.push(format!("its answer has `{key}`, which is not described")),
            Some(ValueType::List) if value.is_string() => {}
            Some(kind) if value.is_null() || kind.fits(value) => {}
            Some(kind) => broken.push(format!("its answer's `{key}` is not of type {}", kind.as_str())),
        }
    }
}

fn request(action: ActionName, arguments: Map<String, Value>) -> ActionRequest {
    ActionRequest {
        request_id: RequestId::from_parts(FIXED_NOW, [0; 10]),
        caller: Identity::User(UserName::new("conformance").expect("a plain word")),
        action,
        arguments,
        secrets: std::collections::BTreeSet::new(),
        noop: false,
        effective_user: None,
        time_limit: ORDINARY_LIMIT,
    }
}

/// A context around a [`FixedHost`], whose output nobody reads.
#[must_use]
pub fn context(cancel: CancellationToken) -> ActionContext {
    ActionContext { cancel, output: OutputSink::discard(), host: Arc::new(FixedHost::default()) }
}

/// A request of the user `conformance`, with 30 seconds of time. `None` if the name is none.
#[must_use]
pub fn sample_request(action: &str, arguments: Value) -> Option<ActionRequest> {
    Some(request(ActionName::new(action).ok()?, object(arguments)))
}

/// 21 November 2026, 00:00 UTC.
const FIXED_NOW: Timestamp = Timestamp(1_795_219_200_000);

/// A host that never changes, for tests of plugins.
#[derive(Debug, Clone)]
pub struct FixedHost {
    /// The host's name.
    pub host: HostName,
    /// The time that it always is: 21 November 2026, 00:00 UTC.
    pub now: Timestamp,
    /// What it has.
    pub inventory: Arc<Inventory>,
    /// Where actions may put files. The system's directory for temporary files by default.
    pub work_directory: PathBuf,
}

impl Default for FixedHost {
    fn default() -> Self {
        let facts = json!({ "os": { "family": "Debian", "release": { "major": 12 } }, "cpus": { "count": 2 } });
        let plugin = |name: &str| Some(InstalledPlugin { name: name.parse().ok()?, version: "1.0.0".to_owned() });
        let inventory = Inventory {
            collectives: ["main".parse()].into_iter().flatten().collect(),
            classes: ["base".to_owned(), "web".to_owned()].into(),
            plugins: ["host", "package"].into_iter().filter_map(plugin).collect(),
            facts: object(facts),
        };
        let host = HostName::new("web1.example.com").expect("a plain name");
        Self { host, now: FIXED_NOW, inventory: Arc::new(inventory), work_directory: std::env::temp_dir() }
    }
}

impl HostView for FixedHost {
    fn host(&self) -> &HostName {
        &self.host
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    fn facts(&self) -> Arc<Map<String, Value>> {
        Arc::new(self.inventory.facts.clone())
    }

    fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.inventory)
    }

    fn inventory_digest(&self) -> String {
        "sha256:0000".to_owned()
    }

    fn work_directory(&self) -> &Path {
        &self.work_directory
    }

    fn sealing_key(&self) -> Option<String> {
        Some("x25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned())
    }

    fn plugin_store(&self) -> Option<&dyn PluginStore> {
        Some(self)
    }

    fn agent_status(&self) -> AgentStatus {
        AgentStatus {
            version: "0.1.0".to_owned(),
            started_at_ms: self.now.plus_ms(-90_000),
            broker: "amqps://mq1.example.com:5671/muster".to_owned(),
            connected_at_ms: Some(self.now.plus_ms(-89_000)),
            memory_bytes: 4_000_000,
            running_actions: 1,
            spooled_reports: 0,
            counters: BTreeMap::from([("commands_received".to_owned(), 7)]),
            problems: vec!["`/etc/muster/facts.d/site.json` is not JSON".to_owned()],
            audit_head: String::new(),
            policy_sha256: "0".repeat(64),
            revocation_lists: vec![RevocationList { issuer: "CN=Muster CA".to_owned(), number: 3 }],
        }
    }
}

/// A store that has one plugin, `lab`, and accepts the pack `good` alone.
impl PluginStore for FixedHost {
    fn list(&self) -> BoxFuture<'_, (Vec<PluginRecord>, Vec<String>)> {
        let record = PluginRecord {
            name: lab(),
            version: "1.0.0".to_owned(),
            provider: "external".to_owned(),
            directory: Some("/usr/lib/muster/plugins".to_owned()),
            activated: true,
            reason: None,
            sha256: None,
            signed_by: Vec::new(),
            modified: false,
        };
        Box::pin(std::future::ready((vec![record], Vec::new())))
    }

    fn install(
        &self,
        pack: Vec<u8>,
        allow_any: bool,
        noop: bool,
    ) -> BoxFuture<'_, Result<InstallReport, ActionFailure>> {
        let report = InstallReport {
            name: lab(),
            version: "1.0.1".to_owned(),
            change: if allow_any { "downgraded" } else { "upgraded" }.to_owned(),
            previous_version: Some("1.0.0".to_owned()),
            sha256: "0".repeat(64),
            signed_by: vec!["user/conformance".to_owned()],
            files: vec!["lab".to_owned(), "lab.json".to_owned()],
            activated: (!noop).then_some(true),
            reason: None,
        };
        let refused = || ActionFailure::new(&code::UNTRUSTED_PACK, "the pack's signature is not accepted");
        Box::pin(std::future::ready(if pack == b"good" { Ok(report) } else { Err(refused()) }))
    }

    fn remove(&self, name: PluginName, _: bool) -> BoxFuture<'_, Result<RemoveReport, ActionFailure>> {
        let missing = || ActionFailure::failed(format!("no pack of plugin `{name}` is installed here"));
        let report = RemoveReport { name: lab(), version: "1.0.0".to_owned(), change: "removed".to_owned() };
        Box::pin(std::future::ready(if name == lab() { Ok(report) } else { Err(missing()) }))
    }
}

fn lab() -> PluginName {
    PluginName::new("lab").expect("a plain name")
}
