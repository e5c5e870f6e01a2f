//! One reader moving through a file, forwards or backwards, as its reads show it. Pure.
//!
//! The kernel splits the reads of one reader, sends several at once and lets them overtake each
//! other, so nearness, not equality, makes reads belong together. All offsets here are multiples of
//! the block size: two small reads in one block are one.

use std::ops::Range;
use std::time::Duration;

use super::window::{Bounds, Window};
use crate::cache::BLOCK_SIZE;

/// How far from what was read so far a read still belongs to it, also where nothing is asked
/// ahead: small skips keep the stream, as does the kernel's own read-ahead.
const NEARNESS: u64 = 2 << 20;

/// What must be read in a row before more is asked: a jump into the middle of a file is more often
/// the start of a short read than of a long one, and the kernel rounds those up to somewhat more
/// than 1 MiB.
const PROOF: u64 = 7 << 18;

/// At the start of a file, or towards it, less is enough.
const PROOF_AT_START: u64 = 2 * BLOCK_SIZE;

/// Who reads this much at the start may still want no more.
const SMALL: u64 = 1 << 20;

/// What is remembered of a long stream, so that a reader which begins to skip is noticed soon.
const HORIZON: u64 = 64 << 20;

/// Gaps remembered.
const GAPS: usize = 8;

/// Steps down in a row after which a reader counts as reading backwards.
const FALLS: u32 = 2;

/// Reads that belong together.
#[derive(Debug, Clone)]
pub struct Stream {
    /// What lies between the outermost reads, as far back as is remembered.
    span: Range<u64>,
    /// How much of that was read; skipped parts are missing.
    read: u64,
    /// The newest of the parts of the span that were skipped: the kernel may bring them yet.
    gaps: Vec<Range<u64>>,
    /// Steps in a row that led to higher offsets, or to lower ones.
    rises: u32,
    falls: u32,
    backwards: bool,
    /// Its reader is known to want the whole file, and has not jumped so far.
    whole: bool,
    /// In offsets of the direction of reading: mirrored when backwards.
    window: Window,
    /// When it was last used, by the pattern's own count.
    pub(super) used: u64,
}

/// What to ask, in this order, in requests of at most `part` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// Ranges that are to be on their way.
    pub ranges: Vec<Range<u64>>,
    /// The size of one request.
    pub part: u64,
}

impl Stream {
    /// The stream that `read` begins.
    pub fn new(read: &Range<u64>) -> Self {
        Stream {
            span: read.clone(),
            read: read.end - read.start,
            gaps: Vec::new(),
            rises: 0,
            falls: 0,
            backwards: false,
            whole: false,
            window: Window::closed(read.end),
            used: 0,
        }
    }

    /// The stream that `read` begins, of a reader that is known to want the whole file.
    pub fn of_whole(read: &Range<u64>) -> Self {
        Stream {
            whole: read.start == 0,
            ..Stream::new(read)
        }
    }

    /// Whether `read` is near enough to be of this stream.
    pub fn is_near(&self, read: &Range<u64>, size: u64) -> bool {
        let within = read.start <= self.span.end.saturating_add(NEARNESS)
            && read.end.saturating_add(NEARNESS) >= self.span.start;
        within || self.covers(read, size)
    }

    /// Whether `read` lies in what was read or asked.
    fn covers(&self, read: &Range<u64>, size: u64) -> bool {
        match self.backwards {
            true => read.end <= self.span.end && self.window.covers(mirrored(read, size).start),
            false => read.start >= self.span.start && self.window.covers(read.start),
        }
    }

    /// Whether something is asked ahead.
    pub fn is_open(&self) -> bool {
        self.window.is_open()
    }

    /// Whether `read` was part of this stream.
    pub fn holds(&self, read: &Range<u64>) -> bool {
        self.span.start <= read.start && read.end <= self.span.end
    }

    /// Takes note of a read that is near and tells what should follow it; `size` is the file's,
    /// rounded up to whole blocks.
    pub fn observe(&mut self, read: &Range<u64>, size: u64, bounds: Bounds) -> Option<Ahead> {
        self.extend(read);
        let turned = match self.backwards {
            true => self.rises >= FALLS,
            false => self.falls >= FALLS,
        };
        if turned {
            self.whole = false;
            self.backwards = !self.backwards;
            self.window = Window::closed(self.end(size));
        }
        match self.whole {
            true => self.window.open_wide(),
            false if self.is_proven() => self.window.open(self.read, self.proven()),
            false => return None,
        }
        let asked = self.window.advance(self.end(size), size, bounds)?;
        let part = self.window.part(bounds);
        let ranges = match self.backwards {
            false => vec![asked],
            // What is nearest to the reader goes first.
            true => pieces(mirrored(&asked, size), part).rev().collect(),
        };
        Some(Ahead { ranges, part })
    }

    fn extend(&mut self, read: &Range<u64>) {
        let above = read.start.saturating_sub(self.span.end);
        let below = self.span.start.saturating_sub(read.end);
        if above.max(below) > NEARNESS {
            // A far skip to what was asked already: each makes the next step less certain.
            self.whole = false;
            self.span = read.clone();
            self.read /= 2;
            self.gaps.clear();
            return;
        }
        self.fill_gaps(read);
        if above.max(below) > 0 {
            let gap = match above {
                0 => read.end..self.span.start,
                _ => self.span.end..read.start,
            };
            self.gaps.truncate(GAPS - 1);
            self.gaps.insert(0, gap);
        }
        if read.end > self.span.end {
            self.read += read.end - read.start.max(self.span.end);
            self.rises += 1;
            self.falls = 0;
        }
        if read.start < self.span.start {
            self.read += read.end.min(self.span.start) - read.start;
            self.falls += 1;
            self.rises = 0;
        }
        self.span = self.span.start.min(read.start)..self.span.end.max(read.end);
        let length = self.span.end - self.span.start;
        if length > HORIZON {
            // No overflow: what was read is little more than the horizon.
            self.read = self.read * HORIZON / length;
            match self.backwards {
                true => self.span.end = self.span.start + HORIZON,
                false => self.span.start = self.span.end - HORIZON,
            }
        }
    }

    fn fill_gaps(&mut self, read: &Range<u64>) {
        let gaps = std::mem::take(&mut self.gaps);
        let before = length(&gaps);
        let sides = |gap: Range<u64>| {
            [
                gap.start..gap.end.min(read.start),
                gap.start.max(read.end)..gap.end,
            ]
        };
        self.gaps = gaps.into_iter().flat_map(sides).collect();
        self.gaps.retain(|gap| !gap.is_empty());
        self.read += before - length(&self.gaps);
    }

    /// Whether its reads are many enough, and leave little enough out, to expect more.
    fn is_proven(&self) -> bool {
        let proof = match self.is_at_start() {
            true => PROOF_AT_START,
            false => PROOF,
        };
        let dense = self.read >= (self.span.end - self.span.start) / 4 * 3;
        dense && self.read >= proof && self.rises + self.falls > 0
    }

    /// Whether it began at the start of the file, or leads there.
    fn is_at_start(&self) -> bool {
        self.backwards || self.span.start == 0
    }

    /// What was read beyond what a short read might be.
    fn proven(&self) -> u64 {
        match self.is_at_start() {
            true => self.read.saturating_sub(SMALL),
            false => self.read.saturating_sub(PROOF),
        }
    }

    /// Where the reader is, in the direction of reading.
    fn end(&self, size: u64) -> u64 {
        match self.backwards {
            true => mirrored(&self.span, size).end,
            false => self.span.end,
        }
    }

    /// The reader waited this long for a read that was part of this stream.
    pub fn starved(&mut self, waited: Duration) {
        self.window.starved(self.proven(), waited);
    }

    /// Memory was refused for `range` and what should follow it.
    pub fn refused(&mut self, range: &Range<u64>, size: u64) {
        let from = match self.backwards {
            true => mirrored(range, size).start,
            false => range.start,
        };
        self.window.refused(from, self.end(size));
    }
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// `range` as seen from the end of the file.
fn mirrored(range: &Range<u64>, size: u64) -> Range<u64> {
    size.saturating_sub(range.end)..size.saturating_sub(range.start)
}

/// `range` cut into pieces of `part` bytes.
fn pieces(range: Range<u64>, part: u64) -> impl DoubleEndedIterator<Item = Range<u64>> {
    let count = (range.end - range.start).div_ceil(part);
    (0..count).map(move |i| {
        let start = range.start + i * part;
        start..(start + part).min(range.end)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 1 << 30;
    const B: u64 = BLOCK_SIZE;
    const WIDE: Bounds = Bounds {
        room: 256 * MIB,
        part: 8 * MIB,
    };
    const NARROW: Bounds = Bounds {
        room: 16 * MIB,
        ..WIDE
    };

    fn blocks(range: Range<u64>) -> Range<u64> {
        range.start * B..range.end * B
    }

    /// What a stream of these reads asks after the last of them: starts and ends, all in blocks.
    fn asks<const N: usize>(reads: [Range<u64>; N]) -> Vec<(u64, u64)> {
        let mut stream = Stream::new(&blocks(reads[0].clone()));
        let mut last = stream.observe(&blocks(reads[0].clone()), SIZE, WIDE);
        for read in &reads[1..] {
            let read = blocks(read.clone());
            assert!(stream.is_near(&read, SIZE));
            last = stream.observe(&read, SIZE, WIDE);
        }
        let ranges = last.map_or(Vec::new(), |ahead| ahead.ranges);
        ranges.iter().map(|r| (r.start / B, r.end / B)).collect()
    }

    #[test]
    fn two_reads_at_the_start_are_a_beginning() {
        for one in [1, 8] {
            let read = 0..one;
            assert!(asks([read]).is_empty());
        }
        assert_eq!(asks([0..1, 1..2]), [(2, 4)]);
        assert_eq!(asks([0..8, 8..16]), [(16, 24)]);
        // They may overtake each other.
        assert_eq!(asks([1..2, 0..1]), [(2, 4)]);
    }

    #[test]
    fn who_wants_the_whole_file_needs_to_prove_nothing() {
        let first = blocks(0..8);
        let mut stream = Stream::of_whole(&first);
        let ahead = stream.observe(&first, SIZE, NARROW).unwrap();
        assert_eq!(
            (ahead.ranges.len(), &ahead.ranges[0]),
            (1, &(MIB..17 * MIB))
        );
        // Whoever begins elsewhere wants something else.
        let middle = blocks(1000..1008);
        assert!(
            Stream::of_whole(&middle)
                .observe(&middle, SIZE, WIDE)
                .is_none()
        );
    }

    #[test]
    fn in_the_middle_it_takes_more() {
        assert!(asks([1000..1008, 1008..1009]).is_empty());
        assert_eq!(asks([1000..1008, 1008..1016]), [(1016, 1024)]);
    }

    #[test]
    fn small_reads_in_one_block_prove_nothing() {
        assert!(asks([0..1, 0..1, 0..1]).is_empty());
    }

    #[test]
    fn reads_that_leave_most_out_ask_nothing() {
        assert!(asks([0..1, 6..7, 12..13, 18..19, 24..25]).is_empty());
        // Small gaps do not matter.
        assert_eq!(asks([0..4, 6..10]), [(10, 18)]);
    }

    #[test]
    fn a_reader_of_the_end_is_followed_backwards() {
        let asked = asks([8000..8001, 7999..8000, 7998..7999]);
        assert_eq!(asked, [(7995, 7998)]);
    }

    #[test]
    fn a_backward_window_asks_what_is_nearest_first_and_stops_at_the_start() {
        let mut stream = Stream::new(&blocks(100..108));
        let mut ahead = None;
        for start in [92, 84, 76] {
            ahead = stream
                .observe(&blocks(start..start + 8), SIZE, WIDE)
                .or(ahead);
            stream.starved(Duration::from_millis(50));
        }
        let asked = ahead.unwrap();
        let starts: Vec<u64> = asked.ranges.iter().map(|r| r.start).collect();
        assert!(starts.is_sorted_by(|a, b| a > b), "{starts:?}");
        assert_eq!(starts.last(), Some(&0));
    }

    #[test]
    fn a_skip_within_what_was_asked_keeps_the_window() {
        let mut stream = Stream::new(&(0..MIB));
        stream.observe(&(0..MIB), SIZE, WIDE);
        stream.starved(Duration::from_secs(1));
        let asked = stream.observe(&(MIB..2 * MIB), SIZE, WIDE).unwrap();
        let end = asked.ranges[0].end;
        assert!(end > 17 * MIB);
        let far = 15 * MIB..16 * MIB;
        assert!(stream.is_near(&far, SIZE));
        assert!(
            stream
                .observe(&far, SIZE, WIDE)
                .is_none_or(|ahead| ahead.ranges[0].start >= end)
        );
        assert!(stream.is_open());
        let beyond = end + 3 * MIB..end + 4 * MIB;
        assert!(!stream.is_near(&beyond, SIZE));
    }

    #[test]
    fn who_begins_to_skip_is_noticed() {
        let mut stream = Stream::new(&(0..MIB));
        for i in 0..200 {
            stream.observe(&(i * MIB..(i + 1) * MIB), SIZE, NARROW);
        }
        let asking = (0..200).filter(|i| {
            let start = 200 * MIB + i * 2 * MIB;
            let read = start..start + B;
            stream.is_near(&read, SIZE) && stream.observe(&read, SIZE, NARROW).is_some()
        });
        assert!(asking.count() < 40);
    }

    proptest! {
        /// A sequential copy is asked completely and each byte once, however its reads overtake
        /// each other.
        #[test]
        fn a_copy_is_asked_once(
            len in 1u64..8, count in 3u64..200, swaps in prop::collection::vec(any::<bool>(), 200),
            waits in prop::collection::vec(0u64..200, 200),
        ) {
            let size = len * count * B;
            let mut order: Vec<u64> = (0..count).collect();
            for (i, swap) in (1..count as usize - 1).zip(swaps) {
                if swap { order.swap(i, i + 1); }
            }
            let mut stream = Stream::new(&(0..len * B));
            let mut covered = 0;
            for (i, wait) in order.into_iter().zip(waits) {
                let read = i * len * B..(i + 1) * len * B;
                prop_assert!(stream.is_near(&read, size));
                if let Some(ahead) = stream.observe(&read, size, WIDE) {
                    for range in ahead.ranges {
                        prop_assert!(range.start >= covered && range.end <= size);
                        prop_assert!(range.start >= read.end);
                        covered = range.end;
                    }
                }
                stream.starved(Duration::from_millis(wait));
            }
            prop_assert!(len * count < 64 || covered == size, "{} of {}", covered, size);
        }

        /// Whatever is read, nothing outside the file is asked and never more than the room.
        #[test]
        fn asks_stay_within_the_file(
            reads in prop::collection::vec((0u64..400, 1u64..9, 0u64..50), 1..100),
        ) {
            let size = 400 * B;
            let room = 100 * B;
            let mut stream = Stream::new(&blocks(200..201));
            for (start, len, wait) in reads {
                let read = blocks(start..(start + len).min(400));
                if !stream.is_near(&read, size) { continue; }
                if let Some(ahead) = stream.observe(&read, size, Bounds { room, ..WIDE }) {
                    let total: u64 = ahead.ranges.iter().map(|r| r.end - r.start).sum();
                    prop_assert!(0 < total && total <= room);
                    prop_assert!(ahead.ranges.iter().all(|r| r.start < r.end && r.end <= size));
                }
                prop_assert!(stream.holds(&read));
                stream.starved(Duration::from_millis(wait));
            }
        }
    }
}
