//! Large caches and small disks.

use std::io::Write;

use super::super::map;
use super::*;

/// Writes the files of `file` at `sample`'s version as if all its blocks, zeros, were cached.
fn plant(dir: &Path, file: &str, sample: &Sample) {
    let identity = Identity::of(&key(file), &sample.validator);
    let name = identity.name().to_string();
    let shelf = dir.join("v1").join(&name[..2]);
    fs::create_dir_all(&shelf).unwrap();
    let data = File::create(shelf.join(format!("{name}.data"))).unwrap();
    data.set_len(identity.size).unwrap();
    let crc = crc32c::crc32c(&[0; BLOCK_SIZE as usize]);
    let salt = identity.salt();
    let mut content = map::encode_header(&identity).to_vec();
    for block in 0..sample.blocks() {
        content.extend(map::encode_entry(salt, block, Some(crc)));
    }
    let mut map = File::create(shelf.join(format!("{name}.map"))).unwrap();
    map.write_all(&content).unwrap();
}

#[test]
fn case_48_a_file_of_a_million_blocks_opens_in_time() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let sample = Sample::new(60, 1_000_000 * BLOCK_SIZE);
    plant(dir.path(), "a.tar", &sample);
    let start = Instant::now();
    let cache = open(dir.path());
    let opened = start.elapsed();
    let artifact = sample.open(&cache);
    assert!(artifact.is_complete());
    let found = start.elapsed();
    assert!(
        artifact
            .read(999_999)
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
    assert!(opened < Duration::from_millis(500), "{opened:?}");
    // Unoptimised and beside other tests; what matters is that the mount does not wait for it.
    assert!(found < Duration::from_secs(60), "{found:?}");
    eprintln!("opened after {opened:?}, its blocks known after {found:?}");
}

#[test]
fn case_48_ten_thousand_files_of_a_hundred_blocks_open_in_time() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let sample = Sample::new(61, 100 * BLOCK_SIZE);
    for file in 0..10_000 {
        plant(dir.path(), &file.to_string(), &sample);
    }
    let start = Instant::now();
    let cache = open(dir.path());
    let opened = start.elapsed();
    assert!(sample.open_as(&cache, "77").is_complete());
    let read = start.elapsed();
    let expected = disk(&dir.path().join("v1"));
    // The directories and the tag are not counted.
    wait_until("scanned", || cache.used() + 2 * MIB > expected);
    let scanned = start.elapsed();
    assert!(opened < Duration::from_millis(500), "{opened:?}");
    assert!(read < Duration::from_secs(1), "{read:?}");
    eprintln!("opened after {opened:?}, one file read after {read:?}, all found after {scanned:?}");
}

#[test]
fn case_48_a_small_disk_keeps_its_floor_while_a_large_file_streams_through() {
    let Some(tmpfs) = Tmpfs::mount("size=32M") else {
        return;
    };
    let cache = Cache::open(&tmpfs.path().join("cache"), 1 << 30).unwrap();
    let free = || {
        let stat = rustix::fs::statvfs(tmpfs.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let sample = Sample::new(62, 100 * MIB);
    let artifact = sample.open(&cache);
    for block in 0..sample.blocks() {
        assert!(sample.write(&artifact, block));
        assert!(artifact.read(block).unwrap() == sample.block(block));
        if block % 32 == 31 {
            flush(&cache);
        }
        // 5 % of 32 MiB, less what the map takes.
        assert!(free() >= 32 * MIB / 20 - 64 * 1024, "{} free", free());
    }
    flush(&cache);
    assert!(sample.readable(&artifact) * BLOCK_SIZE >= 8 * MIB);
    let stats = cache.stats();
    assert!(!stats.degraded && stats.evicted_bytes > 0 && stats.disk_failures == 0);
}

#[test]
fn case_48_the_limit_holds_within_one_write_while_many_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 32 * MIB;
    let cache = open_greedy(dir.path(), limit);
    let samples: Vec<Sample> = (70..78).map(|seed| Sample::new(seed, 16 * MIB)).collect();
    let artifacts: Vec<_> = samples.iter().map(|sample| sample.open(&cache)).collect();
    let v1 = dir.path().join("v1");
    for block in 0..samples[0].blocks() {
        for (sample, artifact) in samples.iter().zip(&artifacts) {
            assert!(sample.write(artifact, block));
            assert!(artifact.read(block).unwrap() == sample.block(block));
        }
        assert!(disk(&v1) <= limit + 8 * MIB);
    }
    flush(&cache);
    assert!(disk(&v1) <= limit + MIB);
    let stats = cache.stats();
    assert!(stats.evicted_bytes >= 8 * 16 * MIB - limit && stats.damaged_blocks == 0);
}
