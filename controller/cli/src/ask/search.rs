//! From a target to the hosts that will be asked: names as they are, everything else by discovery.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use muster_client::discover::{audience, awaited, learn, note_pings, ping, probe_silent};
use muster_client::{Audience, Cause, End, Event, HostRecord, WINDOW_MS_DEFAULT};
use muster_protocol::HostName;

use super::counter::Counter;
use super::follow::{Moment, follow};
use super::no_match::Nobody;
use super::scene::Scene;
use crate::output::{Failure, Printer, Text, fold, number};
use crate::session::client_failure;
use crate::target::{Chosen, Target};

/// Who matches a target.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Hosts that match and are there; for names, all that were named.
    pub(crate) hosts: BTreeSet<HostName>,
    /// Hosts that matched before and are silent now.
    pub(crate) silent: BTreeSet<HostName>,
    /// The silent ones that the broker has no queue for; only known of hosts that were named.
    pub(crate) no_queue: BTreeSet<HostName>,
    /// Hosts that match and that the names or `--exclude` leave out.
    pub(crate) outside: BTreeSet<HostName>,
    /// Hosts that refuse to be asked whether they match.
    pub(crate) unwilling: BTreeSet<HostName>,
}

impl Found {
    /// What there is to say where nobody is left.
    pub(crate) fn nobody(&self) -> Nobody {
        Nobody {
            silent: self.silent.clone(),
            no_queue: self.no_queue.clone(),
            outside: self.outside.clone(),
            unwilling: self.unwilling.clone(),
        }
    }
}

/// Finds the hosts of a target. Names alone are believed as they are.
///
/// # Errors
/// Nobody can be asked; the operator stopped it.
pub(crate) async fn search(scene: &mut Scene<'_>, target: &Target, window_ms: Option<i64>) -> Result<Found, Failure> {
    if !target.needs_discovery() {
        let hosts = target.keep(target.hosts.iter().flatten().cloned());
        return Ok(Found {
            hosts,
            silent: BTreeSet::new(),
            no_queue: BTreeSet::new(),
            outside: BTreeSet::new(),
            unwilling: BTreeSet::new(),
        });
    }
    let window_ms = window_ms.unwrap_or(WINDOW_MS_DEFAULT);
    let condition = target.expression.as_ref();
    let likely = scene.cache.likely(condition);
    let question = ping(audience(condition), window_ms, awaited(scene.cache, &likely, scene.controller.now()));
    let total = target.keep(likely.iter().cloned()).len();
    let context = scene.context;
    let printer = scene.printer;
    let failed = |error| client_failure(&error, context);
    let mut asking = scene.controller.ask(&question).map_err(failed)?;
    {
        let mut counter = Counter::new(printer, total, "searching hosts");
        follow(&mut asking, &mut scene.stop, |asking, moment| {
            if matches!(moment, Moment::Event(Event::Finished(_) | Event::Accepted)) {
                let answered = asking.collector().counts().total();
                counter.update(answered, Text::new);
            }
            ControlFlow::Continue(())
        })
        .await;
    }
    let summary = asking.into_summary();
    if let Some(stopped) = scene.stop.stopped() {
        return Err(stopped.failure("hosts were searched"));
    }
    let now = scene.now();
    let mut found = learn(scene.cache, condition, &likely, summary, now);
    if let End::Failed(error) = &found.summary.end {
        return Err(failed(error.clone()));
    }
    probe_silent(scene.controller, scene.cache, condition, &mut found).await.map_err(failed)?;
    let hosts = target.keep(found.hosts.iter().cloned());
    let silent = target.keep(found.silent);
    let unwilling = target.keep(found.unwilling);
    if !hosts.is_empty() {
        unwilling_note(printer, &unwilling);
    }
    let outside = found.hosts.difference(&hosts).cloned().collect();
    Ok(Found { hosts, silent, no_queue: BTreeSet::new(), outside, unwilling })
}

/// Says which hosts would not say whether they match, so that nobody takes them for hosts that do not.
pub(crate) fn unwilling_note(printer: &Printer, unwilling: &BTreeSet<HostName>) {
    if !unwilling.is_empty() {
        printer.warning(unwilling_words(unwilling));
    }
}

/// `3 hosts refuse you, so whether they match is not known: db[1-3]`.
pub(crate) fn unwilling_words(unwilling: &BTreeSet<HostName>) -> String {
    let (hosts, they) = match unwilling.len() {
        1 => ("1 host refuses you".to_owned(), "it matches"),
        many => (format!("{} hosts refuse you", number::count(many)), "they match"),
    };
    let names = fold::fold_line(unwilling.iter().map(HostName::as_str));
    format!("{hosts}, so whether {they} is not known: {names}")
}

/// `214 hosts match`, or `2 hosts named`, with what the limit left of them.
pub(crate) fn matched(target: &Target, chosen: &Chosen, dot: &str) -> String {
    let all = match target.needs_discovery() {
        true => number::counted(chosen.of, "host matches", "hosts match"),
        false => number::counted(chosen.of, "host named", "hosts named"),
    };
    match chosen.seed {
        Some(seed) => format!("{all}{dot}{} chosen with --seed {seed}", number::count(chosen.hosts.len())),
        None => all,
    }
}

/// Asks named hosts whether they are there: a name is no proof of it.
///
/// # Errors
/// As [`search`].
pub(crate) async fn probe(
    scene: &mut Scene<'_>,
    named: BTreeSet<HostName>,
    window_ms: Option<i64>,
) -> Result<Found, Failure> {
    let question = ping(Audience::Hosts(named.clone()), window_ms.unwrap_or(WINDOW_MS_DEFAULT), BTreeSet::new());
    let context = scene.context;
    let failed = |error| client_failure(&error, context);
    let mut asking = scene.controller.ask(&question).map_err(failed)?;
    follow(&mut asking, &mut scene.stop, |_, _| ControlFlow::Continue(())).await;
    let summary = asking.into_summary();
    if let Some(stopped) = scene.stop.stopped() {
        return Err(stopped.failure("hosts were searched"));
    }
    let now = scene.now();
    let hosts = note_pings(scene.cache, &summary, now);
    match summary.end {
        End::Failed(error) => Err(failed(error)),
        End::Complete | End::Stopped => {
            let without =
                |(host, record): (&HostName, &HostRecord)| (record.cause == Some(Cause::NoQueue)).then(|| host.clone());
            let no_queue = summary.hosts.iter().filter_map(without).collect();
            let silent = named.difference(&hosts).cloned().collect();
            Ok(Found { hosts, silent, no_queue, outside: BTreeSet::new(), unwilling: BTreeSet::new() })
        }
    }
}
