//! Why a command ends without having done what it was asked, in the one form all of them share.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::exit_code::ExitCode;
use super::text::{Style, Text};

/// Labels up to this width stand in one column with `try`; longer ones (host names, addresses) have a column of their own.
const SHORT_LABEL_WIDTH: usize = 8;

/// The end of a command that could not do its work: `error[code]: what`, the reasons, what to do.
///
/// ```text
/// error[broker-unreachable]: no broker of context `prod` answers; nothing was sent
///   mq1.example.com:5671  connection refused
///   try     muster doctor
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Stable machine code; a row of the table of `muster explain`.
    pub(crate) code: &'static str,
    /// What happened: lower case, no full stop.
    pub(crate) what: String,
    /// Why, as labelled lines. A text of several lines keeps them, aligned.
    pub(crate) why: Vec<(String, String)>,
    /// Commands or actions to try, the best one last.
    pub(crate) hints: Vec<String>,
    /// How the program ends.
    pub(crate) exit: ExitCode,
}

impl Failure {
    /// A failure with neither reasons nor hints yet.
    pub(crate) fn new(exit: ExitCode, code: &'static str, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), why: Vec::new(), hints: Vec::new(), exit }
    }

    /// Adds a reason: a short label and a text.
    #[must_use]
    pub(crate) fn why(mut self, label: impl Into<String>, text: impl Into<String>) -> Self {
        self.why.push((label.into(), text.into()));
        self
    }

    /// Adds something to try, best a command. The best one comes last.
    #[must_use]
    pub(crate) fn hint(mut self, command: impl Into<String>) -> Self {
        self.hints.push(command.into());
        self
    }

    /// Adds an error and everything it was caused by, one line each.
    #[must_use]
    pub(crate) fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // A source whose text its parent repeats would say the same twice.
            if !self.why.last().is_some_and(|(_, last)| last.contains(&text)) {
                self.why.push(("why".to_owned(), text));
            }
            next = error.source();
        }
        self
    }

    /// Exit 1: something that should not happen.
    pub(crate) fn unexpected(what: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        Self::new(ExitCode::Unexpected, "unexpected", what).because(error)
    }

    /// Exit 2: a file somebody named cannot be read or written; 1 if the system is to blame. `doing` is such as `read` or `write`.
    pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let exit = ExitCode::of_file_error(error);
        Self::new(exit, "file", format!("cannot {doing} `{}`", path.display()))
            .because(error)
            .hint(file_hint(path, error))
    }

    /// Exit 2: wrong words on the command line.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, "bad-usage", what)
    }

    /// The error form, one `Text` a line.
    pub(crate) fn lines(&self) -> Vec<Text> {
        let head = Text::new()
            .push(Style::Danger, "error")
            .push(Style::Strong, format!("[{}]", self.code))
            .plain(": ")
            .strong(&self.what);
        let tries = self.hints.iter().enumerate().map(|(index, hint)| {
            let label = if index + 1 == self.hints.len() { "try" } else { "or" };
            (label, hint.as_str(), Style::Accent)
        });
        let whys = self.why.iter().map(|(label, text)| (label.as_str(), text.as_str(), Style::Plain));
        let all: Vec<_> = whys.chain(tries).collect();
        let widest = |short: bool| {
            let widths = all.iter().map(|(label, ..)| label.width());
            widths.filter(|width| (*width <= SHORT_LABEL_WIDTH) == short).max().unwrap_or(0)
        };
        let (short, long) = (widest(true).max(6), widest(false));
        let mut lines = vec![head];
        for (label, text, style) in &all {
            let column = if label.width() <= SHORT_LABEL_WIDTH { short } else { long };
            // A reader of a pasted error sees no colours, so the first line alone carries the label.
            for (index, line) in text.lines().enumerate() {
                let label = if index == 0 { label } else { "" };
                let start = Text::from("  ").dim(label).pad_to(column + 4);
                lines.push(start.push(*style, line));
            }
        }
        lines
    }

    /// The same as a JSON document.
    pub(crate) fn document(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Why {
            label: String,
            text: String,
        }
        #[derive(Serialize)]
        struct Document {
            schema: &'static str,
            kind: &'static str,
            code: &'static str,
            what: String,
            why: Vec<Why>,
            hints: Vec<String>,
            exit_code: u8,
        }
        Document {
            schema: "muster.error/v1",
            kind: "error",
            code: self.code,
            what: self.what.clone(),
            why: self.why.iter().map(|(label, text)| Why { label: label.clone(), text: text.clone() }).collect(),
            hints: self.hints.clone(),
            exit_code: self.exit.number(),
        }
    }
}

/// What to do about a file that cannot be read or written.
fn file_hint(path: &Path, error: &io::Error) -> String {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match error.kind() {
        io::ErrorKind::NotFound => format!("ls -l {}, and look at the spelling", parent.display()),
        io::ErrorKind::PermissionDenied => format!("ls -ld {0}; run it as somebody who may", path.display()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("df -h {}", parent.display()),
        _ => format!("ls -ld {}, or name another file", path.display()),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_form_is_aligned() {
        let failure = Failure::new(
            ExitCode::Unreachable,
            "broker-unreachable",
            "no broker of context `prod` answers; nothing was sent",
        )
        .why("mq1.example.com:5671", "connection refused, 3 tries in 6 s")
        .why("mq22.example.com:5671", "TLS: certificate expired 2 days ago")
        .why("note", "jobs already on hosts go on;\ntheir results wait in the queue")
        .hint("muster context show")
        .hint("muster doctor");
        let shown: Vec<String> = failure.lines().iter().map(Text::to_plain).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        error[broker-unreachable]: no broker of context `prod` answers; nothing was sent
          mq1.example.com:5671   connection refused, 3 tries in 6 s
          mq22.example.com:5671  TLS: certificate expired 2 days ago
          note    jobs already on hosts go on;
                  their results wait in the queue
          or      muster context show
          try     muster doctor
        ");
    }

    #[test]
    fn a_cause_is_said_once() {
        let inner = io::Error::other("disk full");
        let failure = Failure::file("write", Path::new("/x"), &inner);
        assert_eq!(failure.why, [("why".to_owned(), "disk full".to_owned())]);
    }

    #[test]
    fn a_file_that_was_mistyped_is_no_bug() {
        let check = |kind: io::ErrorKind, exit: ExitCode, hint: &str| {
            let failure = Failure::file("read", Path::new("dir/x"), &kind.into());
            assert_eq!((failure.exit, failure.hints), (exit, vec![hint.to_owned()]), "{kind:?}");
        };
        check(io::ErrorKind::NotFound, ExitCode::Usage, "ls -l dir, and look at the spelling");
        check(io::ErrorKind::PermissionDenied, ExitCode::Usage, "ls -ld dir/x; run it as somebody who may");
        check(io::ErrorKind::IsADirectory, ExitCode::Usage, "ls -ld dir/x, or name another file");
        check(io::ErrorKind::StorageFull, ExitCode::Unexpected, "df -h dir");
    }
}
