//! What each call does with the account. Names and fields are those of the API documents
//! (docs.ucloud.cn/api/umongodb-api) and of the official SDK.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::estate::{Backup, Instance, REGION};
use super::knobs::{Addresses, EmptyList, Knobs, Oplogs, ShortLife};
use super::service::{Asked, Refusal};
use super::signature::Parameters;
use super::{key, oplog_key};
use crate::sim::content::Content;

/// Codes of the product are not documented: these mean only that it refuses.
const NO_CLUSTER: i64 = 8001;
const NO_BACKUP: i64 = 8002;
const NO_LINK: i64 = 8003;
const NO_SUCH_LIFE: i64 = 8004;
const BAD_PARAMETER: i64 = 8005;

/// The longest life of a link.
const LONGEST_LIFE: i64 = 7 * 24 * 3600;
/// The life of a link for which none is wished.
const USUAL_LIFE: i64 = 4 * 3600;

type Document = Map<String, Value>;

impl Asked<'_> {
    pub(super) fn reply(&self, action: &str, given: &Parameters) -> Result<Document, Refusal> {
        match action {
            "GetProjectList" => Ok(fields([
                ("ProjectCount", 1.into()),
                ("ProjectSet", projects(self.cloud.project())),
            ])),
            "GetRegion" => Ok(fields([("Regions", regions())])),
            "ListUMongoDBInstances" => self.instances(given),
            "DescribeUMongoDBInstance" => self.instance(given),
            "ListUMongoDBBackup" => self.backups(given),
            "ListUMongoDBLogPackage" => self.packages(given),
            "DescribeUMongoDBBackupURL" => self.link(given),
            _ => Err(Refusal::new(161, format!("Action {action} is not known"))),
        }
    }

    fn instances(&self, given: &Parameters) -> Result<Document, Refusal> {
        let region = needed(given, "Region")?;
        let estate = self.cloud.estate();
        let wanted = |name, value: &str| given.get(name).is_none_or(|wanted| wanted == value);
        let listed = estate
            .iter()
            .filter(|one| one.region == region)
            .filter(|one| wanted("Zone", &one.zone) && wanted("ClusterId", &one.id));
        Ok(self.list(listed.map(row_of).collect()))
    }

    fn instance(&self, given: &Parameters) -> Result<Document, Refusal> {
        let estate = self.cloud.estate();
        let found = find(&estate, given)?;
        Ok(fields([("ClusterInfo", details(found))]))
    }

    fn backups(&self, given: &Parameters) -> Result<Document, Refusal> {
        needed(given, "Zone")?;
        let estate = self.cloud.estate();
        let found = find(&estate, given)?;
        let mut rows = Vec::new();
        for backup in found.backups.iter().rev() {
            for part in 0..backup.contents.len() {
                rows.push(row(found, backup, part, &self.knobs));
            }
            for log in 0..backup.oplogs.len() {
                if self.knobs.oplogs == Oplogs::Backups {
                    rows.push(oplog_row(found, backup, log));
                }
            }
        }
        Ok(self.list(rows))
    }

    fn packages(&self, given: &Parameters) -> Result<Document, Refusal> {
        needed(given, "Zone")?;
        let estate = self.cloud.estate();
        let found = find(&estate, given)?;
        let mut rows = Vec::new();
        for backup in &found.backups {
            for (log, content) in backup.oplogs.iter().enumerate() {
                if self.knobs.oplogs == Oplogs::Packages {
                    rows.push(package(found, backup, log, content));
                }
            }
        }
        if let Some(backup) = found.backups.first() {
            // Logs that are no backups are listed as well.
            let mut slow = package(found, backup, 99, &Content::bytes("slow"));
            slow["PackageType"] = "SlowLog".into();
            rows.push(slow);
        }
        Ok(self.list(rows))
    }

    fn link(&self, given: &Parameters) -> Result<Document, Refusal> {
        let estate = self.cloud.estate();
        let found = find(&estate, given)?;
        let key = match (given.get("Category"), given.get("PackageId")) {
            (Some("oplog"), Some(package)) => self.oplog(found, package)?,
            _ => self.backup(found, needed(given, "BackupId")?)?,
        };
        let life = match given.get("ValidTime") {
            None => SignedDuration::from_secs(USUAL_LIFE),
            Some(text) => match text.parse() {
                Ok(seconds @ 1..=LONGEST_LIFE) => SignedDuration::from_secs(seconds),
                _ => return Err(Refusal::new(BAD_PARAMETER, "ValidTime is out of range")),
            },
        };
        if life < self.knobs.least_life && self.knobs.short_life == ShortLife::Refused {
            return Err(Refusal::new(NO_SUCH_LIFE, "ValidTime is too short"));
        }
        let expires = self.now + life.max(self.knobs.least_life);
        self.cloud.bill_link(&key);
        let link = |given: bool| match given {
            true => self
                .cloud
                .store()
                .link(&key, expires, self.now, &self.knobs),
            false => String::new(),
        };
        let addresses = self.knobs.addresses;
        let internet = matches!(addresses, Addresses::Both | Addresses::Internet);
        let intranet = matches!(addresses, Addresses::Both | Addresses::Intranet);
        Ok(fields([
            ("InternetAddress", link(internet).into()),
            ("IntranetAddress", link(intranet).into()),
        ]))
    }

    /// The key of the backup whose row has this id.
    fn backup(&self, of: &Instance, id: &str) -> Result<String, Refusal> {
        let mut rows = of
            .backups
            .iter()
            .flat_map(|backup| (0..backup.contents.len()).map(move |part| (backup, part)));
        let (backup, part) = rows
            .find(|(backup, part)| backup.row(*part) == id)
            .ok_or_else(|| Refusal::new(NO_BACKUP, "The backup does not exist"))?;
        if backup.running {
            return Err(Refusal::new(NO_LINK, "The backup is not finished"));
        }
        if backup.snapshot && !self.knobs.snapshot_links {
            return Err(Refusal::new(NO_LINK, "A snapshot cannot be downloaded"));
        }
        if of.sharded && !self.knobs.sharded_links {
            let words = "A backup of a sharded cluster cannot be downloaded";
            return Err(Refusal::new(NO_LINK, words));
        }
        Ok(key(of, backup, part))
    }

    fn oplog(&self, of: &Instance, package: &str) -> Result<String, Refusal> {
        let logs = of
            .backups
            .iter()
            .flat_map(|backup| (0..backup.oplogs.len()).map(move |log| (backup, log)));
        let mut logs = logs.map(|(backup, log)| (backup.package(log), oplog_key(of, backup, log)));
        let found = logs.find(|(id, _)| id.to_string() == package);
        let found = found.map(|(_, key)| key);
        found.ok_or_else(|| Refusal::new(NO_BACKUP, "There is no such package"))
    }

    /// A list of rows, written as the knobs want it.
    fn list(&self, rows: Vec<Value>) -> Document {
        match (rows.is_empty(), self.knobs.empty_list) {
            (true, EmptyList::Missing) => Map::new(),
            (true, EmptyList::Null) => fields([("DataSet", Value::Null)]),
            _ => fields([("DataSet", rows.into())]),
        }
    }
}

fn needed<'a>(given: &'a Parameters, name: &str) -> Result<&'a str, Refusal> {
    let value = given.get(name).filter(|value| !value.is_empty());
    value.ok_or_else(|| Refusal::new(BAD_PARAMETER, format!("Parameter {name} is missing")))
}

fn find<'a>(estate: &'a [Instance], given: &Parameters) -> Result<&'a Instance, Refusal> {
    let (region, id) = (needed(given, "Region")?, needed(given, "ClusterId")?);
    let here = |one: &&Instance| {
        let zone = given.get("Zone").is_none_or(|zone| zone == one.zone);
        one.region == region && one.id == id && zone
    };
    let found = estate.iter().find(here);
    found.ok_or_else(|| Refusal::new(NO_CLUSTER, "The cluster does not exist"))
}

fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Document {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn projects(id: &str) -> Value {
    json!([{
        "ProjectId": id, "ProjectName": "Default", "ParentId": "", "ParentName": "",
        "CreateTime": 1_600_000_000, "IsDefault": true, "ResourceCount": 1, "MemberCount": 1,
    }])
}

/// One row for each zone.
fn regions() -> Value {
    let row = |zone: &str| {
        json!({
            "RegionId": 1_000_009, "RegionName": "Beijing", "IsDefault": true, "BitMaps": "1",
            "Region": REGION, "Zone": zone,
        })
    };
    json!([row("cn-bj2-04"), row("cn-bj2-05")])
}

fn row_of(one: &Instance) -> Value {
    json!({
        "Zone": one.zone, "ClusterId": one.id, "Name": one.id, "DBVersion": "MongoDB-4.2",
        "ConnectURL": "mongodb://10.9.0.5:27017", "CreateTime": one.created.as_second(),
        "ClusterType": cluster_type(one), "State": "Running", "DiskSpace": 20, "Tag": "Default",
        "DataComputeType": {"MachineTypeId": "o.mongo2m.medium", "Cpu": 2, "Memory": 4},
        "VPCId": "uvnet-sim", "SubnetId": "subnet-sim",
    })
}

fn cluster_type(one: &Instance) -> &'static str {
    match one.sharded {
        true => "SharedCluster",
        false => "ReplicaSet",
    }
}

fn details(one: &Instance) -> Value {
    let parts = one.backups.iter().map(|backup| backup.contents.len()).max();
    let members = match one.sharded {
        true => parts.unwrap_or(3).saturating_sub(1),
        false => 1,
    };
    let replica = |number: usize| {
        json!({
            "ReplicaId": format!("{}-replica{number}", one.id), "ClusterId": one.id,
            "ReplicaType": "DataRepl", "State": "Running", "NodeCount": 3, "NodeInfos": [],
        })
    };
    json!({
        "ClusterId": one.id, "InstanceName": one.id, "ClusterType": cluster_type(one),
        "State": "Running", "DBVersion": "MongoDB-4.2", "DiskSpace": 20, "Zone": one.zone,
        "CreateTime": one.created.as_second(), "ShardCount": members, "EnableSSL": 1,
        "DataReplicaInfos": (0..members).map(replica).collect::<Vec<_>>(), "MongosInfo": [],
    })
}

fn row(of: &Instance, backup: &Backup, part: usize, knobs: &Knobs) -> Value {
    let mut row = json!({
        "BackupId": backup.row(part),
        "BackupName": "nightly",
        "BackupSize": backup.contents[part].size(),
        "BackupType": match (backup.snapshot, backup.manual) {
            (true, _) => "Snapshot",
            (false, true) => "Manual",
            (false, false) => "Auto",
        },
        "ClusterId": of.id,
        "State": if backup.running { "Backuping" } else { &knobs.done },
        "StartTime": backup.started.as_second(),
        "EndTime": if backup.running { 0 } else { backup.finished().as_second() },
    });
    if !knobs.bare_rows {
        let (kind, member) = of.member(backup, part);
        row["Zone"] = of.zone.as_str().into();
        row["ReplicaType"] = kind.into();
        row["DiskSize"] = 20.into();
        row["BatchId"] = if of.sharded {
            backup.batch()
        } else {
            String::new()
        }
        .into();
        row["VirtualClusterId"] = if of.sharded { member } else { String::new() }.into();
    }
    row
}

/// A log of operations among the backups.
fn oplog_row(of: &Instance, backup: &Backup, log: usize) -> Value {
    let (begin, end) = backup.hour(log);
    json!({
        "BackupId": format!("umongodb-oplog-{}", backup.package(log)), "ClusterId": of.id,
        "PackageId": backup.package(log), "Category": "oplog", "State": "Success",
        "StartTime": begin.as_second(), "EndTime": end.as_second(),
    })
}

fn package(of: &Instance, backup: &Backup, log: usize, content: &Content) -> Value {
    let (begin, end) = backup.hour(log);
    let second = |at: Timestamp| at.as_second();
    json!({
        "Id": backup.package(log), "Name": format!("oplog-{}", backup.package(log)),
        "State": "Package_Success", "Size": content.size(), "PackageType": "Oplog",
        "ClusterId": of.id, "NodeId": format!("{}-node0", of.id), "Role": "Secondary",
        "Begin": second(begin), "End": second(end), "CreateTime": second(end),
        "FinishTime": second(end),
    })
}
