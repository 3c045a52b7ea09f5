//! Showing a configuration with the origin of every value.

use serde::Serialize;
use toml::Value;

use super::Loaded;
use super::source::join;

/// What is printed in place of a secret.
pub const REDACTED: &str = "(not shown)";

impl<T: Serialize> Loaded<T> {
    /// Prints every value with its origin, one per line, sorted by key; values of the dotted keys in
    /// `redacted` are hidden. What is printed is TOML.
    ///
    /// # Errors
    /// The configuration holds something that TOML cannot say, which is a mistake of the program.
    pub fn print(&self, redacted: &[&str]) -> Result<String, toml::ser::Error> {
        let mut lines = Vec::new();
        collect("", &Value::try_from(&self.value)?, &mut lines);
        let mut text = String::new();
        for (key, value) in lines {
            let origin = self.origin(&key).unwrap_or("default");
            if redacted.contains(&key.as_str()) {
                text.push_str(&format!("{key} = \"{REDACTED}\"  # {origin}\n"));
            } else {
                text.push_str(&format!("{key} = {value}  # {origin}\n"));
            }
        }
        Ok(text)
    }
}

impl<T> Loaded<T> {
    /// Where a value came from, by its dotted key; `None` if it has its default.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&str> {
        self.origins.get(key).map(String::as_str)
    }
}

fn collect(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                collect(&join(prefix, key), value, lines);
            }
        }
        // The configuration itself, without a single value.
        _ if prefix.is_empty() => {}
        _ => lines.push((prefix.to_owned(), value.to_string())),
    }
}
