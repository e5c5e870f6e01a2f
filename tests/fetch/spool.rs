//! Links that work once only: one stream for all readers, and no two downloads mixed, whatever the
//! server does.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mongo_backupfs::cache::{BLOCK_SIZE, Budget, Cache};
use mongo_backupfs::clock::SystemClock;
use mongo_backupfs::error::{Error, Kind, Result};
use mongo_backupfs::fetch::{FetchOptions, Fetcher};
use mongo_backupfs::links::{LinkSource, Links};
use mongo_backupfs::model::{ArtifactKey, Link, LinkMode, TaskKey};
use mongo_backupfs::reader::spool::{Job, Jobs, Opening, Order, Spooling, Spools, Version};
use mongo_backupfs::reader::{Handle, Readers};
use mongo_backupfs::secret::SafeUrl;

use super::hostile::{Hostile, Object, Reply, Request};

/// Four blocks and a piece.
const SIZE: usize = 4 * BLOCK_SIZE as usize + 12_345;
/// In the middle of a block.
const HALF: usize = 2 * BLOCK_SIZE as usize + 1_000;

/// A provider's tasks, one after the other, each with one link.
#[derive(Debug, Default)]
struct Tasks {
    url: String,
    /// The number of the task that is ready, and of the last that policy allows.
    now: Mutex<u32>,
    last: u32,
    used_up: Mutex<Vec<String>>,
    remembered: Mutex<Vec<Version>>,
}

#[derive(Debug)]
struct OneLink(String);

#[async_trait]
impl LinkSource for OneLink {
    async fn fresh(&self) -> Result<Link> {
        Ok(Link {
            url: SafeUrl::parse(&self.0).unwrap(),
            headers: Vec::new(),
            expires: None,
            mode: LinkMode::Once,
        })
    }
}

#[async_trait]
impl Jobs for Tasks {
    async fn ready(&self) -> Result<Job> {
        let now = *self.now.lock().unwrap();
        if now > self.last {
            return Err(Error::new(Kind::Denied, "no more tasks today"));
        }
        let source = OneLink(format!("{}?task={now}", self.url));
        let links = Arc::new(Links::new(source, Arc::new(SystemClock)));
        // As one that was read before: a refusal then means that it is used up.
        let lease = links.lease().await?;
        links.worked(&lease);
        Ok(Job {
            task_id: format!("t{now}"),
            links,
        })
    }

    async fn used_up(&self, task_id: &str) {
        self.used_up.lock().unwrap().push(task_id.to_owned());
        *self.now.lock().unwrap() += 1;
    }

    async fn remember(&self, version: Version) {
        self.remembered.lock().unwrap().push(version);
    }
}

/// A server, a cache and what reads from the one into the other.
struct Bench {
    host: Hostile,
    tasks: Arc<Tasks>,
    fetcher: Fetcher,
    readers: Readers,
    spools: Spools,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Bench::with(script, 1, 64 << 20).await
    }

    /// With so many tasks and so large a cache.
    async fn with(
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
        tasks: u32,
        cache_size: u64,
    ) -> Self {
        let host = Hostile::start(script).await;
        let dir = tempfile::tempdir().unwrap();
        Bench {
            tasks: Arc::new(Tasks {
                url: host.url("/secret/restore-1.tar.gz"),
                now: Mutex::new(1),
                last: tasks,
                ..Tasks::default()
            }),
            fetcher: Fetcher::new(options()).unwrap(),
            readers: readers(dir.path(), cache_size),
            spools: Spools::default(),
            host,
            dir,
        }
    }

    fn join(&self) -> Spooling {
        let begun = self.tasks.remembered.lock().unwrap().last().cloned();
        let order = Order {
            key: key(),
            fetcher: self.fetcher.clone(),
            jobs: Arc::clone(&self.tasks) as Arc<dyn Jobs>,
            begun,
        };
        self.spools.join(order, &self.readers).unwrap()
    }

    async fn open(&self) -> Result<(Opening, Handle)> {
        let opening = self.join().opened().await?;
        let handle = Handle::new(Arc::clone(&opening.artifact));
        Ok((opening, handle))
    }

    /// Waits until no spool is under way.
    async fn finished(&self) {
        while self.spools.under_way(&key()).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The same machine after the process was killed; whatever reached the disk is there.
    async fn restarted(self) -> Self {
        let Bench {
            host,
            tasks,
            fetcher,
            readers: old,
            spools,
            dir,
        } = self;
        spools.stop();
        spools.settled().await;
        drop(old);
        Bench {
            readers: readers(dir.path(), 64 << 20),
            spools: Spools::default(),
            host,
            tasks,
            fetcher,
            dir,
        }
    }

    fn asked(&self) -> Vec<Option<String>> {
        let requests = self.host.requests();
        let range = |request: &Request| request.header("range").map(str::to_owned);
        requests.iter().map(range).collect()
    }

    /// How many different versions were begun.
    fn generations(&self) -> usize {
        let remembered = self.tasks.remembered.lock().unwrap();
        let names = remembered.iter().map(|version| &version.validator.download);
        names.collect::<std::collections::HashSet<_>>().len()
    }
}

/// Silence is no break here: a slow machine must not look like one.
fn options() -> FetchOptions {
    FetchOptions {
        allow_http: true,
        retry_budget: Duration::from_secs(5),
        ..FetchOptions::default()
    }
}

fn readers(dir: &Path, cache_size: u64) -> Readers {
    let cache = Cache::open(dir, cache_size).unwrap();
    Readers::new(cache, Budget::new(8 << 20))
}

fn key() -> ArtifactKey {
    ArtifactKey {
        task: TaskKey {
            provider: "p".into(),
            instance: "i".into(),
            backup: "b".into(),
            shard: "s".into(),
        },
        file: "f.tar.gz".into(),
    }
}

async fn read_all(handle: &Handle) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while (all.len() as u64) < handle.size() {
        let piece = handle.read(all.len() as u64, 100_000).await?;
        assert!(!piece.is_empty());
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// The object with one byte other than it was, far behind.
fn changed(object: &Object) -> Object {
    let mut bytes = object.bytes.to_vec();
    bytes[BLOCK_SIZE as usize + 17] ^= 1;
    Object {
        bytes: bytes.into(),
        etag: Some("\"v2\""),
        ..object.clone()
    }
}

/// As it was, but without a name.
fn nameless(object: &Object) -> Object {
    Object {
        etag: None,
        last_modified: None,
        ..object.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_readers_at_different_offsets_cost_one_plain_get() {
    let object = Object::new(SIZE);
    let stored = object.clone();
    let bench =
        Bench::new(move |_, _| Reply::whole(&stored).drip(60_000, Duration::from_millis(5)));
    let bench = Arc::new(bench.await);
    let readers = (0..10u64).map(|number| {
        let (bench, object) = (Arc::clone(&bench), object.clone());
        tokio::spawn(async move {
            let (opening, handle) = bench.open().await.unwrap();
            assert_eq!(opening.validator.size, SIZE as u64);
            let start = (10 - number) * SIZE as u64 / 11;
            let got = handle.read(start, 40_000).await.unwrap();
            let end = (start + 40_000).min(SIZE as u64);
            assert!(got[..] == *object.slice(start..end));
            handle.expect_whole();
            assert!(read_all(&handle).await.unwrap() == object.bytes[..]);
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    let requests = bench.host.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].method, "GET");
    assert_eq!(requests[0].header("range"), None);
    bench.finished().await;
    assert_eq!(bench.generations(), 1);
}

#[tokio::test]
async fn a_file_of_unknown_length_opens_at_its_end_with_its_exact_size() {
    for size in [0, 1, BLOCK_SIZE as usize, 3 << 20, SIZE] {
        let object = Object::new(size);
        let stored = object.clone();
        let bench = Bench::new(move |_, _| Reply::whole(&stored).chunked()).await;
        let (opening, handle) = bench.open().await.unwrap();
        assert_eq!(opening.validator.size, size as u64);
        assert!(read_all(&handle).await.unwrap() == object.bytes[..]);
        assert_eq!(bench.asked(), [None]);
        bench.finished().await;
        let remembered = bench.tasks.remembered.lock().unwrap().clone();
        assert_eq!(remembered.len(), 1, "only what is known is remembered");
        assert_eq!(
            remembered[0].source_name.as_deref(),
            Some("restore-1.tar.gz")
        );
        // All of it is there after a restart, and nobody is asked.
        drop((opening, handle));
        let bench = bench.restarted().await;
        let open = bench.readers.open(mongo_backupfs::reader::ArtifactSpec {
            key: key(),
            validator: remembered[0].validator.clone(),
            links: bench.tasks.ready().await.unwrap().links,
            fetcher: bench.fetcher.clone(),
        });
        assert!(read_all(&open).await.unwrap() == object.bytes[..]);
        assert_eq!(bench.asked().len(), 1);
    }
}

#[tokio::test]
async fn chunks_that_break_off_are_no_end() {
    let object = Object::new(SIZE);
    let stored = object.clone();
    let bench = Bench::new(move |_, number| match number {
        0 => Reply::whole(&stored).chunked().cut(HALF),
        _ => Reply::whole(&stored).chunked(),
    })
    .await;
    let (opening, handle) = bench.open().await.unwrap();
    assert_eq!(opening.validator.size, SIZE as u64);
    assert!(read_all(&handle).await.unwrap() == object.bytes[..]);
    assert_eq!(bench.asked().len(), 2);
}

#[tokio::test]
async fn a_body_without_length_or_chunks_is_refused_once_and_for_all() {
    let bench = Bench::with(
        |_, _| {
            Reply::new(200, "some bytes")
                .without("Content-Length")
                .cut(10)
        },
        3,
        64 << 20,
    )
    .await;
    let error = bench.open().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(
        error.to_string().contains("neither the file's length"),
        "{error}"
    );
    bench.finished().await;
    let again = bench.spools.worth_it(&key(), None, &bench.readers);
    let again = again.unwrap_err().to_string();
    assert!(again.ends_with(&error.to_string()), "{again}");
    assert_eq!(
        bench.asked().len(),
        1,
        "no other request, and no other task"
    );
    assert!(bench.tasks.used_up.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_break_goes_on_where_the_server_proves_the_rest() {
    let object = Object::new(SIZE);
    let stored = object.clone();
    let bench = Bench::new(move |request, number| match number {
        0 => Reply::whole(&stored).cut(HALF),
        1 => {
            assert_eq!(request.header("if-range"), Some("\"v1\""));
            let rest = &stored.bytes[HALF..];
            Reply::new(206, rest)
                .with("Content-Range", format!("bytes {HALF}-{}/{SIZE}", SIZE - 1))
                .with("ETag", "\"v1\"")
                .reset(100_000)
        }
        _ => {
            let from = HALF + 100_000;
            Reply::new(206, &stored.bytes[from..])
                .with("Content-Range", format!("bytes {from}-{}/{SIZE}", SIZE - 1))
                .with("ETag", "\"v1\"")
        }
    })
    .await;
    let (_, handle) = bench.open().await.unwrap();
    assert!(read_all(&handle).await.unwrap() == object.bytes[..]);
    let (first, second) = (HALF, HALF + 100_000);
    assert_eq!(
        bench.asked(),
        [
            None,
            Some(format!("bytes={first}-")),
            Some(format!("bytes={second}-"))
        ]
    );
    bench.finished().await;
    assert_eq!(bench.generations(), 1);
}

#[tokio::test]
async fn a_rest_without_proof_is_not_taken() {
    let object = Object::new(SIZE);
    let (stored, other) = (object.clone(), changed(&object));
    let bench = Bench::new(move |_, number| match number {
        0 => Reply::whole(&stored).cut(HALF),
        // The rest of another version.
        1 => Reply::new(206, &other.bytes[HALF..])
            .with("Content-Range", format!("bytes {HALF}-{}/{SIZE}", SIZE - 1))
            .with("ETag", "\"v2\""),
        _ => Reply::whole(&stored),
    })
    .await;
    let (_, handle) = bench.open().await.unwrap();
    assert!(read_all(&handle).await.unwrap() == object.bytes[..]);
    assert_eq!(bench.asked().len(), 3);
    assert_eq!(bench.asked()[2], None);
    bench.finished().await;
    assert_eq!(bench.generations(), 1);
}

#[tokio::test]
async fn a_reader_goes_on_through_a_whole_body_of_equal_bytes() {
    for chunked in [false, true] {
        let object = nameless(&Object::new(SIZE));
        let stored = object.clone();
        let bench = Bench::new(move |_, number| match (number, chunked) {
            (0, _) => Reply::whole(&stored).cut(HALF),
            (_, false) => Reply::whole(&stored),
            (_, true) => Reply::whole(&stored).chunked(),
        })
        .await;
        let (_, handle) = bench.open().await.unwrap();
        assert!(read_all(&handle).await.unwrap() == object.bytes[..]);
        bench.finished().await;
        assert_eq!(bench.generations(), 1);
        assert_eq!(bench.asked().len(), 2);
    }
}

#[tokio::test]
async fn a_whole_body_of_other_bytes_is_another_version() {
    for chunked in [false, true] {
        let object = Object::new(SIZE);
        let (old, new) = (object.clone(), changed(&object));
        let stored = new.clone();
        let bench = Bench::new(move |_, number| match (number, chunked) {
            (0, _) => Reply::whole(&old).cut(HALF),
            (_, false) => Reply::whole(&stored),
            (_, true) => Reply::whole(&stored).chunked(),
        })
        .await;
        let (first, handle) = bench.open().await.unwrap();
        let error = read_all(&handle).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Changed, "{error}");
        assert!(error.to_string().contains("other bytes"), "{error}");
        bench.finished().await;
        let last = bench
            .tasks
            .remembered
            .lock()
            .unwrap()
            .last()
            .cloned()
            .unwrap();
        assert_ne!(last.validator, first.validator);
        assert_eq!(last.validator.size, SIZE as u64);
        let open = bench.readers.open(mongo_backupfs::reader::ArtifactSpec {
            key: key(),
            validator: last.validator,
            links: bench.tasks.ready().await.unwrap().links,
            fetcher: bench.fetcher.clone(),
        });
        assert!(read_all(&open).await.unwrap() == new.bytes[..]);
        assert_eq!(handle.read(0, 10).await.unwrap_err().kind(), Kind::Changed);
        assert_eq!(bench.asked().len(), 2);
    }
}

#[tokio::test]
async fn a_link_used_up_leads_to_another_task_as_far_as_policy_allows() {
    let object = nameless(&Object::new(SIZE));
    for (same, tasks) in [(true, 2), (false, 2), (true, 1)] {
        let old = object.clone();
        let new = if same {
            object.clone()
        } else {
            changed(&object)
        };
        let stored = new.clone();
        let broke = AtomicBool::new(false);
        let bench = Bench::with(
            move |request, _| match request.target.ends_with("task=1") {
                true if broke.swap(true, Ordering::SeqCst) => Reply::new(404, ""),
                true => Reply::whole(&old).cut(HALF),
                false => Reply::whole(&stored),
            },
            tasks,
            64 << 20,
        )
        .await;
        let (_, handle) = bench.open().await.unwrap();
        let read = read_all(&handle).await;
        bench.finished().await;
        assert_eq!(*bench.tasks.used_up.lock().unwrap(), ["t1"]);
        match (same, tasks) {
            (true, 2) => {
                assert!(read.unwrap() == object.bytes[..]);
                assert_eq!(bench.generations(), 1);
                let last = bench.tasks.remembered.lock().unwrap().last().cloned();
                assert_eq!(last.unwrap().task_id, "t2");
            }
            (false, _) => {
                assert_eq!(read.unwrap_err().kind(), Kind::Changed);
                assert_eq!(bench.generations(), 2);
            }
            _ => {
                let error = read.unwrap_err();
                assert_eq!(error.kind(), Kind::Denied, "{error}");
                assert!(handle.read(0, 1000).await.unwrap() == object.bytes[..1000]);
            }
        }
    }
}

#[tokio::test]
async fn tries_without_progress_come_to_an_end_and_the_next_open_goes_on() {
    let object = nameless(&Object::new(SIZE));
    let stored = object.clone();
    let healthy = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&healthy);
    let bench = Bench::new(move |_, _| match well.load(Ordering::SeqCst) {
        false => Reply::whole(&stored).cut(HALF),
        true => Reply::whole(&stored),
    })
    .await;
    let (first, handle) = bench.open().await.unwrap();
    let error = read_all(&handle).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    bench.finished().await;
    let tries = bench.asked().len();
    assert!((3..10).contains(&tries), "{tries}");

    healthy.store(true, Ordering::SeqCst);
    let (second, again) = bench.open().await.unwrap();
    assert_eq!(first.validator, second.validator);
    assert!(read_all(&again).await.unwrap() == object.bytes[..]);
    assert!(read_all(&handle).await.unwrap() == object.bytes[..]);
    assert_eq!(bench.generations(), 1);
}

#[tokio::test]
async fn what_is_on_disk_after_a_crash_goes_on_by_its_name_and_is_compared_without_one() {
    for named in [true, false] {
        let object = match named {
            true => Object::new(SIZE),
            false => nameless(&Object::new(SIZE)),
        };
        let stored = object.clone();
        let bench = Bench::new(
            move |request, number| match (number, request.header("range")) {
                (0, _) => Reply::whole(&stored).hang(HALF),
                (_, Some(range)) => {
                    let from = range
                        .strip_prefix("bytes=")
                        .unwrap()
                        .strip_suffix('-')
                        .unwrap();
                    let from: usize = from.parse().unwrap();
                    Reply::new(206, &stored.bytes[from..])
                        .with("Content-Range", format!("bytes {from}-{}/{SIZE}", SIZE - 1))
                        .with("ETag", "\"v1\"")
                        .with("Last-Modified", stored.last_modified.unwrap())
                }
                _ => Reply::whole(&stored),
            },
        )
        .await;
        let (_, handle) = bench.open().await.unwrap();
        handle.read(0, 2 * BLOCK_SIZE as u32).await.unwrap();
        drop(handle);
        let bench = bench.restarted().await;
        let (_, handle) = bench.open().await.unwrap();
        assert!(read_all(&handle).await.unwrap() == object.bytes[..]);
        let asked = bench.asked();
        // What had not reached the disk by then comes again.
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(named || asked[1].is_none(), "{asked:?}");
        bench.finished().await;
    }
}

#[tokio::test]
async fn a_file_that_the_cache_cannot_hold_is_refused_before_its_body_is_read() {
    let object = Object::new(SIZE);
    let stored = object.clone();
    let bench = Bench::with(move |_, _| Reply::whole(&stored), 9, 600_000).await;
    let error = bench.open().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Cache);
    assert!(
        error.to_string().contains("cache_size is too small"),
        "{error}"
    );
    bench.finished().await;
    let begun = bench
        .tasks
        .remembered
        .lock()
        .unwrap()
        .last()
        .cloned()
        .unwrap();
    assert_eq!(begun.validator.size, SIZE as u64, "its size is known now");
    let again = bench
        .spools
        .worth_it(&key(), Some(&begun.validator), &bench.readers);
    assert!(
        again
            .unwrap_err()
            .to_string()
            .contains("cache_size is too small")
    );
    assert_eq!(bench.asked().len(), 1);
    assert!(bench.tasks.used_up.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_file_of_unknown_length_ends_where_the_cache_does() {
    let object = Object::new(5 << 20);
    let stored = object.clone();
    let bench = Bench::with(move |_, _| Reply::whole(&stored).chunked(), 9, 3 << 20).await;
    let error = bench.open().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Cache);
    assert!(
        error.to_string().contains("cache_size is too small"),
        "{error}"
    );
    bench.finished().await;
    assert!(bench.spools.worth_it(&key(), None, &bench.readers).is_err());
    assert_eq!(bench.asked().len(), 1);
}

#[tokio::test]
async fn a_spool_goes_on_when_its_opener_leaves_and_ends_when_it_is_stopped() {
    let object = Object::new(SIZE);
    let stored = object.clone();
    let bench = Bench::new(move |_, _| {
        Reply::whole(&stored)
            .chunked()
            .drip(60_000, Duration::from_millis(5))
    })
    .await;
    let left = tokio::time::timeout(Duration::from_millis(10), bench.open()).await;
    assert!(left.is_err(), "its length is not known yet");
    let spooling = bench.spools.under_way(&key()).unwrap();
    assert!(spooling.opening().is_none());
    let (_, handle) = bench.open().await.unwrap();
    assert!(read_all(&handle).await.unwrap() == object.bytes[..]);
    assert_eq!(bench.asked().len(), 1);

    let bench = Bench::new(move |_, _| Reply::whole(&object).chunked().hang(HALF)).await;
    let spooling = bench.join();
    while spooling.bytes() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.spools.stop();
    assert_eq!(spooling.opened().await.unwrap_err().kind(), Kind::Stopping);
    bench.spools.settled().await;
}

#[tokio::test]
async fn a_damaged_block_cannot_come_again_and_says_so() {
    let object = Object::new(SIZE);
    let stored = object.clone();
    let bench = Bench::new(move |_, _| Reply::whole(&stored)).await;
    let (opening, handle) = bench.open().await.unwrap();
    read_all(&handle).await.unwrap();
    bench.finished().await;
    drop((opening, handle));
    let bench = bench.restarted().await;
    let data = files_below(bench.dir.path());
    let data = data
        .iter()
        .find(|path| path.extension().is_some_and(|it| it == "data"));
    let file = std::fs::File::options()
        .write(true)
        .open(data.unwrap())
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damage", BLOCK_SIZE + 5).unwrap();
    let version = bench
        .tasks
        .remembered
        .lock()
        .unwrap()
        .last()
        .cloned()
        .unwrap();
    let open = bench.readers.open(mongo_backupfs::reader::ArtifactSpec {
        key: key(),
        validator: version.validator,
        links: bench.tasks.ready().await.unwrap().links,
        fetcher: bench.fetcher.clone(),
    });
    assert!(open.read(0, 1000).await.unwrap() == object.bytes[..1000]);
    let error = read_all(&open).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Changed);
    assert!(error.to_string().contains("open the file again"), "{error}");
    assert_eq!(bench.asked().len(), 1, "no range is asked of it");
}

fn files_below(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files_below(&path),
            false => vec![path],
        })
        .collect()
}
