//! One open artifact version: brings each missing block once, for all its readers.
//!
//! A *flight* is one range request under way, run by its own task so that it outlives the read
//! that caused it. Bytes become blocks as they arrive; each block goes to the cache at once, which
//! serves it from memory until it is durable. Memory is reserved from the process-wide budget
//! before a flight starts and travels with each block until the cache lets go of it: that is what
//! slows the network down to the speed of a slow disk.
//!
//! Locks: `flights` and `kept` are never held together, nor across an await.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use super::share::Lot;
use super::{ArtifactSpec, blocks_of, lock};
use crate::cache::{BLOCK_SIZE, Budget, CachedArtifact, Lent, Reservation};
use crate::error::{Error, Kind, Result};
use crate::fetch::Fetcher;
use crate::links::Links;
use crate::model::{ArtifactKey, Validator};

/// A block found damaged is fetched again; a disk that damages every block must not loop for ever.
const DAMAGE_LIMIT: u32 = 8;

/// The largest request for bytes that a reader already waits for: it should arrive soon.
const DEMAND_PART: u64 = 1 << 20;

/// A pinned version being read.
#[derive(Debug)]
pub struct Artifact {
    key: ArtifactKey,
    validator: Arc<Validator>,
    links: Arc<Links>,
    fetcher: Fetcher,
    cached: Arc<CachedArtifact>,
    budget: Budget,
    /// Its part in the memory for reading ahead.
    lot: Lot,
    runtime: Runtime,
    /// Which flight brings a block. A block is here from before its flight starts until after it
    /// is servable or the flight has failed.
    flights: Mutex<HashMap<u64, watch::Receiver<Flight>>>,
    /// Blocks that the cache could not take: each is kept until it was read to its end, and only
    /// the newest few.
    kept: Mutex<BTreeMap<u64, (Bytes, Reservation)>>,
    /// Why this version can be read no more.
    broken: OnceLock<Error>,
    fetched: AtomicU64,
}

/// Most blocks kept in memory when the cache takes none: 8 MiB.
const KEPT_BLOCKS: usize = 64;

/// How far a flight has come.
#[derive(Debug, Default)]
struct Flight {
    /// Blocks before this one have landed.
    landed: u64,
    /// Why it ended early.
    failed: Option<Error>,
}

/// Bytes for a reader.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) bytes: Bytes,
    /// Whether they had to be waited for.
    pub(super) waited: bool,
}

impl Artifact {
    pub(super) fn new(
        spec: ArtifactSpec,
        cached: Arc<CachedArtifact>,
        budget: Budget,
        lot: Lot,
    ) -> Self {
        Artifact {
            key: spec.key,
            validator: Arc::new(spec.validator),
            links: spec.links,
            fetcher: spec.fetcher,
            cached,
            budget,
            lot,
            runtime: Runtime::current(),
            flights: Mutex::default(),
            kept: Mutex::default(),
            broken: OnceLock::new(),
            fetched: AtomicU64::new(0),
        }
    }

    pub(super) fn lot(&self) -> &Lot {
        &self.lot
    }

    /// Which file.
    pub fn key(&self) -> &ArtifactKey {
        &self.key
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.validator.size
    }

    /// Bytes fetched from the network since it was opened.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Relaxed)
    }

    /// Bytes cached on disk.
    pub fn cached_bytes(&self) -> u64 {
        self.cached.cached_bytes()
    }

    /// Its data file in the cache, if the kernel may read it without asking; see
    /// [`CachedArtifact::lend`].
    pub fn lend(&self) -> Option<Lent> {
        self.broken
            .get()
            .map_or_else(|| self.cached.lend(), |_| None)
    }

    /// The live link of this version.
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Why this version can be read no more, if so.
    pub fn broken(&self) -> Option<&Error> {
        self.broken.get()
    }

    /// The bytes of `wanted` if all its blocks are at hand.
    pub(super) fn at_hand(&self, wanted: &Range<u64>) -> Option<Bytes> {
        if self.broken.get().is_some() || !blocks_of(wanted).all(|block| self.has(block)) {
            return None;
        }
        if lock(&self.kept).is_empty() {
            return self.cached.read_range(wanted);
        }
        let mut bytes = BytesMut::with_capacity((wanted.end - wanted.start) as usize);
        for block in blocks_of(wanted) {
            let start = block * BLOCK_SIZE;
            let from = wanted.start.max(start);
            let to = wanted.end.min(start + BLOCK_SIZE);
            match self.take_kept(block, from - start..to - start) {
                Some(part) => bytes.extend_from_slice(&part),
                None => bytes.extend_from_slice(&self.cached.read_range(&(from..to))?),
            }
        }
        Some(bytes.freeze())
    }

    /// Starts to bring what is missing of `wanted`, waiting only for memory.
    pub(super) async fn demand(self: &Arc<Self>, wanted: &Range<u64>) {
        for run in self.missing(&blocks_of(wanted), DEMAND_PART) {
            let reservation = self.budget.reserve(self.bytes_of(&run)).await;
            self.launch(run, reservation);
        }
    }

    /// Starts to bring what is missing of `ahead` in requests of `part` bytes, as far as memory
    /// allows at once; tells from which offset on it did not.
    pub(super) fn suggest(self: &Arc<Self>, ahead: &Range<u64>, part: u64) -> Option<u64> {
        if self.broken.get().is_some() {
            return None;
        }
        for run in self.missing(&blocks_of(ahead), part) {
            match self.budget.try_reserve(self.bytes_of(&run)) {
                Some(reservation) => drop(self.launch(run, reservation)),
                None => return Some(run.start * BLOCK_SIZE),
            }
        }
        None
    }

    /// Waits for the bytes of `wanted`, bringing what is missing.
    pub(super) async fn serve(self: &Arc<Self>, wanted: &Range<u64>) -> Result<Served> {
        let mut waited = false;
        let mut damaged = 0;
        loop {
            if let Some(broken) = self.broken.get() {
                return Err(broken.duplicate());
            }
            let absent = blocks_of(wanted).find(|block| !self.has(*block));
            let Some(block) = absent else {
                if let Some(bytes) = self.at_hand(wanted) {
                    return Ok(Served { bytes, waited });
                }
                damaged += 1;
                if damaged > DAMAGE_LIMIT {
                    let why = "the cache keeps returning damaged blocks; check its disk";
                    return Err(Error::new(Kind::Cache, why));
                }
                continue;
            };
            waited = true;
            if let Some(flight) = self.flight_of(block, wanted).await {
                await_block(flight, block).await?;
            }
        }
    }

    /// The flight that brings `block`, started if need be together with what else is missing of
    /// `wanted`; `None` if the block has landed meanwhile. The flight is taken off the board only
    /// after its watcher was handed out here, so that no failure is missed.
    async fn flight_of(
        self: &Arc<Self>,
        block: u64,
        wanted: &Range<u64>,
    ) -> Option<watch::Receiver<Flight>> {
        if let Some(flight) = lock(&self.flights).get(&block) {
            return Some(flight.clone());
        }
        let rest = block..blocks_of(wanted).end;
        let run = self.missing(&rest, DEMAND_PART).into_iter().next()?;
        let reservation = self.budget.reserve(self.bytes_of(&run)).await;
        self.launch(run, reservation)
            .filter(|flight| flight.borrow().landed <= block)
    }

    fn has(&self, block: u64) -> bool {
        self.cached.has(block) || lock(&self.kept).contains_key(&block)
    }

    /// Runs of blocks within `blocks` that are neither at hand nor under way, each at most `part`
    /// bytes long.
    fn missing(&self, blocks: &Range<u64>, part: u64) -> Vec<Range<u64>> {
        let longest = (part / BLOCK_SIZE).max(1);
        let mut runs: Vec<Range<u64>> = Vec::new();
        for block in blocks.clone() {
            if self.has(block) || lock(&self.flights).contains_key(&block) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == block && run.end - run.start < longest => run.end += 1,
                _ => runs.push(block..block + 1),
            }
        }
        runs
    }

    fn bytes_of(&self, blocks: &Range<u64>) -> u64 {
        (blocks.end * BLOCK_SIZE).min(self.size()) - blocks.start * BLOCK_SIZE
    }

    /// Starts flights for those blocks of `run` that nobody else has begun to bring meanwhile.
    /// Answers the flight of the first block, unless that has landed.
    fn launch(
        self: &Arc<Self>,
        run: Range<u64>,
        mut reservation: Reservation,
    ) -> Option<watch::Receiver<Flight>> {
        let mut flights = lock(&self.flights);
        let mut block = run.start;
        let mut first = flights.get(&run.start).cloned();
        while block < run.end {
            let start = block;
            while block < run.end && !flights.contains_key(&block) && !self.cached.has(block) {
                block += 1;
            }
            if start == block {
                block += 1;
                continue;
            }
            let blocks = start..block;
            let memory = reservation.split(self.bytes_of(&blocks));
            let (progress, watcher) = watch::channel(Flight {
                landed: start,
                failed: None,
            });
            flights.extend(blocks.clone().map(|block| (block, watcher.clone())));
            if start == run.start {
                first = Some(watcher);
            }
            let crew = Crew {
                artifact: self.clone(),
                left: blocks,
                progress,
            };
            self.runtime.spawn(crew.fly(memory));
        }
        first
    }

    fn keep(&self, block: u64, bytes: Bytes, memory: Reservation) {
        let mut kept = lock(&self.kept);
        kept.insert(block, (bytes, memory));
        while kept.len() > KEPT_BLOCKS {
            kept.pop_first();
        }
    }

    /// `part` of a kept block; the block is let go once its end was read.
    fn take_kept(&self, block: u64, part: Range<u64>) -> Option<Bytes> {
        let mut kept = lock(&self.kept);
        let (bytes, _) = kept.get(&block)?;
        let slice = bytes.slice(part.start as usize..part.end as usize);
        if part.end as usize == bytes.len() {
            kept.remove(&block);
        }
        Some(slice)
    }
}

/// Waits until `block` has landed or its flight is over.
async fn await_block(mut flight: watch::Receiver<Flight>, block: u64) -> Result<()> {
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
struct Crew {
    artifact: Arc<Artifact>,
    /// Blocks not landed yet.
    left: Range<u64>,
    progress: watch::Sender<Flight>,
}

impl Crew {
    async fn fly(mut self, memory: Reservation) {
        if let Err(error) = self.bring(memory).await {
            if matches!(error.kind(), Kind::Changed | Kind::Expired) {
                // Only the first reason is kept; later ones follow from it.
                let _ = self.artifact.broken.set(error.duplicate());
            }
            self.progress
                .send_modify(|flight| flight.failed = Some(error));
        }
    }

    async fn bring(&mut self, mut memory: Reservation) -> Result<()> {
        let artifact = self.artifact.clone();
        let start = self.left.start * BLOCK_SIZE;
        let range = start..start + artifact.bytes_of(&self.left);
        let mut part =
            artifact
                .fetcher
                .part(artifact.links.clone(), artifact.validator.clone(), range);
        let mut block = BytesMut::new();
        while let Some(mut chunk) = part.next().await? {
            artifact.fetched.fetch_add(chunk.len() as u64, Relaxed);
            while !chunk.is_empty() {
                let whole = artifact.bytes_of(&(self.left.start..self.left.start + 1)) as usize;
                block.reserve(whole - block.len());
                let taken = chunk.split_to(chunk.len().min(whole - block.len()));
                block.extend_from_slice(&taken);
                if block.len() == whole {
                    self.land(block.split().freeze(), memory.split(whole as u64));
                }
            }
        }
        Ok(())
    }

    fn land(&mut self, bytes: Bytes, memory: Reservation) {
        let block = self.left.start;
        if let Err(memory) = self.artifact.cached.write(block, bytes.clone(), memory) {
            self.artifact.keep(block, bytes, memory);
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
