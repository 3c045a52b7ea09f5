//! What the agent reads from its own disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use muster_agent::audit::{Audit, Rotation, verify_all};
use muster_agent::config::{Config, sources};
use muster_agent::detached::ActionDirectory;
use muster_agent::detached::cursor::{CursorLog, after_lost_lines};
use muster_agent::detached::directory::Found;
use muster_agent::detached::output::{FRAME_BYTES_MAX, Next, OutputReader, OutputWriter};
use muster_agent::journal::{Journal, Seen};
use muster_agent::mask::{Mask, StreamMask, VALUE_BYTES_MIN};
use muster_agent::policy::{Known, Policy, Question, Verdict};
use muster_agent::spool::Spool;
use muster_daemon::disk::{Disk, RealDisk};
use muster_protocol::ddl::Ddl;
use muster_protocol::expr::HostScope;
use muster_protocol::{CollectiveName, HostName, OutputStream, RequestId, Timestamp};
use serde_json::{Map, Value};

use crate::input::Input;
use crate::{Target, scratch};

/// When everything happens.
const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// The real one: what is kept there is in memory where the system has such a place.
fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

/// The agent's configuration: the file, then pieces `NAME=VALUE` as variables.
pub(crate) const AGENT_CONFIG: Target = Target {
    name: "agent-config",
    bytes_max: 4096,
    seeds: &["dist/etc/", "fuzz/seeds/agent-config/"],
    words: &[
        "[broker]\n",
        "[pki]\n",
        "[facts]\n",
        "[limits]\n",
        "[plugins.file]\n",
        "[audit]\n",
        "urls = [\"amqps://",
        "MUSTERD_LIMITS__",
        "= true\n",
        "= -1\n",
        "9223372036854775807",
        "\"\"\"",
        "''",
        "[[",
        "1979-05-27",
        "= nan\n",
    ],
    run: agent_config,
};

fn agent_config(input: &[u8]) {
    let mut input = Input(input);
    let file = scratch::file("musterd.toml", input.piece());
    let variables = input
        .texts()
        .into_iter()
        .filter_map(|text| text.split_once('=').map(|(name, value)| (format!("MUSTERD_{name}"), value.to_owned())));
    let sources = sources(&file, Path::new("/nonexistent"), variables);
    match Config::load_partial(sources.clone()) {
        Ok((Some((loaded, config)), problems)) => {
            assert!(loaded.print(&[]).is_ok(), "what is in force can be shown");
            assert!(config.heartbeat_s() > 0 && !config.connect_timeout().is_zero());
            assert_eq!(problems.is_empty(), Config::load(sources).is_ok_and(|(_, _, unknown)| unknown.is_empty()));
        }
        Ok((None, problems)) => assert!(!problems.is_empty(), "it says what is wrong"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Policies: the file, a zero byte, and arguments.
pub(crate) const POLICY: Target = Target {
    name: "policy",
    bytes_max: 4096,
    seeds: &["dist/etc/policy.toml", "fuzz/seeds/policy/"],
    words: &[
        "[[rule]]\n",
        "name = \"",
        "effect = \"allow\"",
        "effect = \"deny\"",
        "when = '",
        "when = \"\"\"",
        "caller.kind",
        "caller.groups",
        "signatures",
        "action",
        "read_only",
        "arg.",
        "noop",
        "effective_user",
        " has ",
        "fact.",
    ],
    run: policy,
};

fn policy(input: &[u8]) {
    let mut input = Input(input);
    let text = input.text();
    let path = Path::new("/etc/muster/policy.toml");
    let policy = match Policy::parse_all(&text, path) {
        Ok(policy) => policy,
        Err(errors) => {
            assert!(!errors.is_empty() && errors.iter().all(|error| !error.to_string().is_empty()));
            assert!(Policy::parse(&text, path).is_err());
            return;
        }
    };
    let descriptions: Vec<Ddl> = muster_plugin_api::builtin_ddls().to_vec();
    let arguments: Map<String, Value> = serde_json::from_slice(input.rest()).unwrap_or_default();
    let known = Known { descriptions: descriptions.iter().collect(), facts: Some(&arguments) };
    drop(policy.warnings(&known));
    let host = HostName::new("web1.example.com").expect("a host's name");
    let (names, collectives, calls) = (BTreeSet::new(), BTreeSet::<CollectiveName>::new(), BTreeMap::new());
    let scope = HostScope {
        name: &host,
        facts: &arguments,
        classes: &names,
        plugins: &names,
        collectives: &collectives,
        calls: &calls,
    };
    let question = Question {
        signers: &[],
        plugin: "package",
        action: "package.install",
        read_only: Some(false),
        arguments: &arguments,
        noop: false,
        effective_user: None,
    };
    let mut looked_at = 0;
    let verdict = policy.ask_observed(&question, &scope, &mut |_| looked_at += 1);
    assert!(looked_at <= policy.rules().len());
    assert_eq!(verdict, policy.ask(&question, &scope));
    if policy.rules().is_empty() {
        assert_eq!(verdict, Verdict::NoRule, "without a rule nothing is allowed");
    }
    if let Verdict::Allowed { rule } = &verdict {
        let named =
            policy.rules().iter().any(|one| one.name == *rule && one.effect == muster_agent::policy::Effect::Allow);
        assert!(named, "what allows is a rule that allows");
    }
}

/// Files of facts: a letter for the format, then the text.
pub(crate) const FACTS: Target = Target {
    name: "facts",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/facts/"],
    words: &[
        "---\n",
        "&a ",
        "*a",
        "<<: *a\n",
        "- ",
        ": ",
        "!!",
        "[[a]]\n",
        "1979-05-27T07:32:00Z",
        "\"\"\"",
        "|\n",
        ">-\n",
        "%YAML 1.2\n",
    ],
    run: facts,
};

fn facts(input: &[u8]) {
    let mut input = Input(input);
    let extension = match input.byte() {
        b'j' => "json",
        b'y' => "yaml",
        b't' => "toml",
        b'l' => "txt",
        _ => "",
    };
    match muster_agent::fuzzing::facts(extension, &input.rest_text()) {
        Ok(values) => {
            let json = serde_json::to_string(&values).expect("facts are JSON");
            let again: Map<String, Value> = serde_json::from_str(&json).expect("facts are JSON that is read");
            assert_eq!(again.len(), values.len());
            // Whatever the bytes were, an inventory has room for it, or says so; aliases must not multiply.
            assert!(json.len() <= 8 * 1024 * 1024, "{} bytes of facts", json.len());
        }
        Err(why) => assert!(!why.is_empty() && !why.contains('\n'), "{why:?}"),
    }
}

/// Journals: raw bytes (`r`), or records whose checksum is right (`c`, pieces of JSON; an empty piece is a torn end).
pub(crate) const JOURNAL: Target = Target {
    name: "journal",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/journal/"],
    words: &[
        "{\"record\":\"started\",",
        "{\"record\":\"sequence\",",
        "{\"record\":\"finished\",",
        "{\"record\":\"forgotten\",",
        "{\"record\":\"format\",\"version\":",
        "\"keep_until_ms\":",
        "\"reserved\":",
        "\"refused\":\"policy-denied\"",
    ],
    run: journal,
};

fn journal(input: &[u8]) {
    let mut input = Input(input);
    let bytes = if input.byte() == b'c' { checksummed(input) } else { input.rest().to_vec() };
    let path = scratch::file("journal", &bytes);
    let Ok((journal, _)) = Journal::open(&disk(), &path, NOW) else { return };
    let mentioned = String::from_utf8_lossy(&bytes);
    let mut unfinished = Vec::new();
    for started in journal.unfinished() {
        assert!(mentioned.contains(&started.id.to_string()), "no id is invented");
        assert!(journal.is_unfinished(&started.id));
        assert_eq!(journal.seen(&started.id, NOW), Some(Seen::Started));
        unfinished.push(started);
    }
    let count = journal.len();
    assert!(unfinished.len() <= count && count <= mentioned.matches("\"id\"").count().max(bytes.len() / 16));
    drop(journal);
    let (again, opened) = Journal::open(&disk(), &path, NOW).expect("what was written anew is read");
    assert_eq!((opened.torn_bytes, opened.damaged_lines), (0, 0), "what was written anew is whole");
    assert_eq!((again.len(), again.unfinished()), (count, unfinished), "nothing is lost on the way");
}

/// Lines of a journal around these pieces of JSON.
fn checksummed(input: Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut input = input;
    while !input.is_empty() {
        bytes.extend(muster_agent::fuzzing::journal_line(input.piece()));
    }
    bytes
}

/// A file of the spool, under its right name if it names a request.
pub(crate) const SPOOL: Target = Target {
    name: "spool",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/spool/"],
    words: &[
        "\"format\":1",
        "\"request_id\":\"",
        "\"routing_key\":\"",
        "\"expires_at_ms\":",
        "\"envelope\":{",
        "\"payload\":\"",
    ],
    run: spool,
};

fn spool(input: &[u8]) {
    let name = serde_json::from_slice::<Value>(input).ok();
    let name = name.as_ref().and_then(|value| value["request_id"].as_str()?.parse::<RequestId>().ok());
    let name = name.map_or_else(|| "0193a3f5-7b3c-7def-8123-456789abcdef.json".to_owned(), |id| format!("{id}.json"));
    let directory = scratch::empty().join("spool");
    std::fs::create_dir(&directory).expect("the directory can be made");
    std::fs::write(directory.join(name), input).expect("the file can be written");
    let listed = muster_agent::spool::list(&RealDisk, &directory).map(|listed| listed.len());
    let (mut spool, opened) = Spool::open(&disk(), &directory).expect("a damaged file is no reason to stop");
    assert_eq!(opened.reports + opened.damaged.len(), 1, "a file is a report or set aside");
    assert_eq!(listed.ok().unwrap_or(1), 1);
    assert_eq!(spool.len(), opened.reports);
    let expired = spool.expired(NOW);
    assert!(expired.iter().all(|(_, parcel)| parcel.expires_at <= NOW));
    expired.iter().for_each(|(key, _)| spool.remove(*key));
    assert_eq!(spool.len() + expired.len(), opened.reports);
}

/// An audit log, raw.
pub(crate) const AUDIT: Target = Target {
    name: "audit",
    bytes_max: 8192,
    seeds: &["fuzz/seeds/audit/"],
    words: &["{\"previous\":\"", "\"sequence\":", "\"at_ms\":", "\"details\":{", ",\"hash\":\"", "\"}\n"],
    run: audit,
};

fn audit(input: &[u8]) {
    let path = scratch::file("audit.jsonl", input);
    let before = verify_all(&path, None);
    if let Ok(verified) = &before {
        let lines = input.iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(verified.lines, lines, "a whole log is all of its lines");
    }
    // An agent goes on with it, or sets it aside; it never goes on behind something that is damaged as if it were whole.
    if let Ok(log) = Audit::open(&disk(), &path, "web1.example.com", NOW, Rotation::default()) {
        let (sequence, _) = log.head();
        if let Ok(verified) = before {
            assert!(sequence >= verified.last_sequence);
        }
        drop(log);
        assert!(path.exists());
    }
}

/// The directory of a detached action: a letter for the file, then its content.
pub(crate) const ACTION_DIRECTORY: Target = Target {
    name: "action-directory",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/action-directory/"],
    words: &[
        "\"format\":1",
        "\"sequence\":",
        "\"place\":{\"position\":",
        "\"kept\":{\"stdout\":",
        "18446744073709551615",
    ],
    run: action_directory,
};

fn action_directory(input: &[u8]) {
    let mut input = Input(input);
    let file = input.byte();
    match file {
        b'o' => return output_frames(input),
        b'w' => return output_written(input),
        _ => {}
    }
    let directory = scratch::empty().join("0193a3f5-7b3c-7def-8123-456789abcdef");
    std::fs::create_dir(&directory).expect("the directory can be made");
    let name = match file {
        b'q' => "request.json",
        b'b' => "begun.json",
        b's' => "stop.json",
        b'c' => "cursor",
        _ => "reply.json",
    };
    std::fs::write(directory.join(name), input.rest()).expect("the file can be written");
    let action = ActionDirectory::at(&directory);
    if let Found::There(order) = action.order() {
        let _ = (order.name(), order.address(), order.request(Map::new()));
    }
    if let Found::There(begun) = action.begun() {
        let _ = (begun.ends_by(NOW, Some(1)), begun.ends_by(NOW, None));
    }
    if let Found::There(reply) = action.reply() {
        let _ = (reply.ending(), reply.kept.sum(), reply.written.sum());
    }
    let _ = (action.stop(), action.size());
    let (mut log, last) = CursorLog::open(&action.cursor()).expect("notes are read as far as they go");
    let next = after_lost_lines(last.as_ref());
    if let Some(sent) = last {
        assert!(next > sent.sequence || sent.sequence > u32::MAX - 64, "a number is not used twice");
        log.note(&sent).expect("a line can be written");
        drop(log);
        let (_, again) = CursorLog::open(&action.cursor()).expect("notes are read");
        assert_eq!(again, Some(sent), "the last line is read again");
    }
}

/// Raw frames, from a position (2 bytes).
fn output_frames(mut input: Input<'_>) {
    let position = u64::from(input.short());
    let bytes = input.rest();
    let path = scratch::file("output", bytes);
    let mut reader = OutputReader::open(&path, position).expect("there is a file");
    let mut skipping = OutputReader::open(&path, position).expect("there is a file");
    while let Ok(Next::Frame { bytes: content, length, stream }) = reader.next(true) {
        assert!(content.len() as u64 == length && content.len() <= FRAME_BYTES_MAX);
        assert!(reader.position() <= bytes.len() as u64, "nothing is read beyond the end");
        let Ok(Next::Frame { stream: other, length: skipped, .. }) = skipping.next(false) else {
            panic!("what is whole can be skipped");
        };
        assert_eq!((other, skipped, skipping.position()), (stream, length, reader.position()));
    }
}

/// Frames as the runner writes them, then one byte changed: what is read is a beginning of what was written.
fn output_written(mut input: Input<'_>) {
    let (place, mask) = (usize::from(input.short()), input.byte());
    let path = scratch::empty().join("output");
    let mut writer = OutputWriter::create(&path, 1024).expect("the file can be made");
    let mut written: Vec<(OutputStream, Vec<u8>)> = Vec::new();
    while !input.is_empty() {
        let stream = input.choice(&[OutputStream::Stdout, OutputStream::Stderr]);
        let piece = input.piece();
        writer.write(stream, piece);
        written.push((stream, piece.to_vec()));
    }
    let (_, kept) = writer.totals();
    assert!(kept.sum() <= 1024, "the bound holds");
    drop(writer);
    let mut bytes = std::fs::read(&path).expect("the file can be read");
    let length = bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(place % length) {
        *byte ^= mask;
    }
    std::fs::write(&path, &bytes).expect("the file can be written");
    let mut reader = OutputReader::open(&path, 0).expect("there is a file");
    let of = |pieces: &[(OutputStream, Vec<u8>)], stream| -> Vec<u8> {
        pieces.iter().filter(|(one, _)| *one == stream).flat_map(|(_, bytes)| bytes.clone()).collect()
    };
    let mut read = Vec::new();
    while let Ok(Next::Frame { stream, bytes, .. }) = reader.next(true) {
        read.push((stream, bytes));
    }
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        assert!(of(&written, stream).starts_with(&of(&read, stream)), "what is damaged is not shown");
    }
    if mask == 0 && written.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= 1024 {
        assert_eq!(of(&read, OutputStream::Stdout), of(&written, OutputStream::Stdout));
    }
}

/// Secrets in output: the secrets as pieces, an empty piece, then the output; cut at a place (first 2 bytes).
pub(crate) const MASK: Target =
    Target { name: "mask", bytes_max: 512, seeds: &["fuzz/seeds/mask/"], words: &["***", "aaaa", "abab"], run: mask };

fn mask(input: &[u8]) {
    let mut input = Input(input);
    let place = usize::from(input.short());
    let mut secrets = Vec::new();
    while !input.is_empty() && secrets.len() < 5 {
        match input.text() {
            text if text.is_empty() => break,
            text => secrets.push(text),
        }
    }
    let output = input.rest();
    let arguments: Map<String, Value> = [("password".to_owned(), Value::from(secrets.clone()))].into_iter().collect();
    let mask = Mask::new(&arguments, &["password".to_owned()].into());
    let whole = |pieces: &[&[u8]]| {
        let mut stream = StreamMask::new(&mask);
        let mut shown: Vec<u8> = pieces.iter().flat_map(|piece| stream.push(&mask, piece)).collect();
        shown.extend(stream.finish());
        shown
    };
    let shown = whole(&[output]);
    let (before, behind) = output.split_at(place % (output.len() + 1));
    assert_eq!(whole(&[before, behind]), shown, "where it is cut does not matter");
    let single: Vec<&[u8]> = output.chunks(1).collect();
    assert_eq!(whole(&single), shown, "where it is cut does not matter");
    for secret in secrets.iter().filter(|secret| secret.len() >= VALUE_BYTES_MIN && !secret.contains(['\n', '\r'])) {
        // A secret that consists of what stands for secrets, or that a mask completes, cannot be told from one.
        let found = shown.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(
            !found || secret.contains('*') || secret.trim() != secret,
            "`{secret}` is in {:?}",
            shown.escape_ascii().to_string()
        );
    }
}
