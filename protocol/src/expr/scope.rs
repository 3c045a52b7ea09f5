//! Where names get their values: a host's facts, or what a policy knows of a request.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::expr::ast::{Call, Path, Segment};
use crate::name::{CollectiveName, HostName};

/// Names of a target that are not facts. A fact that has one of these names is reached as `fact.NAME`.
pub const RESERVED_ROOTS: &[&str] = &["name", "class", "plugin", "collective", "fact"];

/// Gives names and data calls their values. `None` means that there is no such value; a JSON null
/// counts as the same.
pub trait Scope {
    /// The value at `path`.
    fn get(&self, path: &Path) -> Option<Cow<'_, Value>>;

    /// The answer to a data call, resolved before.
    fn call(&self, call: &Call) -> Option<Cow<'_, Value>>;
}

/// Follows `segments` into `value`. A name that meets a list is looked up in each of its elements,
/// and the values found form a list again.
#[must_use]
pub fn lookup<'a>(value: &'a Value, segments: &[Segment]) -> Option<Cow<'a, Value>> {
    let Some((first, rest)) = segments.split_first() else {
        return Some(Cow::Borrowed(value));
    };
    match (first, value) {
        (Segment::Name(name), Value::Object(fields)) => lookup(fields.get(name)?, rest),
        (Segment::Index(index), Value::Array(elements)) => lookup(elements.get(usize::try_from(*index).ok()?)?, rest),
        (Segment::Name(_), Value::Array(elements)) => {
            let found: Vec<Value> =
                elements.iter().filter_map(|element| lookup(element, segments)).map(Cow::into_owned).collect();
            (!found.is_empty()).then_some(Cow::Owned(Value::Array(found)))
        }
        _ => None,
    }
}

fn lookup_in<'a>(fields: &'a Map<String, Value>, segments: &[Segment]) -> Option<Cow<'a, Value>> {
    match segments.split_first() {
        Some((Segment::Name(name), rest)) => lookup(fields.get(name)?, rest),
        _ => None,
    }
}

fn owned<'a>(value: Value, segments: &[Segment]) -> Option<Cow<'a, Value>> {
    if segments.is_empty() {
        return Some(Cow::Owned(value));
    }
    lookup(&value, segments).map(|found| Cow::Owned(found.into_owned()))
}

fn names<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
    items.into_iter().map(Value::from).collect()
}

/// What a host knows of itself: `name`, `class`, `plugin`, `collective`, and everything else is a fact.
#[derive(Debug, Clone, Copy)]
pub struct HostScope<'a> {
    /// The host's name: `name`.
    pub name: &'a HostName,
    /// Its facts.
    pub facts: &'a Map<String, Value>,
    /// Its configuration classes: the list `class`.
    pub classes: &'a BTreeSet<String>,
    /// The plugins it can run: the list `plugin`.
    pub plugins: &'a BTreeSet<String>,
    /// The collectives it listens to: the list `collective`.
    pub collectives: &'a BTreeSet<CollectiveName>,
    /// Answers to data calls by [`Call::canonical`] text.
    pub calls: &'a BTreeMap<String, Value>,
}

impl Scope for HostScope<'_> {
    fn get(&self, path: &Path) -> Option<Cow<'_, Value>> {
        let (_, rest) = path.segments().split_first()?;
        match path.root() {
            "name" => owned(Value::from(self.name.as_str()), rest),
            "class" => owned(names(self.classes.iter().map(String::as_str)), rest),
            "plugin" => owned(names(self.plugins.iter().map(String::as_str)), rest),
            "collective" => owned(names(self.collectives.iter().map(CollectiveName::as_str)), rest),
            "fact" => lookup_in(self.facts, rest),
            _ => lookup_in(self.facts, path.segments()),
        }
    }

    fn call(&self, call: &Call) -> Option<Cow<'_, Value>> {
        self.calls.get(&call.canonical()).map(Cow::Borrowed)
    }
}

/// Values by name, optionally in front of another scope. For policies: `caller`, `caller.kind`,
/// `arg.NAME` and the like over a [`HostScope`].
#[derive(Clone, Default)]
pub struct MapScope<'a> {
    values: BTreeMap<String, Option<Value>>,
    base: Option<&'a dyn Scope>,
}

impl std::fmt::Debug for MapScope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapScope").field("values", &self.values).finish_non_exhaustive()
    }
}

impl<'a> MapScope<'a> {
    /// No values, nothing behind.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No values yet; names that are never [`set`](Self::set) are asked of `base`.
    #[must_use]
    pub fn over(base: &'a dyn Scope) -> Self {
        Self { values: BTreeMap::new(), base: Some(base) }
    }

    /// Gives the dotted `name` a value. `None` reserves the name without a value, so that neither it nor
    /// anything else below its first part is asked of the base: a host must not answer for a missing
    /// `effective_user` with a fact of that name.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<Option<Value>>) -> Self {
        self.values.insert(name.into(), value.into());
        self
    }

    fn owns(&self, root: &str) -> bool {
        self.values.keys().any(|name| name.split('.').next() == Some(root))
    }
}

impl Scope for MapScope<'_> {
    /// The longest name that has a value wins: with `caller` and `caller.kind` set, each is its own.
    fn get(&self, path: &Path) -> Option<Cow<'_, Value>> {
        if !self.owns(path.root()) {
            return self.base?.get(path);
        }
        let mut name = String::new();
        let mut best = None;
        for (index, segment) in path.segments().iter().enumerate() {
            // A quoted segment may hold a dot; it must not pass for two names.
            let Segment::Name(part) = segment else { break };
            if part.contains('.') {
                break;
            }
            if index > 0 {
                name.push('.');
            }
            name.push_str(part);
            if let Some(value) = self.values.get(&name) {
                best = Some((value, index + 1));
            }
        }
        let (value, used) = best?;
        lookup(value.as_ref()?, path.segments().get(used..)?)
    }

    fn call(&self, call: &Call) -> Option<Cow<'_, Value>> {
        self.base?.call(call)
    }
}
