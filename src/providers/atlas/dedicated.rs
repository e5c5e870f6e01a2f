//! Dedicated clusters (M10 and larger): a job takes minutes to make a link, which works once and for
//! an hour at most. A sharded cluster's snapshot is downloaded by one job, with a link for each of
//! its members; where Atlas refuses that, by a job for each member.
//!
//! State: the job last made for each sharded snapshot, behind a lock that is held while it is
//! made, so that its members do not have two made. The map of these and the set of clusters whose
//! members need jobs of their own are behind locks held for single looks and changes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Mutex as AsyncMutex;
use tracing::{debug, info};

use super::client::{Client, Question, Reply};
use super::cloud::{CloudSnapshot, Job, JobRequest, Seen, Wanted, adoptable};
use super::refusal::refused;
use super::versions::{Resource, Service};
use super::{Family, unknown};
use crate::error::{Kind, Result};
use crate::model::{Backup, Found, LinkMode, ShardRef, Task, TaskState};
use crate::secret::Secret;

/// The id of the job last made for a snapshot.
type Made = Arc<AsyncMutex<Option<String>>>;

/// The family of clusters with hosts of their own.
#[derive(Debug)]
pub(super) struct Dedicated {
    client: Arc<Client>,
    /// By cluster and snapshot.
    made: Mutex<HashMap<(String, String), Made>>,
    /// Clusters of whose snapshots Atlas downloads no more than a member at a time.
    apart: Mutex<HashSet<String>>,
}

impl Dedicated {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Dedicated {
            client,
            made: Mutex::default(),
            apart: Mutex::default(),
        }
    }

    /// Whether one job brings all members of a snapshot, as far as is known.
    pub(super) fn is_shared(&self, service: Service, cluster: &str) -> bool {
        service == Service::Sharded && !lock(&self.apart).contains(cluster)
    }

    /// The job `id` as it stands.
    async fn job(&self, service: Service, of: &ShardRef, id: &str) -> Result<Option<Job>> {
        let job = self.client.download(service, &of.instance.id, id).await?;
        Ok(job.map(|mut job: Job| {
            job.id = Some(id.to_owned());
            job
        }))
    }

    /// Has a job made for `snapshot`, which may be one member's.
    async fn request(&self, service: Service, of: &ShardRef, snapshot: &str) -> Result<Task> {
        let wish = JobRequest::download(snapshot);
        let reply = self.client.request(service, &of.instance.id, &wish);
        let answer = match reply.await? {
            Reply::Answer(answer) => answer,
            Reply::NotServed(answer) => return Err(refused(&answer)),
        };
        let job: Job = answer.json().map_err(|error| unknown(&error.to_string()))?;
        job.task(Wanted::of(of), Seen::AtWork, self.client.api.now())
            .ok_or_else(|| unknown("its answer names no job"))
    }

    /// The job `id`, if it still brings what `of` wants.
    async fn alive(&self, service: Service, of: &ShardRef, id: &str) -> Result<Option<Task>> {
        let wanted = Wanted::of(of);
        let job = self.job(service, of, id).await?;
        let task = job.filter(|job| job.is_for(wanted)).and_then(|job| {
            let now = self.client.api.now();
            job.task(wanted, Seen::Nothing, now)
        });
        Ok(task.filter(|task| matches!(task.state, TaskState::Running | TaskState::Ready)))
    }

    fn made(&self, of: &ShardRef) -> Made {
        let key = (of.instance.id.clone(), of.backup.id.clone());
        Arc::clone(lock(&self.made).entry(key).or_default())
    }

    /// A job for the whole snapshot of a sharded cluster, or for the member alone where Atlas
    /// refuses that in words that say nothing else.
    async fn request_sharded(&self, of: &ShardRef) -> Result<Task> {
        let (wanted, cluster) = (Wanted::of(of), &of.instance.id);
        let member = wanted.member.unwrap_or(wanted.snapshot);
        if !self.is_shared(Service::Sharded, cluster) {
            return self.request(Service::Sharded, of, member).await;
        }
        match self.request(Service::Sharded, of, wanted.snapshot).await {
            Err(refusal) if refusal.kind() == Kind::Protocol && member != wanted.snapshot => {
                info!(cluster, %refusal, "members are downloaded one by one");
                let made = self.request(Service::Sharded, of, member).await?;
                lock(&self.apart).insert(cluster.clone());
                Ok(made)
            }
            whole => whole,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Family for Dedicated {
    async fn backups(&self, service: Service, cluster: &str) -> Result<Vec<Backup>> {
        let mut budget = self.client.api.budget();
        let resource = Resource::Snapshots(service);
        let listed = self
            .client
            .list(resource, Some(cluster), &mut budget)
            .await?;
        let snapshots: Vec<CloudSnapshot> = listed.map_err(|answer| refused(&answer))?;
        let mut backups = Vec::with_capacity(snapshots.len());
        for mut snapshot in snapshots {
            if !snapshot.is_complete() {
                let (id, status) = (&snapshot.id, &snapshot.status);
                debug!(cluster, id, status, "snapshot is not complete");
                continue;
            }
            // The list need not tell the members.
            if service == Service::Sharded && !snapshot.has_members() {
                let question = Question {
                    resource: Resource::ShardedSnapshot,
                    cluster: Some(cluster),
                    item: Some(&snapshot.id),
                };
                let reply = self.client.ask(question, &[], None, &mut budget).await?;
                if let Reply::Answer(answer) = reply {
                    snapshot = answer.json()?;
                }
            }
            backups.push(snapshot.backup(cluster)?);
        }
        Ok(backups)
    }

    async fn find(&self, service: Service, of: &ShardRef) -> Result<Found> {
        let mut budget = self.client.api.budget();
        let listed = self.client.downloads(service, &of.instance.id, &mut budget);
        let Ok(jobs) = listed.await? else {
            return Ok(Found::CannotTell);
        };
        let now = self.client.api.now();
        Ok(match adoptable(&jobs, Wanted::of(of), now) {
            Some(task) => Found::Task(task),
            None => Found::Nothing,
        })
    }

    async fn create(&self, service: Service, of: &ShardRef) -> Result<Task> {
        if service != Service::Sharded {
            return self.request(service, of, &of.backup.id).await;
        }
        let made = self.made(of);
        let mut last = made.lock().await;
        if let Some(id) = last.as_deref()
            && let Some(task) = self.alive(service, of, id).await?
        {
            info!(
                cluster = of.instance.id,
                job = id,
                "shared with another member"
            );
            return Ok(task);
        }
        let task = self.request_sharded(of).await?;
        *last = Some(task.id.clone());
        Ok(task)
    }

    async fn look(
        &self,
        service: Service,
        of: &ShardRef,
        task: &Task,
    ) -> Result<Option<(Task, Option<Secret>)>> {
        let (wanted, now) = (Wanted::of(of), self.client.api.now());
        let Some(job) = self.job(service, of, &task.id).await? else {
            return Ok(None);
        };
        let looked = job.task(wanted, Seen::of(task), now);
        Ok(looked.map(|looked| (looked, job.link_to(wanted).cloned())))
    }

    fn mode(&self) -> LinkMode {
        LinkMode::Once
    }

    fn extension(&self) -> &'static str {
        "tar.gz"
    }
}
