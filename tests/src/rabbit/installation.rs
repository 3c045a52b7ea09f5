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
    /// The folder with its Erlang libraries, its own AMQP client among them.
    pub libraries: PathBuf,
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
        let libraries = libraries(&folder)?;
        Ok(Self {
            libraries,
            server: folder.join("rabbitmq-server"),
            control: folder.join("rabbitmqctl"),
            epmd: epmd.join("epmd"),
        })
    }
}

/// The libraries beside the scripts of an upstream package, or where Debian has them.
fn libraries(scripts: &Path) -> Result<PathBuf> {
    let beside = scripts.join("../plugins");
    let debian = std::fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten();
    let found = debian.map(|folder| folder.path().join("plugins")).chain([beside]).find(|folder| folder.is_dir());
    found.context("RabbitMQ's folder `plugins` is not where its packages put it")
}

fn has(folder: &Path, program: &str) -> bool {
    folder.join(program).is_file()
}
