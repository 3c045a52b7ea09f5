//! `muster plugin install|remove`: packs brought to hosts and taken away, through the plugin `plugin` of each.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use muster_plugin_pack::{PACK_BYTES_MAX, Pack};
use muster_protocol::PluginName;
use muster_protocol::ddl::Ddl;
use serde::Serialize;

use super::pack::failure;
use crate::ask::WaitArguments;
use crate::catalogue::own_directory;
use crate::commands::run::{RunArguments, WayArguments};
use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, number};
use crate::session::Login;
use crate::target::TargetArguments;

/// Arguments of `plugin install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArguments {
    /// The pack.
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Also where a newer version, or another content of the same, is installed.
    #[arg(long)]
    allow_any: bool,
    /// Ask no host; only take the plugin's description, so that it can be run from here.
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    way: WayArguments,
    #[command(flatten)]
    wait: WaitArguments,
}

/// Arguments of `plugin remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Name of the plugin.
    #[arg(value_name = "NAME")]
    name: PluginName,
    /// Ask no host; only forget the plugin's description.
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    way: WayArguments,
    #[command(flatten)]
    wait: WaitArguments,
}

#[derive(Debug, Serialize)]
struct Local<'a> {
    plugin: &'a PluginName,
    version: Option<&'a str>,
    description: String,
}

/// Looks at the pack as a host will, sends it, and keeps its description.
///
/// # Errors
/// Exit 2: the pack is not accepted here already. Otherwise as `run`.
pub(crate) async fn install(arguments: &InstallArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let bytes = read(&arguments.file)?;
    let what = || format!("`{}` is not a pack that can be installed", arguments.file.display());
    let pack = Pack::open(&bytes).map_err(|error| failure(&error, what()))?;
    muster_plugins::external::check_description(pack.ddl())
        .map_err(|why| Failure::new(ExitCode::Usage, "bad-description", what()).because(&why))?;
    let context = invocation.context()?;
    let login = Login::load(&context, invocation.now())?;
    let signers = pack.signers(&login.trust, invocation.now()).map_err(|error| failure(&error, what()))?;
    let manifest = pack.manifest();
    let signed_by: Vec<String> =
        signers.iter().map(|signer| signed(&signer.identity.short(), &signer.groups)).collect();
    let files = number::counted(manifest.files.len(), "file", "files");
    let signed_by = signed_by.join(", ");
    invocation.printer.note(format!("{} {}: {files}, signed by {signed_by}", manifest.name, manifest.version));
    if arguments.local {
        refuse_target(&arguments.target)?;
        let path = remember(pack.ddl())?;
        return Ok(say_local(invocation, &manifest.name, Some(&manifest.version), &path));
    }
    let mut inputs = vec![format!("pack={}", BASE64.encode(pack.bytes()))];
    if arguments.allow_any {
        inputs.push("allow_any=true".to_owned());
    }
    let exit = ask("plugin.install", inputs, &arguments.target, &arguments.way, &arguments.wait, invocation).await?;
    if !arguments.way.dry_run && !arguments.way.noop {
        let path = remember(pack.ddl())?;
        invocation.printer.detail(1, format!("description kept in {}", path.display()));
    }
    Ok(exit)
}

/// Takes a plugin away from hosts; its description stays here, since other hosts may have it.
///
/// # Errors
/// As `run`; with `--local` exit 2 if there is no such description.
pub(crate) async fn remove(arguments: &RemoveArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let name = &arguments.name;
    if arguments.local {
        refuse_target(&arguments.target)?;
        let path = own_place(name)?;
        std::fs::remove_file(&path).map_err(|error| Failure::file("remove", &path, &error))?;
        return Ok(say_local(invocation, name, None, &path));
    }
    let inputs = vec![format!("name={name}")];
    ask("plugin.remove", inputs, &arguments.target, &arguments.way, &arguments.wait, invocation).await
}

async fn ask(
    action: &str,
    inputs: Vec<String>,
    target: &TargetArguments,
    way: &WayArguments,
    wait: &WaitArguments,
    invocation: &Invocation,
) -> Result<ExitCode, Failure> {
    let (target, way, wait) = (target.clone(), way.clone(), wait.clone());
    let run = RunArguments { action: action.to_owned(), inputs, target, way, wait };
    crate::commands::run::run(&run, invocation).await
}

fn signed(identity: &str, groups: &BTreeSet<muster_protocol::GroupName>) -> String {
    let groups: Vec<&str> = groups.iter().map(muster_protocol::GroupName::as_str).collect();
    if groups.is_empty() { identity.to_owned() } else { format!("{identity} ({})", groups.join(", ")) }
}

/// With `--local` no host is asked, so a target would be a mistake.
fn refuse_target(target: &TargetArguments) -> Result<(), Failure> {
    if target.all || !target.targets.is_empty() || !target.hosts.is_empty() {
        return Err(Failure::usage("--local asks no host; leave out the target"));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = PACK_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| Failure::file("read", path, &error))?;
    Ok(bytes)
}

fn own_place(name: &PluginName) -> Result<PathBuf, Failure> {
    let directory = own_directory().ok_or_else(|| {
        Failure::usage("there is no place for descriptions: neither XDG_DATA_HOME nor HOME is an absolute path")
    })?;
    Ok(directory.join(format!("{name}.json")))
}

/// Keeps a description where the catalogue finds it.
fn remember(ddl: &Ddl) -> Result<PathBuf, Failure> {
    let path = own_place(ddl.name())?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| Failure::file("make", directory, &error))?;
    }
    let mut text = serde_json::to_vec_pretty(ddl)
        .map_err(|error| Failure::unexpected("the description cannot be written", &error))?;
    text.push(b'\n');
    muster_daemon::write_atomic(&path, 0o644, &text).map_err(|error| Failure::file("write", &path, error.io()))?;
    Ok(path)
}

fn say_local(invocation: &Invocation, plugin: &PluginName, version: Option<&str>, path: &Path) -> ExitCode {
    let printer = &invocation.printer;
    let description = path.display().to_string();
    if printer.format().is_json() {
        printer.document("muster.plugin-local/v1", &Local { plugin, version, description });
    } else {
        printer.line(description);
    }
    ExitCode::Success
}
