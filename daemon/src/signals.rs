//! Signals from the operator and the service manager.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Stop cleanly (first SIGTERM or SIGINT).
    Stop,
    /// End at once (SIGTERM or SIGINT again).
    EndNow,
    /// Read the configuration again (SIGHUP).
    Reload,
}

/// Listens for SIGTERM, SIGINT and SIGHUP.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    stopping: bool,
}

impl Signals {
    /// Takes over the three signals of this process. Call it within a runtime, early: until then
    /// they end the process.
    ///
    /// # Errors
    /// The system does not let a handler be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            stopping: false,
        })
    }

    /// Waits for the next signal. Safe to cancel.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => self.stop(),
            _ = self.interrupt.recv() => self.stop(),
            _ = self.hangup.recv() => Request::Reload,
        }
    }

    fn stop(&mut self) -> Request {
        if std::mem::replace(&mut self.stopping, true) { Request::EndNow } else { Request::Stop }
    }
}

/// Waits until somebody asks this process to stop. SIGHUP is taken and ignored.
///
/// For programs that do nothing else with signals; others keep a [`Signals`].
///
/// # Errors
/// The system does not let a handler be installed.
pub async fn shutdown_requested() -> io::Result<()> {
    let mut signals = Signals::install()?;
    while signals.next().await == Request::Reload {}
    Ok(())
}
