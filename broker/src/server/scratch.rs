//! Buffers that belong to a thread and not to a connection: ten thousand idle connections need none.

use std::cell::RefCell;

/// Bytes that are read from a socket at once: four of TLS's largest records.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// From so many bytes of frames on they are encrypted and written before more are made.
pub(super) const WRITE_BYTES: usize = 64 * 1024;

/// Largest buffer that a thread keeps: one message may be larger than [`WRITE_BYTES`].
const KEEP_BYTES: usize = 4 * WRITE_BYTES;

/// The buffers of a thread.
#[derive(Debug)]
pub(super) struct Scratch {
    /// What came from the network.
    pub(super) read: Vec<u8>,
    /// Frames to be encrypted.
    pub(super) plain: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { read: vec![0; READ_BYTES], plain: Vec::with_capacity(WRITE_BYTES) });
}

/// Lends the buffers of this thread. Nobody who has them lends them again.
pub(super) fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let done = work(scratch);
        scratch.plain.clear();
        if scratch.plain.capacity() > KEEP_BYTES {
            scratch.plain.shrink_to(WRITE_BYTES);
        }
        done
    })
}
