//! Where it is kept what earlier runs have learnt of hosts: `$XDG_CACHE_HOME/muster/CONTEXT/CA`, or the same below `~/.cache`.
//!
//! `CA` is from the fingerprints of the authorities that the context believes, so that the hosts of one authority are never
//! taken for those of another that has the same context's name, such as after `muster dev reset`. Everything there is
//! dispensable: where there is no place, or the CA's certificate cannot be read, nothing is remembered.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_client::cache::{HOST_AGE_MS_MAX, HOSTS, HostCache, INVENTORIES};
use muster_pki::Trust;
use muster_protocol::{HostName, Timestamp};

use crate::context::Context;

/// The file of checked certificates, beside what is remembered of the hosts.
pub(crate) const CERTIFICATES: &str = "certificates";

/// Digits of an authority's fingerprint in a name.
const FINGERPRINT_DIGITS: usize = 16;

/// Most authorities in one name: with these it is shorter than the longest that a file system takes.
const AUTHORITIES_MAX: usize = 12;

/// What is remembered of the hosts of a context.
pub(crate) fn hosts(context: &Context, now: Timestamp) -> HostCache {
    let Some(directory) = directory(context) else { return HostCache::none() };
    if !directory.exists() {
        tidy(&directory, now);
    }
    HostCache::load(&directory, now)
}

/// Where answers are set aside that do not fit into memory: on the user's disk, since `/tmp` may be memory too.
pub(crate) fn place_for_answers(context: &Context) -> PathBuf {
    directory(context).unwrap_or_else(std::env::temp_dir)
}

/// Where it is.
pub(crate) fn directory(context: &Context) -> Option<PathBuf> {
    Some(base()?.join(plain(&context.name)).join(authority(&context.ca)?))
}

/// Forgets everything that was learnt from hosts of an authority, in every context. Gives whether there was something.
///
/// # Errors
/// Something cannot be removed.
pub(crate) fn forget(ca: &Path) -> io::Result<bool> {
    let mut forgotten = false;
    for directory in directories(ca) {
        fs::remove_dir_all(&directory)?;
        // The context's own, if nothing else is left in it.
        drop(directory.parent().map(fs::remove_dir));
        forgotten = true;
    }
    Ok(forgotten)
}

/// Forgets hosts of an authority, in every context.
///
/// # Errors
/// It cannot be written.
pub(crate) fn forget_hosts(ca: &Path, names: &BTreeSet<HostName>, now: Timestamp) -> io::Result<()> {
    for directory in directories(ca) {
        let mut cache = HostCache::load(&directory, now);
        if names.iter().filter(|name| cache.forget(name)).count() > 0 {
            cache.save()?;
        }
    }
    Ok(())
}

/// What is remembered of an authority's hosts, of each context.
fn directories(ca: &Path) -> Vec<PathBuf> {
    let (Some(base), Some(name)) = (base(), authority(ca)) else { return Vec::new() };
    let contexts = fs::read_dir(base).into_iter().flatten().flatten();
    contexts.map(|entry| entry.path().join(&name)).filter(|path| path.is_dir()).collect()
}

fn base() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("muster"))
}

/// A context's name is typed by people; as a directory it must not lead elsewhere.
fn plain(context: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    context.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

/// The authorities of a file as one name, whatever their order.
fn authority(ca: &Path) -> Option<String> {
    let trust = Trust::load(ca, None).ok()?;
    let all: BTreeSet<String> = trust
        .authorities()
        .iter()
        .filter_map(|authority| authority.fingerprint().get(..FINGERPRINT_DIGITS).map(str::to_owned))
        .collect();
    let name: Vec<String> = all.into_iter().take(AUTHORITIES_MAX).collect();
    (!name.is_empty()).then(|| name.join("-"))
}

/// Removes what cannot be of use any more beside a directory that is made next: what earlier versions kept for the context's
/// name alone, and what nobody has used for as long as a silent host is remembered.
fn tidy(directory: &Path, now: Timestamp) {
    let Some(context) = directory.parent() else { return };
    for name in [HOSTS, INVENTORIES, CERTIFICATES] {
        drop(fs::remove_file(context.join(name)));
    }
    let at = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
    let oldest = u128::try_from(now.0.saturating_sub(HOST_AGE_MS_MAX)).unwrap_or(0);
    for entry in fs::read_dir(context).into_iter().flatten().flatten() {
        let used = fs::metadata(entry.path().join(HOSTS)).and_then(|found| found.modified()).map(at);
        if used.is_ok_and(|used| used < oldest) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_pki::testing::TestAuthority;

    use super::*;

    #[test]
    fn authorities_are_one_name_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let pem = || TestAuthority::new(Timestamp(1_700_000_000_000)).unwrap().ca_pem();
        let (one, other) = (pem(), pem());
        let name = |text: &str| authority(&write("ca.pem", text));
        assert_eq!(name(&one).unwrap().len(), FINGERPRINT_DIGITS);
        assert_ne!(name(&one), name(&other));
        assert_eq!(name(&(one.clone() + &other)), name(&(other + &one)));
        assert_eq!(name("no certificate"), None);
        assert_eq!(authority(&folder.path().join("none")), None);
    }

    #[test]
    fn what_is_of_no_use_any_more_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp(1_700_000_000_000);
        let at = |ms: i64| UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap());
        for (name, age_ms) in [("old", HOST_AGE_MS_MAX + 1), ("young", 1_000)] {
            fs::create_dir(folder.path().join(name)).unwrap();
            let file = fs::File::create(folder.path().join(name).join(HOSTS)).unwrap();
            file.set_modified(at(now.0 - age_ms)).unwrap();
        }
        for name in [HOSTS, INVENTORIES, CERTIFICATES, "somebody-elses"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        tidy(&folder.path().join("new"), now);
        let left = fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
        assert_eq!(left.collect::<BTreeSet<_>>(), ["somebody-elses", "young"].map(str::to_owned).into());
    }
}
