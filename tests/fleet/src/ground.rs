//! What a measurement stands on: a broker, an authority, and hosts that may log in, before anybody does.
//!
//! A fleet and a raw echo that are compared use the same ground, one after the other: the same broker process, the same
//! certificates, the same names. [`Ground::clear`] takes away what the one before has left on the broker.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use muster_pki::Credentials;
use muster_protocol::routing::VHOST_DEFAULT;
use muster_protocol::{HostName, Identity};
use muster_tests::pki::Site;
use zeroize::Zeroizing;

use crate::blocking::blocking;
use crate::broker::Broker;
use crate::inventory::{HostPlan, plan};
use crate::limits::{self, Allowed};
use crate::options::Progress;

/// Who commands a fleet, besides its hosts.
const OTHERS: [&str; 2] = ["user/lea", "service/registry"];

/// What the broker does to become empty. It notices hung-up connections one after the other.
const CLEAR: &str = r#"
    Wait = fun Again(0) -> still_connected;
               Again(Tenths) ->
                   case rabbit_networking:connections() of
                       [] -> ok;
                       _ -> timer:sleep(100), Again(Tenths - 1)
                   end
           end,
    case Wait(1200) of
        ok -> [rabbit_amqqueue:delete(Queue, false, false, <<"fleet">>) || Queue <- rabbit_amqqueue:list(<<"muster">>)], ok;
        Other -> Other
    end."#;

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
    /// RabbitMQ is not installed, or the system has no room for so many; then with the settings that are too small.
    pub fn prepare(hosts: usize, seed: u64) -> Result<Self> {
        Self::prepare_and_tell(hosts, seed, |_| {})
    }

    /// The same, and tells how far it is.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_and_tell(hosts: usize, seed: u64, tell: fn(Progress)) -> Result<Self> {
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
        tell(Progress::BrokerStarts { hosts });
        let others = OTHERS.iter().map(|name| name.parse().context("read an identity")).collect::<Result<Vec<_>>>()?;
        let broker = Broker::start(&site, identities.into_iter().chain(others))?;
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

    /// Waits until nobody is connected, and deletes all queues, so that whoever comes next starts on an empty broker.
    ///
    /// # Errors
    /// Somebody stays connected for two minutes, or `rabbitmqctl` fails.
    pub fn clear(&self) -> Result<()> {
        let said =
            blocking(|| self.broker.node().ctl(&["--timeout", "180", "eval", CLEAR])).context("clear the broker")?;
        ensure!(said == "ok", "the broker cannot be cleared: {said}");
        let left = self.queues()?;
        ensure!(left.is_empty(), "{} queues are left on the broker", left.len());
        Ok(())
    }

    /// The names of all queues on the broker.
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub fn queues(&self) -> Result<BTreeSet<String>> {
        let list = ["list_queues", "-p", VHOST_DEFAULT, "--no-table-headers", "name"];
        let names = blocking(|| self.broker.node().ctl(&list)).context("list the queues")?;
        Ok(names.lines().map(ToOwned::to_owned).collect())
    }

    /// Stops the broker.
    ///
    /// # Errors
    /// Its processes outlive even force.
    pub fn stop(mut self) -> Result<()> {
        self.broker.stop()
    }
}
