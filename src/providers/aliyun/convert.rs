//! From what Alibaba Cloud lists to the nouns of the house. Pure.
//!
//! A backup consists of one piece per shard. A piece that comes with a link of its own (local disk)
//! is an object; any other one must be converted by a download task first (cloud disk), or cannot be
//! had at all, and then says why.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use url::Url;

use super::bucket::Object;
use super::wire;
use crate::config::ArchiveFormat;
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Backup, Facts, Instance, Origin, RemoteFile, Shard, ShardRef, Size};
use crate::secret::Secret;

/// Facts of an instance.
const REGION: &str = "region";
const ARCHITECTURE: &str = "architecture";
/// Fact of a file: the key of its object in the own bucket.
const KEY: &str = "key";
/// Fact of a backup: it is one of a whole cluster.
const WHOLE_CLUSTER: &str = "whole-cluster";
/// Facts of a shard: its backup set, the end of its file's name if it has a link of its own, its
/// size in bytes, and why it cannot be downloaded.
const BACKUP_SET: &str = "backup-set";
const EXTENSION: &str = "extension";
const SIZE: &str = "size";
const REFUSED: &str = "refused";

/// The value of ARCHITECTURE for sharded clusters, also on the wire.
pub(super) const SHARDING: &str = "sharding";
/// The other one: replica sets and single nodes.
pub(super) const REPLICATE: &str = "replicate";

/// The directory of an instance listed in `region` among those of `architecture`.
pub(super) fn instance(
    listed: &wire::Instance,
    region: &str,
    architecture: &str,
) -> Option<Instance> {
    let region = listed.region_id.as_deref().unwrap_or(region);
    let architecture = listed.architecture.as_deref().unwrap_or(architecture);
    Some(Instance {
        id: listed.id.clone()?,
        created: listed.creation_time.as_deref().and_then(timestamp),
        facts: Facts::from([
            (REGION, region.to_owned()),
            (ARCHITECTURE, architecture.to_ascii_lowercase()),
        ]),
    })
}

/// The region of an instance.
pub(super) fn region(of: &Instance) -> String {
    of.facts.get(REGION).cloned().unwrap_or_default()
}

/// Whether it is a sharded cluster.
pub(super) fn is_sharded(of: &Instance) -> bool {
    of.facts
        .get(ARCHITECTURE)
        .is_some_and(|kind| kind == SHARDING)
}

/// The shards of a cluster, sorted by id.
pub(super) fn nodes(attributes: &wire::Instance) -> Vec<String> {
    let listed = attributes.shard_list.iter().flatten();
    let mut nodes: Vec<String> = listed.filter_map(|node| node.id.clone()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Why no snapshot of this instance can ever be converted ("Download backup files", applicability).
pub(super) fn lasting_obstacle(attributes: &wire::Instance) -> Option<String> {
    let storage = attributes.storage_type.as_deref().unwrap_or_default();
    let is = |value: &Option<String>, word: &str| value.as_deref() == Some(word);
    let sharded = is(&attributes.architecture, SHARDING);
    let single = is(&attributes.replication_factor, "1") || is(&attributes.kind_code, "3");
    let reason = if storage.starts_with("local") {
        "Alibaba Cloud gives no link to it: on local disks only physical and logical backups of MongoDB 4.2 and earlier can be downloaded"
    } else if single && !sharded {
        "backups of single-node instances cannot be downloaded"
    } else if attributes.encrypted == Some(true) || attributes.encryption_key.is_some() {
        "encrypted backups cannot be downloaded"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// Why no backup of this instance can be converted now.
pub(super) fn passing_obstacle(attributes: &wire::Instance) -> Option<String> {
    let status = attributes.status.as_deref()?;
    (!status.eq_ignore_ascii_case("Running")).then(|| {
        format!(
            "a backup can be converted only while its instance is Running, and this one is {}",
            one_line(status)
        )
    })
}

/// What one shard has of a backup.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) shard: String,
    /// The id of the backup set.
    pub(super) set: String,
    /// The run that made it, where the listing says so.
    pub(super) job: Option<String>,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
    status: String,
    succeeded: bool,
    method: Option<String>,
    mode: Option<String>,
    version: Option<String>,
    size: Option<u64>,
    extension: Option<String>,
    refused: Option<String>,
}

/// The piece that `listed` is of `shard`; `None` for what is not finished yet or has no id.
/// `obstacle` is why it could not be converted.
pub(super) fn piece(
    listed: &wire::Backup,
    shard: &str,
    obstacle: Option<&str>,
) -> Result<Option<Piece>> {
    let Some(set) = listed.backup_id.clone() else {
        return Ok(None);
    };
    let status = listed
        .backup_status
        .clone()
        .unwrap_or_else(|| "Success".to_owned());
    let Some(succeeded) = outcome(&status, listed.is_avail) else {
        return Ok(None);
    };
    let (started, finished) = times(&listed.backup_start_time, &listed.backup_end_time, &set)?;
    let link = listed.public_url.as_ref().or(listed.private_url.as_ref());
    let is_incremental = listed
        .backup_type
        .as_deref()
        .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("incremental"));
    let refused = if !succeeded {
        Some("the backup failed".to_owned())
    } else if listed.is_avail == Some(false) {
        Some("the backup is no longer available".to_owned())
    } else if link.is_some() {
        None
    } else if is_incremental {
        Some("only full backups can be downloaded".to_owned())
    } else {
        obstacle.map(str::to_owned)
    };
    Ok(Some(Piece {
        shard: shard.to_owned(),
        set,
        job: listed.backup_job_id.clone(),
        started,
        finished,
        status,
        succeeded,
        method: listed.backup_method.as_deref().map(str::to_ascii_lowercase),
        mode: listed.backup_mode.as_deref().map(str::to_ascii_lowercase),
        version: listed.engine_version.clone(),
        size: listed.backup_size,
        extension: link.map(extension),
        refused,
    }))
}

/// The backup named `id` that `pieces` make up; `None` without any.
pub(super) fn backup(id: String, pieces: Vec<Piece>, version: Option<&str>) -> Option<Backup> {
    let (first, worst) = (
        pieces.first()?.clone(),
        pieces.iter().find(|piece| !piece.succeeded).cloned(),
    );
    let shown = worst.as_ref().unwrap_or(&first);
    let all_refused = pieces.iter().all(|piece| piece.refused.is_some());
    Some(Backup {
        id,
        started: pieces.iter().map(|piece| piece.started).min()?,
        finished: pieces.iter().map(|piece| piece.finished).max()?,
        status: shown.status.clone(),
        successful: worst.is_none(),
        method: first.method.clone(),
        version: first.version.clone().or_else(|| version.map(str::to_owned)),
        trigger: first.mode.clone(),
        not_downloadable: shown.refused.clone().filter(|_| all_refused),
        shards: pieces.into_iter().map(shard).collect(),
        facts: Facts::new(),
    })
}

/// The backup of a whole cluster; `None` while it is being taken.
pub(super) fn cluster_backup(
    listed: &wire::ClusterBackup,
    obstacle: Option<&str>,
    version: Option<&str>,
) -> Result<Option<Backup>> {
    let Some(id) = listed.cluster_backup_id.clone() else {
        return Ok(None);
    };
    let status = listed
        .cluster_backup_status
        .clone()
        .unwrap_or_else(|| "OK".to_owned());
    let under_way = listed.cluster_backup_end_time.is_none() && listed.progress.is_some();
    let Some(succeeded) = outcome(&status, listed.is_avail).filter(|_| !under_way) else {
        return Ok(None);
    };
    let (started, finished) = times(
        &listed.cluster_backup_start_time,
        &listed.cluster_backup_end_time,
        &id,
    )?;
    let mut pieces = Vec::new();
    for part in listed.backups.iter().flatten() {
        let Some(shard) = part.instance_name.as_deref() else {
            continue;
        };
        let mut part = part.clone();
        // What only the whole says is true of its parts.
        part.backup_start_time.get_or_insert(started.to_string());
        part.backup_end_time.get_or_insert(finished.to_string());
        part.is_avail = part.is_avail.or(listed.is_avail);
        pieces.extend(piece(&part, shard, obstacle)?);
    }
    pieces.sort_by(|a, b| a.shard.cmp(&b.shard));
    let version = listed.engine_version.as_deref().or(version);
    let backup = backup(id, pieces, version).map(|found| Backup {
        started,
        finished,
        status: status.clone(),
        successful: found.successful && succeeded,
        method: found.method.or_else(|| Some("snapshot".to_owned())),
        trigger: found.trigger.or_else(|| {
            listed
                .cluster_backup_mode
                .as_deref()
                .map(str::to_ascii_lowercase)
        }),
        facts: Facts::from([(WHOLE_CLUSTER, String::new())]),
        ..found
    });
    Ok(backup)
}

fn shard(piece: Piece) -> Shard {
    let mut facts = Facts::from([(BACKUP_SET, piece.set)]);
    facts.extend(piece.extension.map(|extension| (EXTENSION, extension)));
    facts.extend(piece.size.map(|size| (SIZE, size.to_string())));
    facts.extend(piece.refused.map(|reason| (REFUSED, reason)));
    Shard {
        id: piece.shard,
        facts,
    }
}

/// The id of a shard's backup set.
pub(super) fn backup_set(of: &Shard) -> &str {
    of.facts.get(BACKUP_SET).map_or("", String::as_str)
}

/// The size of a shard's backup set in bytes, where it is known.
pub(super) fn set_size(of: &Shard) -> Option<&str> {
    of.facts.get(SIZE).map(String::as_str)
}

/// The id of the cluster's own backup that `of` belongs to, if there is one.
pub(super) fn cluster_set(of: &ShardRef) -> Option<&str> {
    is_whole_cluster(of).then_some(of.backup.id.as_str())
}

/// Whether `of` belongs to a backup of the whole cluster.
pub(super) fn is_whole_cluster(of: &ShardRef) -> bool {
    of.backup.facts.contains_key(WHOLE_CLUSTER)
}

/// An error if this shard's part of the backup cannot be downloaded.
pub(super) fn check(of: &Shard) -> Result<()> {
    match of.facts.get(REFUSED) {
        None => Ok(()),
        Some(reason) => Err(Error::new(
            Kind::Unsupported,
            format!("this part of the backup cannot be downloaded: {reason}"),
        )),
    }
}

/// The file of a shard. A link of its own leads to the very file whose size is listed; what a
/// conversion makes has another one.
pub(super) fn file(of: &Shard, format: ArchiveFormat) -> RemoteFile {
    let (name, size, origin) = match of.facts.get(EXTENSION) {
        Some(extension) => {
            let size = of.facts.get(SIZE).and_then(|size| size.parse().ok());
            let size = size.map_or(Size::Unknown, Size::Declared);
            (format!("{}{extension}", of.id), size, Origin::Object)
        }
        None => {
            let extension = match format {
                ArchiveFormat::TarGz => ".tar.gz",
                ArchiveFormat::TarZst => ".tar.zst",
            };
            (format!("{}{extension}", of.id), Size::Unknown, Origin::Task)
        }
    };
    RemoteFile {
        path: name,
        size,
        modified: None,
        origin,
        etag: None,
        digest: None,
        facts: Facts::new(),
    }
}

/// The files that a task wrote into the own bucket in place of `archive`: the same name if it is a
/// single one, a tree otherwise.
pub(super) fn written(archive: &RemoteFile, objects: Vec<Object>) -> Vec<RemoteFile> {
    let single = objects.len() == 1;
    let files = objects.into_iter().map(|object| RemoteFile {
        path: match single {
            true => archive.path.clone(),
            false => object.path,
        },
        size: Size::Exact(object.size),
        modified: object.modified,
        origin: Origin::Object,
        etag: object.etag,
        facts: Facts::from([(KEY, object.key)]),
        ..archive.clone()
    });
    files.collect()
}

/// The key of a file's object in the own bucket.
pub(super) fn key(of: &RemoteFile) -> Option<&str> {
    of.facts.get(KEY).map(String::as_str)
}

/// Whether a backup of this status succeeded; `None` while it is under way. Of words that are not
/// documented, those of failures are known by sight; for any other one it counts what the listing
/// says of its availability.
fn outcome(status: &str, is_available: Option<bool>) -> Option<bool> {
    let status = status.to_ascii_lowercase();
    match status.as_str() {
        "success" | "ok" | "finished" | "completed" => Some(true),
        "running" | "backuping" | "checking" | "scheduled" | "creating" | "processing" | "init" => {
            None
        }
        word if ["fail", "error", "abnormal", "cancel", "delet", "expired"]
            .iter()
            .any(|part| word.contains(part)) =>
        {
            Some(false)
        }
        _ => Some(is_available != Some(false)),
    }
}

fn times(start: &Option<String>, end: &Option<String>, id: &str) -> Result<(Timestamp, Timestamp)> {
    let (start, end) = (
        start.as_deref().and_then(timestamp),
        end.as_deref().and_then(timestamp),
    );
    match (start.or(end), end.or(start)) {
        (Some(start), Some(end)) => Ok((start, end)),
        _ => Err(Error::new(
            Kind::Protocol,
            format!(
                "Alibaba Cloud lists backup {} without any time",
                one_line(id)
            ),
        )),
    }
}

/// An ISO 8601 time, also without seconds; one without an offset is UTC.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let civil: DateTime = text.strip_suffix('Z').unwrap_or(text).parse().ok()?;
        let zoned = civil.to_zoned(TimeZone::UTC).ok()?;
        Some(zoned.timestamp())
    })
}

/// How the name of a linked file ends: `_qp.xb` (xbstream of qpress), `.tar.gz`, `.ar` …
fn extension(link: &Secret) -> String {
    let url = Url::parse(link.expose()).ok();
    let name = url
        .as_ref()
        .and_then(|url| url.path_segments()?.next_back())
        .unwrap_or_default();
    for known in ["_qp.xb", ".tar.gz", ".tar.zst"] {
        if name.ends_with(known) {
            return known.to_owned();
        }
    }
    match name.rsplit_once('.') {
        Some((_, kind))
            if (1..=8).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            format!(".{kind}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(json: &str) -> wire::Backup {
        serde_json::from_str(json).unwrap()
    }

    fn attributes(json: &str) -> wire::Instance {
        serde_json::from_str(json).unwrap()
    }

    fn of(json: &str, obstacle: Option<&str>) -> Piece {
        piece(&listed(json), "rs", obstacle).unwrap().unwrap()
    }

    const TIMES: &str =
        r#""BackupStartTime":"2026-03-01T18:00:00Z","BackupEndTime":"2026-03-01T18:05:10Z""#;

    #[test]
    fn a_linked_backup_is_an_object_of_the_links_kind() {
        for (name, file_name) in [
            ("hins1907_data_20260301180000_qp.xb", "rs_qp.xb"),
            ("hins1907_data_20260301180000.tar.gz", "rs.tar.gz"),
            ("hins1907_data_20260301180000.ar", "rs.ar"),
            ("hins1907", "rs"),
            ("a.b%2Fc", "rs"),
        ] {
            let json = format!(
                r#"{{"BackupId":"1","BackupMethod":"Physical","BackupStatus":"Success","BackupSize":5,
                    "BackupDownloadURL":"http://h/custins/{name}?Expires=1&Signature=S%3D",{TIMES}}}"#
            );
            // What holds for conversions does not concern it.
            let piece = of(&json, Some("no conversion"));
            let backup = backup("1".into(), vec![piece], Some("4.2")).unwrap();
            assert_eq!(backup.not_downloadable, None);
            assert_eq!(backup.method.as_deref(), Some("physical"));
            let file = file(&backup.shards[0], ArchiveFormat::TarZst);
            assert_eq!(file.path, file_name);
            assert_eq!(
                (file.origin, file.size),
                (Origin::Object, Size::Declared(5))
            );
            assert!(!format!("{backup:?}").contains("S%3D"), "no link is kept");
        }
    }

    #[test]
    fn a_snapshot_is_converted_or_says_why_not() {
        let json = format!(
            r#"{{"BackupId":7,"BackupMethod":"Snapshot","BackupSize":5,"BackupDownloadURL":"",{TIMES}}}"#
        );
        let snapshot = backup("7".into(), vec![of(&json, None)], None).unwrap();
        assert_eq!(
            (snapshot.successful, snapshot.not_downloadable),
            (true, None)
        );
        let file = file(&snapshot.shards[0], ArchiveFormat::TarZst);
        assert_eq!(file.path, "rs.tar.zst");
        assert_eq!((file.origin, file.size), (Origin::Task, Size::Unknown));
        let refused = backup("7".into(), vec![of(&json, Some("encrypted"))], None).unwrap();
        assert_eq!(refused.not_downloadable.as_deref(), Some("encrypted"));
        let json = json.replace("\"BackupId\"", r#""BackupStatus":"Failed","BackupId""#);
        let failed = backup("7".into(), vec![of(&json, None)], None).unwrap();
        assert!(!failed.successful && failed.not_downloadable.is_some());
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let lasting = |json: &str| lasting_obstacle(&attributes(json)).unwrap_or_default();
        for (json, words) in [
            (
                r#"{"StorageType":"cloud_essd1","ReplicationFactor":"3"}"#,
                "",
            ),
            (r#"{"StorageType":"cloud_auto"}"#, ""),
            ("{}", ""),
            (r#"{"StorageType":"local_ssd"}"#, "local disks"),
            (
                r#"{"StorageType":"cloud_essd1","ReplicationFactor":1}"#,
                "single-node",
            ),
            (
                r#"{"StorageType":"cloud_essd1","KindCode":"3"}"#,
                "single-node",
            ),
            (
                r#"{"StorageType":"cloud_essd1","DBInstanceType":"sharding","ReplicationFactor":"1"}"#,
                "",
            ),
            (
                r#"{"StorageType":"cloud_essd1","Encrypted":true}"#,
                "encrypted",
            ),
            (
                r#"{"StorageType":"cloud_essd1","EncryptionKey":"k"}"#,
                "encrypted",
            ),
        ] {
            let said = lasting(json);
            assert_eq!(said.is_empty(), words.is_empty(), "{json}: {said}");
            assert!(said.contains(words), "{json}: {said}");
        }
        let passing = |json: &str| passing_obstacle(&attributes(json));
        assert_eq!(passing(r#"{"DBInstanceStatus":"Running"}"#), None);
        let restoring = passing(r#"{"DBInstanceStatus":"Restoring"}"#).unwrap();
        assert!(restoring.contains("Restoring"));
    }

    #[test]
    fn a_cluster_backup_has_the_shards_that_it_lists() {
        let read = |json: &str| {
            cluster_backup(&serde_json::from_str(json).unwrap(), None, Some("6.0")).unwrap()
        };
        let whole = read(
            r#"{"ClusterBackupId":"cb-1","ClusterBackupStatus":"OK","IsAvail":1,"ClusterBackupMode":"Automated",
                "ClusterBackupStartTime":"2026-03-01T18:00:00Z","ClusterBackupEndTime":"2026-03-01T18:09:00Z",
                "Backups":[{"BackupId":"12","InstanceName":"d-b\n","IsAvail":"1","BackupStatus":"Success"},
                           {"BackupId":11,"InstanceName":"d-a","BackupDownloadURL":""}]}"#,
        )
        .unwrap();
        let shards: Vec<(&str, &str)> = whole
            .shards
            .iter()
            .map(|shard| (shard.id.as_str(), backup_set(shard)))
            .collect();
        assert_eq!(shards, [("d-a", "11"), ("d-b", "12")]);
        assert_eq!(whole.trigger.as_deref(), Some("automated"));
        assert_eq!(whole.version.as_deref(), Some("6.0"));
        assert!(whole.successful);
        let under_way = r#"{"ClusterBackupId":"cb-2","Progress":"40","ClusterBackupStartTime":"2026-03-01T18:00:00Z"}"#;
        assert_eq!(read(under_way), None);
    }

    #[test]
    fn times_have_minutes_or_seconds() {
        let expected = timestamp("2026-03-01T18:00:00Z").unwrap();
        for text in [
            "2026-03-01T18:00Z",
            "2026-03-01T18:00:00",
            " 2026-03-01T18:00:00Z\n",
        ] {
            assert_eq!(timestamp(text), Some(expected), "{text}");
        }
        assert_eq!(timestamp("soon"), None);
    }
}
