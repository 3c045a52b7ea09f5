//! Where things are unless the configuration says otherwise: for the system, or for one user.

use std::path::{Path, PathBuf};

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// The directories of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Of `broker.toml` and `pki`.
    pub configuration: PathBuf,
    /// Of the journal.
    pub state: PathBuf,
}

impl Places {
    /// Those of the system.
    #[must_use]
    pub fn of_system() -> Self {
        Self { configuration: "/etc/muster".into(), state: "/var/lib/muster-broker".into() }
    }

    /// Those of whoever runs the program: root has the system's. `variable` gives environment variables.
    #[must_use]
    pub fn of_user(is_root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        // Relative values do not count (XDG base directories).
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        let below = |name: &str, home: &str| absolute(name).or_else(|| Some(absolute("HOME")?.join(home)));
        match (below("XDG_CONFIG_HOME", ".config"), below("XDG_STATE_HOME", ".local/state")) {
            (Some(configuration), Some(state)) if !is_root => {
                Self { configuration: configuration.join("muster"), state: state.join("muster/broker") }
            }
            _ => Self::of_system(),
        }
    }

    /// Those of this process's user.
    #[must_use]
    pub fn of_process() -> Self {
        Self::of_user(is_root(), |name| std::env::var_os(name).map(PathBuf::from))
    }

    /// The configuration file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.configuration.join("broker.toml")
    }

    /// A file of the certificates.
    #[must_use]
    pub fn pki(&self, name: impl AsRef<Path>) -> PathBuf {
        self.configuration.join("pki").join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_the_systems_and_others_their_own() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/lea"));
        let check = |root: bool, variable: &dyn Fn(&str) -> Option<PathBuf>, file: &str, state: &str| {
            let places = Places::of_user(root, variable);
            assert_eq!((places.file(), places.state), (PathBuf::from(file), PathBuf::from(state)));
        };
        check(true, &home, "/etc/muster/broker.toml", "/var/lib/muster-broker");
        check(false, &home, "/home/lea/.config/muster/broker.toml", "/home/lea/.local/state/muster/broker");
        check(false, &|_| None, "/etc/muster/broker.toml", "/var/lib/muster-broker");
        check(false, &|_| Some("relative".into()), "/etc/muster/broker.toml", "/var/lib/muster-broker");
        check(
            false,
            &|name| Some(format!("/x/{name}").into()),
            "/x/XDG_CONFIG_HOME/muster/broker.toml",
            "/x/XDG_STATE_HOME/muster/broker",
        );
    }
}
