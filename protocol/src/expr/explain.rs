//! What to say where the source goes on differently than the grammar allows: the wording of most errors.

use std::ops::Range;

use crate::expr::ast::is_plain_name;
use crate::expr::cursor::Cursor;
use crate::expr::error::{ParseError, excerpt};
use crate::expr::parse::{in_bare_word, is_symbol};
use crate::expr::suggest::did_you_mean;

/// Words people type for an operator, and what it is here.
const OTHER_OPERATORS: &[(&str, &str)] = &[
    ("=~", "~"),
    ("~=", "~"),
    ("~~", "~"),
    ("===", "="),
    ("=>", ">="),
    ("=<", "<="),
    ("<>", "!="),
    ("!==", "!="),
    ("=!", "!="),
    ("!=~", "!~"),
    ("eq", "="),
    ("is", "="),
    ("equals", "="),
    ("contains", "="),
    ("ne", "!="),
    ("lt", "<"),
    ("le", "<="),
    ("gt", ">"),
    ("ge", ">="),
    ("matches", "~"),
    ("match", "~"),
    ("glob", "like"),
];

const OPERATORS: &[&str] = &["=", "!=", "<", "<=", ">", ">=", "~", "!~", "like", "not like", "in", "not in"];

/// A value was expected behind `after`.
pub(crate) fn no_literal(cursor: &Cursor<'_>, after: &str) -> ParseError {
    let error = cursor.error_here(format!("expected a value after `{after}`"));
    match cursor.peek() {
        Some('[') => error.suggest("a list goes with `in`"),
        Some('(') => error.suggest("a list goes with `in` and is written `[a, b]`"),
        Some('.' | '+') => error.suggest("a number begins with a digit or `-`; anything else is put into quotes"),
        Some(')' | ']' | ',') | None => error,
        Some(_) => error.suggest("a value with this character is put into quotes"),
    }
}

/// A condition was expected here.
pub(crate) fn no_condition(cursor: &Cursor<'_>) -> ParseError {
    match cursor.peek() {
        None => cursor.error_here("expected a condition here"),
        Some('!') => cursor.error_here("expected a condition").suggest("did you mean `not`?"),
        Some('"' | '\'') => cursor
            .error_here("a condition begins with the name of a fact")
            .suggest("the value goes to the right; an unusual name is written `fact.\"name\"`"),
        Some(c) if c.is_ascii_digit() || c == '-' => {
            cursor.error_here("a condition begins with the name of a fact").suggest("the value goes to the right")
        }
        Some(c) => {
            let why = format!("expected a condition, not `{}`", c.escape_debug());
            cursor.error_here(why)
        }
    }
}

/// An operator was expected behind the operand at `operand`; `written` stands there, from byte `place`.
pub(crate) fn no_operator(cursor: &Cursor<'_>, operand: Range<usize>, place: usize, written: &str) -> ParseError {
    let Range { start, end: operand_end } = operand;
    let operand = excerpt(cursor.since(start).get(..operand_end - start).unwrap_or_default());
    let shown = excerpt(written);
    if written.is_empty() {
        let why = format!("`{operand}` alone is not a condition");
        return cursor
            .error(start, operand_end, why)
            .suggest(format!("compare it, as in `{operand} = true`, or ask `has({operand})`"));
    }
    if operand.eq_ignore_ascii_case("not") {
        return cursor
            .error(start, operand_end, format!("`{operand}` is not a word of the language"))
            .suggest_word(Some("not"));
    }
    let end = place + written.len();
    let known = OTHER_OPERATORS.iter().find(|(other, _)| other.eq_ignore_ascii_case(written)).map(|(_, ours)| *ours);
    let nearest = known.or_else(|| {
        let words = OPERATORS.iter().copied().filter(|operator| is_plain_name(operator));
        is_plain_name(written).then(|| did_you_mean(written, words)).flatten()
    });
    if is_plain_name(written) && nearest.is_none() {
        return cursor
            .error(place, end, format!("expected an operator after `{operand}`, not `{shown}`"))
            .suggest("such as `=`, `!=`, `<`, `~`, `like` or `in`");
    }
    cursor.error(place, end, format!("`{shown}` is not an operator")).suggest_word(nearest)
}

/// `and`, `or` or the end was expected behind a condition.
pub(crate) fn unexpected_after_condition(cursor: &Cursor<'_>) -> ParseError {
    let start = cursor.at();
    let symbols = cursor.peek_while(is_symbol);
    if !symbols.is_empty() {
        let error =
            cursor.error(start, start + symbols.len(), format!("expected `and` or `or`, not `{}`", excerpt(symbols)));
        return match symbols {
            "&" | "&&" => error.suggest_word(Some("and")),
            "|" | "||" => error.suggest_word(Some("or")),
            _ => error.suggest("a condition has one operator"),
        };
    }
    let word = cursor.peek_while(in_bare_word);
    if !word.is_empty() {
        let error = cursor.error(start, start + word.len(), format!("expected `and` or `or`, not `{}`", excerpt(word)));
        return match did_you_mean(word, ["and", "or"]) {
            Some(nearest) => error.suggest_word(Some(nearest)),
            None => error.suggest("a value with spaces is put into quotes"),
        };
    }
    match cursor.peek() {
        Some(')') => cursor.error_here("this `)` closes nothing"),
        Some(',') => cursor.error_here("expected `and` or `or`, not `,`").suggest_word(Some("and")),
        Some(c) => cursor.error_here(format!("expected `and` or `or`, not `{}`", c.escape_debug())),
        None => cursor.error_here("expected `and` or `or`"),
    }
}
