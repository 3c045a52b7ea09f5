//! Text with meaning instead of colours: what a piece *is* (good, bad, dim) is said here, how that
//! looks is decided by the printer.

use unicode_width::UnicodeWidthStr;

use super::escape::neutral;

/// What a piece of text is. Never the only carrier of a meaning: a word or a glyph always says the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Style {
    /// Ordinary text.
    #[default]
    Plain,
    /// Something went well.
    Good,
    /// Something went wrong.
    Bad,
    /// Something to look at.
    Warning,
    /// Less important.
    Dim,
    /// More important.
    Strong,
    /// A name, code or command to copy.
    Accent,
    /// Cannot be overlooked: the word PRODUCTION.
    Danger,
}

impl Style {
    /// The parameters of the terminal's "select graphic rendition" sequence (ECMA-48).
    fn parameters(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warning => "33",
            Self::Dim => "2",
            Self::Strong => "1",
            Self::Accent => "36",
            Self::Danger => "1;31",
        }
    }
}

/// One line of styled text. Whatever is put into it becomes harmless to a terminal at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Text {
    spans: Vec<(Style, String)>,
}

impl Text {
    /// An empty line.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A line of one style.
    pub(crate) fn styled(style: Style, text: impl AsRef<str>) -> Self {
        Self::new().push(style, text)
    }

    /// Appends a piece of one style.
    #[must_use]
    pub(crate) fn push(mut self, style: Style, text: impl AsRef<str>) -> Self {
        let text = neutral(text.as_ref());
        match self.spans.last_mut() {
            Some((last, piece)) if *last == style => piece.push_str(&text),
            _ if text.is_empty() => {}
            _ => self.spans.push((style, text.into_owned())),
        }
        self
    }

    /// Appends ordinary text.
    #[must_use]
    pub(crate) fn plain(self, text: impl AsRef<str>) -> Self {
        self.push(Style::Plain, text)
    }

    /// Appends less important text.
    #[must_use]
    pub(crate) fn dim(self, text: impl AsRef<str>) -> Self {
        self.push(Style::Dim, text)
    }

    /// Appends more important text.
    #[must_use]
    pub(crate) fn strong(self, text: impl AsRef<str>) -> Self {
        self.push(Style::Strong, text)
    }

    /// Appends another line's pieces.
    #[must_use]
    pub(crate) fn join(mut self, other: Self) -> Self {
        for (style, text) in other.spans {
            self = self.push(style, text);
        }
        self
    }

    /// Appends spaces until the line is `width` columns wide.
    #[must_use]
    pub(crate) fn pad_to(self, width: usize) -> Self {
        let missing = width.saturating_sub(self.width());
        if missing == 0 { self } else { self.plain(" ".repeat(missing)) }
    }

    /// Cuts the line to `width` columns; the last one then says that something is missing.
    #[must_use]
    pub(crate) fn cut_to(self, width: usize, ascii: bool) -> Self {
        if self.width() <= width {
            return self;
        }
        let mark = if ascii { "~" } else { "…" };
        let mut left = width.saturating_sub(1);
        let mut cut = Self::new();
        for (style, text) in self.spans {
            let piece = prefix_of_width(&text, left);
            left -= piece.width();
            let whole = piece.len() == text.len();
            cut = cut.push(style, piece);
            if !whole {
                return cut.push(style, mark);
            }
        }
        cut
    }

    /// Columns it takes in a terminal.
    pub(crate) fn width(&self) -> usize {
        self.spans.iter().map(|(_, text)| text.width()).sum()
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The text without any style.
    pub(crate) fn to_plain(&self) -> String {
        self.spans.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// The text for a terminal, with or without colour.
    pub(crate) fn render(&self, colored: bool) -> String {
        if !colored {
            return self.to_plain();
        }
        self.spans.iter().fold(String::new(), |mut shown, (style, text)| {
            match style.parameters() {
                "" => shown.push_str(text),
                parameters => shown.extend(["\u{1b}[", parameters, "m", text, "\u{1b}[0m"]),
            }
            shown
        })
    }
}

/// Most bytes of a prefix for each of its columns, and a few more: enough for any writing system. Text without any
/// width, of which a host may send a megabyte, is cut by them.
const BYTES_PER_COLUMN: usize = 16;

/// The longest prefix that is at most `width` columns wide, and of a size that goes with it.
pub(crate) fn prefix_of_width(text: &str, width: usize) -> &str {
    let text = &text[..text.floor_char_boundary(width.saturating_mul(BYTES_PER_COLUMN).saturating_add(64))];
    let mut end = 0;
    for (start, character) in text.char_indices() {
        let next = start + character.len_utf8();
        if text[..next].width() > width {
            break;
        }
        end = next;
    }
    &text[..end]
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new().plain(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new().plain(text)
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::new().plain(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_never_changes_the_words() {
        let text = Text::new().push(Style::Good, "✓").plain(" 3 hosts ").dim("12 ms");
        assert_eq!(text.render(false), "✓ 3 hosts 12 ms");
        assert_eq!(text.render(true), "\u{1b}[32m✓\u{1b}[0m 3 hosts \u{1b}[2m12 ms\u{1b}[0m");
        assert_eq!(text.width(), 15);
    }

    /// A host may send a megabyte of it: each column was looked for from the beginning again.
    #[test]
    fn text_without_width_is_cut_in_time() {
        for mark in ["\u{301}", "\u{200d}"] {
            let text = format!("{}{}", mark.repeat(500_000), "x".repeat(100));
            let cut = Text::from(text.as_str()).cut_to(80, false);
            assert!(cut.width() <= 80 && cut.to_plain().len() < 2_000, "{}", cut.to_plain().len());
            assert!(cut.to_plain().ends_with('…'));
        }
    }

    #[test]
    fn a_cut_is_visible_and_fits() {
        let check = |text: &str, width: usize, expected: &str| {
            assert_eq!(Text::from(text).cut_to(width, false).to_plain(), expected);
        };
        check("abc", 3, "abc");
        check("abcd", 3, "ab…");
        check("日本語", 5, "日本…");
        check("日本語", 4, "日…");
        assert_eq!(Text::from("abcd").cut_to(3, true).to_plain(), "ab~");
    }
}
