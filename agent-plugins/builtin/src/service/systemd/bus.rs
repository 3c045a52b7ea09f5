//! Asks systemd for a job over the system bus, and waits for the result that it announces.
//!
//! systemd forgets a job when it has ended; its result is only in the signal `JobRemoved`. So the client subscribes
//! first, then asks for the job, and keeps every such signal from then on: none can be missed, however quick the job.
//!
//! A signal counts only if the bus says that systemd sent it: other programs may send signals to this client too.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::unistd::Uid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::wire::{FIXED_BYTES, Field, Kind, Malformed, Message, Method, decode, message_bytes};

/// How long an answer of the bus or of systemd may take. They answer within milliseconds; jobs are
/// not answers, they are waited for elsewhere.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Longest line of the authentication.
const LINE_BYTES_MAX: usize = 1024;

/// Ends of jobs that are remembered. A start takes a few others with it; on a busy host others ask for jobs meanwhile.
const ENDS_MAX: usize = 4096;

const DAEMON: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
};

const MANAGER: Method<'_> = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};

/// Why something could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    /// There is no bus, or it broke.
    #[error("speak to the system bus: {0}")]
    Io(#[from] io::Error),
    /// The bus does not know us.
    #[error("the system bus refused the login: {0}")]
    Login(String),
    /// It said what cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// systemd or the bus refused, with one of their names for errors.
    #[error("{message} ({name})")]
    Refused { name: String, message: String },
    /// Nothing came in time.
    #[error("there was no answer within {ANSWER_PATIENCE:?}")]
    Silent,
}

/// A job of systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobId {
    path: String,
    /// Its number; 0 where its path has none.
    pub(super) number: u32,
}

/// A connection to the system bus that has subscribed to the ends of systemd's jobs.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    /// What was read and is not a whole message yet.
    buffer: Vec<u8>,
    serial: u32,
    /// systemd's own name on the bus, such as `:1.0`.
    systemd: String,
    ends: HashMap<String, String>,
}

impl Bus {
    /// Connects and subscribes.
    pub(super) async fn connect(socket: &Path) -> Result<Self, BusError> {
        in_time(async {
            let mut stream = UnixStream::connect(socket).await?;
            log_in(&mut stream).await?;
            let mut bus = Self { stream, buffer: Vec::new(), serial: 0, systemd: String::new(), ends: HashMap::new() };
            bus.ask(Method { member: "Hello", ..DAEMON }, &[]).await?;
            // A call to systemd first: where it is not on the bus yet, that waits for it.
            bus.ask(Method { member: "Subscribe", ..MANAGER }, &[]).await?;
            let rule = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            bus.ask(Method { member: "AddMatch", ..DAEMON }, &[text(rule)]).await?;
            let owner = bus.ask(Method { member: "GetNameOwner", ..DAEMON }, &[text(MANAGER.destination)]).await?;
            bus.systemd = first_text(owner)?;
            Ok(bus)
        })
        .await
    }

    /// Keeps systemd from forgetting how the unit ended, for as long as this connection lives. A systemd before 232
    /// cannot; then the state after the end of a short unit is only that it does not run.
    pub(super) async fn hold(&mut self, unit: &str) {
        let _best_effort = in_time(self.ask(Method { member: "RefUnit", ..MANAGER }, &[text(unit)])).await;
    }

    /// Asks for a job: `StartUnit`, `StopUnit`, `RestartUnit` or `ReloadUnit`.
    pub(super) async fn start_job(&mut self, member: &str, unit: &str) -> Result<JobId, BusError> {
        let arguments = [text(unit), text("replace")];
        let path = first_text(in_time(self.ask(Method { member, ..MANAGER }, &arguments)).await?)?;
        let number = path.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        Ok(JobId { path, number })
    }

    /// Takes a job back. What it has begun goes on in the unit; nothing further of it is begun.
    pub(super) async fn cancel_job(&mut self, job: &JobId) -> Result<(), BusError> {
        in_time(self.ask(Method { member: "CancelJob", ..MANAGER }, &[Field::Number(job.number)])).await.map(drop)
    }

    /// Waits for the end of a job and gives its result, one of systemd's words. Waits for ever if need be; may be
    /// dropped at any time and called again.
    pub(super) async fn job_result(&mut self, job: &JobId) -> Result<String, BusError> {
        loop {
            if let Some(result) = self.ends.remove(&job.path) {
                return Ok(result);
            }
            let message = self.read().await?;
            self.note(&message)?;
        }
    }

    async fn ask(&mut self, method: Method<'_>, arguments: &[Field]) -> Result<Vec<Field>, BusError> {
        self.serial += 1;
        let call = method.encode(self.serial, arguments);
        self.stream.write_all(&call).await?;
        loop {
            let message = self.read().await?;
            match message.kind {
                Kind::Return if message.reply_serial == Some(self.serial) => return Ok(message.body()?),
                Kind::Error if message.reply_serial == Some(self.serial) => {
                    let name = message.error_name.clone().unwrap_or_default();
                    let said = message.body().ok().and_then(|body| first_text(body).ok()).unwrap_or_default();
                    return Err(BusError::Refused { name, message: said });
                }
                _ => self.note(&message)?,
            }
        }
    }

    /// Keeps the end of a job.
    fn note(&mut self, message: &Message) -> Result<(), BusError> {
        let is_end = message.kind == Kind::Signal
            && message.member.as_deref() == Some("JobRemoved")
            && message.interface.as_deref() == Some(MANAGER.interface)
            && message.sender.as_deref() == Some(self.systemd.as_str());
        if is_end
            && let [Field::Number(_), Field::Text(job), Field::Text(_), Field::Text(result)] = &message.body()?[..]
            && self.ends.len() < ENDS_MAX
        {
            self.ends.insert(job.clone(), result.clone());
        }
        Ok(())
    }

    /// Cancel safe: what was read stays in the buffer.
    async fn read(&mut self) -> Result<Message, BusError> {
        loop {
            let wanted = match self.buffer.first_chunk::<FIXED_BYTES>() {
                Some(fixed) => message_bytes(fixed)?,
                None => FIXED_BYTES,
            };
            if wanted > FIXED_BYTES && self.buffer.len() >= wanted {
                let rest = self.buffer.split_off(wanted);
                let message = std::mem::replace(&mut self.buffer, rest);
                return Ok(decode(&message)?);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(BusError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// The bus learns who we are from the kernel and only wants to hear the same number (`EXTERNAL`).
async fn log_in(stream: &mut UnixStream) -> Result<(), BusError> {
    let user = Uid::effective().to_string();
    let hex: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") && line.len() < LINE_BYTES_MAX {
        line.push(stream.read_u8().await?);
    }
    if !line.starts_with(b"OK ") {
        return Err(BusError::Login(String::from_utf8_lossy(&line).trim().to_owned()));
    }
    Ok(stream.write_all(b"BEGIN\r\n").await?)
}

fn text(text: &str) -> Field {
    Field::Text(text.to_owned())
}

fn first_text(fields: Vec<Field>) -> Result<String, BusError> {
    match fields.into_iter().next() {
        Some(Field::Text(text)) => Ok(text),
        _ => Err(BusError::Io(io::Error::other("the answer has no text"))),
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
    tokio::time::timeout(ANSWER_PATIENCE, answer).await.unwrap_or(Err(BusError::Silent))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signal `JobRemoved` of systemd 252 about its job 16, from the connection `:1.0`.
    const JOB_REMOVED: &[u8] = include_bytes!("../../../tests/recorded/job-removed.dbus");

    fn job() -> JobId {
        JobId { path: "/org/freedesktop/systemd1/job/16".to_owned(), number: 16 }
    }

    /// A connection to a systemd of that name, and the other end.
    fn bus(systemd: &str) -> (Bus, UnixStream) {
        let (stream, other) = UnixStream::pair().unwrap();
        let (buffer, ends) = (Vec::new(), HashMap::new());
        (Bus { stream, buffer, serial: 0, systemd: systemd.to_owned(), ends }, other)
    }

    #[tokio::test]
    async fn only_systemd_says_what_became_of_a_job() {
        let (mut bus, mut other) = bus(":1.7");
        other.write_all(JOB_REMOVED).await.unwrap();
        drop(other);
        assert!(bus.job_result(&job()).await.is_err(), "the signal of a stranger was believed");
        assert!(bus.ends.is_empty());
    }

    #[tokio::test]
    async fn a_signal_may_come_in_pieces_and_the_wait_may_be_dropped() {
        let (mut bus, mut other) = bus(":1.0");
        for piece in JOB_REMOVED.chunks(7) {
            other.write_all(piece).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(1), bus.job_result(&job())).await;
            if let Ok(result) = waited {
                assert_eq!(result.unwrap(), "done");
                return;
            }
        }
        panic!("the whole signal is there, but not the result");
    }

    #[tokio::test]
    async fn a_bus_that_ends_or_talks_nonsense_is_an_error() {
        for said in [
            &b""[..],
            b"l",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            &[b'l', 1, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let (mut bus, mut other) = bus(":1.0");
            other.write_all(said).await.unwrap();
            drop(other);
            assert!(bus.job_result(&job()).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_bus_that_does_not_know_us() {
        let (mut stream, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"REJECTED EXTERNAL\r\n").await.unwrap();
        let error = log_in(&mut stream).await.unwrap_err();
        assert_eq!(error.to_string(), "the system bus refused the login: REJECTED EXTERNAL");
    }
}
