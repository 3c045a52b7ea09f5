//! dpkg's database, through `dpkg-query`.

use std::path::{Path, PathBuf};

use muster_plugin_api::{ActionFailure, BoxFuture};

use super::database::{Asking, Database};
use super::entry::{ABSENT, CONFIG_FILES, Entry, Order};
use super::manager::not_understood;
use super::version;
use crate::process::Program;

/// One line for each instance, tabs between the fields. The time is that of the package's list of files, which
/// dpkg writes anew when it unpacks. The last field says that the line is whole.
const FORMAT: &str = "${Package}\\t${Architecture}\\t${Version}\\t${Status}\\t${db-fsys:Last-Modified}\\t.\\n";

/// One line for each package that provides something. Of the status, only the state: `installed`, ...
const PROVIDES_FORMAT: &str = "${Package}\\t${db:Status-Status}\\t${Provides}\\n";

/// The list of all packages: about 100 bytes each, and 100,000 packages at most.
const LIST_BYTES_MAX: usize = 10 * 1024 * 1024;

/// dpkg's database.
#[derive(Debug)]
pub(super) struct Dpkg {
    query: PathBuf,
    pub(super) directory: PathBuf,
}

impl Dpkg {
    /// The database in a directory, asked through `dpkg-query`.
    pub(super) fn new(query: PathBuf, directory: PathBuf) -> Self {
        Self { query, directory }
    }

    fn query(&self, format: &str, asking: &Asking<'_>) -> Program {
        Program::new(&self.query, asking.limit)
            .argument(format!("--admindir={}", self.directory.display()))
            .argument("--show")
            .argument(format!("--showformat={format}"))
            .output_bytes_max(LIST_BYTES_MAX)
    }

    async fn ask_entries(&self, name: Option<&str>, asking: Asking<'_>) -> Result<Vec<Entry>, ActionFailure> {
        let program = self.query(FORMAT, &asking);
        let program = match name {
            Some(name) => program.arguments(["--", name]),
            None => program,
        };
        let run = program.run(asking.cancel).await;
        match run.exit_code(&program)? {
            0 => parse(&run.stdout.text()),
            // dpkg-query(1): 1 means that nothing was found, 2 that something is wrong.
            1 => Ok(Vec::new()),
            code => Err(run.failure(&program, code)),
        }
    }

    async fn ask_providers(&self, name: &str, asking: Asking<'_>) -> Result<Vec<String>, ActionFailure> {
        let program = self.query(PROVIDES_FORMAT, &asking);
        let run = program.run(asking.cancel).await;
        match run.exit_code(&program)? {
            0 => Ok(parse_providers(&run.stdout.text(), name)),
            code => Err(run.failure(&program, code)),
        }
    }
}

impl Database for Dpkg {
    fn provider(&self) -> &'static str {
        "dpkg"
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn entries<'a>(
        &'a self,
        name: Option<&'a str>,
        asking: Asking<'a>,
    ) -> BoxFuture<'a, Result<Vec<Entry>, ActionFailure>> {
        Box::pin(self.ask_entries(name, asking))
    }

    fn providers<'a>(&'a self, name: &'a str, asking: Asking<'a>) -> BoxFuture<'a, Result<Vec<String>, ActionFailure>> {
        Box::pin(self.ask_providers(name, asking))
    }

    fn is_named(&self, entry: &Entry, name: &str) -> bool {
        is_named(entry, name)
    }

    fn full_name(&self, entry: &Entry) -> String {
        format!("{}:{}", entry.name, entry.arch)
    }

    fn order(&self) -> Order {
        version::debian
    }

    fn keeps_configuration(&self) -> bool {
        true
    }
}

/// Whether an entry is meant by `NAME` or `NAME:ARCHITECTURE`.
pub(super) fn is_named(entry: &Entry, name: &str) -> bool {
    match name.split_once(':') {
        Some((name, arch)) => entry.name == name && entry.arch == arch,
        None => entry.name == name,
    }
}

/// The program that changes the database directly.
pub(super) fn program(programs: &[PathBuf]) -> Option<PathBuf> {
    crate::process::find_program("dpkg", programs)
}

pub(super) fn parse(output: &str) -> Result<Vec<Entry>, ActionFailure> {
    let mut entries = Vec::new();
    for line in output.lines() {
        let [name, arch, version, status, stamp, "."] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(not_understood("dpkg-query", line));
        };
        // `want error state`, as in `install ok installed` (dpkg-query(1)).
        let [_want, error, state] = status.split(' ').collect::<Vec<_>>()[..] else {
            return Err(not_understood("dpkg-query", line));
        };
        // Named in the database, by a removed package or as something that another needs, but not there.
        if state == "not-installed" {
            continue;
        }
        // With pending triggers a package works; another package has yet to take notice of it.
        let works = matches!(state, "installed" | "triggers-awaited" | "triggers-pending") && error == "ok";
        let status = if error == "ok" { state.to_owned() } else { format!("{state}, {error}") };
        let (epoch, upstream, release) = split_version(version);
        entries.push(Entry {
            name: name.to_owned(),
            ensure: match state {
                _ if works => version.to_owned(),
                CONFIG_FILES => ABSENT.to_owned(),
                _ => status.clone(),
            },
            installed: works,
            version: upstream.to_owned(),
            release: release.map(str::to_owned),
            epoch,
            arch: arch.to_owned(),
            status,
            full: version.to_owned(),
            stamp: stamp.to_owned(),
        });
    }
    Ok(entries)
}

/// `[epoch:]version[-release]` (Debian policy 5.6.12).
fn split_version(full: &str) -> (Option<u64>, &str, Option<&str>) {
    let (epoch, rest) = match full.split_once(':') {
        Some((epoch, rest)) if epoch.parse::<u64>().is_ok() => (epoch.parse().ok(), rest),
        _ => (None, full),
    };
    match rest.rsplit_once('-') {
        Some((version, release)) => (epoch, version, Some(release)),
        None => (epoch, rest, None),
    }
}

pub(super) fn parse_providers(output: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in output.lines() {
        let [package, "installed", provides] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        // `mail-transport-agent, default-mta (= 1.0)`
        let names = provides.split(',').filter_map(|entry| entry.split_ascii_whitespace().next());
        if names.into_iter().any(|provided| provided == name) {
            found.push(package.to_owned());
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, ensure: &str, installed: bool, status: &str) {
        let instances = parse(&format!("name\t{line}")).unwrap();
        let seen: Vec<_> = instances.iter().map(|i| (i.ensure.as_str(), i.installed, i.status.as_str())).collect();
        assert_eq!(seen, [(ensure, installed, status)]);
    }

    #[test]
    fn every_state_of_a_package() {
        check("amd64\t1.2-3\tinstall ok installed\t170\t.\n", "1.2-3", true, "installed");
        check("amd64\t1.2-3\thold ok installed\t170\t.\n", "1.2-3", true, "installed");
        check("amd64\t1.2-3\tinstall ok triggers-pending\t170\t.\n", "1.2-3", true, "triggers-pending");
        check("amd64\t1.2-3\tinstall ok half-configured\t170\t.\n", "half-configured", false, "half-configured");
        check("amd64\t1.2-3\tinstall ok unpacked\t170\t.\n", "unpacked", false, "unpacked");
        check(
            "amd64\t1.2-3\tinstall reinstreq half-installed\t170\t.\n",
            "half-installed, reinstreq",
            false,
            "half-installed, reinstreq",
        );
        check("amd64\t1.2-3\tdeinstall ok config-files\t170\t.\n", "absent", false, "config-files");
        assert_eq!(parse("x\t\t\tunknown ok not-installed\t\t.\n").unwrap(), []);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn output_that_is_not_understood_is_a_failure() {
        for bad in ["amd64", "n\tamd64\t1\tinstall ok installed", "n\ta\tb\tc\t170\t.\n", "n\ta\tb\tc\td\te\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_version_has_three_parts() {
        assert_eq!(split_version("1:3.0.13-1~deb12u1"), (Some(1), "3.0.13", Some("1~deb12u1")));
        assert_eq!(split_version("2.0-rc1-4"), (None, "2.0-rc1", Some("4")));
        assert_eq!(split_version("12.4+deb12u5"), (None, "12.4+deb12u5", None));
        assert_eq!(split_version(""), (None, "", None));
    }

    #[test]
    fn providers_of_a_virtual_package() {
        let output = "exim4\tinstalled\tmail-transport-agent, default-mta (= 4.96)\n\
                      postfix\tconfig-files\tmail-transport-agent\n\
                      bash\tinstalled\t\n";
        assert_eq!(parse_providers(output, "mail-transport-agent"), ["exim4"]);
        assert_eq!(parse_providers(output, "default-mta"), ["exim4"]);
        assert_eq!(parse_providers(output, "mail"), Vec::<String>::new());
    }
}
