//! A broker for one test, and clients for it.

use std::sync::Arc;
use std::time::Duration;

use muster_broker::server::status::Status;
use muster_broker::server::{Server, Settings};
use muster_bus::{AmqpBus, AmqpSettings, BrokerUrl, Bus};
use muster_daemon::{Clock as _, SystemClock, Tasks};
use muster_pki::testing::TestAuthority;
use muster_pki::{Credentials, Trust};
use muster_protocol::{Identity, Timestamp};

/// The longest that anything may take; a busy machine is slow, a hang is a failure.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A broker, its authority, and whoever has a certificate.
pub(crate) struct Site {
    pub(crate) authority: TestAuthority,
    pub(crate) server: Server,
    pub(crate) tasks: Tasks,
    clients: Trust,
}

impl Site {
    /// A broker with the usual settings.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A broker with other settings.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        muster_pki::tls::install_crypto_provider();
        let authority = TestAuthority::new(Timestamp(SystemClock.now_ms())).unwrap();
        let tasks = Tasks::new();
        let mut settings = Settings::new(authority.broker("broker/mq1").unwrap(), authority.trust().unwrap());
        change(&mut settings);
        let server = Server::start(settings, &tasks).unwrap();
        let clients = authority.trust().unwrap();
        Self { authority, server, tasks, clients }
    }

    /// Whom clients believe.
    pub(crate) fn trust(&self) -> Trust {
        self.clients.clone()
    }

    pub(crate) fn url(&self) -> BrokerUrl {
        format!("amqps://localhost:{}/muster", self.server.local_addr().port()).parse().unwrap()
    }

    /// A new certificate.
    pub(crate) fn member(&self, identity: &str) -> Credentials {
        self.authority.credentials(identity).unwrap()
    }

    /// A bus as this identity.
    pub(crate) fn bus(&self, identity: &Identity) -> Arc<dyn Bus> {
        self.bus_with(self.member(&identity.short()))
    }

    /// A bus with these credentials.
    pub(crate) fn bus_with(&self, credentials: Credentials) -> Arc<dyn Bus> {
        Arc::new(AmqpBus::new(AmqpSettings::new(vec![self.url()], credentials, self.trust())))
    }

    /// Waits until an identity's connections have said nothing for a while.
    pub(crate) async fn until_quiet(&self, identity: &Identity) {
        let heard = || {
            let connections = self.server.status(false).connections;
            let own = connections.iter().filter(|it| it.identity == identity.short());
            own.map(|it| it.received_bytes).sum::<u64>()
        };
        let (mut before, mut same) = (heard(), 0);
        while same < 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = heard();
            same = if now == before { same + 1 } else { 0 };
            before = now;
        }
    }

    /// Waits until something is so; says what was seen last if it never is.
    #[track_caller]
    pub(crate) fn until<T: std::fmt::Debug>(
        &self,
        what: &str,
        mut look: impl FnMut(&Status) -> Result<T, String>,
    ) -> T {
        let started = std::time::Instant::now();
        loop {
            match look(&self.server.status(true)) {
                Ok(seen) => return seen,
                Err(seen) if started.elapsed() > LIMIT => panic!("{what}: {seen}"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.tasks.kill();
    }
}
