//! What UCloud answers ("UMongoDB", docs.ucloud.cn/api/umongodb-api). Read with patience: every field
//! may be missing or null, a number may come as text, fields may be added.

use serde::Deserialize;

use crate::providers::http::lenient::{list, number, secret, text};
use crate::secret::Secret;

/// What every answer begins with, also one that refuses; errors come with HTTP 200.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Envelope {
    #[serde(deserialize_with = "number")]
    pub(super) ret_code: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(super) action: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) message: Option<String>,
}

/// A list; it is left out where it is empty. None of them has pages.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct DataSet<T> {
    #[serde(rename = "DataSet", deserialize_with = "list", default = "Vec::new")]
    pub(super) items: Vec<T>,
}

/// A row of `ListUMongoDBInstances`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Instance {
    #[serde(deserialize_with = "text")]
    pub(super) cluster_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) zone: Option<String>,
    /// `ReplicaSet`, or `SharedCluster`, which means a sharded one.
    #[serde(deserialize_with = "text")]
    pub(super) cluster_type: Option<String>,
    /// Seconds since 1970, like all times here.
    #[serde(deserialize_with = "number")]
    pub(super) create_time: Option<i64>,
}

/// A row of `ListUMongoDBBackup`: a backup of one replica set. Sizes are left out: their unit is not
/// documented, and they are not those of the download.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Backup {
    #[serde(deserialize_with = "text")]
    pub(super) backup_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) zone: Option<String>,
    /// Its words are not documented.
    #[serde(deserialize_with = "text")]
    pub(super) state: Option<String>,
    /// Nor are these.
    #[serde(deserialize_with = "text")]
    pub(super) backup_type: Option<String>,
    #[serde(deserialize_with = "number")]
    pub(super) start_time: Option<i64>,
    #[serde(deserialize_with = "number")]
    pub(super) end_time: Option<i64>,
    /// `ConfigRepl` or `DataRepl`.
    #[serde(deserialize_with = "text")]
    pub(super) replica_type: Option<String>,
    /// The replica set within a sharded cluster.
    #[serde(deserialize_with = "text")]
    pub(super) virtual_cluster_id: Option<String>,
    /// What the rows of one backup of a sharded cluster share.
    #[serde(deserialize_with = "text")]
    pub(super) batch_id: Option<String>,
    /// Not documented for this list; a row of the category `oplog` is part of another backup.
    #[serde(deserialize_with = "text")]
    pub(super) category: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) package_id: Option<String>,
}

/// A row of `ListUMongoDBLogPackage`: packed logs, among them those of operations.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Package {
    #[serde(deserialize_with = "text")]
    pub(super) id: Option<String>,
    /// `Package_Success` once it can be had.
    #[serde(deserialize_with = "text")]
    pub(super) state: Option<String>,
    /// `SlowLog` and `ErrorLog` are documented, which are no backups.
    #[serde(deserialize_with = "text")]
    pub(super) package_type: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) virtual_cluster_id: Option<String>,
    #[serde(deserialize_with = "number")]
    pub(super) begin: Option<i64>,
    #[serde(deserialize_with = "number")]
    pub(super) end: Option<i64>,
    #[serde(deserialize_with = "number")]
    pub(super) create_time: Option<i64>,
    #[serde(deserialize_with = "number")]
    pub(super) finish_time: Option<i64>,
}

/// `DescribeUMongoDBBackupURL`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Addresses {
    #[serde(deserialize_with = "secret")]
    pub(super) internet_address: Option<Secret>,
    #[serde(deserialize_with = "secret")]
    pub(super) intranet_address: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_be_missing_or_null_and_numbers_may_be_text() {
        for none in ["{}", r#"{"DataSet":null}"#, r#"{"DataSet":[]}"#] {
            let list: DataSet<Backup> = serde_json::from_str(none).unwrap();
            assert!(list.items.is_empty(), "{none}");
        }
        let rows: DataSet<Backup> = serde_json::from_str(
            r#"{"RetCode":"0","DataSet":[{"BackupId":17,"StartTime":"1700000000","EndTime":null,
                "BatchId":"","DiskSize":20,"New":{}},{"BackupId":"b","BackupType":1}]}"#,
        )
        .unwrap();
        let [first, second] = &rows.items[..] else {
            panic!("two rows");
        };
        assert_eq!(first.backup_id.as_deref(), Some("17"));
        assert_eq!(
            (first.start_time, first.end_time),
            (Some(1_700_000_000), None)
        );
        assert_eq!(first.batch_id, None);
        assert_eq!(second.backup_type.as_deref(), Some("1"));
    }

    #[test]
    fn a_link_is_not_printed() {
        let addresses: Addresses = serde_json::from_str(
            r#"{"InternetAddress":" http://h/k?a=1\u0026Signature=CANARY/= "}"#,
        )
        .unwrap();
        let link = addresses.internet_address.as_ref().unwrap();
        assert_eq!(link.expose(), "http://h/k?a=1&Signature=CANARY/=");
        assert!(!format!("{addresses:?}").contains("CANARY"));
    }
}
