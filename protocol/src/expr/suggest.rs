//! "Did you mean": the nearest known word.

/// The candidate that is nearest to `word`, if one is near enough: one edit for up to four
/// characters, two for up to eight, then a third of the length. Swapped neighbours count as one edit, and
/// upper or lower case as none. Of equally near candidates the first one wins.
#[must_use]
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length == 0 || length > 128 {
        return None;
    }
    let allowed = match length {
        0..=4 => 1,
        5..=8 => 2,
        _ => length / 3,
    };
    let wanted = word.to_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate.chars().count().abs_diff(length) > allowed {
            continue;
        }
        let distance = strsim::osa_distance(&wanted, &candidate.to_lowercase());
        // A word of which every letter differs is no misspelling.
        if distance <= allowed && distance < length && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_proposed() {
        let cases = [
            ("Debain", &["Debian", "RedHat"][..], Some("Debian")),
            ("AND", &["and", "or"][..], Some("and")),
            ("packge", &["package", "puppet"][..], Some("package")),
            ("o", &["or", "and"][..], None),
            ("x", &["y"][..], None),
            ("", &["a"][..], None),
            ("lastest", &["present", "latest", "absent"][..], Some("latest")),
            ("frobnicate", &["install", "status"][..], None),
        ];
        for (word, candidates, expected) in cases {
            assert_eq!(did_you_mean(word, candidates.iter().copied()), expected, "{word}");
        }
    }
}
