//! How far to read ahead: pure arithmetic, no I/O, no clock.
//!
//! A [`Window`] watches the reads of one open file. It starts with what was asked, opens while
//! reads stay sequential, doubles when the reader had to wait and closes at a jump, so that a copy
//! runs at the speed of the network and a random read fetches only its own blocks. The kernel
//! splits and reorders the reads of one reader, so nearness, not equality, makes them sequential.

use std::ops::Range;

/// Bounds of a window, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The first step ahead of a reader that turned out to be sequential.
    pub first: u64,
    /// The furthest step ahead.
    pub max: u64,
    /// The largest piece asked in one request.
    pub part: u64,
}

impl Limits {
    /// Limits for a process with `memory` bytes for all reading: one reader may hold a quarter.
    pub fn for_memory(memory: u64) -> Self {
        let max = (memory / 4).clamp(1 << 20, 128 << 20);
        Limits {
            first: 1 << 20,
            max,
            part: 8 << 20,
        }
    }
}

/// How far from the expected offset a read still belongs to the same sequential reader: the
/// kernel's own read-ahead is at most 1 MiB deep and its requests overtake each other.
const NEARNESS: u64 = 2 << 20;

/// Read-ahead state of one open file.
#[derive(Debug, Clone)]
pub struct Window {
    limits: Limits,
    /// End of the furthest sequential read.
    expected: u64,
    /// Everything before this offset was already asked on behalf of this reader since its last
    /// jump. Invariant: `expected <= asked` once a read was observed.
    asked: u64,
    /// How far past `expected` to ask; zero until the reader proved sequential.
    ahead: u64,
}

impl Window {
    /// A closed window at the start of the file.
    pub fn new(limits: Limits) -> Self {
        Window {
            limits,
            expected: 0,
            asked: 0,
            ahead: 0,
        }
    }

    /// Takes note of a read and tells which range beyond it should be on its way, if any. The read
    /// itself is not part of the answer.
    pub fn observe(&mut self, read: Range<u64>, size: u64) -> Option<Range<u64>> {
        let near = read.start <= self.expected.saturating_add(NEARNESS)
            && read.end.saturating_add(NEARNESS) >= self.expected;
        let continues = near && self.expected > 0;
        if !near {
            self.ahead = 0;
            self.expected = read.end;
            self.asked = read.end;
            return None;
        }
        if continues && self.ahead == 0 {
            self.ahead = self.limits.first.min(self.limits.max);
        }
        self.expected = self.expected.max(read.end);
        self.asked = self.asked.max(self.expected);

        let target = self.expected.saturating_add(self.ahead).min(size);
        let missing = target.saturating_sub(self.asked);
        // Small top-ups would become small requests; the tail of the file is worth one anyway.
        let worth = self.part().min(self.ahead.max(1));
        if missing == 0 || (missing < worth && target < size) {
            return None;
        }
        let range = self.asked..target;
        self.asked = target;
        Some(range)
    }

    /// The reader had to wait for bytes that were not there yet: look further ahead.
    pub fn starved(&mut self) {
        if self.ahead > 0 {
            self.ahead = self.ahead.saturating_mul(2).min(self.limits.max);
        }
    }

    /// Memory was refused: what was not started (`from` on) is forgotten, and less is asked.
    pub fn refused(&mut self, from: u64) {
        self.asked = self.asked.min(from).max(self.expected);
        self.ahead = (self.ahead / 2).max(self.limits.first.min(self.limits.max));
    }

    /// The size of one request, in bytes: several fit in the window, so that several connections
    /// work on it.
    pub fn part(&self) -> u64 {
        (self.ahead / 4).clamp(self.limits.first.min(self.limits.part), self.limits.part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: Limits = Limits {
        first: MIB,
        max: 64 * MIB,
        part: 8 * MIB,
    };

    #[test]
    fn the_first_read_asks_nothing_ahead() {
        let mut window = Window::new(LIMITS);
        assert_eq!(window.observe(0..4096, 1 << 30), None);
    }

    #[test]
    fn a_sequential_reader_opens_the_window_and_starving_doubles_it() {
        let mut window = Window::new(LIMITS);
        window.observe(0..MIB, 1 << 30);
        assert_eq!(
            window.observe(MIB..2 * MIB, 1 << 30),
            Some(2 * MIB..3 * MIB)
        );
        window.starved();
        assert_eq!(
            window.observe(2 * MIB..3 * MIB, 1 << 30),
            Some(3 * MIB..5 * MIB)
        );
    }

    #[test]
    fn a_jump_closes_the_window() {
        let mut window = Window::new(LIMITS);
        window.observe(0..MIB, 1 << 30);
        window.observe(MIB..2 * MIB, 1 << 30);
        assert_eq!(window.observe(500 * MIB..500 * MIB + 4096, 1 << 30), None);
        assert_eq!(window.observe(100 * MIB..100 * MIB + 4096, 1 << 30), None);
    }

    #[test]
    fn refusal_gives_back_what_was_not_started() {
        let mut window = Window::new(LIMITS);
        window.observe(0..MIB, 1 << 30);
        let ahead = window.observe(MIB..2 * MIB, 1 << 30).unwrap();
        window.refused(ahead.start);
        assert_eq!(
            window.observe(2 * MIB..3 * MIB, 1 << 30),
            Some(3 * MIB..4 * MIB)
        );
    }

    #[test]
    fn the_tail_of_the_file_is_asked_however_short() {
        let mut window = Window::new(LIMITS);
        let size = 2 * MIB + 10;
        window.observe(0..MIB, size);
        assert_eq!(window.observe(MIB..2 * MIB, size), Some(2 * MIB..size));
    }

    proptest! {
        /// Whatever is read, the window never asks beyond the file or its limit, and never the
        /// same byte twice between two jumps or refusals.
        #[test]
        fn stays_within_bounds(
            reads in prop::collection::vec((0u64..(1 << 31), 1u64..(2 * MIB), any::<bool>()), 1..200),
            size in 1u64..(1 << 31),
        ) {
            let mut window = Window::new(LIMITS);
            for (start, len, starve) in reads {
                let start = start % size;
                let read = start..(start + len).min(size);
                let before = window.asked;
                let jumped = {
                    let mut probe = window.clone();
                    probe.observe(read.clone(), size);
                    probe.asked < before
                };
                if let Some(range) = window.observe(read.clone(), size) {
                    prop_assert!(range.start < range.end && range.end <= size);
                    prop_assert!(range.end - read.start.min(range.start) <= LIMITS.max + 4 * MIB + NEARNESS);
                    prop_assert!(jumped || range.start >= before);
                }
                if starve { window.starved(); }
                prop_assert!(window.part() >= LIMITS.first && window.part() <= LIMITS.part);
            }
        }

        /// What a sequential reader has asked ahead never overlaps and never ends behind its reads.
        #[test]
        fn sequential_reads_ask_each_byte_once(step in 1u64..(2 * MIB), count in 3u64..100) {
            let size = step * count;
            let mut window = Window::new(LIMITS);
            let mut covered = 0;
            for i in 0..count {
                let read = i * step..(i + 1) * step;
                if let Some(range) = window.observe(read.clone(), size) {
                    prop_assert!(range.start >= covered.max(read.end));
                    covered = range.end;
                }
                window.starved();
            }
        }
    }
}
