//! Shared clusters (M2, M5) and Flex clusters: a download is requested, soon completed, and has a
//! signed link of a few hours that may be used as often as one likes ("Shared-Tier Snapshots" and
//! "Flex Snapshots" of the Atlas Administration API).

use std::sync::Arc;

use async_trait::async_trait;
use tracing::debug;

use super::client::{Client, Reply};
use super::refusal::refused;
use super::versions::{Resource, Service};
use super::wire::{DownloadRequest, Restore, Snapshot};
use super::{Family, convert, unknown};
use crate::error::{Error, Kind, Result};
use crate::model::{Backup, Found, LinkMode, ShardRef, Task, TaskState};
use crate::providers::http::Answer;
use crate::secret::Secret;

/// The family of clusters that share their hosts.
#[derive(Debug)]
pub(super) struct Tenant {
    client: Arc<Client>,
}

impl Tenant {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Tenant { client }
    }
}

#[async_trait]
impl Family for Tenant {
    async fn backups(&self, service: Service, cluster: &str) -> Result<Vec<Backup>> {
        let mut budget = self.client.api.budget();
        let resource = Resource::Snapshots(service);
        let listed = self
            .client
            .list(resource, Some(cluster), &mut budget)
            .await?;
        let snapshots: Vec<Snapshot> =
            listed.map_err(|answer| not_served(service, &answer, Kind::Protocol))?;
        let mut backups = Vec::with_capacity(snapshots.len());
        for snapshot in snapshots {
            let (id, status) = (snapshot.id.clone(), snapshot.status.clone());
            match convert::backup(snapshot, cluster)? {
                Some(backup) => backups.push(backup),
                None => debug!(cluster, id, status, "snapshot is not complete"),
            }
        }
        Ok(backups)
    }

    async fn find(&self, service: Service, of: &ShardRef) -> Result<Found> {
        let mut budget = self.client.api.budget();
        let listed = self.client.downloads(service, &of.instance.id, &mut budget);
        let Ok(restores) = listed.await? else {
            return Ok(Found::CannotTell);
        };
        let now = self.client.api.now();
        Ok(match convert::adoptable(&restores, &of.backup.id, now) {
            Some(task) => Found::Task(task),
            None => Found::Nothing,
        })
    }

    async fn create(&self, service: Service, of: &ShardRef) -> Result<Task> {
        let wish = DownloadRequest {
            snapshot_id: &of.backup.id,
        };
        let reply = self.client.request(service, &of.instance.id, &wish);
        let answer = match reply.await? {
            Reply::Answer(answer) => answer,
            Reply::NotServed(answer) => {
                return Err(not_served(service, &answer, Kind::Unsupported));
            }
        };
        let restore: Restore = answer.json().map_err(|error| unknown(&error.to_string()))?;
        convert::task(&restore, self.client.api.now())
            .ok_or_else(|| unknown("its answer names no download"))
    }

    async fn look(
        &self,
        service: Service,
        of: &ShardRef,
        task: &Task,
    ) -> Result<Option<(Task, Option<Secret>)>> {
        let cluster = of.instance.id.as_str();
        let restore = self.client.download(service, cluster, &task.id).await?;
        Ok(restore.map(|mut restore: Restore| {
            restore.id = Some(task.id.clone());
            let now = self.client.api.now();
            let looked = convert::task(&restore, now).unwrap_or_else(|| Task {
                state: TaskState::Running,
                ..task.clone()
            });
            (looked, restore.snapshot_url)
        }))
    }

    fn mode(&self) -> LinkMode {
        LinkMode::Ranged
    }

    fn extension(&self) -> &'static str {
        "tgz"
    }
}

/// Why the snapshot service of a cluster does not exist at this endpoint.
fn not_served(service: Service, answer: &Answer, kind: Kind) -> Error {
    match service {
        Service::Shared => Error::new(
            kind,
            format!(
                "Atlas no longer serves backups of M2 and M5 clusters (HTTP {}): it retired that tier in January 2026 and moved its clusters to Flex, whose snapshots are listed under the Flex cluster",
                answer.status.as_u16()
            ),
        ),
        _ => refused(answer),
    }
}
