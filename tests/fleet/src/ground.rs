//! What a measurement stands on: a broker, an authority, and hosts that may log in, before anybody does.
//!
//! A fleet and a raw echo that are compared use the same ground, one after the other: the same broker, the same
//! certificates, the same names. [`Ground::clear`] takes away what the one before has left on the broker.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use muster_pki::Credentials;
use muster_protocol::{HostName, Identity};
use muster_tests::pki::Site;
use zeroize::Zeroizing;

use crate::broker::{Broker, BrokerKind};
use crate::inventory::{HostPlan, plan};
use crate::limits::{self, Allowed};
use crate::options::Progress;

/// Who commands a fleet, besides its hosts.
const OTHERS: [&str; 2] = ["user/lea", "service/registry"];

/// A running broker and everybody who may use it.
#[derive(Debug)]
pub struct Ground {
    /// The broker.
    pub broker: Broker,
    /// Who issues certificates.
    pub site: Site,
    pub(crate) plans: Vec<HostPlan>,
    pub(crate) seed: u64,
    pub(crate) allowed: Allowed,
    credentials: Vec<Credentials>,
    /// In PEM, for agents in other processes.
    keys: Vec<Zeroizing<String>>,
}

impl Ground {
    /// Issues certificates for so many hosts, made up from `seed`, and starts a broker for them. Needs a runtime with
    /// several threads.
    ///
    /// # Errors
    /// The broker is not installed or not built, or the system has no room for so many; then with the settings that are too
    /// small.
    pub fn prepare(broker: BrokerKind, hosts: usize, seed: u64) -> Result<Self> {
        Self::prepare_and_tell(broker, hosts, seed, |_| {})
    }

    /// The same, and tells how far it is.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_and_tell(broker: BrokerKind, hosts: usize, seed: u64, tell: fn(Progress)) -> Result<Self> {
        let allowed = limits::require(hosts)?;
        tell(Progress::Issuing { hosts });
        let plans = plan(hosts, seed);
        let site = Site::watched()?;
        let identities: Vec<Identity> = plans.iter().map(|plan| Identity::Host(plan.name.clone())).collect();
        let (mut credentials, mut keys) = (Vec::with_capacity(hosts), Vec::with_capacity(hosts));
        for (certificate, key) in site.authority().mint(&identities)? {
            keys.push(key.to_pem());
            credentials.push(Credentials::new(certificate, key, "a host's certificate")?);
        }
        tell(Progress::BrokerStarts { broker, hosts });
        let others = OTHERS.iter().map(|name| name.parse().context("read an identity")).collect::<Result<Vec<_>>>()?;
        let broker = Broker::start(broker, &site, identities.into_iter().chain(others))?;
        Ok(Self { broker, site, plans, seed, allowed, credentials, keys })
    }

    /// Credentials and keys of some of the hosts.
    pub(crate) fn with_keys(&self, hosts: Range<usize>) -> Vec<(Credentials, Zeroizing<String>)> {
        self.credentials[hosts.clone()].iter().cloned().zip(self.keys[hosts].iter().cloned()).collect()
    }

    /// The hosts that may log in.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.plans.iter().map(|plan| &plan.name)
    }

    /// The credentials of the first `count` hosts.
    ///
    /// # Errors
    /// There are fewer.
    pub fn credentials(&self, count: usize) -> Result<&[Credentials]> {
        self.credentials.get(..count).with_context(|| format!("{count} of {} hosts", self.credentials.len()))
    }

    /// The credentials of `user/lea`, who is in the group `admins`.
    #[must_use]
    pub fn controller(&self) -> Credentials {
        self.site.member_in("user/lea", &["admins"]).credentials
    }

    /// Empties the broker once nobody is connected, so that whoever comes next finds nothing of those before.
    ///
    /// # Errors
    /// Somebody stays connected for two minutes, or the broker refuses.
    pub fn clear(&self) -> Result<()> {
        self.broker.clear()?;
        let left = self.queues()?;
        ensure!(left.is_empty(), "{} queues are left on the broker", left.len());
        Ok(())
    }

    /// The names of all queues on the broker.
    ///
    /// # Errors
    /// The broker does not tell.
    pub fn queues(&self) -> Result<BTreeSet<String>> {
        Ok(self.broker.queues()?.into_keys().collect())
    }

    /// Stops the broker.
    ///
    /// # Errors
    /// Its processes outlive even force.
    pub fn stop(mut self) -> Result<()> {
        self.broker.stop()
    }
}
