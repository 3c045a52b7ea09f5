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

/// Why a changed text would not say what it should: that `current`, if given, is the context in use.
pub(crate) fn problem(text: &str, current: Option<&str>) -> Option<String> {
    match toml::from_str::<Raw>(text) {
        Err(error) => Some(error.to_string()),
        // The line that looked like it stands in a text of several lines, for example.
        Ok(raw) if current.is_some() && raw.current.as_deref() != current => {
            Some("the line `current = ...` in it is not the setting".to_owned())
        }
        Ok(_) => None,
    }
}

/// Writes the file in one step, after making sure that it can be read again and chooses `current`, if that is given.
pub(crate) fn write(path: &Path, text: &str, current: Option<&str>) -> Result<(), Failure> {
    if let Some(why) = problem(text, current) {
        let what = format!("`{}` was not changed: it cannot be changed line by line", path.display());
        return Err(Failure::new(ExitCode::Usage, "config-syntax", what)
            .why("why", why)
            .hint(format!("edit {} by hand", path.display())));
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| Failure::file("create", directory, &error))?;
    }
    write_atomic(path, 0o600, text.as_bytes()).map_err(|error| Failure::file("write", path, error.io()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_only_looks_like_the_setting_is_noticed() {
        let check = |text: &str, expected: Option<&str>| {
            let changed = set_current(text, "lab");
            let found = problem(&changed, Some("lab"));
            assert_eq!(found.is_some(), expected.is_some(), "{changed:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{changed:?}");
        };
        check("", None);
        check("# mine\ncurrent = \"prod\"\n[context.prod]\n", None);
        check("note = \"\"\"\ncurrent = 1\n\"\"\"\n", Some("is not the setting"));
        check("current = \"\"\"\nprod\"\"\"\n", Some("TOML parse error"));
    }
}
