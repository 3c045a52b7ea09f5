//! `file`, in throw-away directories.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_plugin_api::conformance::{Sample, check};
use muster_plugin_api::{ActionRequest, Plugin, builtin_ddls};
use muster_plugins::{File, FileSettings};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{conforms, refusal, run, run_with, run_within};

struct Site {
    root: TempDir,
    plugin: File,
}

impl Site {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["read", "write"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("secret"), "out of reach").unwrap();
        let settings = FileSettings {
            read_roots: vec![root.path().join("read")],
            write_roots: vec![root.path().join("write")],
            bytes_max: 2_000_000,
        };
        Self { root, plugin: File::new(settings) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn with(&self, name: &str, mut arguments: Value) -> Value {
        arguments["path"] = json!(self.text(name));
        arguments
    }

    async fn ask(&self, action: &str, name: &str, arguments: Value) -> Value {
        let reply = run(&self.plugin, action, self.with(name, arguments)).await;
        reply.unwrap_or_else(|failure| panic!("{action} {name}: {failure}")).data
    }

    async fn fails(&self, action: &str, name: &str, arguments: Value) -> (&'static str, String) {
        let failure = run(&self.plugin, action, self.with(name, arguments)).await.unwrap_err();
        (failure.code.code, failure.message)
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn sha256(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    fs::write(&path, bytes).unwrap();
    let output = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let site = Site::new();
    fs::write(site.path("read/file"), "text").unwrap();
    fs::write(site.path("write/gone"), "text").unwrap();
    let samples = [
        Sample::succeeds("status", site.with("read/file", json!({ "checksum": true }))),
        Sample::succeeds("status", site.with("read/none", json!({}))),
        Sample::fails("status", site.with("secret", json!({}))),
        Sample::succeeds("fetch", site.with("read/file", json!({ "checksum": true }))),
        Sample::fails("fetch", site.with("read/none", json!({}))),
        Sample::succeeds("put", site.with("write/file", json!({ "content": "x", "mode": "0600" }))),
        Sample::fails("put", site.with("write/file", json!({}))),
        Sample::succeeds("remove", site.with("write/gone", json!({}))),
        Sample::fails("remove", site.with("secret", json!({}))),
    ];
    conforms(check(&site.plugin, &samples).await);
}

#[test]
fn nothing_is_reached_by_default() {
    let ddl = builtin_ddls().iter().find(|ddl| ddl.name().as_str() == "file").unwrap();
    assert!(ddl.muster.opt_in);
    let not = File::new(FileSettings::default()).activate().unwrap_err().to_string();
    assert!(not.starts_with("no directory is opened"), "{not}");
}

#[tokio::test]
async fn status_tells_what_is_there() {
    let site = Site::new();
    fs::write(site.path("read/file"), "old\n").unwrap();
    fs::set_permissions(site.path("read/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    chown(site.path("read/file"), Some(1), Some(4_000_000)).unwrap();
    fs::set_permissions(site.path("read/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    let found = site.path("read/file").metadata().unwrap();
    let data = site.ask("status", "read/file", json!({ "checksum": true })).await;
    let expected = json!({
        "path": site.text("read/file"), "exists": true, "type": "file", "size_bytes": 4, "mode": "4750",
        "owner": "daemon", "uid": 1, "group": "4000000", "gid": 4_000_000,
        "mtime_ms": found.mtime() * 1000 + found.mtime_nsec() / 1_000_000, "sha256": sha256(b"old\n"),
    });
    assert_eq!(data, expected);

    fs::create_dir(site.path("read/directory")).unwrap();
    symlink("file", site.path("read/link")).unwrap();
    nix::unistd::mkfifo(&site.path("read/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(site.path("read/socket")).unwrap();
    for kind in ["directory", "link", "fifo", "socket", "none", "file/below"] {
        let data = site.ask("status", &format!("read/{kind}"), json!({ "checksum": true })).await;
        let word = match kind {
            "link" => "symlink",
            "none" | "file/below" => "absent",
            same => same,
        };
        let seen = (data["type"].as_str(), data["exists"].as_bool(), &data["sha256"]);
        assert_eq!(seen, (Some(word), Some(word != "absent"), &Value::Null), "{kind}");
    }
}

#[tokio::test]
async fn fetch_gives_every_byte_in_parts() {
    let site = Site::new();
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(1_200_000).collect();
    fs::write(site.path("read/large"), &bytes).unwrap();
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let data =
            site.ask("fetch", "read/large", json!({ "offset": offset, "length": 524_288, "checksum": true })).await;
        assert!(data.to_string().len() < muster_protocol::limits::RESULT_BYTES_MAX);
        assert_eq!((&data["encoding"], &data["offset"]), (&json!("base64"), &json!(offset)));
        assert_eq!((&data["size_bytes"], &data["sha256"]), (&json!(1_200_000), &json!(sha256(&bytes))));
        let part = decode(data["content"].as_str().unwrap());
        assert_eq!(
            (data["length"].as_u64().unwrap(), &data["part_sha256"]),
            (part.len() as u64, &json!(sha256(&part)))
        );
        offset += part.len();
        all.extend(part);
        if data["eof"] == json!(true) {
            break;
        }
    }
    assert!(all == bytes);

    fs::write(site.path("read/text"), "grün \"so\"\n").unwrap();
    let data = site.ask("fetch", "read/text", json!({})).await;
    assert_eq!(
        (&data["content"], &data["encoding"], &data["eof"]),
        (&json!("grün \"so\"\n"), &json!("text"), &json!(true))
    );
    let data = site.ask("fetch", "read/text", json!({ "offset": 1000 })).await;
    assert_eq!((&data["content"], &data["length"], &data["eof"]), (&json!(""), &json!(0), &json!(true)));
    let data = site.ask("fetch", "read/text", json!({ "length": 3 })).await;
    assert_eq!((&data["encoding"], &data["eof"]), (&json!("base64"), &json!(false)), "a character was cut in two");
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.decode(text).unwrap()
}

#[tokio::test]
async fn only_plain_files_of_a_bounded_size_are_read() {
    let site = Site::new();
    fs::create_dir(site.path("read/directory")).unwrap();
    nix::unistd::mkfifo(&site.path("read/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::File::create(site.path("read/huge")).unwrap().set_len(2_000_001).unwrap();
    let (code, said) = site.fails("fetch", "read/fifo", json!({})).await;
    assert_eq!((code, said.as_str()), ("failed", "it is a fifo, not a file"));
    assert_eq!(site.fails("fetch", "read/directory", json!({})).await.1, "it is a directory, not a file");
    assert_eq!(site.fails("fetch", "read/huge", json!({})).await.0, "limit-exceeded");
    assert_eq!(site.fails("status", "read/huge", json!({ "checksum": true })).await.0, "limit-exceeded");
    assert_eq!(site.ask("status", "read/huge", json!({})).await["size_bytes"], json!(2_000_001));
    for (argument, value) in
        [("length", json!(0)), ("length", json!(524_289)), ("offset", json!(-1)), ("length", json!("1"))]
    {
        let arguments = site.with("read/huge", json!({ argument: value }));
        assert_eq!(refusal(&site.plugin, "fetch", arguments).await, Some("invalid-argument"), "{argument}={value}");
    }
    // A device answers what it is, and is not opened.
    let devices = File::new(FileSettings { read_roots: vec!["/dev".into()], ..FileSettings::default() });
    let data = run(&devices, "status", json!({ "path": "/dev/null", "checksum": true })).await.unwrap().data;
    assert_eq!(data["type"], json!("character_device"));
    let failure = run(&devices, "fetch", json!({ "path": "/dev/null" })).await.unwrap_err();
    assert_eq!(failure.message, "it is a character device, not a file");
    assert!(Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());
}

#[tokio::test]
async fn no_way_leads_out_of_the_opened_directories() {
    let site = Site::new();
    fs::create_dir(site.path("read/sub")).unwrap();
    fs::write(site.path("read/sub/file"), "in").unwrap();
    symlink("sub/file", site.path("read/inner")).unwrap();
    symlink("../secret", site.path("read/outer")).unwrap();
    symlink(site.path("secret"), site.path("read/absolute")).unwrap();
    symlink("..", site.path("read/up")).unwrap();
    assert_eq!(site.ask("fetch", "read/inner", json!({})).await["content"], json!("in"));
    for name in ["read/outer", "read/absolute", "read/up/secret", "secret", "write/x", "read", "reading"] {
        let (code, said) = site.fails("fetch", name, json!({})).await;
        assert_eq!(code, "outside-roots", "{name}: {said}");
    }
    // Reading and writing are opened apart.
    for (action, name) in [("put", "read/x"), ("put", "secret"), ("remove", "read/sub/file"), ("status", "write/x")] {
        let arguments = if action == "put" { json!({ "content": "x" }) } else { json!({}) };
        assert_eq!(site.fails(action, name, arguments).await.0, "outside-roots", "{action} {name}");
    }
    // Links where something is to be written.
    symlink("../secret", site.path("write/link")).unwrap();
    symlink(site.root.path(), site.path("write/out")).unwrap();
    for action in ["put", "remove"] {
        let arguments = || if action == "put" { json!({ "content": "evil" }) } else { json!({}) };
        let (code, said) = site.fails(action, "write/link", arguments()).await;
        assert_eq!(code, "failed", "{action}: {said}");
        let (code, said) = site.fails(action, "write/out/secret", arguments()).await;
        assert_eq!(code, "outside-roots", "{action}: {said}");
    }
    assert_eq!(fs::read_to_string(site.path("secret")).unwrap(), "out of reach");

    for path in ["x", "../x", "/x/../y", "/x\n", "/x\u{0}", "-oFoo", "--", "~root/x", "x; rm -rf /", ""] {
        for action in ["status", "fetch", "put", "remove"] {
            let mut arguments = json!({ "path": path });
            if action == "put" {
                arguments["content"] = json!("x");
            }
            assert_eq!(refusal(&site.plugin, action, arguments).await, Some("invalid-argument"), "{action} {path:?}");
        }
    }
    let strange = site.ask("put", "write/x; rm -rf $(id)", json!({ "content": "x" })).await;
    assert_eq!(strange["created"], json!(true));
    assert_eq!(site.names("write"), ["link", "out", "x; rm -rf $(id)"]);
}

#[tokio::test]
async fn put_makes_a_file_and_says_so() {
    let site = Site::new();
    let data = site
        .ask("put", "write/new", json!({ "content": "new\n", "owner": "daemon", "group": "root", "mode": "0640" }))
        .await;
    let expected = json!({
        "path": site.text("write/new"), "changed": true, "created": true, "content_changed": true, "mode_changed": true,
        "owner_changed": true, "before": { "exists": false }, "backup": null,
        "after": { "exists": true, "size_bytes": 4, "mode": "0640", "owner": "daemon", "group": "root", "sha256": sha256(b"new\n") },
    });
    assert_eq!(data, expected);
    let made = site.path("write/new").metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1, 0, 0o640));
    let data = site.ask("put", "write/plain", json!({ "content": "" })).await;
    assert_eq!((&data["after"]["mode"], &data["after"]["owner"]), (&json!("0644"), &json!("root")));
    let binary = json!({ "content": "AAECAwQF/w==\n", "encoding": "base64" });
    site.ask("put", "write/binary", binary).await;
    assert_eq!(fs::read(site.path("write/binary")).unwrap(), [0, 1, 2, 3, 4, 5, 255]);
    assert_eq!(site.names("write"), ["binary", "new", "plain"], "nothing else is left there");
}

#[tokio::test]
async fn put_again_changes_only_what_differs() {
    let site = Site::new();
    let file = site.path("write/file");
    fs::write(&file, "old\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    chown(&file, Some(1), Some(1)).unwrap();
    let inode = |path: &Path| path.metadata().unwrap().ino();
    let before = inode(&file);

    let data = site.ask("put", "write/file", json!({ "content": "old\n" })).await;
    assert_eq!((&data["changed"], inode(&file)), (&json!(false), before));
    let data = site.ask("put", "write/file", json!({ "content": "old\n", "mode": "600", "owner": "root" })).await;
    let changes =
        ["changed", "content_changed", "mode_changed", "owner_changed"].map(|key| data[key].as_bool().unwrap());
    assert_eq!((changes, inode(&file)), ([true, false, true, true], before), "the file itself stays");
    let now = file.metadata().unwrap();
    assert_eq!((now.uid(), now.gid(), now.mode() & 0o7777), (0, 1, 0o600));

    let data = site.ask("put", "write/file", json!({ "content": "new\n", "backup": true })).await;
    let changes =
        ["changed", "content_changed", "mode_changed", "owner_changed"].map(|key| data[key].as_bool().unwrap());
    assert_eq!(changes, [true, true, false, false], "owner and mode stay");
    assert_eq!(
        (&data["before"]["sha256"], &data["after"]["sha256"]),
        (&json!(sha256(b"old\n")), &json!(sha256(b"new\n")))
    );
    let now = file.metadata().unwrap();
    assert_eq!((now.uid(), now.gid(), now.mode() & 0o7777), (0, 1, 0o600));
    let backup = data["backup"].as_str().unwrap();
    assert_eq!((fs::read_to_string(backup).unwrap(), inode(Path::new(backup))), ("old\n".to_owned(), before));
    assert_eq!(fs::read_to_string(&file).unwrap(), "new\n");
    assert_eq!(site.names("write").len(), 2);

    // What somebody could do as its owner does not pass over to another content.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    site.ask("put", "write/file", json!({ "content": "other\n" })).await;
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o755);

    // Nor to another owner: whoever made the file knows what root would then run for everybody.
    chown(&file, Some(1), Some(1)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6755)).unwrap();
    let data = site.ask("put", "write/file", json!({ "content": "other\n", "owner": "root", "group": "root" })).await;
    assert_eq!((&data["content_changed"], &data["owner_changed"]), (&json!(false), &json!(true)));
    let now = file.metadata().unwrap();
    assert_eq!((now.uid(), now.gid(), now.mode() & 0o7777), (0, 0, 0o755));
}

#[tokio::test]
async fn a_file_and_a_user_can_be_named_in_one_way_only() {
    let site = Site::new();
    fs::write(site.path("read/file"), "text").unwrap();
    let root = site.text("read");
    for path in ["//file", "/./file", "/file/", "/file/.", "/../read/file"] {
        let failure = run(&site.plugin, "fetch", json!({ "path": format!("{root}{path}") })).await.unwrap_err();
        assert_eq!(failure.code.code, "invalid-argument", "{path}");
    }
    for arguments in [json!({ "content": "x", "owner": "0" }), json!({ "content": "x", "owner": "Root" })] {
        assert_eq!(site.fails("put", "write/x", arguments.clone()).await.0, "unknown-user", "{arguments}");
    }
    assert_eq!(site.fails("put", "write/x", json!({ "content": "x", "group": "0" })).await.0, "invalid-argument");
    assert_eq!(site.names("write"), [""; 0]);
}

#[tokio::test]
async fn a_trial_shows_the_change_and_does_not_make_it() {
    let site = Site::new();
    fs::write(site.path("write/file"), "old\n").unwrap();
    let trial = async |name: &str, action: &str, arguments: Value| {
        let noop = |request: &mut ActionRequest| request.noop = true;
        run_with(&site.plugin, action, site.with(name, arguments), noop).await.unwrap().data
    };
    let data = trial("write/file", "put", json!({ "content": "new\n", "mode": "0600", "backup": true })).await;
    assert_eq!(
        (&data["content_changed"], &data["mode_changed"], &data["owner_changed"]),
        (&json!(true), &json!(true), &json!(false))
    );
    assert_eq!((&data["after"]["sha256"], &data["after"]["mode"]), (&json!(sha256(b"new\n")), &json!("0600")));
    let data = trial("write/none", "put", json!({ "content": "new\n" })).await;
    assert_eq!((&data["created"], &data["after"]["size_bytes"]), (&json!(true), &json!(4)));
    let data = trial("write/file", "remove", json!({})).await;
    assert_eq!(data["changed"], json!(true));
    assert_eq!(fs::read_to_string(site.path("write/file")).unwrap(), "old\n");
    assert_eq!(site.names("write"), ["file"]);
}

#[tokio::test]
async fn checksums_are_kept_or_nothing_happens() {
    let site = Site::new();
    fs::write(site.path("write/file"), "old\n").unwrap();
    let (old, new) = (sha256(b"old\n"), sha256(b"new\n"));
    let check = async |name: &str, arguments: Value, code: Option<&str>| {
        let mut arguments = site.with(name, arguments);
        arguments["content"] = json!("new\n");
        assert_eq!(refusal(&site.plugin, "put", arguments.clone()).await, code, "{arguments}");
    };
    check("write/file", json!({ "sha256": old }), Some("checksum-mismatch")).await;
    check("write/file", json!({ "sha256": new, "expected_sha256": new }), Some("checksum-mismatch")).await;
    check("write/file", json!({ "expected_sha256": "absent" }), Some("checksum-mismatch")).await;
    check("write/none", json!({ "expected_sha256": old }), Some("checksum-mismatch")).await;
    check("write/file", json!({ "sha256": "abc" }), Some("invalid-argument")).await;
    check("write/file", json!({ "sha256": new.to_uppercase() }), Some("invalid-argument")).await;
    check("write/file", json!({ "expected_sha256": "x; rm -rf /" }), Some("invalid-argument")).await;
    assert_eq!(fs::read_to_string(site.path("write/file")).unwrap(), "old\n");
    check("write/none", json!({ "sha256": new, "expected_sha256": "absent" }), None).await;
    check("write/file", json!({ "sha256": new, "expected_sha256": old }), None).await;
    assert_eq!(fs::read_to_string(site.path("write/file")).unwrap(), "new\n");

    assert_eq!(site.fails("remove", "write/file", json!({ "expected_sha256": old })).await.0, "checksum-mismatch");
    assert_eq!(site.ask("remove", "write/file", json!({ "expected_sha256": new })).await["changed"], json!(true));
    assert_eq!(site.ask("remove", "write/file", json!({ "expected_sha256": new })).await["changed"], json!(false));
    assert_eq!(site.ask("remove", "write/no/such", json!({})).await["changed"], json!(false));
    assert_eq!(site.names("write"), ["none"]);
}

#[tokio::test]
async fn what_cannot_be_put_is_refused_and_leaves_nothing() {
    let site = Site::new();
    fs::create_dir(site.path("write/directory")).unwrap();
    nix::unistd::mkfifo(&site.path("write/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let check = async |name: &str, arguments: Value, code: &str| {
        let arguments = site.with(name, arguments);
        assert_eq!(refusal(&site.plugin, "put", arguments.clone()).await, Some(code), "{arguments}");
    };
    check("write/directory", json!({ "content": "x" }), "failed").await;
    check("write/fifo", json!({ "content": "x" }), "failed").await;
    check("write/no/file", json!({ "content": "x" }), "failed").await;
    check("write/fifo/file", json!({ "content": "x" }), "failed").await;
    check("write/x", json!({}), "missing-argument").await;
    check("write/x", json!({ "content": "a", "secret_content": "b" }), "invalid-argument").await;
    check("write/x", json!({ "content": "***", "encoding": "base64" }), "invalid-argument").await;
    check("write/x", json!({ "content": "x", "encoding": "utf-16" }), "invalid-argument").await;
    check("write/x", json!({ "content": "x", "owner": "no-such-user" }), "unknown-user").await;
    check("write/x", json!({ "content": "x", "group": "no-such-group" }), "invalid-argument").await;
    for word in ["x; rm -rf /", "--", "-oFoo", "root\n", "ro\u{0}ot", "root:root", ""] {
        check("write/x", json!({ "content": "x", "owner": word }), "invalid-argument").await;
        check("write/x", json!({ "content": "x", "group": word }), "invalid-argument").await;
        check("write/x", json!({ "content": "x", "mode": word }), "invalid-argument").await;
    }
    for mode in ["4755", "1777", "888", "64", "0o644", "-644", "u=rw"] {
        check("write/x", json!({ "content": "x", "mode": mode }), "invalid-argument").await;
    }
    let large =
        File::new(FileSettings { write_roots: vec![site.path("write")], bytes_max: 3, ..FileSettings::default() });
    let arguments = site.with("write/x", json!({ "content": "four" }));
    assert_eq!(refusal(&large, "put", arguments).await, Some("limit-exceeded"));
    assert_eq!(site.names("write"), ["directory", "fifo"]);
}

#[tokio::test]
async fn a_secret_content_shows_nowhere() {
    let site = Site::new();
    let ok = run(&site.plugin, "put", site.with("write/key", json!({ "secret_content": "sesame" }))).await.unwrap();
    assert_eq!(fs::read_to_string(site.path("write/key")).unwrap(), "sesame");
    assert_eq!(site.path("write/key").metadata().unwrap().mode() & 0o7777, 0o600);
    let ok = format!("{ok:?}");
    assert!(!ok.contains("sesame") && !ok.contains(&sha256(b"sesame")), "{ok}");
    let (_, said) = site.fails("put", "write/key", json!({ "secret_content": "ses*ame", "encoding": "base64" })).await;
    assert_eq!(said, "input `secret_content` is not base64");
    let secret: Vec<_> = site.plugin.ddl().secret_inputs(&"put".parse().unwrap()).map(str::to_owned).collect();
    assert_eq!(secret, ["secret_content"]);
}

#[tokio::test]
async fn a_put_that_has_no_time_changes_nothing_or_all() {
    let site = Site::new();
    fs::write(site.path("write/file"), "old\n").unwrap();
    let arguments = site.with("write/file", json!({ "content": "new\n" }));
    let reply = run_within(&site.plugin, "put", arguments, Duration::ZERO).await;
    let now = fs::read_to_string(site.path("write/file")).unwrap();
    match reply {
        Ok(_) => assert_eq!(now, "new\n"),
        Err(failure) => assert_eq!((failure.code.code, now.as_str()), ("timed-out", "old\n")),
    }
}

#[test]
fn who_reads_meanwhile_sees_the_old_file_or_the_new_one() {
    let site = Site::new();
    let contents = ["a".repeat(300_000), "b".repeat(200_000)];
    let file = site.path("write/file");
    fs::write(&file, &contents[0]).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|threads| {
        let reader = threads.spawn(|| {
            let mut seen = 0_u32;
            while !done.load(std::sync::atomic::Ordering::SeqCst) || seen == 0 {
                let now = fs::read_to_string(&file).unwrap();
                assert!(contents.contains(&now), "{} bytes", now.len());
                seen += 1;
            }
            seen
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for turn in 0..20 {
                let data = site.ask("put", "write/file", json!({ "content": contents[(turn + 1) % 2] })).await;
                assert_eq!(data["content_changed"], json!(true));
            }
        });
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        reader.join().unwrap()
    });
    assert!(seen > 0);
}
