//! Counts and durations as people read them.

/// A count with thousands separated: `9,842`.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A count with its noun, singular or plural: `1 host`, `9,842 hosts`.
pub(crate) fn counted(number: usize, singular: &str, plural: &str) -> String {
    format!("{} {}", count(number), if number == 1 { singular } else { plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_readable() {
        let check = |number: usize, expected: &str| assert_eq!(counted(number, "host", "hosts"), expected);
        check(0, "0 hosts");
        check(1, "1 host");
        check(999, "999 hosts");
        check(1_000, "1,000 hosts");
        check(1_234_567, "1,234,567 hosts");
    }
}
