//! `muster explain [CODE]`: what an error code means and what to do.

use clap::Args;
use muster_protocol::Code;
use serde::Serialize;

use crate::codes;
use crate::output::{Column, ExitCode, Failure, Printer, Style, Table, Text};

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  muster explain no-match\n  muster explain 5\n  muster explain")]
pub(crate) struct ExplainArguments {
    /// The code as it stands in `error[CODE]` or in a host's answer; or the number of an exit code.
    #[arg(add = crate::complete::codes())]
    code: Option<String>,
}

#[derive(Debug, Serialize)]
struct Explained {
    code: &'static str,
    summary: &'static str,
    explanation: &'static str,
}

impl From<&'static Code> for Explained {
    fn from(code: &'static Code) -> Self {
        Self { code: code.code, summary: code.summary, explanation: code.explanation }
    }
}

/// Explains one code or lists all.
pub(crate) fn run(arguments: &ExplainArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    match &arguments.code {
        Some(code) => explain(code, printer),
        None => {
            list(printer);
            Ok(ExitCode::Success)
        }
    }
}

fn list(printer: &Printer) {
    let mut table = Table::new([Column::new("code"), Column::new("summary").text(), Column::new("explanation").wide()]);
    let mut items = Vec::new();
    for code in codes::all() {
        table.row([Text::styled(Style::Accent, code.code), code.summary.into(), code.explanation.into()]);
        items.push(Explained::from(code));
    }
    printer.list("muster.codes/v1", "codes", &items, &table);
}

fn explain(given: &str, printer: &Printer) -> Result<ExitCode, Failure> {
    if let Some(exit) = ExitCode::BY_STRENGTH.into_iter().find(|exit| exit.to_string() == given) {
        explain_exit(exit, printer);
        return Ok(ExitCode::Success);
    }
    let Some(code) = codes::all().find(|row| row.code == given) else {
        return Err(unknown(given));
    };
    if printer.format().is_for_programs() {
        printer.document("muster.code/v1", &Explained::from(code));
    } else {
        printer.line(Text::styled(Style::Strong, code.code).plain(": ").plain(code.summary));
        printer.line("");
        for sentence in wrap(code.explanation, printer.width().min(80)) {
            printer.line(sentence);
        }
    }
    Ok(ExitCode::Success)
}

fn explain_exit(exit: ExitCode, printer: &Printer) {
    #[derive(Debug, Serialize)]
    struct Exit {
        exit_code: u8,
        meaning: &'static str,
    }
    let (number, meaning) = (exit.number(), exit.meaning());
    if printer.format().is_for_programs() {
        return printer.document("muster.exit-code/v1", &Exit { exit_code: number, meaning });
    }
    printer.line(Text::new().strong(format!("exit code {number}")).plain(": ").plain(meaning));
}

/// Words of the screens that stand for a code.
const WORDS: [(&str, &str); 3] = [("silent", "no-reply"), ("offline", "no-reply"), ("revoked", "revoked-certificate")];

fn unknown(given: &str) -> Failure {
    let shown = WORDS.iter().find(|(word, _)| *word == given).map(|(_, code)| (1.0, *code));
    let nearest = codes::all()
        .map(|row| (strsim::jaro_winkler(given, row.code), row.code))
        .filter(|(likeness, _)| *likeness > 0.7)
        .chain(shown)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    let failure = Failure::new(ExitCode::Usage, "unknown-code", format!("there is no code `{given}`"));
    match nearest {
        Some((_, nearest)) => failure.why("nearest", format!("`{nearest}`")).hint(format!("muster explain {nearest}")),
        None => failure.hint("muster explain"),
    }
}

/// Breaks a text into lines of at most `width` characters, at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| line.is_empty() || line.len() + 1 + word.len() <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => line.extend([" ", word]),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
