//! Sections of `yum.repos.d` and of zypper's `repos.d`.

use super::Repository;

/// `[ID]`, then `baseurl`, `mirrorlist` or `metalink`, and `enabled`, which is yes where it is not said.
pub(super) fn sections(text: &str) -> Vec<Repository> {
    let mut repositories = Vec::new();
    let mut section: Option<Section> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            repositories.extend(section.take().into_iter().flat_map(Section::finish));
            section = Some(Section { name: name.to_owned(), fields: Vec::new() });
            continue;
        }
        let Some(section) = &mut section else { continue };
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = section.fields.last_mut() {
                value.push(' ');
                value.push_str(trimmed);
            }
        } else if let Some((key, value)) = trimmed.split_once('=') {
            section.fields.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    repositories.extend(section.into_iter().flat_map(Section::finish));
    repositories
}

struct Section {
    name: String,
    fields: Vec<(String, String)>,
}

impl Section {
    /// One repository for each of its addresses. `[main]` is dnf's own configuration.
    fn finish(self) -> Vec<Repository> {
        let field = |key: &str| self.fields.iter().rev().find(|(have, _)| have == key).map(|(_, value)| value.as_str());
        let address =
            ["baseurl", "mirrorlist", "metalink"].into_iter().find_map(|key| field(key).filter(|v| !v.is_empty()));
        let Some(address) = address.filter(|_| self.name != "main") else { return Vec::new() };
        let off = |word: &str| ["0", "no", "false", "off"].contains(&word.to_ascii_lowercase().as_str());
        let enabled = !field("enabled").is_some_and(off);
        let addresses = address.split(|c: char| c.is_whitespace() || c == ',').filter(|uri| !uri.is_empty());
        addresses
            .map(|uri| Repository {
                file: String::new(),
                name: self.name.clone(),
                uri: uri.to_owned(),
                suite: None,
                components: Vec::new(),
                enabled,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_a_file() {
        let text = "[main]\nbaseurl=x\n[base]\nname=Base\nbaseurl=https://a.example.com/$basearch\n        https://b.example.com\n\
                    [off]\nmetalink=https://m.example.com/?repo=x\nenabled = 0\n; a comment\n[empty]\nname=nothing\n";
        let seen: Vec<_> = sections(text).into_iter().map(|one| (one.name, one.uri, one.enabled)).collect();
        let expected = [
            ("base", "https://a.example.com/$basearch", true),
            ("base", "https://b.example.com", true),
            ("off", "https://m.example.com/?repo=x", false),
        ];
        let expected: Vec<_> = expected.iter().map(|(n, u, e)| ((*n).to_owned(), (*u).to_owned(), *e)).collect();
        assert_eq!(seen, expected);
    }
}
