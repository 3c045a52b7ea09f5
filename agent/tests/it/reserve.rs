//! Ends of actions are recorded also on a full disk.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use muster_agent::journal::{Journal, Seen, Started};
use muster_agent::reserve::Reserve;
use muster_protocol::RequestId;

use crate::kit::{NOW, fresh_id, real_disk};

/// A small file system of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where nothing can be mounted, as in a container without that right.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(directory.path()).status();
        match mounted {
            Ok(status) if status.success() => Some(Self(directory)),
            other => {
                #[expect(clippy::print_stderr, reason = "whoever reads the test's output has to know what was missing")]
                {
                    eprintln!("not tested: a file system cannot be mounted here ({other:?})");
                }
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.path().join("fill")).unwrap();
        let mut bytes: &[u8] = &[b'x'; 4096];
        loop {
            match file.write(bytes) {
                Ok(_) => {}
                Err(_) if bytes.len() > 1 => bytes = &bytes[..bytes.len() / 2],
                Err(_) => return,
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.path()).status());
    }
}

fn started(id: RequestId) -> Started {
    Started {
        id,
        caller: "muster:user/lea".parse().unwrap(),
        reply_to: "user/lea.s1".parse().unwrap(),
        action: "lab.change".to_owned(),
        read_only: false,
        at_ms: NOW,
        keep_until_ms: NOW.plus_ms(60_000),
        sequence_reserved: 64,
    }
}

#[test]
fn what_had_ended_on_a_full_disk_is_not_interrupted_after_a_restart() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.path().join("journal");
    let reserve = Reserve::new(real_disk(), disk.path().join("reserve"), 64 * 1024);
    reserve.ensure().unwrap();
    let (mut journal, _) = Journal::open(&real_disk(), &path, NOW).unwrap();
    let ids: Vec<RequestId> = (0..50).map(|_| fresh_id()).collect();
    for id in &ids {
        journal.start(started(*id)).unwrap();
    }
    disk.fill();
    // What begins gets nothing of the reserve, and does not run.
    let mut begun = 0;
    while journal.start(started(fresh_id())).is_ok() {
        begun += 1;
        assert!(begun < 1_000, "the disk is not full");
    }
    for id in &ids {
        reserve.use_for(|| journal.finish(*id)).unwrap();
    }
    assert!(!disk.path().join("reserve").exists(), "the reserve was not needed");
    assert_eq!(reserve.ensure().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(!disk.path().join("reserve").exists());
    drop(journal);
    fs::remove_file(disk.path().join("fill")).unwrap();
    let (journal, _) = Journal::open(&real_disk(), &path, NOW).unwrap();
    for id in &ids {
        assert_eq!(journal.seen(id, NOW.plus_ms(60_000)), Some(Seen::Finished));
    }
    assert_eq!(journal.unfinished().len(), begun);
    reserve.ensure().unwrap();
    assert_eq!(fs::metadata(disk.path().join("reserve")).unwrap().len(), 64 * 1024);
}

#[test]
fn only_a_full_disk_takes_the_reserve() {
    let directory = tempfile::tempdir().unwrap();
    let reserve = Reserve::new(real_disk(), directory.path().join("reserve"), 4_096);
    reserve.ensure().unwrap();
    let mut tries = 0;
    let mut fail = |kind: io::ErrorKind| {
        tries = 0;
        let failed: Result<(), _> = reserve.use_for(|| {
            tries += 1;
            Err(io::Error::from(kind))
        });
        (failed.unwrap_err().kind(), tries)
    };
    assert_eq!(fail(io::ErrorKind::PermissionDenied), (io::ErrorKind::PermissionDenied, 1));
    assert_eq!(fail(io::ErrorKind::StorageFull), (io::ErrorKind::StorageFull, 2));
    // It is gone now.
    assert_eq!(fail(io::ErrorKind::StorageFull), (io::ErrorKind::StorageFull, 1));
}
