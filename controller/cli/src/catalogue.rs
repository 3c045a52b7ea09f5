//! The plugin descriptions this program knows: the built-in ones and those in the context's directory.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use muster_plugin_api::builtin_ddls;
use muster_protocol::ddl::{Action, Ddl};
use muster_protocol::expr::did_you_mean;

use crate::context::{Context, variables};
use crate::output::{ExitCode, Failure};

/// Descriptions for everybody on this machine.
const SYSTEM_DIRECTORY: &str = "/usr/share/muster/plugins";

/// Where the descriptions of plugins go that this user has installed on hosts: `$XDG_DATA_HOME/muster/plugins`, or the
/// same below `~/.local/share`. Relative values do not count (XDG base directories).
pub(crate) fn own_directory() -> Option<PathBuf> {
    let variables = variables();
    let absolute = |name: &str| variables.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("muster/plugins"))
}

/// Descriptions by plugin name.
#[derive(Debug, Clone)]
pub(crate) struct Catalogue {
    ddls: Vec<Cow<'static, Ddl>>,
}

impl Catalogue {
    /// The built-in descriptions.
    pub(crate) fn builtin() -> Self {
        Self { ddls: builtin_ddls().iter().map(Cow::Borrowed).collect() }
    }

    /// The built-in descriptions, those of the machine, of the user and of the context's directory: of two with
    /// the same name the later one counts.
    ///
    /// # Errors
    /// A directory cannot be read, or a file in it is no description. Exit code 2.
    pub(crate) fn load(context: Option<&Context>) -> Result<Self, Failure> {
        let mut catalogue = Self::builtin();
        let usual = [Some(PathBuf::from(SYSTEM_DIRECTORY)), own_directory()];
        let usual = usual.into_iter().flatten().filter(|directory| directory.is_dir());
        let configured = context.and_then(|context| context.ddl_directory.clone());
        for directory in usual.chain(configured) {
            for ddl in read_directory(&directory)? {
                catalogue.ddls.retain(|known| known.name() != ddl.name());
                catalogue.ddls.push(Cow::Owned(ddl));
            }
        }
        catalogue.ddls.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(catalogue)
    }

    /// All descriptions, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ddl> {
        self.ddls.iter().map(AsRef::as_ref)
    }

    /// One plugin's description.
    ///
    /// # Errors
    /// There is none; proposes the nearest name. Exit code 2.
    pub(crate) fn plugin(&self, name: &str) -> Result<&Ddl, Failure> {
        self.iter().find(|ddl| ddl.name().as_str() == name).ok_or_else(|| {
            let failure = Failure::new(ExitCode::Usage, "unknown-plugin", format!("there is no plugin `{name}` here"));
            nearest(failure, name, self.iter().map(|ddl| ddl.name().as_str())).hint("muster plugin list")
        })
    }

    /// One action, from `PLUGIN.ACTION`.
    ///
    /// # Errors
    /// Plugin or action are unknown, or the words are not of this form. Exit code 2.
    pub(crate) fn action(&self, words: &str) -> Result<(&Ddl, &Action), Failure> {
        let Some((plugin, action)) = words.split_once('.') else {
            let failure = Failure::usage(format!("`{words}` is not an action: write PLUGIN.ACTION"));
            return Err(match self.iter().find(|ddl| ddl.name().as_str() == words) {
                Some(ddl) => failure.why("has", action_names(ddl)).hint(format!("muster plugin show {words}")),
                None => failure.hint("muster plugin list"),
            });
        };
        let ddl = self.plugin(plugin)?;
        let found = ddl.actions.iter().find(|known| known.name.as_str() == action);
        found.map(|action| (ddl, action)).ok_or_else(|| {
            let what = format!("plugin `{plugin}` has no action `{action}`");
            let failure = Failure::new(ExitCode::Usage, "unknown-action", what).why("has", action_names(ddl));
            nearest(failure, action, ddl.actions.iter().map(|known| known.name.as_str()))
                .hint(format!("muster plugin show {plugin}"))
        })
    }
}

fn action_names(ddl: &Ddl) -> String {
    ddl.actions.iter().map(|action| action.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn nearest<'a>(failure: Failure, word: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    match did_you_mean(word, known) {
        Some(nearest) => failure.why("nearest", format!("`{nearest}`")),
        None => failure,
    }
}

fn read_directory(directory: &Path) -> Result<Vec<Ddl>, Failure> {
    let entries = std::fs::read_dir(directory).map_err(|error| Failure::file("read", directory, &error))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
            Ddl::parse(&text).map_err(|error| {
                let what = format!("`{}` is not a plugin description", path.display());
                Failure::new(ExitCode::Usage, "bad-description", what)
                    .because(&error)
                    .hint("muster explain bad-description")
            })
        })
        .collect()
}
