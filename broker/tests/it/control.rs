//! The operator's socket, and the configuration file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use muster_broker::config::{Config, Places, Raw, sources};
use muster_broker::control::{Answer, ControlError, ControlSocket, Request, ask};
use muster_broker::server::{Server, ServerError};
use muster_daemon::config::ConfigError;
use muster_daemon::{SystemClock, Tasks};
use muster_pki::testing::TestAuthority;

use crate::client::Client;
use crate::site::Site;

fn serve(site: &Site, path: &Path) -> Result<ControlSocket, ControlError> {
    let server = site.server.clone();
    let runtime = tokio::runtime::Handle::current();
    ControlSocket::serve(path, move |request| {
        let _inside = runtime.enter();
        server.obey(request, || Err(ServerError::Configuration { why: "it has none".to_owned() }))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_and_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    assert!(matches!(ask(&path, &Request::Reload), Err(ControlError::NobodyListens { .. })));
    let site = Site::new();
    let socket = serve(&site, &path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(serve(&site, &path), Err(ControlError::Taken { .. })));
    let mut lea = Client::open(&site, &site.member("user/lea"));
    lea.declare("reply.user/lea.1", "reply", "user/lea.1.#");
    let Answer::Status { status } = ask(&path, &Request::Status { bindings: true }).unwrap() else { panic!() };
    assert_eq!(status.queues.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["reply.user/lea.1"]);
    let bindings = status.bindings.unwrap();
    assert_eq!((bindings.len(), bindings[0].key.as_str()), (1, "user/lea.1.#"));
    let [connection] = &status.connections[..] else { panic!("{:?}", status.connections) };
    assert_eq!((connection.identity.as_str(), connection.channels, connection.open), ("user/lea", 1, true));
    assert!(connection.received_bytes > 100 && connection.sent_bytes > 100);
    let refused = |answer: Answer, expected: &str| {
        let Answer::Refused { code, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(code, expected);
    };
    refused(ask(&path, &Request::DeleteQueue { name: "no".to_owned() }).unwrap(), "no-such-queue");
    refused(ask(&path, &Request::Reload).unwrap(), "config-invalid");
    assert_eq!(site.server.status(false).reload_refused.unwrap().why, "it has none");
    let done = |answer: Answer| {
        let Answer::Done { count, .. } = answer else { panic!("{answer:?}") };
        count
    };
    assert_eq!(done(ask(&path, &Request::DeleteQueue { name: "reply.user/lea.1".to_owned() }).unwrap()), 0);
    let close = |identity: &str| {
        let identity = Some(identity.parse().unwrap());
        done(ask(&path, &Request::Close { identity, reason: "for a reason".to_owned() }).unwrap())
    };
    assert_eq!((close("user/max"), close("user/lea")), (0, 1));
    assert_eq!(lea.closed(), (320, "CONNECTION_FORCED - for a reason".to_owned()));
    drop(socket);
    assert!(!path.exists());
}

#[test]
fn a_socket_that_a_killed_broker_has_left_is_taken_over_and_a_file_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let answer = |_| Answer::Done { count: 7, notes: Vec::new() };
    let _socket = ControlSocket::serve(&path, answer).unwrap();
    assert!(matches!(ask(&path, &Request::Reload).unwrap(), Answer::Done { count: 7, .. }));
    let file = directory.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(matches!(ControlSocket::serve(&file, answer), Err(ControlError::Taken { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let other = directory.path().join("other");
    assert!(matches!(ControlSocket::serve(&other, answer), Err(ControlError::Io { .. })), "others could replace it");
}

/// A directory with the files of a broker, and its configuration.
struct Ground {
    authority: TestAuthority,
    directory: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        use muster_daemon::Clock as _;
        muster_pki::tls::install_crypto_provider();
        let authority = TestAuthority::new(muster_protocol::Timestamp(SystemClock.now_ms())).unwrap();
        let directory = tempfile::tempdir().unwrap();
        authority.write(&authority.broker("broker/mq1").unwrap(), &directory.path().join("pki")).unwrap();
        std::fs::rename(directory.path().join("pki/broker-mq1.pem"), directory.path().join("pki/broker.pem")).unwrap();
        std::fs::rename(directory.path().join("pki/broker-mq1.key"), directory.path().join("pki/broker.key")).unwrap();
        Self { authority, directory }
    }

    fn load(&self, text: &str) -> Result<Config, ConfigError> {
        let file = self.directory.path().join("broker.toml");
        std::fs::write(&file, text).unwrap();
        let places =
            Places { configuration: self.directory.path().to_owned(), state: self.directory.path().join("state") };
        Config::load(sources(&file, true, std::iter::empty()), &places).map(|(_, config)| config)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_makes_a_broker_and_a_changed_one_changes_it() {
    let ground = Ground::new();
    let settings = |text: &str| ground.load(text).unwrap().settings(Arc::new(SystemClock)).unwrap();
    let tasks = Tasks::new();
    let server = Server::start(settings("listen = [\"127.0.0.1:0\"]\n"), &tasks).unwrap();
    let before = server.status(false);
    assert!(before.journal.is_some() && before.full.is_empty() && before.revocation_lists.len() == 1);
    let later = server
        .replace(settings(
            "listen = [\"127.0.0.1:1\"]\nmembers = [\"user/lea\"]\nvhost = \"other\"\n[limits]\nqueues = 7\n",
        ))
        .unwrap();
    assert_eq!(later, ["listen", "vhost"]);
    let status = server.status(false);
    assert_eq!(status.counts.queues.max, 7);
    assert_eq!(serde_json::to_value(&status.members).unwrap(), serde_json::json!({ "kind": "listed", "count": 1 }));
    for limits in ["memory_bytes = 0", "disk_bytes = 0"] {
        server.replace(settings(&format!("listen = [\"127.0.0.1:0\"]\n[limits]\n{limits}\n"))).unwrap();
        let full = server.status(false).full;
        let name = limits.split(' ').next().unwrap();
        assert!(full.iter().any(|why| why.contains(name)), "{limits}: {full:?}");
        server.replace(settings("listen = [\"127.0.0.1:0\"]\n")).unwrap();
        assert_eq!(server.status(false).full, Vec::<String>::new());
    }
    drop(ground.authority);
    assert_eq!(tasks.shutdown(crate::site::LIMIT).await, Vec::<&str>::new());
}

/// The example that packages install, as it is and with everything that is commented out: those are the defaults.
#[test]
fn the_shipped_example_is_read_and_shows_the_defaults() {
    let ground = Ground::new();
    let text = include_str!("../../../dist/etc/broker.toml");
    ground.load(text).unwrap();
    let is_key = |rest: &str| {
        rest.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let all: Vec<&str> = text
        .lines()
        // It goes with no `members`.
        .filter(|line| !line.contains("members_file"))
        .map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line))
        .collect();
    let all = all.join("\n");
    let shown: Raw = toml::from_str(&all).unwrap();
    ground.load(&all).unwrap();
    let defaults = Raw::default();
    assert_eq!(serde_json::to_value(&shown.limits).unwrap(), serde_json::to_value(&defaults.limits).unwrap());
    assert_eq!((shown.listen, shown.vhost, shown.members), (defaults.listen, defaults.vhost, defaults.members));
    assert_eq!((shown.heartbeat_s, shown.log.filter), (defaults.heartbeat_s, defaults.log.filter));
    // Each limit is in it.
    let limits = serde_json::to_value(&defaults.limits).unwrap();
    for key in limits.as_object().unwrap().keys() {
        assert!(all.contains(&format!("\n{key} = ")), "{key}");
    }
}

#[test]
fn every_value_in_force_is_shown_with_its_origin() {
    let directory = tempfile::tempdir().unwrap();
    let (file, state) = (directory.path().join("broker.toml"), directory.path().join("state"));
    std::fs::write(&file, "vhost = \"lab\"\n[pki]\nca = \"/x/ca.pem\"\n").unwrap();
    let places = Places { configuration: directory.path().to_owned(), state: state.clone() };
    let sources = || sources(&file, true, std::iter::empty());
    let (loaded, config) = Config::load(sources(), &places).unwrap();
    let config = config.listening(&["127.0.0.1:7".parse().unwrap()]);
    let text = config.effective(loaded).print(&[]).unwrap();
    let own = directory.path().display();
    for line in [
        format!("vhost = \"lab\"  # {}:1", file.display()),
        format!("pki.ca = \"/x/ca.pem\"  # {}:3", file.display()),
        format!("pki.key = \"{own}/pki/broker.key\"  # default"),
        format!("pki.certificate = \"{own}/pki/broker.pem\"  # default"),
        format!("pki.crl = \"{own}/pki/crl.pem\"  # default"),
        format!("state_dir = \"{}\"  # default", state.display()),
        format!("control = \"{}/control.sock\"  # default", state.display()),
        "listen = [\"127.0.0.1:7\"]  # --listen".to_owned(),
        "heartbeat_s = 60  # default".to_owned(),
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    // Whoever asks what runs needs to know where, whatever else is in the file by now.
    assert_eq!(Config::reach(sources(), &places).unwrap(), state.join("control.sock"));
    std::fs::write(&file, "vhsot = 1\nlisten = []\nstate_dir = \"/x\"\n").unwrap();
    assert_eq!(Config::reach(sources(), &places).unwrap(), Path::new("/x/control.sock"));
    std::fs::write(&file, "control = \"/y/c\"\nstate_dir = 7\n").unwrap();
    assert_eq!(Config::reach(sources(), &places).unwrap(), Path::new("/y/c"));
    std::fs::write(&file, "control = [").unwrap();
    assert_eq!(Config::reach(sources(), &places).unwrap_err().code(), "config-syntax");
}

#[test]
fn what_is_wrong_in_a_file_is_said_all_at_once() {
    let ground = Ground::new();
    let error = ground
        .load("listen = []\nvhsot = \"x\"\nmembers = \"everybody\"\nstate_dir = \"here\"\n[limits]\nqueues = 0\n")
        .unwrap_err();
    assert_eq!(error.code(), "config-invalid");
    let text = error.to_string();
    for words in ["`vhost`?", "\"issued\" or a list", "at least one address", "an absolute path", "from 1 to 10000000"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let both = ground.load("members = [\"user/lea\"]\nmembers_file = \"/etc/members\"\n").unwrap_err().to_string();
    assert!(both.contains("beside `members_file`"), "{both}");
    let nobody = ground.load("members = [\"lea\"]\n").unwrap_err().to_string();
    assert!(nobody.contains("`lea`"), "{nobody}");
    // What is missing is said when it is read.
    let config = ground.load("[pki]\nkey = \"/nowhere/key\"\n").unwrap();
    assert_eq!(config.settings(Arc::new(SystemClock)).unwrap_err().code(), "file-unreadable");
}

#[test]
fn a_revocation_list_that_is_named_must_have_been_there_once() {
    let ground = Ground::new();
    let list = ground.directory.path().join("pki/crl.pem");
    let named = format!("[pki]\ncrl = \"{}\"\n", list.display());
    let settings = |text: &str| ground.load(text).unwrap().settings(Arc::new(SystemClock));
    assert!(settings(&named).is_ok());
    let elsewhere = ground.directory.path().join("crl.pem");
    std::fs::rename(&list, &elsewhere).unwrap();
    let refused = settings(&named).unwrap_err();
    assert_eq!(refused.code(), "broker-file-unreadable");
    assert!(
        std::error::Error::source(&refused).unwrap().to_string().contains("copy the CA's `crl.pem`"),
        "{refused:?}"
    );
    assert!(settings("").is_ok(), "the usual place may be empty");
    // What was in force before is known: a file that got lost since then stops nothing.
    std::fs::create_dir(ground.directory.path().join("state")).unwrap();
    std::fs::rename(&elsewhere, ground.directory.path().join("state/crl.pem")).unwrap();
    assert!(settings(&named).is_ok());
}
