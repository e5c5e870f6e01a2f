//! One artifact version: what can be read of it, and what waits to be written.
//!
//! A block is served from memory from the moment it is accepted until it is in the data file, then
//! from the file; each read from the file is verified against the CRC32C taken when the block was
//! accepted. Reading never waits for writing.
//!
//! Locks, in this order: `map_writes` (who writes map entries), `state`. The first is held across
//! disk writes, the second never.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once, OnceLock};

use bytes::Bytes;

use super::backlog::Turn;
use super::extents::{EXTENT_BLOCKS, Extents, Geometry};
use super::files::{self, Files};
use super::identity::{Identity, Name};
use super::lock;
use super::map::HEADER_LEN;
use super::memory::Reservation;
use super::store::{BLOCK_SIZE, Core};

/// Larger files are read without caching: no common filesystem holds larger ones.
const LARGEST: u64 = 1 << 44;

/// One artifact version on disk; while it is alive it leaves the cache only piecewise, and last.
pub struct CachedArtifact {
    core: Arc<Core>,
    /// Tells holders of the same name apart.
    number: u64,
    name: Name,
    identity: Identity,
    geometry: Geometry,
    loaded: Once,
    /// Opened by `load`, or created by the writer thread.
    files: OnceLock<Files>,
    /// Never to be cached: too large, or removed from the cache.
    refused: AtomicBool,
    map_writes: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    extents: Extents,
    /// Accepted, not yet in the data file.
    waiting: BTreeMap<u64, Waiting>,
    /// Whether the writer knows that something waits.
    queued: bool,
}

struct Waiting {
    data: Bytes,
    crc: u32,
    _memory: Reservation,
}

/// Adjacent blocks to write.
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) blocks: Vec<Bytes>,
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

/// Where a block can be read.
enum Source {
    Memory(Bytes),
    Disk(u32),
}

impl CachedArtifact {
    pub(super) fn new(core: Arc<Core>, identity: Identity) -> Self {
        let geometry = Geometry {
            size: identity.size,
        };
        CachedArtifact {
            number: core.tick(),
            name: identity.name(),
            loaded: Once::new(),
            files: OnceLock::new(),
            refused: AtomicBool::new(identity.size > LARGEST),
            map_writes: Mutex::default(),
            state: Mutex::new(State {
                extents: Extents::new(geometry),
                waiting: BTreeMap::new(),
                queued: false,
            }),
            core,
            identity,
            geometry,
        }
    }

    /// Whether `block` can be read (not verified in this call).
    pub fn has(&self, block: u64) -> bool {
        let state = lock(&self.state);
        state.extents.crc(block).is_some() || state.waiting.contains_key(&block)
    }

    /// The verified content of `block`; `None` is a miss, also when the disk holds damaged bytes
    /// (then they are forgotten). Blocks on disk I/O.
    pub fn read(&self, block: u64) -> Option<Bytes> {
        let start = block.checked_mul(BLOCK_SIZE)?;
        let len = self.geometry.block_len(block);
        if len == 0 {
            return None;
        }
        self.read_range(&(start..start + len))
    }

    /// The verified bytes of `range` (within the file), assembled from its blocks with as few
    /// reads as possible; `None` if any block is missing or damaged (then it is forgotten).
    pub fn read_range(&self, range: &Range<u64>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.geometry.size {
            return None;
        }
        if range.is_empty() {
            return Some(Bytes::new());
        }
        let blocks = self.geometry.blocks_of(range);
        let start = blocks.start * BLOCK_SIZE;
        let wanted = (range.start - start) as usize..(range.end - start) as usize;
        let (sources, forgettings) = self.sources(&blocks)?;
        if let [Source::Memory(data)] = &sources[..] {
            return Some(data.slice(wanted));
        }
        let bytes = self.assemble(&blocks, &sources, forgettings)?;
        Some(Bytes::from(bytes).slice(wanted))
    }

    /// Where each of `blocks` can be read, if all can.
    fn sources(&self, blocks: &Range<u64>) -> Option<(Vec<Source>, u64)> {
        let mut state = lock(&self.state);
        let sources: Option<Vec<Source>> = blocks
            .clone()
            .map(|block| match state.waiting.get(&block) {
                Some(waiting) => Some(Source::Memory(waiting.data.clone())),
                None => state.extents.crc(block).map(Source::Disk),
            })
            .collect();
        let sources = sources?;
        state.extents.touch(blocks, self.core.tick());
        Some((sources, state.extents.forgettings()))
    }

    /// The bytes of `blocks`, verified.
    fn assemble(
        &self,
        blocks: &Range<u64>,
        sources: &[Source],
        forgettings: u64,
    ) -> Option<Vec<u8>> {
        let len = |block| self.geometry.block_len(block) as usize;
        let mut bytes = Vec::with_capacity(blocks.clone().map(len).sum());
        let mut damaged = Vec::new();
        let mut rest = sources;
        let mut block = blocks.start;
        while let Some(source) = rest.first() {
            if let Source::Memory(data) = source {
                bytes.extend_from_slice(data);
                block += 1;
                rest = &rest[1..];
                continue;
            }
            let crcs: Vec<u32> = rest
                .iter()
                .map_while(|source| match source {
                    Source::Disk(crc) => Some(*crc),
                    Source::Memory(_) => None,
                })
                .collect();
            rest = &rest[crcs.len()..];
            let run = block..block + crcs.len() as u64;
            let (start, run_len) = (bytes.len(), run.clone().map(len).sum());
            // A failed read leaves too few bytes, which then fail to verify.
            let read = self
                .files
                .get()?
                .read(&mut bytes, block * BLOCK_SIZE, run_len);
            if let Err(error) = read {
                self.core.health.failed("reading", error);
            }
            let mut at = start;
            for (block, crc) in run.clone().zip(crcs) {
                let content = bytes.get(at..at + len(block));
                if content.is_none_or(|content| crc32c::crc32c(content) != crc) {
                    damaged.push(block);
                }
                at += len(block);
            }
            if !damaged.is_empty() {
                self.forget_damaged(&damaged, forgettings);
                return None;
            }
            block = run.end;
        }
        Some(bytes)
    }

    /// Forgets blocks that failed to verify, unless they had left meanwhile anyway.
    fn forget_damaged(&self, damaged: &[u64], forgettings: u64) {
        let mut state = lock(&self.state);
        if state.extents.forgettings() != forgettings {
            return;
        }
        let bytes = damaged
            .iter()
            .map(|block| state.extents.forget(*block))
            .sum();
        drop(state);
        self.core.damaged(damaged.len() as u64);
        self.core.shrink(&self.name, self.number, bytes);
    }

    /// Accepts `data` as the content of `block`: readable at once (from memory), written behind,
    /// present on disk when durable. `memory` accounts for `data` and is released when the cache
    /// no longer holds it in memory. A cache that cannot store now (degraded, no space) gives
    /// `memory` back and the caller keeps the block itself.
    pub fn write(
        self: &Arc<Self>,
        block: u64,
        data: Bytes,
        memory: Reservation,
    ) -> Result<(), Reservation> {
        let whole = !data.is_empty() && data.len() as u64 == self.geometry.block_len(block);
        debug_assert!(whole, "block {block} of {} bytes", data.len());
        if !whole || self.refused.load(Relaxed) || !self.core.accepts() {
            return Err(memory);
        }
        let crc = crc32c::crc32c(&data);
        let mut state = lock(&self.state);
        if state.waiting.contains_key(&block) || state.extents.crc(block).is_some() {
            return Ok(());
        }
        let waiting = Waiting {
            data,
            crc,
            _memory: memory,
        };
        state.waiting.insert(block, waiting);
        let first = !std::mem::replace(&mut state.queued, true);
        drop(state);
        if first {
            self.core.backlog.push(Turn::Write(self.clone()));
        }
        Ok(())
    }

    /// Bytes that can be read.
    pub fn cached_bytes(&self) -> u64 {
        let state = lock(&self.state);
        let waiting: u64 = state.waiting.values().map(|w| w.data.len() as u64).sum();
        state.extents.bytes() + waiting
    }

    /// Whether every block can be read.
    pub fn is_complete(&self) -> bool {
        self.cached_bytes() == self.geometry.size
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

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
        let Some(footprint) = files::footprint(directory, name)? else {
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
            // Only this and the writer set it, and the writer has no block yet.
            let _ = self.files.set(files);
            lock(&self.state).extents = extents;
        }
        Ok(())
    }

    /// For the writer: the files, created if need be.
    pub(super) fn files(&self) -> io::Result<&Files> {
        if let Some(files) = self.files.get() {
            return Ok(files);
        }
        // Under the lock nobody else can take this name meanwhile.
        let mut index = lock(&self.core.index);
        if !index.is_holder(&self.name, self.number) {
            return Err(io::Error::other("the artifact was removed from the cache"));
        }
        let files = Files::create(&self.core.directory, &self.identity)?;
        index.set(&self.name, self.number, HEADER_LEN as u64);
        Ok(self.files.get_or_init(|| files))
    }

    /// For the writer: begins a turn. What is accepted from now on makes another one.
    pub(super) fn begin_turn(&self) {
        lock(&self.state).queued = false;
    }

    /// For the writer: the next adjacent blocks from `from` on, at most `longest` of them.
    pub(super) fn next_run(&self, from: u64, longest: usize) -> Option<Run> {
        let state = lock(&self.state);
        let mut waiting = state.waiting.range(from..).take(longest);
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

    /// For the writer: `blocks` no longer wait; they were `written` or are given up.
    pub(super) fn settle(&self, blocks: Range<u64>, written: bool) {
        let tick = self.core.tick();
        let mut state = lock(&self.state);
        for block in blocks {
            if let Some(waiting) = state.waiting.remove(&block)
                && written
            {
                state.extents.install(block, waiting.crc, tick);
            }
        }
    }

    /// Gives up everything that waits.
    pub(super) fn give_up_waiting(&self) {
        let waiting = std::mem::take(&mut lock(&self.state).waiting);
        drop(waiting);
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

    /// Each extent on disk: its index, bytes, and when it was last used.
    pub(super) fn usage(&self) -> Vec<(u64, u64, u64)> {
        lock(&self.state).extents.usage().collect()
    }

    /// For the writer: gives the space of `extents` back to the filesystem. The map is durable
    /// first, so that not even a power cut leaves it naming bytes that are gone; if that fails the
    /// space is needed all the same, and the checksums tell.
    pub(super) fn evict(&self, extents: &[u64]) -> io::Result<()> {
        let Some(files) = self.files.get() else {
            return Ok(());
        };
        let _writing = lock(&self.map_writes);
        let bytes = {
            let mut state = lock(&self.state);
            extents
                .iter()
                .map(|index| state.extents.forget_extent(*index))
                .sum()
        };
        let mapped = self.write_map(files).and_then(|()| files.sync_map());
        const EXTENT: u64 = EXTENT_BLOCKS * BLOCK_SIZE;
        for index in extents {
            files.punch(index * EXTENT, EXTENT)?;
        }
        self.core.shrink(&self.name, self.number, bytes);
        mapped
    }

    /// Takes no more blocks and has none.
    pub(super) fn refuse(&self) {
        self.refused.store(true, Relaxed);
        lock(&self.state).extents.clear();
        self.give_up_waiting();
    }
}

impl Drop for CachedArtifact {
    fn drop(&mut self) {
        if let Some(files) = self.files.get() {
            files.touch();
        }
        let tick = self.core.tick();
        lock(&self.core.index).release(&self.name, self.number, tick);
    }
}

impl fmt::Debug for CachedArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedArtifact")
            .field("name", &self.name)
            .field("size", &self.geometry.size)
            .finish_non_exhaustive()
    }
}
