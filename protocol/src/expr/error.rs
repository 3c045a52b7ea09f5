//! What is wrong with the text of an expression, and where.

use std::fmt;

use crate::code::{self, Code};
use crate::expr::print::is_invisible;

/// Characters of the source shown in front of and behind the error.
const RENDER_CONTEXT: usize = 60;

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Where it begins: characters from the start of the source, from 1.
    pub column: usize,
    /// How many characters are wrong. At least 1; at the end of the source the place behind it.
    pub length: usize,
    /// What is wrong and what was expected: a lower-case fragment.
    pub message: String,
    /// What to write instead, such as ``did you mean `and`?``.
    pub suggestion: Option<String>,
}

impl ParseError {
    /// The code with which a host refuses such a target.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        &code::BAD_TARGET
    }

    /// Never: the same text stays wrong.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }

    /// The line of `source` that has the error, marked with carets, and the message behind them. Long
    /// lines are cut around the error; invisible characters become `?`.
    #[must_use]
    pub fn render(&self, source: &str) -> String {
        let characters: Vec<char> = source.chars().collect();
        let at = self.column.saturating_sub(1).min(characters.len());
        let is_break = |c: &char| *c == '\n' || *c == '\r';
        let line_start = characters[..at].iter().rposition(is_break).map_or(0, |place| place + 1);
        let line_end = characters[at..].iter().position(is_break).map_or(characters.len(), |place| at + place);

        let start = line_start.max(at.saturating_sub(RENDER_CONTEXT));
        let end = line_end.min(at.saturating_add(RENDER_CONTEXT));
        let (before, after) = (if start > line_start { "..." } else { "" }, if end < line_end { "..." } else { "" });
        let shown: String = characters[start..end].iter().map(|c| visible(*c)).collect();
        let carets = self.length.min((end - at).max(1));
        format!(
            "{before}{shown}{after}\n{}{} {}",
            " ".repeat(before.len() + at - start),
            "^".repeat(carets),
            self.text()
        )
    }

    fn text(&self) -> String {
        match &self.suggestion {
            Some(suggestion) => format!("{}; {suggestion}", self.message),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.text())
    }
}

impl std::error::Error for ParseError {}

/// A piece of the source as messages quote it: on one line, visible, and not longer than fits there.
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown: String = text.chars().take(RENDER_CONTEXT).map(visible).collect();
    if text.chars().nth(RENDER_CONTEXT).is_some() {
        shown.push_str("...");
    }
    shown
}

fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_invisible(c) => '?',
        c => c,
    }
}
