//! The types of a description, as they stand in the JSON file.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::named::Named;
use super::validation::Validation;
use crate::decode::check_bounds;
use crate::limits::{DDL_ACTIONS_MAX, DDL_BYTES_MAX, DDL_ITEMS_MAX, DDL_TIMEOUT_S_MAX};
use crate::name::{ActionName, PluginName};

/// Time limit of a plugin that names none, in seconds. Choria's default.
const TIMEOUT_S_DEFAULT: u64 = 10;

/// Why a text is not a plugin description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DdlError {
    /// More bytes than a description may have.
    #[error("the description has {bytes} bytes; at most {DDL_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// More nesting than JSON may have here.
    #[error("the description nests deeper than {} levels", crate::limits::JSON_DEPTH_MAX)]
    TooDeep,
    /// Not JSON, or not of this shape.
    #[error("the description is malformed: {why}")]
    Malformed {
        /// What the reader says, with line and column.
        why: String,
    },
    /// Well-formed, but it contradicts itself or breaks a bound.
    #[error("the description of plugin `{plugin}` is wrong: {why}")]
    Invalid {
        /// The plugin's name.
        plugin: PluginName,
        /// What is wrong.
        why: String,
    },
}

impl DdlError {
    /// Never: the same text gives the same answer.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }

    /// The stable code `malformed`.
    #[must_use]
    pub fn code(&self) -> &'static crate::Code {
        &crate::code::MALFORMED
    }
}

/// A plugin's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ddl {
    /// Address of the schema that the author followed.
    #[serde(rename = "$schema", default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
    /// Who made it, which version, how long it may take.
    pub metadata: Metadata,
    /// What it can do, in the order of the file.
    #[serde(default, deserialize_with = "null_as_default")]
    pub actions: Vec<Action>,
    /// What Muster adds for the plugin as a whole.
    #[serde(default, skip_serializing_if = "DdlExtension::is_empty")]
    pub muster: DdlExtension,
    /// Fields this program does not know, kept as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Who made a plugin, and its general facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The plugin's name.
    pub name: PluginName,
    /// What it is for, one line.
    #[serde(default)]
    pub description: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Who wrote it.
    #[serde(default)]
    pub author: String,
    /// Under which licence.
    #[serde(default)]
    pub license: String,
    /// Where to read more.
    #[serde(default)]
    pub url: String,
    /// How long an action may take, in seconds, where the action does not say. 0 means the default of 10.
    #[serde(default)]
    pub timeout: u64,
    /// What runs it: `muster` for built-in plugins, `external`, `golang` or `ruby` in descriptions for Choria.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// Fields this program does not know, kept as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One action of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Its name; after the plugin's name and a dot it is what people type.
    #[serde(rename = "action")]
    pub name: ActionName,
    /// What it does, one line.
    #[serde(default)]
    pub description: String,
    /// Which answers a person wants to see one by one.
    #[serde(default)]
    pub display: Display,
    /// What it takes.
    #[serde(default)]
    pub input: Named<Input>,
    /// What it gives.
    #[serde(default)]
    pub output: Named<Output>,
    /// How the answers of many hosts are summed up.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub aggregate: Vec<Aggregate>,
    /// What Muster adds for this action.
    #[serde(default)]
    pub muster: ActionExtension,
    /// Fields this program does not know, kept as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Which answers are shown one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<String>", into = "String")]
pub enum Display {
    /// Those that succeeded.
    Ok,
    /// Those that failed. The default.
    #[default]
    Failed,
    /// All of them.
    Always,
    /// A word this program does not know.
    Unknown(String),
}

impl From<Option<String>> for Display {
    fn from(word: Option<String>) -> Self {
        match word.as_deref() {
            None | Some("" | "failed") => Self::Failed,
            Some("ok") => Self::Ok,
            Some("always") => Self::Always,
            Some(other) => Self::Unknown(other.chars().take(32).collect()),
        }
    }
}

impl From<Display> for String {
    fn from(display: Display) -> String {
        match display {
            Display::Ok => "ok".to_owned(),
            Display::Failed => "failed".to_owned(),
            Display::Always => "always".to_owned(),
            Display::Unknown(word) => word,
        }
    }
}

/// The type of an input or output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<String>", into = "String")]
pub enum ValueType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// Any number, written `float` in the file.
    Float,
    /// `true` or `false`.
    Boolean,
    /// One of a list of texts.
    List,
    /// A JSON array.
    Array,
    /// A JSON object.
    Hash,
    /// Whatever JSON there is: the file names no type.
    #[default]
    Any,
    /// A type this program does not know. An input of it accepts nothing.
    Unknown(String),
}

impl ValueType {
    /// The word in the file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::List => "list",
            Self::Array => "array",
            Self::Hash => "hash",
            Self::Any => "any",
            Self::Unknown(word) => word,
        }
    }

    /// Whether a JSON value is of this type. Of a list's values and a text's validation it knows nothing.
    #[must_use]
    pub fn fits(&self, value: &Value) -> bool {
        match self {
            Self::String | Self::List => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number | Self::Float => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Array => value.is_array(),
            Self::Hash => value.is_object(),
            Self::Any => true,
            Self::Unknown(_) => false,
        }
    }
}

impl From<Option<String>> for ValueType {
    fn from(word: Option<String>) -> Self {
        match word.unwrap_or_default().to_ascii_lowercase().as_str() {
            "string" => Self::String,
            "integer" | "int" => Self::Integer,
            "number" => Self::Number,
            "float" => Self::Float,
            "boolean" => Self::Boolean,
            "list" => Self::List,
            "array" => Self::Array,
            "hash" => Self::Hash,
            "" | "any" => Self::Any,
            other => Self::Unknown(other.chars().take(32).collect()),
        }
    }
}

impl From<ValueType> for String {
    fn from(kind: ValueType) -> String {
        kind.as_str().to_owned()
    }
}

/// One argument that an action takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// What a form asks with.
    #[serde(default)]
    pub prompt: String,
    /// What it means.
    #[serde(default)]
    pub description: String,
    /// Its type.
    #[serde(rename = "type", default)]
    pub kind: ValueType,
    /// Whether it may be left out. See [`Input::is_required`].
    #[serde(default)]
    pub optional: bool,
    /// The opposite of `optional`, which some authors write instead. `optional` wins when it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// What stands in for it when it is left out.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub default: Value,
    /// What a text, or each element of an array, must look like.
    #[serde(default, skip_serializing_if = "Validation::is_none")]
    pub validation: Validation,
    /// Longest text, or longest text in an array, in characters. 0 means no limit of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub maxlength: u64,
    /// The texts that a `list` accepts.
    #[serde(rename = "list", default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// What Muster adds for this input.
    #[serde(default, skip_serializing_if = "InputExtension::is_empty")]
    pub muster: InputExtension,
    /// Fields this program does not know, kept as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What Muster adds for one input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InputExtension {
    /// Whether its value is a secret: it travels only sealed to each target host, and is masked
    /// wherever arguments are shown or recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// Fields this program does not know, kept as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl InputExtension {
    fn is_empty(&self) -> bool {
        !self.secret && self.other.is_empty()
    }
}

impl Input {
    /// Whether its value is a secret.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.muster.secret
    }

    /// Whether a request without it is refused: it is not optional and has no default.
    #[must_use]
    pub fn is_required(&self) -> bool {
        !self.optional && self.required != Some(false) && self.usable_default().is_none()
    }

    /// The default, if there is one that the input itself would accept.
    #[must_use]
    pub fn usable_default(&self) -> Option<&Value> {
        (!self.default.is_null() && self.problem(&self.default).is_none()).then_some(&self.default)
    }
}

/// One item that an action gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// What it means.
    #[serde(default)]
    pub description: String,
    /// The heading over it.
    #[serde(default)]
    pub display_as: String,
    /// Its type.
    #[serde(rename = "type", default)]
    pub kind: ValueType,
    /// What stands in for it when an answer lacks it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub default: Value,
    /// Fields this program does not know, kept as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The functions that controllers know; what the others mean is known to whoever wrote them. Choria's, and `percentiles`.
pub const AGGREGATE_FUNCTIONS: &[&str] = &["summary", "boolean_summary", "average", "percentiles", "chart"];

/// How the values of one output are summed up over all hosts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// One of [`AGGREGATE_FUNCTIONS`], or a name that a controller may not know.
    pub function: String,
    /// The output's name, then an object of options such as `format` or `titles`. Choria writes both
    /// `args` and `arguments`.
    #[serde(default, alias = "arguments", deserialize_with = "one_or_many")]
    pub args: Vec<Value>,
    /// Fields this program does not know, kept as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Aggregate {
    /// The output that is summed up.
    #[must_use]
    pub fn output(&self) -> Option<&str> {
        self.args.first().and_then(Value::as_str)
    }

    /// An option of the function, such as `format`.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&Value> {
        self.args.get(1).and_then(|options| options.get(name)).or_else(|| self.other.get(name))
    }
}

/// What Muster adds for the plugin as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DdlExtension {
    /// Whether the plugin does nothing on a host until its administrator has enabled it by name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opt_in: bool,
    /// Questions that target expressions may ask, such as `package("openssl")`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DataQuery>,
    /// Fields this program does not know, kept as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl DdlExtension {
    fn is_empty(&self) -> bool {
        !self.opt_in && self.data.is_empty() && self.other.is_empty()
    }
}

/// A question that a target expression may ask the plugin. Its arguments are positional, in the order of `input`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataQuery {
    /// Its name in an expression.
    pub name: ActionName,
    /// What it tells.
    #[serde(default)]
    pub description: String,
    /// What it takes, in order.
    #[serde(default)]
    pub input: Named<Input>,
    /// The keys of its answer.
    #[serde(default)]
    pub output: Named<Output>,
}

/// What Muster adds for one action.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionExtension {
    /// Whether it changes nothing on the host. Without this, an action is taken to change something.
    #[serde(default)]
    pub read_only: bool,
    /// Whether it runs in a process of its own, which outlives a restart of the agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// Which options it honours.
    #[serde(default)]
    pub supports: Supports,
    /// Groups of inputs of which exactly one has to be given, such as `[["name", "names"]]`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<Vec<String>>,
    /// What a host must have for it, one phrase each.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Its own time limit, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// How long it may take to stop once it was told to, in seconds, where it must not be torn off in the
    /// middle of a step; nothing means the agent's few seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_s: Option<u64>,
    /// Fields this program does not know, kept as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The options that an action honours. One that it does not honour is refused, never ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supports {
    /// `--noop`: say what would be done.
    #[serde(default)]
    pub noop: bool,
    /// Run as another user.
    #[serde(default)]
    pub effective_user: bool,
    /// Stop in the middle.
    #[serde(default)]
    pub cancel: bool,
    /// Send output while it runs.
    #[serde(default)]
    pub stream: bool,
}

impl Ddl {
    /// Reads a description.
    ///
    /// # Errors
    /// In this order: too large, too deep, malformed, against a rule (bounds, an action twice).
    pub fn parse(text: &str) -> Result<Self, DdlError> {
        if text.len() > DDL_BYTES_MAX {
            return Err(DdlError::TooLarge { bytes: text.len() });
        }
        check_bounds(text.as_bytes()).map_err(|_| DdlError::TooDeep)?;
        let ddl: Self = serde_json::from_str(text).map_err(|error| DdlError::Malformed { why: error.to_string() })?;
        ddl.check()?;
        Ok(ddl)
    }

    fn check(&self) -> Result<(), DdlError> {
        let wrong = |why: String| Err(DdlError::Invalid { plugin: self.metadata.name.clone(), why });
        if self.actions.len() > DDL_ACTIONS_MAX {
            return wrong(format!("it has more than {DDL_ACTIONS_MAX} actions"));
        }
        if self.metadata.timeout > DDL_TIMEOUT_S_MAX {
            return wrong(format!("its timeout is more than {DDL_TIMEOUT_S_MAX} seconds"));
        }
        for (index, action) in self.actions.iter().enumerate() {
            let name = &action.name;
            if self.actions[..index].iter().any(|earlier| earlier.name == *name) {
                return wrong(format!("action `{name}` stands there twice"));
            }
            if action.muster.timeout_s.is_some_and(|limit| limit == 0 || limit > DDL_TIMEOUT_S_MAX) {
                return wrong(format!("timeout_s of action `{name}` is not between 1 and {DDL_TIMEOUT_S_MAX}"));
            }
            if action.muster.stop_grace_s.is_some_and(|grace| grace > DDL_TIMEOUT_S_MAX) {
                return wrong(format!("stop_grace_s of action `{name}` is more than {DDL_TIMEOUT_S_MAX}"));
            }
            let grouped = action.muster.one_of.iter().flatten();
            if let Some(input) = grouped.into_iter().find(|input| action.input.get(input).is_none()) {
                return wrong(format!("one_of of action `{name}` names `{input}`, which is not an input"));
            }
            if action.muster.one_of.iter().any(Vec::is_empty) {
                return wrong(format!("one_of of action `{name}` has an empty group"));
            }
            if action.aggregate.len() > DDL_ITEMS_MAX {
                return wrong(format!("action `{name}` has more than {DDL_ITEMS_MAX} aggregates"));
            }
            if let Some((input, _)) = action.input.iter().find(|(_, input)| input.values.len() > DDL_ITEMS_MAX) {
                return wrong(format!("input `{input}` of `{name}` lists more than {DDL_ITEMS_MAX} values"));
            }
        }
        for (index, query) in self.muster.data.iter().enumerate() {
            if self.muster.data[..index].iter().any(|earlier| earlier.name == query.name) {
                return wrong(format!("data query `{}` stands there twice", query.name));
            }
        }
        Ok(())
    }

    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &PluginName {
        &self.metadata.name
    }

    /// The action of that name.
    #[must_use]
    pub fn action(&self, name: &ActionName) -> Option<&Action> {
        self.actions.iter().find(|action| action.name == *name)
    }

    /// The inputs of an action whose values are secrets; none for an action that is not there.
    pub fn secret_inputs(&self, action: &ActionName) -> impl Iterator<Item = &str> {
        let inputs = self.action(action).map(|action| action.input.iter());
        inputs.into_iter().flatten().filter(|(_, input)| input.is_secret()).map(|(name, _)| name)
    }

    /// The data query of that name.
    #[must_use]
    pub fn data_query(&self, name: &str) -> Option<&DataQuery> {
        self.muster.data.iter().find(|query| query.name.as_str() == name)
    }

    /// How long an action may take, in seconds: its own limit, the plugin's, or 10.
    #[must_use]
    pub fn timeout_s(&self, action: &Action) -> u64 {
        let plugin = if self.metadata.timeout == 0 { TIMEOUT_S_DEFAULT } else { self.metadata.timeout };
        action.muster.timeout_s.unwrap_or(plugin)
    }

    /// What works otherwise than its author may think: one sentence each, for `plugin show` and logs.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut unknown = |at: &str, other: &Map<String, Value>| {
            for key in other.keys() {
                warnings.push(format!("{at} has `{key}` under `muster`, which means nothing to this version"));
            }
        };
        unknown("the plugin", &self.muster.other);
        for action in &self.actions {
            unknown(&format!("action `{}`", action.name), &action.muster.other);
            for (name, input) in action.input.iter() {
                unknown(&format!("input `{name}` of `{}`", action.name), &input.muster.other);
            }
        }
        for action in &self.actions {
            for (name, output) in action.output.iter() {
                if let ValueType::Unknown(kind) = &output.kind {
                    warnings.push(format!("output `{name}` of `{}` has the unknown type `{kind}`", action.name));
                }
            }
            for (name, input) in action.input.iter() {
                let at = format!("input `{name}` of `{}`", action.name);
                if let Validation::Unknown(validator) = &input.validation {
                    warnings.push(format!("{at} has the unknown validator `{validator}` and is held to shellsafe"));
                }
                if let ValueType::Unknown(kind) = &input.kind {
                    warnings.push(format!("{at} has the unknown type `{kind}` and accepts nothing"));
                }
                if input.kind == ValueType::List && input.values.is_empty() {
                    warnings.push(format!("{at} is a list without values and accepts nothing"));
                }
                if !input.default.is_null() && input.usable_default().is_none() {
                    warnings.push(format!("{at} has a default that it would itself refuse; it is ignored"));
                }
            }
            for aggregate in &action.aggregate {
                if !AGGREGATE_FUNCTIONS.contains(&aggregate.function.as_str()) {
                    let function = &aggregate.function;
                    warnings.push(format!("an aggregate of `{}` is `{function}`, which is not known", action.name));
                }
                match aggregate.output() {
                    Some(output) if action.output.get(output).is_some() => {}
                    other => warnings.push(format!(
                        "an aggregate of `{}` sums up `{}`, which is not an output",
                        action.name,
                        other.unwrap_or("nothing")
                    )),
                }
            }
        }
        warnings
    }
}

/// Programs in Go write a missing list as null.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Array(many) => many,
        Value::Null => Vec::new(),
        one => vec![one],
    })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
