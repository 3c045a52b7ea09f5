//! The commands over a fleet in memory: what is printed, and how they end.

use std::time::Duration;

use clap::Parser as _;
use muster_client::Controller;
use muster_client::cache::HostCache;
use muster_client::testing::{Fleet, Say, behaving, succeeding};
use muster_protocol::Outcome;
use serde_json::json;

use super::action::Wanted;
use super::follow::Stop;
use super::input;
use super::scene::Scene;
use crate::catalogue::Catalogue;
use crate::cli::Cli;
use crate::context::Context;
use crate::output::{ExitCode, Failure, Surroundings, capture};
use crate::requests::Requests;

/// What a command said and how it ended.
struct Said {
    out: String,
    err: String,
    exit: ExitCode,
    /// Standard output as it is.
    bytes: Vec<u8>,
}

/// A terminal user with a fleet: every command remembers what the ones before have learnt.
struct Desk {
    fleet: Fleet,
    controller: Controller,
    cache: HostCache,
    context: Context,
    surroundings: Surroundings,
    requests: Requests,
    /// Where the requests are kept.
    state: tempfile::TempDir,
}

impl Desk {
    async fn new(fleet: Fleet) -> Self {
        let controller = fleet.controller().await;
        let context = Context {
            name: "main".to_owned(),
            broker: Vec::new(),
            collective: "main".parse().unwrap(),
            ca: "ca.pem".into(),
            crl: None,
            certificate: "user-lea.pem".into(),
            key: "user-lea.key".into(),
            confirm_above: 3,
            production: false,
            ddl_directory: None,
            origins: Default::default(),
        };
        let state = tempfile::tempdir().unwrap();
        Self {
            fleet,
            controller,
            cache: HostCache::none(),
            context,
            surroundings: Surroundings::default(),
            requests: Requests::at(state.path().join("requests.jsonl")),
            state,
        }
    }

    /// What is kept of the requests.
    fn records(&self) -> String {
        std::fs::read_to_string(self.state.path().join("requests.jsonl")).unwrap_or_default()
    }

    /// Runs a command line without its first word.
    async fn type_in(&mut self, words: &[&str]) -> Said {
        self.type_until(words, std::future::pending()).await
    }

    async fn type_until(&mut self, words: &[&str], interrupt: impl Future<Output = ()> + Send + 'static) -> Said {
        let cli = Cli::parse_from(std::iter::once("muster").chain(words.iter().copied()));
        let (printer, out, err) = capture::printer(cli.globals.settings(), self.surroundings);
        let stop = |wait: &super::WaitArguments| Stop::when(interrupt, wait.wait_for.map(|length| length.as_millis()));
        let mut scene = Scene {
            printer: &printer,
            context: &self.context,
            controller: &mut self.controller,
            cache: &mut self.cache,
            requests: self.requests.clone(),
            stop: Stop::when(std::future::pending(), None),
            pending: crate::pending::Store::at(self.state.path().join("pending")),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            fresh_seed: 7,
            aside: muster_client::aside::Aside::new(std::env::temp_dir(), 1 << 20, 1 << 30),
            knew_nobody: false,
        };
        let result: Result<ExitCode, Failure> = match &cli.command {
            crate::cli::Command::Ping(arguments) => match arguments.target.read("ping") {
                Ok(target) => {
                    scene.stop = stop(&arguments.wait);
                    crate::commands::ping::execute(&target, &arguments.wait, &mut scene).await
                }
                Err(failure) => Err(failure),
            },
            crate::cli::Command::Find(arguments) => match arguments.target.read("find") {
                Ok(target) => {
                    scene.stop = stop(&arguments.wait);
                    crate::commands::find::execute(&target, &arguments.wait, &mut scene).await
                }
                Err(failure) => Err(failure),
            },
            crate::cli::Command::Run(arguments) => {
                let catalogue = Catalogue::load(Some(&self.context)).unwrap();
                let (_, action) = catalogue.action(&arguments.action).unwrap();
                let inputs = input::read(&arguments.action, action, &arguments.inputs, Vec::new(), || {
                    Ok(zeroize::Zeroizing::new(Vec::new()))
                });
                let wanted =
                    inputs.and_then(|inputs| Wanted::read(&catalogue, &arguments.action, &inputs, arguments.way.how()));
                match (wanted, arguments.target.read("run")) {
                    (Ok(wanted), Ok(target)) => {
                        scene.stop = stop(&arguments.wait);
                        let (way, wait) = (&arguments.way, &arguments.wait);
                        crate::commands::run::execute(&wanted, &target, way, wait, &mut scene).await
                    }
                    (Err(failure), _) | (_, Err(failure)) => Err(failure),
                }
            }
            crate::cli::Command::Watch(arguments) => {
                let catalogue = Catalogue::load(Some(&self.context)).unwrap();
                scene.stop = stop(&arguments.wait);
                match arguments.request.target("watch") {
                    Ok(target) => {
                        crate::commands::watch::execute(arguments, target.as_ref(), &catalogue, &mut scene).await
                    }
                    Err(failure) => Err(failure),
                }
            }
            crate::cli::Command::Cancel(arguments) => {
                scene.stop = stop(&arguments.wait);
                match arguments.request.target("cancel") {
                    Ok(target) => crate::commands::cancel::execute(arguments, target.as_ref(), &mut scene).await,
                    Err(failure) => Err(failure),
                }
            }
            other => panic!("not a command that asks: {other:?}"),
        };
        let exit = result.unwrap_or_else(|failure| {
            printer.failure(&failure);
            failure.exit
        });
        printer.finish();
        let bytes = out.bytes();
        Said { out: String::from_utf8_lossy(&bytes).into_owned(), err: err.text(), exit, bytes }
    }
}

fn installed(version: &'static str) -> muster_client::testing::Behaviour {
    behaving(move |host, command| {
        let data = json!({"name": command.arguments["name"], "ensure": version, "installed": true});
        vec![Say::Report(host.running(command, 0)), Say::Report(host.finished(command, 1, Outcome::Succeeded, data))]
    })
}

async fn desk() -> Desk {
    let fleet = Fleet::new();
    fleet.hosts(&["web-1", "web-2", "web-3"], json!({"role": "web", "dc": "ams1"}), installed("3.0.13-1")).await;
    fleet.hosts(&["web-4"], json!({"role": "web", "dc": "fra2"}), installed("3.0.11-4")).await;
    fleet.hosts(&["db-1"], json!({"role": "db", "dc": "ams1"}), succeeding(json!({"ensure": "absent"}))).await;
    Desk::new(fleet).await
}

#[tokio::test(start_paused = true)]
async fn run_groups_what_came_back() {
    let mut desk = desk().await;
    let said = desk.type_in(&["run", "package.status", "name=openssl", "-t", "role=web"]).await;
    assert_eq!(said.exit, ExitCode::Success);
    insta::with_settings!({filters => vec![(r"\d+ ms|\d\.\d s", "[time]")]}, {
        insta::assert_snapshot!("run_out", said.out);
        insta::assert_snapshot!("run_err", said.err);
    });
}

#[tokio::test(start_paused = true)]
async fn run_for_programs() {
    let mut desk = desk().await;
    let filters = vec![
        (r#""duration_ms": ?\d+"#, r#""duration_ms": "[ms]""#),
        (r#""reply_ms": ?\d+"#, r#""reply_ms": "[ms]""#),
        (r"[0-9a-f]{8}-[0-9a-f-]{27}", "[id]"),
    ];
    let words = ["run", "package.status", "name=openssl", "-H", "web-1,web-4,gone"];
    let json = desk.type_in(&[&words[..], &["--json"]].concat()).await;
    let jsonl = desk.type_in(&[&words[..], &["--jsonl"]].concat()).await;
    let csv = desk.type_in(&[&words[..], &["--format", "csv"]].concat()).await;
    let names = desk.type_in(&[&words[..], &["--names"]].concat()).await;
    assert_eq!(json.exit, ExitCode::NoReply);
    assert!(jsonl.out.lines().all(|line| line.starts_with(r#"{"schema":"muster.job/v1","kind":"#)));
    assert_eq!(names.out, "gone\nweb-1\nweb-4\n");
    insta::with_settings!({filters => filters}, {
        insta::assert_snapshot!("run_json", json.out);
        insta::assert_snapshot!("run_jsonl", jsonl.out);
        insta::assert_snapshot!("run_csv", csv.out);
    });
}

#[tokio::test(start_paused = true)]
async fn one_host_is_shown_whole() {
    let mut desk = desk().await;
    let said = desk.type_in(&["run", "package.status", "name=openssl", "-H", "web-1"]).await;
    insta::with_settings!({filters => vec![(r"\d+ ms|\d\.\d s", "[time]")]}, {
        insta::assert_snapshot!("run_single", said.out);
    });
}

#[tokio::test(start_paused = true)]
async fn ping_says_who_answers_and_who_is_silent() {
    let mut desk = desk().await;
    let first = desk.type_in(&["ping", "--all"]).await;
    assert_eq!((first.exit, first.err.as_str()), (ExitCode::Success, "waiting 2 s for replies\n"));
    desk.fleet.broker.disconnect(&"host/web-2".parse().unwrap());
    desk.fleet.broker.delete_queue("agent.web-2");
    desk.fleet.clock.advance_ms(3 * 60 * 60 * 1000);
    let second = desk.type_in(&["ping", "--all"]).await;
    assert_eq!(second.exit, ExitCode::NoReply);
    insta::with_settings!({filters => vec![(r"\b\d+ ms", "[ms]"), (r"(✓ answered +)\d+", "$1[ms]")]}, {
        insta::assert_snapshot!("ping_out", second.out);
        insta::assert_snapshot!("ping_err", second.err);
    });
    let tolerant = desk.type_in(&["ping", "--all", "--tolerate", "no-reply"]).await;
    assert_eq!(tolerant.exit, ExitCode::Success);
    let names = desk.type_in(&["ping", "--all", "--names"]).await;
    assert_eq!(names.out, "db-1\nweb-1\nweb-3\nweb-4\n");
}

#[tokio::test(start_paused = true)]
async fn ping_by_name_knows_at_once_who_has_no_queue() {
    let mut desk = desk().await;
    let said = desk.type_in(&["ping", "-H", "web-1,web-9", "--jsonl"]).await;
    assert_eq!(said.exit, ExitCode::NoReply);
    assert!(said.out.contains(r#""host":"web-9","state":"no_reply","reason":"no_queue""#), "{}", said.out);
}

#[tokio::test(start_paused = true)]
async fn a_slip_in_a_name_is_told_with_the_nearest() {
    let mut desk = desk().await;
    desk.type_in(&["ping", "--all"]).await;
    let said = desk.type_in(&["ping", "-H", "web-1,wbe-2"]).await;
    assert_eq!(said.exit, ExitCode::NoReply);
    assert!(said.out.contains("wbe-2  ? no queue") && said.out.contains("? 1 without a queue"), "{}", said.out);
    let told = "wbe-2  no queue: has never connected, or not for a day; nearest: web-2\n";
    assert_eq!(said.err, told);
    let said = desk.type_in(&["find", "-H", "web-1,wbe-2"]).await;
    assert!(said.err.ends_with(told), "{}", said.err);
    let said = desk.type_in(&["find", "-H", "wbe-2"]).await;
    assert_eq!(said.exit, ExitCode::NoMatch);
    insta::assert_snapshot!(said.err, @r"
    error[no-match]: no host that was named answers
      wbe-2   no queue: has never connected, or not for a day; nearest: web-2
      try     muster host list
    ");
    let warning = "warning: wbe-2 has never answered from here; nearest: web-2\n";
    let said = desk.type_in(&["run", "package.status", "name=bash", "-H", "wbe-2", "-n"]).await;
    assert_eq!((said.exit, said.err.as_str()), (ExitCode::Success, warning));
    let said = desk.type_in(&["run", "package.status", "name=bash", "-H", "wbe-2"]).await;
    assert_eq!(said.exit, ExitCode::NoReply);
    assert!(said.err.ends_with(warning), "{}", said.err);
}

#[tokio::test(start_paused = true)]
async fn everybody_excluded_is_no_riddle() {
    let mut desk = desk().await;
    for words in [&["ping", "--all"][..], &["find", "--all"], &["ping", "-H", "db-1"], &["run", "host.ping", "--all"]] {
        let said = desk.type_in(&[words, &["--exclude", "web-[1-4],db-1"]].concat()).await;
        assert_eq!(said.exit, ExitCode::NoMatch, "{words:?}");
        assert!(said.err.contains("error[no-match]: every host of the target is excluded"), "{}", said.err);
        assert!(!said.err.contains("doctor"), "{}", said.err);
    }
    let said = desk.type_in(&["find", "-t", "role=web", "-H", "db-1"]).await;
    assert!(said.err.contains("it holds on 4 other hosts, and on none of those named with -H"), "{}", said.err);
}

#[tokio::test(start_paused = true)]
async fn a_limited_ping_can_be_repeated() {
    let mut desk = desk().await;
    let said = desk.type_in(&["ping", "--all", "--limit", "2"]).await;
    assert!(said.err.contains("5 hosts match · 2 chosen with --seed 7"), "{}", said.err);
    let said = desk.type_in(&["ping", "--all", "--limit", "2", "--jsonl"]).await;
    let plan = said.out.lines().next().unwrap();
    assert!(plan.contains(r#""matched":5"#) && plan.contains(r#""seed":7"#), "{plan}");
    let kinds: Vec<String> = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["plan", "task", "task", "group", "counts", "end"]);
}

#[tokio::test(start_paused = true)]
async fn tables_for_programs_have_words_and_times() {
    let mut desk = desk().await;
    let ping = desk.type_in(&["ping", "-H", "web-1,web-9", "--format", "csv"]).await;
    let find = desk.type_in(&["find", "-H", "web-1,web-9", "--format", "csv"]).await;
    let times = vec![(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "[time]"), (r"ok,\d+", "ok,[ms]")];
    insta::with_settings!({filters => times}, {
        insta::assert_snapshot!(ping.out, @r"
        host,state,reason,code,reply_ms,agent,last_seen_at
        web-1,succeeded,,ok,[ms],0.1.0,[time]
        web-9,no_reply,no_queue,,,,
        ");
        insta::assert_snapshot!(find.out, @r"
        host,state,last_seen
        web-1,online,[time]
        web-9,no_queue,
        ");
    });
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_ping_does_not_look_complete() {
    let mut desk = desk().await;
    desk.type_in(&["ping", "--all"]).await;
    desk.fleet.broker.disconnect(&"host/web-2".parse().unwrap());
    for words in [&["ping", "--all"][..], &["ping", "-H", "web-1,web-2"]] {
        let words = [words, &["--reply-timeout", "30s"]].concat();
        let said = desk.type_until(&words, tokio::time::sleep(Duration::from_secs(5))).await;
        assert_eq!(said.exit, ExitCode::Interrupted);
        assert!(said.err.contains("interrupted; 1 host not heard yet"), "{}", said.err);
        assert!(said.out.contains("web-2  ○ not heard yet"), "{}", said.out);
        assert!(!said.out.contains("silent"), "{}", said.out);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_may_still_run_what_waits_in_its_queue() {
    let mut desk = desk().await;
    let mute = behaving(|_, _| vec![Say::Wait(Duration::from_secs(600))]);
    desk.fleet.hosts(&["mute-1"], json!({}), mute).await;
    // No built-in action changes anything, so one is told to.
    let directory = tempfile::tempdir().unwrap();
    let service = include_str!("../../../../agent-plugins/api/ddl/service.json");
    std::fs::write(
        directory.path().join("service.json"),
        service.replace(r#""read_only": true"#, r#""read_only": false"#),
    )
    .unwrap();
    desk.context.ddl_directory = Some(directory.path().to_owned());
    let said = desk.type_in(&["run", "service.status", "name=ssh", "-H", "web-1,mute-1"]).await;
    assert_eq!(said.exit, ExitCode::NoReply);
    assert!(said.err.contains("1 silent host has the command queued and may still run it until 20"), "{}", said.err);
    assert!(said.err.contains("muster ping -H mute-1"), "{}", said.err);
    let said = desk.type_in(&["run", "package.status", "name=bash", "-H", "web-1,mute-1"]).await;
    assert!(!said.err.contains("may still run"), "{}", said.err);
    let said = desk.type_in(&["run", "package.status", "name=bash", "-H", "mute-1"]).await;
    assert!(said.out.contains("the command waits in its queue (--ttl)"), "{}", said.out);
}

#[tokio::test(start_paused = true)]
async fn find_folds_and_feeds_other_commands() {
    let mut desk = desk().await;
    let said = desk.type_in(&["find", "-t", "dc=ams1"]).await;
    assert_eq!((said.out.as_str(), said.err.as_str()), ("db-1\nweb-[1-3]\n", "4 hosts match\n"));
    let said = desk.type_in(&["find", "-t", "dc=ams1", "--limit", "2", "--seed", "3", "--names"]).await;
    assert_eq!(said.out.lines().count(), 2);
    let again = desk.type_in(&["find", "-t", "dc=ams1", "--limit", "50%", "--seed", "3", "--names"]).await;
    assert_eq!(said.out, again.out, "the same seed chooses the same hosts");
    let said = desk.type_in(&["find", "-H", "web-1,web-9", "--json"]).await;
    assert_eq!(said.exit, ExitCode::NoReply);
    insta::with_settings!({filters => vec![(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "[time]")]}, {
        insta::assert_snapshot!("find_json", said.out);
    });
}

#[tokio::test(start_paused = true)]
async fn nobody_matches_names_the_part_to_blame() {
    let mut desk = desk().await;
    let said = desk.type_in(&["run", "package.status", "name=openssl", "-t", "dc=ams1 and role=wbe"]).await;
    assert_eq!((said.exit, said.out.as_str()), (ExitCode::NoMatch, ""));
    insta::assert_snapshot!("no_match", said.err);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_without_hosts_says_so() {
    let mut desk = Desk::new(Fleet::new()).await;
    let said = desk.type_in(&["ping", "--all"]).await;
    assert_eq!(said.exit, ExitCode::NoMatch);
    insta::assert_snapshot!("nobody_listens", said.err);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_sends_nothing() {
    let mut desk = desk().await;
    desk.fleet.hosts(&["web-5"], json!({"role": "web"}), behaving(|_, command| panic!("ran {}", command.action))).await;
    let words = ["run", "package.status", "name=openssl", "-t", "role=web", "-n"];
    let said = desk.type_in(&words).await;
    assert_eq!(said.exit, ExitCode::Success);
    insta::assert_snapshot!("dry_run", said.out);
    let said = desk.type_in(&[&words[..], &["--json"]].concat()).await;
    assert!(said.out.contains(r#""dry_run": true"#), "{}", said.out);
}

#[tokio::test(start_paused = true)]
async fn another_number_than_expected_stops_it() {
    let mut desk = desk().await;
    let words = ["run", "package.status", "name=openssl", "-t", "role=web", "--expect", "5"];
    let said = desk.type_in(&words).await;
    assert_eq!(said.exit, ExitCode::NotConfirmed);
    assert!(said.err.contains("error[plan-changed]: 4 hosts match, not 5; nothing was sent"), "{}", said.err);
}

#[tokio::test(start_paused = true)]
async fn waves_stop_at_the_first_failure() {
    let fleet = Fleet::new();
    let failing = behaving(|host, command| vec![Say::Report(host.finished(command, 0, Outcome::Failed, json!(null)))]);
    fleet.hosts(&["a-1"], json!({}), failing).await;
    fleet.hosts(&["a-2", "a-3", "a-4"], json!({}), behaving(|_, _| panic!("the stop rule holds"))).await;
    let mut desk = Desk::new(fleet).await;
    let words = ["run", "package.status", "name=bash", "--all", "--wave", "1,rest", "--stop-after", "1"];
    let said = desk.type_in(&words).await;
    assert_eq!(said.exit, ExitCode::HostFailed);
    insta::with_settings!({filters => vec![(r"\d+ ms|\d\.\d s", "[time]")]}, {
        insta::assert_snapshot!("stop_rule", format!("{}{}", said.out, said.err));
    });
}

#[tokio::test(start_paused = true)]
async fn every_wave_is_a_command_of_its_own() {
    let mut desk = desk().await;
    let words = ["run", "package.status", "name=bash", "-t", "role=web", "--wave", "1,2", "--jsonl"];
    let said = desk.type_in(&words).await;
    assert_eq!(said.out.lines().filter(|line| line.contains(r#""kind":"accepted""#)).count(), 3);
    assert_eq!(said.out.lines().filter(|line| line.contains(r#""kind":"task""#)).count(), 4);
    assert_eq!(said.exit, ExitCode::Success);
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_keeps_what_arrived() {
    let mut desk = desk().await;
    let slow =
        behaving(|host, command| vec![Say::Report(host.running(command, 0)), Say::Wait(Duration::from_secs(60))]);
    desk.fleet.hosts(&["slow-1"], json!({}), slow).await;
    let interrupt = tokio::time::sleep(Duration::from_secs(5));
    let said = desk.type_until(&["run", "package.status", "name=bash", "-H", "web-1,slow-1"], interrupt).await;
    assert_eq!(said.exit, ExitCode::Interrupted);
    assert!(said.out.contains("1 succeeded · 1 running"), "{}", said.out);
    assert!(said.err.contains("interrupted; 1 host that was asked goes on"), "{}", said.err);
    let words = ["run", "package.status", "name=bash", "-H", "web-1,slow-1", "--wait-for", "3s"];
    let said = desk.type_in(&words).await;
    assert_eq!(said.exit, ExitCode::StoppedWaiting);
}

#[tokio::test(start_paused = true)]
async fn refusals_have_their_own_end() {
    let fleet = Fleet::new();
    let refusing = behaving(|host, command| {
        let mut report = host.finished(command, 0, Outcome::Refused, json!(null));
        if let Some(result) = &mut report.result {
            result.message = "rule ops/no-prod-root".to_owned();
        }
        vec![Say::Report(report)]
    });
    fleet.hosts(&["web-1", "web-2"], json!({}), refusing).await;
    let mut desk = Desk::new(fleet).await;
    let said = desk.type_in(&["run", "package.status", "name=bash", "--all"]).await;
    assert_eq!(said.exit, ExitCode::Refused);
    assert!(said.out.contains("⊘ refused  rule ops/no-prod-root"), "{}", said.out);
    let said = desk.type_in(&["run", "package.status", "name=bash", "--all", "--tolerate", "refused"]).await;
    assert_eq!(said.exit, ExitCode::Success);
}

#[tokio::test(start_paused = true)]
async fn a_forged_answer_is_told() {
    let fleet = Fleet::new();
    let forged = behaving(|host, command| {
        let mut message = host.sealed(command, &host.finished(command, 0, Outcome::Succeeded, json!(null)));
        message.content_type = "application/json".to_owned();
        vec![Say::Raw(message)]
    });
    fleet.hosts(&["web-1"], json!({}), forged).await;
    let mut desk = Desk::new(fleet).await;
    let said = desk.type_in(&["run", "package.status", "name=bash", "-H", "web-1"]).await;
    assert_eq!(said.exit, ExitCode::NoReply);
    assert!(said.err.contains("warning: 1 message under the name of web-1 not believed: unknown-type"), "{}", said.err);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_vanished_is_made_again_and_said() {
    let mut desk = desk().await;
    let slow =
        behaving(|host, command| vec![Say::Report(host.running(command, 0)), Say::Wait(Duration::from_secs(60))]);
    desk.fleet.hosts(&["slow-1"], json!({}), slow).await;
    let (broker, queue) = (desk.fleet.broker.clone(), format!("reply.{}", desk.controller.route()));
    let vandal = async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        broker.delete_queue(&queue);
        std::future::pending().await
    };
    let said = desk.type_until(&["run", "package.status", "name=bash", "-H", "web-1,slow-1"], vandal).await;
    assert_eq!(said.exit, ExitCode::HostFailed, "{}\n{}", said.out, said.err);
    assert!(said.err.contains("no answers for now: the broker deleted the reply queue"), "{}", said.err);
    assert!(said.err.contains("answers can come again; hosts that had not ended were asked"), "{}", said.err);
    assert!(said.out.contains("timed out  started, and its end was not heard    slow-1"), "{}", said.out);
    assert!(said.out.contains("1 succeeded · 1 timed out"), "{}", said.out);
}

mod requests;
