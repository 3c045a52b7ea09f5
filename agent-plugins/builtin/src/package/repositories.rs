//! Where packages come from: the repositories in the package manager's files, as data.
//!
//! Files are read as they stand; no program is asked. Passwords in addresses are masked before anything leaves
//! this module.

mod apt;
mod ini;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Largest file that is read; real ones have some kilobytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Most repositories that are listed.
const REPOSITORIES_MAX: usize = 1000;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `sources.list(5)`, one line each.
    AptLines,
    /// `sources.list(5)`, deb822 stanzas.
    AptStanzas,
    /// Sections as in `yum.repos.d` and zypper's `repos.d`.
    Ini,
    /// `apk-repositories(5)`, one address a line.
    ApkLines,
}

/// A file, or files of one ending in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    path: PathBuf,
    extension: Option<&'static str>,
    form: Form,
}

impl Source {
    /// One file.
    pub(super) fn file(path: PathBuf, form: Form) -> Self {
        Self { path, extension: None, form }
    }

    /// All files with an ending in a directory.
    pub(super) fn directory(path: PathBuf, extension: &'static str, form: Form) -> Self {
        Self { path, extension: Some(extension), form }
    }

    fn files(&self) -> Vec<PathBuf> {
        let Some(extension) = self.extension else { return vec![self.path.clone()] };
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        let mut files: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|have| have == extension) && path.is_file()).collect();
        files.sort();
        files
    }
}

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Repository {
    /// The file it stands in.
    pub(super) file: String,
    /// What its file calls it: the section, `deb` or `deb-src`, or apk's tag.
    pub(super) name: String,
    /// Its address, passwords masked.
    pub(super) uri: String,
    /// Suite, where there are suites.
    pub(super) suite: Option<String>,
    /// Components, where there are components.
    pub(super) components: Vec<String>,
    /// Whether it is used.
    pub(super) enabled: bool,
}

/// All repositories, and what could not be read, one sentence each.
pub(super) fn read(sources: &[Source]) -> (Vec<Repository>, Vec<String>) {
    let (mut repositories, mut problems) = (Vec::new(), Vec::new());
    for source in sources {
        for path in source.files() {
            match read_file(&path) {
                Ok(None) => {}
                Ok(Some(text)) => {
                    for mut repository in parse(source.form, &text) {
                        repository.file = path.display().to_string();
                        repository.uri = masked(&repository.uri);
                        repositories.push(repository);
                    }
                }
                Err(error) => problems.push(format!("`{}` cannot be read: {error}", path.display())),
            }
        }
    }
    if repositories.len() > REPOSITORIES_MAX {
        problems.push(format!("there are {} repositories; {REPOSITORIES_MAX} are listed", repositories.len()));
        repositories.truncate(REPOSITORIES_MAX);
    }
    (repositories, problems)
}

/// `None` where there is no such file, which is no problem.
fn read_file(path: &Path) -> std::io::Result<Option<String>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

pub(super) fn parse(form: Form, text: &str) -> Vec<Repository> {
    match form {
        Form::AptLines => apt::lines(text),
        Form::AptStanzas => apt::stanzas(text),
        Form::Ini => ini::sections(text),
        Form::ApkLines => apk_lines(text),
    }
}

/// `[@TAG] ADDRESS`.
fn apk_lines(text: &str) -> Vec<Repository> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let tagged = line.strip_prefix('@').and_then(|rest| rest.split_once(char::is_whitespace));
            let (name, uri) = tagged.unwrap_or(("", line));
            Repository {
                file: String::new(),
                name: name.to_owned(),
                uri: uri.trim().to_owned(),
                suite: None,
                components: Vec::new(),
                enabled: true,
            }
        })
        .collect()
}

/// What stands in place of a secret.
const MASK: &str = "***";

/// An address without the password in front of its host and without the values of its query.
fn masked(uri: &str) -> String {
    let (address, query) = uri.split_once('?').map_or((uri, None), |(address, query)| (address, Some(query)));
    let address = match address.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            match authority.rsplit_once('@') {
                Some((user, host)) => {
                    let user = user.split(':').next().unwrap_or_default();
                    format!("{scheme}://{user}:{MASK}@{host}{path}")
                }
                None => address.to_owned(),
            }
        }
        None => address.to_owned(),
    };
    let Some(query) = query else { return address };
    let masked = query.split('&').map(|pair| match pair.split_once('=') {
        // What package managers put in themselves, such as `repo=$releasever`, is no secret.
        Some((_, value)) if value.starts_with('$') => pair.to_owned(),
        Some((name, _)) => format!("{name}={MASK}"),
        None => pair.to_owned(),
    });
    format!("{address}?{}", masked.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_without_secrets() {
        let check = |uri: &str, expected: &str| assert_eq!(masked(uri), expected);
        check("http://deb.example.com/debian", "http://deb.example.com/debian");
        check("https://user:secret@repo.example.com/x", "https://user:***@repo.example.com/x");
        check("https://token@repo.example.com/x", "https://token:***@repo.example.com/x");
        check("https://user:a@b@repo.example.com", "https://user:***@repo.example.com");
        check("https://m.example.com/?repo=$releasever&key=abc", "https://m.example.com/?repo=$releasever&key=***");
        check("cdrom:[Debian]/", "cdrom:[Debian]/");
        check("https://h.example.com/a@b/c", "https://h.example.com/a@b/c");
    }

    #[test]
    fn apks_file() {
        let read = apk_lines("# main\nhttps://dl.example.com/v3.20/main\n@edge https://dl.example.com/edge/main\n\n");
        let seen: Vec<_> = read.iter().map(|one| (one.name.as_str(), one.uri.as_str())).collect();
        assert_eq!(seen, [("", "https://dl.example.com/v3.20/main"), ("edge", "https://dl.example.com/edge/main")]);
    }

    proptest! {
        #[test]
        fn no_form_panics_and_no_password_stays(text in "\\PC{0,60}", user in "[a-z]{1,5}", password in "S[0-9]{6}") {
            let line = format!("deb https://{user}:{password}@h/ x main\n{text}");
            for form in [Form::AptLines, Form::AptStanzas, Form::Ini, Form::ApkLines] {
                for repository in parse(form, &line).iter().chain(&parse(form, &text)) {
                    let uri = masked(&repository.uri);
                    prop_assert!(!uri.contains(&password) || text.contains(&password), "{}", uri);
                }
            }
        }
    }
}
