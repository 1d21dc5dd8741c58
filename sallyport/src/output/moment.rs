//! Points and lengths of time as text.

use std::time::Duration;

use sallyport_base::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339 in UTC, for example `2026-11-22T15:53:00Z`; empty for zero, which means "never" in our records.
pub(crate) fn rfc3339(at: UnixTime) -> String {
    if at.0 == 0 {
        return String::new();
    }
    OffsetDateTime::from_unix_timestamp(at.0)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_else(|| at.0.to_string())
}

/// How long ago `at` was, in one or two units: `3d4h`, `12m`, `5s`; empty for zero.
pub(crate) fn age(at: UnixTime, now: UnixTime) -> String {
    if at.0 == 0 {
        return String::new();
    }
    duration(Duration::from_secs(u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0)))
}

/// A length of time in its two largest units.
pub(crate) fn duration(length: Duration) -> String {
    let secs = length.as_secs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 if secs.is_multiple_of(60) => format!("{minutes}m"),
        60..3600 => format!("{minutes}m{}s", secs % 60),
        3600..86_400 if minutes == 0 => format!("{hours}h"),
        3600..86_400 => format!("{hours}h{minutes}m"),
        _ if hours == 0 => format!("{days}d"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_at_most_two_units() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m1s"),
            (3600, "1h"),
            (3661, "1h1m"),
            (86_400, "1d"),
            (90_061, "1d1h"),
            (30 * 86_400, "30d"),
        ] {
            assert_eq!(duration(Duration::from_secs(secs)), text);
        }
    }

    #[test]
    fn points_are_rfc_3339_and_zero_is_never() {
        assert_eq!(rfc3339(UnixTime(0)), "");
        assert_eq!(rfc3339(UnixTime(1_795_362_780)), "2026-11-22T15:53:00Z");
        assert_eq!(rfc3339(UnixTime(i64::MAX)), i64::MAX.to_string());
    }

    #[test]
    fn a_clock_that_runs_behind_shows_no_negative_age() {
        assert_eq!(age(UnixTime(100), UnixTime(40)), "0s");
        assert_eq!(age(UnixTime(40), UnixTime(100)), "1m");
        assert_eq!(age(UnixTime(0), UnixTime(100)), "");
    }
}
