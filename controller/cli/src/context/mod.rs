//! Which broker, as whom: contexts, from files, environment and flags, each value with its origin.
//!
//! ```text
//! defaults  <  /etc/muster/config.toml  <  $XDG_CONFIG_HOME/muster/config.toml  <  MUSTER_*  <  flags
//! ```

mod edit;
mod file;
pub(crate) mod fuzzing;
mod resolve;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use muster_bus::BrokerUrl;
use muster_protocol::CollectiveName;

use crate::output::{Failure, Style, Text};

pub(crate) use edit::{NewContext, add, quoted, read, set_current, write};
pub(crate) use file::{Files, Locations};
pub(crate) use resolve::{choose, resolve};
pub(crate) use value::{ContextKey, KEYS};

/// Hosts up to which `run` asks for no confirmation, unless the context says otherwise.
pub(crate) const CONFIRM_ABOVE_DEFAULT: usize = 50;

/// The collective that everybody is in, unless the context says otherwise.
pub(crate) const COLLECTIVE_DEFAULT: &str = "main";

/// What the operator said on the command line about contexts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// `--context NAME`.
    pub(crate) context: Option<String>,
    /// `--config FILE`.
    pub(crate) config: Option<PathBuf>,
}

/// A whole context: everything that is needed to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// Its name.
    pub(crate) name: String,
    /// The brokers, all equal.
    pub(crate) broker: Vec<BrokerUrl>,
    /// The part of the fleet that is asked.
    pub(crate) collective: CollectiveName,
    /// The CA's certificate.
    pub(crate) ca: PathBuf,
    /// The CA's revocation list.
    pub(crate) crl: Option<PathBuf>,
    /// The operator's certificate.
    pub(crate) certificate: PathBuf,
    /// The operator's private key.
    pub(crate) key: PathBuf,
    /// More hosts than this need a confirmation.
    pub(crate) confirm_above: usize,
    /// Whether its name is shown in red with the word PRODUCTION.
    pub(crate) production: bool,
    /// Directory with descriptions of further plugins.
    pub(crate) ddl_directory: Option<PathBuf>,
    /// Where each value came from. A key that is missing here has its default.
    pub(crate) origins: BTreeMap<ContextKey, String>,
}

impl Context {
    /// The name as it is shown: a production context cannot be mistaken for another.
    pub(crate) fn label(&self) -> Text {
        label(&self.name, self.production)
    }
}

/// A context's name as it is shown.
pub(crate) fn label(name: &str, production: bool) -> Text {
    match production {
        true => Text::styled(Style::Danger, format!("{name} PRODUCTION")),
        false => Text::styled(Style::Strong, name),
    }
}

/// Reads files and environment and makes the chosen context of them.
///
/// # Errors
/// No context is configured or chosen, or it is incomplete or wrong.
pub(crate) fn load(selection: &Selection) -> Result<Context, Failure> {
    let variables = variables();
    let locations = Locations::detect(selection, &variables);
    let files = Files::read(&locations)?;
    let choice = choose(selection, &variables, &files, &locations)?;
    resolve(&choice, &variables, &files)
}

/// The environment variables that concern contexts and places. Those that are empty or not UTF-8 count as not set.
pub(crate) fn variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// A context for tests that need no file of it.
#[cfg(test)]
pub(crate) fn sample(name: &str) -> Context {
    Context {
        name: name.to_owned(),
        broker: Vec::new(),
        collective: "main".parse().unwrap(),
        ca: "ca.pem".into(),
        crl: None,
        certificate: "user-lea.pem".into(),
        key: "user-lea.key".into(),
        confirm_above: CONFIRM_ABOVE_DEFAULT,
        production: false,
        ddl_directory: None,
        origins: BTreeMap::new(),
    }
}
