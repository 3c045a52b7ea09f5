//! From an accepted socket to TLS.
//!
//! The two steps of a handshake that are computed, some hundred microseconds each, take turns: as many at a time as the
//! broker has threads for it, first come, first served. A storm of ten thousand connections then stands in that line and
//! not in front of the connections that are open. Waiting for a client's bytes costs no turn.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::gate::Gate;
use super::scratch;

/// How long a client may be silent, all in all, while all places for handshakes are taken. Nobody with a certificate of ours needs as
/// long; somebody who only wants the places would otherwise have them for a minute.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why there is no TLS with somebody.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The network, or the other end hung up.
    #[error("the connection ended in the handshake: {0}")]
    Network(#[from] io::Error),
    /// What the client says or shows is not accepted. It was told.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// It says nothing while others wait.
    #[error("it was silent in the handshake while others waited for their turn")]
    Silent,
}

/// Makes TLS with whoever has connected. Whatever comes after its last message is kept in the connection.
pub(super) async fn shake_hands(
    stream: &TcpStream,
    config: Arc<ServerConfig>,
    gate: &Gate,
) -> Result<ServerConnection, Refusal> {
    let mut tls = ServerConnection::new(config)?;
    // What is written is sent before more is made, so nothing piles up.
    tls.set_buffer_limit(None);
    let mut silent = Duration::ZERO;
    while tls.is_handshaking() {
        hear(stream, gate, &mut silent).await?;
        let turn = gate.turns().acquire().await;
        let step = step(stream, &mut tls);
        drop(turn);
        // The client hears why it is refused.
        let said = say(stream, &mut tls).await;
        step?;
        said?;
    }
    Ok(tls)
}

/// Waits until something has come. What the client has been waited for in the whole handshake adds up in `silent`: who sends
/// a byte now and then is as silent as who sends none.
async fn hear(stream: &TcpStream, gate: &Gate, silent: &mut Duration) -> Result<(), Refusal> {
    loop {
        if gate.is_pressed() && *silent > SILENCE_LIMIT {
            return Err(Refusal::Silent);
        }
        let since = Instant::now();
        let heard = tokio::time::timeout(LOOK_INTERVAL, stream.readable()).await;
        *silent += since.elapsed();
        if let Ok(readable) = heard {
            return Ok(readable?);
        }
    }
}

/// Takes what has come.
fn step(stream: &TcpStream, tls: &mut ServerConnection) -> Result<(), Refusal> {
    scratch::with(|scratch| {
        let read = match stream.try_read(&mut scratch.read) {
            Ok(0) => return Err(Refusal::Network(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = scratch.read.get(..read).unwrap_or_default();
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            tls.process_new_packets()?;
        }
        Ok(())
    })
}

async fn say(stream: &TcpStream, tls: &mut ServerConnection) -> io::Result<()> {
    while tls.wants_write() {
        stream.writable().await?;
        match tls.write_tls(&mut Socket(stream)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes what the socket takes now.
struct Socket<'a>(&'a TcpStream);

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
