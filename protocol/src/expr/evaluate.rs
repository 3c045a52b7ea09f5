//! Evaluation in Kleene's three-valued logic.
//!
//! A missing value makes a comparison unknown, and unknown never matches, not even behind `not`.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::ops::Not;

use serde_json::Value;

use crate::expr::ast::{Comparison, Node, Operand};
use crate::expr::scope::{Scope, lookup};
use crate::expr::value::{Literal, Scalar};
use crate::limits::PATTERN_TEXT_BYTES_MAX;

/// What an expression comes to. `and` is the least of its parts, `or` the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Truth {
    /// It does not hold.
    False,
    /// A value that it needs is missing or cannot be compared.
    Unknown,
    /// It holds.
    True,
}

impl Truth {
    /// Whether it holds for certain.
    #[must_use]
    pub fn is_true(self) -> bool {
        self == Self::True
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

impl Not for Truth {
    type Output = Self;
    fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::True => Self::False,
        }
    }
}

pub(crate) fn evaluate(node: &Node, scope: &dyn Scope) -> Truth {
    decide(node, scope, &Work { bytes_left: Cell::new(PATTERN_TEXT_BYTES_MAX) })
}

/// How much text patterns may still look at.
struct Work {
    bytes_left: Cell<usize>,
}

impl Work {
    /// What `test` says of a text, unless that is more than is left; then unknown, and nothing is left.
    fn look(&self, scalar: &Scalar<'_>, weight: usize, test: impl Fn(&str) -> bool) -> Truth {
        scalar.with_text(|text| match self.bytes_left.get().checked_sub(text.len().saturating_mul(weight)) {
            Some(left) => {
                self.bytes_left.set(left);
                Truth::from(test(text))
            }
            None => {
                self.bytes_left.set(0);
                Truth::Unknown
            }
        })
    }
}

fn decide(node: &Node, scope: &dyn Scope, work: &Work) -> Truth {
    match node {
        Node::Constant(value) => Truth::from(*value),
        Node::And(parts) => fold(parts, scope, work, (Truth::True, Truth::False), Truth::min),
        Node::Or(parts) => fold(parts, scope, work, (Truth::False, Truth::True), Truth::max),
        Node::Not(part) => !decide(part, scope, work),
        Node::Has(operand) => Truth::from(find(operand, scope).is_some_and(|value| !value.is_null())),
        Node::Compare { operand, comparison } => match find(operand, scope) {
            Some(value) => compare(&value, comparison, work),
            None => Truth::Unknown,
        },
    }
}

/// Joins the parts from left to right, from `start` on, and stops where `end` makes it certain.
fn fold(
    parts: &[Node],
    scope: &dyn Scope,
    work: &Work,
    (start, end): (Truth, Truth),
    join: fn(Truth, Truth) -> Truth,
) -> Truth {
    let mut result = start;
    for part in parts {
        result = join(result, decide(part, scope, work));
        if result == end {
            break;
        }
    }
    result
}

fn find<'a>(operand: &Operand, scope: &'a dyn Scope) -> Option<Cow<'a, Value>> {
    match operand {
        Operand::Path(path) => scope.get(path),
        Operand::Call { call, fields } => match scope.call(call)? {
            Cow::Borrowed(value) => lookup(value, fields),
            Cow::Owned(value) => lookup(&value, fields).map(|found| Cow::Owned(found.into_owned())),
        },
    }
}

fn compare(value: &Value, comparison: &Comparison, work: &Work) -> Truth {
    use Comparison as C;
    let order = |literal: &Literal, holds: fn(Ordering) -> bool| {
        any(value, &|scalar| scalar.order(literal).map_or(Truth::Unknown, |order| holds(order).into()))
    };
    match comparison {
        C::Equal(literal) => any(value, &|scalar| scalar.equals(literal).into()),
        C::NotEqual(literal) => !any(value, &|scalar| scalar.equals(literal).into()),
        C::Less(literal) => order(literal, Ordering::is_lt),
        C::LessOrEqual(literal) => order(literal, Ordering::is_le),
        C::Greater(literal) => order(literal, Ordering::is_gt),
        C::GreaterOrEqual(literal) => order(literal, Ordering::is_ge),
        C::Matches(pattern) => any(value, &|scalar| work.look(&scalar, 1, |text| pattern.is_match(text))),
        C::NotMatches(pattern) => !any(value, &|scalar| work.look(&scalar, 1, |text| pattern.is_match(text))),
        C::Like(glob) => any(value, &|scalar| work.look(&scalar, glob.weight(), |text| glob.is_match(text))),
        C::NotLike(glob) => !any(value, &|scalar| work.look(&scalar, glob.weight(), |text| glob.is_match(text))),
        C::In(literals) => any(value, &|scalar| is_one_of(scalar, literals)),
        C::NotIn(literals) => !any(value, &|scalar| is_one_of(scalar, literals)),
    }
}

fn is_one_of(scalar: Scalar<'_>, literals: &[Literal]) -> Truth {
    literals.iter().any(|literal| scalar.equals(literal)).into()
}

/// A list passes if any element does. An object and null have nothing to compare.
fn any(value: &Value, test: &dyn Fn(Scalar<'_>) -> Truth) -> Truth {
    match value {
        Value::Array(elements) => elements.iter().map(|element| any(element, test)).fold(Truth::False, Truth::max),
        _ => Scalar::of(value).map_or(Truth::Unknown, test),
    }
}
