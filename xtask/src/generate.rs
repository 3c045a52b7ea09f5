//! Files that are made from code and checked in, so that a reader and a diff can see them.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// A generated file, and the program of ours with arguments that prints it.
const FILES: &[(&str, &[&str])] = &[
    ("docs/book/src/codes.md", &["-p", "muster-protocol", "--example", "codes"]),
    ("docs/book/src/plugin-reference.md", &["-p", "muster-plugin-api", "--example", "plugin_reference"]),
];

/// Writes the generated files, or with `check` only compares them.
///
/// # Errors
/// When a generator fails, a file cannot be written, or (with `check`) a file is not up to date.
pub(crate) fn generate(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (path, command) in FILES {
        let arguments = [&["run", "--quiet"], *command].concat();
        let fresh = run::output(&run::cargo(), &arguments).with_context(|| format!("generate `{path}`"))?;
        let file = run::root().join(path);
        if fs::read_to_string(&file).is_ok_and(|present| present == fresh) {
            continue;
        }
        if check {
            stale.push(*path);
        } else {
            fs::write(&file, fresh).with_context(|| format!("write `{path}`"))?;
            eprintln!("    wrote {path}");
        }
    }
    if !stale.is_empty() {
        bail!("not up to date: {}; run `cargo xtask generate`", stale.join(", "));
    }
    eprintln!("==> generated files: up to date");
    Ok(())
}
