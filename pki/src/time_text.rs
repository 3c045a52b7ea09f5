//! Times as people and JSON readers see them.

use muster_protocol::Timestamp;
use time::OffsetDateTime;

/// Milliseconds of one day.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The time in RFC 3339, UTC, whole seconds: `2026-11-21T00:47:17Z`.
#[must_use]
pub fn utc(at: Timestamp) -> String {
    let at = date(at);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// The calendar form, cut to whole seconds and clamped to what the calendar can hold.
pub(crate) fn date(at: Timestamp) -> OffsetDateTime {
    let seconds = at.as_millis().div_euclid(1000).clamp(0, 253_402_300_799);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Whole seconds since the epoch, as certificates count.
pub(crate) fn seconds(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(utc(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(utc(Timestamp(1_795_222_037_999)), "2026-11-21T00:47:17Z");
        assert_eq!(utc(Timestamp(i64::MAX)), "9999-12-31T23:59:59Z");
    }
}
