//! MongoDB Atlas: one project, its clusters as instances, their snapshots as backups.
//!
//! Served are the shared tier (M2, M5) and its successor Flex, whose snapshots are downloaded through
//! links made on request. M0 clusters have no backups; dedicated clusters are left out. Snapshots
//! have no size before their download exists.
//!
//! State: which omissions were logged already, behind one lock; everything else is in [`client`]
//! (API versions) and [`auth`] (nonces, token).

mod auth;
mod client;
mod convert;
mod paging;
mod refusal;
mod versions;
mod wire;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tracing::{debug, info};

use self::auth::Auth;
use self::client::{Client, Question, Reply};
use self::convert::Tier;
use self::refusal::refused;
use self::versions::{Resource, Service};
use self::wire::{Cluster, DownloadRequest, Restore, Snapshot};
use crate::clock::SharedClock;
use crate::config::{AtlasConfig, ProviderConfig};
use crate::error::{Error, Kind, Result};
use crate::model::{
    Backup, Facts, Found, Instance, Link, LinkMode, Origin, RemoteFile, ShardRef, Size, Task,
    TaskState,
};
use crate::providers::Provider;
use crate::providers::http::{Answer, Api, Budget};

/// One Atlas project.
#[derive(Debug)]
pub struct Atlas {
    client: Client,
    allow_http: bool,
    /// Names of clusters whose omission was logged.
    omitted: Mutex<HashSet<String>>,
}

impl Atlas {
    /// An account as configured; asks nothing yet.
    pub fn new(common: &ProviderConfig, config: &AtlasConfig, clock: SharedClock) -> Result<Self> {
        let api = Arc::new(Api::new(common, clock)?);
        let auth = Auth::new(&config.auth, &config.endpoint, api.clone());
        Ok(Atlas {
            client: Client::new(
                api,
                auth,
                config.endpoint.clone(),
                config.project_id.clone(),
            ),
            allow_http: common.allow_http,
            omitted: Mutex::default(),
        })
    }

    async fn clusters(&self, resource: Resource, budget: &mut Budget) -> Result<Vec<Cluster>> {
        let listed = self.client.list(resource, None, budget).await;
        match listed {
            Ok(Ok(clusters)) => Ok(clusters),
            // Endpoints older than Flex have no Flex clusters, and say so by any 404.
            Ok(Err(_)) if resource == Resource::FlexClusters => Ok(Vec::new()),
            Err(error)
                if resource == Resource::FlexClusters
                    && matches!(
                        error.kind(),
                        Kind::NotFound | Kind::Config | Kind::Unsupported
                    ) =>
            {
                Ok(Vec::new())
            }
            Ok(Err(answer)) => Err(refused(&answer)),
            Err(error) => Err(error),
        }
    }

    fn omit(&self, cluster: &str) {
        let mut omitted = self.omitted.lock().unwrap_or_else(PoisonError::into_inner);
        if omitted.insert(cluster.to_owned()) {
            info!(
                cluster,
                "left out: snapshots of dedicated clusters (M10 and larger) are not served by this version"
            );
        }
    }

    async fn restores(
        &self,
        service: Service,
        cluster: &str,
        budget: &mut Budget,
    ) -> Result<Result<Vec<Restore>, Answer>> {
        let resource = Resource::Restores(service);
        match self.client.list(resource, Some(cluster), budget).await {
            // "No such restore" in answer to the whole list: there are none.
            Err(error) if error.kind() == Kind::Expired => Ok(Ok(Vec::new())),
            listed => listed,
        }
    }

    /// The download `id` as it stands; `None` once Atlas has forgotten it.
    async fn restore(&self, of: &ShardRef, id: &str) -> Result<Option<Restore>> {
        let service = service_of(&of.instance)?;
        let cluster = of.instance.id.as_str();
        let mut budget = self.client.api.budget();
        let question = Question {
            resource: Resource::Restores(service),
            cluster: Some(cluster),
            item: Some(id),
        };
        let answer = match self.client.ask(question, &[], None, &mut budget).await {
            Ok(Reply::Answer(answer)) => answer,
            Ok(Reply::NotServed(answer)) => {
                // Either the item is gone or the resource is not served at all: the list tells.
                let served = self.client.serves(question.resource)
                    || self.restores(service, cluster, &mut budget).await?.is_ok();
                return if served {
                    Ok(None)
                } else {
                    Err(refused(&answer))
                };
            }
            Err(error) if error.kind() == Kind::Expired => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut restore = if answer.body.trim_ascii().is_empty() {
            Restore::default()
        } else {
            answer.json::<Option<Restore>>()?.unwrap_or_default()
        };
        restore.id = Some(id.to_owned());
        Ok(Some(restore))
    }

    fn link_of(&self, restore: Restore) -> Result<Link> {
        let task = convert::task(&restore, self.client.api.now());
        let (state, expires, message) = match task {
            Some(task) => (task.state, task.expires, task.message),
            None => (TaskState::Running, None, None),
        };
        let url = match (state, restore.snapshot_url) {
            (TaskState::Ready, Some(url)) => url,
            (TaskState::Expired, _) => return Err(gone()),
            (TaskState::Failed, _) => {
                let message = message.unwrap_or_else(|| "the download failed".to_owned());
                return Err(Error::new(Kind::TaskFailed, message));
            }
            _ => {
                return Err(Error::new(
                    Kind::NotReady,
                    "Atlas has not made the download link yet",
                ));
            }
        };
        let url = super::presigned::address("Atlas", url.expose().trim(), self.allow_http)?;
        Ok(Link {
            url,
            // The link is signed by itself; API credentials never go to the data host.
            headers: Vec::new(),
            expires,
            mode: LinkMode::Ranged,
        })
    }
}

#[async_trait]
impl Provider for Atlas {
    async fn instances(&self) -> Result<Vec<Instance>> {
        let listing = |error: Error| error.context("listing the project's clusters");
        let mut budget = self.client.api.budget();
        let mut instances = BTreeMap::new();
        let clusters = self.clusters(Resource::Clusters, &mut budget).await;
        for cluster in clusters.map_err(listing)? {
            let service = match convert::tier(&cluster) {
                Tier::Free => None,
                Tier::Shared => Some(Service::Shared),
                Tier::Flex => Some(Service::Flex),
                Tier::Dedicated => {
                    self.omit(&cluster.name);
                    continue;
                }
            };
            instances.insert(cluster.name.clone(), convert::instance(&cluster, service));
        }
        let flex = self.clusters(Resource::FlexClusters, &mut budget).await;
        for cluster in flex.map_err(listing)? {
            let instance = convert::instance(&cluster, Some(Service::Flex));
            instances.insert(cluster.name, instance);
        }
        Ok(instances.into_values().collect())
    }

    async fn backups(&self, of: &Instance) -> Result<Vec<Backup>> {
        let Some(service) = convert::service(of) else {
            return Ok(Vec::new());
        };
        let listing = |error: Error| error.context(format!("listing the snapshots of {}", of.id));
        let mut budget = self.client.api.budget();
        let snapshots: Vec<Snapshot> = self
            .client
            .list(Resource::Snapshots(service), Some(&of.id), &mut budget)
            .await
            .and_then(|listed| {
                listed.map_err(|answer| not_served(service, &answer, Kind::Protocol))
            })
            .map_err(listing)?;
        let mut backups = Vec::with_capacity(snapshots.len());
        for snapshot in snapshots {
            let (id, status) = (snapshot.id.clone(), snapshot.status.clone());
            match convert::backup(snapshot, &of.id).map_err(listing)? {
                Some(backup) => backups.push(backup),
                None => debug!(cluster = of.id, id, status, "snapshot is not complete"),
            }
        }
        Ok(backups)
    }

    async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>> {
        Ok(vec![RemoteFile {
            path: format!("{}.tgz", of.shard.id),
            size: Size::Unknown,
            modified: None,
            origin: Origin::Task,
            etag: None,
            digest: None,
            facts: Facts::new(),
        }])
    }

    async fn find_task(&self, of: &ShardRef) -> Result<Found> {
        let service = service_of(&of.instance)?;
        let mut budget = self.client.api.budget();
        let restores = self
            .restores(service, &of.instance.id, &mut budget)
            .await
            .map_err(|error| error.context("looking for an existing download"))?;
        let Ok(restores) = restores else {
            return Ok(Found::CannotTell);
        };
        let now = self.client.api.now();
        Ok(match convert::adoptable(&restores, &of.backup.id, now) {
            Some(task) => Found::Task(task),
            None => Found::Nothing,
        })
    }

    async fn create_task(&self, of: &ShardRef) -> Result<Task> {
        let service = service_of(&of.instance)?;
        let creating = |error: Error| error.context("requesting the download");
        let body = serde_json::to_string(&DownloadRequest {
            snapshot_id: &of.backup.id,
        })
        .map_err(|error| creating(Error::new(Kind::Internal, error.to_string())))?;
        let question = Question {
            resource: Resource::Download(service),
            cluster: Some(&of.instance.id),
            item: None,
        };
        let mut budget = self.client.api.budget();
        let reply = self.client.ask(question, &[], Some(&body), &mut budget);
        let answer = match reply.await.map_err(|error| creating(settled(error)))? {
            Reply::Answer(answer) => answer,
            Reply::NotServed(answer) => {
                return Err(creating(not_served(service, &answer, Kind::Unsupported)));
            }
        };
        let unknown = |why: String| {
            creating(Error::new(
                Kind::OutcomeUnknown,
                format!("Atlas accepted the request, but {why}; it is not sent again"),
            ))
        };
        let restore: Restore = answer.json().map_err(|error| unknown(error.to_string()))?;
        convert::task(&restore, self.client.api.now())
            .ok_or_else(|| unknown("its answer names no download".to_owned()))
    }

    async fn poll_task(&self, of: &ShardRef, task: &Task) -> Result<Task> {
        let restore = self
            .restore(of, &task.id)
            .await
            .map_err(|error| error.context("asking how the download stands"))?;
        let now = self.client.api.now();
        let polled = restore.and_then(|restore| convert::task(&restore, now));
        Ok(polled.unwrap_or_else(|| Task {
            state: TaskState::Expired,
            percent: None,
            ..task.clone()
        }))
    }

    async fn link(&self, of: &ShardRef, _file: &RemoteFile, task: Option<&Task>) -> Result<Link> {
        let task = task.ok_or_else(|| {
            Error::new(
                Kind::Internal,
                "a link to a snapshot was asked for without its download",
            )
        })?;
        let restore = self
            .restore(of, &task.id)
            .await
            .map_err(|error| error.context("asking for the download link"))?;
        self.link_of(restore.ok_or_else(gone)?)
    }
}

fn service_of(instance: &Instance) -> Result<Service> {
    convert::service(instance).ok_or_else(|| {
        Error::new(
            Kind::Unsupported,
            format!(
                "cluster {} is of the free tier, which has no backups",
                instance.id
            ),
        )
    })
}

/// A failed create whose error is a refusal in words not known here: nothing was done, and to send
/// the same again would not help.
fn settled(error: Error) -> Error {
    match error.kind() {
        Kind::Protocol => Error::new(Kind::TaskFailed, error.to_string()),
        _ => error,
    }
}

fn gone() -> Error {
    Error::new(Kind::Expired, "Atlas no longer holds this download")
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
        Service::Flex => refused(answer),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::{AtlasAuth, ProviderKind};
    use crate::secret::Secret;

    fn atlas(allow_http: bool) -> Atlas {
        let config = AtlasConfig {
            endpoint: "https://cloud.example/gateway".parse().unwrap(),
            project_id: "g".into(),
            auth: AtlasAuth::ApiKey {
                public_key: Secret::new("user"),
                private_key: Secret::new("CANARY"),
            },
        };
        let common = ProviderConfig {
            name: "atlas".into(),
            allow_http,
            ca_file: None,
            poll_interval: Duration::from_secs(10),
            retry_budget: Duration::from_secs(1),
            kind: ProviderKind::Atlas(config.clone()),
        };
        Atlas::new(&common, &config, Arc::new(SystemClock)).unwrap()
    }

    fn linked(url: &str) -> Restore {
        let json = format!(r#"{{"id":"r","status":"COMPLETED","snapshotUrl":"{url}"}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[tokio::test]
    async fn links_are_https_unless_http_is_allowed() {
        let (strict, lenient) = (atlas(false), atlas(true));
        assert!(
            strict
                .link_of(linked("https://data.example/s?sig=CANARY"))
                .is_ok()
        );
        let plain = "http://data.example/s?sig=CANARY";
        assert!(lenient.link_of(linked(plain)).is_ok());
        for (bad, word) in [
            (plain, "allow_http"),
            ("file:///CANARY", "http"),
            ("CANARY", "address"),
        ] {
            let error = strict.link_of(linked(bad)).unwrap_err();
            assert_eq!(error.kind(), Kind::Protocol);
            assert!(error.to_string().contains(word), "{error}");
            assert!(!error.to_string().contains("CANARY"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_account_does_not_print_its_keys() {
        assert!(!format!("{:?}", atlas(false)).contains("CANARY"));
    }
}
