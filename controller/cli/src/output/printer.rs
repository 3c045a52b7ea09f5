//! The only owner of standard output and standard error.
//!
//! Data goes to standard output; notes, progress, questions and errors go to standard error. A reader
//! that closes standard output early ends the printing quietly and never changes the exit code.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use muster_protocol::OutputStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::command::Surely;
use super::escape::neutral;
use super::exit_code::ExitCode;
use super::failure::Failure;
use super::json::{Document, compact, pretty, write_pretty};
use super::progress::{Pace, fraction};
use super::settings::{Format, Settings, Surroundings};
use super::table::Table;
use super::text::{Style, Text};

/// Columns where no terminal says otherwise.
const WIDTH_DEFAULT: usize = 80;

/// Clears the line the cursor is in and returns to its start (ECMA-48).
const CLEAR_LINE: &str = "\r\u{1b}[2K";

/// Writes everything the program says.
pub(crate) struct Printer {
    settings: Settings,
    surely: Surely,
    surroundings: Surroundings,
    started: Instant,
    streams: Mutex<Streams>,
}

struct Streams {
    out: Box<dyn Write + Send>,
    /// It is the process's own.
    out_is_stdout: bool,
    err: Box<dyn Write + Send>,
    /// Standard output was closed or failed; nothing more is written to it.
    out_closed: bool,
    /// Why it failed, if not because its reader left.
    out_error: Option<io::Error>,
    /// The footer as it stands on the terminal.
    footer: Option<String>,
}

impl Printer {
    /// A printer over the process's own streams.
    pub(crate) fn new(settings: Settings) -> Self {
        let out = Box::new(BufWriter::with_capacity(64 * 1024, io::stdout()));
        let mut printer = Self::over(settings, Surroundings::detect(), out, Box::new(io::stderr()));
        printer.streams.get_mut().unwrap_or_else(PoisonError::into_inner).out_is_stdout = true;
        printer
    }

    /// Commands that are shown lead where this one went.
    #[must_use]
    pub(crate) fn going_on(mut self, surely: Surely) -> Self {
        self.surely = surely;
        self
    }

    /// A command as somebody can type it who wants to go on from here.
    pub(crate) fn command(&self, command: &str) -> String {
        self.surely.typable(command)
    }

    /// A printer over other streams and surroundings.
    pub(crate) fn over(
        settings: Settings,
        surroundings: Surroundings,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
    ) -> Self {
        let streams = Streams { out, out_is_stdout: false, err, out_closed: false, out_error: None, footer: None };
        Self {
            settings,
            surely: Surely::default(),
            surroundings,
            started: Instant::now(),
            streams: Mutex::new(streams),
        }
    }

    /// The form of the data.
    pub(crate) fn format(&self) -> Format {
        self.settings.format
    }

    /// Whether only ASCII glyphs may be used.
    pub(crate) fn ascii(&self) -> bool {
        self.settings.ascii || self.surroundings.ascii_locale
    }

    /// How many `-v` were given.
    pub(crate) fn verbose(&self) -> u8 {
        self.settings.verbose
    }

    /// Columns of the terminal; 80 where there is none.
    pub(crate) fn width(&self) -> usize {
        self.surroundings.columns.unwrap_or(WIDTH_DEFAULT)
    }

    /// Columns that lines are cut to: those of the terminal, and nothing is cut in a file, a pipe or with `--format wide`.
    pub(crate) fn cut_width(&self) -> Option<usize> {
        (self.surroundings.stdout_terminal && self.settings.format != Format::Wide).then(|| self.width())
    }

    /// Whether somebody watches remarks as they come.
    pub(crate) fn live(&self) -> bool {
        self.surroundings.stderr_terminal && !self.surroundings.dumb
    }

    /// Whether people look at the data as it comes.
    pub(crate) fn data_to_terminal(&self) -> bool {
        self.surroundings.stdout_terminal
    }

    /// Whether whoever read standard output is gone, also when nothing was written since.
    pub(crate) fn reader_is_gone(&self) -> bool {
        let streams = self.streams();
        (streams.out_closed && streams.out_error.is_none())
            || (streams.out_is_stdout && has_no_reader(rustix::stdio::stdout()))
    }

    /// Whether a question can be asked and answered.
    pub(crate) fn can_ask(&self) -> bool {
        self.surroundings.stdin_terminal && self.surroundings.stderr_terminal
    }

    /// The glyph, or its twin for terminals without Unicode.
    pub(crate) fn glyph(&self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii() { ascii } else { unicode }
    }

    /// Writes a line of data.
    pub(crate) fn line(&self, text: impl Into<Text>) {
        let colored = self.surroundings.colors(self.settings.color, self.surroundings.stdout_terminal)
            && !self.settings.format.is_for_programs();
        self.data(&(text.into().render(colored) + "\n"));
    }

    /// Writes text of our own as it is, such as a script for the shell.
    pub(crate) fn verbatim(&self, text: &str) {
        self.data(text);
    }

    /// Writes lines that an action wrote, each to the stream it came from. They are there at once, since
    /// somebody may wait for them behind a pipe.
    pub(crate) fn output(&self, stream: OutputStream, lines: impl IntoIterator<Item = Text>) {
        let colored = match stream {
            OutputStream::Stdout => self.surroundings.colors(self.settings.color, self.surroundings.stdout_terminal),
            OutputStream::Stderr => self.error_colored(),
        };
        let mut block = String::new();
        for line in lines {
            block.push_str(&line.render(colored));
            block.push('\n');
        }
        self.output_bytes(stream, block.as_bytes());
    }

    /// Writes bytes that an action wrote as they are.
    pub(crate) fn output_bytes(&self, stream: OutputStream, bytes: &[u8]) {
        let mut streams = self.streams();
        let footer = streams.clear_footer();
        match stream {
            OutputStream::Stdout => streams.write_out(bytes),
            OutputStream::Stderr => streams.say(bytes),
        }
        streams.flush_out();
        streams.draw_footer(footer);
    }

    /// Writes one JSON document: `schema` and the fields of `body`. On one line with `--jsonl`.
    pub(crate) fn document(&self, schema: &'static str, body: &impl Serialize) {
        let document = Document::new(schema, body);
        if self.settings.format == Format::Jsonl {
            return self.json(compact(&document));
        }
        // Written as it is made: the answers of a whole fleet may not fit into memory.
        let mut streams = self.streams();
        let footer = streams.clear_footer();
        let written = write_pretty(&mut *streams, &document);
        streams.write_out(b"\n");
        if self.surroundings.stdout_terminal {
            streams.flush_out();
        }
        streams.draw_footer(footer);
        drop(streams);
        if let Err(error) = written {
            self.json(Err(error));
        }
    }

    /// Writes one record of a stream on one line: `schema` and the fields of `body`.
    pub(crate) fn record(&self, schema: &'static str, body: &impl Serialize) {
        self.json(compact(&Document::new(schema, body)));
    }

    /// Writes a value that is already a whole document, such as a JSON Schema.
    pub(crate) fn value(&self, value: &impl Serialize) {
        self.json(if self.settings.format == Format::Jsonl { compact(value) } else { pretty(value) });
    }

    fn json(&self, json: Result<String, serde_json::Error>) {
        match json {
            Ok(json) => self.data(&(json + "\n")),
            // Only a map with keys that are no strings can fail, and no document has one.
            Err(error) => self.warning(format!("a document could not be written: {error}")),
        }
    }

    /// Writes a list in the format asked for: JSON with `items` under `key`, JSON lines, names, CSV or the table.
    pub(crate) fn list<T: Serialize>(&self, schema: &'static str, key: &'static str, items: &[T], table: &Table) {
        match self.settings.format {
            Format::Json => self.document(schema, &std::collections::BTreeMap::from([(key, items)])),
            Format::Jsonl => items.iter().for_each(|item| self.record(schema, item)),
            _ => self.table(table),
        }
    }

    /// Writes a table as text for people, as names or as CSV.
    pub(crate) fn table(&self, table: &Table) {
        match self.settings.format {
            Format::Names => table.names().for_each(|name| self.line(name)),
            Format::Csv => self.data(&table.csv()),
            format => {
                let wide = format == Format::Wide;
                table.lines(self.cut_width(), wide, self.ascii()).into_iter().for_each(|line| self.line(line));
            }
        }
    }

    /// Writes a remark to standard error, unless `--quiet`.
    pub(crate) fn note(&self, text: impl Into<Text>) {
        if !self.settings.quiet {
            self.said(&text.into());
        }
    }

    /// Writes a remark that only `-v` (level 1) or `-vv` (level 2) asks for.
    pub(crate) fn detail(&self, level: u8, text: impl Into<Text>) {
        if self.settings.verbose >= level {
            self.said(&text.into());
        }
    }

    /// Writes a warning to standard error, `--quiet` or not.
    pub(crate) fn warning(&self, text: impl Into<Text>) {
        self.said(&Text::styled(Style::Warning, "warning").plain(": ").join(text.into()));
    }

    /// Writes a further line of the warning before it.
    pub(crate) fn warned(&self, text: impl Into<Text>) {
        self.said(&text.into());
    }

    /// Writes why the command ends: for people on standard error, and with `--json` or `--jsonl` as a document on standard output.
    pub(crate) fn failure(&self, failure: &Failure) {
        let mut failure = failure.clone();
        for hint in &mut failure.hints {
            *hint = self.command(hint);
        }
        if self.settings.format.is_json() {
            self.value(&failure.document());
        }
        failure.lines().iter().for_each(|line| self.said(line));
    }

    /// Writes a question to standard error and leaves the cursor behind it. False where nobody can answer.
    pub(crate) fn prompt(&self, question: impl Into<Text>) -> bool {
        if self.can_ask() {
            let question = question.into().render(self.error_colored());
            let mut streams = self.streams();
            streams.flush_out();
            streams.clear_footer();
            streams.say(format!("{question} ").as_bytes());
        }
        self.can_ask()
    }

    /// Asks on standard error and reads one line. `None` where nobody can answer.
    pub(crate) fn ask(&self, question: impl Into<Text>) -> Option<String> {
        if !self.prompt(question) {
            return None;
        }
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim().to_owned())
    }

    /// Starts to show how far something has come. `what` names the work; `total` 0 means that it is not known.
    pub(crate) fn progress(&self, total: usize, what: impl Into<String>) -> Progress<'_> {
        let pace = Pace::new(self.surroundings.stderr_terminal && !self.surroundings.dumb, self.elapsed_ms());
        Progress { printer: self, what: what.into(), total, pace }
    }

    /// Writes out what is still held back.
    pub(crate) fn finish(&self) {
        let mut streams = self.streams();
        streams.clear_footer();
        streams.flush_out();
    }

    /// Writes out what is still held back, and says whether all of it arrived. Called once at the end.
    ///
    /// # Errors
    /// Exit code 1: some of the data could not be written. A reader that left early is none.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        self.finish();
        match self.streams().out_error.take() {
            None => Ok(()),
            Some(error) => {
                let what = "standard output cannot be written; what it got is not whole";
                Err(Failure::new(ExitCode::Unexpected, "output", what)
                    .why("why", error.to_string())
                    .hint("make room where the output goes, or send it elsewhere; then look before you run it again"))
            }
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn error_colored(&self) -> bool {
        self.surroundings.colors(self.settings.color, self.surroundings.stderr_terminal)
    }

    fn data(&self, text: &str) {
        let mut streams = self.streams();
        let footer = streams.clear_footer();
        streams.write_out(text.as_bytes());
        // People and readers of a stream wait for each line; a file does not.
        if self.surroundings.stdout_terminal || self.settings.format == Format::Jsonl {
            streams.flush_out();
        }
        streams.draw_footer(footer);
    }

    fn said(&self, text: &Text) {
        let line = text.render(self.error_colored()) + "\n";
        let mut streams = self.streams();
        let footer = streams.clear_footer();
        streams.flush_out();
        streams.say(line.as_bytes());
        streams.draw_footer(footer);
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        // A panic while printing leaves at worst half a line behind.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Whether the other end of a pipe or a socket is closed. A file or a terminal always has one.
fn has_no_reader(out: BorrowedFd<'_>) -> bool {
    let mut wanted = [PollFd::from_borrowed_fd(out, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut wanted, Some(&at_once)).is_ok() && wanted[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Standard output. Its errors are noted and told at the end.
impl io::Write for Streams {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_out(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Streams {
    fn write_out(&mut self, bytes: &[u8]) {
        if !self.out_closed
            && let Err(error) = self.out.write_all(bytes)
        {
            self.close_out(error);
        }
    }

    fn flush_out(&mut self) {
        if !self.out_closed
            && let Err(error) = self.out.flush()
        {
            self.close_out(error);
        }
    }

    /// Forgets what cannot be written, so that nothing tries again at the end. The first error is the one to tell.
    fn close_out(&mut self, error: io::Error) {
        self.out_closed = true;
        self.out = Box::new(io::sink());
        self.out_error = (error.kind() != io::ErrorKind::BrokenPipe).then_some(error);
    }

    fn say(&mut self, bytes: &[u8]) {
        // Where standard error is gone there is nobody left to tell.
        drop(self.err.write_all(bytes).and_then(|()| self.err.flush()));
    }

    fn clear_footer(&mut self) -> Option<String> {
        let footer = self.footer.take()?;
        self.say(CLEAR_LINE.as_bytes());
        Some(footer)
    }

    fn draw_footer(&mut self, footer: Option<String>) {
        if let Some(footer) = footer {
            self.say(footer.as_bytes());
            self.footer = Some(footer);
        }
    }
}

/// How far something has come: a footer in a terminal, plain counter lines elsewhere. Gone once dropped.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    printer: &'a Printer,
    what: String,
    total: usize,
    pace: Pace,
}

impl Progress<'_> {
    /// Says that `done` of the total are done; shown when it is due.
    pub(crate) fn update(&mut self, done: usize) {
        self.update_with(done, Text::new);
    }

    /// The same with more text behind the count, made only when it is shown.
    pub(crate) fn update_with(&mut self, done: usize, more: impl FnOnce() -> Text) {
        let printer = self.printer;
        if printer.settings.quiet || !self.pace.due(done, self.total, printer.elapsed_ms()) {
            return;
        }
        let more = more();
        let gap = if more.is_empty() { "" } else { "  " };
        let what = neutral(&self.what);
        let text = Text::from(format!("{what}  {}", fraction(done, self.total))).plain(gap).join(more);
        if printer.surroundings.stderr_terminal && !printer.surroundings.dumb {
            // One column is left free: some terminals wrap when the last one is written.
            let footer = text.cut_to(printer.width().saturating_sub(1), printer.ascii());
            let footer = footer.render(printer.error_colored());
            let mut streams = printer.streams();
            streams.clear_footer();
            streams.draw_footer(Some(footer));
        } else {
            printer.said(&text);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.printer.streams().clear_footer();
    }
}

#[cfg(test)]
pub(crate) mod capture {
    //! A printer whose output a test can read.

    use std::sync::Arc;

    use super::*;

    /// What was written so far.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.bytes()).unwrap()
        }

        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A printer with its standard output and standard error.
    pub(crate) fn printer(settings: Settings, surroundings: Surroundings) -> (Printer, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let printer = Printer::over(settings, surroundings, Box::new(out.clone()), Box::new(err.clone()));
        (printer, out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::capture::printer;
    use super::*;

    const TERMINAL: Surroundings = Surroundings {
        stdout_terminal: true,
        stderr_terminal: true,
        stdin_terminal: false,
        no_color: false,
        dumb: false,
        ascii_locale: false,
        columns: Some(40),
    };

    #[test]
    fn data_and_remarks_never_mix() {
        let (printer, out, err) = printer(Settings::default(), Surroundings::default());
        printer.line("data");
        printer.note("remark");
        printer.warning("look");
        printer.failure(&Failure::new(ExitCode::Usage, "bad-usage", "no such thing"));
        assert_eq!(out.text(), "data\n");
        assert_eq!(err.text(), "remark\nwarning: look\nerror[bad-usage]: no such thing\n");
    }

    #[test]
    fn a_failure_is_a_document_too() {
        let settings = Settings { format: Format::Json, ..Settings::default() };
        let (printer, out, err) = printer(settings, Surroundings::default());
        printer
            .failure(&Failure::new(ExitCode::NoMatch, "no-match", "nobody").why("target", "x = y").hint("muster find"));
        insta::assert_snapshot!(out.text(), @r#"
        {
          "schema": "muster.error/v1",
          "kind": "error",
          "code": "no-match",
          "what": "nobody",
          "why": [
            {
              "label": "target",
              "text": "x = y"
            }
          ],
          "hints": [
            "muster find"
          ],
          "exit_code": 4
        }
        "#);
        assert!(err.text().starts_with("error[no-match]: nobody\n"));
    }

    #[test]
    fn the_footer_gives_way_to_lines() {
        let settings = Settings { color: super::super::ColorChoice::Never, ..Settings::default() };
        let (printer, out, err) = printer(settings, TERMINAL);
        let mut progress = printer.progress(10, "waiting");
        progress.update(3);
        printer.line("data");
        printer.note("remark");
        drop(progress);
        assert_eq!(out.text(), "data\n");
        let footer = "waiting  3 / 10  30%";
        assert_eq!(err.text(), format!("{footer}{CLEAR_LINE}{footer}{CLEAR_LINE}remark\n{footer}{CLEAR_LINE}"));
    }

    #[test]
    fn a_reader_may_leave_but_a_disk_may_not_be_full() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(self.0.into())
            }
        }
        let check = |kind: io::ErrorKind, expected: Result<(), (&str, ExitCode)>| {
            let out = Box::new(BufWriter::new(Broken(kind)));
            let printer = Printer::over(Settings::default(), TERMINAL, out, Box::new(io::sink()));
            printer.line("data");
            printer.line("more");
            let ended = printer.end().map_err(|failure| (failure.code, failure.exit));
            assert_eq!(ended, expected, "{kind:?}");
            assert!(printer.end().is_ok(), "it is told once");
        };
        check(io::ErrorKind::BrokenPipe, Ok(()));
        check(io::ErrorKind::StorageFull, Err(("output", ExitCode::Unexpected)));
        check(io::ErrorKind::PermissionDenied, Err(("output", ExitCode::Unexpected)));
    }

    #[test]
    fn quiet_leaves_data_and_errors() {
        let settings = Settings { quiet: true, ..Settings::default() };
        let (printer, out, err) = printer(settings, Surroundings::default());
        printer.note("remark");
        printer.progress(1, "waiting").update(1);
        printer.line("data");
        printer.warning("look");
        printer.finish();
        assert_eq!((out.text().as_str(), err.text().as_str()), ("data\n", "warning: look\n"));
    }
}
