//! How one host's agent is put together.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use muster_agent::config::{Config, Raw};
use muster_agent::facts::Sources;
use muster_agent::policy::Policy;
use muster_agent::{Agent, Materials, Parts};
use muster_bus::Bus;
use muster_daemon::{Blocking, SystemClock};
use muster_pki::{Credentials, Trust};
use muster_plugin_api::Registry;

use crate::disk::FleetDisk;
use crate::inventory::HostPlan;
use crate::options::{Options, Pauses};
use crate::plugin::{FleetPlugin, Ledger};

/// Everybody may do everything: what is tested is elsewhere.
const POLICY: &str = "[[rule]]\nname = \"all\"\neffect = \"allow\"\nwhen = 'true'\n";

/// Odd, so that different numbers give different seeds that are far apart.
const SEED_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// What all agents of a fleet go by.
pub(crate) fn policy() -> Result<Arc<Policy>> {
    Ok(Arc::new(Policy::parse(POLICY, Path::new("policy.toml"))?))
}

/// What the pauses of the host with this number come from.
pub(crate) fn seed(options: &Options, number: usize) -> u64 {
    match options.pauses {
        Pauses::Own => options.seed.wrapping_add(number as u64).wrapping_mul(SEED_FACTOR),
        Pauses::Same => options.seed,
    }
}

/// The configuration of a host whose state lies below `state`.
pub(crate) fn config(plan: &HostPlan, url: &str, options: &Options, state: &Path) -> Result<Config> {
    let mut raw = Raw { state_dir: state.join(plan.name.as_str()), ..Raw::default() };
    raw.broker.urls = vec![url.parse().context("read the broker's address")?];
    (options.configure)(&mut raw);
    Config::from_values(raw).context("configure an agent")
}

/// What an agent is made of, besides who it is.
pub(crate) struct AgentParts {
    pub(crate) config: Config,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) trust: Trust,
    pub(crate) policy: Arc<Policy>,
    pub(crate) ledger: Ledger,
}

/// The agent of a host.
pub(crate) fn agent(plan: &HostPlan, credentials: Credentials, random_seed: u64, parts: AgentParts) -> Result<Agent> {
    let AgentParts { config, bus, trust, policy, ledger } = parts;
    let mut registry = Registry::new();
    registry.register(Arc::new(muster_plugins::Host::new()))?;
    registry.register(Arc::new(FleetPlugin::new(ledger)))?;
    let parts = Parts {
        materials: Materials { bus, credentials, trust, policy },
        registry,
        facts: Sources::given(plan.name.clone(), plan.facts.clone(), plan.classes.clone()),
        clock: Arc::new(SystemClock),
        disk: Arc::new(FleetDisk::default()),
        blocking: Blocking::Threads,
        random_seed,
        runner: None,
        reload: None,
    };
    Agent::new(config, parts).with_context(|| format!("build the agent of `{}`", plan.name))
}
