//! Archives that mean harm: each is refused before anything is written.

use std::io::Write as _;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use muster_plugin_pack::{PACK_BYTES_MAX, Pack};

use crate::{authority, pack};

/// The files of a good archive, to be put together anew.
fn parts(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (entry.path_bytes().into_owned(), content)
    });
    entries.collect()
}

fn header(name: &[u8], kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if name.ends_with(b"/lab") { 0o755 } else { 0o644 });
    header.set_size(size);
    // As bytes: the library itself refuses to write most of these.
    let place = &mut header.as_old_mut().name;
    place[..name.len()].copy_from_slice(name);
    header.set_cksum();
    header
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// An archive of these files and then whatever else is put in.
fn archive(files: &[(Vec<u8>, Vec<u8>)], more: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let header = header(name, tar::EntryType::Regular, content.len() as u64);
        tar.append(&header, content.as_slice()).unwrap();
    }
    more(&mut tar);
    gzip(&tar.into_inner().unwrap())
}

#[track_caller]
fn refused(bytes: &[u8], code: &str, expected: &str) {
    let error = Pack::open(bytes).expect_err(expected);
    assert_eq!((error.code().code, error.to_string().contains(expected)), (code, true), "{error}");
}

#[test]
fn the_test_itself_puts_good_archives_together() {
    let good = pack(&authority(), "1.0");
    let again = archive(&parts(good.bytes()), |_| {});
    assert_eq!(Pack::open(&again).unwrap().contents(), good.contents());
}

#[test]
fn names_that_lead_elsewhere() {
    let files = parts(pack(&authority(), "1.0").bytes());
    for (name, expected) in [
        ("/etc/cron.d/lab", "is not a path below the plugin's folder"),
        ("lab/../../etc/passwd", "is not a path below the plugin's folder"),
        ("lab//x", "is not a path below the plugin's folder"),
        ("./x", "is not a path below the plugin's folder"),
        ("lab/.pack.json", "has a part that begins with . or -"),
        ("lab/-rf", "has a part that begins with . or -"),
        ("lab/a\nb", "has control characters"),
        ("lab/a\\b", "has control characters or backslashes"),
        ("a/b/c/d/e/f/g/h/i/j", "lies too deep"),
        ("lab/lab.json", "stands there twice"),
    ] {
        let bytes = archive(&files, |tar| {
            tar.append(&header(name.as_bytes(), tar::EntryType::Regular, 1), b"x".as_slice()).unwrap();
        });
        refused(&bytes, "invalid-argument", expected);
    }
    // The long form of names is held to the same.
    let bytes = archive(&files, |tar| {
        let long = format!("lab/{}", "x".repeat(300));
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        tar.append_data(&mut header, long, b"x".as_slice()).unwrap();
    });
    refused(&bytes, "invalid-argument", "is empty or too long");
}

#[test]
fn what_is_not_a_file() {
    let files = parts(pack(&authority(), "1.0").bytes());
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Directory,
        tar::EntryType::Char,
        tar::EntryType::Block,
        tar::EntryType::Fifo,
        tar::EntryType::GNUSparse,
    ] {
        let bytes = archive(&files, |tar| {
            let mut header = header(b"lab/evil", kind, 0);
            if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
                header.set_link_name("/etc/passwd").unwrap();
                header.set_cksum();
            }
            tar.append(&header, std::io::empty()).unwrap();
        });
        let error = Pack::open(&bytes).unwrap_err().to_string();
        assert!(
            error.contains("is not a regular file's") || error.contains("is not a gzipped tar file"),
            "{kind:?}: {error}"
        );
    }
}

#[test]
fn more_or_less_or_other_than_was_signed() {
    let good = pack(&authority(), "1.0");
    let files = parts(good.bytes());
    let bytes = archive(&files, |tar| {
        tar.append(&header(b"lab/extra", tar::EntryType::Regular, 1), b"x".as_slice()).unwrap();
    });
    refused(&bytes, "invalid-argument", "it has a file `lab/extra` that its manifest does not name");
    for index in 0..files.len() {
        let mut fewer = files.clone();
        let (name, _) = fewer.remove(index);
        refused(
            &archive(&fewer, |_| {}),
            "invalid-argument",
            &format!("it has no file `{}`", String::from_utf8(name).unwrap()),
        );
        let mut other = files.clone();
        other[index].1.push(b'\n');
        let error = Pack::open(&archive(&other, |_| {}));
        // A line end after the signature's JSON changes nothing that is signed.
        assert_eq!(
            error.map_err(|error| error.code().code).err(),
            (index != 1).then_some("checksum-mismatch"),
            "{index}"
        );
    }
    // Another mode is another file.
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in &files {
        let mut header = header(name, tar::EntryType::Regular, content.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    refused(&gzip(&tar.into_inner().unwrap()), "checksum-mismatch", "file `lab/lab.json` of the pack");
}

#[test]
fn a_changed_byte_is_never_accepted_as_the_same_pack() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let groups = ["admins".parse().unwrap()].into();
    let good = pack(&authority, "1.0");
    for index in 0..good.bytes().len() {
        let mut bytes = good.bytes().to_vec();
        bytes[index] ^= 0x20;
        let Ok(opened) = Pack::open(&bytes) else { continue };
        // What still opens has the very content that was signed (a byte of gzip's header says nothing), or no good signature.
        let same = opened.contents() == good.contents() && opened.manifest() == good.manifest();
        assert!(same || opened.verify(&trust, &groups, crate::NOW).is_err(), "byte {index}");
    }
    for length in [0, 1, 10, good.bytes().len() / 2, good.bytes().len() - 1] {
        assert!(Pack::open(&good.bytes()[..length]).is_err(), "{length}");
    }
}

#[test]
fn bombs_are_not_unpacked() {
    refused(&vec![0; PACK_BYTES_MAX + 1], "limit-exceeded", "at most 524288 are allowed");
    // 100 MiB of nothing in a file's place, and a header that claims a terabyte.
    let files = parts(pack(&authority(), "1.0").bytes());
    let zeros = vec![0; 100 << 20];
    let bytes = archive(&files, |tar| {
        tar.append(&header(b"lab/big", tar::EntryType::Regular, zeros.len() as u64), zeros.as_slice()).unwrap();
    });
    assert!(bytes.len() < PACK_BYTES_MAX, "{}", bytes.len());
    refused(&bytes, "limit-exceeded", "at most 4194304 are allowed");
    let mut tar = header(b"lab/huge", tar::EntryType::Regular, 1 << 40).as_bytes().to_vec();
    tar.extend([0; 512]);
    refused(&gzip(&tar), "limit-exceeded", "at most 4194304 are allowed");
    // Padding without end after the archive.
    let mut tar = tar::Builder::new(Vec::new()).into_inner().unwrap();
    tar.extend(&zeros);
    refused(&gzip(&tar), "invalid-argument", "something follows the end");
    // Many small files.
    let bytes = archive(&[], |tar| {
        for number in 0..200 {
            let name = format!("lab/f{number}");
            tar.append(&header(name.as_bytes(), tar::EntryType::Regular, 0), std::io::empty()).unwrap();
        }
    });
    refused(&bytes, "limit-exceeded", "more files");
}

#[test]
fn what_follows_the_archive() {
    let good = pack(&authority(), "1.0");
    let mut bytes = good.bytes().to_vec();
    bytes.extend(b"and more");
    refused(&bytes, "invalid-argument", "something follows the end of the archive");
    let mut bytes = good.bytes().to_vec();
    bytes.extend(gzip(b"a second member"));
    refused(&bytes, "invalid-argument", "something follows the end of the archive");
    refused(b"not an archive", "invalid-argument", "is not a gzipped tar file");
}
