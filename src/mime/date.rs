//! The `Date` header (RFC 5322, sections 3.3 and 4.3).
//!
//! Own code, because mail-parser has no two-digit years without seconds and takes the dashes of `4-Mar-2026` for a
//! zone, and jiff's parser takes only what the standard allows.

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{Offset, TimeZone},
};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The time that a `Date` header gives. One without a zone is no time.
pub(crate) fn parse(value: &[u8]) -> Option<Timestamp> {
    let text = String::from_utf8_lossy(value.get(..value.len().min(200))?);
    let text = without_comments(&text);
    if let Ok(time) = text.trim().parse() {
        return Some(time);
    }
    let (mut day, mut month, mut year, mut time, mut zone) = (None, None, None, None, None);
    for token in text.split([' ', '\t', ',']).flat_map(split_date).filter(|token| !token.is_empty()) {
        if token.starts_with(['+', '-']) {
            zone = zone.or(Some(offset(token)?));
        } else if token.contains(':') && !token.starts_with(|c: char| c.is_ascii_alphabetic()) {
            time = time.or(Some(clock(token)?));
        } else if let Ok(number) = token.parse::<i16>() {
            match day {
                None if (1..=31).contains(&number) && token.len() <= 2 => day = Some(number as i8),
                _ => year = year.or(Some(full_year(number, token.len()))),
            }
        } else if month.is_none()
            && let Some(index) = MONTHS.iter().position(|m| token.to_ascii_lowercase().starts_with(m))
        {
            month = Some(index as i8 + 1);
        } else if time.is_some()
            && zone.is_none()
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-:".contains(&b))
        {
            zone = Some(named_zone(token));
        }
    }
    let (hour, minute, second) = time?;
    let local = DateTime::new(year?, month?, day?, hour, minute, second, 0).ok()?;
    let zone = TimeZone::fixed(Offset::from_seconds(zone?).ok()?);
    Some(local.to_zoned(zone).ok()?.timestamp())
}

fn without_comments(text: &str) -> String {
    let mut depth = 0_u32;
    let outside = text.chars().filter(|c| match c {
        '(' => {
            depth += 1;
            false
        }
        ')' => {
            depth = depth.saturating_sub(1);
            false
        }
        _ => depth == 0,
    });
    outside.collect()
}

/// `4-Mar-2026` is three tokens, `-0500` and `GMT-5` are one.
fn split_date(token: &str) -> impl Iterator<Item = &str> {
    let is_number = token.starts_with(|c: char| c.is_ascii_digit());
    let is_date = is_number && token.matches('-').count() == 2;
    // `16:22:40+0100`: the blank before the zone is missing.
    let zone = token.find(['+', '-']).filter(|_| is_number && token.contains(':'));
    let (first, second) = token.split_at(zone.unwrap_or(token.len()));
    first.split(move |c| is_date && c == '-').chain([second])
}

fn clock(token: &str) -> Option<(i8, i8, i8)> {
    let mut numbers = token.split(':').map(|n| n.split('.').next().unwrap_or_default().parse::<i8>().ok());
    let (hour, minute, second) = (numbers.next()??, numbers.next()??, numbers.next().unwrap_or(Some(0))?);
    // A leap second has no place in a timestamp.
    Some((hour, minute, if second == 60 { 59 } else { second }))
}

fn full_year(number: i16, digits: usize) -> i16 {
    match digits {
        // RFC 5322, section 4.3.
        ..=2 if number < 50 => number + 2000,
        ..=3 => number + 1900,
        _ => number,
    }
}

/// Seconds east of UTC in `+0100`, `+01:00` or `-5`.
fn offset(token: &str) -> Option<i32> {
    let (sign, digits) = token.split_at(1);
    let digits = digits.replace(':', "");
    let number: i32 = digits.parse().ok()?;
    let (hours, minutes) = if digits.len() > 2 { (number / 100, number % 100) } else { (number, 0) };
    // Nowhere on Earth is it later; a mistyped zone must not move the day.
    if hours > 15 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Some(if sign == "-" { -seconds } else { seconds })
}

/// Unknown names count as UTC (RFC 5322, section 4.3).
fn named_zone(token: &str) -> i32 {
    let token = token.to_ascii_uppercase();
    if let Some(rest) = token.strip_prefix("GMT").or_else(|| token.strip_prefix("UTC")).filter(|rest| rest.len() > 1) {
        return offset(rest).unwrap_or_default();
    }
    3600 * match token.as_str() {
        "EDT" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        "CET" | "MET" | "BST" | "WEST" => 1,
        "CEST" | "MEST" | "EET" => 2,
        "EEST" | "MSK" => 3,
        "JST" => 9,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_they_are_sent() {
        for (value, expected) in [
            ("Mon, 23 Feb 2026 16:22:40 +0100 (CET)", "2026-02-23T15:22:40Z"),
            ("Thu, 30 Apr 26 15:20:05 +0200", "2026-04-30T13:20:05Z"),
            ("3 Feb 2026 08:15 +0100", "2026-02-03T07:15:00Z"),
            ("Tue,3 Feb 26 08:15 GMT", "2026-02-03T08:15:00Z"),
            ("Tue, 12 May 2026 14:30:00 EST", "2026-05-12T19:30:00Z"),
            ("Tue, 12 May 2026 14:30:00 -0000", "2026-05-12T14:30:00Z"),
            ("12-May-2026 14:30:00 -0500", "2026-05-12T19:30:00Z"),
            ("Tue May 12 14:30:00 CEST 2026", "2026-05-12T12:30:00Z"),
            ("Tue, 12 May 2026 14:30:60 GMT+01:00", "2026-05-12T13:30:59Z"),
            ("2026-05-12T14:30:00+02:00", "2026-05-12T12:30:00Z"),
            ("01 Jan 2001 00:01+0000", "2001-01-01T00:01:00Z"),
            ("Fri, 1 Jan 99 00:00:00 Z", "1999-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse(value.as_bytes()).map(|t| t.to_string()).as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for value in [
            "",
            "yesterday",
            "1.1.2024",
            "12 May 2026 14:30:00",
            "32 May 2026 14:30:00 Z",
            "12 May 2026 +0100",
            "12 May 2026 25:00 Z",
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
    }
}
