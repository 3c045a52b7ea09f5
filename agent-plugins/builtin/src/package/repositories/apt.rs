//! apt's two forms of sources (sources.list(5)).

use super::Repository;

/// `deb [OPTION=VALUE ...] URI SUITE [COMPONENT ...]`. What is commented out is not a source.
pub(super) fn lines(text: &str) -> Vec<Repository> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Repository> {
    let line = line.split('#').next()?.trim();
    let (name, rest) = line.split_once(char::is_whitespace)?;
    if !matches!(name, "deb" | "deb-src") {
        return None;
    }
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Repository {
        file: String::new(),
        name: name.to_owned(),
        uri: uri.to_owned(),
        suite: Some(suite.to_owned()),
        components: words.map(str::to_owned).collect(),
        enabled: true,
    })
}

/// Stanzas of `Types`, `URIs`, `Suites`, `Components` and `Enabled`; each combination is a source.
pub(super) fn stanzas(text: &str) -> Vec<Repository> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)]) -> Vec<Repository> {
    let words = |name: &str| {
        let value = fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        value.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let enabled = !words("enabled").iter().any(|word| ["no", "false", "0", "off"].contains(&word.as_str()));
    let components = words("components");
    let mut sources = Vec::new();
    for name in words("types") {
        for uri in words("uris") {
            for suite in words("suites") {
                sources.push(Repository {
                    file: String::new(),
                    name: name.clone(),
                    uri: uri.clone(),
                    suite: Some(suite),
                    components: components.clone(),
                    enabled,
                });
            }
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_options() {
        let text = "# deb http://off.example.com x main\n\
                    deb http://deb.example.com/debian bookworm main contrib # a comment\n\
                    deb [arch=amd64 signed-by=/k.gpg] https://x.example.com/ ./\n\
                    deb-src\thttp://deb.example.com/debian\tbookworm main\ngarbage\ndeb http://only.example.com\n";
        let seen: Vec<_> = lines(text);
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[0].components, ["main", "contrib"]);
        assert_eq!((seen[1].uri.as_str(), seen[1].suite.as_deref()), ("https://x.example.com/", Some("./")));
        assert_eq!(seen[2].name, "deb-src");
    }

    #[test]
    fn stanzas_multiply() {
        let text = "# a comment\nTypes: deb deb-src\nURIs: http://a.example.com\nSuites: stable\n stable-updates\n\
                    Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://b.example.com\nSuites: x\nEnabled: no\n";
        let seen = stanzas(text);
        assert_eq!(seen.len(), 5);
        assert_eq!(seen[1].suite.as_deref(), Some("stable-updates"));
        assert!(seen[0].enabled && !seen[4].enabled);
    }
}
