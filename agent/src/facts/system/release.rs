//! Which operating system this is, from `os-release(5)`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Largest `os-release` that is read.
const BYTES_MAX: u64 = 64 * 1024;

/// The operating system in Facter's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// `Debian`, `Ubuntu`, `RedHat`, ...
    pub name: String,
    /// `Debian`, `RedHat`, `Suse`, ...
    pub family: String,
    /// `12.5`
    pub full: String,
    /// `12`; for Ubuntu `22.04`, whose releases have no smaller unit.
    pub major: String,
    /// `5`, where there is one.
    pub minor: Option<String>,
    /// `bookworm`, where there is one.
    pub codename: Option<String>,
    /// What the system calls itself in full.
    pub description: String,
}

impl Release {
    pub(super) fn fact(&self, hardware: &str) -> Value {
        let mut release = Map::new();
        release.insert("full".into(), json!(self.full));
        release.insert("major".into(), json!(self.major));
        if let Some(minor) = &self.minor {
            release.insert("minor".into(), json!(minor));
        }
        let mut distro = Map::new();
        distro.insert("id".into(), json!(self.name));
        distro.insert("description".into(), json!(self.description));
        distro.insert("release".into(), Value::Object(release.clone()));
        if let Some(codename) = &self.codename {
            distro.insert("codename".into(), json!(codename));
        }
        json!({
            "name": self.name,
            "family": self.family,
            "release": release,
            "distro": distro,
            "hardware": hardware,
            "architecture": architecture(hardware, &self.family),
        })
    }
}

/// Debian and its children call 64-bit x86 `amd64`.
pub(super) fn architecture<'a>(hardware: &'a str, family: &str) -> &'a str {
    match (family, hardware) {
        ("Debian", "x86_64") => "amd64",
        ("Debian", "aarch64") => "arm64",
        _ => hardware,
    }
}

pub(super) fn read(root: &Path) -> Result<Release, String> {
    let text = ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| read_bounded(&root.join(path)))
        .ok_or_else(|| "there is no os-release file, so the `os` facts are missing".to_owned())?;
    // Debian's os-release knows no point release; this file does.
    let debian_version = read_bounded(&root.join("etc/debian_version"));
    Ok(parse_os_release(&text, debian_version.as_deref()))
}

fn read_bounded(path: &Path) -> Option<String> {
    let length = std::fs::metadata(path).ok()?.len();
    (length <= BYTES_MAX).then(|| std::fs::read_to_string(path).ok()).flatten()
}

/// Reads `os-release` and, for Debian, `debian_version`.
#[must_use]
pub fn parse_os_release(text: &str, debian_version: Option<&str>) -> Release {
    let fields = fields(text);
    let get = |name: &str| fields.get(name).map_or("", String::as_str);
    let id = get("ID");
    let name = name_of(id).map_or_else(|| capitalized(if id.is_empty() { "linux" } else { id }), str::to_owned);
    let family = std::iter::once(id)
        .chain(get("ID_LIKE").split_whitespace())
        .find_map(family_of)
        .map_or_else(|| name.clone(), str::to_owned);
    let full = match debian_version.map(str::trim) {
        Some(version) if id == "debian" && version.starts_with(|c: char| c.is_ascii_digit()) => version.to_owned(),
        _ => get("VERSION_ID").to_owned(),
    };
    let mut parts = full.splitn(3, '.');
    let first = parts.next().unwrap_or_default().to_owned();
    let second = parts.next().map(str::to_owned);
    let (major, minor) = if id == "ubuntu" { (full.clone(), None) } else { (first, second) };
    let codename = Some(get("VERSION_CODENAME")).filter(|text| !text.is_empty()).map(str::to_owned);
    Release { name, family, full, major, minor, codename, description: get("PRETTY_NAME").to_owned() }
}

fn fields(text: &str) -> BTreeMap<&str, String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), unquoted(value.trim())))
        .collect()
}

/// Takes shell quotes off, as os-release(5) allows them.
fn unquoted(value: &str) -> String {
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let mut text = String::new();
    let mut characters = inner.unwrap_or(value).chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => text.extend(characters.next()),
            _ => text.push(c),
        }
    }
    text
}

fn name_of(id: &str) -> Option<&'static str> {
    Some(match id {
        "debian" => "Debian",
        "ubuntu" => "Ubuntu",
        "raspbian" => "Raspbian",
        "linuxmint" => "LinuxMint",
        "devuan" => "Devuan",
        "rhel" => "RedHat",
        "centos" => "CentOS",
        "fedora" => "Fedora",
        "rocky" => "Rocky",
        "almalinux" => "AlmaLinux",
        "ol" => "OracleLinux",
        "amzn" => "Amazon",
        "scientific" => "Scientific",
        "sles" | "sled" => "SLES",
        "opensuse-leap" | "opensuse-tumbleweed" | "opensuse" => "OpenSuSE",
        "alpine" => "Alpine",
        "arch" => "Archlinux",
        "gentoo" => "Gentoo",
        _ => return None,
    })
}

fn family_of(id: &str) -> Option<&'static str> {
    Some(match id {
        "debian" | "ubuntu" | "raspbian" | "linuxmint" | "devuan" => "Debian",
        "rhel" | "centos" | "fedora" | "rocky" | "almalinux" | "ol" | "amzn" | "scientific" => "RedHat",
        "sles" | "sled" | "suse" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" => "Suse",
        "alpine" => "Alpine",
        "arch" => "Archlinux",
        "gentoo" => "Gentoo",
        _ => return None,
    })
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
