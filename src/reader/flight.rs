//! One range request under way: turns its bytes into blocks as they arrive.
//!
//! A flight runs in a task of its own, so that it outlives the read that caused it. [`Flight`] is
//! what its watchers see; [`Crew`] owns the blocks that have not landed yet and takes them off the
//! artifact's board, whatever way it ends.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::watch;

use super::artifact::Artifact;
use super::lock;
use crate::cache::{BLOCK_SIZE, Piece, Reservation, SLAB_SIZE, Slab};
use crate::error::{Error, Kind, Result};

/// How far a flight has come.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Blocks before this one have landed.
    pub(super) landed: u64,
    /// Why it ended early.
    pub(super) failed: Option<Error>,
}

/// Waits until `block` has landed or its flight is over.
pub(super) async fn await_block(mut flight: watch::Receiver<Flight>, block: u64) -> Result<()> {
    let outcome = flight
        .wait_for(|f| f.landed > block || f.failed.is_some())
        .await;
    match outcome.as_deref() {
        Ok(Flight { landed, .. }) if *landed > block => Ok(()),
        Ok(Flight {
            failed: Some(error),
            ..
        }) => Err(error.duplicate()),
        // The flight's task is gone without a word: it panicked.
        Ok(_) | Err(_) => Err(Error::new(Kind::Internal, "a download ended unexpectedly")),
    }
}

/// The task of one flight. Dropping it, also by a panic, takes its blocks off the board.
pub(super) struct Crew {
    pub(super) artifact: Arc<Artifact>,
    /// Blocks not landed yet.
    pub(super) left: Range<u64>,
    pub(super) progress: watch::Sender<Flight>,
}

impl Crew {
    /// Brings the blocks; `memory` accounts for all of them.
    pub(super) async fn fly(mut self, memory: Reservation) {
        if let Err(error) = self.bring(memory).await {
            if matches!(error.kind(), Kind::Changed | Kind::Expired | Kind::NotFound) {
                // Only the first reason is kept; later ones follow from it.
                let _ = self.artifact.broken.set(error.duplicate());
            }
            self.progress
                .send_modify(|flight| flight.failed = Some(error));
        }
    }

    async fn bring(&mut self, mut memory: Reservation) -> Result<()> {
        let artifact = self.artifact.clone();
        let mut part = artifact.part(&self.left);
        let mut slab: Option<Slab> = None;
        while let Some(chunk) = part.next().await? {
            artifact.fetched.fetch_add(chunk.len() as u64, Relaxed);
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let memory_left = slab.take().filter(|slab| slab.room() > 0);
                let filling = slab.insert(memory_left.unwrap_or_else(|| self.slab()));
                let whole = artifact.bytes_of(&(self.left.start..self.left.start + 1));
                let missing = whole as usize - filling.pending();
                let (taken, after) = rest.split_at(missing.min(rest.len()));
                filling.append(taken);
                rest = after;
                if taken.len() == missing {
                    self.land(filling.split(), memory.split(whole));
                }
            }
        }
        Ok(())
    }

    /// Memory for the next blocks, aligned like the reads of a reader that copies the file.
    fn slab(&self) -> Slab {
        const BLOCKS: u64 = SLAB_SIZE / BLOCK_SIZE;
        let start = self.left.start;
        let end = self.left.end.min((start / BLOCKS + 1) * BLOCKS);
        let artifact = &self.artifact;
        artifact.cached.slab(artifact.bytes_of(&(start..end)))
    }

    fn land(&mut self, bytes: Piece, memory: Reservation) {
        let block = self.left.start;
        let cached = &self.artifact.cached;
        if let Err(memory) = cached.write(block, bytes.clone(), memory) {
            cached.stray(block, bytes, memory);
        }
        self.left.start += 1;
        lock(&self.artifact.flights).remove(&block);
        self.progress
            .send_modify(|flight| flight.landed = block + 1);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let mut flights = lock(&self.artifact.flights);
        for block in self.left.clone() {
            flights.remove(&block);
        }
    }
}
