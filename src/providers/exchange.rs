//! An account that can be exchanged for the same one with other credentials while files are open.
//!
//! [`Exchange`] passes every call on to the provider that stands behind it at that moment; a call
//! that has begun ends with the one it began with. One lock, never held across an await.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Provider, Step};
use crate::error::Result;
use crate::model::{Backup, Found, Instance, Link, RemoteFile, ShardRef, Task};

/// A provider behind which another may step.
#[derive(Debug)]
pub struct Exchange {
    current: RwLock<Arc<dyn Provider>>,
}

impl Exchange {
    /// With `provider` behind it.
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Exchange {
            current: RwLock::new(provider),
        }
    }

    /// From now on `provider` is asked.
    pub fn replace(&self, provider: Arc<dyn Provider>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = provider;
    }

    fn current(&self) -> Arc<dyn Provider> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }
}

#[async_trait]
impl Provider for Exchange {
    async fn instances(&self) -> Result<Vec<Instance>> {
        self.current().instances().await
    }

    async fn backups(&self, of: &Instance) -> Result<Vec<Backup>> {
        self.current().backups(of).await
    }

    async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>> {
        self.current().files(of).await
    }

    async fn find_task(&self, of: &ShardRef) -> Result<Found> {
        self.current().find_task(of).await
    }

    async fn create_task(&self, of: &ShardRef) -> Result<Task> {
        self.current().create_task(of).await
    }

    async fn poll_task(&self, of: &ShardRef, task: &Task) -> Result<Task> {
        self.current().poll_task(of, task).await
    }

    async fn link(&self, of: &ShardRef, file: &RemoteFile, task: Option<&Task>) -> Result<Link> {
        self.current().link(of, file, task).await
    }

    fn lane(&self, of: &ShardRef) -> Option<String> {
        self.current().lane(of)
    }

    fn ends_with_link(&self) -> bool {
        self.current().ends_with_link()
    }

    fn price(&self, of: &ShardRef) -> Option<&'static str> {
        self.current().price(of)
    }

    fn recreations(&self) -> u32 {
        self.current().recreations()
    }

    fn permission(&self, step: Step) -> Option<&'static str> {
        self.current().permission(step)
    }

    fn cloud_time(&self) -> Option<Timestamp> {
        self.current().cloud_time()
    }

    fn refusal_hint(&self) -> Option<&'static str> {
        self.current().refusal_hint()
    }
}
