//! The thread that verifies whole artifacts found on disk, so that they can be lent.
//!
//! It reads what no reader has verified yet, as long as somebody holds the artifact, and gives way
//! to everything else on the machine.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use super::artifact::CachedArtifact;
use super::lock;
use super::store::{BLOCK_SIZE, Core};

/// Bytes read at once.
const STRIDE: u64 = 8 * BLOCK_SIZE;

/// Lowest scheduling priority (setpriority(2)).
const NICEST: i32 = 19;

/// Artifacts to prove.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    artifacts: VecDeque<Weak<CachedArtifact>>,
    stopped: bool,
}

impl Proofs {
    /// Has `artifact` proven, unless it is let go before.
    pub(super) fn push(&self, artifact: &Arc<CachedArtifact>) {
        lock(&self.queue)
            .artifacts
            .push_back(Arc::downgrade(artifact));
        self.changed.notify_one();
    }

    /// The next artifact, waiting for one; `None` at the end.
    fn next(&self) -> Option<Weak<CachedArtifact>> {
        let queue = lock(&self.queue);
        let mut queue = self
            .changed
            .wait_while(queue, |queue| !queue.stopped && queue.artifacts.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        match queue.stopped {
            true => None,
            false => queue.artifacts.pop_front(),
        }
    }

    fn is_stopped(&self) -> bool {
        lock(&self.queue).stopped
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        lock(&self.queue).stopped = true;
        self.changed.notify_one();
    }
}

/// The prover thread.
pub(super) fn run(core: &Core) {
    // On Linux the priority is the calling thread's own. A refusal costs politeness only.
    let _ = rustix::process::setpriority_process(None, NICEST);
    while let Some(artifact) = core.proofs.next() {
        let mut from = 0;
        while let Some(artifact) = artifact.upgrade()
            && !core.proofs.is_stopped()
            && let Some(next) = artifact.prove_some(from)
        {
            from = next;
        }
    }
}

impl CachedArtifact {
    /// Proves some blocks from `from` on; tells where to go on, `None` at the end. A damaged block
    /// ends it: the artifact is not whole any more.
    fn prove_some(&self, from: u64) -> Option<u64> {
        let size = self.geometry.size;
        let start = lock(&self.state)
            .extents
            .next_unproven(from)
            .map(|block| block * BLOCK_SIZE)
            .filter(|start| *start < size);
        let range = start.map(|start| start..(start + STRIDE).min(size));
        let next = range
            .filter(|range| self.read_range(range).is_some())
            .map(|range| range.end.div_ceil(BLOCK_SIZE));
        if next.is_none() {
            lock(&self.state).proving = false;
        }
        next
    }
}
