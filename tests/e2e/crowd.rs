//! Many readers of every kind at once, with links that die and a cache too small for what they
//! read: each byte is right, and in the end nothing is held in memory.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use mongo_backupfs::sim::Content;
use serde_json::Value;

use crate::dice::mixed;
use crate::world::{World, eventually};

const ARTIFACTS: u64 = 4;
const READERS: u64 = 32;
const SIZE: u64 = (40 << 20) + 4097;
const CACHE_MIB: u64 = 96;
/// How far the cache may be beyond its limit while a part is being written.
const ONE_PART: u64 = 8 << 20;

/// How long the crowd reads: `CROWD_SECONDS` makes a soak of it.
fn duration() -> Duration {
    let seconds = std::env::var("CROWD_SECONDS").ok();
    Duration::from_secs(seconds.map_or(8, |text| text.parse().expect("a number of seconds")))
}

fn content(artifact: u64) -> Content {
    Content::noise(70 + artifact, SIZE)
}

/// `status.json`, read through the mount.
pub fn status(world: &World) -> Value {
    let text = std::fs::read(world.mountpoint.join(".backupfs/status.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The `n`th read of a reader that reads a file of `size` bytes as its number says.
pub fn wanted(reader: u64, n: u64, size: u64) -> Range<u64> {
    let random = mixed(reader << 32 | n) % size;
    let (start, len) = match reader % 4 {
        0 => ((n << 18) % size, 1 << 18),
        1 => (random, 4 << 10),
        2 => (random, 1 << 20),
        _ => (size - 1 - (n << 16) % size, 1 << 16),
    };
    start..(start + len).min(size)
}

/// Reads until `end` and compares; opens anew now and then. Returns how many reads it made.
fn read_on(reader: u64, path: &Path, content: &Content, end: Instant) -> u64 {
    const READS_PER_OPEN: u64 = 100;
    let mut piece = vec![0; 1 << 20];
    let mut n = 0;
    while Instant::now() < end {
        let file = File::open(path).unwrap();
        for _ in 0..READS_PER_OPEN {
            let range = wanted(reader, n, SIZE);
            let piece = &mut piece[..(range.end - range.start) as usize];
            let read = file.read_exact_at(piece, range.start);
            read.unwrap_or_else(|error| panic!("reader {reader} at {range:?}: {error}"));
            let expected = content.read(range.clone()).unwrap();
            assert!(*piece == expected[..], "reader {reader} at {range:?}");
            n += 1;
        }
    }
    n
}

#[test]
fn thirty_two_mixed_readers_get_every_byte_and_leave_no_memory_behind() {
    let mut world = World::with_content((0..ARTIFACTS).map(content))
        .key("memory = \"64MiB\"")
        .key(&format!("cache_size = \"{CACHE_MIB}MiB\""));
    world
        .sim
        .adjust(|knobs| knobs.link_life = Some(SignedDuration::from_secs(2)));
    world.mount();
    let files = world.files();
    assert_eq!(files.len() as u64, ARTIFACTS);
    let end = Instant::now() + duration();
    thread::scope(|crowd| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let artifact = reader / 4 % ARTIFACTS;
                let path = &files[artifact as usize];
                crowd.spawn(move || read_on(reader, path, &content(artifact), end))
            })
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            let used = status(&world)["cache"]["used"].as_u64().unwrap();
            assert!(used <= (CACHE_MIB << 20) + ONE_PART, "{used} bytes cached");
            thread::sleep(Duration::from_millis(100));
        }
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    eventually("all memory is given back", || {
        let status = status(&world);
        status["open_files"] == 0 && status["memory"]["used"] == 0
    });
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, ARTIFACTS, "{bill:?}");
    assert!(bill.link_refreshes > 0, "{bill:?}");
    world.unmount();
}
