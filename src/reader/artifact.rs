//! One open artifact version: single-flight blocks for all its readers.

/// A pinned version being read.
#[derive(Debug)]
pub struct Artifact {}

impl Artifact {
    /// Bytes fetched from the network since it was opened.
    pub fn fetched_bytes(&self) -> u64 {
        todo!()
    }

    /// Bytes cached on disk.
    pub fn cached_bytes(&self) -> u64 {
        todo!()
    }
}
