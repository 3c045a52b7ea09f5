//! The parser: recursive descent over a [`Cursor`], with the place of everything it reads.
//!
//! ```text
//! expression  = conjunction { "or" conjunction }
//! conjunction = condition { "and" condition }
//! condition   = "not" condition | "(" expression ")" | "true" | "false" | "has" "(" operand ")" | comparison
//! comparison  = operand ( ( "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" ) literal
//!             | ( "~" | "!~" ) ( literal | "/" regular expression "/" )
//!             | [ "not" ] "like" literal | [ "not" ] "in" "[" literal { "," literal } "]" )
//! operand     = name { segment } | name "(" [ literal { "," literal } ] ")" { segment }
//! segment     = "." name | "." quoted text | "[" digits "]"
//! literal     = quoted text | 'raw text' | number | "true" | "false" | bare word
//! ```
//!
//! Written by hand rather than with a parser library: most of it is about saying well what is wrong,
//! and the stack is bounded by counting `not` and `(`, the only two places that recurse.

use crate::expr::ast::{Call, Comparison, KEYWORDS, Node, Operand, Path, Segment, continues_name, starts_name};
use crate::expr::cursor::Cursor;
use crate::expr::error::{ParseError, excerpt};
use crate::expr::explain;
use crate::expr::pattern::{Glob, Pattern};
use crate::expr::value::{Decimal, Literal};
use crate::limits::{
    EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX, EXPRESSION_PATTERNS_MAX, PATH_SEGMENTS_MAX,
};

pub(crate) fn parse(source: &str) -> Result<Node, ParseError> {
    let mut parser = Parser { cursor: Cursor::new(source), depth: 0, nodes: 0, patterns: 0 };
    if source.len() > EXPRESSION_BYTES_MAX {
        let why = format!("the expression has {} bytes; at most {EXPRESSION_BYTES_MAX} are allowed", source.len());
        return Err(parser.cursor.error(0, 0, why));
    }
    parser.cursor.skip_space();
    if parser.cursor.is_at_end() {
        return Err(parser.cursor.error(0, 0, "the expression is empty"));
    }
    let node = parser.expression()?;
    parser.end()?;
    Ok(node)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    depth: usize,
    nodes: usize,
    patterns: usize,
}

pub(crate) fn is_symbol(c: char) -> bool {
    "=!<>~&|^".contains(c)
}

/// What may stand in a word without quotes.
pub(crate) fn in_bare_word(c: char) -> bool {
    c.is_alphanumeric() || "_-./:@+%*?".contains(c)
}

fn starts_bare_word(c: char) -> bool {
    c.is_alphanumeric() || "_-/:@%*?".contains(c)
}

impl<'a> Parser<'a> {
    fn expression(&mut self) -> Result<Node, ParseError> {
        let mut parts = vec![self.conjunction()?];
        while self.take_keyword("or") {
            parts.push(self.conjunction()?);
        }
        Ok(Node::or(parts))
    }

    fn conjunction(&mut self) -> Result<Node, ParseError> {
        let mut parts = vec![self.condition()?];
        while self.take_keyword("and") {
            parts.push(self.condition()?);
        }
        Ok(Node::and(parts))
    }

    fn condition(&mut self) -> Result<Node, ParseError> {
        let mut negations = 0;
        loop {
            self.cursor.skip_space();
            let start = self.cursor.at();
            if !self.take_keyword("not") {
                break;
            }
            negations += 1;
            self.deeper(start)?;
            self.count(start)?;
        }
        let mut node = self.positive()?;
        for _ in 0..negations {
            node = Node::negated(node);
        }
        self.depth -= negations;
        Ok(node)
    }

    fn positive(&mut self) -> Result<Node, ParseError> {
        let start = self.cursor.at();
        self.count(start)?;
        match self.cursor.peek() {
            Some('(') => {
                self.deeper(start)?;
                self.cursor.take('(');
                let node = self.expression()?;
                if !self.cursor.take(')') {
                    return Err(if self.cursor.is_at_end() {
                        self.cursor.error(start, start + 1, "this `(` is never closed")
                    } else {
                        explain::unexpected_after_condition(&self.cursor)
                    });
                }
                self.depth -= 1;
                Ok(node)
            }
            Some(c) if starts_name(c) => self.named_condition(),
            _ => Err(explain::no_condition(&self.cursor)),
        }
    }

    fn named_condition(&mut self) -> Result<Node, ParseError> {
        let start = self.cursor.at();
        match self.cursor.peek_while(continues_name) {
            word @ ("true" | "false") => {
                self.cursor.skip(word.len());
                return Ok(Node::Constant(word == "true"));
            }
            "has" => {
                self.cursor.skip("has".len());
                return self.presence();
            }
            word @ ("and" | "or" | "in" | "like") => {
                let why = format!("expected a condition before `{word}`");
                return Err(self.cursor.error(start, start + word.len(), why));
            }
            _ => {}
        }
        let operand = self.operand()?;
        let operand_end = self.cursor.at();
        self.comparison(start, operand_end).map(|comparison| Node::Compare { operand, comparison })
    }

    /// `(operand)` behind `has`.
    fn presence(&mut self) -> Result<Node, ParseError> {
        self.cursor.skip_space();
        if !self.cursor.take('(') {
            return Err(self.cursor.error_here("expected `(` after `has`").suggest("as in `has(os.family)`"));
        }
        self.cursor.skip_space();
        if !self.cursor.peek().is_some_and(starts_name) {
            return Err(self.cursor.error_here("expected the name of a fact inside `has()`"));
        }
        let operand = self.operand()?;
        self.cursor.skip_space();
        if !self.cursor.take(')') {
            let error = self.cursor.error_here("expected `)` after the name");
            return Err(match self.cursor.peek() {
                Some(c) if is_symbol(c) => error.suggest("`has` only asks whether there is a value"),
                _ => error,
            });
        }
        Ok(Node::Has(operand))
    }

    fn operand(&mut self) -> Result<Operand, ParseError> {
        let start = self.cursor.at();
        let root = self.cursor.take_while(continues_name);
        let end = self.cursor.at();
        if KEYWORDS.contains(&root) {
            let why = format!("`{root}` is a word of the language");
            return Err(self.cursor.error(start, end, why).suggest(format!("a fact of this name is `fact.{root}`")));
        }
        let space = self.cursor.peek_while(char::is_whitespace).len();
        if self.cursor.rest().get(space..).is_some_and(|rest| rest.starts_with('(')) {
            self.cursor.skip(space);
            let call = self.call(root, start)?;
            let fields = self.segments(start, Vec::new())?;
            return Ok(Operand::Call { call, fields });
        }
        let segments = self.segments(start, vec![Segment::Name(root.to_owned())])?;
        let end = self.cursor.at();
        Path::new(segments).map(Operand::Path).map_err(|error| self.cursor.error(start, end, error.to_string()))
    }

    fn call(&mut self, function: &str, start: usize) -> Result<Call, ParseError> {
        self.cursor.take('(');
        self.cursor.skip_space();
        let mut arguments = Vec::new();
        while !self.cursor.take(')') {
            if !arguments.is_empty() {
                if !self.cursor.take(',') {
                    return Err(self
                        .cursor
                        .error_here(format!("expected `,` or `)` in the call of `{}`", excerpt(function))));
                }
                self.cursor.skip_space();
            }
            let place = self.cursor.at();
            arguments.push(self.literal("(")?);
            self.count(place)?;
            self.cursor.skip_space();
        }
        let end = self.cursor.at();
        Call::new(function, arguments).map_err(|error| self.cursor.error(start, end, error.to_string()))
    }

    fn segments(&mut self, start: usize, mut segments: Vec<Segment>) -> Result<Vec<Segment>, ParseError> {
        loop {
            let place = self.cursor.at();
            if self.cursor.take('.') {
                segments.push(self.field()?);
            } else if self.cursor.take('[') {
                let digits = self.cursor.take_while(|c| c.is_ascii_digit());
                let index = digits.parse().ok().filter(|_| self.cursor.take(']'));
                segments.push(Segment::Index(index.ok_or_else(|| {
                    let end = self.cursor.at();
                    self.cursor.error(place, end, "expected the place in a list here").suggest("as in `disks[0]`")
                })?));
            } else {
                return Ok(segments);
            }
            if segments.len() > PATH_SEGMENTS_MAX {
                let why = format!("the path has more than {PATH_SEGMENTS_MAX} segments");
                return Err(self.cursor.error(start, self.cursor.at(), why));
            }
        }
    }

    fn field(&mut self) -> Result<Segment, ParseError> {
        match self.cursor.peek() {
            Some('"') => self.cursor.quoted().map(Segment::Name),
            Some('\'') => self.cursor.raw().map(Segment::Name),
            Some(c) if starts_name(c) => Ok(Segment::Name(self.cursor.take_while(continues_name).to_owned())),
            other => {
                let error = self.cursor.error_here("expected a name after the `.`");
                Err(match other {
                    Some(c) if c.is_ascii_digit() => {
                        error.suggest("a place in a list is written `[0]`, a name with a digit in front `.\"0\"`")
                    }
                    Some(c) if !c.is_whitespace() => error.suggest("an unusual name is written in quotes"),
                    _ => error,
                })
            }
        }
    }

    fn comparison(&mut self, start: usize, operand_end: usize) -> Result<Comparison, ParseError> {
        self.cursor.skip_space();
        let place = self.cursor.at();
        let written = match self.cursor.peek() {
            Some(c) if is_symbol(c) => self.cursor.take_while(is_symbol),
            Some(c) if starts_name(c) => self.operator_word(),
            _ => "",
        };
        let operator = if written == "==" { "=" } else { written };
        match operator {
            "=" => self.exact("=").map(Comparison::Equal),
            "!=" => self.exact("!=").map(Comparison::NotEqual),
            "<" => self.ordered("<").map(Comparison::Less),
            "<=" => self.ordered("<=").map(Comparison::LessOrEqual),
            ">" => self.ordered(">").map(Comparison::Greater),
            ">=" => self.ordered(">=").map(Comparison::GreaterOrEqual),
            "~" => self.pattern("~").map(Comparison::Matches),
            "!~" => self.pattern("!~").map(Comparison::NotMatches),
            "like" => self.glob("like").map(Comparison::Like),
            "not like" => self.glob("not like").map(Comparison::NotLike),
            "in" => self.list("in").map(Comparison::In),
            "not in" => self.list("not in").map(Comparison::NotIn),
            _ => Err(explain::no_operator(&self.cursor, start..operand_end, place, written)),
        }
    }

    /// Takes a word in the operator's place; `not` together with the `in` or `like` behind it.
    fn operator_word(&mut self) -> &'a str {
        let word = self.cursor.peek_while(continues_name);
        if word == "not" {
            let mut ahead = self.cursor.clone();
            ahead.skip(word.len());
            ahead.skip_space();
            let second = ahead.take_while(continues_name);
            if let "in" | "like" = second {
                self.cursor = ahead;
                return if second == "in" { "not in" } else { "not like" };
            }
        }
        if matches!(word, "and" | "or" | "not") {
            return "";
        }
        self.cursor.skip(word.len());
        word
    }

    fn exact(&mut self, operator: &str) -> Result<Literal, ParseError> {
        self.cursor.skip_space();
        let start = self.cursor.at();
        let bare = !matches!(self.cursor.peek(), Some('"' | '\''));
        let literal = self.literal(operator)?;
        self.no_glob(start, bare, operator, &literal)?;
        Ok(literal)
    }

    /// `name = web-*` is meant as a pattern, and would never hold as a text.
    fn no_glob(&self, start: usize, bare: bool, operator: &str, literal: &Literal) -> Result<(), ParseError> {
        match literal {
            Literal::Text(text) if bare && text.contains(['*', '?']) => Err(self
                .cursor
                .error(start, self.cursor.at(), format!("`{operator}` compares exactly, it knows no patterns"))
                .suggest(match operator {
                    "!=" | "not in" => format!("did you mean `not like {}`?", excerpt(text)),
                    _ => format!("did you mean `like {}`?", excerpt(text)),
                })),
            _ => Ok(()),
        }
    }

    fn ordered(&mut self, operator: &str) -> Result<Literal, ParseError> {
        self.cursor.skip_space();
        let start = self.cursor.at();
        match self.exact(operator)? {
            Literal::Boolean(_) => {
                let why = format!("`{operator}` needs a number, a version or a text; true and false have no order");
                Err(self.cursor.error(start, self.cursor.at(), why))
            }
            literal => Ok(literal),
        }
    }

    fn pattern(&mut self, operator: &str) -> Result<Pattern, ParseError> {
        self.cursor.skip_space();
        let start = self.cursor.at();
        let text = if self.cursor.peek() == Some('/') { self.cursor.slashed()? } else { self.text(operator)? };
        self.count_pattern(start)?;
        Pattern::new(text).map_err(|error| self.cursor.error(start, self.cursor.at(), error.to_string()))
    }

    fn glob(&mut self, operator: &str) -> Result<Glob, ParseError> {
        self.cursor.skip_space();
        let start = self.cursor.at();
        let text = self.text(operator)?;
        self.count_pattern(start)?;
        Ok(Glob::new(text))
    }

    /// A literal taken as a text, whatever it looks like.
    fn text(&mut self, operator: &str) -> Result<String, ParseError> {
        Ok(match self.literal(operator)? {
            Literal::Text(text) => text,
            Literal::Number(number) => number.to_string(),
            Literal::Boolean(value) => value.to_string(),
        })
    }

    fn list(&mut self, operator: &str) -> Result<Vec<Literal>, ParseError> {
        self.cursor.skip_space();
        let opening = self.cursor.at();
        if !self.cursor.take('[') {
            let why = format!("expected a list after `{operator}`");
            return Err(self.cursor.error_here(why).suggest("as in `dc in [ams1, fra2]`"));
        }
        let mut literals = Vec::new();
        loop {
            self.cursor.skip_space();
            let start = self.cursor.at();
            let bare = !matches!(self.cursor.peek(), Some('"' | '\''));
            if literals.is_empty() && self.cursor.peek() == Some(']') {
                return Err(self.cursor.error(opening, start + 1, "the list is empty"));
            }
            let literal = self.literal("[")?;
            self.no_glob(start, bare, operator, &literal)?;
            self.count(start)?;
            literals.push(literal);
            self.cursor.skip_space();
            if self.cursor.take(']') {
                return Ok(literals);
            }
            if !self.cursor.take(',') {
                return Err(if self.cursor.is_at_end() {
                    self.cursor.error(opening, opening + 1, "this `[` is never closed")
                } else {
                    self.cursor.error_here("expected `,` or `]` in the list")
                });
            }
        }
    }

    /// Reads a literal behind `after`.
    fn literal(&mut self, after: &str) -> Result<Literal, ParseError> {
        self.cursor.skip_space();
        let start = self.cursor.at();
        match self.cursor.peek() {
            Some('"') => return self.cursor.quoted().map(Literal::Text),
            Some('\'') => return self.cursor.raw().map(Literal::Text),
            Some(c) if starts_bare_word(c) => {}
            _ => return Err(explain::no_literal(&self.cursor, after)),
        }
        let word = self.cursor.take_while(in_bare_word);
        let wrong = |why: String| self.cursor.error(start, self.cursor.at(), why);
        if KEYWORDS.contains(&word) && word != "true" && word != "false" {
            return Err(wrong(format!("expected a value after `{after}`, but `{word}` is a word of the language"))
                .suggest(format!("as a value it is written `\"{word}\"`")));
        }
        let looks_like_number = word.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit())
            && Decimal::parse(word).is_none()
            && word.parse::<f64>().is_ok();
        if looks_like_number {
            return Err(wrong(format!("`{}` is not how a number is written", excerpt(word)))
                .suggest("write digits, with a point and digits for a fraction, or put it into quotes"));
        }
        Ok(Literal::from_word(word))
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        self.cursor.skip_space();
        let there = self.cursor.peek_while(continues_name) == keyword;
        if there {
            self.cursor.skip(keyword.len());
        }
        there
    }

    fn end(&mut self) -> Result<(), ParseError> {
        self.cursor.skip_space();
        if self.cursor.is_at_end() { Ok(()) } else { Err(explain::unexpected_after_condition(&self.cursor)) }
    }

    fn deeper(&mut self, start: usize) -> Result<(), ParseError> {
        self.depth += 1;
        if self.depth > EXPRESSION_DEPTH_MAX {
            let why = format!("the expression nests deeper than {EXPRESSION_DEPTH_MAX} levels");
            return Err(self.cursor.error(start, start + 1, why));
        }
        Ok(())
    }

    fn count(&mut self, start: usize) -> Result<(), ParseError> {
        self.nodes += 1;
        if self.nodes > EXPRESSION_NODES_MAX {
            let why = format!("the expression has more than {EXPRESSION_NODES_MAX} parts");
            return Err(self.cursor.error(start, start + 1, why));
        }
        Ok(())
    }

    fn count_pattern(&mut self, start: usize) -> Result<(), ParseError> {
        self.patterns += 1;
        if self.patterns > EXPRESSION_PATTERNS_MAX {
            let why = format!("the expression has more than {EXPRESSION_PATTERNS_MAX} patterns");
            return Err(self.cursor.error(start, self.cursor.at(), why));
        }
        Ok(())
    }
}
