//! From merged values to a typed configuration, remembering the path at every step.
//!
//! serde tells a deserialiser which fields and variants exist, so unknown keys, missing keys and accepted
//! values can be named without any description beside the types themselves.

use std::fmt;

use ::config::{Map, Value, ValueKind};
use serde::de::value::StringDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::error::{Problem, list};
use super::nearest::nearest;
use super::source::{is_variable, join};

/// Reads a configuration. Unknown keys are collected in `problems`; the first other problem ends it.
pub(super) fn read<T: DeserializeOwned>(root: Value, problems: &mut Vec<Problem>) -> Result<T, Problem> {
    T::deserialize(Node { value: root, path: String::new(), unknown: problems }).map_err(|error| error.problem("", ""))
}

/// An error on its way up; it gets its place from the first node that has one.
#[derive(Debug)]
enum Failure {
    Text(String),
    Wrong { found: String, accepted: String },
    MissingField(&'static str),
    Placed(Problem),
}

impl Failure {
    fn problem(self, key: &str, origin: &str) -> Problem {
        let (origin, key) = (origin.to_owned(), key.to_owned());
        match self {
            Self::Placed(problem) => problem,
            Self::MissingField(field) => Problem::Missing { key: join(&key, field) },
            Self::Wrong { found, accepted } => Problem::Value { origin, key, found, accepted },
            Self::Text(why) => Problem::Rule { origin, key, why },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Wrong { found, accepted } => write!(formatter, "{found}, accepted: {accepted}"),
            Self::MissingField(field) => write!(formatter, "`{field}` is missing"),
            Self::Placed(problem) => problem.fmt(formatter),
        }
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::Text(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Wrong { found: found(unexpected), accepted: accepted(expected) }
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Wrong { found: found(unexpected), accepted: accepted(expected) }
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::Wrong { found: format!("a list of {length}"), accepted: accepted(expected) }
    }

    fn unknown_variant(variant: &str, variants: &'static [&'static str]) -> Self {
        let variants: Vec<String> = variants.iter().map(|&variant| variant.to_owned()).collect();
        Self::Wrong { found: format!("\"{variant}\""), accepted: list(&variants) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::MissingField(field)
    }
}

/// What is there, as it would be written in the file.
fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// What is expected, with Rust's names of numbers put into words.
fn accepted(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    let range = |min: i128, max: i128| format!("a whole number from {min} to {max}");
    match text.as_str() {
        "u8" => range(0, u8::MAX.into()),
        "u16" => range(0, u16::MAX.into()),
        "u32" => range(0, u32::MAX.into()),
        "i8" => range(i8::MIN.into(), i8::MAX.into()),
        "i16" => range(i16::MIN.into(), i16::MAX.into()),
        "i32" => range(i32::MIN.into(), i32::MAX.into()),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "a borrowed string" | "path string" => "a text in quotes".to_owned(),
        "a sequence" => "a list".to_owned(),
        text if text.starts_with("struct ") || text == "a map" => "a table".to_owned(),
        text => text.to_owned(),
    }
}

/// A value and its place.
struct Node<'p> {
    value: Value,
    path: String,
    unknown: &'p mut Vec<Problem>,
}

impl Node<'_> {
    fn origin(&self) -> String {
        first_origin(&self.value).to_owned()
    }

    /// A variable's text read as TOML, where the text is a value other than a string.
    fn typed(mut self) -> Self {
        if is_variable(&self.value)
            && let ValueKind::String(text) = &self.value.kind
        {
            let text = text.trim();
            if let Ok(boolean) = text.parse() {
                self.value.kind = ValueKind::Boolean(boolean);
            } else if let Ok(integer) = text.parse() {
                self.value.kind = ValueKind::I64(integer);
            } else if let Ok(float) = text.parse() {
                self.value.kind = ValueKind::Float(float);
            }
        }
        self
    }

    /// A variable's text read as a list: a TOML array, or words between commas.
    fn listed(mut self) -> Result<Self, Failure> {
        if is_variable(&self.value)
            && let ValueKind::String(text) = &self.value.kind
        {
            let origin = self.origin();
            let element = |text: String| Value::new(Some(&origin), ValueKind::String(text));
            let text = text.trim();
            let elements = if text.starts_with('[') {
                let wrong = || {
                    Failure::Wrong {
                        found: format!("{text:?}"),
                        accepted: "words between commas, or a TOML array".to_owned(),
                    }
                    .problem(&self.path, &origin)
                };
                let parsed = DeValue::parse(text).map_err(|_| Failure::Placed(wrong()))?;
                let DeValue::Array(array) = parsed.into_inner() else { return Err(Failure::Placed(wrong())) };
                texts(array).ok_or_else(|| Failure::Placed(wrong()))?
            } else {
                text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect()
            };
            self.value.kind = ValueKind::Array(elements.into_iter().map(element).collect());
        }
        Ok(self)
    }

    /// Hands the value to a visitor as what it is.
    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let (path, origin) = (self.path.clone(), self.origin());
        let result = match self.value.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(value) => visitor.visit_bool(value),
            ValueKind::I64(value) => visitor.visit_i64(value),
            ValueKind::I128(value) => visitor.visit_i128(value),
            ValueKind::U64(value) => visitor.visit_u64(value),
            ValueKind::U128(value) => visitor.visit_u128(value),
            ValueKind::Float(value) => visitor.visit_f64(value),
            ValueKind::String(text) => visitor.visit_string(text),
            ValueKind::Array(elements) => {
                let path = self.path;
                visitor.visit_seq(Elements { elements: elements.into_iter(), next: 0, path, unknown: self.unknown })
            }
            ValueKind::Table(table) => {
                let entries = sorted(table).into_iter();
                visitor.visit_map(Entries { entries, value: None, path: self.path, unknown: self.unknown })
            }
        };
        result.map_err(|failure| Failure::Placed(failure.problem(&path, &origin)))
    }
}

/// Where a value stands; a table stands where its first entry does.
fn first_origin(value: &Value) -> &str {
    value
        .origin()
        .or_else(|| match &value.kind {
            ValueKind::Table(table) => table.values().map(first_origin).min(),
            _ => None,
        })
        .unwrap_or("built in")
}

/// The elements of a list as texts, which are then read according to what is expected of them.
fn texts(array: DeArray<'_>) -> Option<Vec<String>> {
    array
        .into_iter()
        .map(Spanned::into_inner)
        .map(|element| match element {
            DeValue::String(text) => Some(text.into_owned()),
            DeValue::Integer(integer) => Some(integer.as_str().to_owned()),
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            DeValue::Boolean(boolean) => Some(boolean.to_string()),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
        })
        .collect()
}

/// Entries in the order of their keys, so that problems always come in the same order.
fn sorted(table: Map<String, Value>) -> Vec<(String, Value)> {
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    entries
}

macro_rules! typed {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            self.typed().visit(visitor)
        })*
    };
}

macro_rules! plain {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            self.visit(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Failure;

    typed! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
    }

    plain! {
        deserialize_any deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_unit deserialize_map deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if matches!(self.value.kind, ValueKind::Nil) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.listed()?.visit(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Failure> {
        self.listed()?.visit(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.listed()?.visit(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Failure> {
        self.visit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Failure> {
        let (path, origin) = (self.path.clone(), self.origin());
        visitor.visit_newtype_struct(self).map_err(|failure| Failure::Placed(failure.problem(&path, &origin)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if let ValueKind::Table(table) = &mut self.value.kind {
            let (known, unknown) =
                std::mem::take(table).into_iter().partition(|(key, _)| fields.contains(&key.as_str()));
            *table = known;
            for (key, value) in sorted(unknown) {
                self.unknown.push(Problem::Unknown {
                    origin: first_origin(&value).to_owned(),
                    suggestion: nearest(&key, fields.iter().copied()).map(|field| join(&self.path, field)),
                    key: join(&self.path, &key),
                    known: fields.iter().map(|field| join(&self.path, field)).collect(),
                });
            }
        }
        self.visit(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let (path, origin) = (self.path.clone(), self.origin());
        let result = match self.value.kind {
            ValueKind::String(variant) => visitor.visit_enum(Word(variant)),
            _ => {
                let variants: Vec<String> = variants.iter().map(|&variant| variant.to_owned()).collect();
                Err(Failure::Wrong { found: "not a word".to_owned(), accepted: list(&variants) })
            }
        };
        result.map_err(|failure| Failure::Placed(failure.problem(&path, &origin)))
    }
}

struct Elements<'p> {
    elements: std::vec::IntoIter<Value>,
    next: usize,
    path: String,
    unknown: &'p mut Vec<Problem>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(value) = self.elements.next() else { return Ok(None) };
        let path = format!("{}[{}]", self.path, self.next);
        self.next += 1;
        place(value, path, self.unknown, seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.len())
    }
}

struct Entries<'p> {
    entries: std::vec::IntoIter<(String, Value)>,
    value: Option<(String, Value)>,
    path: String,
    unknown: &'p mut Vec<Problem>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        let path = join(&self.path, &key);
        let origin = first_origin(&value).to_owned();
        self.value = Some((path.clone(), value));
        let key: StringDeserializer<Failure> = key.into_deserializer();
        seed.deserialize(key).map(Some).map_err(|failure| Failure::Placed(failure.problem(&path, &origin)))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Failure> {
        let Some((path, value)) = self.value.take() else {
            return Err(Failure::custom("a value was read before its key"));
        };
        place(value, path, self.unknown, seed)
    }
}

/// Reads an inner value; whatever its type says against it belongs to this place.
fn place<'de, T: DeserializeSeed<'de>>(
    value: Value,
    path: String,
    unknown: &mut Vec<Problem>,
    seed: T,
) -> Result<T::Value, Failure> {
    let origin = first_origin(&value).to_owned();
    seed.deserialize(Node { value, path: path.clone(), unknown })
        .map_err(|failure| Failure::Placed(failure.problem(&path, &origin)))
}

/// A variant without data.
struct Word(String);

impl<'de> EnumAccess<'de> for Word {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let word: StringDeserializer<Failure> = self.0.clone().into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Failure> {
        Err(Failure::custom("a word alone, this one needs more"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, _visitor: V) -> Result<V::Value, Failure> {
        Err(Failure::custom("a word alone, this one needs more"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Failure> {
        Err(Failure::custom("a word alone, this one needs more"))
    }
}
