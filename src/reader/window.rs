//! How far ahead of a reader to ask: pure arithmetic, no I/O, no clock.
//!
//! A [`Window`] belongs to one reader that moves towards higher offsets. It opens with as much as
//! the reader has proven to want, grows when the reader had to wait, and shrinks when memory is
//! short: so that a copy runs at the speed of the network, while a reader that stops early has
//! cost little.

use std::ops::Range;
use std::time::Duration;

/// The least that a window opens with, in bytes: one block.
const FIRST_LEAST: u64 = 128 << 10;

/// The most that a window opens with, unless the reader had to wait already.
const FIRST_MOST: u64 = 1 << 20;

/// Bytes per second that a fast store delivers: a window must cover the reader's wait at this rate.
const RATE: u64 = 512 << 20;

/// One wait lets a window leap to at most this many times what the reader has proven.
const LEAP: u64 = 16;

/// A window is asked in at least this many requests, so that many connections work on it.
const PARTS: u64 = 8;

/// The least size of a request that leaves more to be asked, in bytes.
const LEAST_PART: u64 = 1 << 20;

/// What limits a window, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most that may be asked ahead, in bytes.
    pub room: u64,
    /// The largest request, in bytes.
    pub part: u64,
}

/// Read-ahead of one reader.
#[derive(Debug, Clone)]
pub struct Window {
    /// How far past the reader to ask; zero while closed.
    ahead: u64,
    /// Everything before this offset was read, or asked on behalf of this reader.
    asked: u64,
    /// The longest that the reader waited while the window was closed.
    waited: Duration,
}

impl Window {
    /// A closed window of a reader that has read up to `end`.
    pub fn closed(end: u64) -> Self {
        Window {
            ahead: 0,
            asked: end,
            waited: Duration::ZERO,
        }
    }

    /// Whether anything is asked ahead.
    pub fn is_open(&self) -> bool {
        self.ahead > 0
    }

    /// Whether `offset` was read or asked before.
    pub fn covers(&self, offset: u64) -> bool {
        offset <= self.asked
    }

    /// Opens the window of a reader that has read `read` bytes in a row, `proven` of them beyond
    /// what a reader of a small piece might read.
    pub fn open(&mut self, read: u64, proven: u64) {
        if !self.is_open() {
            let leap = leap(proven, self.waited);
            self.ahead = read.clamp(FIRST_LEAST, FIRST_MOST).max(leap);
        }
    }

    /// Opens the window as far as possible for a reader that is known to want all that follows.
    pub fn open_wide(&mut self) {
        if !self.is_open() {
            self.ahead = u64::MAX;
        }
    }

    /// The reader has read up to `end`: tells which range beyond it should be on its way as well,
    /// within `limit` (the end of what there is) and `bounds`.
    pub fn advance(&mut self, end: u64, limit: u64, bounds: Bounds) -> Option<Range<u64>> {
        self.ahead = self.ahead.min(bounds.room);
        self.asked = self.asked.max(end);
        let target = end.saturating_add(self.ahead).min(limit);
        let missing = target.saturating_sub(self.asked);
        // Small top-ups would become small requests; the tail is worth one anyway.
        let worth = self.part(bounds).min(self.ahead);
        if missing == 0 || (missing < worth && target < limit) {
            return None;
        }
        let range = self.asked..target;
        self.asked = target;
        Some(range)
    }

    /// The reader, who has `proven` as much as for [`Window::open`], waited for bytes that were not
    /// there.
    pub fn starved(&mut self, proven: u64, waited: Duration) {
        if self.is_open() {
            let twice = self.ahead.saturating_mul(2);
            self.ahead = twice.max(leap(proven, waited));
        } else {
            self.waited = self.waited.max(waited);
        }
    }

    /// Memory was refused: what was not started (`from` on) is forgotten, and less is asked.
    pub fn refused(&mut self, from: u64, end: u64) {
        self.asked = self.asked.min(from).max(end);
        if self.is_open() {
            self.ahead = (self.ahead / 2).max(FIRST_LEAST);
        }
    }

    /// The size of one request, in bytes.
    pub fn part(&self, bounds: Bounds) -> u64 {
        (self.ahead / PARTS).max(LEAST_PART).min(bounds.part)
    }
}

/// How far ahead bytes must be asked so that `waited` would not have been noticed.
fn leap(proven: u64, waited: Duration) -> u64 {
    let bytes = u128::from(RATE) * waited.as_micros() / 1_000_000;
    let most = proven.saturating_mul(LEAP);
    u64::try_from(bytes).unwrap_or(u64::MAX).min(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const WIDE: Bounds = Bounds {
        room: 1 << 40,
        part: 8 * MIB,
    };
    const MS: Duration = Duration::from_millis(1);

    fn opened(end: u64) -> Window {
        let mut window = Window::closed(end);
        window.open(end, end);
        window
    }

    #[test]
    fn a_closed_window_asks_nothing() {
        let mut window = Window::closed(MIB);
        assert_eq!(window.advance(2 * MIB, 1 << 30, WIDE), None);
        window.starved(MIB, MS);
        assert_eq!(window.advance(3 * MIB, 1 << 30, WIDE), None);
    }

    #[test]
    fn it_opens_with_what_was_read_but_within_bounds() {
        for (read, ahead) in [(4096, 128 << 10), (300 << 10, 300 << 10), (9 * MIB, MIB)] {
            let mut window = opened(read);
            let asked = window.advance(read, 1 << 30, WIDE);
            assert_eq!(asked, Some(read..read + ahead));
        }
    }

    #[test]
    fn starving_doubles_it_at_least() {
        let mut window = opened(MIB);
        window.starved(MIB, Duration::ZERO);
        assert_eq!(window.advance(MIB, 1 << 30, WIDE), Some(MIB..3 * MIB));
        window.starved(2 * MIB, 10 * MS);
        // 10 ms at 512 MiB/s.
        let end = 2 * MIB + (RATE / 100);
        assert_eq!(window.advance(2 * MIB, 1 << 30, WIDE), Some(3 * MIB..end));
    }

    #[test]
    fn a_wait_before_it_opened_counts() {
        let mut window = Window::closed(MIB);
        window.starved(MIB, 100 * MS);
        window.open(2 * MIB, 8 * MIB);
        let asked = window.advance(2 * MIB, 1 << 30, WIDE).unwrap();
        assert_eq!(asked, 2 * MIB..2 * MIB + RATE / 10);
        assert_eq!(window.part(WIDE), RATE / 10 / PARTS);
        assert_eq!(
            window.part(Bounds {
                part: 2 * MIB,
                ..WIDE
            }),
            2 * MIB
        );
    }

    #[test]
    fn a_long_wait_leaps_no_further_than_the_reader_has_proven() {
        let mut window = opened(128 << 10);
        window.starved(128 << 10, Duration::from_secs(100));
        let asked = window.advance(128 << 10, 1 << 40, WIDE).unwrap();
        assert_eq!(asked.end - asked.start, 2 * MIB);
    }

    #[test]
    fn refusal_gives_back_what_was_not_started() {
        let mut window = opened(MIB);
        window.starved(MIB, Duration::ZERO);
        assert_eq!(window.advance(MIB, 1 << 30, WIDE), Some(MIB..3 * MIB));
        window.refused(2 * MIB, MIB);
        assert_eq!(
            window.advance(2 * MIB, 1 << 30, WIDE),
            Some(2 * MIB..3 * MIB)
        );
    }

    #[test]
    fn wide_open_is_as_far_as_there_is_room() {
        let mut window = Window::closed(MIB);
        window.open_wide();
        let room = Bounds {
            room: 64 * MIB,
            ..WIDE
        };
        assert_eq!(window.advance(MIB, 1 << 30, room), Some(MIB..65 * MIB));
        assert_eq!(window.part(room), 8 * MIB);
    }

    #[test]
    fn less_room_closes_it_to_that() {
        let mut window = opened(MIB);
        window.starved(1 << 30, Duration::from_secs(9));
        let asked = window.advance(
            MIB,
            1 << 40,
            Bounds {
                room: 8 * MIB,
                ..WIDE
            },
        );
        assert_eq!(asked, Some(MIB..9 * MIB));
    }

    #[test]
    fn the_tail_is_asked_however_short() {
        let mut window = opened(MIB);
        assert_eq!(window.advance(MIB, MIB + 10, WIDE), Some(MIB..MIB + 10));
    }

    proptest! {
        /// Whatever happens, the window stays within the file and its room, and asks no byte
        /// twice unless it was refused.
        #[test]
        fn stays_within_bounds(
            steps in prop::collection::vec((1u64..(2 * MIB), 0u64..5000, any::<Option<bool>>()), 1..200),
            room in (128u64 << 10)..(64 * MIB),
        ) {
            let limit: u64 = 100 * MIB;
            let bounds = Bounds { room, ..WIDE };
            let mut window = Window::closed(0);
            let (mut end, mut covered) = (0u64, 0u64);
            for (len, wait, event) in steps {
                end = (end + len).min(limit);
                window.open(end, end);
                if let Some(asked) = window.advance(end, limit, bounds) {
                    prop_assert!(asked.start < asked.end && asked.end <= limit);
                    prop_assert!(asked.end - end <= room);
                    prop_assert!(asked.start >= covered && asked.start >= end);
                    covered = asked.end;
                    if event == Some(true) {
                        window.refused(asked.start, end);
                        covered = asked.start;
                    }
                }
                if event == Some(false) {
                    window.starved(end, Duration::from_millis(wait));
                }
                prop_assert!((LEAST_PART..=bounds.part).contains(&window.part(bounds)));
            }
        }
    }
}
