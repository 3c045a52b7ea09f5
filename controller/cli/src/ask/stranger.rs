//! Names that nobody has ever answered to: most often a slip of the finger.

use muster_client::cache::HostCache;
use muster_protocol::HostName;
use muster_protocol::expr::did_you_mean;

use crate::output::{Printer, fold, number};

/// Most strangers that have a line of their own.
const LINES_MAX: usize = 3;

/// What it means that the broker has no queue for a host.
pub(crate) const NO_QUEUE: &str = "no queue: has never connected, or not for a day";

/// The same for one host, with the nearest known name where the host has never answered from here.
pub(crate) fn no_queue(cache: &HostCache, host: &HostName) -> String {
    match nearest(cache, host) {
        Some(nearest) => format!("{NO_QUEUE}; nearest: {nearest}"),
        None => NO_QUEUE.to_owned(),
    }
}

/// The known name that is nearest to one that is not known.
pub(crate) fn nearest<'a>(cache: &'a HostCache, host: &HostName) -> Option<&'a str> {
    match cache.last_seen(host) {
        Some(_) => None,
        None => did_you_mean(host.as_str(), cache.hosts().keys().map(HostName::as_str)),
    }
}

/// Warns of names that have never answered from here. Where nothing is remembered, that says nothing.
pub(crate) fn warn<'a>(printer: &Printer, cache: &HostCache, hosts: impl IntoIterator<Item = &'a HostName>) {
    if cache.hosts().is_empty() {
        return;
    }
    let strangers: Vec<&HostName> = hosts.into_iter().filter(|host| cache.last_seen(host).is_none()).collect();
    if strangers.len() > LINES_MAX {
        let names = fold::fold_line(strangers.iter().map(|host| host.as_str()));
        printer.warning(format!("{} have never answered from here: {names}", number::count(strangers.len())));
        return;
    }
    for host in strangers {
        let nearest = nearest(cache, host).map(|nearest| format!("; nearest: {nearest}")).unwrap_or_default();
        printer.warning(format!("{host} has never answered from here{nearest}"));
    }
}
