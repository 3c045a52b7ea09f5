//! Shows what actions write while they run.
//!
//! Output comes from a host and is not to be trusted. For people it is shown in whole lines in which nothing acts on the
//! terminal, the lines of standard output on standard output and those of standard error on standard error. Only `--raw` gives
//! the bytes, and only to a file or a pipe. For programs every piece is a record with its place in the stream.
//!
//! What is held back is bounded: an unfinished line, and pieces that overtook earlier ones.

use std::collections::BTreeMap;

use muster_client::OutputWish;
use muster_client::collect::output_bytes_per_stream;
use muster_client::ordered::{Next, Ordered};
use muster_protocol::{Encoding, HostName, OutputChunk, OutputStream};
use serde::Serialize;

use super::record::SCHEMA;
use crate::output::{Printer, Style, Text, neutral_lines};

/// Longest line that is waited for, in bytes. A longer one is broken.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// What all hosts together may hold back, in bytes; each gets its share.
const HELD_BYTES_ALL: usize = 64 * 1024 * 1024;

/// How many ticks a piece waits for one that it has overtaken.
const PATIENCE_TICKS: u8 = 2;

/// How much of a stream that was shown is kept for the line that sums a host up.
const KEPT_BYTES: usize = 64 * 1024;

/// How much of a stream is kept where it is shown at the end.
const KEPT_FOR_PEOPLE_BYTES: usize = 1024 * 1024;

/// How output is shown while it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    /// Not at all.
    Off,
    /// Lines as they are: there is one host.
    Lines,
    /// Lines behind the name of their host.
    Prefixed,
    /// Bytes as they are.
    Raw,
    /// Records.
    Records,
}

impl Live {
    /// What the client has to do for it. `for_people` says who reads what is shown at the end.
    pub(crate) fn wish(self, hosts: usize, for_people: bool) -> OutputWish {
        let share = output_bytes_per_stream(hosts);
        let keep_bytes = match self {
            Self::Off if for_people => Some(share.min(KEPT_FOR_PEOPLE_BYTES)),
            Self::Off => None,
            _ => Some(share.min(KEPT_BYTES)),
        };
        OutputWish { events: self != Self::Off, keep_bytes, from_anywhere: false }
    }
}

/// A piece of output, as a record.
#[derive(Debug, Serialize)]
struct OutputRecord<'a> {
    kind: &'static str,
    host: &'a HostName,
    stream: OutputStream,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<&'a str>,
}

/// Shows output while it comes.
pub(crate) struct Streamer<'a> {
    printer: &'a Printer,
    live: Live,
    /// Whether streams begin with their first byte, or wherever they are joined.
    from_start: bool,
    hold_bytes: usize,
    line_bytes: usize,
    streams: BTreeMap<(HostName, OutputStream), Stream>,
    missing_bytes: u64,
}

struct Stream {
    ordered: Ordered,
    unfinished: Vec<u8>,
    waited: u8,
}

impl<'a> Streamer<'a> {
    /// For the output of so many hosts.
    pub(crate) fn new(printer: &'a Printer, live: Live, hosts: usize, from_start: bool) -> Self {
        let hold_bytes = (HELD_BYTES_ALL / 4 / hosts.max(1)).clamp(4 * 1024, 1024 * 1024);
        let line_bytes = hold_bytes.min(LINE_BYTES_MAX);
        Self { printer, live, from_start, hold_bytes, line_bytes, streams: BTreeMap::new(), missing_bytes: 0 }
    }

    /// Takes what a host's action wrote.
    pub(crate) fn take(&mut self, host: &HostName, chunks: &[OutputChunk]) {
        for chunk in chunks {
            match self.live {
                Live::Off => {}
                Live::Records => {
                    let (data, data_base64) = match chunk.encoding {
                        Encoding::Text => (Some(chunk.data.as_str()), None),
                        Encoding::Base64 => (None, Some(chunk.data.as_str())),
                    };
                    let (stream, offset) = (chunk.stream, chunk.offset);
                    let record = OutputRecord { kind: "output", host, stream, offset, data, data_base64 };
                    self.printer.record(SCHEMA, &record);
                }
                Live::Lines | Live::Prefixed | Live::Raw => self.take_in_order(host, chunk),
            }
        }
    }

    fn take_in_order(&mut self, host: &HostName, chunk: &OutputChunk) {
        let from_start = self.from_start;
        let stream = self.streams.entry((host.clone(), chunk.stream)).or_insert_with(|| Stream {
            ordered: if from_start { Ordered::from_start() } else { Ordered::from_anywhere() },
            unfinished: Vec::new(),
            waited: 0,
        });
        let next = stream.ordered.push(chunk, self.hold_bytes);
        self.show((host.clone(), chunk.stream), next);
    }

    /// Lets a second pass: what waits for a piece that does not come is shown without it.
    pub(crate) fn tick(&mut self) {
        let mut late = Vec::new();
        for (key, stream) in &mut self.streams {
            stream.waited = if stream.ordered.is_waiting() { stream.waited + 1 } else { 0 };
            if stream.waited >= PATIENCE_TICKS {
                stream.waited = 0;
                late.push((key.clone(), stream.ordered.give_up()));
            }
        }
        for (key, next) in late {
            self.show(key, next);
        }
    }

    /// A host has ended: its unfinished lines are all there will be.
    pub(crate) fn ended(&mut self, host: &HostName) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let key = (host.clone(), stream);
            if self.streams.get(&key).is_some_and(|stream| !stream.ordered.is_waiting()) {
                self.finish_line(&key);
            }
        }
    }

    /// Shows everything that is still held back. Returns how many bytes never came.
    pub(crate) fn finish(mut self) -> u64 {
        let keys: Vec<_> = self.streams.keys().cloned().collect();
        for key in keys {
            let next = self.streams.get_mut(&key).map(|stream| stream.ordered.give_up()).unwrap_or_default();
            self.show(key.clone(), next);
            self.finish_line(&key);
        }
        self.missing_bytes
    }

    /// The unfinished line of the only host, for the footer.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let unfinished = self.streams.values().map(|stream| &stream.unfinished).find(|line| !line.is_empty())?;
        (self.live == Live::Lines).then(|| String::from_utf8_lossy(unfinished).into_owned())
    }

    fn show(&mut self, key: (HostName, OutputStream), next: Vec<Next>) {
        for next in next {
            match (next, self.live) {
                (Next::Bytes(bytes), Live::Raw) => self.printer.output_bytes(key.1, &bytes),
                (Next::Missing(bytes), Live::Raw) => self.missing_bytes = self.missing_bytes.saturating_add(bytes),
                (Next::Bytes(bytes), _) => self.take_text(&key, bytes),
                (Next::Missing(bytes), _) => {
                    self.missing_bytes = self.missing_bytes.saturating_add(bytes);
                    self.finish_line(&key);
                    let mark = Text::styled(Style::Warning, format!("[{bytes} bytes missing]"));
                    self.printer.output(key.1, [self.prefix(&key.0).join(mark)]);
                }
            }
        }
    }

    fn take_text(&mut self, key: &(HostName, OutputStream), bytes: Vec<u8>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let mut block = std::mem::take(&mut stream.unfinished);
        // What is unfinished has no end of a line in it, and is not searched again for every byte that follows.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| block.len() + at + 1);
        block.extend(bytes);
        stream.unfinished = block.split_off(whole);
        let too_long = stream.unfinished.len() > self.line_bytes;
        self.lines(key, &block);
        if too_long {
            self.finish_line(key);
        }
    }

    fn finish_line(&mut self, key: &(HostName, OutputStream)) {
        let unfinished = self.streams.get_mut(key).map(|stream| std::mem::take(&mut stream.unfinished));
        self.lines(key, &unfinished.unwrap_or_default());
    }

    fn lines(&self, (host, stream): &(HostName, OutputStream), block: &[u8]) {
        if !block.is_empty() {
            let text = String::from_utf8_lossy(block);
            let prefix = self.prefix(host);
            self.printer.output(*stream, neutral_lines(&text).map(|line| prefix.clone().plain(line)));
        }
    }

    fn prefix(&self, host: &HostName) -> Text {
        match self.live {
            Live::Prefixed => Text::styled(Style::Accent, host.as_str()).plain(": "),
            _ => Text::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, Settings, Surroundings, capture};

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn chunk(stream: OutputStream, offset: u64, data: &str) -> OutputChunk {
        OutputChunk { stream, offset, encoding: Encoding::Text, data: data.to_owned() }
    }

    /// What is on standard output and standard error once `work` is done.
    fn shown(live: Live, format: Format, work: impl FnOnce(&mut Streamer<'_>)) -> (String, String) {
        let settings = Settings { format, ..Settings::default() };
        let (printer, out, err) = capture::printer(settings, Surroundings::default());
        let mut streamer = Streamer::new(&printer, live, 2, true);
        work(&mut streamer);
        streamer.finish();
        printer.finish();
        (out.text(), err.text())
    }

    #[test]
    fn lines_are_whole_and_streams_stay_apart() {
        let (out, err) = shown(Live::Lines, Format::Table, |streamer| {
            let web = host("web-1");
            streamer.take(&web, &[chunk(OutputStream::Stdout, 0, "one\ntw")]);
            assert_eq!(streamer.unfinished().as_deref(), Some("tw"));
            streamer
                .take(&web, &[chunk(OutputStream::Stderr, 0, "oops\n"), chunk(OutputStream::Stdout, 6, "o\r\nlast")]);
        });
        assert_eq!((out.as_str(), err.as_str()), ("one\ntwo\nlast\n", "oops\n"));
    }

    #[test]
    fn many_hosts_are_told_apart() {
        let (out, _) = shown(Live::Prefixed, Format::Table, |streamer| {
            streamer.take(&host("web-1"), &[chunk(OutputStream::Stdout, 0, "a\nb")]);
            streamer.take(&host("db-1"), &[chunk(OutputStream::Stdout, 0, "c\n")]);
            streamer.take(&host("web-1"), &[chunk(OutputStream::Stdout, 3, "b\n")]);
            streamer.ended(&host("web-1"));
        });
        assert_eq!(out, "web-1: a\ndb-1: c\nweb-1: bb\n");
    }

    #[test]
    fn nothing_acts_on_the_terminal() {
        let (out, err) = shown(Live::Prefixed, Format::Table, |streamer| {
            streamer.take(&host("web-1"), &[chunk(OutputStream::Stdout, 0, "\u{1b}]0;x\u{7}a\rb\n")]);
            streamer.take(&host("web-1"), &[chunk(OutputStream::Stderr, 0, "\u{9b}2J\u{202e}\n")]);
        });
        assert_eq!((out.as_str(), err.as_str()), ("web-1: \\u{1b}]0;x\\u{7}a\\rb\n", "web-1: \\u{9b}2J\\u{202e}\n"));
    }

    #[test]
    fn holes_are_shown_when_they_are_sure() {
        let (out, _) = shown(Live::Lines, Format::Table, |streamer| {
            let web = host("web-1");
            streamer.take(&web, &[chunk(OutputStream::Stdout, 0, "one\n"), chunk(OutputStream::Stdout, 10, "three\n")]);
            streamer.tick();
            streamer.take(&web, &[chunk(OutputStream::Stdout, 4, "two...")]);
            streamer.take(&web, &[chunk(OutputStream::Stdout, 30, "late\n")]);
            streamer.tick();
            streamer.tick();
        });
        assert_eq!(out, "one\ntwo...three\n[14 bytes missing]\nlate\n");
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let (out, _) = shown(Live::Lines, Format::Table, |streamer| {
            for at in 0..20u64 {
                streamer.take(&host("web-1"), &[chunk(OutputStream::Stdout, at * 10_000, &"x".repeat(10_000))]);
                assert!(streamer.streams.values().all(|stream| stream.unfinished.len() <= LINE_BYTES_MAX));
            }
        });
        assert_eq!(out.replace('\n', ""), "x".repeat(200_000));
        assert_eq!(out.lines().count(), 3);
    }

    #[test]
    fn offsets_at_the_end_of_the_world_are_harmless() {
        for live in [Live::Lines, Live::Raw] {
            let (printer, _, _) = capture::printer(Settings::default(), Surroundings::default());
            let mut streamer = Streamer::new(&printer, live, 1, true);
            for name in ["web-1", "web-2"] {
                for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                    streamer.take(&host(name), &[chunk(stream, u64::MAX - 2, "abc"), chunk(stream, u64::MAX, "d")]);
                }
            }
            assert_eq!(streamer.finish(), u64::MAX);
        }
    }

    #[test]
    fn raw_bytes_are_the_bytes() {
        let settings = Settings::default();
        let (printer, out, _) = capture::printer(settings, Surroundings::default());
        let mut streamer = Streamer::new(&printer, Live::Raw, 1, true);
        let base64 = OutputChunk { encoding: Encoding::Base64, ..chunk(OutputStream::Stdout, 0, "/wAKGw==") };
        streamer.take(&host("web-1"), &[base64, chunk(OutputStream::Stdout, 9, "x")]);
        assert_eq!(streamer.finish(), 5);
        printer.finish();
        assert_eq!(out.bytes(), [0xff, 0, b'\n', 0x1b, b'x']);
    }

    #[test]
    fn records_carry_the_bytes_and_their_place() {
        let (out, _) = shown(Live::Records, Format::Jsonl, |streamer| {
            let base64 = OutputChunk { encoding: Encoding::Base64, ..chunk(OutputStream::Stderr, 7, "/wA=") };
            streamer.take(&host("web-1"), &[chunk(OutputStream::Stdout, 3, "a\u{1b}\n"), base64]);
        });
        let start = r#"{"schema":"muster.job/v1","kind":"output","host":"web-1","#;
        assert_eq!(
            out,
            format!(
                "{start}\"stream\":\"stdout\",\"offset\":3,\"data\":\"a\\u001b\\n\"}}\n\
                 {start}\"stream\":\"stderr\",\"offset\":7,\"data_base64\":\"/wA=\"}}\n"
            )
        );
    }
}
