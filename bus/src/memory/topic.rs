//! Matching of routing keys, as a topic exchange does it.

/// Whether a binding's pattern matches a routing key: words between dots, `*` is exactly one word, `#`
/// is any number of words, none included.
pub(super) fn matches(pattern: &str, key: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let key: Vec<&str> = if key.is_empty() { Vec::new() } else { key.split('.').collect() };
    // Which beginnings of the pattern match the words seen so far; one pass, whatever the number of `#`.
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    skip_hashes(&pattern, &mut reached);
    for word in key {
        let mut next = vec![false; pattern.len() + 1];
        for (index, part) in pattern.iter().enumerate() {
            match *part {
                "#" => next[index] |= reached[index],
                "*" => next[index + 1] |= reached[index],
                literal => next[index + 1] |= reached[index] && literal == word,
            }
        }
        skip_hashes(&pattern, &mut next);
        reached = next;
    }
    reached[pattern.len()]
}

/// A `#` may stand for nothing.
fn skip_hashes(pattern: &[&str], reached: &mut [bool]) {
    for (index, part) in pattern.iter().enumerate() {
        if *part == "#" && reached[index] {
            reached[index + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stars_and_hashes() {
        for (pattern, key, expected) in [
            ("all", "all", true),
            ("all", "al", false),
            ("host.web1.example.com", "host.web1.example.com", true),
            ("user/lea.7f.#", "user/lea.7f.web1.example.com", true),
            ("user/lea.7f.#", "user/lea.7f", true),
            ("user/lea.7f.#", "user/leaf.7f.web1", false),
            ("user/lea.7f.#", "user/lea.8f.web1", false),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("*", "a", true),
            ("*", "", false),
            ("*", "a.b", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("a.#.c", "a.c", true),
            ("a.#.c", "a.b.b.c", true),
            ("a.#.c", "a.b.b", false),
            ("#.#.x", "x", true),
            ("#.a.#", "b.a.b", true),
            ("", "", false),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} {key}");
        }
    }
}
