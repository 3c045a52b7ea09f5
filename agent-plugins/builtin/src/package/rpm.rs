//! rpm's database, through `rpm --query`, and removing with `rpm --erase`.

use std::path::{Path, PathBuf};

use muster_plugin_api::{ActionFailure, BoxFuture};

use super::database::{Asking, Database};
use super::entry::{Entry, INSTALLED, Order};
use super::lock::LockFile;
use super::manager::{Phase, Step, not_understood};
use super::paths::PackagePaths;
use super::version;
use crate::process::Program;

/// One line for each instance, tabs between the fields. The last field says that the line is whole.
const FORMAT: &str = "%{NAME}\\t%{EPOCH}\\t%{VERSION}\\t%{RELEASE}\\t%{ARCH}\\t%{INSTALLTIME}\\t.\\n";

/// The list of all packages: about 100 bytes each, and 100,000 packages at most.
const LIST_BYTES_MAX: usize = 10 * 1024 * 1024;

/// rpm's database.
#[derive(Debug)]
pub(super) struct Rpm {
    program: PathBuf,
    pub(super) directory: PathBuf,
    options: Vec<String>,
}

impl Rpm {
    /// The database in a directory.
    pub(super) fn new(program: PathBuf, directory: PathBuf, paths: &PackagePaths) -> Self {
        Self { program, directory, options: paths.rpm_options.clone() }
    }

    /// rpm locks its database with a record lock while it changes it.
    pub(super) fn lock(&self) -> LockFile {
        LockFile::record(self.directory.join(".rpm.lock"))
    }

    fn query(&self, asking: &Asking<'_>) -> Program {
        Program::new(&self.program, asking.limit)
            .argument(format!("--dbpath={}", self.directory.display()))
            .argument("--query")
            .output_bytes_max(LIST_BYTES_MAX)
    }

    /// Newest first.
    async fn ask_entries(&self, name: Option<&str>, asking: Asking<'_>) -> Result<Vec<Entry>, ActionFailure> {
        let program = self.query(&asking).argument(format!("--queryformat={FORMAT}"));
        let program = match name {
            Some(name) => program.arguments(["--", name]),
            None => program.argument("--all"),
        };
        let run = program.run(asking.cancel).await;
        let output = run.stdout.text();
        match run.exit_code(&program)? {
            0 => parse(&output),
            // rpm counts what it did not find into its exit code, and says so on standard output.
            1 if output.contains("is not installed") => Ok(Vec::new()),
            code => Err(run.failure(&program, code)),
        }
    }

    async fn ask_providers(&self, name: &str, asking: Asking<'_>) -> Result<Vec<String>, ActionFailure> {
        let arguments = ["--whatprovides", "--queryformat=%{NAME}\\t.\\n", "--", name];
        let program = self.query(&asking).arguments(arguments);
        let run = program.run(asking.cancel).await;
        let output = run.stdout.text();
        match run.exit_code(&program)? {
            0 => Ok(parse_providers(&output)),
            1 if output.contains("no package provides") => Ok(Vec::new()),
            code => Err(run.failure(&program, code)),
        }
    }

    /// Removes packages and nothing else: rpm refuses where others need them.
    pub(super) fn erase(&self, names: &[String], try_only: bool) -> Step {
        let phase = if try_only { Phase::Fetch } else { Phase::Apply };
        let step = Step::new(phase, &self.program).arguments(self.options.clone()).arguments(["--erase"]);
        let step = if try_only { step.arguments(["--test"]) } else { step };
        step.arguments(["--"]).arguments(names.to_vec())
    }
}

impl Database for Rpm {
    fn provider(&self) -> &'static str {
        "rpm"
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
        format!("{}.{}", entry.name, entry.arch)
    }

    fn has_version(&self, entry: &Entry, version: &str) -> bool {
        has_version(entry, version)
    }

    fn order(&self) -> Order {
        version::rpm
    }
}

/// Whether an entry is meant by `NAME` or `NAME.ARCHITECTURE`.
pub(super) fn is_named(entry: &Entry, name: &str) -> bool {
    entry.name == name || name.strip_suffix(&entry.arch).and_then(|rest| rest.strip_suffix('.')) == Some(&entry.name)
}

/// Whether an entry has a version as people write it: with or without epoch, with or without release.
pub(super) fn has_version(entry: &Entry, version: &str) -> bool {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (Some(epoch), rest),
        None => (None, version),
    };
    let same_epoch = epoch.is_none_or(|epoch| epoch.parse() == Ok(entry.epoch.unwrap_or(0)));
    let release = entry.release.as_deref().unwrap_or_default();
    same_epoch && (rest == entry.version || rest.strip_prefix(&entry.version) == Some(&format!("-{release}")))
}

/// What rpm writes for a tag that a package does not have.
const NONE: &str = "(none)";

pub(super) fn parse(output: &str) -> Result<Vec<Entry>, ActionFailure> {
    let mut entries = Vec::new();
    for line in output.lines() {
        let [name, epoch, version, release, arch, installed_at, "."] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(not_understood("rpm", line));
        };
        let epoch = epoch.parse::<u64>().ok();
        let prefix = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
        let full = format!("{prefix}{version}-{release}");
        let entry = Entry {
            name: name.to_owned(),
            ensure: full.clone(),
            installed: true,
            version: version.to_owned(),
            release: Some(release.to_owned()),
            epoch,
            // Public keys are packages too, and have no architecture.
            arch: if arch == NONE { "noarch".to_owned() } else { arch.to_owned() },
            status: INSTALLED.to_owned(),
            full,
            stamp: installed_at.to_owned(),
        };
        entries.push((installed_at.parse::<u64>().unwrap_or_default(), entry));
    }
    // Stable, so that within one transaction the order stays rpm's.
    entries.sort_by_key(|(installed_at, _)| std::cmp::Reverse(*installed_at));
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

pub(super) fn parse_providers(output: &str) -> Vec<String> {
    let mut found: Vec<_> = output.lines().filter_map(|line| line.strip_suffix("\t.")).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_and_without_epoch() {
        let instances = parse("openssl\t1\t3.0.7\t27.el9\tx86_64\t1700000000\t.\n").unwrap();
        assert_eq!((instances[0].ensure.as_str(), instances[0].epoch), ("1:3.0.7-27.el9", Some(1)));
        let instances = parse("bash\t(none)\t5.1.8\t9.el9\tx86_64\t1700000000\t.\n").unwrap();
        assert_eq!((instances[0].ensure.as_str(), instances[0].epoch), ("5.1.8-9.el9", None));
        assert_eq!((instances[0].version.as_str(), instances[0].release.as_deref()), ("5.1.8", Some("9.el9")));
        let keys = parse("gpg-pubkey\t(none)\tfd431d51\t4ae0493b\t(none)\t1700000000\t.\n").unwrap();
        assert_eq!(keys[0].arch, "noarch");
    }

    #[test]
    fn the_kernel_installed_last_comes_first() {
        let output = "kernel\t(none)\t5.14.0\t362.el9\tx86_64\t1700000000\t.\nkernel\t(none)\t5.14.0\t427.el9\tx86_64\t1710000000\t.\n";
        let ensure: Vec<_> = parse(output).unwrap().into_iter().map(|instance| instance.ensure).collect();
        assert_eq!(ensure, ["5.14.0-427.el9", "5.14.0-362.el9"]);
    }

    #[test]
    fn output_that_is_not_understood_is_a_failure() {
        for bad in ["warning: something", "n\t1\t2\t3\t4\t5", "n\t1\t2\t3\t4\t5\t.\tx"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn providers_are_listed_once() {
        assert_eq!(parse_providers("postfix\t.\nexim\t.\npostfix\t.\n"), ["exim", "postfix"]);
    }

    #[test]
    fn a_version_with_and_without_its_parts() {
        let entry = &parse("openssl\t1\t3.0.7\t27.el9\tx86_64\t1\t.\n").unwrap()[0];
        for good in ["3.0.7", "3.0.7-27.el9", "1:3.0.7", "1:3.0.7-27.el9"] {
            assert!(has_version(entry, good), "{good}");
        }
        for bad in ["3.0", "3.0.7-27", "0:3.0.7", "3.0.7-27.el9.1", "3.0.70"] {
            assert!(!has_version(entry, bad), "{bad}");
        }
        assert!(is_named(entry, "openssl") && is_named(entry, "openssl.x86_64"));
        assert!(!is_named(entry, "openssl.i686") && !is_named(entry, "x86_64"));
    }
}
