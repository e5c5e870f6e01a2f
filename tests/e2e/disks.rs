//! A cache on a disk that is full, read-only, taken away or huge: no reader notices, and the mount
//! neither fills another disk nor waits.
//!
//! The disks are small filesystems mounted over the cache directory of one test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mongo_backupfs::sim::{Content, Fault, Rule, Side};
use rustix::fs::Advice;
use serde_json::Value;

use crate::crowd::status;
use crate::kills::durable;
use crate::world::{CLUSTER, World, attribute, eventually, sh, sha256_of};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 4 * MIB + 77;

/// More than is ever read ahead of a reader of these.
const LONG: u64 = 40 * MIB + 5;

fn content(number: u64) -> Content {
    Content::noise(700 + number, SIZE)
}

/// A world with three backups whose cache directory is a filesystem of its own; not mounted yet.
fn world(disk: impl FnOnce(&Path)) -> (World, Disk) {
    let world = World::with_content((0..3).map(content));
    let cache = world.dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    disk(&cache);
    sh(&format!("chmod 700 '{}'", cache.display()));
    (world, Disk(cache))
}

/// A filesystem that is taken away with this.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn tmpfs(cache: &Path) {
    sh(&format!(
        "mount -t tmpfs -o size=32M tmpfs '{}'",
        cache.display()
    ));
}

fn cache(world: &World) -> Value {
    status(world)["cache"].clone()
}

fn is_right(path: &Path, number: u64) {
    assert_eq!(sha256_of(path), content(number).sha256().unwrap());
}

/// Makes the kernel ask for the file's bytes again.
fn forget_pages(path: &Path) {
    rustix::fs::fadvise(File::open(path).unwrap(), 0, None, Advice::DontNeed).unwrap();
}

fn cached(path: &Path) -> u64 {
    attribute(path, "cached").parse().unwrap()
}

/// How often the log says that the cache is not used.
fn complaints(world: &World) -> usize {
    world.log().matches("reads go on without caching").count()
}

#[test]
fn case_43_a_full_disk_stops_no_reader_and_is_used_again_when_there_is_room() {
    let (mut world, disk) = world(tmpfs);
    world.mount();
    let files = world.files();
    let hog = disk.0.join("hog");
    fs::write(&hog, vec![1; 33 * MIB as usize]).unwrap_err();
    is_right(&files[0], 0);
    world.unmount();
    // A mount over a full disk is a mount as well.
    world.mount();
    is_right(&files[1], 1);
    let told = cache(&world);
    assert!(
        told["degraded"] == true && told["disk_failures"].as_u64() > Some(0),
        "{told}"
    );
    assert_eq!(complaints(&world), 2, "each said it once");
    assert_eq!((cached(&files[0]), cached(&files[1])), (0, 0));

    fs::remove_file(&hog).unwrap();
    // Nobody has to do anything but read: now and then it is tried again.
    eventually("it is used again", || {
        forget_pages(&files[2]);
        is_right(&files[2], 2);
        cached(&files[2]) == SIZE
    });
    assert_eq!(cache(&world)["degraded"], false);
    assert!(world.log().contains("works again"));
    world.unmount();
    let before = world.sim.bill().bytes_served;
    world.mount();
    is_right(&files[2], 2);
    assert_eq!(
        world.sim.bill().bytes_served,
        before,
        "what it took it kept"
    );
}

#[test]
fn case_43_without_a_cache_a_long_file_is_fetched_about_once() {
    let content = Content::noise(710, LONG);
    let mut world = World::with_content([content.clone()]);
    let cache = world.dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    tmpfs(&cache);
    let disk = Disk(cache);
    sh(&format!("chmod 700 '{}'", disk.0.display()));
    for memory in ["16MiB", "512MiB"] {
        world.mount_keys = vec![format!("memory = \"{memory}\"")];
        world.mount();
        // Full from the first read on.
        let _ = fs::write(disk.0.join("hog"), vec![1; 33 * MIB as usize]);
        is_fetched_about_once(&world, &content);
        world.unmount();
    }
}

#[test]
fn case_48_a_file_that_is_read_further_ahead_than_the_cache_holds_is_fetched_about_once() {
    let content = Content::noise(711, LONG);
    let mut world = World::with_content([content.clone()]).key("cache_size = \"4MiB\"");
    world.mount();
    is_fetched_about_once(&world, &content);
    world.unmount();
}

/// Reads the only file.
fn is_fetched_about_once(world: &World, content: &Content) {
    let before = world.sim.bill().bytes_served;
    assert_eq!(sha256_of(&world.latest_file()), content.sha256().unwrap());
    let fetched = world.sim.bill().bytes_served - before;
    let size = content.size();
    assert!(fetched < size + size / 2, "{fetched} of {size}");
}

#[test]
fn case_43_a_disk_that_goes_read_only_stops_no_reader_and_is_told_once() {
    let mut image = PathBuf::new();
    let (mut world, disk) = world(|cache| {
        image = cache.with_extension("ext4");
        sh(&format!(
            "truncate -s 64M '{0}'; mkfs.ext4 -q -F '{0}'; mount -o loop '{0}' '{1}'",
            image.display(),
            cache.display()
        ));
    });
    world.mount();
    let files = world.files();
    is_right(&files[0], 0);
    let id = &world.sim.snapshot_ids(CLUSTER)[0];
    eventually("it is durable", || durable(&world, id) >= SIZE);
    let before = world.sim.bill().bytes_served;
    // What the kernel does when the disk reports errors.
    sh(&format!("mount -o remount,abort '{}'", disk.0.display()));
    is_right(&files[1], 1);
    let served = world.sim.bill().bytes_served;
    assert!(served >= before + SIZE, "straight from the store");
    // What lies on it still is not asked for again.
    world
        .sim
        .faults()
        .add(Rule::new(Fault::Sever).on(Side::Data));
    forget_pages(&files[0]);
    is_right(&files[0], 0);
    eventually("it is told", || cache(&world)["degraded"] == true);
    assert_eq!(complaints(&world), 1);
    world.unmount();
}

#[test]
fn case_44_a_disk_taken_away_is_not_replaced_by_the_one_below() {
    let (mut world, disk) = world(tmpfs);
    world.mount();
    let files = world.files();
    is_right(&files[0], 0);
    sh(&format!("umount -l '{}'", disk.0.display()));
    is_right(&files[1], 1);
    is_right(&files[0], 0);
    eventually("it is told", || cache(&world)["degraded"] == true);
    assert!(
        world.log().contains("was its filesystem unmounted?"),
        "{}",
        world.log()
    );
    world.unmount();
    assert_eq!(
        fs::read_dir(&disk.0).unwrap().count(),
        0,
        "nothing was written below"
    );
}

#[test]
fn case_46_a_cache_that_is_not_ours_alone_is_refused() {
    let world = World::with_content([content(0)]);
    let dir = world.dir.path();
    let (cache, place) = (dir.join("cache"), world.mountpoint.to_str().unwrap());
    let refused = |words: &str| {
        let output = world.run(&["--log-level", "error", "mount", place]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    };
    fs::create_dir(&cache).unwrap();
    for (spoil, mend, words) in [
        ("chmod 777 cache", "chmod 700 cache", "written by others"),
        (
            "chown 12345 cache",
            "chown $(id -u) cache",
            "belongs to user 12345",
        ),
        ("mkfifo cache/lock", "rm cache/lock", "not ours"),
        (
            "ln -s /etc/hostname cache/lock",
            "rm cache/lock",
            "cannot lock",
        ),
        (
            "mkdir cache/v1; touch cache/v1/x",
            "rm -r cache/v1",
            "not a cache",
        ),
        (
            "mv cache real; ln -s real cache",
            "rm cache; mv real cache",
            "symbolic link",
        ),
    ] {
        sh(&format!("cd '{}'; {spoil}", dir.display()));
        refused(words);
        sh(&format!("cd '{}'; {mend}", dir.display()));
    }
}

/// Eight artifacts of 128 GiB and as many small ones as fit under 10 000 names. Only the names and
/// sizes count: nobody reads them here.
#[test]
fn case_48_a_terabyte_in_the_cache_does_not_delay_the_mount() {
    let mut world = World::with_content([content(0)]);
    let mut ready = |plant: &dyn Fn(&Path)| {
        plant(&world.dir.path().join("cache/v1"));
        let begun = Instant::now();
        world.mount();
        let took = begun.elapsed();
        is_right(&world.latest_file(), 0);
        world.unmount();
        took
    };
    let empty = ready(&|_| ());
    let full = ready(&|shelves| {
        for number in 0..5000 {
            let shelf = shelves.join(format!("{:02x}", number % 256));
            fs::create_dir_all(&shelf).unwrap();
            let name = format!("{:02x}{number:062x}", number % 256);
            let size = if number < 8 { 128 << 30 } else { 16 * MIB };
            for (suffix, size) in [("data", size), ("map", 4096 + size / (128 << 10) * 8)] {
                let file = File::create(shelf.join(format!("{name}.{suffix}"))).unwrap();
                file.set_len(size).unwrap();
            }
        }
    });
    assert!(
        full < empty + Duration::from_secs(2),
        "{full:?}, empty {empty:?}"
    );
}
