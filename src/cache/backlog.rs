//! What the writer thread has still to do, and whether it is getting on.
//!
//! Blocks wait in their artifact; here is only whose turn it is. The memory of waiting blocks is
//! bounded by the budget that readers took it from, which also slows them to the speed of the
//! disk. A disk that hangs would so stop every reader: when nothing moved for [`STALL`], the
//! backlog is given up and nothing is accepted until the disk moves again.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::artifact::CachedArtifact;
use super::lock;

/// Longest time without progress before the disk counts as hanging.
pub(super) const STALL: Duration = Duration::from_secs(10);

/// One thing to do.
#[derive(Debug)]
pub(super) enum Turn {
    /// Write what waits in this artifact.
    Write(Arc<CachedArtifact>),
    /// Evict down to the limit.
    MakeRoom,
    /// Pass the word on to the syncer once everything before it is written.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Queue {
    turns: VecDeque<Turn>,
    /// Whose turn it is.
    current: Option<Arc<CachedArtifact>>,
    /// The last progress of the turn under way; `None` when idle.
    progress: Option<Instant>,
    /// Whether the watcher looks at `progress` from time to time, or sleeps until woken.
    watched: bool,
    stalled: bool,
    stopped: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Backlog {
    stall: Duration,
    queue: Mutex<Queue>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes the watcher.
    watch: Condvar,
}

impl Backlog {
    /// An empty queue; without progress for `stall` the disk counts as hanging.
    pub(super) fn new(stall: Duration) -> Self {
        Backlog {
            stall,
            queue: Mutex::default(),
            work: Condvar::new(),
            watch: Condvar::new(),
        }
    }

    /// Whether blocks are accepted at all.
    pub(super) fn accepts(&self) -> bool {
        let queue = lock(&self.queue);
        !queue.stalled && !queue.stopped
    }

    /// Whether the end has come.
    pub(super) fn is_stopped(&self) -> bool {
        lock(&self.queue).stopped
    }

    /// Queues `turn`; after the end it is dropped.
    pub(super) fn push(&self, turn: Turn) {
        let mut queue = lock(&self.queue);
        if !queue.stopped {
            queue.turns.push_back(turn);
            self.work.notify_one();
        }
    }

    /// For the writer: the next turn, waiting for one; `None` at the end.
    pub(super) fn next(&self) -> Option<Turn> {
        let finished = {
            let mut queue = lock(&self.queue);
            queue.stalled = false;
            queue.progress = None;
            queue.current.take()
        };
        // The last owner of an artifact takes other locks.
        drop(finished);
        let mut queue = lock(&self.queue);
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(turn) = queue.turns.pop_front() {
                queue.progress = Some(Instant::now());
                if let Turn::Write(artifact) = &turn {
                    queue.current = Some(artifact.clone());
                }
                if !queue.watched {
                    queue.watched = true;
                    self.watch.notify_one();
                }
                return Some(turn);
            }
            queue = self
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For the writer: the turn is getting on. `false` at the end.
    pub(super) fn progressed(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.stalled = false;
        queue.progress = Some(Instant::now());
        !queue.stopped
    }

    /// For the watcher: waits until the disk hangs, then tells whose blocks wait; `None` at the
    /// end.
    pub(super) fn hanging(&self) -> Option<Vec<Arc<CachedArtifact>>> {
        let mut queue = lock(&self.queue);
        while !queue.stopped {
            let left = match queue.progress {
                None => {
                    queue.watched = false;
                    let woken = self.watch.wait(queue);
                    queue = woken.unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Some(_) if queue.stalled => self.stall,
                Some(progress) => self.stall.saturating_sub(progress.elapsed()),
            };
            if left.is_zero() {
                queue.stalled = true;
                let waiting = queue.turns.iter().filter_map(|turn| match turn {
                    Turn::Write(artifact) => Some(artifact.clone()),
                    _ => None,
                });
                return Some(waiting.chain(queue.current.clone()).collect());
            }
            let woken = self.watch.wait_timeout(queue, left);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    /// Ends both threads' waits. What waits is dropped.
    pub(super) fn stop(&self) {
        let turns = {
            let mut queue = lock(&self.queue);
            queue.stopped = true;
            std::mem::take(&mut queue.turns)
        };
        self.work.notify_all();
        self.watch.notify_all();
        // Only now: the last owner of an artifact takes other locks.
        drop(turns);
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::tests::{key, version};
    use super::super::store::Cache;
    use super::*;

    #[test]
    fn case_43_a_hanging_disk_gives_up_what_waits_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 30).unwrap();
        let [a, b] = ["a", "b"].map(|file| cache.artifact(&key(file), &version("1", 1)));
        let backlog = Backlog::new(Duration::from_millis(20));
        assert!(backlog.accepts());
        backlog.push(Turn::Write(a.clone()));
        backlog.push(Turn::Write(b.clone()));
        let turn = backlog.next().unwrap();
        assert!(matches!(&turn, Turn::Write(artifact) if Arc::ptr_eq(artifact, &a)));
        let waiting = backlog.hanging().unwrap();
        assert_eq!(waiting.len(), 2);
        assert!(
            [&a, &b]
                .iter()
                .all(|one| waiting.iter().any(|other| Arc::ptr_eq(one, other)))
        );
        assert!(!backlog.accepts());
        assert!(backlog.progressed());
        assert!(backlog.accepts());
    }

    #[test]
    fn an_idle_disk_does_not_hang() {
        let backlog = Arc::new(Backlog::new(Duration::from_millis(1)));
        let watcher = std::thread::spawn({
            let backlog = backlog.clone();
            move || backlog.hanging().is_none()
        });
        let writer = std::thread::spawn({
            let backlog = backlog.clone();
            move || std::iter::from_fn(|| backlog.next()).count()
        });
        // Ten times as long as a stall takes.
        std::thread::sleep(Duration::from_millis(10));
        backlog.stop();
        assert!(watcher.join().unwrap());
        assert_eq!(writer.join().unwrap(), 0);
        backlog.push(Turn::MakeRoom);
        assert!(backlog.next().is_none() && !backlog.accepts() && backlog.is_stopped());
    }
}
