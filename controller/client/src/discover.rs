//! From a target to hosts: who matches, said by the hosts themselves.

use std::collections::BTreeSet;

use muster_protocol::expr::Expression;
use muster_protocol::{HostName, Inventory, Options, Outcome, TaskState, Timestamp};
use serde_json::Value;

use crate::asking::{Asking, End, Event, Summary};
use crate::cache::HostCache;
use crate::controller::Controller;
use crate::error::ClientError;
use crate::question::{Audience, Question};

/// A host that has been silent for longer is not waited for: 1 day. It is still told as silent.
const AWAITED_AGE_MS_MAX: i64 = 24 * 60 * 60 * 1000;

/// Most silent hosts that are asked once more by name.
const PROBED_MAX: usize = 200;

/// How long they may take, in milliseconds: a host that is there answers in a fraction of that.
const PROBE_MS: i64 = 500;

/// The plugin that every agent has.
const PLUGIN: &str = "host";

/// How much longer than its window a discovery stays in queues, in milliseconds. While answers come, the search goes on
/// beyond its window, and a broker with thousands of hosts has not handed out the question to all of them by then; a host
/// that comes back later is of no use to it.
const QUEUE_GRACE_MS: i64 = 10_000;

/// The question `host.ping`: who is there. By broadcast it ends early, see [`Question::likely`].
#[must_use]
pub fn ping(audience: Audience, window_ms: i64, likely: BTreeSet<HostName>) -> Question {
    let mut question = question("ping", audience);
    question.reply_timeout_ms = window_ms;
    question.queue_ms = Some(window_ms.saturating_add(QUEUE_GRACE_MS).max(1).unsigned_abs());
    question.likely = likely;
    question
}

/// The question `host.inventory`: what targets can name.
#[must_use]
pub fn inventory(audience: Audience) -> Question {
    question("inventory", audience)
}

fn question(action: &str, audience: Audience) -> Question {
    let plugin = PLUGIN.parse().expect("`host` is a plugin name");
    let action = action.parse().expect("a plain word is an action name");
    let options = Options { progress: false, ..Options::default() };
    Question { options, time_limit_ms: 5_000, ..Question::new(audience, plugin, action) }
}

/// The audience of a discovery: everybody, or whoever an expression is true on.
#[must_use]
pub fn audience(target: Option<&Expression>) -> Audience {
    target.map_or(Audience::Everyone, |expression| Audience::Matching(expression.as_str().to_owned()))
}

/// Who matches a target.
#[derive(Debug)]
pub struct Discovered {
    /// Hosts that answered.
    pub hosts: BTreeSet<HostName>,
    /// Hosts that are remembered to match and did not answer.
    pub silent: BTreeSet<HostName>,
    /// Hosts that would not say whether they match: they refuse the caller, and do so whatever the target's expression
    /// comes to. Empty for everybody, where being there is all that is asked.
    pub unwilling: BTreeSet<HostName>,
    /// All that came of it.
    pub summary: Summary,
}

/// Asks who matches. `each` is called at every event, to show progress; what is learnt goes into the cache.
///
/// # Errors
/// When nobody can be asked. A failure in between is in the summary.
pub async fn discover(
    controller: &mut Controller,
    cache: &mut HostCache,
    target: Option<&Expression>,
    window_ms: i64,
    mut each: impl FnMut(&Asking<'_>, &Event),
) -> Result<Discovered, ClientError> {
    let likely = cache.likely(target);
    let question = ping(audience(target), window_ms, awaited(cache, &likely, controller.now()));
    let mut asking = controller.ask(&question)?;
    while let Some(event) = asking.next().await {
        each(&asking, &event);
    }
    let summary = asking.into_summary();
    let now = controller.now();
    let mut discovered = learn(cache, target, &likely, summary, now);
    if discovered.summary.end == End::Complete {
        probe_silent(controller, cache, target, &mut discovered).await?;
    }
    match &discovered.summary.end {
        End::Failed(error) if discovered.hosts.is_empty() => Err(error.clone()),
        _ => Ok(discovered),
    }
}

/// The hosts of `likely` that are worth waiting for: those that have answered within a day.
#[must_use]
pub fn awaited(cache: &HostCache, likely: &BTreeSet<HostName>, now: Timestamp) -> BTreeSet<HostName> {
    let lately = |host: &&HostName| cache.last_seen(host).is_some_and(|seen| now.since_ms(seen) <= AWAITED_AGE_MS_MAX);
    likely.iter().filter(lately).cloned().collect()
}

/// Asks the hosts by name that a target remembers and that did not answer: one that answers now is
/// there and no longer matches, so it is not silent. Not for more than 200 of them.
///
/// # Errors
/// When they cannot be asked.
pub async fn probe_silent(
    controller: &mut Controller,
    cache: &mut HostCache,
    target: Option<&Expression>,
    discovered: &mut Discovered,
) -> Result<(), ClientError> {
    let Some(expression) = target else { return Ok(()) };
    if discovered.silent.is_empty() || discovered.silent.len() > PROBED_MAX {
        return Ok(());
    }
    let question = ping(Audience::Hosts(discovered.silent.clone()), PROBE_MS, BTreeSet::new());
    let summary = controller.ask(&question)?.finish().await;
    let now = controller.now();
    let there = note_pings(cache, &summary, now);
    discovered.silent.retain(|host| !there.contains(host));
    cache.answered(expression.as_str(), discovered.hosts.union(&discovered.silent).cloned(), now);
    Ok(())
}

/// Puts the answers to a ping by broadcast into the cache, and says who matches. `likely` is what
/// [`HostCache::likely`] said before.
pub fn learn(
    cache: &mut HostCache,
    target: Option<&Expression>,
    likely: &BTreeSet<HostName>,
    summary: Summary,
    now: Timestamp,
) -> Discovered {
    let mut hosts = note_pings(cache, &summary, now);
    let refuses = |host: &HostName| {
        let result = summary.hosts.get(host).and_then(|record| record.result.as_ref());
        result.is_some_and(|result| result.outcome == Outcome::Refused)
    };
    let unwilling: BTreeSet<HostName> = match target {
        Some(_) => hosts.iter().filter(|host| refuses(host)).cloned().collect(),
        None => BTreeSet::new(),
    };
    hosts.retain(|host| !unwilling.contains(host));
    // A discovery that was cut short says nothing about those who did not answer.
    let silent: BTreeSet<HostName> = match summary.end {
        End::Complete => likely.difference(&hosts).filter(|host| !unwilling.contains(*host)).cloned().collect(),
        End::Stopped | End::Failed(_) => BTreeSet::new(),
    };
    if summary.end == End::Complete
        && let Some(expression) = target
    {
        cache.answered(expression.as_str(), hosts.union(&silent).cloned(), now);
    }
    Discovered { hosts, silent, unwilling, summary }
}

/// Notes who answered a ping, and returns them.
pub fn note_pings(cache: &mut HostCache, summary: &Summary, now: Timestamp) -> BTreeSet<HostName> {
    let mut hosts = BTreeSet::new();
    for (host, record) in &summary.hosts {
        if record.first_report_ms.is_some() {
            let data = record.result.as_ref().map(|result| &result.data);
            let digest = data.and_then(|data| data.get("inventory_digest")).and_then(Value::as_str);
            cache.seen(host, digest, now);
            hosts.insert(host.clone());
        }
    }
    hosts
}

/// Reads the answer to `host.inventory`: digest and inventory.
#[must_use]
pub fn read_inventory(data: &Value) -> Option<(String, Inventory)> {
    let digest = data.get("digest")?.as_str()?.to_owned();
    let inventory = serde_json::from_value(data.clone()).ok()?;
    Some((digest, inventory))
}

/// Asks the hosts among `hosts` whose inventory is not known for it, at most `hosts_max` of them and
/// for at most `window_ms`, and keeps the answers. Returns how many came.
///
/// # Errors
/// When they cannot be asked.
pub async fn refresh(
    controller: &mut Controller,
    cache: &mut HostCache,
    hosts: BTreeSet<HostName>,
    hosts_max: usize,
    window_ms: i64,
) -> Result<usize, ClientError> {
    let now = controller.now();
    let stale: BTreeSet<HostName> = cache.stale(hosts, now).into_iter().take(hosts_max).collect();
    if stale.is_empty() {
        return Ok(0);
    }
    stale.iter().for_each(|host| cache.asked_for_inventory(host, now));
    let mut question = inventory(Audience::Hosts(stale));
    question.reply_timeout_ms = window_ms;
    question.queue_ms = Some(window_ms.max(1).unsigned_abs());
    let summary = controller.ask(&question)?.finish().await;
    let now = controller.now();
    let mut count = 0;
    for (host, record) in &summary.hosts {
        let result = record.result.as_ref().filter(|_| record.state == TaskState::Succeeded);
        if let Some((digest, inventory)) = result.and_then(|result| read_inventory(&result.data)) {
            cache.seen(host, None, now);
            cache.keep(host, &digest, inventory);
            count += 1;
        }
    }
    Ok(count)
}
