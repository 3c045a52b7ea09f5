//! Asking hosts, as `ping`, `find` and `run` share it: the scene they act in, the loop that follows a
//! question, what is searched before and said after it.

pub(crate) mod action;
pub(crate) mod aftermath;
pub(crate) mod aggregates;
pub(crate) mod conclude;
pub(crate) mod confirm;
pub(crate) mod counter;
pub(crate) mod details;
pub(crate) mod drive;
pub(crate) mod follow;
pub(crate) mod input;
pub(crate) mod keys;
pub(crate) mod meant;
pub(crate) mod no_match;
pub(crate) mod record;
pub(crate) mod scene;
pub(crate) mod screen;
pub(crate) mod search;
pub(crate) mod silently;
pub(crate) mod stranger;
pub(crate) mod stream;
#[cfg(test)]
mod tests;

use clap::Args;

use crate::duration::Length;
use crate::output::Tolerated;

/// How long to wait, and what silence means.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How long to wait")]
pub(crate) struct WaitArguments {
    /// How long hosts may take until their first answer.
    #[arg(long, value_name = "TIME")]
    pub(crate) reply_timeout: Option<Length>,
    /// Stop waiting after this time in any case; the hosts go on (exit code 10).
    #[arg(long, value_name = "TIME")]
    pub(crate) wait_for: Option<Length>,
    /// Ends that do not make the exit code: `no-reply`, `refused`.
    #[arg(long, value_name = "ENDS", value_delimiter = ',')]
    pub(crate) tolerate: Vec<Tolerated>,
}
