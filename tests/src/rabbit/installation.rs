//! Where RabbitMQ is installed.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Folders with RabbitMQ's own scripts. Debian's `/usr/sbin/rabbitmq-server` is a wrapper that changes to
/// the system's user and data, so the folder behind it comes first.
const FOLDERS: [&str; 4] = ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin", "/usr/sbin"];

/// Folders where distributions put `epmd` when it is not on the search path.
const EPMD_FOLDERS: [&str; 3] = ["/usr/bin", "/usr/lib/erlang/bin", "/usr/local/lib/erlang/bin"];

/// The programs of an installed RabbitMQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// `rabbitmq-server`.
    pub server: PathBuf,
    /// `rabbitmqctl`.
    pub control: PathBuf,
    /// Erlang's port mapper.
    pub epmd: PathBuf,
}

impl Installation {
    /// Looks in the usual folders, then on the search path.
    ///
    /// # Errors
    /// Nothing is found; the message has the command that installs it.
    pub fn find() -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path: Vec<PathBuf> = env::split_paths(&path).collect();
        let usual = FOLDERS.iter().map(PathBuf::from);
        let folder = usual
            .chain(on_path.iter().cloned())
            .find(|folder| has(folder, "rabbitmq-server") && has(folder, "rabbitmqctl"))
            .context(
                "RabbitMQ is not installed; on Debian: apt-get install -y --no-install-recommends rabbitmq-server",
            )?;
        let Some(epmd) = on_path.into_iter().chain(EPMD_FOLDERS.iter().map(PathBuf::from)).find(|f| has(f, "epmd"))
        else {
            bail!("Erlang's `epmd` is not installed; on Debian: apt-get install -y erlang-base");
        };
        Ok(Self {
            server: folder.join("rabbitmq-server"),
            control: folder.join("rabbitmqctl"),
            epmd: epmd.join("epmd"),
        })
    }
}

fn has(folder: &Path, program: &str) -> bool {
    folder.join(program).is_file()
}
