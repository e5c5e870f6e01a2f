//! A long run: mixed readers over links that die, while one request in twenty goes wrong.
//!
//! Every read is compared; memory, descriptors, threads and tasks of the mount are recorded every few
//! seconds, and none may grow. `scripts/soak` runs it: `MONGO_BACKUPFS_SOAK_MINUTES` says how long,
//! `MONGO_BACKUPFS_SOAK_CSV` where the record goes. Readers pause between reads, so that the run lasts
//! rather than heats.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::sim::{Content, Fault, Rule, Side, tencent, ucloud};
use serde_json::Value;

use crate::crowd::{status, wanted};
use crate::world::{World, eventually, is_mounted, kill, one_cluster, only_file, sha256_of};

const SIZE: u64 = (24 << 20) + 4097;
const FILES: u64 = 6;
const READERS: u64 = 12;
const PAUSE: Duration = Duration::from_millis(100);
const EVERY: Duration = Duration::from_secs(3);

const MEMORY_MIB: u64 = 64;
const CACHE_MIB: u64 = 96;
/// What the process may take beyond its budget: code's data, stacks, tables, connections.
const BEYOND_MIB: u64 = 64;
/// How many more descriptors or threads there may be late than early: connections come and go.
const WAVES: u64 = 16;

const LINK_LIFE: SignedDuration = SignedDuration::from_secs(5);

fn minutes() -> f64 {
    let minutes = std::env::var("MONGO_BACKUPFS_SOAK_MINUTES").ok();
    minutes.map_or(3.0, |text| text.parse().expect("a number of minutes"))
}

fn content(number: u64) -> Content {
    Content::noise(900 + number, SIZE)
}

/// Two backups each in three clouds, whose numbers are those of their contents.
fn world() -> World {
    let first: Timestamp = "2026-03-01T18:00:00Z".parse().unwrap();
    let day = |number: u64| first + SignedDuration::from_hours(24 * number as i64);
    let instance = (2..4).fold(tencent::Instance::new("cmgo-soak"), |all, number| {
        all.backup(tencent::Backup::at(day(number), [content(number)]))
    });
    let set = (4..6).fold(
        ucloud::Instance::replica_set("umongodb-soak"),
        |all, number| all.backup(ucloud::Backup::at(day(number), [content(number)])),
    );
    let clouds = one_cluster((0..2).map(content))
        .instance(instance)
        .ucloud(ucloud::Account::new().instance(set));
    let mut world = World::new(clouds)
        .key(&format!("memory = \"{MEMORY_MIB}MiB\""))
        .key(&format!("cache_size = \"{CACHE_MIB}MiB\""))
        .key("list_ttl = \"2s\"");
    let others = [
        crate::tencent::account(&world.sim),
        crate::ucloud::account(&world.sim, &[]),
    ];
    world.provider_keys.extend(others);
    world.sim.adjust(|knobs| knobs.link_life = Some(LINK_LIFE));
    world
        .sim
        .adjust_tencent(|knobs| knobs.link_life = LINK_LIFE);
    world
}

/// The file of each content.
fn files(world: &World) -> Vec<PathBuf> {
    let instances = [
        world.cluster(),
        world.mountpoint.join("tencent/cmgo-soak"),
        world
            .mountpoint
            .join(crate::ucloud::PLACE)
            .join("umongodb-soak"),
    ];
    let backups = instances.iter().flat_map(|instance| {
        let entries = fs::read_dir(instance).unwrap();
        let mut backups: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap() != "latest")
            .collect();
        backups.sort();
        backups
    });
    backups.map(|backup| only_file(&backup)).collect()
}

/// Of the data requests one in twenty goes wrong, in ten ways; of the API's as many, in six.
fn add_faults(world: &World) {
    let status = |code, retry_after: Option<&str>| Fault::Status {
        code,
        retry_after: retry_after.map(Into::into),
    };
    let gzip = Fault::Header {
        name: "content-encoding".into(),
        value: "gzip".into(),
    };
    let data = [
        Fault::Sever,
        Fault::SeverAnswer,
        Fault::Cut { after: 100_000 },
        Fault::ShortBody { by: 7 },
        Fault::LongBody { by: 3 },
        Fault::Latency { ms: 700 },
        status(500, None),
        status(503, Some("0")),
        Fault::ShiftRange { by: 1 },
        gzip,
    ];
    let api = [
        Fault::Sever,
        Fault::SeverAnswer,
        Fault::LoseAnswer { code: 504 },
        Fault::LoginPage,
        status(500, None),
        status(429, Some("1")),
    ];
    for (side, faults) in [(Side::Data, &data[..]), (Side::Api, &api[..])] {
        let chance = 0.05 / faults.len() as f64;
        for fault in faults {
            let rule = Rule::new(fault.clone()).on(side).chance(chance);
            world.sim.faults().add(rule);
        }
    }
}

/// What the readers did.
#[derive(Default)]
struct Tally {
    reads: AtomicU64,
    bytes: AtomicU64,
    /// Opens and reads that ended with EIO: faults that met the same request again and again.
    refused: AtomicU64,
}

impl Tally {
    /// EIO is a legitimate answer to a store that goes wrong twice in a row; nothing else is.
    fn refused(&self, what: &str, error: &std::io::Error) {
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{what}: {error}");
        self.refused.fetch_add(1, Relaxed);
    }

    /// Reads on, opening anew now and then, and compares, until `over`.
    fn read_on(&self, reader: u64, files: &[PathBuf], over: &AtomicBool) {
        const READS_PER_OPEN: u64 = 50;
        let mut piece = vec![0; 1 << 20];
        let mut n = 0;
        while !over.load(Relaxed) {
            let number = (reader + n / READS_PER_OPEN) % FILES;
            let content = content(number);
            let file = match File::open(&files[number as usize]) {
                Ok(file) => file,
                Err(error) => {
                    self.refused("open", &error);
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            for _ in 0..READS_PER_OPEN {
                if over.load(Relaxed) {
                    return;
                }
                let range = wanted(reader, n, SIZE);
                let piece = &mut piece[..(range.end - range.start) as usize];
                match file.read_exact_at(piece, range.start) {
                    Ok(()) => {
                        let expected = content.read(range.clone()).unwrap();
                        assert!(*piece == expected[..], "reader {reader} at {range:?}");
                        self.reads.fetch_add(1, Relaxed);
                        self.bytes.fetch_add(piece.len() as u64, Relaxed);
                    }
                    Err(error) => self.refused(&format!("{range:?}"), &error),
                }
                n += 1;
                thread::sleep(PAUSE);
            }
        }
    }
}

/// The mount at one moment.
#[derive(Debug)]
struct Sample {
    seconds: f64,
    rss_kib: u64,
    anon_kib: u64,
    descriptors: u64,
    threads: u64,
    memory: u64,
    cache: u64,
    open_files: u64,
    tasks: u64,
}

impl Sample {
    const COLUMNS: &str =
        "seconds,rss_kib,anon_kib,descriptors,threads,memory_used,cache_used,open_files,tasks\n";

    fn take(world: &World, begun: Instant) -> Self {
        let process = PathBuf::from(format!("/proc/{}", world.pid()));
        let text = fs::read_to_string(process.join("status")).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).expect(name)
        };
        let status = status(world);
        let number = |value: &Value| value.as_u64().unwrap();
        Sample {
            seconds: begun.elapsed().as_secs_f64(),
            rss_kib: field("VmRSS:"),
            anon_kib: field("RssAnon:"),
            descriptors: fs::read_dir(process.join("fd")).unwrap().count() as u64,
            threads: field("Threads:"),
            memory: number(&status["memory"]["used"]),
            cache: number(&status["cache"]["used"]),
            open_files: number(&status["open_files"]),
            tasks: number(&status["tasks"]["created_total"]),
        }
    }

    fn line(&self) -> String {
        let Sample {
            seconds,
            rss_kib,
            anon_kib,
            descriptors,
            threads,
            memory,
            cache,
            open_files,
            tasks,
        } = self;
        format!(
            "{seconds:.1},{rss_kib},{anon_kib},{descriptors},{threads},{memory},{cache},\
             {open_files},{tasks}\n"
        )
    }
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// The medians of the second and the last quarter: the first is still warming up.
fn early_and_late(samples: &[Sample], of: fn(&Sample) -> u64) -> (u64, u64) {
    let quarter = samples.len() / 4;
    (
        median(&samples[quarter..2 * quarter], of),
        median(&samples[samples.len() - quarter..], of),
    )
}

/// Everything in the tree but its sizes and times.
fn listing(place: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut directories = vec![place.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

#[test]
#[ignore = "takes minutes: scripts/soak runs it"]
fn hours_of_faults_and_dying_links_cost_neither_bytes_nor_memory() {
    let length = Duration::from_secs_f64(minutes() * 60.0);
    let mut world = world();
    world.mount();
    let files = files(&world);
    let tree = listing(&world.mountpoint);
    // Each task is made once before anything goes wrong, so that what follows may make none.
    for (number, path) in (0..).zip(&files) {
        assert_eq!(sha256_of(path), content(number).sha256().unwrap());
    }
    let tasks = world.sim.bill().tasks_created;
    add_faults(&world);

    let (tally, over) = (Tally::default(), AtomicBool::new(false));
    let mut samples = Vec::new();
    thread::scope(|crowd| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (tally, files, over) = (&tally, &files, &over);
                crowd.spawn(move || tally.read_on(reader, files, over))
            })
            .collect();
        let begun = Instant::now();
        let mut record = Sample::COLUMNS.to_owned();
        while begun.elapsed() < length && readers.iter().all(|reader| !reader.is_finished()) {
            thread::sleep(EVERY.min(length / 20));
            assert_eq!(listing(&world.mountpoint), tree, "a listing never shrinks");
            samples.push(Sample::take(&world, begun));
            record += &samples.last().expect("just pushed").line();
        }
        over.store(true, Relaxed);
        if let Ok(path) = std::env::var("MONGO_BACKUPFS_SOAK_CSV") {
            fs::write(path, record).unwrap();
        }
    });

    let bill = world.sim.bill();
    let faults = bill.faults;
    let requests = bill.data_requests() + bill.api_requests();
    world.sim.faults().clear();
    for (number, path) in (0..).zip(&files) {
        assert_eq!(sha256_of(path), content(number).sha256().unwrap());
    }
    eventually("all memory is given back", || {
        let status = status(&world);
        status["open_files"] == 0 && status["memory"]["used"] == 0
    });
    assert_eq!(status(&world)["cache"]["damaged_blocks"], 0);
    let bill = world.sim.bill();

    // It ends while files are read.
    let stopping = AtomicBool::new(false);
    let took = thread::scope(|crowd| {
        for reader in 0..READERS {
            let (files, stopping) = (&files, &stopping);
            crowd.spawn(move || {
                let mut piece = vec![0; 1 << 18];
                // Until the mount is gone, or for as long as the kernel reads without it.
                let file = File::open(&files[(reader % FILES) as usize]).unwrap();
                while !stopping.load(Relaxed) && file.read_at(&mut piece, reader << 20).is_ok() {
                    thread::sleep(PAUSE);
                }
            });
        }
        eventually("all read", || status(&world)["open_files"] == READERS);
        let asked = Instant::now();
        kill(world.pid(), libc::SIGTERM);
        eventually("it is unmounted", || !is_mounted(&world.mountpoint));
        let took = asked.elapsed();
        // The process ends once the disk has taken what was written before: that may be busy.
        let status = world.ended();
        assert!(status.success(), "{status}");
        stopping.store(true, Relaxed);
        (took, asked.elapsed())
    });

    let most = |of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap();
    let descriptors = early_and_late(&samples, |sample| sample.descriptors);
    let threads = early_and_late(&samples, |sample| sample.threads);
    let (reads, refused) = (tally.reads.load(Relaxed), tally.refused.load(Relaxed));
    let mut summary = String::new();
    let told: [(&str, String); 9] = [
        (
            "time",
            format!("{:.1} min, {} samples", minutes(), samples.len()),
        ),
        (
            "reads",
            format!(
                "{reads} compared, {} MiB; {refused} EIO",
                tally.bytes.load(Relaxed) >> 20
            ),
        ),
        ("faults", format!("{faults} in {requests} requests")),
        (
            "links",
            format!(
                "{} renewed, {} met their end",
                bill.link_refreshes, bill.expired_link_uses
            ),
        ),
        (
            "tasks",
            format!("{} created for {} files", bill.tasks_created, files.len()),
        ),
        (
            "memory",
            format!(
                "{} MiB anonymous, {} MiB resident at most; budget {MEMORY_MIB} MiB",
                most(|sample| sample.anon_kib) >> 10,
                most(|sample| sample.rss_kib) >> 10,
            ),
        ),
        (
            "descriptors",
            format!(
                "{} early, {} late, {} at most",
                descriptors.0,
                descriptors.1,
                most(|s| s.descriptors)
            ),
        ),
        (
            "threads",
            format!(
                "{} early, {} late, {} at most",
                threads.0,
                threads.1,
                most(|s| s.threads)
            ),
        ),
        (
            "unmount",
            format!(
                "{:.1} s under load, the process {:.1} s",
                took.0.as_secs_f64(),
                took.1.as_secs_f64()
            ),
        ),
    ];
    for (name, words) in told {
        let _ = writeln!(summary, "soak: {name:<11} {words}");
    }
    eprint!("{summary}");

    assert!(reads > 0 && refused * 100 <= reads, "{refused} of {reads}");
    assert!(bill.link_refreshes > 0 && faults > 0);
    assert_eq!(bill.tasks_created, tasks, "no task beyond the first");
    let anon = most(|sample| sample.anon_kib);
    assert!(anon <= (MEMORY_MIB + BEYOND_MIB) << 10, "{anon} KiB");
    assert!(descriptors.1 <= descriptors.0 + WAVES, "{descriptors:?}");
    assert!(threads.1 <= threads.0 + WAVES, "{threads:?}");
    assert!(took.0 <= Duration::from_secs(10), "{took:?}");
}
