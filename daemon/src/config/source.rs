//! Reading files and environment into values that know where they came from.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ::config::{ConfigError as MergeError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;

/// What an origin begins with when the value is a variable's text, which has no type of its own.
const VARIABLE: &str = "environment variable ";

/// A file's values.
#[derive(Debug, Clone)]
pub(super) struct FileLayer {
    path: PathBuf,
    values: Map<String, Value>,
}

impl FileLayer {
    /// Reads a file; `None` if it may be missing and is.
    pub(super) fn read(path: &Path, required: bool) -> Result<Option<Self>, ConfigError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound && !required => return Ok(None),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        let table = DeTable::parse(&text).map_err(|error| {
            let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
            ConfigError::Syntax { path: path.to_owned(), line, column, message: error.message().to_owned() }
        })?;
        let origins = Lines { path, text: &text };
        Ok(Some(Self { path: path.to_owned(), values: origins.table(table.into_inner()) }))
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Source for FileLayer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, MergeError> {
        Ok(self.values.clone())
    }

    fn collect_to(&self, cache: &mut Value) -> Result<(), MergeError> {
        merge(cache, &self.values);
        Ok(())
    }
}

/// Converts a parsed file, noting the line of each value.
struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Lines<'_> {
    fn table(&self, table: DeTable<'_>) -> Map<String, Value> {
        // A table's line is its key's, since a value such as an array may span many.
        table.into_iter().map(|(key, value)| (key.get_ref().to_string(), self.value(key.span().start, value))).collect()
    }

    fn value(&self, start: usize, value: Spanned<DeValue<'_>>) -> Value {
        let origin = format!("{}:{}", self.path.display(), position(self.text, start).0);
        let kind = match value.into_inner() {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Integer(integer) => integer_kind(integer.as_str(), integer.radix()),
            DeValue::Float(float) => float.as_str().parse().map_or(ValueKind::Nil, ValueKind::Float),
            DeValue::Boolean(boolean) => ValueKind::Boolean(boolean),
            DeValue::Datetime(datetime) => ValueKind::String(datetime.to_string()),
            DeValue::Array(array) => ValueKind::Array(
                array
                    .into_iter()
                    .map(|element| {
                        let start = element.span().start;
                        self.value(start, element)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => ValueKind::Table(self.table(table)),
        };
        Value::new(Some(&origin), kind)
    }
}

fn integer_kind(digits: &str, radix: u32) -> ValueKind {
    match i64::from_str_radix(digits, radix) {
        Ok(integer) => ValueKind::I64(integer),
        // TOML guarantees no more than 64 bits; keep what was written, so that the message shows it.
        Err(_) => u64::from_str_radix(digits, radix).map_or(ValueKind::String(digits.to_owned()), ValueKind::U64),
    }
}

/// The `*.toml` files of a directory, sorted by name.
pub(super) fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let fail = |source| ConfigError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(fail(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The environment's values, all of them text.
#[derive(Debug, Clone)]
pub(super) struct EnvironmentLayer {
    values: Map<String, Value>,
}

impl EnvironmentLayer {
    pub(super) fn new(prefix: &str, except: &[&str], variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let prefix = prefix.trim_end_matches('_');
        let mut values = Map::new();
        let mut variables: Vec<_> = variables.into_iter().collect();
        variables.sort();
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')) else { continue };
            if except.contains(&name.as_str()) || rest.is_empty() {
                continue;
            }
            let keys: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
            insert(&mut values, &keys, &format!("{VARIABLE}{name}"), text);
        }
        Self { values }
    }
}

fn insert(table: &mut Map<String, Value>, keys: &[String], origin: &str, text: String) {
    let Some((first, rest)) = keys.split_first() else { return };
    if rest.is_empty() {
        table.insert(first.clone(), Value::new(Some(&origin.to_owned()), ValueKind::String(text)));
        return;
    }
    let empty = || Value::new(Some(&origin.to_owned()), ValueKind::Table(Map::new()));
    let inner = table.entry(first.clone()).or_insert_with(empty);
    if !matches!(inner.kind, ValueKind::Table(_)) {
        *inner = empty();
    }
    if let ValueKind::Table(inner) = &mut inner.kind {
        insert(inner, rest, origin, text);
    }
}

impl Source for EnvironmentLayer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, MergeError> {
        Ok(self.values.clone())
    }

    fn collect_to(&self, cache: &mut Value) -> Result<(), MergeError> {
        merge(cache, &self.values);
        Ok(())
    }
}

/// Lays values over others: tables key by key, anything else as a whole.
///
/// The `config` crate's own merge reads a key such as `"prod.example"` as a path, so that a name with a
/// dot would fall apart into two tables.
fn merge(below: &mut Value, above: &Map<String, Value>) {
    if !matches!(below.kind, ValueKind::Table(_)) {
        below.kind = ValueKind::Table(Map::new());
    }
    let ValueKind::Table(table) = &mut below.kind else { return };
    for (key, value) in above {
        match (&value.kind, table.get_mut(key)) {
            (ValueKind::Table(inner), Some(existing)) if matches!(existing.kind, ValueKind::Table(_)) => {
                merge(existing, inner);
            }
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Whether a value is a variable's text, which has to be read according to what is expected of it.
pub(super) fn is_variable(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with(VARIABLE))
}

/// Origins of all values that are not tables, by dotted key.
pub(super) fn origins(root: &Value) -> BTreeMap<String, String> {
    fn walk(prefix: &str, value: &Value, origins: &mut BTreeMap<String, String>) {
        if let ValueKind::Table(table) = &value.kind {
            for (key, value) in table {
                walk(&join(prefix, key), value, origins);
            }
        } else if let Some(origin) = value.origin() {
            origins.insert(prefix.to_owned(), origin.to_owned());
        }
    }
    let mut origins = BTreeMap::new();
    walk("", root, &mut origins);
    origins
}

/// Removes the value with a dotted key, or the whole list if the key is one of a list's elements. Says
/// whether there was one.
pub(super) fn remove(root: &mut Value, key: &str) -> bool {
    remove_below(root, "", key)
}

fn remove_below(table: &mut Value, path: &str, key: &str) -> bool {
    let ValueKind::Table(entries) = &mut table.kind else { return false };
    let holds = |path: &str| key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let Some(name) = entries.keys().find(|name| holds(&join(path, name))).cloned() else { return false };
    let inner = join(path, &name);
    entries.get_mut(&name).is_some_and(|value| remove_below(value, &inner, key)) || entries.remove(&name).is_some()
}

/// A dotted key; parts that would be ambiguous are quoted as in TOML.
pub(super) fn join(prefix: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if prefix.is_empty() { key } else { format!("{prefix}.{key}") }
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
