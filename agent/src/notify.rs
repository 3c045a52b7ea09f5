//! Telling systemd how the agent is doing, sd_notify(3). Without systemd nothing happens.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use muster_agent::{Connection, Handle};
use sd_notify::NotifyState;

/// How long to wait for a broker before the start counts as done all the same. An agent without a
/// broker works as it should: it tries on. systemd, which waits 90 s by default, must not take the
/// broker's absence for the agent's failure and restart it in a circle.
const READY_AT_LATEST: Duration = Duration::from_secs(60);

fn tell(states: &[NotifyState<'_>]) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    match send(&socket, states) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            tracing::debug!("The service manager does not read its notifications; one is dropped");
        }
        Err(error) => tracing::debug!(%error, "Could not notify the service manager"),
    }
}

/// Sends one notification and never waits: the agent has one thread, and a service manager that does not
/// read must not stop it. `@` begins an abstract address.
fn send(socket: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

/// Keeps systemd informed for as long as the agent runs.
pub(crate) async fn report(handle: Handle) {
    let mut connection = handle.connection();
    let mut ready = false;
    let late = tokio::time::sleep(READY_AT_LATEST);
    tokio::pin!(late);
    let watchdog = sd_notify::watchdog_enabled();
    loop {
        let now = connection.borrow_and_update().clone();
        let status = match &now {
            Connection::Connecting { why } if why.is_empty() => "Connecting to the broker".to_owned(),
            Connection::Connecting { why } => format!("Not connected: {}", why.replace('\n', " ")),
            Connection::Online { broker, .. } => format!("Connected to {broker}"),
            Connection::Stopping => "Stopping".to_owned(),
        };
        tell(&[NotifyState::Status(&status)]);
        if !ready && matches!(now, Connection::Online { .. }) {
            ready = true;
            tell(&[NotifyState::Ready]);
        }
        loop {
            tokio::select! {
                biased;
                changed = connection.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                () = &mut late, if !ready => {
                    ready = true;
                    tell(&[NotifyState::Ready]);
                }
                // Half the time that systemd gives, as it recommends. That this task gets its turn at
                // all shows that nothing blocks the agent's only thread.
                () = pause(watchdog.map(|limit| limit / 2)) => tell(&[NotifyState::Watchdog]),
            }
        }
    }
}

async fn pause(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Says that the configuration is read again.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Says that this is done.
pub(crate) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// Says that the agent goes down, and how long that may take.
pub(crate) fn stopping(limit: Duration) {
    let limit_us = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(limit_us)]);
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
            let ends: Vec<_> = (0..10_000).map(|_| send(path.as_os_str(), &[NotifyState::Watchdog])).collect();
            done.send(ends).unwrap();
        });
        let ends = wait.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(ends[0].is_ok());
        let last = ends.into_iter().next_back().unwrap();
        assert_eq!(last.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(received(&socket), "WATCHDOG=1\n");
    }

    #[test]
    fn an_abstract_address_begins_with_an_at_sign() {
        let name = format!("muster-notify-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), &[NotifyState::Ready, NotifyState::Status("good")]).unwrap();
        assert_eq!(received(&socket), "READY=1\nSTATUS=good\n");
    }
}
