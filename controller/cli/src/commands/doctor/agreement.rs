//! Whether the hosts agree: the same revocation list everywhere, and which policies there are.
//!
//! From the same answers as [`super::backlog`]. Policies may differ on purpose, from role to role; that is for the
//! operator to say, so the smaller groups are named and nothing more. A list that is older than another host's is
//! wrong in any case: somebody who was revoked is still obeyed there.

use std::collections::BTreeMap;

use muster_client::HostRecord;
use muster_pki::CrlInfo;
use muster_protocol::{HostName, TaskState};
use serde_json::Value;

use super::Check;
use crate::output::fold;
use crate::output::number::counted;

/// Groups that are named, the largest not counted.
const GROUPS_MAX: usize = 5;

/// Compares. `own` are the lists that this machine has.
pub(super) fn judge(hosts: &BTreeMap<HostName, HostRecord>, own: &[CrlInfo]) -> Vec<Check> {
    revocations(hosts, own).into_iter().chain(policies(hosts)).collect()
}

/// What a host tells under a name; `None` of hosts that refuse, or whose agent is too old to tell.
fn told<'a>(
    hosts: &'a BTreeMap<HostName, HostRecord>,
    name: &'static str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let succeeded = hosts.iter().filter(|(_, record)| record.state == TaskState::Succeeded);
    succeeded.filter_map(move |(host, record)| Some((host.as_str(), record.result.as_ref()?.data.get(name)?)))
}

fn numbered(list: &Value) -> Option<(&str, u64)> {
    Some((list.get("issuer")?.as_str()?, list.get("number")?.as_u64()?))
}

/// The newest list of each authority, over all hosts and here, and who has an older one or none.
fn revocations(hosts: &BTreeMap<HostName, HostRecord>, own: &[CrlInfo]) -> Option<Check> {
    let lists: BTreeMap<&str, BTreeMap<&str, u64>> = told(hosts, "revocation_lists")
        .filter_map(|(host, lists)| Some((host, lists.as_array()?.iter().filter_map(numbered).collect())))
        .collect();
    let mut newest: BTreeMap<&str, u64> = own.iter().map(|list| (list.issuer.as_str(), list.number)).collect();
    for (issuer, number) in lists.values().flatten() {
        let known = newest.entry(issuer).or_default();
        *known = (*known).max(*number);
    }
    if lists.is_empty() {
        return None;
    }
    if newest.is_empty() {
        let what = format!("none on {}: a stolen certificate is believed there", counted(lists.len(), "host", "hosts"));
        return Some(Check::warning("crls", what, "muster pki publish FILE"));
    }
    let mut behind: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (issuer, number) in &newest {
        for (host, have) in &lists {
            match have.get(issuer) {
                Some(have) if have >= number => {}
                Some(have) => behind.entry(format!("number {have} instead of {number}")).or_default().push(host),
                None => behind.entry(format!("none instead of number {number}")).or_default().push(host),
            }
        }
        let here = own.iter().find(|list| list.issuer == **issuer).map(|list| list.number);
        match here {
            Some(here) if here < *number => {
                behind.entry(format!("number {here} instead of {number}")).or_default().push("this machine");
            }
            _ => {}
        }
    }
    let numbers: Vec<String> = newest.values().map(|number| format!("number {number}")).collect();
    if behind.is_empty() {
        let what = format!("{} on {}", numbers.join(" and "), counted(lists.len(), "host", "hosts"));
        return Some(Check::ok("crls", what));
    }
    let late: std::collections::BTreeSet<&str> = behind.values().flatten().copied().collect();
    let what = format!("{} is the newest; {} behind", numbers.join(" and "), counted(late.len(), "is", "are"));
    let mut check = Check::warning("crls", what, "muster pki publish FILE, with the authority's newest list");
    check.why = named(behind);
    Some(check)
}

/// The policies, by their digest.
fn policies(hosts: &BTreeMap<HostName, HostRecord>) -> Option<Check> {
    let mut by_digest: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (host, digest) in told(hosts, "policy_sha256") {
        if let Some(digest) = digest.as_str().filter(|digest| !digest.is_empty()) {
            by_digest.entry(digest).or_default().push(host);
        }
    }
    let count: usize = by_digest.values().map(Vec::len).sum();
    let (largest, most) =
        by_digest.iter().map(|(digest, hosts)| (*digest, hosts.len())).max_by_key(|(_, most)| *most)?;
    if by_digest.len() == 1 {
        let what = format!("the same on {}: sha256 {}", counted(count, "host", "hosts"), short_digest(largest));
        return Some(Check::ok("policies", what));
    }
    let what = format!("{} different ones; sha256 {} on {most} of {count}", by_digest.len(), short_digest(largest));
    by_digest.remove(largest);
    let others = by_digest.into_iter().map(|(digest, hosts)| (format!("sha256 {}", short_digest(digest)), hosts));
    let remedy = "sha256sum /etc/muster/policy.toml, on such a host; systemctl reload musterd";
    let mut check = Check::warning("policies", what, remedy);
    check.why = named(others.collect());
    Some(check)
}

/// As much of a digest as tells two apart.
fn short_digest(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}

fn named(groups: BTreeMap<String, Vec<&str>>) -> Vec<String> {
    let mut groups: Vec<(String, Vec<&str>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, hosts)| std::cmp::Reverse(hosts.len()));
    let more = groups.len().saturating_sub(GROUPS_MAX);
    let shown = groups.into_iter().take(GROUPS_MAX).map(|(what, hosts)| format!("{what}: {}", fold::fold_line(hosts)));
    shown.chain((more > 0).then(|| format!("and {more} more"))).collect()
}

#[cfg(test)]
mod tests {

    use muster_client::testing::{Fleet, succeeding};
    use muster_client::{Audience, Question};
    use muster_protocol::Timestamp;
    use serde_json::json;

    use super::*;

    fn list(number: u64) -> CrlInfo {
        let (this_update, next_update) = (Timestamp(0), Timestamp(1));
        CrlInfo { issuer: "CN=x".to_owned(), number, this_update, next_update, revoked: 0 }
    }

    fn host(number: Option<u64>, policy: &str) -> Value {
        let lists: Vec<Value> = number.into_iter().map(|it| json!({ "issuer": "CN=x", "number": it })).collect();
        json!({ "revocation_lists": lists, "policy_sha256": policy.repeat(64) })
    }

    async fn judged(hosts: &[(&str, Value)], own: &[CrlInfo]) -> Vec<String> {
        let fleet = Fleet::new();
        for (name, data) in hosts {
            fleet.hosts(&[name], json!({}), succeeding(data.clone())).await;
        }
        let names = hosts.iter().map(|(name, _)| name.parse().unwrap()).collect();
        let question = Question::new(Audience::Hosts(names), "host".parse().unwrap(), "status".parse().unwrap());
        let mut controller = fleet.controller().await;
        let summary = controller.ask(&question).unwrap().finish().await;
        let line = |check: &Check| {
            format!("{} {}: {} [{}]", check.status.word(), check.name, check.what, check.why.join("; "))
        };
        judge(&summary.hosts, own).iter().map(line).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_differ_are_named() {
        let same = [("web-1", host(Some(7), "a")), ("web-2", host(Some(7), "a"))];
        assert_eq!(
            judged(&same, &[list(7)]).await,
            ["ok crls: number 7 on 2 hosts []", "ok policies: the same on 2 hosts: sha256 aaaaaaaaaaaaaaaa []"]
        );
        // Newer here than on any host, and newer there than here.
        assert_eq!(
            judged(&same, &[list(8)]).await[0],
            "warning crls: number 8 is the newest; 2 are behind [number 7 instead of 8: web-[1-2]]"
        );
        assert_eq!(
            judged(&same, &[list(5)]).await[0],
            "warning crls: number 7 is the newest; 1 is behind [number 5 instead of 7: this machine]"
        );
        let hosts = [
            ("web-1", host(Some(7), "a")),
            ("web-2", host(Some(7), "a")),
            ("web-3", host(Some(6), "b")),
            ("web-4", host(None, "c")),
            ("old-1", json!({ "spooled_reports": 0 })),
        ];
        assert_eq!(
            judged(&hosts, &[]).await,
            [
                "warning crls: number 7 is the newest; 2 are behind [none instead of number 7: web-4; number 6 instead of 7: web-3]",
                "warning policies: 3 different ones; sha256 aaaaaaaaaaaaaaaa on 2 of 4 [sha256 bbbbbbbbbbbbbbbb: web-3; sha256 cccccccccccccccc: web-4]",
            ]
        );
        let nobody = [("web-1", host(None, "a"))];
        assert_eq!(
            judged(&nobody, &[]).await[0],
            "warning crls: none on 1 host: a stolen certificate is believed there []"
        );
        assert!(judged(&[("old-1", json!({}))], &[list(7)]).await.is_empty(), "who tells nothing is not judged");
    }
}
