//! Links between the repository's own documents: each leads somewhere, and no chapter is forgotten.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::run;

/// Where documents are.
const PLACES: &[&str] = &["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs", "dist"];

/// Chapters whose list is [`SUMMARY`].
const CHAPTERS: &str = "docs/book/src";

/// The book's table of contents.
const SUMMARY: &str = "docs/book/src/SUMMARY.md";

/// Fails with every dead link and forgotten chapter, or says that there are none.
///
/// # Errors
/// When a document cannot be read, or a link is dead.
pub(crate) fn check_and_tell() -> Result<()> {
    let root = run::root();
    let mut documents = Vec::new();
    for place in PLACES {
        collect(&root.join(place), &mut documents)?;
    }
    let mut findings = Vec::new();
    for document in &documents {
        let text = fs::read_to_string(document).with_context(|| format!("read `{}`", document.display()))?;
        let here = document.parent().unwrap_or(&root);
        let name = document.strip_prefix(&root).unwrap_or(document).display();
        for target in targets(&text) {
            if let Some(why) = dead(&target, here, &text)? {
                findings.push(format!("{name}: `{target}` {why}"));
            }
        }
    }
    let summary = fs::read_to_string(root.join(SUMMARY)).context("read the book's summary")?;
    let listed = targets(&summary);
    for document in documents.iter().filter(|document| document.parent() == Some(&root.join(CHAPTERS))) {
        let name = document.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name != "SUMMARY.md" && !listed.iter().any(|target| target == name) {
            findings.push(format!("{SUMMARY}: the chapter `{name}` is not in it"));
        }
    }
    if !findings.is_empty() {
        bail!("{} links are wrong:\n  {}", findings.len(), findings.join("\n  "));
    }
    eprintln!("==> links: {} documents, none dead", documents.len());
    Ok(())
}

fn collect(path: &Path, documents: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        entries.sort();
        for entry in entries {
            collect(&entry, documents)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "md") {
        documents.push(path.to_path_buf());
    }
    Ok(())
}

/// The targets of the inline links of a Markdown text, code left out.
fn targets(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        // Every second piece between backticks is code; a link's text may be code, its target is not.
        let mut read = 0;
        while let Some(start) = line[read..].find("](").map(|found| read + found) {
            let Some(end) = line[start..].find(')').map(|found| start + found) else { break };
            if line[..start].matches('`').count() % 2 == 0 {
                targets.push(line[start + 2..end].to_owned());
            }
            read = end;
        }
    }
    targets
}

/// Why a link leads nowhere; `None` if it leads somewhere, or out of the repository.
fn dead(target: &str, here: &Path, text: &str) -> Result<Option<&'static str>> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(None);
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = here.join(file);
    if !file.is_empty() && !path.exists() {
        return Ok(Some("does not exist"));
    }
    let Some(anchor) = anchor else { return Ok(None) };
    let there = if file.is_empty() {
        text.to_owned()
    } else if file.ends_with(".md") {
        fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?
    } else {
        return Ok(None);
    };
    Ok((!anchors(&there).iter().any(|known| known == anchor)).then_some("has no such heading"))
}

/// The anchors of a text's headings, as mdbook and the usual hosts make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim();
            if let Some((_, own)) = title.rsplit_once("{#") {
                return own.trim_end_matches('}').to_owned();
            }
            let words = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            words.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_no_dead_links() {
        check_and_tell().unwrap();
    }

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "See [a](a.md) and [`b`](b.md#c).\n```\n[no](no.md)\n```\n`[no](no.md)` [d](#e)\n";
        assert_eq!(targets(text), ["a.md", "b.md#c", "#e"]);
    }

    #[test]
    fn anchors_are_those_of_the_book() {
        let text = "# Exit codes\n## `muster pki`\ntext\n## Own {#other-name}\n";
        assert_eq!(anchors(text), ["exit-codes", "muster-pki", "other-name"]);
    }
}
