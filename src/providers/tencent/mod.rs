//! TencentDB for MongoDB: the instances of some regions and their backups, each downloaded through
//! one task per shard that packs it as a tar; and, beside them, backups kept as folders in COS.
//!
//! A task has no id: it belongs to (instance, backup, shard), and the newest one counts. A failed
//! task is followed by another, a task that waits for the service's own retry is not. The link in a
//! finished task is used as it is and renewed by asking about the task again.

mod client;
mod convert;
mod folders;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod paging;
mod refusal;
mod sign;
mod wire;

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::future::try_join_all;
use jiff::Timestamp;
use tracing::debug;

use self::client::{Action, Client, Keys};
use self::folders::Folders;
use self::paging::{Keyed, Listing, PAGE, Search};
use crate::clock::SharedClock;
use crate::config::{ProviderConfig, TencentConfig};
use crate::error::{Error, Kind, Result};
use crate::model::{
    Backup, Facts, Found, Instance, Link, LinkMode, Origin, RemoteFile, ShardRef, Size, Task,
    TaskState,
};
use crate::providers::http::{Api, Budget};
use crate::providers::{Provider, Step};

/// How many tasks may follow at once one that failed.
const RECREATIONS: u32 = 3;

/// The methods by which backups are listed: as the API sees fit, logical, physical, snapshot. What
/// the first one leaves out is not documented.
const METHODS: [Option<i64>; 4] = [None, Some(0), Some(1), Some(3)];
const SNAPSHOT: &str = "3";

/// One account.
#[derive(Debug)]
pub struct Tencent {
    client: Client,
    regions: Vec<String>,
    allow_http: bool,
    folders: Option<Folders>,
}

impl Tencent {
    /// An account as configured; asks nothing yet.
    pub fn new(
        common: &ProviderConfig,
        config: &TencentConfig,
        clock: SharedClock,
    ) -> Result<Self> {
        let folders = match &config.cos {
            Some(cos) => Some(Folders::new(common, config, cos, clock.clone())?),
            None => None,
        };
        let keys = Keys {
            secret_id: config.secret_id.clone(),
            secret_key: config.secret_key.clone(),
            token: config.token.clone(),
        };
        let api = Api::new(common, clock)?;
        Ok(Tencent {
            client: Client::new(api, config.endpoint.clone(), keys),
            regions: config.regions.clone(),
            allow_http: common.allow_http,
            folders,
        })
    }

    async fn instances_in(&self, region: &str, budget: &mut Budget) -> Result<Vec<wire::Instance>> {
        let mut listing = Listing::new();
        loop {
            let question = wire::AskInstances {
                limit: PAGE,
                offset: listing.offset(),
            };
            let page: wire::Instances = self
                .client
                .ask(Action::Instances, region, &question, budget)
                .await?
                .map_err(|refusal| refusal.into_error(Action::Instances))?;
            if !listing.add(page.total_count, page.instance_details)? {
                return Ok(listing.items);
            }
        }
    }

    /// The backups of one method; none where an instance does not know the method.
    async fn backups_by(&self, of: &Instance, method: Option<i64>) -> Result<Vec<wire::Backup>> {
        let mut budget = self.client.api.budget();
        let mut listing = Listing::new();
        loop {
            let question = wire::AskBackups {
                instance_id: &of.id,
                backup_method: method,
                limit: PAGE,
                offset: listing.offset(),
            };
            let page: wire::Backups = match self
                .client
                .ask(Action::Backups, region(of)?, &question, &mut budget)
                .await?
            {
                Ok(page) => page,
                Err(refusal) if method.is_some() && refusal.is_about_a_parameter() => {
                    debug!(
                        instance = of.id,
                        method,
                        code = refusal.code,
                        "no such method"
                    );
                    return Ok(Vec::new());
                }
                Err(refusal) => return Err(refusal.into_error(Action::Backups)),
            };
            if !listing.add(page.total_count, page.backup_list)? {
                return Ok(listing.items);
            }
        }
    }

    /// The download tasks of the backup of `of`.
    async fn tasks(&self, of: &ShardRef) -> Result<Vec<wire::Task>> {
        let mut budget = self.client.api.budget();
        let mut search = Search::new();
        loop {
            let question = wire::AskTasks {
                instance_id: &of.instance.id,
                backup_name: name(&of.backup)?,
                limit: PAGE,
                offset: search.offset(),
            };
            let page: wire::Tasks = self
                .client
                .ask(Action::Tasks, region(&of.instance)?, &question, &mut budget)
                .await?
                .map_err(|refusal| refusal.into_error(Action::Tasks))?;
            if !search.add(page.total_count, page.tasks) {
                return Ok(search.items);
            }
        }
    }

    /// The newest task of the shard, and its link.
    async fn newest(&self, of: &ShardRef) -> Result<Option<(Task, Option<String>)>> {
        let tasks = self.tasks(of).await?;
        let newest = convert::newest(&tasks, name(&of.backup)?, &of.shard.id);
        Ok(newest.map(|listed| {
            let link = listed.url.as_ref().map(|url| url.expose().to_owned());
            (convert::task(listed), link)
        }))
    }

    fn link_of(&self, task: Task, link: Option<String>) -> Result<Link> {
        let link = match (task.state, link) {
            (TaskState::Ready, Some(link)) => link,
            (TaskState::Failed, _) => {
                let message = task.message.unwrap_or_default();
                return Err(Error::new(Kind::TaskFailed, message));
            }
            _ => {
                return Err(Error::new(
                    Kind::NotReady,
                    "Tencent Cloud has not made the download link yet",
                ));
            }
        };
        let url = super::presigned::address("Tencent Cloud", &link, self.allow_http)?;
        Ok(Link {
            expires: convert::link_end(&link),
            url,
            // The link is signed by itself; the account's keys never go to the data host.
            headers: Vec::new(),
            mode: LinkMode::Ranged,
        })
    }
}

#[async_trait]
impl Provider for Tencent {
    async fn instances(&self) -> Result<Vec<Instance>> {
        let mut budget = self.client.api.budget();
        let mut instances = BTreeMap::new();
        for region in &self.regions {
            let listed = self.instances_in(region, &mut budget).await;
            let listed = listed
                .map_err(|error| error.context(format!("listing the instances in {region}")))?;
            for listed in listed {
                if let Some(instance) = convert::instance(listed, region, &self.regions) {
                    instances.insert(instance.id.clone(), instance);
                }
            }
        }
        if let Some(folders) = &self.folders {
            folders.add_instances(&mut instances, &mut budget).await?;
        }
        Ok(instances.into_values().collect())
    }

    async fn backups(&self, of: &Instance) -> Result<Vec<Backup>> {
        let mut backups = BTreeMap::new();
        if of.facts.contains_key(convert::REGION) {
            let listing = |error: Error| error.context(format!("listing the backups of {}", of.id));
            let listed = METHODS.map(|method| self.backups_by(of, method));
            let listed = try_join_all(listed).await.map_err(listing)?;
            for listed in listed.into_iter().flatten() {
                let (identity, name) = (convert::identity(&listed), listed.backup_name.clone());
                match convert::backup(listed, of).map_err(listing)? {
                    Some(backup) => drop(backups.insert(identity, backup)),
                    None => debug!(instance = of.id, name, "backup is not complete"),
                }
            }
        }
        let mut backups: Vec<Backup> = backups.into_values().collect();
        if let Some(folders) = &self.folders {
            folders.add_backups(of, &mut backups).await?;
        }
        Ok(backups)
    }

    async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>> {
        if let Some(folders) = self.folders.as_ref().filter(|_| folders::holds(&of.backup)) {
            return folders.files(of).await;
        }
        Ok(vec![RemoteFile {
            path: format!("{}.tar", of.shard.id),
            size: Size::Unknown,
            modified: None,
            origin: Origin::Task,
            etag: None,
            digest: None,
            facts: Facts::new(),
        }])
    }

    async fn find_task(&self, of: &ShardRef) -> Result<Found> {
        let newest = match self.newest(of).await {
            // Perhaps it only means that nothing was downloaded yet: the request will tell.
            Err(error) if error.kind() == Kind::NotFound => None,
            newest => newest.map_err(|error| error.context("looking for an existing download"))?,
        };
        let Some((mut task, link)) = newest else {
            return Ok(Found::Nothing);
        };
        let end = link.as_deref().and_then(convert::link_end);
        if task.state == TaskState::Ready && end.is_some_and(|at| at <= self.client.api.now()) {
            task.state = TaskState::Expired;
        }
        Ok(Found::Task(task))
    }

    async fn create_task(&self, of: &ShardRef) -> Result<Task> {
        let creating = |error: Error| error.context("requesting the download");
        let question = wire::CreateTask {
            instance_id: &of.instance.id,
            backup_name: name(&of.backup)?,
            backup_sets: [wire::BackupSet {
                replica_set_id: &of.shard.id,
            }],
        };
        let mut budget = self.client.api.budget();
        let region = region(&of.instance)?;
        let answer: wire::Tasks = self
            .client
            .ask(Action::CreateTask, region, &question, &mut budget)
            .await
            .map_err(unclear)
            .and_then(|answer| {
                answer
                    .map_err(|refusal| settled(refusal.into_error(Action::CreateTask), &of.backup))
            })
            .map_err(creating)?;
        let of_shard = |task: &&wire::Task| {
            let id = task.replica_set_id.as_deref();
            id.is_none_or(|id| id == of.shard.id)
        };
        let Some(created) = answer.tasks.iter().find(of_shard) else {
            return Err(creating(Error::new(
                Kind::OutcomeUnknown,
                "Tencent Cloud accepted the request, but its answer names no task for this shard; it is not sent again",
            )));
        };
        // The answer has no link: whether a finished task lacks one is found out when it is used.
        let mut task = convert::task(created);
        task.state = convert::state(created.status, true);
        if task.id.is_empty()
            && let Ok(Some((listed, _))) = self.newest(of).await
            && (listed.state == TaskState::Failed) == (task.state == TaskState::Failed)
        {
            task.id = listed.id;
        }
        Ok(task)
    }

    async fn poll_task(&self, of: &ShardRef, _task: &Task) -> Result<Task> {
        let newest = self
            .newest(of)
            .await
            .map_err(|error| error.context("asking how the download stands"))?;
        let (task, _) = newest.ok_or_else(unlisted)?;
        Ok(task)
    }

    async fn link(&self, of: &ShardRef, file: &RemoteFile, task: Option<&Task>) -> Result<Link> {
        if file.origin == Origin::Object {
            let folders = self.folders.as_ref().ok_or_else(|| {
                Error::new(Kind::Internal, "an object was asked for without its bucket")
            })?;
            return folders.link(file);
        }
        if task.is_none() {
            let words = "a link to a backup was asked for without its download";
            return Err(Error::new(Kind::Internal, words));
        }
        let newest = self
            .newest(of)
            .await
            .map_err(|error| gone(error).context("asking for the download link"))?;
        let (task, link) = newest.ok_or_else(unlisted)?;
        self.link_of(task, link)
    }

    fn recreations(&self) -> u32 {
        RECREATIONS
    }

    fn refusal_hint(&self) -> Option<&'static str> {
        Some(
            "links into Tencent's private network work only from 10.0.0.0/8, 172.16.0.0/16, 172.20.0.0/16, 172.24.0.0/16, 172.27.0.0/16 and 192.168.0.0/16, and a sub-account needs the permission to download backups",
        )
    }

    fn permission(&self, step: Step) -> Option<&'static str> {
        Some(match step {
            Step::Instances => "mongodb:DescribeDBInstances",
            Step::Backups => "mongodb:DescribeDBBackups",
            Step::FindTask | Step::Link => "mongodb:DescribeBackupDownloadTask",
            Step::Create => "mongodb:CreateBackupDownloadTask",
        })
    }

    fn cloud_time(&self) -> Option<Timestamp> {
        Some(self.client.api.now())
    }
}

impl Keyed for wire::Task {
    fn key(&self) -> String {
        format!(
            "{:?} {:?} {:?}",
            self.replica_set_id, self.backup_name, self.create_time
        )
    }
}

impl Keyed for wire::Instance {
    fn key(&self) -> String {
        self.instance_id.clone().unwrap_or_default()
    }
}

impl Keyed for wire::Backup {
    fn key(&self) -> String {
        convert::identity(self)
    }
}

fn region(of: &Instance) -> Result<&str> {
    let region = of.facts.get(convert::REGION).map(String::as_str);
    region.ok_or_else(|| Error::new(Kind::Internal, "an instance lost its region"))
}

fn name(of: &Backup) -> Result<&str> {
    let name = of.facts.get(convert::NAME).map(String::as_str);
    name.ok_or_else(|| Error::new(Kind::Internal, "a backup lost its name"))
}

fn unlisted() -> Error {
    Error::new(Kind::Expired, "Tencent Cloud no longer lists this download")
}

/// The backup or instance of an existing download was deleted, and the download with it.
fn gone(error: Error) -> Error {
    match error.kind() {
        Kind::NotFound => Error::new(Kind::Expired, error.to_string()),
        _ => error,
    }
}

/// A create that was answered with what cannot be understood may have been carried out.
fn unclear(error: Error) -> Error {
    match error.kind() {
        Kind::Protocol => Error::new(
            Kind::OutcomeUnknown,
            format!("{error}; the request may have been carried out, so it is not sent again"),
        ),
        _ => error,
    }
}

/// A refused create. In words not known here, to send the same again would not help; of a snapshot
/// it means that snapshots cannot be downloaded.
fn settled(error: Error, backup: &Backup) -> Error {
    let snapshot = backup
        .facts
        .get(convert::METHOD)
        .is_some_and(|method| method == SNAPSHOT);
    match error.kind() {
        Kind::Protocol if snapshot => Error::new(
            Kind::Unsupported,
            format!("this snapshot cannot be downloaded: {error}"),
        ),
        Kind::Protocol => Error::new(Kind::TaskFailed, error.to_string()),
        _ => error,
    }
}
