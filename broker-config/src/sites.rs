//! Several brokers: a central one, and one at each site that is linked to it.
//!
//! A description ([`Sites`]) is one TOML file for all of them, from which each broker's own part follows ([`Sites::role`]).
//! It says which hosts belong to a site, by name or by domain. Everything else comes from that: who may log in where,
//! what the site's broker may read and write at the centre, what it forwards.
//!
//! # Invariants
//!
//! - A host belongs to one broker: the hosts of two sites cannot overlap.
//! - What is generated for a site is never wider than what the centre lets that site do. One forbidden routing key would
//!   end the whole link, so both come from the same [`LinkedSite`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use muster_protocol::{CollectiveName, HostName, Identity, NameError, SiteName};
use serde::{Deserialize, Serialize};

use crate::site::PORT_AMQPS;

/// The name of the central broker among those of the sites.
pub const CENTER: &str = "center";

/// Most names and domains of one site. They become one expression that RabbitMQ tries for each report.
pub const SITE_HOSTS_MAX: usize = 64;

/// Most addresses of the central broker: one for each node of a cluster, with room.
const CENTER_ADDRESSES_MAX: usize = 16;

/// Why a description of sites cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SitesError {
    /// Not TOML, an unknown key, or a name against its grammar; the text has line and column.
    #[error("read the description of the sites")]
    Parse(#[from] Box<toml::de::Error>),
    /// The centre has no address, or too many.
    #[error("`center.addresses` has {given} entries; 1 to {CENTER_ADDRESSES_MAX} are allowed")]
    Addresses {
        /// How many were given.
        given: usize,
    },
    /// A site is called like the centre, or like another site.
    #[error("site `{site}` is there twice, or has the name of the centre")]
    Name {
        /// The site.
        site: SiteName,
    },
    /// Two sites have one broker: each needs an identity of its own.
    #[error("sites `{one}` and `{other}` both have the broker `{broker}`")]
    Broker {
        /// The first site.
        one: SiteName,
        /// The second.
        other: SiteName,
        /// Their broker.
        broker: HostName,
    },
    /// No hosts, or more entries than fit into one expression.
    #[error("site `{site}` has {given} entries in `hosts`; 1 to {SITE_HOSTS_MAX} are allowed, and `*.DOMAIN` is one")]
    Hosts {
        /// The site.
        site: SiteName,
        /// How many were given.
        given: usize,
    },
    /// A host could belong to both.
    #[error("`{hosts}` of site `{one}` and `{overlap}` of site `{other}` overlap")]
    Overlap {
        /// The first site.
        one: SiteName,
        /// What it has.
        hosts: HostsOf,
        /// The second site.
        other: SiteName,
        /// What that one has.
        overlap: HostsOf,
    },
    /// No site has this name.
    #[error("there is no site `{given}`; there are {known}")]
    Unknown {
        /// What was asked for.
        given: String,
        /// The names there are.
        known: String,
    },
}

impl SitesError {
    /// Stable machine code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown-site",
            _ => "bad-sites",
        }
    }

    /// Reading the same text again gives the same error.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// Hosts of a site: one by its name, or all below a domain. Written `web1.example.com` or `*.ams1.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostsOf {
    /// One host.
    One(HostName),
    /// Every host below this domain, at any depth, but not the domain's own name.
    Below(HostName),
}

impl HostsOf {
    /// Whether the host is meant.
    #[must_use]
    pub fn has(&self, host: &HostName) -> bool {
        match self {
            Self::One(name) => name == host,
            Self::Below(domain) => is_below(host, domain),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(host), hosts) | (hosts, Self::One(host)) => hosts.has(host),
            (Self::Below(a), Self::Below(b)) => a == b || is_below(a, b) || is_below(b, a),
        }
    }
}

fn is_below(host: &HostName, domain: &HostName) -> bool {
    host.as_str().strip_suffix(domain.as_str()).is_some_and(|before| before.ends_with('.'))
}

impl fmt::Display for HostsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(host) => write!(f, "{host}"),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl FromStr for HostsOf {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("*.") {
            Some(domain) => Ok(Self::Below(HostName::new(domain)?)),
            None => Ok(Self::One(HostName::new(text)?)),
        }
    }
}

impl TryFrom<String> for HostsOf {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<HostsOf> for String {
    fn from(hosts: HostsOf) -> String {
        hosts.to_string()
    }
}

/// Where a broker is reached: `NAME` or `NAME:PORT`, where the name must be one in its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// A DNS name. Numbers are names too, but certificates rarely have them.
    pub name: HostName,
    /// The port for AMQP over TLS.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl TryFrom<String> for Address {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (name, port.ok_or_else(|| format!("address `{text}` has no port from 1 to 65535 after its colon"))?)
            }
            None => (text.as_str(), PORT_AMQPS),
        };
        Ok(Self { name: HostName::new(name).map_err(|error| error.to_string())?, port })
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

/// The central broker, as the sites see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Center {
    /// Where the sites reach it; several for a cluster, any of which will do.
    pub addresses: Vec<Address>,
}

/// A site: a broker of its own, linked to the centre.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkedSite {
    /// What it is called.
    pub name: SiteName,
    /// The name in its broker's certificate, `broker/NAME`. It logs in at the centre with it.
    pub broker: HostName,
    /// Its hosts.
    pub hosts: BTreeSet<HostsOf>,
    /// The collectives its hosts may belong to; none given: any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub collectives: BTreeSet<CollectiveName>,
}

impl LinkedSite {
    /// Whether the host belongs to this site.
    #[must_use]
    pub fn has(&self, host: &HostName) -> bool {
        self.hosts.iter().any(|hosts| hosts.has(host))
    }

    /// Who its broker is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::Broker(self.broker.clone())
    }
}

/// The description of all brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sites {
    center: Center,
    #[serde(default, rename = "site", skip_serializing_if = "Vec::is_empty")]
    sites: Vec<LinkedSite>,
}

impl Sites {
    /// Reads a description.
    ///
    /// # Errors
    /// It is not TOML, has an unknown key or a wrong name, or sites that cannot be told apart.
    pub fn parse(text: &str) -> Result<Self, SitesError> {
        let sites: Self = toml::from_str(text).map_err(Box::new)?;
        sites.check()?;
        Ok(sites)
    }

    fn check(&self) -> Result<(), SitesError> {
        let given = self.center.addresses.len();
        if given == 0 || given > CENTER_ADDRESSES_MAX {
            return Err(SitesError::Addresses { given });
        }
        let mut names = BTreeSet::from([CENTER]);
        let mut brokers: BTreeMap<&HostName, &SiteName> = BTreeMap::new();
        for (index, site) in self.sites.iter().enumerate() {
            if !names.insert(site.name.as_str()) {
                return Err(SitesError::Name { site: site.name.clone() });
            }
            if let Some(other) = brokers.insert(&site.broker, &site.name) {
                let broker = site.broker.clone();
                return Err(SitesError::Broker { one: other.clone(), other: site.name.clone(), broker });
            }
            if site.hosts.is_empty() || site.hosts.len() > SITE_HOSTS_MAX {
                return Err(SitesError::Hosts { site: site.name.clone(), given: site.hosts.len() });
            }
            for other in &self.sites[..index] {
                let mut pairs = other.hosts.iter().flat_map(|a| site.hosts.iter().map(move |b| (a, b)));
                if let Some((a, b)) = pairs.find(|(a, b)| a.overlaps(b)) {
                    return Err(SitesError::Overlap {
                        one: other.name.clone(),
                        hosts: a.clone(),
                        other: site.name.clone(),
                        overlap: b.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The names of all brokers, the centre first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(CENTER).chain(self.sites.iter().map(|site| site.name.as_str()))
    }

    /// What the broker called `name` is among the others.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn role(&self, name: &str) -> Result<Role, SitesError> {
        if name == CENTER {
            return Ok(Role::Center(self.sites.clone()));
        }
        match self.sites.iter().find(|site| site.name.as_str() == name) {
            Some(site) => Ok(Role::Site { site: site.clone(), center: self.center.clone() }),
            None => Err(SitesError::Unknown {
                given: name.chars().take(80).flat_map(char::escape_debug).collect(),
                known: self.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

/// What a broker is among others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Role {
    /// The only one.
    #[default]
    Alone,
    /// The one that controllers use, with the sites that are linked to it.
    Center(Vec<LinkedSite>),
    /// A site's.
    Site {
        /// The site.
        site: LinkedSite,
        /// Where it is linked to.
        center: Center,
    },
}

impl Role {
    /// Whether this identity's place is at this broker. Users and services may log in everywhere, a host at one broker, and
    /// a site's broker at the centre.
    #[must_use]
    pub fn admits(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (_, Identity::User(_) | Identity::Service(_)) | (Self::Alone, Identity::Host(_)) => true,
            (Self::Center(sites), Identity::Host(host)) => !sites.iter().any(|site| site.has(host)),
            (Self::Center(sites), Identity::Broker(name)) => sites.iter().any(|site| site.broker == *name),
            (Self::Site { site, .. }, Identity::Host(host)) => site.has(host),
            (Self::Alone | Self::Site { .. }, Identity::Broker(_)) => false,
        }
    }

    /// The name of this broker's cluster; `None` to leave it as it is. A site's is the end of the name of its queue at the
    /// centre, so two sites must never have the same.
    #[must_use]
    pub fn cluster_name(&self) -> Option<&str> {
        match self {
            Self::Alone | Self::Center(_) => None,
            Self::Site { site, .. } => Some(site.name.as_str()),
        }
    }
}

#[cfg(test)]
mod tests;
