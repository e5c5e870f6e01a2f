//! Whether a directory can hold the cache, found out without making one there.

use std::path::Path;

use super::directory::{Directory, can_punch, examine_root, trouble};
use super::survey;
use crate::error::Result;

/// A directory that can hold the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examined {
    /// Bytes that are free on its filesystem.
    pub free: u64,
    /// Bytes that the cache takes already.
    pub used: u64,
    /// Whether files there can have holes.
    pub sparse: bool,
    /// The process that has the cache.
    pub owner: Option<u32>,
}

/// Looks at `dir`, or at where it would be made. Leaves nothing behind.
///
/// # Errors
/// [`crate::error::Kind::Environment`] when it is not private, not a directory, or cannot be written.
pub fn examine(dir: &Path) -> Result<Examined> {
    examine_root(dir)?;
    let place = dir.ancestors().find(|place| place.is_dir());
    let place = place.unwrap_or(Path::new("/"));
    let failed = |error| trouble(dir, "write to", error);
    // It has no name, or loses it at once.
    let probe = tempfile::tempfile_in(place).map_err(failed)?;
    let space = rustix::fs::fstatvfs(&probe).map_err(|error| failed(error.into()))?;
    Ok(Examined {
        free: space.f_bavail.saturating_mul(space.f_frsize),
        used: survey::survey(dir)?.map_or(0, |found| found.used),
        sparse: can_punch(&probe.into()).map_err(failed)?,
        owner: Directory::look(dir)?.and_then(|directory| directory.owner()),
    })
}
