//! Being told by the kernel that something changed in a directory (inotify(7)), so that an agent whose
//! actions are silent does nothing.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;

/// What a runner wants to know: a file was put in place.
pub(crate) const PUT: AddWatchFlags = AddWatchFlags::IN_MOVED_TO.union(AddWatchFlags::IN_ONLYDIR);

/// What an agent wants to know besides: output was appended, and whoever held the lock is gone, since its
/// end closes the file, however it ends.
pub(crate) const ALL: AddWatchFlags = PUT.union(AddWatchFlags::IN_MODIFY).union(AddWatchFlags::IN_CLOSE_WRITE);

/// A queue of the kernel's for changes in directories. Clones are the same queue.
#[derive(Debug, Clone)]
pub(crate) struct Notices(Arc<Inotify>);

impl Notices {
    /// A queue without a directory.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?)))
    }

    /// Adds a directory.
    pub(crate) fn watch(&self, directory: &Path, events: AddWatchFlags) -> io::Result<WatchDescriptor> {
        Ok(self.0.add_watch(directory, events)?)
    }

    /// Takes a directory out. One that was removed is out already.
    pub(crate) fn unwatch(&self, watch: WatchDescriptor) {
        let _removed = self.0.rm_watch(watch);
    }

    /// A way to wait for what is in the queue. Within a runtime.
    #[expect(unsafe_code, reason = "the runtime cannot check that a descriptor stays open; this type does")]
    pub(crate) fn listen(&self) -> io::Result<Listener> {
        // SAFETY: the value that is registered keeps the descriptor open and always gives the same one.
        let registered = unsafe { AsyncFd::register(Queue(self.0.clone())) };
        registered.map(Listener).map_err(io::Error::from)
    }
}

#[derive(Debug)]
struct Queue(Arc<Inotify>);

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Waits for changes.
#[derive(Debug)]
pub(crate) struct Listener(AsyncFd<Queue>);

impl Listener {
    /// The next changes. Safe to cancel.
    pub(crate) async fn next(&self) -> io::Result<Vec<InotifyEvent>> {
        loop {
            let mut ready = self.0.readable().await?;
            match self.0.get_ref().0.read_events() {
                Ok(events) => return Ok(events),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
