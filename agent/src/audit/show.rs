//! Looking things up in a log: which lines somebody wants to see.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use muster_daemon::RealDisk;
use muster_protocol::Timestamp;
use muster_protocol::expr::Glob;

use super::files;
use super::line::decode;
use super::verify::in_order;
use super::{AuditError, Line};

/// What a line must have. `None` stands for anything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// Who asked: `user/lea`, with or without the scheme. `*` and `?` stand for others, here and below.
    pub caller: Option<String>,
    /// `plugin.action`.
    pub action: Option<String>,
    /// The decision or outcome.
    pub decision: Option<String>,
    /// The request.
    pub request_id: Option<String>,
    /// The policy rule.
    pub rule: Option<String>,
}

impl Filter {
    /// Whether a line is wanted.
    #[must_use]
    pub fn matches(&self, line: &Line) -> bool {
        let details = &line.details;
        let fits = |wanted: &Option<String>, found: Option<&str>| match (wanted, found) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wanted), Some(found)) => Glob::new(wanted.as_str()).is_match(found),
        };
        let short = |identity: &str| identity.strip_prefix("muster:").unwrap_or(identity).to_owned();
        let caller = self.caller.as_deref().map(short);
        self.since.is_none_or(|since| line.at_ms >= since)
            && self.until.is_none_or(|until| line.at_ms < until)
            && fits(&caller, details.caller.as_deref().map(short).as_deref())
            && fits(&self.action, details.action.as_deref())
            && fits(&self.decision, Some(&details.decision))
            && fits(&self.request_id, details.request_id.as_deref())
            && fits(&self.rule, details.rule.as_deref())
    }
}

/// One line as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its file.
    pub path: PathBuf,
    /// Its place there, from 1.
    pub number: u64,
    /// Its text.
    pub text: String,
    /// What it says; `None` if it is damaged.
    pub line: Option<Line>,
}

/// Gives every line that is wanted to `take`, oldest first, from all files of the log. Damaged lines are wanted
/// always: somebody who looks something up must not miss that there was more.
///
/// # Errors
/// A file cannot be read, or `take` says so.
pub fn look_up<E: From<AuditError>>(
    log: &Path,
    filter: &Filter,
    mut take: impl FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    for path in in_order(&RealDisk, log)? {
        let failed = |source| AuditError::Io { action: "read", path: path.clone(), source };
        let mut reader = files::open(&RealDisk, &path).map_err(failed)?;
        let mut number = 0;
        loop {
            let mut bytes = Vec::new();
            // A line without its end is being written just now, or was when the host stopped.
            if reader.read_until(b'\n', &mut bytes).map_err(failed)? == 0 || bytes.pop() != Some(b'\n') {
                break;
            }
            number += 1;
            let line = decode(&bytes).ok();
            if line.as_ref().is_none_or(|line| filter.matches(line)) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                take(Found { path: path.clone(), number, text, line })?;
            }
        }
    }
    Ok(())
}
