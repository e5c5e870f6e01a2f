//! The service for download tasks (API version 2021-01-01): one task per instance at a time, of
//! which a failed one blocks too; what a task made goes with its first link or after three days.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Asked;
use super::dds::need;
use super::estate::{Backup, Disk};
use super::knobs::AnotherLink;
use super::oss::{Network, Place};
use super::rpc::{Call, Refusal};

const BUCKET: &str = "dbs-1234567890123456-cn-hangzhou-sim";

/// A download task.
#[derive(Debug, Clone)]
pub(super) struct Task {
    id: String,
    /// Id of the whole instance: tasks of one exclude each other.
    instance: String,
    /// Id of the instance, or of the shard.
    member: String,
    set: String,
    created: Timestamp,
    ends: Timestamp,
    failed: bool,
    /// When what it made is deleted, once a link was made.
    gone: Option<Timestamp>,
    place: Place,
    /// The folder of the account's bucket that it writes into.
    folder: Option<String>,
}

impl Task {
    /// A task that began at `created`.
    pub(super) fn new(
        number: usize,
        instance: &str,
        member: &str,
        set: &str,
        created: Timestamp,
        ends: Timestamp,
    ) -> Self {
        let id = format!("dt-sim{number:05}");
        Task {
            instance: instance.to_owned(),
            member: member.to_owned(),
            set: set.to_owned(),
            created,
            ends,
            failed: false,
            gone: None,
            folder: None,
            place: Place {
                bucket: BUCKET.to_owned(),
                key: format!("{id}/dbs_target_file_path/{member}_{set}.tar.gz"),
            },
            id,
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// It, to fail in the end.
    pub(super) fn failing(self) -> Self {
        Task {
            failed: true,
            ..self
        }
    }

    fn status(&self, now: Timestamp, keep: SignedDuration) -> &'static str {
        let half = self.created + self.ends.duration_since(self.created) / 2;
        if now < half {
            "queueing"
        } else if now < self.ends {
            "running"
        } else if self.failed {
            "failed"
        } else if self.folder.is_none() && now >= self.gone.unwrap_or(self.ends + keep) {
            "expired"
        } else {
            "finished"
        }
    }

    fn is_in_the_way(&self, now: Timestamp, keep: SignedDuration) -> bool {
        !matches!(self.status(now, keep), "finished" | "expired")
    }

    pub(super) fn document(&self, now: Timestamp, keep: SignedDuration) -> Value {
        let status = self.status(now, keep);
        let progress = match status {
            "queueing" => "0/0",
            "running" => "1/2",
            "failed" => "1/2",
            _ => "2/2",
        };
        json!({
            "TaskId": self.id, "DownloadStatus": status, "Progress": progress,
            "BakSetId": self.set, "RegionCode": "cn-hangzhou",
            "TargetType": if self.folder.is_some() { "OSS" } else { "URL" },
            "TargetPath": self.folder,
            "Format": "bson", "GmtCreate": self.created.as_millisecond().to_string(),
            "ExportDataSize": "0", "ImportDataSize": "0", "DbList": "[shop]",
        })
    }
}

impl Asked<'_> {
    /// Does what `call` asks.
    pub(super) fn dbs(&mut self, call: &Call) -> Result<Value, Refusal> {
        let data = match call.action.as_str() {
            "DescribeDownloadSupport" => {
                need_code(call)?;
                let (instance, _) = self.member(call)?;
                json!((instance.1 && instance.2).to_string())
            }
            "CreateDownload" => self.create(call)?,
            "DescribeDownloadTask" => self.tasks(call)?,
            "DescribeDownloadBackupSetStorageInfo" => self.storage(call)?,
            "RetryDownloadTask" => self.retry(call)?,
            _ => {
                let words = "Specified api is not found.";
                return Err(Refusal::new(404, "InvalidAction.NotFound", words));
            }
        };
        Ok(json!({
            "RequestId": "SIM", "Success": "true", "Code": "Success", "ErrCode": "Success",
            "Message": "", "ErrMessage": "", "Data": data,
        }))
    }

    /// The instance a call is about (id, whether it is on cloud disks, whether it has several
    /// nodes) and the index of the member; the first one for a whole cluster.
    fn member(&self, call: &Call) -> Result<((String, bool, bool), usize), Refusal> {
        let by_cluster = self.knobs.by_cluster;
        let name = call
            .get("InstanceName")
            .ok_or_else(|| parameter("instanceName can not be empty"))?;
        let cluster = call.get("ClusterName");
        let found = self.estate.instances.iter().find_map(|instance| {
            let shard = instance.shards.iter().position(|shard| shard == name);
            let index = match (cluster, shard) {
                (None, None) if instance.id == name && instance.shards.is_empty() => 0,
                (Some(cluster), Some(index)) if instance.id == cluster && !by_cluster => index,
                (Some(cluster), None)
                    if instance.id == cluster && cluster == name && by_cluster =>
                {
                    0
                }
                _ => return None,
            };
            let cloud = instance.disk == Disk::Cloud;
            Some(((instance.id.clone(), cloud, instance.nodes > 1), index))
        });
        found.ok_or_else(|| Refusal::business("Forbidden.InstanceNotFound", "Instance not found."))
    }

    fn create(&mut self, call: &Call) -> Result<Value, Refusal> {
        need_code(call)?;
        let ((id, cloud, several), index) = self.member(call)?;
        let name = call.get("InstanceName").unwrap_or_default().to_owned();
        if call.get("FormatType").is_none() {
            return Err(parameter("formatType can not be empty"));
        }
        let bson = call.get("FormatType").map(str::to_ascii_lowercase);
        let is_cluster = call.get("IsCluster") == Some("true");
        if bson.as_deref() != Some("bson")
            || call.get("BakSetType") != Some("full")
            || !matches!(call.get("TargetType"), Some("URL" | "OSS"))
            || is_cluster != call.get("ClusterName").is_some()
        {
            return Err(parameter("a parameter has no documented value"));
        }
        let set = call
            .get("BakSetId")
            .ok_or_else(|| parameter("bakSetId can not be empty"))?;
        let refuse = |code: &str| {
            Err(Refusal::business(
                &format!("DBS.DownloadTask.{code}"),
                "No.",
            ))
        };
        let instance = self.estate.instances.iter().find(|one| one.id == id);
        let instance = instance.ok_or_else(|| parameter("no instance"))?;
        if !cloud {
            return refuse("InstanceStorageTypeNotSupport");
        }
        if !several {
            return refuse("InstanceInfoNotSupport");
        }
        if instance.status != "Running" {
            return refuse("InstanceParamNotSupport");
        }
        let by_cluster = self.knobs.by_cluster && is_cluster;
        let part = |backup: &Backup| match (by_cluster, instance.whole) {
            (false, _) => (backup.set(index) == set).then_some(index),
            (true, true) => (backup.cluster_id() == set).then_some(0),
            (true, false) => (0..instance.shards.len()).find(|n| backup.set(*n) == set),
        };
        let mut backups = instance.backups.iter();
        let found = backups.find_map(|backup| Some((backup, part(backup)?)));
        let found = found.filter(|(backup, _)| !backup.failed && !backup.time_series);
        let Some((backup, index)) = found.filter(|_| !instance.encrypted) else {
            return refuse("BakSetError");
        };
        let folder = self.folder(call)?;
        let keep = self.knobs.keep;
        let mut others = self.estate.tasks.iter().filter(|task| task.instance == id);
        if others.any(|task| task.is_in_the_way(self.now, keep)) {
            return Err(Refusal::business(
                "DBS.DownloadTask.OnlyOneRunningOrFailedTask",
                "There can be only one running or failed task for the instance.",
            ));
        }
        let mut others = self.estate.tasks.iter().filter(|task| task.instance == id);
        let same = |task: &Task| task.set == set && task.folder == folder;
        if others.any(|task| same(task) && task.status(self.now, keep) == "finished") {
            return Err(Refusal::business(
                "DBS.DownloadTask.JobAlreadyExist",
                "Job already submit in recent days.",
            ));
        }
        let content = backup.contents.get(index).cloned();
        let content = content.ok_or_else(|| parameter("the backup has no such part"))?;
        let number = self.estate.tasks.len() + 1;
        let ends = self.now + self.knobs.task_time;
        let mut task = Task::new(number, &id, &name, set, self.now, ends);
        if call.get("UseZstd") == Some("true") {
            task.place.key = task.place.key.replace(".tar.gz", ".tar.zst");
        }
        task.failed = self.take_failure();
        let oss = &self.cloud.0.oss;
        match (&folder, oss.bucket()) {
            (Some(folder), Some((bucket, _))) => {
                let name = task.place.key.rsplit('/').next().unwrap_or_default();
                let names = match self.knobs.tree {
                    true => vec!["shop/orders/a_0_part0.bson", "shop/orders/b.metadata.json"],
                    false => vec![name],
                };
                // A task that fails has left something half done.
                for name in names.iter().take(if task.failed { 1 } else { 2 }) {
                    let place = Place {
                        bucket: bucket.to_owned(),
                        key: format!("{folder}/{name}"),
                    };
                    oss.put(&place, content.clone(), ends);
                }
            }
            _ => oss.put(&task.place, content, ends),
        }
        task.folder = folder;
        let mut document = task.document(self.now, keep);
        // Numbers in this one answer are numbers.
        document["GmtCreate"] = json!(self.now.as_millisecond());
        self.estate.tasks.push(task);
        self.cloud.0.site.meter.bill().tasks_created += 1;
        Ok(document)
    }

    /// The folder that a task is to write into.
    fn folder(&self, call: &Call) -> Result<Option<String>, Refusal> {
        if call.get("TargetType") != Some("OSS") {
            return Ok(None);
        }
        let bucket = self.cloud.0.oss.bucket();
        if bucket.is_none_or(|(name, _)| call.get("TargetBucket") != Some(name)) {
            let words = "OSS is forbidden to access.";
            return Err(Refusal::business("DBS.DownloadTask.OssForbid", words));
        }
        if call.get("TargetOssRegion") != Some("cn-hangzhou") {
            return Err(parameter("targetOssRegion is another one"));
        }
        let folder = call
            .get("TargetPath")
            .map(|path| path.trim_matches('/').to_owned());
        folder
            .map(Some)
            .ok_or_else(|| parameter("targetPath can not be empty"))
    }

    fn tasks(&self, call: &Call) -> Result<Value, Refusal> {
        need_code(call)?;
        self.member(call)?;
        let name = call.get("InstanceName").unwrap_or_default();
        let set = call.get("BackupSetId");
        let mut listed: Vec<Value> = self
            .estate
            .tasks
            .iter()
            .rev()
            .filter(|task| task.member == name && set.is_none_or(|set| task.set == set))
            .map(|task| task.document(self.now, self.knobs.keep))
            .collect();
        let total = listed.len();
        let number = |name: &str, default: usize| {
            let value = call.get(name).map_or(Ok(default), str::parse);
            value.map_err(|_| parameter("a page is a number"))
        };
        let (page, size) = (number("CurrentPage", 1)?, number("PageSize", 10)?);
        let skip = page.saturating_sub(1) * size;
        listed = listed.into_iter().skip(skip).take(size).collect();
        Ok(json!({
            "PageNumber": page, "PageSize": size, "TotalElements": total,
            "TotalPages": total.div_ceil(size.max(1)), "Content": {"List": listed},
        }))
    }

    fn storage(&mut self, call: &Call) -> Result<Value, Refusal> {
        need_code(call)?;
        let seconds: i64 = call
            .get("Duration")
            .and_then(|seconds| seconds.parse().ok())
            .filter(|seconds| (300..=86_400).contains(seconds))
            .ok_or_else(|| parameter("duration is out of range"))?;
        let (now, keep) = (self.now, self.knobs.keep);
        let life = self.knobs.link_life;
        let life = life.unwrap_or(SignedDuration::from_secs(seconds));
        let another = self.knobs.another_link;
        let late = super::take(&mut self.cloud.knobs().late_links);
        let task = self.estate.tasks.iter_mut();
        let mut task = task.filter(|task| Some(task.id.as_str()) == call.get("TaskId"));
        let task = task
            .next()
            .filter(|task| task.folder.is_none() && task.status(now, keep) == "finished")
            .ok_or_else(cannot_find)?;
        if late {
            return Ok(json!({"PublicUrl": null, "PrivateUrl": "", "ExpirationTime": null}));
        }
        let (ends, gone) = match (task.gone, another) {
            (None, _) | (_, AnotherLink::Prolongs) => (now + life, now + life),
            (Some(gone), AnotherLink::EndsWithTheFirst) => (gone, gone),
            (Some(gone), AnotherLink::Deceives) => (now + life, gone),
            (Some(_), AnotherLink::Refused) => return Err(cannot_find()),
        };
        task.gone = Some(gone);
        let place = task.place.clone();
        self.cloud.0.oss.keep_until(&place, gone);
        let (oss, v4) = (&self.cloud.0.oss, self.knobs.v4);
        let link = |network| oss.link(&place, network, now, ends, v4);
        Ok(json!({
            "PublicUrl": link(Network::Public), "PrivateUrl": link(Network::Internal),
            "ExpirationTime": ends.as_second(),
        }))
    }

    fn retry(&mut self, call: &Call) -> Result<Value, Refusal> {
        let (now, keep) = (self.now, self.knobs.keep);
        let ends = now + self.knobs.task_time;
        let failed = self.take_failure();
        let mut tasks = self.estate.tasks.iter_mut();
        let task = tasks
            .find(|task| Some(task.id.as_str()) == call.get("TaskId"))
            .filter(|task| task.status(now, keep) == "failed")
            .ok_or_else(cannot_find)?;
        (task.created, task.ends, task.failed) = (now, ends, failed);
        Ok(json!(task.id))
    }
}

fn need_code(call: &Call) -> Result<(), Refusal> {
    match need(call, "RegionCode") {
        Ok("cn-hangzhou") => Ok(()),
        Ok(_) => Err(Refusal::business(
            "DBS.DownloadTask.RegionNotSupport",
            "No.",
        )),
        Err(_) => Err(parameter("Argument: regionCode Must not be empty")),
    }
}

fn parameter(words: &str) -> Refusal {
    Refusal::business("DBS.ParamIsInValid", words)
}

fn cannot_find() -> Refusal {
    Refusal::business("DBS.DownloadTask.CannotFind", "Can not find download task.")
}
