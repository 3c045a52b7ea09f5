//! Finding plugins in directories: a description, a program beside it, and whether both may be trusted.
//!
//! In a directory, and in its `mcollective/agent` where Choria's packages put theirs:
//!
//! | description | program |
//! |---|---|
//! | `NAME.json` | `NAME`, or `NAME/NAME-OS_ARCH` |
//! | `NAME/NAME.json` | `NAME/NAME`, or `NAME/NAME-OS_ARCH` |
//!
//! OS and architecture are Go's words, as in `linux_amd64`. What is wrong with one plugin is a
//! [`Problem`] and hinders no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use muster_protocol::ddl::{Ddl, DdlError};
use muster_protocol::limits::DDL_BYTES_MAX;
use muster_protocol::{Code, PluginName, code};

use super::trusted::{self, Distrust};
use crate::process::is_executable;

/// Most plugins that one host can have from directories.
pub const PLUGINS_MAX: usize = 256;

/// Most entries of one directory that are looked at. Choria's hold Ruby files beside the plugins.
const ENTRIES_MAX: usize = 4096;

/// Where Choria's packages put agents, below a directory.
const CHORIA_FOLDER: &str = "mcollective/agent";

/// What `metadata.provider` says of a plugin that is a program of its own.
pub const PROVIDER: &str = "external";

/// A plugin that was found and may be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it says of itself.
    pub ddl: Ddl,
    /// The configured directory in which it is.
    pub directory: PathBuf,
    /// The description's file.
    pub description: PathBuf,
    /// The program.
    pub executable: PathBuf,
}

/// Why a plugin, or a whole directory, is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin file `{path}` is not used: {why}")]
pub struct Problem {
    /// The description, or the directory.
    pub path: PathBuf,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// A file or directory that others could change.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// A file or directory that cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The description is wrong.
    #[error(transparent)]
    Description(#[from] DdlError),
    /// The file has one name, the plugin another.
    #[error("the description is of plugin `{0}`, so the file has to be `{0}.json`")]
    OtherName(PluginName),
    /// Not a plugin of this kind.
    #[error("its provider is `{0}`, and only `{PROVIDER}` plugins are run from directories")]
    Provider(String),
    /// A built-in plugin has that name.
    #[error("`{0}` is the name of a built-in plugin, or a word of policies")]
    BuiltIn(PluginName),
    /// Another one with that name came first.
    #[error("plugin `{name}` is in `{other}` already")]
    Duplicate {
        /// The name.
        name: PluginName,
        /// The description of the other one.
        other: PathBuf,
    },
    /// No program.
    #[error("there is no program for it: neither {}", list(.0))]
    NoProgram(Vec<PathBuf>),
    /// A program that nobody may execute.
    #[error("`{0}` is not executable: chmod +x {0}")]
    NotExecutable(PathBuf),
    /// It wants to answer questions of target expressions.
    #[error(
        "it describes data queries, which every host would run before its policy is asked; only built-in plugins have those"
    )]
    DataQueries,
    /// `muster.leave_behind` of an action has another word.
    #[error("`leave_behind` of action `{0}` is neither `stop` nor `keep`")]
    LeaveBehind(String),
    /// Too many plugins.
    #[error("there are more than {PLUGINS_MAX} plugins")]
    TooMany,
}

impl Problem {
    /// Never: somebody has to change something.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }

    /// The stable code `plugin-error`.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        &code::PLUGIN_ERROR
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(" nor ")
}

/// What the directories hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Discovery {
    /// What can be used, by name.
    pub found: Vec<Found>,
    /// What cannot.
    pub problems: Vec<Problem>,
}

/// Looks through directories in their order. A directory that is not there is empty. `reserved` are
/// the names of built-in plugins.
///
/// Reads files; from an async task use a thread for it.
#[must_use]
pub fn discover(directories: &[PathBuf], reserved: &BTreeSet<PluginName>) -> Discovery {
    let mut found: BTreeMap<PluginName, Found> = BTreeMap::new();
    let mut problems = Vec::new();
    for directory in directories {
        let root = match trusted::root(directory) {
            Ok(Some(root)) => root,
            Ok(None) => continue,
            Err(why) => {
                problems.push(Problem { path: directory.clone(), why: why.into() });
                continue;
            }
        };
        for (folder, is_choria) in [(root.clone(), false), (root.join(CHORIA_FOLDER), true)] {
            for description in descriptions(&folder, &mut problems) {
                match load(&description, &root, is_choria, reserved, &found) {
                    Ok(Some(plugin)) if found.len() < PLUGINS_MAX => {
                        let plugin = Found { directory: directory.clone(), ..plugin };
                        found.insert(plugin.ddl.name().clone(), plugin);
                    }
                    Ok(Some(_)) => problems.push(Problem { path: description, why: Why::TooMany }),
                    Ok(None) => {}
                    Err(why) => problems.push(Problem { path: description, why }),
                }
            }
        }
    }
    Discovery { found: found.into_values().collect(), problems }
}

/// One plugin by its description, without asking whose the files are: for whoever is writing it.
///
/// # Errors
/// As in a [`Problem`], distrust excepted.
pub fn read(description: &Path) -> Result<Found, Why> {
    let ddl = read_ddl(description)?;
    check(&ddl, description)?;
    let executable = program(description, ddl.name())?;
    let directory = description.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Found { ddl, directory, description: description.to_owned(), executable })
}

/// The descriptions that a folder may hold, by name.
fn descriptions(folder: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push(Problem { path: folder.to_owned(), why: Why::Unreadable(error.to_string()) });
            return Vec::new();
        }
    };
    let mut descriptions = Vec::new();
    for entry in entries.flatten().take(ENTRIES_MAX) {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let nested = path.join(format!("{name}.json"));
        if path.extension().is_some_and(|extension| extension == "json") {
            descriptions.push(path);
        } else if path.is_dir() && nested.symlink_metadata().is_ok() {
            descriptions.push(nested);
        }
    }
    descriptions.sort();
    descriptions
}

/// `None` for a description of something else, as Choria's folders hold for agents in Ruby.
fn load(
    description: &Path,
    root: &Path,
    is_choria: bool,
    reserved: &BTreeSet<PluginName>,
    found: &BTreeMap<PluginName, Found>,
) -> Result<Option<Found>, Why> {
    let description = trusted::file(description, root)?;
    let ddl = read_ddl(&description)?;
    if is_choria && ddl.metadata.provider != PROVIDER {
        return Ok(None);
    }
    check(&ddl, &description)?;
    let name = ddl.name();
    if reserved.contains(name) {
        return Err(Why::BuiltIn(name.clone()));
    }
    if let Some(other) = found.get(name) {
        return Err(Why::Duplicate { name: name.clone(), other: other.description.clone() });
    }
    let executable = trusted::file(&program(&description, name)?, root)?;
    Ok(Some(Found { ddl, directory: root.to_owned(), description, executable }))
}

fn read_ddl(path: &Path) -> Result<Ddl, Why> {
    let unreadable = |error: std::io::Error| Why::Unreadable(error.to_string());
    let mut text = Vec::new();
    let most = DDL_BYTES_MAX as u64 + 1;
    fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut text)).map_err(unreadable)?;
    let text = String::from_utf8(text).map_err(|_| Why::Unreadable("it is not UTF-8".to_owned()))?;
    Ok(Ddl::parse(&text)?)
}

fn check(ddl: &Ddl, description: &Path) -> Result<(), Why> {
    check_description(ddl)?;
    if description.file_stem().is_none_or(|stem| stem != ddl.name().as_str()) {
        return Err(Why::OtherName(ddl.name().clone()));
    }
    Ok(())
}

/// Whether a description is one that can be run from a directory.
///
/// # Errors
/// It is another kind of plugin's, has data queries, or a word of Muster's own that is none.
pub fn check_description(ddl: &Ddl) -> Result<(), Why> {
    let provider = ddl.metadata.provider.as_str();
    if !provider.is_empty() && provider != PROVIDER {
        return Err(Why::Provider(provider.chars().take(40).collect()));
    }
    if !ddl.muster.data.is_empty() {
        return Err(Why::DataQueries);
    }
    let wrong = |action: &&muster_protocol::ddl::Action| super::leave_behind(action).is_none();
    match ddl.actions.iter().find(wrong) {
        Some(action) => Err(Why::LeaveBehind(action.name.to_string())),
        None => Ok(()),
    }
}

/// The program that belongs to a description.
fn program(description: &Path, name: &PluginName) -> Result<PathBuf, Why> {
    let folder = description.parent().unwrap_or(Path::new("/"));
    let beside = folder.join(name.as_str());
    let for_platform = format!("{name}-{}", platform());
    let candidates = [beside.clone(), beside.join(&for_platform), folder.join(for_platform)];
    match candidates.iter().find(|path| path.is_file()) {
        Some(program) if is_executable(program) => Ok(program.clone()),
        Some(program) => Err(Why::NotExecutable(program.clone())),
        None => Err(Why::NoProgram(candidates.into())),
    }
}

/// This machine in Go's words.
fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    format!("{}_{architecture}", std::env::consts::OS)
}
