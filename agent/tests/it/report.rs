//! Reports: output keeps its bytes, results keep within their bounds, and what is cut says so.

use base64::Engine as _;
use muster_agent::report::{Address, Ending, OutputBuffer, finished};
use muster_protocol::limits::{BODY_BYTES_MAX, OUTPUT_CHUNK_BYTES_MAX};
use muster_protocol::{Encoding, OutputChunk, OutputStream, ProgressReport, code, decode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::kit::{NOW, fresh_id, host};

fn bytes_of(chunk: &OutputChunk) -> Vec<u8> {
    match chunk.encoding {
        Encoding::Text => chunk.data.clone().into_bytes(),
        Encoding::Base64 => base64::engine::general_purpose::STANDARD.decode(&chunk.data).unwrap(),
    }
}

fn report(output: Vec<OutputChunk>, ending: Ending) -> ProgressReport {
    let address = Address {
        request_id: fresh_id(),
        caller: "muster:user/lea".parse().unwrap(),
        reply_to: "user/lea.s1".parse().unwrap(),
    };
    let body = finished(&address, &host(), 3, NOW, output, ending).unwrap();
    assert!(body.len() <= BODY_BYTES_MAX);
    decode(&body).unwrap()
}

#[test]
fn a_character_is_not_torn_apart() {
    let mut buffer = OutputBuffer::new(1000);
    let text = "grüße".as_bytes();
    buffer.push(OutputStream::Stdout, &text[..3]);
    let first = buffer.take(false);
    assert_eq!((first[0].data.as_str(), first[0].offset, first[0].encoding), ("gr", 0, Encoding::Text));
    assert_eq!(buffer.take(false), [], "half a character waits");
    buffer.push(OutputStream::Stdout, &text[3..]);
    let second = buffer.take(false);
    assert_eq!((second[0].data.as_str(), second[0].offset), ("üße", 2));
    buffer.push(OutputStream::Stdout, &text[2..3]);
    let last = buffer.take(true);
    assert_eq!((last[0].encoding, bytes_of(&last[0])), (Encoding::Base64, text[2..3].to_vec()));
}

#[test]
fn what_has_no_room_is_counted() {
    let mut buffer = OutputBuffer::new(10);
    buffer.push(OutputStream::Stdout, b"0123456789abc");
    buffer.push(OutputStream::Stdout, b"d");
    buffer.push(OutputStream::Stderr, b"e");
    assert_eq!(buffer.truncated_from(), Some(15));
    assert_eq!(buffer.take(true)[0].data, "0123456789");
    assert_eq!(buffer.truncated_from(), Some(15));
    assert_eq!(OutputBuffer::new(10).truncated_from(), None);
}

#[test]
fn a_result_that_is_too_large_is_cut_where_it_is_large() {
    let ending = |data: Value| Ending { data, ..Ending::new(&code::OK, "done") };
    let small = report(Vec::new(), ending(json!({ "a": 1 }))).result.unwrap();
    assert_eq!((small.data, small.truncated_from_bytes), (json!({ "a": 1 }), None));

    let list: Vec<Value> = (0..3_000).map(|number| json!({ "name": "x".repeat(500), "number": number })).collect();
    let data = json!({ "status": "good", "list": list, "text": "short" });
    let size = serde_json::to_vec(&data).unwrap().len() as u64;
    let cut = report(Vec::new(), ending(data)).result.unwrap();
    assert_eq!(cut.truncated_from_bytes, Some(size));
    assert_eq!((&cut.data["status"], &cut.data["text"]), (&json!("good"), &json!("short")));
    let kept = cut.data["list"].as_array().unwrap();
    assert!(kept.len() > 1_000 && kept.len() < 3_000, "{}", kept.len());
    assert!(cut.message.contains(&format!("{size} bytes")) && cut.message.contains("done"), "{}", cut.message);

    for data in [
        json!("\u{0}".repeat(400_000)),
        json!(vec!["x".repeat(900_000)]),
        json!({ "x".repeat(800_000): 1 }),
        (0..60).fold(json!(1), |inner, _| json!([inner])),
    ] {
        let result = report(Vec::new(), ending(data)).result.unwrap();
        assert!(result.truncated_from_bytes.is_some());
    }
}

#[test]
fn a_report_fits_even_with_the_worst_of_everything() {
    let chunk = |stream| OutputChunk {
        stream,
        offset: 0,
        encoding: Encoding::Text,
        data: "\u{1}".repeat(OUTPUT_CHUNK_BYTES_MAX),
    };
    let ending = Ending { data: json!("x".repeat(700_000)), ..Ending::new(&code::FAILED, "ü".repeat(10_000)) };
    let report = report(vec![chunk(OutputStream::Stdout), chunk(OutputStream::Stderr)], ending);
    let result = report.result.unwrap();
    assert!(report.output.is_empty());
    assert!(result.message.starts_with("(output left out") && result.message.ends_with("..."), "{}", result.message);
    assert_eq!(result.data.as_str().unwrap().len(), 700_000);
}

proptest! {
    /// Whatever comes in whatever pieces: the chunks together are the stream, without gap or overlap.
    #[test]
    fn chunks_are_the_stream(pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..30)) {
        let mut buffer = OutputBuffer::new(1_000_000);
        let mut written = [Vec::new(), Vec::new()];
        let mut chunks = Vec::new();
        for (error, bytes, take) in pieces {
            let stream = if error { OutputStream::Stderr } else { OutputStream::Stdout };
            buffer.push(stream, &bytes);
            written[usize::from(error)].extend(bytes);
            if take {
                chunks.extend(buffer.take(false));
            }
        }
        chunks.extend(buffer.take(true));
        prop_assert!(buffer.is_empty());
        let mut read = [Vec::new(), Vec::new()];
        for chunk in &chunks {
            let stream = &mut read[usize::from(chunk.stream == OutputStream::Stderr)];
            prop_assert_eq!(chunk.offset, stream.len() as u64);
            stream.extend(bytes_of(chunk));
        }
        prop_assert_eq!(read, written);
    }
}
