//! The `Range` header as object stores read it (RFC 9110, section 14): pure.
//!
//! A header that is malformed, in another unit, or of several ranges is ignored and the whole
//! object is sent, which is what S3 and its like do.

use std::ops::Range;

/// What a request wants of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: 200.
    Whole,
    /// These bytes, at least one: 206.
    Part(Range<u64>),
    /// Bytes that are not there: 416.
    Unsatisfiable,
}

/// What `header` wants of an object of `size` bytes.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = header
        .and_then(|h| h.trim().strip_prefix("bytes="))
        .and_then(|set| set.trim().split_once('-'))
    else {
        return Wanted::Whole;
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(length)) if first.is_empty() => size.saturating_sub(length)..size,
        _ => return Wanted::Whole,
    };
    if range.is_empty() {
        Wanted::Unsatisfiable
    } else {
        Wanted::Part(range)
    }
}

/// Decimal digits only; a number too large for `u64` is beyond every object all the same.
fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form() {
        use Wanted::*;
        for (header, size, expected) in [
            (None, 10, Whole),
            (Some("bytes=0-0"), 10, Part(0..1)),
            (Some("bytes=2-5"), 10, Part(2..6)),
            (Some("bytes=2-500"), 10, Part(2..10)),
            (Some("bytes=9-"), 10, Part(9..10)),
            (Some("bytes=-3"), 10, Part(7..10)),
            (Some("bytes=-30"), 10, Part(0..10)),
            (Some("bytes=10-"), 10, Unsatisfiable),
            (Some("bytes=10-20"), 10, Unsatisfiable),
            (Some("bytes=-0"), 10, Unsatisfiable),
            (Some("bytes=0-0"), 0, Unsatisfiable),
            (Some("bytes=0-"), 0, Unsatisfiable),
            (Some("bytes=-1"), 0, Unsatisfiable),
            (Some("bytes=99999999999999999999999-"), 10, Unsatisfiable),
            (Some("bytes=0-99999999999999999999999"), 10, Part(0..10)),
            (Some("bytes=5-2"), 10, Whole),
            (Some("bytes=0-1,4-5"), 10, Whole),
            (Some("bytes=-"), 10, Whole),
            (Some("bytes=a-b"), 10, Whole),
            (Some("bytes=+1-2"), 10, Whole),
            (Some("items=0-1"), 10, Whole),
            (Some("bytes 0-1"), 10, Whole),
        ] {
            assert_eq!(wanted(header, size), expected, "{header:?} of {size}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_past_the_end(a: u64, b: u64, size: u64) {
            for header in [format!("bytes={a}-{b}"), format!("bytes={a}-"), format!("bytes=-{a}")] {
                if let Wanted::Part(range) = wanted(Some(&header), size) {
                    prop_assert!(range.start < range.end && range.end <= size);
                }
            }
        }
    }
}
