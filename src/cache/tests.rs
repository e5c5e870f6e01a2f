//! The cache as a whole, on real files: what readers see through restarts, damage and full disks.

mod limits;
mod once;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::identity::Identity;
use super::identity::tests::{key, version};
use super::memory::Budget;
use super::{BLOCK_SIZE, Cache, CachedArtifact, Lent, Piece};
use crate::model::Validator;

const MIB: u64 = 1 << 20;

/// Content that differs from block to block and between seeds, and is never zero.
fn content(seed: u64, block: u64, len: u64) -> Bytes {
    let words = [seed, block, !seed, 0x9e37_79b9_7f4a_7c15];
    let pattern: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut content = pattern.repeat(len.div_ceil(32) as usize);
    content.truncate(len as usize);
    content.into()
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

    fn whole(&self) -> Vec<u8> {
        (0..self.blocks()).flat_map(|b| self.block(b)).collect()
    }

    fn open_as(&self, cache: &Cache, file: &str) -> Arc<CachedArtifact> {
        cache.artifact(&key(file), &self.validator)
    }

    /// Hands a block over; whether it was accepted.
    fn write(&self, artifact: &Arc<CachedArtifact>, block: u64) -> bool {
        let budget = Budget::new(BLOCK_SIZE);
        let memory = budget.try_reserve(BLOCK_SIZE).unwrap();
        artifact
            .write(block, self.block(block)[..].into(), memory)
            .is_ok()
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
    open_greedy(dir, 1 << 30)
}

/// A cache that leaves nothing free. The one before it may still be finishing a write.
fn open_greedy(dir: &Path, limit: u64) -> Cache {
    let start = Instant::now();
    loop {
        match Cache::open_with(dir, limit, |_| 0) {
            Err(error) if error.to_string().contains("in use") => {
                assert!(start.elapsed() < Duration::from_secs(20), "{error}");
                std::thread::sleep(Duration::from_millis(2));
            }
            cache => return cache.unwrap(),
        }
    }
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
        artifact
            .write(block, sample.block(block)[..].into(), memory)
            .unwrap();
    }
    cache.flush().await;
    assert_eq!(budget.used(), 0);
    assert_eq!(sample.readable(&artifact), 64);
}

#[tokio::test]
async fn what_is_read_ahead_stays_in_memory_until_it_is_read_or_others_need_it() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let sample = Sample::new(30, 4 * BLOCK_SIZE);
    let artifact = sample.open(&cache);
    let budget = Budget::new(1 << 30);
    let mut slab = artifact.slab(4 * BLOCK_SIZE);
    for block in 0..4 {
        slab.append(&sample.block(block));
        let memory = budget.reserve(BLOCK_SIZE).await;
        artifact.write(block, slab.split(), memory).unwrap();
    }
    // Read while it waits: it need not stay.
    artifact.read(0).unwrap();
    cache.flush().await;
    assert_eq!(budget.used(), 3 * BLOCK_SIZE);
    // The disk is not asked, and adjacent blocks come as they lie in memory.
    let data = sample.path(dir.path(), "data");
    let whole = fs::read(&data).unwrap();
    fs::write(&data, vec![0; whole.len()]).unwrap();
    let size = BLOCK_SIZE as usize;
    let read = artifact.read_range(&(BLOCK_SIZE..3 * BLOCK_SIZE - 1));
    assert_eq!(read.unwrap(), whole[size..3 * size - 1]);
    assert_eq!(
        budget.used(),
        2 * BLOCK_SIZE,
        "a block read to its end leaves"
    );
    artifact.give_up_all_unread();
    assert_eq!(budget.used(), 0);
    fs::write(&data, &whole).unwrap();
    assert_eq!(sample.readable(&artifact), 4);
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

#[test]
fn case_42_no_flipped_bit_is_ever_served() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(4, BLOCK_SIZE + 300);
    let cache = open(dir.path());
    let stored = store(&cache, &sample);
    for suffix in ["map", "data"] {
        let path = sample.path(dir.path(), suffix);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        assert_eq!(
            len,
            if suffix == "map" {
                4112
            } else {
                BLOCK_SIZE + 300
            }
        );
        // Every byte, but of the first block only some.
        for at in (0..len).filter(|at| *at > BLOCK_SIZE - 300 || *at < 4112 || at % 997 == 0) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << (at % 8))], at).unwrap();
            let read = sample.readable(&sample.open(&cache));
            assert!(read < stored, "byte {at} of {suffix}");
            file.write_all_at(&byte, at).unwrap();
        }
    }
    assert_eq!(sample.readable(&sample.open(&cache)), stored);
    assert!(cache.stats().damaged_blocks > 300);
}

#[test]
fn case_42_no_truncated_file_is_ever_believed() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(5, BLOCK_SIZE + 300);
    let cache = open(dir.path());
    let stored = store(&cache, &sample);
    for suffix in ["map", "data"] {
        let path = sample.path(dir.path(), suffix);
        let whole = fs::read(&path).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        let len = whole.len() as u64;
        for at in (0..len).filter(|at| len < 5000 || len - at < 400 || at % 499 == 0) {
            file.set_len(at).unwrap();
            let read = sample.readable(&sample.open(&cache));
            assert!(read < stored, "{at} bytes of {suffix}");
            let rest = &whole[at as usize..];
            file.write_all_at(rest, at).unwrap();
        }
    }
    assert_eq!(sample.readable(&sample.open(&cache)), stored);
}

/// Stores all of `sample` durably; answers the number of its blocks.
fn store(cache: &Cache, sample: &Sample) -> u64 {
    let artifact = sample.open(cache);
    sample.fill(&artifact);
    flush(cache);
    assert_eq!(sample.readable(&artifact), sample.blocks());
    sample.blocks()
}

fn flush(cache: &Cache) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(cache.flush());
}

#[test]
fn case_42_damage_is_repaired_by_fetching_again() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(6, 5 * BLOCK_SIZE);
    let cache = open(dir.path());
    store(&cache, &sample);
    let data = File::options()
        .write(true)
        .open(sample.path(dir.path(), "data"))
        .unwrap();
    data.write_all_at(&[0; 4096], 2 * BLOCK_SIZE).unwrap();
    let artifact = sample.open(&cache);
    assert_eq!(artifact.read_range(&(BLOCK_SIZE..4 * BLOCK_SIZE)), None);
    assert!(artifact.has(1) && !artifact.has(2) && artifact.has(3));
    assert_eq!(artifact.cached_bytes(), 4 * BLOCK_SIZE);
    assert!(sample.write(&artifact, 2));
    flush(&cache);
    drop((artifact, cache));
    let cache = open(dir.path());
    assert_eq!(sample.readable(&sample.open(&cache)), 5);
    assert_eq!(cache.stats().damaged_blocks, 0);
}

#[test]
fn case_41_a_crash_loses_at_most_what_was_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(7, 8 * BLOCK_SIZE);
    let cache = open(dir.path());
    let artifact = sample.open(&cache);
    for block in 0..4 {
        sample.write(&artifact, block);
    }
    flush(&cache);
    for block in 4..8 {
        sample.write(&artifact, block);
    }
    drop((artifact, cache));
    // Some of the blocks lie in the data file, the map does not know them.
    let cache = open(dir.path());
    let artifact = sample.open(&cache);
    assert!(sample.readable(&artifact) >= 4);
    assert!((0..4).all(|block| artifact.has(block)));
    assert_eq!(cache.stats().damaged_blocks, 0);
    sample.fill(&artifact);
    flush(&cache);
    assert_eq!(sample.readable(&artifact), 8);
}

/// Set for the process that `case_41_kill_9_loses_nothing_durable` starts and kills.
const CHILD: &str = "MONGO_BACKUPFS_TEST_CACHE";

#[test]
fn case_41_kill_9_loses_nothing_durable() {
    let sample = Sample::new(19, 400 * BLOCK_SIZE);
    if let Some(dir) = std::env::var_os(CHILD) {
        let cache = open(Path::new(&dir));
        let artifact = sample.open(&cache);
        for block in 0..sample.blocks() {
            sample.write(&artifact, block);
            if block % 8 == 7 {
                flush(&cache);
                println!("durable {}", block + 1);
            }
        }
        // Lives until it is killed, or until whoever should do that is gone.
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for lines in [1, 2, 5, 9, 14, 20] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "cache::tests::case_41_kill_9_loses_nothing_durable",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut reports =
            output.filter_map(|line| line.unwrap().strip_prefix("durable ")?.parse::<u64>().ok());
        let durable = reports.nth(lines).expect("the child got so far");
        let refused = Cache::open(dir.path(), MIB).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {}", child.id())),
            "{refused}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        let cache = open(dir.path());
        let artifact = sample.open(&cache);
        assert!(sample.readable(&artifact) >= durable);
        assert!((0..durable).all(|block| artifact.has(block)));
        assert_eq!(cache.stats().damaged_blocks, 0);
    }
}

#[test]
fn case_41_space_of_blocks_that_a_crash_lost_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(18, 64 * BLOCK_SIZE + 9);
    let cache = open(dir.path());
    store(&cache, &sample);
    drop(cache);
    // The map forgets all but a few blocks.
    let map = File::options()
        .write(true)
        .open(sample.path(dir.path(), "map"));
    let map = map.unwrap();
    for absent in [0..3u64, 4..20, 30..65] {
        let zeros = vec![0; 8 * (absent.end - absent.start) as usize];
        map.write_all_at(&zeros, 4096 + 8 * absent.start).unwrap();
    }
    let cache = open(dir.path());
    let artifact = sample.open(&cache);
    assert_eq!(sample.readable(&artifact), 11);
    assert!(cache.used() <= 12 * BLOCK_SIZE, "{}", cache.used());
    assert!(disk(&dir.path().join("v1")) <= 12 * BLOCK_SIZE);
    assert_eq!(cache.stats().damaged_blocks, 0);
}

#[test]
fn blocks_become_durable_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(33, 4 * BLOCK_SIZE);
    let cache = open(dir.path());
    let artifact = sample.open(&cache);
    sample.fill(&artifact);
    let map = sample.path(dir.path(), "map");
    wait_until("durable", || {
        fs::metadata(&map).is_ok_and(|metadata| metadata.len() == 4096 + 4 * 8)
    });
    drop((artifact, cache));
    let cache = open(dir.path());
    assert_eq!(sample.readable(&sample.open(&cache)), 4);
}

#[test]
fn case_41_a_map_ahead_of_its_data_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(8, 4 * BLOCK_SIZE);
    let cache = open(dir.path());
    store(&cache, &sample);
    drop(cache);
    // As if a power cut had taken the data but not the map.
    let data = sample.path(dir.path(), "data");
    fs::write(&data, vec![0; 4 * BLOCK_SIZE as usize]).unwrap();
    assert_eq!(sample.readable(&sample.open(&open(dir.path()))), 0);
    fs::remove_file(&data).unwrap();
    let cache = open(dir.path());
    assert_eq!(sample.readable(&sample.open(&cache)), 0);
    store(&cache, &sample);
}

/// What the disk may hold at any moment between two steps of storing, evicting, removing or handing
/// on an artifact, and after a power cut also what was written but not synced.
#[test]
fn case_41_whatever_step_a_crash_interrupts_what_is_left_is_true_or_missing() {
    let whole = |path: &Path| File::options().write(true).open(path).unwrap();
    type Interrupt<'a> = &'a dyn Fn(&Path, &Path);
    let moments: [(&str, u64, Interrupt<'_>); 9] = [
        ("the data file was made", 0, &|data, map| {
            fs::remove_file(map).unwrap();
            whole(data).set_len(0).unwrap();
        }),
        ("it has its length", 0, &|data, map| {
            fs::remove_file(map).unwrap();
            whole(data).set_len(0).unwrap();
            whole(data).set_len(6 * BLOCK_SIZE).unwrap();
        }),
        ("the map was made", 0, &|_, map| {
            whole(map).set_len(0).unwrap()
        }),
        ("its header is half written", 0, &|_, map| {
            whole(map).set_len(2048).unwrap();
        }),
        ("blocks are written but not in the map", 0, &|_, map| {
            whole(map).set_len(4096).unwrap();
        }),
        ("an entry is half written", 2, &|_, map| {
            whole(map).set_len(4096 + 2 * 8 + 5).unwrap();
        }),
        ("blocks left the map but not the disk", 4, &|_, map| {
            whole(map).write_all_at(&[0; 16], 4096 + 8).unwrap();
        }),
        ("the map is gone and the data renamed", 0, &|data, map| {
            fs::remove_file(map).unwrap();
            fs::rename(data, data.with_extension("gone")).unwrap();
        }),
        ("the data was never synced", 3, &|data, _| {
            let zeros = vec![0; 3 * BLOCK_SIZE as usize];
            whole(data).write_all_at(&zeros, 3 * BLOCK_SIZE).unwrap();
        }),
    ];
    for (moment, left, interrupt) in moments {
        let dir = tempfile::tempdir().unwrap();
        let sample = Sample::new(34, 6 * BLOCK_SIZE);
        let cache = open(dir.path());
        store(&cache, &sample);
        drop(cache);
        let [data, map] = ["data", "map"].map(|suffix| sample.path(dir.path(), suffix));
        interrupt(&data, &map);
        let cache = open(dir.path());
        let artifact = sample.open(&cache);
        assert_eq!(sample.readable(&artifact), left, "{moment}");
        for block in (0..6).filter(|block| !artifact.has(*block)) {
            assert!(sample.write(&artifact, block), "{moment}");
        }
        flush(&cache);
        drop((artifact, cache));
        let cache = open(dir.path());
        assert_eq!(sample.readable(&sample.open(&cache)), 6, "{moment}");
        wait_until("swept", || !data.with_extension("gone").exists());
        assert!(
            disk(&dir.path().join("v1")) <= 6 * BLOCK_SIZE + MIB / 4,
            "{moment}"
        );
    }
}

#[test]
fn case_42_the_map_of_another_version_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Sample::new(9, MIB), Sample::new(10, MIB));
    let cache = open(dir.path());
    store(&cache, &a);
    store(&cache, &b);
    for suffix in ["map", "data"] {
        fs::copy(a.path(dir.path(), suffix), b.path(dir.path(), suffix)).unwrap();
    }
    assert_eq!(b.readable(&b.open(&cache)), 0);
    assert_eq!(b.cached_bytes(&cache), 0);
    store(&cache, &b);
    assert_eq!(a.readable(&a.open(&cache)), a.blocks());
}

#[test]
fn case_46_files_replaced_by_links_and_pipes_are_replaced_again() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let sample = Sample::new(11, MIB);
    let cache = open(&dir.path().join("cache"));
    store(&cache, &sample);
    for suffix in ["map", "data"] {
        let path = sample.path(&dir.path().join("cache"), suffix);
        for kind in ["link", "pipe"] {
            fs::remove_file(&path).unwrap();
            match kind {
                "link" => symlink(&victim, &path).unwrap(),
                _ => assert!(
                    Command::new("mkfifo")
                        .arg(&path)
                        .status()
                        .unwrap()
                        .success()
                ),
            }
            assert_eq!(sample.readable(&sample.open(&cache)), 0, "{kind}");
            store(&cache, &sample);
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

/// Bytes of disk below `dir`.
fn disk(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let disk = entries.map(|path| match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() => disk(&path),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    disk.sum()
}

#[test]
fn the_least_recently_used_leave_first() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open_greedy(dir.path(), 8 * MIB);
    let sample = Sample::new(12, MIB);
    let fill = |file: &str| {
        let artifact = sample.open_as(&cache, file);
        sample.fill(&artifact);
        flush(&cache);
        assert!(cache.used() <= 8 * MIB);
        assert!(disk(&dir.path().join("v1")) <= 8 * MIB + 64 * 1024);
    };
    let held = sample.open_as(&cache, "held");
    fill("held");
    for file in 0..6 {
        fill(&file.to_string());
    }
    drop(sample.open_as(&cache, "1"));
    for file in 6..9 {
        fill(&file.to_string());
    }
    let cached = |file: &str| cache.cached_bytes(&key(file), &sample.validator) == MIB;
    assert!(held.is_complete() && sample.readable(&held) == 8);
    assert!(cached("1") && cached("7") && cached("8"));
    assert!(!cached("0") && !cached("2"));
    assert_eq!(cache.stats().damaged_blocks, 0);
}

#[test]
fn case_48_an_artifact_larger_than_the_limit_streams_through() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 40 * MIB;
    let cache = open_greedy(dir.path(), limit);
    let sample = Sample::new(13, 100 * MIB);
    let artifact = sample.open(&cache);
    for block in 0..sample.blocks() {
        assert!(sample.write(&artifact, block));
        assert_eq!(artifact.read(block).unwrap(), sample.block(block));
        assert!(cache.used() <= limit);
        if block % 64 == 0 {
            flush(&cache);
        }
    }
    flush(&cache);
    assert!(disk(&dir.path().join("v1")) <= limit + MIB);
    let readable = sample.readable(&artifact) * BLOCK_SIZE;
    assert!(readable >= limit / 2 && readable <= limit, "{readable}");
    assert!(artifact.has(sample.blocks() - 1) && !artifact.has(0));
    assert!(!artifact.is_complete());
    assert_eq!(cache.stats().damaged_blocks, 0);
    // What left is really gone from the map too.
    drop((artifact, cache));
    let cache = open_greedy(dir.path(), limit);
    assert_eq!(sample.cached_bytes(&cache), readable);
    assert_eq!(sample.readable(&sample.open(&cache)) * BLOCK_SIZE, readable);
    assert_eq!(cache.stats().damaged_blocks, 0);
}

#[test]
fn a_lowered_limit_is_met_after_the_scan() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(14, MIB);
    let cache = open(dir.path());
    for file in ["a", "b", "c", "d"] {
        sample.fill(&sample.open_as(&cache, file));
    }
    flush(&cache);
    let used = cache.used();
    assert!(used > 4 * MIB);
    drop(cache);
    let cache = open_greedy(dir.path(), 2 * MIB + MIB / 2);
    wait_until("evicted", || {
        let disk = disk(&dir.path().join("v1"));
        disk > MIB && disk <= 2 * MIB + MIB / 2
    });
    assert!(cache.used() <= 2 * MIB + MIB / 2);
}

#[test]
fn case_47_other_versions_of_the_format_leave_first() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let old = dir.path().join("v0");
    fs::create_dir_all(old.join("ab")).unwrap();
    fs::copy(dir.path().join("v1/CACHEDIR.TAG"), old.join("CACHEDIR.TAG")).unwrap();
    fs::write(old.join("ab/something"), vec![1; 2 * MIB as usize]).unwrap();
    let cache = open_greedy(dir.path(), 4 * MIB);
    wait_until("scanned", || cache.used() >= 2 * MIB);
    let sample = Sample::new(15, MIB);
    for file in ["a", "b", "c"] {
        sample.fill(&sample.open_as(&cache, file));
    }
    flush(&cache);
    assert!(!old.exists());
    for file in ["a", "b", "c"] {
        assert_eq!(cache.cached_bytes(&key(file), &sample.validator), MIB);
    }
}

#[test]
fn case_48_a_cache_too_small_for_a_block_caches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open_greedy(dir.path(), BLOCK_SIZE);
    let sample = Sample::new(16, MIB);
    assert!(!sample.write(&sample.open(&cache), 0));
    assert_eq!(cache.stats().disk_failures, 0);
}

#[test]
fn case_43_free_space_is_left_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open_with(dir.path(), 1 << 30, |total| total).unwrap();
    let sample = Sample::new(17, MIB);
    let artifact = sample.open(&cache);
    sample.write(&artifact, 0);
    flush(&cache);
    // Whoever waits for it reads it from memory, once.
    assert_eq!(artifact.read(0), Some(sample.block(0)));
    assert_eq!(artifact.read(0), None);
    assert!(cache.stats().degraded);
    assert!(!sample.write(&artifact, 1));
}

#[tokio::test(start_paused = true)]
async fn case_43_what_the_disk_does_not_take_waits_for_its_reader_unless_memory_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open_with(dir.path(), 1 << 30, |total| total).unwrap();
    let sample = Sample::new(18, MIB);
    let artifact = sample.open(&cache);
    let budget = Budget::new(MIB);
    for block in 0..sample.blocks() {
        let memory = budget.try_reserve(BLOCK_SIZE).unwrap();
        let data = Piece::from(&sample.block(block)[..]);
        if let Err(memory) = artifact.write(block, data.clone(), memory) {
            artifact.stray(block, data, memory);
        }
    }
    cache.flush().await;
    assert_eq!(artifact.cached_bytes(), 0);
    artifact.give_up_all_unread();
    assert_eq!(budget.used(), MIB, "their readers are on the way");
    assert_eq!(artifact.read(0), Some(sample.block(0)));
    assert_eq!(budget.used(), MIB - BLOCK_SIZE);
    // Nobody came for the others.
    assert_eq!(artifact.reserve(&budget, MIB).await.bytes(), MIB);
    assert_eq!(sample.readable(&artifact), 0);
}

#[test]
fn case_48_opening_does_not_wait_for_the_scan() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let one = dir.path().join("one");
    fs::write(&one, [1; 16]).unwrap();
    for shelf in 0..256 {
        fs::create_dir(dir.path().join(format!("v1/{shelf:02x}"))).unwrap();
    }
    for file in 0..20_000 {
        let name = format!("v1/{:02x}/{:02x}{file:062x}.map", file % 256, file % 256);
        fs::hard_link(&one, dir.path().join(name)).unwrap();
    }
    let expected = disk(&dir.path().join("v1")) - 4096;
    let start = Instant::now();
    let cache = open(dir.path());
    let opened = start.elapsed();
    wait_until("scanned", || cache.used() == expected);
    let scanned = start.elapsed();
    assert!(opened < scanned / 2, "open took {opened:?} of {scanned:?}");
}

#[test]
fn case_48_readers_writers_and_eviction_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 12 * MIB;
    let cache = open_greedy(dir.path(), limit);
    let samples: Vec<Sample> = (20..24)
        .map(|seed| Sample::new(seed, 5 * MIB + 33))
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (cache, samples) = (&cache, &samples);
            scope.spawn(move || {
                for round in 0..300u64 {
                    let sample = &samples[((round / 40 + thread / 2) % 4) as usize];
                    let artifact = sample.open(cache);
                    let block = round * (7 + thread) % sample.blocks();
                    match artifact.read(block) {
                        Some(data) => assert!(data == sample.block(block), "wrong bytes"),
                        None => assert!(sample.write(&artifact, block)),
                    }
                    assert!(cache.used() <= limit);
                }
            });
        }
    });
    flush(&cache);
    let stats = cache.stats();
    assert!(
        stats.evicted_bytes > 0 && stats.damaged_blocks == 0,
        "{stats:?}"
    );
    assert!(!stats.degraded);
}

/// The content of a lent file.
fn lent_content(lent: &Lent) -> Vec<u8> {
    let mut file = File::from(lent.as_fd().try_clone_to_owned().unwrap());
    let mut content = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut content).unwrap();
    content
}

#[test]
fn a_copy_just_completed_is_lent_also_to_the_next_holder() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(50, 300 * BLOCK_SIZE + 5);
    let cache = open(dir.path());
    let artifact = sample.open(&cache);
    assert!(artifact.lend().is_none());
    for block in 1..sample.blocks() {
        sample.write(&artifact, block);
    }
    flush(&cache);
    assert!(artifact.lend().is_none(), "a block is missing");
    sample.write(&artifact, 0);
    flush(&cache);
    let lent = artifact.lend().unwrap();
    assert!(lent_content(&lent) == sample.whole());
    drop((lent, artifact));
    assert!(sample.open(&cache).lend().is_some());
}

#[test]
fn what_an_earlier_run_left_is_proven_before_it_is_lent() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(51, 40 * BLOCK_SIZE + 5);
    let cache = open(dir.path());
    store(&cache, &sample);
    drop(cache);
    let unseal = || {
        let map = sample.path(dir.path(), "map");
        rustix::fs::removexattr(map, "user.mongo-backupfs.proven").unwrap();
    };
    unseal();
    let cache = open(dir.path());
    let artifact = sample.open(&cache);
    assert!(artifact.lend().is_none());
    wait_until("proven", || artifact.lend().is_some());
    drop((artifact, cache));
    let cache = open(dir.path());
    assert!(
        sample.open(&cache).lend().is_some(),
        "the proof holds as long as the file does not change"
    );
    drop(cache);
    // A reader proves what it reads: then there is nothing left to wait for.
    unseal();
    let cache = open(dir.path());
    let artifact = sample.open(&cache);
    assert_eq!(sample.readable(&artifact), 41);
    assert!(artifact.lend().is_some());
}

#[test]
fn case_42_a_damaged_file_is_not_lent_until_it_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(52, 40 * BLOCK_SIZE);
    let cache = open(dir.path());
    store(&cache, &sample);
    let damage = || {
        let data = File::options()
            .write(true)
            .open(sample.path(dir.path(), "data"));
        data.unwrap()
            .write_all_at(b"damage", 7 * BLOCK_SIZE)
            .unwrap();
    };
    damage();
    let artifact = sample.open(&cache);
    assert!(
        artifact.lend().is_none(),
        "it was changed since it was proven"
    );
    wait_until("found", || cache.stats().damaged_blocks == 1);
    assert!(artifact.lend().is_none() && !artifact.has(7));
    sample.write(&artifact, 7);
    flush(&cache);
    wait_until("proven", || artifact.lend().is_some());
    assert!(lent_content(&artifact.lend().unwrap()) == sample.whole());
    // Somebody else's change is noticed also while it is held, and is never sealed.
    damage();
    assert!(
        artifact.lend().is_none(),
        "it was changed since it was lent"
    );
    wait_until("found", || cache.stats().damaged_blocks == 2);
    drop(artifact);
    assert!(sample.open(&cache).lend().is_none());
}

#[test]
fn case_48_what_is_lent_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open_greedy(dir.path(), 12 * MIB);
    let (sample, other) = (Sample::new(53, 6 * MIB), Sample::new(54, 40 * MIB));
    store(&cache, &sample);
    let artifact = sample.open(&cache);
    let lent = artifact.lend().unwrap();
    let big = other.open(&cache);
    for block in 0..other.blocks() {
        assert!(other.write(&big, block));
        assert!(cache.used() <= 12 * MIB);
    }
    flush(&cache);
    assert!(cache.stats().evicted_bytes > 0);
    assert!(artifact.is_complete() && lent_content(&lent) == sample.whole());
    drop(lent);
    let third = Sample::new(55, 12 * MIB);
    third.fill(&third.open(&cache));
    flush(&cache);
    assert!(!artifact.is_complete() && artifact.lend().is_none());
}

#[test]
fn what_is_lent_outlives_its_removal() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let sample = Sample::new(56, 3 * MIB);
    store(&cache, &sample);
    let artifact = sample.open(&cache);
    let lent = artifact.lend().unwrap();
    cache.forget(&key("a.tar"), &sample.validator);
    assert!(artifact.lend().is_none());
    assert!(lent_content(&lent) == sample.whole());
}

/// A small filesystem of its own; `None` where that is not possible.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("mode=0700,{options}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]);
        mount.arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: this test needs to mount a tmpfs");
        }
        mounted.then_some(Tmpfs(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[test]
fn case_43_a_full_disk_fails_no_reader_and_is_used_again_when_it_has_space() {
    let Some(tmpfs) = Tmpfs::mount("size=1M") else {
        return;
    };
    let cache = open_greedy(&tmpfs.path().join("cache"), 1 << 30);
    let sample = Sample::new(30, 2 * MIB);
    let artifact = sample.open(&cache);
    // Someone else takes everything: reads miss, nothing fails.
    let hog = tmpfs.path().join("hog");
    let mut all = MIB as usize;
    while fs::write(&hog, vec![1; all]).is_err() {
        all -= 4096;
    }
    sample.write(&artifact, 0);
    flush(&cache);
    assert!(cache.stats().degraded);
    assert_eq!(sample.readable(&artifact), 0);
    assert!(!sample.write(&artifact, 0));
    fs::remove_file(&hog).unwrap();
    wait_until("well again", || sample.write(&artifact, 0));
    flush(&cache);
    assert!(!cache.stats().degraded);
    // More than fits: the cache lives with what there is.
    for block in 0..sample.blocks() {
        assert!(sample.write(&artifact, block));
        flush(&cache);
        assert_eq!(artifact.read(block).unwrap(), sample.block(block));
    }
    assert!(!cache.stats().degraded);
    assert!(sample.readable(&artifact) < 8);
}

#[test]
fn case_43_a_filesystem_without_room_for_files_fails_no_reader() {
    let Some(tmpfs) = Tmpfs::mount("size=16M,nr_inodes=6") else {
        return;
    };
    let cache = open_greedy(tmpfs.path(), 1 << 30);
    let sample = Sample::new(31, MIB);
    let artifact = sample.open(&cache);
    assert!(sample.write(&artifact, 0));
    flush(&cache);
    assert_eq!(artifact.cached_bytes(), 0);
    assert!(cache.stats().degraded);
    assert!(!sample.write(&artifact, 1));
}

#[test]
fn case_44_an_unmounted_disk_is_not_written_to() {
    let Some(tmpfs) = Tmpfs::mount("size=16M") else {
        return;
    };
    let cache = open_greedy(tmpfs.path(), 1 << 30);
    let sample = Sample::new(32, MIB);
    let artifact = sample.open(&cache);
    sample.write(&artifact, 0);
    flush(&cache);
    let unmount = Command::new("umount").arg("-l").arg(tmpfs.path()).status();
    assert!(unmount.unwrap().success());
    sample.write(&artifact, 1);
    flush(&cache);
    assert!(cache.stats().degraded);
    assert_eq!(artifact.cached_bytes(), BLOCK_SIZE);
    assert_eq!(artifact.read(0).unwrap(), sample.block(0));
    assert_eq!(fs::read_dir(tmpfs.path()).unwrap().count(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Write(u8, u64),
    Read(u8, u64),
    Close(u8),
    Forget(u8),
    Flush,
    Crash,
    Damage(u8, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (file, block) = (0u8..3, 0u64..12);
    prop_oneof![
        8 => (file.clone(), block.clone()).prop_map(|(file, block)| Step::Write(file, block)),
        6 => (file.clone(), block.clone()).prop_map(|(file, block)| Step::Read(file, block)),
        1 => file.clone().prop_map(Step::Close),
        1 => file.clone().prop_map(Step::Forget),
        2 => Just(Step::Flush),
        1 => Just(Step::Crash),
        1 => (file, block).prop_map(|(file, block)| Step::Damage(file, block)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever happens, a read is a miss or the truth; and without eviction, forgetting, damage
    /// or a crash it is the truth.
    #[test]
    fn case_42_reads_are_true_or_misses(
        steps in proptest::collection::vec(step(), 1..60), small: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limit = if small { 2 * MIB } else { 1 << 30 };
        let mut cache = open_greedy(dir.path(), limit);
        let samples: Vec<Sample> =
            (40..43).map(|seed| Sample::new(seed, 11 * BLOCK_SIZE + 5)).collect();
        let mut open: Vec<Option<Arc<CachedArtifact>>> = vec![None; 3];
        let mut durable = [[false; 12]; 3];
        let mut accepted = [[false; 12]; 3];
        for step in steps {
            match step {
                Step::Write(file, block) => {
                    let (file, sample) = (usize::from(file), &samples[usize::from(file)]);
                    let artifact = open[file].get_or_insert_with(|| sample.open(&cache));
                    // A block that seems present is not written again, damaged or not.
                    accepted[file][block as usize] |= !artifact.has(block);
                    prop_assert!(sample.write(artifact, block));
                }
                Step::Read(file, block) => {
                    let (file, sample) = (usize::from(file), &samples[usize::from(file)]);
                    let artifact = open[file].get_or_insert_with(|| sample.open(&cache));
                    let read = artifact.read(block);
                    prop_assert!(read.is_some() || small || !accepted[file][block as usize]);
                    prop_assert!(read.is_none_or(|data| data == sample.block(block)));
                }
                Step::Close(file) => open[usize::from(file)] = None,
                Step::Forget(file) => {
                    let file = usize::from(file);
                    cache.forget(&key("a.tar"), &samples[file].validator);
                    open[file] = None;
                    durable[file] = [false; 12];
                    accepted[file] = [false; 12];
                }
                Step::Flush => {
                    flush(&cache);
                    prop_assert!(cache.used() <= limit);
                    durable = accepted;
                }
                Step::Crash => {
                    open.fill(None);
                    drop(cache);
                    cache = open_greedy(dir.path(), limit);
                    accepted = durable;
                }
                Step::Damage(file, block) => {
                    let file = usize::from(file);
                    flush(&cache);
                    durable = accepted;
                    let path = samples[file].path(dir.path(), "data");
                    if let Ok(data) = File::options().write(true).open(path) {
                        data.write_all_at(b"damage", block * BLOCK_SIZE).unwrap();
                        durable[file][block as usize] = false;
                        accepted[file][block as usize] = false;
                    }
                }
            }
        }
    }
}
