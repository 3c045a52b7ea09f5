//! Packages through `rpm`.

use std::path::Path;
use std::time::Duration;

use muster_plugin_api::{ActionFailure, CancellationToken};

use super::Instance;
use crate::process::Program;

/// One line for each instance, tabs between the fields. The last field says that the line is whole.
const FORMAT: &str = "%{EPOCH}\\t%{VERSION}\\t%{RELEASE}\\t%{ARCH}\\t%{INSTALLTIME}\\t.\\n";

fn query(program: &Path, database: &Path, limit: Duration) -> Program {
    Program::new(program, limit).argument(format!("--dbpath={}", database.display())).argument("--query")
}

/// Everything rpm has under that name, newest first; nothing where it is absent.
pub(super) async fn instances(
    program: &Path,
    database: &Path,
    name: &str,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<Vec<Instance>, ActionFailure> {
    let program = query(program, database, limit).argument(format!("--queryformat={FORMAT}")).arguments(["--", name]);
    let run = program.run(cancel).await;
    let output = run.stdout.text();
    match run.exit_code(&program)? {
        0 => parse(&output),
        // rpm counts what it did not find into its exit code, and says so on standard output.
        1 if output.contains("is not installed") => Ok(Vec::new()),
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
    let program =
        query(program, database, limit).arguments(["--whatprovides", "--queryformat=%{NAME}\\t.\\n", "--", name]);
    let run = program.run(cancel).await;
    let output = run.stdout.text();
    match run.exit_code(&program)? {
        0 => Ok(parse_providers(&output)),
        1 if output.contains("no package provides") => Ok(Vec::new()),
        code => Err(run.failure(&program, code)),
    }
}

/// What rpm writes for a tag that a package does not have.
const NONE: &str = "(none)";

fn parse(output: &str) -> Result<Vec<Instance>, ActionFailure> {
    let mut instances = Vec::new();
    for line in output.lines() {
        let [epoch, version, release, arch, installed_at, "."] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(ActionFailure::failed(format!("rpm wrote a line that is not understood: `{line}`")));
        };
        let epoch = epoch.parse::<u64>().ok();
        let installed_at = installed_at.parse::<u64>().unwrap_or_default();
        let prefix = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
        let instance = Instance {
            ensure: format!("{prefix}{version}-{release}"),
            installed: true,
            version: version.to_owned(),
            release: Some(release.to_owned()),
            epoch,
            // Public keys are packages too, and have no architecture.
            arch: if arch == NONE { "noarch".to_owned() } else { arch.to_owned() },
            status: "installed".to_owned(),
        };
        instances.push((installed_at, instance));
    }
    // Stable, so that within one transaction the order stays rpm's.
    instances.sort_by_key(|(installed_at, _)| std::cmp::Reverse(*installed_at));
    Ok(instances.into_iter().map(|(_, instance)| instance).collect())
}

fn parse_providers(output: &str) -> Vec<String> {
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
        let instances = parse("1\t3.0.7\t27.el9\tx86_64\t1700000000\t.\n").unwrap();
        assert_eq!((instances[0].ensure.as_str(), instances[0].epoch), ("1:3.0.7-27.el9", Some(1)));
        let instances = parse("(none)\t5.1.8\t9.el9\tx86_64\t1700000000\t.\n").unwrap();
        assert_eq!((instances[0].ensure.as_str(), instances[0].epoch), ("5.1.8-9.el9", None));
        assert_eq!((instances[0].version.as_str(), instances[0].release.as_deref()), ("5.1.8", Some("9.el9")));
        let keys = parse("(none)\tfd431d51\t4ae0493b\t(none)\t1700000000\t.\n").unwrap();
        assert_eq!(keys[0].arch, "noarch");
    }

    #[test]
    fn the_kernel_installed_last_comes_first() {
        let output = "(none)\t5.14.0\t362.el9\tx86_64\t1700000000\t.\n(none)\t5.14.0\t427.el9\tx86_64\t1710000000\t.\n";
        let ensure: Vec<_> = parse(output).unwrap().into_iter().map(|instance| instance.ensure).collect();
        assert_eq!(ensure, ["5.14.0-427.el9", "5.14.0-362.el9"]);
    }

    #[test]
    fn output_that_is_not_understood_is_a_failure() {
        for bad in ["warning: something", "1\t2\t3\t4\t5", "1\t2\t3\t4\t5\t.\tx"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn providers_are_listed_once() {
        assert_eq!(parse_providers("postfix\t.\nexim\t.\npostfix\t.\n"), ["exim", "postfix"]);
    }
}
