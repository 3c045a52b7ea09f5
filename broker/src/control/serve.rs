//! The broker's end.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_daemon::trusted::check_trusted;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::{Answer, ControlError, REQUEST_BYTES_MAX, Request};

/// How long somebody who asks may take, to ask and to read the answer. Meanwhile nobody else is answered.
const PEER_LIMIT: Duration = Duration::from_secs(2);

/// The socket of a running broker. Removed from the disk when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // One that stays behind is recognised by the next broker.
        drop(std::fs::remove_file(&self.path));
    }
}

impl ControlSocket {
    /// Listens at `path`, mode 0600, and does what is asked, on a thread that lives as long as the process.
    ///
    /// # Errors
    /// The socket cannot be made, or somebody listens there.
    pub fn serve(path: &Path, obey: impl Fn(Request) -> Answer + Send + 'static) -> Result<Self, ControlError> {
        let listener = listen(path)?;
        let failed = |source| ControlError::Io { action: "serve", path: path.to_owned(), source };
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                for stream in listener.incoming() {
                    match stream {
                        Ok(stream) => answer(stream, &obey),
                        // Out of descriptors, most likely: a moment later there may be one again.
                        Err(_) => std::thread::sleep(PEER_LIMIT),
                    }
                }
            })
            .map_err(failed)?;
        Ok(Self { path: path.to_owned() })
    }
}

fn listen(path: &Path) -> Result<UnixListener, ControlError> {
    let failed = |action: &'static str| {
        let path = path.to_owned();
        move |source| ControlError::Io { action, path, source }
    };
    // Whoever can write there can put something else in its place between two steps, which is then what is changed.
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check_trusted(directory).map_err(failed("trust the directory of"))?;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ControlError::Taken { path: path.to_owned(), by: "a file that is no socket" });
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(ControlError::Taken { path: path.to_owned(), by: "another broker" });
        }
        // A broker that was killed has left it.
        Ok(_) => std::fs::remove_file(path).map_err(failed("remove the old"))?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("make"))?;
    // Until then whoever could connect is refused by name.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed("protect"))?;
    Ok(listener)
}

fn answer(mut stream: UnixStream, obey: &impl Fn(Request) -> Answer) {
    let limits = || stream.set_read_timeout(Some(PEER_LIMIT)).and_then(|()| stream.set_write_timeout(Some(PEER_LIMIT)));
    if !is_allowed(&stream) || limits().is_err() {
        return;
    }
    let mut text = Vec::new();
    if (&stream).take(REQUEST_BYTES_MAX).read_to_end(&mut text).is_err() {
        return;
    }
    let answer = match serde_json::from_slice(&text) {
        Ok(request) => obey(request),
        Err(error) => Answer::Refused { code: "bad-request".to_owned(), why: format!("it is no request: {error}") },
    };
    let Ok(mut text) = serde_json::to_vec(&answer) else { return };
    text.push(b'\n');
    // Whoever does not read gets no more.
    drop(stream.write_all(&text));
}

/// Whether the other end is root or the broker's own user, whatever the file's mode is.
fn is_allowed(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials)
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::Uid::effective().as_raw())
}
