//! The cache as the rest of the program sees it, and what its parts share.
//!
//! Five threads belong to it: the writer (`writer`), its watcher, the syncer (`syncer`), the prover
//! (`prove`), and at the start the scan (`scan`). They end when the last [`Cache`] is dropped.
//!
//! `index` and the locks of an artifact or a queue are never held together. `index` is held while
//! files get or lose their names, so that a name has one user. The last owner of an artifact takes
//! `index`: none is let go while `index` or a queue is locked.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::artifact::CachedArtifact;
use super::backlog::{Backlog, STALL, Turn};
use super::directory::Directory;
use super::health::Health;
use super::identity::{Identity, Name};
use super::index::Index;
use super::prove::{self, Proofs};
use super::slab::Slabs;
use super::syncer::{self, Syncs};
use super::{evict, files, footprint, lock, scan, writer};
use crate::error::{Error, Kind, Result};
use crate::model::{ArtifactKey, Validator};

/// Unit of fetching, verification and presence: 128 KiB. The last block of a file may be shorter.
pub const BLOCK_SIZE: u64 = 128 * 1024;

/// With less than this there is no point in caching.
const LEAST_LIMIT: u64 = 4 * BLOCK_SIZE;

/// How long the end waits for a disk operation under way.
const FAREWELL: Duration = Duration::from_secs(5);

/// The cache directory, locked against a second process. Cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Owner>);

/// Whoever drops this last ends the threads.
struct Owner {
    core: Arc<Core>,
    /// Closed when all threads have ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// What the parts of the cache share.
pub(super) struct Core {
    pub(super) directory: Directory,
    /// Most bytes of disk.
    pub(super) limit: u64,
    /// Bytes to leave free on a filesystem of a given size.
    pub(super) floor: fn(u64) -> u64,
    pub(super) index: Mutex<Index>,
    pub(super) backlog: Backlog,
    pub(super) syncs: Syncs,
    pub(super) proofs: Proofs,
    pub(super) health: Health,
    pub(super) counters: Counters,
    pub(super) slabs: Slabs,
    ticks: AtomicU64,
}

/// What happened since the cache was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Blocks that failed to verify.
    pub(super) damaged: AtomicU64,
    /// Bytes that left to make room.
    pub(super) evicted: AtomicU64,
}

/// The state of the cache, for metrics and `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes of disk in use.
    pub used: u64,
    /// Most bytes of disk.
    pub limit: u64,
    /// Blocks on disk that failed to verify.
    pub damaged_blocks: u64,
    /// Bytes that left to make room.
    pub evicted_bytes: u64,
    /// Failures of the disk.
    pub disk_failures: u64,
    /// Whether nothing is cached at the moment because the disk failed.
    pub degraded: bool,
}

impl Cache {
    /// Opens or creates `dir` (0700) and locks it; `limit` is `cache_size` in bytes. Returns at
    /// once however much the directory holds. Fails with [`Kind::Environment`] when the directory
    /// cannot be used: not private, in use by another process, not writable. Starts threads, so a
    /// process that forks must do so before.
    pub fn open(dir: &Path, limit: u64) -> Result<Self> {
        Cache::open_with(dir, limit, evict::floor)
    }

    pub(super) fn open_with(dir: &Path, limit: u64, floor: fn(u64) -> u64) -> Result<Self> {
        let directory = Directory::open(dir)?;
        let core = Arc::new(Core {
            health: Health::new(directory.path().to_owned()),
            directory,
            limit,
            floor,
            index: Mutex::default(),
            backlog: Backlog::new(STALL),
            syncs: Syncs::default(),
            proofs: Proofs::default(),
            counters: Counters::default(),
            slabs: Slabs::default(),
            ticks: AtomicU64::new(1),
        });
        let (alive, ended) = mpsc::channel();
        // From here on, a failure drops the owner, which ends the threads already running.
        let owner = Owner {
            core: core.clone(),
            ended: Mutex::new(ended),
        };
        let start = |name: &str, run: fn(&Core)| {
            let (core, alive) = (core.clone(), alive.clone());
            let body = move || {
                run(&core);
                // The lock on the directory goes before the word that it is gone.
                drop(core);
                drop(alive);
            };
            let started = thread::Builder::new().name(name.into()).spawn(body);
            started.map_err(|error| {
                let message = "cannot start a thread for the cache";
                Error::new(Kind::Environment, message).with_source(error)
            })
        };
        start("cache-write", writer::run)?;
        start("cache-watch", writer::watch)?;
        start("cache-sync", syncer::run)?;
        start("cache-prove", prove::run)?;
        start("cache-scan", scan::run)?;
        Ok(Cache(Arc::new(owner)))
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    /// The cached blocks of this version. Failures of the disk are not the reader's: a cache that
    /// cannot store answers misses. Blocks on disk I/O when nobody holds this version yet.
    pub fn artifact(&self, key: &ArtifactKey, validator: &Validator) -> Arc<CachedArtifact> {
        let core = &self.0.core;
        let identity = Identity::of(key, validator);
        let name = identity.name();
        let artifact = {
            let mut index = lock(&core.index);
            index.holder(&name).unwrap_or_else(|| {
                let is_dear = identity.is_dear;
                let artifact = Arc::new(CachedArtifact::new(core.clone(), identity));
                let holder = Arc::downgrade(&artifact);
                index.hold(name, artifact.number, holder, is_dear, core.tick());
                artifact
            })
        };
        artifact.load();
        artifact
    }

    /// Bytes of `key` at this version on disk, without opening it for long; 0 when none.
    pub fn cached_bytes(&self, key: &ArtifactKey, validator: &Validator) -> u64 {
        let core = &self.0.core;
        let name = Identity::of(key, validator).name();
        let holder = lock(&core.index).holder(&name);
        match holder {
            Some(artifact) => artifact.cached_bytes(),
            None => footprint::present_bytes(&core.directory, &name).unwrap_or(0),
        }
    }

    /// Removes `key` at this version, for instance because the artifact behind it changed.
    /// Whoever holds it reads misses from now on.
    pub fn forget(&self, key: &ArtifactKey, validator: &Validator) {
        let core = &self.0.core;
        let name = Identity::of(key, validator).name();
        let (holder, retired) = {
            let mut index = lock(&core.index);
            let holder = index.holder(&name);
            index.remove(&name);
            (holder, files::retire(&core.directory, &name))
        };
        if let Some(artifact) = holder {
            artifact.refuse();
        }
        if let Err(error) = retired.and_then(|()| files::sweep(&core.directory, &name)) {
            core.health.failed("removing an artifact", error);
        }
    }

    /// Bytes of disk that the cache takes; still growing while the directory is being scanned.
    pub fn used(&self) -> u64 {
        lock(&self.0.core.index).used()
    }

    /// Its directory, an absolute path.
    pub fn path(&self) -> &Path {
        self.0.core.directory.path()
    }

    /// The state of the cache.
    pub fn stats(&self) -> CacheStats {
        let core = &self.0.core;
        CacheStats {
            used: self.used(),
            limit: core.limit,
            damaged_blocks: core.counters.damaged.load(Relaxed),
            evicted_bytes: core.counters.evicted.load(Relaxed),
            disk_failures: core.health.failures(),
            degraded: core.health.is_failing(),
        }
    }

    /// Makes everything accepted so far durable, or gives it up where the disk fails. A disk that
    /// hangs keeps this waiting: bound it. Without it, dropping the cache loses what was accepted
    /// within about the last second.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.0.core.backlog.push(Turn::Flush(done));
        // Dropped unsent when the cache ends: there is nothing to wait for either.
        let _ = flushed.await;
    }
}

impl Core {
    /// The next moment of the cache's own clock, which only orders uses.
    pub(super) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Relaxed)
    }

    /// Whether blocks are accepted now.
    pub(super) fn accepts(&self) -> bool {
        self.limit >= LEAST_LIMIT && self.health.may_write() && self.backlog.accepts()
    }

    /// Counts blocks that failed to verify.
    pub(super) fn damaged(&self, blocks: u64) {
        self.counters.damaged.fetch_add(blocks, Relaxed);
        tracing::warn!(
            "cache {}: {blocks} damaged blocks forgotten, they will be fetched again",
            self.directory.path().display()
        );
    }

    /// Notes that a holder's files take `bytes` less.
    pub(super) fn shrink(&self, name: &Name, number: u64, bytes: u64) {
        lock(&self.index).shrink(name, number, bytes);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.core.backlog.stop();
        self.core.syncs.stop();
        self.core.proofs.stop();
        // A thread may hang with the disk; it holds nothing that the process needs to end.
        let _ = lock(&self.ended).recv_timeout(FAREWELL);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.core.fmt(f)
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("directory", &self.directory.path())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
