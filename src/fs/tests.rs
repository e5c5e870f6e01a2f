//! The promises of the filesystem below the kernel, against a provider in memory and a small
//! store on loopback.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::*;
use crate::clock::SystemClock;
use crate::config::{Environment, MountConfig};
use crate::fetch::{FetchOptions, Fetcher};
use crate::fs::open::Account;
use crate::model::{Task, TaskState};
use crate::providers::{Exchange, Provider};
use crate::tree::ROOT;
use crate::tree::fake::{Fake, task};

const FILE: &str = "/atlas/c0/latest/rs0/rs0.archive.gz";

/// What only a link holds.
const CANARY: &str = "sig=canary";

/// A store that serves ranges of one object, and counts.
#[derive(Clone, Default)]
struct Store {
    object: Arc<Mutex<(Bytes, String)>>,
    requests: Arc<AtomicUsize>,
}

impl Store {
    fn put(&self, content: impl Into<Bytes>, etag: &str) {
        *self.object.lock().unwrap() = (content.into(), etag.to_owned());
    }

    /// No link leads to the object any more.
    fn refuse_links(&self) {
        self.put(Bytes::new(), "");
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Serves; tells the address of the object.
    async fn serve(&self) -> String {
        async fn get(State(store): State<Store>, headers: HeaderMap) -> Response {
            store.requests.fetch_add(1, Ordering::SeqCst);
            let (content, etag) = store.object.lock().unwrap().clone();
            if etag.is_empty() {
                return StatusCode::FORBIDDEN.into_response();
            }
            let text = |name| headers.get(name).map(|value| value.to_str().unwrap());
            if text(header::IF_MATCH).is_some_and(|wanted| wanted != etag) {
                return StatusCode::PRECONDITION_FAILED.into_response();
            }
            let Some(range) = text(header::RANGE) else {
                return ([(header::ETAG, etag)], content).into_response();
            };
            let range = range.strip_prefix("bytes=").unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let first: usize = first.parse().unwrap();
            let last = last.parse::<usize>().unwrap().min(content.len() - 1);
            let served = [
                (header::ETAG, etag),
                (
                    header::CONTENT_RANGE,
                    format!("bytes {first}-{last}/{}", content.len()),
                ),
            ];
            let body = content.slice(first..=last);
            (StatusCode::PARTIAL_CONTENT, served, body).into_response()
        }
        let router = axum::Router::new()
            .route("/mongo-dump.archive.gz", axum::routing::get(get))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/mongo-dump.archive.gz?{CANARY}")
    }
}

/// A machine with a state and a cache directory, an account and its store.
struct World {
    fake: Arc<Fake>,
    store: Store,
    config: MountConfig,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = MountConfig::defaults(&Environment::default());
        config.cache_dir = dir.path().join("cache");
        config.state_dir = dir.path().join("state");
        config.memory = 64 << 20;
        config.list_ttl = Duration::from_secs(600);
        let world = World {
            fake: Fake::small(),
            store: Store::default(),
            config,
            _dir: dir,
        };
        world.store.put(content(1), "\"one\"");
        world.fake.state().url = world.store.serve().await;
        world
    }

    fn fs(&self) -> Fs {
        let provider = Arc::clone(&self.fake) as Arc<dyn Provider>;
        let account = Account {
            exchange: Arc::new(Exchange::new(Arc::clone(&provider))),
            provider,
            fetcher: Fetcher::new(FetchOptions {
                allow_http: true,
                retry_budget: Duration::from_secs(5),
                ..FetchOptions::default()
            })
            .unwrap(),
            poll_interval: Duration::from_millis(20),
        };
        let accounts = HashMap::from([(Arc::from("atlas"), account)]);
        Fs::over(accounts, &self.config, Arc::new(SystemClock)).unwrap()
    }

    /// Calls that could cost something: to tasks, for links, for data.
    fn spent(&self) -> usize {
        let count = |calls: &AtomicUsize| calls.load(Ordering::SeqCst);
        count(&self.fake.task_calls)
            + count(&self.fake.creates)
            + count(&self.fake.links)
            + self.store.requests()
    }

    fn creates(&self) -> usize {
        self.fake.creates.load(Ordering::SeqCst)
    }
}

/// 300 KiB that no two seeds share: three blocks.
fn content(seed: u8) -> Vec<u8> {
    (0..300 * 1024_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect()
}

async fn find(fs: &Fs, path: &str) -> u64 {
    let mut at = ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let entry = fs.lookup(at, name).await.unwrap();
        at = match entry.attr.kind {
            FileKind::Symlink => {
                let target = fs.readlink(entry.attr.ino).await.unwrap();
                fs.lookup(at, &target).await.unwrap().attr.ino
            }
            _ => entry.attr.ino,
        };
    }
    at
}

async fn open(fs: &Fs, ino: u64) -> Result<Opened> {
    fs.open_file(ino, false, &Caller::default()).await
}

async fn read_all(fs: &Fs, handle: u64) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let offset = all.len() as u64;
        let piece = match fs.read_now(handle, offset, 70_000) {
            Some(piece) => piece?,
            None => fs.read(handle, offset, 70_000).await?,
        };
        if piece.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&piece);
    }
}

async fn xattr(fs: &Fs, ino: u64, name: &str) -> Option<String> {
    match fs.getxattr(ino, &format!("user.backupfs.{name}")).await {
        Ok(value) => Some(String::from_utf8(value).unwrap()),
        Err(error) => {
            assert_eq!(error.kind(), Kind::NoAttribute);
            None
        }
    }
}

async fn document(fs: &Fs, name: &str) -> String {
    let ino = find(fs, &format!("/.backupfs/{name}")).await;
    let opened = open(fs, ino).await.unwrap();
    assert!(opened.direct_io);
    let text = String::from_utf8(read_all(fs, opened.handle).await.unwrap()).unwrap();
    let size = fs.getattr(ino, Some(opened.handle)).await.unwrap().size;
    assert_eq!(size, text.len() as u64);
    fs.release(opened.handle);
    text
}

/// Everything that `ls -lR`, `find`, `du` and `getfattr -d` do.
async fn look_at_everything(fs: &Fs) -> usize {
    let mut seen = 0;
    let mut left = vec![ROOT];
    while let Some(directory) = left.pop() {
        let handle = fs.opendir(directory).await.unwrap();
        for child in fs.directory(handle).unwrap().iter() {
            let entry = fs.entry(child);
            assert_eq!(entry.attr.ino, child.ino);
            assert_eq!(fs.parent(child.ino), directory);
            let again = fs.lookup(directory, &child.name).await.unwrap();
            assert_eq!(again.attr, entry.attr);
            fs.getattr(child.ino, None).await.unwrap();
            for name in fs.listxattr(child.ino).await.unwrap() {
                fs.getxattr(child.ino, name).await.unwrap();
            }
            if entry.attr.kind == FileKind::Directory {
                left.push(child.ino);
            }
            seen += 1;
        }
        fs.releasedir(handle);
        assert!(fs.directory(handle).is_err());
    }
    fs.statfs();
    seen
}

#[tokio::test]
async fn looking_costs_nothing() {
    let world = World::new().await;
    let fs = world.fs();
    assert_eq!(look_at_everything(&fs).await, 12);
    for name in ["status.json", "tasks.json", "metrics", "events.log"] {
        document(&fs, name).await;
    }
    assert_eq!(world.spent(), 0);
}

#[tokio::test]
async fn an_open_makes_the_task_and_the_size_known() {
    let world = World::new().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let before = fs.getattr(ino, None).await.unwrap();
    assert_eq!((before.size, before.ttl), (0, Duration::ZERO));
    assert_eq!(xattr(&fs, ino, "size").await.unwrap(), "unknown");
    assert_eq!(xattr(&fs, ino, "state").await.unwrap(), "none");
    assert_eq!(xattr(&fs, ino, "cached").await.unwrap(), "0");

    let opened = open(&fs, ino).await.unwrap();
    assert!(!opened.keep_cache && !opened.direct_io);
    let attr = fs.getattr(ino, Some(opened.handle)).await.unwrap();
    assert_eq!(attr.size, content(1).len() as u64);
    assert_eq!(attr.blocks, attr.size.div_ceil(512));
    assert!(attr.ttl > Duration::ZERO);
    assert_eq!(fs.getattr(ino, None).await.unwrap(), attr);
    assert_eq!(attr.time, before.time);
    assert!(read_all(&fs, opened.handle).await.unwrap() == content(1));
    assert_eq!(world.creates(), 1);

    assert_eq!(xattr(&fs, ino, "size").await.unwrap(), "exact");
    assert_eq!(xattr(&fs, ino, "state").await.unwrap(), "ready");
    assert_eq!(xattr(&fs, ino, "task").await.unwrap(), "t1");
    assert_eq!(xattr(&fs, ino, "etag").await.unwrap(), "\"one\"");
    let name = xattr(&fs, ino, "source-name").await.unwrap();
    assert_eq!(name, "mongo-dump.archive.gz");
    assert_eq!(xattr(&fs, ino, "error").await, None);

    let again = open(&fs, ino).await.unwrap();
    assert!(again.keep_cache, "the same version");
    fs.release(opened.handle);
    fs.release(again.handle);
    let closed = fs.read(again.handle, 0, 1).await.unwrap_err();
    assert_eq!(closed.kind(), Kind::BadHandle);

    fs.forget(ino, u64::MAX);
    let ino = find(&fs, FILE).await;
    let anew = open(&fs, ino).await.unwrap();
    assert!(
        !anew.keep_cache,
        "the kernel has no pages of what it forgot"
    );
}

#[tokio::test]
async fn a_hundred_opens_at_once_cost_one_task_one_link_and_one_probe() {
    let world = World::new().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let opens = (0..100).map(|_| open(&fs, ino));
    for opened in futures::future::join_all(opens).await {
        opened.unwrap();
    }
    assert_eq!(world.creates(), 1);
    assert_eq!(world.fake.links.load(Ordering::SeqCst), 1);
    assert_eq!(world.store.requests(), 1);
}

#[tokio::test]
async fn after_a_remount_what_is_cached_whole_asks_nobody() {
    let world = World::new().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let attr = {
        let opened = open(&fs, ino).await.unwrap();
        read_all(&fs, opened.handle).await.unwrap();
        fs.getattr(ino, Some(opened.handle)).await.unwrap()
    };
    fs.stop().await;
    drop(fs);

    let spent = world.spent();
    let fs = world.fs();
    let again = find(&fs, FILE).await;
    assert_eq!(again, ino);
    assert_eq!(fs.getattr(ino, None).await.unwrap(), attr);
    let cached = xattr(&fs, ino, "cached").await.unwrap();
    assert_eq!(cached, content(1).len().to_string());
    let opened = open(&fs, ino).await.unwrap();
    assert!(!opened.keep_cache);
    assert!(read_all(&fs, opened.handle).await.unwrap() == content(1));
    assert_eq!(world.spent(), spent);
}

/// A world whose file was opened once, before a remount; nothing of it is cached whole.
async fn opened_before() -> World {
    let world = World::new().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    open(&fs, ino).await.unwrap();
    fs.stop().await;
    world
}

#[tokio::test]
async fn a_remembered_version_is_proven_once_for_all_who_have_it_open() {
    let world = opened_before().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let requests = world.store.requests();
    let first = open(&fs, ino).await.unwrap();
    let second = open(&fs, ino).await.unwrap();
    assert_eq!((world.creates(), world.store.requests()), (1, requests + 1));
    for opened in [first, second] {
        assert!(read_all(&fs, opened.handle).await.unwrap() == content(1));
    }
}

#[tokio::test]
async fn the_first_bytes_of_a_remembered_file_come_with_the_proof_of_its_version() {
    let world = opened_before().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let requests = world.store.requests();
    let handle = open(&fs, ino).await.unwrap().handle;
    assert_eq!(world.store.requests(), requests + 1);
    let read = fs
        .read_now(handle, 0, 4096)
        .expect("at hand since the open");
    assert_eq!(read.unwrap(), content(1)[..4096]);
    assert_eq!(world.store.requests(), requests + 1);
}

#[tokio::test]
async fn an_artifact_replaced_while_nobody_had_it_open_is_read_as_it_is_now() {
    let world = opened_before().await;
    world.store.put(content(2), "\"two\"");
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let opened = open(&fs, ino).await.unwrap();
    assert!(read_all(&fs, opened.handle).await.unwrap() == content(2));
    assert_eq!(world.creates(), 1);
}

#[tokio::test]
async fn an_artifact_removed_while_nobody_had_it_open_is_made_again_by_one_open() {
    let world = opened_before().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    {
        let mut state = world.fake.state();
        state.gone = Some("t1".to_owned());
        state.creates = Some(task("t2", TaskState::Ready));
    }
    let opened = open(&fs, ino).await.unwrap();
    assert!(read_all(&fs, opened.handle).await.unwrap() == content(1));
    assert_eq!(world.creates(), 2);
}

#[tokio::test]
async fn an_artifact_removed_under_an_open_handle_is_stale_and_says_why() {
    let world = World::new().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let handle = open(&fs, ino).await.unwrap().handle;
    world.fake.state().gone = Some("t1".to_owned());
    world.store.refuse_links();
    for _ in 0..2 {
        let error = fs.read(handle, 200_000, 4096).await.unwrap_err();
        assert_eq!(error.errno(), libc::ESTALE, "{error}");
        fs.failed("read", ino, &Caller::default(), &error);
    }
    assert_eq!(world.creates(), 1, "a read creates nothing");
    let why = xattr(&fs, ino, "error").await.unwrap();
    assert!(why.contains("gone"), "{why}");
}

#[tokio::test]
async fn a_replaced_artifact_is_stale_for_good_and_the_next_open_has_the_new_one() {
    let world = World::new().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let first = open(&fs, ino).await.unwrap().handle;
    let second = open(&fs, ino).await.unwrap().handle;
    world.store.put(content(2), "\"two\"");
    for _ in 0..2 {
        let error = fs.read(first, 0, 4096).await.unwrap_err();
        assert_eq!(error.errno(), libc::ESTALE, "{error}");
    }

    let opened = open(&fs, ino).await.unwrap();
    assert!(!opened.keep_cache);
    assert!(read_all(&fs, opened.handle).await.unwrap() == content(2));
    for stale in [first, second] {
        let error = fs.getattr(ino, Some(stale)).await.unwrap_err();
        assert_eq!(error.errno(), libc::ESTALE);
        let now = fs.read_now(stale, 0, 1).map(|read| read.unwrap_err());
        let error = match now {
            Some(error) => error,
            None => fs.read(stale, 0, 1).await.unwrap_err(),
        };
        assert_eq!(error.errno(), libc::ESTALE);
    }
    assert_eq!(xattr(&fs, ino, "etag").await.unwrap(), "\"two\"");
    assert_eq!(world.creates(), 1);

    // Until the last handle of the old version is closed, the kernel may keep nothing of the new.
    for stale in [first, second] {
        let beside = open(&fs, ino).await.unwrap();
        assert!(beside.direct_io && beside.size == Some(content(2).len() as u64));
        assert_eq!(fs.getattr(ino, None).await.unwrap().ttl, Duration::ZERO);
        fs.release(stale);
    }
    assert!(!open(&fs, ino).await.unwrap().direct_io);
    assert!(fs.getattr(ino, None).await.unwrap().ttl > Duration::ZERO);
}

#[tokio::test]
async fn a_task_whose_artifact_is_gone_is_replaced_by_one_open() {
    let world = World::new().await;
    {
        let mut state = world.fake.state();
        state.task = Some(task("t1", TaskState::Ready));
        state.creates = Some(task("t2", TaskState::Ready));
        state.gone = Some("t1".to_owned());
    }
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let opened = open(&fs, ino).await.unwrap();
    assert!(read_all(&fs, opened.handle).await.unwrap() == content(1));
    assert_eq!(world.creates(), 1);
    assert_eq!(xattr(&fs, ino, "task").await.unwrap(), "t2");
}

#[tokio::test]
async fn what_cannot_be_downloaded_says_why_and_costs_nothing() {
    let world = World::new().await;
    for backup in world.fake.state().backups.get_mut("c0").unwrap() {
        backup.not_downloadable = Some("it is encrypted".to_owned());
    }
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let error = open(&fs, ino).await.unwrap_err();
    assert_eq!(error.errno(), libc::EOPNOTSUPP);
    assert!(error.to_string().starts_with("opening /atlas/c0/2024"));
    assert_eq!(xattr(&fs, ino, "error").await.unwrap(), "it is encrypted");
    assert_eq!(world.spent(), 0);
}

#[tokio::test]
async fn an_open_that_will_not_wait_starts_the_task_and_says_try_again() {
    let world = World::new().await;
    let running = Task {
        percent: Some(42),
        ..task("t1", TaskState::Running)
    };
    world.fake.state().creates = Some(running);
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let caller = Caller::default();
    let error = fs.open_file(ino, true, &caller).await.unwrap_err();
    assert_eq!(error.errno(), libc::EAGAIN);
    let percent = async {
        while xattr(&fs, ino, "percent").await.as_deref() != Some("42") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let shown = tokio::time::timeout(Duration::from_secs(10), percent).await;
    assert!(shown.is_ok(), "the task's progress was never shown");
    assert_eq!(xattr(&fs, ino, "state").await.unwrap(), "running");
    world.fake.state().task = Some(task("t1", TaskState::Ready));
    let opened = open(&fs, ino).await.unwrap();
    assert!(read_all(&fs, opened.handle).await.unwrap() == content(1));
    assert_eq!(world.creates(), 1);
}

#[tokio::test]
async fn stopping_ends_waits_and_reads() {
    let world = World::new().await;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let ready = open(&fs, ino).await.unwrap().handle;
    world.fake.state().creates = Some(task("t2", TaskState::Running));
    let other = find(&fs, "/atlas/c0/20240101T000000Z-b2/rs0/rs0.archive.gz").await;
    world.fake.state().task = None;
    let waiting = tokio::spawn({
        let fs = fs.clone();
        async move { open(&fs, other).await }
    });
    let begun = async {
        while fs.status().tasks.waiting == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), begun)
        .await
        .unwrap();
    fs.stop().await;
    let ended = waiting.await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), Kind::Stopping);
    assert_eq!(
        fs.read(ready, 0, 1).await.unwrap_err().kind(),
        Kind::Stopping
    );
    assert_eq!(open(&fs, ino).await.unwrap_err().kind(), Kind::Stopping);
}

#[tokio::test]
async fn the_kinds_of_nodes_answer_what_they_are() {
    let world = World::new().await;
    let fs = world.fs();
    let directory = find(&fs, "/atlas/c0").await;
    let error = open(&fs, directory).await.unwrap_err();
    assert_eq!(error.kind(), Kind::IsDirectory);
    assert!(fs.readlink(directory).await.is_err());
    assert_eq!(fs.opendir(999).await.unwrap_err().errno(), libc::ESTALE);
    let attr = fs.getattr(ROOT, None).await.unwrap();
    assert_eq!((attr.size, attr.mode, attr.nlink), (4096, 0o500, 2));

    let backup = find(&fs, "/atlas/c0/latest").await;
    let names = fs.listxattr(backup).await.unwrap();
    assert_eq!(
        names,
        [
            "user.backupfs.status",
            "user.backupfs.method",
            "user.backupfs.version"
        ]
    );
    assert_eq!(xattr(&fs, backup, "method").await.unwrap(), "logical");
    assert_eq!(xattr(&fs, backup, "type").await, None);
    for foreign in ["security.capability", "system.posix_acl_access"] {
        let error = fs.getxattr(backup, foreign).await.unwrap_err();
        assert_eq!(error.errno(), libc::ENODATA);
    }
}

#[tokio::test]
async fn the_documents_tell_what_goes_on_and_no_secret() {
    let world = World::new().await;
    let fs = world.fs();
    fs.mounted_at(Path::new("/mnt/backups"));
    let ino = find(&fs, FILE).await;
    let opened = open(&fs, ino).await.unwrap();
    read_all(&fs, opened.handle).await.unwrap();
    let why = Error::new(Kind::Unreachable, "no route to host");
    for _ in 0..3 {
        fs.failed("read", ino, &Caller::default(), &why);
    }
    let everyday = Error::new(Kind::NoAttribute, "no such attribute");
    fs.failed("getxattr", ino, &Caller::default(), &everyday);

    let text = document(&fs, "status.json").await;
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["mountpoint"], "/mnt/backups");
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["providers"][0]["name"], "atlas");
    assert_eq!(status["providers"][0]["instances"], 1);
    assert_eq!(status["providers"][0]["stale"], false);
    let size = content(1).len();
    assert_eq!(
        status["providers"][0]["fetch"]["bytes"].as_u64().unwrap() as usize / size,
        1
    );
    assert_eq!(status["tasks"]["by_state"]["ready"], 1);
    assert_eq!(status["tasks"]["created_total"], 1);
    assert_eq!(status["activity"]["opens"], 1);
    assert_eq!(status["activity"]["read_bytes"], size);
    assert_eq!(
        status["activity"]["failures"],
        serde_json::json!({"EIO": 3})
    );
    assert_eq!(status["last_error"]["operation"], "read");

    let tasks: serde_json::Value =
        serde_json::from_str(&document(&fs, "tasks.json").await).unwrap();
    assert_eq!(tasks[0]["path"], "/atlas/c0/20240102T000000Z-b3/rs0");
    assert_eq!(tasks[0]["state"], "ready");
    assert_eq!(tasks[0]["task"], "t1");

    let events = document(&fs, "events.log").await;
    assert_eq!(events.lines().count(), 1);
    let line = " warn read /atlas/c0/20240102T000000Z-b3/rs0/rs0.archive.gz EIO no route to host\n";
    assert!(events.ends_with(line), "{events}");

    let metrics = document(&fs, "metrics").await;
    for line in [
        "mongo_backupfs_tasks{state=\"ready\"} 1",
        "mongo_backupfs_opens_total 1",
        "mongo_backupfs_failures_total{errno=\"EIO\"} 3",
        "mongo_backupfs_provider_listing_stale{provider=\"atlas\"} 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
    for name in ["status.json", "tasks.json", "metrics", "events.log"] {
        assert!(!document(&fs, name).await.contains(CANARY));
    }
}

#[tokio::test]
async fn metrics_are_served_until_the_stop() {
    let world = World::new().await;
    let fs = world.fs();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let taken = fs.serve_metrics(address).unwrap_err();
    assert_eq!(taken.kind(), Kind::Config);
    drop(free);
    fs.serve_metrics(address).unwrap();
    let answer = reqwest::get(format!("http://{address}/metrics"))
        .await
        .unwrap();
    assert_eq!(
        answer.headers()[header::CONTENT_TYPE],
        metrics::CONTENT_TYPE
    );
    let text = answer.text().await.unwrap();
    assert!(text.contains("mongo_backupfs_open_files 0"));
}

#[tokio::test]
async fn a_link_that_works_once_is_asked_once_whoever_reads() {
    let world = World::new().await;
    world.fake.state().once = true;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let size = content(1).len() as u64;
    assert_eq!(xattr(&fs, ino, "cached").await.as_deref(), Some("0"));
    let (first, second) = tokio::join!(open(&fs, ino), open(&fs, ino));
    for opened in [first.unwrap(), second.unwrap()] {
        assert_eq!(opened.size, Some(size));
        fs.expect_whole(opened.handle);
        assert!(read_all(&fs, opened.handle).await.unwrap() == content(1));
        fs.release(opened.handle);
    }
    assert_eq!((world.store.requests(), world.creates()), (1, 1));
    assert_eq!(xattr(&fs, ino, "size").await.as_deref(), Some("exact"));
    assert_eq!(
        xattr(&fs, ino, "cached").await,
        Some(size.to_string()),
        "all of it"
    );
    assert_eq!(
        xattr(&fs, ino, "source-name").await.as_deref(),
        Some("mongo-dump.archive.gz")
    );
    fs.stop().await;
    drop(fs);

    // Another run asks nobody, whoever opens the file.
    let spent = world.spent();
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let opened = open(&fs, ino).await.unwrap();
    assert!(read_all(&fs, opened.handle).await.unwrap() == content(1));
    assert_eq!(world.spent(), spent);
}

#[tokio::test]
async fn a_lost_version_of_a_one_time_link_is_stale_and_the_next_one_is_told_apart() {
    let mut world = World::new().await;
    world.fake.state().once = true;
    // Nothing but the download tells the two versions apart.
    world.store.put(content(1), "W/\"same\"");
    world.config.memory = 1 << 20;
    let fs = world.fs();
    let ino = find(&fs, FILE).await;
    let before = open(&fs, ino).await.unwrap();
    assert!(read_all(&fs, before.handle).await.unwrap() == content(1));
    let artifact = match &*fs.inner.handles.file(before.handle).unwrap() {
        OpenFile::Artifact(artifact) => Arc::clone(artifact.reader.artifact()),
        OpenFile::Document(_) => panic!("a file"),
    };
    // Its last bytes are read before its spool is over, and until then an open reads along.
    while fs.inner.opener.spools.under_way(artifact.key()).is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    artifact.condemn(Error::new(Kind::Changed, "lost"));
    let lost = fs.read(before.handle, 0, 10).await.unwrap_err();
    assert_eq!(lost.errno(), libc::ESTALE);
    drop(artifact);

    world.store.put(content(2), "W/\"same\"");
    let after = open(&fs, ino).await.unwrap();
    assert!(!after.keep_cache, "its pages are of the version before");
    assert!(after.direct_io, "none may be read by who has that one open");
    assert!(read_all(&fs, after.handle).await.unwrap() == content(2));
    let still = fs.read(before.handle, 0, 10).await.unwrap_err();
    assert_eq!(still.errno(), libc::ESTALE);
    assert_eq!(world.store.requests(), 2);
}
