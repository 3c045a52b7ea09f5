//! Makes text that came from elsewhere harmless to a terminal.
//!
//! A host's output, fact or message may hold escape sequences that recolour, retitle, overwrite or
//! even type into the operator's terminal. Here every such character becomes visible text instead.

use std::borrow::Cow;

use muster_daemon::terminal::{acts, harmless};

/// Columns between tab stops when a block of text is shown.
const TAB_WIDTH: usize = 8;

/// Replaces every character that a terminal would act on by its visible escape, such as `\n` or `\u{1b}`.
pub(crate) fn neutral(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 8), |mut shown, character| {
        if acts(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        shown
    }))
}

/// The lines of a block of text, each harmless, tabs expanded. A carriage return before the line's end is dropped.
pub(crate) fn neutral_lines(block: &str) -> impl Iterator<Item = Cow<'_, str>> {
    block.lines().map(|line| {
        if !line.contains('\t') {
            return neutral(line);
        }
        let mut expanded = String::with_capacity(line.len() + TAB_WIDTH);
        let mut column = 0;
        for character in line.chars() {
            if character == '\t' {
                let spaces = TAB_WIDTH - column % TAB_WIDTH;
                expanded.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            } else {
                expanded.push(character);
                column += 1;
            }
        }
        Cow::Owned(neutral(&expanded).into_owned())
    })
}

/// JSON text in which no character acts on a terminal: such characters can only stand inside
/// strings, where `\uXXXX` means the same. The line feeds and spaces between the values stay.
pub(crate) fn neutral_json(json: &str) -> Cow<'_, str> {
    harmless(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        let check = |input: &str, expected: &str| assert_eq!(neutral(input), expected);
        check("plain ✓ ü", "plain ✓ ü");
        check("\u{1b}[31mred\u{1b}[0m", "\\u{1b}[31mred\\u{1b}[0m");
        check("a\r\nb\tc\u{7}", "a\\r\\nb\\tc\\u{7}");
        check("\u{9b}2J", "\\u{9b}2J");
        check("user\u{202e}txt.exe", "user\\u{202e}txt.exe");
        check("pay\u{200b}pal\u{e0041}", "pay\\u{200b}pal\\u{e0041}");
        check(
            "\u{1b}]52;c;cm0gLXJm\u{7}\u{1b}]8;;http://x\u{1b}\\y",
            "\\u{1b}]52;c;cm0gLXJm\\u{7}\\u{1b}]8;;http://x\\u{1b}\\y",
        );
        check("\u{90}+q\u{9c}\u{85}", "\\u{90}+q\\u{9c}\\u{85}");
    }

    #[test]
    fn a_block_keeps_its_lines_and_columns() {
        let lines: Vec<_> = neutral_lines("a\tb\r\n\u{1b}]0;title\u{7}\nlast").collect();
        assert_eq!(lines, ["a       b", "\\u{1b}]0;title\\u{7}", "last"]);
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({ "a": "x\u{9b}\u{7f}\u{202e}\u{e0041}\n" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = neutral_json(&text).into_owned();
        assert!(!shown.contains(|c: char| c != '\n' && acts(c)), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
