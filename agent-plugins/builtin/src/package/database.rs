//! What a database of packages is: one trait for dpkg's, rpm's and apk's.
//!
//! It only says what is installed; what changes it is a [`Manager`](super::manager::Manager).

use std::fmt;
use std::path::Path;
use std::time::Duration;

use muster_plugin_api::{ActionFailure, BoxFuture, CancellationToken};

use super::entry::{Entry, Order};

/// How long a question may take, and what stops it.
pub(super) struct Asking<'a> {
    pub(super) limit: Duration,
    pub(super) cancel: &'a CancellationToken,
}

/// The database of what is installed on the host.
pub(super) trait Database: Send + Sync + fmt::Debug {
    /// Its name: `dpkg`, `rpm` or `apk`.
    fn provider(&self) -> &'static str;

    /// Its directory, which stands for it where we lock it for ourselves.
    fn directory(&self) -> &Path;

    /// What it has of one name, or of everything; nothing where the name is absent.
    fn entries<'a>(
        &'a self,
        name: Option<&'a str>,
        asking: Asking<'a>,
    ) -> BoxFuture<'a, Result<Vec<Entry>, ActionFailure>>;

    /// Installed packages that provide a name which no package has.
    fn providers<'a>(&'a self, name: &'a str, asking: Asking<'a>) -> BoxFuture<'a, Result<Vec<String>, ActionFailure>>;

    /// Whether an entry is meant by a name as people write it.
    fn is_named(&self, entry: &Entry, name: &str) -> bool;

    /// The name with which it tells an entry from those of other architectures.
    fn full_name(&self, entry: &Entry) -> String;

    /// Whether an entry has a version as people write it.
    fn has_version(&self, entry: &Entry, version: &str) -> bool {
        entry.full == version
    }

    /// How it orders versions.
    fn order(&self) -> Order;

    /// Whether it tells a removed package, whose configuration stays, from a purged one.
    fn keeps_configuration(&self) -> bool {
        false
    }
}
