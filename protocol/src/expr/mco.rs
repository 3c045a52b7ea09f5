//! MCollective's filters (`-F`, `-C`, `-A`, `-I`, `-S`) as expressions.
//!
//! As there, several filters all have to hold, except identities, of which a host has only one. What
//! differs is on purpose: case counts, and a host without the fact matches nothing, `!=` included.

use crate::code::Code;
use crate::expr::Expression;
use crate::expr::ast::{Call, Comparison, Node, Operand, Path, Segment, continues_name, starts_name};
use crate::expr::cursor::Cursor;
use crate::expr::error::{ParseError, excerpt};
use crate::expr::pattern::Pattern;
use crate::expr::value::Literal;
use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX};

/// Filters as they were given on the command line, without their letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct McoFilters {
    /// `-F`: `os=Debian`, `uptime>=3`, `name=~/re/`, `name=/re/`.
    pub facts: Vec<String>,
    /// `-C`: a class or `/re/`.
    pub classes: Vec<String>,
    /// `-A`: an agent, which is a plugin here.
    pub agents: Vec<String>,
    /// `-I`: a host name or `/re/`. Any of them.
    pub identities: Vec<String>,
    /// `-S`: `(env=prod and /web/) or not package("x").version=1`.
    pub compound: Vec<String>,
}

/// Which filter cannot be translated, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("translate the MCollective filter {option} `{given}`")]
pub struct McoError {
    /// `-F`, `-C`, `-A`, `-I`, `-S`, or all of them as `filters`.
    pub option: &'static str,
    /// The filter as it was given.
    pub given: String,
    /// What is wrong; the column counts in `given`.
    #[source]
    pub error: ParseError,
}

impl McoError {
    /// The code with which a command line refuses it.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        self.error.code()
    }

    /// Never: the same filter stays wrong.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// One expression for all filters; `true` if there are none.
///
/// # Errors
/// Names the filter and the place in it.
pub fn translate(filters: &McoFilters) -> Result<Expression, McoError> {
    let mut parts = Vec::new();
    collect(&mut parts, "-F", &filters.facts, fact)?;
    collect(&mut parts, "-C", &filters.classes, |cursor| word_or_pattern(cursor, "class"))?;
    collect(&mut parts, "-A", &filters.agents, |cursor| word_or_pattern(cursor, "plugin"))?;
    let mut identities = Vec::new();
    collect(&mut identities, "-I", &filters.identities, |cursor| word_or_pattern(cursor, "name"))?;
    if !identities.is_empty() {
        parts.push(Node::or(identities));
    }
    collect(&mut parts, "-S", &filters.compound, compound)?;

    let all = Node::and(parts);
    let text = all.to_string();
    Expression::from_node(all).map_err(|error| McoError { option: "filters", given: text, error })
}

fn collect(
    parts: &mut Vec<Node>,
    option: &'static str,
    filters: &[String],
    translate_one: impl Fn(&mut Cursor<'_>) -> Result<Node, ParseError>,
) -> Result<(), McoError> {
    for given in filters {
        let wrong = |error| McoError { option, given: given.clone(), error };
        let mut cursor = Cursor::new(given);
        if given.len() > EXPRESSION_BYTES_MAX {
            let why = format!("the filter has {} bytes; at most {EXPRESSION_BYTES_MAX} are allowed", given.len());
            return Err(wrong(cursor.error(0, 0, why)));
        }
        cursor.skip_space();
        let node = translate_one(&mut cursor).map_err(wrong)?;
        cursor.skip_space();
        if !cursor.is_at_end() {
            return Err(wrong(cursor.error_here("expected the end of the filter")));
        }
        parts.push(node);
    }
    Ok(())
}

/// `NAME OPERATOR VALUE`, where the value goes on to the end of the filter.
fn fact(cursor: &mut Cursor<'_>) -> Result<Node, ParseError> {
    let path = fact_path(cursor)?;
    cursor.skip_space();
    comparison(cursor, |_| true).map(|comparison| Node::compare(path, comparison))
}

/// The dotted name of a fact; digits alone are a place in a list.
fn fact_path(cursor: &mut Cursor<'_>) -> Result<Path, ParseError> {
    let start = cursor.at();
    let name = cursor.take_while(|c| !c.is_whitespace() && !"=<>!~()".contains(c));
    if name.is_empty() {
        return Err(cursor.error_here("expected the name of a fact").suggest("as in `os=Debian`"));
    }
    path_from_dotted(name).map_err(|why| cursor.error(start, cursor.at(), why))
}

fn path_from_dotted(name: &str) -> Result<Path, String> {
    segments_from_dotted(name).and_then(|segments| Path::fact(segments).map_err(|error| error.to_string()))
}

fn segments_from_dotted(name: &str) -> Result<Vec<Segment>, String> {
    let segment = |(place, part): (usize, &str)| match part.parse() {
        _ if part.is_empty() => Err(format!("`{}` has an empty part", excerpt(name))),
        Ok(index) if place > 0 && !part.starts_with('+') => Ok(Segment::Index(index)),
        _ => Ok(Segment::Name(part.to_owned())),
    };
    name.split('.').enumerate().map(segment).collect()
}

/// Operator and value. A value that is not quoted and no `/re/` goes on while its characters `belong`.
fn comparison(cursor: &mut Cursor<'_>, belongs: impl Fn(char) -> bool) -> Result<Comparison, ParseError> {
    let start = cursor.at();
    let operator = cursor.take_while(|c| "=<>!~".contains(c));
    let operator_end = cursor.at();
    cursor.skip_space();
    let value_start = cursor.at();
    let is_pattern = matches!(operator, "=~" | "~" | "!~");
    let (value, slashed) = match cursor.peek() {
        Some('/') if is_pattern || matches!(operator, "=" | "==" | "!=") => read_pattern(cursor, &belongs)?,
        Some('"') => (cursor.quoted()?, false),
        Some('\'') => (cursor.raw()?, false),
        _ => (cursor.take_while(&belongs).trim_end().to_owned(), false),
    };
    let value_end = cursor.at();
    if value_end == value_start && !operator.is_empty() {
        return Err(cursor.error_here(format!("expected a value after `{}`", excerpt(operator))));
    }
    let pattern =
        |value: String| Pattern::new(value).map_err(|why| cursor.error(value_start, value_end, why.to_string()));
    let ordered = |value: String| match Literal::from_word(&value) {
        Literal::Boolean(_) => Literal::Text(value),
        literal => literal,
    };
    Ok(match operator {
        "=" | "==" if slashed => Comparison::Matches(pattern(value)?),
        "!=" if slashed => Comparison::NotMatches(pattern(value)?),
        "=~" | "~" => Comparison::Matches(pattern(value)?),
        "!~" => Comparison::NotMatches(pattern(value)?),
        // Facts are texts in MCollective, and equal means the same text.
        "=" | "==" => Comparison::Equal(Literal::Text(value)),
        "!=" => Comparison::NotEqual(Literal::Text(value)),
        ">=" | "=>" => Comparison::GreaterOrEqual(ordered(value)),
        "<=" | "=<" => Comparison::LessOrEqual(ordered(value)),
        ">" => Comparison::Greater(ordered(value)),
        "<" => Comparison::Less(ordered(value)),
        "" => {
            return Err(cursor.error(start, start, "expected an operator after the name").suggest("as in `os=Debian`"));
        }
        _ => {
            return Err(cursor
                .error(start, operator_end, format!("`{}` is not an operator of MCollective", excerpt(operator)))
                .suggest("there are =, ==, !=, >=, <=, >, < and =~"));
        }
    })
}

/// `/re/`, or a path such as `/var/lib` if there is more behind the second slash.
fn read_pattern(cursor: &mut Cursor<'_>, belongs: &impl Fn(char) -> bool) -> Result<(String, bool), ParseError> {
    let mut ahead = cursor.clone();
    if let Ok(pattern) = ahead.slashed() {
        let ends = ahead.peek().is_none_or(|c| c.is_whitespace() || !belongs(c));
        if ends {
            *cursor = ahead;
            return Ok((pattern, true));
        }
    }
    Ok((cursor.take_while(belongs).trim_end().to_owned(), false))
}

/// A name or `/re/`, all of what is left.
fn word_or_pattern(cursor: &mut Cursor<'_>, root: &'static str) -> Result<Node, ParseError> {
    let start = cursor.at();
    if cursor.peek() == Some('/') {
        let text = cursor.slashed()?;
        return class_pattern(cursor, start, text, root);
    }
    let word = cursor.take_while(|_| true).trim_end();
    if word.is_empty() {
        return Err(cursor.error_here("the filter is empty"));
    }
    Ok(Node::compare(Path::root_only(root), Comparison::Equal(Literal::text(word))))
}

fn class_pattern(cursor: &Cursor<'_>, start: usize, text: String, root: &'static str) -> Result<Node, ParseError> {
    let pattern = Pattern::new(text).map_err(|why| cursor.error(start, cursor.at(), why.to_string()))?;
    Ok(Node::compare(Path::root_only(root), Comparison::Matches(pattern)))
}

fn compound(cursor: &mut Cursor<'_>) -> Result<Node, ParseError> {
    either(cursor, 0)
}

fn either(cursor: &mut Cursor<'_>, depth: usize) -> Result<Node, ParseError> {
    let mut parts = vec![both(cursor, depth)?];
    while take_word(cursor, &["or", "||"]) {
        parts.push(both(cursor, depth)?);
    }
    Ok(Node::or(parts))
}

fn both(cursor: &mut Cursor<'_>, depth: usize) -> Result<Node, ParseError> {
    let mut parts = vec![statement(cursor, depth)?];
    while take_word(cursor, &["and", "&&"]) {
        parts.push(statement(cursor, depth)?);
    }
    Ok(Node::and(parts))
}

fn take_word(cursor: &mut Cursor<'_>, words: &[&str]) -> bool {
    cursor.skip_space();
    let found = cursor.peek_while(|c| !c.is_whitespace() && !"()".contains(c));
    let there = words.contains(&found);
    if there {
        cursor.skip(found.len());
    }
    there
}

fn statement(cursor: &mut Cursor<'_>, depth: usize) -> Result<Node, ParseError> {
    cursor.skip_space();
    let start = cursor.at();
    if depth >= EXPRESSION_DEPTH_MAX {
        return Err(cursor.error_here(format!("the filter nests deeper than {EXPRESSION_DEPTH_MAX} levels")));
    }
    if take_word(cursor, &["not", "!"]) || cursor.take('!') {
        return Ok(Node::negated(statement(cursor, depth + 1)?));
    }
    match cursor.peek() {
        Some('(') => {
            cursor.take('(');
            let node = either(cursor, depth + 1)?;
            cursor.skip_space();
            if cursor.take(')') {
                return Ok(node);
            }
            if cursor.is_at_end() {
                return Err(cursor.error(start, start + 1, "this `(` is never closed"));
            }
            Err(cursor.error_here("expected `and`, `or` or `)`"))
        }
        Some('/') => {
            let text = cursor.slashed()?;
            class_pattern(cursor, start, text, "class")
        }
        Some(c) if !"=<>~)".contains(c) => named_statement(cursor),
        _ => Err(cursor.error_here("expected a fact, a class, a data call or `(`")),
    }
}

/// `class`, `fact=value` or `data("query").field=value`.
fn named_statement(cursor: &mut Cursor<'_>) -> Result<Node, ParseError> {
    let start = cursor.at();
    let name = cursor.peek_while(|c| !c.is_whitespace() && !"=<>!~()".contains(c));
    if let "and" | "or" | "" = name {
        return Err(cursor.error(start, start + name.len(), "expected a fact, a class, a data call or `(`"));
    }
    let belongs = |c: char| !c.is_whitespace() && !"()".contains(c);
    let mut ahead = cursor.clone();
    ahead.skip(name.len());
    if ahead.peek() == Some('(') {
        *cursor = ahead;
        let operand = data_call(cursor, name, start)?;
        cursor.skip_space();
        return Ok(match (cursor.peek(), operand) {
            (Some('=' | '<' | '>' | '!' | '~'), operand) => Node::compare(operand, comparison(cursor, belongs)?),
            (_, operand @ Operand::Call { .. }) if is_whole_answer(&operand) => Node::Has(operand),
            (_, operand) => Node::compare(operand, Comparison::Equal(Literal::Boolean(true))),
        });
    }
    ahead.skip_space();
    if ahead.peek().is_some_and(|c| "=<>!~".contains(c)) {
        let path = fact_path(cursor)?;
        cursor.skip_space();
        return Ok(Node::compare(path, comparison(cursor, belongs)?));
    }
    cursor.skip(name.len());
    Ok(Node::compare(Path::root_only("class"), Comparison::Equal(Literal::text(name))))
}

fn is_whole_answer(operand: &Operand) -> bool {
    matches!(operand, Operand::Call { fields, .. } if fields.is_empty())
}

/// `("query", ...)` and `.field` behind the name of a data source.
fn data_call(cursor: &mut Cursor<'_>, function: &str, start: usize) -> Result<Operand, ParseError> {
    cursor.take('(');
    let mut arguments = Vec::new();
    loop {
        cursor.skip_space();
        if cursor.take(')') {
            break;
        }
        if !arguments.is_empty() && !cursor.take(',') {
            return Err(cursor.error_here(format!("expected `,` or `)` in the call of `{}`", excerpt(function))));
        }
        cursor.skip_space();
        arguments.push(match cursor.peek() {
            Some('"') => Literal::Text(cursor.quoted()?),
            Some('\'') => Literal::Text(cursor.raw()?),
            _ => {
                let word = cursor.take_while(|c| !c.is_whitespace() && !"(),'\"".contains(c));
                if word.is_empty() {
                    return Err(cursor.error_here(format!("expected a value in the call of `{}`", excerpt(function))));
                }
                Literal::from_word(word)
            }
        });
    }
    let call = Call::new(function, arguments).map_err(|error| cursor.error(start, cursor.at(), error.to_string()))?;
    let mut fields = Vec::new();
    while cursor.peek() == Some('.') {
        let place = cursor.at();
        cursor.take('.');
        let name = cursor.take_while(continues_name);
        if !name.starts_with(|c| starts_name(c) || c.is_ascii_digit()) {
            return Err(cursor.error(place, cursor.at(), "expected a name after the `.`"));
        }
        fields.push(Segment::Name(name.to_owned()));
    }
    Ok(Operand::Call { call, fields })
}
