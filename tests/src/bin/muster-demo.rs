//! The demonstration: a private broker, a fresh PKI, five agents, and the daily commands with their real
//! output. The broker is the embedded one, or with `--rabbitmq` the other. `--check` compares the results instead of waiting.
//!
//! Started by `cargo xtask demo`, which builds everything first. All that is done here a user could type:
//! the PKI and the operator's commands go through the real `muster`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demonstration prints")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use muster_broker_config::ServerCertificate;
use muster_protocol::{HostName, Identity};
use muster_tests::broker::{Broker, Kind, Options, url};
use muster_tests::programs::{Access, AgentProcess, AgentSettings, Finished, Operator, Party, program};
use serde_json::Value;
use tempfile::TempDir;

/// The five hosts: name, role, data centre, class.
const HOSTS: [(&str, &str, &str, &str); 5] = [
    ("web-01.ams1", "web", "ams1", "nginx"),
    ("web-02.ams1", "web", "ams1", "nginx"),
    ("web-03.fra2", "web", "fra2", "nginx"),
    ("db-01.ams1", "db", "ams1", "postgresql"),
    ("edge-01.par1", "edge", "par1", "legacy"),
];

/// Set to use a running broker instead of a private one: `amqps://HOST:PORT/VHOST`.
const BROKER_VARIABLE: &str = "MUSTER_AMQP_URL";

/// With [`BROKER_VARIABLE`]: the directory of the CA that this broker trusts.
const CA_VARIABLE: &str = "MUSTER_CA_DIR";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| !matches!(word.as_str(), "--check" | "--rabbitmq")) {
        eprintln!("usage: muster-demo [--check] [--rabbitmq]");
        return ExitCode::from(2);
    }
    let has = |word: &str| arguments.iter().any(|given| given == word);
    let check = has("--check");
    let kind = if has("--rabbitmq") { Kind::RabbitMq } else { Kind::Embedded };
    // One runtime only for the signal: a Ctrl-C in the middle of a step must run the destructors that stop
    // what was started, so it is taken from the beginning and looked at between steps.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.context("start a runtime").and_then(|runtime| {
        let _guard = runtime.enter();
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut wait = |at_most: Duration| {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = interrupt.recv() => true,
                    _ = terminate.recv() => true,
                    () = tokio::time::sleep(at_most) => false,
                }
            })
        };
        let mut go_on = || {
            ensure!(!wait(Duration::from_millis(1)), "interrupted; everything that was started is stopped");
            Ok(())
        };
        let mut stage = Demo::set_up(kind, &mut go_on)?;
        let mut wrong = stage.show(&mut go_on)?;
        if check {
            wrong.extend(stage.check()?);
        } else {
            stage.invite();
            while !wait(Duration::from_secs(1)) {
                stage.look_after()?;
            }
            println!();
        }
        stage.tear_down()?;
        if check && !wrong.is_empty() {
            bail!("{} results are not as they should be:\n  {}", wrong.len(), wrong.join("\n  "));
        }
        if check {
            println!("demo: every step gave the right result");
        }
        Ok(())
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that runs.
struct Demo {
    agents: Vec<AgentProcess>,
    /// Which of them have ended by themselves, and were told of.
    gone: Vec<bool>,
    operator: Operator,
    broker: Option<Box<dyn Broker>>,
    folder: TempDir,
}

/// Says what happens next, on standard error, as all that is not a result.
fn tell(what: &str) {
    eprintln!("==> {what}");
}

impl Demo {
    /// Starts everything. `go_on` fails once somebody has asked to stop.
    fn set_up(kind: Kind, go_on: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-demo-").tempdir().context("make a folder for the demo")?;
        let external = std::env::var(BROKER_VARIABLE).ok();
        let ca = match (&external, std::env::var_os(CA_VARIABLE)) {
            (Some(_), Some(directory)) => PathBuf::from(directory),
            (Some(url), None) => bail!(
                "{BROKER_VARIABLE} is set to {url}, but {CA_VARIABLE} is not: it has to name the directory of the CA that this broker trusts"
            ),
            (None, _) => folder.path().join("ca"),
        };
        let pki = folder.path().join("pki");
        tell("create a certificate authority, and certificates for a broker, five hosts and a user");
        create_certificates(&ca, &pki, external.is_none())?;
        go_on()?;
        let identities: Vec<Identity> = HOSTS
            .iter()
            .map(|(host, ..)| format!("host/{host}"))
            .chain(["user/lea".to_owned()])
            .map(|name| name.parse().context("an identity"))
            .collect::<Result<_>>()?;
        let (broker, url) = match external {
            Some(url) => {
                tell(&format!("use the broker at {url} ({BROKER_VARIABLE})"));
                let definitions = folder.path().join("broker");
                muster(&["broker", "config", "--ca-dir", text(&ca)?, "--out", text(&definitions)?])?;
                eprintln!(
                    "    if it is a RabbitMQ that does not know the demo's users yet: rabbitmqctl import_definitions {}/definitions.json",
                    definitions.display()
                );
                (None, url)
            }
            None => {
                let name = if kind == Kind::RabbitMq { "a private RabbitMQ" } else { "the embedded broker" };
                tell(&format!("start {name} on loopback: TLS 1.3 both ways, certificates instead of passwords"));
                let mut options = Options::with_certificate(ServerCertificate {
                    ca: pki.join("ca.pem"),
                    certificate: pki.join("broker-localhost.pem"),
                    key: pki.join("broker-localhost.key"),
                });
                options.identities = identities.iter().cloned().collect();
                let vhost = options.vhost.clone();
                let broker = kind.start(options)?;
                let url = url(broker.port(), &vhost);
                eprintln!("    it listens at {url}");
                (Some(broker), url)
            }
        };
        let access = Access { urls: vec![url], ca: pki.join("ca.pem"), crl: Some(pki.join("crl.pem")) };
        go_on()?;
        tell("start five agents with different facts");
        let agents = start_agents(folder.path(), &pki, &access)?;
        go_on()?;
        let operator = Operator::new(&folder.path().join("home"), "demo", &access, &party(&pki, "user-lea"))?;
        Ok(Self { gone: vec![false; agents.len()], agents, operator, broker, folder })
    }

    /// The commands that are shown, with their expected exit codes, and what went otherwise.
    fn show(&self, go_on: &mut dyn FnMut() -> Result<()>) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (arguments, code) in [
            (vec!["ping", "--all"], 0),
            (vec!["find", "-t", "role = web and dc = ams1"], 0),
            (vec!["run", "package.status", "name=bash", "-t", "os.family = \"Debian\""], 0),
            (vec!["run", "puppet.status", "-t", "class = nginx", "--limit", "2", "--seed", "7"], 0),
            (vec!["run", "package.status", "name=bash", "-t", "role = wbe"], 4),
        ] {
            go_on()?;
            println!("\n$ muster {}", shell_line(&arguments));
            std::io::stdout().flush().ok();
            // Straight to the terminal, with whatever it can do.
            let mut command = self.operator.command(&arguments)?;
            command.stdin(Stdio::inherit());
            command.envs(std::env::vars_os().filter(|(name, _)| name == "TERM" || name == "NO_COLOR"));
            let status = command.status()?;
            if status.code() != Some(code) {
                wrong.push(format!("`muster {}` ended with {status}, not with {code}", shell_line(&arguments)));
            }
        }
        println!();
        Ok(wrong)
    }

    /// Looks at the results themselves, as a program would.
    fn check(&self) -> Result<Vec<String>> {
        tell("compare the results");
        let mut wrong = Vec::new();
        let mut compare = |what: &str, found: Value, expected: Value| {
            if found != expected {
                wrong.push(format!("{what}: found {found}, expected {expected}"));
            }
        };
        let names = |finished: &Finished| -> Value {
            let mut names: Vec<&str> = finished.stdout.lines().collect();
            names.sort_unstable();
            Value::from(names)
        };
        let mut everybody: Vec<&str> = HOSTS.iter().map(|(host, ..)| *host).collect();
        everybody.sort_unstable();
        compare("ping --all", names(&self.operator.run(&["ping", "--all", "--names"])?), Value::from(everybody));
        let found = self.operator.run(&["find", "-t", "role = web and dc = ams1", "--names"])?;
        compare("find", names(&found), Value::from(vec!["web-01.ams1", "web-02.ams1"]));
        let run =
            self.operator.run(&["run", "package.status", "name=bash", "-t", "os.family = \"Debian\"", "--jsonl"])?;
        let version = installed_version("bash")?;
        let tasks: Vec<Value> = run.json_lines()?.into_iter().filter(|line| line["kind"] == "task").collect();
        compare("package.status answers", Value::from(tasks.len()), Value::from(HOSTS.len()));
        for task in &tasks {
            compare("package.status state", task["state"].clone(), Value::from("succeeded"));
            let status = task["data"]["version"].as_str().unwrap_or_default().to_owned();
            if !version.contains(&status) || status.is_empty() {
                wrong_version(&mut compare, &version, &task["data"]);
            }
        }
        Ok(wrong)
    }

    fn invite(&self) {
        println!("Five agents are waiting. In another terminal:\n");
        println!("  export MUSTER_CONFIG={}", self.operator.config().display());
        println!("  export XDG_CACHE_HOME={}", self.operator.cache().display());
        println!(
            "  alias muster={}\n",
            program("muster").map_or_else(|_| "muster".to_owned(), |path| path.display().to_string())
        );
        for line in [
            "muster find -t 'role = web and not dc = ams1'",
            "muster run service.status name=procps -H web-01.ams1,db-01.ams1",
            "muster host show db-01.ams1",
            "muster host facts edge-01.par1 os",
            "muster plugin show package.status",
            "muster run package.status nam=bash --all",
            "muster doctor",
        ] {
            println!("  {line}");
        }
        println!("\nFiles of CA and agents: {}", self.folder.path().display());
        println!("Ctrl-C stops everything.");
    }

    /// Says so when something that should run has ended.
    fn look_after(&mut self) -> Result<()> {
        for (agent, gone) in self.agents.iter_mut().zip(&mut self.gone) {
            if !*gone && let Some(status) = agent.ended()? {
                *gone = true;
                eprintln!(
                    "==> the agent of {} has ended with {status}; its log: {}/log",
                    agent.host(),
                    agent.folder().display()
                );
            }
        }
        Ok(())
    }

    fn tear_down(mut self) -> Result<()> {
        tell("stop the agents and the broker");
        for agent in &mut self.agents {
            agent.stop()?;
        }
        if let Some(broker) = &self.broker {
            broker.stop()?;
        }
        Ok(())
    }
}

fn wrong_version(compare: &mut impl FnMut(&str, Value, Value), version: &str, data: &Value) {
    compare("package.status version of bash", data.clone(), Value::from(version));
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("`{}` is not UTF-8", path.display()))
}

fn party(pki: &Path, name: &str) -> Party {
    Party { certificate: pki.join(format!("{name}.pem")), key: pki.join(format!("{name}.key")) }
}

/// Runs `muster` for the set-up; its output is shown only when it fails.
fn muster(arguments: &[&str]) -> Result<()> {
    let output = Command::new(program("muster")?).args(arguments).stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "`muster {}` ended with {}\n{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn create_certificates(ca: &Path, pki: &Path, fresh: bool) -> Result<()> {
    let (ca, pki) = (text(ca)?, text(pki)?);
    if fresh {
        muster(&["pki", "init", "--ca-dir", ca])?;
        muster(&[
            "pki",
            "issue",
            "broker/localhost",
            "--dns",
            "localhost",
            "--ip",
            "127.0.0.1",
            "--ca-dir",
            ca,
            "--out",
            pki,
        ])?;
    }
    for (host, ..) in HOSTS {
        muster(&["pki", "issue", &format!("host/{host}"), "--ca-dir", ca, "--out", pki])?;
    }
    muster(&["pki", "issue", "user/lea", "--group", "admins", "--ca-dir", ca, "--out", pki])
}

fn start_agents(folder: &Path, pki: &Path, access: &Access) -> Result<Vec<AgentProcess>> {
    let mut agents = Vec::new();
    for (host, role, dc, class) in HOSTS {
        let settings = AgentSettings::new(HostName::new(host)?).fact("role", role).fact("dc", dc).class(class);
        agents.push(AgentProcess::start(&settings, access, &party(pki, &format!("host-{host}")), &folder.join(host))?);
    }
    for agent in &mut agents {
        agent.wait_ready()?;
        eprintln!("    {} is connected", agent.host());
    }
    Ok(agents)
}

/// What dpkg itself says, to compare with.
fn installed_version(package: &str) -> Result<String> {
    let output =
        Command::new("dpkg-query").args(["-W", "-f=${Version}", "--", package]).output().context("ask dpkg")?;
    ensure!(output.status.success(), "dpkg does not know `{package}`");
    Ok(String::from_utf8(output.stdout)?)
}

/// The line as a person would type it.
fn shell_line(arguments: &[&str]) -> String {
    let quoted = arguments.iter().map(|word| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=,".contains(c));
        if plain { (*word).to_owned() } else { format!("'{word}'") }
    });
    quoted.collect::<Vec<_>>().join(" ")
}
