//! The names on the broker: exchanges, queues, routing keys. Everything that `broker-config`
//! generates and every declare, bind and publish in the programs comes from here.
//!
//! ```text
//! controller ──► cmd ── all | collective.NAME | host.HOST ──► agent.HOST ──► agent
//! agent ──► reply ── user/lea.SESSION.HOST ──► reply.user/lea.SESSION ──► controller
//!           reply ── presence.HOST ──► (services that keep an inventory)
//! ```
//!
//! Where a site has a broker of its own, the commands that its agents have bound wait for it on the central broker in the
//! queue of [`downlink_queue`], and its agents' reports wait on the site's broker in [`QUEUE_UPLINK`].
//!
//! A routing key's last words are always the host's name, so the broker's topic permission can hold
//! each host to its own name, and the first two words of a reply are the caller and its session, so
//! a controller can bind nothing but its own answers.

use crate::name::{CollectiveName, HostName, ReplyRoute, SiteName};

/// Topic exchange that carries commands from controllers to agents.
pub const EXCHANGE_COMMAND: &str = "cmd";

/// Topic exchange that carries reports and announcements from agents to controllers.
pub const EXCHANGE_REPLY: &str = "reply";

/// The virtual host, unless a site chooses another.
pub const VHOST_DEFAULT: &str = "muster";

/// Routing key that reaches every agent of the bus.
pub const KEY_ALL: &str = "all";

/// First word of announcement keys.
pub const KEY_PRESENCE: &str = "presence";

/// Queue on a site's broker that holds the reports on their way to the central broker.
pub const QUEUE_UPLINK: &str = "uplink";

/// Queue on the central broker that holds the commands on their way to a site. RabbitMQ's federation makes it and
/// chooses the name; `site` is the name of the site's cluster.
#[must_use]
pub fn downlink_queue(site: &SiteName) -> String {
    format!("federation: {EXCHANGE_COMMAND} -> {site}")
}

/// The queue of one host's agent.
#[must_use]
pub fn agent_queue(host: &HostName) -> String {
    format!("agent.{host}")
}

/// Key that reaches one host.
#[must_use]
pub fn host_key(host: &HostName) -> String {
    format!("host.{host}")
}

/// Key that reaches every agent of a collective.
#[must_use]
pub fn collective_key(collective: &CollectiveName) -> String {
    format!("collective.{collective}")
}

/// The queue that one session of a controller reads its answers from.
#[must_use]
pub fn reply_queue(route: &ReplyRoute) -> String {
    format!("reply.{route}")
}

/// Key a host publishes a report with.
#[must_use]
pub fn reply_key(route: &ReplyRoute, host: &HostName) -> String {
    format!("{route}.{host}")
}

/// Key a controller binds its reply queue with: every host's answers to this session.
#[must_use]
pub fn reply_binding(route: &ReplyRoute) -> String {
    format!("{route}.#")
}

/// Key a host announces itself with.
#[must_use]
pub fn presence_key(host: &HostName) -> String {
    format!("{KEY_PRESENCE}.{host}")
}

/// Key an inventory service binds to hear all announcements.
#[must_use]
pub fn presence_binding() -> String {
    format!("{KEY_PRESENCE}.#")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{HOST_NAME_BYTES_MAX, SESSION_NAME_BYTES_MAX, SHORT_NAME_BYTES_MAX};
    use crate::name::Identity;

    #[test]
    fn the_longest_names_fit_into_amqp() {
        let host = HostName::new(format!("{}aa", "a.".repeat((HOST_NAME_BYTES_MAX - 2) / 2))).unwrap();
        let service = Identity::Service("s".repeat(SHORT_NAME_BYTES_MAX).parse().unwrap());
        let route = ReplyRoute::new(service, "0".repeat(SESSION_NAME_BYTES_MAX).parse().unwrap()).unwrap();
        for name in
            [agent_queue(&host), host_key(&host), presence_key(&host), reply_queue(&route), reply_key(&route, &host)]
        {
            assert!(name.len() <= 255, "{} bytes: {name}", name.len());
        }
        assert_eq!(reply_key(&route, &host).len(), 8 + 63 + 1 + 32 + 1 + 150);
    }

    #[test]
    fn names_on_the_broker_are_a_promise() {
        let host = HostName::new("web1.example.com").unwrap();
        let route: ReplyRoute = "user/lea.7f3a".parse().unwrap();
        let names = [
            agent_queue(&host),
            host_key(&host),
            collective_key(&"main".parse().unwrap()),
            reply_queue(&route),
            reply_key(&route, &host),
            reply_binding(&route),
            presence_key(&host),
            presence_binding(),
        ];
        let expected = [
            "agent.web1.example.com",
            "host.web1.example.com",
            "collective.main",
            "reply.user/lea.7f3a",
            "user/lea.7f3a.web1.example.com",
            "user/lea.7f3a.#",
            "presence.web1.example.com",
            "presence.#",
        ];
        assert_eq!(names, expected);
    }
}
