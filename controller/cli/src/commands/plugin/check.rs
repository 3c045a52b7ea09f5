//! `muster plugin check`: the tests of the contract, run here against a plugin's program.

use std::path::{Path, PathBuf};

use clap::Args;
use muster_plugin_api::Plugin as _;
use muster_plugin_api::conformance::{self, Sample};
use muster_plugins::external::{self, External};
use muster_protocol::ddl::Ddl;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, Style, Text, number};

/// The file of samples beside a description.
const SAMPLES: &str = "samples.json";

/// Where plugins of this machine are, for a bare name.
const INSTALLED: &[&str] = &["/usr/lib/muster/plugins", "/var/lib/muster/plugins"];

/// Most bytes of a file of samples.
const SAMPLES_BYTES_MAX: u64 = 1024 * 1024;

/// Arguments of `plugin check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The plugin's folder, its description, or the name of one that is installed on this machine.
    #[arg(value_name = "FOLDER|NAME", value_hint = clap::ValueHint::DirPath)]
    plugin: PathBuf,
    /// Calls to try, instead of those in `samples.json` beside the description.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    samples: Option<PathBuf>,
}

/// One call in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    action: String,
    #[serde(default)]
    input: Map<String, Value>,
    #[serde(default = "yes")]
    succeeds: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Serialize)]
struct Checked {
    plugin: String,
    version: String,
    actions: usize,
    samples: usize,
    findings: Vec<String>,
}

/// Checks the plugin.
///
/// # Errors
/// Exit 2: there is no plugin there, or its samples cannot be read.
pub(crate) async fn run(arguments: &CheckArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let description = description(&arguments.plugin)?;
    let description = std::path::absolute(&description).map_err(|error| Failure::file("find", &description, &error))?;
    let found = external::read(&description).map_err(|why| {
        Failure::new(
            ExitCode::Usage,
            "bad-description",
            format!("`{}` is not a plugin's description", description.display()),
        )
        .because(&why)
    })?;
    let beside = description.with_file_name(SAMPLES);
    let calls = match &arguments.samples {
        Some(path) => read(path)?,
        None if beside.is_file() => read(&beside)?,
        None => Vec::new(),
    };
    let ddl = found.ddl.clone();
    let samples: Vec<Sample> = calls.iter().map(sample).collect();
    let work = std::env::temp_dir();
    let plugin = External::new(found, Path::new("/etc/muster/plugin.d")).ask(&work).await;
    let mut findings = of_description(&ddl);
    findings.extend(conformance::check(&plugin, &samples).await);
    let checked = Checked {
        plugin: plugin.ddl().name().to_string(),
        version: ddl.metadata.version.clone(),
        actions: ddl.actions.len(),
        samples: samples.len(),
        findings,
    };
    Ok(show(&checked, invocation))
}

/// What can be said without running it, beside what the conformance tests say.
fn of_description(ddl: &Ddl) -> Vec<String> {
    let mut findings = Vec::new();
    for action in &ddl.actions {
        let shared = external::shared_variables(action);
        if !shared.is_empty() {
            let names: Vec<String> = shared.iter().map(|name| format!("`{name}`")).collect();
            findings.push(format!(
                "inputs {} of `{}` would be the same variable of the environment, so none of them is one",
                names.join(" and "),
                action.name
            ));
        }
    }
    findings
}

fn sample(call: &Call) -> Sample {
    let input = Value::Object(call.input.clone());
    if call.succeeds { Sample::succeeds(&call.action, input) } else { Sample::fails(&call.action, input) }
}

fn read(path: &Path) -> Result<Vec<Call>, Failure> {
    let refused = |why: String| Failure::usage(format!("`{}` is not a list of samples: {why}", path.display()));
    let metadata = path.metadata().map_err(|error| Failure::file("read", path, &error))?;
    if metadata.len() > SAMPLES_BYTES_MAX {
        return Err(refused(format!("it has more than {SAMPLES_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
    serde_json::from_str(&text).map_err(|error| refused(error.to_string()))
}

/// The description that was meant: a file, one in a folder, or one that is installed here.
pub(super) fn description(given: &Path) -> Result<PathBuf, Failure> {
    if given.is_file() {
        return Ok(given.to_owned());
    }
    if given.is_dir() {
        return in_folder(given);
    }
    let is_name = given.components().count() == 1;
    let installed = INSTALLED.iter().flat_map(|directory| {
        let directory = Path::new(directory);
        let file = format!("{}.json", given.display());
        [directory.join(given).join(&file), directory.join(file)]
    });
    let installed = installed.into_iter().find(|path| is_name && path.is_file());
    installed.ok_or_else(|| {
        Failure::usage(format!("there is no plugin at `{}`", given.display())).hint("muster plugin new NAME")
    })
}

/// The description named like the folder; otherwise the only one.
fn in_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let real = std::fs::canonicalize(folder).map_err(|error| Failure::file("find", folder, &error))?;
    if let Some(name) = real.file_name().and_then(|name| name.to_str()) {
        let same = folder.join(format!("{name}.json"));
        if same.is_file() {
            return Ok(same);
        }
    }
    let entries = std::fs::read_dir(folder).map_err(|error| Failure::file("read", folder, &error))?;
    let mut others: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter(|path| path.file_name().is_none_or(|name| name != SAMPLES))
        .collect();
    others.sort();
    match <[PathBuf; 1]>::try_from(others) {
        Ok([only]) => Ok(only),
        Err(others) if others.is_empty() => {
            Err(Failure::usage(format!("`{}` has no description NAME.json", folder.display())))
        }
        Err(_) => Err(Failure::usage(format!("`{}` has several descriptions: name one", folder.display()))),
    }
}

fn show(checked: &Checked, invocation: &Invocation) -> ExitCode {
    let printer = &invocation.printer;
    let exit = if checked.findings.is_empty() { ExitCode::Success } else { ExitCode::HostFailed };
    if printer.format().is_json() {
        printer.document("muster.plugin-check/v1", checked);
        return exit;
    }
    let name = format!("{} {}", checked.plugin, checked.version);
    for finding in &checked.findings {
        printer.line(Text::styled(Style::Bad, printer.glyph("✗", "x")).plain(format!(" {finding}")));
    }
    if printer.format().is_for_programs() {
        return exit;
    }
    if checked.findings.is_empty() {
        let actions = number::counted(checked.actions, "action", "actions");
        let samples = number::counted(checked.samples, "sample", "samples");
        let good = Text::styled(Style::Good, printer.glyph("✓", "+"));
        printer.line(good.plain(format!(" {name} keeps the contract: {actions}, {samples}")));
    } else {
        let findings = number::counted(checked.findings.len(), "thing is", "things are");
        printer.line("");
        printer.line(format!("{name}: {findings} not as the contract says"));
    }
    exit
}
