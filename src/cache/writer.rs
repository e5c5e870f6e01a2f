//! The thread that writes accepted blocks to the data files and keeps the cache below its limits.
//!
//! It alone writes and punches data files, so eviction never races with a write.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::artifact::CachedArtifact;
use super::backlog::Turn;
use super::evict::{self, Candidate, LastUse};
use super::files;
use super::identity::Name;
use super::index::Whole;
use super::lock;
use super::persist::Run;
use super::store::{BLOCK_SIZE, Core};

/// Most blocks written at once: 8 MiB.
const LONGEST_RUN: u64 = 64;

/// The writer thread.
pub(super) fn run(core: &Core) {
    while let Some(turn) = core.backlog.next() {
        match turn {
            Turn::Write(artifact) => core.write_waiting(&artifact),
            Turn::MakeRoom => {
                if let Err(error) = core.make_room(0) {
                    core.health.failed("evicting", error);
                }
            }
            Turn::Flush(done) => core.syncs.flush(done),
        }
    }
}

/// The watcher thread: a disk that hangs must not keep the memory that readers wait for.
pub(super) fn watch(core: &Core) {
    while let Some(artifacts) = core.backlog.hanging() {
        core.health.failed("writing", "the disk does not answer");
        for artifact in artifacts {
            artifact.give_up_waiting();
        }
    }
}

impl Core {
    fn write_waiting(&self, artifact: &Arc<CachedArtifact>) {
        // A run is well below the limit, so that a small cache still takes each block.
        let longest = (self.limit / 4 / BLOCK_SIZE).clamp(1, LONGEST_RUN) as usize;
        let mut left = artifact.begin_turn();
        while let Some(run) = artifact.next_run(left.clone(), longest) {
            left.start = run.range().end;
            let stored = self.health.may_write() && self.try_store(artifact, &run);
            artifact.settle(run.range(), stored);
            if stored {
                self.syncs.add(artifact, run.bytes());
            }
            if !self.backlog.progressed() {
                break;
            }
        }
    }

    /// Writes `run`; tells whether it is in the data file now, and the health of the disk.
    fn try_store(&self, artifact: &CachedArtifact, run: &Run) -> bool {
        match self.store(artifact, run) {
            Ok(stored) => {
                self.health.worked();
                stored
            }
            Err(error) => {
                self.health.failed("writing", error);
                false
            }
        }
    }

    fn store(&self, artifact: &CachedArtifact, run: &Run) -> io::Result<bool> {
        if !self.directory.is_in_place() {
            return Err(io::Error::other(
                "the directory is not where it was: was its filesystem unmounted?",
            ));
        }
        // Filesystems allocate whole pages.
        let disk = run.bytes().next_multiple_of(4096);
        self.make_room(disk)?;
        let Some(files) = artifact.files()? else {
            return Ok(false);
        };
        lock(&self.index).grow(&artifact.name, artifact.number, disk);
        let written = files.write(&run.blocks, run.first * BLOCK_SIZE);
        if written.is_err() {
            self.shrink(&artifact.name, artifact.number, disk);
        }
        written.map(|()| true)
    }

    /// Evicts until `incoming` bytes may be written.
    fn make_room(&self, incoming: u64) -> io::Result<()> {
        let space = self.directory.space()?;
        let floor = (self.floor)(space.total);
        let used = lock(&self.index).used();
        let excess = evict::excess(self.limit, used, incoming, space, floor);
        if excess == 0 {
            return Ok(());
        }
        let wanted = excess.saturating_add(evict::slack(self.limit.min(space.total)));
        let mut freed = self.evict_idle(wanted);
        if freed < wanted && self.directory.can_punch() {
            freed += self.evict_held(wanted - freed)?;
        }
        self.counters.evicted.fetch_add(freed, Relaxed);
        if freed < excess && incoming > 0 {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("less than {} MiB are free", (floor >> 20) + 1),
            ));
        }
        Ok(())
    }

    /// Evicts what nobody holds, the least recently used first. Returns the bytes freed.
    fn evict_idle(&self, wanted: u64) -> u64 {
        let mut freed = 0;
        let leaving = evict::victims(lock(&self.index).idle(), wanted);
        for Candidate { what, .. } in leaving {
            match what {
                Whole::Artifact(name) => freed += self.remove_idle(&name),
                Whole::OtherVersion(name) => {
                    freed += lock(&self.index).remove_other_version(&name);
                    // Each entry counts; what cannot be removed is not ours to mend.
                    let _ = std::fs::remove_dir_all(self.directory.path().join(name));
                }
            }
            self.backlog.progressed();
        }
        freed
    }

    fn remove_idle(&self, name: &Name) -> u64 {
        let freed = {
            let mut index = lock(&self.index);
            if index.is_held(name) || files::retire(&self.directory, name).is_err() {
                return 0;
            }
            index.remove(name)
        };
        match files::sweep(&self.directory, name) {
            Ok(()) => freed,
            Err(_) => 0,
        }
    }

    /// Evicts parts of what is held, the least recently used first. Returns the bytes freed.
    fn evict_held(&self, wanted: u64) -> io::Result<u64> {
        let held = lock(&self.index).held();
        let candidates = held.iter().enumerate().flat_map(|(holder, artifact)| {
            let usage = artifact.usage().into_iter();
            usage.map(move |(extent, bytes, tick)| Candidate {
                what: (holder, extent),
                bytes,
                last_use: LastUse::Tick(tick),
                is_dear: false,
            })
        });
        let mut leaving = evict::victims(candidates.collect(), wanted);
        leaving.sort_by_key(|candidate| candidate.what);
        let mut freed = 0;
        for group in leaving.chunk_by(|a, b| a.what.0 == b.what.0) {
            let extents: Vec<u64> = group.iter().map(|candidate| candidate.what.1).collect();
            freed += held[group[0].what.0].evict(&extents)?;
            self.backlog.progressed();
        }
        Ok(freed)
    }
}
