//! What the bytes of one download go into: a version that can be read while it grows, or, as long as
//! nobody knows its length, blocks that become one at the end.

use std::sync::Arc;

use super::{Job, Opening, Order, Version};
use crate::cache::{BLOCK_SIZE, Cache, CachedArtifact, Kept, UNSEALED};
use crate::error::{Error, Kind, Result};
use crate::fetch::{Answer, fresh_name};
use crate::model::{ArtifactKey, Validator};
use crate::reader::{Artifact, ArtifactSpec, Readers};

/// The name of a download whose length is not known. Nothing of it outlives the process.
const UNNAMED: &str = "unsealed";

/// What one download brings.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) cached: Arc<CachedArtifact>,
    /// Once its length is known.
    pub(super) version: Option<(Version, Arc<Artifact>)>,
    _kept: Kept,
}

impl Generation {
    /// One of a known length, as far as it is in the cache.
    pub(super) fn sized(readers: &Readers, order: &Order, job: &Job, version: Version) -> Self {
        let artifact = readers.artifact(ArtifactSpec {
            key: order.key.clone(),
            validator: version.validator.clone(),
            links: Arc::clone(&job.links),
            fetcher: order.fetcher.clone(),
        });
        let cached = Arc::clone(artifact.cached());
        Generation {
            _kept: cached.keep(),
            cached,
            version: Some((version, artifact)),
        }
    }

    /// One of which nobody knows the length yet, and with nothing in it.
    pub(super) fn unsealed(cache: &Cache, key: &ArtifactKey) -> Self {
        let validator = unsealed();
        cache.forget(key, &validator);
        Self::growing(cache.artifact(key, &validator))
    }

    fn growing(cached: Arc<CachedArtifact>) -> Self {
        Generation {
            _kept: cached.keep(),
            cached,
            version: None,
        }
    }

    /// The generation that has the first `blocks` blocks of this one, which is over: of this version,
    /// or of an unknown length. What is in the cache must be on its disk.
    pub(super) fn succeeded(
        &self,
        blocks: u64,
        readers: &Readers,
        order: &Order,
        job: &Job,
        version: Option<Version>,
    ) -> Result<Self> {
        let cache = &readers.cache;
        let validator = match &version {
            Some(version) => version.validator.clone(),
            None => unsealed(),
        };
        let heir = cache.inherit(&self.cached, blocks, &order.key, &validator)?;
        Ok(match version {
            // Opened while the heir is held: nothing is read from the disk again.
            Some(version) => Self::sized(readers, order, job, version),
            None => Self::growing(heir),
        })
    }

    /// Blocks that have come without a gap.
    pub(super) fn landed(&self) -> u64 {
        let blocks = match &self.version {
            Some((version, _)) => version.validator.size.div_ceil(BLOCK_SIZE),
            None => UNSEALED / BLOCK_SIZE,
        };
        let missing = (0..blocks).find(|block| !self.cached.has(*block));
        missing.unwrap_or(blocks)
    }

    /// How it is opened, if it can be.
    pub(super) fn opening(&self) -> Option<Opening> {
        let (version, artifact) = self.version.as_ref()?;
        Some(Opening {
            validator: version.validator.clone(),
            task_id: version.task_id.clone(),
            artifact: Arc::clone(artifact),
        })
    }

    /// Why its readers cannot go on, if one of them found out.
    pub(super) fn broken(&self) -> Option<Error> {
        let (_, artifact) = self.version.as_ref()?;
        artifact.broken().map(Error::duplicate)
    }

    /// Another download took its place: whoever reads it is told so.
    pub(super) fn condemn(&self) {
        let Some((_, artifact)) = &self.version else {
            return;
        };
        let why = Error::new(
            Kind::Changed,
            "the download broke off, and the one that took its place has other bytes; open the file \
             again to read that one",
        );
        artifact.condemn(why.duplicate());
        if let Some(reach) = artifact.reach() {
            reach.ends(Err(Arc::new(why)));
        }
    }
}

/// The version of `size` bytes that `answer` begins.
pub(super) fn version(answer: &Answer, task_id: &str, size: u64) -> Result<Version> {
    Ok(Version {
        validator: Validator {
            etag: answer.head.etag.clone(),
            last_modified: answer.head.last_modified.clone(),
            size,
            download: Some(fresh_name()?),
        },
        task_id: task_id.to_owned(),
        source_name: answer.source_name.clone(),
        digest: answer.digest.clone(),
    })
}

fn unsealed() -> Validator {
    Validator {
        etag: None,
        last_modified: None,
        size: UNSEALED,
        download: Some(UNNAMED.to_owned()),
    }
}
