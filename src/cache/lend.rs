//! Lending the data file of a whole artifact to the kernel, which then reads it without asking.
//!
//! A read that passes by the checksums must find every byte in place, so a file is lent only when
//! all of its blocks are durable and each was written, or read and found right, since the file last
//! changed; and no block leaves as long as the file is lent. What the disk does to the bytes after that
//! proof is not noticed: whoever wants each read verified must not borrow.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::artifact::CachedArtifact;
use super::lock;

/// A borrowed data file: it has the artifact's exact size and content, and keeps them while this
/// lives, also when the artifact is removed from the cache.
#[derive(Debug)]
pub struct Lent {
    artifact: Kept,
}

/// As long as this lives, no block of the artifact leaves to make room.
#[derive(Debug)]
pub struct Kept(Arc<CachedArtifact>);

impl CachedArtifact {
    /// Keeps every block: for bytes that cannot be fetched again.
    pub fn keep(self: &Arc<Self>) -> Kept {
        lock(&self.state).kept += 1;
        Kept(self.clone())
    }

    /// The data file, if it is whole, durable and proven. One that is whole but not proven yet is
    /// being proven from now on, as long as it is held, so that a later call may succeed. Returns
    /// at once.
    pub fn lend(self: &Arc<Self>) -> Option<Lent> {
        let files = self.files.get()?;
        let mut state = lock(&self.state);
        if !state.extents.is_settled() || self.refused.load(Relaxed) {
            return None;
        }
        if !files.is_untouched() {
            // What was proven before somebody else changed the file is proven no more.
            files.look().ok()?;
            state.extents.doubt_all();
        }
        if state.extents.next_unproven(0).is_none() {
            state.kept += 1;
            return Some(Lent {
                artifact: Kept(self.clone()),
            });
        }
        let first = !std::mem::replace(&mut state.proving, true);
        drop(state);
        if first {
            self.core.proofs.push(self);
        }
        None
    }

    /// Whether every block is durable and proven.
    pub(super) fn is_proven(&self) -> bool {
        let state = lock(&self.state);
        state.extents.is_settled() && state.extents.next_unproven(0).is_none()
    }
}

impl AsFd for Lent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let files = self.artifact.0.files.get();
        files
            .expect("what was lent has files, which stay open as long as it is held")
            .data()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        lock(&self.0.state).kept -= 1;
    }
}
