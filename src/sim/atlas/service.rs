//! From a request to its answer: the checks in the order the real service makes them, then the
//! account.

use std::collections::HashMap;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::{ACCEPT, CONTENT_TYPE, SERVER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::answer::{self, ApiError, Flags, Reply};
use super::call::{Call, Edition, Version};
use super::dedicated::{self, Job, Stage};
use super::estate::{Cluster, Project, Snapshot, Status};
use super::knobs::{Knobs, TenantApi};
use super::tenant::{self, Restore};
use super::{Atlas, Estate, inventory, lock, object_id, object_key};
use crate::clock::Clock;
use crate::sim::faults::{Fault, Injected};

/// Downloads a project may have at work at once.
const MOST_JOBS: usize = 20;
/// Longest request body read.
const MOST_BODY: usize = 64 * 1024;

impl Atlas {
    /// The service's paths.
    pub(in crate::sim) fn router(&self) -> Router {
        Router::new()
            .route("/api/oauth/token", post(token))
            .route("/api/oauth/revoke", post(revoke))
            .fallback(call)
            .with_state(self.clone())
    }
}

async fn token(State(atlas): State<Atlas>, headers: HeaderMap, body: bytes::Bytes) -> Response {
    let now = atlas.0.site.clock.now();
    atlas.0.keys.token(&headers, &body, now, &atlas.knobs())
}

async fn revoke(State(atlas): State<Atlas>, headers: HeaderMap, body: bytes::Bytes) -> Response {
    atlas.0.keys.revoke(&headers, &body)
}

async fn call(State(atlas): State<Atlas>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MOST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let asked = Asked {
        now: atlas.0.site.clock.now(),
        knobs: atlas.knobs(),
        atlas: &atlas,
    };
    let mut response = asked.answer(&request, &body);
    for (name, value) in [
        (SERVER, "mdbws"),
        (HeaderName::from_static("x-frame-options"), "DENY"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (
            HeaderName::from_static("strict-transport-security"),
            "max-age=31536000; includeSubdomains;",
        ),
    ] {
        answer::set(&mut response, name, value);
    }
    response
}

/// One request's moment: the time and the knobs stay the same throughout.
struct Asked<'a> {
    atlas: &'a Atlas,
    now: Timestamp,
    knobs: Knobs,
}

impl Asked<'_> {
    fn answer(&self, request: &Parts, body: &[u8]) -> Response {
        let faults = match request.extensions.get::<Injected>() {
            Some(injected) => injected.0.as_slice(),
            None => &[],
        };
        let keys = &self.atlas.0.keys;
        if let Some(challenge) = keys.challenge(request, faults, self.now, &self.knobs) {
            return challenge;
        }
        let (call, version) = match self.route(request) {
            Ok(routed) => routed,
            Err(error) => return error.into_response(),
        };
        let limit = self.knobs.limits.of(call.class());
        let left = lock(&self.atlas.0.buckets).take(call.class(), limit, self.now);
        let mut response = match left {
            Err(wait) => ApiError::rate_limited(request.uri.path(), wait, limit).into_response(),
            Ok(_) => self.carry_out(call, version, request, body, faults),
        };
        for (name, value) in [
            ("ratelimit-limit", limit.capacity),
            ("ratelimit-remaining", left.unwrap_or(0)),
        ] {
            let name = HeaderName::from_static(name);
            answer::set(&mut response, name, &value.to_string());
        }
        response
    }

    /// Which call it is and the shape of its answer.
    fn route(&self, request: &Parts) -> Result<(Call, Version), ApiError> {
        let (edition, call) = Call::parse(&request.method, request.uri.path())
            .ok_or_else(ApiError::no_such_resource)?;
        let served = match edition {
            Edition::V1 => self.knobs.v1,
            Edition::V2 => self.knobs.v2,
        };
        match self.knobs.tenant_api {
            _ if !served => return Err(ApiError::no_such_resource()),
            TenantApi::NotFound if call.is_tenant() => return Err(ApiError::no_such_resource()),
            TenantApi::Gone if call.is_tenant() => return Err(ApiError::version_gone()),
            _ => {}
        }
        let accept = header(&request.headers, ACCEPT);
        let version = call.version(edition, accept)?;
        Ok((call, version))
    }

    fn carry_out(
        &self,
        call: Call,
        version: Version,
        request: &Parts,
        body: &[u8],
        faults: &[Fault],
    ) -> Response {
        let base = &self.atlas.0.base;
        let root = format!("{base}{}", version.edition.path());
        let address = format!("{base}{}", request.uri.path());
        let query: HashMap<_, _> =
            url::form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        self.atlas.0.site.meter.call(call.kind());
        let injected = faults.iter().find_map(|fault| match fault {
            Fault::ApiError { status, code } => {
                let detail = "Refused by a simulated fault.".to_owned();
                Some(ApiError::new(*status, code, detail, Vec::new()))
            }
            _ => None,
        });
        let result = match injected {
            Some(error) => Err(error),
            None => Flags::parse(&query).and_then(|flags| {
                let fields = Fields::parse(&request.headers, body);
                Ok((self.reply(call, version.date, &root, fields)?, flags))
            }),
        };
        match result {
            Ok((reply, flags)) => answer::render(reply, version, flags, &address),
            Err(error) => error.into_response(),
        }
    }

    fn reply(
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

/// The members of a request's JSON body.
#[derive(Debug)]
struct Fields(Map<String, Value>);

impl Fields {
    /// Reads them; both the vendored and the plain media type are taken.
    fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Fields, ApiError> {
        let media = header(headers, CONTENT_TYPE).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        let is_json = media == "application/json"
            || (media.starts_with("application/vnd.atlas.") && media.ends_with("+json"));
        if !is_json {
            let detail = "Unsupported media type.".to_owned();
            return Err(ApiError::new(
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                detail,
                Vec::new(),
            ));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            _ => {
                let detail = "Received JSON is malformed.".to_owned();
                Err(ApiError::new(400, "MALFORMED_JSON", detail, Vec::new()))
            }
        }
    }

    /// Refuses fields that are not among `known`.
    fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(ApiError::attribute("INVALID_ATTRIBUTE", unknown)),
            None => Ok(()),
        }
    }

    fn text(&self, name: &str) -> Result<&str, ApiError> {
        match self.0.get(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(ApiError::attribute("INVALID_ATTRIBUTE", name)),
            None => Err(ApiError::attribute("MISSING_ATTRIBUTE", name)),
        }
    }
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
