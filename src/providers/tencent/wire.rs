//! What TencentDB for MongoDB sends and is sent (API version 2019-07-25).
//!
//! Read with patience: every field may be missing or null, a number may come as text, fields may
//! be added. Written to the letter: exactly the documented parameters, for unknown ones are refused.

use serde::{Deserialize, Serialize};

use crate::providers::http::lenient::{list, number, secret, text};
use crate::secret::Secret;

/// `DescribeDBInstances`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AskInstances {
    pub(super) limit: usize,
    pub(super) offset: usize,
}

/// `DescribeDBBackups`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AskBackups<'a> {
    pub(super) instance_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backup_method: Option<i64>,
    pub(super) limit: usize,
    pub(super) offset: usize,
}

/// `CreateBackupDownloadTask`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateTask<'a> {
    pub(super) instance_id: &'a str,
    pub(super) backup_name: &'a str,
    pub(super) backup_sets: [BackupSet<'a>; 1],
}

/// One replica set of a backup.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct BackupSet<'a> {
    pub(super) replica_set_id: &'a str,
}

/// `DescribeBackupDownloadTask`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AskTasks<'a> {
    pub(super) instance_id: &'a str,
    pub(super) backup_name: &'a str,
    pub(super) limit: usize,
    pub(super) offset: usize,
}

/// One page of instances.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Instances {
    #[serde(deserialize_with = "number")]
    pub(super) total_count: Option<i64>,
    #[serde(deserialize_with = "list")]
    pub(super) instance_details: Vec<Instance>,
}

/// An instance: a replica set or a sharded cluster.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Instance {
    #[serde(deserialize_with = "text")]
    pub(super) instance_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) region: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) create_time: Option<String>,
    #[serde(deserialize_with = "number")]
    pub(super) replication_set_num: Option<i64>,
    #[serde(deserialize_with = "list")]
    pub(super) replica_sets: Vec<ReplicaSet>,
}

/// A shard of an instance; a replica set has one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ReplicaSet {
    #[serde(deserialize_with = "text")]
    pub(super) replica_set_id: Option<String>,
}

/// One page of backups.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Backups {
    #[serde(deserialize_with = "number")]
    pub(super) total_count: Option<i64>,
    #[serde(deserialize_with = "list")]
    pub(super) backup_list: Vec<Backup>,
}

/// A backup of an instance. Its `BackupSize` is left out: the documents contradict each other
/// about its unit, and it is not the size of the download.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Backup {
    /// 0 automatic, 1 manual.
    #[serde(deserialize_with = "number")]
    pub(super) backup_type: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(super) backup_name: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) start_time: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) end_time: Option<String>,
    /// 1 in progress, 2 success.
    #[serde(deserialize_with = "number")]
    pub(super) status: Option<i64>,
    /// 0 logical, 1 physical, 3 snapshot.
    #[serde(deserialize_with = "number")]
    pub(super) backup_method: Option<i64>,
    #[serde(deserialize_with = "number")]
    pub(super) back_id: Option<i64>,
}

/// Answer to both calls about download tasks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Tasks {
    #[serde(deserialize_with = "number")]
    pub(super) total_count: Option<i64>,
    #[serde(deserialize_with = "list")]
    pub(super) tasks: Vec<Task>,
}

/// A download task: it packs one shard of one backup. There is no id. `BackupSize` is left out as
/// above.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Task {
    #[serde(deserialize_with = "text")]
    pub(super) create_time: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) backup_name: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) replica_set_id: Option<String>,
    /// 0 waiting, 1 packing, 2 finished, 3 failed, 4 waiting to be retried by the service.
    #[serde(deserialize_with = "number")]
    pub(super) status: Option<i64>,
    #[serde(deserialize_with = "number")]
    pub(super) percent: Option<i64>,
    #[serde(deserialize_with = "secret")]
    pub(super) url: Option<Secret>,
}

/// An error, which comes with HTTP 200.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Refusal {
    #[serde(deserialize_with = "text")]
    pub(super) code: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documented_parameters_are_sent() {
        let body = serde_json::to_string(&AskBackups {
            instance_id: "cmgo-abcd1234",
            backup_method: None,
            limit: 100,
            offset: 0,
        });
        assert_eq!(
            body.unwrap(),
            r#"{"InstanceId":"cmgo-abcd1234","Limit":100,"Offset":0}"#
        );
        let body = serde_json::to_string(&CreateTask {
            instance_id: "cmgo-abcd1234",
            backup_name: "cmgo-abcd1234_2024-05-06 01:02",
            backup_sets: [BackupSet {
                replica_set_id: "cmgo-abcd1234_0",
            }],
        });
        assert_eq!(
            body.unwrap(),
            r#"{"InstanceId":"cmgo-abcd1234","BackupName":"cmgo-abcd1234_2024-05-06 01:02","BackupSets":[{"ReplicaSetId":"cmgo-abcd1234_0"}]}"#
        );
    }

    #[test]
    fn nulls_and_numbers_in_quotes_are_read() {
        let page: Backups = serde_json::from_str(
            r#"{"TotalCount":"2","BackupList":[
                {"BackupName":"n","StartTime":null,"Status":"2","BackupMethod":3,"BackId":"17","New":{}},
                {"BackupSize":1.5,"BackId":null,"Status":2.0}],"RequestId":"r"}"#,
        )
        .unwrap();
        assert_eq!(page.total_count, Some(2));
        let [first, second] = &page.backup_list[..] else {
            panic!("two backups");
        };
        assert_eq!((first.status, first.back_id), (Some(2), Some(17)));
        assert_eq!(
            (first.start_time.as_deref(), first.backup_method),
            (None, Some(3))
        );
        assert_eq!((second.status, second.back_id), (Some(2), None));
        for none in [r#"{"Tasks":null}"#, r#"{"Tasks":[null]}"#, "{}"] {
            let none: Tasks = serde_json::from_str(none).unwrap();
            assert!(none.tasks.is_empty());
        }
    }

    #[test]
    fn a_link_is_not_printed() {
        let task: Task = serde_json::from_str(r#"{"Url":" https://h/k?sig=CANARY "}"#).unwrap();
        assert_eq!(
            task.url.as_ref().unwrap().expose(),
            "https://h/k?sig=CANARY"
        );
        assert!(!format!("{task:?}").contains("CANARY"));
    }
}
