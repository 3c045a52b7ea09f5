//! The operator's end.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{ANSWER_BYTES_MAX, Answer, ControlError, Request, WAIT_LIMIT};

/// Asks the broker that listens at `path`.
///
/// # Errors
/// Nobody listens, nobody may ask, or no answer comes within ten seconds.
pub fn ask(path: &Path, request: &Request) -> Result<Answer, ControlError> {
    let mut stream = UnixStream::connect(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NobodyListens { path: path.to_owned() }
        }
        _ => ControlError::Io { action: "connect to", path: path.to_owned(), source },
    })?;
    let no_answer = |source| ControlError::NoAnswer { path: path.to_owned(), source };
    stream.set_read_timeout(Some(WAIT_LIMIT)).map_err(no_answer)?;
    stream.set_write_timeout(Some(WAIT_LIMIT)).map_err(no_answer)?;
    let text = serde_json::to_vec(request).map_err(|error| no_answer(error.into()))?;
    match stream.write_all(&text).and_then(|()| stream.shutdown(Shutdown::Write)) {
        // Whoever may not ask is hung up on.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected) => {}
        written => written.map_err(no_answer)?,
    }
    let mut text = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        read => drop(read.map_err(no_answer)?),
    }
    if text.is_empty() {
        let why = "it hung up without a word: only root and the broker's own user are answered";
        return Err(no_answer(io::Error::new(io::ErrorKind::PermissionDenied, why)));
    }
    serde_json::from_slice(&text).map_err(|error| no_answer(error.into()))
}
