//! Agents in a process of their own: started, asked and stopped by lines of JSON over its pipes.
//!
//! A process may have only so many files open, and an agent has some: a large fleet is spread over several processes. Keys go
//! through the pipe, never into a file or an argument. A crew ends when its standard input closes, so it never outlives
//! whoever started it, and removes its state from the disk.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_pki::{Certificate, Credentials, PrivateKey, Trust};
use muster_protocol::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::crew::{Crew, CrewParts, CrewState, Left};
use crate::inventory::plan;
use crate::options::Options;

/// The command of `muster-fleet` that [`serve`] is behind.
pub(crate) const COMMAND: &str = "crew";

/// How long a crew may take to answer, beyond what it is asked to do.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long a crew may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(180);

/// The first line to a crew.
#[derive(Serialize, Deserialize)]
struct Order {
    url: String,
    /// The authority's directory, with its certificate and its revocation list.
    authority: PathBuf,
    /// What the hosts' names and facts are made from.
    seed: u64,
    first: usize,
    /// Certificate (DER, base64) and key (PEM) of each host.
    credentials: Vec<(String, String)>,
    options: Options,
}

/// What a crew is asked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    State { since: i64 },
    RestartMeter,
    Stop,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    State(Box<CrewState>),
    Done,
    Left(Left),
    Failed(String),
}

/// What a crew in a process of its own is made of.
pub(crate) struct RemoteParts<'a> {
    pub(crate) url: String,
    pub(crate) authority: PathBuf,
    pub(crate) seed: u64,
    pub(crate) first: usize,
    /// Of each host, with its key in PEM.
    pub(crate) credentials: &'a [(Credentials, Zeroizing<String>)],
    pub(crate) options: Options,
}

/// A crew in a process of its own.
#[derive(Debug)]
pub(crate) struct Remote {
    process: Child,
    pipes: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Remote {
    /// Starts the process and gives it its order.
    pub(crate) async fn start(program: &Path, parts: RemoteParts<'_>) -> Result<Self> {
        let credentials = parts
            .credentials
            .iter()
            .map(|(credentials, key)| (STANDARD.encode(credentials.certificate().der()), key.as_str().to_owned()));
        let order = Order {
            url: parts.url,
            authority: parts.authority,
            seed: parts.seed,
            first: parts.first,
            credentials: credentials.collect(),
            options: parts.options,
        };
        let mut process = Command::new(program)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not in the terminal's group: Ctrl-C is for whoever started it, who then stops it in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start `{}`", program.display()))?;
        let mut words = process.stdin.take().context("standard input was asked for")?;
        let lines = BufReader::new(process.stdout.take().context("standard output was asked for")?).lines();
        say(&mut words, &order).await?;
        Ok(Self { process, pipes: Mutex::new((words, lines)) })
    }

    pub(crate) async fn state(&self, since: Timestamp) -> Result<CrewState> {
        match self.ask(&Ask::State { since: since.0 }, ANSWER_LIMIT).await? {
            Answer::State(state) => Ok(*state),
            _ => bail!("a crew answers something else"),
        }
    }

    pub(crate) async fn restart_meter(&self) -> Result<()> {
        self.ask(&Ask::RestartMeter, ANSWER_LIMIT).await.map(drop)
    }

    pub(crate) async fn stop(mut self) -> Result<Left> {
        let Answer::Left(left) = self.ask(&Ask::Stop, STOP_LIMIT).await? else {
            bail!("a crew answers something else");
        };
        drop(self.pipes);
        tokio::time::timeout(ANSWER_LIMIT, self.process.wait()).await.context("wait for a crew's end")??;
        Ok(left)
    }

    async fn ask(&self, ask: &Ask, limit: Duration) -> Result<Answer> {
        let mut pipes = self.pipes.lock().await;
        let (words, lines) = &mut *pipes;
        let exchange = async {
            say(words, ask).await?;
            let line = lines.next_line().await?.context("a crew's process has ended")?;
            match serde_json::from_str(&line)? {
                Answer::Failed(why) => bail!("a crew: {why}"),
                answer => Ok(answer),
            }
        };
        tokio::time::timeout(limit, exchange).await.context("a crew does not answer")?
    }
}

async fn say(to: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line).await.context("tell a crew")?;
    to.flush().await.context("tell a crew")
}

/// Runs a crew: takes its order and questions from `asks` and answers to `answers`, until `asks` ends.
///
/// # Errors
/// The order makes no sense, or nobody takes the answers.
pub async fn serve(asks: impl AsyncRead + Unpin, mut answers: impl AsyncWrite + Unpin) -> Result<()> {
    let mut lines = BufReader::new(asks).lines();
    let order = lines.next_line().await?.context("a crew gets an order first")?;
    let mut crew = Some(Crew::start(parts(serde_json::from_str(&order).context("read a crew's order")?)?)?);
    drop(order);
    while let Some(line) = lines.next_line().await? {
        let answer = match (serde_json::from_str(&line).context("read a question to a crew")?, &crew) {
            (_, None) => Answer::Failed("has stopped".to_owned()),
            (Ask::State { since }, Some(crew)) => match crew.state(Timestamp(since)) {
                Ok(state) => Answer::State(Box::new(state)),
                Err(error) => Answer::Failed(format!("{error:#}")),
            },
            (Ask::RestartMeter, Some(crew)) => {
                crew.restart_meter();
                Answer::Done
            }
            (Ask::Stop, Some(_)) => match crew.take() {
                Some(crew) => Answer::Left(crew.stop().await),
                None => Answer::Done,
            },
        };
        say(&mut answers, &answer).await?;
    }
    if let Some(crew) = crew {
        crew.stop().await;
    }
    Ok(())
}

fn parts(order: Order) -> Result<CrewParts> {
    let trust = Trust::load(&order.authority.join("ca.pem"), Some(&order.authority.join("crl.pem")))?;
    let mut plans = plan(order.first + order.credentials.len(), order.seed).split_off(order.first);
    let hosts = plans.drain(..).zip(order.credentials).map(|(plan, (certificate, key))| {
        let certificate = Certificate::from_der(&STANDARD.decode(certificate)?, "a host's certificate")?;
        let credentials = Credentials::new(certificate, PrivateKey::from_pem(&key, "a host's key")?, "a host")?;
        anyhow::Ok((plan, credentials))
    });
    let hosts = hosts.collect::<Result<Vec<_>>>()?;
    Ok(CrewParts { url: order.url, trust, first: order.first, hosts, options: order.options })
}
