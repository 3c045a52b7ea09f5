//! Which characters of a foreign text a terminal would act on. Whoever prints such a text writes them as escapes.

/// Whether a terminal may act on a character instead of showing it, or show nothing where there is something: the
/// C0 and C1 controls, the marks of Unicode that reorder or break a line (UAX 9, U+2028, U+2029), and the invisible ones
/// that make two different names look the same. The joiners of scripts and emoji (U+200C, U+200D) are not among them.
#[must_use]
pub fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Appends a character as JSON escapes it, which every reader of text understands too.
pub fn push_escaped(text: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        text.push_str(&format!("\\u{unit:04x}"));
    }
}

/// A text of several lines in which nothing acts: only the ends of lines and tabs stay as they are. JSON that was
/// given stays the same JSON.
#[must_use]
pub fn harmless(text: &str) -> std::borrow::Cow<'_, str> {
    let escapes = |character: char| acts(character) && !matches!(character, '\n' | '\t');
    if !text.contains(escapes) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if escapes(character) { push_escaped(&mut shown, character) } else { shown.push(character) }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_and_nothing_acts() {
        assert!(matches!(harmless("a\n\tü ✓\n"), std::borrow::Cow::Borrowed(_)));
        assert_eq!(
            harmless("a\r\n\u{1b}[2J\u{9b}\u{202e}\u{e0041}b\n"),
            "a\\u000d\n\\u001b[2J\\u009b\\u202e\\udb40\\udc41b\n"
        );
        let json = serde_json::json!({ "a": "x\u{9b}\u{7f}\u{202e}" });
        let text = serde_json::to_string_pretty(&json).unwrap();
        assert!(harmless(&text).is_ascii());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&harmless(&text)).unwrap(), json);
    }
}
