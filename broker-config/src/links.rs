//! What links a site's broker to the central one: federation for commands, a shovel for reports.
//!
//! ```text
//! controller ──► cmd ──► federation: cmd -> SITE ═══ link ═══► cmd ──► agent.HOST ──► agent
//! controller ◄── reply.CALLER ◄── reply ◄═══ shovel ═══ uplink ◄── reply ◄── agent
//!                    the centre                              the site
//! ```
//!
//! Both are run by the site's broker, which logs in at the centre with its own certificate: the centre needs no way to the
//! site. Federation binds at the centre what agents have bound at the site, so that only commands that somebody there can
//! hear cross, and a command to a host without a queue is as unroutable as it is with one broker. Reports take a shovel,
//! because federation would have to bind each session's answers at every site before the first answer comes, and does so
//! in its own time: reports that are quicker would be lost.

use std::fmt::Write as _;
use std::path::Path;

use muster_protocol::routing::{EXCHANGE_COMMAND, EXCHANGE_REPLY, QUEUE_UPLINK, presence_key};
use serde_json::{Map, Value, json};

use crate::definitions::{Binding, Definitions, Parameter, Policy, Queue, queue_policy};
use crate::site::Site;
use crate::sites::{Address, Center, HostsOf, LinkedSite, Role};
use crate::topology::{AGENT_EXPIRES_MS, AGENT_MESSAGE_TTL_MS};

/// Commands that wait for a site whose link is down. A run of a named action on ten thousand hosts is ten thousand.
const DOWNLINK_MESSAGES_MAX: i64 = 200_000;

/// Bytes that wait for a site.
const DOWNLINK_BYTES_MAX: i64 = 1024 * 1024 * 1024;

/// Reports that wait for the centre. Agents keep theirs when it is full.
const UPLINK_MESSAGES_MAX: i64 = 1_000_000;

/// Bytes that wait for the centre, on the disk of the site's broker.
const UPLINK_BYTES_MAX: i64 = 4 * 1024 * 1024 * 1024;

/// No report lives longer: agents give theirs a time of their own, which is shorter.
const UPLINK_MESSAGE_TTL_MS: i64 = 24 * 60 * 60 * 1000;

/// Messages on their way over a link at once. At 100 ms there and back this is 10,000 a second.
const LINK_PREFETCH: i64 = 1_000;

/// Seconds between attempts to reach the centre.
const LINK_RECONNECT_S: i64 = 5;

/// Name of the upstream, of the policy that uses it, and of the shovel.
const CENTER_NAME: &str = "muster-center";

/// Adds what a broker with this role needs beside users.
pub(crate) fn add(definitions: &mut Definitions, site: &Site) {
    match &site.role {
        Role::Alone => {}
        Role::Center(_) => definitions.policies.push(queue_policy(
            &site.vhost,
            "muster-downlink",
            &format!("^federation: {EXCHANGE_COMMAND} -> "),
            json!({
                "expires": AGENT_EXPIRES_MS,
                "message-ttl": AGENT_MESSAGE_TTL_MS,
                "max-length": DOWNLINK_MESSAGES_MAX,
                "max-length-bytes": DOWNLINK_BYTES_MAX,
                // As for a single host: refusing would let one absent site fail a broadcast to all others.
                "overflow": "drop-head",
            }),
        )),
        Role::Site { site: linked, center } => add_site(definitions, site, linked, center),
    }
}

fn add_site(definitions: &mut Definitions, site: &Site, linked: &LinkedSite, center: &Center) {
    let vhost = &site.vhost;
    definitions.global_parameters.push(json!({ "name": "cluster_name", "value": linked.name }));
    definitions.queues.push(Queue {
        name: QUEUE_UPLINK.to_owned(),
        vhost: vhost.clone(),
        durable: true,
        auto_delete: false,
        arguments: Map::from_iter([("x-queue-type".to_owned(), Value::from("classic"))]),
    });
    definitions.bindings.extend(uplink_keys(linked).map(|routing_key| Binding {
        source: EXCHANGE_REPLY.to_owned(),
        vhost: vhost.clone(),
        destination: QUEUE_UPLINK.to_owned(),
        destination_type: "queue".to_owned(),
        routing_key,
        arguments: Map::new(),
    }));
    definitions.policies.push(queue_policy(
        vhost,
        "muster-uplink",
        &format!("^{QUEUE_UPLINK}$"),
        json!({
            "message-ttl": UPLINK_MESSAGE_TTL_MS,
            "max-length": UPLINK_MESSAGES_MAX,
            "max-length-bytes": UPLINK_BYTES_MAX,
            // Agents get a negative confirm and keep their reports, so nothing is lost.
            "overflow": "reject-publish",
        }),
    ));
    definitions.policies.push(Policy {
        apply_to: "exchanges".to_owned(),
        ..queue_policy(
            vhost,
            CENTER_NAME,
            &format!("^{EXCHANGE_COMMAND}$"),
            json!({ "federation-upstream": CENTER_NAME }),
        )
    });
    let uris: Vec<String> = center.addresses.iter().map(|address| uri(site, address)).collect();
    definitions.parameters.push(Parameter {
        vhost: vhost.clone(),
        component: "federation-upstream".to_owned(),
        name: CENTER_NAME.to_owned(),
        value: json!({
            "uri": uris,
            "ack-mode": "on-confirm",
            "prefetch-count": LINK_PREFETCH,
            "reconnect-delay": LINK_RECONNECT_S,
            // A command that came over a link goes over no other.
            "max-hops": 1,
            "trust-user-id": false,
            "expires": AGENT_EXPIRES_MS,
            "message-ttl": AGENT_MESSAGE_TTL_MS,
        }),
    });
    definitions.parameters.push(Parameter {
        vhost: vhost.clone(),
        component: "shovel".to_owned(),
        name: CENTER_NAME.to_owned(),
        value: json!({
            "src-protocol": "amqp091",
            // Without a host it is the broker itself, without a login.
            "src-uri": format!("amqp:///{}", encoded(vhost)),
            "src-queue": QUEUE_UPLINK,
            "src-prefetch-count": LINK_PREFETCH,
            "dest-protocol": "amqp091",
            "dest-uri": uris,
            "dest-exchange": EXCHANGE_REPLY,
            "dest-add-forward-headers": false,
            // The centre takes only the sender's own name there. Whose report it is, its signature says.
            "dest-publish-properties": { "user_id": linked.identity() },
            "ack-mode": "on-confirm",
            "reconnect-delay": LINK_RECONNECT_S,
        }),
    });
}

/// Keys of everything that hosts of the site publish and the centre takes from it, and of nothing else: a key that the
/// centre refuses would hold up those behind it. `#` also stands for nothing.
fn uplink_keys(site: &LinkedSite) -> impl Iterator<Item = String> {
    site.hosts.iter().flat_map(|hosts| match hosts {
        HostsOf::One(host) => vec![format!("*.*.{host}"), presence_key(host)],
        // Caller and session, then the host; or `presence`, the host's first label, and the rest.
        HostsOf::Below(domain) => vec![format!("*.*.#.{domain}")],
    })
}

/// The centre's address, with this broker's own certificate as the login. Nothing in it is secret.
fn uri(site: &Site, address: &Address) -> String {
    let path = |path: &Path| encoded(&path.display().to_string());
    format!(
        "amqps://{address}/{vhost}?cacertfile={ca}&certfile={certificate}&keyfile={key}\
         &verify=verify_peer&server_name_indication={name}&auth_mechanism=external",
        vhost = encoded(&site.vhost),
        ca = path(&site.certificate.ca),
        certificate = path(&site.certificate.certificate),
        key = path(&site.certificate.key),
        name = address.name,
    )
}

/// Percent-encodes everything that means something in an address.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string succeeds");
        }
        encoded
    })
}
