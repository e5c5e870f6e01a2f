//! One artifact version: what can be read of it, and what waits to be written.
//!
//! A block is served from memory from the moment it is accepted until it is in the data file, then
//! from the file; each read from the file is verified against the CRC32C taken when the block was
//! accepted. Reading never waits for writing. What the disk does not take is a stray: it stays in
//! memory until it was read.
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
use tokio::time::Instant;

use super::backlog::Turn;
use super::extents::{Extents, Geometry};
use super::files::Files;
use super::identity::{Identity, Name, UNSEALED};
use super::lock;
use super::memory::Reservation;
use super::slab::{Piece, Slab};
use super::store::{BLOCK_SIZE, Core};
use crate::planted;

/// One artifact version on disk; while it is alive it leaves the cache only piecewise, and last.
pub struct CachedArtifact {
    pub(super) core: Arc<Core>,
    /// Tells holders of the same name apart.
    pub(super) number: u64,
    pub(super) name: Name,
    pub(super) identity: Identity,
    pub(super) geometry: Geometry,
    pub(super) loaded: Once,
    /// Opened by `load`, or created by the writer thread.
    pub(super) files: OnceLock<Files>,
    /// Never to be cached: larger than any common filesystem holds, or removed from the cache.
    pub(super) refused: AtomicBool,
    pub(super) map_writes: Mutex<()>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) extents: Extents,
    /// Accepted, not yet in the data file.
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// In the data file, but kept in memory too until somebody reads it. What counts is whether
    /// `extents` has a block.
    pub(super) unread: BTreeMap<u64, (Piece, Reservation)>,
    /// In memory only, until it was read to its end or others need the memory.
    pub(super) strays: BTreeMap<u64, Stray>,
    /// Whether the writer knows that something waits.
    pub(super) queued: bool,
    /// How many need every block, for instance because they have borrowed the data file; none leaves
    /// meanwhile.
    pub(super) kept: usize,
    /// Whether its blocks are being proven, or will be.
    pub(super) proving: bool,
}

pub(super) struct Waiting {
    pub(super) data: Piece,
    pub(super) crc: u32,
    pub(super) memory: Reservation,
    /// Whether it was read since it was accepted.
    pub(super) read: bool,
}

/// A block that the disk did not take.
pub(super) struct Stray {
    data: Piece,
    pub(super) since: Instant,
    _memory: Reservation,
}

impl Stray {
    pub(super) fn new(data: Piece, memory: Reservation) -> Self {
        Stray {
            data,
            since: Instant::now(),
            _memory: memory,
        }
    }
}

/// The pieces as one, if all are in memory, side by side.
fn joined(sources: &[Source]) -> Option<Piece> {
    let mut pieces = sources.iter().map(|source| match source {
        Source::Memory(piece) => Some(piece),
        Source::Disk(..) => None,
    });
    let first = pieces.next()??.clone();
    pieces.try_fold(first, |joined, piece| joined.joined(piece?))
}

/// Where a block can be read.
enum Source {
    Memory(Piece),
    /// On disk, with this CRC32C; whether this process has found it there before.
    Disk(u32, Proven),
}

type Proven = bool;

impl Source {
    fn is_disk(&self) -> bool {
        matches!(self, Source::Disk(..))
    }
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
            refused: AtomicBool::new(identity.size > UNSEALED),
            map_writes: Mutex::default(),
            state: Mutex::new(State {
                extents: Extents::new(geometry),
                waiting: BTreeMap::new(),
                unread: BTreeMap::new(),
                strays: BTreeMap::new(),
                queued: false,
                kept: 0,
                proving: false,
            }),
            core,
            identity,
            geometry,
        }
    }

    /// Whether `block` can be read (not verified in this call).
    pub fn has(&self, block: u64) -> bool {
        let state = lock(&self.state);
        state.extents.crc(block).is_some()
            || state.waiting.contains_key(&block)
            || state.strays.contains_key(&block)
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
        let (sources, forgettings) = self.sources(range, &blocks)?;
        let piece = match joined(&sources) {
            Some(piece) => piece,
            None => self.assemble(blocks.start, &sources, forgettings)?,
        };
        Some(piece.slice(wanted).into())
    }

    /// Where each of `blocks` can be read, if all can. What of them is read to its end within
    /// `range` need not stay in memory any longer.
    fn sources(&self, range: &Range<u64>, blocks: &Range<u64>) -> Option<(Vec<Source>, u64)> {
        let (mut let_go, mut strays) = (Vec::new(), Vec::new());
        let mut state = lock(&self.state);
        let state = &mut *state;
        let mut sources = Vec::with_capacity((blocks.end - blocks.start) as usize);
        for block in blocks.clone() {
            let waiting = state.waiting.get(&block).map(|waiting| &waiting.data);
            let stray = || state.strays.get(&block).map(|stray| &stray.data);
            let source = match waiting.or_else(stray) {
                Some(data) => Source::Memory(data.clone()),
                None => {
                    let crc = state.extents.crc(block)?;
                    match state.unread.get(&block) {
                        Some((data, _)) => Source::Memory(data.clone()),
                        None => Source::Disk(crc, state.extents.is_proven(block)),
                    }
                }
            };
            sources.push(source);
        }
        for block in blocks.clone() {
            if let Some(waiting) = state.waiting.get_mut(&block) {
                waiting.read = true;
            }
            if range.end >= block * BLOCK_SIZE + self.geometry.block_len(block) {
                let_go.extend(state.unread.remove(&block));
                strays.extend(state.strays.remove(&block));
            }
        }
        state.extents.touch(blocks, self.core.tick());
        Some((sources, state.extents.forgettings()))
    }

    /// The bytes of the blocks from `first` on, verified.
    fn assemble(&self, first: u64, sources: &[Source], forgettings: u64) -> Option<Piece> {
        let blocks = first..first + sources.len() as u64;
        let len: u64 = blocks.map(|block| self.geometry.block_len(block)).sum();
        let mut slab = self.slab(len);
        let mut block = first;
        for run in sources.chunk_by(|a, b| a.is_disk() && b.is_disk()) {
            match run {
                [Source::Memory(data)] => slab.append(data),
                run => {
                    let damaged = self.read_run(block, run, &mut slab);
                    if !damaged.is_empty() {
                        self.forget_damaged(&damaged, forgettings);
                        return None;
                    }
                    if run
                        .iter()
                        .any(|source| matches!(source, Source::Disk(_, false)))
                    {
                        self.prove(block..block + run.len() as u64, forgettings);
                    }
                }
            }
            block += run.len() as u64;
        }
        Some(slab.split())
    }

    /// Blocks of the whole cache that failed to verify so far.
    pub fn damaged_blocks(&self) -> u64 {
        self.core.counters.damaged.load(Relaxed)
    }

    /// Memory for `len` adjacent bytes of this artifact.
    pub fn slab(&self, len: u64) -> Slab {
        self.core.slabs.take(len as usize)
    }

    /// Appends the blocks from `first` on to `slab`, read at once; answers which are damaged.
    fn read_run(&self, first: u64, run: &[Source], slab: &mut Slab) -> Vec<u64> {
        let start = slab.pending();
        let blocks = first..first + run.len() as u64;
        let len = |block| self.geometry.block_len(block) as usize;
        let read = match self.files.get() {
            Some(files) => {
                let whole = blocks.clone().map(len).sum();
                files.read(slab, first * BLOCK_SIZE, whole)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = read {
            self.core.health.failed("reading", error);
        }
        // What a failed read left out fails to verify.
        let mut rest = &slab.written()[start..];
        let damaged = blocks.zip(run).filter(|(block, source)| {
            let (content, after) = rest.split_at(len(*block).min(rest.len()));
            rest = after;
            content.len() < len(*block)
                || !matches!(source, Source::Disk(crc, _) if crc32c::crc32c(content) == *crc
                    || planted::is("unproven-blocks"))
        });
        damaged.map(|(block, _)| block).collect()
    }

    /// Notes that `blocks` were verified, unless they had left meanwhile.
    fn prove(&self, blocks: Range<u64>, forgettings: u64) {
        let mut state = lock(&self.state);
        if state.extents.forgettings() == forgettings {
            state.extents.prove(blocks);
        }
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
    /// `memory` back.
    pub fn write(
        self: &Arc<Self>,
        block: u64,
        data: Piece,
        memory: Reservation,
    ) -> Result<(), Reservation> {
        let whole = !data.is_empty() && data.len() as u64 == self.geometry.block_len(block);
        debug_assert!(whole, "block {block} of {} bytes", data.len());
        let unwritable = || self.files.get().is_some_and(|files| !files.is_writable());
        if !whole || self.refused.load(Relaxed) || unwritable() || !self.core.accepts() {
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
            memory,
            read: false,
        };
        state.waiting.insert(block, waiting);
        let first = !std::mem::replace(&mut state.queued, true);
        drop(state);
        if first {
            self.core.backlog.push(Turn::Write(self.clone()));
        }
        Ok(())
    }

    /// Keeps a block that [`write`](Self::write) did not take: readable from memory until it was
    /// read to its end. Whoever needs memory gives up those that nobody read for a while.
    pub fn stray(&self, block: u64, data: Piece, memory: Reservation) {
        let stray = Stray::new(data, memory);
        lock(&self.state).strays.insert(block, stray);
    }

    /// Bytes that can be read as often as one likes.
    pub fn cached_bytes(&self) -> u64 {
        let state = lock(&self.state);
        let waiting: u64 = state.waiting.values().map(|w| w.data.len() as u64).sum();
        state.extents.bytes() + waiting
    }

    /// Whether every block can be read as often as one likes.
    pub fn is_complete(&self) -> bool {
        self.cached_bytes() == self.geometry.size
    }
}

impl Drop for CachedArtifact {
    fn drop(&mut self) {
        if let Some(files) = self.files.get() {
            files.touch();
            if self.is_proven() && files.is_untouched() {
                // Without it the next holder proves every block again.
                let _ = files.seal();
            }
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
