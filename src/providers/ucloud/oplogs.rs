//! Logs of operations: packages that continue a backup of a replica set, shown as files of it. Pure.
//!
//! They are linked by a package's id and the category `oplog`. No public call is documented to list
//! them; they are taken from wherever they show up, among the packed logs or the backups.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::convert::{OPLOGS, instant};
use super::wire;
use crate::error::{Error, Kind, Result};
use crate::model::{Backup, Facts, Origin, RemoteFile, Shard, Size};

/// The category of such a link.
pub(super) const CATEGORY: &str = "oplog";
/// Fact of a file: the package, or the backup, that it is.
pub(super) const PACKAGE: &str = "package";
pub(super) const PART: &str = "part";

/// One log of operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Oplog {
    id: String,
    /// Whether the id is that of a package; otherwise it is a backup's.
    is_package: bool,
    /// Seconds since 1970.
    begin: Option<i64>,
    end: Option<i64>,
    batch: Option<String>,
    shard: Option<String>,
}

/// Whether a row of the list of backups is a log of operations.
pub(super) fn is_part(row: &wire::Backup) -> bool {
    [&row.category, &row.backup_type].into_iter().any(says_so)
}

fn says_so(word: &Option<String>) -> bool {
    let word = word.as_deref().unwrap_or_default();
    word.to_ascii_lowercase().contains(CATEGORY)
}

impl Oplog {
    pub(super) fn of_row(row: wire::Backup) -> Option<Self> {
        Some(Oplog {
            is_package: row.package_id.is_some(),
            id: row.package_id.or(row.backup_id)?,
            begin: row.start_time,
            end: row.end_time,
            batch: row.batch_id,
            shard: row.virtual_cluster_id,
        })
    }

    /// `None` for other logs, and for one that is not there yet or any more.
    pub(super) fn of_package(listed: wire::Package) -> Option<Self> {
        let state = listed.state.as_deref().unwrap_or_default();
        let not_there = ["Running", "Failed", "Deleting", "Deleted"];
        let gone = not_there.iter().any(|word| state.ends_with(word));
        if !says_so(&listed.package_type) || gone {
            return None;
        }
        Some(Oplog {
            id: listed.id?,
            is_package: true,
            begin: listed.begin.or(listed.create_time),
            end: listed.end.or(listed.finish_time),
            batch: None,
            shard: listed.virtual_cluster_id,
        })
    }

    fn begin(&self) -> Option<Timestamp> {
        self.begin.and_then(instant)
    }
}

/// Gives each log to the shard it continues: of its batch, else of the newest backup that began
/// before it, else of the oldest. Without backups there is nothing to continue.
pub(super) fn share_out(logs: Vec<Oplog>, backups: &mut [Backup]) {
    backups.sort_by_key(|backup| backup.started);
    for log in logs {
        let of_batch = backups
            .iter()
            .position(|one| Some(&one.id) == log.batch.as_ref());
        let before = |one: &Backup| log.begin().is_none_or(|begin| one.started <= begin);
        let at = of_batch
            .or_else(|| backups.iter().rposition(before))
            .unwrap_or(0);
        let Some(backup) = backups.get_mut(at) else {
            continue;
        };
        let shards = &mut backup.shards;
        let named = shards
            .iter()
            .position(|one| Some(&one.id) == log.shard.as_ref());
        let data = || shards.iter().position(|one| one.id != "config");
        let at = named.or_else(data).unwrap_or(0);
        if let Some(shard) = shards.get_mut(at) {
            let mut held = of(shard).unwrap_or_default();
            if !held.contains(&log) {
                held.push(log);
            }
            held.sort_by(|a, b| (a.begin, &a.id).cmp(&(b.begin, &b.id)));
            if let Ok(text) = serde_json::to_string(&held) {
                shard.facts.insert(OPLOGS, text);
            }
        }
    }
}

/// The logs of a shard.
fn of(shard: &Shard) -> Result<Vec<Oplog>> {
    match shard.facts.get(OPLOGS) {
        None => Ok(Vec::new()),
        Some(text) => serde_json::from_str(text)
            .map_err(|_| Error::new(Kind::Internal, "a shard lost its logs of operations")),
    }
}

/// The files of the logs of `shard`.
pub(super) fn files(shard: &Shard) -> Result<Vec<RemoteFile>> {
    let files = of(shard)?.into_iter().map(|log| {
        let fact = if log.is_package { PACKAGE } else { PART };
        RemoteFile {
            path: format!("oplog-{}.gz", log.id),
            size: Size::Unknown,
            modified: log.end.or(log.begin).and_then(instant),
            origin: Origin::Object,
            etag: None,
            digest: None,
            facts: Facts::from([(fact, log.id)]),
        }
    });
    Ok(files.collect())
}

#[cfg(test)]
mod tests {
    use super::super::convert;
    use super::*;
    use crate::model::Instance;

    fn listed(rows: serde_json::Value, packages: serde_json::Value) -> Vec<(String, Vec<String>)> {
        let of = Instance {
            id: "c".into(),
            created: None,
            facts: Facts::new(),
        };
        let rows = serde_json::from_value(rows).unwrap();
        let packages = serde_json::from_value(packages).unwrap();
        let backups = convert::backups(rows, packages, &of);
        let shards = backups.iter().flat_map(|backup| {
            let shards = backup.shards.iter();
            shards.map(|shard| (format!("{}/{}", backup.id, shard.id), shard))
        });
        shards
            .map(|(name, shard)| {
                let files = files(shard).unwrap();
                (name, files.into_iter().map(|file| file.path).collect())
            })
            .collect()
    }

    fn full() -> serde_json::Value {
        serde_json::json!([
            {"BackupId": "old", "StartTime": 100, "EndTime": 110, "State": "Success"},
            {"BackupId": "new", "StartTime": 200, "EndTime": 210, "State": "Success"},
        ])
    }

    #[test]
    fn packages_belong_to_the_backup_that_they_continue() {
        let packages = serde_json::json!([
            {"Id": 9, "PackageType": "Oplog", "State": "Package_Success", "Begin": 250, "End": 300},
            {"Id": 8, "PackageType": "oplog", "Begin": 205, "End": 250},
            {"Id": 7, "PackageType": "OplogBackup", "Begin": 120, "End": 200},
            {"Id": 6, "PackageType": "oplog", "Begin": 50, "End": 90},
            {"Id": 5, "PackageType": "oplog", "State": "Package_Running", "Begin": 250},
            {"Id": 4, "PackageType": "SlowLog", "State": "Package_Success", "Begin": 250},
            {"PackageType": "oplog"},
        ]);
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            listed(full(), packages.clone()),
            [
                ("old/rs".to_owned(), own(&["oplog-6.gz", "oplog-7.gz"])),
                ("new/rs".to_owned(), own(&["oplog-8.gz", "oplog-9.gz"])),
            ]
        );
        assert!(listed(serde_json::json!([]), packages).is_empty());
    }

    #[test]
    fn rows_of_the_category_are_files_of_their_batch() {
        let rows = serde_json::json!([
            {"BackupId": "b1", "BatchId": "x", "VirtualClusterId": "v1", "StartTime": 100},
            {"BackupId": "b2", "BatchId": "x", "VirtualClusterId": "v2", "StartTime": 100},
            {"BackupId": "b3", "BatchId": "x", "VirtualClusterId": "v2", "Category": "oplog", "PackageId": 3},
            {"BackupId": "b4", "BackupType": "Oplog", "StartTime": 150},
        ]);
        let own = |name: &str, file: &str| (name.to_owned(), vec![file.to_owned()]);
        assert_eq!(
            listed(rows, serde_json::json!([])),
            [own("x/v1", "oplog-b4.gz"), own("x/v2", "oplog-3.gz")]
        );
    }
}
