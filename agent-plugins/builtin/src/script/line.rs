//! The first line of a script, read as the kernel reads it (execve(2)).

use std::path::{Component, Path, PathBuf};

/// Longest first line, in bytes: what newer kernels take.
const LINE_BYTES_MAX: usize = 255;

/// What runs a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpreter {
    pub(super) path: PathBuf,
    /// Everything after the path, as one argument.
    pub(super) argument: Option<String>,
}

/// The interpreter that a script names; `None` for one that names none.
pub(super) fn interpreter(script: &str) -> Result<Option<Interpreter>, &'static str> {
    let Some(rest) = script.strip_prefix("#!") else { return Ok(None) };
    let line = rest.split('\n').next().unwrap_or_default();
    if line.ends_with('\r') {
        return Err("has line ends of Windows, with which no interpreter is found");
    }
    if line.len() > LINE_BYTES_MAX || line.contains('\0') {
        return Err("has a first line that is too long or holds a NUL");
    }
    let line = line.trim_matches([' ', '\t']);
    let (path, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let path = Path::new(path);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err("has a first line whose interpreter is not an absolute path");
    }
    let argument = argument.trim_start_matches([' ', '\t']);
    Ok(Some(Interpreter { path: path.to_owned(), argument: (!argument.is_empty()).then(|| argument.to_owned()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        let check = |script: &str, path: &str, argument: Option<&str>| {
            let expected = Interpreter { path: path.into(), argument: argument.map(str::to_owned) };
            assert_eq!(interpreter(script), Ok(Some(expected)), "{script:?}");
        };
        check("#!/bin/sh\necho", "/bin/sh", None);
        check("#! /bin/sh -e \necho", "/bin/sh", Some("-e"));
        check("#!/usr/bin/env python3", "/usr/bin/env", Some("python3"));
        check("#!\t/usr/bin/env\t-S perl -w\n", "/usr/bin/env", Some("-S perl -w"));
        assert_eq!(interpreter("echo\n#!/bin/sh"), Ok(None));
        assert_eq!(interpreter(""), Ok(None));
        assert_eq!(interpreter(" #!/bin/sh"), Ok(None));
        for wrong in ["#!", "#!\n", "#!sh", "#!../sh\n", "#!/bin/../sh", "#!/bin/sh\r\n", "#!/bin/\0sh"] {
            assert!(interpreter(wrong).is_err(), "{wrong:?}");
        }
        assert!(interpreter(&format!("#!/bin/{}", "x".repeat(300))).is_err());
    }
}
