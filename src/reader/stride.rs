//! Recognises a reader that skips the same distance again and again. Pure.

use std::ops::Range;

use super::stream::Ahead;
use super::window::Bounds;

/// Equal distances in a row that make a stride.
const PROOF: u32 = 2;

/// The most pieces asked ahead.
const DEEPEST: u64 = 64;

/// Pieces of a file at equal distances.
#[derive(Debug, Clone)]
pub struct Stride {
    /// What was read last, without a gap.
    piece: Range<u64>,
    /// The longest of the pieces at the present distance.
    length: u64,
    /// From the start of one piece to the start of the next.
    distance: i64,
    /// How many times in a row it was the same.
    times: u32,
    /// How many pieces ahead to ask.
    depth: u64,
    /// How many of the pieces that follow were asked already.
    asked: u64,
}

impl Default for Stride {
    fn default() -> Self {
        Stride {
            piece: 0..0,
            length: 0,
            distance: 0,
            times: 0,
            depth: 1,
            asked: 0,
        }
    }
}

impl Stride {
    /// Takes note of a read, in whole blocks, and tells which pieces should follow it. `size` is
    /// the file's in whole blocks.
    pub fn observe(&mut self, read: &Range<u64>, size: u64, bounds: Bounds) -> Option<Ahead> {
        if self.piece.start <= read.start && read.start <= self.piece.end {
            self.piece.end = self.piece.end.max(read.end);
        } else {
            self.step(read);
        }
        self.length = self.length.max(self.piece.end - self.piece.start);
        if !self.is_proven() {
            return None;
        }
        let deepest = (bounds.room / self.length).min(self.depth);
        let ranges: Vec<Range<u64>> = (self.asked + 1..=deepest)
            .map_while(|nth| self.following(nth, size))
            .collect();
        self.asked = self.asked.max(deepest);
        (!ranges.is_empty()).then_some(Ahead {
            ranges,
            part: bounds.part,
        })
    }

    fn step(&mut self, read: &Range<u64>) {
        let distance = read.start as i64 - self.piece.start as i64;
        if distance == self.distance {
            self.times += 1;
            self.asked = self.asked.saturating_sub(1);
        } else {
            *self = Stride {
                distance,
                times: 1,
                ..Stride::default()
            };
        }
        self.piece = read.clone();
    }

    /// Whether the pieces are at equal distances with something left out between them.
    fn is_proven(&self) -> bool {
        self.times >= PROOF && self.length < self.distance.unsigned_abs()
    }

    /// The `nth` piece after the present one, as far as it lies in the file.
    fn following(&self, nth: u64, size: u64) -> Option<Range<u64>> {
        let offset = self.distance.checked_mul(i64::try_from(nth).ok()?)?;
        let start = self.piece.start.checked_add_signed(offset)?;
        (start < size).then(|| start..start.saturating_add(self.length).min(size))
    }

    /// The reader had to wait: look further ahead.
    pub fn starved(&mut self) {
        if self.is_proven() {
            self.depth = (self.depth * 2).min(DEEPEST);
        }
    }

    /// Memory was refused: look less far, and ask again for what was not started.
    pub fn refused(&mut self) {
        self.depth = (self.depth / 2).max(1);
        self.asked = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::BLOCK_SIZE;

    const B: u64 = BLOCK_SIZE;
    const SIZE: u64 = 10_000 * B;
    const WIDE: Bounds = Bounds {
        room: SIZE,
        part: 8 * B,
    };

    fn asks(stride: &mut Stride, start: u64, len: u64) -> Vec<u64> {
        let read = start * B..(start + len) * B;
        let ahead = stride.observe(&read, SIZE, WIDE);
        let ranges = ahead.map_or(Vec::new(), |ahead| ahead.ranges);
        assert!(ranges.iter().all(|range| range.end <= SIZE));
        ranges.iter().map(|range| range.start / B).collect()
    }

    #[test]
    fn the_third_piece_shows_the_stride() {
        let mut stride = Stride::default();
        assert!(asks(&mut stride, 100, 1).is_empty());
        assert!(asks(&mut stride, 110, 1).is_empty());
        assert_eq!(asks(&mut stride, 120, 1), [130]);
        assert_eq!(asks(&mut stride, 130, 1), [140]);
        stride.starved();
        assert_eq!(asks(&mut stride, 140, 1), [150, 160]);
        assert_eq!(asks(&mut stride, 150, 1), [170]);
        stride.starved();
        assert_eq!(asks(&mut stride, 160, 1), [180, 190, 200]);
        assert_eq!(asks(&mut stride, 170, 1), [210]);
    }

    #[test]
    fn pieces_may_be_read_in_parts_and_backwards() {
        let mut stride = Stride::default();
        for start in [500, 450, 400] {
            for part in 0..4 {
                let asked = asks(&mut stride, start + part, 1);
                assert_eq!(
                    asked,
                    if start + part == 400 {
                        vec![350]
                    } else {
                        vec![]
                    }
                );
            }
        }
        let read = 350 * B..351 * B;
        let ahead = stride.observe(&read, SIZE, WIDE).unwrap();
        assert_eq!(ahead.ranges[0], 300 * B..304 * B);
    }

    #[test]
    fn neither_a_sequence_nor_random_reads_are_strides() {
        let mut stride = Stride::default();
        for start in 0..100 {
            assert!(asks(&mut stride, start * 8, 8).is_empty());
        }
        for start in [7, 9000, 20, 4, 17, 8000, 70, 71, 500] {
            assert!(asks(&mut stride, start, 1).is_empty());
        }
    }

    #[test]
    fn it_ends_with_the_file() {
        let mut stride = Stride::default();
        for start in [9960, 9970, 9980] {
            asks(&mut stride, start, 1);
            stride.starved();
        }
        for _ in 0..5 {
            stride.starved();
        }
        assert!(asks(&mut stride, 9990, 1).is_empty());
    }

    #[test]
    fn refused_pieces_are_asked_again() {
        let mut stride = Stride::default();
        for start in [0, 10, 20] {
            asks(&mut stride, start, 1);
        }
        stride.starved();
        assert_eq!(asks(&mut stride, 30, 1), [40, 50]);
        stride.refused();
        assert_eq!(asks(&mut stride, 30, 1), [40]);
    }

    proptest! {
        /// Every piece of a stride but the first three is asked before it is read, and each once.
        #[test]
        fn each_piece_is_asked_once(
            first in 0u64..100, distance in 2u64..100, len in 1u64..8,
            starve in prop::collection::vec(any::<bool>(), 40),
        ) {
            prop_assume!(len < distance);
            let mut stride = Stride::default();
            let mut asked: Vec<u64> = Vec::new();
            for (nth, starve) in (0..).zip(starve) {
                let start = first + nth * distance;
                prop_assert!(nth < 3 || asked.contains(&start));
                asked.extend(asks(&mut stride, start, len));
                if starve { stride.starved(); }
            }
            let mut once = asked.clone();
            once.dedup();
            prop_assert_eq!(once, asked);
        }
    }
}
