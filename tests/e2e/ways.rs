//! The ways by which the kernel reads a file: its own pages, directly, passthrough. Each gives the
//! artifact's bytes, also when several stand beside each other.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use mongo_backupfs::sim::Content;
use serde_json::Value;

use crate::world::{World, eventually, sh, sha256, sha256_of};

/// Several extents of the cache, and no multiple of a block or a page.
const SIZE: u64 = (37 << 20) + 4097;

/// What `status.json` says of the kernel.
fn kernel(world: &World) -> Value {
    let text = std::fs::read(world.mountpoint.join(".backupfs/status.json")).unwrap();
    let status: Value = serde_json::from_slice(&text).unwrap();
    status["kernel"].clone()
}

fn opens(world: &World, way: &str) -> u64 {
    kernel(world)["opens"][way].as_u64().unwrap()
}

/// A mount with one artifact, and its digest.
fn mounted() -> (World, std::path::PathBuf, String) {
    let mut world = World::with_content([Content::noise(11, SIZE)]);
    world.mount();
    let file = world.latest_file();
    let digest = world.latest_sha256();
    (world, file, digest)
}

/// Why the kernel passes nothing through here, after saying so.
fn no_passthrough(world: &World) -> bool {
    let shown = kernel(world)["passthrough"].as_str().unwrap().to_owned();
    if shown != "on" {
        eprintln!("SKIPPED: passthrough is {shown}");
    }
    shown != "on"
}

/// A handle in passthrough: the file is opened until it is lent, which takes until it is durable.
fn lent(world: &World, file: &Path) -> File {
    eventually("the file is lent to the kernel", || {
        let before = opens(world, "passthrough");
        File::open(file).unwrap();
        opens(world, "passthrough") > before
    });
    let before = opens(world, "passthrough");
    let handle = File::open(file).unwrap();
    assert_eq!(opens(world, "passthrough"), before + 1);
    handle
}

fn bytes(range: std::ops::Range<u64>) -> Vec<u8> {
    Content::noise(11, SIZE).read(range).unwrap().to_vec()
}

fn read(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut buffer = vec![0; len];
    file.read_exact_at(&mut buffer, at).unwrap();
    buffer
}

/// A mapping of a whole file, which may be longer lived than its handle.
struct Mapping(*mut libc::c_void);

impl Mapping {
    fn new(file: &File, flags: i32) -> Self {
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe {
            let prot = libc::PROT_READ;
            libc::mmap(
                std::ptr::null_mut(),
                SIZE as usize,
                prot,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping(at)
    }

    fn sha256(&self) -> String {
        // SAFETY: the mapping is this long and lives as long as `self`.
        sha256(unsafe { std::slice::from_raw_parts(self.0.cast(), SIZE as usize) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length and nothing borrows it any more.
        unsafe { libc::munmap(self.0, SIZE as usize) };
    }
}

#[test]
fn a_complete_file_is_read_by_the_kernel_itself() {
    let (world, file, digest) = mounted();
    if no_passthrough(&world) {
        return;
    }
    assert_eq!(sha256_of(&file), digest);
    assert_eq!(opens(&world, "passthrough"), 0);
    let handle = lent(&world, &file);
    let reads = || {
        let text = std::fs::read(world.mountpoint.join(".backupfs/status.json")).unwrap();
        let status: Value = serde_json::from_slice(&text).unwrap();
        status["activity"]["read_bytes"].as_u64().unwrap()
    };
    let before = reads();
    assert_eq!(sha256_of(&file), digest);
    for at in [0, 4096, 1_234_567, SIZE - 5] {
        let len = (SIZE - at).min(100_003) as usize;
        assert!(
            read(&handle, at, len) == bytes(at..at + len as u64),
            "at {at}"
        );
    }
    assert_eq!(handle.read_at(&mut [0; 8], SIZE).unwrap(), 0, "the end");
    assert_eq!(handle.metadata().unwrap().len(), SIZE);
    for flags in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
        assert_eq!(Mapping::new(&handle, flags).sha256(), digest);
    }
    for tool in ["cat", "cp --reflink=auto", "dd bs=10k status=none if="] {
        let copy = world.dir.path().join("copy");
        let (from, to) = (file.display(), copy.display());
        match tool.split_once(' ') {
            None => sh(&format!("cat '{from}' > '{to}'")),
            Some(("cp", _)) => sh(&format!("{tool} '{from}' '{to}'")),
            Some(_) => sh(&format!("{tool}'{from}' of='{to}'")),
        };
        assert_eq!(sha256_of(&copy), digest, "{tool}");
        std::fs::remove_file(copy).unwrap();
    }
    assert_eq!(reads(), before, "nothing was asked of the process");
}

#[test]
fn a_handle_keeps_its_way_while_the_file_becomes_complete() {
    let (world, file, digest) = mounted();
    if no_passthrough(&world) {
        return;
    }
    let cold = File::open(&file).unwrap();
    assert!(read(&cold, 1 << 20, 10) == bytes(1 << 20..(1 << 20) + 10));
    assert_eq!(sha256_of(&file), digest);
    // Longer than a complete file takes to be durable: but the cold handle decides.
    let unlent = opens(&world, "passthrough");
    let started = std::time::Instant::now();
    while started.elapsed() < std::time::Duration::from_secs(2) {
        let beside = File::open(&file).unwrap();
        assert!(read(&beside, SIZE - 9, 9) == bytes(SIZE - 9..SIZE));
        assert_eq!(Mapping::new(&cold, libc::MAP_SHARED).sha256(), digest);
        assert_eq!(Mapping::new(&beside, libc::MAP_SHARED).sha256(), digest);
    }
    assert_eq!(opens(&world, "passthrough"), unlent);
    drop(cold);
    let warm = lent(&world, &file);
    assert_eq!(Mapping::new(&warm, libc::MAP_SHARED).sha256(), digest);
    assert!(read(&warm, 77, 77) == bytes(77..154));
}

#[test]
fn unbuffered_reads_need_no_alignment_also_beside_a_lent_handle() {
    let (world, file, digest) = mounted();
    let unbuffered = || {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_DIRECT);
        options.open(&file).unwrap()
    };
    let odd = |handle: &File| {
        assert!(read(handle, 4095, 4099) == bytes(4095..8194));
        let mut whole = Vec::new();
        (&*handle).read_to_end(&mut whole).unwrap();
        assert_eq!(sha256(&whole), digest);
    };
    odd(&unbuffered());
    if no_passthrough(&world) {
        return;
    }
    let lent = lent(&world, &file);
    odd(&unbuffered());
    drop(lent);
    odd(&unbuffered());
}

/// A mapping of the cache's own file needs no handle any more, which is all that we see of it.
#[test]
fn a_mapping_outlives_its_handle_and_the_pressure_on_the_cache() {
    let mut world = World::with_content([
        Content::noise(11, SIZE),
        Content::noise(12, SIZE),
        Content::noise(13, SIZE),
    ])
    .key(&format!("cache_size = \"{}MiB\"", (SIZE >> 20) + 10));
    world.mount();
    if no_passthrough(&world) {
        return;
    }
    let files = world.files();
    let digest = sha256_of(&files[0]);
    let handle = lent(&world, &files[0]);
    let mapping = Mapping::new(&handle, libc::MAP_SHARED);
    drop(handle);
    // Held by an ordinary handle, the file could lose single blocks.
    let mut options = File::options();
    let held = options
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&files[0]);
    for other in &files[1..] {
        sha256_of(other);
    }
    drop(held);
    assert_eq!(mapping.sha256(), digest);
}

#[test]
fn copying_programs_are_asked_directly_and_others_through_the_pages() {
    let (world, file, digest) = mounted();
    let copy = world.dir.path().join("copy");
    sh(&format!("cp '{}' '{}'", file.display(), copy.display()));
    assert_eq!(sha256_of(&copy), digest);
    assert_eq!(
        (opens(&world, "direct"), opens(&world, "page_cache")),
        (1, 0)
    );
    sh(&format!("head -c 5000 '{}' | wc -c", file.display()));
    let shown = kernel(&world)["opens"].clone();
    let [direct, others] = [&shown["direct"], &shown["page_cache"]].map(|n| n.as_u64().unwrap());
    let lent = shown["passthrough"].as_u64().unwrap();
    assert_eq!((direct, others + lent), (1, 1), "{shown}");
}

/// Random reads of a file with checksums inside, by every engine that programs use.
#[test]
fn case_53_fio_verifies_every_block_with_four_engines() {
    const MIB: u64 = 48;
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original");
    let job = format!("--name=verify --size={MIB}m --bs=4k --verify=crc32c --output-format=terse");
    sh(&format!(
        "cd '{}'; fio {job} --filename=original --rw=write --do_verify=0 --ioengine=psync",
        dir.path().display(),
    ));
    let mut world = World::with_content([Content::file(&original).unwrap()]);
    world.mount();
    let file = world.latest_file();
    let scratch = dir.path().display();
    // Cold, then complete, then perhaps lent; buffered and not.
    for engine in ["psync", "mmap", "libaio", "io_uring"] {
        for (rw, bs, direct) in [
            ("randread", "4k", 0),
            ("read", "256k", 0),
            ("randread", "64k", 1),
        ] {
            if engine == "mmap" && direct == 1 {
                continue;
            }
            sh(&format!(
                "cd '{scratch}'; fio --name=verify --readonly --filename='{}' --size={MIB}m --bs={bs} \
                 --rw={rw} --direct={direct} --verify=crc32c --verify_interval=4k --verify_fatal=1 \
                 --ioengine={engine} --iodepth=8 --numjobs=2 --thread --output-format=terse",
                file.display(),
            ));
        }
    }
    let opens = kernel(&world)["opens"].clone();
    assert!(opens["direct"].as_u64().unwrap() + opens["page_cache"].as_u64().unwrap() > 0);
}
