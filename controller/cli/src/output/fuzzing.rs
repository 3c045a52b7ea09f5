//! Doors for the fuzzer: text from elsewhere on its way to a terminal.

use std::collections::BTreeSet;

use super::{Style, Text, escape, fold};

/// What may be in output that a terminal shows without doing anything. A second opinion: controls, and the marks that
/// reorder or hide text.
fn harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(u32::from(character), 0x61c | 0x200e..=0x200f | 0x2028..=0x202e | 0x2066..=0x2069 | 0xfeff)
}

/// Any text becomes harmless, in each way that text is shown; JSON keeps its meaning.
///
/// # Panics
/// When a terminal might act on it.
pub fn terminal(text: &str, width: usize) {
    let check = |shown: &str| assert!(shown.chars().all(harmless), "{text:?} is shown as {shown:?}");
    let neutral = escape::neutral(text);
    check(&neutral);
    assert_eq!(escape::neutral(&neutral), neutral, "harmless text stays as it is");
    for line in escape::neutral_lines(text) {
        check(&line);
    }
    let line = Text::styled(Style::Bad, text).plain("|").dim(text).strong(text);
    check(&line.to_plain());
    let colours = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m"];
    let plain = colours.iter().fold(line.render(true), |shown, colour| shown.replace(colour, ""));
    assert_eq!(plain, line.render(false), "only our own colours");
    for ascii in [false, true] {
        let cut = line.clone().cut_to(width, ascii);
        assert!(cut.width() <= width.max(1), "{text:?} cut to {width} has {} columns", cut.width());
        check(&cut.to_plain());
    }
    assert!(line.pad_to(width).width() >= width);
    let json = serde_json::to_string_pretty(&serde_json::json!({ text: [text] })).expect("texts are JSON");
    let shown = escape::neutral_json(&json);
    assert!(shown.chars().all(|character| character == '\n' || harmless(character)), "{shown:?}");
    let read: serde_json::Value = serde_json::from_str(&shown).expect("it is still JSON");
    assert_eq!(read, serde_json::json!({ text: [text] }), "JSON keeps its meaning");
}

/// Folded names expand to the same names; what expands is bounded.
///
/// # Panics
/// When it is not so.
pub fn fold_names(text: &str) {
    const MOST: usize = 500;
    let Ok(names) = fold::expand(text, MOST) else { return };
    assert!(names.len() <= MOST);
    let plain = |name: &&String| !name.contains(['[', ']', ',']) && name.trim() == name.as_str() && !name.is_empty();
    let names: BTreeSet<&str> = names.iter().filter(plain).map(String::as_str).collect();
    let folded = fold::fold_line(names.iter().copied());
    let again: Vec<String> = fold::expand(&folded, MOST).expect("what was folded expands");
    assert_eq!(again.len(), names.len(), "each name once: {folded}");
    assert_eq!(again.iter().map(String::as_str).collect::<BTreeSet<&str>>(), names, "{folded}");
}
