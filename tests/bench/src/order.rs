//! What the benchmark tells a controller that is a process of its own, and what that answers: a line of JSON each.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use muster_fleet::Ground;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Everything that a controller needs to know when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Desk {
    /// The broker.
    pub url: String,
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The revocation list.
    pub crl: PathBuf,
    /// The controller's certificate.
    pub certificate: PathBuf,
    /// The controller's key.
    pub key: PathBuf,
    /// A file with the names of all hosts, one a line.
    pub names: PathBuf,
}

impl Desk {
    /// That of `user/lea`, who is in the group `admins`.
    #[must_use]
    pub fn of(ground: &Ground, names: PathBuf) -> Self {
        let files = ground.site.member_in("user/lea", &["admins"]).files;
        Self {
            url: ground.broker.url(),
            ca: files.ca,
            crl: files.crl,
            certificate: files.certificate,
            key: files.key,
            names,
        }
    }
}

/// Something to do once, measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Ping everybody by broadcast.
    Ping,
    /// Find the tenth whose `patch_group` this is by broadcast, then run on those by name.
    Filter {
        /// The group, 0 to 9.
        group: usize,
    },
    /// Run on the first hosts by name.
    Run {
        /// How many.
        hosts: usize,
        /// How many bytes of output each writes.
        bytes: u64,
    },
}

impl Order {
    /// How many of `all` hosts answer in the end.
    #[must_use]
    pub fn answering(self, all: usize) -> usize {
        match self {
            Self::Ping => all,
            Self::Filter { group } => (0..all).filter(|number| number % 10 == group).count(),
            Self::Run { hosts, .. } => hosts.min(all),
        }
    }
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Why it does not count: who did not answer, or what could not be believed.
    pub failed: Option<String>,
    /// Milliseconds until the last answer was verified.
    pub complete_ms: f64,
    /// Milliseconds until the client said that it was over.
    pub ended_ms: f64,
    /// Processor time of the process, in microseconds.
    pub processor_us: f64,
    /// Most memory that the process held meanwhile, in bytes.
    pub peak_bytes: u64,
    /// Reports of all hosts that were believed.
    pub reports: u64,
}

/// A controller in a process of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// How long a controller may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// How long a controller may take to go.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

impl Worker {
    /// Starts `PROGRAM controller` and waits until it is connected.
    ///
    /// # Errors
    /// It cannot be started, or does not connect.
    pub async fn start(program: &Path, desk: &Desk) -> Result<Self> {
        let mut child = Command::new(program)
            .arg("controller")
            .arg(serde_json::to_string(desk)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C is for the benchmark, which then ends this by closing its standard input.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start `{}`", program.display()))?;
        let orders = child.stdin.take().context("standard input was asked for")?;
        let answers = BufReader::new(child.stdout.take().context("standard output was asked for")?).lines();
        let mut worker = Self { child, orders, answers };
        let ready = worker.line(CONNECT_LIMIT).await.context("wait until a controller is connected")?;
        ensure!(ready == READY, "a controller begins with `{ready}`");
        Ok(worker)
    }

    /// Gives an order and waits for what comes of it.
    ///
    /// # Errors
    /// The process ends, or takes longer than `limit`.
    pub async fn obey(&mut self, order: Order, limit: Duration) -> Result<Done> {
        let line = serde_json::to_string(&order)? + "\n";
        self.orders.write_all(line.as_bytes()).await.context("give an order")?;
        self.orders.flush().await?;
        let line = self.line(limit).await.with_context(|| format!("wait for the end of {order:?}"))?;
        serde_json::from_str(&line).with_context(|| format!("read a controller's answer `{line}`"))
    }

    async fn line(&mut self, limit: Duration) -> Result<String> {
        match tokio::time::timeout(limit, self.answers.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => bail!("the controller's process has ended"),
            Ok(Err(error)) => Err(error).context("read from the controller's process"),
            Err(_) => bail!("nothing came for {} s", limit.as_secs()),
        }
    }

    /// Lets the process end.
    ///
    /// # Errors
    /// It does not, or not well.
    pub async fn close(self) -> Result<()> {
        let Self { mut child, orders, answers } = self;
        drop((orders, answers));
        let status = tokio::time::timeout(CLOSE_LIMIT, child.wait()).await.context("a controller does not end")??;
        ensure!(status.success(), "a controller ended with {status}");
        Ok(())
    }
}

/// What a controller says when it is connected.
pub const READY: &str = "ready";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_knows_how_many_answer() {
        let cases = [
            (Order::Ping, 25, 25),
            (Order::Filter { group: 3 }, 25, 3),
            (Order::Filter { group: 7 }, 25, 2),
            (Order::Run { hosts: 10, bytes: 0 }, 25, 10),
            (Order::Run { hosts: 100, bytes: 0 }, 25, 25),
        ];
        for (order, all, expected) in cases {
            assert_eq!(order.answering(all), expected, "{order:?} of {all}");
        }
    }

    #[test]
    fn orders_are_lines_of_json() {
        for order in [Order::Ping, Order::Filter { group: 3 }, Order::Run { hosts: 7, bytes: 65_536 }] {
            let line = serde_json::to_string(&order).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
        }
    }
}
