//! A Debian of our own: a root with its own dpkg database, apt configuration and repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use muster_plugins::{Package, PackagePaths};
use tempfile::TempDir;

/// One small package.
#[derive(Default)]
pub(super) struct Deb<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// More lines of its control file.
    pub(super) control: &'a str,
    /// Name and text of its scripts.
    pub(super) scripts: &'a [(&'a str, &'a str)],
    /// Its configuration file, in `/etc/NAME.conf`, and what is in it.
    pub(super) conffile: Option<&'a str>,
}

/// The root. Nothing outside of it is touched.
pub(super) struct Debian {
    root: TempDir,
}

/// Runs a program that must succeed.
#[track_caller]
pub(super) fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Debian {
    /// An empty system with an empty repository.
    pub(super) fn new() -> Self {
        let debian = Self { root: tempfile::tempdir().unwrap() };
        for directory in [
            "repository",
            "build",
            "etc/apt/sources.list.d",
            "etc/apt/preferences.d",
            "etc/apt/apt.conf.d",
            "etc/apt/trusted.gpg.d",
            "var/lib/dpkg/updates",
            "var/lib/dpkg/info",
            "var/lib/dpkg/triggers",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/log/apt",
        ] {
            fs::create_dir_all(debian.path(directory)).unwrap();
        }
        let root = debian.root.path().display();
        fs::write(debian.path("var/lib/dpkg/status"), "").unwrap();
        fs::write(debian.path("var/lib/dpkg/available"), "").unwrap();
        fs::write(debian.path("etc/apt/sources.list"), format!("deb [trusted=yes] copy:{root}/repository ./\n"))
            .unwrap();
        // The machine's own configuration and sources are left out; dpkg works in the root, without chroot.
        let configuration = format!(
            "Dir \"{root}/\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\nDir::Bin::dpkg \"/usr/bin/dpkg\";\n\
             Dir::Etc::parts \"{root}/etc/apt/apt.conf.d\";\nDPkg::Options:: \"--root={root}\";\n\
             DPkg::Options:: \"--force-script-chrootless\";\nDPkg::Options:: \"--log={root}/var/log/dpkg.log\";\n\
             APT::Sandbox::User \"root\";\nAPT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
             Acquire::Languages \"none\";\n"
        );
        fs::write(debian.path("apt.conf"), configuration).unwrap();
        // dpkg needs something in its database before it is this host's package manager.
        debian.publish(&Deb { name: "muster-base", version: "1.0", ..Deb::default() });
        must(
            Command::new("dpkg")
                .args(debian.dpkg_options())
                .arg("--install")
                .arg(debian.path("repository/muster-base_1.0.deb")),
        );
        debian.update();
        debian
    }

    pub(super) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(relative)
    }

    fn dpkg_options(&self) -> Vec<String> {
        let root = self.root.path().display();
        vec![format!("--root={root}"), "--force-script-chrootless".to_owned(), format!("--log={root}/var/log/dpkg.log")]
    }

    /// Builds a package and puts it into the repository, whose index is written anew.
    pub(super) fn publish(&self, deb: &Deb<'_>) {
        let build = self.path(format!("build/{}_{}", deb.name, deb.version.replace(':', "%3a")));
        fs::create_dir_all(build.join("DEBIAN")).unwrap();
        let control = format!(
            "Package: {}\nVersion: {}\nArchitecture: all\nMaintainer: A Test <test@example.com>\n{}Description: for a test\n",
            deb.name, deb.version, deb.control
        );
        fs::write(build.join("DEBIAN/control"), control).unwrap();
        for (script, text) in deb.scripts {
            crate::support::script(&build.join("DEBIAN").join(script), text);
        }
        if let Some(content) = deb.conffile {
            fs::create_dir_all(build.join("etc")).unwrap();
            fs::write(build.join(format!("etc/{}.conf", deb.name)), content).unwrap();
            fs::write(build.join("DEBIAN/conffiles"), format!("/etc/{}.conf\n", deb.name)).unwrap();
        }
        let file = self.path(format!("repository/{}_{}.deb", deb.name, deb.version.replace(':', "%3a")));
        must(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&build).arg(&file));
        self.index();
    }

    /// Writes the repository's `Packages`, from the control files and checksums of what is in it.
    fn index(&self) {
        let mut stanzas = Vec::new();
        let mut files: Vec<_> =
            fs::read_dir(self.path("repository")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "deb")) {
            let control = must(Command::new("dpkg-deb").arg("--field").arg(file));
            let sum = must(Command::new("sha256sum").arg(file));
            let (sum, name) = (sum.split(' ').next().unwrap(), file.file_name().unwrap().to_string_lossy());
            let size = file.metadata().unwrap().len();
            stanzas.push(format!("{}\nFilename: ./{name}\nSize: {size}\nSHA256: {sum}\n\n", control.trim_end()));
        }
        fs::write(self.path("repository/Packages"), stanzas.concat()).unwrap();
    }

    /// Lets apt read the repository.
    pub(super) fn update(&self) {
        must(Command::new("apt-get").env("APT_CONFIG", self.path("apt.conf")).args(["-q", "update"]));
    }

    pub(super) fn paths(&self) -> PackagePaths {
        PackagePaths {
            dpkg_database: self.path("var/lib/dpkg"),
            root: self.root.path().to_owned(),
            apt_configuration: Some(self.path("apt.conf")),
            dpkg_options: self.dpkg_options(),
            rpm_databases: Vec::new(),
            apk_databases: Vec::new(),
            ..PackagePaths::default()
        }
    }

    pub(super) fn plugin(&self) -> Package {
        Package::new(self.paths())
    }

    /// `want error state version` of a package, from dpkg itself; empty if it has none.
    pub(super) fn state(&self, name: &str) -> String {
        let database = format!("--admindir={}", self.path("var/lib/dpkg").display());
        let output =
            Command::new("dpkg-query").args([&database, "-W", "-f", "${Status} ${Version}", name]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
