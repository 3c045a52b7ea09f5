//! `muster plugin`: what can be run and what it takes; plugins written, checked, packed and brought to hosts.

mod check;
mod deliver;
mod new;
mod pack;

use clap::{Args, Subcommand};
use muster_client::discover;
use muster_protocol::HostName;
use muster_protocol::ddl::{Action, Ddl, Input};
use serde::Serialize;
use serde_json::Value;

use crate::catalogue::Catalogue;
use crate::invocation::Invocation;
use crate::one_host;
use crate::output::{Column, ExitCode, Failure, Printer, Style, Table, Text};

/// Verbs of `plugin`.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// List the plugins that this program can describe, or those of a host.
    #[command(before_help = "Examples:\n  muster plugin list\n  muster plugin list --on web1.example.com")]
    List(ListArguments),
    /// Show a plugin's actions, or what one action takes and gives.
    #[command(before_help = "Examples:\n  muster plugin show package\n  muster plugin show package.status")]
    Show(ShowArguments),
    /// Write the beginning of a plugin of your own.
    #[command(before_help = "Examples:\n  muster plugin new hello\n  muster plugin new hello --language python")]
    New(new::NewArguments),
    /// Run a plugin's samples here and hold it to the contract.
    #[command(before_help = "Examples:\n  muster plugin check ./hello")]
    Check(check::CheckArguments),
    /// Make a signed pack of a plugin's folder.
    #[command(before_help = "Examples:\n  muster plugin pack ./hello\n  muster plugin pack ./hello --out /tmp")]
    Pack(pack::PackArguments),
    /// Bring a pack to hosts, and use it at once.
    #[command(before_help = "Examples:\n  \
        muster plugin install hello-1.0.0.tar.gz -t 'role = web'\n  \
        muster plugin install hello-1.0.0.tar.gz --all --noop\n  \
        muster plugin install hello-1.0.0.tar.gz --local")]
    Install(Box<deliver::InstallArguments>),
    /// Take a plugin that came from a pack away from hosts.
    #[command(
        before_help = "Examples:\n  muster plugin remove hello -t 'role = web'\n  muster plugin remove hello --local"
    )]
    Remove(Box<deliver::RemoveArguments>),
}

/// Arguments of `plugin list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Ask this host which plugins it has.
    #[arg(long, value_name = "HOST", add = crate::complete::hosts())]
    on: Option<HostName>,
}

/// Arguments of `plugin show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// PLUGIN, or PLUGIN.ACTION.
    #[arg(value_name = "PLUGIN[.ACTION]", add = crate::complete::plugins_and_actions())]
    name: String,
}

/// Lists or shows what is known here.
pub(crate) fn run(command: &PluginCommand, invocation: &Invocation) -> Result<ExitCode, Failure> {
    match command {
        PluginCommand::New(arguments) => return new::run(arguments, invocation),
        PluginCommand::Check(arguments) => return crate::block_on(check::run(arguments, invocation)),
        PluginCommand::Pack(arguments) => return pack::run(arguments, invocation),
        PluginCommand::Install(arguments) => return crate::block_on(deliver::install(arguments, invocation)),
        PluginCommand::Remove(arguments) => return crate::block_on(deliver::remove(arguments, invocation)),
        PluginCommand::List(_) | PluginCommand::Show(_) => {}
    }
    // Descriptions need no broker and so no whole context; a directory of more of them needs one.
    let context = invocation.context().ok();
    let catalogue = Catalogue::load(context.as_ref())?;
    match command {
        PluginCommand::List(ListArguments { on: Some(host) }) => crate::block_on(list_on(host, &catalogue, invocation)),
        PluginCommand::List(ListArguments { on: None }) => {
            list(&catalogue, &invocation.printer);
            Ok(ExitCode::Success)
        }
        PluginCommand::Show(arguments) => show(&arguments.name, &catalogue, &invocation.printer),
        PluginCommand::New(_)
        | PluginCommand::Check(_)
        | PluginCommand::Pack(_)
        | PluginCommand::Install(_)
        | PluginCommand::Remove(_) => Err(Failure::usage("this needs no descriptions")),
    }
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    version: &'a str,
    description: &'a str,
    actions: Vec<&'a str>,
}

fn list(catalogue: &Catalogue, printer: &Printer) {
    let columns =
        [Column::new("name"), Column::new("version"), Column::new("actions"), Column::new("description").text()];
    let mut table = Table::new(columns);
    let mut items = Vec::new();
    for ddl in catalogue.iter() {
        let (name, version, description) = (ddl.name().as_str(), &ddl.metadata.version, &ddl.metadata.description);
        let actions: Vec<&str> = ddl.actions.iter().map(|action| action.name.as_str()).collect();
        table.row([Text::styled(Style::Accent, name), version.into(), actions.join(", ").into(), description.into()]);
        items.push(Listed { name, version, description, actions });
    }
    printer.list("muster.plugins/v1", "plugins", &items, &table);
}

#[derive(Debug, Serialize)]
struct Installed {
    name: String,
    version: String,
    known_here: bool,
}

async fn list_on(host: &HostName, catalogue: &Catalogue, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let data = one_host::ask(invocation, host, "inventory", serde_json::Map::new()).await?;
    let Some((_, inventory)) = discover::read_inventory(&data) else {
        return Err(one_host::strange(host));
    };
    let columns = [Column::new("name"), Column::new("version"), Column::new("description").text()];
    let mut table = Table::new(columns);
    let mut items = Vec::new();
    for plugin in inventory.plugins {
        let known = catalogue.iter().find(|ddl| *ddl.name() == plugin.name);
        let description =
            known.map_or(Text::styled(Style::Dim, "no description here"), |ddl| Text::from(&ddl.metadata.description));
        table.row([Text::styled(Style::Accent, &plugin.name), plugin.version.as_str().into(), description]);
        items.push(Installed { name: plugin.name.to_string(), version: plugin.version, known_here: known.is_some() });
    }
    invocation.printer.list("muster.plugins/v1", "plugins", &items, &table);
    Ok(ExitCode::Success)
}

fn show(name: &str, catalogue: &Catalogue, printer: &Printer) -> Result<ExitCode, Failure> {
    if name.contains('.') {
        let (ddl, action) = catalogue.action(name)?;
        show_action(ddl, action, printer);
    } else {
        show_plugin(catalogue.plugin(name)?, printer);
    }
    Ok(ExitCode::Success)
}

#[derive(Debug, Serialize)]
struct PluginDocument<'a> {
    plugin: &'a Ddl,
}

fn show_plugin(ddl: &Ddl, printer: &Printer) {
    if printer.format().is_json() {
        return printer.document("muster.plugin/v1", &PluginDocument { plugin: ddl });
    }
    let mut table = Table::new([Column::new("action"), Column::new("effect"), Column::new("description").text()]);
    for action in &ddl.actions {
        let name = Text::styled(Style::Accent, format!("{}.{}", ddl.name(), action.name));
        table.row([name, effect(action), (&action.description).into()]);
    }
    if !printer.format().is_for_programs() {
        let metadata = &ddl.metadata;
        printer.line(Text::new().strong(ddl.name()).plain(format!(" {}: {}", metadata.version, metadata.description)));
        if !metadata.author.is_empty() {
            printer.line(Text::new().dim(format!("by {}, {}", metadata.author, metadata.license)));
        }
        printer.line("");
    }
    printer.table(&table);
    if let Some(action) = ddl.actions.first() {
        let hint = format!("muster plugin show {}.{}", ddl.name(), action.name);
        printer.note("");
        printer.note(Text::from("More: ").push(Style::Accent, hint));
    }
}

fn effect(action: &Action) -> Text {
    match action.muster.read_only {
        true => Text::from("reads"),
        false => Text::styled(Style::Warning, "changes"),
    }
}

#[derive(Debug, Serialize)]
struct ActionDocument<'a> {
    plugin: &'a str,
    version: &'a str,
    timeout_s: u64,
    example: String,
    action: &'a Action,
}

fn show_action(ddl: &Ddl, action: &Action, printer: &Printer) {
    let example = example(ddl, action);
    if printer.format().is_json() {
        let (plugin, version) = (ddl.name().as_str(), ddl.metadata.version.as_str());
        let timeout_s = ddl.timeout_s(action);
        return printer.document("muster.action/v1", &ActionDocument { plugin, version, timeout_s, example, action });
    }
    let mut inputs = Table::new([
        Column::new("argument"),
        Column::new("type"),
        Column::new("default"),
        Column::new("takes").text(),
        Column::new("description").text(),
    ]);
    for (name, input) in action.input.iter() {
        let takes = input.accepted();
        inputs.row([
            Text::styled(Style::Accent, name),
            input.kind.as_str().into(),
            default(input),
            takes.into(),
            (&input.description).into(),
        ]);
    }
    if printer.format().is_for_programs() {
        return printer.table(&inputs);
    }
    let name = format!("{}.{}", ddl.name(), action.name);
    printer.line(Text::new().strong(&name).plain(format!(": {}", action.description)));
    let supports = action.muster.supports;
    let options = [
        (supports.noop, "--noop"),
        (supports.effective_user, "--effective-user"),
        (supports.cancel, "cancel"),
        (supports.stream, "output while it runs"),
    ];
    let options: Vec<&str> = options.into_iter().filter(|(can, _)| *can).map(|(_, name)| name).collect();
    let facts = Text::new()
        .join(effect(action))
        .plain(format!(" · time limit {} s", ddl.timeout_s(action)))
        .plain(if options.is_empty() { String::new() } else { format!(" · {}", options.join(", ")) });
    printer.line(if printer.ascii() { facts.to_plain().replace('·', "-").into() } else { facts });
    if !action.muster.needs.is_empty() {
        printer.line(format!("needs {}", action.muster.needs.join("; ")));
    }
    printer.line("");
    printer.line(Text::styled(Style::Dim, "Example: ").push(Style::Accent, &example));
    printer.line("");
    if action.input.is_empty() {
        printer.line("It takes no arguments.");
    } else {
        for (name, input) in action.input.iter() {
            argument(name, input, printer);
        }
    }
    if !action.output.is_empty() {
        printer.line("");
        let mut outputs = Table::new([Column::new("gives"), Column::new("type"), Column::new("description").text()]);
        for (name, output) in action.output.iter() {
            outputs.row([name.into(), output.kind.as_str().into(), (&output.description).into()]);
        }
        printer.table(&outputs);
    }
}

/// One argument on its own lines: a table would cut what matters most.
fn argument(name: &str, input: &Input, printer: &Printer) {
    let head = Text::from("  ").push(Style::Accent, name).plain(format!(" ({}", input.kind.as_str())).plain(", ");
    let secret = if input.is_secret() { ", secret: from a file, standard input or the terminal" } else { "" };
    printer.line(head.join(default(input)).plain(secret).plain(")"));
    if !input.description.is_empty() {
        printer.line(format!("      {}", input.description));
    }
    printer.line(Text::from("      takes ").plain(input.accepted()));
}

fn default(input: &Input) -> Text {
    match input.usable_default() {
        _ if input.is_required() => Text::styled(Style::Strong, "required"),
        Some(Value::String(text)) => format!("default {text}").into(),
        Some(value) => format!("default {value}").into(),
        None => "optional".into(),
    }
}

/// A command that could be typed, with all required arguments.
fn example(ddl: &Ddl, action: &Action) -> String {
    let required = action.input.iter().filter(|(_, input)| input.is_required());
    let arguments: Vec<String> = required.map(|(name, input)| format!(" {name}={}", sample(name, input))).collect();
    format!("muster run {}.{}{} -t 'os.family = Debian'", ddl.name(), action.name, arguments.concat())
}

fn sample(name: &str, input: &Input) -> String {
    match input.values.first() {
        _ if input.is_secret() => "@FILE".to_owned(),
        Some(first) => first.clone(),
        None => match input.kind.as_str() {
            "boolean" => "true".to_owned(),
            "integer" | "number" | "float" => "1".to_owned(),
            _ => name.to_uppercase(),
        },
    }
}
