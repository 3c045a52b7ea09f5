//! Every code that `muster explain` knows, in one table: the command line's own, those of the
//! libraries it stands on, and those of hosts. A code is never renamed or reused.

mod bus;
mod own;

use muster_client::{ClientError, PendingError};
use muster_protocol::Code;

/// Every code that can be explained, in the order of the way from the command line to a host's answer.
pub(crate) fn all() -> impl Iterator<Item = &'static Code> {
    let client = [ClientError::CODES, PendingError::CODES];
    let parts = [own::CODES, bus::CODES].into_iter().chain(client).chain([
        muster_pki::CODES,
        muster_broker::CODES,
        muster_protocol::code::ALL,
    ]);
    parts.flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for row in all() {
            assert!(seen.insert(row.code), "`{}` stands there twice", row.code);
            assert!(row.code.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", row.code);
            assert!(!row.summary.is_empty() && !row.summary.ends_with('.'), "{}", row.code);
            assert!(row.explanation.ends_with('.'), "{}", row.code);
        }
    }

    fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rust_files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// The codes that a source text makes failures with.
    fn failure_codes(source: &str) -> Vec<String> {
        let calls = source.split(concat!("Failure::", "new(")).skip(1);
        let codes = calls.filter_map(|call| {
            let (_, after_exit) = call.split_once(',')?;
            let (code, _) = after_exit.trim_start().strip_prefix('"')?.split_once('"')?;
            Some(code.to_owned())
        });
        codes.collect()
    }

    /// The texts that the functions named `code` of a source text return.
    fn returned_codes(source: &str) -> Vec<String> {
        let functions = source.split("pub fn code(&self) -> &'static str {").skip(1);
        let bodies = functions.filter_map(|rest| rest.split_once("\n    }").map(|(body, _)| body));
        let texts = bodies.flat_map(|body| body.split('"').skip(1).step_by(2));
        texts.map(str::to_owned).collect()
    }

    #[test]
    fn every_code_that_is_used_is_explained() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut used: Vec<(PathBuf, String)> = Vec::new();
        let mut files = Vec::new();
        rust_files(&here.join("src"), &mut files);
        for path in files {
            let source = std::fs::read_to_string(&path).unwrap();
            used.extend(failure_codes(&source).into_iter().map(|code| (path.clone(), code)));
        }
        let own = used.len();
        let libraries = [
            "../../bus/src/error.rs",
            "../../pki/src/error.rs",
            "../../daemon/src/config/error.rs",
            "../../broker-config/src/definitions.rs",
            "../../broker-config/src/sites.rs",
            "../../broker/src/server/error.rs",
            "../../broker/src/control/mod.rs",
            "../../broker/src/journal/error.rs",
        ];
        for library in libraries {
            let path = here.join(library);
            let source = std::fs::read_to_string(&path).unwrap();
            let codes = returned_codes(&source);
            assert!(!codes.is_empty(), "{} has no codes any more", path.display());
            used.extend(codes.into_iter().map(|code| (path.clone(), code)));
        }
        assert!(own > 20, "only {own} codes were found in the command line's own source");
        let known: BTreeSet<&str> = all().map(|row| row.code).collect();
        let unknown: Vec<_> = used.iter().filter(|(_, code)| !known.contains(code.as_str())).collect();
        assert!(unknown.is_empty(), "not explained: {unknown:#?}");
    }

    #[test]
    fn every_own_code_is_used() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        rust_files(&here.join("src"), &mut files);
        files.push(here.join("../../daemon/src/config/error.rs"));
        files.push(here.join("../../broker-config/src/sites.rs"));
        files.retain(|path| !path.starts_with(here.join("src/codes")));
        let sources: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let unused: Vec<&str> =
            own::CODES.iter().map(|row| row.code).filter(|code| !sources.contains(&format!("\"{code}\""))).collect();
        assert!(unused.is_empty(), "nobody ends with {unused:?}");
    }
}
