//! The arithmetic of retries: how long to wait, and when to stop. No I/O, no clock, no randomness.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// First and longest back-off after a passing failure.
const FAILURE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));
/// First and longest back-off after "slow down" without a Retry-After.
const THROTTLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(40));

/// The time that one operation may lose to failed attempts and to waiting, over all its calls.
#[derive(Debug, Clone)]
pub struct Budget {
    left: Duration,
}

impl Budget {
    /// A budget of `total`.
    pub fn new(total: Duration) -> Self {
        Budget { left: total }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// Counts time that a failed attempt took.
    pub fn lose(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// Whether something would be left after `wait`; an empty budget covers nothing.
    pub fn covers(&self, wait: Duration) -> bool {
        wait < self.left
    }

    /// Reserves `wait` if it is covered.
    #[must_use]
    pub fn afford(&mut self, wait: Duration) -> bool {
        let affordable = self.covers(wait);
        if affordable {
            self.left -= wait;
        }
        affordable
    }
}

/// Full-jitter back-off after the `failures`-th passing failure (from 0); `random` is in `0..1`.
pub fn backoff(failures: u32, random: f64) -> Duration {
    ceiling(FAILURE, failures).mul_f64(random.clamp(0.0, 1.0))
}

/// Back-off after the `failures`-th "slow down" that named no time: never less than half.
pub fn throttle_backoff(failures: u32, random: f64) -> Duration {
    ceiling(THROTTLE, failures).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

fn ceiling((first, longest): (Duration, Duration), failures: u32) -> Duration {
    first
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(longest)
}

/// A Retry-After value: seconds, or a date compared with `now` (RFC 9110, 10.2.3). `None` if it is
/// neither; a date in the past is no wait.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let wait = http_date(value)?.duration_since(now);
    Some(wait.try_into().unwrap_or(Duration::ZERO))
}

/// An HTTP date in its preferred form (RFC 9110, 5.6.7).
pub fn http_date(value: &str) -> Option<Timestamp> {
    DateTimeParser::new()
        .relaxed_weekday(true)
        .parse_timestamp(value.trim())
        .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retry_after_takes_seconds_and_dates() {
        let now: Timestamp = "2026-01-05T14:00:00Z".parse().unwrap();
        let wait = |value| retry_after(value, now);
        assert_eq!(wait("0"), Some(Duration::ZERO));
        assert_eq!(wait(" 55 "), Some(Duration::from_secs(55)));
        assert_eq!(wait("86400"), Some(Duration::from_secs(86_400)));
        assert_eq!(
            wait("99999999999999999999999"),
            Some(Duration::from_secs(u64::MAX))
        );
        assert_eq!(
            wait("Mon, 05 Jan 2026 14:00:30 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(wait("Mon, 05 Jan 2026 13:00:00 GMT"), Some(Duration::ZERO));
        for garbage in ["", "soon", "-1", "1.5", "10 s"] {
            assert_eq!(wait(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_budget_ends() {
        let mut budget = Budget::new(Duration::from_secs(3));
        assert!(!budget.afford(Duration::from_secs(3)));
        assert!(budget.afford(Duration::from_secs(2)));
        budget.lose(Duration::from_secs(5));
        assert!(!budget.afford(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_ceiling(failures in 0_u32..100, random in 0.0..1.0) {
            let wait = backoff(failures, random);
            prop_assert!(wait <= FAILURE.1);
            prop_assert!(wait <= FAILURE.0.saturating_mul(2_u32.saturating_pow(failures)));
            let wait = throttle_backoff(failures, random);
            prop_assert!(wait >= THROTTLE.0 / 2 && wait <= THROTTLE.1);
        }

        #[test]
        fn any_retry_after_is_survived(value in ".{0,40}") {
            let _ = retry_after(&value, Timestamp::UNIX_EPOCH);
        }

        #[test]
        fn a_budget_never_affords_more_than_it_held(waits in proptest::collection::vec(0_u64..50, 0..50)) {
            let mut budget = Budget::new(Duration::from_secs(60));
            let spent: u64 = waits
                .into_iter()
                .filter(|wait| budget.afford(Duration::from_secs(*wait)))
                .sum();
            prop_assert!(spent < 60);
        }
    }
}
