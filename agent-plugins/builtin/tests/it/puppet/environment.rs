//! A real Puppet agent with directories, certificates and a server of its own.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use muster_plugin_api::{
    ActionContext, ActionReply, ActionRequest, CancellationToken, OutputReceiver, OutputSink, Plugin, conformance,
};
use muster_plugins::{Puppet, PuppetInstallation, PuppetPaths};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{script, until};

/// More than a run takes on a busy machine.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// What the agent is called in its certificate.
const CERTIFICATE_NAME: &str = "agent.example";

/// The installation of Debian's packages; a test that cannot run says what is missing.
fn need(program: &str, package: &str) {
    assert!(
        Path::new(program).is_file(),
        "`{program}` is missing; on Debian: apt-get install -y --no-install-recommends {package}"
    );
}

/// A Puppet agent. Nothing of it is outside of its directory.
pub(super) struct Real {
    pub(super) plugin: Puppet,
    root: TempDir,
    server: Option<Child>,
}

impl Drop for Real {
    fn drop(&mut self) {
        self.stop_server();
    }
}

impl Real {
    /// An agent whose server serves these catalogs by environment.
    pub(super) async fn with(catalogs: &[(&str, Value)]) -> Self {
        let mut real = Self::without_server();
        let server = real.path("server");
        for (environment, catalog) in catalogs {
            real.write(&format!("server/catalogs/{environment}.json"), &catalog.to_string());
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/puppet/server.py");
        let child = Command::new("/usr/bin/python3").arg(program).arg(&server).stdin(Stdio::piped()).spawn().unwrap();
        real.server = Some(child);
        let port = until(|| fs::read_to_string(server.join("port")).ok(), Option::is_some).await.unwrap();
        real.configure(&port);
        real
    }

    /// An agent whose server does not answer: nobody listens at its port.
    pub(super) fn without_server() -> Self {
        need("/usr/bin/puppet", "puppet-agent");
        need("/usr/bin/openssl", "openssl");
        need("/usr/bin/python3", "python3");
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for directory in ["server/catalogs", "conf", "var/state", "run", "out", "ssl/certs", "ssl/private_keys"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        // The agent under test: the real one, told where its files are. `exec` keeps the process. The two
        // directories are in `puppet.conf` as well; here they keep a Puppet that cannot read it off the machine's own.
        script(
            &path("puppet"),
            &format!(
                "#!/bin/sh\nexec /usr/bin/puppet \"$@\" --confdir {0}/conf --vardir {0}/var\n",
                root.path().display()
            ),
        );
        let paths = PuppetPaths {
            installations: vec![PuppetInstallation {
                programs: vec![path("puppet")],
                configuration: path("conf/puppet.conf"),
                // All other places are in the file.
                variable_directories: vec!["/nonexistent".into()],
                public_directory: "/nonexistent/public".to_owned(),
                run_directory: "/nonexistent/run".into(),
            }],
            processes: "/proc".into(),
            finish: Duration::from_millis(300),
        };
        let real = Self { plugin: Puppet::new(paths), root, server: None };
        real.make_certificates();
        real.configure("1");
        real
    }

    /// `puppet.conf`, with some places that are not the usual ones and stand for each other.
    fn configure(&self, port: &str) {
        let root = self.root.path().display();
        let text = format!(
            "[main]\nvardir = {root}/var\npublicdir = $vardir/public\nrundir = {root}/run\nssldir = {root}/ssl\n\
             logdir = {root}/log\nlastrunreport = $statedir/report.yaml\n[agent]\nserver = localhost\n\
             serverport = {port}\nca_port = {port}\nreport_port = {port}\ncertname = {CERTIFICATE_NAME}\n"
        );
        self.write("conf/puppet.conf", &text);
    }

    pub(super) fn stop_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// An authority, a certificate for each side, and a list of revoked ones with none in it.
    fn make_certificates(&self) {
        let openssl = |arguments: &str| {
            let words = arguments.split_whitespace();
            let output =
                Command::new("/usr/bin/openssl").args(words).current_dir(self.path("server")).output().unwrap();
            assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -batch";
        openssl(&format!(
            "{new} -x509 -days 30 -keyout ca.key -out ca.pem -subj /CN=test-ca -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,keyCertSign,cRLSign"
        ));
        self.write("server/names", "subjectAltName=DNS:localhost\n");
        for name in ["server", "agent"] {
            openssl(&format!("{new} -keyout {name}.key -out {name}.csr -subj /CN={name}.example"));
            openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out {name}.pem -extfile names"
            ));
        }
        self.write("server/index.txt", "");
        self.write("server/crlnumber", "01");
        self.write(
            "server/ca.cnf",
            "[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\ndefault_crl_days=30\n",
        );
        openssl("ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.pem -out crl.pem");
        let copy = |from: &str, to: &str| {
            fs::copy(self.path("server").join(from), self.path("ssl").join(to)).unwrap();
        };
        copy("ca.pem", "certs/ca.pem");
        copy("crl.pem", "crl.pem");
        copy("agent.pem", &format!("certs/{CERTIFICATE_NAME}.pem"));
        copy("agent.key", &format!("private_keys/{CERTIFICATE_NAME}.pem"));
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Puppet itself, started by somebody else: `agent --onetime`, unless the arguments say otherwise.
    pub(super) fn puppet(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("puppet"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs an action as an agent does, with what it streams.
    pub(super) async fn act(&self, action: &str, arguments: Value) -> ActionReply {
        self.act_with(action, arguments, |request| request, CancellationToken::new()).await.0
    }

    pub(super) async fn act_with(
        &self,
        action: &str,
        arguments: Value,
        change: impl FnOnce(ActionRequest) -> ActionRequest,
        cancel: CancellationToken,
    ) -> (ActionReply, String) {
        let request = conformance::sample_request(action, arguments).unwrap();
        let described = self.plugin.ddl().action(&request.action).unwrap();
        let arguments = described.validate(&request.arguments).unwrap();
        let request = change(ActionRequest { arguments, time_limit: RUN_LIMIT, ..request });
        let (output, receiver) = OutputSink::channel(16);
        let context = ActionContext { output, ..conformance::context(cancel) };
        let (reply, streamed) = tokio::join!(self.plugin.run(request, context), collect(receiver));
        (reply, streamed)
    }

    /// The data of an action that succeeds.
    pub(super) async fn told(&self, action: &str, arguments: Value) -> Value {
        self.act(action, arguments).await.unwrap().data
    }

    /// Waits until Puppet runs something with this word in its command line, and says what its process number is.
    pub(super) async fn running(&self, word: &str) -> i32 {
        until(|| process_with(word), Option::is_some).await.unwrap()
    }
}

async fn collect(mut receiver: OutputReceiver) -> String {
    let mut bytes = Vec::new();
    while let Some(piece) = receiver.recv().await {
        bytes.extend(piece.bytes);
    }
    String::from_utf8(bytes).unwrap()
}

/// What a program that was started by hand printed, when it has ended.
pub(super) fn output_of(mut child: Child) -> String {
    let mut text = String::new();
    for pipe in [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read>),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ] {
        pipe.unwrap().read_to_string(&mut text).unwrap();
    }
    child.wait().unwrap();
    text
}

/// A process with this argument, as one of several.
pub(super) fn process_with(argument: &str) -> Option<i32> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.into_iter().find(|pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

/// A resource of a catalog.
pub(super) fn resource(kind: &str, title: &str, parameters: Value, tags: &[&str]) -> Value {
    let tags: Vec<_> = [kind.to_lowercase().as_str()].iter().chain(tags).map(|tag| (*tag).to_owned()).collect();
    json!({ "type": kind, "title": title, "tags": tags, "file": "/site.pp", "line": 3, "exported": false,
            "parameters": parameters })
}

pub(super) fn file(path: &Path, tags: &[&str]) -> Value {
    resource("File", path.to_str().unwrap(), json!({ "ensure": "file", "content": "by Puppet\n" }), tags)
}

pub(super) fn exec(command: &str) -> Value {
    resource("Exec", command, json!({ "path": "/usr/bin:/bin" }), &[])
}

/// A catalog of these resources, as a server compiles it.
pub(super) fn catalog(resources: &[Value]) -> Value {
    let name =
        |resource: &Value| format!("{}[{}]", resource["type"].as_str().unwrap(), resource["title"].as_str().unwrap());
    let edge = |source: &str, target: String| json!({ "source": source, "target": target });
    let mut all = vec![
        json!({ "type": "Stage", "title": "main", "tags": ["stage"], "exported": false, "parameters": { "name": "main" } }),
        json!({ "type": "Class", "title": "main", "tags": ["class"], "exported": false, "parameters": { "name": "main" } }),
    ];
    let mut edges = vec![edge("Stage[main]", "Class[main]".to_owned())];
    edges.extend(resources.iter().map(|resource| edge("Class[main]", name(resource))));
    all.extend(resources.iter().cloned());
    json!({ "tags": ["settings"], "version": "release-17", "code_id": null, "catalog_uuid": "c0ffee", "catalog_format": 1,
            "resources": all, "edges": edges, "classes": ["settings"] })
}
