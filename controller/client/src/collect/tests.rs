use super::*;
use muster_protocol::{Encoding, Outcome, OutputChunk, OutputStream, ProtocolVersion};
use proptest::prelude::*;
use serde_json::Value;

const ASKED: Timestamp = Timestamp(1_795_000_000_000);
const RULES: Rules = Rules {
    start_timeout_ms: 2_000,
    run_timeout_ms: 10_000,
    output_bytes_max: 1 << 16,
    output_from_anywhere: false,
    settle_ms: None,
    sent_before: false,
};

pub(crate) fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

pub(crate) fn request(number: u8) -> RequestId {
    RequestId::from_parts(ASKED, [number; 10])
}

fn caller() -> Identity {
    "user/lea".parse().unwrap()
}

fn result(outcome: Outcome, code: &str) -> ActionResult {
    ActionResult {
        outcome,
        code: code.to_owned(),
        message: String::new(),
        exit_code: None,
        data: Value::Null,
        truncated_from_bytes: None,
        duration_ms: 5,
    }
}

pub(crate) fn running(name: &str, sequence: u32) -> ProgressReport {
    ProgressReport {
        protocol: ProtocolVersion::V1,
        request_id: request(1),
        caller: caller(),
        host: host(name),
        sequence,
        created_at_ms: ASKED,
        state: ReportState::Running,
        output: Vec::new(),
        result: None,
    }
}

pub(crate) fn finished(name: &str, sequence: u32, outcome: Outcome) -> ProgressReport {
    let result = Some(result(outcome, "x"));
    ProgressReport { state: ReportState::Finished, result, ..running(name, sequence) }
}

fn replayed(name: &str) -> ProgressReport {
    let result = Some(result(Outcome::Refused, REPLAYED.code));
    ProgressReport { state: ReportState::Finished, result, ..running(name, 0) }
}

#[test]
fn data_beyond_the_room_for_all_hosts_are_left_out_and_told() {
    let mut collector = collector(&["a", "b", "c", "d"]);
    collector.results_bytes_max = 100_000;
    for name in ["a", "b", "c", "d"] {
        let mut report = finished(name, 0, Outcome::Succeeded);
        let zeros = if name == "d" { 3 } else { 2_000 };
        report.result.as_mut().unwrap().data = serde_json::json!({ "list": vec![0; zeros] });
        assert_eq!(collector.take(&report, ASKED), Taken::Finished);
        // Whoever repeats himself gets no more room by that.
        assert_eq!(collector.take(&report, ASKED), Taken::Duplicate);
    }
    let told = |name: &str| {
        let result = collector.host(&host(name)).unwrap().result.clone().unwrap();
        (result.data.is_null(), result.truncated_from_bytes.is_some(), result.message.contains("left out"))
    };
    assert_eq!(told("a"), (false, false, false));
    assert_eq!(told("b"), (true, true, true), "a takes 64 KB, b would take as much");
    assert_eq!(told("c"), (true, true, true));
    assert_eq!(told("d"), (false, false, false), "what is small still fits");
    assert!(collector.results_bytes <= collector.results_bytes_max);
    assert_eq!(collector.counts().succeeded, 4);
}

fn collector(names: &[&str]) -> Collector {
    let hosts = names.iter().map(|name| host(name)).collect();
    Collector::new([request(1)], caller(), Expected::Hosts(hosts), RULES, ASKED)
}

fn after(ms: i64) -> Timestamp {
    ASKED.plus_ms(ms)
}

/// One thing that happens, and what it is to the collection.
#[expect(clippy::large_enum_variant, reason = "a handful of them in a test")]
enum Step {
    Report(ProgressReport, Taken),
    Time(i64, usize),
    Close,
}

#[track_caller]
fn check(steps: Vec<Step>, state: TaskState, cause: Option<Cause>) -> Collector {
    let mut collector = collector(&["web1"]);
    let mut now = ASKED;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Report(report, expected) => assert_eq!(collector.take(&report, now), expected, "step {number}"),
            Step::Time(ms, given_up) => {
                now = after(ms);
                assert_eq!(collector.advance(now).len(), given_up, "step {number}");
            }
            Step::Close => collector.close(),
        }
        assert_eq!(collector.counts().total(), 1);
    }
    let record = collector.host(&host("web1")).unwrap();
    assert_eq!((record.state, record.cause), (state, cause));
    assert_eq!(collector.counts().of(state), 1);
    collector
}

use Step::{Close, Report, Time};

#[test]
fn a_host_runs_and_ends() {
    let collector = check(
        vec![
            Report(running("web1", 0), Taken::Started),
            Report(running("web1", 1), Taken::Progress),
            Report(finished("web1", 2, Outcome::Failed), Taken::Finished),
        ],
        TaskState::Failed,
        None,
    );
    assert!(collector.is_complete(ASKED) && collector.next_wakeup(ASKED).is_none());
}

#[test]
fn a_short_action_needs_one_report() {
    check(vec![Report(finished("web1", 0, Outcome::Succeeded), Taken::Finished)], TaskState::Succeeded, None);
}

#[test]
fn repeats_and_stragglers_change_nothing() {
    let collector = check(
        vec![
            Report(finished("web1", 2, Outcome::Succeeded), Taken::Finished),
            Report(finished("web1", 2, Outcome::Succeeded), Taken::Duplicate),
            Report(running("web1", 0), Taken::Progress),
            Report(running("web1", 0), Taken::Duplicate),
            Report(running("web1", 3), Taken::Late),
            Report(finished("web1", 4, Outcome::Failed), Taken::Late),
            Report(finished("web1", 1, Outcome::Failed), Taken::Late),
        ],
        TaskState::Succeeded,
        None,
    );
    let record = collector.host(&host("web1")).unwrap();
    assert_eq!((record.duplicates, record.late, record.missing_reports()), (2, 3, 1));
    assert!(record.late_result.is_none(), "the real result is there");
}

#[test]
fn silence_is_no_reply_and_a_started_host_times_out() {
    let collector = check(vec![Time(1_999, 0), Time(2_000, 1)], TaskState::NoReply, Some(Cause::Silent));
    assert!(collector.is_complete(after(2_000)));
    check(
        vec![Time(1_000, 0), Report(running("web1", 0), Taken::Started), Time(10_999, 0), Time(11_000, 1)],
        TaskState::TimedOut,
        Some(Cause::Unfinished),
    );
}

#[test]
fn a_late_answer_is_kept_beside_the_state() {
    let collector = check(
        vec![
            Time(2_000, 1),
            Report(running("web1", 0), Taken::Late),
            Report(finished("web1", 1, Outcome::Succeeded), Taken::Late),
        ],
        TaskState::NoReply,
        Some(Cause::Silent),
    );
    let record = collector.host(&host("web1")).unwrap();
    assert_eq!(record.late_result.as_ref().unwrap().outcome, Outcome::Succeeded);
    assert_eq!(record.late, 2);
}

#[test]
fn replayed_decides_only_when_nothing_else_comes() {
    let real = || finished("web1", 0, Outcome::Succeeded);
    check(vec![Report(replayed("web1"), Taken::Replayed), Report(real(), Taken::Finished)], TaskState::Succeeded, None);
    check(vec![Report(real(), Taken::Finished), Report(replayed("web1"), Taken::Late)], TaskState::Succeeded, None);
    check(
        vec![Report(running("web1", 0), Taken::Started), Report(replayed("web1"), Taken::Replayed), Time(10_000, 1)],
        TaskState::TimedOut,
        Some(Cause::Unfinished),
    );
    check(vec![Report(replayed("web1"), Taken::Replayed), Time(2_000, 1)], TaskState::Refused, None);
}

/// A report that can have waited on its host since the command was sent the last time.
fn wants_approval(name: &str) -> ProgressReport {
    let result = Some(result(Outcome::Refused, NEEDS_APPROVAL.code));
    ProgressReport { state: ReportState::Finished, result, ..running(name, 0) }
}

#[test]
fn what_was_sent_before_is_answered_soon_and_by_the_answer_of_now() {
    let sent = |names: &[&str], sent_before: bool| {
        let rules = Rules { start_timeout_ms: 10_000, settle_ms: Some(2_000), sent_before, ..RULES };
        let hosts = names.iter().map(|name| host(name)).collect();
        Collector::new([request(1)], caller(), Expected::Hosts(hosts), rules, ASKED)
    };
    let state = |collector: &Collector, name: &str| collector.host(&host(name)).unwrap().state;

    // That it had the request before is the last word of a host that says no more for two seconds.
    let mut collector = sent(&["a", "b"], true);
    assert_eq!(collector.take(&replayed("a"), after(100)), Taken::Replayed);
    assert_eq!(collector.take(&replayed("b"), after(200)), Taken::Replayed);
    assert_eq!(collector.next_wakeup(after(200)), Some(after(2_100)));
    assert_eq!(collector.take(&running("b", 0), after(300)), Taken::Started, "it runs, and its end is still to come");
    assert_eq!(collector.advance(after(2_100)), [host("a")]);
    assert_eq!((state(&collector, "a"), state(&collector, "b")), (TaskState::Refused, TaskState::Running));
    assert_eq!(collector.host(&host("a")).unwrap().cause, None, "it said so itself");

    // One that wants signatures may have wanted them of what was sent before.
    let mut collector = sent(&["a", "b", "c"], true);
    for name in ["a", "b", "c"] {
        assert_eq!(collector.take(&wants_approval(name), after(100)), Taken::Replayed);
    }
    assert_eq!(collector.take(&finished("a", 0, Outcome::Succeeded), after(200)), Taken::Finished);
    assert_eq!(collector.take(&wants_approval("b"), after(300)), Taken::Finished, "said twice it is of now, too");
    assert_eq!(collector.advance(after(2_100)), [host("c")]);
    let states = ["a", "b", "c"].map(|name| state(&collector, name));
    assert_eq!(states, [TaskState::Succeeded, TaskState::Refused, TaskState::Refused]);
    assert_eq!(collector.host(&host("c")).unwrap().result.as_ref().unwrap().code, NEEDS_APPROVAL.code);
    assert!(collector.is_complete(after(2_100)));

    // What was never sent before is answered at once.
    let mut collector = sent(&["a"], false);
    assert_eq!(collector.take(&wants_approval("a"), after(100)), Taken::Finished);

    // After an outage we have sent it twice ourselves, and a watch tells how it stands.
    let mut collector = sent(&["a"], true);
    collector.take(&replayed("a"), after(100));
    collector.attach(request(2), &[host("a")]);
    collector.take(&replayed("a"), after(200));
    assert!(collector.advance(after(9_000)).is_empty());
}

#[test]
fn closing_leaves_hosts_as_they_are() {
    let collector = check(
        vec![
            Report(running("web1", 0), Taken::Started),
            Close,
            Report(finished("web1", 1, Outcome::Succeeded), Taken::Late),
            Time(99_000, 0),
        ],
        TaskState::Running,
        None,
    );
    assert!(collector.is_complete(ASKED));
}

/// Bytes are counted, not time: what a fleet sends does not lie in memory, and all of it is still there.
#[test]
fn long_answers_of_many_hosts_are_complete_and_not_in_memory() {
    const BYTES: usize = 64 * 1024;
    const HOSTS: usize = 300;
    const MEMORY: usize = 1 << 20;
    let names: Vec<String> = (0..HOSTS).map(|n| format!("h{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let directory = tempfile::tempdir().unwrap();
    let aside = Aside::new(directory.path().to_owned(), MEMORY, u64::MAX);
    let mut collector = collector(&names);
    collector.set_aside_in(aside.clone());
    let text = |name: &str, what: &str| -> String {
        (0..BYTES / 12).map(|line| format!("{what} of {name} {line:05}\n")).collect()
    };
    let mut sent = 0;
    for name in &names {
        // Output in two pieces, the second one first; and data of as many bytes.
        let output = text(name, "out");
        let half = output.len() / 2;
        let chunk = |from: usize, to: usize| OutputChunk {
            stream: OutputStream::Stdout,
            offset: from as u64,
            encoding: Encoding::Text,
            data: output[from..to].to_owned(),
        };
        let second = ProgressReport { output: vec![chunk(half, output.len())], ..running(name, 1) };
        let mut last = ProgressReport { output: vec![chunk(0, half)], ..finished(name, 2, Outcome::Succeeded) };
        if let Some(result) = &mut last.result {
            result.data = serde_json::json!({ "text": text(name, "data") });
        }
        sent += output.len() + text(name, "data").len();
        collector.take(&second, ASKED);
        assert_eq!(collector.take(&last, ASKED), Taken::Finished);
        assert!(collector.held_bytes() <= 2 * OUTPUT_HELD_BYTES_ALL / 4 && aside.memory_bytes() <= MEMORY);
    }
    assert!(collector.held_bytes() < BYTES && sent > HOSTS * 2 * BYTES);
    assert!(
        usize::try_from(aside.file_bytes()).unwrap() + MEMORY > sent
            && std::fs::read_dir(directory.path()).unwrap().count() == 0
    );
    assert_eq!((collector.aside_error(), collector.counts().succeeded), (None, HOSTS));
    for (name, record) in collector.hosts() {
        let stream = record.output.stream(OutputStream::Stdout).unwrap();
        assert_eq!((stream.missing_bytes(), stream.text()), (0, text(name.as_str(), "out")));
        assert_eq!(record.data()["text"], text(name.as_str(), "data"));
        assert_eq!(record.result.as_ref().unwrap().truncated_from_bytes, None);
    }
}

#[test]
fn without_a_place_for_it_memory_is_bounded_and_what_is_cut_is_told() {
    let mut collector = collector(&["a", "b"]);
    collector.results_bytes_max = 50_000;
    collector.set_aside_in(Aside::new("/dev/null/nowhere".into(), 0, u64::MAX));
    for name in ["a", "b"] {
        let mut report = finished(name, 0, Outcome::Succeeded);
        if let Some(result) = &mut report.result {
            result.data = Value::String("x".repeat(40_000));
        }
        collector.take(&report, ASKED);
    }
    assert!(collector.aside_error().is_some());
    let kept = |name| collector.host(&host(name)).unwrap();
    assert_eq!(kept("a").data().as_str().map(str::len), Some(40_000));
    let left_out = kept("b").result.as_ref().unwrap();
    assert!(
        left_out.data.is_null() && left_out.truncated_from_bytes.is_some() && left_out.message.contains("left out")
    );
}

#[test]
fn reports_that_do_not_belong_here_are_counted_apart() {
    let mut collector = collector(&["web1"]);
    let other_request = ProgressReport { request_id: request(2), ..running("web1", 0) };
    let other_caller = ProgressReport { caller: "user/max".parse().unwrap(), ..running("web1", 0) };
    assert_eq!(collector.take(&other_request, ASKED), Taken::ForAnother);
    assert_eq!(collector.take(&other_caller, ASKED), Taken::ForAnother);
    for n in 0..3000 {
        assert_eq!(collector.take(&running(&format!("x{n}"), 0), ASKED), Taken::Stranger);
    }
    assert_eq!((collector.strangers().len(), collector.stranger_reports(), collector.for_another()), (1000, 3000, 2));
    assert_eq!(collector.counts(), &Counts { pending: 1, ..Counts::default() });
}

#[test]
fn a_host_without_a_queue_is_known_at_once() {
    let mut collector = collector(&["web1", "web2", "web3"]);
    collector.take(&running("web2", 0), ASKED);
    for name in ["web1", "web2", "nobody"] {
        collector.unreachable(&host(name), Cause::NoQueue, ASKED);
    }
    let state = |collector: &Collector, name| collector.host(&host(name)).map(|record| (record.state, record.cause));
    assert_eq!(state(&collector, "web1"), Some((TaskState::NoReply, Some(Cause::NoQueue))));
    assert_eq!(state(&collector, "web2"), Some((TaskState::Running, None)), "it has spoken, so it is there");
    assert_eq!(state(&collector, "nobody"), None);
    collector.not_sent(ASKED);
    assert_eq!(state(&collector, "web3"), Some((TaskState::NotStarted, Some(Cause::NotSent))));
}

#[test]
fn an_end_that_overtakes_what_was_sent_before_it_waits_for_it() {
    let mut collector = collector(&["web1", "web2"]);
    assert_eq!(collector.take(&finished("web2", 0, Outcome::Succeeded), after(5)), Taken::Finished);
    assert!(!collector.is_overtaken(&host("web2")), "it has sent nothing else");
    assert_eq!(collector.take(&finished("web1", 2, Outcome::Succeeded), after(10)), Taken::Finished);
    assert!(collector.is_overtaken(&host("web1")) && !collector.is_complete(after(10)));
    assert_eq!(collector.next_wakeup(after(10)), Some(after(2_010)));
    assert_eq!(collector.take(&running("web1", 1), after(20)), Taken::Progress);
    assert!(collector.take_whole().is_empty() && !collector.is_complete(after(20)), "one is still missing");
    let mut first = running("web1", 0);
    let data = "here".to_owned();
    first.output = vec![OutputChunk { stream: OutputStream::Stdout, offset: 0, encoding: Encoding::Text, data }];
    assert_eq!(collector.take(&first, after(30)), Taken::Progress);
    assert_eq!(collector.take_whole(), [host("web1")]);
    assert!(collector.is_complete(after(30)));
    assert_eq!(collector.host(&host("web1")).unwrap().output.stream(OutputStream::Stdout).unwrap().length(), 4);
    assert_eq!(collector.host(&host("web1")).unwrap().ended_ms, Some(10), "it had ended before");
}

#[test]
fn what_is_lost_before_an_end_is_not_waited_for_long() {
    let mut collector = collector(&["web1"]);
    assert_eq!(collector.take(&finished("web1", 1, Outcome::Succeeded), after(10)), Taken::Finished);
    assert!(collector.advance(after(2_009)).is_empty());
    assert!(!collector.is_anybody_due(after(2_009)) && collector.is_anybody_due(after(2_010)));
    assert!(!collector.is_complete(after(2_009)) && collector.take_whole().is_empty());
    assert!(collector.advance(after(2_010)).is_empty(), "it has ended, and is not given up");
    assert_eq!(collector.take_whole(), [host("web1")]);
    assert!(collector.is_complete(after(2_010)));
    let mut collector = self::collector(&["web1"]);
    collector.take(&finished("web1", 1, Outcome::Succeeded), after(10));
    collector.close();
    assert_eq!((collector.take_whole(), collector.is_complete(after(11))), (vec![host("web1")], true));
}

#[test]
fn anyone_may_answer_until_the_window_ends() {
    let mut collector = Collector::new([request(1)], caller(), Expected::Anyone, RULES, ASKED);
    assert_eq!(collector.next_wakeup(ASKED), Some(after(2_000)));
    assert_eq!(collector.take(&finished("web1", 0, Outcome::Succeeded), after(5)), Taken::Finished);
    assert!(!collector.is_complete(after(1_999)) && collector.is_complete(after(2_000)));
    collector.take(&running("web2", 0), after(1_990));
    assert!(!collector.is_complete(after(2_000)), "somebody is still at it");
    assert!(!collector.is_anybody_due(after(2_000)), "the end of the window gives nobody up");
    // The window is over: a wakeup in the past would make whoever waits for it spin until the host has ended.
    let given_up = after(1_990).plus_ms(RULES.run_timeout_ms);
    assert_eq!(collector.next_wakeup(after(2_000)), Some(given_up));
    assert_eq!(collector.counts().total(), 2);
    assert_eq!(collector.host(&host("web1")).unwrap().first_report_ms, Some(5));
}

#[test]
fn the_start_clock_begins_when_all_is_sent() {
    let mut collector = collector(&["web1"]);
    collector.all_sent(after(500));
    assert!(collector.advance(after(2_000)).is_empty());
    assert_eq!(collector.next_wakeup(ASKED), Some(after(2_500)));
}

#[test]
fn a_flood_from_one_host_is_bounded_and_its_end_still_counts() {
    let mut collector = collector(&["web1"]);
    let mut disorderly = 0;
    for n in 0..5_000u32 {
        let mut report = running("web1", n * 2);
        report.output = vec![OutputChunk {
            stream: OutputStream::Stdout,
            offset: u64::from(n) * 1000,
            encoding: Encoding::Text,
            data: "x".repeat(1000),
        }];
        disorderly += usize::from(collector.take(&report, ASKED) == Taken::Disorderly);
    }
    assert!(disorderly > 3_000);
    assert_eq!(collector.take(&finished("web1", 20_001, Outcome::Succeeded), ASKED), Taken::Finished);
    let record = collector.host(&host("web1")).unwrap();
    let kept = record.output.stream(OutputStream::Stdout).unwrap();
    assert!(kept.length() - kept.missing_bytes() <= RULES.output_bytes_max as u64);
}

/// A well-formed run of one host: some running reports and an end, and perhaps a replay notice.
fn host_story(name: &'static str) -> impl Strategy<Value = Vec<ProgressReport>> {
    let outcome = prop_oneof![
        Just(Outcome::Succeeded),
        Just(Outcome::Failed),
        Just(Outcome::TimedOut),
        Just(Outcome::Refused),
        Just(Outcome::Cancelled)
    ];
    (0u32..5, outcome, any::<bool>()).prop_map(move |(count, outcome, replay)| {
        let mut reports: Vec<ProgressReport> = (0..count)
            .map(|n| {
                let chunk = OutputChunk {
                    stream: OutputStream::Stdout,
                    offset: u64::from(n) * 2,
                    encoding: Encoding::Text,
                    data: format!("{n};"),
                };
                ProgressReport { output: vec![chunk], ..running(name, n) }
            })
            .collect();
        reports.push(finished(name, count, outcome));
        reports.extend(replay.then(|| replayed(name)));
        reports
    })
}

fn end_of(collector: &Collector) -> Vec<(HostName, TaskState, Option<ActionResult>, Output, u32)> {
    collector
        .hosts()
        .map(|(name, r)| (name.clone(), r.state, r.result.clone(), r.output.clone(), r.missing_reports()))
        .collect()
}

proptest! {
    #[test]
    fn order_and_repeats_do_not_change_the_end(
        (plain, mixed) in (host_story("web1"), host_story("web2"), host_story("db1"), any::<[bool; 20]>())
            .prop_flat_map(|(a, b, c, again)| {
                let plain: Vec<ProgressReport> = a.into_iter().chain(b).chain(c).collect();
                let repeats = plain.iter().zip(again.into_iter().cycle()).filter(|(_, again)| *again);
                let all: Vec<ProgressReport> = plain.iter().cloned().chain(repeats.map(|(r, _)| r.clone())).collect();
                (Just(plain), Just(all).prop_shuffle())
            })
    ) {
        let names = ["web1", "web2", "db1"];
        let (mut left, mut right) = (collector(&names), collector(&names));
        for report in &plain {
            left.take(report, ASKED);
        }
        for report in &mixed {
            right.take(report, ASKED);
        }
        prop_assert_eq!(end_of(&left), end_of(&right));
        prop_assert!(left.is_complete(ASKED) && right.is_complete(ASKED));
    }

    #[test]
    fn counts_add_up_and_final_states_absorb(
        events in proptest::collection::vec((0u8..5, 0usize..5, 0u32..4, 0i64..6_000), 0..80)
    ) {
        let names = ["a", "b", "c", "d", "stranger"];
        let mut collector = collector(&names[..4]);
        let mut now = ASKED;
        let mut ended: BTreeMap<HostName, TaskState> = BTreeMap::new();
        for (kind, who, sequence, ms) in events {
            match kind {
                0 => drop(collector.take(&running(names[who], sequence), now)),
                1 => drop(collector.take(&finished(names[who], sequence, Outcome::Failed), now)),
                2 => drop(collector.take(&replayed(names[who]), now)),
                3 => {
                    now = now.plus_ms(ms);
                    let due = collector.is_anybody_due(now);
                    collector.take_whole();
                    let ended = !collector.advance(now).is_empty() | !collector.take_whole().is_empty();
                    prop_assert_eq!(due, ended, "whom time ends is known before");
                }
                _ => collector.unreachable(&host(names[who]), Cause::NoQueue, now),
            }
            let mut recount = Counts::default();
            for (name, record) in collector.hosts() {
                *recount.of_mut(record.state) += 1;
                if let Some(before) = ended.get(name) {
                    prop_assert_eq!(record.state, *before);
                }
                if record.is_final() {
                    ended.insert(name.clone(), record.state);
                }
            }
            prop_assert_eq!(collector.counts(), &recount);
            prop_assert_eq!(recount.total(), 4);
            // Hosts that have ended are waited for only as long as what they sent before may come.
            let over = ended.len() == 4 && !collector.has_overtaken();
            prop_assert_eq!(collector.is_complete(now), over);
            prop_assert_eq!(collector.next_wakeup(Timestamp(i64::MIN)).is_none(), over);
        }
    }
}
