//! Inputs at rest: one a line, in escaped ASCII, so that a change of the corpus can be read in a review.
//!
//! A line that begins with `#` says something about the input below it. Bytes are written as Rust writes them in
//! `b"..."`; a `#` at the start of an input is `\x23`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{TARGETS, Target};

/// Most bytes of a target's file of interesting inputs. Larger ones are left out first.
const CORPUS_BYTES_MAX: usize = 48 * 1024;

/// Largest single input that is kept, in bytes of the file.
const INPUT_BYTES_MAX: usize = 12 * 1024;

/// The line of an input.
#[must_use]
pub fn line(input: &[u8]) -> String {
    let text = input.escape_ascii().to_string();
    match text.strip_prefix('#') {
        Some(rest) => format!("\\x23{rest}"),
        None => text,
    }
}

/// The input of a line; `None` if it is not one.
#[must_use]
pub fn input(line: &str) -> Option<Vec<u8>> {
    let mut input = Vec::with_capacity(line.len());
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        input.push(match (byte, if byte == b'\\' { bytes.next()? } else { 0 }) {
            (byte, 0) => byte,
            (_, b't') => b'\t',
            (_, b'r') => b'\r',
            (_, b'n') => b'\n',
            (_, b'x') => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            (_, other @ (b'\\' | b'\'' | b'"')) => other,
            _ => return None,
        });
    }
    Some(input)
}

fn file(repository: &Path, folder: &str, target: &Target) -> PathBuf {
    repository.join("fuzz").join(folder).join(format!("{}.txt", target.name))
}

fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.starts_with('#'));
    let wrong = |number: usize| io::Error::other(format!("{}:{number} is no input", path.display()));
    lines.map(|(line, number)| input(line).ok_or_else(|| wrong(number))).collect()
}

/// What is checked in for a target: the files that it starts from, what was interesting, and what once broke a law.
///
/// # Errors
/// When a file cannot be read or a line is no input.
pub fn inputs(repository: &Path, target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let mut inputs = Vec::new();
    for seed in target.seeds {
        let (before, path) = seed.split_once('=').unwrap_or(("", seed));
        let path = repository.join(path);
        let mut paths = vec![path.clone()];
        if path.is_dir() {
            paths = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
            paths.retain(|path| path.is_file());
            paths.sort();
        }
        for path in paths {
            let content = fs::read(&path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
            inputs.push([before.as_bytes(), &content].concat());
        }
    }
    inputs.extend(read(&file(repository, "corpus", target))?);
    inputs.extend(read(&file(repository, "past", target))?);
    Ok(inputs)
}

/// Writes what libFuzzer starts from into a directory: `targets` (name and longest input, one a line),
/// `TARGET/seeds/NUMBER` and `TARGET/words`.
///
/// # Errors
/// When something cannot be read or written.
pub fn prepare(repository: &Path, directory: &Path) -> io::Result<()> {
    let mut table = String::new();
    for target in TARGETS {
        table.push_str(&format!("{} {}\n", target.name, target.bytes_max));
        let own = directory.join(target.name);
        let seeds = own.join("seeds");
        if seeds.exists() {
            fs::remove_dir_all(&seeds)?;
        }
        fs::create_dir_all(&seeds)?;
        for (input, number) in inputs(repository, target)?.iter().zip(0..) {
            fs::write(seeds.join(format!("{number:05}")), input)?;
        }
        // libFuzzer's form of a dictionary: quoted, bytes as \xHH.
        let quoted = |word: &&str| {
            let bytes: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("\"{bytes}\"\n")
        };
        fs::write(own.join("words"), target.words.iter().map(quoted).collect::<String>())?;
    }
    fs::write(directory.join("targets"), table)
}

/// Replaces a target's file of interesting inputs by the files of a directory, the smallest first, as far as they fit.
///
/// # Errors
/// When something cannot be read or written.
pub fn keep(repository: &Path, target: &Target, directory: &Path) -> io::Result<()> {
    let mut lines = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let line = line(&fs::read(entry?.path())?);
        lines.insert((line.len(), line));
    }
    let mut room = CORPUS_BYTES_MAX;
    let mut kept: Vec<String> = Vec::new();
    for (length, line) in lines.into_iter().take_while(|(length, _)| *length <= INPUT_BYTES_MAX) {
        let Some(left) = room.checked_sub(length + 1) else { break };
        room = left;
        kept.push(line);
    }
    kept.sort();
    fs::write(file(repository, "corpus", target), kept.iter().map(|line| format!("{line}\n")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_line_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&all[..], b"", b"# not a remark", b"a\\x41'\"", b"\r\n\t"] {
            let line = line(bytes);
            assert!(line.is_ascii() && !line.contains('\n') && !line.starts_with('#'), "{line}");
            assert_eq!(input(&line).as_deref(), Some(bytes), "{line}");
        }
        for wrong in ["\\", "\\q", "\\x4", "\\xzz"] {
            assert_eq!(input(wrong), None, "{wrong}");
        }
    }
}
