//! A host that sends whoever asks it as much as it can, in the shapes that cost most to take in. The command line
//! stays within its memory, ends in time with the answers of the honest, and says what it did not take.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use muster_protocol::limits::{BODY_BYTES_MAX, JSON_DEPTH_MAX};
use muster_protocol::{Command, Encoding, HostName, OutputChunk, OutputStream, PayloadType, routing};
use muster_tests::stage::{Stage, host};
use serde_json::{Value, json};

use super::BROKER;
use super::rogue::{Rogue, Wire, finished, next_command, running};

/// Peak of the memory that `muster` may take while somebody floods it, in KiB: some 30 MiB of its own, the share of
/// output that is kept, and one host's answer in the widest shape JSON has.
const RESIDENT_KIB_MAX: u64 = 320 * 1024;

/// Bytes of output in one flooding report, as JSON: little less than a message may have.
const REPORT_BYTES: usize = BODY_BYTES_MAX - 64 * 1024;

/// The most memory that a process has had resident so far, in KiB (proc(5), `VmHWM`).
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Waits for a process to end, and gives what it wrote and the peak of its memory.
fn watched(mut child: Child) -> (std::process::Output, u64) {
    let (pid, peak) = (child.id(), Arc::new(AtomicU64::new(0)));
    let done = Arc::new(Mutex::new(false));
    let (seen, ended) = (Arc::clone(&peak), Arc::clone(&done));
    let watcher = std::thread::spawn(move || {
        while !*ended.lock().unwrap() {
            seen.fetch_max(peak_kib(pid).unwrap_or(0), Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    });
    child.stdin.take();
    let output = child.wait_with_output().unwrap();
    *done.lock().unwrap() = true;
    watcher.join().unwrap();
    (output, peak.load(Ordering::Relaxed))
}

fn piece(offset: u64, data: &str) -> OutputChunk {
    OutputChunk { stream: OutputStream::Stdout, offset, encoding: Encoding::Text, data: data.to_owned() }
}

/// As many pieces as one report holds.
fn pieces(offset: impl Fn(u64) -> u64, data: &str) -> Vec<OutputChunk> {
    let one = serde_json::to_vec(&piece(u64::MAX, data)).unwrap().len() + 1;
    (0..(REPORT_BYTES / one) as u64).map(|number| piece(offset(number), data)).collect()
}

/// Everything that a host may sign and that costs whoever takes it in.
async fn flood(rogue: &Rogue, command: &Command, name: &HostName) {
    let mine = rogue.credentials();
    let mut sequence = 0;
    let mut number = || {
        sequence += 3;
        sequence
    };
    let top = 64 << 20;
    let report = |sequence| running(command, name, sequence);
    // One long piece, then in front of it byte by byte; each second byte; all over each other; at the end of the world.
    let mut long = report(number());
    long.output = vec![piece(top, &"x".repeat(REPORT_BYTES))];
    rogue.answer(command, &long, mine).await;
    for round in 0..2u64 {
        for offset in [
            Box::new(move |n: u64| top - round * 20_000 - n - 1) as Box<dyn Fn(u64) -> u64 + Send>,
            Box::new(move |n: u64| n * 2 + round),
            Box::new(move |n: u64| n % 7),
            Box::new(move |n: u64| u64::MAX - n * 2),
        ] {
            let mut report = report(number());
            report.output = pieces(offset, "y");
            rogue.answer(command, &report, mine).await;
        }
    }
    // Numbers with gaps, repeated, at the end of the range; in the name of others, and no report at all.
    let (key, reply) = (routing::reply_key(&command.reply_to, name), routing::EXCHANGE_REPLY);
    let numbers = (0..1_500u32).map(|n| n.wrapping_mul(2_654_435_761));
    rogue.flood(reply, &key, numbers.map(|number| Wire::signed(&report(number), &[mine]))).await;
    let other: HostName = "other.ams1".parse().unwrap();
    let forged = Wire::signed(&running(command, &other, 0), &[mine]);
    rogue.flood(reply, &key, std::iter::repeat_n(forged, 200)).await;
    let deep = [vec![b'['; 500_000], vec![b']'; 500_000]].concat();
    rogue.send(routing::EXCHANGE_REPLY, &key, &Wire::of_bytes(PayloadType::Report, deep, &[mine])).await;
    let large = vec![b' '; BODY_BYTES_MAX + 1];
    rogue.send(routing::EXCHANGE_REPLY, &key, &Wire::of_bytes(PayloadType::Report, large, &[mine])).await;
    // And an end that is as wide and as deep as it may be.
    let mut nested = Value::Null;
    for _ in 0..JSON_DEPTH_MAX - 8 {
        nested = json!([nested]);
    }
    let wide: Vec<Value> = std::iter::repeat_n(json!({}), 250_000).collect();
    let last = finished(command, name, u32::MAX, &"z".repeat(4_000), json!({ "nested": nested, "wide": wide }));
    rogue.answer(command, &last, mine).await;
    // Late ones.
    rogue.flood(reply, &key, (0..200).map(|number| Wire::signed(&report(number), &[mine]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_floods_costs_neither_memory_nor_the_answers_of_others() {
    let stage = Stage::on(BROKER.hostile(["host/web-1.ams1", "host/evil.ams1", "user/lea"], "host/evil.ams1"));
    let _agents = stage.agents([host("web-1.ams1")]);
    let rogue = Rogue::open(&stage, "host/evil.ams1").await;
    let mut commands = rogue.listen("agent.evil.ams1", routing::EXCHANGE_COMMAND, &["host.evil.ams1"]).await;
    let name: HostName = "evil.ams1".parse().unwrap();
    let lea = stage.operator("lea", &[]);
    for stream in [false, true] {
        let mut arguments = vec!["run", "host.ping", "-H", "web-1.ams1,evil.ams1", "--jsonl", "--reply-timeout", "60s"];
        if stream {
            arguments = vec!["run", "host.ping", "-H", "web-1.ams1,evil.ams1", "--stream", "--reply-timeout", "60s"];
        }
        let mut line = lea.command(&arguments).unwrap();
        let child = line.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let waiting = tokio::task::spawn_blocking(move || watched(child));
        let (command, _) = next_command(&mut commands).await;
        // The reply queue goes with its reader, who need not read all of it.
        let flooding = flood(&rogue, &command, &name);
        let (output, peak) = tokio::join!(waiting, flooding).0.unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let shown = |text: &str| text.chars().take(4_000).collect::<String>();
        let told = format!("{}\n---\n{}", shown(&stdout), shown(&stderr));
        eprintln!("stream {stream}: {peak} KiB at most, {} bytes on standard output", stdout.len());
        assert!(
            output.status.code().is_some_and(|code| code <= 1 || code == 5 || code == 3),
            "{}\n{told}",
            output.status
        );
        assert!(peak > 0 && peak < RESIDENT_KIB_MAX, "{peak} KiB at most; {told}");
        assert!(stdout.contains("web-1.ams1"), "the honest host's answer is there: {told}");
        assert!(!stderr.contains("panicked"), "{told}");
        assert!(stderr.contains("evil.ams1"), "who floods is named: {told}");
    }
}
