//! How large the parts of a long read should be, and how many bytes should be under way: pure.
//!
//! [`Sizing`] remembers what the last requests met, the time to their first byte and the rate of
//! their body. Parts are so long that the wait for their first byte is a small share of their life,
//! and so many are under way that together they can fill a fast network: few where one connection
//! is fast, many where the store limits each. Owns nothing but its numbers.

use std::collections::VecDeque;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Part sizes. A request costs a store and us some work, so a part of a long read is not small;
/// a longer one than the largest would only keep memory.
const LEAST_PART: u64 = 2 * MIB;
const LARGEST_PART: u64 = 8 * MIB;

/// Bytes under way: several parts at least.
const LEAST_DEPTH: u64 = 8 * LEAST_PART;

/// The body of a part should take this many times as long as the wait for its first byte.
const AMORTISED: u64 = 4;

/// Most parts under way for one reader, and most requests of one account.
pub const MOST_PARTS: u64 = 32;

/// What parts together should be able to bring, in bytes per second: a 10 Gbit/s network.
const AMBITION: u64 = 1_250_000_000;

/// Bytes per second of one connection before any body was long enough to tell.
const LIKELY_RATE: u64 = 100_000_000;

/// Parts that are asked for but not under way, as a share of those that are: they begin the moment
/// that others end.
const SPARE: u64 = 4;

/// How many answers are remembered.
const MEMORY: usize = 32;

/// Shorter bodies tell little about a connection's rate.
const TELLING: u64 = 512 << 10;

/// A connection is slow when it is this many times slower than its fellows.
const LAG: u64 = 8;

/// So many bodies make a usual rate.
const USUAL: usize = 4;

/// What follows from what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of one part of a long read.
    pub part: u64,
    /// Bytes that should be under way for one long read.
    pub depth: u64,
}

/// What the last requests of one account met.
#[derive(Debug, Clone, Default)]
pub struct Sizing {
    latencies: VecDeque<Duration>,
    /// Bytes per second of single bodies.
    rates: VecDeque<u64>,
}

impl Sizing {
    /// An answer began after `wait`.
    pub fn answered(&mut self, wait: Duration) {
        remember(&mut self.latencies, wait);
    }

    /// A body, or what came of it, took `time` for `bytes`.
    pub fn carried(&mut self, time: Duration, bytes: u64) {
        if bytes >= TELLING {
            let rate = u128::from(bytes) * 1_000_000 / time.as_micros().max(1);
            remember(&mut self.rates, u64::try_from(rate).unwrap_or(u64::MAX));
        }
    }

    /// How to cut and how far to look ahead now with `room` bytes of memory for it; before anything
    /// was seen, modestly.
    pub fn plan(&self, room: u64) -> Plan {
        // The quickest answer met no queue, the fastest body had the fewest neighbours.
        let latency = self.latencies.iter().min().copied();
        let rate = self.rates.iter().max().copied();
        let Some(latency) = latency else {
            return Plan {
                part: LEAST_PART,
                depth: LEAST_DEPTH,
            };
        };
        let rate = rate.unwrap_or(LIKELY_RATE);
        // Where memory is short, many short parts bring more than few long ones.
        let largest = (room / MOST_PARTS).clamp(LEAST_PART, LARGEST_PART);
        let part = bytes_in(latency, rate)
            .saturating_mul(AMORTISED)
            .clamp(LEAST_PART, largest)
            .next_multiple_of(MIB);
        // A part occupies its connection for the latency and for its body: together they bring the
        // ambition when as much is under way as it transfers in that time.
        let body = Duration::from_micros(
            u64::try_from(u128::from(part) * 1_000_000 / u128::from(rate.max(1)))
                .unwrap_or(u64::MAX),
        );
        let depth = bytes_in(latency.saturating_add(body), AMBITION);
        Plan {
            part,
            depth: depth
                .saturating_add(depth / SPARE)
                .clamp(LEAST_DEPTH, MOST_PARTS * part),
        }
    }

    /// The rate below which a connection is slow beside its fellows, in bytes per second; `None`
    /// before it is known what is usual.
    pub fn lagging(&self) -> Option<u64> {
        let mut rates: Vec<u64> = self.rates.iter().copied().collect();
        if rates.len() < USUAL {
            return None;
        }
        let middle = rates.len() / 2;
        let (_, median, _) = rates.select_nth_unstable(middle);
        Some(*median / LAG)
    }
}

fn remember<T>(recent: &mut VecDeque<T>, value: T) {
    if recent.len() == MEMORY {
        recent.pop_front();
    }
    recent.push_back(value);
}

/// Bytes that pass in `time` at `rate` bytes per second.
fn bytes_in(time: Duration, rate: u64) -> u64 {
    let bytes = time.as_micros().saturating_mul(u128::from(rate)) / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: u64 = 256 * MIB;

    /// After some answers that all came after `millis` at `rate` MB/s.
    fn seen(millis: f64, rate: u64) -> Sizing {
        let mut sizing = Sizing::default();
        for _ in 0..USUAL {
            sizing.answered(Duration::from_secs_f64(millis / 1e3));
            sizing.carried(Duration::from_secs(1), rate * 1_000_000);
        }
        sizing
    }

    #[test]
    fn a_near_and_fast_store_needs_few_small_parts() {
        let plan = seen(0.2, 1000).plan(ROOM);
        assert_eq!((plan.part, plan.depth), (LEAST_PART, LEAST_DEPTH));
    }

    #[test]
    fn latency_makes_parts_longer_and_more() {
        let near = seen(20.0, 50).plan(ROOM);
        assert_eq!(near.part, 4 * MIB);
        let far = seen(100.0, 50).plan(ROOM);
        assert_eq!(far.part, LARGEST_PART);
        assert!(far.depth > near.depth);
        // Sixteen connections of 50 MB/s are all busy.
        assert!(near.depth / near.part >= 16, "{near:?}");
    }

    #[test]
    fn the_depth_hides_the_latency() {
        for millis in [1.0, 20.0, 100.0] {
            for rate in [80, 200] {
                let plan = seen(millis, rate).plan(ROOM);
                let connections = plan.depth as f64 / plan.part as f64;
                let part = plan.part as f64 / 1e6;
                let each = part / (millis / 1e3 + part / rate as f64);
                assert!(
                    connections * each >= 1000.0,
                    "{millis} ms, {rate}: {plan:?}"
                );
            }
        }
    }

    #[test]
    fn before_a_rate_is_known_latency_alone_tells() {
        let mut sizing = Sizing::default();
        sizing.answered(Duration::from_millis(100));
        assert_eq!(
            sizing.plan(ROOM),
            seen(100.0, LIKELY_RATE / 1_000_000).plan(ROOM)
        );
    }

    #[test]
    fn short_memory_makes_parts_short() {
        let far = seen(100.0, 50);
        assert_eq!(far.plan(128 * MIB).part, 4 * MIB);
        assert_eq!(far.plan(0).part, LEAST_PART);
    }

    #[test]
    fn a_connection_lags_behind_what_is_usual() {
        assert_eq!(Sizing::default().lagging(), None);
        let mut sizing = seen(20.0, 80);
        assert_eq!(sizing.lagging(), Some(10_000_000));
        // One that is out of the usual changes little.
        sizing.carried(Duration::from_secs(100), MIB);
        assert_eq!(sizing.lagging(), Some(10_000_000));
        sizing.carried(Duration::from_millis(1), TELLING - 1);
        assert_eq!(sizing.plan(ROOM), seen(20.0, 80).plan(ROOM));
    }

    proptest! {
        /// Whatever was met, sizes stay within their bounds, and a longer way never means less.
        #[test]
        fn plans_are_bounded_and_monotonic(
            latency in 0u64..100_000_000,
            more in 0u64..100_000_000,
            time in 0u64..1_000_000_000,
            bytes in TELLING..u64::MAX,
        ) {
            let plan = |latency| {
                let mut sizing = Sizing::default();
                sizing.answered(Duration::from_micros(latency));
                sizing.carried(Duration::from_micros(time), bytes);
                sizing.plan(ROOM)
            };
            let (near, far) = (plan(latency), plan(latency + more));
            prop_assert!((LEAST_PART..=LARGEST_PART).contains(&near.part));
            prop_assert!(near.part % MIB == 0);
            prop_assert!(near.depth >= LEAST_DEPTH && near.depth <= MOST_PARTS * near.part);
            prop_assert!(far.part >= near.part && far.depth >= near.depth);
        }

        /// Old answers are forgotten.
        #[test]
        fn the_past_does_not_last(old in 1u64..10_000_000, new in 1u64..10_000_000) {
            let mut sizing = Sizing::default();
            sizing.answered(Duration::from_micros(old));
            sizing.carried(Duration::from_micros(old), 8 * MIB);
            let mut fresh = Sizing::default();
            for _ in 0..MEMORY {
                for sizing in [&mut sizing, &mut fresh] {
                    sizing.answered(Duration::from_micros(new));
                    sizing.carried(Duration::from_micros(new), 8 * MIB);
                }
            }
            prop_assert_eq!(sizing.plan(ROOM), fresh.plan(ROOM));
            prop_assert_eq!(sizing.lagging(), fresh.lagging());
        }
    }
}
