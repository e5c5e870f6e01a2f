//! Sparse file plus durable block map per artifact version, CRC32C per block.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::memory::Reservation;
use crate::error::Result;
use crate::model::{ArtifactKey, Validator};

/// Unit of fetching, verification and presence: 128 KiB. The last block of a file may be shorter.
pub const BLOCK_SIZE: u64 = 128 * 1024;

/// The cache directory, locked against a second process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache {}

impl Cache {
    /// Opens or creates `dir` (0700) and locks it; `limit` is `cache_size` in bytes.
    pub fn open(_dir: &Path, _limit: u64) -> Result<Self> {
        todo!()
    }

    /// The cached blocks of this version. Failures of the disk are not the reader's: a cache that
    /// cannot store answers misses.
    pub fn artifact(&self, _key: &ArtifactKey, _validator: &Validator) -> Arc<CachedArtifact> {
        todo!()
    }

    /// Bytes of `key` at this version on disk, without opening it for long; 0 when none.
    pub fn cached_bytes(&self, _key: &ArtifactKey, _validator: &Validator) -> u64 {
        todo!()
    }

    /// Bytes in the whole cache.
    pub fn used(&self) -> u64 {
        todo!()
    }

    /// Makes everything accepted so far durable.
    pub async fn flush(&self) {
        todo!()
    }
}

/// One artifact version on disk; pinned against eviction while it is alive.
#[derive(Debug)]
pub struct CachedArtifact {}

impl CachedArtifact {
    /// Whether `block` is present (not yet verified in this call).
    pub fn has(&self, _block: u64) -> bool {
        todo!()
    }

    /// The verified content of `block`; `None` is a miss, also when the disk holds damaged bytes
    /// (then they are forgotten). Blocks on disk I/O.
    pub fn read(&self, _block: u64) -> Option<Bytes> {
        todo!()
    }

    /// The verified bytes of `range` (within the file), assembled from its blocks with as few
    /// reads as possible; `None` if any block is missing or damaged (then it is forgotten).
    pub fn read_range(&self, _range: &Range<u64>) -> Option<Bytes> {
        todo!()
    }

    /// Accepts `data` as the content of `block`: readable at once (from memory), written behind,
    /// present on disk when durable. `memory` accounts for `data` and is released when the cache
    /// no longer holds it in memory. A cache that cannot store now (degraded, no space) gives
    /// `memory` back and the caller keeps the block itself.
    pub fn write(
        &self,
        _block: u64,
        _data: Bytes,
        _memory: Reservation,
    ) -> Result<(), Reservation> {
        todo!()
    }

    /// Bytes present.
    pub fn cached_bytes(&self) -> u64 {
        todo!()
    }

    /// Whether every block is present.
    pub fn is_complete(&self) -> bool {
        todo!()
    }
}
