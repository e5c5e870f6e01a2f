//! Making downloads and looking at them: the two effects that the bill counts, and what forbids
//! them.

use serde_json::Value;

use super::account::{Api, missing};
use super::answer::{ApiError, Reply};
use super::dedicated::{Job, Part, Stage};
use super::estate::{Cluster, Snapshot, Status, Topology};
use super::fields::Fields;
use super::host::{Delivery, Transfer};
use super::service::Asked;
use super::tenant::Restore;
use super::{Estate, object_id, object_key};
use crate::sim::content::Content;

/// Downloads a project may have at work at once.
const MOST_JOBS: usize = 20;

impl Asked<'_> {
    /// A download of a snapshot of the shared tier or Flex: an effect that the bill counts.
    pub(super) fn start_restore(
        &self,
        estate: &mut Estate,
        group: &str,
        cluster: &str,
        api: Api,
        fields: Fields,
        root: &str,
    ) -> Result<Reply, ApiError> {
        fields.only(&["snapshotId"])?;
        let snapshot_id = fields.text("snapshotId")?;
        self.check_role()?;
        let (project, cluster) = estate.backed_up(group, cluster, api)?;
        let code = match api {
            Api::Tenant => "TENANT_SNAPSHOT_NOT_FOUND",
            Api::Flex | Api::Cloud => "SNAPSHOT_NOT_FOUND",
        };
        let snapshot = cluster.find(snapshot_id, code)?;
        check_complete(snapshot)?;
        let working = |r: &&Restore| r.snapshot_id == snapshot_id && r.status(self.now).is_open();
        if estate.restores.iter().any(|r| working(&r)) {
            return Err(concurrent(snapshot_id));
        }
        let ready = self.now + self.knobs.task_time;
        let mut restore = Restore {
            id: self.new_id(estate.restores.len(), "restore"),
            project_id: project.id.clone(),
            cluster: cluster.name.clone(),
            snapshot_id: snapshot.id.clone(),
            snapshot_finished: snapshot.finished(),
            object: object_key(project, cluster, &snapshot.id, &cluster.name),
            scheduled: self.now,
            ready,
            expires: self.now + self.knobs.download_life,
            fails: snapshot.download_fails,
            flex: api == Api::Flex,
            link: None,
        };
        let (document, _) = self.shown(&mut restore, root);
        estate.restores.push(restore);
        self.atlas.0.site.meter.bill().tasks_created += 1;
        Ok(Reply::One(document))
    }

    /// All downloads of a cluster of the shared tier or Flex, newest first.
    pub(super) fn restores(
        &self,
        estate: &mut Estate,
        group: &str,
        cluster: &str,
        api: Api,
        root: &str,
    ) -> Result<Vec<Value>, ApiError> {
        estate.backed_up(group, cluster, api)?;
        let restores = estate.restores.iter_mut().rev();
        let own = restores.filter(|r| r.project_id == group && r.cluster == cluster);
        Ok(own.map(|restore| self.shown(restore, root).0).collect())
    }

    /// One of them.
    pub(super) fn restore(
        &self,
        estate: &mut Estate,
        group: &str,
        cluster: &str,
        api: Api,
        id: &str,
        root: &str,
    ) -> Result<Reply, ApiError> {
        estate.backed_up(group, cluster, api)?;
        let code = match api {
            Api::Tenant => "TENANT_RESTORE_NOT_FOUND",
            Api::Flex | Api::Cloud => "RESTORE_JOB_NOT_FOUND",
        };
        let mut restores = estate.restores.iter_mut();
        let restore = restores
            .find(|found| found.id == id && found.project_id == group && found.cluster == cluster)
            .ok_or_else(|| missing(code, "restore job", id))?;
        let (document, refreshed) = self.shown(restore, root);
        self.atlas.0.site.meter.bill().link_refreshes += u64::from(refreshed);
        Ok(Reply::One(document))
    }

    fn shown(&self, restore: &mut Restore, root: &str) -> (Value, bool) {
        restore.document(self.now, &self.knobs, &self.atlas.0.store, root)
    }

    /// A download of a dedicated cluster's snapshot: the other effect that the bill counts.
    pub(super) fn start_job(
        &self,
        estate: &mut Estate,
        group: &str,
        cluster: &str,
        fields: Fields,
        root: &str,
    ) -> Result<Reply, ApiError> {
        // Community clients send the targets too.
        fields.only(&[
            "deliveryType",
            "snapshotId",
            "targetClusterName",
            "targetGroupId",
        ])?;
        if fields.text("deliveryType")? != "download" {
            return Err(ApiError::attribute("INVALID_ENUM_VALUE", "deliveryType"));
        }
        self.check_role()?;
        let (project, cluster) = estate.backed_up(group, cluster, Api::Cloud)?;
        let asked = fields.text("snapshotId")?;
        let (snapshot, sets) = self.members(cluster, asked)?;
        check_complete(snapshot)?;
        if snapshot.encrypted {
            let detail = "Encrypted snapshots cannot be downloaded.".to_owned();
            let code = "CANNOT_DOWNLOAD_SNAPSHOT_WITH_ENCRYPTION";
            return Err(ApiError::new(400, code, detail, vec![asked.into()]));
        }
        let working = |job: &&Job| job.stage(self.now) == Stage::Working;
        let mut at_work = estate.jobs.iter().filter(working);
        if at_work.clone().any(|job| job.snapshot_id == asked) {
            return Err(concurrent(asked));
        }
        if at_work.nth(MOST_JOBS - 1).is_some() {
            let detail = "Too many snapshot downloads are in progress.".to_owned();
            let code = "TOO_MANY_SNAPSHOT_DOWNLOADS";
            return Err(ApiError::new(400, code, detail, Vec::new()));
        }
        let id = self.new_id(estate.jobs.len(), "job");
        let ready = self.now + self.knobs.task_time;
        let expires = ready + self.knobs.delivery_life;
        let whole_cluster = cluster.topology != Topology::ReplicaSet && asked == snapshot.id;
        let parts = sets.into_iter().map(|replica_set| {
            let member = snapshot.member_id(&replica_set);
            let archive = match whole_cluster {
                true => &member,
                false => asked,
            };
            let secret = object_id(0x5d03_a6a3, &["link", &id, &replica_set]);
            self.atlas.0.site.meter.hidden(&secret);
            let path = format!("{secret}/restore-{archive}.tar.gz");
            let object = object_key(project, cluster, &snapshot.id, &replica_set);
            self.atlas.0.host.add(Delivery {
                path: path.clone(),
                label: format!("{id}/{replica_set}"),
                content: self.packed(&object),
                object,
                modified: ready,
                ready,
                expires,
                transfer: Transfer::None,
            });
            Part { replica_set, path }
        });
        let job = Job {
            parts: parts.collect(),
            id: id.clone(),
            project_id: project.id.clone(),
            cluster: cluster.name.clone(),
            snapshot_id: asked.to_owned(),
            snapshot_finished: snapshot.finished(),
            whole_cluster,
            created: self.now,
            ready,
            expires,
            fails: snapshot.download_fails,
            cancelled: false,
        };
        let document = job.document(self.now, &self.knobs, &self.atlas.0.host, root);
        estate.jobs.push(job);
        self.atlas.0.site.meter.bill().tasks_created += 1;
        Ok(Reply::One(document))
    }

    /// The snapshot that a job is asked for, and the replica sets that it will bring: all of them,
    /// or the one whose own id it is.
    fn members<'c>(
        &self,
        cluster: &'c Cluster,
        asked: &str,
    ) -> Result<(&'c Snapshot, Vec<String>), ApiError> {
        let sets = cluster.replica_sets();
        if cluster.topology == Topology::ReplicaSet {
            return Ok((cluster.find(asked, "SNAPSHOT_NOT_FOUND")?, sets));
        }
        let of_member = cluster.snapshots.iter().find_map(|snapshot| {
            let mut sets = sets.iter();
            let set = sets.find(|set| snapshot.member_id(set) == asked)?;
            Some((snapshot, vec![set.clone()]))
        });
        match (of_member, self.knobs.component_jobs) {
            (Some(found), false) => Ok(found),
            (None, false) => {
                cluster.find(asked, "SNAPSHOT_NOT_FOUND")?;
                let detail = "A sharded cluster's snapshot is downloaded member by member.";
                let code = "INCORRECT_BACKUP_API_ENDPOINT";
                Err(ApiError::new(400, code, detail.to_owned(), Vec::new()))
            }
            (_, true) => Ok((cluster.find(asked, "SNAPSHOT_NOT_FOUND")?, sets)),
        }
    }

    /// What a new job packs of `object`.
    fn packed(&self, object: &str) -> Content {
        let content = self.atlas.0.store.content(object);
        let content = content.unwrap_or_else(|| Content::bytes(""));
        let before = self.atlas.0.host.packed(object).len() as u64;
        match self.knobs.restore_host.fresh_bytes && before > 0 {
            true => Content::noise(before, content.size() + before),
            false => content,
        }
    }

    fn new_id(&self, serial: usize, kind: &str) -> String {
        object_id(self.now.as_second() as u32, &[kind, &serial.to_string()])
    }

    fn check_role(&self) -> Result<(), ApiError> {
        if self.knobs.may_download {
            return Ok(());
        }
        let detail = "The currently logged in user does not have the user role.".to_owned();
        Err(ApiError::new(401, "USER_UNAUTHORIZED", detail, Vec::new()))
    }
}

impl Status {
    fn is_open(self) -> bool {
        matches!(self, Status::Pending | Status::Queued | Status::Running)
    }
}

fn check_complete(snapshot: &Snapshot) -> Result<(), ApiError> {
    if snapshot.status == Status::Completed {
        return Ok(());
    }
    let detail = format!("Snapshot {} is not complete.", snapshot.id);
    let parameters = vec![snapshot.id.as_str().into()];
    Err(ApiError::new(
        409,
        "CANNOT_DOWNLOAD_INCOMPLETE_SNAPSHOT",
        detail,
        parameters,
    ))
}

fn concurrent(snapshot_id: &str) -> ApiError {
    let detail = format!("Snapshot {snapshot_id} is already being downloaded.");
    let code = "CANNOT_DOWNLOAD_SNAPSHOT_CONCURRENTLY";
    ApiError::new(400, code, detail, vec![snapshot_id.into()])
}
