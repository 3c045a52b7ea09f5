//! The tree of an expression. Every value of these types prints as text that parses to the same value.

use crate::expr::pattern::{Glob, Pattern};
use crate::expr::value::Literal;
use crate::limits::PATH_SEGMENTS_MAX;

/// Words that mean something to the grammar, so no path begins with one of them.
pub const KEYWORDS: &[&str] = &["and", "or", "not", "in", "like", "has", "true", "false"];

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// `true` or `false`: every host, no host.
    Constant(bool),
    /// All of them. Has at least two parts, none of which is an `And`.
    And(Vec<Node>),
    /// One of them at least. Has at least two parts, none of which is an `Or`.
    Or(Vec<Node>),
    /// The opposite; the opposite of unknown is unknown.
    Not(Box<Node>),
    /// `has(operand)`: there is such a value.
    Has(Operand),
    /// A comparison of something the host knows with something the author wrote.
    Compare {
        /// The left side.
        operand: Operand,
        /// Operator and right side.
        comparison: Comparison,
    },
}

impl Node {
    /// All of `parts`, flattened; `true` for none, the part itself for one.
    #[must_use]
    pub fn and(parts: impl IntoIterator<Item = Node>) -> Self {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Self::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() > 1 { Self::And(flat) } else { flat.pop().unwrap_or(Self::Constant(true)) }
    }

    /// One of `parts`, flattened; `false` for none, the part itself for one.
    #[must_use]
    pub fn or(parts: impl IntoIterator<Item = Node>) -> Self {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Self::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() > 1 { Self::Or(flat) } else { flat.pop().unwrap_or(Self::Constant(false)) }
    }

    /// The opposite of `part`.
    #[must_use]
    pub fn negated(part: Node) -> Self {
        Self::Not(Box::new(part))
    }

    /// `operand` compared.
    #[must_use]
    pub fn compare(operand: impl Into<Operand>, comparison: Comparison) -> Self {
        Self::Compare { operand: operand.into(), comparison }
    }

    /// The operands in this tree, from left to right.
    pub(crate) fn operands(&self) -> Vec<&Operand> {
        let mut found = Vec::new();
        let mut open = vec![self];
        while let Some(node) = open.pop() {
            match node {
                Self::Constant(_) => {}
                Self::And(parts) | Self::Or(parts) => open.extend(parts.iter().rev()),
                Self::Not(part) => open.push(part),
                Self::Has(operand) | Self::Compare { operand, .. } => found.push(operand),
            }
        }
        found
    }
}

/// An operator with its right side. The negated operators are exactly the negation of the plain ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// `= literal`
    Equal(Literal),
    /// `!= literal`
    NotEqual(Literal),
    /// `< literal`; the literal is not a boolean, here and in the next three.
    Less(Literal),
    /// `<= literal`
    LessOrEqual(Literal),
    /// `> literal`
    Greater(Literal),
    /// `>= literal`
    GreaterOrEqual(Literal),
    /// `~ "regular expression"`: it is found somewhere in the text.
    Matches(Pattern),
    /// `!~ "regular expression"`
    NotMatches(Pattern),
    /// `like "web-*"`: the whole text fits.
    Like(Glob),
    /// `not like "web-*"`
    NotLike(Glob),
    /// `in [literal, ...]`: equal to one of them. At least one literal.
    In(Vec<Literal>),
    /// `not in [literal, ...]`
    NotIn(Vec<Literal>),
}

impl Comparison {
    /// The operator as it is written.
    #[must_use]
    pub fn operator(&self) -> &'static str {
        match self {
            Self::Equal(_) => "=",
            Self::NotEqual(_) => "!=",
            Self::Less(_) => "<",
            Self::LessOrEqual(_) => "<=",
            Self::Greater(_) => ">",
            Self::GreaterOrEqual(_) => ">=",
            Self::Matches(_) => "~",
            Self::NotMatches(_) => "!~",
            Self::Like(_) => "like",
            Self::NotLike(_) => "not like",
            Self::In(_) => "in",
            Self::NotIn(_) => "not in",
        }
    }
}

/// The left side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// A fact or another name of the scope.
    Path(Path),
    /// A data call, and where in its answer to look.
    Call {
        /// What is asked.
        call: Call,
        /// The way into the answer; empty for the answer itself.
        fields: Vec<Segment>,
    },
}

impl From<Path> for Operand {
    fn from(path: Path) -> Self {
        Self::Path(path)
    }
}

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// The field of this name. In a list: that field of each element.
    Name(String),
    /// The element at this place of a list, counted from 0.
    Index(u32),
}

/// Why segments are not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing, or an index in front.
    #[error("a path begins with a name")]
    NoRoot,
    /// The first segment would not parse as one.
    #[error("a path cannot begin with `{root}`; write it as fact.\"{root}\"")]
    Root {
        /// The segment.
        root: String,
    },
    /// `fact` without a name behind it.
    #[error("`fact.` needs the name of a fact behind it")]
    BareFact,
    /// More segments than allowed.
    #[error("a path has {count} segments; at most {PATH_SEGMENTS_MAX} are allowed")]
    TooLong {
        /// How many there are.
        count: usize,
    },
}

/// A dotted way into what the host knows: `os.release.major`, `disks[0].size`, `fact."odd name"`.
/// Begins with a plain name that is not a keyword.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Segment>);

impl Path {
    /// Checks the first segment and the length.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn new(segments: Vec<Segment>) -> Result<Self, PathError> {
        if segments.len() > PATH_SEGMENTS_MAX {
            return Err(PathError::TooLong { count: segments.len() });
        }
        match segments.as_slice() {
            [] | [Segment::Index(_), ..] => Err(PathError::NoRoot),
            [Segment::Name(root), ..] if !is_plain_name(root) || KEYWORDS.contains(&root.as_str()) => {
                Err(PathError::Root { root: root.clone() })
            }
            [Segment::Name(root)] | [Segment::Name(root), Segment::Index(_), ..] if root == "fact" => {
                Err(PathError::BareFact)
            }
            _ => Ok(Self(segments)),
        }
    }

    /// The path to the host fact with these segments, with `fact.` in front where its own name is
    /// reserved or odd.
    ///
    /// # Errors
    /// [`PathError::NoRoot`] or [`PathError::TooLong`].
    pub fn fact(segments: Vec<Segment>) -> Result<Self, PathError> {
        let plain = match segments.first() {
            Some(Segment::Name(root)) => !crate::expr::scope::RESERVED_ROOTS.contains(&root.as_str()),
            _ => return Err(PathError::NoRoot),
        };
        if plain && let Ok(path) = Self::new(segments.clone()) {
            return Ok(path);
        }
        Self::new(std::iter::once(Segment::Name("fact".to_owned())).chain(segments).collect())
    }

    /// The path of a single plain name that the program itself knows to be one.
    #[must_use]
    pub(crate) fn root_only(name: &'static str) -> Self {
        Self(vec![Segment::Name(name.to_owned())])
    }

    /// The first name.
    #[must_use]
    pub fn root(&self) -> &str {
        match self.0.first() {
            Some(Segment::Name(name)) => name,
            _ => "",
        }
    }

    /// All segments, the first included.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }
}

/// Whether a segment prints without quotes: a letter or `_`, then letters, digits, `_` and `-` (ASCII).
pub(crate) fn is_plain_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(starts_name) && characters.all(continues_name)
}

pub(crate) fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

pub(crate) fn continues_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// A question to a plugin's data source, such as `package("openssl")`. Its text form is canonical, so
/// it serves as a key for resolved answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    function: String,
    arguments: Vec<Literal>,
}

/// The name is not one a call can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{function}` is not the name of a data source")]
pub struct CallError {
    /// The name.
    pub function: String,
}

impl Call {
    /// Joins a data source and its arguments.
    ///
    /// # Errors
    /// When `function` is not a plain name or is a keyword.
    pub fn new(function: impl Into<String>, arguments: Vec<Literal>) -> Result<Self, CallError> {
        let function = function.into();
        if !is_plain_name(&function) || KEYWORDS.contains(&function.as_str()) {
            return Err(CallError { function });
        }
        Ok(Self { function, arguments })
    }

    /// The data source: the name of a plugin.
    #[must_use]
    pub fn function(&self) -> &str {
        &self.function
    }

    /// What it is asked about.
    #[must_use]
    pub fn arguments(&self) -> &[Literal] {
        &self.arguments
    }

    /// The call as text, always the same for the same call: `package("openssl")`.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.to_string()
    }
}
