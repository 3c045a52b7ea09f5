//! A stage for one end-to-end test: a virtual host of a broker, real agents and operators on it,
//! and one folder for all their files.

use std::path::Path;

use tempfile::TempDir;

use crate::broker::{Kind, TestBus};
use crate::pki::{Member, Site};
use crate::programs::{Access, AgentProcess, AgentSettings, Operator, Party};

/// What a test needs to have programs talk to each other. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Stage {
    /// The virtual host and who may use it.
    pub bus: TestBus,
    folder: TempDir,
}

impl From<&Member> for Party {
    fn from(member: &Member) -> Self {
        Self { certificate: member.files.certificate.clone(), key: member.files.key.clone() }
    }
}

impl Stage {
    /// A stage on a broker of this kind for these identities, `KIND/NAME` each.
    ///
    /// # Panics
    /// The broker does not start, or a name is no identity.
    #[must_use]
    pub fn new(broker: Kind, identities: &[&str]) -> Self {
        Self::on(broker.bus(identities.iter().copied()))
    }

    /// A stage on this virtual host.
    ///
    /// # Panics
    /// There is no room for temporary files.
    #[must_use]
    pub fn on(bus: TestBus) -> Self {
        // Short, since a socket's path has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("muster-").tempdir().expect("a temporary directory is writable");
        Self { bus, folder }
    }

    /// Who issues the certificates.
    #[must_use]
    pub fn site(&self) -> &'static Site {
        self.bus.site
    }

    /// Where the stage keeps its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The broker as `party` reaches it, with the newest revocation list.
    #[must_use]
    pub fn access(&self, member: &Member) -> Access {
        Access { urls: self.bus.urls.clone(), ca: member.files.ca.clone(), crl: Some(member.files.crl.clone()) }
    }

    /// Starts an agent. It connects while the test goes on; [`AgentProcess::wait_ready`] waits for it.
    ///
    /// # Panics
    /// The program is not built or its files cannot be written.
    #[must_use]
    pub fn start(&self, settings: &AgentSettings) -> AgentProcess {
        let member = self.site().member(&format!("host/{}", settings.host));
        let folder = self.folder().join(settings.host.as_str());
        AgentProcess::start(settings, &self.access(&member), &Party::from(&member), &folder).expect("an agent starts")
    }

    /// Starts agents and waits until all of them listen.
    ///
    /// # Panics
    /// One of them does not come up; with the end of its log.
    #[must_use]
    pub fn agents(&self, settings: impl IntoIterator<Item = AgentSettings>) -> Vec<AgentProcess> {
        let mut agents: Vec<AgentProcess> = settings.into_iter().map(|settings| self.start(&settings)).collect();
        for agent in &mut agents {
            agent.wait_ready().expect("the agent comes up");
        }
        agents
    }

    /// The user `user/NAME` in these groups, at a desk of their own.
    ///
    /// # Panics
    /// The configuration cannot be written.
    #[must_use]
    pub fn operator(&self, name: &str, groups: &[&str]) -> Operator {
        let member = self.site().member_in(&format!("user/{name}"), groups);
        self.operator_as(name, &member)
    }

    /// Whoever `member` is, at a desk of their own.
    ///
    /// # Panics
    /// The configuration cannot be written.
    #[must_use]
    pub fn operator_as(&self, desk: &str, member: &Member) -> Operator {
        let home = self.folder().join("home").join(desk);
        Operator::new(&home, "test", &self.access(member), &Party::from(member)).expect("a configuration is written")
    }
}

/// Settings of an agent whose host has this name.
///
/// # Panics
/// The name is none.
#[must_use]
pub fn host(name: &str) -> AgentSettings {
    AgentSettings::new(name.parse().expect("a host name"))
}
