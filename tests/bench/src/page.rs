//! The folder `docs/performance`: results, pictures, and the part of the page that is made from them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::charts::draw;
use crate::results::{Machine, Results, Scenario};
use crate::table::tables;

/// The results.
pub const FILE_RESULTS: &str = "results.json";

/// The page.
pub const FILE_PAGE: &str = "README.md";

const BEGIN: &str = "<!-- made by `cargo xtask bench --render` from results.json: do not edit -->";
const END: &str = "<!-- end of what is made -->";

/// What of the page is made from results.
#[must_use]
pub fn generated(results: &Results) -> String {
    let machine = &results.machine;
    let mut parts = vec![format!(
        "{} ({} logical processors), {:.1} GiB of memory, {}, {}{}. \
         Broker, all agents and the controller share these processors.",
        machine.processor,
        machine.processors,
        gibibytes(machine.memory_bytes),
        machine.system,
        machine.kernel,
        rabbitmq(machine),
    )];
    let pictures = draw(results);
    parts.extend(tables(results).iter().map(|table| table.to_markdown().trim_end().to_owned()));
    parts.extend(pictures.iter().map(|picture| format!("![{}]({})", picture.words, picture.file)));
    parts.join("\n\n")
}

/// What is said of RabbitMQ, where it is installed.
fn rabbitmq(machine: &Machine) -> String {
    match (&machine.rabbitmq, &machine.erlang) {
        (Some(version), Some(erlang)) => format!(", RabbitMQ {version} on Erlang {erlang}"),
        _ => String::new(),
    }
}

/// The scenarios, as a table of the page.
#[must_use]
pub fn scenarios() -> String {
    let rows = Scenario::ALL
        .map(|scenario| format!("| `{}` | {} | {} |", scenario.word(), scenario.description(), scenario.baseline()));
    format!("| `--only` | what happens | the raw baseline |\n|---|---|---|\n{}", rows.join("\n"))
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// The page with its made part replaced.
///
/// # Errors
/// The page has no place for it.
pub fn page(before: &str, results: &Results) -> Result<String> {
    let place = "the page has no place for results; it is between the two comments that say so";
    let (head, rest) = before.split_once(BEGIN).context(place)?;
    let (_, tail) = rest.split_once(END).context(place)?;
    Ok(format!("{head}{BEGIN}\n\n{}\n\n{}\n\n{END}{tail}", scenarios(), generated(results)))
}

/// A page for a folder that has none.
#[must_use]
pub fn bare_page() -> String {
    format!("# Results\n\n{BEGIN}\n{END}\n")
}

/// All files of the folder, by name: page and pictures. Not the results themselves.
///
/// # Errors
/// As [`page`].
pub fn files(before: &str, results: &Results) -> Result<BTreeMap<String, String>> {
    let pictures = draw(results).into_iter().map(|picture| (picture.file.to_owned(), picture.svg));
    Ok(pictures.chain([(FILE_PAGE.to_owned(), page(before, results)?)]).collect())
}

/// Writes page and pictures of these results into a folder.
///
/// # Errors
/// The folder cannot be written, or as [`page`].
pub fn render(folder: &Path, results: &Results) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("create `{}`", folder.display()))?;
    let path = folder.join(FILE_PAGE);
    let before = if path.exists() {
        std::fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?
    } else {
        bare_page()
    };
    for (name, text) in files(&before, results)? {
        write(&folder.join(name), &text)?;
    }
    Ok(())
}

/// Writes the results into a folder.
///
/// # Errors
/// The folder cannot be written.
pub fn keep(folder: &Path, results: &Results) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("create `{}`", folder.display()))?;
    write(&folder.join(FILE_RESULTS), &results.to_json())
}

fn write(path: &Path, text: &str) -> Result<()> {
    muster_daemon::write_atomic(path, 0o644, text.as_bytes()).with_context(|| format!("write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::testing::sample_results;

    #[test]
    fn only_the_made_part_of_the_page_is_replaced() {
        let results = sample_results();
        let before = format!("# A page\n\nby hand\n\n{BEGIN}\nold\n{END}\n\nby hand, too\n");
        let after = page(&before, &results).unwrap();
        assert!(after.starts_with("# A page\n\nby hand\n\n<!-- made") && after.ends_with("-->\n\nby hand, too\n"));
        assert!(!after.contains("\nold\n") && after.contains("| full ping | 100 | RabbitMQ | 1.20 "), "{after}");
        assert_eq!(page(&after, &results).unwrap(), after);
        assert!(page("# A page\n", &results).is_err());
    }

    #[test]
    fn a_folder_has_results_page_and_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deeper/still");
        let results = sample_results();
        keep(&folder, &results).unwrap();
        render(&folder, &Results::load(&folder.join(FILE_RESULTS)).unwrap()).unwrap();
        let page = std::fs::read_to_string(folder.join(FILE_PAGE)).unwrap();
        let pictures: Vec<&str> =
            page.lines().filter_map(|line| line.strip_suffix(')')?.rsplit_once("](")).map(|(_, file)| file).collect();
        assert_eq!(pictures.len(), 8, "{page}");
        for picture in pictures {
            assert!(std::fs::read_to_string(folder.join(picture)).unwrap().starts_with("<svg "), "{picture}");
        }
    }
}
