//! From files, environment and flags to one whole context. Pure: everything it looks at is an argument.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_bus::BrokerUrl;
use muster_protocol::CollectiveName;
use muster_protocol::expr::did_you_mean;

use super::file::{Files, Locations, RawContext};
use super::value::{ContextKey, KEYS};
use super::{COLLECTIVE_DEFAULT, CONFIRM_ABOVE_DEFAULT, Context, Selection};
use crate::output::{ExitCode, Failure};

/// The name of a context that stands in no file.
const ENVIRONMENT: &str = "environment";

/// Which context was chosen, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Its name.
    pub(crate) name: String,
    /// What chose it: a flag, a variable, a line of a file.
    pub(crate) origin: String,
}

/// Chooses: flag, variable, `current` in the files, the only one there is, the environment alone.
///
/// # Errors
/// None is configured, several are and none is chosen, or the chosen one does not exist.
pub(crate) fn choose(
    selection: &Selection,
    variables: &BTreeMap<String, String>,
    files: &Files,
    locations: &Locations,
) -> Result<Choice, Failure> {
    let contexts = &files.raw.context;
    let chosen = selection
        .context
        .clone()
        .map(|name| (name, "--context".to_owned()))
        .or_else(|| variables.get("MUSTER_CONTEXT").map(|name| (name.clone(), "MUSTER_CONTEXT".to_owned())))
        .or_else(|| {
            let origin = files.origins.get("current").cloned().unwrap_or_default();
            files.raw.current.clone().map(|name| (name, origin))
        });
    if let Some((name, origin)) = chosen {
        return match contexts.contains_key(&name) {
            true => Ok(Choice { name, origin }),
            false => Err(unknown(&name, &origin, contexts)),
        };
    }
    let mut names = contexts.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(Choice { name: only.clone(), origin: "the only context".to_owned() }),
        (None, _) if variables.contains_key(ContextKey::Broker.row().variable) => {
            Ok(Choice { name: ENVIRONMENT.to_owned(), origin: ContextKey::Broker.row().variable.to_owned() })
        }
        (None, _) => Err(none(locations)),
        (Some(_), Some(_)) => Err(several(contexts)),
    }
}

fn unknown(name: &str, origin: &str, contexts: &BTreeMap<String, RawContext>) -> Failure {
    let what = format!("there is no context `{name}`");
    let failure = Failure::new(ExitCode::Usage, "unknown-context", what).why("chosen", format!("by {origin}"));
    let names: Vec<&str> = contexts.keys().map(String::as_str).collect();
    let failure = match did_you_mean(name, names.iter().copied()) {
        Some(nearest) => failure.why("nearest", format!("`{nearest}`")),
        None if names.is_empty() => failure.why("known", "none"),
        None => failure.why("known", names.join(", ")),
    };
    failure.hint("muster context list")
}

fn several(contexts: &BTreeMap<String, RawContext>) -> Failure {
    let names: Vec<&str> = contexts.keys().map(String::as_str).collect();
    let first = names.first().copied().unwrap_or_default();
    Failure::new(ExitCode::Usage, "no-context", "several contexts are configured and none is chosen")
        .why("known", names.join(", "))
        .hint("add --context NAME to the command")
        .hint(format!("muster context use {first}"))
}

/// What somebody sees who starts the program for the first time.
fn none(locations: &Locations) -> Failure {
    let failure = Failure::new(ExitCode::Usage, "no-context", "no context is configured: which broker, and as whom?");
    let failure = locations.all().fold(failure, |failure, path| {
        let found = if path.exists() { "has no context" } else { "does not exist" };
        failure.why("looked", format!("{} {found}", path.display()))
    });
    failure
        .why("looked", format!("{} is not set", ContextKey::Broker.row().variable))
        .why("need", "a broker's address, and from whoever keeps the CA a directory with\nca.pem, user-YOU.pem and user-YOU.key (muster pki issue user/YOU --out DIR)")
        .hint("muster dev  # to try it out: a broker, three agents and a context, all on this machine")
        .hint("muster context add NAME --broker amqps://HOST --directory DIR")
}

/// Makes the chosen context whole.
///
/// # Errors
/// A required value is missing, or a value is wrong. Names the value and where it came from.
pub(crate) fn resolve(
    choice: &Choice,
    variables: &BTreeMap<String, String>,
    files: &Files,
) -> Result<Context, Failure> {
    let raw = files.raw.context.get(&choice.name).cloned().unwrap_or_default();
    let mut values = Values { name: &choice.name, variables, files, origins: BTreeMap::new(), missing: Vec::new() };
    let broker = values.brokers(raw.broker)?;
    let collective =
        values.text(ContextKey::Collective, raw.collective).unwrap_or_else(|| COLLECTIVE_DEFAULT.to_owned());
    let collective =
        CollectiveName::new(collective).map_err(|error| values.wrong(ContextKey::Collective, &error.to_string()))?;
    let ca = values.path(ContextKey::Ca, raw.ca);
    let crl = values.path(ContextKey::Crl, raw.crl);
    let certificate = values.path(ContextKey::Certificate, raw.certificate);
    let key = values.path(ContextKey::PrivateKey, raw.key);
    let confirm_above = values.parsed(ContextKey::ConfirmAbove, raw.confirm_above, "a whole number, 0 or more")?;
    let production = values.parsed(ContextKey::Production, raw.production, "true or false")?;
    let ddl_directory = values.path(ContextKey::DdlDirectory, raw.ddl_directory);
    let (Some(broker), Some(ca), Some(certificate), Some(key)) = (broker, ca, certificate, key) else {
        return Err(values.incomplete());
    };
    Ok(Context {
        name: choice.name.clone(),
        broker,
        collective,
        ca,
        crl,
        certificate,
        key,
        confirm_above: confirm_above.unwrap_or(CONFIRM_ABOVE_DEFAULT),
        production: production.unwrap_or(false),
        ddl_directory,
        origins: values.origins,
    })
}

struct Values<'a> {
    name: &'a str,
    variables: &'a BTreeMap<String, String>,
    files: &'a Files,
    origins: BTreeMap<ContextKey, String>,
    missing: Vec<ContextKey>,
}

impl Values<'_> {
    /// The variable's value, which wins; notes where a value came from, or that it is missing.
    fn variable(&mut self, key: ContextKey, in_file: bool) -> Option<String> {
        let row = key.row();
        if let Some(value) = self.variables.get(row.variable) {
            self.origins.insert(key, row.variable.to_owned());
            return Some(value.clone());
        }
        if in_file {
            let origin = self.files.origin(self.name, row.name).unwrap_or("config file");
            self.origins.insert(key, origin.to_owned());
        } else if row.required {
            self.missing.push(key);
        }
        None
    }

    fn text(&mut self, key: ContextKey, in_file: Option<String>) -> Option<String> {
        self.variable(key, in_file.is_some()).or(in_file)
    }

    fn brokers(&mut self, in_file: Option<Vec<String>>) -> Result<Option<Vec<BrokerUrl>>, Failure> {
        // An empty list is no broker.
        let in_file = in_file.filter(|addresses| !addresses.is_empty());
        let variable = self.variable(ContextKey::Broker, in_file.is_some());
        let split = |list: String| list.split(',').map(|address| address.trim().to_owned()).collect::<Vec<_>>();
        let Some(addresses) = variable.map(split).or(in_file) else { return Ok(None) };
        let parsed: Result<Vec<BrokerUrl>, _> = addresses.iter().map(|address| address.parse()).collect();
        parsed.map(Some).map_err(|error: muster_bus::UrlError| self.wrong(ContextKey::Broker, &error.to_string()))
    }

    fn parsed<T: std::str::FromStr>(
        &mut self,
        key: ContextKey,
        in_file: Option<T>,
        accepted: &str,
    ) -> Result<Option<T>, Failure> {
        match self.variable(key, in_file.is_some()) {
            None => Ok(in_file),
            Some(text) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(self.wrong(key, &format!("`{text}` is not {accepted}"))),
            },
        }
    }

    /// A path: `~/` is the home directory; relative ones start at their file's directory.
    fn path(&mut self, key: ContextKey, in_file: Option<String>) -> Option<PathBuf> {
        let from_variable = self.variables.contains_key(key.row().variable);
        let text = self.text(key, in_file)?;
        if let Some(below_home) = text.strip_prefix("~/")
            && let Some(home) = self.variables.get("HOME")
        {
            return Some(Path::new(home).join(below_home));
        }
        let origin = self.origins.get(&key).and_then(|origin| origin.rsplit_once(':'));
        let directory = origin.and_then(|(file, _)| Path::new(file).parent());
        match directory {
            Some(directory) if !from_variable => Some(directory.join(text)),
            _ => Some(text.into()),
        }
    }

    fn wrong(&self, key: ContextKey, why: &str) -> Failure {
        let what = format!("context `{}`: `{key}` has a wrong value", self.name);
        let origin = self.origins.get(&key).map_or("default", String::as_str);
        Failure::new(ExitCode::Usage, "bad-context", what)
            .why("why", why)
            .why("from", origin)
            .hint("muster context show --origin")
    }

    fn incomplete(&self) -> Failure {
        let names: Vec<String> = self.missing.iter().map(|key| format!("`{key}`")).collect();
        let what = format!("context `{}` is incomplete: {} not set", self.name, names.join(", "));
        let failure = Failure::new(ExitCode::Usage, "bad-context", what);
        let rows = KEYS.iter().filter(|row| self.missing.contains(&row.key));
        let failure = rows.fold(failure, |failure, row| {
            failure.why("need", format!("{} ({}): {}", row.name, row.variable, row.what))
        });
        failure.hint("muster context add --help")
    }
}
