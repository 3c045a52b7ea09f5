//! What a run is told besides its seed.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A kind of fault, so that one can be switched off to narrow a failure down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The broker confirms a message and loses it.
    Drop,
    /// A message arrives late, and others overtake it.
    Delay,
    /// A message arrives twice.
    Duplicate,
    /// A connection breaks.
    Cut,
    /// A host or a controller cannot be reached for a while.
    Partition,
    /// The broker restarts: connections, transient messages and exclusive queues are gone.
    Broker,
    /// The broker takes no messages for a while.
    Blocked,
    /// An operator deletes a host's queue.
    Queue,
    /// An agent's process ends without a word.
    Crash,
    /// A host ends without a word, and its disk forgets what was not synced.
    Host,
    /// An agent or a host ends between two operations on its disk.
    Step,
    /// An agent is stopped and started, as an upgrade does.
    Restart,
    /// A disk is full for a while.
    Full,
    /// An operation on a disk fails.
    Disk,
    /// A clock jumps, or is wrong from the beginning.
    Clock,
    /// A controller goes away in the middle of a request.
    Client,
    /// A certificate is revoked.
    Revoke,
    /// A policy is replaced.
    Policy,
    /// Somebody who reads and writes on the broker replays, forges and widens.
    Attack,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Drop,
        Self::Delay,
        Self::Duplicate,
        Self::Cut,
        Self::Partition,
        Self::Broker,
        Self::Blocked,
        Self::Queue,
        Self::Crash,
        Self::Host,
        Self::Step,
        Self::Restart,
        Self::Full,
        Self::Disk,
        Self::Clock,
        Self::Client,
        Self::Revoke,
        Self::Policy,
        Self::Attack,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Delay => "delay",
            Self::Duplicate => "duplicate",
            Self::Cut => "cut",
            Self::Partition => "partition",
            Self::Broker => "broker",
            Self::Blocked => "blocked",
            Self::Queue => "queue",
            Self::Crash => "crash",
            Self::Host => "host",
            Self::Step => "step",
            Self::Restart => "restart",
            Self::Full => "full",
            Self::Disk => "disk",
            Self::Clock => "clock",
            Self::Client => "client",
            Self::Revoke => "revoke",
            Self::Policy => "policy",
            Self::Attack => "attack",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("there is no kind of fault `{text}`; there are {}", names.join(", "))
        })
    }
}

/// What a run is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Decides everything that the other options leave open.
    pub seed: u64,
    /// How many hosts; the seed's choice without it.
    pub hosts: Option<usize>,
    /// How many requests each controller makes; the seed's choice without it.
    pub steps: Option<usize>,
    /// Faults that do not happen.
    pub without: BTreeSet<FaultKind>,
    /// Whether each line of the trace is printed as it comes about, with what agents and controllers log.
    pub print: bool,
}

impl Options {
    /// A run in which the seed decides everything.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, hosts: None, steps: None, without: BTreeSet::new(), print: false }
    }

    pub(crate) fn has(&self, kind: FaultKind) -> bool {
        !self.without.contains(&kind)
    }

    /// The command that does the same again.
    #[must_use]
    pub fn command(&self) -> String {
        let mut command = format!("cargo xtask simulate --seed {}", self.seed);
        if let Some(hosts) = self.hosts {
            command.push_str(&format!(" --hosts {hosts}"));
        }
        if let Some(steps) = self.steps {
            command.push_str(&format!(" --steps {steps}"));
        }
        if !self.without.is_empty() {
            let names: Vec<&str> = self.without.iter().map(|kind| kind.name()).collect();
            command.push_str(&format!(" --without {}", names.join(",")));
        }
        command
    }
}
