//! What to ask: one action on some hosts, and the signed commands that it becomes.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_pki::Credentials;
use muster_protocol::{
    ActionName, CollectiveName, Command, HostName, Message as _, Options, PluginName, ProtocolVersion, ReplyRoute,
    RequestId, Target, Timestamp, encode, routing,
};
use serde_json::{Map, Value};

use crate::error::ClientError;

/// Most host names in one command. The names lie inside the signed body that each of the hosts gets,
/// so one command to `n` names costs `n²` on the wire: 10,000 names of 30 bytes would be 3 GB, in
/// commands of 100 names they are 30 MB. A publish to one host's key costs about 0.1 ms.
pub const HOSTS_PER_COMMAND: usize = 100;

/// How long a command may live by default, in milliseconds: longer than any answer is waited for by
/// default, and long enough for clocks that differ by some seconds.
pub const TTL_MS_DEFAULT: i64 = 60_000;

/// How long a host may take until its first report by default, in milliseconds.
pub const REPLY_TIMEOUT_MS_DEFAULT: i64 = 10_000;

/// How much longer than an action's time limit its end is waited for, in milliseconds: the agent
/// needs some seconds to stop the action politely, and the report needs its way.
pub const RUN_GRACE_MS: i64 = 10_000;

/// How long answers to a broadcast are taken by default, in milliseconds.
pub const WINDOW_MS_DEFAULT: i64 = 2_000;

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// These hosts, each by its own key, so that the broker says at once who has no queue. Their
    /// number is known, so the question ends as soon as all have answered.
    Hosts(BTreeSet<HostName>),
    /// By broadcast, whoever the expression in canonical form is true on.
    Matching(String),
    /// By broadcast, every host of the collective.
    Everyone,
}

/// One action on some hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Who is asked.
    pub audience: Audience,
    /// The plugin.
    pub plugin: PluginName,
    /// One of its actions.
    pub action: ActionName,
    /// Its arguments, checked against the DDL before.
    pub arguments: Map<String, Value>,
    /// How to run it.
    pub options: Options,
    /// How long the command lives, in milliseconds. Until then a host that comes back may run it.
    pub ttl_ms: i64,
    /// How long queues keep the command, in milliseconds, where that is shorter than it lives.
    pub queue_ms: Option<u64>,
    /// How long a host may take until its first report, in milliseconds; for a broadcast, the
    /// window in which answers are taken.
    pub reply_timeout_ms: i64,
    /// The action's time limit, in milliseconds.
    pub time_limit_ms: i64,
    /// For a broadcast: hosts that are known to match. Once they have answered and it has become
    /// quiet, the rest of the window is not waited for.
    pub likely: BTreeSet<HostName>,
}

impl Question {
    /// A question with default times.
    #[must_use]
    pub fn new(audience: Audience, plugin: PluginName, action: ActionName) -> Self {
        Self {
            audience,
            plugin,
            action,
            arguments: Map::new(),
            options: Options::default(),
            ttl_ms: TTL_MS_DEFAULT,
            queue_ms: None,
            reply_timeout_ms: REPLY_TIMEOUT_MS_DEFAULT,
            time_limit_ms: TTL_MS_DEFAULT,
            likely: BTreeSet::new(),
        }
    }

    /// The options that a host must not ignore.
    fn requires(&self) -> Vec<String> {
        let options = &self.options;
        [
            (options.noop, "noop"),
            (options.effective_user.is_some(), "effective_user"),
            (options.timeout_ms.is_some(), "timeout"),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, feature)| feature.to_owned())
        .collect()
    }
}

/// A signed command and the keys it goes out with.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) id: RequestId,
    pub(crate) body: Bytes,
    pub(crate) signatures: Bytes,
    pub(crate) destinations: Destinations,
}

/// Where the same bytes go.
#[derive(Debug, Clone)]
pub(crate) enum Destinations {
    Hosts(Vec<HostName>),
    Broadcast(String),
}

/// What a command needs besides the question.
pub(crate) struct Sender<'a> {
    pub(crate) credentials: &'a Credentials,
    pub(crate) collective: &'a CollectiveName,
    pub(crate) route: &'a ReplyRoute,
    pub(crate) now: Timestamp,
}

/// Writes and signs the commands of a question. `next_id` makes their ids.
pub(crate) fn prepare(
    question: &Question,
    sender: &Sender<'_>,
    mut next_id: impl FnMut() -> RequestId,
) -> Result<Vec<Prepared>, ClientError> {
    let mut one = |target: Target, destinations: Destinations| -> Result<Prepared, ClientError> {
        let command = Command {
            protocol: ProtocolVersion::V1,
            id: next_id(),
            caller: sender.credentials.identity().clone(),
            created_at_ms: sender.now,
            expires_at_ms: sender.now.plus_ms(question.ttl_ms),
            collective: sender.collective.clone(),
            target,
            plugin: question.plugin.clone(),
            action: question.action.clone(),
            arguments: question.arguments.clone(),
            sealed: None,
            options: question.options.clone(),
            reply_to: sender.route.clone(),
            requires: question.requires(),
        };
        let body = encode(&command)?;
        let signature = sender.credentials.sign(Command::TYPE.as_str(), &body);
        let signatures = serde_json::to_vec(&[signature]).expect("a signature is plain strings");
        Ok(Prepared { id: command.id, body: body.into(), signatures: signatures.into(), destinations })
    };
    let broadcast = || Destinations::Broadcast(routing::collective_key(sender.collective));
    match &question.audience {
        Audience::Everyone => Ok(vec![one(Target::everyone(), broadcast())?]),
        Audience::Matching(filter) => Ok(vec![one(Target::matching(filter.clone()), broadcast())?]),
        Audience::Hosts(hosts) => {
            let hosts: Vec<HostName> = hosts.iter().cloned().collect();
            hosts
                .chunks(HOSTS_PER_COMMAND)
                .map(|part| one(Target::named(part.iter().cloned()), Destinations::Hosts(part.to_vec())))
                .collect()
        }
    }
}
