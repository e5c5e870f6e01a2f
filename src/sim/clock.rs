//! The simulated clouds' time of day: the machine's clock plus an offset that tests move.
//!
//! Links, jobs, nonces and rate limits all expire by this clock, so "four hours later" is one call
//! instead of a wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;

/// A clock that can be moved. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct SimClock {
    offset_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// Moves the clock by `by`, backwards when negative.
    pub fn advance(&self, by: SignedDuration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.offset_ms.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let offset = SignedDuration::from_millis(self.offset_ms.load(Ordering::SeqCst));
        let now = Timestamp::now();
        now.checked_add(offset).unwrap_or(now)
    }
}

/// `2026-01-05T14:00:00Z`: ISO 8601 in UTC with whole seconds, as the clouds write it.
pub(super) fn iso_seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `Mon, 05 Jan 2026 14:00:00 GMT`: the date format of HTTP headers (RFC 9110, section 5.6.7).
pub(super) fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_shared_by_clones_and_goes_both_ways() {
        let clock = SimClock::default();
        let other = clock.clone();
        clock.advance(SignedDuration::from_hours(4));
        assert!(other.now() > Timestamp::now() + SignedDuration::from_mins(239));
        other.advance(SignedDuration::from_hours(-8));
        assert!(clock.now() < Timestamp::now() - SignedDuration::from_mins(239));
    }

    #[test]
    fn dates_have_the_documented_forms() {
        let at: Timestamp = "2026-01-05T14:00:00.987Z".parse().unwrap();
        assert_eq!(iso_seconds(at), "2026-01-05T14:00:00Z");
        assert_eq!(http_date(at), "Mon, 05 Jan 2026 14:00:00 GMT");
    }
}
