//! Carries a spool out: asks, compares, keeps, and tells how far it is.
//!
//! [`Drive`] runs in a task of its own and owns everything of its spool: the course, the generation
//! that its bytes go into, the block that is being filled. Memory is reserved before bytes are read,
//! so a slow disk slows the network down.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::course::{Course, End, Fate, Reception};
use super::generation::{self, Generation};
use super::{Job, Order, STEP, Stage};
use crate::cache::{BLOCK_SIZE, Piece, Reservation, SLAB_SIZE, Slab};
use crate::error::{Error, Kind, Result};
use crate::fetch::{Answer, Download, Head};
use crate::reader::Readers;

/// How often the link may lead nowhere: a provider may say once for each job that it is ready still.
const MOST_ROUNDS: u32 = 6;

/// The longest that blocks are waited for on their way to the disk.
const FLUSH: Duration = Duration::from_secs(120);

/// One spool at work.
pub(super) struct Drive {
    order: Arc<Order>,
    readers: Readers,
    stage: watch::Sender<Stage>,
    course: Course,
    generation: Option<Generation>,
    /// What began the stream.
    answer: Option<Answer>,
    job: Option<Job>,
    /// The block being filled, and memory for it and those that follow.
    block: u64,
    slab: Option<(Slab, Reservation)>,
}

impl Drive {
    pub(super) fn new(order: Order, readers: Readers, stage: watch::Sender<Stage>) -> Self {
        Drive {
            order: Arc::new(order),
            readers,
            stage,
            course: Course::default(),
            generation: None,
            answer: None,
            job: None,
            block: 0,
            slab: None,
        }
    }

    /// Bytes that came.
    pub(super) fn bytes(&self) -> u64 {
        self.course.kept()
    }

    /// Whether a link was asked for its bytes.
    pub(super) fn was_read(&self) -> bool {
        self.job.is_some()
    }

    /// Brings the file to its end, job after job if need be.
    pub(super) async fn run(&mut self) -> Result<()> {
        let mut round = 1;
        loop {
            let job = self.order.jobs.ready().await?;
            if round == 1 {
                self.resume(&job).await?;
            }
            let outcome = self.read_link(&job).await;
            match outcome {
                Err(error) if error.kind() == Kind::Expired => {
                    self.order.jobs.used_up(&job.task_id).await;
                    if round == MOST_ROUNDS {
                        let words = "one download after the other broke off";
                        return Err(error.context(words));
                    }
                    self.course.begin_anew();
                    round += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// The spool is over; so are all waits for it.
    pub(super) fn end(self, outcome: Result<(), Arc<Error>>) {
        let version = self.generation.as_ref().and_then(|it| it.version.as_ref());
        if let Some(reach) = version.and_then(|(_, artifact)| artifact.reach()) {
            reach.ends(outcome.clone());
        }
        self.stage.send_modify(|stage| stage.over = outcome.err());
    }

    /// Takes over what an earlier spool left in the cache.
    async fn resume(&mut self, job: &Job) -> Result<()> {
        let Some(version) = self.order.begun.clone() else {
            return Ok(());
        };
        let validator = version.validator.clone();
        let generation = self
            .on_disk(job, move |readers, order, job| {
                Ok(Generation::sized(readers, order, job, version))
            })
            .await?;
        let landed = generation.landed();
        let unusable = generation.broken().is_some();
        let kept = (landed * BLOCK_SIZE).min(validator.size);
        if kept == 0 || unusable {
            return Ok(());
        }
        let head = Head {
            from: 0,
            total: Some(validator.size),
            etag: validator.etag,
            last_modified: validator.last_modified,
        };
        self.course = Course::resumed(kept, head);
        self.block = landed;
        self.flow(&generation);
        self.generation = Some(generation);
        Ok(())
    }

    /// Reads the link of one job to the file's end.
    async fn read_link(&mut self, job: &Job) -> Result<()> {
        let mut download = self.order.fetcher.download(Arc::clone(&job.links));
        self.job = Some(job.clone());
        loop {
            let broken = match download.ask(&self.course.ask()).await {
                Ok(answer) => match self.receive(job, answer).await? {
                    true => match self.read(&mut download).await {
                        Err(error) if error.kind() == Kind::Unreachable => error,
                        outcome => return outcome,
                    },
                    false => useless(),
                },
                Err(error) if error.kind() == Kind::Changed => useless(),
                Err(error) => return Err(error),
            };
            if !self.course.broken() {
                let bytes = self.course.kept();
                return Err(broken.context(format!("gave up after {bytes} bytes")));
            }
            download.broken(broken).await?;
        }
    }

    /// Finds out what an answer is good for; whether its body is to be read.
    async fn receive(&mut self, job: &Job, answer: Answer) -> Result<bool> {
        match self.course.answered(&answer.head) {
            Reception::Useless => return Ok(false),
            Reception::Continued => {}
            Reception::Compared => {
                self.rewind();
                self.answer = Some(answer);
            }
            Reception::Begun => {
                self.rewind();
                self.begin(job, &answer).await?;
                self.answer = Some(answer);
            }
        }
        if let Some(generation) = &mut self.generation
            && let Some((version, _)) = &mut generation.version
            && version.task_id != job.task_id
        {
            version.task_id.clone_from(&job.task_id);
            self.order.jobs.remember(version.clone()).await;
        }
        self.publish();
        Ok(true)
    }

    /// The next byte is the first of the file.
    fn rewind(&mut self) {
        self.block = 0;
        self.slab = None;
    }

    /// Begins a generation that has nothing of the one before.
    async fn begin(&mut self, job: &Job, answer: &Answer) -> Result<()> {
        if let Some(before) = self.generation.take() {
            self.supersede(&before);
            let (cache, key) = (self.readers.cache.clone(), self.order.key.clone());
            if let Some((version, _)) = before.version {
                let forget = move || cache.forget(&key, &version.validator);
                let _done = tokio::task::spawn_blocking(forget).await;
            }
        }
        let size = answer.head.total;
        let version = size.map(|size| generation::version(answer, &job.task_id, size));
        let version = version.transpose()?;
        // Remembered before it is refused for its size, so that no other job is made to learn that.
        if let Some(version) = &version {
            self.order.jobs.remember(version.clone()).await;
        }
        self.readers.cache.room_for(size.unwrap_or(STEP), None)?;
        let generation = self
            .on_disk(job, move |readers, order, job| {
                Ok(match version {
                    Some(version) => Generation::sized(readers, order, job, version),
                    None => Generation::unsealed(&readers.cache, &order.key),
                })
            })
            .await?;
        self.flow(&generation);
        self.generation = Some(generation);
        Ok(())
    }

    /// The generation is over, and the next one begins with its first `blocks` blocks.
    async fn succeed(&mut self, blocks: u64) -> Result<()> {
        let (Some(before), Some(answer), Some(job)) =
            (self.generation.take(), &self.answer, self.job.clone())
        else {
            return Err(Error::new(Kind::Internal, "there is nothing to succeed"));
        };
        self.supersede(&before);
        let cache = &self.readers.cache;
        let size = self.course.size();
        let needed = size.unwrap_or(blocks * BLOCK_SIZE + STEP);
        let version = size.map(|size| generation::version(answer, &job.task_id, size));
        let version = version.transpose()?;
        cache.room_for(needed, Some(&before.cached))?;
        self.flush().await;
        let heir = version.clone();
        let generation = self
            .on_disk(&job, move |readers, order, job| {
                before.succeeded(blocks, readers, order, job, heir)
            })
            .await?;
        if let Some(version) = version {
            self.order.jobs.remember(version).await;
        }
        self.flow(&generation);
        self.generation = Some(generation);
        self.publish();
        Ok(())
    }

    /// Ends a generation: whoever opens the file from now on waits for the next one.
    fn supersede(&self, generation: &Generation) {
        // Before its readers hear of it: they may open the file again at once.
        self.stage.send_modify(|stage| stage.opening = None);
        generation.condemn();
    }

    /// Runs disk work off the threads that serve others.
    async fn on_disk(
        &self,
        job: &Job,
        work: impl FnOnce(&Readers, &Order, &Job) -> Result<Generation> + Send + 'static,
    ) -> Result<Generation> {
        let (readers, order, job) = (self.readers.clone(), Arc::clone(&self.order), job.clone());
        let work = move || work(&readers, &order, &job);
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "work on the cache panicked")))
    }

    /// Lets readers of `generation` wait for what it has not yet.
    fn flow(&self, generation: &Generation) {
        if let Some((_, artifact)) = &generation.version
            && let Some(reach) = artifact.reach()
        {
            reach.flows(generation.landed());
        }
    }

    /// Tells what can be opened.
    fn publish(&self) {
        let opening = self.generation.as_ref().and_then(Generation::opening);
        let bytes = self.course.kept();
        self.stage.send_modify(|stage| {
            stage.opening = opening;
            stage.bytes = bytes;
        });
    }

    /// Reads the body to its end. [`Kind::Unreachable`] when it broke off.
    async fn read(&mut self, download: &mut Download) -> Result<()> {
        while let Some(chunk) = download.next().await? {
            self.course.received(chunk.len() as u64);
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let len = self.block_len();
                let slab = self.slab().await?;
                let missing = len - slab.pending();
                let (taken, after) = rest.split_at(missing.min(rest.len()));
                slab.append(taken);
                rest = after;
                let is_whole = slab.pending() == len;
                let end = self.block * BLOCK_SIZE + len as u64;
                if is_whole && !self.course.is_suspense(end) {
                    self.land().await?;
                }
            }
        }
        let pending = self.slab.as_ref().map_or(0, |(slab, _)| slab.pending());
        match self.course.ended(pending as u64) {
            End::Early => {
                let words = "the server ended the body too early";
                return Err(Error::new(Kind::Unreachable, words));
            }
            End::Expected => {}
            End::Told => self.succeed(self.block).await?,
        }
        if pending > 0 {
            self.land().await?;
        }
        // What is lost by a crash now would have to be paid for again.
        self.flush().await;
        match &self.generation {
            Some(generation) if generation.cached.is_complete() => Ok(()),
            _ => Err(self.refused()),
        }
    }

    /// Has what was kept put on the disk. Should that hang, it is not there, and that is found out.
    async fn flush(&self) {
        let _in_time = tokio::time::timeout(FLUSH, self.readers.cache.flush()).await;
    }

    /// Bytes of the block being filled, as far as the stream tells.
    fn block_len(&self) -> usize {
        let start = self.block * BLOCK_SIZE;
        let total = self.course.head().and_then(|head| head.total);
        // Less than a block fits any length in memory.
        total.map_or(BLOCK_SIZE, |total| (total - start).min(BLOCK_SIZE)) as usize
    }

    /// Memory for the block being filled.
    async fn slab(&mut self) -> Result<&mut Slab> {
        let usable = |(slab, _): &(Slab, Reservation)| slab.room() > 0 || slab.pending() > 0;
        let (slab, memory) = match self.slab.take().filter(usable) {
            Some(it) => it,
            None => {
                let start = self.block * BLOCK_SIZE;
                let total = self.course.head().and_then(|head| head.total);
                let left = total.map_or(SLAB_SIZE, |total| total - start);
                let len = left.min(SLAB_SIZE - start % SLAB_SIZE);
                let generation = self.generation.as_ref().ok_or_else(nowhere)?;
                let cached = Arc::clone(&generation.cached);
                let budget = &self.readers.budget;
                let memory = cached.reserve(budget, len).await;
                (cached.slab(len), memory)
            }
        };
        Ok(&mut self.slab.insert((slab, memory)).0)
    }

    /// The block being filled is whole.
    async fn land(&mut self) -> Result<()> {
        let Some((slab, memory)) = &mut self.slab else {
            return Err(nowhere());
        };
        let piece = slab.split();
        let len = piece.len() as u64;
        let memory = memory.split(len);
        let (block, start) = (self.block, self.block * BLOCK_SIZE);
        let known = self.course.is_known(start, len);
        let equal = known && self.is_kept(block, piece.clone()).await?;
        match self.course.placed(start, len, equal) {
            Fate::Known => {
                self.block += 1;
                return Ok(());
            }
            Fate::Kept => {}
            Fate::Replaced => self.succeed(block).await?,
        }
        let generation = self.generation.as_ref().ok_or_else(nowhere)?;
        if let Some(broken) = generation.broken() {
            return Err(broken);
        }
        if generation.version.is_none() && start.is_multiple_of(STEP) {
            let cached = Some(&generation.cached);
            self.readers.cache.room_for(start + STEP, cached)?;
        }
        if generation.cached.write(block, piece, memory).is_err() {
            return Err(self.refused());
        }
        self.block += 1;
        if let Some((_, artifact)) = &generation.version
            && let Some(reach) = artifact.reach()
        {
            reach.advance(self.block);
        }
        let bytes = self.course.kept();
        self.stage.send_modify(|stage| stage.bytes = bytes);
        Ok(())
    }

    /// Whether the present generation has `piece` as `block`.
    async fn is_kept(&self, block: u64, piece: Piece) -> Result<bool> {
        let generation = self.generation.as_ref().ok_or_else(nowhere)?;
        let cached = Arc::clone(&generation.cached);
        let same = move || cached.read(block).is_some_and(|kept| kept[..] == piece[..]);
        let compared = tokio::task::spawn_blocking(same).await;
        compared.map_err(|_| Error::new(Kind::Internal, "work on the cache panicked"))
    }

    /// The cache did not take or did not keep a block.
    fn refused(&self) -> Error {
        if let Some(broken) = self.generation.as_ref().and_then(Generation::broken) {
            return broken;
        }
        let needed = self.course.size().unwrap_or(self.course.kept() + STEP);
        let own = self.generation.as_ref().map(|it| &it.cached);
        let room = self.readers.cache.room_for(needed, own);
        room.err().unwrap_or_else(|| {
            Error::new(
                Kind::Cache,
                "the cache lost a part of a download that cannot be fetched again: is its disk full, \
                 or cache_size too small? open the file again once that is mended",
            )
        })
    }
}

fn useless() -> Error {
    Error::new(
        Kind::Unreachable,
        "the server does not prove that the rest it has is of the same file",
    )
}

fn nowhere() -> Error {
    Error::new(Kind::Internal, "a spool has nowhere to put its bytes")
}
