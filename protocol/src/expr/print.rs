//! The canonical text: texts in double quotes, single spaces, parentheses only where they are needed.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::expr::ast::{Call, Comparison, Node, Operand, Path, Segment, is_plain_name};
use crate::expr::value::{Decimal, Literal};

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => write!(f, "{value}"),
            Self::And(parts) => join(f, parts, " and ", |f, part| match part {
                Self::Or(_) | Self::And(_) => write!(f, "({part})"),
                _ => part.fmt(f),
            }),
            Self::Or(parts) => join(f, parts, " or ", |f, part| match part {
                Self::Or(_) => write!(f, "({part})"),
                _ => part.fmt(f),
            }),
            Self::Not(part) => match part.as_ref() {
                Self::And(_) | Self::Or(_) => write!(f, "not ({part})"),
                _ => write!(f, "not {part}"),
            },
            Self::Has(operand) => write!(f, "has({operand})"),
            Self::Compare { operand, comparison } => write!(f, "{operand} {comparison}"),
        }
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.operator())?;
        match self {
            Self::Equal(literal)
            | Self::NotEqual(literal)
            | Self::Less(literal)
            | Self::LessOrEqual(literal)
            | Self::Greater(literal)
            | Self::GreaterOrEqual(literal) => literal.fmt(f),
            Self::Matches(pattern) | Self::NotMatches(pattern) => quote(f, pattern.as_str()),
            Self::Like(glob) | Self::NotLike(glob) => quote(f, glob.as_str()),
            Self::In(literals) | Self::NotIn(literals) => {
                f.write_char('[')?;
                join(f, literals, ", ", |f, literal| literal.fmt(f))?;
                f.write_char(']')
            }
        }
    }
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Call { call, fields } => {
                call.fmt(f)?;
                write_segments(f, fields)
            }
        }
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.root())?;
        write_segments(f, self.segments().get(1..).unwrap_or_default())
    }
}

fn write_segments(f: &mut Formatter<'_>, segments: &[Segment]) -> fmt::Result {
    for segment in segments {
        match segment {
            Segment::Name(name) if is_plain_name(name) => write!(f, ".{name}")?,
            Segment::Name(name) => {
                f.write_char('.')?;
                quote(f, name)?;
            }
            Segment::Index(index) => write!(f, "[{index}]")?,
        }
    }
    Ok(())
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function())?;
        join(f, self.arguments(), ", ", |f, argument| argument.fmt(f))?;
        f.write_char(')')
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => quote(f, text),
        }
    }
}

impl Display for Decimal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn join<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    separator: &str,
    write: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        write(f, item)?;
    }
    Ok(())
}

/// Writes a text in double quotes. What a reader could not see (control characters, characters that
/// turn the direction of writing) is escaped, so that a policy shows what it says.
fn quote(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            _ if is_invisible(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            _ => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
