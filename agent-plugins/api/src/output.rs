//! Output of a running action on its way to the controller.

use muster_protocol::OutputStream;
use tokio::sync::mpsc;

/// A piece of output, exactly as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPiece {
    /// Where it came from.
    pub stream: OutputStream,
    /// The bytes; not necessarily text, and not necessarily whole lines.
    pub bytes: Vec<u8>,
}

/// The agent's end: reads what an action sends.
pub type OutputReceiver = mpsc::Receiver<OutputPiece>;

/// The plugin's end. Cheap to clone; bounded, so that a slow reader makes the action wait.
#[derive(Debug, Clone)]
pub struct OutputSink(Option<mpsc::Sender<OutputPiece>>);

impl OutputSink {
    /// A sink and its reader, with room for `pieces` pieces that nobody has read yet.
    ///
    /// # Panics
    /// When `pieces` is 0.
    #[must_use]
    pub fn channel(pieces: usize) -> (Self, OutputReceiver) {
        let (sender, receiver) = mpsc::channel(pieces);
        (Self(Some(sender)), receiver)
    }

    /// A sink that forgets everything.
    #[must_use]
    pub fn discard() -> Self {
        Self(None)
    }

    /// Sends a piece, and waits while there is no room. When the reader has gone, the piece is
    /// forgotten: output that nobody wants must not stop the action.
    pub async fn write(&self, stream: OutputStream, bytes: Vec<u8>) {
        if let Some(sender) = &self.0
            && !bytes.is_empty()
        {
            let gone = sender.send(OutputPiece { stream, bytes }).await;
            drop(gone);
        }
    }
}
