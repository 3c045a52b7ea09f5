//! What the hosts of a fleet are: names, roles, data centres, systems. Made from a seed, so that the same fleet can be
//! had again.

use std::collections::BTreeSet;

use muster_protocol::HostName;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};

/// An expression that selects exactly every tenth host of any fleet.
pub const TENTH: &str = "patch_group = 3";

/// Roles with their share in a hundred hosts, and the classes that come with them.
const ROLES: &[(&str, u32, &[&str])] = &[
    ("web", 40, &["nginx", "php"]),
    ("app", 25, &["tomcat"]),
    ("db", 12, &["postgresql"]),
    ("cache", 8, &["redis"]),
    ("mail", 3, &["postfix"]),
    ("build", 7, &["gitlab_runner", "docker"]),
    ("edge", 5, &["haproxy"]),
];

/// Data centres with their share in a hundred hosts.
const PLACES: &[(&str, u32)] = &[("ams1", 45), ("fra2", 35), ("par1", 15), ("sin1", 5)];

/// Family, name, release and kernel of a system.
type System = (&'static str, &'static str, &'static str, &'static str);

/// Systems with their share in a hundred hosts: family, name, release, kernel.
const SYSTEMS: &[(System, u32)] = &[
    (("Debian", "Debian", "12", "6.1.0"), 45),
    (("Debian", "Debian", "11", "5.10.0"), 15),
    (("Debian", "Ubuntu", "22.04", "5.15.0"), 15),
    (("RedHat", "Rocky", "9.4", "5.14.0"), 17),
    (("Suse", "SLES", "15.5", "5.14.21"), 5),
    (("Alpine", "Alpine", "3.20", "6.6.31"), 3),
];

/// Versions of a library with their share in a hundred hosts.
const OPENSSL: &[(&str, u32)] = &[("3.0.11", 50), ("3.0.9", 20), ("1.1.1w", 25), ("1.1.1n", 5)];

/// One host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostPlan {
    /// Its name, `ROLE-NUMBER.PLACE.example.com`.
    pub name: HostName,
    /// Its facts, nested as an agent collects them.
    pub facts: Map<String, Value>,
    /// Its classes.
    pub classes: BTreeSet<String>,
}

/// Plans so many hosts.
///
/// # Panics
/// Never: the names are built from valid parts.
#[must_use]
pub fn plan(hosts: usize, seed: u64) -> Vec<HostPlan> {
    let mut random = SmallRng::seed_from_u64(seed);
    (0..hosts).map(|number| host(number, &mut random)).collect()
}

fn host(number: usize, random: &mut SmallRng) -> HostPlan {
    let (role, _, classes) = ROLES[draw(random, ROLES.iter().map(|row| row.1))];
    let (place, _) = PLACES[draw(random, PLACES.iter().map(|row| row.1))];
    let ((family, system, release, kernel), _) = SYSTEMS[draw(random, SYSTEMS.iter().map(|row| row.1))];
    let processors = 1_u32 << random.random_range(1..6_u32);
    let memory_mb = u64::from(processors) * 2_048 * random.random_range(1..4_u64);
    let patch = random.random_range(1..40_u32);
    let address = format!("10.{}.{}.{}", number / 62_500 % 250, number / 250 % 250, number % 250 + 1);
    let name = format!("{role}-{:04}.{place}.example.com", number + 1);
    let (major, minor) = release.split_once('.').unwrap_or((release, "0"));
    let facts = json!({
        "role": role,
        "dc": place,
        "rack": format!("{place}-r{:02}", number / 40 % 60 + 1),
        "environment": if random.random_range(0..10_u32) == 0 { "staging" } else { "production" },
        "owner": if role == "db" { "data" } else { "platform" },
        "os": { "family": family, "name": system, "release": { "full": release, "major": major, "minor": minor } },
        "kernel": { "name": "Linux", "release": format!("{kernel}-{patch}") },
        "cpus": processors,
        "memory": { "total_mb": memory_mb },
        "patch_group": number % 10,
        "network": { "fqdn": name, "address": address, "interfaces": ["lo", "eth0"] },
        "disks": disks(role, random),
        "maintenance": { "window": format!("{:02}:00", 20 + number % 10 % 4) },
        "uptime_days": random.random_range(0..400_u32),
        "virtual": random.random_range(0..10_u32) < 8,
        "packages": { "openssl": OPENSSL[draw(random, OPENSSL.iter().map(|row| row.1))].0 },
        "tags": tags(number, random),
    });
    let Value::Object(facts) = facts else { unreachable!("an object was written") };
    let classes = ["base", "ntp", "sshd", role].iter().chain(classes).map(ToString::to_string).collect();
    HostPlan { name: name.parse().expect("a role, a number and a place make a host's name"), facts, classes }
}

/// What a host of this role stores things on.
fn disks(role: &str, random: &mut SmallRng) -> Vec<Value> {
    let count = if role == "db" { 4 } else { 1 };
    let one = |letter: u8, random: &mut SmallRng| json!({ "name": format!("sd{}", char::from(b'a' + letter)), "size_gb": 40 * random.random_range(1..8_u64) });
    (0..count).map(|letter| one(letter, random)).collect()
}

/// Words that people stick to hosts: few have several.
fn tags(number: usize, random: &mut SmallRng) -> Vec<&'static str> {
    let mut tags = vec!["managed"];
    if number.is_multiple_of(50) {
        tags.push("canary");
    }
    if random.random_range(0..4_u32) == 0 {
        tags.push("pci");
    }
    tags
}

/// Draws an index by the rows' shares.
fn draw(random: &mut SmallRng, shares: impl Iterator<Item = u32> + Clone) -> usize {
    let mut left = random.random_range(0..shares.clone().sum::<u32>());
    for (index, share) in shares.enumerate() {
        if left < share {
            return index;
        }
        left -= share;
    }
    0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muster_protocol::expr::{Expression, HostScope, Truth};

    use super::*;

    #[test]
    fn a_seed_makes_the_same_fleet_with_names_of_its_own() {
        let fleet = plan(2_000, 7);
        assert_eq!(fleet, plan(2_000, 7));
        assert_ne!(fleet[..20], plan(20, 8)[..]);
        let names: BTreeSet<&HostName> = fleet.iter().map(|host| &host.name).collect();
        assert_eq!(names.len(), 2_000);
    }

    #[test]
    fn expressions_select_what_they_say() {
        let fleet = plan(1_000, 1);
        let (plugins, collectives, calls) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let selected = |text: &str| {
            let expression = Expression::parse(text).unwrap();
            let matches = |host: &&HostPlan| {
                let (name, facts, classes) = (&host.name, &host.facts, &host.classes);
                let scope =
                    HostScope { name, facts, classes, plugins: &plugins, collectives: &collectives, calls: &calls };
                expression.evaluate(&scope) == Truth::True
            };
            fleet.iter().filter(matches).count()
        };
        // Expression, fewest and most hosts of a thousand.
        let cases = [
            (TENTH, 100, 100),
            ("role = web and dc = ams1", 140, 220),
            ("os.family = Debian and os.release.major >= 12", 550, 650),
            ("class = postgresql", 90, 150),
            ("memory.total_mb > 64000", 250, 550),
            ("has(disks[3])", 90, 150),
            ("packages.openssl < \"1.1.1w\"", 20, 90),
            ("tags = canary", 20, 20),
        ];
        for (expression, least, most) in cases {
            let count = selected(expression);
            assert!((least..=most).contains(&count), "`{expression}` selects {count}, not {least} to {most}");
        }
    }

    #[test]
    fn the_mix_is_about_what_the_tables_say() {
        let fleet = plan(2_000, 1);
        for (role, share, _) in ROLES {
            let found = fleet.iter().filter(|host| host.facts["role"] == *role).count();
            let expected = usize::try_from(*share).unwrap() * 20;
            assert!(found.abs_diff(expected) < 80, "{role}: {found}, expected about {expected}");
        }
    }
}
