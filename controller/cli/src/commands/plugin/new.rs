//! `muster plugin new`: the beginning of a plugin, which already works.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use muster_plugin_api::builtin_ddls;
use muster_protocol::PluginName;
use serde::Serialize;

use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, Style, Text};

/// Arguments of `plugin new`.
#[derive(Debug, Args)]
pub(crate) struct NewArguments {
    /// Name of the plugin: a-z, 0-9, _ and -.
    #[arg(value_name = "NAME")]
    name: PluginName,
    /// What it is written in.
    #[arg(long, short, value_enum, default_value_t = Language::Shell)]
    language: Language,
    /// Where its folder is made.
    #[arg(long, short, value_name = "DIRECTORY", default_value = ".")]
    directory: PathBuf,
}

/// Languages there is a beginning for. A plugin can be written in any.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    Shell,
    Python,
}

#[derive(Debug, Serialize)]
struct Made<'a> {
    plugin: &'a str,
    folder: String,
    files: Vec<String>,
}

/// Writes the files.
///
/// # Errors
/// Exit 2: the name is taken, or the folder exists or cannot be written.
pub(crate) fn run(arguments: &NewArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let name = arguments.name.as_str();
    if builtin_ddls().iter().any(|ddl| ddl.name() == &arguments.name) {
        return Err(Failure::usage(format!("a built-in plugin is called `{name}`")).hint("muster plugin list"));
    }
    let folder = arguments.directory.join(name);
    DirBuilder::new().recursive(false).create(&folder).map_err(|error| Failure::file("make", &folder, &error))?;
    let (program, readme_language) = match arguments.language {
        Language::Shell => (SHELL, "shell"),
        Language::Python => (PYTHON, "Python"),
    };
    let fill = |text: &str| text.replace("@NAME@", name).replace("@LANGUAGE@", readme_language);
    let files = [
        (format!("{name}.json"), 0o644, fill(DESCRIPTION)),
        (name.to_owned(), 0o755, fill(program)),
        ("samples.json".to_owned(), 0o644, fill(SAMPLES)),
        ("README.md".to_owned(), 0o644, fill(README)),
    ];
    for (file, mode, text) in &files {
        let path = folder.join(file);
        write(&path, *mode, text).map_err(|error| Failure::file("write", &path, &error))?;
    }
    let printer = &invocation.printer;
    if printer.format().is_json() {
        let files = files.into_iter().map(|(file, ..)| file).collect();
        printer.document("muster.plugin-new/v1", &Made { plugin: name, folder: folder.display().to_string(), files });
        return Ok(ExitCode::Success);
    }
    for (file, ..) in &files {
        printer.line(folder.join(file).display().to_string());
    }
    printer.note("");
    printer.note(Text::from("Try it: ").push(Style::Accent, format!("muster plugin check {}", folder.display())));
    Ok(ExitCode::Success)
}

/// The mode does not depend on the caller's mask: a plugin that others can write is not run.
fn write(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())
}

const DESCRIPTION: &str = include_str!("template/description.json");
const SAMPLES: &str = include_str!("template/samples.json");
const README: &str = include_str!("template/readme.md");
const SHELL: &str = include_str!("template/shell");
const PYTHON: &str = include_str!("template/python");
