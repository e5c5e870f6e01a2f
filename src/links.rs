//! One live link per artifact: renewed ahead of expiry and on reject, single-flight.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::clock::SharedClock;
use crate::error::Result;
use crate::model::{Link, RemoteFile, ShardRef, Task};
use crate::providers::Provider;

/// Where fresh links come from.
#[async_trait]
pub trait LinkSource: fmt::Debug + Send + Sync + 'static {
    /// Asks the provider for a link.
    async fn fresh(&self) -> Result<Link>;
}

/// The usual source: a provider's file and its task.
#[derive(Debug)]
pub struct ProviderLinks {
    /// The account.
    pub provider: Arc<dyn Provider>,
    /// The shard.
    pub target: ShardRef,
    /// The file.
    pub file: RemoteFile,
    /// Its task, unless the file is an object.
    pub task: Option<Task>,
}

#[async_trait]
impl LinkSource for ProviderLinks {
    async fn fresh(&self) -> Result<Link> {
        self.provider
            .link(&self.target, &self.file, self.task.as_ref())
            .await
    }
}

/// A link in use. `generation` grows with each refresh.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The link.
    pub link: Arc<Link>,
    /// Which refresh brought it.
    pub generation: u64,
}

/// The live link of one artifact, shared by all its readers.
#[derive(Debug)]
pub struct Links {}

impl Links {
    /// Asks nothing yet.
    pub fn new(_source: impl LinkSource, _clock: SharedClock) -> Self {
        todo!()
    }

    /// A link that is expected to work: the current one, or a fresh one shortly before its expiry.
    /// Concurrent callers share one refresh; cancel-safe.
    pub async fn lease(&self) -> Result<Lease> {
        todo!()
    }

    /// `refused` did not work. Returns a newer link, refreshing at most once for all ranges that
    /// met the same refusal. A link refused again straight after its refresh is an error:
    /// `Expired` when the provider has nothing newer and its time is over, else `Credentials`.
    pub async fn refused(&self, _refused: &Lease) -> Result<Lease> {
        todo!()
    }

    /// When the current link expires, where known.
    pub fn expires(&self) -> Option<Timestamp> {
        todo!()
    }

    /// How many times a link was asked for again (the first one not counted).
    pub fn refreshes(&self) -> u64 {
        todo!()
    }
}
