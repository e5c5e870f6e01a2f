//! Whether a file that must be kept whole can be kept: one whose bytes come only once.

use std::sync::Arc;

use super::artifact::CachedArtifact;
use super::lock;
use super::store::{BLOCK_SIZE, Cache};
use crate::error::{Error, Kind, Result};

/// What the map takes, per byte of data, and some more.
const MAP_SHARE: u64 = BLOCK_SIZE / 16;
/// The least that is left beside the data.
const MARGIN: u64 = 64 << 10;

impl Cache {
    /// Whether `size` bytes can be kept until their last reader is gone, beside all else that must
    /// be kept; `own` is what is there of them already.
    ///
    /// # Errors
    /// [`Kind::Cache`], which says what to change.
    pub fn room_for(&self, size: u64, own: Option<&Arc<CachedArtifact>>) -> Result<()> {
        let core = self.core();
        let refusal = |words: String| Err(Error::new(Kind::Cache, words));
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        if !core.accepts() {
            return refusal(
                "the cache takes nothing now (its disk fails, or cache_size is next to nothing), and \
                 a link that works only once must be read into it"
                    .into(),
            );
        }
        let needed = size.saturating_add(size / MAP_SHARE).saturating_add(MARGIN);
        if needed > core.limit {
            return refusal(format!(
                "cache_size is too small: a link that works only once is read into the cache, which \
                 needs {} MiB for this file and may have {} MiB; set cache_size to more and mount \
                 again",
                mebibytes(needed),
                mebibytes(core.limit)
            ));
        }
        let held = lock(&core.index).held();
        let (mut promised, mut present) = (0_u64, 0_u64);
        for other in &held {
            if own.is_some_and(|own| Arc::ptr_eq(own, other)) {
                continue;
            }
            let (kept, bytes) = {
                let state = lock(&other.state);
                (state.kept > 0, state.extents.bytes())
            };
            if kept {
                let whole = match other.identity.is_unsealed() {
                    true => bytes,
                    false => other.geometry.size,
                };
                promised = promised.saturating_add(whole);
                present = present.saturating_add(bytes);
            }
        }
        drop(held);
        if needed.saturating_add(promised) > core.limit {
            return refusal(format!(
                "cache_size is too small for all files that are open now: {} MiB of it are taken, \
                 and this one needs {} MiB; close some, or set cache_size to more and mount again",
                mebibytes(promised),
                mebibytes(needed)
            ));
        }
        let Ok(space) = core.directory.space() else {
            return Ok(());
        };
        let evictable = self.used().saturating_sub(present);
        let free = space
            .available
            .saturating_sub((core.floor)(space.total))
            .saturating_add(evictable)
            .saturating_sub(promised.saturating_sub(present));
        match needed <= free {
            true => Ok(()),
            false => refusal(format!(
                "the disk of the cache is too full: a link that works only once is read into the \
                 cache, this file needs {} MiB there, and {} MiB can be had; free some, or put \
                 cache_dir on a larger disk (cache_size is {} MiB)",
                mebibytes(needed),
                mebibytes(free),
                mebibytes(core.limit)
            )),
        }
    }
}
