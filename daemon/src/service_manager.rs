//! Telling the service manager how a program is doing, sd_notify(3). Without one nothing happens.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::Instant;

/// How long to wait before something that was not taken is said again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Tells it something: lines such as `READY=1`, each with its end. What cannot be told is not. What has to arrive goes through
/// [`Notices`].
pub fn tell(text: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        tell_at(&socket, text);
    }
}

/// `false` if it does not read at the moment, so that it would be taken later.
fn tell_at(socket: &OsStr, text: &str) -> bool {
    match send(socket, text) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            tracing::debug!("The service manager does not read its notifications");
            false
        }
        Err(error) => {
            tracing::debug!(%error, "Could not notify the service manager");
            true
        }
    }
}

/// What it has to hear, such as `READY=1`: said again until it is taken, so that a service manager that is stalled does not
/// take a start for a failure.
#[derive(Debug)]
pub struct Notices {
    socket: Option<OsString>,
    /// What waits, and when it is said again.
    untold: Option<(String, Instant)>,
}

impl Notices {
    /// For the service manager of this process, if it has one.
    #[must_use]
    pub fn of_process() -> Self {
        Self { socket: std::env::var_os("NOTIFY_SOCKET"), untold: None }
    }

    /// Says it now or, where it is not taken, with the next [`again`](Self::again). It takes the place of what waits.
    pub fn say(&mut self, text: &str) {
        let taken = self.socket.as_ref().is_none_or(|socket| tell_at(socket, text));
        self.untold = (!taken).then(|| (text.to_owned(), Instant::now() + AGAIN_AFTER));
    }

    /// Says what waits once more, after a second. Never ends where nothing waits; safe to cancel.
    pub async fn again(&mut self) {
        match self.untold.clone() {
            Some((text, at)) => {
                tokio::time::sleep_until(at).await;
                self.say(&text);
            }
            None => std::future::pending().await,
        }
    }
}

/// Sends one notification and never waits: a service manager that does not read must not stop the program. `@` begins
/// an abstract address.
fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_service_manager_that_does_not_read_stops_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let ends: Vec<_> = (0..10_000).map(|_| send(path.as_os_str(), "WATCHDOG=1\n")).collect();
            done.send(ends).unwrap();
        });
        let ends = wait.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(ends[0].is_ok());
        let last = ends.into_iter().next_back().unwrap();
        assert_eq!(last.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(received(&socket), "WATCHDOG=1\n");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_to_arrive_is_said_until_it_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut notices = Notices { socket: Some(path.clone().into_os_string()), untold: None };
        while send(path.as_os_str(), "STATUS=early\n").is_ok() {}
        notices.say("READY=1\n");
        assert!(notices.untold.is_some());
        // Nobody reads yet.
        notices.again().await;
        socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 256];
        while socket.recv(&mut bytes).is_ok() {}
        notices.again().await;
        assert_eq!(received(&socket), "READY=1\n");
        // Once is enough.
        assert!(tokio::time::timeout(Duration::from_secs(60), notices.again()).await.is_err());
        assert_eq!(socket.recv(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_abstract_address_begins_with_an_at_sign() {
        let name = format!("muster-notify-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1\nSTATUS=good\n").unwrap();
        assert_eq!(received(&socket), "READY=1\nSTATUS=good\n");
    }
}
