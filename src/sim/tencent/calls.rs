//! What each call does with the account. Names, limits and error codes are those of the API
//! documents (cloud.tencent.com/document/api/240) and of the official SDK, version 2019-07-25.

use serde_json::{Map, Value, json};

use super::answer::ApiError;
use super::estate::{Backup, Instance, china};
use super::parameters::Parameters;
use super::service::Asked;
use super::tasks::{FAILED, FINISHED, Task, key};

type Document = Map<String, Value>;

impl Asked<'_> {
    pub(super) fn reply(&self, action: &str, given: &Parameters) -> Result<Document, ApiError> {
        match action {
            "DescribeDBInstances" => self.instances(given),
            "DescribeDBBackups" => self.backups(given),
            "CreateBackupDownloadTask" => self.create(given),
            "DescribeBackupDownloadTask" => self.tasks(given),
            _ => Err(ApiError::new("InvalidAction", "The action does not exist.")),
        }
    }

    /// Limit and offset of a list, where a limit that is left out is `default`.
    fn page(&self, given: &Parameters, default: usize) -> Result<(usize, usize), ApiError> {
        let (limit, offset) = given.page(default)?;
        Ok((limit.min(self.knobs.most_per_page), offset))
    }

    fn instances(&self, given: &Parameters) -> Result<Document, ApiError> {
        given.only(&[
            "InstanceIds",
            "InstanceType",
            "ClusterType",
            "Status",
            "VpcId",
            "SubnetId",
            "PayMode",
            "Limit",
            "Offset",
            "OrderBy",
            "OrderByType",
            "ProjectIds",
            "SearchKey",
            "Tags",
        ])?;
        let (limit, offset) = self.page(given, 20)?;
        let estate = self.cloud.estate();
        let everywhere = self.knobs.lists_all_regions;
        let here: Vec<&Instance> = estate
            .instances
            .iter()
            .filter(|instance| everywhere || instance.region == self.region)
            .collect();
        let page = here.iter().skip(offset).take(limit);
        Ok(Map::from_iter([
            ("TotalCount".to_owned(), here.len().into()),
            (
                "InstanceDetails".to_owned(),
                page.map(|one| instance(one)).collect(),
            ),
        ]))
    }

    fn backups(&self, given: &Parameters) -> Result<Document, ApiError> {
        given.only(&["InstanceId", "BackupMethod", "Limit", "Offset"])?;
        let id = given.text("InstanceId")?;
        let (limit, offset) = self.page(given, usize::MAX)?;
        let method = match given.number("BackupMethod")? {
            Some(method @ (0 | 1 | 3)) => Some(method),
            Some(_) => return Err(ApiError::malformed("BackupMethod")),
            None if self.knobs.lists_all_methods => None,
            None => Some(0),
        };
        let estate = self.cloud.estate();
        let of = find(&estate.instances, id, self.region)?;
        let listed: Vec<Value> = of
            .backups
            .iter()
            .enumerate()
            .filter(|(_, backup)| method.is_none_or(|method| backup.method.code() == method))
            .map(|(number, one)| backup(of, one, number))
            .rev()
            .collect();
        let count = listed.len();
        Ok(Map::from_iter([
            ("TotalCount".to_owned(), count.into()),
            (
                "BackupList".to_owned(),
                listed.into_iter().skip(offset).take(limit).collect(),
            ),
        ]))
    }

    /// The number of `shard` in `backup`, which may be older than some shards of its instance.
    fn shard_number(&self, of: &Instance, backup: &Backup, shard: &str) -> Result<usize, ApiError> {
        let held = 0..backup.contents.len().min(of.shards);
        held.into_iter()
            .find(|number| of.shard_id(*number) == shard)
            .ok_or_else(|| {
                let words = format!("The backup holds no replica set {shard}.");
                ApiError::new(&self.knobs.lacking_shard_code, words)
            })
    }

    /// Packs shards for download: the effect that the bill counts.
    fn create(&self, given: &Parameters) -> Result<Document, ApiError> {
        given.only(&["InstanceId", "BackupName", "BackupSets"])?;
        let (id, name) = (given.text("InstanceId")?, given.text("BackupName")?);
        let shards = given.members("BackupSets", "ReplicaSetId")?;
        if !self.knobs.may_download {
            let code = "InvalidParameter.PermissionDenied";
            let words = "The current sub-account has no permission to perform this operation.";
            return Err(ApiError::new(code, words));
        }
        let estate = &mut *self.cloud.estate();
        let of = find(&estate.instances, id, self.region)?;
        let backup = find_backup(of, name)?;
        if let Some(code) = &backup.refusal {
            let words = "Backups of this kind cannot be downloaded.";
            return Err(ApiError::new(code, words));
        }
        for shard in &shards {
            self.shard_number(of, backup, shard)?;
        }
        let mut answered = Vec::new();
        for shard in shards {
            let existing = estate
                .tasks
                .iter()
                .rev()
                .find(|task| task.instance == id && task.backup == name && task.shard == shard);
            let standing = existing.map(|task| task.status(self.now));
            let lost = existing
                .is_some_and(|task| task.is_lost(self.now, &self.knobs, self.cloud.store()));
            let again = match standing {
                None => true,
                Some(FAILED) => self.knobs.create_restarts_failed,
                Some(_) => lost,
            };
            let status = match standing {
                Some(status) if !again => status,
                _ => {
                    let number = self.shard_number(of, backup, shard)?;
                    let content = backup.contents[number].clone();
                    let fails = self.cloud.spend_failure();
                    let task = Task {
                        instance: id.to_owned(),
                        backup: name.to_owned(),
                        shard: shard.to_owned(),
                        method: backup.method.code(),
                        size: content.size(),
                        created: self.now,
                        time: self.knobs.task_time,
                        fails,
                        waits: self.knobs.tasks_wait_for_retry,
                        link: None,
                        replaced: false,
                    };
                    // A packed shard that is there already keeps its version.
                    if self.cloud.store().content(&key(name, shard)).is_none() || lost {
                        self.cloud
                            .store()
                            .put(&task.key(), content, self.now, false);
                    }
                    let status = task.status(self.now);
                    let same = |old: &&mut Task| old.instance == id && old.key() == task.key();
                    let before = estate.tasks.iter_mut().filter(same);
                    before.for_each(|old| old.replaced = true);
                    estate.tasks.push(task);
                    self.cloud.bill_task();
                    status
                }
            };
            answered.push(json!({"ReplicaSetId": shard, "Status": status}));
        }
        Ok(Map::from_iter([("Tasks".to_owned(), answered.into())]))
    }

    fn tasks(&self, given: &Parameters) -> Result<Document, ApiError> {
        given.only(&[
            "InstanceId",
            "BackupName",
            "StartTime",
            "EndTime",
            "Limit",
            "Offset",
            "OrderBy",
            "OrderByType",
            "Status",
        ])?;
        let id = given.text("InstanceId")?;
        let name = given.optional_text("BackupName")?;
        let wanted = given.numbers("Status")?;
        let (limit, offset) = self.page(given, 20)?;
        let skip = match self.knobs.offset_counts_pages {
            true => offset * limit,
            false => offset,
        };
        let estate = &mut *self.cloud.estate();
        let of = find(&estate.instances, id, self.region)?;
        if let Some(name) = name {
            find_backup(of, name)?;
        }
        let mut found: Vec<&mut Task> = estate
            .tasks
            .iter_mut()
            .rev()
            .filter(|task| task.instance == id && name.is_none_or(|name| task.backup == name))
            .filter(|task| {
                wanted
                    .as_ref()
                    .is_none_or(|w| w.contains(&task.status(self.now)))
            })
            .collect();
        if given.optional_text("OrderByType")? == Some("asc") {
            found.reverse();
        }
        let count = found.len();
        if count == 0 && name.is_some() && self.knobs.no_downloads_is_not_found {
            return Err(not_found());
        }
        let mut listed = Vec::new();
        for task in found.into_iter().skip(skip).take(limit) {
            if task.is_lost(self.now, &self.knobs, self.cloud.store()) {
                self.cloud.store().remove(&task.key());
            }
            let (document, renewed) = task.document(self.now, &self.knobs, self.cloud.store());
            self.cloud.bill_link(renewed);
            listed.push(document);
        }
        Ok(Map::from_iter([
            ("TotalCount".to_owned(), count.into()),
            ("Tasks".to_owned(), listed.into()),
        ]))
    }
}

fn find<'a>(all: &'a [Instance], id: &str, region: &str) -> Result<&'a Instance, ApiError> {
    let mut here = all.iter().filter(|instance| instance.region == region);
    here.find(|instance| instance.id == id).ok_or_else(|| {
        let code = "InvalidParameterValue.NotFoundInstance";
        ApiError::new(code, format!("The instance {id} is not found."))
    })
}

fn find_backup<'a>(of: &'a Instance, name: &str) -> Result<&'a Backup, ApiError> {
    let mut backups = of.backups.iter().filter(|backup| backup.complete);
    backups
        .find(|backup| backup.name(&of.id) == name)
        .ok_or_else(not_found)
}

fn not_found() -> ApiError {
    let code = "InvalidParameterValue.BackupFileNotFound";
    ApiError::new(code, "The backup file is not found.")
}

fn instance(of: &Instance) -> Value {
    let sets: Vec<Value> = (0..of.shards)
        .map(|number| {
            json!({
                "ReplicaSetId": of.shard_id(number), "ReplicaSetName": "",
                "RealReplicaSetId": of.shard_id(number), "UsedVolume": 12.5, "Memory": 4096,
                "Volume": 102_400, "OplogSize": 10_240, "SecondaryNum": 2,
            })
        })
        .collect();
    json!({
        "InstanceId": of.id, "InstanceName": of.id, "PayMode": 0, "ProjectId": 0,
        "ClusterType": i64::from(of.shards > 1), "Region": of.region,
        "Zone": format!("{}-3", of.region), "NetType": 1, "VpcId": "vpc-sim00001",
        "SubnetId": "subnet-sim00001", "Status": 2, "Vip": "10.0.0.5", "Vport": 27_017,
        "CreateTime": china(of.created, "%Y-%m-%d %H:%M:%S"), "DeadLine": "0000-00-00 00:00:00",
        "MongoVersion": "MONGO_60_WT", "Memory": 4096, "Volume": 102_400, "CpuNum": 2,
        "MachineType": "HIO10G", "SecondaryNum": 2, "ReplicationSetNum": of.shards,
        "AutoRenewFlag": 0, "UsedVolume": 12, "MaintenanceStart": "00:00:00",
        "MaintenanceEnd": "04:00:00", "ReplicaSets": sets, "ReadonlyInstances": [],
        "StandbyInstances": [], "CloneInstances": [],
        "RelatedInstance": {"InstanceId": "", "Region": ""}, "Tags": [], "InstanceVer": 1,
        "ClusterVer": 1, "Protocol": 1, "InstanceType": 1, "InstanceStatusDesc": "running",
        "RealInstanceId": of.id,
    })
}

fn backup(of: &Instance, backup: &Backup, number: usize) -> Value {
    let size: u64 = backup.contents.iter().map(|content| content.size()).sum();
    let time = |at| china(at, "%Y-%m-%d %H:%M:%S");
    json!({
        "InstanceId": of.id,
        "BackupType": i64::from(backup.manual),
        "BackupName": backup.name(&of.id),
        "BackupDesc": null,
        // Documented in KiB, seen in bytes.
        "BackupSize": size / 1024,
        "StartTime": time(backup.started),
        "EndTime": match backup.complete {
            true => Value::from(time(backup.finished())),
            false => Value::Null,
        },
        "Status": if backup.complete { FINISHED } else { 1 },
        "BackupMethod": backup.method.code(),
        "BackId": backup.id(number),
        "DeleteTime": "2099-01-01 00:00:00",
        "BackupRegion": "",
        "RestoreTime": time(backup.finished()),
    })
}
