//! How much of a link's life is left: arithmetic on instants of one clock. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A link is renewed this long before its end, or [`MARGIN_SHARE`] of its life if that is shorter.
pub(super) const LONGEST_MARGIN: SignedDuration = SignedDuration::from_secs(30);
/// The part of a link's life, as first seen, that is its margin: one in ten.
const MARGIN_SHARE: i32 = 10;

/// What time says about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// To be used.
    Good,
    /// Still usable, to be renewed now; `left` of its life remains.
    Ending {
        /// Not nothing.
        left: Duration,
    },
    /// Not to be used any more.
    Over,
}

/// Where a link obtained at `obtained` stands at `now`, both by the clock that wrote `expires`.
///
/// A link that was over when it came tells more about the clocks than about itself: it is used
/// until it is refused.
pub(super) fn standing(
    expires: Option<Timestamp>,
    obtained: Timestamp,
    now: Timestamp,
) -> Standing {
    let Some(expires) = expires else {
        return Standing::Good;
    };
    let life = expires.duration_since(obtained);
    let left = expires.duration_since(now);
    let margin = LONGEST_MARGIN.min(life / MARGIN_SHARE);
    if life <= SignedDuration::ZERO || left > margin {
        Standing::Good
    } else if left > SignedDuration::ZERO {
        Standing::Ending {
            left: left.unsigned_abs(),
        }
    } else {
        Standing::Over
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn margins_are_short_and_within_life(
            life in 1i64..1_000_000, at in 0i64..1_100_000
        ) {
            let obtained: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
            let time = |millis| obtained + SignedDuration::from_millis(millis);
            match standing(Some(time(life)), obtained, time(at)) {
                Standing::Good => prop_assert!(at < life),
                Standing::Ending { left } => {
                    prop_assert_eq!(left.as_millis() as i64, life - at);
                    prop_assert!(left.as_millis() as i64 <= (life / 10 + 1).min(30_000));
                }
                Standing::Over => prop_assert!(at >= life),
            }
        }
    }
}
