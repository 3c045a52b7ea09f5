//! Takes secret values out of what an action prints and answers, before it leaves the host.
//!
//! An action should not print its secrets, and some do: a shell with `-x`, a program that complains about
//! its input. [`run`] runs an action so that neither its output nor its answer carries them. [`Mask`] knows the values; [`StreamMask`] replaces them in a stream of bytes that comes in
//! pieces, wherever the pieces are cut, and holds back no more than what may be the beginning of a value.
//!
//! This is a net, not a wall: a value that an action prints in another form (reversed, compressed, encoded)
//! passes. Values of fewer than [`VALUE_BYTES_MIN`] bytes are not looked for, since that would mask half of
//! all output.

use std::collections::BTreeSet;

use muster_plugin_api::{
    ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest, BoxFuture, MASK, OutputReceiver, OutputSink,
    Plugin,
};
use muster_protocol::OutputStream;
use serde_json::{Map, Value};

/// Shortest value that is looked for, in bytes.
pub const VALUE_BYTES_MIN: usize = 4;

/// Most values that are looked for: a long secret counts with each of its lines. Each costs a step for each byte
/// of output, and a caller chooses how many there are; a private key has some thirty lines.
const VALUES_MAX: usize = 48;

/// The secret values of one command.
#[derive(Clone, Default)]
pub struct Mask {
    needles: Vec<Needle>,
}

/// Shows how many values there are, and none of them.
impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").field("values", &self.needles.len()).finish()
    }
}

/// One value, with the table of Knuth, Morris and Pratt (1977): how much of it is matched again after each
/// byte that fits and a next one that does not.
#[derive(Clone)]
struct Needle {
    bytes: Vec<u8>,
    failure: Vec<usize>,
}

impl Needle {
    fn new(bytes: Vec<u8>) -> Self {
        let mut failure = vec![0; bytes.len()];
        let mut matched = 0;
        for index in 1..bytes.len() {
            while matched > 0 && bytes[index] != bytes[matched] {
                matched = failure[matched - 1];
            }
            if bytes[index] == bytes[matched] {
                matched += 1;
            }
            failure[index] = matched;
        }
        Self { bytes, failure }
    }

    /// How much is matched after one more byte, given how much was before. The full length means: found.
    fn step(&self, mut matched: usize, byte: u8) -> usize {
        if matched == self.bytes.len() {
            matched = self.failure[matched - 1];
        }
        while matched > 0 && self.bytes[matched] != byte {
            matched = self.failure[matched - 1];
        }
        matched + usize::from(self.bytes[matched] == byte)
    }
}

impl Mask {
    /// A mask for the arguments with these names: every text in them, and every line of a text.
    #[must_use]
    pub fn new(arguments: &Map<String, Value>, secrets: &BTreeSet<String>) -> Self {
        let mut values = BTreeSet::new();
        for (_, value) in arguments.iter().filter(|(name, _)| secrets.contains(*name)) {
            collect(value, &mut values);
        }
        let mut values: Vec<Vec<u8>> = values.into_iter().map(String::into_bytes).collect();
        // Where there are too many the longest are the ones that matter.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.truncate(VALUES_MAX);
        Self { needles: values.into_iter().map(Needle::new).collect() }
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// A text without the values.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_owned();
        }
        let mut stream = StreamMask::new(self);
        let mut shown = stream.push(self, text.as_bytes());
        shown.extend(stream.finish());
        // Values are whole texts, so what is left between them is text too.
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// JSON without the values, in names as well as in texts; a number that is one becomes a text.
    #[must_use]
    pub fn json(&self, value: Value) -> Value {
        if self.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(elements) => elements.into_iter().map(|element| self.json(element)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(name, value)| (self.text(&name), self.json(value))).collect())
            }
            Value::Number(number) => {
                let text = number.to_string();
                let shown = self.text(&text);
                if shown == text { Value::Number(number) } else { Value::String(shown) }
            }
            other => other,
        }
    }
}

/// Pieces of output that may wait to be masked: then the action waits.
const PIECES: usize = 4;

/// Runs an action of a plugin, as everybody in the agent does: its secrets are masked in what it prints and
/// answers. An action without secrets costs nothing more.
pub(crate) fn run(plugin: &dyn Plugin, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
    let mask = Mask::new(&request.arguments, &request.secrets);
    if mask.is_empty() {
        return plugin.run(request, context);
    }
    let (sink, pieces) = OutputSink::channel(PIECES);
    let shown = context.output.clone();
    let action = plugin.run(request, ActionContext { output: sink, ..context });
    Box::pin(async move {
        // Beside each other: while output waits for somebody to take it, the action must still notice that its
        // time is over. The action's end drops its sink, and with it ends the other.
        let (reply, ()) = tokio::join!(action, pass_on(&mask, pieces, &shown));
        match reply {
            Ok(ok) => Ok(ActionOk { data: mask.json(ok.data), message: mask.text(&ok.message) }),
            Err(failure) => {
                Err(ActionFailure { data: mask.json(failure.data), message: mask.text(&failure.message), ..failure })
            }
        }
    })
}

async fn pass_on(mask: &Mask, mut pieces: OutputReceiver, shown: &OutputSink) {
    let (mut stdout, mut stderr) = (StreamMask::new(mask), StreamMask::new(mask));
    while let Some(piece) = pieces.recv().await {
        let stream = match piece.stream {
            OutputStream::Stdout => &mut stdout,
            OutputStream::Stderr => &mut stderr,
        };
        shown.write(piece.stream, stream.push(mask, &piece.bytes)).await;
    }
    shown.write(OutputStream::Stdout, stdout.finish()).await;
    shown.write(OutputStream::Stderr, stderr.finish()).await;
}

fn collect(value: &Value, values: &mut BTreeSet<String>) {
    let mut add = |text: &str| {
        if text.len() >= VALUE_BYTES_MIN {
            values.insert(text.to_owned());
        }
    };
    match value {
        Value::String(text) => {
            add(text);
            text.lines().map(str::trim).for_each(add);
        }
        Value::Number(number) => add(&number.to_string()),
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, values)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, values)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// One stream of output on its way through a mask.
#[derive(Debug, Clone, Default)]
pub struct StreamMask {
    /// Bytes that have not been passed on.
    held: Vec<u8>,
    /// Position of the first of them in the stream.
    held_from: u64,
    /// How much of each value matches at the end.
    matched: Vec<usize>,
    /// Where values were found: from, up to, in order of their ends.
    found: Vec<(u64, u64)>,
}

impl StreamMask {
    /// A stream that has not begun.
    #[must_use]
    pub fn new(mask: &Mask) -> Self {
        Self { matched: vec![0; mask.needles.len()], ..Self::default() }
    }

    /// Takes a piece, and gives what may be passed on.
    #[must_use]
    pub fn push(&mut self, mask: &Mask, bytes: &[u8]) -> Vec<u8> {
        if mask.is_empty() {
            return bytes.to_vec();
        }
        let mut position = self.held_from + self.held.len() as u64;
        self.held.extend_from_slice(bytes);
        for &byte in bytes {
            position += 1;
            for (needle, matched) in mask.needles.iter().zip(&mut self.matched) {
                *matched = needle.step(*matched, byte);
                if *matched == needle.bytes.len() {
                    self.found.push((position - needle.bytes.len() as u64, position));
                }
            }
        }
        let longest = self.matched.iter().zip(&mask.needles);
        // A value that is complete can go; what may become one cannot.
        let open = longest.map(
            |(matched, needle)| {
                if *matched == needle.bytes.len() { needle.failure[*matched - 1] } else { *matched }
            },
        );
        let safe = position - open.max().unwrap_or(0) as u64;
        self.release(safe)
    }

    /// Gives what was held back. The stream is over.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        let end = self.held_from + self.held.len() as u64;
        self.release(end)
    }

    /// Passes on everything before `safe`, with a mask in place of what was found. A value that reaches beyond
    /// `safe` stays whole.
    fn release(&mut self, mut safe: u64) -> Vec<u8> {
        self.found.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for &(from, to) in &self.found {
            match merged.last_mut() {
                Some((_, end)) if from < *end => *end = (*end).max(to),
                _ => merged.push((from, to)),
            }
        }
        // A later value may overlap one that ends before `safe`; then both wait.
        for &(from, to) in merged.iter().rev() {
            if from < safe && to > safe {
                safe = from;
            }
        }
        let mut shown = Vec::with_capacity(self.held.len());
        let mut at = self.held_from;
        let index = |position: u64| usize::try_from(position - self.held_from).unwrap_or(usize::MAX);
        for &(from, to) in merged.iter().take_while(|(_, to)| *to <= safe) {
            shown.extend_from_slice(&self.held[index(at)..index(from)]);
            shown.extend_from_slice(MASK.as_bytes());
            at = to;
        }
        shown.extend_from_slice(&self.held[index(at)..index(safe.max(at))]);
        let safe = safe.max(at);
        self.held.drain(..index(safe));
        self.held_from = safe;
        self.found.retain(|(_, to)| *to > safe);
        shown
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn mask(values: &[&str]) -> Mask {
        let arguments = Map::from_iter([("token".to_owned(), json!(values)), ("name".to_owned(), json!("visible"))]);
        Mask::new(&arguments, &["token".to_owned()].into())
    }

    fn stream(mask: &Mask, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut stream = StreamMask::new(mask);
        let mut out: Vec<Vec<u8>> = pieces.iter().map(|piece| stream.push(mask, piece)).collect();
        out.push(stream.finish());
        out
    }

    #[track_caller]
    fn check(values: &[&str], pieces: &[&str], expected: &str) {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        let shown = stream(&mask(values), &pieces).concat();
        assert_eq!(String::from_utf8(shown).unwrap(), expected);
    }

    #[test]
    fn values_are_masked_wherever_the_pieces_are_cut() {
        check(&["s3cret"], &["the token is s3cret.\n"], "the token is ***.\n");
        check(&["s3cret"], &["the token is s3", "cr", "et.\n"], "the token is ***.\n");
        check(&["s3cret"], &["s3s3crets3cre"], "s3***s3cre");
        check(&["aaaa"], &["aaa", "aaa"], "***");
        check(&["abcdabce"], &["abcdabcdabce"], "abcd***");
        check(&["first", "second value"], &["first second ", "value third"], "*** *** third");
        check(&["ab", "abc"], &["ab abc"], "ab abc");
        check(&["line one\nline two"], &["x line two y"], "x *** y");
        check(&[], &["visible"], "visible");
    }

    #[test]
    fn nothing_is_held_back_that_cannot_become_a_value() {
        let out = stream(&mask(&["s3cret"]), &[b"hello ", b"s3", b" world"]);
        assert_eq!(out[0], b"hello ");
        assert_eq!(out[1], b"");
        assert_eq!(out[2], b"s3 world");
    }

    #[test]
    fn answers_are_masked_too() {
        let mask = mask(&["s3cret"]);
        let shown = mask.json(json!({"given s3cret": ["x s3cret", 7, null, {"deep": "s3crets3cret"}]}));
        assert_eq!(shown, json!({"given ***": ["x ***", 7, null, {"deep": "******"}]}));
        assert_eq!(format!("{mask:?}"), "Mask { values: 1 }");
    }

    /// Prints its argument in two parts and answers with it.
    struct Careless(muster_protocol::ddl::Ddl);

    impl Plugin for Careless {
        fn ddl(&self) -> &muster_protocol::ddl::Ddl {
            &self.0
        }

        fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
            Box::pin(async move {
                let token = request.text("token").unwrap_or_default().to_owned();
                let (first, second) = token.split_at(3);
                context.output.write(OutputStream::Stdout, format!("begin {first}").into_bytes()).await;
                context.output.write(OutputStream::Stdout, format!("{second} end {first}").into_bytes()).await;
                context.output.write(OutputStream::Stderr, token.clone().into_bytes()).await;
                Ok(ActionOk::data(json!({ "given": token })).with_message(format!("took {token}")))
            })
        }
    }

    #[tokio::test]
    async fn a_careless_action_gives_no_secret_away() {
        let ddl = muster_protocol::ddl::Ddl::parse(r#"{"metadata": {"name": "careless"}, "actions": []}"#).unwrap();
        let (sink, mut output) = OutputSink::channel(16);
        let context = muster_plugin_api::conformance::context(muster_plugin_api::CancellationToken::new());
        let request = ActionRequest {
            request_id: muster_protocol::RequestId::from_parts(muster_protocol::Timestamp(0), [0; 10]),
            caller: "muster:user/lea".parse().unwrap(),
            action: "run".parse().unwrap(),
            arguments: Map::from_iter([("token".to_owned(), json!("s3cret"))]),
            secrets: ["token".to_owned()].into(),
            noop: false,
            effective_user: None,
            time_limit: std::time::Duration::from_secs(60),
        };
        let plugin = Careless(ddl);
        let reply = run(&plugin, request, ActionContext { output: sink, ..context }).await.unwrap();
        assert_eq!((reply.data, reply.message.as_str()), (json!({ "given": "***" }), "took ***"));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(piece) = output.recv().await {
            let stream = if piece.stream == OutputStream::Stdout { &mut stdout } else { &mut stderr };
            stream.extend(piece.bytes);
        }
        assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"begin *** end s3c"[..], &b"***"[..]));
    }

    proptest! {
        /// Where the pieces are cut changes nothing, no value is left, and what is left is what was there.
        #[test]
        fn cuts_do_not_matter(
            values in prop::collection::vec("[abc]{4,7}", 1..4),
            text in "[abcd ]{0,80}",
            cuts in prop::collection::vec(0_usize..80, 0..6),
        ) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let mask = mask(&values);
            let whole = stream(&mask, &[text.as_bytes()]).concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let shown = stream(&mask, &pieces).concat();
            for value in &values {
                prop_assert!(!String::from_utf8_lossy(&shown).contains(value));
            }
            // A value that overlaps the one before it may be masked by itself, depending on the cut.
            let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('*', "");
            prop_assert_eq!(plain(&shown), plain(&whole));
        }
    }
}
