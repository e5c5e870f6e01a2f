//! What each call answers: the lookups in the account. Downloads are made in `downloads.rs`. Errors
//! are those of "Atlas Administration API Error Codes" (mongodb.com/docs).

use serde_json::Value;

use super::answer::{ApiError, Flags, Reply};
use super::call::Call;
use super::dedicated::{self, Job};
use super::estate::{Cluster, Project, Snapshot, Tier, Topology};
use super::fields::Fields;
use super::service::Asked;
use super::tenant;
use super::{Estate, inventory};

/// The endpoints by which the backups of a cluster are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// Those of the shared tier.
    Tenant,
    /// Those of Flex clusters.
    Flex,
    /// Those of dedicated clusters.
    Cloud,
}

impl Asked<'_> {
    /// Does what `call` asks. `fields` is the body, read only by the calls that have one; `root` is
    /// the address of the API that was asked, for links.
    pub(super) fn reply(
        &self,
        call: Call,
        date: &str,
        root: &str,
        flags: Flags,
        fields: Result<Fields, ApiError>,
    ) -> Result<Reply, ApiError> {
        let estate = &mut *self.atlas.estate();
        match call {
            Call::Groups => {
                let groups = estate.projects.iter();
                let groups = groups.map(|project| inventory::group(project, root));
                Ok(Reply::Paged(groups.collect()))
            }
            Call::OrgClusters => {
                let groups = estate.projects.iter().map(inventory::org_group);
                Ok(Reply::Paged(groups.collect()))
            }
            Call::Group(g) => Ok(Reply::One(inventory::group(estate.project(&g)?, root))),
            Call::FlexClusters(g) => {
                let project = estate.project(&g)?;
                let clusters = project.clusters.iter();
                let clusters = clusters.filter(|c| c.tier == Tier::Flex);
                let clusters = clusters.map(|c| inventory::flex(project, c, root));
                Ok(Reply::Paged(clusters.collect()))
            }
            Call::FlexCluster(g, c) => {
                let (project, cluster) = estate.backed_up(&g, &c, Api::Flex)?;
                Ok(Reply::One(inventory::flex(project, cluster, root)))
            }
            Call::Clusters(g) => {
                let project = estate.project(&g)?;
                let clusters = project.clusters.iter();
                let clusters = clusters.filter(|c| c.tier != Tier::Flex);
                let clusters = clusters.filter(|c| !c.deleted || flags.with_deleted);
                let clusters = clusters.map(|c| inventory::cluster(project, c, date, root));
                Ok(Reply::Paged(clusters.collect()))
            }
            Call::Cluster(g, c) => {
                let (project, cluster) = estate.cluster(&g, &c)?;
                match cluster.tier {
                    Tier::Flex => return Err(only_flex(&c)),
                    _ if cluster.deleted => return Err(no_cluster(&g, &c)),
                    _ => {}
                }
                Ok(Reply::One(inventory::cluster(project, cluster, date, root)))
            }
            Call::TenantSnapshots(g, c) => {
                Ok(Reply::Whole(estate.snapshots(&g, &c, Api::Tenant, root)?))
            }
            Call::FlexSnapshots(g, c) => {
                Ok(Reply::Paged(estate.snapshots(&g, &c, Api::Flex, root)?))
            }
            Call::TenantSnapshot(g, c, s) => {
                let (project, cluster) = estate.backed_up(&g, &c, Api::Tenant)?;
                let snapshot = cluster.find(&s, "TENANT_SNAPSHOT_NOT_FOUND")?;
                Ok(Reply::One(tenant::snapshot(
                    project, cluster, snapshot, root,
                )))
            }
            Call::FlexSnapshot(g, c, s) => {
                let (project, cluster) = estate.backed_up(&g, &c, Api::Flex)?;
                let snapshot = cluster.find(&s, "SNAPSHOT_NOT_FOUND")?;
                Ok(Reply::One(tenant::snapshot(
                    project, cluster, snapshot, root,
                )))
            }
            Call::TenantDownload(g, c) => {
                self.start_restore(estate, &g, &c, Api::Tenant, fields?, root)
            }
            Call::FlexDownload(g, c) => {
                self.start_restore(estate, &g, &c, Api::Flex, fields?, root)
            }
            Call::TenantRestores(g, c) => Ok(Reply::Whole(self.restores(
                estate,
                &g,
                &c,
                Api::Tenant,
                root,
            )?)),
            Call::FlexRestores(g, c) => Ok(Reply::Paged(self.restores(
                estate,
                &g,
                &c,
                Api::Flex,
                root,
            )?)),
            Call::TenantRestore(g, c, r) => self.restore(estate, &g, &c, Api::Tenant, &r, root),
            Call::FlexRestore(g, c, r) => self.restore(estate, &g, &c, Api::Flex, &r, root),
            Call::Snapshots(g, c) => {
                let (project, cluster) = estate.dedicated(&g, &c, false)?;
                let snapshots = cluster.snapshots.iter();
                let documents = snapshots.map(|s| dedicated::snapshot(project, cluster, s, root));
                Ok(Reply::Paged(documents.collect()))
            }
            Call::ShardedSnapshots(g, c) => {
                let (project, cluster) = estate.dedicated(&g, &c, true)?;
                let snapshots = cluster.snapshots.iter();
                let documents = snapshots.map(|s| dedicated::snapshot(project, cluster, s, root));
                Ok(Reply::Whole(documents.collect()))
            }
            Call::Snapshot(g, c, s) => estate.cloud_snapshot(&g, &c, false, &s, root),
            Call::ShardedSnapshot(g, c, s) => estate.cloud_snapshot(&g, &c, true, &s, root),
            Call::RestoreJobs(g, c) => {
                estate.backed_up(&g, &c, Api::Cloud)?;
                let jobs = estate.jobs.iter().rev();
                let own = jobs.filter(|j| j.project_id == g && j.cluster == c);
                let host = &self.atlas.0.host;
                let documents = own.map(|job| job.document(self.now, &self.knobs, host, root));
                Ok(Reply::Paged(documents.collect()))
            }
            Call::CreateRestoreJob(g, c) => self.start_job(estate, &g, &c, fields?, root),
            Call::RestoreJob(g, c, j) => {
                let job = estate.job(&g, &c, &j)?;
                let host = &self.atlas.0.host;
                Ok(Reply::One(job.document(self.now, &self.knobs, host, root)))
            }
            Call::CancelRestoreJob(g, c, j) => {
                estate.job(&g, &c, &j)?.cancel(self.now, &self.atlas.0.host);
                Ok(Reply::Nothing)
            }
        }
    }
}

pub(super) fn missing(code: &str, what: &str, id: &str) -> ApiError {
    ApiError::new(
        404,
        code,
        format!("No {what} with ID {id} exists."),
        vec![id.into()],
    )
}

fn no_cluster(group: &str, name: &str) -> ApiError {
    ApiError::new(
        404,
        "CLUSTER_NOT_FOUND",
        format!("No cluster named {name} exists in group {group}."),
        vec![name.into(), group.into()],
    )
}

/// The answer of the endpoints for other clusters about a Flex one.
fn only_flex(name: &str) -> ApiError {
    let detail = format!("Flex cluster {name} cannot be used in the Cluster API.");
    let code = "CANNOT_USE_FLEX_CLUSTER_IN_CLUSTER_API";
    ApiError::new(400, code, detail, vec![name.into()])
}

impl Estate {
    fn project(&self, id: &str) -> Result<&Project, ApiError> {
        let is_id = id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_id {
            let detail = format!("An invalid group ID {id} was specified.");
            return Err(ApiError::new(
                404,
                "INVALID_GROUP_ID",
                detail,
                vec![id.into()],
            ));
        }
        let mut projects = self.projects.iter();
        projects
            .find(|project| project.id == id)
            .ok_or_else(|| missing("GROUP_NOT_FOUND", "group", id))
    }

    fn cluster(&self, group: &str, name: &str) -> Result<(&Project, &Cluster), ApiError> {
        let project = self.project(group)?;
        let mut clusters = project.clusters.iter();
        match clusters.find(|cluster| cluster.name == name) {
            Some(cluster) => Ok((project, cluster)),
            None => Err(no_cluster(group, name)),
        }
    }

    /// A cluster whose backups are reached by the endpoints of `api`.
    pub(super) fn backed_up(
        &self,
        group: &str,
        name: &str,
        api: Api,
    ) -> Result<(&Project, &Cluster), ApiError> {
        let (project, cluster) = self.cluster(group, name)?;
        let own = match cluster.tier {
            Tier::M0 => None,
            Tier::M2 | Tier::M5 => Some(Api::Tenant),
            Tier::Flex => Some(Api::Flex),
            Tier::M10 => Some(Api::Cloud),
        };
        if own == Some(api) {
            return Ok((project, cluster));
        }
        if own == Some(Api::Flex) {
            return Err(only_flex(name));
        }
        let (status, code, detail) = match api {
            Api::Flex => (
                400,
                "CANNOT_USE_NON_FLEX_CLUSTER_IN_FLEX_API",
                format!("Cannot use non-flex cluster {name} in the flex API."),
            ),
            Api::Tenant | Api::Cloud => (
                403,
                "FEATURE_UNSUPPORTED",
                format!("Cluster {name} does not support this feature."),
            ),
        };
        Err(ApiError::new(status, code, detail, vec![name.into()]))
    }

    /// A dedicated cluster that is sharded, or that is not.
    fn dedicated(
        &self,
        group: &str,
        name: &str,
        sharded: bool,
    ) -> Result<(&Project, &Cluster), ApiError> {
        let (project, cluster) = self.backed_up(group, name, Api::Cloud)?;
        if sharded == (cluster.topology != Topology::ReplicaSet) {
            return Ok((project, cluster));
        }
        let detail = format!("Cluster {name} is backed up by another endpoint.");
        let code = "INCORRECT_BACKUP_API_ENDPOINT";
        Err(ApiError::new(400, code, detail, vec![name.into()]))
    }

    fn cloud_snapshot(
        &self,
        group: &str,
        name: &str,
        sharded: bool,
        id: &str,
        root: &str,
    ) -> Result<Reply, ApiError> {
        let (project, cluster) = self.dedicated(group, name, sharded)?;
        let snapshot = cluster.find(id, "SNAPSHOT_NOT_FOUND")?;
        Ok(Reply::One(dedicated::snapshot(
            project, cluster, snapshot, root,
        )))
    }

    /// The snapshots of a cluster of the shared tier or Flex.
    fn snapshots(
        &self,
        group: &str,
        name: &str,
        api: Api,
        root: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let (project, cluster) = self.backed_up(group, name, api)?;
        let snapshots = cluster.snapshots.iter();
        let documents = snapshots.map(|s| tenant::snapshot(project, cluster, s, root));
        Ok(documents.collect())
    }

    fn job(&mut self, group: &str, cluster: &str, id: &str) -> Result<&mut Job, ApiError> {
        self.backed_up(group, cluster, Api::Cloud)?;
        self.jobs
            .iter_mut()
            .find(|job| job.id == id && job.project_id == group && job.cluster == cluster)
            .ok_or_else(|| missing("RESTORE_JOB_NOT_FOUND", "restore job", id))
    }
}

impl Cluster {
    pub(super) fn find(&self, snapshot_id: &str, code: &str) -> Result<&Snapshot, ApiError> {
        let mut snapshots = self.snapshots.iter();
        snapshots
            .find(|snapshot| snapshot.id == snapshot_id)
            .ok_or_else(|| missing(code, "snapshot", snapshot_id))
    }
}
