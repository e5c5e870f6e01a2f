//! Checking what is read against the digest that a store publishes: CRC-64/XZ, which Tencent calls
//! `crc64ecma`. Pure but for its one lock.
//!
//! The bytes of an open file are digested as they are handed out, in any order; the read that
//! makes them whole is the one that is told whether they are right, before it is answered. So
//! whoever reads a file to its end never gets all of one that is damaged.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

use crate::error::{Error, Kind};

const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc64Xz;

/// More separate parts than this are not kept: such a reader is no copy, and its file is checked
/// when it is opened again.
const MOST_PARTS: usize = 4096;

/// The number that `published` (`crc64ecma:<decimal>`) promises; `None` for other algorithms.
pub fn promised(published: &str) -> Option<u64> {
    published.strip_prefix("crc64ecma:")?.trim().parse().ok()
}

/// What a reader of damaged bytes is told.
pub(super) fn damaged() -> Error {
    Error::new(
        Kind::Protocol,
        "the bytes that came are not those that the store says it has (CRC-64): they were thrown away, open the file again to fetch them anew",
    )
}

/// What is known once bytes were taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not all bytes were seen yet, or the verdict was told before.
    Open,
    /// These bytes made the whole, and it is right.
    Right,
    /// These bytes made the whole, and it is wrong.
    Wrong,
}

/// The check of one open file.
#[derive(Debug)]
pub struct Check {
    promised: u64,
    seen: Mutex<Option<Seen>>,
}

impl Check {
    /// Nothing of `size` bytes was seen yet.
    pub fn new(promised: u64, size: u64) -> Self {
        Check {
            promised,
            seen: Mutex::new(Some(Seen {
                size,
                parts: BTreeMap::new(),
            })),
        }
    }

    /// What the whole must come to.
    pub fn promised(&self) -> u64 {
        self.promised
    }

    /// Takes in `bytes` at `offset`.
    pub fn take(&self, offset: u64, bytes: &[u8]) -> Verdict {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(parts) = seen.as_mut() else {
            return Verdict::Open;
        };
        parts.take(offset, bytes);
        let verdict = match parts.whole() {
            Some(sum) if sum == self.promised => Verdict::Right,
            Some(_) => Verdict::Wrong,
            None if parts.parts.len() <= MOST_PARTS => return Verdict::Open,
            None => Verdict::Open,
        };
        *seen = None;
        verdict
    }
}

/// Which parts of a file were seen, and their sums.
#[derive(Debug)]
struct Seen {
    size: u64,
    /// By start: end and sum. No two touch or overlap.
    parts: BTreeMap<u64, (u64, u64)>,
}

impl Seen {
    /// Digests what of `bytes` is new.
    fn take(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let before = self.parts.range(..=at).next_back();
            if let Some((_, &(known, _))) = before.filter(|(_, (known, _))| *known > at) {
                at = known;
                continue;
            }
            let next = self
                .parts
                .range(at..)
                .next()
                .map_or(end, |(start, _)| *start);
            let until = next.min(end);
            let new = &bytes[(at - offset) as usize..(until - offset) as usize];
            self.add(at, until, checksum(ALGORITHM, new));
            at = until;
        }
    }

    /// Adds a part that nothing overlaps, joined with those it touches.
    fn add(&mut self, mut start: u64, mut end: u64, mut sum: u64) {
        let before = self.parts.range(..start).next_back();
        if let Some((&first, &(_, earlier))) = before.filter(|(_, (known, _))| *known == start) {
            sum = checksum_combine(ALGORITHM, earlier, sum, end - start);
            start = first;
        }
        if let Some((last, later)) = self.parts.remove(&end) {
            sum = checksum_combine(ALGORITHM, sum, later, last - end);
            end = last;
        }
        self.parts.insert(start, (end, sum));
    }

    /// The sum of the whole, once all of it was seen.
    fn whole(&self) -> Option<u64> {
        let &(end, sum) = self.parts.get(&0)?;
        (end == self.size).then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_algorithm_is_the_stores() {
        for (text, expected) in [
            ("123456789", 11_051_210_869_376_104_954),
            ("hello world", 5_981_764_153_023_615_706),
        ] {
            let size = text.len() as u64;
            assert_eq!(
                Check::new(expected, size).take(0, text.as_bytes()),
                Verdict::Right
            );
            assert_eq!(
                Check::new(expected ^ 1, size).take(0, text.as_bytes()),
                Verdict::Wrong
            );
        }
        assert_eq!(
            promised("crc64ecma:11051210869376104954"),
            Some(11_051_210_869_376_104_954)
        );
        assert_eq!(promised("crc64ecma:x"), None);
        assert_eq!(promised("sha256:17"), None);
    }

    #[test]
    fn a_verdict_is_told_once_and_scattered_readers_get_none() {
        let check = Check::new(0, 4);
        assert_eq!(check.take(0, b"ab"), Verdict::Open);
        assert_eq!(check.take(2, b"cd"), Verdict::Wrong);
        assert_eq!(check.take(0, b"abcd"), Verdict::Open);

        let scattered = Check::new(0, 1 << 40);
        for at in 0..MOST_PARTS as u64 + 2 {
            assert_eq!(scattered.take(at * 2, b"x"), Verdict::Open);
        }
        assert!(
            scattered.seen.lock().unwrap().is_none(),
            "memory is bounded"
        );
    }

    proptest! {
        #[test]
        fn any_order_of_any_reads_gives_the_same_sum(
            size in 1usize..3000,
            reads in prop::collection::vec((0usize..3000, 1usize..900), 0..40),
        ) {
            let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
            let mut seen = Seen { size: size as u64, parts: BTreeMap::new() };
            let mut covered = vec![false; size];
            for (start, length) in reads.into_iter().chain([(0, size)]) {
                let start = start.min(size);
                let end = (start + length).min(size);
                seen.take(start as u64, &bytes[start..end]);
                covered[start..end].fill(true);
                let whole = covered.iter().all(|seen| *seen);
                prop_assert_eq!(seen.whole(), whole.then(|| checksum(ALGORITHM, &bytes)));
            }
        }
    }
}
