//! Back-off, budget and pace: how long to wait, when to give up, what is too slow. Pure.
//!
//! Time comes in as durations since the caller's own start, randomness as a number.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// The first retry waits at most this long, each further one up to twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// No retry waits longer, unless the peer asks for it.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// A random wait between nothing and `min(5 s, 50 ms * 2^attempt)`: exponential back-off with full
/// jitter, so that parts that failed together do not come back together. `random` is uniform.
pub fn backoff(attempt: u32, random: u32) -> Duration {
    let ceiling = FIRST_DELAY
        .saturating_mul(1 << attempt.min(16))
        .min(LONGEST_DELAY);
    let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
    // The product of two numbers below 2^32 and 2^23 fits.
    Duration::from_micros((micros * u64::from(random)) >> 32)
}

/// The wait that a `Retry-After` header asks for: delay-seconds or an HTTP date (RFC 9110 10.2.3).
/// A date in the past asks for no wait; anything else is ignored.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number holds still mean: not today.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = http_date(value)?;
    Some(until.duration_since(now).try_into().unwrap_or_default())
}

/// The instant an HTTP date names (IMF-fixdate, RFC 9110 5.6.7).
pub fn http_date(value: &str) -> Option<Timestamp> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    PARSER.parse_timestamp(value).ok()
}

/// How long one part keeps trying: its retry budget counts time without progress.
#[derive(Debug, Clone)]
pub struct Patience {
    budget: Duration,
    /// So many bytes are progress. One byte per connection is not.
    progress: u64,
    since: Duration,
    gained: u64,
    attempt: u32,
}

impl Patience {
    /// Gives up after `budget` in which fewer than `progress` bytes came.
    pub fn new(budget: Duration, progress: u64) -> Self {
        Patience {
            budget,
            progress: progress.max(1),
            since: Duration::ZERO,
            gained: 0,
            attempt: 0,
        }
    }

    /// `bytes` arrived at `at`.
    pub fn gained(&mut self, at: Duration, bytes: u64) {
        self.attempt = 0;
        self.gained = self.gained.saturating_add(bytes);
        if self.gained >= self.progress {
            self.gained = 0;
            self.since = at;
        }
    }

    /// A try failed at `at`: how long to wait before the next, or `None` to give up. `asked` is
    /// the peer's Retry-After; one that reaches beyond the budget is a reason to give up now.
    pub fn failed(
        &mut self,
        at: Duration,
        asked: Option<Duration>,
        random: u32,
    ) -> Option<Duration> {
        let wait = backoff(self.attempt, random).max(asked.unwrap_or_default());
        self.attempt = self.attempt.saturating_add(1);
        let spent = at.saturating_sub(self.since);
        (spent.saturating_add(wait) < self.budget).then_some(wait)
    }
}

/// The minimum-throughput rule: an idle timer alone is defeated by a byte every few seconds.
///
/// Only time spent waiting for the peer counts; a reader that takes its time does not make the
/// peer slow.
#[derive(Debug, Clone)]
pub struct Pace {
    floor: u64,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Slow is: fewer than `min_rate` bytes per second over `window` of waiting.
    pub fn new(min_rate: u64, window: Duration) -> Self {
        let floor = u128::from(min_rate) * window.as_millis() / 1000;
        Pace {
            floor: u64::try_from(floor).unwrap_or(u64::MAX),
            window,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// `bytes` came after `wait`; whether that was too slow.
    pub fn is_slow(&mut self, wait: Duration, bytes: u64) -> bool {
        self.waited = self.waited.saturating_add(wait);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < self.window {
            return false;
        }
        let slow = self.bytes < self.floor;
        self.waited = Duration::ZERO;
        self.bytes = 0;
        slow
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn case_28_retry_after_in_all_its_forms() {
        let table = [
            ("0", Some(0)),
            ("10", Some(10)),
            (" 86400 ", Some(86400)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 22 Nov 2026 12:00:30 GMT", Some(30)),
            ("Sun, 22 Nov 2026 11:00:00 GMT", Some(0)),
            ("Mon, 22 Nov 2026 12:00:30 GMT", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("soon", None),
        ];
        for (value, seconds) in table {
            let want = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(value, now()), want, "{value:?}");
        }
    }

    #[test]
    fn a_long_retry_after_gives_up_at_once() {
        let mut patience = Patience::new(Duration::from_secs(120), 1);
        let day = Some(Duration::from_secs(86400));
        assert_eq!(patience.failed(Duration::ZERO, day, 0), None);
        let ten = Some(Duration::from_secs(10));
        assert_eq!(patience.failed(Duration::ZERO, ten, 0), ten);
    }

    #[test]
    fn the_budget_counts_time_without_progress() {
        let minute = Duration::from_secs(60);
        let mut patience = Patience::new(2 * minute, 100);
        assert!(patience.failed(minute, None, 0).is_some());
        assert!(patience.failed(2 * minute, None, 0).is_none());
        patience.gained(2 * minute, 99);
        assert!(patience.failed(2 * minute, None, 0).is_none(), "too little");
        patience.gained(2 * minute, 1);
        assert!(patience.failed(3 * minute, None, 0).is_some());
        assert!(patience.failed(4 * minute, None, 0).is_none());
    }

    #[test]
    fn case_17_a_byte_now_and_then_is_slow_a_slow_reader_is_not() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(16 << 10, 30 * second);
        assert!(!pace.is_slow(15 * second, 1));
        assert!(pace.is_slow(15 * second, 1));
        assert!(!pace.is_slow(15 * second, 300 << 10));
        assert!(!pace.is_slow(15 * second, 300 << 10));
        for _ in 0..1000 {
            assert!(!pace.is_slow(Duration::ZERO, 1));
        }
    }

    proptest! {
        #[test]
        fn waits_stay_below_their_ceiling(attempt in any::<u32>(), random in any::<u32>()) {
            let wait = backoff(attempt, random);
            prop_assert!(wait <= LONGEST_DELAY);
            prop_assert!(wait <= FIRST_DELAY.saturating_mul(1 << attempt.min(16)));
        }

        #[test]
        fn patience_always_ends(budget in 0u64..1000, steps in prop::collection::vec(any::<u32>(), 0..50)) {
            let budget = Duration::from_secs(budget);
            let mut patience = Patience::new(budget, 1);
            let mut at = Duration::ZERO;
            for random in steps {
                match patience.failed(at, None, random) {
                    Some(wait) => at += wait,
                    None => break,
                }
                prop_assert!(at < budget);
            }
        }

        #[test]
        fn retry_after_never_panics(value in ".{0,60}") {
            let _ = retry_after(&value, now());
        }
    }
}
