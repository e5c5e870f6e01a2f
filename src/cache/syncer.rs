//! The thread that makes written blocks durable, and only then names them in the map.
//!
//! Syncing is apart from writing so that a slow disk does not hold up the flow of blocks into the
//! page cache; the kernel slows the writer down when too much of it is not on disk yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::artifact::CachedArtifact;
use super::lock;
use super::store::Core;

/// What may be lost by a crash: about this much, or what was written this long ago.
const SYNC_BYTES: u64 = 16 << 20;
const SYNC_AFTER: Duration = Duration::from_secs(1);

/// What is written but not durable.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    unsynced: Mutex<Unsynced>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Unsynced {
    artifacts: BTreeMap<u64, Arc<CachedArtifact>>,
    bytes: u64,
    /// When the first of them was written.
    since: Option<Instant>,
    flushes: Vec<oneshot::Sender<()>>,
    stopped: bool,
}

/// What to sync now.
struct Batch {
    artifacts: BTreeMap<u64, Arc<CachedArtifact>>,
    /// Whoever waits until the batch is durable.
    flushes: Vec<oneshot::Sender<()>>,
}

impl Syncs {
    /// Notes that `bytes` of `artifact` were written.
    pub(super) fn add(&self, artifact: &Arc<CachedArtifact>, bytes: u64) {
        let mut unsynced = lock(&self.unsynced);
        if unsynced.stopped {
            return;
        }
        unsynced
            .artifacts
            .entry(artifact.number)
            .or_insert_with(|| artifact.clone());
        let first = unsynced.since.is_none();
        unsynced.since.get_or_insert_with(Instant::now);
        unsynced.bytes += bytes;
        if first || unsynced.bytes >= SYNC_BYTES {
            self.changed.notify_one();
        }
    }

    /// Syncs now what was added so far; `done` is told or dropped afterwards.
    pub(super) fn flush(&self, done: oneshot::Sender<()>) {
        let mut unsynced = lock(&self.unsynced);
        if !unsynced.stopped {
            unsynced.flushes.push(done);
            self.changed.notify_one();
        }
    }

    /// Waits until there is enough to sync, or it waited long enough; `None` at the end.
    fn next(&self) -> Option<Batch> {
        let mut unsynced = lock(&self.unsynced);
        while !unsynced.stopped {
            let left = match unsynced.since {
                _ if !unsynced.flushes.is_empty() || unsynced.bytes >= SYNC_BYTES => Duration::ZERO,
                Some(since) => SYNC_AFTER.saturating_sub(since.elapsed()),
                None => Duration::MAX,
            };
            if left.is_zero() {
                unsynced.bytes = 0;
                unsynced.since = None;
                return Some(Batch {
                    artifacts: std::mem::take(&mut unsynced.artifacts),
                    flushes: std::mem::take(&mut unsynced.flushes),
                });
            }
            let woken = self.changed.wait_timeout(unsynced, left);
            unsynced = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    /// Ends the thread. What is not durable yet is lost like after a crash.
    pub(super) fn stop(&self) {
        let left = {
            let mut unsynced = lock(&self.unsynced);
            unsynced.stopped = true;
            unsynced.flushes.clear();
            std::mem::take(&mut unsynced.artifacts)
        };
        self.changed.notify_one();
        // Only now: the last owner of an artifact takes other locks.
        drop(left);
    }
}

/// The syncer thread.
pub(super) fn run(core: &Core) {
    while let Some(batch) = core.syncs.next() {
        for artifact in batch.artifacts.values() {
            let mut synced = artifact.sync();
            if !batch.flushes.is_empty() {
                synced = synced.and_then(|()| artifact.sync_names());
            }
            if let Err(error) = synced {
                core.health.failed("syncing", error);
            }
        }
        // Whoever flushed may want to see them closed.
        drop(batch.artifacts);
        for done in batch.flushes {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }
}
