//! Doors for the fuzzer: the configuration file.

use std::collections::BTreeMap;
use std::path::Path;

use super::Selection;
use super::edit;
use super::file::{Files, Locations};
use super::resolve::{choose, resolve};

/// Reads a file, chooses each of its contexts and makes it whole. Gives how many could be used.
///
/// # Panics
/// When choosing another context would change a context.
pub(crate) fn resolve_all(file: &Path, variables: &BTreeMap<String, String>) -> usize {
    let selection = Selection { config: Some(file.to_owned()), ..Selection::default() };
    let locations = Locations::detect(&selection, variables);
    let Ok(files) = Files::read(&locations) else { return 0 };
    drop(choose(&selection, variables, &files, &locations));
    let names: Vec<String> = files.raw.context.keys().cloned().collect();
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut good = 0;
    for name in names {
        let selection = Selection { context: Some(name.clone()), ..selection.clone() };
        let Ok(choice) = choose(&selection, variables, &files, &locations) else { continue };
        good += usize::from(resolve(&choice, variables, &files).is_ok());
        let changed = edit::set_current(&text, &name);
        if edit::problem(&changed, Some(&name)).is_none() {
            let context = |text: &str| text.parse::<toml::Table>().ok().map(|table| table.get("context").cloned());
            assert_eq!(context(&changed), context(&text), "nothing else is changed");
        }
    }
    good
}
