//! The expression language: targets, policies, searches.
//!
//! `os.family = "Debian" and (role = web or name ~ "^db-") and not class = legacy`
//!
//! [`Expression::parse`] turns text into a tree ([`Node`]) and keeps its canonical text;
//! [`Expression::evaluate`] asks a [`Scope`] for the values and answers with a [`Truth`]. The agent
//! first resolves [`Expression::calls`], such as `package("openssl")`, and puts the answers into the
//! scope. [`mco`] translates MCollective's filters. The chapter "Expressions" of the book describes the
//! language for its users.
//!
//! # Invariants
//!
//! - Parsing is total and bounded ([`crate::limits`]): no input panics, recurses without end or
//!   compiles to more than its share of memory.
//! - Canonical text parses to the same tree and prints as itself.
//! - A missing value makes a comparison unknown; unknown never matches, not even behind `not`.
//! - A negated operator is the negation of the plain one: `a != b` is `not a = b` for every value.

mod ast;
mod cursor;
mod error;
mod evaluate;
mod explain;
pub mod mco;
mod parse;
mod pattern;
mod print;
mod scope;
mod suggest;
mod value;
mod version;

use std::fmt;
use std::str::FromStr;

pub use ast::{Call, CallError, Comparison, KEYWORDS, Node, Operand, Path, PathError, Segment};
pub use error::ParseError;
pub use evaluate::{Reading, Truth};
pub use pattern::{Glob, Pattern, PatternError};
pub use scope::{HostScope, MapScope, RESERVED_ROOTS, Scope, lookup};
pub use suggest::did_you_mean;
pub use value::{Decimal, Literal};
pub use version::Version;

/// A condition on a host, or on a request: parsed, within its limits, with its canonical text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    root: Node,
    text: String,
}

impl Expression {
    /// Parses `source`.
    ///
    /// # Errors
    /// Says where it is wrong, what was expected and, if something is near, what to write instead. Also
    /// when a limit is passed: bytes (of the source and of the canonical text), depth, nodes, patterns.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        Self::within_limits(parse::parse(source)?)
    }

    /// Builds an expression from a tree.
    ///
    /// # Errors
    /// When the tree passes a limit or is not in the form that [`Node::and`], [`Node::or`] and the parser
    /// make, so that its text would not parse to it. The column counts in the tree's text.
    pub fn from_node(root: Node) -> Result<Self, ParseError> {
        let expression = Self::parse(&root.to_string())?;
        if expression.root == root {
            return Ok(expression);
        }
        Err(ParseError {
            column: 1,
            length: 1,
            message: "the tree is not in canonical form".to_owned(),
            suggestion: None,
        })
    }

    /// The expression that holds where all of `parts` hold; `true` for none.
    ///
    /// # Errors
    /// When together they pass a limit.
    pub fn all_of(parts: impl IntoIterator<Item = Self>) -> Result<Self, ParseError> {
        Self::from_node(Node::and(parts.into_iter().map(|part| part.root)))
    }

    /// The expression that holds everywhere.
    #[must_use]
    pub fn always() -> Self {
        Self { root: Node::Constant(true), text: "true".to_owned() }
    }

    fn within_limits(root: Node) -> Result<Self, ParseError> {
        let text = root.to_string();
        if text.len() > crate::limits::EXPRESSION_BYTES_MAX {
            let message = format!(
                "the expression has {} bytes in its canonical form; at most {} are allowed",
                text.len(),
                crate::limits::EXPRESSION_BYTES_MAX
            );
            return Err(ParseError { column: 1, length: 1, message, suggestion: None });
        }
        Ok(Self { root, text })
    }

    /// The tree.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The canonical text, as it goes into a signed target.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the expression comes to in `scope`.
    #[must_use]
    pub fn evaluate(&self, scope: &dyn Scope) -> Truth {
        self.evaluate_as(Reading::Any, scope)
    }

    /// What the expression comes to in `scope` if its lists are read so.
    #[must_use]
    pub fn evaluate_as(&self, reading: Reading<'_>, scope: &dyn Scope) -> Truth {
        evaluate::evaluate(&self.root, scope, reading)
    }

    /// Whether the expression certainly holds in `scope`.
    #[must_use]
    pub fn matches(&self, scope: &dyn Scope) -> bool {
        self.evaluate(scope).is_true()
    }

    /// The data calls in the expression, each as often as it occurs.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.root.operands().into_iter().filter_map(|operand| match operand {
            Operand::Call { call, .. } => Some(call),
            Operand::Path(_) => None,
        })
    }

    /// The paths in the expression, each as often as it occurs.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.root.operands().into_iter().filter_map(|operand| match operand {
            Operand::Path(path) => Some(path),
            Operand::Call { .. } => None,
        })
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Expression {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}
