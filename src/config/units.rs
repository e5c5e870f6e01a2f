//! How durations, sizes and permission bits are written. Pure.
//!
//! Each reader takes the whole text and answers what it would have accepted when it refuses, so
//! that the caller only has to say where the text stood.

use std::time::Duration;

/// A duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "expected a duration such as `500ms`, `10s`, `5m`, `2h` or `1d`";
    let (number, unit) = split(text).ok_or(EXPECTED)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(EXPECTED),
    };
    number
        .checked_mul(milliseconds)
        .filter(|&total| total <= LONGEST_MS)
        .map(Duration::from_millis)
        .ok_or("expected a duration of at most ten years")
}

/// Ten years: beyond it arithmetic with timestamps could overflow, and nobody means it.
const LONGEST_MS: u64 = 10 * 366 * 86_400_000;

/// `duration` as [`duration()`] reads it, in the largest unit that divides it.
pub fn show_duration(duration: Duration) -> String {
    let total = duration.as_millis();
    for (unit, milliseconds) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ] {
        if total > 0 && total.is_multiple_of(milliseconds) {
            return format!("{}{unit}", total / milliseconds);
        }
    }
    format!("{total}ms")
}

/// A size in bytes: a whole number and one of `B`, `KB` … `TB` (powers of 1000), `KiB` … `TiB`
/// (powers of 1024).
pub fn size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected a size such as `64MiB`, `50GiB` or `500MB`";
    let (number, unit) = split(text).ok_or(EXPECTED)?;
    let bytes = SIZE_UNITS
        .iter()
        .find_map(|&(name, bytes)| (name == unit).then_some(bytes))
        .ok_or(EXPECTED)?;
    number
        .checked_mul(bytes)
        .filter(|&total| total <= i64::MAX as u64)
        .ok_or("expected a size below 8388608TiB")
}

/// `bytes` as [`size`] reads it, in the largest binary unit that divides it.
pub fn show_size(bytes: u64) -> String {
    for (name, unit) in SIZE_UNITS
        .iter()
        .rev()
        .filter(|(_, unit)| unit.is_power_of_two())
    {
        if bytes > 0 && bytes.is_multiple_of(*unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

/// About how many bytes, in at most four digits and a unit: `1023B`, `1.5GiB`, `12TiB`.
pub fn short_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    // Tenths of the unit, rounded, so that 1023.96KiB becomes 1.0MiB.
    let mut tenths = (u128::from(bytes) * 10 + 512) / 1024;
    let mut unit = 0;
    while tenths >= 10240 - 5 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    if tenths < 100 {
        format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{}{}", (tenths + 5) / 10, UNITS[unit])
    }
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Permission bits in octal: `0400`.
pub fn mode(text: &str) -> Result<u16, &'static str> {
    const EXPECTED: &str = "expected octal permission bits such as `0400`";
    if !(3..=4).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(EXPECTED);
    }
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|&bits| bits <= 0o777)
        .ok_or(EXPECTED)
}

/// `12GiB` is 12 and `GiB`.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("0s", 0),
            ("10s", 10_000),
            ("1m", 60_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for bad in [
            "",
            "10",
            "s",
            "-1s",
            "1.5h",
            "10 s",
            "10S",
            "1h30m",
            "99999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0B", 0),
            ("1KB", 1000),
            ("64MiB", 64 << 20),
            ("50GiB", 50 << 30),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "50",
            "50G",
            "-1B",
            "1.5GiB",
            "50 GiB",
            "50gib",
            "9999999999TiB",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(show_size(50 << 30), "50GiB");
        assert_eq!(show_size(0), "0B");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            (10 * 1024, "10KiB"),
            ((1 << 20) - 1, "1.0MiB"),
            (20 << 20, "20MiB"),
            (3 << 29, "1.5GiB"),
            (u64::MAX, "16EiB"),
        ] {
            assert_eq!(short_size(bytes), text);
        }
    }

    #[test]
    fn modes() {
        assert_eq!(mode("0400"), Ok(0o400));
        assert_eq!(mode("755"), Ok(0o755));
        for bad in ["", "4", "0800", "4755", "+400", "0o40", "r--"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_the_same(number in 0u64..300_000_000) {
            let time = Duration::from_millis(number);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(size(&show_size(number)), Ok(number));
        }

        #[test]
        fn no_size_is_long(bytes in any::<u64>()) {
            prop_assert!(short_size(bytes).len() <= 7);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (duration(&text).is_ok(), size(&text).is_ok(), mode(&text).is_ok());
        }
    }
}
