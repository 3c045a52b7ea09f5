//! What to ask: one action on some hosts, and the signed commands that it becomes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_pki::Credentials;
use muster_pki::sealing::{SealingPublicKey, seal};
use muster_protocol::{
    ActionName, CollectiveName, Command, HostName, Message, Options, PluginName, ProtocolVersion, ReplyRoute,
    RequestId, SealedArguments, SealingContext, Target, Timestamp, encode, routing,
};
use serde_json::{Map, Value};

use crate::error::ClientError;
use crate::secrets::Secrets;

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
    /// Secret arguments; sent only sealed to each host.
    pub secrets: Secrets,
    /// The sealing keys of all hosts of the audience, needed where there are secrets.
    pub sealing_keys: BTreeMap<HostName, SealingPublicKey>,
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
    /// What is done with output while it comes.
    pub output: OutputWish,
}

/// What is done with the output of actions while it comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputWish {
    /// Whether each piece is handed out as [`Event::Output`](crate::Event::Output).
    pub events: bool,
    /// How many bytes of each stream of a host are kept in its record; without it, a share of the
    /// memory for all, see [`output_bytes_per_stream`](crate::collect::output_bytes_per_stream).
    pub keep_bytes: Option<usize>,
    /// Whether a stream begins wherever its first piece does, because what was written before was not asked for.
    pub from_anywhere: bool,
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
            secrets: Secrets::default(),
            sealing_keys: BTreeMap::new(),
            options: Options::default(),
            ttl_ms: TTL_MS_DEFAULT,
            queue_ms: None,
            reply_timeout_ms: REPLY_TIMEOUT_MS_DEFAULT,
            time_limit_ms: TTL_MS_DEFAULT,
            likely: BTreeSet::new(),
            output: OutputWish::default(),
        }
    }

    /// The options that a host must not ignore.
    fn requires(&self) -> Vec<String> {
        let options = &self.options;
        [
            (options.noop, "noop"),
            (options.effective_user.is_some(), "effective_user"),
            (options.timeout_ms.is_some(), "timeout"),
            (!self.secrets.is_empty(), "sealed"),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, feature)| feature.to_owned())
        .collect()
    }
}

/// How a command that is signed already is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// Whether it may have been sent before: what hosts said then can have waited there for its reader.
    pub sent_before: bool,
    /// To which of its hosts.
    pub hosts: BTreeSet<HostName>,
    /// How long queues keep it, in milliseconds; at most until it expires.
    pub queue_ms: u64,
    /// How long a host may take until its first report, in milliseconds.
    pub reply_timeout_ms: i64,
    /// The action's time limit, in milliseconds.
    pub time_limit_ms: i64,
    /// What is done with output while it comes.
    pub output: OutputWish,
}

/// A signed message and the keys it goes out with.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) id: RequestId,
    /// The request it is about: its own id, unless it cancels or watches another.
    pub(crate) about: RequestId,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    pub(crate) signatures: Bytes,
    pub(crate) destinations: Destinations,
}

impl Prepared {
    /// The hosts it goes to by name, each with the request it is about.
    pub(crate) fn asked(&self) -> impl Iterator<Item = (HostName, RequestId)> {
        let hosts = match &self.destinations {
            Destinations::Hosts(hosts) => hosts.as_slice(),
            Destinations::Broadcast(_) => &[],
        };
        hosts.iter().map(|host| (host.clone(), self.about))
    }
}

/// Where the same bytes go.
#[derive(Debug, Clone)]
pub(crate) enum Destinations {
    Hosts(Vec<HostName>),
    Broadcast(String),
}

/// What a message needs besides the question.
pub(crate) struct Sender<'a> {
    pub(crate) credentials: &'a Credentials,
    pub(crate) collective: &'a CollectiveName,
    pub(crate) route: &'a ReplyRoute,
    pub(crate) now: Timestamp,
}

impl Sender<'_> {
    /// Writes and signs one message.
    pub(crate) fn seal<M: Message>(
        &self,
        message: &M,
        id: RequestId,
        about: RequestId,
        destinations: Destinations,
    ) -> Result<Prepared, ClientError> {
        let body = encode(message)?;
        let signature = self.credentials.sign(M::TYPE.as_str(), &body);
        let signatures = serde_json::to_vec(&[signature]).expect("a signature is plain strings");
        let content_type = M::TYPE.as_str();
        Ok(Prepared { id, about, content_type, body: body.into(), signatures: signatures.into(), destinations })
    }

    /// The targets that an audience becomes: names in parts, everything else by one broadcast.
    pub(crate) fn targets(&self, audience: &Audience) -> Vec<(Target, Destinations)> {
        let broadcast = || Destinations::Broadcast(routing::collective_key(self.collective));
        match audience {
            Audience::Everyone => vec![(Target::everyone(), broadcast())],
            Audience::Matching(filter) => vec![(Target::matching(filter.clone()), broadcast())],
            Audience::Hosts(hosts) => {
                let hosts: Vec<HostName> = hosts.iter().cloned().collect();
                let part =
                    |part: &[HostName]| (Target::named(part.iter().cloned()), Destinations::Hosts(part.to_vec()));
                hosts.chunks(HOSTS_PER_COMMAND).map(part).collect()
            }
        }
    }
}

/// Writes and signs the commands of a question. `next_id` makes their ids.
pub(crate) fn prepare(
    question: &Question,
    sender: &Sender<'_>,
    mut next_id: impl FnMut() -> RequestId,
) -> Result<Vec<Prepared>, ClientError> {
    let one = |(target, destinations)| -> Result<Prepared, ClientError> {
        let id = next_id();
        let command = Command {
            protocol: ProtocolVersion::V1,
            id,
            caller: sender.credentials.identity().clone(),
            created_at_ms: sender.now,
            expires_at_ms: sender.now.plus_ms(question.ttl_ms),
            collective: sender.collective.clone(),
            target,
            plugin: question.plugin.clone(),
            action: question.action.clone(),
            arguments: question.arguments.clone(),
            sealed: sealed(question, sender, id, &destinations)?,
            options: question.options.clone(),
            reply_to: sender.route.clone(),
            requires: question.requires(),
        };
        sender.seal(&command, command.id, command.id, destinations)
    };
    sender.targets(&question.audience).into_iter().map(one).collect()
}

/// The secrets of a question, sealed to the hosts of one of its commands.
fn sealed(
    question: &Question,
    sender: &Sender<'_>,
    request_id: RequestId,
    destinations: &Destinations,
) -> Result<Option<SealedArguments>, ClientError> {
    if question.secrets.is_empty() {
        return Ok(None);
    }
    let Destinations::Hosts(hosts) = destinations else { return Err(ClientError::NoSealingKey { host: None }) };
    let mut recipients = Vec::with_capacity(hosts.len());
    for host in hosts {
        let key = question.sealing_keys.get(host);
        recipients.push((host, key.ok_or_else(|| ClientError::NoSealingKey { host: Some(host.clone()) })?));
    }
    let caller = sender.credentials.identity();
    let context = SealingContext { request_id, caller, plugin: &question.plugin, action: &question.action };
    Ok(Some(seal(question.secrets.values(), &context, recipients)?))
}
