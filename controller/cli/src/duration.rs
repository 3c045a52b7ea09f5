//! Lengths of time as they are typed: `500ms`, `10s`, `2m`, `1h`, or plain seconds.

use std::str::FromStr;

/// A length of time, in milliseconds; more than 0 and at most a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length(i64);

/// Longest that can be typed: a command's longest life.
const LENGTH_MS_MAX: i64 = muster_protocol::limits::COMMAND_WINDOW_MS_MAX;

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time such as 500ms, 10s, 2m or 1h (at most 24h)")]
pub(crate) struct LengthError(String);

impl Length {
    /// In milliseconds.
    pub(crate) fn as_millis(self) -> i64 {
        self.0
    }
}

impl FromStr for Length {
    type Err = LengthError;
    fn from_str(text: &str) -> Result<Self, LengthError> {
        let wrong = || LengthError(text.chars().take(40).collect());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let factor = match &text[digits..] {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let number: i64 = text[..digits].parse().map_err(|_| wrong())?;
        match number.checked_mul(factor) {
            Some(length @ 1..=LENGTH_MS_MAX) => Ok(Self(length)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, expected) in
            [("500ms", 500), ("10", 10_000), ("10s", 10_000), ("2m", 120_000), ("1min", 60_000), ("24h", LENGTH_MS_MAX)]
        {
            assert_eq!(text.parse::<Length>().unwrap().as_millis(), expected, "{text}");
        }
        for bad in ["", "0", "0s", "-1s", "1.5s", "25h", "s", "10 s", "9999999999999999h", "1d"] {
            assert!(bad.parse::<Length>().is_err(), "{bad:?}");
        }
    }
}
