//! Archives made, opened, refused, put in place and taken away.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod hostile;
mod store;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use muster_pki::testing::TestAuthority;
use muster_plugin_pack::{Content, Pack, read_folder};
use muster_protocol::Timestamp;

pub(crate) const NOW: Timestamp = Timestamp(1_795_219_200_000);

pub(crate) fn authority() -> TestAuthority {
    TestAuthority::new(NOW).unwrap()
}

pub(crate) fn file(path: &str, text: &str) -> Content {
    Content { path: path.to_owned(), executable: false, bytes: text.into() }
}

/// The files of a plugin `lab` of this version.
pub(crate) fn lab(version: &str) -> Vec<Content> {
    let ddl = format!(r#"{{"metadata":{{"name":"lab","version":"{version}","provider":"external"}},"actions":[]}}"#);
    vec![
        file("lab.json", &ddl),
        Content { executable: true, ..file("lab", "#!/bin/sh\nexit 0\n") },
        file("lib/words.txt", "one\ntwo\n"),
    ]
}

pub(crate) fn pack(authority: &TestAuthority, version: &str) -> Pack {
    let lea = authority.credentials_with_groups("user/lea", &["admins"]).unwrap();
    Pack::make(&"lab".parse().unwrap(), lab(version), &lea, NOW).unwrap()
}

#[test]
fn the_same_files_signer_and_time_give_the_same_bytes() {
    let authority = authority();
    let lea = authority.credentials_with_groups("user/lea", &["admins"]).unwrap();
    let make = |contents| Pack::make(&"lab".parse().unwrap(), contents, &lea, NOW).unwrap();
    let one = make(lab("1.2.0"));
    let mut other_order = lab("1.2.0");
    other_order.reverse();
    assert_eq!(one.bytes(), make(other_order).bytes());
    assert_ne!(one.bytes(), make(lab("1.2.1")).bytes());
    assert_eq!(one.file_name(), "lab-1.2.0.tar.gz");
    let opened = Pack::open(one.bytes()).unwrap();
    assert_eq!((opened.manifest(), opened.contents()), (one.manifest(), one.contents()));
    let paths: Vec<&str> = opened.manifest().files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["lab", "lab.json", "lib/words.txt"]);
    assert_eq!((opened.manifest().made_by.as_str(), opened.manifest().version.as_str()), ("user/lea", "1.2.0"));
}

/// What `tar` of the system makes of it, since people will look into one.
#[test]
fn it_is_an_ordinary_archive() {
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.tar.gz");
    fs::write(&path, pack(&authority, "1.0").bytes()).unwrap();
    let listed = std::process::Command::new("tar").arg("-tvzf").arg(&path).env("TZ", "UTC").output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let lines: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].starts_with("-rw-r--r-- 0/0 ") && lines[0].ends_with(" 1970-01-01 00:00 manifest.json"), "{text}");
    assert_eq!(lines[2], "-rwxr-xr-x 0/0 17 1970-01-01 00:00 lab/lab");
}

#[test]
fn the_signer_has_to_be_one_who_may() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let groups = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let good = pack(&authority, "1.0");
    let signers = good.verify(&trust, &groups(&["admins"]), NOW).unwrap();
    assert_eq!(signers[0].identity.short(), "user/lea");

    #[track_caller]
    fn refused(error: &muster_plugin_pack::PackError, expected: &str) {
        assert_eq!((error.code().code, error.is_transient()), ("untrusted-pack", false));
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let text = format!("{error}{cause}");
        assert!(text.contains(expected), "{text}");
    }
    let verify = |pack: &Pack, names: &[&str]| pack.verify(&trust, &groups(names), NOW).unwrap_err();
    refused(&verify(&good, &["packers"]), "signed by user/lea, who is in none of the groups that may: packers");
    refused(&verify(&good, &[]), "there are none");
    let make = |credentials| Pack::make(&"lab".parse().unwrap(), lab("1.0"), &credentials, NOW).unwrap();
    // A host has no group, and could not speak for one.
    refused(
        &verify(&make(authority.credentials("host/web1.example.com").unwrap()), &["admins"]),
        "host/web1.example.com",
    );
    refused(&verify(&make(authority.expired("user/max").unwrap()), &["admins"]), "expired");
    let revoked = make(authority.revoked("user/eve").unwrap());
    let error = revoked.verify(&authority.trust().unwrap(), &groups(&["admins"]), NOW).unwrap_err();
    refused(&error, "is revoked");
    let stranger = self::authority();
    let other = make(stranger.credentials_with_groups("user/lea", &["admins"]).unwrap());
    refused(&verify(&other, &["admins"]), "is not trusted");
}

#[test]
fn a_folder_is_read_without_what_does_not_belong() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("lib/deep")).unwrap();
    fs::create_dir_all(root.join(".git")).unwrap();
    fs::create_dir_all(root.join("__pycache__")).unwrap();
    for path in ["lab", "lab.json", "lib/deep/x.py", ".git/config", "lab~", "__pycache__/lab.pyc", ".hidden"] {
        fs::write(root.join(path), path).unwrap();
    }
    fs::set_permissions(root.join("lab"), fs::Permissions::from_mode(0o700)).unwrap();
    let read = read_folder(root).unwrap();
    let read: Vec<(&str, bool)> = read.iter().map(|content| (content.path.as_str(), content.executable)).collect();
    assert_eq!(read, [("lab", true), ("lab.json", false), ("lib/deep/x.py", false)]);

    #[track_caller]
    fn check(make: impl FnOnce(&Path), expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let error = read_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    check(|root| symlink("/etc/passwd", root.join("passwd")).unwrap(), "`passwd`, whose name is not a regular file's");
    check(|root| fs::write(root.join("-rf"), "").unwrap(), "has a part that begins with . or -");
    check(|root| fs::write(root.join("big"), vec![0; 5 << 20]).unwrap(), "at most 4194304 are allowed");
    check(|root| (0..129).for_each(|number| fs::write(root.join(format!("f{number}")), "").unwrap()), "at most 128");
}

#[test]
fn a_plugin_without_description_or_program_is_no_pack() {
    let authority = authority();
    let lea = authority.credentials("user/lea").unwrap();
    let make =
        |contents: Vec<Content>| Pack::make(&"lab".parse().unwrap(), contents, &lea, NOW).unwrap_err().to_string();
    let without = |path: &str| lab("1.0").into_iter().filter(|content| content.path != path).collect();
    assert_eq!(make(without("lab")), "the pack is malformed: it has no file `lab`");
    assert_eq!(make(without("lab.json")), "the pack is malformed: its description `lab.json` is missing");
    assert!(make(lab("")).contains("its version is not"), "{}", make(lab("")));
    assert!(make(lab("1.0 beta")).contains("its version is not"));
}
