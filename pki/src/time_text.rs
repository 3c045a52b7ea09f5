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

/// Whole days from `now` to `end`, counted in whole seconds as certificates do; negative afterwards.
#[must_use]
pub fn days_left(end: Timestamp, now: Timestamp) -> i64 {
    seconds(end).saturating_sub(seconds(now)).div_euclid(DAY_MS / 1000)
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
    fn a_new_certificate_has_all_its_days() {
        let now = Timestamp(1_795_222_037_999);
        let end = |days: i64| Timestamp(1_795_222_037_000 + days * DAY_MS);
        assert_eq!([end(365), end(0), end(-1)].map(|end| days_left(end, now)), [365, 0, -1]);
        assert_eq!(days_left(end(365), now.plus_ms(1)), 364);
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(utc(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(utc(Timestamp(1_795_222_037_999)), "2026-11-21T00:47:17Z");
        assert_eq!(utc(Timestamp(i64::MAX)), "9999-12-31T23:59:59Z");
    }
}
