//! MongoDB Atlas: one project, its clusters as instances, their snapshots as backups.
//!
//! Two families of clusters differ in all but their listing: the shared tier (M2, M5) with its
//! successor Flex, whose links are made on request ([`tenant`]), and dedicated clusters (M10 and
//! larger), whose links a job makes and which work once ([`dedicated`]). M0 clusters have no backups.
//! No snapshot tells the size of its file.
//!
//! State: in [`client`] (API versions), [`auth`] (nonces, token) and [`dedicated`] (jobs just made,
//! ways refused).

mod auth;
mod client;
mod cloud;
mod convert;
mod dedicated;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod paging;
mod refusal;
mod tenant;
mod versions;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use self::auth::Auth;
use self::client::Client;
use self::dedicated::Dedicated;
use self::refusal::refused;
use self::tenant::Tenant;
use self::versions::{Resource, Service};
use self::wire::Cluster;
use crate::clock::SharedClock;
use crate::config::{AtlasConfig, ProviderConfig};
use crate::error::{Error, Kind, Result};
use crate::model::{
    Backup, Facts, Found, Instance, Link, LinkMode, Origin, RemoteFile, ShardRef, Size, Task,
    TaskState,
};
use crate::providers::http::{Api, Budget};
use crate::providers::{Provider, Step};
use crate::secret::Secret;

/// One Atlas project.
#[derive(Debug)]
pub struct Atlas {
    client: Arc<Client>,
    tenant: Tenant,
    dedicated: Dedicated,
    allow_http: bool,
}

/// How the clusters of one family are backed up.
#[async_trait]
trait Family: fmt::Debug + Send + Sync {
    /// The complete snapshots of a cluster.
    async fn backups(&self, service: Service, cluster: &str) -> Result<Vec<Backup>>;

    /// The download to adopt.
    async fn find(&self, service: Service, of: &ShardRef) -> Result<Found>;

    /// Requests a download, or joins the one that brings it too.
    async fn create(&self, service: Service, of: &ShardRef) -> Result<Task>;

    /// `task` as it stands, with its link if it has one; `None` once Atlas has forgotten it.
    async fn look(
        &self,
        service: Service,
        of: &ShardRef,
        task: &Task,
    ) -> Result<Option<(Task, Option<Secret>)>>;

    /// How its links may be used.
    fn mode(&self) -> LinkMode;

    /// What the names of its files end with.
    fn extension(&self) -> &'static str;
}

impl Atlas {
    /// An account as configured; asks nothing yet.
    pub fn new(common: &ProviderConfig, config: &AtlasConfig, clock: SharedClock) -> Result<Self> {
        let api = Arc::new(Api::new(common, clock)?);
        let auth = Auth::new(&config.auth, &config.endpoint, api.clone());
        let client = Arc::new(Client::new(
            api,
            auth,
            config.endpoint.clone(),
            config.project_id.clone(),
        ));
        Ok(Atlas {
            tenant: Tenant::new(client.clone()),
            dedicated: Dedicated::new(client.clone()),
            client,
            allow_http: common.allow_http,
        })
    }

    fn family(&self, service: Service) -> &dyn Family {
        match service {
            Service::Shared | Service::Flex => &self.tenant,
            Service::ReplicaSet | Service::Sharded => &self.dedicated,
        }
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

    /// The link that a look at a download found.
    fn link_of(&self, (task, url): (Task, Option<Secret>), mode: LinkMode) -> Result<Link> {
        let url = match (task.state, url) {
            (TaskState::Ready, Some(url)) => url,
            (TaskState::Expired, _) => return Err(gone()),
            (TaskState::Failed, _) => {
                let words = task.message.as_deref().unwrap_or("the download failed");
                return Err(Error::new(Kind::TaskFailed, words));
            }
            _ => {
                let words = "Atlas has not made the download link yet";
                return Err(Error::new(Kind::NotReady, words));
            }
        };
        let url = super::presigned::address("Atlas", url.expose().trim(), self.allow_http)?;
        Ok(Link {
            url,
            // The link is signed by itself; API credentials never go to the data host.
            headers: Vec::new(),
            expires: task.expires,
            mode,
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
        let mut clusters = clusters.map_err(listing)?;
        // A deleted cluster may have a living one of its name, whose snapshots are then asked for.
        clusters.sort_by_key(|cluster| !convert::is_deleted(cluster));
        for cluster in clusters {
            let instance = convert::instance(&cluster, convert::service_of(&cluster));
            instances.insert(cluster.name, instance);
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
        let listed = self.family(service).backups(service, &of.id).await;
        listed.map_err(|error| error.context(format!("listing the snapshots of {}", of.id)))
    }

    async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>> {
        let service = service_of(&of.instance)?;
        Ok(vec![RemoteFile {
            path: format!("{}.{}", of.shard.id, self.family(service).extension()),
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
        let found = self.family(service).find(service, of).await;
        found.map_err(|error| error.context("looking for an existing download"))
    }

    async fn create_task(&self, of: &ShardRef) -> Result<Task> {
        let service = service_of(&of.instance)?;
        let created = self.family(service).create(service, of).await;
        created.map_err(|error| settled(error).context("requesting the download"))
    }

    async fn poll_task(&self, of: &ShardRef, task: &Task) -> Result<Task> {
        let service = service_of(&of.instance)?;
        let looked = self.family(service).look(service, of, task).await;
        let looked = looked.map_err(|error| error.context("asking how the download stands"))?;
        let (task, _) = looked.ok_or_else(|| {
            // Right after a create that may be a list that lags behind.
            Error::new(Kind::NotFound, "Atlas does not know this download")
        })?;
        Ok(task)
    }

    async fn link(&self, of: &ShardRef, _file: &RemoteFile, task: Option<&Task>) -> Result<Link> {
        let task = task.ok_or_else(|| {
            Error::new(
                Kind::Internal,
                "a link to a snapshot was asked for without its download",
            )
        })?;
        let service = service_of(&of.instance)?;
        let family = self.family(service);
        let looked = family.look(service, of, task).await;
        let looked = looked.map_err(|error| error.context("asking for the download link"))?;
        self.link_of(looked.ok_or_else(gone)?, family.mode())
    }

    /// All members of a sharded cluster's snapshot are downloaded by one job: while it is made for
    /// one of them, the others wait to adopt it.
    fn lane(&self, of: &ShardRef) -> Option<String> {
        let service = convert::service(&of.instance)?;
        let shared = self.dedicated.is_shared(service, &of.instance.id);
        shared.then(|| format!("{}/{}", of.instance.id, of.backup.id))
    }

    fn permission(&self, step: Step) -> Option<&'static str> {
        Some(match step {
            Step::Instances => "Project Read Only",
            Step::Backups | Step::FindTask | Step::Link => "Project Backup Manager",
            Step::Create => "Project Backup Export Operator, or Project Owner for M2 and M5",
        })
    }

    fn cloud_time(&self) -> Option<Timestamp> {
        Some(self.client.api.now())
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

/// A create that was answered by a success without saying what was made.
fn unknown(why: &str) -> Error {
    Error::new(
        Kind::OutcomeUnknown,
        format!("Atlas accepted the request, but {why}; it is not sent again"),
    )
}

fn gone() -> Error {
    Error::new(Kind::Expired, "Atlas no longer holds this download")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::{AtlasAuth, ProviderKind};

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

    fn link_to(atlas: &Atlas, url: &str) -> Result<Link> {
        let task = Task {
            id: "r".into(),
            state: TaskState::Ready,
            percent: None,
            expires: None,
            message: None,
        };
        atlas.link_of((task, Some(Secret::new(url))), LinkMode::Once)
    }

    #[tokio::test]
    async fn links_are_https_unless_http_is_allowed() {
        let (strict, lenient) = (atlas(false), atlas(true));
        assert!(link_to(&strict, "https://data.example/s?sig=CANARY").is_ok());
        let plain = "http://data.example/s?sig=CANARY";
        assert!(link_to(&lenient, plain).is_ok());
        for (bad, word) in [
            (plain, "allow_http"),
            ("file:///CANARY", "http"),
            ("CANARY", "address"),
        ] {
            let error = link_to(&strict, bad).unwrap_err();
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
