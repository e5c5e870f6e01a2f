//! How the blocks of one artifact version get to disk and leave it: what the cache's threads do
//! with a [`CachedArtifact`].
//!
//! Only the writer thread writes and punches the data file; map entries are written under
//! `map_writes`, by the syncer for what became durable and by the writer for what leaves.

use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::artifact::{CachedArtifact, State, Stray, Waiting};
use super::extents::{EXTENT_BLOCKS, Extents};
use super::files::Files;
use super::footprint;
use super::lock;
use super::map::HEADER_LEN;
use super::memory::{Budget, Reservation};
use super::slab::Piece;
use super::store::BLOCK_SIZE;

/// Space of blocks that were written but did not reach the map before a crash is given back when
/// it is more than this; maps and metadata take some too.
const LOST_WORTH_PUNCHING: u64 = 1 << 20;

/// A crash leaves few gaps. More than this would delay the opening.
const MOST_GAPS: usize = 4096;

/// A reader comes for what it waits for at once, and for what was read ahead soon. After this time a
/// stray is given up for whoever needs memory.
const STRAY_LIFE: Duration = Duration::from_secs(1);

/// Adjacent blocks to write.
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) blocks: Vec<Piece>,
}

impl Run {
    /// The blocks.
    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.first + self.blocks.len() as u64
    }

    /// Bytes of data.
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }
}

impl CachedArtifact {
    /// Takes over what is on disk, once. Anything damaged counts as absent.
    pub(super) fn load(&self) {
        self.loaded.call_once(|| {
            if self.refused.load(Relaxed) {
                return;
            }
            if let Err(error) = self.try_load() {
                self.core.health.failed("opening an artifact", error);
            }
        });
    }

    fn try_load(&self) -> io::Result<()> {
        let (directory, name) = (&self.core.directory, &self.name);
        let Some(footprint) = footprint::of(directory, name)? else {
            return Ok(());
        };
        // Useless files take space too, until the first block replaces them.
        lock(&self.core.index).set(name, self.number, footprint.disk);
        let Some(files) = Files::open(directory, name, self.identity.salt())? else {
            return Ok(());
        };
        let mut extents = Extents::new(self.geometry);
        if files.load(&self.identity, |block, crc| extents.load(block, crc))? {
            files.touch();
            if files.is_sealed() {
                extents.prove_all();
            }
            let lost = footprint.disk.saturating_sub(extents.bytes());
            if lost > LOST_WORTH_PUNCHING && directory.can_punch() && files.is_writable() {
                for gap in extents.gaps().take(MOST_GAPS) {
                    let len = (gap.end - gap.start) * BLOCK_SIZE;
                    files.punch(gap.start * BLOCK_SIZE, len)?;
                }
                lock(&self.core.index).set(name, self.number, files.disk()?);
            }
            // Only this and the writer set it, and the writer has no block yet.
            let _ = self.files.set(files);
            lock(&self.state).extents = extents;
        }
        Ok(())
    }

    /// For the writer: the files, created if need be; `None` if this artifact is not cached any
    /// more, or cannot be on this filesystem.
    pub(super) fn files(&self) -> io::Result<Option<&Files>> {
        if let Some(files) = self.files.get() {
            return Ok(Some(files));
        }
        // Under the lock nobody else can take this name meanwhile.
        let mut index = lock(&self.core.index);
        if !index.is_holder(&self.name, self.number) {
            return Ok(None);
        }
        match Files::create(&self.core.directory, &self.identity) {
            Ok(files) => {
                index.set(&self.name, self.number, HEADER_LEN as u64);
                Ok(Some(self.files.get_or_init(|| files)))
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.refused.store(true, Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// For the writer: begins a turn, which is for the blocks answered. What is accepted from now
    /// on makes another turn, so that one artifact cannot keep the writer for itself.
    pub(super) fn begin_turn(&self) -> Range<u64> {
        let mut state = lock(&self.state);
        state.queued = false;
        0..state
            .waiting
            .last_key_value()
            .map_or(0, |(last, _)| last + 1)
    }

    /// For the writer: the next adjacent blocks within `blocks`, at most `longest` of them.
    pub(super) fn next_run(&self, blocks: Range<u64>, longest: usize) -> Option<Run> {
        let state = lock(&self.state);
        let mut waiting = state.waiting.range(blocks).take(longest);
        let (first, Waiting { data, .. }) = waiting.next()?;
        let mut blocks = vec![data.clone()];
        for ((block, next), expected) in waiting.zip(first + 1..) {
            if *block != expected {
                break;
            }
            blocks.push(next.data.clone());
        }
        Some(Run {
            first: *first,
            blocks,
        })
    }

    /// For the writer: `blocks` no longer wait; they were `written` or are given up. What was read
    /// ahead stays in memory for its reader, unless others need the memory.
    pub(super) fn settle(&self, blocks: Range<u64>, written: bool) {
        let tick = self.core.tick();
        let mut state = lock(&self.state);
        for block in blocks {
            let Some(waiting) = state.waiting.remove(&block) else {
                continue;
            };
            if !written {
                state.strand(block, waiting);
                continue;
            }
            state.extents.install(block, waiting.crc, tick);
            if !waiting.read && waiting.memory.is_dispensable() {
                state.unread.insert(block, (waiting.data, waiting.memory));
            }
        }
    }

    /// Waits no longer for the disk to take what waits.
    pub(super) fn give_up_waiting(&self) {
        let mut state = lock(&self.state);
        for (block, waiting) in std::mem::take(&mut state.waiting) {
            state.strand(block, waiting);
        }
    }

    /// Gives up the memory that the cache keeps for readers of what is in the data files, and of
    /// strays that nobody has come for.
    pub fn give_up_all_unread(&self) {
        let held = lock(&self.core.index).held();
        let now = Instant::now();
        for artifact in held {
            artifact.give_up_unread(|stray| now.duration_since(stray.since) >= STRAY_LIFE);
        }
    }

    /// Memory for `bytes` that somebody waits for: what is in memory only in case it is read gives
    /// way.
    pub async fn reserve(&self, budget: &Budget, bytes: u64) -> Reservation {
        if let Some(reservation) = budget.try_reserve(bytes) {
            return reservation;
        }
        let mut reserved = pin!(budget.reserve(bytes));
        loop {
            self.give_up_all_unread();
            // Again when those are old enough that were too young this time.
            if let Ok(reservation) = timeout(STRAY_LIFE, &mut reserved).await {
                return reservation;
            }
        }
    }

    fn give_up_unread(&self, is_old: impl Fn(&Stray) -> bool) {
        let mut state = lock(&self.state);
        let unread = std::mem::take(&mut state.unread);
        let old = state.strays.extract_if(.., |_, stray| is_old(stray));
        let old: Vec<_> = old.collect();
        drop(state);
        drop((unread, old));
    }

    /// Makes what is written durable and then says so in the map.
    pub(super) fn sync(&self) -> io::Result<()> {
        let Some(files) = self.files.get() else {
            return Ok(());
        };
        if lock(&self.state).extents.begin_sync() {
            let synced = files.sync_data();
            let lost = lock(&self.state).extents.end_sync(synced.is_ok());
            self.core.shrink(&self.name, self.number, lost);
            synced?;
        }
        let _writing = lock(&self.map_writes);
        self.write_map(files)
    }

    /// Makes the map and the names of the files durable.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        self.files.get().map_or(Ok(()), Files::sync_names)
    }

    /// Brings the map on disk up to date. `map_writes` must be held.
    fn write_map(&self, files: &Files) -> io::Result<()> {
        let runs = lock(&self.state).extents.map_changes();
        if !runs.is_empty() {
            files.write_map(&runs)?;
            lock(&self.state).extents.mapped(&runs);
        }
        Ok(())
    }

    /// Each extent on disk that may leave: its index, bytes, and when it was last used.
    pub(super) fn usage(&self) -> Vec<(u64, u64, u64)> {
        let state = lock(&self.state);
        match state.kept {
            0 => state.extents.usage().collect(),
            _ => Vec::new(),
        }
    }

    /// For the writer: gives the space of `extents` back to the filesystem, unless the file was
    /// lent meanwhile. The map is durable first, so that not even a power cut leaves it naming bytes that are gone; if that fails the
    /// space is needed all the same, and the checksums tell.
    /// Returns the bytes that left.
    pub(super) fn evict(&self, extents: &[u64]) -> io::Result<u64> {
        let Some(files) = self.files.get() else {
            return Ok(0);
        };
        let writing = lock(&self.map_writes);
        let bytes = {
            let mut state = lock(&self.state);
            if state.kept > 0 {
                return Ok(0);
            }
            for index in extents {
                state.strand_unread(*index);
            }
            extents
                .iter()
                .map(|index| state.extents.forget_extent(*index))
                .sum()
        };
        let mapped = self.write_map(files).and_then(|()| files.sync_map());
        drop(writing);
        const EXTENT: u64 = EXTENT_BLOCKS * BLOCK_SIZE;
        for index in extents {
            files.punch(index * EXTENT, EXTENT)?;
        }
        self.core.shrink(&self.name, self.number, bytes);
        mapped.map(|()| bytes)
    }

    /// Takes no more blocks and has none.
    pub(super) fn refuse(&self) {
        self.refused.store(true, Relaxed);
        let mut state = lock(&self.state);
        state.extents.clear();
        state.waiting.clear();
        drop(state);
        self.give_up_unread(|_| true);
    }
}

impl State {
    /// The blocks of this extent leave the disk: those that wait in memory for their reader stay.
    fn strand_unread(&mut self, extent: u64) {
        let blocks = extent * EXTENT_BLOCKS..(extent + 1) * EXTENT_BLOCKS;
        for (block, (data, memory)) in self.unread.extract_if(blocks, |_, _| true) {
            self.strays.insert(block, Stray::new(data, memory));
        }
    }

    /// The disk did not take a block: it stays for its reader, if it still has to be read. What
    /// can be brought only once is lost at once instead of after its first reader.
    fn strand(&mut self, block: u64, waiting: Waiting) {
        if !waiting.read && self.kept == 0 {
            let stray = Stray::new(waiting.data, waiting.memory);
            self.strays.insert(block, stray);
        }
    }
}
