//! SIGKILL under read load, again and again: whatever is served afterwards is right, and of the data
//! only what was not durable is fetched a second time.
//!
//! Each mount first makes whole what the mount before it left of a file, then reads the next file by
//! several readers until it is killed. `MONGO_BACKUPFS_KILLS` sets the number of kills: few by
//! default, 200 for the full run.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mongo_backupfs::cache::BLOCK_SIZE;
use mongo_backupfs::sim::Content;

use crate::dice::mixed;
use crate::world::{CLUSTER, PATIENCE, World, attribute, eventually, sha256_of};

/// Whole blocks, so that bytes and map entries tell the same.
const SIZE: u64 = 64 * BLOCK_SIZE;
const READERS: u64 = 3;
/// Bytes that an open may ask for besides blocks: the first byte, to learn size and version.
const PROBES: u64 = 64;

fn kills() -> u64 {
    let number = std::env::var("MONGO_BACKUPFS_KILLS").ok();
    number.map_or(6, |text| text.parse().expect("a number of kills"))
}

fn content(number: u64) -> Content {
    Content::noise(500 + number, SIZE)
}

/// Bytes of the blocks that the cache has on record as durable, of the backup `id`: entries of its
/// block map, 8 bytes each after a page that names it, all zeros where a block is absent.
pub fn durable(world: &World, id: &str) -> u64 {
    let mut bytes = 0;
    for shelf in fs::read_dir(world.dir.path().join("cache/v1")).unwrap() {
        let Ok(files) = fs::read_dir(shelf.unwrap().path()) else {
            continue; // The tag.
        };
        for file in files {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|suffix| suffix == "map") {
                let map = fs::read(path).unwrap();
                let (head, entries) = map.split_at(4096);
                if String::from_utf8_lossy(head).contains(id) {
                    let present = entries.chunks(8).filter(|entry| *entry != [0; 8]);
                    bytes += present.count() as u64 * BLOCK_SIZE;
                }
            }
        }
    }
    bytes
}

/// Readers of one file that go on until the mount is gone, or until they are told that it is: what is
/// whole the kernel goes on reading without it. Whatever they get is compared.
struct Load {
    readers: Vec<JoinHandle<()>>,
    reads: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Load {
    fn start(path: &Path, content: &Content) -> Self {
        let (reads, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let readers = (0..READERS).map(|reader| {
            let (path, content) = (path.to_owned(), content.clone());
            let (reads, over) = (Arc::clone(&reads), Arc::clone(&over));
            thread::spawn(move || {
                // An error is the end of the mount: all faults of this test are kills.
                let Ok(file) = File::open(path) else { return };
                let mut piece = vec![0; 1 << 17];
                for n in (0..).take_while(|_| !over.load(Ordering::Relaxed)) {
                    let at = match reader {
                        0 => (n << 17) % SIZE,
                        1 => SIZE - (1 << 17) - (n << 17) % SIZE,
                        _ => mixed(n) % (SIZE - (1 << 17)),
                    };
                    let Ok(got) = file.read_at(&mut piece, at) else {
                        return;
                    };
                    assert!(got > 0, "the end of the file at {at}");
                    let expected = content.read(at..at + got as u64).unwrap();
                    assert!(piece[..got] == expected[..], "wrong bytes at {at}");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Load {
            readers: readers.collect(),
            reads,
            over,
        }
    }

    fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        for reader in self.readers {
            reader.join().expect("no reader got wrong bytes");
        }
        self.reads.load(Ordering::Relaxed)
    }
}

/// Waits until `served` more bytes than `before` have left the store.
fn until_served(world: &World, before: u64, served: u64) {
    let end = Instant::now() + PATIENCE;
    while world.sim.bill().bytes_served < before + served {
        assert!(Instant::now() < end, "the readers do not get on");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads a file whole: it must be right, and only what is not `kept` may be fetched.
fn make_whole(world: &World, path: &Path, content: &Content, kept: u64) -> u64 {
    let before = world.sim.bill().bytes_served;
    assert_eq!(sha256_of(path), content.sha256().unwrap());
    let fetched = world.sim.bill().bytes_served - before;
    let missing = SIZE - kept;
    assert!(
        fetched <= missing + PROBES,
        "{fetched} bytes fetched where {missing} were missing"
    );
    fetched
}

#[test]
fn case_41_after_kill_9_all_that_is_served_verifies_and_only_what_was_not_durable_is_fetched_again()
{
    let kills = kills();
    let mut world = World::with_content((0..kills).map(content));
    world.mount();
    let files: Vec<PathBuf> = world.files();
    let ids = world.sim.snapshot_ids(CLUSTER);
    let (mut kept_in_all, mut again, mut reads) = (0, 0, 0);
    for kill in 0..kills {
        let number = kill as usize;
        if let Some(last) = number.checked_sub(1) {
            world.mount();
            let kept = durable(&world, &ids[last]);
            if kept > 0 {
                let told = attribute(&files[last], "cached");
                assert_eq!(told, kept.to_string(), "what was durable is there");
            }
            let fetched = make_whole(&world, &files[last], &content(kill - 1), kept);
            kept_in_all += kept;
            again += fetched;
        }
        let before = world.sim.bill().bytes_served;
        // Of every other file a part is durable before the load begins.
        let settled = kill % 2 * SIZE / 2;
        if settled > 0 {
            let mut start = vec![0; settled as usize];
            let file = File::open(&files[number]).unwrap();
            file.read_exact_at(&mut start, 0).unwrap();
            assert!(start == content(kill).read(0..settled).unwrap());
            eventually("it is durable", || durable(&world, &ids[number]) >= settled);
        }
        let load = Load::start(&files[number], &content(kill));
        let served = settled + mixed(kill) % (SIZE - settled);
        until_served(&world, before, served);
        world.kill9();
        reads += load.end();
    }
    world.mount();
    let last = kills as usize - 1;
    let kept = durable(&world, &ids[last]);
    again += make_whole(&world, &files[last], &content(kills - 1), kept);
    kept_in_all += kept;
    for number in 0..kills {
        let path = &files[number as usize];
        assert_eq!(sha256_of(path), content(number).sha256().unwrap());
    }
    let status = fs::read(world.mountpoint.join(".backupfs/status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["cache"]["damaged_blocks"], 0);
    assert!(kept_in_all >= kills / 2 * SIZE / 2, "{kept_in_all}");
    assert_eq!(world.sim.bill().tasks_created, kills);
    world.unmount();
    eprintln!(
        "{kills} kills under load, {reads} reads compared: {} MiB survived, {} MiB were fetched \
         after a kill, {} MiB in all of {} MiB",
        kept_in_all >> 20,
        again >> 20,
        world.sim.bill().bytes_served >> 20,
        (kills * SIZE) >> 20
    );
}
