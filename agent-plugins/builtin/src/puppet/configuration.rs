//! `puppet.conf`, as far as it says where Puppet keeps its files.
//!
//! Puppet can be asked (`puppet config print`), but that starts Ruby, which takes a second or more of
//! a processor; a question of a target expression must not do that on every host. The file has a
//! small, documented form, so it is read here, by the same rules: a setting of `[agent]` wins over
//! one of `[main]`, the first line of a section wins over later ones, `$name` and `${name}` stand
//! for other settings (Puppet takes the latter only in its defaults), and `{owner = .., mode = ..}`
//! after a path is no part of it.

use std::collections::BTreeMap;

/// How deep settings may stand for settings. Puppet's own go three deep.
const DEPTH_MAX: usize = 8;

/// Longest value with everything filled in, in bytes: values are paths, which are no longer on Linux. Settings that
/// name each other several times would else grow by that factor at each depth.
const VALUE_BYTES_MAX: usize = 4096;

/// Settings by name, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    agent: BTreeMap<String, String>,
    main: BTreeMap<String, String>,
}

impl Configuration {
    /// Reads the file. Lines that are no settings are skipped: whether Puppet takes them is Puppet's business.
    pub(super) fn parse(text: &str) -> Self {
        let mut configuration = Self::default();
        let mut section = Some("main");
        for line in text.lines() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = ["main", "agent"].into_iter().find(|known| *known == name);
                continue;
            }
            let Some((name, value)) = line.split_once('=') else { continue };
            let name = name.trim_end();
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                continue;
            }
            let settings = match section {
                Some("agent") => &mut configuration.agent,
                Some(_) => &mut configuration.main,
                None => continue,
            };
            settings.entry(name.to_owned()).or_insert_with(|| without_mode(value.trim()).to_owned());
        }
        configuration
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.agent.get(name).or_else(|| self.main.get(name)).map(String::as_str)
    }

    /// The value of a setting with everything filled in: from the file, or else from the defaults.
    ///
    /// # Errors
    /// When a setting stands for one that nobody knows, for itself, or for more than a path can be.
    pub(super) fn value(&self, name: &str, defaults: &BTreeMap<&str, String>) -> Result<String, String> {
        self.filled_in(name, defaults, DEPTH_MAX)
    }

    fn filled_in(&self, name: &str, defaults: &BTreeMap<&str, String>, depth: usize) -> Result<String, String> {
        let raw = self.get(name).or_else(|| defaults.get(name).map(String::as_str));
        let raw = raw.ok_or_else(|| format!("the setting `{name}` is not known"))?;
        if depth == 0 {
            return Err(format!("the setting `{name}` stands for itself"));
        }
        let mut value = String::new();
        let mut rest = raw;
        while let Some((before, after)) = rest.split_once('$') {
            value.push_str(before);
            let (reference, behind) = reference(after);
            match reference {
                Some(reference) => value.push_str(&self.filled_in(reference, defaults, depth - 1)?),
                None => value.push('$'),
            }
            rest = behind;
            bounded(name, &value)?;
        }
        value.push_str(rest);
        bounded(name, &value)?;
        Ok(value)
    }
}

fn bounded(name: &str, value: &str) -> Result<(), String> {
    let fits = value.len() <= VALUE_BYTES_MAX;
    if fits { Ok(()) } else { Err(format!("the setting `{name}` stands for more than {VALUE_BYTES_MAX} bytes")) }
}

/// The name at the start of `name..` or `{name}..`, and what follows it; no name if none stands there.
fn reference(text: &str) -> (Option<&str>, &str) {
    let word = |text: &str| text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    if let Some(inner) = text.strip_prefix('{') {
        let length = word(inner);
        if length > 0 && inner[length..].starts_with('}') {
            return (Some(&inner[..length]), &inner[length + 1..]);
        }
        return (None, text);
    }
    match word(text) {
        0 => (None, text),
        length => (Some(&text[..length]), &text[length..]),
    }
}

/// `/var/x { mode = 750 }` is the path `/var/x`; the braces of `${name}` are not meant.
fn without_mode(value: &str) -> &str {
    let Some(open) = value.rfind('{').filter(|at| *at == 0 || !value[..*at].ends_with('$')) else { return value };
    if value.ends_with('}') { value[..open].trim_end() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, name: &str, expected: Result<&str, &str>) {
        let defaults = BTreeMap::from([
            ("vardir", "/var/cache/puppet".to_owned()),
            ("statedir", "$vardir/state".to_owned()),
            ("lockfile", "$statedir/run.lock".to_owned()),
            ("run_mode", "agent".to_owned()),
        ]);
        let value = Configuration::parse(text).value(name, &defaults);
        assert_eq!(value.as_deref().map_err(String::as_str), expected, "{text:?}");
    }

    #[test]
    fn settings_stand_for_settings() {
        check("", "lockfile", Ok("/var/cache/puppet/state/run.lock"));
        check("[main]\nvardir = /srv/puppet\n", "lockfile", Ok("/srv/puppet/state/run.lock"));
        check("vardir=/srv/puppet", "vardir", Ok("/srv/puppet"));
        check("[main]\nvardir=/a\n[agent]\nvardir = /b  \n", "vardir", Ok("/b"));
        check("[agent]\nvardir=/b\n[main]\nvardir=/a\n", "vardir", Ok("/b"));
        check("[server]\nvardir=/c\n[master]\nvardir=/d\n", "vardir", Ok("/var/cache/puppet"));
        check("[main]\nvardir=/first\nvardir=/second\n", "vardir", Ok("/first"));
        check("[main]\n  # vardir = /no\n;vardir=/no\nvar dir=/no\nnonsense\n", "vardir", Ok("/var/cache/puppet"));
        check("[main]\nvardir = /x { owner = puppet, mode = 750 }\n", "vardir", Ok("/x"));
        check("base=/srv\nvardir=${base}/${run_mode}\n", "statedir", Ok("/srv/agent/state"));
        check("vardir=/srv/${base\n", "vardir", Ok("/srv/${base"));
        check("vardir=/srv/$\n", "vardir", Ok("/srv/$"));
        check("vardir=$statedir\n", "vardir", Err("the setting `vardir` stands for itself"));
        check("vardir=/srv/$color\n", "vardir", Err("the setting `color` is not known"));
        check("vardir=\n", "vardir", Ok(""));
    }

    #[test]
    fn settings_that_name_each_other_do_not_grow() {
        let level = |name: &str, next: &str| format!("{name}={}\n", format!("${next}").repeat(100));
        let text = [level("vardir", "b"), level("b", "c"), level("c", "d"), level("d", "e"), level("e", "run_mode")];
        // A hundred times five bytes fit, a hundred times that do not.
        check(&text.concat(), "vardir", Err("the setting `d` stands for more than 4096 bytes"));
        check(
            &format!("vardir=/{}\n", "x".repeat(4096)),
            "vardir",
            Err("the setting `vardir` stands for more than 4096 bytes"),
        );
    }
}
