//! What a fleet needs that no playing decides: memory, storms, users, certificates, revocation lists.

use crate::constants::Constants;
use crate::engine::{Load, count};
use crate::model::{Layout, Outcome, Shape};

/// How long a broker's handshake may take, as generated (`broker-config`): who waits longer begins anew.
pub const HANDSHAKE_S: f64 = 60.0;

/// A fleet in one of the layouts that the plan compares.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// What it is called in the tables.
    pub name: String,
    /// The fleet and its full ping.
    pub shape: Shape,
}

/// Cores of a machine that somebody would buy for a broker.
const CORES: usize = 16;

/// The layouts that are compared for so many hosts, over a network with latency: 2 ms to a host, 20 ms to a site with 1 Gbit/s.
#[must_use]
pub fn candidates(hosts: usize, sites: &[usize]) -> Vec<Candidate> {
    let ping = |layout| Shape {
        host_latency_us: 2_000.0,
        host_jitter_us: 5_000.0,
        site_latency_us: 20_000.0,
        ..Shape::ping(hosts, layout)
    };
    let named = |name: &str, shape: Shape| Candidate { name: name.to_owned(), shape };
    let mut all = vec![
        named("one broker", ping(Layout::Cluster { nodes: 1, cores: CORES })),
        named("cluster of 3", ping(Layout::Cluster { nodes: 3, cores: CORES })),
        named(
            "cluster of 3, 10 sub-collectives at once",
            Shape { controllers: 10, ..ping(Layout::Cluster { nodes: 3, cores: CORES }) },
        ),
    ];
    for &sites in sites {
        let layout = Layout::Sites { sites, site_cores: 8, center_cores: CORES };
        all.push(named(&format!("{sites} sites"), ping(layout)));
        let several = Shape { controllers: 10, ..ping(layout) };
        all.push(named(&format!("{sites} sites, 10 sub-collectives at once"), several));
        let waves = Shape { waves: 10, ..ping(layout) };
        all.push(named(&format!("{sites} sites, 10 sub-collectives in turn"), waves));
    }
    all
}

/// What a layout needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Needs {
    /// Hosts of the fullest broker.
    pub hosts_a_broker: f64,
    /// Memory of that broker for its hosts.
    pub broker_bytes: f64,
    /// Memory of the centre for the keys of the sites' hosts.
    pub center_key_bytes: f64,
    /// Time until a link that comes back has bound the keys of its site anew.
    pub link_again_s: f64,
    /// Time until all hosts of the fullest broker are back after it was away, with all cores working.
    pub storm_s: f64,
    /// The spread of the agents' first pause that keeps everybody's handshake within its time.
    pub spread_s: f64,
    /// Bytes of the fullest broker's definitions, and the time to import them.
    pub definitions_bytes: f64,
    /// See `definitions_bytes`.
    pub definitions_s: f64,
    /// Memory of one controller.
    pub controller_bytes: f64,
}

/// Works out what a layout needs.
#[must_use]
pub fn needs(shape: &Shape, constants: &Constants) -> Needs {
    let (brokers, cores, sites) = match shape.layout {
        Layout::Together { cores } => (1, cores, 0),
        Layout::Cluster { nodes, cores } => (nodes, cores, 0),
        Layout::Sites { sites, site_cores, .. } => (sites, site_cores, sites),
    };
    let hosts = count(shape.hosts);
    let hosts_a_broker = (hosts / count(brokers.max(1))).ceil();
    let storm_s = hosts_a_broker * constants.connect_us / 1e6 / count(cores.max(1));
    // Users are the whole cluster's; a site has its own only.
    let users = if sites > 0 { hosts_a_broker } else { hosts };
    let asked_at_once = hosts / count(shape.controllers.max(1)) / count(shape.waves.max(1));
    Needs {
        hosts_a_broker,
        broker_bytes: hosts_a_broker * constants.host_bytes,
        center_key_bytes: if sites > 0 { hosts * constants.link_host_bytes } else { 0.0 },
        link_again_s: if sites > 0 { hosts_a_broker / constants.link_keys_per_second } else { 0.0 },
        storm_s,
        spread_s: (storm_s - HANDSHAKE_S).max(storm_s / 2.0).ceil(),
        definitions_bytes: users * constants.user_bytes,
        definitions_s: users * constants.user_import_us / 1e6,
        controller_bytes: constants.controller_base_bytes + asked_at_once * constants.controller_host_bytes,
    }
}

/// What is scarce: the busiest process or machine, and its share.
#[must_use]
pub fn narrowest(outcome: &Outcome) -> Option<Load> {
    let machines = outcome.brokers.iter();
    machines.chain(&outcome.busiest).max_by(|a, b| a.share.total_cmp(&b.share)).cloned()
}

/// Certificates and their revocation, which do not depend on the layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificates {
    /// Time of the authority to issue all of them, one after the other.
    pub issue_s: f64,
    /// Certificates that end on a day, with the lifetime of hosts (825 days).
    pub renewals_a_day: f64,
    /// Bytes of the revocation list, with one host in a hundred revoked before its time each year.
    pub revocation_bytes: f64,
    /// Bytes to send that list to everybody once.
    pub distribution_bytes: f64,
    /// Bytes a second that the idle fleet sends and receives.
    pub idle_bytes_per_second: f64,
}

/// Works that out for so many hosts.
#[must_use]
pub fn certificates(hosts: usize, constants: &Constants) -> Certificates {
    let hosts = count(hosts);
    // An entry stays until its certificate has ended: 825 days at one in a hundred a year.
    let revocation_bytes = hosts * 0.01 * (825.0 / 365.0) * constants.revocation_bytes;
    Certificates {
        issue_s: hosts * constants.certificate_us / 1e6,
        renewals_a_day: hosts / 825.0,
        revocation_bytes,
        distribution_bytes: revocation_bytes * hosts,
        idle_bytes_per_second: hosts * constants.idle_bytes_per_minute / 60.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants::MEASURED;

    #[test]
    fn needs_follow_from_the_numbers() {
        let (constants, _) = Constants::parse(MEASURED).unwrap();
        let all = candidates(100_000, &[10]);
        let needs = |name: &str| needs(&all.iter().find(|it| it.name == name).unwrap().shape, &constants);
        let (one, three, sites) = (needs("one broker"), needs("cluster of 3"), needs("10 sites"));
        assert!((one.hosts_a_broker, three.hosts_a_broker, sites.hosts_a_broker) == (100_000.0, 33_334.0, 10_000.0));
        // Users belong to the whole cluster, and to their own site.
        assert!((one.definitions_bytes - three.definitions_bytes).abs() < 1.0);
        assert!((one.definitions_bytes - 10.0 * sites.definitions_bytes).abs() < 1.0);
        assert!(one.center_key_bytes == 0.0 && sites.center_key_bytes > 0.0);
        let waves = needs("10 sites, 10 sub-collectives in turn");
        assert!(waves.controller_bytes < sites.controller_bytes);
        // Nobody waits for longer than a handshake may take.
        assert!(one.storm_s - one.spread_s <= HANDSHAKE_S);
    }

    #[test]
    fn certificates_grow_with_the_fleet() {
        let (constants, _) = Constants::parse(MEASURED).unwrap();
        let (small, large) = (certificates(1_000, &constants), certificates(1_000_000, &constants));
        assert!((large.issue_s / small.issue_s - 1_000.0).abs() < 1e-6);
        // A list of a size that follows the fleet, sent to all of it.
        assert!((large.distribution_bytes / small.distribution_bytes - 1e6).abs() < 1e-3);
    }
}
