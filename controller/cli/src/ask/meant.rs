//! Which request is meant, and which of its hosts.

use std::collections::BTreeSet;

use clap::Args;
use muster_client::{Audience, Part};
use muster_protocol::{HostName, RequestId};

use super::no_match;
use super::record::RequestRecord;
use super::scene::Scene;
use super::screen::Look;
use super::search::search;
use crate::output::{ExitCode, Failure, Text, number, time};
use crate::requests::{Named, Request, Requests};
use crate::target::{Target, TargetArguments};

/// The request, and the hosts of it.
#[derive(Debug, Args)]
pub(crate) struct RequestArguments {
    /// The request: its id, some characters of its beginning or its end, or `last`.
    #[arg(value_name = "REQUEST|last", add = crate::complete::requests())]
    pub(crate) request: String,
    #[command(flatten)]
    pub(crate) target: TargetArguments,
}

impl RequestArguments {
    /// The target flags, where there are any.
    ///
    /// # Errors
    /// As [`TargetArguments::read`].
    pub(crate) fn target(&self, command: &str) -> Result<Option<Target>, Failure> {
        let command = format!("{command} {}", self.request);
        self.target.is_given().then(|| self.target.read(&command)).transpose()
    }
}

/// A request and the hosts that are meant.
#[derive(Debug, Clone)]
pub(crate) struct Meant {
    /// The id of its first command, or the only one that is known.
    pub(crate) id: RequestId,
    /// What is known of it here.
    pub(crate) kept: Option<Request>,
    /// Its commands and the hosts that are meant.
    pub(crate) parts: Vec<Part>,
    /// All hosts that are meant.
    pub(crate) hosts: BTreeSet<HostName>,
}

/// Looks whether the request can be meant, before anything is connected to or asked.
///
/// # Errors
/// No such request, or no target where one is needed.
pub(crate) fn check(
    requests: &Requests,
    arguments: &RequestArguments,
    context: &str,
    command: &str,
) -> Result<(), Failure> {
    match requests.find(&arguments.request, context)? {
        Named::Elsewhere(id) if !arguments.target.is_given() => Err(no_target(id, command)),
        Named::Elsewhere(_) | Named::Kept(_) => Ok(()),
    }
}

fn no_target(id: RequestId, command: &str) -> Failure {
    let what = format!("request {id} was not sent from here, so its hosts are not known");
    Failure::new(ExitCode::Usage, "no-target", what)
        .why("note", "no target never means all hosts")
        .hint(format!("muster {command} {id} --all"))
        .hint(format!("muster {command} {id} -H web1.example.com"))
}

/// Finds the request and its hosts. One that was sent from here has them; for any other a target is needed.
///
/// # Errors
/// No such request, no target where one is needed, nobody matches.
pub(crate) async fn find(
    scene: &mut Scene<'_>,
    given: &str,
    target: Option<&Target>,
    command: &str,
) -> Result<Meant, Failure> {
    let named = scene.requests.find(given, &scene.context.name)?;
    let found = match target {
        Some(target) => {
            let found = search(scene, target, None).await?;
            if found.hosts.is_empty() {
                return Err(no_match::explain(scene, target, &found.nobody()).await);
            }
            Some(target.choose(found.hosts, scene.fresh_seed).hosts)
        }
        None => None,
    };
    match (named, found) {
        (Named::Kept(request), found) => {
            let all = request.hosts();
            let hosts = found.map_or_else(|| all.clone(), |found| found.intersection(&all).cloned().collect());
            if hosts.is_empty() {
                let what = "none of these hosts was asked with this request";
                return Err(Failure::new(ExitCode::NoMatch, "no-match", what)
                    .why("request", format!("{} {}", request.id, request.what))
                    .why("asked", number::counted(all.len(), "host", "hosts"))
                    .hint(format!("muster {command} {}", request.id)));
            }
            Ok(Meant { id: request.id, parts: request.parts(&hosts), hosts, kept: Some(request) })
        }
        (Named::Elsewhere(id), Some(hosts)) => {
            let parts = vec![Part { request: id, audience: Audience::Hosts(hosts.clone()) }];
            Ok(Meant { id, kept: None, parts, hosts })
        }
        (Named::Elsewhere(id), None) => Err(no_target(id, command)),
    }
}

impl Meant {
    /// `request 9f3c21ab · package.install name=vim · 3 min ago · 214 hosts · main`.
    pub(crate) fn line(&self, scene: &Scene<'_>) -> Text {
        let dot = Look::of(scene.printer).dot();
        let text = Text::from("request ").strong(self.id.short()).plain(dot);
        let text = match &self.kept {
            Some(kept) => text.plain(&kept.what).plain(dot).plain(time::ago(kept.asked_at, scene.now())).plain(dot),
            None => text,
        };
        text.plain(number::counted(self.hosts.len(), "host", "hosts")).plain(dot).join(scene.context.label())
    }

    /// The same for programs.
    pub(crate) fn record(&self, scene: &Scene<'_>) -> RequestRecord {
        RequestRecord {
            kind: "request",
            request_id: self.id,
            context: scene.context.name.clone(),
            what: self.kept.as_ref().map(|kept| kept.what.clone()),
            asked_at: self.kept.as_ref().map(|kept| time::rfc3339(kept.asked_at)),
            hosts: self.hosts.iter().cloned().collect(),
        }
    }
}
