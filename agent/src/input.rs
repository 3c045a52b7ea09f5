//! Standard input as a sign of life of whoever started the agent: it ends when the last process ends that holds the
//! other end, also one that was killed.

use std::io;
use std::os::fd::AsFd as _;

use tokio::net::unix::pipe::Receiver;

/// Standard input, which is a pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    receiver: Receiver,
}

/// Takes standard input. Call it within a runtime.
///
/// # Errors
/// It is not a pipe: a terminal would stop the agent at the first mistyped key, and `/dev/null` at once.
pub(crate) fn pipe() -> io::Result<Pipe> {
    let own = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(Pipe { receiver: Receiver::from_owned_fd(own)? })
}

impl Pipe {
    /// Waits until nobody can write to it any more. What is written means nothing.
    pub(crate) async fn ended(&mut self) {
        let mut ignored = [0; 64];
        loop {
            if self.receiver.readable().await.is_err() {
                return;
            }
            match self.receiver.try_read(&mut ignored) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
