//! Alibaba Cloud: ApsaraDB for MongoDB, replica sets and sharded clusters.
//!
//! Three ways lead to the bytes, chosen per backup. Backups of local disks are listed with links of
//! their own. Snapshots of cloud disks are converted by a download task of the service dbs, one per
//! shard: into a file that is kept until the first link to it ends, or for three days when none is
//! asked for; or, where `[provider.oss]` names one, into the account's own bucket.
//!
//! State: how often failed tasks were started again, behind one lock; everything else is in
//! [`client`] and [`convert`].

pub mod actions;
mod bucket;
mod client;
mod conversion;
mod convert;
pub mod fees;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod listing;
mod naming;
mod refusal;
mod shards;
mod sign;
mod tasks;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use self::bucket::Bucket;
use self::client::Client;
use self::naming::Namings;
use crate::clock::SharedClock;
use crate::config::{AliyunConfig, ArchiveFormat, Network, ProviderConfig};
use crate::error::{Error, Kind, Result};
use crate::model::{Backup, Found, Instance, Link, Origin, RemoteFile, ShardRef, Task, TaskState};
use crate::providers::http::Api;
use crate::providers::objects::Keys;
use crate::providers::{Provider, Step};

/// One Alibaba Cloud account.
#[derive(Debug)]
pub struct Aliyun {
    client: Client,
    regions: Vec<String>,
    network: Network,
    link_duration: Duration,
    format: ArchiveFormat,
    allow_http: bool,
    /// Where tasks write, if not behind a link.
    bucket: Option<Bucket>,
    namings: Namings,
    /// Failed tasks and how often each was started again.
    retried: Mutex<HashMap<String, u32>>,
}

impl Aliyun {
    /// An account as configured; asks nothing yet.
    pub fn new(common: &ProviderConfig, config: &AliyunConfig, clock: SharedClock) -> Result<Self> {
        let keys = Keys {
            id: config.access_key_id.clone(),
            secret: config.access_key_secret.clone(),
            token: config.security_token.clone(),
        };
        let bucket = config.oss.as_ref();
        let bucket = bucket.map(|oss| Bucket::new(common, oss, keys.clone(), Arc::clone(&clock)));
        let bucket = bucket.transpose()?;
        let api = Arc::new(Api::new(common, clock)?);
        Ok(Aliyun {
            client: Client::new(
                api,
                keys,
                config.endpoint.clone(),
                config.dbs_endpoint.clone(),
            ),
            regions: config.regions.clone(),
            network: config.network,
            link_duration: config.link_duration,
            format: config.format,
            allow_http: common.allow_http,
            bucket,
            namings: Namings::default(),
            retried: Mutex::default(),
        })
    }
}

#[async_trait]
impl Provider for Aliyun {
    async fn instances(&self) -> Result<Vec<Instance>> {
        let mut budget = self.client.api.budget();
        let mut instances = BTreeMap::new();
        for region in &self.regions {
            for architecture in [convert::REPLICATE, convert::SHARDING] {
                let listed = self.listed(region, architecture, &mut budget).await;
                let listed = listed
                    .map_err(|error| error.context(format!("listing the instances of {region}")))?;
                for instance in listed {
                    instances.entry(instance.id.clone()).or_insert(instance);
                }
            }
        }
        Ok(instances.into_values().collect())
    }

    async fn backups(&self, of: &Instance) -> Result<Vec<Backup>> {
        let mut budget = self.client.api.budget();
        let listing = |error: Error| error.context(format!("listing the backups of {}", of.id));
        self.all_backups(of, &mut budget).await.map_err(listing)
    }

    async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>> {
        let file = convert::file(&of.shard, self.format);
        match &self.bucket {
            Some(bucket) if file.origin == Origin::Task => self.written(of, bucket, file).await,
            _ => Ok(vec![file]),
        }
    }

    async fn find_task(&self, of: &ShardRef) -> Result<Found> {
        convert::check(&of.shard)?;
        let wanted = self.wanted(of);
        let mut budget = self.client.api.budget();
        let listed = self
            .tasks_of_set(of, &mut budget)
            .await
            .map_err(|error| error.context("looking for an existing download task"))?;
        Ok(tasks::adoptable(&listed, &wanted).map_or(Found::Nothing, Found::Task))
    }

    async fn create_task(&self, of: &ShardRef) -> Result<Task> {
        let mut budget = self.client.api.budget();
        let created = self.created(of, &mut budget).await;
        created.map_err(|error| error.context("creating the download task"))
    }

    async fn poll_task(&self, of: &ShardRef, task: &Task) -> Result<Task> {
        let mut budget = self.client.api.budget();
        let polled = self.polled(of, task, &mut budget).await;
        let mut polled =
            polled.map_err(|error| error.context("asking how the download task stands"))?;
        if polled.id == task.id {
            // The listing does not know when the link ends, and with it what the task made.
            polled.expires = task.expires;
            let over = task.expires.is_some_and(|end| end <= self.client.api.now());
            if over && polled.state == TaskState::Ready {
                polled.state = TaskState::Expired;
                polled.percent = None;
            }
        }
        Ok(polled)
    }

    async fn link(&self, of: &ShardRef, file: &RemoteFile, task: Option<&Task>) -> Result<Link> {
        let mut budget = self.client.api.budget();
        let asking = |error: Error| error.context("asking for the download link");
        if let (Some(bucket), Some(key)) = (&self.bucket, convert::key(file)) {
            return bucket.link(key);
        }
        match (file.origin, task) {
            (Origin::Object, _) => self.object_link(of, &mut budget).await.map_err(asking),
            (Origin::Task, Some(task)) => {
                self.task_link(of, task, &mut budget).await.map_err(asking)
            }
            (Origin::Task, None) => Err(Error::new(
                Kind::Internal,
                "a link to a converted backup was asked for without its download task",
            )),
        }
    }

    /// The instance; of a sharded cluster the whole, because which of its tasks exclude each other
    /// is not documented.
    fn lane(&self, of: &ShardRef) -> Option<String> {
        Some(of.instance.id.clone())
    }

    /// Failed conversions cost nothing ("Download backup files", help.aliyun.com/mongodb).
    fn price(&self, _of: &ShardRef) -> Option<&'static str> {
        Some(
            "at 0.03125 USD per GB converted, the list price outside finance and government clouds",
        )
    }

    fn ends_with_link(&self) -> bool {
        self.bucket.is_none()
    }

    fn permission(&self, step: Step) -> Option<&'static str> {
        Some(match step {
            Step::Instances => "dds:DescribeDBInstances",
            Step::Backups => "dds:DescribeBackups",
            Step::FindTask | Step::Link => "dbs:DescribeDownloadTask",
            Step::Create => "dbs:CreateDownload",
        })
    }

    fn cloud_time(&self) -> Option<Timestamp> {
        Some(self.client.api.now())
    }
}

fn gone() -> Error {
    Error::new(
        Kind::Expired,
        "Alibaba Cloud no longer holds what this backup was converted into",
    )
}
