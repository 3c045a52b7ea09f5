//! The controller's process: the real client library, one session, one order after the other.
//!
//! What is measured is measured here, around the question alone: signing, sending, receiving, verifying and adding up.
//! Reading orders and starting up are outside.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_bus::{AmqpBus, AmqpSettings};
use muster_client::discover::{audience, ping};
use muster_client::{Audience, Controller, End, Event, HostRecord, Parts, Question, Summary, WINDOW_MS_DEFAULT};
use muster_daemon::SystemClock;
use muster_pki::{Credentials, Trust};
use muster_protocol::expr::Expression;
use muster_protocol::{HostName, OutputStream, TaskState};
use rand::SeedableRng as _;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::Instant;

use crate::order::{Desk, Done, Order, READY};
use crate::process::{processor_of_self, restart_peak, status_bytes};

/// How long a host may take to answer, in milliseconds. It is a limit for what is broken, and no measurement comes
/// near it.
const PATIENCE_MS: i64 = 120_000;

/// The fact that tells tenths of a fleet apart.
const GROUP_FACT: &str = "patch_group";

/// Obeys orders from standard input until it closes.
///
/// # Errors
/// The broker cannot be reached, or an order cannot be read.
pub async fn serve(desk: &Desk) -> Result<()> {
    let names = fs::read_to_string(&desk.names).with_context(|| format!("read `{}`", desk.names.display()))?;
    let hosts = names.lines().map(str::parse).collect::<Result<Vec<HostName>, _>>().context("read the hosts' names")?;
    let credentials = Credentials::load(&desk.certificate, &desk.key)?;
    let trust = Trust::load(&desk.ca, Some(&desk.crl))?;
    let url = desk.url.parse().context("read the broker's address")?;
    let parts = Parts {
        bus: Arc::new(AmqpBus::new(AmqpSettings::new(vec![url], credentials.clone(), trust.clone()))),
        credentials,
        trust,
        clock: Arc::new(SystemClock),
        random: rand::rngs::StdRng::from_rng(&mut rand::rng()),
        collective: "main".parse().context("`main` is a collective")?,
    };
    let mut controller = Controller::connect(parts).await.context("open a session")?;
    let mut output = tokio::io::stdout();
    output.write_all(format!("{READY}\n").as_bytes()).await?;
    output.flush().await?;
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = orders.next_line().await? {
        let order = serde_json::from_str(&line).with_context(|| format!("read the order `{line}`"))?;
        let done = obey(&mut controller, &hosts, order).await?;
        output.write_all((serde_json::to_string(&done)? + "\n").as_bytes()).await?;
        output.flush().await?;
    }
    controller.close().await;
    Ok(())
}

/// What one or two questions came to.
#[derive(Debug)]
struct Asked {
    complete: Duration,
    ended: Duration,
    reports: u64,
    failed: Option<String>,
}

async fn obey(controller: &mut Controller, hosts: &[HostName], order: Order) -> Result<Done> {
    let own = std::process::id();
    let first = |count: usize| -> BTreeSet<HostName> { hosts.iter().take(count).cloned().collect() };
    let named = first(order.answering(hosts.len()));
    let tenth: BTreeSet<HostName> = match order {
        Order::Filter { group } => hosts.iter().skip(group).step_by(10).cloned().collect(),
        Order::Ping | Order::Run { .. } => BTreeSet::new(),
    };
    restart_peak(own)?;
    let before = processor_of_self()?;
    let asked = match order {
        Order::Ping => {
            let question = ping(Audience::Everyone, WINDOW_MS_DEFAULT.max(PATIENCE_MS), named.clone());
            ask(controller, &question, &named, 0).await?
        }
        Order::Filter { group } => {
            let search = ping(audience(Some(&target(group)?)), PATIENCE_MS, tenth.clone());
            let found = ask(controller, &search, &tenth, 0).await?;
            let run = ask(controller, &run(tenth.clone(), 0), &tenth, 0).await?;
            Asked {
                // The search has to be over before its hosts are known.
                complete: found.ended + run.complete,
                ended: found.ended + run.ended,
                reports: run.reports,
                failed: found.failed.or(run.failed),
            }
        }
        Order::Run { bytes, .. } => ask(controller, &run(named.clone(), bytes), &named, bytes).await?,
    };
    let processor = processor_of_self()?.saturating_sub(before);
    Ok(Done {
        failed: asked.failed,
        complete_ms: asked.complete.as_secs_f64() * 1e3,
        ended_ms: asked.ended.as_secs_f64() * 1e3,
        processor_us: processor.as_secs_f64() * 1e6,
        peak_bytes: status_bytes(own, "VmHWM")?,
        reports: asked.reports,
    })
}

/// The target that is true on a tenth of a fleet.
///
/// # Errors
/// Never: it is an expression.
pub fn target(group: usize) -> Result<Expression> {
    format!("{GROUP_FACT} = {group}").parse().context("write a target")
}

/// What `muster run` asks: `fleet.talk` writes so many bytes.
#[must_use]
pub fn run(hosts: BTreeSet<HostName>, bytes: u64) -> Question {
    let mut question = muster_fleet::Fleet::question(hosts, "talk", json!({ "bytes": bytes }));
    question.reply_timeout_ms = PATIENCE_MS;
    question.ttl_ms = PATIENCE_MS;
    question
}

async fn ask(
    controller: &mut Controller,
    question: &Question,
    expected: &BTreeSet<HostName>,
    bytes: u64,
) -> Result<Asked> {
    let started = Instant::now();
    let mut asking = controller.ask(question)?;
    let (mut complete, mut reports) = (Duration::ZERO, 0);
    while let Some(event) = asking.next().await {
        match event {
            Event::Finished(_) => {
                complete = started.elapsed();
                reports += 1;
            }
            Event::Started(_) | Event::Progress(_) => reports += 1,
            _ => {}
        }
    }
    let ended = started.elapsed();
    let failed = flaw(&asking.into_summary(), expected, bytes);
    Ok(Asked { complete, ended, reports, failed })
}

/// What is not as it should be: anybody who is missing or has failed, anybody else who answered, anything that could
/// not be believed, any output that is not all there.
fn flaw(summary: &Summary, expected: &BTreeSet<HostName>, bytes: u64) -> Option<String> {
    if summary.end != End::Complete {
        return Some(format!("the question ended as {:?}", summary.end));
    }
    let written = |record: &HostRecord| record.output.stream(OutputStream::Stdout).map_or(0, |stream| stream.length());
    let failed = |host: &&HostName| {
        let record = summary.hosts.get(*host);
        !record.is_some_and(|record| record.state == TaskState::Succeeded && written(record) == bytes)
    };
    let bad: Vec<&HostName> = expected.iter().filter(failed).collect();
    if let Some(host) = bad.first() {
        let first = match summary.hosts.get(*host) {
            Some(record) => {
                let why = record.result.as_ref().map(|result| format!(", {result:?}")).unwrap_or_default();
                format!("{host} is {:?} with {} bytes, {:?}{why}", record.state, written(record), record.cause)
            }
            None => format!("{host} said nothing"),
        };
        let good = expected.len() - bad.len();
        return Some(format!("{good} of {} hosts succeeded with {bytes} bytes of output; {first}", expected.len()));
    }
    let others = summary.hosts.keys().filter(|host| !expected.contains(*host)).count() + summary.strangers.len();
    if others + usize::try_from(summary.rejected).unwrap_or(usize::MAX) > 0 {
        return Some(format!("{others} other hosts answered, {} reports could not be believed", summary.rejected));
    }
    (summary.reconnects > 0).then(|| format!("the connection was lost {} times", summary.reconnects))
}

#[cfg(test)]
mod tests;
