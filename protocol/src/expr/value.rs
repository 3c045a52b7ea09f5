//! Literals, and how a host's value compares with one.
//!
//! The author's literal and the host's value meet like this:
//!
//! | the host has | `5`, `5.10` (number) | `"text"` or a bare word | `true` |
//! |---|---|---|---|
//! | a number | as numbers | as text; see below for order | never equal |
//! | a text | as integers, else as versions, else as numbers | equal: the same text; order: see below | equal to `"true"` |
//! | a boolean | never equal | as the text `true` or `false`; no order | as booleans |
//!
//! Two texts are ordered as integers if both are integers, as versions if both look like versions,
//! by code point if neither does. If only one of them looks like a version there is no order.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::expr::version::Version;

/// What an author can write on the right side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Literal {
    /// `true` or `false`.
    Boolean(bool),
    /// `12`, `-3`, `5.10`.
    Number(Decimal),
    /// `"text"`, `'text'` or a bare word.
    Text(String),
}

impl Literal {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Takes a word for what it looks like: a boolean, a number, else a text.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "true" => Self::Boolean(true),
            "false" => Self::Boolean(false),
            _ => Decimal::parse(word).map_or_else(|| Self::text(word), Self::Number),
        }
    }
}

/// A number as it was written: an optional `-`, digits, and optionally a point and digits. The spelling
/// is kept, because `5.10` is not `5.1` once it meets a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(String);

impl Decimal {
    /// Reads a number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let plain = text.strip_prefix('-').unwrap_or(text);
        let valid = match plain.split_once('.') {
            Some((whole, fraction)) => digits(whole) && digits(fraction),
            None => digits(plain),
        };
        valid.then(|| Self(text.to_owned()))
    }

    /// The number as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number as an integer, if it is written as one and fits.
    #[must_use]
    pub fn as_integer(&self) -> Option<i128> {
        integer(&self.0)
    }

    /// The nearest double-precision number.
    #[must_use]
    pub fn as_float(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self(number.to_string())
    }
}

fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    (digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A value of the host that is neither a list nor an object nor null.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scalar<'a> {
    Boolean(bool),
    Number(&'a Number),
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    pub(crate) fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Bool(boolean) => Some(Self::Boolean(*boolean)),
            Value::Number(number) => Some(Self::Number(number)),
            Value::String(text) => Some(Self::Text(text)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Gives the value as text to `read`.
    pub(crate) fn with_text<T>(self, read: impl FnOnce(&str) -> T) -> T {
        match self {
            Self::Boolean(true) => read("true"),
            Self::Boolean(false) => read("false"),
            Self::Number(number) => read(&number.to_string()),
            Self::Text(text) => read(text),
        }
    }

    pub(crate) fn equals(self, literal: &Literal) -> bool {
        match (self, literal) {
            (Self::Boolean(value), Literal::Boolean(expected)) => value == *expected,
            (Self::Text(value), Literal::Boolean(expected)) => value == if *expected { "true" } else { "false" },
            (Self::Number(_), Literal::Boolean(_)) => false,
            (_, Literal::Number(_)) => self.order(literal) == Some(Ordering::Equal),
            (_, Literal::Text(expected)) => self.with_text(|value| value == expected),
        }
    }

    /// How the value stands to the literal; `None` where there is no order between them.
    pub(crate) fn order(self, literal: &Literal) -> Option<Ordering> {
        match (self, literal) {
            (Self::Boolean(_), _) | (_, Literal::Boolean(_)) => None,
            (Self::Number(value), Literal::Number(expected)) => order_numbers(value, expected),
            (Self::Text(value), Literal::Number(expected)) => order_text_with_number(value, expected),
            (_, Literal::Text(expected)) => self.with_text(|value| order_texts(value, expected)),
        }
    }
}

fn order_numbers(value: &Number, expected: &Decimal) -> Option<Ordering> {
    let whole = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    match (whole, expected.as_integer()) {
        (Some(value), Some(expected)) => Some(value.cmp(&expected)),
        _ => value.as_f64()?.partial_cmp(&expected.as_float()),
    }
}

/// A text fact against a number: MCollective's facts are all texts, and most texts that look like a
/// decimal fraction are versions (`5.10`, `22.04`), so versions go before fractions.
fn order_text_with_number(value: &str, expected: &Decimal) -> Option<Ordering> {
    if let (Some(value), Some(expected)) = (integer(value), expected.as_integer()) {
        return Some(value.cmp(&expected));
    }
    if let (Some(value), Some(expected)) = (Version::parse(value), Version::parse(expected.as_str())) {
        return Some(value.cmp(&expected));
    }
    Decimal::parse(value)?.as_float().partial_cmp(&expected.as_float())
}

pub(crate) fn order_texts(left: &str, right: &str) -> Option<Ordering> {
    if let (Some(left), Some(right)) = (integer(left), integer(right)) {
        return Some(left.cmp(&right));
    }
    match (Version::parse(left), Version::parse(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        (None, None) => Some(left.cmp(right)),
        _ => None,
    }
}
