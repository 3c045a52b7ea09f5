//! Work that waits for processes, sockets and threads.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does it where it may wait: inside a runtime with several threads, others take over its tasks.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
