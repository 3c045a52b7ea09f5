//! Doors for the fuzzer: what the command line reads, and what makes foreign text harmless.

use std::collections::BTreeMap;
use std::path::Path;

use crate::context;
use crate::duration::Length;
use crate::output::fuzzing as output;
use crate::requests::Requests;

pub use output::{fold_names, terminal};

/// A configuration file and variables. Gives the contexts that can be used.
pub fn context(file: &Path, variables: &BTreeMap<String, String>) -> usize {
    context::fuzzing::resolve_all(file, variables)
}

/// A length of time as it is typed, in milliseconds.
#[must_use]
pub fn duration(text: &str) -> Option<i64> {
    text.parse::<Length>().ok().map(Length::as_millis)
}

/// The requests in a file of requests.
pub fn requests(file: &Path) -> usize {
    let all = Requests::at(file.to_owned()).all();
    for request in &all {
        let hosts = request.hosts();
        assert!(request.parts(&hosts).len() <= request.commands.len());
    }
    all.len()
}
