//! What is looked at again and again: the revocation list, the list of members, and certificates that expire.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use muster_daemon::write_atomic;
use muster_pki::{PkiError, Trust};
use muster_protocol::{Identity, Timestamp};
use tokio_util::sync::CancellationToken;

use super::status::{FileTrouble, WatchedFile};
use super::{Inner, Materials};
use crate::access::{Members, Rules};

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Connections that are asked to look at their certificates before others get their turn: each is a tenth of a millisecond.
const RECHECKED_TOGETHER: usize = 32;

/// Descriptors that are not for connections: files, listeners, the journal, the runtime.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Permission bits of the kept lists; they are public.
const KEPT_MODE: u32 = 0o644;

/// So many connections as are wished and as the process may have descriptors for.
pub(super) fn connections_max(wished: usize) -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wished };
    let needed = u64::try_from(wished).unwrap_or(u64::MAX).saturating_add(DESCRIPTORS_RESERVED);
    // What the operator allows the process at most, it may take by itself.
    let raised = needed.min(hard);
    let limit = if raised > soft && setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_ok() { raised } else { soft };
    let possible = usize::try_from(limit.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(usize::MAX);
    if possible < wished {
        tracing::warn!(
            wished,
            possible,
            "Fewer connections are possible than configured: raise LimitNOFILE or `ulimit -n`"
        );
    }
    wished.min(possible)
}

/// A file as it was when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self { inode: found.ino(), bytes: found.len(), modified: (found.mtime(), found.mtime_nsec()) })
    }
}

/// Looks after which a file that is not there is called gone.
const GONE_LOOKS: u32 = 5;

/// A file that is watched.
struct Watched {
    holds: WatchedFile,
    path: PathBuf,
    seen: Option<Stamp>,
    /// What is wrong with it, and since when.
    trouble: Option<FileTrouble>,
    /// How often in a row it was not there.
    gone: u32,
}

impl Watched {
    /// As it was read at the start.
    fn new(holds: WatchedFile, path: PathBuf) -> Self {
        Self { holds, path, seen: None, trouble: None, gone: 0 }
    }

    /// Reads the file if it has changed, or could not be used before.
    fn look(&mut self, now_ms: i64, read: impl FnOnce(&Path) -> Result<(), String>) {
        let stamp = Stamp::of(&self.path);
        let changed = stamp != self.seen;
        if stamp.is_none() {
            // One that is gone for a moment, as it is when a file is replaced by moving two, is not a change yet.
            self.gone = self.gone.saturating_add(1);
            if self.gone == GONE_LOOKS {
                tracing::error!(path = %self.path.display(), "A file that is watched is gone; what it said before holds");
                self.in_trouble(now_ms, "it is not there".to_owned());
            }
            return;
        }
        self.gone = 0;
        if !(changed || self.trouble.is_some()) {
            return;
        }
        self.seen = stamp;
        match read(&self.path) {
            Ok(()) => self.trouble = None,
            Err(why) => {
                if changed {
                    tracing::error!(path = %self.path.display(), why, "A file that has changed cannot be used; what was before holds");
                }
                self.in_trouble(now_ms, why);
            }
        }
    }

    /// Remembers what is wrong with it now; since when something is stays.
    fn in_trouble(&mut self, now_ms: i64, why: String) {
        let since_ms = self.trouble.as_ref().map_or(Timestamp(now_ms), |trouble| trouble.since_ms);
        self.trouble = Some(FileTrouble { holds: self.holds, path: self.path.clone(), since_ms, why });
    }
}

/// Looks every second until the broker stops.
pub(super) async fn run(inner: Arc<Inner>, stopping: CancellationToken) {
    let mut files = inner.files();
    let mut crl = files.crl.clone().map(|path| Watched::new(WatchedFile::RevocationList, path));
    let mut members = files.members.clone().map(|path| Watched::new(WatchedFile::Members, path));
    keep_lists(&inner);
    let mut admitted_before = inner.gate.admitted.load(Ordering::Relaxed);
    loop {
        let admitted = inner.gate.admitted.load(Ordering::Relaxed);
        inner.admitted_per_second.store(admitted - admitted_before, Ordering::Relaxed);
        admitted_before = admitted;
        inner.look_at_disk();
        let now_ms = inner.hub.now_ms();
        let mut recheck = false;
        if inner.files() != files {
            files = inner.files();
            crl = files.crl.clone().map(|path| Watched::new(WatchedFile::RevocationList, path));
            members = files.members.clone().map(|path| Watched::new(WatchedFile::Members, path));
            keep_lists(&inner);
        }
        if let Some(watched) = &mut crl {
            watched.look(now_ms, |path| {
                recheck |= install_lists(&inner, path)?;
                Ok(())
            });
        }
        if let Some(watched) = &mut members {
            watched.look(now_ms, |path| {
                recheck |= take_members(&inner, path)?;
                Ok(())
            });
        }
        let troubles = [&crl, &members].into_iter().flatten().filter_map(|watched| watched.trouble.clone()).collect();
        *inner.file_troubles.lock().unwrap_or_else(PoisonError::into_inner) = troubles;
        look_at_connections(&inner, recheck).await;
        inner.hub.blocked().iter().for_each(|line| line.order(|orders| orders.look = true));
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Has connections look at their certificates: all of them, or those whose time is over.
async fn look_at_connections(inner: &Inner, all: bool) {
    let now_ms = inner.hub.now_ms();
    let mut asked = 0;
    for line in inner.hub.lines() {
        if all || line.client.valid_until.0 < now_ms {
            line.order(|orders| orders.recheck = true);
            asked += 1;
            if asked % RECHECKED_TOGETHER == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Puts the lists of a file into force. Tells whether one is new.
fn install_lists(inner: &Inner, path: &Path) -> Result<bool, String> {
    let trust = inner.materials().trust.clone();
    let installed = trust.install_crl_file(path, Timestamp(inner.hub.now_ms())).map_err(|error| said(&error))?;
    let mut any = false;
    for status in installed.iter().filter(|status| status.changed) {
        any = true;
        tracing::info!(number = status.info.number, revoked = status.info.revoked, "New revocation list in force");
    }
    if any {
        keep_lists(inner);
    }
    Ok(any)
}

/// Writes the lists in force down for the next start.
fn keep_lists(inner: &Inner) {
    let Some(path) = &inner.files().crl_kept else { return };
    let text = inner.materials().trust.crl_pem();
    if text.is_empty() || std::fs::read(path).is_ok_and(|kept| kept == text.as_bytes()) {
        return;
    }
    if let Err(error) = write_atomic(path, KEPT_MODE, text.as_bytes()) {
        tracing::error!(path = %path.display(), error = said(&error), "Could not keep the revocation list for the next start");
    }
}

/// Puts lists that were in force before the start back into force. One that is older than what is there stays out.
///
/// # Errors
/// The file cannot be read or a list in it is damaged: it says who was revoked.
pub fn restore_lists(trust: &Trust, path: &Path, now: Timestamp) -> io::Result<()> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for list in text.split_inclusive("-----END X509 CRL-----").filter(|list| !list.trim().is_empty()) {
        match trust.install_crl(list.as_bytes(), now) {
            Ok(_) => {}
            // An older one than in the file, or of an authority that is trusted no more.
            Err(error @ (PkiError::CrlRollback { .. } | PkiError::ForeignCrl { .. })) => {
                tracing::info!(error = said(&error), "A kept revocation list is not used");
            }
            Err(error) => {
                let why = format!(
                    "{}; it holds who was revoked: put the authority's newest list at `crl`, then remove this file",
                    said(&error)
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
    }
    Ok(())
}

/// Takes the list of members. Tells whether it has changed.
fn take_members(inner: &Inner, path: &Path) -> Result<bool, String> {
    let listed = Members::Listed(read_members(path).map_err(|error| error.to_string())?);
    let before = inner.materials();
    if before.rules.members == listed {
        return Ok(false);
    }
    let materials = Materials {
        credentials: before.credentials.clone(),
        trust: before.trust.clone(),
        rules: Rules { members: listed, ..before.rules.clone() },
        tls: Arc::clone(&before.tls),
    };
    *inner.materials.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(materials);
    tracing::info!("New list of members in force");
    Ok(true)
}

/// Reads a list of members: an identity a line, `KIND/NAME`; empty lines and what follows a `#` are nothing.
///
/// # Errors
/// The file cannot be read, or a line is no identity.
pub fn read_members(path: &Path) -> io::Result<BTreeSet<Identity>> {
    let text = std::fs::read_to_string(path)?;
    let mut members = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let name = line.split('#').next().unwrap_or_default().trim();
        if name.is_empty() {
            continue;
        }
        let identity = name.parse().map_err(|error| {
            let why = format!("line {}: `{}`: {error}", number + 1, name.escape_default());
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        members.insert(identity);
    }
    Ok(members)
}

/// Memory of this process, 0 if the system does not say.
pub(super) fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * PAGE_BYTES
}

/// Bytes of a page, on every system that this is built for.
const PAGE_BYTES: u64 = 4096;

/// An error with its reasons, in one line.
pub(super) fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
