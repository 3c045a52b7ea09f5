//! What the operator asked of the output, and what the surroundings allow.

use std::io::IsTerminal as _;

/// The form of the data on standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Text for people, as wide as the terminal.
    #[default]
    Table,
    /// Text for people with all columns, nothing cut.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object a line, as results come.
    Jsonl,
    /// Names only, one a line; can be given to `-H -`.
    Names,
    /// Comma-separated values with a heading (RFC 4180).
    Csv,
}

impl Format {
    /// Whether programs read it: no colour, no glyphs, nothing cut.
    pub(crate) fn is_for_programs(self) -> bool {
        !matches!(self, Self::Table | Self::Wide)
    }

    /// Whether it is JSON of either kind.
    pub(crate) fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl)
    }
}

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// In a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// What the operator asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Form of the data.
    pub(crate) format: Format,
    /// When to colour.
    pub(crate) color: ColorChoice,
    /// Only ASCII glyphs.
    pub(crate) ascii: bool,
    /// Neither notes nor progress.
    pub(crate) quiet: bool,
    /// How many `-v`.
    pub(crate) verbose: u8,
}

/// What the process stands in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Standard output is a terminal.
    pub(crate) stdout_terminal: bool,
    /// Standard error is a terminal.
    pub(crate) stderr_terminal: bool,
    /// Standard input is a terminal, so questions can be answered.
    pub(crate) stdin_terminal: bool,
    /// NO_COLOR is set and not empty.
    pub(crate) no_color: bool,
    /// TERM is `dumb`.
    pub(crate) dumb: bool,
    /// The locale is C or POSIX by name.
    pub(crate) ascii_locale: bool,
    /// Columns of the terminal.
    pub(crate) columns: Option<usize>,
}

impl Surroundings {
    /// Looks at the process's streams and environment.
    pub(crate) fn detect() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| variable(name));
        let columns = variable("COLUMNS").and_then(|columns| columns.parse().ok()).filter(|columns| *columns >= 20);
        Self {
            stdout_terminal: std::io::stdout().is_terminal(),
            stderr_terminal: std::io::stderr().is_terminal(),
            stdin_terminal: std::io::stdin().is_terminal(),
            no_color: variable("NO_COLOR").is_some(),
            dumb: variable("TERM").is_some_and(|term| term == "dumb"),
            ascii_locale: locale.is_some_and(|locale| locale == "C" || locale == "POSIX"),
            columns: columns.or_else(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))),
        }
    }

    /// Whether a stream that is a terminal or not is coloured.
    pub(crate) fn colors(&self, choice: ColorChoice, terminal: bool) -> bool {
        match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !self.no_color && !self.dumb,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        let plain = Surroundings::default();
        let check = |surroundings: Surroundings, choice: ColorChoice, terminal: bool, expected: bool| {
            assert_eq!(surroundings.colors(choice, terminal), expected, "{surroundings:?} {choice:?} {terminal}");
        };
        check(plain, ColorChoice::Auto, true, true);
        check(plain, ColorChoice::Auto, false, false);
        check(Surroundings { no_color: true, ..plain }, ColorChoice::Auto, true, false);
        check(Surroundings { dumb: true, ..plain }, ColorChoice::Auto, true, false);
        check(Surroundings { no_color: true, ..plain }, ColorChoice::Always, false, true);
        check(plain, ColorChoice::Never, true, false);
    }
}
