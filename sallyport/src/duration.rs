//! Lengths of time as people type them.

use std::time::Duration;

/// `90s`, `15m`, `2h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and one of s, m, h, d, such as 15m or 7d".to_owned();
    let (split, unit) = text.char_indices().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// The same in whole days, at least one.
pub(crate) fn parse_days(text: &str) -> Result<u32, String> {
    let days = parse_duration(text)?.as_secs() / 86_400;
    match u32::try_from(days) {
        Ok(0) | Err(_) => Err("write a number of days, such as 30d".to_owned()),
        Ok(days) => Ok(days),
    }
}

/// A length in its two largest units: `2h 13m`.
pub(crate) fn show_seconds(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_make_a_length() {
        for (text, secs) in [("0s", 0), ("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(secs)));
        }
        for wrong in ["", "7", "d", "-1d", "1.5h", "7w", "18446744073709551615d", "7é"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_length_is_shown_in_two_units() {
        for (secs, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (8_000, "2h 13m"), (90_000, "1d 1h")] {
            assert_eq!(show_seconds(secs), text);
        }
    }

    #[test]
    fn days_are_whole() {
        assert_eq!(parse_days("30d"), Ok(30));
        assert_eq!(parse_days("48h"), Ok(2));
        assert!(parse_days("3h").is_err());
    }
}
