//! Changes to the config file that keep everything else in it, comments included.

use std::path::Path;

use muster_daemon::write_atomic;

use super::file::Raw;
use crate::output::{ExitCode, Failure};

/// A context to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NewContext {
    /// Its name.
    pub(crate) name: String,
    /// `key = value` lines without the line end, in order.
    pub(crate) lines: Vec<String>,
}

/// Adds a context at the end of the file's text.
pub(crate) fn add(text: &str, context: &NewContext) -> String {
    let gap = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    format!("{text}{gap}[context.{}]\n{}\n", context.name, context.lines.join("\n"))
}

/// Sets `current` in the file's text: replaces its line, or puts one at the top.
pub(crate) fn set_current(text: &str, name: &str) -> String {
    let line = format!("current = {}", quoted(name));
    let mut lines: Vec<&str> = text.lines().collect();
    let top = lines.iter().take_while(|line| !line.trim_start().starts_with('[')).count();
    let is_current =
        |line: &&str| line.trim_start().strip_prefix("current").is_some_and(|rest| rest.trim_start().starts_with('='));
    match lines[..top].iter().position(is_current) {
        Some(position) => lines[position] = &line,
        None => {
            lines.insert(0, &line);
            if lines.get(1).is_some_and(|next| next.trim_start().starts_with('[')) {
                lines.insert(1, "");
            }
        }
    }
    lines.join("\n") + "\n"
}

/// A TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Reads the file to be changed; a missing one is empty.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::file("read", path, &error)),
    }
}

/// Writes the file in one step, after making sure that it can be read again.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if let Err(error) = toml::from_str::<Raw>(text) {
        let what = format!("`{}` was not changed: it cannot be changed line by line", path.display());
        return Err(Failure::new(ExitCode::Usage, "config-syntax", what)
            .why("why", error.to_string())
            .hint(format!("edit {} by hand", path.display())));
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| Failure::file("create", directory, &error))?;
    }
    write_atomic(path, 0o600, text.as_bytes()).map_err(|error| Failure::file("write", path, error.io()))
}
