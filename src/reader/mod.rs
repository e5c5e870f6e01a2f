//! Open files: pinned artifact versions, shared fetches, read-ahead.

pub mod artifact;
pub mod window;

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{Budget, Cache};
use crate::error::Result;
use crate::fetch::Fetcher;
use crate::links::Links;
use crate::model::{ArtifactKey, Validator};

pub use artifact::Artifact;

/// What to open.
#[derive(Debug)]
pub struct ArtifactSpec {
    /// Which file.
    pub key: ArtifactKey,
    /// Which version.
    pub validator: Validator,
    /// Its live link.
    pub links: Arc<Links>,
    /// The account's data client.
    pub fetcher: Fetcher,
}

/// All open artifacts: two opens of one version share fetches and blocks.
#[derive(Debug, Clone)]
pub struct Readers {}

impl Readers {
    /// Readers on `cache` within `budget`.
    pub fn new(_cache: Cache, _budget: Budget) -> Self {
        todo!()
    }

    /// Opens a version; one already open is shared (and keeps its own links).
    pub fn open(&self, _spec: ArtifactSpec) -> Handle {
        todo!()
    }

    /// The artifact, if some handle has this version open.
    pub fn opened(&self, _key: &ArtifactKey, _validator: &Validator) -> Option<Arc<Artifact>> {
        todo!()
    }
}

/// One open file.
#[derive(Debug)]
pub struct Handle {}

impl Handle {
    /// The pinned version's size in bytes.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// The artifact behind it.
    pub fn artifact(&self) -> &Arc<Artifact> {
        todo!()
    }

    /// Serves `len` bytes at `offset` if they are at hand without waiting for the network.
    pub fn read_now(&self, _offset: u64, _len: u32) -> Option<Result<Bytes>> {
        todo!()
    }

    /// Serves `len` bytes at `offset`: short only at the end of the file. Cancel-safe: fetches
    /// under way go on for other readers.
    pub async fn read(&self, _offset: u64, _len: u32) -> Result<Bytes> {
        todo!()
    }
}
