//! Certificates that end while they are in use: rotated, expired, revoked; and the authority itself replaced.

use std::fs;

use muster_daemon::{Clock as _, SystemClock};
use muster_pki::Credentials;
use muster_pki::profile::Order;
use muster_pki::time_text::DAY_MS;
use muster_protocol::Timestamp;
use muster_tests::pki::{Member, Site};
use muster_tests::programs::{AgentProcess, Finished, Operator};
use muster_tests::stage::Stage;

use super::BROKER;
use super::lab::{HOST, Lab, eventually, id_and_code, know_plugin, task};

/// How long a certificate lives that is to end in the middle, in milliseconds: longer than a busy machine needs to
/// begin.
const SHORT_MS: i64 = 12_000;

fn now() -> Timestamp {
    Timestamp(SystemClock.now_ms())
}

fn stage() -> Stage {
    Stage::new(BROKER, &["host/web-1.ams1", "user/lea", "user/max"])
}

/// Credentials that end soon.
fn short(site: &Site, identity: &str, groups: &[&str]) -> Credentials {
    let groups = groups.iter().map(|group| group.parse().unwrap()).collect();
    let order = Order { groups, days: Some(1), ..Order::new(identity.parse().unwrap()) };
    site.authority().order(&order, now().plus_ms(SHORT_MS - DAY_MS)).unwrap()
}

fn renewed(site: &Site) -> Credentials {
    site.authority().order(&Order::new("host/web-1.ams1".parse().unwrap()), now()).unwrap()
}

/// Puts other credentials where a program looks for its own, as an administrator does: a file at a time.
fn replace(member: &Member, site: &Site, credentials: Credentials, name: &str) {
    let new = site.keep(&format!("{name}-{}", member.credentials.fingerprint()), credentials);
    fs::rename(&new.files.key, &member.files.key).unwrap();
    fs::rename(&new.files.certificate, &member.files.certificate).unwrap();
}

/// Sends the newest revocation list to every agent.
#[track_caller]
fn publish(lab: &Lab) {
    let list = lab.stage.folder().join("crl.pem");
    fs::write(&list, lab.stage.site().authority().crl_pem().unwrap()).unwrap();
    lab.lea.run(&["pki", "publish", list.to_str().unwrap(), "--json"]).unwrap().expect(0);
}

/// A short question to the host.
fn ask(operator: &Operator) -> Finished {
    operator.run(&["run", "lab.read", "-H", HOST, "--jsonl", "--reply-timeout", "3s"]).unwrap()
}

#[test]
fn a_certificate_is_rotated_under_a_running_action() {
    let stage = stage();
    let site = stage.site();
    let member = site.keep("rotated", site.authority().credentials("host/web-1.ams1").unwrap());
    let lab = Lab::as_member(stage, &member);
    for (round, (action, word)) in [("change", "one"), ("apart", "two")].into_iter().enumerate() {
        let run = lab.begin_run(&format!("lab.{action}"), &[&format!("until={word}")]);
        lab.started_times(round + 1);
        replace(&member, site, renewed(site), word);
        lab.reload();
        lab.open(word);
        let (id, code) = id_and_code(&run.finish().expect(0));
        assert_eq!((code.as_str(), lab.starts_of(&id)), ("ok", 1));
    }
    // The one before may now be taken back.
    site.authority().revoke(&member.credentials).unwrap();
    publish(&lab);
    lab.check_works();
    assert!(!lab.agent.log().contains("would not be believed"), "{}", lab.agent.log());
}

#[test]
fn a_host_whose_certificate_expires_takes_nothing_and_tells_all_with_the_next_one() {
    let stage = stage();
    let site = stage.site();
    let member = site.keep("expiring", short(site, "host/web-1.ams1", &[]));
    let lab = Lab::as_member(stage, &member);
    let run = lab.begin_run("lab.change", &["until=one"]);
    lab.started_times(1);
    eventually("the agent notices", || lab.agent.log().contains("this host's own certificate would not be believed"));
    assert!(lab.agent.log().contains("and reload"), "it says what to do: {}", lab.agent.log());
    // Its end comes while nobody would believe it, so it waits.
    lab.open("one");
    eventually("the end waits on disk", || fs::read_dir(lab.state("spool")).unwrap().count() > 0);
    // What comes now is not begun.
    assert_eq!(task(&ask(&lab.lea).expect(5))["state"], "no_reply");
    replace(&member, site, renewed(site), "next");
    lab.reload();
    let (id, code) = id_and_code(&run.finish().expect(0));
    assert_eq!((code.as_str(), lab.starts_of(&id)), ("ok", 1));
    lab.check_works();
}

#[test]
fn a_user_whose_certificate_expires_sees_the_end_and_begins_nothing_new() {
    let stage = stage();
    let site = stage.site();
    let member = site.keep("short-max", short(site, "user/max", &["admins"]));
    let lab = Lab::as_member(stage, &site.member("host/web-1.ams1"));
    let max = lab.stage.operator_as("max", &member);
    know_plugin(lab.stage.folder(), "max");
    let words = ["run", "lab.apart", "until=one", "-H", HOST, "--jsonl"];
    let run = super::lab::Begun::new(max.command(&words).unwrap(), &words);
    lab.started_times(1);
    eventually("it expires", || now() > member.credentials.not_after().plus_ms(1_000));
    lab.open("one");
    assert_eq!(task(&run.finish().expect(0))["code"], "ok");
    let refused = ask(&max).expect(8);
    assert!(
        refused.stdout.contains("expired-certificate") || refused.stderr.contains("expired-certificate"),
        "{}{}",
        refused.stdout,
        refused.stderr
    );
    assert_eq!(lab.starts().len(), 1);
}

#[test]
fn a_user_who_is_revoked_while_his_action_runs_begins_nothing_new() {
    let stage = stage();
    let site = stage.site();
    let member = site.keep("leaving-max", site.authority().credentials_with_groups("user/max", &["admins"]).unwrap());
    let lab = Lab::as_member(stage, &site.member("host/web-1.ams1"));
    // Without a list at the desk, so that it is the host that has to know.
    let access = muster_tests::programs::Access { crl: None, ..lab.stage.access(&member) };
    let max = Operator::new(&lab.stage.folder().join("home/max"), "test", &access, &(&member).into()).unwrap();
    know_plugin(lab.stage.folder(), "max");
    let words = ["run", "lab.apart", "until=one", "-H", HOST, "--jsonl"];
    let run = super::lab::Begun::new(max.command(&words).unwrap(), &words);
    lab.started_times(1);
    site.authority().revoke(&member.credentials).unwrap();
    publish(&lab);
    for _ in 0..2 {
        assert_eq!(task(&ask(&max).expect(6))["code"], "revoked-certificate");
    }
    // What was allowed when it began goes on; somebody with the right to it can stop it.
    lab.open("one");
    assert_eq!(task(&run.finish().expect(0))["code"], "ok");
    assert_eq!(lab.starts().len(), 1);
}

#[test]
fn a_host_that_is_revoked_takes_nothing_and_is_believed_nothing() {
    let stage = stage();
    let site = stage.site();
    let member = site.keep("lost-host", site.authority().credentials("host/web-1.ams1").unwrap());
    let mut lab = Lab::as_member(stage, &member);
    ask(&lab.lea).expect(0);
    site.authority().revoke(&member.credentials).unwrap();

    // Whoever has the list believes the host nothing, though the host itself does not know.
    let newest = site.authority().crl_pem().unwrap();
    let list = lab.stage.folder().join("newest.pem");
    fs::write(&list, &newest).unwrap();
    let lea = site.member_in("user/lea", &["admins"]);
    let access = muster_tests::programs::Access { crl: Some(list), ..lab.stage.access(&lea) };
    let warned = Operator::new(&lab.stage.folder().join("home/lea"), "test", &access, &(&lea).into()).unwrap();
    let doubted = ask(&warned).expect(5);
    assert_eq!(task(&doubted)["state"], "no_reply", "{}", doubted.stdout);
    assert!(
        doubted.stdout.contains("revoked-certificate") || doubted.stderr.contains("revoked"),
        "{}{}",
        doubted.stdout,
        doubted.stderr
    );

    // Once the host is told, by a file or by the bus, it says so and takes nothing more.
    let starts = lab.starts().len();
    publish(&lab);
    let told = "this host's own certificate would not be believed";
    eventually("the agent notices", || lab.agent.log().contains(told));
    ask(&warned).expect(5);
    assert_eq!(lab.starts().len(), starts);
    // Nor after a restart, for which the list was kept.
    lab.agent.stop().unwrap();
    let before = lab.agent.log().matches(told).count();
    let folder = lab.agent.folder().to_owned();
    lab.agent = AgentProcess::start_in(HOST.parse().unwrap(), &folder).unwrap();
    eventually("the agent notices again", || lab.agent.log().matches(told).count() > before);
    replace(&member, site, renewed(site), "found");
    lab.reload();
    lab.agent.wait_ready().unwrap();
    ask(&warned).expect(0);
}
