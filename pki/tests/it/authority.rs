//! The CA directory: what is in it, who may touch it, what a crash leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use muster_pki::authority::{Authority, RecordState, Selection};
use muster_pki::profile::Order;
use muster_pki::{PkiError, Reason, Trust};
use muster_protocol::Identity;

use crate::{DAY_MS, NOW};

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> (Self, Authority) {
        let directory = Self(tempfile::tempdir().unwrap());
        let authority = Authority::init(&directory.ca(), &Default::default(), NOW).unwrap();
        (directory, authority)
    }

    fn ca(&self) -> std::path::PathBuf {
        self.0.path().join("ca")
    }

    fn open(&self) -> Result<Authority, PkiError> {
        Authority::open(&self.ca(), NOW)
    }
}

fn order(text: &str) -> Order {
    Order::new(text.parse().unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Every file below the directory with its contents, but for the lock.
fn contents(path: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            found.extend(contents(&entry.path()).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else if name != "lock" {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn a_new_authority_is_private_and_complete() {
    let (directory, authority) = Directory::new();
    let ca = directory.ca();
    assert_eq!(mode(&ca), 0o700);
    assert_eq!(mode(&ca.join("ca.key")), 0o600);
    assert_eq!(mode(&ca.join("index.jsonl")), 0o600);
    let names: Vec<_> = contents(&ca).into_keys().collect();
    assert_eq!(names, ["ca.key", "ca.pem", "crl.pem", "index.jsonl"]);
    let certificate = authority.certificate();
    assert!(certificate.is_authority() && !certificate.may_sign());
    assert!(certificate.subject().starts_with("CN=Muster CA "), "{}", certificate.subject());
    assert_eq!(certificate.subject(), certificate.issuer());
    let (_, info) = authority.crl().unwrap();
    assert_eq!((info.number, info.revoked, info.next_update), (1, 0, NOW.plus_ms(30 * DAY_MS)));
    Trust::load(&ca.join("ca.pem"), Some(&ca.join("crl.pem"))).unwrap();
}

/// `/etc/muster` holds what everybody reads: only the directory of the keys is closed.
#[test]
fn directories_above_a_private_one_follow_the_umask() {
    let directory = tempfile::tempdir().unwrap();
    let usual = directory.path().join("usual");
    fs::create_dir(&usual).unwrap();
    let ca = directory.path().join("etc/muster/ca");
    let mut authority = Authority::init(&ca, &Default::default(), NOW).unwrap();
    let issued = directory.path().join("home/lea/certificates");
    authority.issue_into(&order("user/lea"), &issued, NOW).unwrap();
    let requested = directory.path().join("host/muster/tls");
    muster_pki::request::create_into(&"host/a".parse().unwrap(), None, &requested).unwrap();
    for private in [ca, issued, requested] {
        assert_eq!(mode(&private), 0o700, "{}", private.display());
        for above in private.ancestors().skip(1).take(2) {
            assert_eq!(mode(above), mode(&usual), "{}", above.display());
        }
    }
}

#[test]
fn there_is_one_authority_per_directory() {
    let (directory, _) = Directory::new();
    let before = contents(&directory.ca());
    let error = Authority::init(&directory.ca(), &Default::default(), NOW).unwrap_err();
    assert_eq!(error.code(), "file-exists");
    assert_eq!(contents(&directory.ca()), before);
    let error = Authority::open(directory.0.path(), NOW).unwrap_err();
    assert_eq!(error.code(), "no-authority");
    assert!(error.remedies()[0].contains("--ca-dir DIR"));
    assert!(error.remedies()[1].starts_with("muster pki init --ca-dir "));
}

#[test]
fn an_open_directory_or_key_is_refused() {
    let (directory, _) = Directory::new();
    let open = |path: &Path, bits| fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    open(&directory.ca(), 0o750);
    assert_eq!(directory.open().unwrap_err().code(), "directory-exposed");
    open(&directory.ca(), 0o700);
    open(&directory.ca().join("ca.key"), 0o640);
    let mut authority = directory.open().unwrap();
    assert_eq!(authority.issue(&order("host/a"), NOW).unwrap_err().code(), "key-exposed");
    open(&directory.ca().join("ca.key"), 0o600);
    authority.issue(&order("host/a"), NOW).unwrap();

    let exposed = directory.0.path().join("exposed");
    fs::create_dir(&exposed).unwrap();
    open(&exposed, 0o755);
    assert_eq!(Authority::init(&exposed, &Default::default(), NOW).unwrap_err().code(), "directory-exposed");
}

#[test]
fn one_operator_at_a_time() {
    let (directory, mut authority) = Directory::new();
    let lock = fs::File::open(directory.ca().join("lock")).unwrap();
    lock.lock().unwrap();
    let error = authority.issue(&order("host/a"), NOW).unwrap_err();
    assert_eq!(error.code(), "authority-locked");
    assert!(error.is_transient());
    assert!(directory.open().unwrap().list().is_empty(), "reading needs no lock");
    lock.unlock().unwrap();
    authority.issue(&order("host/a"), NOW).unwrap();

    // What another process did meanwhile is seen before anything is decided.
    let mut second = directory.open().unwrap();
    authority.issue(&order("host/b"), NOW).unwrap();
    assert_eq!(second.issue(&order("host/b"), NOW).unwrap_err().code(), "identity-taken");
    second.issue(&order("host/c"), NOW).unwrap();
    assert_eq!(second.list().len(), 3);
}

#[test]
fn revoking_by_identity_and_by_serial() {
    let (directory, mut authority) = Directory::new();
    let lea: Identity = "user/lea".parse().unwrap();
    let renew = Order { renew: true, ..order("user/lea") };
    let (first, _) = authority.issue(&renew, NOW).unwrap();
    let (second, _) = authority.issue(&renew, NOW).unwrap();
    let (web, _) = authority.issue(&order("host/web1"), NOW).unwrap();

    let serial = Selection::Serial(web.short_serial().to_uppercase());
    let done = authority.revoke(&serial, Reason::KeyCompromise, 30, NOW).unwrap();
    assert_eq!(done[0].serial, web.serial);
    assert_eq!(done[0].revoked, Some((NOW, Reason::KeyCompromise)));
    assert_eq!(authority.revoke(&serial, Reason::Unspecified, 30, NOW).unwrap_err().code(), "already-revoked");

    let done = authority.revoke(&Selection::Identity(lea.clone()), Reason::Superseded, 7, NOW).unwrap();
    let serials: Vec<_> = done.iter().map(|record| &record.serial).collect();
    assert_eq!(serials, [&first.serial, &second.serial]);
    let again = authority.revoke(&Selection::Identity(lea.clone()), Reason::Superseded, 7, NOW).unwrap_err();
    assert_eq!(again.code(), "already-revoked");
    for (selection, code) in [
        (Selection::Identity("user/nobody".parse().unwrap()), "no-certificate"),
        (Selection::Serial("0000".to_owned()), "no-certificate"),
        (Selection::Serial("xyz!".to_owned()), "bad-value"),
        (Selection::Serial("4".to_owned()), "bad-value"),
    ] {
        assert_eq!(authority.revoke(&selection, Reason::Unspecified, 30, NOW).unwrap_err().code(), code);
    }
    let (_, info) = authority.crl().unwrap();
    assert_eq!((info.number, info.revoked, info.next_update), (3, 3, NOW.plus_ms(7 * DAY_MS)));
    let reopened = directory.open().unwrap();
    assert!(reopened.list().iter().all(|record| record.state(NOW) == RecordState::Revoked));
    assert_eq!(reopened.list(), authority.list());
    // A revoked identity may get a new certificate without further ado.
    authority.issue(&order("user/lea"), NOW).unwrap();
}

#[test]
fn a_certificate_leaves_the_list_long_after_its_end() {
    let (_directory, mut authority) = Directory::new();
    let (record, _) = authority.issue(&Order { days: Some(1), ..order("user/lea") }, NOW).unwrap();
    authority.revoke(&Selection::Serial(record.serial), Reason::Unspecified, 30, NOW).unwrap();
    assert_eq!(authority.renew_crl(30, NOW.plus_ms(20 * DAY_MS)).unwrap().revoked, 1);
    assert_eq!(authority.renew_crl(30, NOW.plus_ms(32 * DAY_MS)).unwrap().revoked, 0);
}

/// Runs `work` on a copy of the directory in the state a crash may have left, and wants to find it whole.
#[track_caller]
fn recovers(name: &str, ca: &Path, crash: impl FnOnce(&Path), expected: impl FnOnce(&Authority)) {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join("ca");
    copy_directory(ca, &to);
    crash(&to);
    let opened = Authority::open(&to, NOW).unwrap_or_else(|error| panic!("{name}: {error}"));
    expected(&opened);
    let trust =
        Trust::load(&to.join("ca.pem"), Some(&to.join("crl.pem"))).unwrap_or_else(|error| panic!("{name}: {error}"));
    let revoked = opened.list().iter().filter(|record| record.revoked.is_some()).count();
    assert_eq!(trust.crl_info()[0].revoked, revoked, "{name}");
    assert_eq!(fs::read_dir(to.join("issued")).map_or(0, Iterator::count), opened.list().len(), "{name}");
    // And life goes on.
    let mut opened = opened;
    opened.issue(&order("host/after-the-crash"), NOW).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(Authority::open(&to, NOW).unwrap().list(), opened.list(), "{name}");
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn a_crash_at_any_point_leaves_a_directory_that_repairs_itself() {
    let (directory, mut authority) = Directory::new();
    let ca = directory.ca();
    authority.issue(&order("host/a"), NOW).unwrap();
    let before = contents(&ca);
    authority.issue(&order("host/b"), NOW).unwrap();
    authority.revoke(&Selection::Identity("host/a".parse().unwrap()), Reason::Unspecified, 30, NOW).unwrap();
    let after = contents(&ca);
    let index = &after["index.jsonl"];
    let start = before["index.jsonl"].len();

    // The power goes after each byte of the index that the two operations wrote, with the other files
    // as they were before or as they were after.
    for length in (start..=index.len()).step_by(7).chain([index.len()]) {
        let whole = index[..length].iter().filter(|byte| **byte == b'\n').count();
        recovers(
            &format!("index cut at {length}"),
            &ca,
            |to| {
                fs::write(to.join("index.jsonl"), &index[..length]).unwrap();
                fs::write(to.join("crl.pem"), &before["crl.pem"]).unwrap();
                for name in after.keys().filter(|name| !before.contains_key(*name)) {
                    fs::remove_file(to.join(name)).unwrap();
                }
            },
            |opened| {
                // Lines: first list, host/a, host/b, revocation, second list.
                assert_eq!(opened.list().len(), if whole >= 3 { 2 } else { 1 }, "{length}");
                assert_eq!(opened.list()[0].revoked.is_some(), whole >= 4, "{length}");
            },
        );
    }
    recovers(
        "no list",
        &ca,
        |to| fs::remove_file(to.join("crl.pem")).unwrap(),
        |opened| {
            assert_eq!(opened.crl().unwrap().1.number, 3);
        },
    );
    recovers("torn list", &ca, |to| fs::write(to.join("crl.pem"), "-----BEGIN").unwrap(), |_| {});
    recovers("no copies", &ca, |to| fs::remove_dir_all(to.join("issued")).unwrap(), |_| {});
}

#[test]
fn a_restored_backup_does_not_undercut_the_list() {
    let (directory, mut authority) = Directory::new();
    let old = fs::read(directory.ca().join("index.jsonl")).unwrap();
    for _ in 0..5 {
        authority.renew_crl(30, NOW).unwrap();
    }
    fs::write(directory.ca().join("index.jsonl"), old).unwrap();
    assert!(directory.open().unwrap().crl().unwrap().1.number > 6);
}

#[test]
fn a_damaged_index_is_said_and_not_touched() {
    let (directory, mut authority) = Directory::new();
    authority.issue(&order("host/a"), NOW).unwrap();
    let path = directory.ca().join("index.jsonl");
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    for (text, line) in [
        (format!("{}\n{{\"event\":\n", lines[0]), 2),
        (format!("garbage\n{good}"), 1),
        (format!("{good}{}\n", lines[1]), 3),
        (format!("{good}{}\n", lines[0]), 3),
        (good.replace("\"certificate\":\"MI", "\"certificate\":\"MJ"), 2),
        (format!("{good}{{\"event\":\"revoked\",\"serial\":\"77\",\"revoked_at\":1,\"reason\":\"superseded\"}}\n"), 3),
    ] {
        fs::write(&path, &text).unwrap();
        let error = directory.open().unwrap_err();
        assert!(matches!(error, PkiError::IndexDamaged { line: at, .. } if at == line), "{line}: {error}");
        assert_eq!(authority.issue(&order("host/b"), NOW).unwrap_err().code(), "index-damaged");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn another_authoritys_key_signs_nothing_here() {
    let (directory, mut authority) = Directory::new();
    let (other, _) = Directory::new();
    fs::copy(other.ca().join("ca.key"), directory.ca().join("ca.key")).unwrap();
    assert_eq!(authority.issue(&order("host/a"), NOW).unwrap_err().code(), "key-mismatch");
}

#[test]
fn an_authority_ends() {
    let (_directory, mut authority) = Directory::new();
    let end = authority.certificate().not_after();
    let (last, _) = authority.issue(&order("host/a"), end.plus_ms(-DAY_MS)).unwrap();
    assert_eq!(last.not_after, end);
    let error = authority.issue(&order("host/b"), end.plus_ms(1000)).unwrap_err();
    assert_eq!(error.code(), "authority-expired");
}

#[test]
fn many_at_once_lose_nothing() {
    let (directory, _) = Directory::new();
    let ca = directory.ca();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let ca = &ca;
            scope.spawn(move || {
                for number in 0..5 {
                    let order = order(&format!("host/w{worker}-{number}"));
                    // Whoever finds it locked tries again, as an operator would.
                    while let Err(error) = Authority::open(ca, NOW).and_then(|mut it| it.issue(&order, NOW)) {
                        assert_eq!(error.code(), "authority-locked", "{error}");
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    let authority = directory.open().unwrap();
    let names: std::collections::BTreeSet<_> = authority.list().iter().map(|record| &record.identity).collect();
    assert_eq!((authority.list().len(), names.len()), (20, 20));
    assert_eq!(fs::read_dir(ca.join("issued")).unwrap().count(), 20);
}

#[test]
fn what_is_delivered_is_whole_and_harms_nobody() {
    let (directory, mut authority) = Directory::new();
    let out = directory.0.path().join("out");
    let (record, files) = authority.issue_into(&order("user/lea"), &out, NOW).unwrap();
    assert_eq!((mode(&out), mode(files.key.as_deref().unwrap())), (0o700, 0o600));
    assert_eq!(authority.export(&record).unwrap().to_pem(), fs::read_to_string(&files.certificate).unwrap());
    // A second identity beside the first; the list there is brought up to date.
    authority.revoke(&Selection::Serial(record.serial), Reason::Unspecified, 30, NOW).unwrap();
    authority.issue_into(&order("user/max"), &out, NOW).unwrap();
    let trust = Trust::load(&files.ca, Some(&files.crl)).unwrap();
    assert_eq!(trust.crl_info()[0].number, 2);

    // Another authority's directory is left alone, and nothing is certified for it.
    let (_other, mut stranger) = Directory::new();
    let before = contents(&out);
    let error = stranger.issue_into(&order("user/eve"), &out, NOW).unwrap_err();
    assert_eq!(error.code(), "file-exists");
    assert!(stranger.list().is_empty());
    assert_eq!(contents(&out), before);

    // What cannot be certified leaves no key behind.
    let error = authority.issue_into(&order("user/max"), &directory.0.path().join("new"), NOW).unwrap_err();
    assert_eq!(error.code(), "identity-taken");
    assert!(!directory.0.path().join("new").exists());
    fs::set_permissions(directory.ca().join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = authority.issue_into(&order("user/tom"), &out, NOW).unwrap_err();
    assert_eq!(error.code(), "key-exposed");
    assert_eq!(contents(&out), before);
}
