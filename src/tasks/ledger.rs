//! The durable memory of tasks and artifacts (SQLite, write-ahead log). No secret, no link.

use std::path::Path;

use crate::error::Result;
use crate::model::{ArtifactKey, Validator};

/// What is remembered of an artifact for ever: its exact size and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactRecord {
    /// The version.
    pub validator: Validator,
    /// The task it came from; empty for objects.
    pub task_id: String,
    /// The provider's own file name.
    pub source_name: Option<String>,
}

/// The open ledger. Cheap to clone; calls block briefly (local SQLite), so async callers go
/// through [`tokio::task::spawn_blocking`] for writes; reads come from memory.
#[derive(Debug, Clone)]
pub struct Ledger {}

impl Ledger {
    /// Opens or creates `state_dir/ledger.sqlite3`; the directory is made 0700.
    pub fn open(_state_dir: &Path) -> Result<Self> {
        todo!()
    }

    /// Opens for reading only, without creating anything; `None` when there is no ledger yet.
    pub fn open_read_only(_state_dir: &Path) -> Result<Option<Self>> {
        todo!()
    }

    /// What is remembered of an artifact; from memory.
    pub fn artifact(&self, _key: &ArtifactKey) -> Option<ArtifactRecord> {
        todo!()
    }

    /// Remembers an artifact durably.
    pub async fn remember_artifact(
        &self,
        _key: &ArtifactKey,
        _record: ArtifactRecord,
    ) -> Result<()> {
        todo!()
    }

    /// Forgets an artifact whose version turned out to be gone.
    pub async fn forget_artifact(&self, _key: &ArtifactKey) -> Result<()> {
        todo!()
    }
}
