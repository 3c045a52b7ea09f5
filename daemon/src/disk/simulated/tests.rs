use std::path::Path;

use super::super::write_atomic;
use super::*;

const FILE: &str = "/state/file";

fn disk() -> (SimulatedDisk, Arc<dyn Disk>) {
    let disk = SimulatedDisk::new(1);
    let mount = disk.mount();
    mount.make_private_directory_durably(Path::new("/state")).unwrap();
    (disk, mount)
}

fn append(mount: &dyn Disk) -> Arc<dyn DiskFile> {
    mount.open(Path::new(FILE), Open::Append { mode: 0o600 }).unwrap()
}

#[test]
fn the_end_of_the_process_loses_nothing_and_that_of_the_host_only_what_was_not_synced() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (disk, mount) = disk();
        let file = append(&*mount);
        file.append(b"durable").unwrap();
        file.sync_data().unwrap();
        mount.sync_directory(Path::new("/state")).unwrap();
        file.append(b" and not").unwrap();
        disk.end_process();
        assert_eq!(disk.content(Path::new(FILE)).unwrap(), b"durable and not");
        disk.end_host(seed);
        let left = disk.content(Path::new(FILE)).unwrap();
        assert!(left.starts_with(b"durable"), "{left:?}");
        let torn = left.iter().position(|byte| *byte == 0).unwrap_or(left.len());
        assert_eq!(left[..torn], b"durable and not"[..torn]);
        lengths.insert(torn);
    }
    assert!(lengths.len() > 4, "every place can be the torn one: {lengths:?}");
}

#[test]
fn names_are_durable_with_their_directory_only() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..50 {
        let (disk, mount) = disk();
        let file = append(&*mount);
        file.append(b"bytes").unwrap();
        file.sync_data().unwrap();
        disk.end_host(seed);
        match disk.content(Path::new(FILE)) {
            None => lost += 1,
            Some(bytes) => {
                assert_eq!(bytes, b"bytes");
                kept += 1;
            }
        }
    }
    assert!(lost > 5 && kept > 5, "{lost} {kept}");
}

#[test]
fn an_atomic_write_is_the_old_or_the_new_wherever_the_host_crashes() {
    let (disk, mount) = disk();
    let before = disk.operations();
    write_atomic(&*mount, Path::new(FILE), 0o600, b"first").unwrap();
    let steps = disk.operations() - before;
    for step in 1..=steps {
        for seed in 0..40 {
            let (disk, mount) = self::disk();
            write_atomic(&*mount, Path::new(FILE), 0o600, b"old").unwrap();
            disk.inject(disk.operations() + step, Fault::Crash);
            assert!(write_atomic(&*mount, Path::new(FILE), 0o600, b"new, longer").is_err());
            assert!(disk.is_down());
            disk.end_host(seed);
            let found = disk.content(Path::new(FILE)).unwrap();
            assert!(found == b"old" || found == b"new, longer", "{step} {seed}: {found:?}");
        }
    }
}

#[test]
fn what_was_mounted_before_a_crash_never_works_again_and_its_lock_is_free() {
    let (disk, mount) = disk();
    let file = append(&*mount);
    assert!(file.try_lock().unwrap());
    assert!(!append(&*mount).try_lock().unwrap(), "another has it");
    disk.inject(disk.operations() + 1, Fault::Crash);
    assert!(file.append(b"x").is_err());
    assert!(mount.list(Path::new("/state")).is_err());
    disk.end_process();
    assert!(file.append(b"x").is_err() && mount.list(Path::new("/state")).is_err());
    let again = append(&*disk.mount());
    assert!(again.try_lock().unwrap());
    drop(file);
    assert!(!append(&*disk.mount()).try_lock().unwrap(), "the dead one's end releases nothing");
}

#[test]
fn faults_are_errors_and_do_what_they_say() {
    let errno = |result: io::Result<()>| result.unwrap_err().raw_os_error();
    let (disk, mount) = disk();
    let file = append(&*mount);
    disk.inject(disk.operations() + 1, Fault::NoRoom);
    assert_eq!(errno(file.append(b"12345678")), Some(ENOSPC));
    assert_eq!(disk.content(Path::new(FILE)).unwrap(), b"");
    disk.inject(disk.operations() + 1, Fault::ShortWrite);
    assert_eq!(errno(file.append(&[7; 64])), Some(ENOSPC));
    let part = disk.content(Path::new(FILE)).unwrap().len();
    assert!(part < 64, "{part}");
    file.set_length(0).unwrap();
    disk.inject_from(disk.operations() + 1, Fault::FailedSync);
    file.append(b"works").unwrap();
    assert_eq!(errno(file.sync_data()), Some(EIO));
    disk.clear_faults();
    assert_eq!(disk.faults_fired(), 3);
    file.sync_data().unwrap();
}

#[test]
fn what_a_failed_sync_lost_stays_lost_although_the_next_one_succeeds() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let mount = disk.mount();
        mount.make_private_directory_durably(Path::new("/state")).unwrap();
        let file = append(&*mount);
        mount.sync_directory(Path::new("/state")).unwrap();
        file.append(b"one").unwrap();
        disk.inject(disk.operations() + 1, Fault::FailedSync);
        assert!(file.sync_data().is_err());
        file.append(b"two").unwrap();
        file.sync_data().unwrap();
        assert_eq!(disk.content(Path::new(FILE)).unwrap(), b"onetwo", "the process still reads it");
        disk.end_host(seed);
        match &*disk.content(Path::new(FILE)).unwrap() {
            b"onetwo" => kept += 1,
            b"\0\0\0two" => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 5 && kept > 5, "{lost} {kept}");
}

#[test]
fn a_full_disk_takes_what_fits_and_removing_makes_room() {
    let (disk, mount) = disk();
    let reserve = mount.open(Path::new("/state/reserve"), Open::Append { mode: 0o600 }).unwrap();
    disk.set_room(Some(100));
    reserve.allocate(80).unwrap();
    assert!(reserve.allocate(200).is_err());
    drop(reserve);
    let file = append(&*mount);
    assert!(file.append(&[1; 30]).is_err());
    assert_eq!(disk.content(Path::new(FILE)).unwrap().len(), 20);
    mount.remove_file(Path::new("/state/reserve")).unwrap();
    file.append(&[1; 80]).unwrap();
    assert_eq!(disk.used(), 100);
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let (disk, mount) = disk();
        for number in 0..20 {
            let path = format!("/state/{number}");
            let file = mount.open(Path::new(&path), Open::New { mode: 0o600 }).unwrap();
            file.append(path.as_bytes()).unwrap();
        }
        disk.end_host(seed);
        disk.files().into_iter().map(|path| (disk.content(&path), path)).collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert!((0..10).any(|seed| run(seed) != run(3)));
}
