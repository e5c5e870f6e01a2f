//! Backups that already lie in an object store or a local directory: nothing is created, opening a
//! file needs a link and nothing else.
//!
//! What folders mean is told by a pattern ([`folders`]) or known of a tool ([`pbm`]); where they are
//! is a [`store`]. Listings are paged, their sizes are exact.

mod folders;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod local;
mod pbm;
mod refusal;
mod remote;
mod requests;
mod store;
mod times;

use async_trait::async_trait;
use jiff::Timestamp;

use self::folders::Folders;
use self::pbm::Pbm;
use self::store::Store;
use crate::clock::SharedClock;
use crate::config::{BucketConfig, Layout, ProviderConfig};
use crate::error::{Error, Kind, Result};
use crate::model::{Backup, Found, Instance, Link, RemoteFile, ShardRef, Task};
use crate::providers::{Provider, Step};

/// One bucket.
#[derive(Debug)]
pub struct Bucket {
    store: Store,
    contents: Contents,
}

/// What its folders mean.
#[derive(Debug)]
enum Contents {
    Folders(Folders),
    Pbm(Pbm),
}

impl Bucket {
    /// A bucket as configured; asks nothing yet.
    pub fn new(common: &ProviderConfig, config: &BucketConfig, clock: SharedClock) -> Result<Self> {
        let name = name(common, config);
        Ok(Bucket {
            store: Store::new(common, config, clock)?,
            contents: match &config.layout {
                Layout::Pbm => Contents::Pbm(Pbm::new(name)),
                Layout::Folders(pattern) => Contents::Folders(Folders::new(pattern.clone(), name)),
            },
        })
    }
}

/// What the bucket is called; a local directory by its last part.
fn name(common: &ProviderConfig, config: &BucketConfig) -> String {
    let directory = common
        .directory()
        .and_then(|path| path.file_name()?.to_str());
    let name = directory
        .or_else(|| config.option("bucket"))
        .or_else(|| config.option("container"));
    name.unwrap_or(&common.name).to_owned()
}

#[async_trait]
impl Provider for Bucket {
    async fn instances(&self) -> Result<Vec<Instance>> {
        match &self.contents {
            Contents::Folders(folders) => folders.instances(&self.store).await,
            Contents::Pbm(pbm) => Ok(pbm.instances()),
        }
    }

    async fn backups(&self, of: &Instance) -> Result<Vec<Backup>> {
        match &self.contents {
            Contents::Folders(folders) => folders.backups(of, &self.store).await,
            Contents::Pbm(pbm) => pbm.backups(&self.store).await,
        }
    }

    async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>> {
        match &self.contents {
            Contents::Folders(folders) => folders.files(of, &self.store).await,
            Contents::Pbm(pbm) => pbm.files(of, &self.store).await,
        }
    }

    async fn find_task(&self, _of: &ShardRef) -> Result<Found> {
        Ok(Found::Nothing)
    }

    async fn create_task(&self, _of: &ShardRef) -> Result<Task> {
        Err(no_tasks())
    }

    async fn poll_task(&self, _of: &ShardRef, _task: &Task) -> Result<Task> {
        Err(no_tasks())
    }

    async fn link(&self, _of: &ShardRef, file: &RemoteFile, _task: Option<&Task>) -> Result<Link> {
        self.store.operation().link(file).await
    }

    fn refusal_hint(&self) -> Option<&'static str> {
        Some("the keys must be allowed to read objects, not only to list them")
    }

    fn permission(&self, step: Step) -> Option<&'static str> {
        match step {
            Step::Instances | Step::Backups => self.store.listing_permission(),
            Step::Link | Step::FindTask | Step::Create => None,
        }
    }

    fn cloud_time(&self) -> Option<Timestamp> {
        self.store.cloud_time()
    }
}

fn no_tasks() -> Error {
    Error::new(Kind::Internal, "a bucket has no download tasks")
}
