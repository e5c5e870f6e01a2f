//! One open artifact version: brings each missing block once, for all its readers.
//!
//! A *flight* (`flight`) is one range request under way. Bytes become blocks as they arrive; each
//! block goes to the cache at once, which serves it from memory until it is in its file or, where
//! the disk takes none, until it was read. Memory is reserved from the process-wide budget
//! before a flight starts and travels with each block until the cache lets go of it: that is what
//! slows the network down to the speed of a slow disk.
//!
//! Lock: `flights` is never held across an await.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use super::flight::{Crew, Flight, await_block};
use super::share::Lot;
use super::spool::Reach;
use super::{ArtifactSpec, blocks_of, lock};
use crate::cache::{BLOCK_SIZE, Budget, CachedArtifact, Kept, Lent, Reservation};
use crate::error::{Error, Kind, Result};
use crate::fetch::{Fetcher, Part, Plan};
use crate::links::Links;
use crate::model::{ArtifactKey, Validator};

/// A block found damaged is fetched again; a disk that damages every block must not loop for ever.
const DAMAGE_LIMIT: u32 = 8;

/// The largest request for bytes that a reader already waits for: it should arrive soon. What the
/// kernel asks at once, 1 MiB, touches one block more unless it is aligned, and that is not worth
/// a request of its own.
const DEMAND_PART: u64 = (1 << 20) + BLOCK_SIZE;

/// A pinned version being read.
#[derive(Debug)]
pub struct Artifact {
    key: ArtifactKey,
    validator: Arc<Validator>,
    links: Arc<Links>,
    fetcher: Fetcher,
    pub(super) cached: Arc<CachedArtifact>,
    budget: Budget,
    /// Its part in the memory for reading ahead.
    lot: Lot,
    runtime: Runtime,
    /// Which flight brings a block. A block is here from before its flight starts until after it
    /// is servable or the flight has failed.
    pub(super) flights: Mutex<HashMap<u64, watch::Receiver<Flight>>>,
    /// Why this version can be read no more.
    pub(super) broken: OnceLock<Error>,
    pub(super) fetched: AtomicU64,
    /// Where only one stream brings its bytes: how far that is, and the promise that none leaves.
    spool: Option<(Reach, Kept)>,
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
        let is_spooled = spec.validator.download.is_some();
        Artifact {
            spool: is_spooled.then(|| (Reach::new(cached.is_complete()), cached.keep())),
            key: spec.key,
            validator: Arc::new(spec.validator),
            links: spec.links,
            fetcher: spec.fetcher,
            cached,
            budget,
            lot,
            runtime: Runtime::current(),
            flights: Mutex::default(),
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

    /// What of it is cached.
    pub(super) fn cached(&self) -> &Arc<CachedArtifact> {
        &self.cached
    }

    /// How far the stream is that alone brings its bytes, if they come so.
    pub(super) fn reach(&self) -> Option<&Reach> {
        self.spool.as_ref().map(|(reach, _)| reach)
    }

    /// Whether its readers may have to wait for a stream that is on its way.
    pub fn is_flowing(&self) -> bool {
        self.reach().is_some_and(Reach::is_flowing)
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

    /// Its bytes turned out to be wrong: nobody is served any of them from now on.
    pub fn condemn(&self, why: Error) {
        // Only the first reason is kept.
        let _ = self.broken.set(why);
    }

    /// The bytes of `wanted` if all its blocks are at hand.
    pub(super) fn at_hand(&self, wanted: &Range<u64>) -> Option<Bytes> {
        if self.broken.get().is_some() || !blocks_of(wanted).all(|block| self.cached.has(block)) {
            return None;
        }
        self.cached.read_range(wanted)
    }

    /// Starts to bring what is missing of `wanted`, waiting only for memory.
    pub(super) async fn demand(self: &Arc<Self>, wanted: &Range<u64>) {
        if self.spool.is_some() {
            return;
        }
        for run in self.missing(&blocks_of(wanted), DEMAND_PART) {
            let reservation = self.cached.reserve(&self.budget, self.bytes_of(&run)).await;
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
            match self.try_reserve(self.bytes_of(&run)) {
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
            let absent = blocks_of(wanted).find(|block| !self.cached.has(*block));
            let Some(block) = absent else {
                let before = self.cached.damaged_blocks();
                if let Some(bytes) = self.at_hand(wanted) {
                    return Ok(Served { bytes, waited });
                }
                // Blocks may also have left for others' since they landed: that is no damage.
                damaged += u32::from(self.cached.damaged_blocks() > before);
                if damaged > DAMAGE_LIMIT {
                    let why = "the cache keeps returning damaged blocks; check its disk";
                    return Err(Error::new(Kind::Cache, why));
                }
                continue;
            };
            waited = true;
            if let Some(reach) = self.reach() {
                reach.passed(block).await?;
                if !self.cached.has(block) {
                    self.condemn(lost());
                }
                continue;
            }
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
        let reservation = self.cached.reserve(&self.budget, self.bytes_of(&run)).await;
        self.launch(run, reservation)
            .filter(|flight| flight.borrow().landed <= block)
    }

    /// Runs of blocks within `blocks` that are neither at hand nor under way, each at most `part`
    /// bytes long.
    fn missing(&self, blocks: &Range<u64>, part: u64) -> Vec<Range<u64>> {
        let longest = (part / BLOCK_SIZE).max(1);
        let mut runs: Vec<Range<u64>> = Vec::new();
        for block in blocks.clone() {
            if self.cached.has(block) || lock(&self.flights).contains_key(&block) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == block && run.end - run.start < longest => run.end += 1,
                _ => runs.push(block..block + 1),
            }
        }
        runs
    }

    /// Bytes of `blocks`.
    pub(super) fn bytes_of(&self, blocks: &Range<u64>) -> u64 {
        (blocks.end * BLOCK_SIZE).min(self.size()) - blocks.start * BLOCK_SIZE
    }

    /// How to read ahead on the way to its store with at most `room` bytes.
    pub(super) fn plan(&self, room: u64) -> Plan {
        self.fetcher.plan(room)
    }

    /// A request for `blocks`.
    pub(super) fn part(&self, blocks: &Range<u64>) -> Part {
        let start = blocks.start * BLOCK_SIZE;
        let range = start..start + self.bytes_of(blocks);
        let (links, validator) = (self.links.clone(), self.validator.clone());
        self.fetcher.part(links, validator, range)
    }

    /// Memory for `bytes` that a reader may want later, if there is any to spare.
    fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        self.budget.try_reserve(bytes).or_else(|| {
            self.cached.give_up_all_unread();
            self.budget.try_reserve(bytes)
        })
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
}

/// A block that only a new download could bring.
fn lost() -> Error {
    Error::new(
        Kind::Changed,
        "the cache lost or damaged a part of this file, which came by a link that works only once; \
         open the file again: that may need a new download task",
    )
}
