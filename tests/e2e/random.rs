//! Random reads of a mount whose data host spoils one answer in five: the right bytes, all of them,
//! or an errno. The files are larger than the cache and are read past the kernel's, so that reads
//! keep reaching the host.
//!
//! 1000 reads by default; `HOSTILE_READS=1000000` makes the full run, which prints its figures with
//! `--nocapture`. Faults that cost a time-out are left to `tests/fetch/random.rs`, where time-outs
//! are short.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Instant;

use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use crate::dice::mixed;
use crate::world::World;

const ARTIFACTS: u64 = 3;
const READERS: u64 = 16;
const SIZE: u64 = (6 << 20) + 4097;
/// Of all data requests.
const SPOILT: f64 = 0.2;

fn reads() -> u64 {
    let reads = std::env::var("HOSTILE_READS").ok();
    reads.map_or(1000, |text| text.parse().expect("a number of reads"))
}

fn content(artifact: u64) -> Content {
    Content::noise(40 + artifact, SIZE)
}

/// What may happen to a data request, by name.
fn faults() -> Vec<(&'static str, Fault)> {
    let status = |code| Fault::Status {
        code,
        retry_after: None,
    };
    let header = |name: &str, value: &str| Fault::Header {
        name: name.into(),
        value: value.into(),
    };
    let redirect = |location: &str| Fault::Redirect {
        code: 302,
        location: location.into(),
    };
    let overloaded = Fault::Status {
        code: 503,
        retry_after: Some("0".into()),
    };
    vec![
        ("500", status(500)),
        ("502", status(502)),
        ("503 with Retry-After", overloaded),
        ("504", status(504)),
        ("429", status(429)),
        ("403", status(403)),
        ("418", status(418)),
        ("closed before the answer", Fault::Sever),
        ("closed after 1 byte", Fault::Cut { after: 1 }),
        ("closed after 100 KB", Fault::Cut { after: 100_000 }),
        ("another range", Fault::ShiftRange { by: 1 }),
        ("a body too short", Fault::ShortBody { by: 1 }),
        ("a body too long", Fault::LongBody { by: 3 }),
        ("the whole file", Fault::IgnoreRange),
        ("gzip", header("content-encoding", "gzip")),
        ("no Content-Range", header("content-range", "")),
        ("another total", header("content-range", "bytes 0-1/7")),
        (
            "garbage in Content-Range",
            header("content-range", "bytes one/two"),
        ),
        (
            "multipart",
            header("content-type", "multipart/byteranges; boundary=b"),
        ),
        ("no version", header("etag", "")),
        ("a login page", Fault::LoginPage),
        ("a redirect to a file", redirect("file:///etc/passwd")),
        (
            "a redirect with a password",
            redirect("http://u:p@127.0.0.1/x"),
        ),
        ("slow", Fault::Latency { ms: 20 }),
    ]
}

/// Makes `count` reads and compares them; answers how many ended in which errno.
fn read_on(reader: u64, path: &Path, content: &Content, count: u64) -> BTreeMap<i32, u64> {
    // Past the kernel's cache: each read is the mount's.
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_DIRECT).open(path)
    };
    let mut errors = BTreeMap::new();
    let mut file: Option<File> = None;
    let mut piece = vec![0; 200 << 10];
    for n in 0..count {
        let dice = mixed(reader << 40 | n);
        let offset = dice % SIZE;
        let len = 1
            + (dice >> 40)
                % (if reader.is_multiple_of(4) {
                    200 << 10
                } else {
                    16 << 10
                });
        let expected = (offset + len).min(SIZE) - offset;
        let read = match file.take().map_or_else(open, Ok) {
            Ok(opened) => {
                let read = opened.read_at(&mut piece[..len as usize], offset);
                file = read.is_ok().then_some(opened);
                read
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(got) => {
                assert_eq!(got as u64, expected, "short at {offset}");
                let right = content.read(offset..offset + expected).unwrap();
                assert!(
                    piece[..got] == right[..],
                    "other bytes at {offset} of {path:?}"
                );
            }
            Err(error) => {
                let errno = error.raw_os_error().expect("an error of the kernel");
                *errors.entry(errno).or_default() += 1;
            }
        }
    }
    errors
}

#[test]
fn random_reads_of_a_mount_through_a_fifth_of_faults_are_right_or_an_error() {
    let mut world = World::with_content((0..ARTIFACTS).map(content))
        .key("memory = \"32MiB\"")
        .key("cache_size = \"4MiB\"");
    world.mount();
    let files = world.files();
    // Sizes and tasks are known before it begins.
    for (file, artifact) in files.iter().zip(0..) {
        let mut first = [0; 1000];
        File::open(file)
            .unwrap()
            .read_exact_at(&mut first, 0)
            .unwrap();
        assert_eq!(first[..], content(artifact).read(0..1000).unwrap()[..]);
    }
    let clean = world.sim.bill();
    let faults = faults();
    // Each rule is asked only where those before it left the request alone.
    for (number, (_, fault)) in faults.iter().enumerate() {
        let even = SPOILT / faults.len() as f64;
        let chance = even / (1.0 - even * number as f64);
        let rule = Rule::new(fault.clone()).on(Side::Data).chance(chance);
        world.sim.faults().add(rule.times(u64::MAX));
    }

    let begun = Instant::now();
    let errors = thread::scope(|crowd| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let artifact = reader % ARTIFACTS;
                let path = &files[artifact as usize];
                crowd.spawn(move || read_on(reader, path, &content(artifact), reads() / READERS))
            })
            .collect();
        let mut errors = BTreeMap::<i32, u64>::new();
        for reader in readers {
            for (errno, count) in reader.join().unwrap() {
                *errors.entry(errno).or_default() += count;
            }
        }
        errors
    });

    let left = world.sim.faults().rules();
    let met: BTreeMap<&str, u64> = faults
        .iter()
        .zip(&left)
        .map(|((name, _), rule)| {
            let rule = serde_json::to_value(rule).unwrap();
            (*name, u64::MAX - rule["times"].as_u64().unwrap())
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    let bill = world.sim.bill();
    let requests = bill.data_requests() - clean.data_requests();
    let spoilt: u64 = met.values().sum();
    println!(
        "{} reads in {:?}: {requests} requests, {spoilt} spoilt; errors by errno: {errors:?}\n{met:?}",
        reads() / READERS * READERS,
        begun.elapsed(),
    );
    assert!(
        met.len() >= 15,
        "{} kinds of faults were met: {met:?}",
        met.len()
    );
    assert!(spoilt * 100 > requests * 15, "{spoilt} of {requests}");
    // All is outlasted, but for what meets the worst so often in a row that nobody should go on.
    let failed: u64 = errors.values().sum();
    assert!(failed <= 2 + reads() / 10_000, "{errors:?}");
    assert_eq!(bill.tasks_created, ARTIFACTS);
    world.sim.faults().clear();
    world.unmount();
}
