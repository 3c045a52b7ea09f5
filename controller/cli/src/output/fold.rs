//! Folds host names into ranges and back: `web-[0001-0106,0108].ams1`.
//!
//! One run of digits is folded per name: the one that the most other names differ in. Leading zeros
//! are kept: a range whose ends have the same length is padded to it.

use std::collections::{BTreeMap, BTreeSet};

/// Longest run of digits that counts as a number; longer ones are text.
const DIGITS_MAX: usize = 18;

/// Why a folded text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FoldError {
    /// A bracket without its partner.
    #[error("`{0}` has an unbalanced bracket")]
    Unbalanced(String),
    /// Between the brackets stands something else than numbers and ranges.
    #[error("`[{0}]` is not a list of numbers and ranges such as [1-4,7]")]
    NotARange(String),
    /// More names than asked for.
    #[error("the ranges stand for more than {0} names")]
    TooMany(usize),
}

/// Folds names into ranges, sorted. Each name stands for itself once.
pub(crate) fn fold<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let mut partners: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for name in &names {
        for (before, _, after) in numbers(name) {
            *partners.entry((before, after)).or_default() += 1;
        }
    }
    let mut groups: BTreeMap<(&str, &str), Group<'_>> = BTreeMap::new();
    let mut folded: Vec<(&str, String)> = Vec::new();
    for name in &names {
        // The first of equals, so that the choice does not depend on anything but the names.
        let mut best: Option<(usize, (&str, &str, &str))> = None;
        for (before, digits, after) in numbers(name) {
            let count = partners.get(&(before, after)).copied().unwrap_or(0);
            if best.is_none_or(|(most, _)| count > most) {
                best = Some((count, (before, digits, after)));
            }
        }
        match best {
            Some((_, (before, digits, after))) => {
                let group = groups.entry((before, after));
                let group = group.or_insert_with(|| Group { first: name, before, after, numbers: BTreeSet::new() });
                // At most eighteen digits, so it is a number of 64 bits.
                group.numbers.insert((digits.len(), digits.parse().unwrap_or(0)));
            }
            None => folded.push((name, (*name).to_owned())),
        }
    }
    folded.extend(groups.into_values().map(|group| (group.first, group.render())));
    folded.sort();
    folded.into_iter().map(|(_, text)| text).collect()
}

/// Names that differ in one number only.
struct Group<'a> {
    /// The first of them in the order of texts; groups are sorted by it.
    first: &'a str,
    before: &'a str,
    after: &'a str,
    /// Length as written, then value.
    numbers: BTreeSet<(usize, u64)>,
}

/// Folds names into one line: `web-[1-3].ams1, db1`.
pub(crate) fn fold_line<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    fold(names).join(", ")
}

/// Every run of digits of a name, with what stands before and after it.
fn numbers(name: &str) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(offset) = name[start..].find(|c: char| c.is_ascii_digit()) {
        let begin = start + offset;
        let length = name[begin..].find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len() - begin);
        let end = begin + length;
        if length <= DIGITS_MAX {
            found.push((&name[..begin], &name[begin..end], &name[end..]));
        }
        start = end;
    }
    found
}

/// A range of numbers with the lengths of its ends as written.
struct Range {
    first: (usize, u64),
    last: (usize, u64),
}

fn written((length, value): (usize, u64)) -> String {
    format!("{value:0length$}")
}

impl Group<'_> {
    fn render(&self) -> String {
        let mut ranges: Vec<Range> = Vec::new();
        for &number in &self.numbers {
            match ranges.last_mut() {
                Some(range) if follows(range, number) => range.last = number,
                _ => ranges.push(Range { first: number, last: number }),
            }
        }
        let single = ranges.len() == 1 && self.numbers.len() == 1;
        let parts: Vec<String> = ranges
            .iter()
            .map(|range| match range.first == range.last {
                true => written(range.first),
                false => format!("{}-{}", written(range.first), written(range.last)),
            })
            .collect();
        let (before, parts, after) = (self.before, parts.join(","), self.after);
        if single { format!("{before}{parts}{after}") } else { format!("{before}[{parts}]{after}") }
    }
}

/// Whether a number is the next one of a range, as expansion will count.
fn follows(range: &Range, (length, value): (usize, u64)) -> bool {
    let (last_length, last) = range.last;
    let (first_length, first) = range.first;
    let unpadded = first.to_string().len() == first_length;
    last.checked_add(1) == Some(value)
        && (last_length == length && first_length == length
            || unpadded && value.to_string().len() == length && last.to_string().len() == last_length)
}

/// Expands a list of names and ranges, separated by commas: `web-[1-3].ams1,db1`. Keeps the order given.
///
/// # Errors
/// When brackets or ranges are malformed, or more than `most` names come out.
pub(crate) fn expand(folded: &str, most: usize) -> Result<Vec<String>, FoldError> {
    let mut names = Vec::new();
    for part in split_outside_brackets(folded)? {
        let part = part.trim();
        if !part.is_empty() {
            expand_one(part, &mut String::new(), &mut names, most)?;
        }
    }
    Ok(names)
}

fn split_outside_brackets(text: &str) -> Result<Vec<&str>, FoldError> {
    let unbalanced = || FoldError::Unbalanced(text.chars().take(80).collect());
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (index, character) in text.char_indices() {
        match character {
            '[' if inside => return Err(unbalanced()),
            ']' if !inside => return Err(unbalanced()),
            '[' => inside = true,
            ']' => inside = false,
            ',' if !inside => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(unbalanced());
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn expand_one(rest: &str, built: &mut String, names: &mut Vec<String>, most: usize) -> Result<(), FoldError> {
    let Some((before, tail)) = rest.split_once('[') else {
        if names.len() >= most {
            return Err(FoldError::TooMany(most));
        }
        names.push(format!("{built}{rest}"));
        return Ok(());
    };
    let (inner, after) = tail.split_once(']').ok_or_else(|| FoldError::Unbalanced(rest.to_owned()))?;
    for item in inner.split(',') {
        let not_a_range = || FoldError::NotARange(inner.chars().take(80).collect());
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (from, to) = (number(first).ok_or_else(not_a_range)?, number(last).ok_or_else(not_a_range)?);
        if from > to {
            return Err(not_a_range());
        }
        let padded = if first.len() == last.len() { first.len() } else { 0 };
        for value in from..=to {
            let length = built.len();
            built.push_str(before);
            built.push_str(&written((padded, value)));
            expand_one(after, built, names, most)?;
            built.truncate(length);
        }
    }
    Ok(())
}

fn number(digits: &str) -> Option<u64> {
    let number = digits.chars().all(|c| c.is_ascii_digit()) && digits.len() <= DIGITS_MAX;
    number.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_fold_into_ranges() {
        let check = |names: &[&str], expected: &str| assert_eq!(fold_line(names.iter().copied()), expected);
        check(&[], "");
        check(&["localhost"], "localhost");
        check(&["web-0001.ams1"], "web-0001.ams1");
        check(&["web-0001.ams1", "web-0002.ams1", "web-0004.ams1"], "web-[0001-0002,0004].ams1");
        check(&["web1", "web2", "web9", "web10", "web11", "db"], "db, web[1-2,9-11]");
        check(&["n08", "n09", "n10", "n8"], "n[8,08-10]");
        check(&["ip-10-0-3-17", "ip-10-0-3-18", "ip-10-0-3-20"], "ip-10-0-3-[17-18,20]");
        check(&["a1.x1", "a1.x2", "a1.x3", "a2.x1"], "a1.x[1-3], a2.x1");
        check(&["v20261120123456789012", "v20261120123456789013"], "v20261120123456789012, v20261120123456789013");
    }

    #[test]
    fn expansion_says_what_is_wrong() {
        let check = |text: &str, expected: &str| assert_eq!(expand(text, 5).unwrap_err().to_string(), expected);
        check("web[1-2", "`web[1-2` has an unbalanced bracket");
        check("web1-2]", "`web1-2]` has an unbalanced bracket");
        check("web[[1]]", "`web[[1]]` has an unbalanced bracket");
        check("web[a]", "`[a]` is not a list of numbers and ranges such as [1-4,7]");
        check("web[3-1]", "`[3-1]` is not a list of numbers and ranges such as [1-4,7]");
        check("web[]", "`[]` is not a list of numbers and ranges such as [1-4,7]");
        check("web[1-6]", "the ranges stand for more than 5 names");
        check("web[0-999999999999999999]", "the ranges stand for more than 5 names");
    }

    #[test]
    fn several_ranges_multiply() {
        let names = expand("r[1-2]n[08-09], db", 10).unwrap();
        assert_eq!(names, ["r1n08", "r1n09", "r2n08", "r2n09", "db"]);
    }

    proptest! {
        #[test]
        fn expanding_undoes_folding(names in proptest::collection::btree_set("[a-c]{0,2}-?[0-9]{0,3}(\\.[a-b][0-9]{0,2})?", 0..40)) {
            let names: BTreeSet<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
            let folded = fold(names.iter().map(String::as_str)).join(",");
            let expanded = expand(&folded, names.len()).unwrap();
            prop_assert_eq!(expanded.len(), names.len(), "{}", folded);
            prop_assert_eq!(expanded.into_iter().collect::<BTreeSet<_>>(), names, "{}", folded);
        }
    }
}
