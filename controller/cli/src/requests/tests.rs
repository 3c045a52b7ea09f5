use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

fn id(number: u16) -> RequestId {
    let [high, low] = number.to_be_bytes();
    RequestId::from_parts(Timestamp(1_795_000_000_000 + i64::from(number)), [0, 0, 0, 0, 0, 0, 0, 0, high, low])
}

fn hosts(names: &[&str]) -> BTreeSet<HostName> {
    names.iter().map(|name| HostName::new(*name).unwrap()).collect()
}

fn request(number: u16, context: &str) -> Request {
    Request {
        id: id(number),
        asked_at: Timestamp(1_795_000_000_000 + i64::from(number)),
        context: context.to_owned(),
        action: "package.install".to_owned(),
        what: format!("package.install name=p{number}"),
        time_limit_ms: 300_000,
        ttl_ms: 60_000,
        read_only: false,
        commands: BTreeMap::new(),
        outcome: Outcome::default(),
    }
}

fn wave(number: u16, names: &[&str]) -> BTreeMap<RequestId, BTreeSet<HostName>> {
    BTreeMap::from([(id(number), hosts(names))])
}

fn store() -> (tempfile::TempDir, Requests, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/muster/requests.jsonl");
    (directory, Requests::at(path.clone()), path)
}

#[test]
fn waves_are_one_request_and_any_of_its_ids_names_it() {
    let (_directory, requests, path) = store();
    requests.keep(&request(1, "main"), &wave(1, &["web-1", "web-2"])).unwrap();
    requests.keep(&request(5, "other"), &wave(5, &["db-1"])).unwrap();
    requests.keep(&request(1, "main"), &wave(2, &["web-3"])).unwrap();
    let all = requests.all();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].hosts(), hosts(&["web-1", "web-2", "web-3"]));
    for given in ["last", &id(1).to_string(), &id(2).to_string(), &id(2).to_string().to_uppercase(), &id(1).short()] {
        let Named::Kept(found) = requests.find(given, "main").unwrap() else { panic!("{given}") };
        assert_eq!(found.id, id(1), "{given}");
    }
    let narrowed = all[0].parts(&hosts(&["web-3", "web-2"]));
    assert_eq!(narrowed.iter().map(|part| part.request).collect::<Vec<_>>(), [id(1), id(2)]);
    assert_eq!(narrowed[0].audience, Audience::Hosts(hosts(&["web-2"])));
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn what_is_not_known_or_not_clear_is_said() {
    let (_directory, requests, _) = store();
    let code = |given: &str, context: &str| {
        requests.find(given, context).map_err(|failure| (failure.code, failure.exit.number()))
    };
    assert_eq!(code("last", "main"), Err(("no-request", 4)));
    assert_eq!(code(&id(9).to_string(), "main"), Ok(Named::Elsewhere(id(9))));
    requests.keep(&request(1, "main"), &wave(1, &["web-1"])).unwrap();
    requests.keep(&request(2, "main"), &wave(2, &["web-1"])).unwrap();
    assert_eq!(code(&id(1).to_string()[..10], "main"), Err(("ambiguous-request", 2)));
    assert_eq!(code("ffff", "main"), Err(("no-request", 2)));
    assert_eq!(code("019", "main"), Err(("no-request", 2)), "too short to mean one");
    let failure = requests.find(&id(2).short(), "prod").unwrap_err();
    assert!(failure.why.iter().any(|(_, text)| text.contains("in context `main`")), "{failure:?}");
}

#[test]
fn a_spoilt_file_is_no_obstacle() {
    let (_directory, requests, path) = store();
    requests.keep(&request(1, "main"), &wave(1, &["web-1"])).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"\xff\xfe garbage\n{\"version\":99}\n{\"version\":1,\"half").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    requests.keep(&request(2, "main"), &wave(2, &["web-2"])).unwrap();
    let ids: Vec<RequestId> = requests.all().iter().map(|request| request.id).collect();
    assert_eq!(ids, [id(1), id(2)]);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn the_file_stays_small_and_keeps_the_newest() {
    let (_directory, requests, path) = store();
    for number in 0..1_100 {
        requests.keep(&request(number, "main"), &wave(number, &["web-1"])).unwrap();
    }
    let all = requests.all();
    assert!((750..=1_000).contains(&all.len()), "{}", all.len());
    assert_eq!(all.last().unwrap().id, id(1_099));
    // Names that do not fold: 4,000 of 100 bytes are 400 KB a line.
    let letters = |n: u32| format!("{n:012b}").replace('0', "q").replace('1', "z");
    let names: Vec<String> =
        (0..4_000).map(|n| format!("{}.{}.{}", letters(n), "x".repeat(60), "y".repeat(30))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for number in 2_000..2_020 {
        requests.keep(&request(number, "main"), &wave(number, &names)).unwrap();
    }
    assert!(std::fs::metadata(&path).unwrap().len() < 4 * 1024 * 1024);
    assert_eq!(requests.all().last().unwrap().hosts().len(), 4_000);
}

#[test]
fn processes_that_write_at_once_lose_nothing() {
    let (_directory, requests, _) = store();
    std::thread::scope(|scope| {
        for writer in 0..4u16 {
            let requests = requests.clone();
            scope.spawn(move || {
                for number in 0..25 {
                    let number = writer * 100 + number;
                    requests.keep(&request(number, "main"), &wave(number, &["web-1"])).unwrap();
                }
            });
        }
    });
    let ids: BTreeSet<RequestId> = requests.all().iter().map(|request| request.id).collect();
    assert_eq!(ids.len(), 100);
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_and_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let requests = Requests::at(directory.path().join("file/below/requests.jsonl"));
    assert!(requests.keep(&request(1, "main"), &wave(1, &["web-1"])).is_err());
    assert!(requests.all().is_empty());
    assert!(Requests::default().keep(&request(1, "main"), &wave(1, &["web-1"])).is_ok());
}

#[test]
fn what_is_known_of_a_host_stays_until_something_newer_is() {
    use crate::outcome::Row;
    use muster_protocol::TaskState;
    use serde_json::json;

    let (_directory, requests, path) = store();
    let row = |name: &str, state: TaskState, code: &str, data: serde_json::Value| {
        let host = HostName::new(name).unwrap();
        let mut row = Row::not_asked(host, state, crate::outcome::Reason::NotReached);
        row.reason = None;
        row.result = Some(muster_protocol::ActionResult {
            outcome: muster_protocol::Outcome::Refused,
            code: code.to_owned(),
            message: String::new(),
            exit_code: None,
            data,
            truncated_from_bytes: None,
            duration_ms: 0,
        });
        row
    };
    let sent = request(1, "main");
    requests.keep(&sent, &wave(1, &["web-1", "web-2", "web-3"])).unwrap();
    let learn = |rows: &[Row]| {
        requests.keep_outcome(&sent, &Outcome::of(rows)).unwrap();
        requests.all()[0].outcome.clone()
    };
    let wanting = |name: &str| row(name, TaskState::Refused, "needs-approval", json!(null));
    let outcome = learn(&["web-1", "web-2", "web-3"].map(wanting));
    assert_eq!((outcome.text(), outcome.only_needs_approval()), ("3 want more signatures".to_owned(), true));
    let outcome = learn(&[
        row("web-1", TaskState::Succeeded, "ok", json!(null)),
        row("web-2", TaskState::Refused, "policy-denied", json!(null)),
        wanting("web-3"),
    ]);
    assert_eq!(outcome.text(), "1 succeeded, 1 refused, 1 want more signatures");
    assert!(!outcome.only_needs_approval());
    // That they had it before is no news, but for one that says what it was.
    let before = |name: &str, what: &str| row(name, TaskState::Refused, "replayed", json!({ "before": what }));
    let outcome = learn(&[before("web-1", "ended"), before("web-2", "refused"), before("web-3", "refused")]);
    assert_eq!(outcome.text(), "1 succeeded, 2 refused");
    assert_eq!(learn(&[row("web-1", TaskState::Failed, "unknown-request", json!(null))]), outcome);
    assert_eq!(requests.all()[0].hosts().len(), 3, "and it is one request");
    // An outcome whose waves are not kept any more is nothing.
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    assert!(requests.all().is_empty());
}
