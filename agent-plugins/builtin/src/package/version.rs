//! Which of two versions is newer, as each package manager sees it.
//!
//! Only used to call a change an update or a downgrade; what is installed is decided by the manager alone.

use std::cmp::Ordering;

/// Debian's order (Debian policy 5.6.12): epoch, then version, then release; text and numbers in turn; `~`
/// before everything, even the end; letters before the rest.
pub(super) fn debian(a: &str, b: &str) -> Ordering {
    let (epoch_a, a) = split_epoch(a);
    let (epoch_b, b) = split_epoch(b);
    let (version_a, release_a) = a.rsplit_once('-').unwrap_or((a, "0"));
    let (version_b, release_b) = b.rsplit_once('-').unwrap_or((b, "0"));
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| debian_part(version_a, version_b))
        .then_with(|| debian_part(release_a, release_b))
}

fn split_epoch(full: &str) -> (u64, &str) {
    match full.split_once(':') {
        Some((epoch, rest)) => match epoch.parse() {
            Ok(epoch) => (epoch, rest),
            Err(_) => (0, full),
        },
        None => (0, full),
    }
}

fn debian_part(a: &str, b: &str) -> Ordering {
    let weight = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    };
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let text = |rest: &[u8]| rest.first().is_some_and(|byte| !byte.is_ascii_digit());
        while text(a) || text(b) {
            let order = weight(a.first().copied()).cmp(&weight(b.first().copied()));
            if order != Ordering::Equal {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (number_a, rest_a) = number(a);
        let (number_b, rest_b) = number(b);
        let order = by_value(number_a, number_b);
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

/// The digits at the start, and the rest.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Digits by value, however long.
fn by_value(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| {
        let start = digits.iter().position(|byte| *byte != b'0').unwrap_or(digits.len());
        digits[start..].to_vec()
    };
    let (a, b) = (significant(a), significant(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

/// rpm's order: epoch, version, release; runs of digits by value, runs of letters by letter, everything else
/// only separates; a number is newer than letters; `~` is older than the end, `^` newer than the end and
/// older than anything else.
pub(super) fn rpm(a: &str, b: &str) -> Ordering {
    let (epoch_a, a) = split_epoch(a);
    let (epoch_b, b) = split_epoch(b);
    let (version_a, release_a) = a.split_once('-').unwrap_or((a, ""));
    let (version_b, release_b) = b.split_once('-').unwrap_or((b, ""));
    epoch_a.cmp(&epoch_b).then_with(|| rpm_part(version_a, version_b)).then_with(|| rpm_part(release_a, release_b))
}

fn rpm_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let skip = |rest: &[u8]| {
            let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'~' | b'^');
            rest.iter().position(word).unwrap_or(rest.len())
        };
        a = &a[skip(a)..];
        b = &b[skip(b)..];
        match (a.first(), b.first()) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => {
                (a, b) = (&a[1..], &b[1..]);
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            (Some(b'^'), None) => return Ordering::Greater,
            (None, Some(b'^')) => return Ordering::Less,
            (Some(b'^'), Some(_)) => return Ordering::Less,
            (Some(_), Some(b'^')) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(first), Some(second)) => {
                let order = match (first.is_ascii_digit(), second.is_ascii_digit()) {
                    (true, false) => return Ordering::Greater,
                    (false, true) => return Ordering::Less,
                    (true, true) => {
                        let ((number_a, rest_a), (number_b, rest_b)) = (number(a), number(b));
                        (a, b) = (rest_a, rest_b);
                        by_value(number_a, number_b)
                    }
                    (false, false) => {
                        let ((letters_a, rest_a), (letters_b, rest_b)) = (letters(a), letters(b));
                        (a, b) = (rest_a, rest_b);
                        letters_a.cmp(letters_b)
                    }
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    }
}

/// The letters at the start, and the rest.
fn letters(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
    text.split_at(end)
}

/// What may follow the numbers of an apk version, oldest first; the empty word is "nothing follows".
const APK_SUFFIXES: [&str; 10] = ["alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p"];

/// apk's order (apk-package(5)): `1.2.3b_rc4-r5`: numbers, a letter, suffixes with their rank, the release.
pub(super) fn apk(a: &str, b: &str) -> Ordering {
    let (version_a, release_a) = a.rsplit_once("-r").unwrap_or((a, "0"));
    let (version_b, release_b) = b.rsplit_once("-r").unwrap_or((b, "0"));
    apk_version(version_a, version_b)
        .then_with(|| by_value(number(release_a.as_bytes()).0, number(release_b.as_bytes()).0))
}

fn apk_version(a: &str, b: &str) -> Ordering {
    let mut parts_a = a.split('_');
    let mut parts_b = b.split('_');
    let order = rpm_part(parts_a.next().unwrap_or_default(), parts_b.next().unwrap_or_default());
    if order != Ordering::Equal {
        return order;
    }
    let rank = |suffix: Option<&str>| {
        let suffix = suffix.unwrap_or_default();
        let word = suffix.trim_end_matches(|c: char| c.is_ascii_digit());
        let rank = APK_SUFFIXES.iter().position(|known| *known == word).unwrap_or(APK_SUFFIXES.len());
        (rank, suffix.as_bytes()[word.len()..].to_vec())
    };
    loop {
        let (next_a, next_b) = (parts_a.next(), parts_b.next());
        if next_a.is_none() && next_b.is_none() {
            return Ordering::Equal;
        }
        let ((rank_a, number_a), (rank_b, number_b)) = (rank(next_a), rank(next_b));
        let order = rank_a.cmp(&rank_b).then_with(|| by_value(&number_a, &number_b));
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(order: fn(&str, &str) -> Ordering, ascending: &[&str]) {
        for (index, a) in ascending.iter().enumerate() {
            for (other, b) in ascending.iter().enumerate() {
                assert_eq!(order(a, b), index.cmp(&other), "{a} and {b}");
            }
        }
    }

    #[test]
    fn debian_versions() {
        check(
            debian,
            &["1.0~~", "1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-2", "1.0a-1", "1.0+dfsg-1", "1.0.1-1", "1.10-1", "2:0.1"],
        );
        assert_eq!(debian("1.0", "1.0-0"), Ordering::Equal);
        assert_eq!(debian("1.00", "1.0"), Ordering::Equal);
    }

    #[test]
    fn rpm_versions() {
        check(
            rpm,
            &["1.0~rc1-1", "1.0-1", "1.0-1.el9", "1.0-2", "1.0^git1-1", "1.0a-1", "1.0.1-1", "1.10-1", "1:0.1-1"],
        );
        assert_eq!(rpm("1.0.0-1", "1_0_0-1"), Ordering::Equal);
    }

    #[test]
    fn apk_versions() {
        check(
            apk,
            &[
                "1.0_alpha1-r0",
                "1.0_rc1-r0",
                "1.0_rc2-r0",
                "1.0-r0",
                "1.0-r1",
                "1.0-r10",
                "1.0_p1-r0",
                "1.0a-r0",
                "1.2-r0",
                "1.10-r0",
            ],
        );
    }

    /// What a program says about each pair of versions, against what we say.
    fn agrees(order: fn(&str, &str) -> Ordering, versions: &[&str], real: impl Fn(&str, &str) -> Ordering) {
        for a in versions {
            for b in versions {
                assert_eq!(order(a, b), real(a, b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn dpkg_agrees() {
        let versions =
            ["1.0", "1.0-1", "1.0-1+b1", "1:0.9", "1.0~rc1-1", "1.0a", "1.0.0", "01.0-0", "1.10", "1.0+x", "1.0-1~bpo"];
        agrees(debian, &versions, |a, b| {
            let is = |relation: &str| {
                let run = std::process::Command::new("dpkg").args(["--compare-versions", a, relation, b]).status();
                run.expect("dpkg is part of every Debian").success()
            };
            if is("lt") {
                Ordering::Less
            } else if is("gt") {
                Ordering::Greater
            } else {
                Ordering::Equal
            }
        });
    }

    #[test]
    fn rpm_agrees() {
        let versions = [
            "1.0",
            "1.0a",
            "1.0.1",
            "1.0~rc1",
            "1.0^git1",
            "1.0^git1~1",
            "1_0",
            "10",
            "1.0.a",
            "001.0",
            "1.0a1",
            "2.el9",
        ];
        agrees(rpm_part, &versions, |a, b| {
            let expression = format!("%{{lua:print(rpm.vercmp(\"{a}\",\"{b}\"))}}");
            let output = std::process::Command::new("rpm").args(["--eval", &expression]).output();
            let output = output.expect("rpm is installed; on Debian: apt-get install -y --no-install-recommends rpm");
            let number: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
            number.cmp(&0)
        });
    }

    fn version() -> impl Strategy<Value = String> {
        "([0-2]:)?[0-9]{1,2}(\\.[0-9]{1,2}){0,2}[a-b]?(~rc[0-9])?(_p[0-9])?(-r?[0-9]{1,2})?"
    }

    proptest! {
        #[test]
        fn each_order_is_total(a in version(), b in version(), c in version()) {
            for order in [debian, rpm, apk] {
                prop_assert_eq!(order(&a, &a), Ordering::Equal);
                prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
                if order(&a, &b).is_le() && order(&b, &c).is_le() {
                    prop_assert!(order(&a, &c).is_le(), "{} {} {}", a, b, c);
                }
            }
        }

        #[test]
        fn no_order_panics(a in "\\PC{0,12}", b in "\\PC{0,12}") {
            for order in [debian, rpm, apk] {
                prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
            }
        }
    }
}
