//! The classes a configuration manager has applied, one name a line, as Puppet's `classes.txt`.

use std::collections::BTreeSet;
use std::path::Path;

use super::{trusted, value};

/// Most classes of a host.
const CLASSES_MAX: usize = 2_000;

/// Reads the file. A file that does not exist means that there are no classes: before the first run
/// of the configuration manager there is none.
pub(super) fn read(path: &Path) -> Result<BTreeSet<String>, String> {
    if !path.try_exists().map_err(|error| format!("cannot be examined: {error}"))? {
        return Ok(BTreeSet::new());
    }
    let text = trusted::read_text(trusted::open(path)?, value::SOURCE_BYTES_MAX)?;
    let classes: BTreeSet<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    if classes.len() > CLASSES_MAX {
        return Err(format!("names more than {CLASSES_MAX} classes"));
    }
    match classes.iter().find(|class| class.chars().any(|c| c.is_control() || c.is_whitespace())) {
        Some(class) => Err(format!("`{}` is not the name of a class", class.escape_default())),
        None => Ok(classes),
    }
}
