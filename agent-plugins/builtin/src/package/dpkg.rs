//! Packages through `dpkg-query`.

use std::path::Path;
use std::time::Duration;

use muster_plugin_api::{ActionFailure, CancellationToken};

use super::{ABSENT, Instance};
use crate::process::Program;

/// One line for each instance, tabs between the fields. The last field says that the line is whole.
const FORMAT: &str = "${Architecture}\\t${Version}\\t${Status}\\t.\\n";

/// One line for each package that provides something. Of the status, only the state: `installed`, ...
const PROVIDES_FORMAT: &str = "${Package}\\t${db:Status-Status}\\t${Provides}\\n";

/// The list of all packages with what they provide: about 100 bytes each, and 100,000 packages at most.
const PROVIDES_BYTES_MAX: usize = 10 * 1024 * 1024;

fn query(program: &Path, database: &Path, format: &str, limit: Duration) -> Program {
    Program::new(program, limit)
        .argument(format!("--admindir={}", database.display()))
        .argument("--show")
        .argument(format!("--showformat={format}"))
}

/// Everything dpkg has under that name; nothing where it is absent.
pub(super) async fn instances(
    program: &Path,
    database: &Path,
    name: &str,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<Vec<Instance>, ActionFailure> {
    let program = query(program, database, FORMAT, limit).arguments(["--", name]);
    let run = program.run(cancel).await;
    match run.exit_code(&program)? {
        0 => parse(&run.stdout.text()),
        // dpkg-query(1): 1 means that nothing was found, 2 that something is wrong.
        1 => Ok(Vec::new()),
        code => Err(run.failure(&program, code)),
    }
}

/// Installed packages that provide a name which no package has.
pub(super) async fn providers(
    program: &Path,
    database: &Path,
    name: &str,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<Vec<String>, ActionFailure> {
    let program = query(program, database, PROVIDES_FORMAT, limit).output_bytes_max(PROVIDES_BYTES_MAX);
    let run = program.run(cancel).await;
    match run.exit_code(&program)? {
        0 => Ok(parse_providers(&run.stdout.text(), name)),
        code => Err(run.failure(&program, code)),
    }
}

fn parse(output: &str) -> Result<Vec<Instance>, ActionFailure> {
    let mut instances = Vec::new();
    for line in output.lines() {
        let [arch, version, status, "."] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(ActionFailure::failed(format!("dpkg-query wrote a line that is not understood: `{line}`")));
        };
        // `want error state`, as in `install ok installed` (dpkg-query(1)).
        let [_want, error, state] = status.split(' ').collect::<Vec<_>>()[..] else {
            return Err(ActionFailure::failed(format!("dpkg-query gave a status that is not understood: `{status}`")));
        };
        // Named in the database, by a removed package or as something that another needs, but not there.
        if state == "not-installed" {
            continue;
        }
        // With pending triggers a package works; another package has yet to take notice of it.
        let works = matches!(state, "installed" | "triggers-awaited" | "triggers-pending") && error == "ok";
        let status = if error == "ok" { state.to_owned() } else { format!("{state}, {error}") };
        let (epoch, upstream, release) = split_version(version);
        instances.push(Instance {
            ensure: match state {
                _ if works => version.to_owned(),
                "config-files" => ABSENT.to_owned(),
                _ => status.clone(),
            },
            installed: works,
            version: upstream.to_owned(),
            release: release.map(str::to_owned),
            epoch,
            arch: arch.to_owned(),
            status,
        });
    }
    Ok(instances)
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

fn parse_providers(output: &str, name: &str) -> Vec<String> {
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
        let instances = parse(line).unwrap();
        let seen: Vec<_> = instances.iter().map(|i| (i.ensure.as_str(), i.installed, i.status.as_str())).collect();
        assert_eq!(seen, [(ensure, installed, status)]);
    }

    #[test]
    fn every_state_of_a_package() {
        check("amd64\t1.2-3\tinstall ok installed\t.\n", "1.2-3", true, "installed");
        check("amd64\t1.2-3\thold ok installed\t.\n", "1.2-3", true, "installed");
        check("amd64\t1.2-3\tinstall ok triggers-pending\t.\n", "1.2-3", true, "triggers-pending");
        check("amd64\t1.2-3\tinstall ok half-configured\t.\n", "half-configured", false, "half-configured");
        check("amd64\t1.2-3\tinstall ok unpacked\t.\n", "unpacked", false, "unpacked");
        check(
            "amd64\t1.2-3\tinstall reinstreq half-installed\t.\n",
            "half-installed, reinstreq",
            false,
            "half-installed, reinstreq",
        );
        check("amd64\t1.2-3\tdeinstall ok config-files\t.\n", "absent", false, "config-files");
        assert_eq!(parse("\t\tunknown ok not-installed\t.\n").unwrap(), []);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn output_that_is_not_understood_is_a_failure() {
        for bad in ["amd64", "amd64\t1\tinstall ok installed", "a\tb\tc\t.\n", "a\tb\tc\td\te\n"] {
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
