//! When a backup was made, by what its name says. Pure.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The first time within `name`, in UTC unless it says otherwise: `2026-01-05T14:00:00Z`,
/// `20260105_140000`, `2026-01-05-14-00`, `dump-20260105`, or seconds or milliseconds since 1970
/// that stand alone.
pub(super) fn of_name(name: &str) -> Option<Timestamp> {
    let starts = (0..name.len()).filter(|&at| {
        let digit = |at: usize| name.as_bytes()[at].is_ascii_digit();
        digit(at) && (at == 0 || !digit(at - 1))
    });
    let mut rests = starts.map(|at| &name[at..]);
    rests.find_map(|rest| calendar(rest).or_else(|| since_epoch(rest)))
}

/// Reads numbers of a fixed width, separated or not.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    /// The next `width` digits.
    fn number(&mut self, width: usize) -> Option<i16> {
        let (digits, rest) = self.0.split_at_checked(width)?;
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        self.0 = all_digits.then_some(rest)?;
        digits.parse().ok()
    }

    /// Skips one of `marks`, if it comes next.
    fn skip(&mut self, marks: &[char]) -> bool {
        let rest = self.0.strip_prefix(marks);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn ends_number(&self) -> bool {
        !self.0.starts_with(|next: char| next.is_ascii_digit())
    }

    /// Two digits behind an optional mark.
    fn part(&mut self, marks: &[char]) -> Option<i8> {
        self.skip(marks);
        self.number(2)?.try_into().ok()
    }
}

fn calendar(text: &str) -> Option<Timestamp> {
    const BETWEEN: &[char] = &['-', '_', '.'];
    const WITHIN: &[char] = &[':', '-', '_', '.'];
    let mut reader = Reader(text);
    let year = reader
        .number(4)
        .filter(|year| (1970..2200).contains(year))?;
    let (month, day) = (reader.part(BETWEEN)?, reader.part(BETWEEN)?);
    let midnight = DateTime::new(year, month, day, 0, 0, 0, 0).ok()?;
    let utc = |time: DateTime| Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp());

    let mut clock = Reader(reader.0);
    clock.skip(&['T', 't', '_', '-', ' ', '.']);
    let time = clock.part(&[]).zip(clock.part(WITHIN));
    let Some((hour, minute)) = time else {
        return reader.ends_number().then(|| utc(midnight))?;
    };
    let mut seconds = Reader(clock.0);
    let second = seconds.part(WITHIN);
    let (second, rest) = match second {
        Some(second) => (second, seconds),
        None => (0, clock),
    };
    let known = DateTime::new(year, month, day, hour, minute, second, 0);
    match known {
        Ok(time) if rest.ends_number() => offset(rest.0, utc(time)?),
        _ => reader.ends_number().then(|| utc(midnight))?,
    }
}

/// `time`, which was written with the offset that `rest` begins with. One behind a minus would be
/// taken for the next part of the name.
fn offset(rest: &str, time: Timestamp) -> Option<Timestamp> {
    let Some(rest) = rest.strip_prefix('+') else {
        return Some(time);
    };
    let mut reader = Reader(rest);
    let (Some(hours), Some(minutes)) = (reader.part(&[]), reader.part(&[':'])) else {
        return Some(time);
    };
    let ahead = SignedDuration::from_mins(i64::from(hours) * 60 + i64::from(minutes));
    time.checked_sub(ahead).ok()
}

/// Ten digits are seconds, thirteen milliseconds.
fn since_epoch(text: &str) -> Option<Timestamp> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let digits = &text[..end.unwrap_or(text.len())];
    let number = digits.parse().ok()?;
    match digits.len() {
        10 => Timestamp::from_second(number).ok(),
        13 => Timestamp::from_millisecond(number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_found_in_names() {
        for (name, time) in [
            ("2026-01-05T14:00:00Z", "2026-01-05T14:00:00Z"),
            ("2026-01-05T14:00:00", "2026-01-05T14:00:00Z"),
            ("2026-01-05T14-00-07Z", "2026-01-05T14:00:07Z"),
            ("2026-01-05T14:00:00+08:00", "2026-01-05T06:00:00Z"),
            ("20260105T140000Z", "2026-01-05T14:00:00Z"),
            ("20260105_140000", "2026-01-05T14:00:00Z"),
            ("20260105140000", "2026-01-05T14:00:00Z"),
            ("2026-01-05_14-30", "2026-01-05T14:30:00Z"),
            ("dump-2026.01.05", "2026-01-05T00:00:00Z"),
            ("rs0-20260105-daily", "2026-01-05T00:00:00Z"),
            ("v7_20260105-1430.full", "2026-01-05T14:30:00Z"),
            ("2026-01-05-1", "2026-01-05T00:00:00Z"),
            ("2026-01-05T99:99", "2026-01-05T00:00:00Z"),
            ("1767621600", "2026-01-05T14:00:00Z"),
            ("snap-1767621600123", "2026-01-05T14:00:00.123Z"),
        ] {
            let found = of_name(name).map(|time| time.to_string());
            assert_eq!(found.as_deref(), Some(time), "{name}");
        }
        for name in [
            "",
            "weekly",
            "7",
            "2026",
            "20261305",
            "99990101",
            "123456789012",
            "é2026-0",
        ] {
            assert_eq!(of_name(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_second_is_found_again(second in 0i64..7_000_000_000, before in "[a-z-]{0,5}") {
            let time = Timestamp::from_second(second).unwrap();
            let compact = time.strftime("%Y%m%dT%H%M%SZ");
            prop_assert_eq!(of_name(&format!("{before}{time}")), Some(time));
            prop_assert_eq!(of_name(&format!("{before}{compact}")), Some(time));
        }

        #[test]
        fn no_name_is_too_strange(name in ".{0,40}") {
            of_name(&name);
        }
    }
}
