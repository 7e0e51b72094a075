//! INTERNALDATE: `"17-Jul-1996 02:44:25 -0700"`.

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::Offset;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The moment, or `None` where the text is no date. The day may have one digit or a blank in front.
pub(crate) fn parse(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (date, time) = (words.next()?, words.next()?);
    let zone = words.next().unwrap_or("+0000");
    let mut date = date.splitn(3, '-');
    let day: i8 = date.next()?.parse().ok()?;
    let month = date.next()?.to_ascii_lowercase();
    let month = MONTHS.iter().position(|name| *name == month)? as i8 + 1;
    let year: i16 = date.next()?.parse().ok()?;
    let mut time = time.splitn(3, ':');
    let hour: i8 = time.next()?.parse().ok()?;
    let minute: i8 = time.next()?.parse().ok()?;
    // A leap second has no place in a timestamp.
    let second: i8 = time.next()?.parse::<i8>().ok()?.min(59);
    let local = civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    offset(zone)?.to_timestamp(local).ok()
}

fn offset(zone: &str) -> Option<Offset> {
    let (sign, digits) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return Some(Offset::UTC),
    };
    let digits: i32 = digits.parse().ok()?;
    Offset::from_seconds(sign * ((digits / 100) * 3600 + (digits % 100) * 60)).ok()
}

/// A date for SEARCH, which knows days only.
pub(crate) fn search_day(at: Timestamp) -> String {
    let date = Offset::UTC.to_datetime(at).date();
    let month = MONTHS[date.month() as usize - 1];
    format!("{}-{}{}-{:04}", date.day(), month[..1].to_ascii_uppercase(), &month[1..], date.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn dates() {
        let expected = at("1996-07-17T09:44:25Z");
        for text in ["17-Jul-1996 02:44:25 -0700", "17-JUL-1996 11:44:25 +0200", "17-Jul-1996 09:44:25"] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
        assert_eq!(parse(b" 7-Jul-1996 00:00:60 +0000"), Some(at("1996-07-07T00:00:59Z")));
        assert_eq!(parse(b"7-Jul-1996 00:00:00 +0530"), Some(at("1996-07-06T18:30:00Z")));
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "NIL",
            "32-Jan-2020 00:00:00 +0000",
            "1-Foo-2020 00:00:00 +0000",
            "1-Jan-2020",
            "1-Jan-2020 1:2 +0000",
            "1-Jan-2020 00:00:00 +9999999",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"\xff\xfe"), None);
    }

    #[test]
    fn search_days() {
        assert_eq!(search_day(at("2026-01-05T23:59:59Z")), "5-Jan-2026");
    }
}
