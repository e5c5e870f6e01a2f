//! Download tasks: found, created, started again, followed, linked.
//!
//! An instance has one task at a time, and one that failed blocks it until it is started again. That
//! is done only when the service says that it stands in the way: a failed task of long ago may be
//! listed for ever.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info};

use super::actions::Action;
use super::bucket::Bucket;
use super::client::{Failure, Page, Parameters};
use super::naming::Naming;
use super::tasks::Wanted;
use super::{Aliyun, convert, fees, gone, refusal, tasks, wire};
use crate::config::ArchiveFormat;
use crate::error::{Error, Kind, Result};
use crate::model::{Link, RemoteFile, ShardRef, Task, TaskState};
use crate::providers::http::Budget;

/// How often one failed task is started again, by this process. Failed tasks are free, so another
/// try costs nothing, but data that cannot be converted fails for ever.
const MOST_RETRIES: u32 = 3;

/// How often a link is asked for that the service has not made yet.
const LINK_PAUSE: Duration = Duration::from_secs(1);

impl Aliyun {
    /// What a task for `of` is to make.
    pub(super) fn wanted(&self, of: &ShardRef) -> Wanted {
        let whole = convert::cluster_set(of);
        let sets = [convert::backup_set(&of.shard)].into_iter().chain(whole);
        Wanted {
            sets: sets.map(str::to_owned).collect(),
            folder: self.bucket.as_ref().map(|bucket| bucket.folder(of)),
        }
    }

    /// The download tasks of the backup set of `of`.
    pub(super) async fn tasks_of_set(
        &self,
        of: &ShardRef,
        budget: &mut Budget,
    ) -> Result<Vec<wire::DownloadTask>> {
        let mut refused = None;
        let namings = self.namings.of(of);
        for naming in &namings {
            let mut parameters = naming.place(of);
            parameters.push(("BackupSetId", naming.set(of)));
            match self.tasks(&parameters, budget).await {
                Ok(listed) if listed.is_empty() => refused = Some(None),
                Ok(listed) => {
                    self.namings.learn(of, *naming);
                    return Ok(listed);
                }
                Err(Failure::Refused(refusal)) if refusal.may_be_misnamed() => {
                    refused.get_or_insert(Some(refusal));
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        match refused.flatten() {
            // Not once was the question understood.
            Some(refusal) => Err(refusal.error()),
            None => Ok(Vec::new()),
        }
    }

    /// All download tasks of the instance of `of`, of every shard, each with the parameters that name
    /// its place.
    async fn tasks_of_instance(
        &self,
        of: &ShardRef,
        budget: &mut Budget,
    ) -> Result<Vec<(Parameters, wire::DownloadTask)>> {
        let mut places: Vec<Parameters> = Vec::new();
        for naming in self.namings.of(of) {
            match naming {
                Naming::Instance | Naming::Cluster => places.push(naming.place(of)),
                Naming::Shard => places.extend(of.backup.shards.iter().map(|shard| {
                    let shard = shard.clone();
                    naming.place(&ShardRef {
                        shard,
                        ..of.clone()
                    })
                })),
            }
        }
        let mut all = Vec::new();
        let mut refused = None;
        for place in &places {
            match self.tasks(place, budget).await {
                Ok(listed) => all.extend(listed.into_iter().map(|task| (place.clone(), task))),
                Err(Failure::Refused(refusal)) if refusal.may_be_misnamed() => {
                    refused = Some(refusal)
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        match refused {
            Some(refusal) if places.len() == 1 => Err(refusal.error()),
            _ => Ok(all),
        }
    }

    /// The download tasks that `parameters` ask for.
    async fn tasks(
        &self,
        parameters: &Parameters,
        budget: &mut Budget,
    ) -> Result<Vec<wire::DownloadTask>, Failure> {
        let read = |answer: wire::Data<wire::Tasks>| {
            let tasks = answer.data.unwrap_or_default();
            Page {
                items: Some(tasks.content.unwrap_or_default()),
                total: tasks.total_elements,
            }
        };
        let action = Action::DescribeDownloadTask;
        let listed = self
            .client
            .list(action, parameters, "CurrentPage", budget, read);
        match listed.await {
            Err(Failure::Refused(refusal)) if refusal.is_unknown_task() => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// An error if the backup cannot be converted now. Asks only what is free.
    async fn check_convertible(&self, of: &ShardRef, budget: &mut Budget) -> Result<()> {
        let unsupported = |reason: String| Error::new(Kind::Unsupported, reason);
        convert::check(&of.shard)?;
        let attributes = self.attributes(&of.instance, budget).await?;
        let obstacle = convert::lasting_obstacle(&attributes);
        if let Some(reason) = obstacle.or_else(|| convert::passing_obstacle(&attributes)) {
            return Err(unsupported(reason));
        }
        // For whom to ask about a shard is not documented.
        if convert::is_sharded(&of.instance) {
            return Ok(());
        }
        let action = Action::DescribeDownloadSupport;
        let place = Naming::Instance.place(of);
        let answer = self.client.ask(action, &place, budget).await;
        match answer {
            Ok(wire::Support {
                supported: Some(false),
            }) => Err(unsupported(
                "Alibaba Cloud does not offer downloads for this instance".to_owned(),
            )),
            Err(Failure::Refused(refusal)) if refusal.is_forbidden() => Err(refusal.error()),
            Ok(_) => Ok(()),
            // It is only asked for a better reason than the refusal of the task would give.
            Err(failure) => {
                debug!(error = %Error::from(failure), "support for downloads is not known");
                Ok(())
            }
        }
    }

    /// The task that converts a backup: a new one, or the failed one started again.
    pub(super) async fn created(&self, of: &ShardRef, budget: &mut Budget) -> Result<Task> {
        let checked = self.check_convertible(of, budget).await;
        checked.map_err(without_effect)?;
        // The service would refuse, too; this way it is not even asked.
        let listed = self.tasks_of_instance(of, budget).await;
        let listed = listed.map_err(without_effect)?.into_iter();
        let listed: Vec<_> = listed.map(|(_, task)| task).collect();
        if let Some(other) = tasks::under_way(&listed) {
            return Err(busy(other));
        }
        let mut first = None;
        for naming in self.namings.of(of) {
            match self.convert(of, naming, budget).await {
                Ok(task) => {
                    self.namings.learn(of, naming);
                    return Ok(task);
                }
                Err(Failure::Refused(refusal)) if refusal.is(refusal::BUSY) => {
                    return self.unblock(of, refusal.error(), budget).await;
                }
                // Another way to name it may be the one that the service wants.
                Err(Failure::Refused(refusal)) if refusal.may_be_misnamed() => {
                    first.get_or_insert(refusal);
                }
                Err(Failure::Refused(refusal)) => return Err(without_effect(refusal.error())),
                Err(Failure::Failed(error)) => return Err(error),
            }
        }
        Err(match first {
            Some(refusal) => without_effect(refusal.error()),
            None => Error::new(Kind::Internal, "a shard has no name"),
        })
    }

    /// Asks for the conversion, which is what costs money.
    async fn convert(
        &self,
        of: &ShardRef,
        naming: Naming,
        budget: &mut Budget,
    ) -> Result<Task, Failure> {
        let zstd = self.format == ArchiveFormat::TarZst;
        let mut parameters = naming.place(of);
        parameters.extend([
            ("BakSetId", naming.set(of)),
            ("BakSetType", "full".to_owned()),
            ("FormatType", "bson".to_owned()),
            ("UseZstd", zstd.to_string()),
            ("IsCluster", convert::is_sharded(&of.instance).to_string()),
            ("AdminDatabase", "admin".to_owned()),
            ("PrimaryKeyTypeOnly", "false".to_owned()),
        ]);
        match &self.bucket {
            None => parameters.push(("TargetType", "URL".to_owned())),
            Some(bucket) => parameters.extend([
                ("TargetType", "OSS".to_owned()),
                ("TargetBucket", bucket.config.bucket.clone()),
                ("TargetOssRegion", bucket.config.region.clone()),
                ("TargetPath", bucket.folder(of)),
            ]),
        }
        let size = convert::set_size(&of.shard);
        parameters.extend(size.map(|size| ("BakSetSize", size.to_owned())));
        let action = Action::CreateDownload;
        let answer = self.client.ask(action, &parameters, budget);
        let answer: wire::Data<wire::DownloadTask> = answer.await.map_err(|failure| {
            match failure {
                // The answer is one, but not one that can be read.
                Failure::Failed(error) if error.kind() == Kind::Protocol => {
                    Failure::Failed(unknown(&error.to_string()))
                }
                other => other,
            }
        })?;
        let task = answer.data.as_ref().and_then(tasks::task);
        let task = task.ok_or_else(|| Failure::Failed(unknown("its answer names no task")))?;
        let fee = fees::CONVERSION;
        info!(
            task = task.id,
            usd_per_gb = fee.usd_per_gb,
            source = fee.source,
            "a conversion was asked for; it is billed if it succeeds"
        );
        Ok(task)
    }

    /// What blocks the instance is waited for, or started again if it has failed.
    async fn unblock(&self, of: &ShardRef, refused: Error, budget: &mut Budget) -> Result<Task> {
        let listed = self.tasks_of_instance(of, budget).await;
        let (places, listed): (Vec<_>, Vec<_>) =
            listed.map_err(without_effect)?.into_iter().unzip();
        if let Some(other) = tasks::under_way(&listed) {
            return Err(busy(other));
        }
        let Some(at) = tasks::failed(&listed) else {
            return Err(refused);
        };
        let failed = &listed[at];
        let id = failed.task_id.as_deref().unwrap_or_default();
        let again = self.retry(places[at].clone(), id, budget).await;
        again.map_err(|error| {
            error.context(format!(
                "starting the failed {} again",
                tasks::described(failed)
            ))
        })?;
        let wanted = self.wanted(of);
        if !wanted.is(failed) {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "the failed {} blocked its instance and was started again",
                    tasks::described(failed)
                ),
            ));
        }
        let listed = self.tasks_of_set(of, budget).await;
        let again = tasks::adoptable(&listed.unwrap_or_default(), &wanted);
        let again = again.filter(|task| task.state != TaskState::Expired);
        Ok(again.unwrap_or_else(|| Task {
            id: id.to_owned(),
            state: TaskState::Queued,
            percent: None,
            expires: None,
            message: None,
        }))
    }

    /// Starts the failed task `id` at `place` again, unless that was done too often already.
    async fn retry(&self, place: Parameters, id: &str, budget: &mut Budget) -> Result<()> {
        let times = {
            let mut retried = self.retried.lock().unwrap_or_else(PoisonError::into_inner);
            let times = retried.entry(id.to_owned()).or_default();
            *times += 1;
            *times
        };
        if times > MOST_RETRIES {
            return Err(Error::new(
                Kind::TaskFailed,
                format!(
                    "it failed {times} times; nothing else can be converted until Alibaba Cloud's support has removed it"
                ),
            ));
        }
        let mut parameters = place;
        parameters.push(("TaskId", id.to_owned()));
        let action = Action::RetryDownloadTask;
        let answer = self.client.ask(action, &parameters, budget).await;
        let _: serde::de::IgnoredAny = answer.map_err(|failure| without_effect(failure.into()))?;
        info!(task = id, times, "a failed download task was started again");
        Ok(())
    }

    /// What lies in the own bucket for `of`, or the `archive` that a task has to write first. What is
    /// still being written, or was left by a task that failed, does not count.
    pub(super) async fn written(
        &self,
        of: &ShardRef,
        bucket: &Bucket,
        archive: RemoteFile,
    ) -> Result<Vec<RemoteFile>> {
        let objects = bucket.objects(of, &mut bucket.budget()).await?;
        if objects.is_empty() {
            return Ok(vec![archive]);
        }
        let wanted = self.wanted(of);
        let mut budget = self.client.api.budget();
        let listed = self.tasks_of_set(of, &mut budget).await?;
        let best = tasks::adoptable(&listed, &wanted).map(|task| task.state);
        let failed = tasks::failed(&listed).is_some_and(|at| wanted.is(&listed[at]));
        Ok(match best {
            Some(TaskState::Queued | TaskState::Running) => vec![archive],
            None if failed => vec![archive],
            _ => convert::written(&archive, objects),
        })
    }

    /// The link to what a task wrote into the own bucket.
    async fn bucket_link(&self, of: &ShardRef, bucket: &Bucket) -> Result<Link> {
        let objects = bucket.objects(of, &mut bucket.budget()).await?;
        match objects.as_slice() {
            [] => Err(gone()),
            [object] => bucket.link(&object.key),
            several => Err(Error::new(
                Kind::Changed,
                format!(
                    "the backup was written as {} files instead of one: list its directory again",
                    several.len()
                ),
            )),
        }
    }

    /// The link to what a task made. The first one starts the countdown to its deletion.
    pub(super) async fn task_link(
        &self,
        of: &ShardRef,
        task: &Task,
        budget: &mut Budget,
    ) -> Result<Link> {
        if let Some(bucket) = &self.bucket {
            return self.bucket_link(of, bucket).await;
        }
        let mut parameters = vec![
            ("RegionCode", convert::region(&of.instance)),
            ("TaskId", task.id.clone()),
            ("Duration", self.link_duration.as_secs().to_string()),
        ];
        if convert::is_sharded(&of.instance) {
            parameters.push(("ClusterName", of.instance.id.clone()));
        }
        let action = Action::DescribeDownloadBackupSetStorageInfo;
        let answer = loop {
            let answer = self.client.ask(action, &parameters, budget).await;
            let storage = answer
                .map(|wire::Data { data }: wire::Data<wire::Storage>| data.unwrap_or_default());
            // What was made a moment ago may not have its link yet.
            match storage {
                Ok(none) if none.is_empty() && budget.afford(LINK_PAUSE) => sleep(LINK_PAUSE).await,
                storage => break storage,
            }
        };
        match answer {
            Ok(storage) => tasks::storage_link(storage, self.network, self.allow_http),
            Err(Failure::Refused(refusal)) if !refusal.is_forbidden() => {
                // Which words mean "gone" is not documented; where the task stands is.
                match self.polled(of, task, budget).await {
                    Ok(now) => Err(match now.state {
                        TaskState::Ready if !refusal.is_unknown_task() => refusal.error(),
                        TaskState::Ready | TaskState::Expired => gone(),
                        TaskState::Queued | TaskState::Running | TaskState::Failed => {
                            Error::new(Kind::NotReady, refusal.error().to_string())
                        }
                    }),
                    Err(error) if error.kind() == Kind::NotFound => Err(gone()),
                    Err(error) => Err(error),
                }
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Where `task` stands by the listing. [`Kind::NotFound`] when it is not listed.
    pub(super) async fn polled(
        &self,
        of: &ShardRef,
        task: &Task,
        budget: &mut Budget,
    ) -> Result<Task> {
        let wanted = self.wanted(of);
        let listed = self.tasks_of_set(of, budget).await?;
        let same = |found: &&wire::DownloadTask| found.task_id.as_deref() == Some(&*task.id);
        let found = listed.iter().find(same).and_then(tasks::task);
        // A task that was started again may have got a new id.
        let found = found.or_else(|| tasks::adoptable(&listed, &wanted));
        found.ok_or_else(|| Error::new(Kind::NotFound, "the download task is no longer listed"))
    }
}

/// An error met where surely nothing was created, in a kind that says so.
fn without_effect(error: Error) -> Error {
    let kind = match error.kind() {
        Kind::Unavailable => Kind::Unreachable,
        Kind::Protocol | Kind::Environment => Kind::TaskFailed,
        _ => return error,
    };
    Error::new(kind, error.to_string())
}

fn unknown(why: &str) -> Error {
    Error::new(
        Kind::OutcomeUnknown,
        format!("Alibaba Cloud accepted the request, but {why}; it is not sent again"),
    )
}

fn busy(other: &wire::DownloadTask) -> Error {
    Error::new(
        Kind::Busy,
        format!(
            "an instance has one download task at a time: waiting for {}",
            tasks::described(other)
        ),
    )
}
