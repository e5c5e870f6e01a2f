//! The clouds. [`Provider`] is all the rest of the house knows about any of them.

pub mod aliyun;
pub mod atlas;
pub mod bucket;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hex;
pub mod http;
mod mac;
pub mod objects;
mod presigned;
pub mod tencent;
pub mod ucloud;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

pub use exchange::Exchange;

use crate::clock::SharedClock;
use crate::config::{ProviderConfig, ProviderKind};
use crate::error::Result;
use crate::model::{Backup, Found, Instance, Link, RemoteFile, ShardRef, Task};

/// What an account is asked for, as far as permissions tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Listing instances.
    Instances,
    /// Listing backups and their files.
    Backups,
    /// Looking for download tasks.
    FindTask,
    /// Making a download task.
    Create,
    /// Making a link.
    Link,
}

impl Step {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Step::Instances => "listing instances",
            Step::Backups => "listing backups",
            Step::FindTask => "listing download tasks",
            Step::Create => "making a download task",
            Step::Link => "making a link",
        }
    }
}

/// One account at one cloud.
///
/// Every method but [`Provider::create_task`] is free and idempotent; implementations retry passing
/// failures within the configured budget and answer [`Kind::Credentials`], [`Kind::NotFound`] and
/// so on by the provider's own error codes. Dropping a returned future must be harmless.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// All instances of the account. A partial list is an error, never an answer.
    async fn instances(&self) -> Result<Vec<Instance>>;

    /// The backups of `of` that finished, each with its shards, in any order.
    async fn backups(&self, of: &Instance) -> Result<Vec<Backup>>;

    /// The files of a shard. Must not create anything.
    async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>>;

    /// The task to adopt for `of`, if there is one: asked before every create.
    async fn find_task(&self, of: &ShardRef) -> Result<Found>;

    /// Creates a download task: the only call that can cost money. Never retried once the request
    /// may have had an effect: then the error is [`Kind::OutcomeUnknown`], and any other one
    /// ([`Kind::Unreachable`], say) means that it surely had none.
    async fn create_task(&self, of: &ShardRef) -> Result<Task>;

    /// Where `task` stands now. [`Kind::NotFound`] when the provider does not know it (any more, or
    /// not yet): that is believed when it says so again and again.
    async fn poll_task(&self, of: &ShardRef, task: &Task) -> Result<Task>;

    /// A fresh link to `file`. [`Kind::Expired`] when the artifact is gone, [`Kind::NotFound`] when a
    /// complete listing no longer has its backup.
    async fn link(&self, of: &ShardRef, file: &RemoteFile, task: Option<&Task>) -> Result<Link>;

    /// What makes one download task at a time, so that openers queue for it (an instance's id);
    /// `None` where tasks do not exclude each other.
    fn lane(&self, of: &ShardRef) -> Option<String> {
        let _ = of;
        None
    }

    /// Whether what a task made is deleted when the link to it ends.
    fn ends_with_link(&self) -> bool {
        false
    }

    /// What a task of `of` costs, in words that follow "would be created,"; `None` where that is
    /// not known.
    fn price(&self, of: &ShardRef) -> Option<&'static str> {
        let _ = of;
        None
    }

    /// How many tasks may follow at once one that failed, before its opener hears of it.
    fn recreations(&self) -> u32 {
        0
    }

    /// What the account must be allowed to do for `step`, as the cloud's console names it.
    fn permission(&self, step: Step) -> Option<&'static str> {
        let _ = step;
        None
    }

    /// The time by the cloud's clock, as its answers have shown it, to within seconds.
    fn cloud_time(&self) -> Option<Timestamp> {
        None
    }

    /// Why this cloud's store may refuse even a fresh link, besides what is true of any store.
    fn refusal_hint(&self) -> Option<&'static str> {
        None
    }
}

/// The provider that `config` describes. Asks nothing yet.
pub fn build(config: &ProviderConfig, clock: SharedClock) -> Result<Arc<dyn Provider>> {
    match &config.kind {
        ProviderKind::Atlas(atlas) => Ok(Arc::new(atlas::Atlas::new(config, atlas, clock)?)),
        ProviderKind::Aliyun(aliyun) => Ok(Arc::new(aliyun::Aliyun::new(config, aliyun, clock)?)),
        ProviderKind::Tencent(tencent) => {
            Ok(Arc::new(tencent::Tencent::new(config, tencent, clock)?))
        }
        ProviderKind::Ucloud(ucloud) => Ok(Arc::new(ucloud::Ucloud::new(config, ucloud, clock)?)),
        ProviderKind::Bucket(bucket) => Ok(Arc::new(bucket::Bucket::new(config, bucket, clock)?)),
    }
}
