//! The cache as a whole, on real files: what readers see through restarts, damage and full disks.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::identity::Identity;
use super::identity::tests::{key, version};
use super::map::HEADER_LEN;
use super::memory::Budget;
use super::{BLOCK_SIZE, Cache, CachedArtifact};
use crate::model::Validator;

const MIB: u64 = 1 << 20;

/// Content that differs from block to block and between seeds.
fn content(seed: u64, block: u64, len: u64) -> Bytes {
    let mut state = seed << 32 ^ block ^ 0x9e37_79b9_7f4a_7c15;
    let words = (0..len.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(len as usize).collect()
}

/// One artifact version with its true content.
struct Sample {
    seed: u64,
    validator: Validator,
}

impl Sample {
    fn new(seed: u64, size: u64) -> Self {
        Sample {
            seed,
            validator: version(&format!("\"{seed}\""), size),
        }
    }

    fn open(&self, cache: &Cache) -> Arc<CachedArtifact> {
        cache.artifact(&key("a.tar"), &self.validator)
    }

    fn cached_bytes(&self, cache: &Cache) -> u64 {
        cache.cached_bytes(&key("a.tar"), &self.validator)
    }

    fn blocks(&self) -> u64 {
        self.validator.size.div_ceil(BLOCK_SIZE)
    }

    fn block(&self, block: u64) -> Bytes {
        let len = BLOCK_SIZE.min(self.validator.size - block * BLOCK_SIZE);
        content(self.seed, block, len)
    }

    /// Hands a block over; whether it was accepted.
    fn write(&self, artifact: &Arc<CachedArtifact>, block: u64) -> bool {
        let budget = Budget::new(BLOCK_SIZE);
        let memory = budget.try_reserve(BLOCK_SIZE).unwrap();
        artifact.write(block, self.block(block), memory).is_ok()
    }

    fn fill(&self, artifact: &Arc<CachedArtifact>) {
        for block in 0..self.blocks() {
            assert!(self.write(artifact, block));
        }
    }

    /// The number of blocks that can be read; each must have the true content.
    fn readable(&self, artifact: &CachedArtifact) -> u64 {
        let read = (0..self.blocks()).filter(|block| {
            let data = artifact.read(*block);
            assert!(
                data.is_none_or(|data| data == self.block(*block)),
                "wrong bytes"
            );
            artifact.has(*block)
        });
        read.count() as u64
    }

    fn path(&self, dir: &Path, suffix: &str) -> PathBuf {
        let name = Identity::of(&key("a.tar"), &self.validator)
            .name()
            .to_string();
        dir.join("v1")
            .join(&name[..2])
            .join(format!("{name}.{suffix}"))
    }
}

fn open(dir: &Path) -> Cache {
    Cache::open(dir, 1 << 30).unwrap()
}

/// A cache that leaves nothing free.
fn open_greedy(dir: &Path, limit: u64) -> Cache {
    Cache::open_with(dir, limit, |_| 0).unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test]
async fn blocks_are_served_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(1, 20 * BLOCK_SIZE + 77);
    let cache = open(dir.path());
    let artifact = sample.open(&cache);
    assert_eq!(sample.readable(&artifact), 0);
    for block in [0, 1, 2, 7, 20] {
        assert!(sample.write(&artifact, block));
        assert_eq!(artifact.read(block).unwrap(), sample.block(block));
    }
    let held = 4 * BLOCK_SIZE + 77;
    assert_eq!(artifact.cached_bytes(), held);
    assert!(!artifact.is_complete());
    cache.flush().await;
    assert_eq!(sample.readable(&artifact), 5);
    assert_eq!(sample.cached_bytes(&cache), held);
    drop((artifact, cache));

    let cache = open(dir.path());
    assert_eq!(sample.cached_bytes(&cache), held);
    let artifact = sample.open(&cache);
    assert_eq!(sample.readable(&artifact), 5);
    sample.fill(&artifact);
    assert!(artifact.is_complete());
    cache.flush().await;
    assert_eq!(sample.readable(&artifact), 21);
    assert_eq!(cache.stats().damaged_blocks, 0);
}

#[tokio::test]
async fn ranges_are_assembled_from_memory_and_disk() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(2, 9 * BLOCK_SIZE + 1000);
    let whole: Vec<u8> = (0..10).flat_map(|b| sample.block(b)).collect();
    let cache = open(dir.path());
    let artifact = sample.open(&cache);
    for block in [0, 1, 4, 5, 9] {
        sample.write(&artifact, block);
    }
    cache.flush().await;
    assert_eq!(artifact.read_range(&(0..whole.len() as u64)), None);
    for block in [2, 3, 6, 7, 8] {
        sample.write(&artifact, block);
    }
    let size = whole.len() as u64;
    for range in [
        0..size,
        0..1,
        1..BLOCK_SIZE,
        BLOCK_SIZE - 1..3 * BLOCK_SIZE + 1,
        5 * BLOCK_SIZE..6 * BLOCK_SIZE,
        8 * BLOCK_SIZE + 5..size,
        size - 1..size,
        size..size,
        7..7,
    ] {
        let read = artifact.read_range(&range).unwrap();
        assert_eq!(
            read,
            whole[range.start as usize..range.end as usize],
            "{range:?}"
        );
    }
    assert_eq!(artifact.read_range(&(size - 1..size + 1)), None);
    assert_eq!(artifact.read(10), None);
    assert_eq!(artifact.read(u64::MAX), None);
}

#[tokio::test]
async fn memory_is_given_back_when_blocks_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let sample = Sample::new(3, 64 * BLOCK_SIZE);
    let artifact = sample.open(&cache);
    let budget = Budget::new(4 * BLOCK_SIZE);
    for block in 0..64 {
        let memory = budget.reserve(BLOCK_SIZE).await;
        artifact.write(block, sample.block(block), memory).unwrap();
    }
    cache.flush().await;
    assert_eq!(budget.used(), 0);
    assert_eq!(sample.readable(&artifact), 64);
}

#[tokio::test]
async fn versions_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let (old, new) = (Sample::new(1, MIB), Sample::new(2, MIB));
    let first = old.open(&cache);
    old.fill(&first);
    let second = new.open(&cache);
    assert_eq!(new.readable(&second), 0);
    assert!(Arc::ptr_eq(&first, &old.open(&cache)));
    cache.forget(&key("a.tar"), &old.validator);
    assert_eq!(old.readable(&first), 0);
    assert!(!old.write(&first, 0));
    let third = old.open(&cache);
    old.fill(&third);
    cache.flush().await;
    drop((first, third));
    assert_eq!(old.cached_bytes(&cache), MIB);
    cache.forget(&key("a.tar"), &old.validator);
    assert_eq!(old.cached_bytes(&cache), 0);
    assert!(!old.path(dir.path(), "data").exists());
    assert_eq!(cache.used(), 0);
}

#[test]
fn an_empty_artifact_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let artifact = Sample::new(1, 0).open(&open(dir.path()));
    assert!(artifact.is_complete());
    assert_eq!(artifact.read(0), None);
    assert_eq!(artifact.read_range(&(0..0)), Some(Bytes::new()));
}
