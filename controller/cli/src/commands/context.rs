//! `muster context list|use|show|add`: which broker, as whom.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use muster_bus::BrokerUrl;
use muster_pki::Certificate;
use muster_protocol::CollectiveName;
use muster_protocol::expr::did_you_mean;
use serde::Serialize;

use crate::context::{self, Context, ContextKey, Files, KEYS, Locations, NewContext};
use crate::invocation::Invocation;
use crate::output::{Column, ExitCode, Failure, Style, Table, Text};

/// Verbs of `context`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the contexts.
    #[command(before_help = "Examples:\n  muster context list\n  muster context list --json")]
    List,
    /// Choose the context for the commands that follow.
    #[command(before_help = "Examples:\n  muster context use staging")]
    Use {
        /// One of `muster context list`.
        #[arg(add = crate::complete::contexts())]
        name: String,
    },
    /// Show a context's values, and where each came from.
    #[command(before_help = "Examples:\n  muster context show\n  muster context show staging --origin")]
    Show {
        /// Another than the current one.
        #[arg(add = crate::complete::contexts())]
        name: Option<String>,
        /// Say for each value which file and line, variable or flag it came from.
        #[arg(long)]
        origin: bool,
    },
    /// Add a context to the config file.
    #[command(before_help = "Examples:\n  \
        muster context add prod --broker amqps://mq1.example.com --directory ~/muster-lea\n  \
        muster context add lab --broker amqps://localhost:5671/lab --ca ca.pem \\\n      \
        --certificate user-lea.pem --key user-lea.key --use")]
    Add(Box<AddArguments>),
}

/// Arguments of `context add`.
#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// Name of the new context: lower-case letters, digits, `-` and `_`.
    name: String,
    /// A broker's address, amqps://HOST[:PORT][/VHOST]; may be repeated.
    #[arg(long, required = true, value_name = "URL")]
    broker: Vec<BrokerUrl>,
    /// Directory with ca.pem, crl.pem, user-NAME.pem and user-NAME.key, as `muster pki issue --out` writes it.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// File with the CA's certificate.
    #[arg(long, value_name = "FILE", required_unless_present = "directory")]
    ca: Option<PathBuf>,
    /// File with the CA's revocation list.
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// File with your certificate.
    #[arg(long, value_name = "FILE", required_unless_present = "directory")]
    certificate: Option<PathBuf>,
    /// File with your private key.
    #[arg(long, value_name = "FILE", required_unless_present = "directory")]
    key: Option<PathBuf>,
    /// The part of the fleet that is asked.
    #[arg(long, value_name = "NAME")]
    collective: Option<CollectiveName>,
    /// Ask for a confirmation above this number of hosts.
    #[arg(long, value_name = "N")]
    confirm_above: Option<usize>,
    /// Show the context's name in red with the word PRODUCTION.
    #[arg(long)]
    production: bool,
    /// Directory with descriptions of further plugins.
    #[arg(long, value_name = "DIR")]
    ddl_directory: Option<PathBuf>,
    /// Choose it at once.
    #[arg(long = "use")]
    choose: bool,
}

/// Runs a verb of `context`.
pub(crate) fn run(command: &ContextCommand, invocation: &Invocation) -> Result<ExitCode, Failure> {
    match command {
        ContextCommand::List => list(invocation),
        ContextCommand::Use { name } => choose(name, invocation),
        ContextCommand::Show { name, origin } => show(name.as_deref(), *origin, invocation),
        ContextCommand::Add(arguments) => add(arguments, invocation),
    }
}

fn files(invocation: &Invocation) -> Result<(Locations, Files), Failure> {
    let locations = Locations::detect(&invocation.selection, &context::variables());
    let files = Files::read(&locations)?;
    Ok((locations, files))
}

#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    current: bool,
    broker: Vec<String>,
    collective: String,
    production: bool,
}

fn list(invocation: &Invocation) -> Result<ExitCode, Failure> {
    let printer = &invocation.printer;
    let (locations, files) = files(invocation)?;
    let chosen = context::choose(&invocation.selection, &context::variables(), &files, &locations);
    let current = chosen.ok().map(|choice| choice.name);
    let columns = ["name", "current", "collective"].map(Column::new).into_iter();
    let mut table = Table::new(columns.chain([Column::new("broker").text()]));
    let mut items = Vec::new();
    for (name, raw) in &files.raw.context {
        let is_current = current.as_ref() == Some(name);
        let collective = raw.collective.clone().unwrap_or_else(|| context::COLLECTIVE_DEFAULT.to_owned());
        let broker = raw.broker.clone().unwrap_or_default();
        let production = raw.production.unwrap_or(false);
        let mark = if is_current { Text::styled(Style::Good, "current") } else { Text::new() };
        let label = match printer.format().is_for_programs() {
            true => name.into(),
            false => context::label(name, production),
        };
        table.row([label, mark, collective.as_str().into(), broker.join(", ").into()]);
        items.push(Listed { name: name.clone(), current: is_current, broker, collective, production });
    }
    if items.is_empty() {
        printer.note("No context is configured. Add one: muster context add --help");
    }
    printer.list("muster.contexts/v1", "contexts", &items, &table);
    Ok(ExitCode::Success)
}

fn writable(locations: &Locations) -> Result<&Path, Failure> {
    locations.user.as_deref().ok_or_else(|| {
        Failure::new(ExitCode::Usage, "no-home", "there is no place for the config file")
            .why("why", "neither HOME nor XDG_CONFIG_HOME is set")
            .hint("add --config FILE to the command")
    })
}

fn choose(name: &str, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let (locations, files) = files(invocation)?;
    if !files.raw.context.contains_key(name) {
        let failure = Failure::new(ExitCode::Usage, "unknown-context", format!("there is no context `{name}`"));
        let nearest = did_you_mean(name, files.raw.context.keys().map(String::as_str));
        return Err(match nearest {
            Some(nearest) => {
                failure.why("nearest", format!("`{nearest}`")).hint(format!("muster context use {nearest}"))
            }
            None => failure.hint("muster context list"),
        });
    }
    let path = writable(&locations)?;
    context::write(path, &context::set_current(&context::read(path)?, name), Some(name))?;
    let production = files.raw.context.get(name).and_then(|raw| raw.production).unwrap_or(false);
    invocation.printer.note(Text::from("Commands now go to ").join(context::label(name, production)));
    if let Ok(variable) = std::env::var("MUSTER_CONTEXT")
        && variable != name
    {
        invocation.printer.warning(format!("MUSTER_CONTEXT={variable} is set and wins over the file"));
    }
    Ok(ExitCode::Success)
}

#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    broker: Vec<String>,
    collective: String,
    ca: PathBuf,
    crl: Option<PathBuf>,
    certificate: PathBuf,
    key: PathBuf,
    confirm_above: usize,
    production: bool,
    ddl_directory: Option<PathBuf>,
    origins: std::collections::BTreeMap<&'static str, String>,
}

fn show(name: Option<&str>, origin: bool, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let printer = &invocation.printer;
    let mut selection = invocation.selection.clone();
    if let Some(name) = name {
        selection.context = Some(name.to_owned());
    }
    let context = context::load(&selection)?;
    if printer.format().is_json() {
        printer.document("muster.context/v1", &shown(&context));
        return Ok(ExitCode::Success);
    }
    let mut columns = vec![Column::new("key"), Column::new("value").text()];
    columns.extend(origin.then(|| Column::new("origin").text()));
    let mut table = Table::new(columns);
    let values = values(&context);
    let mut row = |key: &str, value: Text, from: &str| {
        table.row([Text::from(key), value].into_iter().chain(origin.then(|| Text::styled(Style::Dim, from))));
    };
    let name = if printer.format().is_for_programs() { (&context.name).into() } else { context.label() };
    row("name", name, "");
    for (key, value) in values {
        row(key.row().name, value.into(), context.origins.get(&key).map_or("default", String::as_str));
    }
    printer.table(&table);
    Ok(ExitCode::Success)
}

fn values(context: &Context) -> Vec<(ContextKey, String)> {
    let path = |path: &Path| path.display().to_string();
    let optional = |value: &Option<PathBuf>| value.as_deref().map_or("none".to_owned(), path);
    let broker = context.broker.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let value = |key: ContextKey| match key {
        ContextKey::Broker => broker.clone(),
        ContextKey::Collective => context.collective.to_string(),
        ContextKey::Ca => path(&context.ca),
        ContextKey::Crl => optional(&context.crl),
        ContextKey::Certificate => path(&context.certificate),
        ContextKey::PrivateKey => path(&context.key),
        ContextKey::ConfirmAbove => context.confirm_above.to_string(),
        ContextKey::Production => context.production.to_string(),
        ContextKey::DdlDirectory => optional(&context.ddl_directory),
    };
    KEYS.iter().map(|row| (row.key, value(row.key))).collect()
}

fn shown(context: &Context) -> Shown {
    Shown {
        name: context.name.clone(),
        broker: context.broker.iter().map(ToString::to_string).collect(),
        collective: context.collective.to_string(),
        ca: context.ca.clone(),
        crl: context.crl.clone(),
        certificate: context.certificate.clone(),
        key: context.key.clone(),
        confirm_above: context.confirm_above,
        production: context.production,
        ddl_directory: context.ddl_directory.clone(),
        origins: KEYS
            .iter()
            .map(|row| (row.name, context.origins.get(&row.key).cloned().unwrap_or_else(|| "default".to_owned())))
            .collect(),
    }
}

fn add(arguments: &AddArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let name = &arguments.name;
    let proper = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 63 || !name.chars().all(proper) {
        return Err(Failure::usage(format!("`{name}` cannot be the name of a context"))
            .why("takes", "up to 63 lower-case letters, digits, `-` and `_`")
            .hint("muster context add --help"));
    }
    let (locations, files) = files(invocation)?;
    if files.raw.context.contains_key(name) {
        let origin = files.origin(name, "broker").unwrap_or("the config file").to_owned();
        return Err(Failure::usage(format!("there is a context `{name}` already"))
            .why("from", origin)
            .hint(format!("muster context show {name} --origin")));
    }
    let found = match &arguments.directory {
        Some(directory) => Found::look(directory)?,
        None => Found::default(),
    };
    let path = writable(&locations)?;
    let mut lines = vec![list_line("broker", arguments.broker.iter().map(ToString::to_string))];
    lines.extend(arguments.collective.as_ref().map(|collective| line("collective", collective.as_str())));
    let files = [
        ("ca", &arguments.ca, found.ca),
        ("crl", &arguments.crl, found.crl),
        ("certificate", &arguments.certificate, found.certificate),
        ("key", &arguments.key, found.key),
        ("ddl_directory", &arguments.ddl_directory, None),
    ];
    for (key, given, found) in files {
        if let Some(file) = given.clone().or(found) {
            // Relative to here now, relative to nothing later.
            let file = std::path::absolute(&file).map_err(|error| Failure::file("find", &file, &error))?;
            if !file.exists() {
                invocation.printer.warning(format!("{} does not exist yet", file.display()));
            }
            let file = file.to_str().ok_or_else(|| Failure::usage(format!("`{}` is not UTF-8", file.display())))?;
            lines.push(line(key, file));
        }
    }
    lines.extend(arguments.confirm_above.map(|count| format!("confirm_above = {count}")));
    lines.extend(arguments.production.then(|| "production = true".to_owned()));
    let mut text = context::add(&context::read(path)?, &NewContext { name: name.clone(), lines });
    if arguments.choose {
        text = context::set_current(&text, name);
    }
    context::write(path, &text, arguments.choose.then_some(name.as_str()))?;
    invocation.printer.note(format!("Added context `{name}` to {}", path.display()));
    invocation.printer.note(Text::from("Try it: ").push(Style::Accent, format!("muster doctor --context {name}")));
    Ok(ExitCode::Success)
}

fn line(key: &str, value: &str) -> String {
    format!("{key} = {}", context::quoted(value))
}

fn list_line(key: &str, values: impl Iterator<Item = String>) -> String {
    format!("{key} = [{}]", values.map(|value| context::quoted(&value)).collect::<Vec<_>>().join(", "))
}

/// The files of a directory that `muster pki issue --out` wrote.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Found {
    /// Looks for `ca.pem`, `crl.pem` and the only certificate with a key beside it.
    fn look(directory: &Path) -> Result<Self, Failure> {
        let entries = std::fs::read_dir(directory).map_err(|error| Failure::file("read", directory, &error))?;
        let mut pairs: Vec<(PathBuf, PathBuf)> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "key"))
            .map(|key| (key.with_extension("pem"), key))
            .filter(|(certificate, _)| is_controllers(certificate))
            .collect();
        pairs.sort();
        let wrong = |what: String| {
            Failure::usage(what)
                .why("where", directory.display().to_string())
                .hint("give --certificate FILE and --key FILE")
        };
        let mut pairs = pairs.into_iter();
        let Some((certificate, key)) = pairs.next() else {
            return Err(wrong("no certificate of a user or service with its key is there".to_owned()));
        };
        if let Some((other, _)) = pairs.next() {
            let names = format!("`{}` and `{}`", certificate.display(), other.display());
            return Err(wrong(format!("several certificates are there: {names}")));
        }
        let existing = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
        let Some(ca) = existing("ca.pem") else {
            return Err(wrong("there is no ca.pem".to_owned()));
        };
        Ok(Self { ca: Some(ca), crl: existing("crl.pem"), certificate: Some(certificate), key: Some(key) })
    }
}

fn is_controllers(certificate: &Path) -> bool {
    let identity = Certificate::load(certificate).ok().and_then(|certificate| certificate.identity().ok());
    identity.is_some_and(|identity| identity.is_controller())
}
