//! Whole walks through the verbs, as an operator sees them.

use std::path::{Path, PathBuf};

use clap::Parser;
use muster_protocol::Timestamp;

use super::{PkiArguments, run_at};
use crate::output::{ExitCode, Format, Settings, Surroundings, Text, capture};

/// 2026-11-21T00:47:17Z
const NOW: Timestamp = Timestamp(1_795_222_037_000);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Parser)]
struct Words {
    #[command(flatten)]
    arguments: PkiArguments,
}

/// A desk with an authority's directory and room for files.
struct Desk {
    directory: tempfile::TempDir,
}

/// What a command said and how it ended.
struct Said {
    out: String,
    err: String,
    exit: ExitCode,
}

impl Desk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn with_authority() -> Self {
        let desk = Self::new();
        desk.good("init");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run_as(&self, words: &str, format: Format, now: Timestamp) -> Said {
        let words = words.replace("@", &format!("{}/", self.directory.path().display()));
        let line = format!("muster {words} --ca-dir {}", self.path("ca").display());
        let parsed = Words::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        let settings = Settings { format, ..Settings::default() };
        let (printer, out, err) = capture::printer(settings, Surroundings::default());
        let (exit, failure) = match run_at(&parsed.arguments.ca_dir, &parsed.arguments.verb, &printer, now) {
            Ok(exit) => (exit, String::new()),
            Err(failure) => {
                let lines: Vec<_> = failure.lines().iter().map(Text::to_plain).collect();
                (failure.exit, lines.join("\n") + "\n")
            }
        };
        printer.finish();
        Said { out: out.text(), err: err.text() + &failure, exit }
    }

    fn run(&self, words: &str) -> Said {
        self.run_as(words, Format::Table, NOW)
    }

    #[track_caller]
    fn good(&self, words: &str) -> Said {
        let said = self.run(words);
        assert_eq!(said.exit, ExitCode::Success, "{words}: {}", said.err);
        said
    }

    #[track_caller]
    fn bad(&self, words: &str, exit: ExitCode, code: &str) -> Said {
        let said = self.run(words);
        assert_eq!(said.exit, exit, "{words}: {}", said.err);
        assert!(said.err.contains(&format!("error[{code}]: ")), "{words}: {}", said.err);
        said
    }

    fn json(&self, words: &str) -> serde_json::Value {
        let said = self.run_as(words, Format::Json, NOW);
        assert_eq!(said.exit, ExitCode::Success, "{words}: {}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }

    /// Replaces what differs from run to run.
    fn settings(&self) -> insta::Settings {
        let mut settings = insta::Settings::clone_current();
        let directory = self.directory.path().display().to_string();
        settings.add_filter(&directory.replace('.', "\\."), "DIR");
        settings.add_filter("[0-9a-f]{64}", "[sha256]");
        settings.add_filter("[0-9a-f]{32}", "[serial]");
        settings.add_filter("Muster CA [0-9a-f]{8}", "Muster CA [key]");
        settings.add_filter("\\b[4-7][0-9a-f]{7}\\b", "[serial]");
        settings
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn from_a_new_authority_to_the_first_user() {
    let desk = Desk::new();
    let init = desk.good("init");
    let issue = desk.good("issue user/lea --group ops --group dba --out @lea");
    desk.settings().bind(|| {
        insta::assert_snapshot!(init.out, @r"
        authority    CN=Muster CA [key]
        directory    DIR/ca
        valid from   2026-11-21T00:42:17.000Z
        expires      2036-11-18 (3650 days)
        fingerprint  [sha256]
        issued       0 certificates
        revocation   number 1, 0 certificates, next due 2026-12-21 (30 days)
        ");
        insta::assert_snapshot!(init.err, @r"
        `DIR/ca/ca.key` is what everybody trusts: keep it offline, keep a backup
        next: muster pki issue user/NAME --group GROUP --out DIR --ca-dir DIR/ca
        ");
        insta::assert_snapshot!(issue.out, @r"
        identity     user/lea
        groups       dba, ops
        serial       [serial]
        valid from   2026-11-21T00:42:17.000Z
        expires      2027-11-21 (365 days)
        state        ✓ valid
        fingerprint  [sha256]
        key          [sha256]
        files        DIR/lea/user-lea.pem
                     DIR/lea/user-lea.key
                     DIR/lea/ca.pem
                     DIR/lea/crl.pem
        ");
    });
    assert_eq!(mode(&desk.path("lea/user-lea.key")), 0o600);
    muster_pki::Credentials::load(&desk.path("lea/user-lea.pem"), &desk.path("lea/user-lea.key")).unwrap();
}

#[test]
fn a_host_enrols_without_showing_its_key() {
    let desk = Desk::with_authority();
    let request = desk.good("request host/web1.example.com --out @web1");
    let show = desk.good("show @web1/host-web1.example.com.csr");
    let sign = desk.good("sign @web1/host-web1.example.com.csr --identity host/web1.example.com --out @web1");
    desk.settings().bind(|| {
        insta::assert_snapshot!(request.out, @r"
        asks for     host/web1.example.com
        key          [sha256]
        files        DIR/web1/host-web1.example.com.csr
                     DIR/web1/host-web1.example.com.key
        ");
        insta::assert_snapshot!(request.err, @r"
        the key stays here; carry the request to the authority and compare the key's fingerprint there
        next, where the authority is: muster pki sign DIR/web1/host-web1.example.com.csr --out DIR
        ");
        insta::assert_snapshot!(show.out, @r"
        asks for     host/web1.example.com
        key          [sha256]
        ");
        insta::assert_snapshot!(sign.out, @r"
        identity     host/web1.example.com
        serial       [serial]
        valid from   2026-11-21T00:42:17.000Z
        expires      2029-02-23 (825 days)
        state        ✓ valid
        fingerprint  [sha256]
        key          [sha256]
        files        DIR/web1/host-web1.example.com.pem
                     DIR/web1/ca.pem
                     DIR/web1/crl.pem
        ");
    });
    let certificate = desk.path("web1/host-web1.example.com.pem");
    muster_pki::Credentials::load(&certificate, &desk.path("web1/host-web1.example.com.key")).unwrap();
    // The key can be kept for the next certificate.
    desk.good("request host/web1.example.com --key @web1/host-web1.example.com.key --out @renewal");
    let renewed =
        desk.good("sign @renewal/host-web1.example.com.csr --identity host/web1.example.com --renew --out @renewal");
    assert!(renewed.err.contains("with the same key, stays in force"), "{}", renewed.err);
}

#[test]
fn a_request_is_signed_for_whom_the_operator_means() {
    let desk = Desk::with_authority();
    desk.good("request host/web1 --out @r");
    let asked = desk.bad("sign @r/host-web1.csr --out @s", ExitCode::NotConfirmed, "not-confirmed");
    let other =
        desk.bad("sign @r/host-web1.csr --identity user/lea --out @s", ExitCode::NotConfirmed, "other-identity");
    desk.settings().bind(|| {
        insta::assert_snapshot!(asked.err, @r"
        the request asks for host/web1
        its key has the fingerprint [sha256]
        error[not-confirmed]: nobody is there to confirm the identity; nothing was signed
          asks for  host/web1
          key       [sha256]
          try       muster pki sign DIR/r/host-web1.csr --identity host/web1 --out DIR/s --ca-dir DIR/ca
        ");
        insta::assert_snapshot!(other.err, @r"
        error[other-identity]: the request asks for `host/web1`, not for `user/lea`
          try     --identity KIND/NAME --override signs it for the identity you name
        ");
    });
    assert!(!desk.path("s").exists());
    desk.good("sign @r/host-web1.csr --identity host/web2 --override --out @s");
    assert!(desk.path("s/host-web2.pem").exists());
    std::fs::write(desk.path("bad.csr"), "hello").unwrap();
    desk.bad("sign @bad.csr --identity host/a --out @s", ExitCode::Usage, "bad-file");
    desk.bad("sign @none.csr --identity host/a --out @s", ExitCode::Usage, "file-unreadable");
}

#[test]
fn the_list_shows_what_is_worth_what() {
    let desk = Desk::with_authority();
    desk.good("issue user/lea --group ops --out @a");
    desk.good("issue host/web1 --days 20 --out @a");
    desk.good("issue host/web2 --out @a");
    desk.good("issue service/jobs --days 1 --out @a");
    desk.good("issue broker/mq1 --dns mq.example.com --ip 192.0.2.1 --out @a");
    let revoke = desk.good("revoke host/web2 --reason key-compromise");
    let list = desk.run_as("list", Format::Table, NOW.plus_ms(2 * DAY_MS));
    let late = desk.run_as("list --state valid", Format::Table, NOW.plus_ms(31 * DAY_MS));
    let broker = desk.good("show broker/mq1");
    desk.settings().bind(|| {
        insta::assert_snapshot!(revoke.out, @r"
        revoked      host/web2  [serial]  key-compromise
        issuer       CN=Muster CA [key]
        list         number 2, 1 certificate, next due 2026-12-21 (30 days)
        ");
        insta::assert_snapshot!(revoke.err, @r"
        This alone takes no access away. What does:
          1. the broker logs the identity out. The embedded one looks at the file of its `pki.crl` every second
             and closes the identity's connections; where the package `muster-broker` has that file:
             scp DIR/ca/crl.pem BROKER:/etc/muster/broker/crl.pem
             RabbitMQ reads no list; its user is deleted, and its connections are closed with it:
             muster broker config --ca-dir DIR/ca --out DIR --import --prune
          2. every running agent stops to believe it:
             muster pki publish DIR/ca/crl.pem
          3. the same for agents installed later, and for the contexts of users: copy the list to their `crl`
             scp DIR/ca/crl.pem HOST:/etc/muster/pki/crl.pem
        ");
        insta::assert_snapshot!(list.out, @r"
        IDENTITY      GROUPS  SERIAL    EXPIRES                      STATE
        host/web1             [serial]  2026-12-11 (18 days, renew)  ! valid
        host/web2             [serial]  2029-02-23                   ✗ revoked
        user/lea      ops     [serial]  2027-11-21 (363 days)        ✓ valid
        service/jobs          [serial]  2026-11-22                   ✗ expired
        broker/mq1            [serial]  2029-02-23 (823 days)        ✓ valid
        ");
        insta::assert_snapshot!(late.out, @r"
        IDENTITY    GROUPS  SERIAL    EXPIRES                STATE
        user/lea    ops     [serial]  2027-11-21 (334 days)  ✓ valid
        broker/mq1          [serial]  2029-02-23 (794 days)  ✓ valid
        ");
        insta::assert_snapshot!(late.err, @"warning: the revocation list was due on 2026-12-21; sign a new one: muster pki crl --ca-dir DIR/ca");
        insta::assert_snapshot!(broker.out, @r"
        identity     broker/mq1
        dns names    mq.example.com, mq1
        addresses    192.0.2.1
        issuer       CN=Muster CA [key]
        serial       [serial]
        valid from   2026-11-21T00:42:17.000Z
        expires      2029-02-23 (825 days)
        state        ✓ valid
        fingerprint  [sha256]
        key          [sha256]
        ");
    });
    let names = desk.run_as("list", Format::Names, NOW);
    assert_eq!(names.out, "host/web1\nhost/web2\nuser/lea\nservice/jobs\nbroker/mq1\n");
}

#[test]
fn the_documents() {
    let desk = Desk::with_authority();
    let issue = serde_json::to_string_pretty(&desk.json("issue user/lea --group ops --out @a")).unwrap();
    desk.good("revoke user/lea");
    let list = serde_json::to_string_pretty(&desk.json("list")).unwrap();
    let ca = serde_json::to_string_pretty(&desk.json("show ca")).unwrap();
    desk.settings().bind(|| {
        insta::assert_snapshot!(issue, @r#"
        {
          "certificate": {
            "days_left": 365,
            "fingerprint": "[sha256]",
            "groups": [
              "ops"
            ],
            "identity": "muster:user/lea",
            "key_fingerprint": "[sha256]",
            "not_after": "2027-11-21T00:47:17.000Z",
            "not_before": "2026-11-21T00:42:17.000Z",
            "serial": "[serial]",
            "state": "valid"
          },
          "files": {
            "ca": "DIR/a/ca.pem",
            "certificate": "DIR/a/user-lea.pem",
            "crl": "DIR/a/crl.pem",
            "key": "DIR/a/user-lea.key"
          },
          "kind": "issue",
          "schema": "muster.pki/v1"
        }
        "#);
        insta::assert_snapshot!(list, @r#"
        {
          "certificates": [
            {
              "days_left": 365,
              "fingerprint": "[sha256]",
              "groups": [
                "ops"
              ],
              "identity": "muster:user/lea",
              "key_fingerprint": "[sha256]",
              "not_after": "2027-11-21T00:47:17.000Z",
              "not_before": "2026-11-21T00:42:17.000Z",
              "reason": "unspecified",
              "revoked_at": "2026-11-21T00:47:17.000Z",
              "serial": "[serial]",
              "state": "revoked"
            }
          ],
          "schema": "muster.pki/v1"
        }
        "#);
        insta::assert_snapshot!(ca, @r#"
        {
          "authority": {
            "certificates": 1,
            "crl": {
              "days_left": 30,
              "issuer": "CN=Muster CA [key]",
              "next_update": "2026-12-21T00:47:17.000Z",
              "number": 2,
              "revoked": 1,
              "stale": false,
              "this_update": "2026-11-21T00:47:17.000Z"
            },
            "days_left": 3650,
            "directory": "DIR/ca",
            "fingerprint": "[sha256]",
            "not_after": "2036-11-18T00:47:17.000Z",
            "not_before": "2026-11-21T00:42:17.000Z",
            "serial": "[serial]",
            "subject": "CN=Muster CA [key]"
          },
          "kind": "show",
          "schema": "muster.pki/v1"
        }
        "#);
    });
}

#[test]
fn what_goes_wrong_says_what_to_do() {
    let desk = Desk::new();
    let none = desk.bad("list", ExitCode::Usage, "no-authority");
    let first = desk.bad("issue user/lea --out @a", ExitCode::Usage, "no-authority");
    assert!(first.err.contains("or      muster pki init --ca-dir "), "{}", first.err);
    desk.good("init");
    let again = desk.bad("init", ExitCode::Usage, "file-exists");
    desk.good("issue user/lea --out @a");
    let taken = desk.bad("issue user/lea --out @b", ExitCode::Usage, "identity-taken");
    assert!(!desk.path("b").exists());
    let exists = desk.bad("issue user/lea --renew --out @a", ExitCode::Usage, "file-exists");
    desk.settings().bind(|| {
        insta::assert_snapshot!(none.err, @r"
        error[no-authority]: `DIR/ca` holds no certificate authority
          try     the same command with --ca-dir DIR (or MUSTER_CA_DIR), the directory that the authority lives in
        ");
        insta::assert_snapshot!(again.err, @r"
        error[file-exists]: `DIR/ca/ca.key` already exists and is never overwritten
          try     choose another directory, or move `DIR/ca/ca.key` away if nobody needs it
        ");
        insta::assert_snapshot!(taken.err, @r"
        error[identity-taken]: `user/lea` already has a certificate (serial [serial]) valid until 2027-11-21T00:47:17Z
          or      muster pki revoke user/lea --ca-dir DIR/ca  # first, to replace a lost or stolen key
          try     to renew it, with both certificates valid for a while, add --renew
        ");
        insta::assert_snapshot!(exists.err, @r"
        error[file-exists]: `DIR/a/user-lea.pem` already exists and is never overwritten
          try     choose another directory, or move `DIR/a/user-lea.pem` away if nobody needs it
        ");
    });
    for (words, code) in [
        ("issue host/web1 --group ops --out @c", "not-for-kind"),
        ("issue user/lea2 --dns a.example.com --out @c", "not-for-kind"),
        ("issue user/lea2 --days 0 --out @c", "bad-value"),
        ("revoke user/nobody", "no-certificate"),
        ("revoke user/Bad", "bad-usage"),
        ("revoke zz", "bad-value"),
        ("show user/nobody", "no-certificate"),
        ("show nothing-here", "bad-usage"),
        ("show ./nothing.pemm", "file-unreadable"),
        ("show nothing.pem", "file-unreadable"),
        ("sign @nothing.csr --out @c", "file-unreadable"),
        ("sign @a/ca.pem --out @c", "bad-file"),
        ("issue user/lea2 --out /proc/nothing", "file-unwritable"),
        ("show @a/user-lea.key", "bad-usage"),
        ("export user/lea --encoding der", "bad-usage"),
        ("export user/lea --out @a/ca.pem", "file-exists"),
        ("crl --days 0", "bad-value"),
    ] {
        let said = desk.bad(words, ExitCode::Usage, code).err;
        assert!(said.contains("\n  try "), "{words} says nothing to try: {said}");
    }
    let said = desk.run("sign @a/ca.pem --out @c").err;
    assert!(said.contains("it holds a certificate, not a request"), "{said}");
    desk.good("revoke user/lea");
    let said = desk.bad("revoke user/lea", ExitCode::Usage, "already-revoked").err;
    assert!(said.contains("\n  try     muster pki show ") && said.contains(" --ca-dir "), "{said}");
    assert!(!desk.path("c").exists());
}

#[test]
fn certificates_and_lists_are_written_out() {
    let desk = Desk::with_authority();
    desk.good("issue user/lea --out @a");
    let ca = std::fs::read_to_string(desk.path("ca/ca.pem")).unwrap();
    let lea = std::fs::read_to_string(desk.path("a/user-lea.pem")).unwrap();
    assert_eq!(desk.good("export ca").out, ca);
    assert_eq!(desk.good("export user/lea").out, lea);
    assert_eq!(desk.good("export user/lea --encoding bundle").out, lea.clone() + &ca);
    assert_eq!(desk.json("export user/lea")["certificate"]["pem"], lea);
    desk.good("export user/lea --encoding der --out @lea.der");
    desk.good("show @lea.der");
    desk.good("show @a/ca.pem");
    let serial = desk.json("show user/lea")["certificate"]["serial"].as_str().unwrap().to_owned();
    assert_eq!(desk.good(&format!("export {}", &serial[..8])).out, lea);

    desk.good("crl --out @a/crl.pem --days 60");
    let shown = desk.json("show @a/crl.pem");
    assert_eq!((shown["crl"]["number"].as_u64(), shown["crl"]["days_left"].as_i64()), (Some(2), Some(60)));
    assert_eq!(std::fs::read(desk.path("a/crl.pem")).unwrap(), std::fs::read(desk.path("ca/crl.pem")).unwrap());
    std::fs::write(desk.path("notes"), "important").unwrap();
    let said = desk.run("crl --out @notes");
    assert_ne!(said.exit, ExitCode::Success);
    assert_eq!(std::fs::read_to_string(desk.path("notes")).unwrap(), "important");
}
