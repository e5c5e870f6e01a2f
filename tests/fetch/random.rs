//! Many readers through every fault of the hostile host at once: the right bytes, all of them, or an
//! error. Files larger than the cache are read, so that reads keep reaching the host.
//!
//! 4000 reads by default; `HOSTILE_READS=1000000` makes the full run (about a quarter of an hour),
//! which prints its figures with `--nocapture`. See `mixture` for the seed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mongo_backupfs::cache::{Budget, Cache};
use mongo_backupfs::clock::SystemClock;
use mongo_backupfs::error::Kind;
use mongo_backupfs::fetch::{FetchOptions, Fetcher};
use mongo_backupfs::links::Links;
use mongo_backupfs::model::{ArtifactKey, TaskKey, Validator};
use mongo_backupfs::reader::{ArtifactSpec, Readers};

use crate::Numbered;
use crate::dice::mixed;
use crate::hostile::{Hostile, Object, Reply};
use crate::mixture::Mixture;

const ARTIFACTS: usize = 3;
const READERS: u64 = 24;
const SIZE: u64 = (6 << 20) + 4097;
const CACHE: u64 = 4 << 20;
/// How the error is noted that a reader of a replaced artifact gets.
const CHANGED: &str = "changed";
const MEMORY: u64 = 32 << 20;

fn reads() -> u64 {
    let reads = std::env::var("HOSTILE_READS").ok();
    reads.map_or(4000, |text| text.parse().expect("a number of reads"))
}

/// Where the artifacts lie and what is done to their readers.
struct Scene {
    object: Object,
    mixture: Mixture,
    /// Faults begin when all artifacts were opened once.
    spoiling: AtomicBool,
}

/// What the readers met.
#[derive(Default)]
struct Met {
    reads: AtomicU64,
    bytes: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
}

/// The `n`th read of a reader: anywhere, of a few bytes up to several blocks; one reader in eight
/// goes forward.
fn wanted(reader: u64, n: u64) -> (u64, u32) {
    let dice = mixed(reader << 40 | n);
    match reader % 8 {
        0 => ((n << 16) % SIZE, 1 << 16),
        1..4 => (dice % SIZE, 1 + (dice >> 40) as u32 % 4096),
        4..7 => (dice % SIZE, 1 + (dice >> 40) as u32 % (64 << 10)),
        _ => (dice % SIZE, 1 + (dice >> 40) as u32 % (400 << 10)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn random_reads_through_a_fifth_of_faults_are_right_or_an_error() {
    let scene = Arc::new(Scene {
        object: Object::new(SIZE as usize),
        mixture: Mixture::of(20),
        spoiling: false.into(),
    });
    let acting = Arc::clone(&scene);
    let host = Hostile::start(move |request, n| match acting.spoiling.load(Relaxed) {
        true => acting.mixture.answer(&acting.object, request, n),
        false => Reply::honest(&acting.object, request),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(&directory.path().join("cache"), CACHE).unwrap();
    let budget = Budget::new(MEMORY);
    let readers = Readers::new(cache.clone(), budget.clone());
    let fetcher = Fetcher::new(FetchOptions {
        allow_http: true,
        // Silence is a fault like others here: it must not take the time of others.
        idle_timeout: Duration::from_millis(400),
        slow_window: Duration::from_millis(400),
        retry_budget: Duration::from_secs(60),
        ..FetchOptions::default()
    })
    .unwrap();
    let artifacts: Vec<_> = (0..ARTIFACTS)
        .map(|number| {
            let source = Numbered::at(host.url(&format!("/{number}")));
            let key = ArtifactKey {
                task: TaskKey {
                    provider: "atlas".into(),
                    instance: "c0".into(),
                    backup: number.to_string(),
                    shard: "rs0".into(),
                },
                file: "rs0.archive.gz".into(),
            };
            (key, Arc::new(Links::new(source, Arc::new(SystemClock))))
        })
        .collect();
    let validator: Validator = fetcher.probe(&artifacts[0].1).await.unwrap().validator;
    scene.spoiling.store(true, Relaxed);

    let begun = Instant::now();
    let met = Arc::new(Met::default());
    let crowd = (0..READERS).map(|reader| {
        let (readers, scene, met) = (readers.clone(), Arc::clone(&scene), Arc::clone(&met));
        let (key, links) = artifacts[reader as usize % ARTIFACTS].clone();
        let (fetcher, validator) = (fetcher.clone(), validator.clone());
        tokio::spawn(async move {
            let open = || {
                readers.open(ArtifactSpec {
                    key: key.clone(),
                    validator: validator.clone(),
                    links: Arc::clone(&links),
                    fetcher: fetcher.clone(),
                })
            };
            let mut handle = open();
            for n in 0..reads() / READERS {
                let (offset, len) = wanted(reader, n);
                let end = (offset + u64::from(len)).min(SIZE);
                let read = match handle.read_now(offset, len) {
                    Some(read) => read,
                    None => handle.read(offset, len).await,
                };
                met.reads.fetch_add(1, Relaxed);
                match read {
                    Ok(bytes) => {
                        let right = scene.object.slice(offset..end);
                        assert_eq!(bytes.len(), right.len(), "short at {offset}");
                        assert!(bytes == *right, "other bytes at {offset}..{end}");
                        met.bytes.fetch_add(bytes.len() as u64, Relaxed);
                    }
                    Err(error) => {
                        let words = match error.kind() {
                            Kind::Changed => String::from(CHANGED),
                            _ => error.to_string(),
                        };
                        *met.errors.lock().unwrap().entry(words).or_default() += 1;
                        handle = open();
                    }
                }
            }
        })
    });
    for reader in futures::future::join_all(crowd).await {
        reader.unwrap();
    }

    let faults = scene.mixture.met();
    let errors = met.errors.lock().unwrap().clone();
    let (requests, spoilt) = (scene.mixture.asked(), faults.values().sum::<u64>());
    println!(
        "{} reads of {} MiB in {:?}: {requests} requests, {spoilt} spoilt, {} retries, {} links",
        met.reads.load(Relaxed),
        met.bytes.load(Relaxed) >> 20,
        begun.elapsed(),
        fetcher.stats().retries(),
        artifacts
            .iter()
            .map(|(_, links)| links.refreshes())
            .sum::<u64>(),
    );
    println!("faults: {faults:?}\nerrors: {errors:?}");
    assert!(
        faults.len() >= 15,
        "{} kinds of faults were met",
        faults.len()
    );
    assert!(
        spoilt * 100 > requests * 15,
        "{spoilt} of {requests} spoilt"
    );
    // A change of version is told to all who read it, at once. All else is outlasted, but for what
    // meets the worst so often in a row that nobody should go on.
    let changes: u64 = faults
        .iter()
        .filter(|(fault, _)| fault.is_a_change())
        .map(|(_, n)| n)
        .sum();
    let (stale, failed): (Vec<_>, Vec<_>) = errors.iter().partition(|(words, _)| *words == CHANGED);
    let count = |errors: Vec<(&String, &u64)>| errors.iter().map(|(_, n)| **n).sum::<u64>();
    assert!(count(stale) <= changes * READERS / ARTIFACTS as u64);
    assert!(
        !errors.keys().any(|words| words.contains("damaged")),
        "what is evicted while it is read is not damaged: {errors:?}"
    );
    assert!(count(failed) <= 2 + reads() / 20_000, "{errors:?}");

    // Nothing is held for reads that are over.
    drop(readers);
    cache.flush().await;
    let end = Instant::now() + Duration::from_secs(30);
    while budget.used() > 0 {
        assert!(
            Instant::now() < end,
            "{} bytes are still held",
            budget.used()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
