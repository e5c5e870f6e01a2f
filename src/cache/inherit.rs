//! A version that takes over what another one has: its first blocks, without copying them.
//!
//! So a download whose length was not known becomes a file of the length it turned out to have, and
//! one that replaces another keeps what was found equal in both. The other version ends thereby.

use std::io;
use std::sync::Arc;

use super::artifact::CachedArtifact;
use super::files;
use super::footprint::{self, Footprint};
use super::identity::Identity;
use super::lock;
use super::store::Cache;
use crate::error::{Error, Kind, Result};
use crate::model::{ArtifactKey, Validator};

impl Cache {
    /// Makes the first `blocks` blocks of `from` those of `key` at `validator`, which begins with
    /// them and has nothing else. Whoever holds `from` reads misses from now on.
    ///
    /// Only what is on disk can be handed on: [`Cache::flush`] comes before. Blocks on disk I/O.
    ///
    /// # Errors
    /// [`Kind::Cache`] when one of the blocks is not there, or the disk fails: `from` is then of no
    /// use any more either.
    pub fn inherit(
        &self,
        from: &Arc<CachedArtifact>,
        blocks: u64,
        key: &ArtifactKey,
        validator: &Validator,
    ) -> Result<Arc<CachedArtifact>> {
        let core = self.core();
        let handed = self.hand_on(from, blocks, &Identity::of(key, validator));
        from.refuse();
        if let Err(error) = handed {
            let words = "the cache lost a part of a download that cannot be fetched again";
            core.health.failed("handing blocks on", &error);
            return Err(Error::new(Kind::Cache, words).with_source(error));
        }
        let heir = self.artifact(key, validator);
        if let Err(error) = heir.sync_names() {
            core.health.failed("syncing", error);
        }
        Ok(heir)
    }

    fn hand_on(&self, from: &CachedArtifact, blocks: u64, heir: &Identity) -> io::Result<()> {
        let core = self.core();
        let lost = || io::Error::other("not every block reached the disk");
        let crcs: Option<Vec<u32>> = {
            let state = lock(&from.state);
            (0..blocks).map(|block| state.extents.crc(block)).collect()
        };
        let crcs = crcs.ok_or_else(lost)?;
        let name = heir.name();
        let mut index = lock(&core.index);
        if !index.is_holder(&from.name, from.number) {
            return Err(lost());
        }
        index.remove(&from.name);
        index.remove(&name);
        if crcs.is_empty() {
            files::retire(&core.directory, &from.name)?;
            drop(index);
            return files::sweep(&core.directory, &from.name);
        }
        files::inherit(&core.directory, &from.name, heir, &crcs)?;
        let footprint = footprint::of(&core.directory, &name)?;
        let footprint = footprint.unwrap_or(Footprint {
            disk: 0,
            used: 0,
            is_dear: heir.is_dear,
        });
        index.found(name, footprint);
        Ok(())
    }
}
