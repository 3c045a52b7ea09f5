//! A Red Hat and a SUSE of our own: roots with their own rpm database and repository, on any machine that has
//! Debian's `rpm`, `createrepo-c`, `dnf` and `zypper`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use muster_plugins::{Package, PackagePaths};
use tempfile::TempDir;

use super::debian::must;

/// Who resolves and fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrontEnd {
    Dnf,
    Zypper,
}

/// The root. Nothing outside of it is touched.
pub(super) struct RpmRoot {
    root: TempDir,
    front_end: FrontEnd,
}

/// Programs without which these tests mean nothing.
#[track_caller]
fn need_programs() {
    for program in ["rpm", "rpmbuild", "createrepo_c", "dnf", "zypper"] {
        let there = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|path| path.join(program).is_file());
        assert!(
            there,
            "`{program}` is not installed; on Debian: apt-get install -y --no-install-recommends rpm createrepo-c dnf zypper"
        );
    }
}

impl RpmRoot {
    /// A system with one package and a repository.
    #[track_caller]
    pub(super) fn new(front_end: FrontEnd) -> Self {
        need_programs();
        let system = Self { root: tempfile::tempdir().unwrap(), front_end };
        fs::create_dir_all(system.path("repository")).unwrap();
        let sources = match front_end {
            FrontEnd::Dnf => "etc/yum.repos.d",
            FrontEnd::Zypper => "etc/zypp/repos.d",
        };
        fs::create_dir_all(system.path(sources)).unwrap();
        let root = system.root.path().display();
        let repository = format!("[ours]\nname=ours\nbaseurl=file://{root}/repository\ngpgcheck=0\nenabled=1\n");
        fs::write(system.path(sources).join("ours.repo"), repository).unwrap();
        let configuration =
            format!("[main]\nreposdir={root}/etc/yum.repos.d\ngpgcheck=0\nplugins=0\nmetadata_expire=-1\n");
        fs::write(system.path("dnf.conf"), configuration).unwrap();
        system.publish("muster-base", "1.0-1", "");
        system.refresh();
        let mut install = system.front_end();
        must(match front_end {
            FrontEnd::Dnf => install.args(["install", "muster-base"]),
            FrontEnd::Zypper => install.args(["--non-interactive", "install", "muster-base"]),
        });
        system
    }

    pub(super) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(relative)
    }

    fn options(&self) -> Vec<String> {
        let root = self.root.path().display();
        match self.front_end {
            FrontEnd::Dnf => vec![
                "-y".to_owned(),
                format!("--config={root}/dnf.conf"),
                format!("--installroot={root}"),
                "--releasever=1".to_owned(),
            ],
            FrontEnd::Zypper => vec![format!("--root={root}"), "--no-gpg-checks".to_owned()],
        }
    }

    /// The front end as somebody else would call it.
    pub(super) fn front_end(&self) -> Command {
        let mut command = Command::new(if self.front_end == FrontEnd::Dnf { "dnf" } else { "zypper" });
        // Debian's rpm keeps its database in the home directory.
        command.env("HOME", "/").args(self.options());
        command
    }

    fn refresh(&self) {
        let mut refresh = self.front_end();
        must(match self.front_end {
            FrontEnd::Dnf => refresh.args(["--refresh", "makecache"]),
            FrontEnd::Zypper => refresh.args(["--non-interactive", "refresh"]),
        });
    }

    /// Builds a package and puts it into the repository, whose index is written anew. `more` goes into its spec
    /// file, before the list of its files.
    pub(super) fn publish(&self, name: &str, version: &str, more: &str) {
        let (version, release) = version.split_once('-').unwrap();
        let (epoch, version) = version.split_once(':').map_or(("", version), |(epoch, version)| (epoch, version));
        let epoch = if epoch.is_empty() { String::new() } else { format!("Epoch: {epoch}\n") };
        let text = format!(
            "Name: {name}\n{epoch}Version: {version}\nRelease: {release}\nSummary: for a test\nLicense: MIT\n\
             BuildArch: noarch\nAutoReqProv: no\n{more}\n%description\nfor a test\n%files\n"
        );
        let spec = self.path(format!("{name}-{version}-{release}.spec"));
        fs::write(&spec, text).unwrap();
        let top = format!("_topdir {}", self.path("build").display());
        let out = format!("_rpmdir {}", self.path("repository").display());
        must(Command::new("rpmbuild").args(["--quiet", "-bb", "--define", &top, "--define", &out]).arg(&spec));
        must(Command::new("createrepo_c").arg("--quiet").arg(self.path("repository")));
    }

    /// The same, and the front end knows of it.
    pub(super) fn publish_and_refresh(&self, name: &str, version: &str, more: &str) {
        self.publish(name, version, more);
        self.refresh();
    }

    pub(super) fn plugin(&self) -> Package {
        let root = self.root.path().to_owned();
        let options = self.options();
        let (dnf_options, zypper_options) = match self.front_end {
            FrontEnd::Dnf => (options, Vec::new()),
            FrontEnd::Zypper => (Vec::new(), options),
        };
        Package::new(PackagePaths {
            dpkg_database: root.join("none"),
            rpm_databases: vec![root.join(".rpmdb")],
            apk_databases: Vec::new(),
            rpm_options: vec![format!("--root={}", root.display())],
            dnf_options,
            zypper_options,
            root,
            ..PackagePaths::default()
        })
    }

    /// All installed packages, from rpm itself.
    pub(super) fn installed(&self) -> Vec<String> {
        let database = format!("--dbpath={}", self.path(".rpmdb").display());
        let output = must(Command::new("rpm").args([&database, "-qa"]));
        let mut names: Vec<_> = output.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}
