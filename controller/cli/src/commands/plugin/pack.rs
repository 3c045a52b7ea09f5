//! `muster plugin pack`: a plugin's folder as one signed file.

use std::path::PathBuf;

use clap::Args;
use muster_plugin_pack::{Pack, PackError, read_folder};
use muster_protocol::PluginName;
use serde::Serialize;

use super::check;
use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, Style, Text};
use crate::session::Login;

/// Arguments of `plugin pack`.
#[derive(Debug, Args)]
pub(crate) struct PackArguments {
    /// The plugin's folder.
    #[arg(value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
    /// Directory for the pack, which is called NAME-VERSION.tar.gz; or the whole name of its file.
    #[arg(long, short, value_name = "PATH", default_value = ".", value_hint = clap::ValueHint::AnyPath)]
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct Packed<'a> {
    plugin: &'a PluginName,
    version: &'a str,
    file: String,
    bytes: usize,
    sha256: &'a str,
    signed_by: &'a str,
    files: Vec<&'a str>,
}

/// Makes the pack.
///
/// # Errors
/// Exit 2: the folder cannot be packed. Exit 8: the identity of the context cannot sign.
pub(crate) fn run(arguments: &PackArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let description = check::description(&arguments.folder)?;
    let found = muster_plugins::external::read(&description).map_err(|why| {
        let what = format!("`{}` is not a plugin that can be packed", arguments.folder.display());
        Failure::new(ExitCode::Usage, "bad-description", what)
            .because(&why)
            .hint(format!("muster plugin check {}", arguments.folder.display()))
    })?;
    let context = invocation.context()?;
    let login = Login::load(&context, invocation.now())?;
    let made = read_folder(&arguments.folder)
        .and_then(|contents| Pack::make(found.ddl.name(), contents, &login.credentials, invocation.now()));
    let pack = made.map_err(|error| failure(&error, format!("`{}` cannot be packed", arguments.folder.display())))?;
    let path = if arguments.out.is_dir() { arguments.out.join(pack.file_name()) } else { arguments.out.clone() };
    muster_daemon::write_atomic(&path, 0o644, pack.bytes())
        .map_err(|error| Failure::file("write", &path, error.io()))?;
    let printer = &invocation.printer;
    let manifest = pack.manifest();
    let packed = Packed {
        plugin: &manifest.name,
        version: &manifest.version,
        file: path.display().to_string(),
        bytes: pack.bytes().len(),
        sha256: pack.sha256(),
        signed_by: &manifest.made_by,
        files: manifest.files.iter().map(|file| file.path.as_str()).collect(),
    };
    if printer.format().is_json() {
        printer.document("muster.plugin-pack/v1", &packed);
        return Ok(ExitCode::Success);
    }
    printer.line(&packed.file);
    let files = crate::output::number::counted(packed.files.len(), "file", "files");
    let bytes = crate::output::number::count(packed.bytes);
    printer
        .note(format!("{} {}: {files}, {bytes} bytes, signed by {}", packed.plugin, packed.version, packed.signed_by));
    printer.note(format!("sha256 {}", packed.sha256));
    let hint = format!("muster plugin install {} -t 'role = web'", packed.file);
    printer.note(Text::from("Bring it to hosts: ").push(Style::Accent, hint));
    Ok(ExitCode::Success)
}

/// What is wrong with a pack, in the error form.
pub(super) fn failure(error: &PackError, what: String) -> Failure {
    Failure::new(ExitCode::Usage, error.code().code, what)
        .because(error)
        .hint(format!("muster explain {}", error.code().code))
}
