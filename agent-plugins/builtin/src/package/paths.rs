//! Where package managers and their databases are.

use std::path::PathBuf;

use crate::process;

/// Where the package managers and their databases are, and what they are told beside the task. The default is
/// a real host; tests point it at throw-away roots.
#[derive(Debug, Clone)]
pub struct PackagePaths {
    /// Directories with programs.
    pub programs: Vec<PathBuf>,
    /// dpkg's database.
    pub dpkg_database: PathBuf,
    /// Where rpm's database may be.
    pub rpm_databases: Vec<PathBuf>,
    /// Where apk's database may be.
    pub apk_databases: Vec<PathBuf>,
    /// Root of everything else: locks, repositories. `/` on a real host.
    pub root: PathBuf,
    /// Configuration that apt reads beside its own; none on a real host.
    pub apt_configuration: Option<PathBuf>,
    /// Options for dpkg where it is called directly; none on a real host.
    pub dpkg_options: Vec<String>,
    /// Options for dnf or yum before the command; none on a real host.
    pub dnf_options: Vec<String>,
    /// Options for zypper before the command; none on a real host.
    pub zypper_options: Vec<String>,
    /// Options for rpm where it changes something; none on a real host.
    pub rpm_options: Vec<String>,
    /// Options for apk before the command; none on a real host.
    pub apk_options: Vec<String>,
}

impl Default for PackagePaths {
    fn default() -> Self {
        Self {
            programs: process::SEARCH_PATH.iter().map(PathBuf::from).collect(),
            dpkg_database: PathBuf::from("/var/lib/dpkg"),
            rpm_databases: vec![PathBuf::from("/usr/lib/sysimage/rpm"), PathBuf::from("/var/lib/rpm")],
            apk_databases: vec![PathBuf::from("/lib/apk/db"), PathBuf::from("/usr/lib/apk/db")],
            root: PathBuf::from("/"),
            apt_configuration: None,
            dpkg_options: Vec::new(),
            dnf_options: Vec::new(),
            zypper_options: Vec::new(),
            rpm_options: Vec::new(),
            apk_options: Vec::new(),
        }
    }
}
