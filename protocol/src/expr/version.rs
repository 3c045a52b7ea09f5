//! The order of versions: Debian's, because it orders nearly everything that people call a version.
//!
//! A version is `[epoch:]upstream[-revision]`. Runs of digits compare as numbers of any length, the
//! rest letter by letter, letters before other characters, and `~` before everything, even the end:
//! `1.0~rc1 < 1.0 < 1.0-1 < 1.0.1 < 1.10`. Source: Debian Policy section 5.6.12.

use std::cmp::Ordering;

/// Longest text that is taken for a version.
const VERSION_BYTES_MAX: usize = 256;

/// A text that looks like a version. Two of them are equal when neither is newer: `1.0` and `1.00`.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    epoch: &'a str,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Version<'a> {
    /// Takes `text` for a version if it begins with a digit and has only letters, digits and
    /// `. + ~ ^ : _ -` (ASCII).
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.len() > VERSION_BYTES_MAX {
            return None;
        }
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()) => {
                (epoch, rest)
            }
            Some(_) => return None,
            None => ("", text),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+~^:_-".contains(&byte);
        if !rest.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) || !rest.bytes().all(allowed) {
            return None;
        }
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Some(Self { epoch, upstream, revision })
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_numbers(self.epoch, other.epoch)
            .then_with(|| compare_parts(self.upstream, other.upstream))
            .then_with(|| compare_parts(self.revision, other.revision))
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version<'_> {}

/// Compares upstream versions or revisions: alternately a run of non-digits and a run of digits.
fn compare_parts(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_word, left_rest) = split_run(left, |c| !c.is_ascii_digit());
        let (right_word, right_rest) = split_run(right, |c| !c.is_ascii_digit());
        let (left_number, left_next) = split_run(left_rest, |c| c.is_ascii_digit());
        let (right_number, right_next) = split_run(right_rest, |c| c.is_ascii_digit());
        let order = compare_words(left_word, right_word).then_with(|| compare_numbers(left_number, right_number));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_next, right_next);
    }
    Ordering::Equal
}

fn split_run(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Compares runs of digits by value. An empty run is 0.
fn compare_numbers(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

fn compare_words(left: &str, right: &str) -> Ordering {
    let weights = |text: &'_ str| -> Vec<i32> { text.bytes().map(weight).chain([0]).collect() };
    weights(left).cmp(&weights(right))
}

/// `~` before the end of the run (0), then letters, then everything else.
fn weight(byte: u8) -> i32 {
    match byte {
        b'~' => -1,
        byte if byte.is_ascii_alphabetic() => i32::from(byte),
        byte => i32::from(byte) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_order_as_debian_does() {
        let rising = [
            "0",
            "0.9~~",
            "0.9~rc1",
            "0.9",
            "0.9-1~deb12u1",
            "0.9-1",
            "0.9-1+b1",
            "0.9a",
            "0.9.1",
            "0.10",
            "1.0~rc1",
            "1.0",
            "1.0-1",
            "1.0-1.1",
            "1.0-2",
            "1.0-10",
            "1.0+dfsg-1",
            "1.0.1",
            "3.0.11-1~deb12u2",
            "3.0.13",
            "3.0.13-1~deb12u1",
            "20240101",
            "1:0.1",
            "1:1.0",
            "10:0",
        ];
        for (i, left) in rising.iter().enumerate() {
            for (j, right) in rising.iter().enumerate() {
                let order = Version::parse(left).unwrap().cmp(&Version::parse(right).unwrap());
                assert_eq!(order, i.cmp(&j), "{left} {right}");
            }
        }
    }

    #[test]
    fn some_texts_are_no_versions() {
        for text in
            ["", "v1.0", "a:1", ":1", "1:", "1:a", "1 2", "n/a", "-5", ".5", "2024-01-15T10:00", &"1".repeat(257)]
        {
            assert!(Version::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn spelling_does_not_matter_to_the_order() {
        for (left, right) in [("1.0", "1.00"), ("0:1", "1"), ("1.0-0", "1.0"), ("007", "7")] {
            assert_eq!(Version::parse(left), Version::parse(right), "{left} {right}");
        }
    }

    fn text() -> impl Strategy<Value = String> {
        "([0-9]{1,2}:)?[0-9][0-9a-c.~+-]{0,8}"
    }

    proptest! {
        #[test]
        fn versions_are_totally_ordered(a in text(), b in text(), c in text()) {
            let [a, b, c] = [&a, &b, &c].map(|text| Version::parse(text).unwrap());
            prop_assert_eq!(a.cmp(&a), Ordering::Equal);
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
            if a == b {
                prop_assert_eq!(a.cmp(&c), b.cmp(&c));
            }
        }
    }
}
