//! Reading the source character by character: places, white space, quoted texts, words.

use crate::expr::error::ParseError;

/// A place in the source. Places are bytes here and characters in errors.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        Self { source, at: 0 }
    }

    /// The byte the cursor stands at.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// The text from byte `start` to here.
    pub(crate) fn since(&self, start: usize) -> &'a str {
        self.source.get(start..self.at).unwrap_or_default()
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// Takes the next character if it is `expected`.
    pub(crate) fn take(&mut self, expected: char) -> bool {
        let there = self.peek() == Some(expected);
        if there {
            self.at += expected.len_utf8();
        }
        there
    }

    /// Takes characters while they belong.
    pub(crate) fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let text = rest.split_at(rest.find(|c| !belongs(c)).unwrap_or(rest.len())).0;
        self.at += text.len();
        text
    }

    pub(crate) fn skip_space(&mut self) {
        self.take_while(char::is_whitespace);
    }

    /// The characters that belong, without taking them.
    pub(crate) fn peek_while(&self, belongs: impl Fn(char) -> bool) -> &'a str {
        self.clone().take_while(belongs)
    }

    /// Skips `bytes`, which must be the length of something just peeked at.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// An error over the bytes from `start` to `end`.
    pub(crate) fn error(&self, start: usize, end: usize, message: impl Into<String>) -> ParseError {
        let count = |from: usize, to: usize| self.source.get(from..to).map_or(0, |text| text.chars().count());
        ParseError {
            column: count(0, start) + 1,
            length: count(start, end).max(1),
            message: message.into(),
            suggestion: None,
        }
    }

    /// An error over the next character, or behind the last one that can be seen.
    pub(crate) fn error_here(&self, message: impl Into<String>) -> ParseError {
        if self.is_at_end() {
            let end = self.source.trim_end().len();
            return self.error(end, end, message);
        }
        self.error(self.at, self.at + self.peek().map_or(0, char::len_utf8), message)
    }

    /// Reads `"text with \n escapes"`; the cursor stands at the opening quote.
    pub(crate) fn quoted(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        self.take('"');
        let mut text = String::new();
        loop {
            let place = self.at;
            let Some(c) = self.peek() else {
                return Err(self.error(start, self.at, "the text is not closed").suggest("it needs a `\"` at its end"));
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escape(place)?),
                other => text.push(other),
            }
        }
    }

    fn escape(&mut self, start: usize) -> Result<char, ParseError> {
        let Some(c) = self.peek() else {
            return Err(self.error(start, self.at, "the text is not closed").suggest("it needs a `\"` at its end"));
        };
        self.at += c.len_utf8();
        match c {
            '"' | '\'' | '\\' | '/' => Ok(c),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'u' => {
                let digits = if self.take('{') { self.take_while(|c| c.is_ascii_hexdigit()) } else { "" };
                let closed = self.take('}');
                u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).filter(|_| closed).ok_or_else(|| {
                    self.error(start, self.at, "this is not a character").suggest("write `\\u{` hexadecimal digits `}`")
                })
            }
            _ => Err(self
                .error(start, self.at, format!("`\\{}` is not an escape", c.escape_default()))
                .suggest("a backslash is written `\\\\`, or put the text into single quotes")),
        }
    }

    /// Reads `'text without escapes'`; the cursor stands at the opening quote.
    pub(crate) fn raw(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        self.take('\'');
        let text = self.take_while(|c| c != '\'');
        if self.take('\'') {
            return Ok(text.to_owned());
        }
        Err(self.error(start, self.at, "the text is not closed").suggest("it needs a `'` at its end"))
    }

    /// Reads `/regular expression/`, in which `\/` stands for `/`; the cursor stands at the opening slash.
    pub(crate) fn slashed(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        self.take('/');
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '/' => return Ok(text),
                '\\' if self.take('/') => text.push('/'),
                '\\' => {
                    text.push('\\');
                    if let Some(escaped) = self.peek() {
                        self.at += escaped.len_utf8();
                        text.push(escaped);
                    }
                }
                other => text.push(other),
            }
        }
        Err(self.error(start, self.at, "the regular expression is not closed").suggest("it needs a `/` at its end"))
    }
}

impl ParseError {
    /// The same error with something to try.
    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same error proposing a word, if there is one.
    pub(crate) fn suggest_word(self, word: Option<&str>) -> Self {
        match word {
            Some(word) => self.suggest(format!("did you mean `{word}`?")),
            None => self,
        }
    }
}
