//! An embedded broker in the hands of somebody who means harm: the same server, with somebody who may do everything.
//!
//! No configuration of `muster broker run` gives such rights, so this one is the library in a thread of this process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail};
use muster_broker::access::{Members, Rules};
use muster_broker::server::{Server, Settings};
use muster_broker_config::Role;
use muster_daemon::Tasks;
use muster_pki::{Credentials, Trust};
use muster_protocol::Identity;
use nix::sys::signal::Signal;

use crate::broker::{Broker, Options, Shortage};

/// A server in this process. Ends when dropped.
#[derive(Debug)]
pub(super) struct Hostile {
    server: Server,
    tasks: Tasks,
    thread: Option<JoinHandle<()>>,
}

/// What nobody who attacks through a broker needs.
fn not_here<T>() -> Result<T> {
    bail!("a hostile broker is a part of this process; take `Kind::breakable`")
}

impl Hostile {
    pub(super) fn start(options: Options) -> Result<Self> {
        let Options { certificate, vhost, identities, heartbeat_s, unbound } = options;
        let credentials = Credentials::load(&certificate.certificate, &certificate.key)?;
        let trust = Trust::load(&certificate.ca, Some(&certificate.ca.with_file_name("crl.pem")))?;
        let mut settings = Settings::new(credentials, trust);
        settings.rules = Rules { role: Role::Alone, members: Members::Listed(identities), unbound };
        settings.vhost = vhost;
        settings.heartbeat_s = heartbeat_s.unwrap_or(settings.heartbeat_s);
        let (tasks, (started, answer)) = (Tasks::new(), mpsc::channel());
        // A thread of its own, since a test drops it wherever it stands, also inside its own runtime.
        let thread = std::thread::spawn({
            let tasks = tasks.clone();
            move || {
                let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error.into()))),
                };
                runtime.block_on(async {
                    let server = Server::start(settings, &tasks).map_err(anyhow::Error::from);
                    if started.send(server).is_ok() {
                        tasks.stopping().cancelled().await;
                    }
                });
                runtime.shutdown_background();
            }
        });
        let server = answer.recv().context("the broker's thread ended")??;
        Ok(Self { server, tasks, thread: Some(thread) })
    }
}

impl Broker for Hostile {
    fn port(&self) -> u16 {
        self.server.local_addr().port()
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn log(&self) -> String {
        String::new()
    }

    fn stop(&self) -> Result<()> {
        not_here()
    }

    fn kill(&self) -> Result<()> {
        not_here()
    }

    fn resume(&self) -> Result<()> {
        not_here()
    }

    fn signal(&self, _: Signal) -> Result<()> {
        not_here()
    }

    fn admit(&self, _: &BTreeSet<Identity>) -> Result<()> {
        not_here()
    }

    fn expel(&self, _: &Identity) -> Result<()> {
        not_here()
    }

    fn forbid(&self, _: &Identity) -> Result<()> {
        not_here()
    }

    fn close_connections(&self, of: Option<&Identity>, reason: &str) -> Result<()> {
        self.server.close_connections(of, reason);
        Ok(())
    }

    fn channels_of(&self, identity: &Identity) -> Result<Vec<usize>> {
        let status = self.server.status(false);
        let own = status.connections.into_iter().filter(|it| it.identity == identity.short());
        Ok(own.map(|it| it.channels).collect())
    }

    fn queues(&self) -> Result<Vec<String>> {
        Ok(self.server.status(false).queues.into_iter().map(|queue| queue.name).collect())
    }

    fn delete_queue(&self, name: &str) -> Result<()> {
        self.server.delete_queue(name)?;
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        not_here()
    }

    fn make_again(&self, _: &BTreeSet<Identity>) -> Result<()> {
        not_here()
    }

    fn starve(&self, _: Shortage) -> Result<()> {
        not_here()
    }

    fn feed(&self, _: Shortage) -> Result<()> {
        not_here()
    }

    fn listen_also(&self, _: SocketAddr) -> Result<()> {
        not_here()
    }

    fn read_certificates(&self) -> Result<()> {
        not_here()
    }

    fn listeners(&self) -> Result<Vec<String>> {
        Ok(self.server.addresses().iter().map(|_| "amqp/ssl".to_owned()).collect())
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.tasks.kill();
        if let Some(thread) = self.thread.take() {
            // A server that panicked has failed the test already.
            thread.join().ok();
        }
    }
}
