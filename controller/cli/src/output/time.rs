//! Times and durations as people read them, and as documents carry them.

use jiff::Timestamp as Instant;
use muster_protocol::Timestamp;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// RFC 3339 in UTC with milliseconds: `2026-11-20T14:02:11.000Z`. Times beyond the calendar are clamped to it.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let beyond = if time.as_millis() < 0 { Instant::MIN } else { Instant::MAX };
    let instant = Instant::from_millisecond(time.as_millis()).unwrap_or(beyond);
    format!("{instant:.3}")
}

/// How long ago, in one unit: `now`, `12 s ago`, `3 h ago`, `9 d ago`; `in 2 d` for the future.
pub(crate) fn ago(time: Timestamp, now: Timestamp) -> String {
    let passed = now.since_ms(time);
    match passed {
        ..-999 => format!("in {}", span(passed.saturating_neg())),
        -999..=999 => "now".to_owned(),
        1000.. => format!("{} ago", span(passed)),
    }
}

/// A length of time in its largest whole unit: `850 ms`, `12 s`, `5 min`, `3 h`, `41 d`.
pub(crate) fn span(milliseconds: i64) -> String {
    if milliseconds < SECOND_MS {
        return format!("{milliseconds} ms");
    }
    let units = [(DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min"), (SECOND_MS, "s")];
    let (length, unit) = units.into_iter().find(|(length, _)| milliseconds >= *length).unwrap_or((SECOND_MS, "s"));
    format!("{} {unit}", milliseconds / length)
}

/// How long something took, for a summary: `14 ms`, `1.9 s`, `4m12s`, `2h05m`.
pub(crate) fn took(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{}.{} s", seconds, milliseconds % 1_000 / 100),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let check = |passed_ms: i64, expected: &str| {
            assert_eq!(ago(Timestamp(1_000_000_000_000), Timestamp(1_000_000_000_000 + passed_ms)), expected);
        };
        check(0, "now");
        check(12_345, "12 s ago");
        check(6 * MINUTE_MS, "6 min ago");
        check(3 * HOUR_MS + 59 * MINUTE_MS, "3 h ago");
        check(9 * DAY_MS, "9 d ago");
        check(-2 * DAY_MS, "in 2 d");
    }

    #[test]
    fn durations_are_short() {
        let check = |milliseconds: u64, expected: &str| assert_eq!(took(milliseconds), expected);
        check(0, "0 ms");
        check(999, "999 ms");
        check(1_950, "1.9 s");
        check(252_000, "4m12s");
        check(7_500_000, "2h05m");
    }

    #[test]
    fn documents_carry_utc() {
        assert_eq!(rfc3339(Timestamp(1_795_000_000_123)), "2026-11-18T11:06:40.123Z");
        assert_eq!(rfc3339(Timestamp(i64::MAX)), "9999-12-30T22:00:00.999Z");
    }
}
