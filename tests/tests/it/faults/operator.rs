//! Somebody with rights on the broker does what he should not: closes connections, deletes queues and exchanges, takes
//! permissions away. Each in a virtual host of its own.

use std::io::Read as _;
use std::process::Stdio;

use muster_broker_config::Operation;
use muster_protocol::routing::EXCHANGE_COMMAND;
use muster_tests::broker::parsed;
use muster_tests::stage::Stage;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::BROKER;
use super::lab::{Begun, HOST, IDENTITIES, Lab, ends, eventually, id_and_code, lives};
use crate::amqp::{connect, perform};

const PATIENT: [&str; 2] = ["--reply-timeout", "100s"];

/// The one queue of this kind in the lab's virtual host.
fn queue(lab: &Lab, kind: &str) -> String {
    let queues = lab.stage.bus.queues().unwrap();
    queues.into_iter().find(|name| name.starts_with(kind)).expect("it is there")
}

/// An action that has begun in a process of its own, and waits for the word `one`.
fn begun(lab: &Lab) -> Begun {
    let run = lab.begin_run("lab.apart", &[&["until=one"], &PATIENT[..]].concat());
    lab.started_times(1);
    run
}

/// Lets it end, and waits until it has.
#[track_caller]
fn end(lab: &Lab) {
    lab.open("one");
    let pid = lab.starts()[0].pid;
    eventually("the action ends", || !lives(pid));
}

/// It ends as if nothing had been, and what follows works.
#[track_caller]
fn check_ends_well(lab: &Lab, run: Begun) -> String {
    let finished = run.finish().expect(0);
    let (id, code) = id_and_code(&finished);
    assert_eq!((lab.starts_of(&id), code.as_str()), (1, "ok"), "{}{}", finished.stdout, finished.stderr);
    lab.run("lab.change", &PATIENT).expect(0);
    finished.stderr
}

#[test]
fn connections_closed_by_an_operator_come_back_with_everything() {
    let lab = Lab::new();
    let run = begun(&lab);
    lab.stage.bus.close_connections(None, "maintenance").unwrap();
    lab.open("one");
    let said = check_ends_well(&lab, run);
    assert!(said.contains("no answers for now: the connection to the broker broke"), "{said}");
    assert!(said.contains("maintenance"), "the operator's words: {said}");
}

#[test]
fn a_reply_queue_deleted_while_a_run_waits_is_made_again() {
    let lab = Lab::new();
    let run = begun(&lab);
    lab.stage.bus.delete_queue(&queue(&lab, "reply.")).unwrap();
    eventually("the queue is missed", || run.stderr().contains("deleted the reply queue"));
    lab.open("one");
    check_ends_well(&lab, run);
}

#[test]
fn a_hosts_queue_deleted_by_an_operator_is_made_again() {
    let lab = Lab::new();
    let run = begun(&lab);
    lab.stage.bus.delete_queue(&queue(&lab, "agent.")).unwrap();
    eventually("the queue is missed", || lab.agent.log().contains("declaring the queue again"));
    // That is said before the pause which keeps hosts apart.
    eventually("the queue is there again", || lab.agent.log().matches("taking commands").count() > 1);
    lab.open("one");
    check_ends_well(&lab, run);
}

#[test]
fn a_deleted_exchange_is_named_and_its_return_needs_new_connections() {
    let admin = "host/admin.ams1";
    let bus = BROKER.hostile(IDENTITIES.into_iter().chain([admin]), admin);
    let mut lab = Lab::started_on(Stage::on(bus), "", |_| {});
    lab.agent.wait_ready().unwrap();
    let by_admin = |operation: Operation<'_>| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (url, site) = (&lab.stage.bus.urls[0], lab.stage.site());
        runtime.block_on(async {
            let connection = connect(url, &site.member(admin), &site.trust()).await.unwrap();
            perform(&connection, &operation).await.unwrap();
            connection.close(200, "done".into()).await.unwrap();
        });
    };
    by_admin(Operation::DeleteExchange { exchange: EXCHANGE_COMMAND });
    let told = lab.run("lab.change", &[]).expect(7);
    assert!(
        told.stderr.contains("error[broker-not-found]") && told.stderr.contains("no exchange 'cmd'"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("muster broker config"), "{}", told.stderr);
    assert!(lab.starts().is_empty());
    by_admin(Operation::DeclareExchange { exchange: EXCHANGE_COMMAND });
    lab.stage.bus.close_connections(None, "bindings").unwrap();
    eventually("the agent is back", || lab.agent.log().contains("Connected again"));
    lab.run("lab.change", &PATIENT).expect(0);
}

#[test]
fn a_host_without_permissions_keeps_its_report_until_it_has_them_again() {
    let lab = Lab::new();
    let run = begun(&lab);
    lab.stage.bus.forbid(&"host/web-1.ams1".parse().unwrap()).unwrap();
    lab.stage.bus.close_connections(None, "permissions").unwrap();
    end(&lab);
    eventually("the agent says why", || lab.agent.log().contains("Not connected to the broker"));
    lab.stage.bus.let_in(IDENTITIES);
    check_ends_well(&lab, run);
}

#[test]
fn a_virtual_host_that_is_deleted_and_made_again_is_found_again() {
    let lab = Lab::new();
    let run = begun(&lab);
    lab.stage.bus.remove().unwrap();
    end(&lab);
    let told = lab.lea.run(&["ping", "-H", HOST]).unwrap();
    assert!(told.stderr.contains("error[broker-vhost-refused]"), "{} {}", told.code, told.stderr);
    assert_eq!(told.code, 8, "{}", told.stderr);
    lab.stage.bus.make_again(&parsed(IDENTITIES)).unwrap();
    check_ends_well(&lab, run);
}

/// The memory that a process has had at most, in KiB.
fn largest_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_command_line_that_reads_nothing_holds_up_nobody_and_misses_nothing() {
    const BYTES: usize = 20 * 1024 * 1024;
    let lab = Lab::new();
    let command = format!("command=head -c {BYTES} /dev/zero | tr '\\0' x");
    let words = ["run", "shell.run", &command, "-H", HOST, "--raw"];
    let mut child = lab.lea.command(&words).unwrap().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let mut output = child.stdout.take().unwrap();
    let mut first = [0u8; 1];
    output.read_exact(&mut first).unwrap();
    kill(pid, Signal::SIGSTOP).unwrap();
    // The host ends its action although nobody reads, and works for others meanwhile.
    eventually("the action ends", || ends(&lab) == 1);
    lab.stage.operator("max", &[]).run(&["ping", "-H", HOST, "--names"]).unwrap().expect(0);
    let memory_kib = largest_memory_kib(lab.agent.pid());
    assert!((1..96 * 1024).contains(&memory_kib), "{memory_kib} KiB");
    kill(pid, Signal::SIGCONT).unwrap();
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!((ended.status.code(), rest.len() + 1), (Some(0), BYTES), "{said}");
    assert!(rest.iter().all(|byte| *byte == b'x'));
}
