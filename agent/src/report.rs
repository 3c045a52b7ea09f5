//! Building reports: output in chunks, results within bounds. Pure; signing and sending is elsewhere.

mod output;
mod shrink;

use muster_protocol::limits::MESSAGE_TEXT_BYTES_MAX;
use muster_protocol::{
    ActionResult, Code, HostName, Identity, MessageError, OutputChunk, ProgressReport, ProtocolVersion, ReplyRoute,
    ReportState, RequestId, Timestamp, encode,
};
use serde_json::Value;

pub use output::OutputBuffer;
pub(crate) use output::chunk;

/// To whom a report goes, and about what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The request.
    pub request_id: RequestId,
    /// Who asked.
    pub caller: Identity,
    /// Where the answer goes.
    pub reply_to: ReplyRoute,
}

/// How an action ended, before it becomes a result on the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The stable code, which says the outcome.
    pub code: &'static Code,
    /// For people.
    pub message: String,
    /// Exit status of the program that decided it.
    pub exit_code: Option<i32>,
    /// The action's outputs.
    pub data: Value,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// How much output there was, if not all of it is sent, in bytes.
    pub output_truncated_from: Option<u64>,
}

impl Ending {
    /// An end without data.
    #[must_use]
    pub fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            exit_code: None,
            data: Value::Null,
            duration_ms: 0,
            output_truncated_from: None,
        }
    }
}

/// A report that the action runs.
#[must_use]
pub fn running(
    address: &Address,
    host: &HostName,
    sequence: u32,
    now: Timestamp,
    output: Vec<OutputChunk>,
) -> ProgressReport {
    ProgressReport {
        protocol: ProtocolVersion::V1,
        request_id: address.request_id,
        caller: address.caller.clone(),
        host: host.clone(),
        sequence,
        created_at_ms: now,
        state: ReportState::Running,
        output,
        result: None,
    }
}

/// The last report of a request, as the bytes that are to be signed. What does not fit is cut, and the
/// result says so.
///
/// # Errors
/// Only if even a report without data and output does not encode, which would be a mistake of the program.
pub fn finished(
    address: &Address,
    host: &HostName,
    sequence: u32,
    now: Timestamp,
    output: Vec<OutputChunk>,
    ending: Ending,
) -> Result<Vec<u8>, MessageError> {
    let mut report = running(address, host, sequence, now, output);
    report.state = ReportState::Finished;
    let (data, cut_from) = shrink::to_fit(ending.data);
    let mut message = ending.message;
    if let Some(bytes) = cut_from {
        message = joined(&message, &format!("result cut, it had {bytes} bytes"));
    }
    report.result = Some(ActionResult {
        outcome: ending.code.outcome(),
        code: ending.code.code.to_owned(),
        message: cut_text(message, MESSAGE_TEXT_BYTES_MAX),
        exit_code: ending.exit_code,
        data,
        truncated_from_bytes: cut_from.or(ending.output_truncated_from),
        duration_ms: ending.duration_ms,
    });
    match encode(&report) {
        Err(MessageError::TooLarge { bytes }) => without_bulk(report, bytes),
        Err(MessageError::TooDeep) => without_bulk(report, 0),
        done => done,
    }
}

/// The same report without output, and if that is not enough without data.
fn without_bulk(mut report: ProgressReport, bytes: usize) -> Result<Vec<u8>, MessageError> {
    report.output.clear();
    mark(&mut report, bytes, "output left out, it did not fit");
    match encode(&report) {
        Err(MessageError::TooLarge { .. } | MessageError::TooDeep) => {}
        done => return done,
    }
    if let Some(result) = &mut report.result {
        result.data = Value::Null;
    }
    mark(&mut report, bytes, "result left out, it did not fit");
    encode(&report)
}

fn mark(report: &mut ProgressReport, bytes: usize, note: &str) {
    if let Some(result) = &mut report.result {
        result.message = cut_text(joined(&result.message, note), MESSAGE_TEXT_BYTES_MAX);
        result.truncated_from_bytes = result.truncated_from_bytes.max(Some(bytes as u64));
    }
}

fn joined(message: &str, note: &str) -> String {
    // The note goes first: it must not be what is cut off a long message.
    if message.is_empty() { note.to_owned() } else { format!("({note}) {message}") }
}

/// At most `bytes_max` bytes, cut at a character and ended with three dots.
fn cut_text(mut text: String, bytes_max: usize) -> String {
    const DOTS: &str = "...";
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max - DOTS.len()));
        text.push_str(DOTS);
    }
    text
}
