//! The service for instances and their backups (API version 2015-12-01), strict about parameters.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Asked;
use super::estate::{Backup, Disk, Instance};
use super::oss::Network;
use super::rpc::{Call, Refusal};
use crate::sim::clock::iso_seconds;

impl Asked<'_> {
    /// Does what `call` asks.
    pub(super) fn dds(&mut self, call: &Call) -> Result<Value, Refusal> {
        match call.action.as_str() {
            "DescribeRegions" => Ok(json!({
                "RequestId": "SIM",
                "Regions": {"DdsRegion": [{"RegionId": "cn-hangzhou", "RegionName": "China (Hangzhou)"}]},
            })),
            "DescribeDBInstances" => self.instances(call),
            "DescribeDBInstanceAttribute" => {
                let instance = self.instance(need(call, "DBInstanceId")?)?;
                Ok(json!({
                    "RequestId": "SIM",
                    "DBInstances": {"DBInstance": [attributes(instance)]},
                }))
            }
            "DescribeBackups" => self.backups(call),
            "DescribeClusterBackups" => self.cluster_backups(call),
            _ => Err(Refusal::new(
                404,
                "InvalidAction.NotFound",
                "Specified api is not found.",
            )),
        }
    }

    /// Exactly this instance.
    fn instance(&self, id: &str) -> Result<&Instance, Refusal> {
        let mut instances = self.estate.instances.iter();
        instances.find(|instance| instance.id == id).ok_or_else(|| {
            let words = "Specified DB instance is not found.";
            Refusal::new(404, "InvalidDBInstanceId.NotFound", words)
        })
    }

    fn instances(&self, call: &Call) -> Result<Value, Refusal> {
        let sharding = match call.get("DBInstanceType") {
            None | Some("replicate") => false,
            Some("sharding") => true,
            Some(_) => return Err(malformed("DBInstanceType")),
        };
        let region = call.get("RegionId");
        let chosen: Vec<Value> = self
            .estate
            .instances
            .iter()
            .filter(|one| one.shards.is_empty() != sharding)
            .filter(|one| region.is_none_or(|region| one.region == region))
            .map(attributes)
            .collect();
        let total = chosen.len();
        let (page, number, size) = paged(chosen, call, "PageNumber")?;
        Ok(json!({
            "RequestId": "SIM", "TotalCount": total, "PageNumber": number, "PageSize": size,
            "DBInstances": {"DBInstance": page},
        }))
    }

    fn backups(&self, call: &Call) -> Result<Value, Refusal> {
        let instance = self.instance(need(call, "DBInstanceId")?)?;
        let window = window(call)?;
        let index = match (call.get("NodeId"), instance.shards.as_slice()) {
            (None, []) => 0,
            (Some(node), shards) => shards
                .iter()
                .position(|shard| shard == node)
                .ok_or_else(|| malformed("NodeId"))?,
            (None, _) => return Err(malformed("NodeId")),
        };
        if instance.whole && !instance.shards.is_empty() {
            let words = "The instance is backed up as a cluster.";
            return Err(Refusal::new(400, "IncorrectDBInstanceType", words));
        }
        let only: Option<Vec<&str>> = call.get("BackupId").map(|ids| ids.split(',').collect());
        // Of a sharded cluster, the ids of one backup in all of its shards are asked for together.
        if only
            .as_ref()
            .is_some_and(|ids| ids.len() != instance.members().len())
        {
            return Err(malformed("BackupId"));
        }
        let listed: Vec<Value> = instance
            .backups
            .iter()
            .rev()
            .filter(|backup| window.contains(backup.started))
            .filter(|backup| {
                let id = backup.set(index);
                only.as_ref().is_none_or(|ids| ids.contains(&id.as_str()))
            })
            .map(|backup| self.backup(instance, backup, index))
            .collect();
        let total = listed.len();
        let (page, number, size) = paged(listed, call, "PageNumber")?;
        Ok(json!({
            "RequestId": "SIM", "TotalCount": total, "PageNumber": number, "PageSize": size,
            "Backups": {"Backup": page},
        }))
    }

    /// One backup of one member, with links if it lies on local disks.
    fn backup(&self, instance: &Instance, backup: &Backup, index: usize) -> Value {
        let link = |network| match instance.disk {
            Disk::Local if backup.extension.is_some() && !backup.failed => {
                self.object_link(instance, backup, index, network)
            }
            Disk::Local | Disk::Cloud => String::new(),
        };
        json!({
            "BackupId": backup.set(index),
            "BackupJobId": backup.id.to_string(),
            "BackupDBNames": "shop",
            "BackupMethod": backup.method,
            "BackupMode": "Automated",
            "BackupType": "FullBackup",
            "BackupStatus": if backup.failed { "Failed" } else { "Success" },
            "IsAvail": true,
            "BackupSize": size(instance, backup, index),
            "BackupStartTime": iso_seconds(backup.started),
            "BackupEndTime": iso_seconds(backup.finished()),
            "EngineVersion": instance.version,
            "BackupDownloadURL": link(Network::Public),
            "BackupIntranetDownloadURL": link(Network::Internal),
        })
    }

    fn cluster_backups(&self, call: &Call) -> Result<Value, Refusal> {
        let instance = self.instance(need(call, "DBInstanceId")?)?;
        let window = window(call)?;
        if !instance.whole {
            let words = "The instance is not backed up as a cluster.";
            return Err(Refusal::new(400, "IncorrectDBInstanceType", words));
        }
        let listed: Vec<Value> = instance
            .backups
            .iter()
            .rev()
            .filter(|backup| window.contains(backup.started))
            .filter(|backup| {
                let id = call.get("BackupId");
                id.is_none_or(|id| id == backup.cluster_id())
            })
            .map(|backup| cluster_backup(instance, backup))
            .collect();
        let (page, number, _) = paged(listed, call, "PageNo")?;
        Ok(json!({
            "RequestId": "SIM", "MaxResults": page.len(), "PageNumber": number,
            "ClusterBackups": page,
        }))
    }
}

fn attributes(instance: &Instance) -> Value {
    let sharded = !instance.shards.is_empty();
    let shards: Vec<Value> = instance
        .shards
        .iter()
        .map(|id| json!({"NodeId": id, "NodeStorage": 20, "NodeClass": "dds.shard.mid"}))
        .collect();
    json!({
        "DBInstanceId": instance.id,
        "DBInstanceType": if sharded { "sharding" } else { "replicate" },
        "DBInstanceStatus": instance.status,
        "LockMode": "Unlock",
        "Engine": "MongoDB",
        "EngineVersion": instance.version,
        "RegionId": instance.region,
        "DBInstanceStorage": 20,
        "StorageType": match instance.disk {
            Disk::Cloud => "cloud_essd1",
            Disk::Local => "local_ssd",
        },
        "ReplicationFactor": instance.nodes.to_string(),
        "KindCode": match instance.disk {
            Disk::Cloud => "18",
            Disk::Local => "0",
        },
        "CreationTime": "2025-01-01T00:00Z",
        "ReplicaSetName": if sharded { String::new() } else { instance.replica_set_name() },
        "Encrypted": instance.encrypted,
        "UseClusterBackup": instance.whole,
        "ShardList": {"ShardAttribute": shards},
    })
}

fn cluster_backup(instance: &Instance, backup: &Backup) -> Value {
    let shards: Vec<Value> = instance
        .shards
        .iter()
        .enumerate()
        .map(|(index, shard)| {
            json!({
                "BackupId": backup.set(index),
                // The documentation's own example ends so.
                "InstanceName": format!("{shard}\n"),
                "BackupSize": size(instance, backup, index).to_string(),
                "BackupStartTime": iso_seconds(backup.started),
                "BackupEndTime": iso_seconds(backup.finished()),
                "BackupStatus": if backup.failed { "Failed" } else { "Success" },
                "IsAvail": "1",
                "BackupDownloadURL": "",
                "BackupIntranetDownloadURL": "",
            })
        })
        .collect();
    json!({
        "ClusterBackupId": backup.cluster_id(),
        "ClusterBackupStatus": if backup.failed { "Failed" } else { "OK" },
        "ClusterBackupMode": "Automated",
        "ClusterBackupStartTime": iso_seconds(backup.started),
        "ClusterBackupEndTime": iso_seconds(backup.finished()),
        "IsAvail": 1,
        "EngineVersion": instance.version,
        "Backups": shards,
    })
}

/// That of the file on local disks; a snapshot has the size of its disk.
fn size(instance: &Instance, backup: &Backup, index: usize) -> u64 {
    match instance.disk {
        Disk::Local => backup.declared.unwrap_or_else(|| {
            let content = backup.contents.get(index);
            content.map_or(0, |content| content.size())
        }),
        Disk::Cloud => 20 << 30,
    }
}

/// The requested time; both ends are to the minute.
struct Window(Timestamp, Timestamp);

impl Window {
    fn contains(&self, time: Timestamp) -> bool {
        (self.0..=self.1).contains(&time)
    }
}

fn window(call: &Call) -> Result<Window, Refusal> {
    let time = |name: &str, default: Timestamp| match call.get(name) {
        None => Ok(default),
        Some(text) if text.len() == "2026-03-01T00:00Z".len() && text.ends_with('Z') => {
            let civil: Result<jiff::civil::DateTime, _> = text.trim_end_matches('Z').parse();
            let zoned = civil.and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC));
            zoned
                .map(|zoned| zoned.timestamp())
                .map_err(|_| malformed(name))
        }
        Some(_) => Err(malformed(name)),
    };
    let window = Window(
        time("StartTime", Timestamp::MIN)?,
        time("EndTime", Timestamp::MAX)?,
    );
    match window.0 < window.1 {
        true => Ok(window),
        false => Err(malformed("StartTimeAndEndTime")),
    }
}

/// The page that `call` wants of `all`, its number and its size.
pub(super) fn paged(
    all: Vec<Value>,
    call: &Call,
    number: &'static str,
) -> Result<(Vec<Value>, usize, usize), Refusal> {
    let size: usize = call
        .get("PageSize")
        .map_or(Ok(30), str::parse)
        .map_err(|_| malformed("PageSize"))?;
    if ![30, 50, 100].contains(&size) {
        return Err(malformed("PageSize"));
    }
    let page: usize = call
        .get(number)
        .map_or(Ok(1), str::parse)
        .map_err(|_| malformed(number))?;
    let skip = page.checked_sub(1).ok_or_else(|| malformed(number))? * size;
    let page_of = all.into_iter().skip(skip).take(size).collect();
    Ok((page_of, page, size))
}

/// A parameter that must be there.
pub(super) fn need<'a>(call: &'a Call, name: &str) -> Result<&'a str, Refusal> {
    call.get(name).ok_or_else(|| {
        let words = format!("The input parameter {name} that is mandatory is not supplied.");
        Refusal::new(400, "MissingParameter", &words)
    })
}

fn malformed(name: &str) -> Refusal {
    let code = format!("Invalid{name}.Malformed");
    Refusal::new(400, &code, "The specified parameter is not valid.")
}
