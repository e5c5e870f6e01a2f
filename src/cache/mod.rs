//! The durable, verified block cache: may be lost at any time, is never believed without proof.
//!
//! [`store`] holds one sparse file and one block map per artifact version, [`evict`] keeps the
//! total below its limit, [`memory`] is the process-wide budget in bytes.

pub mod evict;
pub mod memory;
pub mod store;

pub use memory::{Budget, Reservation};
pub use store::{BLOCK_SIZE, Cache, CachedArtifact};
