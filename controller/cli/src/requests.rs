//! What this user has asked lately, so that `muster cancel` and `muster watch` know the hosts.
//!
//! A small file of JSON lines, `$XDG_STATE_HOME/muster/requests.jsonl` (else below `~/.local/state`), mode 0600: one
//! line a wave, with the ids of its commands and who got them. It is a convenience and never
//! authoritative: what a request does is known to its hosts. So it is bounded, a line that is not understood is
//! skipped, and a file that cannot be written costs a remark. Arguments are kept as they are shown,
//! cut short and with secrets masked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use muster_client::{Audience, Part};
use muster_protocol::limits::TARGET_HOSTS_MAX;
use muster_protocol::{HostName, RequestId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::output::{ExitCode, Failure, fold};

mod file;
pub(crate) mod outcome;

pub(crate) use file::RecordError;
pub(crate) use outcome::Outcome;

/// Longest text of what was run, in characters.
const WHAT_CHARACTERS_MAX: usize = 300;

/// Fewest characters of an id that name a request.
const GIVEN_CHARACTERS_MIN: usize = 4;

/// One wave of a request, as a line of the file holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    version: u32,
    /// The id of the request's first command: all waves have the same.
    request: RequestId,
    asked_at_ms: Timestamp,
    context: String,
    what: String,
    action: String,
    time_limit_ms: i64,
    ttl_ms: i64,
    #[serde(default)]
    read_only: bool,
    /// The commands, and their hosts in folded ranges.
    commands: BTreeMap<RequestId, String>,
    /// What came of it on its hosts, by word and in folded ranges. Such a line has no commands.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    outcome: BTreeMap<String, String>,
}

/// The layout of a line. Lines of another are skipped.
const VERSION: u32 = 1;

/// A request of this user: everything that one `muster run` has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The id of its first command.
    pub(crate) id: RequestId,
    pub(crate) asked_at: Timestamp,
    pub(crate) context: String,
    /// The action.
    pub(crate) action: String,
    /// Action and arguments on one line, secrets masked.
    pub(crate) what: String,
    /// The action's time limit, in milliseconds.
    pub(crate) time_limit_ms: i64,
    /// How long its commands live, in milliseconds.
    pub(crate) ttl_ms: i64,
    /// Whether the action changes nothing.
    pub(crate) read_only: bool,
    /// Its commands and their hosts.
    pub(crate) commands: BTreeMap<RequestId, BTreeSet<HostName>>,
    /// What came of it, where that is kept: for pending commands.
    pub(crate) outcome: Outcome,
}

impl Request {
    /// All its hosts.
    pub(crate) fn hosts(&self) -> BTreeSet<HostName> {
        self.commands.values().flatten().cloned().collect()
    }

    /// Its commands as far as they went to `hosts`.
    pub(crate) fn parts(&self, hosts: &BTreeSet<HostName>) -> Vec<Part> {
        let part = |(request, asked): (&RequestId, &BTreeSet<HostName>)| {
            let meant: BTreeSet<HostName> = asked.intersection(hosts).cloned().collect();
            (!meant.is_empty()).then_some(Part { request: *request, audience: Audience::Hosts(meant) })
        };
        self.commands.iter().filter_map(part).collect()
    }

    /// Adds a wave that was sent.
    pub(crate) fn add(&mut self, commands: impl IntoIterator<Item = (RequestId, BTreeSet<HostName>)>) {
        self.commands.extend(commands);
    }

    fn line(&self, commands: &BTreeMap<RequestId, BTreeSet<HostName>>) -> Line {
        let fold = |hosts: &BTreeSet<HostName>| fold::fold(hosts.iter().map(HostName::as_str)).join(",");
        Line {
            version: VERSION,
            request: self.id,
            asked_at_ms: self.asked_at,
            context: self.context.clone(),
            what: self.what.chars().take(WHAT_CHARACTERS_MAX).collect(),
            action: self.action.clone(),
            time_limit_ms: self.time_limit_ms,
            ttl_ms: self.ttl_ms,
            read_only: self.read_only,
            commands: commands.iter().map(|(request, hosts)| (*request, fold(hosts))).collect(),
            outcome: BTreeMap::new(),
        }
    }
}

/// The requests of this user, newest last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    path: Option<PathBuf>,
}

impl Requests {
    /// Those of the process's user; nothing is kept where there is no place for it.
    pub(crate) fn of_user() -> Self {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        Self { path: base.map(|base| base.join("muster").join("requests.jsonl")) }
    }

    /// Those in one file.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// Keeps one wave of a request.
    ///
    /// # Errors
    /// The file cannot be written, or another process holds it for long.
    pub(crate) fn keep(
        &self,
        request: &Request,
        wave: &BTreeMap<RequestId, BTreeSet<HostName>>,
    ) -> Result<(), RecordError> {
        match &self.path {
            Some(path) => file::append(path, &request.line(wave)),
            None => Ok(()),
        }
    }

    /// Keeps what came of a request.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub(crate) fn keep_outcome(&self, request: &Request, outcome: &Outcome) -> Result<(), RecordError> {
        match &self.path {
            Some(path) if !outcome.is_empty() => {
                file::append(path, &Line { outcome: outcome.folded(), ..request.line(&BTreeMap::new()) })
            }
            _ => Ok(()),
        }
    }

    /// All that are kept, oldest first.
    pub(crate) fn all(&self) -> Vec<Request> {
        merge(self.path.as_deref().map(file::read).unwrap_or_default())
    }

    /// The request that `given` names in a context: `last`, an id, or the beginning or the end of one. `None` for a whole id
    /// that is not kept.
    ///
    /// # Errors
    /// Exit 2: nothing or several fit; exit 4 for `last` where nothing was asked.
    pub(crate) fn find(&self, given: &str, context: &str) -> Result<Named, Failure> {
        let all = self.all();
        let here = || all.iter().filter(|request| request.context == context);
        if given == "last" {
            let last = here().next_back().cloned().map(Named::Kept);
            return last.ok_or_else(|| {
                let what = format!("no request of yours is kept for context `{context}`");
                Failure::new(ExitCode::NoMatch, "no-request", what)
                    .why("kept in", self.place())
                    .hint("muster request list")
            });
        }
        let typed = given.to_ascii_lowercase();
        let fits = |id: &RequestId| {
            let id = id.to_string();
            typed.len() >= GIVEN_CHARACTERS_MIN && (id.starts_with(&typed) || id.ends_with(&typed))
        };
        let found: Vec<&Request> = here().filter(|request| request.commands.keys().any(fits)).collect();
        match (found.as_slice(), typed.parse::<RequestId>()) {
            ([one], _) => Ok(Named::Kept((*one).clone())),
            ([], Ok(id)) => Ok(Named::Elsewhere(id)),
            ([], Err(_)) => {
                let what = format!("no request of yours in context `{context}` has an id like `{given}`");
                let failure = Failure::new(ExitCode::Usage, "no-request", what).why("kept in", self.place());
                let other = all.iter().find(|request| request.commands.keys().any(fits));
                let failure = other.iter().fold(failure, |failure, other| {
                    failure.why("but", format!("{} in context `{1}`: add --context {1}", other.id, other.context))
                });
                Err(failure
                    .hint("the whole id and a target, for a request that was sent from elsewhere")
                    .hint("muster request list"))
            }
            (several, _) => {
                let what = format!("`{given}` fits {} requests", several.len());
                let failure = Failure::new(ExitCode::Usage, "ambiguous-request", what);
                let shown = several.iter().rev().take(3);
                let failure =
                    shown.fold(failure, |failure, one| failure.why("fits", format!("{}  {}", one.id, one.what)));
                Err(failure.hint("more characters of the id"))
            }
        }
    }

    fn place(&self) -> String {
        self.path.as_ref().map_or_else(
            || "nothing: neither XDG_STATE_HOME nor HOME is set".to_owned(),
            |path| path.display().to_string(),
        )
    }
}

/// What an operator has named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// A request that was sent from here.
    Kept(Request),
    /// A request of which only the id is known.
    Elsewhere(RequestId),
}

/// Puts the waves of each request together. In the order of the file, which is that of sending.
fn merge(lines: Vec<Line>) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for line in lines {
        let mut commands = BTreeMap::new();
        for (request, folded) in &line.commands {
            let names = fold::expand(folded, TARGET_HOSTS_MAX).unwrap_or_default();
            let hosts: BTreeSet<HostName> = names.into_iter().filter_map(|name| HostName::new(name).ok()).collect();
            commands.insert(*request, hosts);
        }
        let outcome = Outcome::unfolded(&line.outcome);
        match requests.iter_mut().rev().find(|request| request.id == line.request) {
            Some(request) => {
                request.commands.extend(commands);
                request.outcome.learn(outcome);
            }
            // The lines of its waves were old enough to go.
            None if commands.is_empty() => {}
            None => requests.push(Request {
                id: line.request,
                asked_at: line.asked_at_ms,
                context: line.context,
                action: line.action,
                what: line.what,
                time_limit_ms: line.time_limit_ms,
                ttl_ms: line.ttl_ms,
                read_only: line.read_only,
                commands,
                outcome,
            }),
        }
    }
    requests
}

#[cfg(test)]
mod tests;
