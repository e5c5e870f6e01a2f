//! What each call does with the account: the lookups, and the two effects that the bill counts.
//! Errors are those of "Atlas Administration API Error Codes" (mongodb.com/docs).

use serde_json::Value;

use super::answer::{ApiError, Reply};
use super::call::Call;
use super::dedicated::{self, Job, Stage};
use super::estate::{Cluster, Project, Snapshot, Status};
use super::fields::Fields;
use super::service::Asked;
use super::tenant::{self, Restore};
use super::{Estate, inventory, object_id, object_key};

/// Downloads a project may have at work at once.
const MOST_JOBS: usize = 20;

impl Asked<'_> {
    /// Does what `call` asks. `fields` is the body, read only by the calls that have one; `root` is
    /// the address of the API that was asked, for links.
    pub(super) fn reply(
        &self,
        call: Call,
        date: &str,
        root: &str,
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
                estate.project(&g)?;
                Ok(Reply::Paged(Vec::new()))
            }
            Call::Clusters(g) => {
                let project = estate.project(&g)?;
                let clusters = project.clusters.iter();
                let clusters = clusters.map(|c| inventory::cluster(project, c, date, root));
                Ok(Reply::Paged(clusters.collect()))
            }
            Call::Cluster(g, c) => {
                let (project, cluster) = estate.cluster(&g, &c)?;
                Ok(Reply::One(inventory::cluster(project, cluster, date, root)))
            }
            Call::TenantSnapshots(g, c) => {
                let (project, cluster) = estate.backed_up(&g, &c, true)?;
                let snapshots = cluster.snapshots.iter();
                let documents = snapshots.map(|s| tenant::snapshot(project, cluster, s, root));
                Ok(Reply::Whole(documents.collect()))
            }
            Call::TenantSnapshot(g, c, s) => {
                let (project, cluster) = estate.backed_up(&g, &c, true)?;
                let snapshot = cluster.find(&s, "TENANT_SNAPSHOT_NOT_FOUND")?;
                Ok(Reply::One(tenant::snapshot(
                    project, cluster, snapshot, root,
                )))
            }
            Call::TenantDownload(g, c) => {
                let fields = fields?;
                fields.only(&["snapshotId"])?;
                self.start_restore(estate, &g, &c, fields.text("snapshotId")?, root)
            }
            Call::TenantRestores(g, c) => {
                estate.backed_up(&g, &c, true)?;
                let restores = estate.restores.iter_mut().rev();
                let own = restores.filter(|r| r.project_id == g && r.cluster == c);
                let documents = own.map(|restore| self.restore(restore, root).0);
                Ok(Reply::Whole(documents.collect()))
            }
            Call::TenantRestore(g, c, r) => {
                estate.backed_up(&g, &c, true)?;
                let mut restores = estate.restores.iter_mut();
                let restore = restores
                    .find(|found| found.id == r && found.project_id == g && found.cluster == c)
                    .ok_or_else(|| missing("TENANT_RESTORE_NOT_FOUND", "restore job", &r))?;
                let (document, refreshed) = self.restore(restore, root);
                self.atlas.0.site.meter.bill().link_refreshes += u64::from(refreshed);
                Ok(Reply::One(document))
            }
            Call::Snapshots(g, c) => {
                let (project, cluster) = estate.backed_up(&g, &c, false)?;
                let snapshots = cluster.snapshots.iter();
                let documents = snapshots.map(|s| dedicated::snapshot(project, cluster, s, root));
                Ok(Reply::Paged(documents.collect()))
            }
            Call::Snapshot(g, c, s) => {
                let (project, cluster) = estate.backed_up(&g, &c, false)?;
                let snapshot = cluster.find(&s, "SNAPSHOT_NOT_FOUND")?;
                Ok(Reply::One(dedicated::snapshot(
                    project, cluster, snapshot, root,
                )))
            }
            Call::RestoreJobs(g, c) => {
                estate.backed_up(&g, &c, false)?;
                let jobs = estate.jobs.iter_mut().rev();
                let own = jobs.filter(|j| j.project_id == g && j.cluster == c);
                let store = &self.atlas.0.store;
                let documents = own.map(|job| job.document(self.now, store, root));
                Ok(Reply::Paged(documents.collect()))
            }
            Call::CreateRestoreJob(g, c) => self.start_job(estate, &g, &c, fields?, root),
            Call::RestoreJob(g, c, j) => {
                let job = estate.job(&g, &c, &j)?;
                let document = job.document(self.now, &self.atlas.0.store, root);
                Ok(Reply::One(document))
            }
            Call::CancelRestoreJob(g, c, j) => {
                estate.job(&g, &c, &j)?.cancel(self.now);
                Ok(Reply::Nothing)
            }
        }
    }

    fn restore(&self, restore: &mut Restore, root: &str) -> (Value, bool) {
        restore.document(self.now, &self.knobs, &self.atlas.0.store, root)
    }

    /// The shared tier's download: the effect that the bill counts.
    fn start_restore(
        &self,
        estate: &mut Estate,
        group: &str,
        cluster: &str,
        snapshot_id: &str,
        root: &str,
    ) -> Result<Reply, ApiError> {
        self.check_role()?;
        let (project, cluster) = estate.backed_up(group, cluster, true)?;
        let snapshot = cluster.find(snapshot_id, "TENANT_SNAPSHOT_NOT_FOUND")?;
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
            object: object_key(project, cluster, &snapshot.id),
            scheduled: self.now,
            ready,
            expires: self.now + self.knobs.download_life,
            fails: snapshot.download_fails,
            link: None,
        };
        let (document, _) = self.restore(&mut restore, root);
        estate.restores.push(restore);
        self.atlas.0.site.meter.bill().tasks_created += 1;
        Ok(Reply::One(document))
    }

    /// The dedicated clusters' download: the other effect that the bill counts.
    fn start_job(
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
        let (project, cluster) = estate.backed_up(group, cluster, false)?;
        let snapshot = cluster.find(fields.text("snapshotId")?, "SNAPSHOT_NOT_FOUND")?;
        check_complete(snapshot)?;
        let working = |job: &&Job| job.stage(self.now) == Stage::Working;
        let mut at_work = estate.jobs.iter().filter(working);
        if at_work.clone().any(|job| job.snapshot_id == snapshot.id) {
            return Err(concurrent(&snapshot.id));
        }
        if at_work.nth(MOST_JOBS - 1).is_some() {
            let detail = "Too many snapshot downloads are in progress.".to_owned();
            return Err(ApiError::new(
                400,
                "TOO_MANY_SNAPSHOT_DOWNLOADS",
                detail,
                Vec::new(),
            ));
        }
        let ready = self.now + self.knobs.task_time;
        let mut job = Job {
            id: self.new_id(estate.jobs.len(), "job"),
            project_id: project.id.clone(),
            cluster: cluster.name.clone(),
            snapshot_id: snapshot.id.clone(),
            snapshot_finished: snapshot.finished(),
            object: object_key(project, cluster, &snapshot.id),
            created: self.now,
            ready,
            expires: ready + self.knobs.delivery_life,
            fails: snapshot.download_fails,
            cancelled: false,
            link: None,
        };
        let document = job.document(self.now, &self.atlas.0.store, root);
        estate.jobs.push(job);
        self.atlas.0.site.meter.bill().tasks_created += 1;
        Ok(Reply::One(document))
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

fn missing(code: &str, what: &str, id: &str) -> ApiError {
    ApiError::new(
        404,
        code,
        format!("No {what} with ID {id} exists."),
        vec![id.into()],
    )
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
            None => Err(ApiError::new(
                404,
                "CLUSTER_NOT_FOUND",
                format!("No cluster named {name} exists in group {group}."),
                vec![name.into(), group.into()],
            )),
        }
    }

    /// A cluster whose backups are reached by the shared tier's endpoints, or by the others.
    fn backed_up(
        &self,
        group: &str,
        name: &str,
        shared: bool,
    ) -> Result<(&Project, &Cluster), ApiError> {
        let (project, cluster) = self.cluster(group, name)?;
        if cluster.tier.has_backups() && cluster.tier.is_shared() == shared {
            return Ok((project, cluster));
        }
        let detail = format!("Cluster {name} does not support this feature.");
        Err(ApiError::new(
            403,
            "FEATURE_UNSUPPORTED",
            detail,
            vec![name.into()],
        ))
    }

    fn job(&mut self, group: &str, cluster: &str, id: &str) -> Result<&mut Job, ApiError> {
        self.backed_up(group, cluster, false)?;
        self.jobs
            .iter_mut()
            .find(|job| job.id == id && job.project_id == group && job.cluster == cluster)
            .ok_or_else(|| missing("RESTORE_JOB_NOT_FOUND", "restore job", id))
    }
}

impl Cluster {
    fn find(&self, snapshot_id: &str, code: &str) -> Result<&Snapshot, ApiError> {
        let mut snapshots = self.snapshots.iter();
        snapshots
            .find(|snapshot| snapshot.id == snapshot_id)
            .ok_or_else(|| missing(code, "snapshot", snapshot_id))
    }
}
