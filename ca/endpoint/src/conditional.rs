//! Conditional requests, RFC 9110 §13: a cache asks whether what it has is still right.

use hyper::header::{HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use sallyport_ca::UnixTime;

const DAY: i64 = 86_400;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// 1970-01-01 was a Thursday.
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// Whether whoever asks has what has this tag and was made then. With a tag the date does not count (RFC 9110 §13.2.2).
pub(crate) fn is_fresh(asked: &HeaderMap, tag: &str, made: UnixTime) -> bool {
    if asked.contains_key(IF_NONE_MATCH) {
        // The weak comparison, §8.8.3.2: `W/` does not count.
        let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let mut tags = asked.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        return tags.any(|t| t.trim() == "*" || bare(t) == bare(tag));
    }
    let since = asked.get(IF_MODIFIED_SINCE).and_then(|v| v.to_str().ok()).and_then(parse_http_date);
    made.0 != 0 && since.is_some_and(|since| made <= since)
}

/// An IMF-fixdate, RFC 9110 §5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn http_date(time: UnixTime) -> String {
    let (days, second) = (time.0.div_euclid(DAY), time.0.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let name = |names: &[&'static str], at: i64| names.get(usize::try_from(at).unwrap_or(0)).copied().unwrap_or("");
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, days.rem_euclid(7)),
        name(&MONTHS, month - 1),
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// Reads what [`http_date`] writes. The two obsolete forms are not read: then the whole list is sent.
fn parse_http_date(text: &str) -> Option<UnixTime> {
    let mut parts = text.split_whitespace().skip(1);
    let day: i64 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|m| *m == month)?).ok()? + 1;
    let year: i64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(|n| n.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let usual = (1970..=9999).contains(&year)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    let end = parts.next() == Some("GMT") && parts.next().is_none() && clock.next().is_none();
    (usual && end).then(|| UnixTime(days_from_civil(year, month, day) * DAY + hour * 3_600 + minute * 60 + second))
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the day that is sometimes there is the last.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_date_of_rfc_9110_and_the_days_around_a_29th_of_february() {
        for (time, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(UnixTime(time)), text);
            assert_eq!(parse_http_date(text), Some(UnixTime(time)));
        }
        for text in ["", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 8 GMT"] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_kept_is_fresh_by_its_tag_or_else_by_its_date() {
        let made = UnixTime(784_111_777);
        let fresh = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
            is_fresh(&headers, "W/\"a1\"", made)
        };
        assert!(!fresh(&[]));
        for tag in ["W/\"a1\"", "\"a1\"", "\"x\", W/\"a1\"", "*"] {
            assert!(fresh(&[("if-none-match", tag)]), "{tag}");
        }
        assert!(!fresh(&[("if-none-match", "\"x\""), ("if-modified-since", "Sun, 06 Nov 2094 08:49:37 GMT")]));
        assert!(fresh(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")]));
        assert!(!fresh(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")]));
        assert!(!fresh(&[("if-modified-since", "yesterday")]));
    }

    proptest! {
        #[test]
        fn dates_read_back_and_nothing_panics(time in 0_i64..253_402_300_799, text in ".{0,60}") {
            prop_assert_eq!(parse_http_date(&http_date(UnixTime(time))), Some(UnixTime(time)));
            let _ = parse_http_date(&text);
        }
    }
}
