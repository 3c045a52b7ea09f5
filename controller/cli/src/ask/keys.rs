//! Secret arguments need a key of each host before they can be sent.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use muster_client::secrets::{keys, question};
use muster_client::{End, HostRecord};
use muster_pki::sealing::SealingPublicKey;
use muster_protocol::{HostName, TaskState};

use super::counter::Counter;
use super::follow::follow;
use super::scene::Scene;
use crate::outcome::{Reason, Row};
use crate::output::{Failure, Text};
use crate::session::client_failure;

/// Who can be sent secrets, and who not.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// The keys of those who can.
    pub(crate) keys: BTreeMap<HostName, SealingPublicKey>,
    /// The rows of the others. They are not asked.
    pub(crate) without: Vec<Row>,
}

impl Keys {
    /// Hosts that answered and gave no key, with why.
    pub(crate) fn not_able(&self) -> BTreeMap<HostName, String> {
        let not_able = self.without.iter().filter(|row| row.reason == Some(Reason::NotAble));
        not_able.map(|row| (row.host.clone(), row.detail.clone().unwrap_or_default())).collect()
    }

    /// Hosts that did not answer.
    pub(crate) fn silent(&self) -> BTreeSet<HostName> {
        let silent = self.without.iter().filter(|row| row.reason != Some(Reason::NotAble));
        silent.map(|row| row.host.clone()).collect()
    }
}

/// Asks the hosts for their keys.
///
/// # Errors
/// Nobody can be asked; the operator stopped it.
pub(crate) async fn fetch(scene: &mut Scene<'_>, hosts: &BTreeSet<HostName>) -> Result<Keys, Failure> {
    let context = scene.context;
    let failed = |error| client_failure(&error, context);
    let printer = scene.printer;
    let mut asking = scene.controller.ask(&question(hosts.clone())).map_err(failed)?;
    {
        let mut counter = Counter::new(printer, hosts.len(), "asking for keys");
        follow(&mut asking, &mut scene.stop, |asking, _| {
            let counts = asking.collector().counts();
            counter.update(counts.total() - counts.pending - counts.running, Text::new);
            ControlFlow::Continue(())
        })
        .await;
    }
    let summary = asking.into_summary();
    if let Some(stopped) = scene.stop.stopped() {
        return Err(stopped.failure("hosts were asked for their keys"));
    }
    if let End::Failed(error) = &summary.end {
        return Err(failed(error.clone()));
    }
    let (keys, without) = keys(summary);
    Ok(Keys { keys, without: without.iter().map(|(host, record)| row(host, record)).collect() })
}

/// The row of a host that gave no key.
fn row(host: &HostName, record: &HostRecord) -> Row {
    let asked = Row::of(host, record, None);
    let detail = match (&record.result, asked.reason) {
        (Some(result), _) if record.state == TaskState::Succeeded => format!("its answer ({}) has no key", result.code),
        (Some(result), _) if result.message.is_empty() => result.code.clone(),
        (Some(result), _) => format!("{}, {}", result.code, result.message),
        (None, reason) => {
            let reason = reason.unwrap_or(Reason::Silent);
            return Row::not_asked(
                host.clone(),
                TaskState::NoReply,
                match reason {
                    Reason::Silent | Reason::Late | Reason::Unfinished => Reason::SilentInSearch,
                    reason => reason,
                },
            );
        }
    };
    let detail = Some(format!("no key for secrets ({detail})"));
    Row { detail, ..Row::not_asked(host.clone(), TaskState::NotStarted, Reason::NotAble) }
}
