//! MongoDB Atlas.

use async_trait::async_trait;

use crate::clock::SharedClock;
use crate::config::{AtlasConfig, ProviderConfig};
use crate::error::Result;
use crate::model::{Backup, Found, Instance, Link, RemoteFile, ShardRef, Task};
use crate::providers::Provider;

/// One Atlas project.
#[derive(Debug)]
pub struct Atlas {}

impl Atlas {
    /// An account as configured; asks nothing yet.
    pub fn new(
        _common: &ProviderConfig,
        _config: &AtlasConfig,
        _clock: SharedClock,
    ) -> Result<Self> {
        todo!()
    }
}

#[async_trait]
impl Provider for Atlas {
    async fn instances(&self) -> Result<Vec<Instance>> {
        todo!()
    }
    async fn backups(&self, _of: &Instance) -> Result<Vec<Backup>> {
        todo!()
    }
    async fn files(&self, _of: &ShardRef) -> Result<Vec<RemoteFile>> {
        todo!()
    }
    async fn find_task(&self, _of: &ShardRef) -> Result<Found> {
        todo!()
    }
    async fn create_task(&self, _of: &ShardRef) -> Result<Task> {
        todo!()
    }
    async fn poll_task(&self, _of: &ShardRef, _task: &Task) -> Result<Task> {
        todo!()
    }
    async fn link(&self, _of: &ShardRef, _file: &RemoteFile, _task: Option<&Task>) -> Result<Link> {
        todo!()
    }
}
