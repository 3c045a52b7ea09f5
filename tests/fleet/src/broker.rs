//! The broker of a fleet: a private RabbitMQ or embedded broker, in which exactly its identities may log in.
//!
//! The test kit's own abstraction has a virtual host for each test; a fleet has a whole broker, and wants of it what the tests
//! do not: what its processes cost, and to be emptied of ten thousand queues at once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use muster_protocol::Identity;
use muster_protocol::routing::VHOST_DEFAULT;
use muster_tests::broker::{Broker as _, Options};
use muster_tests::embedded::Embedded;
use muster_tests::pki::Site;
use muster_tests::rabbit::{Node, NodeOptions};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::process::{Usage, usage_of_group};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum BrokerKind {
    /// RabbitMQ, as the system has it, with the generated configuration.
    #[default]
    RabbitMq,
    /// `muster broker run`.
    Embedded,
}

impl BrokerKind {
    /// Both, in the order in which they are measured and shown.
    pub const ALL: [Self; 2] = [Self::RabbitMq, Self::Embedded];
}

/// What people call it.
impl fmt::Display for BrokerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::RabbitMq => "RabbitMQ",
            Self::Embedded => "embedded",
        })
    }
}

/// A private broker. Its methods wait for processes, so they need a runtime with several threads.
#[derive(Debug)]
pub struct Broker {
    runs: Runs,
}

#[derive(Debug)]
enum Runs {
    RabbitMq(Node),
    Embedded(Embedded),
}

/// What RabbitMQ does to become empty. It notices hung-up connections one after the other.
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

/// Ends every connection's process at once, as nothing polite can.
const CUT_ALL: &str = "[exit(Pid, kill) || Pid <- rabbit_networking:connections()].";

impl Broker {
    /// Starts it for these identities.
    ///
    /// # Errors
    /// RabbitMQ is not installed, `muster` is not built, or the broker does not start.
    pub fn start(kind: BrokerKind, site: &Site, identities: impl IntoIterator<Item = Identity>) -> Result<Self> {
        let (certificate, identities) = (site.broker().server_certificate(), identities.into_iter().collect());
        let runs = blocking(|| match kind {
            BrokerKind::RabbitMq => {
                Node::start(NodeOptions { identities, ..NodeOptions::new(certificate) }).map(Runs::RabbitMq)
            }
            BrokerKind::Embedded => {
                Embedded::start(Options { identities, ..Options::with_certificate(certificate) }).map(Runs::Embedded)
            }
        })?;
        Ok(Self { runs })
    }

    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> BrokerKind {
        match &self.runs {
            Runs::RabbitMq(_) => BrokerKind::RabbitMq,
            Runs::Embedded(_) => BrokerKind::Embedded,
        }
    }

    /// The port for AMQP over TLS, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        match &self.runs {
            Runs::RabbitMq(node) => node.port(),
            Runs::Embedded(broker) => broker.port(),
        }
    }

    /// `amqps://localhost:PORT/VHOST`.
    #[must_use]
    pub fn url(&self) -> String {
        muster_tests::broker::url(self.port(), VHOST_DEFAULT)
    }

    /// The process group of the broker while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.runs {
            Runs::RabbitMq(node) => node.pid(),
            Runs::Embedded(broker) => broker.pid(),
        }
    }

    /// Kills it as a power failure would.
    ///
    /// # Errors
    /// Its processes outlive that.
    pub fn kill(&mut self) -> Result<()> {
        blocking(|| match &self.runs {
            Runs::RabbitMq(node) => node.kill(),
            Runs::Embedded(broker) => broker.kill(),
        })
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// Its processes outlive even force.
    pub fn stop(&mut self) -> Result<()> {
        blocking(|| match &self.runs {
            Runs::RabbitMq(node) => node.stop(),
            Runs::Embedded(broker) => broker.stop(),
        })
    }

    /// Starts it again and says how long that took until it listens.
    ///
    /// # Errors
    /// It does not come up.
    pub fn resume(&mut self) -> Result<Duration> {
        let started = Instant::now();
        blocking(|| match &self.runs {
            Runs::RabbitMq(node) => node.resume(),
            Runs::Embedded(broker) => broker.resume(),
        })?;
        Ok(started.elapsed())
    }

    /// Ends all connections while it stays, as when something between breaks: RabbitMQ without a word, the embedded broker
    /// with the one that an operator gives it.
    ///
    /// # Errors
    /// It refuses.
    pub fn cut_all(&self) -> Result<()> {
        blocking(|| match &self.runs {
            Runs::RabbitMq(node) => node.ctl(&["eval", CUT_ALL]).map(drop),
            Runs::Embedded(broker) => broker.close_connections(None, "a storm"),
        })
    }

    /// Makes it empty: RabbitMQ waits until nobody is connected and deletes all queues, the embedded broker starts anew.
    ///
    /// # Errors
    /// Somebody stays connected for two minutes, or it refuses.
    pub fn clear(&self) -> Result<()> {
        blocking(|| match &self.runs {
            Runs::RabbitMq(node) => {
                let said = node.ctl(&["--timeout", "180", "eval", CLEAR])?;
                ensure!(said == "ok", "it says {said}");
                Ok(())
            }
            Runs::Embedded(broker) => broker.start_anew(),
        })
        .context("clear the broker")
    }

    /// All queues with how many consumers each has.
    ///
    /// # Errors
    /// It does not tell.
    pub fn queues(&self) -> Result<BTreeMap<String, usize>> {
        blocking(|| match &self.runs {
            Runs::RabbitMq(node) => {
                let list = ["list_queues", "-p", VHOST_DEFAULT, "--no-table-headers", "name", "consumers"];
                let lines = node.ctl(&list)?;
                lines.lines().map(queue).collect::<Result<_>>()
            }
            Runs::Embedded(broker) => {
                let status = broker.status()?;
                let queues = status["queues"].as_array().context("the broker's status has no queues")?;
                let one = |queue: &serde_json::Value| {
                    let (name, consumers) = (queue["name"].as_str(), queue["consumers"].as_u64());
                    let (name, consumers) = name.zip(consumers).context("a queue without name or consumers")?;
                    Ok((name.to_owned(), usize::try_from(consumers)?))
                };
                queues.iter().map(one).collect()
            }
        })
        .context("list the queues")
    }

    /// What its processes cost; nothing while it is down.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.pid().and_then(|group| usage_of_group(group).ok()).unwrap_or_default()
    }
}

/// A queue's name and its consumers, a tab between them.
fn queue(line: &str) -> Result<(String, usize)> {
    let (name, consumers) = line.split_once('\t').with_context(|| format!("read `{line}`"))?;
    Ok((name.to_owned(), consumers.trim().parse().with_context(|| format!("read `{line}`"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_the_same_word_everywhere() {
        for (kind, word, name) in
            [(BrokerKind::RabbitMq, "rabbitmq", "RabbitMQ"), (BrokerKind::Embedded, "embedded", "embedded")]
        {
            assert_eq!(serde_json::to_value(kind).unwrap(), word);
            assert_eq!(BrokerKind::from_str(word, false).unwrap(), kind);
            assert_eq!(kind.to_string(), name);
        }
    }

    #[test]
    fn a_queue_is_read_from_its_line() {
        assert_eq!(queue("agent.a\t1").unwrap(), ("agent.a".to_owned(), 1));
        assert!(queue("agent.a").is_err() && queue("agent.a\tmany").is_err());
    }
}
