//! Open files: pinned artifact versions, shared fetches, read-ahead.
//!
//! [`pattern`] tells from the reads of one open file what will be read next, [`window`] how far
//! ahead to ask for it, [`turnout`] who else reads ahead (all pure); `share` divides the memory; [`artifact`]
//! brings blocks of one version, each once for all its readers; [`spool`] what comes by one stream only; [`Handle`] joins them for one open
//! file.
//!
//! Locks: a handle's is held while `share` is asked, otherwise those of a handle and of an artifact
//! are never held together, and none across an await.

pub mod artifact;
mod flight;
pub mod pattern;
mod share;
pub mod spool;
pub mod stream;
pub mod stride;
pub mod turnout;
pub mod window;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::time::Instant;

use crate::cache::{BLOCK_SIZE, Budget, Cache};
use crate::error::Result;
use crate::fetch::{Fetcher, Plan};
use crate::links::Links;
use crate::model::{ArtifactKey, Validator};

pub use artifact::Artifact;
use pattern::Pattern;
use share::{Commons, Lot};
use stream::Ahead;
use turnout::Ballot;
use window::Bounds;

/// What to open.
#[derive(Debug)]
pub struct ArtifactSpec {
    /// Which file.
    pub key: ArtifactKey,
    /// Which version.
    pub validator: Validator,
    /// Its live link.
    pub links: Arc<Links>,
    /// The account's data client.
    pub fetcher: Fetcher,
}

type Open = HashMap<(ArtifactKey, Validator), Weak<Artifact>>;

/// All open artifacts: two opens of one version share fetches and blocks. Cheap to clone.
#[derive(Clone)]
pub struct Readers {
    cache: Cache,
    budget: Budget,
    commons: Arc<Commons>,
    open: Arc<Mutex<Open>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers")
            .field("commons", &self.commons)
            .finish_non_exhaustive()
    }
}

impl Readers {
    /// Readers on `cache` within `budget`.
    pub fn new(cache: Cache, budget: Budget) -> Self {
        Readers {
            cache,
            commons: Commons::new(budget.limit()),
            budget,
            open: Arc::default(),
        }
    }

    /// Opens a version; one already open is shared (and keeps its own links). Must be called
    /// within a tokio runtime, which then carries the fetches.
    pub fn open(&self, spec: ArtifactSpec) -> Handle {
        Handle::new(self.artifact(spec))
    }

    fn artifact(&self, spec: ArtifactSpec) -> Arc<Artifact> {
        let name = (spec.key.clone(), spec.validator.clone());
        let mut open = lock(&self.open);
        match open.get(&name).and_then(Weak::upgrade) {
            Some(artifact) if artifact.broken().is_none() => artifact,
            _ => {
                open.retain(|_, artifact| artifact.strong_count() > 0);
                let cached = self.cache.artifact(&spec.key, &spec.validator);
                let lot = Lot::new(self.commons.clone());
                let artifact = Arc::new(Artifact::new(spec, cached, self.budget.clone(), lot));
                open.insert(name, Arc::downgrade(&artifact));
                artifact
            }
        }
    }

    /// The artifact, if some handle has this version open.
    pub fn opened(&self, key: &ArtifactKey, validator: &Validator) -> Option<Arc<Artifact>> {
        lock(&self.open)
            .get(&(key.clone(), validator.clone()))
            .and_then(Weak::upgrade)
    }
}

/// One open file.
#[derive(Debug)]
pub struct Handle {
    artifact: Arc<Artifact>,
    reading: Mutex<Reading>,
}

/// What an open file was read like so far.
#[derive(Debug)]
struct Reading {
    pattern: Pattern,
    ballot: Ballot,
}

impl Handle {
    /// Opens what others have open.
    pub fn new(artifact: Arc<Artifact>) -> Self {
        Handle {
            reading: Mutex::new(Reading {
                pattern: Pattern::new(artifact.size()),
                ballot: Ballot::default(),
            }),
            artifact,
        }
    }

    /// The pinned version's size in bytes.
    pub fn size(&self) -> u64 {
        self.artifact.size()
    }

    /// The artifact behind it.
    pub fn artifact(&self) -> &Arc<Artifact> {
        &self.artifact
    }

    /// Whoever has it open is known to read the whole file: what follows the first read is asked
    /// along with it.
    pub fn expect_whole(&self) {
        lock(&self.reading).pattern.expect_whole();
    }

    /// Serves `len` bytes at `offset` if they are at hand without waiting for the network; short
    /// only at the end of the file.
    pub fn read_now(&self, offset: u64, len: u32) -> Option<Result<Bytes>> {
        let wanted = self.clamp(offset, len);
        if wanted.is_empty() {
            return Some(Ok(Bytes::new()));
        }
        let bytes = self.artifact.at_hand(&wanted)?;
        self.read_ahead(&wanted);
        Some(Ok(bytes))
    }

    /// Serves `len` bytes at `offset`: short only at the end of the file. Cancel-safe: fetches
    /// under way go on for other readers.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Bytes> {
        let wanted = self.clamp(offset, len);
        if wanted.is_empty() {
            return Ok(Bytes::new());
        }
        // What the reader waits for is asked before what it may want next.
        self.artifact.demand(&wanted).await;
        self.read_ahead(&wanted);
        let begun = Instant::now();
        let served = self.artifact.serve(&wanted).await?;
        if served.waited {
            let waited = begun.elapsed();
            lock(&self.reading).pattern.starved(&wanted, waited);
        }
        Ok(served.bytes)
    }

    /// Brings the first block unless it is at hand; whether the store was asked, and thereby still
    /// had the pinned version. Cancel-safe as [`Handle::read`].
    pub async fn prove(&self) -> Result<bool> {
        let first = self.clamp(0, BLOCK_SIZE as u32);
        if first.is_empty() {
            return Ok(false);
        }
        let served = self.artifact.serve(&first).await?;
        Ok(served.waited)
    }

    fn clamp(&self, offset: u64, len: u32) -> Range<u64> {
        let start = offset.min(self.size());
        start..start.saturating_add(u64::from(len)).min(self.size())
    }

    /// Takes note of a read and starts to bring what should follow it.
    fn read_ahead(&self, read: &Range<u64>) {
        // One stream brings it, in its own order.
        if self.artifact.reach().is_some() {
            return;
        }
        let ahead = {
            let Reading { pattern, ballot } = &mut *lock(&self.reading);
            let room = match pattern.is_ahead() {
                true => self.artifact.lot().share(ballot),
                false => self.artifact.lot().room(),
            };
            // More than fills the way to the store would only take memory.
            let Plan { part, depth } = self.artifact.plan(room);
            let room = room.min(depth);
            pattern.observe(read, Bounds { room, part })
        };
        let Some(Ahead { ranges, part }) = ahead else {
            return;
        };
        for range in ranges {
            if let Some(refused) = self.artifact.suggest(&range, part) {
                let rest = refused..range.end;
                lock(&self.reading).pattern.refused(read, &rest);
                break;
            }
        }
    }
}

/// The blocks that `range` (bytes) touches.
fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK_SIZE..range.end.div_ceil(BLOCK_SIZE)
}

/// Locks, also after a panic elsewhere: every critical section here leaves the state whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
