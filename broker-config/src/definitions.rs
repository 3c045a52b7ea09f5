//! RabbitMQ's definitions: what `rabbitmqctl import_definitions` reads and `export_definitions` writes.
//!
//! Reading is tolerant, since newer brokers add fields; writing emits only what 3.10 and 4.x both know.

use std::collections::BTreeMap;

use muster_protocol::Identity;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::links;
use crate::pattern::escape;
use crate::permissions::permissions_at;
use crate::site::Site;
use crate::topology::{EXCHANGES, QUEUE_POLICIES};

/// Why a text is not a definitions document.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionsError {
    /// Not JSON, or a known field has another type.
    #[error("read broker definitions")]
    Parse(#[from] serde_json::Error),
}

impl DefinitionsError {
    /// Stable machine code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "bad-definitions"
    }

    /// Reading the same text again gives the same error.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// A definitions document. Fields that are not ours to generate are read only for [`crate::check()`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Definitions {
    /// Virtual hosts.
    pub vhosts: Vec<Vhost>,
    /// Users.
    pub users: Vec<User>,
    /// Permissions on queues and exchanges.
    pub permissions: Vec<Permission>,
    /// Permissions on routing keys.
    pub topic_permissions: Vec<TopicPermission>,
    /// Exchanges.
    pub exchanges: Vec<Exchange>,
    /// Policies.
    pub policies: Vec<Policy>,
    /// Durable queues. Agents and controllers make theirs; generated is only what waits for a link.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<Queue>,
    /// Durable bindings. Agents and controllers make theirs; generated are only those of a link.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<Binding>,
    /// Runtime parameters (federation, shovel, operator policies).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Runtime parameters of the whole broker, such as its cluster's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub global_parameters: Vec<Value>,
}

impl Definitions {
    /// Reads an exported or generated document.
    ///
    /// # Errors
    /// The text is not JSON or a known field has another type.
    pub fn parse(text: &str) -> Result<Self, DefinitionsError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The document as indented JSON with a final newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("maps with text keys always serialise");
        text.push('\n');
        text
    }
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vhost {
    /// Its name.
    pub name: String,
    /// Description and defaults.
    #[serde(default)]
    pub metadata: VhostMetadata,
}

/// What a virtual host says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VhostMetadata {
    /// For people.
    pub description: String,
    /// For tools.
    pub tags: Vec<String>,
    /// What a queue becomes that does not say it. 3.10 ignores it and means `classic` anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_queue_type: Option<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name, for ours the identity's URI.
    pub name: String,
    /// Empty for ours: no password is right.
    #[serde(default)]
    pub password_hash: String,
    /// How the hash was made.
    #[serde(default)]
    pub hashing_algorithm: String,
    /// Tags such as `administrator`. A list, or comma-separated text from old brokers.
    #[serde(default, deserialize_with = "tags")]
    pub tags: Vec<String>,
    /// `max-connections` and `max-channels`.
    #[serde(default)]
    pub limits: BTreeMap<String, i64>,
}

/// Permissions of a user on the resources of a virtual host, as regular expressions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// Create and delete.
    pub configure: String,
    /// Put in.
    pub write: String,
    /// Take out.
    pub read: String,
}

/// Permissions of a user on the routing keys of a topic exchange, as regular expressions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPermission {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// Which exchange.
    pub exchange: String,
    /// Keys to publish with.
    pub write: String,
    /// Keys to bind with.
    pub read: String,
}

/// An exchange.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// Where.
    pub vhost: String,
    /// `topic` for ours.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether it goes away with its last binding.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    #[serde(default)]
    pub internal: bool,
    /// Further arguments, such as an alternate exchange.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// A policy: limits for queues by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Where.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// Which names, as a regular expression.
    pub pattern: String,
    /// What of that name.
    #[serde(rename = "apply-to")]
    pub apply_to: String,
    /// The limits.
    pub definition: BTreeMap<String, Value>,
    /// The highest matching one applies.
    pub priority: i64,
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Where.
    #[serde(default)]
    pub vhost: String,
    /// Whether it survives a restart of the broker.
    #[serde(default)]
    pub durable: bool,
    /// Whether it goes away with its last consumer.
    #[serde(default)]
    pub auto_delete: bool,
    /// Its kind and limits.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// A runtime parameter: the settings of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Where.
    #[serde(default)]
    pub vhost: String,
    /// Whose: `federation-upstream`, `shovel`.
    #[serde(default)]
    pub component: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The settings.
    #[serde(default)]
    pub value: Value,
}

/// A durable binding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// The exchange that sends.
    pub source: String,
    /// Where.
    pub vhost: String,
    /// The queue or exchange that receives.
    pub destination: String,
    /// `queue` or `exchange`.
    pub destination_type: String,
    /// The binding key.
    pub routing_key: String,
    /// Further arguments, such as how far a federated binding goes.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// Reads tags as every version since 3.7 exports them.
fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Array(tags) => Ok(tags.into_iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()),
        Value::String(text) => {
            Ok(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
        }
        other => Err(serde::de::Error::custom(format_args!("tags are a list or a text, not {other}"))),
    }
}

/// Generates everything that the broker of `site` must import.
#[must_use]
pub fn definitions(site: &Site) -> Definitions {
    let mut result = Definitions {
        vhosts: vec![Vhost {
            name: site.vhost.clone(),
            metadata: VhostMetadata {
                description: "Muster: commands to hosts and their answers".to_owned(),
                tags: Vec::new(),
                default_queue_type: Some("classic".to_owned()),
            },
        }],
        exchanges: EXCHANGES.map(|name| topic_exchange(&site.vhost, name)).into(),
        policies: policies(&site.vhost),
        ..Definitions::default()
    };
    for identity in &site.identities {
        add_user(&mut result, site, identity);
    }
    links::add(&mut result, site);
    result
}

fn add_user(definitions: &mut Definitions, site: &Site, identity: &Identity) {
    let Some(permissions) = permissions_at(&site.role, identity) else { return };
    let vhost = &site.vhost;
    let user = permissions.user;
    definitions.users.push(User {
        name: user.clone(),
        password_hash: String::new(),
        hashing_algorithm: "rabbit_password_hashing_sha256".to_owned(),
        tags: Vec::new(),
        limits: BTreeMap::from([
            ("max-connections".to_owned(), permissions.connections_max.into()),
            ("max-channels".to_owned(), permissions.channels_max.into()),
        ]),
    });
    definitions.topic_permissions.extend(permissions.topics.iter().map(|rule| TopicPermission {
        user: user.clone(),
        vhost: vhost.clone(),
        exchange: rule.exchange.to_owned(),
        write: rule.write.to_string(),
        read: rule.read.to_string(),
    }));
    definitions.permissions.push(Permission {
        user,
        vhost: vhost.clone(),
        configure: permissions.configure.to_string(),
        write: permissions.write.to_string(),
        read: permissions.read.to_string(),
    });
}

fn topic_exchange(vhost: &str, name: &str) -> Exchange {
    Exchange {
        name: name.to_owned(),
        vhost: vhost.to_owned(),
        kind: "topic".to_owned(),
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Map::new(),
    }
}

pub(crate) fn queue_policy(vhost: &str, name: &str, pattern: &str, definition: Value) -> Policy {
    Policy {
        vhost: vhost.to_owned(),
        name: name.to_owned(),
        pattern: pattern.to_owned(),
        apply_to: "queues".to_owned(),
        definition: serde_json::from_value(definition).expect("an object becomes a map"),
        priority: 10,
    }
}

/// The limits of the queues, with the patterns of their names that RabbitMQ searches.
fn policies(vhost: &str) -> Vec<Policy> {
    let policies = QUEUE_POLICIES.iter().map(|policy| {
        let mut definition = json!({
            "expires": policy.expires_ms,
            "max-length": policy.messages_max,
            "max-length-bytes": policy.bytes_max,
            "overflow": policy.overflow.name(),
        });
        if let Some(message_ttl_ms) = policy.message_ttl_ms {
            definition["message-ttl"] = message_ttl_ms.into();
        }
        queue_policy(vhost, policy.name, &format!("^{}", escape(policy.prefix)), definition)
    });
    policies.collect()
}

#[cfg(test)]
mod tests;
