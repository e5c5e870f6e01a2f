//! From UCloud's rows to the nouns of the house. Pure.
//!
//! A row is a backup of one replica set; rows with the same batch are the shards of one backup. Where
//! words are not documented, whatever does not say that a backup failed or is under way is taken as
//! there to be asked for.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::oplogs::{self, Oplog};
use super::wire;
use crate::model::{Backup, Facts, Instance, Shard};

/// Facts of an instance. A zone may not be known.
pub(super) const REGION: &str = "region";
pub(super) const ZONE: &str = "zone";
const SHARDED: &str = "sharded";
/// Facts of a shard, besides its zone.
pub(super) const BACKUP: &str = "backup";
pub(super) const OPLOGS: &str = "oplogs";
/// Why a link may be refused although nothing is wrong.
const RESERVE: &str = "reserve";

/// The directory of an instance; `None` if it has no id.
pub(super) fn instance(listed: wire::Instance, region: &str) -> Option<Instance> {
    let mut facts = Facts::from([(REGION, region.to_owned())]);
    facts.extend(listed.zone.map(|zone| (ZONE, zone)));
    let kind = listed.cluster_type.unwrap_or_default().to_ascii_lowercase();
    if kind.contains("shar") {
        facts.insert(SHARDED, kind);
    }
    Some(Instance {
        id: listed.cluster_id?,
        created: listed.create_time.and_then(instant),
        facts,
    })
}

/// The backups that rows and packages make; none of those that are still being taken.
pub(super) fn backups(
    rows: Vec<wire::Backup>,
    packages: Vec<wire::Package>,
    of: &Instance,
) -> Vec<Backup> {
    let (parts, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(oplogs::is_part);
    let mut batches: BTreeMap<String, BTreeMap<String, wire::Backup>> = BTreeMap::new();
    for row in rows {
        let Some(id) = row.backup_id.clone() else {
            continue;
        };
        let batch = row.batch_id.clone().unwrap_or_else(|| id.clone());
        batches.entry(batch).or_default().insert(id, row);
    }
    let mut backups: Vec<Backup> = batches
        .into_iter()
        .filter_map(|(id, rows)| backup(id, &rows, of))
        .collect();
    let parts = parts.into_iter().filter_map(Oplog::of_row);
    let packages = packages.into_iter().filter_map(Oplog::of_package);
    oplogs::share_out(parts.chain(packages).collect(), &mut backups);
    backups
}

/// One backup; `None` while a row of it is under way.
fn backup(id: String, rows: &BTreeMap<String, wire::Backup>, of: &Instance) -> Option<Backup> {
    let standings = rows.values().map(standing);
    let standings: Vec<Standing> = standings.collect();
    if standings.contains(&Standing::UnderWay) {
        return None;
    }
    let starts = rows
        .values()
        .filter_map(|row| row.start_time.and_then(instant));
    let ends = rows
        .values()
        .filter_map(|row| row.end_time.and_then(instant));
    let (started, finished) = (starts.min(), ends.max());
    // A row without any time has a place all the same, before all others.
    let began = started.or(finished).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows.values() {
        *named.entry(shard_name(row)).or_default() += 1;
    }
    let shards = rows.iter().map(|(backup, row)| {
        let name = shard_name(row);
        let mut facts = Facts::from([(BACKUP, backup.clone())]);
        facts.extend(row.zone.clone().map(|zone| (ZONE, zone)));
        facts.extend(reserve(row, of).map(|words| (RESERVE, words)));
        Shard {
            id: match named[name] {
                1 => name.to_owned(),
                _ => format!("{name}-{backup}"),
            },
            facts,
        }
    });
    let first = rows.values().next()?;
    let states = rows.values().filter_map(|row| row.state.clone());
    let kind = first.backup_type.as_deref().unwrap_or_default();
    Some(Backup {
        started: began,
        finished: finished.unwrap_or(began),
        // The word of a shard that failed, if there is one.
        status: standings
            .iter()
            .zip(rows.values())
            .find(|(standing, _)| **standing == Standing::Failed)
            .and_then(|(_, row)| row.state.clone())
            .or_else(|| states.into_iter().next())
            .unwrap_or_default(),
        successful: standings.iter().all(|standing| *standing == Standing::Done),
        method: method(kind),
        version: None,
        trigger: trigger(kind),
        not_downloadable: None,
        shards: shards.collect(),
        facts: Facts::new(),
        id,
    })
}

/// The directory of a row within its backup.
fn shard_name(row: &wire::Backup) -> &str {
    let is_config = |kind: &str| kind.to_ascii_lowercase().starts_with("config");
    match row.replica_type.as_deref() {
        Some(kind) if is_config(kind) => "config",
        _ => row.virtual_cluster_id.as_deref().unwrap_or("rs"),
    }
}

/// Where a backup stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    UnderWay,
    Done,
    Failed,
    /// Its word is not known and it has no end.
    Unknown,
}

fn standing(row: &wire::Backup) -> Standing {
    let state = row
        .state
        .as_deref()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| state.contains(word));
    if says(&["fail", "error", "cancel", "abort", "expire", "delet"]) {
        Standing::Failed
    } else if says(&["succe", "finish", "complete", "done", "normal", "available"]) {
        Standing::Done
    } else if state.ends_with("ing") || says(&["progress"]) {
        Standing::UnderWay
    } else if row.end_time.is_some_and(|end| end > 0) {
        Standing::Done
    } else {
        Standing::Unknown
    }
}

/// Why UCloud may have no link to this row. Whether it still is so is for the API to say.
fn reserve(row: &wire::Backup, of: &Instance) -> Option<String> {
    let kind = row.backup_type.as_deref().unwrap_or_default();
    if standing(row) == Standing::Failed {
        let state = crate::error::one_line(row.state.as_deref().unwrap_or_default());
        return Some(format!("its state is {state}"));
    }
    if method(kind).as_deref() == Some("snapshot") {
        return Some("UCloud offers no download of snapshots".to_owned());
    }
    let sharded = of.facts.contains_key(SHARDED) || row.batch_id.is_some();
    sharded.then(|| "UCloud may offer no download of sharded clusters".to_owned())
}

/// Why a refused link to `shard` means that it cannot be downloaded.
pub(super) fn reservation(shard: &Shard) -> Option<&str> {
    shard.facts.get(RESERVE).map(String::as_str)
}

fn method(kind: &str) -> Option<String> {
    let kind = kind.to_ascii_lowercase();
    let known = [
        ("snap", "snapshot"),
        ("logic", "logical"),
        ("physic", "physical"),
    ];
    let known = known.iter().find(|(part, _)| kind.contains(part));
    known.map(|(_, word)| (*word).to_owned())
}

fn trigger(kind: &str) -> Option<String> {
    let lower = kind.to_ascii_lowercase();
    match lower.as_str() {
        "" => None,
        "0" => Some("automatic".to_owned()),
        "1" => Some("manual".to_owned()),
        _ if lower.contains("auto") => Some("automatic".to_owned()),
        _ if lower.contains("manual") => Some("manual".to_owned()),
        _ => Some(kind.to_owned()),
    }
}

/// A time in seconds since 1970; 0 stands for none.
pub(super) fn instant(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok().filter(|_| seconds > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(kind: &str) -> Instance {
        let row = serde_json::json!({"ClusterId": "c", "Zone": "cn-bj2-05", "ClusterType": kind});
        instance(serde_json::from_value(row).unwrap(), "cn-bj2").unwrap()
    }

    fn read(rows: serde_json::Value, kind: &str) -> Vec<Backup> {
        backups(serde_json::from_value(rows).unwrap(), Vec::new(), &of(kind))
    }

    fn shards(backup: &Backup) -> Vec<&str> {
        backup
            .shards
            .iter()
            .map(|shard| shard.id.as_str())
            .collect()
    }

    #[test]
    fn only_the_id_of_a_row_is_needed() {
        let listed = read(
            serde_json::json!([{"BackupId": "b"}, {"BackupName": "nobody's"}, {"BackupId": "b"}]),
            "ReplicaSet",
        );
        let [backup] = &listed[..] else {
            panic!("one backup: {listed:?}");
        };
        assert_eq!((&*backup.id, shards(backup)), ("b", vec!["rs"]));
        assert_eq!(backup.started, Timestamp::UNIX_EPOCH);
        assert!(!backup.successful, "whether it ended is not known");
        assert_eq!(reservation(&backup.shards[0]), None);
    }

    #[test]
    fn rows_of_a_batch_are_the_shards_of_one_backup() {
        let listed = read(
            serde_json::json!([
                {"BackupId": "b3", "BatchId": "batch", "ReplicaType": "ConfigRepl", "StartTime": 1_700_000_002,
                 "EndTime": 1_700_000_050, "State": "Success", "VirtualClusterId": "v0", "Zone": "cn-bj2-04"},
                {"BackupId": "b1", "BatchId": "batch", "ReplicaType": "DataRepl", "StartTime": 1_700_000_000,
                 "EndTime": 1_700_000_100, "State": "Success", "VirtualClusterId": "v1"},
                {"BackupId": "b2", "BatchId": "batch", "ReplicaType": "DataRepl", "StartTime": 1_700_000_001,
                 "EndTime": 1_700_000_090, "State": "Success", "VirtualClusterId": "v2"},
                {"BackupId": "alone", "BatchId": "", "StartTime": 1_600_000_000, "EndTime": 1_600_000_100},
            ]),
            "SharedCluster",
        );
        let [alone, batch] = &listed[..] else {
            panic!("two backups: {listed:?}");
        };
        assert_eq!((&*alone.id, shards(alone)), ("alone", vec!["rs"]));
        assert_eq!(batch.id, "batch");
        assert_eq!(shards(batch), ["v1", "v2", "config"]);
        assert_eq!(batch.started.as_second(), 1_700_000_000);
        assert_eq!(batch.finished.as_second(), 1_700_000_100);
        assert!(batch.successful);
        let config = &batch.shards[2];
        assert_eq!(
            (&*config.facts[BACKUP], &*config.facts[ZONE]),
            ("b3", "cn-bj2-04")
        );
        assert!(reservation(config).unwrap().contains("sharded"));
    }

    #[test]
    fn shards_that_share_a_name_are_told_apart() {
        let listed = read(
            serde_json::json!([
                {"BackupId": "b1", "BatchId": "x", "ReplicaType": "DataRepl"},
                {"BackupId": "b2", "BatchId": "x", "ReplicaType": "DataRepl"},
                {"BackupId": "b3", "BatchId": "x", "ReplicaType": "ConfigRepl"},
            ]),
            "SharedCluster",
        );
        assert_eq!(shards(&listed[0]), ["rs-b1", "rs-b2", "config"]);
    }

    #[test]
    fn states_in_unknown_words_are_listed() {
        for (state, end, listed, successful) in [
            ("Success", 0, true, true),
            ("Succeeded", 1, true, true),
            ("Backuping", 0, false, false),
            ("Running", 1, false, false),
            ("InProgress", 0, false, false),
            ("Failed", 1, true, false),
            ("Expired", 1, true, false),
            ("Deleting", 1, true, false),
            ("Uploaded", 1, true, true),
            ("Uploaded", 0, true, false),
            ("", 1, true, true),
        ] {
            let row = serde_json::json!([{"BackupId": "b", "State": state, "StartTime": 1, "EndTime": end}]);
            let backups = read(row, "ReplicaSet");
            assert_eq!(backups.len(), usize::from(listed), "{state}");
            if let [backup] = &backups[..] {
                assert_eq!(backup.successful, successful, "{state}");
                assert_eq!(backup.status, state);
            }
        }
    }

    #[test]
    fn one_failed_or_unfinished_shard_counts_for_the_backup() {
        let rows = |state| {
            serde_json::json!([
                {"BackupId": "b1", "BatchId": "x", "VirtualClusterId": "v1", "State": "Success"},
                {"BackupId": "b2", "BatchId": "x", "VirtualClusterId": "v2", "State": state},
            ])
        };
        assert!(read(rows("Backuping"), "SharedCluster").is_empty());
        let failed = &read(rows("Failed"), "SharedCluster")[0];
        assert_eq!((&*failed.status, failed.successful), ("Failed", false));
        assert_eq!(reservation(&failed.shards[1]), Some("its state is Failed"));
    }

    #[test]
    fn types_in_every_spelling() {
        for (kind, expected_trigger, expected_method) in [
            ("Auto", Some("automatic"), None),
            ("MANUAL", Some("manual"), None),
            ("0", Some("automatic"), None),
            ("1", Some("manual"), None),
            ("Snapshot", Some("Snapshot"), Some("snapshot")),
            ("AutoLogic", Some("automatic"), Some("logical")),
            ("", None, None),
        ] {
            assert_eq!(trigger(kind).as_deref(), expected_trigger, "{kind}");
            assert_eq!(method(kind).as_deref(), expected_method, "{kind}");
        }
    }

    proptest! {
        /// Whatever rows come, no two files of an instance share their identity.
        #[test]
        fn shards_are_unique(rows in proptest::collection::vec((0u8..6, 0u8..3, 0u8..3, any::<bool>()), 0..12)) {
            let rows: Vec<_> = rows
                .into_iter()
                .map(|(id, batch, cluster, config)| serde_json::json!({
                    "BackupId": format!("b{id}"),
                    "BatchId": (batch > 0).then(|| format!("x{batch}")),
                    "VirtualClusterId": (cluster > 0).then(|| format!("v{cluster}")),
                    "ReplicaType": if config { "ConfigRepl" } else { "DataRepl" },
                }))
                .collect();
            let mut seen = std::collections::HashSet::new();
            for backup in read(rows.into(), "SharedCluster") {
                for shard in &backup.shards {
                    prop_assert!(seen.insert((backup.id.clone(), shard.id.clone())));
                }
            }
        }
    }
}
