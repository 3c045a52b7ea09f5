//! What is said of YAML that cannot be read.

use serde_saphyr::{DefaultMessageFormatter, Error, MessageFormatter as _};

/// The error in one line, with its place.
///
/// The library would show the lines around it as well. Nobody asks for them here, and what draws them is a tenth of a
/// megabyte of program.
#[must_use]
pub fn explain(error: &Error) -> String {
    let message = DefaultMessageFormatter.format_message(error.without_snippet());
    // Words of the text may be in it.
    let message = message.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    match error.location() {
        Some(at) if at.line() > 0 => format!("{message} at line {}, column {}", at.line(), at.column()),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        explain(&serde_saphyr::from_str::<serde_json::Value>(text).unwrap_err())
    }

    #[test]
    fn an_error_is_one_line_and_says_where() {
        for (text, at) in
            [("a: [", "at line 1, column"), ("a: 1\nb: *nobody\n", "at line 2, column"), ("a: 1\na: 2", "at line 2")]
        {
            let said = of(text);
            assert!(said.contains(at) && !said.contains('\n') && said.len() < 200, "{text:?}: {said}");
        }
        let said = of("\"\\e[2J\": 1\n\"\\e[2J\": 2");
        assert!(!said.chars().any(char::is_control), "{said}");
    }
}
