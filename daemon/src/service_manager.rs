//! Telling the service manager how a program is doing, sd_notify(3). Without one nothing happens.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells it something: lines such as `READY=1`, each with its end. What cannot be told is not.
pub fn tell(text: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    match send(&socket, text) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            tracing::debug!("The service manager does not read its notifications; one is dropped");
        }
        Err(error) => tracing::debug!(%error, "Could not notify the service manager"),
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
    use std::time::Duration;

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

    #[test]
    fn an_abstract_address_begins_with_an_at_sign() {
        let name = format!("muster-notify-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1\nSTATUS=good\n").unwrap();
        assert_eq!(received(&socket), "READY=1\nSTATUS=good\n");
    }
}
