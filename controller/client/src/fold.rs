//! Folds the reports of many hosts into numbered deltas, one per host and folding.
//!
//! An execution service sends what has come since its last message, not the whole again. Output
//! chunks keep their offsets, so the receiver can put them together in any order.

use std::collections::BTreeMap;

use muster_protocol::{
    AccumulatedProgressReport, ActionResult, Encoding, HostName, Outcome, OutputChunk, ProgressReport, ProtocolVersion,
    ReportState, RequestId, Timestamp,
};

use crate::sequence::{Inserted, Sequences};

/// Most output bytes in one delta, so that a list of them stays a message; more goes into the next.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Folds the reports to one request.
#[derive(Debug)]
pub struct Fold {
    request_id: RequestId,
    hosts: BTreeMap<HostName, HostFold>,
}

#[derive(Debug, Default)]
struct HostFold {
    seen: Sequences,
    /// Missing reports that earlier deltas have already told.
    missing_told: u32,
    sent: u32,
    finished: bool,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    first: u32,
    last: u32,
    output: Vec<OutputChunk>,
    result: Option<ActionResult>,
}

impl Fold {
    /// Starts with nothing folded.
    #[must_use]
    pub fn new(request_id: RequestId) -> Self {
        Self { request_id, hosts: BTreeMap::new() }
    }

    /// Adds a verified report. One that came before, or after the host's last one was handed out, is
    /// left out; so is one to another request.
    pub fn add(&mut self, report: &ProgressReport) {
        if report.request_id != self.request_id {
            return;
        }
        let host = self.hosts.entry(report.host.clone()).or_default();
        if host.finished || host.seen.insert(report.sequence) != Inserted::New {
            return;
        }
        let waiting = host.waiting.get_or_insert_with(|| Waiting {
            first: report.sequence,
            last: report.sequence,
            output: Vec::new(),
            result: None,
        });
        waiting.first = waiting.first.min(report.sequence);
        waiting.last = waiting.last.max(report.sequence);
        for chunk in &report.output {
            append(&mut waiting.output, chunk);
        }
        if let Some(result) = &report.result {
            waiting.result = Some(result.clone());
        }
    }

    /// Whether there is something to hand out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.values().all(|host| host.waiting.is_none())
    }

    /// Hands out what has come since the last time, hosts by name. A host with much output gets
    /// several deltas, the result in the last.
    pub fn take(&mut self, now: Timestamp) -> Vec<AccumulatedProgressReport> {
        let mut deltas = Vec::new();
        for (name, host) in &mut self.hosts {
            let Some(waiting) = host.waiting.take() else { continue };
            let missing = host.seen.missing();
            let mut parts = split(waiting.output);
            let tail = parts.pop().unwrap_or_default();
            let mut delta = |output, result: Option<ActionResult>, missing_reports| {
                deltas.push(AccumulatedProgressReport {
                    protocol: ProtocolVersion::V1,
                    request_id: self.request_id,
                    host: name.clone(),
                    sequence: host.sent,
                    first_report: waiting.first,
                    last_report: waiting.last,
                    missing_reports,
                    created_at_ms: now,
                    state: if result.is_some() { ReportState::Finished } else { ReportState::Running },
                    output,
                    success: result.as_ref().map(|result| result.outcome == Outcome::Succeeded),
                    result,
                });
                host.sent = host.sent.saturating_add(1);
            };
            for part in parts {
                delta(part, None, 0);
            }
            host.finished = waiting.result.is_some();
            delta(tail, waiting.result, missing.saturating_sub(host.missing_told));
            host.missing_told = missing;
        }
        deltas
    }
}

/// Adds a chunk, to the last one where it continues it.
fn append(output: &mut Vec<OutputChunk>, chunk: &OutputChunk) {
    match output.last_mut() {
        Some(last)
            if last.stream == chunk.stream
                && last.encoding == Encoding::Text
                && chunk.encoding == Encoding::Text
                && last.offset.checked_add(last.data.len() as u64) == Some(chunk.offset)
                && last.data.len() + chunk.data.len() <= OUTPUT_BYTES_MAX =>
        {
            last.data.push_str(&chunk.data);
        }
        _ => output.push(chunk.clone()),
    }
}

fn split(output: Vec<OutputChunk>) -> Vec<Vec<OutputChunk>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut bytes = 0;
    for chunk in output {
        if !part.is_empty() && bytes + chunk.data.len() > OUTPUT_BYTES_MAX {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += chunk.data.len();
        part.push(chunk);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::{finished, request, running};
    use crate::output::Output;
    use muster_protocol::{Message as _, OutputStream};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn chunk(offset: u64, data: &str) -> OutputChunk {
        OutputChunk { stream: OutputStream::Stdout, offset, encoding: Encoding::Text, data: data.to_owned() }
    }

    fn with_output(mut report: ProgressReport, offset: u64, data: &str) -> ProgressReport {
        report.output = vec![chunk(offset, data)];
        report
    }

    #[test]
    fn a_delta_holds_what_is_new() {
        let mut fold = Fold::new(request(1));
        assert!(fold.is_empty() && fold.take(NOW).is_empty());
        fold.add(&with_output(running("web1", 0), 0, "one "));
        fold.add(&with_output(running("web1", 1), 4, "two "));
        fold.add(&with_output(running("web1", 1), 4, "two "));
        let first = fold.take(NOW);
        assert_eq!(first.len(), 1);
        assert_eq!((first[0].sequence, first[0].first_report, first[0].last_report), (0, 0, 1));
        assert_eq!(first[0].output, [chunk(0, "one two ")]);
        assert!(fold.is_empty());

        fold.add(&with_output(finished("web1", 3, Outcome::Succeeded), 13, "four"));
        fold.add(&running("web2", 0));
        let second = fold.take(NOW);
        assert_eq!(second.len(), 2);
        assert_eq!((second[0].sequence, second[0].missing_reports, second[0].success), (1, 1, Some(true)));
        assert_eq!(second[1].state, ReportState::Running);
        assert!(first.iter().chain(&second).all(|delta| delta.check().is_ok()));

        fold.add(&running("web1", 4));
        assert!(fold.is_empty(), "nothing follows the end");
    }

    #[test]
    fn much_output_is_split() {
        let mut fold = Fold::new(request(1));
        let piece = "x".repeat(60 * 1024);
        for n in 0..9u32 {
            fold.add(&with_output(running("web1", n), u64::from(n) * piece.len() as u64, &piece));
        }
        fold.add(&finished("web1", 9, Outcome::Failed));
        let deltas = fold.take(NOW);
        assert_eq!(deltas.iter().map(|delta| delta.sequence).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(deltas.iter().filter(|delta| delta.result.is_some()).count(), 1);
        assert!(
            deltas.iter().all(|delta| delta.output.iter().map(|c| c.data.len()).sum::<usize>() <= OUTPUT_BYTES_MAX)
        );
    }

    proptest! {
        /// However the reports are cut into foldings, the deltas hold the same output and result.
        #[test]
        fn no_byte_is_lost_or_doubled(texts in proptest::collection::vec("[a-z]{0,9}", 1..12), cuts in any::<u16>()) {
            let mut fold = Fold::new(request(1));
            let (mut whole, mut folded, mut results, mut at) = (Output::default(), Output::default(), 0, 0u64);
            let mut deltas = Vec::new();
            for (n, text) in texts.iter().enumerate() {
                let number = u32::try_from(n).unwrap();
                let report = if n + 1 == texts.len() {
                    finished("web1", number, Outcome::Succeeded)
                } else {
                    running("web1", number)
                };
                let report = with_output(report, at, text);
                at += text.len() as u64;
                whole.insert(&report.output[0], 1 << 20);
                fold.add(&report);
                if cuts & (1 << n) != 0 {
                    deltas.extend(fold.take(NOW));
                }
            }
            deltas.extend(fold.take(NOW));
            for (n, delta) in deltas.iter().enumerate() {
                prop_assert_eq!(delta.sequence as usize, n);
                delta.output.iter().for_each(|chunk| folded.insert(chunk, 1 << 20));
                results += usize::from(delta.result.is_some());
            }
            prop_assert_eq!((folded, results), (whole, 1));
        }
    }
}
