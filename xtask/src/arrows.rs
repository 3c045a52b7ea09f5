//! Which crate may know which, and which licences and libraries may come in.
//!
//! The tables below are the architecture; DESIGN and ARCHITECTURE.md describe them in words. An arrow
//! that is not in the table fails the test, and so does a row for a crate that is not there any more.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::run;

/// Crate, and the crates of ours that its code (not its tests) may depend on directly.
const ALLOWED: &[(&str, &[&str])] = &[
    ("muster-protocol", &[]),
    ("muster-daemon", &[]),
    ("muster-pki", &["muster-protocol"]),
    ("muster-broker-config", &["muster-protocol"]),
    ("muster-broker", &["muster-protocol", "muster-daemon", "muster-pki", "muster-broker-config"]),
    ("muster-plugin-api", &["muster-protocol"]),
    ("muster-plugins", &["muster-protocol", "muster-plugin-api"]),
    ("muster-plugin-pack", &["muster-protocol", "muster-pki"]),
    ("muster-bus", &["muster-protocol", "muster-daemon", "muster-pki"]),
    (
        "muster-agent",
        &[
            "muster-protocol",
            "muster-daemon",
            "muster-pki",
            "muster-bus",
            "muster-plugin-api",
            "muster-plugins",
            "muster-plugin-pack",
        ],
    ),
    ("muster-client", &["muster-protocol", "muster-daemon", "muster-pki", "muster-bus"]),
    (
        "muster-cli",
        &[
            "muster-protocol",
            "muster-daemon",
            "muster-pki",
            "muster-broker-config",
            "muster-broker",
            "muster-bus",
            "muster-plugin-api",
            "muster-plugins",
            "muster-plugin-pack",
            "muster-client",
        ],
    ),
    (
        "muster-fuzz",
        &[
            "muster-protocol",
            "muster-daemon",
            "muster-pki",
            "muster-broker-config",
            "muster-broker",
            "muster-bus",
            "muster-plugin-api",
            "muster-plugins",
            "muster-plugin-pack",
            "muster-agent",
            "muster-client",
            "muster-cli",
        ],
    ),
    (
        "muster-tests",
        &["muster-protocol", "muster-daemon", "muster-pki", "muster-broker-config", "muster-broker", "muster-bus"],
    ),
    (
        "muster-fleet",
        &[
            "muster-protocol",
            "muster-daemon",
            "muster-pki",
            "muster-broker-config",
            "muster-bus",
            "muster-plugin-api",
            "muster-plugins",
            "muster-agent",
            "muster-client",
            "muster-tests",
        ],
    ),
    (
        "muster-bench",
        &[
            "muster-protocol",
            "muster-daemon",
            "muster-pki",
            "muster-bus",
            "muster-client",
            "muster-tests",
            "muster-fleet",
        ],
    ),
    (
        "muster-simulation",
        &[
            "muster-protocol",
            "muster-daemon",
            "muster-pki",
            "muster-bus",
            "muster-plugin-api",
            "muster-agent",
            "muster-client",
        ],
    ),
    ("muster-growth", &[]),
    ("xtask", &[]),
];

/// Library, the crates that may name it, and why nobody else may.
const WRAPPED: &[(&str, &[&str], &str)] = &[
    ("lapin", &["muster-bus", "muster-fleet"], "AMQP is spoken in one place, and in what that is measured against"),
    (
        "amq-protocol",
        &["muster-broker", "muster-fuzz", "muster-fleet"],
        "frames are written by the broker, and by what the bus is measured against",
    ),
    ("amq-protocol-tcp", &["muster-bus"], "AMQP is spoken in one place"),
    ("rcgen", &["muster-pki"], "certificates are made in one place"),
    ("x509-parser", &["muster-pki"], "certificates are read in one place"),
    ("rustls-webpki", &["muster-pki"], "certificates are judged in one place"),
    ("ed25519-dalek", &["muster-pki"], "signatures are made and checked in one place"),
    ("curve25519-dalek", &["muster-pki"], "signatures are made and checked in one place"),
    ("process-wrap", &["muster-plugins"], "processes are run in one place"),
    ("tar", &["muster-plugin-pack"], "archives are read in one place, within bounds"),
    ("flate2", &["muster-plugin-pack"], "archives are read in one place, within bounds"),
    ("clap_complete", &["muster-cli"], "only the command line completes"),
];

/// Libraries that must not be in the graph at all.
const BANNED: &[(&str, &str)] = &[
    ("ring", "a second crypto provider makes rustls refuse to choose"),
    ("openssl-sys", "TLS is rustls"),
    ("native-tls", "TLS is rustls"),
    ("chrono", "times are jiff, or milliseconds"),
    ("serde_yaml", "archived; use serde-saphyr"),
];

/// Licences a library may have. A name in an OR is enough, every name in an AND is needed.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "0BSD",
    "MIT-0",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "CC0-1.0",
    "OpenSSL",
];

/// Our own crates, as `cargo metadata --no-deps` describes them.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// A package that is really built: the lock file also has what no enabled feature needs.
struct Built {
    name: String,
    licence: String,
}

fn metadata() -> Result<Metadata> {
    let text = run::output(&run::cargo(), &["metadata", "--format-version", "1", "--locked", "--no-deps"])?;
    serde_json::from_str(&text).context("read cargo metadata")
}

fn built() -> Result<Vec<Built>> {
    let arguments =
        ["tree", "--workspace", "--locked", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}|{l}"];
    let text = run::output(&run::cargo(), &arguments)?;
    let lines: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let row = |line: &str| {
        let (package, licence) = line.split_once('|').with_context(|| format!("read `{line}` of cargo tree"))?;
        let name = package.split(' ').next().unwrap_or(package).to_owned();
        Ok(Built { name, licence: licence.trim_end_matches(" (*)").to_owned() })
    };
    lines.into_iter().map(row).collect()
}

/// Everything that is wrong, one sentence each.
fn findings(metadata: &Metadata, built: &[Built]) -> Vec<String> {
    let ours: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.name.as_str(), package)).collect();
    let mut findings = Vec::new();
    for (name, package) in &ours {
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| crate_name == name) else {
            findings.push(format!("crate `{name}` is not in the table of arrows"));
            continue;
        };
        let direct: BTreeSet<&str> = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
            .map(|dependency| dependency.name.as_str())
            .collect();
        for other in direct.iter().filter(|other| ours.contains_key(*other)) {
            if !allowed.contains(other) {
                findings.push(format!("`{name}` must not depend on `{other}`"));
            }
        }
        for (library, wrappers, why) in WRAPPED {
            if direct.contains(library) && !wrappers.contains(name) {
                findings.push(format!("`{name}` must not depend on `{library}`: {why} ({})", wrappers.join(", ")));
            }
        }
    }
    for (name, _) in ALLOWED {
        if !ours.contains_key(name) {
            findings.push(format!("the table of arrows names `{name}`, which is not a crate of the workspace"));
        }
    }
    for package in built {
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == package.name) {
            findings.push(format!(
                "`{}` is in the graph: {why}; `cargo tree -i {}` shows through whom",
                package.name, package.name
            ));
        }
        if !licence_allowed(&package.licence) {
            findings
                .push(format!("`{}` has the licence `{}`, which is not on the list", package.name, package.licence));
        }
    }
    findings
}

/// Reads the SPDX expressions that occur in practice: names, OR, AND, WITH, parentheses, and the old
/// `A/B` for OR.
fn licence_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut words = Vec::new();
    for word in expression.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
        match (word, words.last_mut()) {
            ("WITH", Some(last)) => *last = format!("{last} WITH"),
            (_, Some(last)) if last.ends_with(" WITH") => *last = format!("{last} {word}"),
            _ => words.push(word.to_owned()),
        }
    }
    let mut rest = words.as_slice();
    alternatives(&mut rest) && rest.is_empty()
}

fn alternatives(words: &mut &[String]) -> bool {
    let mut allowed = conjunction(words);
    while words.first().is_some_and(|word| word == "OR") {
        *words = &words[1..];
        allowed |= conjunction(words);
    }
    allowed
}

fn conjunction(words: &mut &[String]) -> bool {
    let mut allowed = single(words);
    while words.first().is_some_and(|word| word == "AND") {
        *words = &words[1..];
        allowed &= single(words);
    }
    allowed
}

fn single(words: &mut &[String]) -> bool {
    let Some((first, rest)) = words.split_first() else { return false };
    *words = rest;
    if first != "(" {
        return LICENCES.contains(&first.as_str());
    }
    let allowed = alternatives(words);
    if words.first().is_some_and(|word| word == ")") {
        *words = &words[1..];
    }
    allowed
}

/// Fails with all findings, or says that there are none.
///
/// # Errors
/// When cargo cannot describe the workspace, or something is not as the tables say.
pub(crate) fn check_and_tell() -> Result<()> {
    let built = built()?;
    let findings = findings(&metadata()?, &built);
    if !findings.is_empty() {
        bail!("{} things are against the architecture:\n  {}", findings.len(), findings.join("\n  "));
    }
    eprintln!("==> arrows and licences: {} crates, {} packages, all as allowed", ALLOWED.len(), built.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_to_the_arrows() {
        assert_eq!(findings(&metadata().unwrap(), &built().unwrap()), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_arrow_is_found() {
        let package = |name: &str, dependencies: &[(&str, Option<&str>)]| Package {
            name: name.to_owned(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
                .collect(),
        };
        let mut packages: Vec<Package> = ALLOWED.iter().map(|(name, _)| package(name, &[])).collect();
        packages[0] = package("muster-protocol", &[("muster-pki", None), ("lapin", None), ("muster-bus", Some("dev"))]);
        let library = |name: &str, licence: &str| Built { name: name.to_owned(), licence: licence.to_owned() };
        let built = [library("ring", "MIT"), library("good", "MIT OR GPL-3.0"), library("bad", "GPL-3.0")];
        let found = findings(&Metadata { packages }, &built);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert_eq!(found[0], "`muster-protocol` must not depend on `muster-pki`");
        assert!(found[1].starts_with("`muster-protocol` must not depend on `lapin`"));
        assert!(found[2].starts_with("`ring` is in the graph"));
        assert_eq!(found[3], "`bad` has the licence `GPL-3.0`, which is not on the list");
    }

    #[test]
    fn licences_are_read_as_expressions() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
            "ISC AND (Apache-2.0 OR ISC)",
        ] {
            assert!(licence_allowed(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR AGPL-3.0)", "Apache-2.0 WITH Something", "MIT MIT"] {
            assert!(!licence_allowed(bad), "{bad}");
        }
    }
}
