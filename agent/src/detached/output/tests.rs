use proptest::prelude::*;

use super::*;

fn read_all(path: &Path) -> (Vec<u8>, Vec<u8>, u64) {
    let mut reader = OutputReader::open(path, 0).unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Next::Frame { stream, bytes, length } = reader.next(true).unwrap() {
        assert_eq!(bytes.len() as u64, length);
        match stream {
            OutputStream::Stdout => stdout.extend(bytes),
            OutputStream::Stderr => stderr.extend(bytes),
        }
    }
    (stdout, stderr, reader.position())
}

fn skip_all(path: &Path) -> (u64, u64) {
    let mut reader = OutputReader::open(path, 0).unwrap();
    let mut total = 0;
    while let Next::Frame { length, bytes, .. } = reader.next(false).unwrap() {
        assert!(bytes.is_empty());
        total += length;
    }
    (total, reader.position())
}

#[test]
fn what_is_written_is_read_in_order_up_to_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("output");
    let mut writer = OutputWriter::create(&path, 100_000).unwrap();
    assert!(OutputWriter::create(&path, 1).is_err(), "two runners");
    writer.write(OutputStream::Stdout, &[0xff; 90_000]);
    writer.write(OutputStream::Stderr, b"note");
    writer.write(OutputStream::Stdout, &[1; 20_000]);
    writer.write(OutputStream::Stderr, b"later");
    writer.sync().unwrap();
    let (stdout, stderr, end) = read_all(&path);
    assert_eq!((stdout.len(), &stderr[..]), (99_996, &b"note"[..]));
    assert!(stdout[..90_000].iter().all(|byte| *byte == 0xff) && stdout[90_000..].iter().all(|byte| *byte == 1));
    assert_eq!(skip_all(&path), (100_000, end));
    let written = Totals { stdout: 110_000, stderr: 9 };
    assert_eq!(writer.totals(), (written, Totals { stdout: 99_996, stderr: 4 }));
    assert_eq!(writer.failed(), None);
}

#[test]
fn a_file_that_is_not_there_has_nothing_to_read() {
    let mut reader = OutputReader::open(Path::new("/nonexistent/output"), 0).unwrap();
    assert_eq!((reader.next(true).unwrap(), reader.length().unwrap()), (Next::Nothing, 0));
}

proptest! {
    /// However the file is torn or damaged, what is read is a beginning of what was written.
    #[test]
    fn damage_never_makes_up_output(
        pieces in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 1..40)), 1..12),
        cut in any::<prop::sample::Index>(),
        flip in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("output");
        let mut writer = OutputWriter::create(&path, 1_000_000).unwrap();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for (second, bytes) in &pieces {
            let stream = if *second { OutputStream::Stderr } else { OutputStream::Stdout };
            writer.write(stream, bytes);
            if *second { stderr.extend(bytes) } else { stdout.extend(bytes) };
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(cut.index(bytes.len() + 1));
        if let (Some(flip), false) = (flip, bytes.is_empty()) {
            let at = flip.index(bytes.len());
            bytes[at] ^= 0x40;
        }
        // As after a crash of the host: room that was never written.
        bytes.extend([0; 30]);
        std::fs::write(&path, &bytes).unwrap();
        let (read_out, read_err, _) = read_all(&path);
        prop_assert!(stdout.starts_with(&read_out) && stderr.starts_with(&read_err));
    }
}
