//! `facts.d`: files and programs that add facts.
//!
//! | name | how it is read |
//! |---|---|
//! | `*.json`, `*.yaml`, `*.yml`, `*.toml` | as a map at the top |
//! | `*.txt` | `name=value` a line, values are texts; `#` begins a comment line |
//! | any other file with an execute bit | run; its output is JSON (`{`), YAML (`---`) or `name=value` lines |
//!
//! Files whose names begin with a dot or end in `~`, `.bak`, `.dpkg-*` or `.rpm*` are left alone: editors
//! and package managers leave them behind. Anything else that cannot be used is an error of that
//! file, and of that file only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_plugins::yaml;
use serde_json::{Map, Value};

use super::{trusted, value};

/// How many executables run at the same time.
pub const CONCURRENT_MAX: usize = 4;

/// Most files of a directory that are looked at.
const FILES_MAX: usize = 200;

/// One file, and what came of it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) values: Result<Map<String, Value>, String>,
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
    Toml,
    Lines,
}

/// Reads the whole directory, in the order of the file names. A missing directory has no facts.
pub(super) async fn read(directory: &Path, timeout: Duration) -> Vec<Source> {
    let whole = |why: String| vec![Source { name: directory.display().to_string(), values: Err(why) }];
    match directory.try_exists() {
        Ok(false) => return Vec::new(),
        Ok(true) => {}
        Err(error) => return whole(format!("cannot be examined: {error}")),
    }
    if let Err(why) = trusted::check_directory(directory) {
        return whole(why);
    }
    let mut paths = match list(directory) {
        Ok(paths) => paths,
        Err(why) => return whole(why),
    };
    let mut too_many = None;
    if paths.len() > FILES_MAX {
        too_many = Some(format!("has more than {FILES_MAX} files; the rest is left out"));
        paths.truncate(FILES_MAX);
    }
    let mut sources = Vec::new();
    for batch in paths.chunks(CONCURRENT_MAX) {
        sources.extend(read_batch(batch, timeout).await);
    }
    if let Some(why) = too_many {
        sources.push(Source { name: directory.display().to_string(), values: Err(why) });
    }
    sources
}

async fn read_batch(paths: &[PathBuf], timeout: Duration) -> Vec<Source> {
    let mut pending: Vec<_> = paths.iter().map(|path| Box::pin(read_file(path, timeout))).collect();
    let mut done: Vec<Option<Result<Map<String, Value>, String>>> = paths.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in pending.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(values) = future.as_mut().poll(context)
            {
                *slot = Some(values);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    paths
        .iter()
        .zip(done)
        .filter_map(|(path, values)| Some(Source { name: path.display().to_string(), values: values? }))
        .collect()
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error: std::io::Error| format!("cannot be listed: {error}");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_left_over(&name) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_left_over(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    name.starts_with('.')
        || name.ends_with('~')
        || extension == "bak"
        || extension.starts_with("dpkg-")
        || extension.starts_with("rpm")
}

async fn read_file(path: &Path, timeout: Duration) -> Result<Map<String, Value>, String> {
    let file = trusted::open(path)?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let text = match format_of(extension) {
        Some(_) => trusted::read_text(file, value::SOURCE_BYTES_MAX)?,
        None => {
            let mode = std::os::unix::fs::PermissionsExt::mode(
                &file.metadata().map_err(|error| format!("cannot be examined: {error}"))?.permissions(),
            );
            if mode & 0o111 == 0 {
                return Err("is neither executable nor one of .json, .yaml, .yml, .toml, .txt".to_owned());
            }
            // Closed before it runs: a file that is open for writing elsewhere cannot be executed.
            drop(file);
            super::executable::run(path, timeout, value::SOURCE_BYTES_MAX).await?
        }
    };
    of_text(extension, &text)
}

/// The format of a file by its ending; none for an executable, whose output is guessed.
fn format_of(extension: &str) -> Option<Format> {
    match extension {
        "json" => Some(Format::Json),
        "yaml" | "yml" => Some(Format::Yaml),
        "toml" => Some(Format::Toml),
        "txt" => Some(Format::Lines),
        _ => None,
    }
}

/// Reads what a source gave.
pub(crate) fn of_text(extension: &str, text: &str) -> Result<Map<String, Value>, String> {
    let values = parse(format_of(extension).unwrap_or_else(|| guess(text)), text)?;
    value::check(&values)?;
    Ok(values)
}

fn guess(text: &str) -> Format {
    match text.trim_start() {
        text if text.starts_with('{') => Format::Json,
        text if text.starts_with("---") => Format::Yaml,
        _ => Format::Lines,
    }
}

fn parse(format: Format, text: &str) -> Result<Map<String, Value>, String> {
    let value = match format {
        Format::Lines => return lines(text),
        Format::Json => serde_json::from_str::<Value>(text).map_err(|error| format!("is not JSON: {error}"))?,
        Format::Toml => toml::from_str::<toml::Table>(text)
            .map(|table| from_toml(toml::Value::Table(table)))
            .map_err(|error| format!("is not TOML: {}", error.message().trim().replace('\n', ", ")))?,
        // A country `NO` and a disk `y` are texts, as in YAML 1.2.
        Format::Yaml => {
            serde_saphyr::from_str_with_options::<Value>(text, serde_saphyr::options! { strict_booleans: true })
                .map_err(|error| format!("is not YAML: {}", yaml::explain(&error)))?
        }
    };
    match value {
        Value::Object(values) => Ok(values),
        Value::Null if text.trim().is_empty() || format == Format::Yaml => Ok(Map::new()),
        _ => Err("does not hold a map at the top".to_owned()),
    }
}

fn lines(text: &str) -> Result<Map<String, Value>, String> {
    let mut values = Map::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                values.insert(name.trim().to_owned(), Value::String(value.trim().to_owned()));
            }
            _ => return Err(format!("line {} is not name=value", index + 1)),
        }
    }
    Ok(values)
}

/// TOML's dates have no JSON type; they become texts.
fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(boolean) => Value::Bool(boolean),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(list) => list.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(name, value)| (name, from_toml(value))).collect())
        }
    }
}
