//! What Alibaba Cloud sends, as documented, read leniently: every field may be missing, null, empty
//! or of the other type, because sizes and ids are numbers in one call and strings in the next. What
//! must be there is checked by the reader.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::secret::Secret;

/// Text, also from a number or a boolean, without blanks around it; empty is absent.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = match Value::deserialize(from)? {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => String::new(),
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// A number, also as text.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(text(from)?.and_then(|text| text.parse().ok()))
}

/// A boolean, also as text or as 0 and 1.
fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    Ok(
        text(from)?.and_then(|text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }),
    )
}

/// A signed link.
fn link<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(text(from)?.map(Secret::new))
}

/// `T`, or nothing for null and text; anything else of another shape is an error.
fn optional<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null | Value::String(_) => Ok(None),
        value => serde_json::from_value(value).map(Some).map_err(strange),
    }
}

/// A list, also inside an object that holds nothing else of the kind; null and empty text are
/// empty ones. Anything else is an error: what is not understood must not pass for nothing.
fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let items = match Value::deserialize(from)? {
        Value::Object(fields) => {
            let mut fields: Vec<Value> = fields.into_iter().map(|(_, value)| value).collect();
            // The list, or else what stands in its place.
            fields.sort_by_key(|value| (!value.is_array(), !value.is_null(), value != ""));
            fields.into_iter().next().unwrap_or(Value::Null)
        }
        other => other,
    };
    match items {
        Value::Null => Ok(Some(Vec::new())),
        Value::String(text) if text.is_empty() => Ok(Some(Vec::new())),
        items => serde_json::from_value(items).map(Some).map_err(strange),
    }
}

/// The decoder's own words would quote the value, which may be a signed link.
fn strange<E: serde::de::Error>(_: serde_json::Error) -> E {
    E::custom("another shape than documented")
}

/// What every answer may carry about its success.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Envelope {
    /// Only dbs has it; there it decides, not the code.
    #[serde(
        default,
        rename = "Success",
        alias = "success",
        deserialize_with = "flag"
    )]
    pub(super) success: Option<bool>,
    #[serde(default, rename = "Code", alias = "code", deserialize_with = "text")]
    pub(super) code: Option<String>,
    #[serde(default, rename = "ErrCode", deserialize_with = "text")]
    pub(super) err_code: Option<String>,
    #[serde(
        default,
        rename = "Message",
        alias = "message",
        deserialize_with = "text"
    )]
    pub(super) message: Option<String>,
    #[serde(default, rename = "ErrMessage", deserialize_with = "text")]
    pub(super) err_message: Option<String>,
}

/// DescribeDBInstances and DescribeDBInstanceAttribute.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Instances {
    #[serde(default, deserialize_with = "number")]
    pub(super) total_count: Option<u64>,
    #[serde(default, rename = "DBInstances", deserialize_with = "list")]
    pub(super) instances: Option<Vec<Instance>>,
}

/// An instance. The attributes are a superset of what the list has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Instance {
    #[serde(default, rename = "DBInstanceId", deserialize_with = "text")]
    pub(super) id: Option<String>,
    /// `replicate` or `sharding`.
    #[serde(default, rename = "DBInstanceType", deserialize_with = "text")]
    pub(super) architecture: Option<String>,
    #[serde(default, rename = "DBInstanceStatus", deserialize_with = "text")]
    pub(super) status: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) region_id: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) creation_time: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) engine_version: Option<String>,
    /// `local_ssd`, `cloud_essd1` …
    #[serde(default, deserialize_with = "text")]
    pub(super) storage_type: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) replication_factor: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) kind_code: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) replica_set_name: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    pub(super) encrypted: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    pub(super) encryption_key: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    pub(super) use_cluster_backup: Option<bool>,
    #[serde(default, deserialize_with = "list")]
    pub(super) shard_list: Option<Vec<Node>>,
}

/// A shard of a cluster.

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Node {
    #[serde(default, rename = "NodeId", deserialize_with = "text")]
    pub(super) id: Option<String>,
}

/// DescribeBackups.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Backups {
    #[serde(default, deserialize_with = "number")]
    pub(super) total_count: Option<u64>,
    #[serde(default, deserialize_with = "list")]
    pub(super) backups: Option<Vec<Backup>>,
}

/// A backup of a replica set or of one shard.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Backup {
    #[serde(default, deserialize_with = "text")]
    pub(super) backup_id: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) backup_job_id: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) backup_method: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) backup_mode: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) backup_type: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) backup_status: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    pub(super) is_avail: Option<bool>,
    /// Bytes.
    #[serde(default, deserialize_with = "number")]
    pub(super) backup_size: Option<u64>,
    #[serde(default, deserialize_with = "text")]
    pub(super) backup_start_time: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) backup_end_time: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) engine_version: Option<String>,
    /// The shard, in a backup of a whole cluster only.
    #[serde(default, deserialize_with = "text")]
    pub(super) instance_name: Option<String>,
    #[serde(default, rename = "BackupDownloadURL", deserialize_with = "link")]
    pub(super) public_url: Option<Secret>,
    #[serde(
        default,
        rename = "BackupIntranetDownloadURL",
        deserialize_with = "link"
    )]
    pub(super) private_url: Option<Secret>,
}

/// DescribeClusterBackups.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ClusterBackups {
    #[serde(default, deserialize_with = "list")]
    pub(super) cluster_backups: Option<Vec<ClusterBackup>>,
}

/// A backup of a whole sharded cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ClusterBackup {
    #[serde(default, deserialize_with = "text")]
    pub(super) cluster_backup_id: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) cluster_backup_status: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) cluster_backup_mode: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) cluster_backup_start_time: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) cluster_backup_end_time: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    pub(super) is_avail: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    pub(super) engine_version: Option<String>,
    /// Percent, while it is being taken.
    #[serde(default, deserialize_with = "text")]
    pub(super) progress: Option<String>,
    #[serde(default, deserialize_with = "list")]
    pub(super) backups: Option<Vec<Backup>>,
}

/// DescribeDownloadSupport.
#[derive(Deserialize)]
pub(super) struct Support {
    #[serde(default, rename = "Data", deserialize_with = "flag")]
    pub(super) supported: Option<bool>,
}

/// An answer of dbs with `Data`.
#[derive(Deserialize)]
pub(super) struct Data<T: DeserializeOwned> {
    #[serde(
        default = "Option::default",
        rename = "Data",
        deserialize_with = "optional"
    )]
    pub(super) data: Option<T>,
}

/// A page of DescribeDownloadTask.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tasks {
    #[serde(default, deserialize_with = "number")]
    pub(super) total_elements: Option<u64>,
    #[serde(default, deserialize_with = "list")]
    pub(super) content: Option<Vec<DownloadTask>>,
}

/// A download task, as it is listed and as its creation is answered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DownloadTask {
    #[serde(default, deserialize_with = "text")]
    pub(super) task_id: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) download_status: Option<String>,
    /// Tables done and in all, `3/17`.
    #[serde(default, deserialize_with = "text")]
    pub(super) progress: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) bak_set_id: Option<String>,
    /// `URL` or `OSS`.
    #[serde(default, deserialize_with = "text")]
    pub(super) target_type: Option<String>,
    /// The folder it writes into, if that is in a bucket.
    #[serde(default, deserialize_with = "text")]
    pub(super) target_path: Option<String>,
    /// Milliseconds since 1970.
    #[serde(default, deserialize_with = "number")]
    pub(super) gmt_create: Option<u64>,
}

/// DescribeDownloadBackupSetStorageInfo.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Storage {
    #[serde(default, deserialize_with = "link")]
    pub(super) public_url: Option<Secret>,
    #[serde(default, deserialize_with = "link")]
    pub(super) private_url: Option<Secret>,
    /// Since 1970, in seconds or in milliseconds.
    #[serde(default, deserialize_with = "number")]
    pub(super) expiration_time: Option<u64>,
}

impl Storage {
    /// Whether there is no link in it.
    pub(super) fn is_empty(&self) -> bool {
        self.public_url.is_none() && self.private_url.is_none()
    }
}

/// What a list may name twice.
pub(super) trait Keyed {
    /// Its identity.
    fn key(&self) -> Option<&str>;
}

impl Keyed for Instance {
    fn key(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

impl Keyed for Backup {
    fn key(&self) -> Option<&str> {
        self.backup_id.as_deref()
    }
}

impl Keyed for ClusterBackup {
    fn key(&self) -> Option<&str> {
        self.cluster_backup_id.as_deref()
    }
}

impl Keyed for DownloadTask {
    fn key(&self) -> Option<&str> {
        self.task_id.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_text_and_text_numbers() {
        for json in [
            r#"{"BackupId":190700001,"BackupSize":"4096","IsAvail":1,"BackupDownloadURL":""}"#,
            r#"{"BackupId":"190700001\n","BackupSize":4096,"IsAvail":"True","BackupDownloadURL":null}"#,
        ] {
            let backup: Backup = serde_json::from_str(json).unwrap();
            assert_eq!(backup.backup_id.as_deref(), Some("190700001"), "{json}");
            assert_eq!(backup.backup_size, Some(4096), "{json}");
            assert_eq!(backup.is_avail, Some(true), "{json}");
            assert!(backup.public_url.is_none(), "{json}");
        }
    }

    #[test]
    fn lists_may_be_empty_in_many_ways_but_nothing_else() {
        let listed = |inner: &str| {
            let json = format!(r#"{{"TotalCount":"0","Backups":{inner}}}"#);
            let answer: Result<Backups, _> = serde_json::from_str(&json);
            answer.map(|answer| answer.backups.map(|list| list.len()))
        };
        for empty in [
            "null",
            r#""""#,
            "{}",
            "[]",
            r#"{"Backup":[]}"#,
            r#"{"Backup":null}"#,
            r#"{"Backup":""}"#,
        ] {
            assert_eq!(listed(empty).unwrap(), Some(0), "{empty}");
        }
        for one in [
            r#"{"Backup":[{"BackupId":1}]}"#,
            r#"[{"BackupId":1}]"#,
            r#"{"Also":{},"Backup":[{"New":{}}]}"#,
        ] {
            assert_eq!(listed(one).unwrap(), Some(1), "{one}");
        }
        for other in [
            "7",
            "true",
            r#""none""#,
            r#"{"Backup":"none"}"#,
            r#"{"Backup":[7]}"#,
        ] {
            assert!(listed(other).is_err(), "{other}");
        }
        let absent: Backups = serde_json::from_str("{}").unwrap();
        assert!(absent.backups.is_none());
    }

    #[test]
    fn data_may_be_absent_but_not_of_another_shape() {
        for json in [
            "{}",
            r#"{"Data":null}"#,
            r#"{"Data":"none"}"#,
            r#"{"Data":{}}"#,
        ] {
            let tasks: Data<Tasks> = serde_json::from_str(json).unwrap();
            assert!(
                tasks.data.is_none_or(|tasks| tasks.content.is_none()),
                "{json}"
            );
        }
        // A task that is not understood may be the very one that must not be made twice.
        for json in [r#"{"Data":{"Content":{"List":[1]}}}"#, r#"{"Data":7}"#] {
            assert!(serde_json::from_str::<Data<Tasks>>(json).is_err(), "{json}");
        }
        let support: Support = serde_json::from_str(r#"{"Data":"True"}"#).unwrap();
        assert_eq!(support.supported, Some(true));
    }
}
