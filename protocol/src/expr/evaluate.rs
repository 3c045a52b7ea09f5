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

/// How a comparison takes a list of several elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading<'a> {
    /// It holds if it holds for any element; a negated one, if for none. What targets mean.
    Any,
    /// In lists below this first name it holds only if it holds for every element, whatever stands around it:
    /// the condition is sure to hold. A list without elements holds nothing that could be compared.
    Surely(&'a str),
    /// In lists below this first name one element for which it holds is enough, also for a negated one: the
    /// condition may hold. What `Surely` is of the condition's opposite.
    Possibly(&'a str),
}

impl Reading<'_> {
    fn behind_not(self) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::Surely(root) => Self::Possibly(root),
            Self::Possibly(root) => Self::Surely(root),
        }
    }

    fn of(self, operand: &Operand) -> Self {
        match (self, operand) {
            (Self::Surely(root) | Self::Possibly(root), Operand::Path(path)) if path.root() == root => self,
            _ => Self::Any,
        }
    }
}

pub(crate) fn evaluate(node: &Node, scope: &dyn Scope, reading: Reading<'_>) -> Truth {
    decide(node, scope, &Work { bytes_left: Cell::new(PATTERN_TEXT_BYTES_MAX) }, reading)
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

fn decide(node: &Node, scope: &dyn Scope, work: &Work, reading: Reading<'_>) -> Truth {
    match node {
        Node::Constant(value) => Truth::from(*value),
        Node::And(parts) => {
            fold(parts, (Truth::True, Truth::False), Truth::min, |part| decide(part, scope, work, reading))
        }
        Node::Or(parts) => {
            fold(parts, (Truth::False, Truth::True), Truth::max, |part| decide(part, scope, work, reading))
        }
        Node::Not(part) => !decide(part, scope, work, reading.behind_not()),
        Node::Has(operand) => Truth::from(find(operand, scope).is_some_and(|value| !value.is_null())),
        Node::Compare { operand, comparison } => match find(operand, scope) {
            Some(value) => compare(&value, comparison, work, reading.of(operand)),
            None => Truth::Unknown,
        },
    }
}

/// Joins the parts from left to right, from `start` on, and stops where `end` makes it certain.
fn fold(
    parts: &[Node],
    (start, end): (Truth, Truth),
    join: fn(Truth, Truth) -> Truth,
    decide: impl Fn(&Node) -> Truth,
) -> Truth {
    let mut result = start;
    for part in parts {
        result = join(result, decide(part));
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

fn compare(value: &Value, comparison: &Comparison, work: &Work, reading: Reading<'_>) -> Truth {
    use Comparison as C;
    let (surely, possibly) = (matches!(reading, Reading::Surely(_)), matches!(reading, Reading::Possibly(_)));
    let holds = |test: &dyn Fn(Scalar<'_>) -> Truth| if surely { every(value, test) } else { any(value, test) };
    let fails = |test: &dyn Fn(Scalar<'_>) -> Truth| !(if possibly { every(value, test) } else { any(value, test) });
    let order = |literal: &Literal, fits: fn(Ordering) -> bool| {
        holds(&|scalar| scalar.order(literal).map_or(Truth::Unknown, |order| fits(order).into()))
    };
    match comparison {
        C::Equal(literal) => holds(&|scalar| scalar.equals(literal).into()),
        C::NotEqual(literal) => fails(&|scalar| scalar.equals(literal).into()),
        C::Less(literal) => order(literal, Ordering::is_lt),
        C::LessOrEqual(literal) => order(literal, Ordering::is_le),
        C::Greater(literal) => order(literal, Ordering::is_gt),
        C::GreaterOrEqual(literal) => order(literal, Ordering::is_ge),
        C::Matches(pattern) => holds(&|scalar| work.look(&scalar, 1, |text| pattern.is_match(text))),
        C::NotMatches(pattern) => fails(&|scalar| work.look(&scalar, 1, |text| pattern.is_match(text))),
        C::Like(glob) => holds(&|scalar| work.look(&scalar, glob.weight(), |text| glob.is_match(text))),
        C::NotLike(glob) => fails(&|scalar| work.look(&scalar, glob.weight(), |text| glob.is_match(text))),
        C::In(literals) => holds(&|scalar| is_one_of(scalar, literals)),
        C::NotIn(literals) => fails(&|scalar| is_one_of(scalar, literals)),
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

/// A list passes if it has elements and all of them do.
fn every(value: &Value, test: &dyn Fn(Scalar<'_>) -> Truth) -> Truth {
    match value {
        Value::Array(elements) => elements.iter().map(|element| every(element, test)).min().unwrap_or(Truth::False),
        _ => Scalar::of(value).map_or(Truth::Unknown, test),
    }
}
