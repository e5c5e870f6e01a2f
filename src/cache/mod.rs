//! The durable, verified block cache: may be lost at any time, is never believed without proof.
//!
//! One sparse data file and one block map per artifact version (`files`, `map`, `extents`,
//! `artifact`) lie in a directory that belongs to one process (`directory`). Blocks are accepted
//! into memory (`artifact`, `backlog`), written (`writer`), made durable and only then entered in
//! the map (`syncer`), each by way of `persist`. `evict` and `index` keep the total below its limit,
//! `scan` finds out what an earlier run left (`footprint`), `health` keeps a sick disk away from
//! readers. `prove` verifies whole artifacts in the background, `lend` gives their files to the
//! kernel. `inherit` and `room` are for downloads that come only once; [`survey`] is what operators
//! see and do without a mount. [`memory`] is the process-wide budget in bytes, [`slab`] the memory
//! that blocks lie in.

mod artifact;
mod backlog;
mod directory;
mod evict;
mod examine;
mod extents;
mod files;
mod footprint;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod identity;
mod index;
mod inherit;
mod lend;
mod map;
pub mod memory;
mod persist;
mod prove;
mod room;
mod scan;
pub mod slab;
mod store;
mod survey;
mod syncer;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use artifact::CachedArtifact;
pub use examine::{Examined, examine};
pub use identity::UNSEALED;
pub use lend::{Kept, Lent};
pub use memory::{Budget, Reservation};
pub use slab::{Piece, SLAB_SIZE, Slab};
pub use store::{BLOCK_SIZE, Cache, CacheStats};
pub use survey::{Damage, Entry, Place, Survey, purge, survey, verify};

/// Locks, also after a panic elsewhere: every critical section here leaves the state whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
