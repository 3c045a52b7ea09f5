//! What is asked for: package names, versions and the state they are to be in.
//!
//! The description of the plugin refuses bad names before they come here. They are checked again, since a name
//! goes into an argument vector of a program that runs as root, and package managers read much into a name:
//! `foo-` removes with apt, `foo*` and `fo.` are patterns, `-o` is an option, a `/` makes it a file.

use muster_plugin_api::{ActionFailure, ActionRequest};
use muster_protocol::code;

/// Most packages in one request: more is a task for a configuration manager.
pub(super) const NAMES_MAX: usize = 200;

/// Longest name and longest version, in bytes. Debian's longest name has 78.
const NAME_BYTES_MAX: usize = 128;

/// A package, and the version it is to have where that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    /// Its name; may carry an architecture, as in `libc6:i386` or `glibc.i686`.
    pub(super) name: String,
    /// The exact version, as the manager writes it.
    pub(super) version: Option<String>,
}

/// The state that packages are to be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ensure {
    /// Installed, in the wanted version where one is given.
    Present,
    /// Installed in the newest version that the repositories have.
    Latest,
    /// Not installed. Configuration may stay.
    Absent,
    /// Not installed, and no configuration left.
    Purged,
}

fn invalid(message: String) -> ActionFailure {
    ActionFailure::new(&code::INVALID_ARGUMENT, message)
}

/// Checks a name: letters, digits and `+ . _ -`, a letter or digit first, no `-` last; then perhaps `:ARCHITECTURE`.
pub(super) fn check_name(name: &str) -> Result<(), ActionFailure> {
    let (package, arch) = name.split_once(':').map_or((name, None), |(package, arch)| (package, Some(arch)));
    let word = |text: &str, more: &[u8]| {
        text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    let good = name.len() <= NAME_BYTES_MAX
        && word(package, b"+._-")
        && !package.ends_with('-')
        && arch.is_none_or(|arch| word(arch, b"-") && !arch.ends_with('-'));
    if good { Ok(()) } else { Err(invalid(format!("`{}` is not the name of a package", name.escape_debug()))) }
}

/// Checks a version: perhaps an epoch, then what Debian, rpm and apk allow, a letter or digit first, no `-`
/// last, and no pattern.
pub(super) fn check_version(version: &str) -> Result<(), ActionFailure> {
    let (epoch, rest) = version.split_once(':').map_or((None, version), |(epoch, rest)| (Some(epoch), rest));
    let good = version.len() <= NAME_BYTES_MAX
        && epoch.is_none_or(|epoch| !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()))
        && rest.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+~^_-".contains(&byte))
        && !rest.ends_with('-');
    if good { Ok(()) } else { Err(invalid(format!("`{}` is not a version", version.escape_debug()))) }
}

/// The packages of a request: `name`, `names` (each also `NAME=VERSION`) and `version`.
///
/// # Errors
/// `missing-argument` where there is no name, `invalid-argument` for a bad one, for a name twice, for too many
/// names, and for a `version` that does not belong to exactly one name.
pub(super) fn specs(request: &ActionRequest) -> Result<Vec<Spec>, ActionFailure> {
    let named = request.text("name").into_iter().chain(request.texts("names"));
    let mut specs: Vec<Spec> = Vec::new();
    for text in named {
        let (name, version) = text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)));
        check_name(name)?;
        version.map(check_version).transpose()?;
        if specs.iter().any(|spec| spec.name == name) {
            return Err(invalid(format!("`{name}` is named twice")));
        }
        specs.push(Spec { name: name.to_owned(), version: version.map(str::to_owned) });
    }
    if specs.len() > NAMES_MAX {
        return Err(invalid(format!("{} packages are named; at most {NAMES_MAX} are allowed", specs.len())));
    }
    match (request.text("version"), specs.as_mut_slice()) {
        (None, _) => {}
        (Some(version), [Spec { version: place @ None, .. }]) => {
            check_version(version)?;
            *place = Some(version.to_owned());
        }
        (Some(_), _) => {
            return Err(invalid("`version` belongs to exactly one name; write `names=NAME=VERSION,...`".to_owned()));
        }
    }
    Ok(specs)
}

/// The packages of a request that needs at least one.
pub(super) fn some_specs(request: &ActionRequest) -> Result<Vec<Spec>, ActionFailure> {
    let specs = specs(request)?;
    if specs.is_empty() {
        let message = "no package is named; give `name` or `names`";
        return Err(ActionFailure::new(&code::MISSING_ARGUMENT, message));
    }
    Ok(specs)
}

/// Refuses versions where they mean nothing.
pub(super) fn without_versions(specs: Vec<Spec>, action: &str) -> Result<Vec<String>, ActionFailure> {
    match specs.iter().find(|spec| spec.version.is_some()) {
        Some(spec) => Err(invalid(format!("`{action}` takes no version, but `{}` has one", spec.name))),
        None => Ok(specs.into_iter().map(|spec| spec.name).collect()),
    }
}

/// `ensure` of a request: one of the words, or a version for exactly one package.
pub(super) fn ensure(request: &ActionRequest, specs: &mut [Spec]) -> Result<Ensure, ActionFailure> {
    let (ensure, word) = match request.text("ensure") {
        None | Some("present") => return Ok(Ensure::Present),
        Some("latest") => (Ensure::Latest, "latest"),
        Some("absent") => (Ensure::Absent, "absent"),
        Some("purged") => (Ensure::Purged, "purged"),
        Some(version) => {
            check_version(version)?;
            let [Spec { version: place @ None, .. }] = specs else {
                let message = "an exact version in `ensure` belongs to exactly one name without a version";
                return Err(invalid(message.to_owned()));
            };
            *place = Some(version.to_owned());
            return Ok(Ensure::Present);
        }
    };
    match specs.iter().find(|spec| spec.version.is_some()) {
        Some(spec) => Err(invalid(format!("ensure={word} contradicts the version of `{}`", spec.name))),
        None => Ok(ensure),
    }
}

#[cfg(test)]
mod tests {
    use muster_plugin_api::conformance::sample_request;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn names() {
        for good in [
            "bash",
            "libc6:amd64",
            "g++",
            "g++-12",
            "gtk+3.0",
            "python3.11",
            "kernel-core.x86_64",
            "a",
            "libc6:kfreebsd-amd64",
        ] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in [
            "",
            "-",
            "--",
            "-y",
            "-oDPkg::Pre-Invoke=id",
            "foo-",
            "foo*",
            "foo?",
            "fo[o]",
            "foo bar",
            " foo",
            "foo\n",
            "foo\0",
            "x; rm -rf /",
            "../x.deb",
            "/tmp/x.deb",
            "./x",
            "foo/stable",
            "foo=1",
            "~nfoo",
            "?all",
            "@core",
            "foo^",
            "!foo",
            "+foo",
            ".foo",
            "_foo",
            "foo:",
            "foo:-x",
            "foo:a:b",
            "foo:amd64-",
            "$(id)",
            "`id`",
            "a|b",
            "foö",
            &long,
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions() {
        for good in ["1.0-1", "2:3.0.13-1~deb12u1+b1", "1.0^git1-1.el9", "1.0_p1-r0", "a", "2026.1"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in [
            "", "-1", "1-", "a:1", ":1", "1:", "1:2:3", "1*", "1 ", "1/2", "=1", "1\n", "~1", "1|2", "$1", "1=2", "/1/",
        ] {
            assert!(check_version(bad).is_err(), "{bad:?}");
        }
    }

    #[track_caller]
    fn check(arguments: Value, expected: Result<&[(&str, Option<&str>)], &str>) {
        let request = sample_request("install", arguments).unwrap();
        let specs = specs(&request).and_then(|mut specs| ensure(&request, &mut specs).map(|_| specs));
        let seen = specs.as_ref().map_err(|failure| failure.code.code);
        let seen = seen.map(|specs| specs.iter().map(|s| (s.name.as_str(), s.version.as_deref())).collect::<Vec<_>>());
        assert_eq!(seen, expected.map(<[_]>::to_vec));
    }

    #[test]
    fn what_a_request_names() {
        check(json!({ "name": "a" }), Ok(&[("a", None)]));
        check(json!({ "name": "a", "version": "1" }), Ok(&[("a", Some("1"))]));
        check(json!({ "name": "a", "ensure": "1" }), Ok(&[("a", Some("1"))]));
        check(json!({ "name": "a", "names": ["b=2:1-1", "c"] }), Ok(&[("a", None), ("b", Some("2:1-1")), ("c", None)]));
        check(json!({ "name": "a", "names": ["a"] }), Err("invalid-argument"));
        check(json!({ "names": ["a", "b"], "version": "1" }), Err("invalid-argument"));
        check(json!({ "names": ["a=1"], "version": "1" }), Err("invalid-argument"));
        check(json!({ "names": ["a", "b"], "ensure": "1" }), Err("invalid-argument"));
        check(json!({ "names": ["a=1"], "ensure": "latest" }), Err("invalid-argument"));
        check(json!({ "names": ["a="] }), Err("invalid-argument"));
        check(json!({ "name": "a", "ensure": "1*" }), Err("invalid-argument"));
        check(json!({ "names": vec!["a"; 3] }), Err("invalid-argument"));
        check(json!({ "names": (0..201).map(|n| format!("p{n}")).collect::<Vec<_>>() }), Err("invalid-argument"));
    }

    #[test]
    fn no_name_at_all() {
        let failure = some_specs(&sample_request("install", json!({})).unwrap()).unwrap_err();
        assert_eq!(failure.code.code, "missing-argument");
    }

    proptest! {
        #[test]
        fn a_name_that_passes_is_one_harmless_word(name in "[ -~\\n\\x00]{0,12}") {
            if check_name(&name).is_ok() {
                prop_assert!(!name.starts_with('-') && !name.ends_with('-'));
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "+._-:".contains(c)));
            }
        }
    }
}
