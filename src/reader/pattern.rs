//! What one open file's reads look like, and what therefore to ask ahead. Pure.
//!
//! Several readers may use one open file, and one reader may come back to where it was: tar, zip
//! and gzip look at the end of a file before they read it from the start. So a few streams are
//! remembered, and whatever belongs to none of them is random: then only the blocks asked for are
//! fetched, unless the jumps are of equal size.

use std::ops::Range;
use std::time::Duration;

use super::blocks_of;
use super::stream::{Ahead, Stream};
use super::stride::Stride;
use super::window::Bounds;
use crate::cache::BLOCK_SIZE;

/// Streams remembered.
const STREAMS: usize = 4;

/// The reads of one open file.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// The file's size in whole blocks.
    size: u64,
    streams: Vec<Stream>,
    stride: Stride,
    reads: u64,
    /// Whoever opened the file is known to read all of it.
    whole: bool,
}

impl Pattern {
    /// Nothing was read yet of a file of `size` bytes.
    pub fn new(size: u64) -> Self {
        Pattern {
            size: size.next_multiple_of(BLOCK_SIZE),
            streams: Vec::new(),
            stride: Stride::default(),
            reads: 0,
            whole: false,
        }
    }

    /// From now on a read of the file's start counts as the start of a copy.
    pub fn expect_whole(&mut self) {
        self.whole = true;
    }

    /// Takes note of a read and tells what should be on its way beyond it, if anything. The read
    /// itself is not part of the answer, which may reach beyond the end of the file to the end of
    /// its last block.
    pub fn observe(&mut self, read: &Range<u64>, bounds: Bounds) -> Option<Ahead> {
        let read = whole_blocks(read);
        self.reads += 1;
        let stride = self.stride.observe(&read, self.size, bounds);
        let size = self.size;
        let at = match self.streams.iter().position(|s| s.is_near(&read, size)) {
            Some(at) => at,
            None => self.begin(&read),
        };
        let stream = &mut self.streams[at];
        stream.used = self.reads;
        stream.observe(&read, size, bounds).or(stride)
    }

    /// Whether anything is asked ahead.
    pub fn is_ahead(&self) -> bool {
        self.streams.iter().any(Stream::is_open)
    }

    /// A new stream, in the place of the one that is least worth keeping.
    fn begin(&mut self, read: &Range<u64>) -> usize {
        let stream = match self.whole {
            true => Stream::of_whole(read),
            false => Stream::new(read),
        };
        if self.streams.len() < STREAMS {
            self.streams.push(stream);
            return self.streams.len() - 1;
        }
        let worth = |stream: &Stream| (stream.is_open(), stream.used);
        let least = (0..STREAMS).min_by_key(|at| worth(&self.streams[*at]));
        let at = least.unwrap_or_default();
        self.streams[at] = stream;
        at
    }

    /// The reader waited this long for `read`.
    pub fn starved(&mut self, read: &Range<u64>, waited: Duration) {
        let read = whole_blocks(read);
        self.stride.starved();
        if let Some(stream) = self.streams.iter_mut().find(|s| s.holds(&read)) {
            stream.starved(waited);
        }
    }

    /// Memory was refused for `range` of what [`Pattern::observe`] told to ask after `read`, and
    /// for what follows it there.
    pub fn refused(&mut self, read: &Range<u64>, range: &Range<u64>) {
        let read = whole_blocks(read);
        self.stride.refused();
        if let Some(stream) = self.streams.iter_mut().find(|s| s.holds(&read)) {
            stream.refused(range, self.size);
        }
    }
}

/// `range` rounded outwards to whole blocks.
fn whole_blocks(range: &Range<u64>) -> Range<u64> {
    let blocks = blocks_of(range);
    blocks.start * BLOCK_SIZE..blocks.end * BLOCK_SIZE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const BOUNDS: Bounds = Bounds {
        room: 256 * MIB,
        part: 8 * MIB,
    };

    /// Every block that the file is fetched for when these reads are made one after the other, each
    /// waiting `wait`.
    fn fetched(size: u64, wait: Duration, reads: &[Range<u64>]) -> Vec<u64> {
        let mut pattern = Pattern::new(size);
        let mut blocks = std::collections::BTreeSet::new();
        for read in reads {
            let missed = blocks_of(read).any(|block| !blocks.contains(&block));
            blocks.extend(blocks_of(read));
            for range in pattern.observe(read, BOUNDS).iter().flat_map(|a| &a.ranges) {
                blocks.extend(blocks_of(range));
            }
            if missed {
                pattern.starved(read, wait);
            }
        }
        blocks.into_iter().collect()
    }

    fn bytes_fetched(size: u64, reads: &[Range<u64>]) -> u64 {
        fetched(size, Duration::from_millis(100), reads).len() as u64 * BLOCK_SIZE
    }

    /// `read` as the kernel sends it.
    fn split(read: Range<u64>, piece: u64) -> impl Iterator<Item = Range<u64>> {
        let count = (read.end - read.start).div_ceil(piece);
        (0..count).map(move |i| {
            let start = read.start + i * piece;
            start..(start + piece).min(read.end)
        })
    }

    #[test]
    fn looks_at_both_ends_are_cheap_and_spoil_nothing() {
        let size = 10 << 30;
        let mut pattern = Pattern::new(size);
        let looks = [0..4 * KIB, size - 64 * KIB..size, size - 22..size];
        for look in looks {
            assert_eq!(pattern.observe(&look, BOUNDS), None);
            pattern.starved(&look, Duration::from_millis(100));
        }
        // From the start: the stream that began with the first look goes on.
        assert_eq!(
            pattern.observe(&(0..MIB), BOUNDS).unwrap().ranges[0].start,
            MIB
        );
        pattern.starved(&(0..MIB), Duration::from_millis(100));
        let ahead = pattern.observe(&(MIB..2 * MIB), BOUNDS).unwrap();
        let end = ahead.ranges[0].end;
        // Another look at the end changes nothing.
        assert_eq!(pattern.observe(&(size - MIB..size), BOUNDS), None);
        let ahead = pattern.observe(&(4 * MIB..5 * MIB), BOUNDS);
        assert!(ahead.is_none_or(|ahead| ahead.ranges[0].start == end));
    }

    #[test]
    fn two_readers_of_one_open_file_both_get_ahead() {
        let mut pattern = Pattern::new(10 << 30);
        let mut asked = [0, 0];
        for i in 0..20 {
            for (reader, base) in [0, 5 << 30].into_iter().enumerate() {
                let start = base + i * MIB;
                let ahead = pattern.observe(&(start..start + MIB), BOUNDS);
                asked[reader] += ahead.map_or(0, |ahead| ahead.ranges.len());
            }
        }
        assert!(asked.iter().all(|asked| *asked >= 10), "{asked:?}");
    }

    #[test]
    fn strides_are_asked_ahead() {
        let reads: Vec<_> = (0..10)
            .map(|i| i * 16 * MIB..i * 16 * MIB + 300 * KIB)
            .collect();
        let mut pattern = Pattern::new(1 << 30);
        let mut ahead = Vec::new();
        for read in &reads {
            ahead.extend(
                pattern
                    .observe(read, BOUNDS)
                    .into_iter()
                    .flat_map(|a| a.ranges),
            );
            pattern.starved(read, Duration::ZERO);
        }
        for read in &reads[3..] {
            let blocks = whole_blocks(read);
            assert!(ahead.contains(&blocks), "{blocks:?}");
        }
    }

    /// Random reads of 1 MiB by eight readers, also when the kernel splits them and they lie across
    /// blocks, fetch little more than themselves.
    #[test]
    fn random_mebibytes_fetch_little_more() {
        let size = 1 << 30;
        let mut random: u64 = 1;
        for (piece, unit) in [
            (128 * KIB, 4 * KIB),
            (128 * KIB, MIB),
            (MIB, 4 * KIB),
            (MIB, MIB),
        ] {
            let fetched: u64 = (0..8)
                .map(|_reader| {
                    let reads: Vec<Range<u64>> = (0..8)
                        .flat_map(|_read| {
                            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                            let start = (random >> 20) % (size - MIB) / unit * unit;
                            split(start..start + MIB, piece)
                        })
                        .collect();
                    bytes_fetched(size, &reads)
                })
                .sum();
            assert!(
                fetched * 10 <= 64 * MIB * 12,
                "{} of 64 MiB",
                fetched as f64 / MIB as f64
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Random reads of 4 KiB fetch their own blocks.
        #[test]
        fn random_pages_fetch_their_blocks(
            pages in prop::collection::vec(0u64..(1 << 16), 1..300), spread in 1u64..2000,
        ) {
            let reads: Vec<Range<u64>> = pages.iter().map(|page| {
                let start = (page * spread) % (1 << 24) * 4096;
                start..start + 4096
            }).collect();
            let own: std::collections::BTreeSet<u64> = reads.iter().flat_map(blocks_of).collect();
            let fetched = fetched(1 << 36, Duration::from_millis(20), &reads);
            prop_assert!(fetched.len() <= own.len() + own.len() / 20 + 8,
                "{} of {}", fetched.len(), own.len());
        }

        /// A copy is asked completely whatever the kernel makes of it.
        #[test]
        fn a_copy_is_asked_completely(
            size in 1u64..(64 * MIB), piece in prop::sample::select(vec![4 * KIB, 128 * KIB, MIB]),
        ) {
            let reads: Vec<_> = split(0..size, piece).collect();
            prop_assert_eq!(bytes_fetched(size, &reads), size.next_multiple_of(BLOCK_SIZE));
        }
    }
}
