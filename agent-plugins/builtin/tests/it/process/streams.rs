//! Input and output: all of it, in order, and no more memory than agreed.

use std::fs;

use muster_plugin_api::{CancellationToken, OutputPiece, OutputReceiver, OutputSink};
use muster_plugins::process::{End, Program};
use muster_protocol::OutputStream;

use super::{LONG, SHORT, pid, run, shell};
use crate::support::{dies, in_a_process_of_its_own, until};

async fn collect(mut receiver: OutputReceiver) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(OutputPiece { stream, bytes }) = receiver.recv().await {
        match stream {
            OutputStream::Stdout => stdout.extend(bytes),
            OutputStream::Stderr => stderr.extend(bytes),
        }
    }
    (stdout, stderr)
}

#[tokio::test]
async fn what_is_streamed_is_every_byte_of_both_streams() {
    let text =
        r#"i=0; while [ $i -lt 256 ]; do printf "\\$(printf %o $i)"; i=$((i + 1)); done; printf 'no line end' >&2"#;
    let (sink, receiver) = OutputSink::channel(1);
    let program = shell(text, LONG).output_bytes_max(5).stream_to(sink);
    let (run, streamed) = tokio::join!(
        async {
            let run = run(&program).await;
            drop(program);
            run
        },
        collect(receiver)
    );
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(streamed, (all, b"no line end".to_vec()));
    assert_eq!((run.stdout.bytes.as_slice(), run.stdout.total_bytes), (&[0, 1, 2, 3, 4][..], 256));
    assert_eq!(run.unstreamed_bytes, 0);
}

/// The most memory this process ever had, in bytes.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn fifty_megabytes_go_through_and_memory_does_not_grow() {
    if !in_a_process_of_its_own("process::streams::fifty_megabytes_go_through_and_memory_does_not_grow") {
        return;
    }
    const TOTAL: u64 = 50 * 1024 * 1024;
    const PATTERN: &[u8] = b"0123456789abcdef\n";
    let before = peak_bytes();
    let (sink, mut receiver) = OutputSink::channel(4);
    let program = shell("yes 0123456789abcdef | head -c \"$1\"", LONG).argument(TOTAL.to_string()).stream_to(sink);
    let reads = async {
        let mut count = 0_u64;
        while let Some(piece) = receiver.recv().await {
            for byte in piece.bytes {
                let at = usize::try_from(count % PATTERN.len() as u64).unwrap();
                assert_eq!(byte, PATTERN[at], "byte {count}");
                count += 1;
            }
        }
        count
    };
    let runs = async {
        let run = run(&program).await;
        drop(program);
        run
    };
    let (run, count) = tokio::join!(runs, reads);
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    assert_eq!((count, run.stdout.total_bytes, run.unstreamed_bytes), (TOTAL, TOTAL, 0));
    let grown = peak_bytes() - before;
    assert!(grown < 8 * 1024 * 1024, "memory grew by {grown} bytes");
}

#[tokio::test]
async fn a_full_sink_makes_the_program_wait_and_its_time_still_ends() {
    let directory = tempfile::tempdir().unwrap();
    let done = directory.path().join("done");
    let (sink, receiver) = OutputSink::channel(1);
    let program = shell("head -c 1000000 /dev/zero; : > \"$1\"", SHORT).argument(&done).stream_to(sink);
    let run = run(&program).await;
    assert!(matches!(run.end, End::TimedOut), "{run:?}");
    assert!(!done.exists(), "it went on although nobody took its output");
    assert!(run.stdout.total_bytes < 1_000_000 && run.unstreamed_bytes > 0, "{run:?}");
    drop(receiver);
}

#[tokio::test]
async fn a_full_sink_does_not_keep_it_from_being_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let (sink, receiver) = OutputSink::channel(1);
    let program = shell("echo $$; : > \"$1\"; exec cat /dev/zero", LONG).argument(&ready).grace(SHORT).stream_to(sink);
    let cancel = CancellationToken::new();
    let (run, ()) = tokio::join!(program.run(&cancel), async {
        until(|| ready.exists(), |exists| *exists).await;
        cancel.cancel();
    });
    assert!(matches!(run.end, End::Cancelled), "{run:?}");
    let leader: i32 = run.stdout.text().lines().next().unwrap().parse().unwrap();
    dies(leader).await;
    drop(receiver);
}

#[tokio::test]
async fn a_reader_that_is_late_still_gets_everything() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let (sink, receiver) = OutputSink::channel(1);
    // More than the sink and a piece hold, less than the pipe does, so that it can end before anybody reads.
    let text = "head -c 60000 /dev/zero; echo $$ > \"$1.new\"; mv \"$1.new\" \"$1\"";
    let program = shell(text, LONG).argument(&file).stream_to(sink);
    let runs = async {
        let run = run(&program).await;
        drop(program);
        run
    };
    let reads = async {
        until(|| file.exists(), |exists| *exists).await;
        dies(fs::read_to_string(&file).unwrap().trim().parse().unwrap()).await;
        collect(receiver).await.0.len()
    };
    let (run, count) = tokio::join!(runs, reads);
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    assert_eq!((count, run.unstreamed_bytes, run.output_held_open), (60_000, 0, false));
}

#[tokio::test]
async fn a_reader_that_went_away_does_not_stop_the_program() {
    let (sink, receiver) = OutputSink::channel(1);
    drop(receiver);
    let run = run(&shell("head -c 1000000 /dev/zero", LONG).stream_to(sink)).await;
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    assert_eq!(run.stdout.total_bytes, 1_000_000);
}

#[tokio::test]
async fn a_program_that_closes_its_output_and_goes_on_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let (go, done) = (directory.path().join("go"), directory.path().join("done"));
    let text = "echo $$; exec >&- 2>&-; : > \"$1\"; while [ ! -e \"$2\" ]; do sleep 0.01; done; exit 7";
    let program = shell(text, LONG).argument(&go).argument(&done);
    let (run, ()) = tokio::join!(run(&program), async {
        until(|| go.exists(), |exists| *exists).await;
        fs::write(&done, "").unwrap();
    });
    assert!(matches!(run.end, End::Exited(7)), "{run:?}");
    assert!(pid(&run) > 0 && !run.output_held_open);
}

#[tokio::test]
async fn input_and_output_do_not_wait_for_each_other() {
    let input: Vec<u8> = (0..=255_u8).cycle().take(1_000_000).collect();
    let run_ = run(&Program::new("/bin/cat", LONG).stdin(input.clone()).output_bytes_max(2_000_000)).await;
    assert!(matches!(run_.end, End::Exited(0)), "{run_:?}");
    assert!(run_.stdout.bytes == input, "{} of {} bytes", run_.stdout.total_bytes, input.len());
    // Nobody has to read it.
    let run_ = run(&Program::new("/bin/true", LONG).stdin(input.clone())).await;
    assert!(matches!(run_.end, End::Exited(0)), "{run_:?}");
    let run_ = run(&shell("sleep 1000", SHORT).stdin(input)).await;
    assert!(matches!(run_.end, End::TimedOut), "{run_:?}");
}

#[test]
fn input_and_variables_do_not_show() {
    let program = Program::new("/bin/cat", LONG).stdin("sesame").variable("TOKEN", "sesame");
    assert!(!format!("{program:?}").contains("sesame"), "{program:?}");
}

#[tokio::test]
async fn a_daemon_that_goes_on_writing_now_and_then_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let up = folder.path().join("up");
    // Not before the daemon has left the session, which it does before it runs anything.
    let text = format!(
        "setsid -f sh -c '> {up}; while echo tick; do sleep 0.05; done'; until [ -e {up} ]; do sleep 0.01; done; echo started",
        up = up.display()
    );
    let (sink, receiver) = OutputSink::channel(4);
    let program = shell(&text, LONG).stream_to(sink);
    let runs = async {
        let run = run(&program).await;
        drop(program);
        run
    };
    // It writes so little that the pipe would be worth reading for hours.
    let both = tokio::time::timeout(LONG / 4, async { tokio::join!(runs, collect(receiver)) });
    let (run, (stdout, _)) = both.await.unwrap();
    assert!(matches!(run.end, End::Exited(0)), "{run:?}");
    assert!(run.output_held_open, "{run:?}");
    assert!(String::from_utf8(stdout).unwrap().contains("started\n"));
}
