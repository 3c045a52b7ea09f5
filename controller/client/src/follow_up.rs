//! Messages about a request that was sent before: stop it, or tell about it again.
//!
//! Either is a request of its own with reports of its own, so the same machinery sends it and collects
//! what the hosts say. A question may have become several commands; each of them is named with the hosts
//! that got it.

use std::collections::BTreeSet;

use muster_protocol::limits::COMMAND_WINDOW_MS_MAX;
use muster_protocol::{Cancel, HostName, ProtocolVersion, RequestId, Watch};

use crate::error::ClientError;
use crate::question::{Audience, OutputWish, Prepared, REPLY_TIMEOUT_MS_DEFAULT, Sender, TTL_MS_DEFAULT};

/// One command that was sent, and the hosts of it that are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The command's id.
    pub request: RequestId,
    /// Who is told or asked.
    pub audience: Audience,
}

/// What is wanted of a request that was sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That it stops.
    Cancel,
    /// That its hosts tell about it again.
    Watch {
        /// Also what was written before.
        replay: bool,
        /// Until its end, and not only how it stands now.
        follow: bool,
    },
}

/// A wish about a request that was sent before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// The commands that the request became. No host may be in two of them.
    pub parts: Vec<Part>,
    /// What is wanted.
    pub wish: Wish,
    /// How long the message lives, in milliseconds.
    pub ttl_ms: i64,
    /// How long a host may take until its first report, in milliseconds.
    pub reply_timeout_ms: i64,
    /// How long after its first report a host may take until its last one, in milliseconds.
    pub time_limit_ms: i64,
    /// What is done with output while it comes.
    pub output: OutputWish,
}

impl FollowUp {
    /// A wish with default times: an answer is waited for as for a question, the end of a request that
    /// is watched for a day.
    #[must_use]
    pub fn new(wish: Wish, parts: Vec<Part>) -> Self {
        let time_limit_ms = match wish {
            Wish::Watch { follow: true, .. } => COMMAND_WINDOW_MS_MAX,
            Wish::Watch { follow: false, .. } | Wish::Cancel => REPLY_TIMEOUT_MS_DEFAULT,
        };
        let reply_timeout_ms = REPLY_TIMEOUT_MS_DEFAULT;
        Self { parts, wish, ttl_ms: TTL_MS_DEFAULT, reply_timeout_ms, time_limit_ms, output: OutputWish::default() }
    }

    /// Everybody who is told or asked.
    ///
    /// # Errors
    /// A host is in two parts, or a broadcast stands beside other parts: their answers could not be told apart.
    pub(crate) fn audience(&self) -> Result<Audience, ClientError> {
        if let [part] = self.parts.as_slice() {
            return Ok(part.audience.clone());
        }
        let mut all: BTreeSet<HostName> = BTreeSet::new();
        for part in &self.parts {
            let Audience::Hosts(hosts) = &part.audience else {
                return Err(ClientError::Overlapping { request: part.request });
            };
            for host in hosts {
                if !all.insert(host.clone()) {
                    return Err(ClientError::Overlapping { request: part.request });
                }
            }
        }
        Ok(Audience::Hosts(all))
    }
}

/// Writes and signs the messages. `next_id` makes their ids.
pub(crate) fn prepare(
    follow_up: &FollowUp,
    sender: &Sender<'_>,
    mut next_id: impl FnMut() -> RequestId,
) -> Result<Vec<Prepared>, ClientError> {
    let mut prepared = Vec::new();
    for part in &follow_up.parts {
        for (target, destinations) in sender.targets(&part.audience) {
            let (protocol, id, request_id) = (ProtocolVersion::V1, next_id(), part.request);
            let caller = sender.credentials.identity().clone();
            let (created_at_ms, expires_at_ms) = (sender.now, sender.now.plus_ms(follow_up.ttl_ms));
            let (collective, reply_to) = (sender.collective.clone(), sender.route.clone());
            let requires = Vec::new();
            prepared.push(match follow_up.wish {
                Wish::Cancel => {
                    let cancel = Cancel {
                        protocol,
                        id,
                        request_id,
                        caller,
                        created_at_ms,
                        expires_at_ms,
                        collective,
                        target,
                        reply_to,
                        requires,
                    };
                    sender.seal(&cancel, id, request_id, destinations)?
                }
                Wish::Watch { replay, follow } => {
                    let watch = Watch {
                        protocol,
                        id,
                        request_id,
                        caller,
                        created_at_ms,
                        expires_at_ms,
                        collective,
                        target,
                        reply_to,
                        replay,
                        follow,
                        requires,
                    };
                    sender.seal(&watch, id, request_id, destinations)?
                }
            });
        }
    }
    Ok(prepared)
}
