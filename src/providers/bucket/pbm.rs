//! The storage of Percona Backup for MongoDB: `<name>.pbm.json` describes a snapshot, the files of
//! its replica sets lie in `<name>/<replica set>/`, and slices of the oplog in
//! `pbmPitr/<replica set>/<day>/` ("How PBM organizes backups on the storage" in
//! docs.percona.com/percona-backup-mongodb, and the metadata's own fields).
//!
//! One storage belongs to one cluster, so it is one instance. A snapshot is described once it has
//! ended; one that still runs has no description, or says so, and is not shown. [`Pbm`] owns the
//! descriptions that were read, by name and version: one lock, never held across an await.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Deserialize;

use super::store::{Object, Operation, Store};
use super::times;
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Backup, Facts, Instance, RemoteFile, Shard, ShardRef};
use crate::providers::http::lenient;

/// What the name of a description ends with.
const DESCRIPTION: &str = ".pbm.json";
/// The shard that holds a snapshot's description.
const METADATA: &str = "metadata";
/// Where slices of the oplog lie.
const SLICES: &str = "pbmPitr/";
/// Most descriptions read at once.
const AT_ONCE: usize = 8;

/// Fact of a shard: its folder, with a slash at the end.
const FOLDER: &str = "folder";
/// Fact of a shard: what the keys of its files at the top begin with.
const BEGINNING: &str = "beginning";

/// One storage.
#[derive(Debug)]
pub(super) struct Pbm {
    bucket: String,
    /// By key; with the version that was read.
    read: Mutex<HashMap<String, (Object, Description)>>,
}

/// A description, as far as it is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Description {
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    mongodb_version: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    status: Option<String>,
    /// Seconds since 1970.
    #[serde(deserialize_with = "lenient::number")]
    start_ts: Option<i64>,
    /// Seconds since 1970.
    #[serde(deserialize_with = "lenient::number")]
    last_transition_ts: Option<i64>,
    #[serde(deserialize_with = "lenient::list")]
    replsets: Vec<ReplicaSet>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ReplicaSet {
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    /// The path of the dump, which releases before 2.0 put beside the description.
    #[serde(deserialize_with = "lenient::text")]
    backup_name: Option<String>,
}

impl Pbm {
    pub(super) fn new(bucket: String) -> Self {
        Pbm {
            bucket,
            read: Mutex::default(),
        }
    }

    pub(super) fn instances(&self) -> Vec<Instance> {
        vec![Instance {
            id: self.bucket.clone(),
            created: None,
            facts: Facts::new(),
        }]
    }

    pub(super) async fn backups(&self, store: &Store) -> Result<Vec<Backup>> {
        let operation = store.operation();
        let listed = operation.list("").await?;
        let has_slices = listed.folders.iter().any(|folder| folder == SLICES);
        let described = listed.objects.into_iter();
        let described: Vec<Object> = described
            .filter(|object| name_of(&object.key).is_some())
            .collect();
        self.forget_others(&described);
        let snapshots = stream::iter(described).map(|object| self.snapshot(object, &operation));
        let snapshots: Vec<Option<Backup>> = snapshots.buffered(AT_ONCE).try_collect().await?;
        let mut backups: Vec<Backup> = snapshots.into_iter().flatten().collect();
        if has_slices {
            backups.extend(slices(&operation).await?);
        }
        Ok(backups)
    }

    pub(super) async fn files(&self, of: &ShardRef, store: &Store) -> Result<Vec<RemoteFile>> {
        let operation = store.operation();
        let fact = |name| of.shard.facts.get(name).map(String::as_str);
        let mut files = Vec::new();
        if let Some(folder) = fact(FOLDER) {
            let objects = operation.objects(folder).await?.into_iter();
            files.extend(objects.filter_map(|object| {
                let path = object.key.strip_prefix(folder)?.to_owned();
                (!path.is_empty()).then(|| object.file(&path))
            }));
        }
        if let Some(beginning) = fact(BEGINNING) {
            let objects = operation.list(beginning).await?.objects.into_iter();
            files.extend(objects.map(|object| {
                let path = object.key.clone();
                object.file(&path)
            }));
        }
        Ok(files)
    }

    /// The snapshot that `object` describes, unless it still runs.
    async fn snapshot(&self, object: Object, operation: &Operation<'_>) -> Result<Option<Backup>> {
        let Some(name) = name_of(&object.key) else {
            return Ok(None);
        };
        let description = match self.known(&object) {
            Some(known) => known,
            None => {
                let content = match operation.read(&object.key).await {
                    Ok(content) => content,
                    // Deleted since it was listed.
                    Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                };
                let description = describe(name, &content);
                let read = (object.clone(), description.clone());
                self.read().insert(object.key.clone(), read);
                description
            }
        };
        Ok(backup(name, &object, description))
    }

    fn known(&self, object: &Object) -> Option<Description> {
        let read = self.read();
        let (version, description) = read.get(&object.key)?;
        (version == object).then(|| description.clone())
    }

    fn forget_others(&self, described: &[Object]) {
        let keys: BTreeSet<&str> = described.iter().map(|object| &*object.key).collect();
        self.read().retain(|key, _| keys.contains(&**key));
    }

    fn read(&self) -> MutexGuard<'_, HashMap<String, (Object, Description)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The snapshot that the file at `key` describes.
fn name_of(key: &str) -> Option<&str> {
    let name = key.strip_suffix(DESCRIPTION)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// Reads a description. One that cannot be read is shown as such: there may be data behind it.
pub(super) fn describe(name: &str, content: &[u8]) -> Description {
    serde_json::from_slice(content).unwrap_or_else(|error| {
        let kind = error.classify();
        tracing::warn!(
            name = one_line(name),
            ?kind,
            "a description is no JSON of a snapshot"
        );
        Description {
            status: Some("unreadable".to_owned()),
            ..Description::default()
        }
    })
}

/// The snapshot that was described in `object`, once it has ended.
pub(super) fn backup(name: &str, object: &Object, description: Description) -> Option<Backup> {
    let Description {
        kind,
        mongodb_version,
        status,
        start_ts,
        last_transition_ts,
        replsets,
    } = description;
    let status = status.unwrap_or_else(|| "unknown".to_owned());
    if !matches!(
        status.as_str(),
        "done" | "error" | "canceled" | "unreadable" | "unknown"
    ) {
        return None;
    }
    let second = |ts: Option<i64>| Timestamp::from_second(ts.filter(|ts| *ts > 0)?).ok();
    let started = times::of_name(name)
        .or_else(|| second(start_ts))
        .or(object.modified)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let finished = second(last_transition_ts).or(object.modified);
    Some(Backup {
        id: name.to_owned(),
        started,
        finished: finished.map_or(started, |finished| finished.max(started)),
        successful: status == "done",
        status,
        method: kind.as_deref().map(|kind| method(kind).to_owned()),
        version: mongodb_version,
        trigger: kind,
        not_downloadable: None,
        shards: shards(name, replsets),
        facts: Facts::new(),
    })
}

/// How the data of a snapshot of this type was taken.
fn method(kind: &str) -> &str {
    match kind {
        "incremental" | "external" => "physical",
        kind => kind,
    }
}

/// The replica sets of a snapshot, and its description in a shard of its own.
fn shards(name: &str, sets: Vec<ReplicaSet>) -> Vec<Shard> {
    let mut shards = BTreeMap::new();
    for ReplicaSet {
        name: set,
        backup_name,
    } in sets
    {
        let Some(set) = set else { continue };
        let mut facts = Facts::from([(FOLDER, format!("{name}/{set}/"))]);
        if backup_name.is_some_and(|dump| !dump.contains('/')) {
            facts.insert(BEGINNING, format!("{name}_{set}."));
        }
        shards.insert(set, facts);
    }
    let mut own = METADATA.to_owned();
    while shards.contains_key(&own) {
        own.push('_');
    }
    let description = format!("{name}{DESCRIPTION}");
    shards.insert(own, Facts::from([(BEGINNING, description)]));
    let shards = shards.into_iter().map(|(id, facts)| Shard { id, facts });
    shards.collect()
}

/// The slices of the oplog, one entry a day. They end no snapshot, so none is the latest.
async fn slices(operation: &Operation<'_>) -> Result<Vec<Backup>> {
    let sets = operation.list(SLICES).await?.names(SLICES);
    let listings = stream::iter(sets).map(|set| async move {
        let place = format!("{SLICES}{set}/");
        let days = operation.list(&place).await?.names(&place);
        Ok::<_, Error>((set, days))
    });
    let listings: Vec<(String, Vec<String>)> = listings.buffered(AT_ONCE).try_collect().await?;
    let mut days: BTreeMap<String, Vec<Shard>> = BTreeMap::new();
    for (set, named) in listings {
        for day in named {
            let folder = format!("{SLICES}{set}/{day}/");
            days.entry(day).or_default().push(Shard {
                id: set.clone(),
                facts: Facts::from([(FOLDER, folder)]),
            });
        }
    }
    let backups = days.into_iter().filter_map(|(day, shards)| {
        let time = times::of_name(&day)?;
        Some(Backup {
            id: format!("{}{day}", SLICES.replace('/', "-")),
            started: time,
            finished: time,
            status: "stored".to_owned(),
            successful: false,
            method: Some("oplog".to_owned()),
            version: None,
            trigger: Some("pitr".to_owned()),
            not_downloadable: None,
            shards,
            facts: Facts::new(),
        })
    });
    Ok(backups.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "2026-01-05T14:00:00Z";

    fn object() -> Object {
        Object {
            key: format!("{NAME}{DESCRIPTION}"),
            size: 100,
            modified: "2026-01-05T14:07:00Z".parse().ok(),
            etag: None,
        }
    }

    fn read(json: &str) -> Option<Backup> {
        backup(NAME, &object(), describe(NAME, json.as_bytes()))
    }

    #[test]
    fn a_description_is_read() {
        let shown = read(
            r#"{"type": "incremental", "opid": "1", "name": "x", "src_backup": "y",
            "replsets": [
                {"name": "rs0", "status": "done", "iscs": false, "backup_name": ""},
                {"name": "cfg", "backup_name": "2026-01-05T14:00:00Z_cfg.dump.gz"}],
            "mongodb_version": "8.0.12-4", "start_ts": 1767621602,
            "last_transition_ts": 1767621900, "last_write_ts": {"T": 1767621890, "I": 1},
            "hb": {"T": 1, "I": 0}, "status": "done", "n": null, "error": null, "new": {}}"#,
        );
        let shown = shown.unwrap();
        assert!(shown.successful);
        assert_eq!(shown.started, NAME.parse().unwrap());
        assert_eq!(shown.finished.to_string(), "2026-01-05T14:05:00Z");
        assert_eq!(shown.method.as_deref(), Some("physical"));
        assert_eq!(shown.trigger.as_deref(), Some("incremental"));
        assert_eq!(shown.version.as_deref(), Some("8.0.12-4"));
        let shards: Vec<(&str, Option<&str>, Option<&str>)> = shown
            .shards
            .iter()
            .map(|shard| {
                let fact = |name| shard.facts.get(name).map(String::as_str);
                (&*shard.id, fact(FOLDER), fact(BEGINNING))
            })
            .collect();
        assert_eq!(
            shards,
            [
                (
                    "cfg",
                    Some("2026-01-05T14:00:00Z/cfg/"),
                    Some("2026-01-05T14:00:00Z_cfg.")
                ),
                ("metadata", None, Some("2026-01-05T14:00:00Z.pbm.json")),
                ("rs0", Some("2026-01-05T14:00:00Z/rs0/"), None),
            ]
        );
    }

    #[test]
    fn only_what_has_ended_is_shown() {
        for running in ["starting", "running", "dumpDone", "copyReady", "partlyDone"] {
            assert_eq!(read(&format!(r#"{{"status": "{running}"}}"#)), None);
        }
        for (json, status) in [
            (r#"{"status": "error", "type": "logical"}"#, "error"),
            (r#"{"status": "canceled"}"#, "canceled"),
            (r#"{"replsets": null}"#, "unknown"),
            ("not json", "unreadable"),
            ("\"text\"", "unreadable"),
        ] {
            let shown = read(json).unwrap();
            assert_eq!((shown.status.as_str(), shown.successful), (status, false));
            assert_eq!(shown.shards.len(), 1, "its description can be read");
        }
    }

    #[test]
    fn a_replica_set_may_be_called_anything() {
        let sets = ["metadata", "metadata_"].map(|name| ReplicaSet {
            name: Some(name.to_owned()),
            backup_name: None,
        });
        let ids: Vec<String> = shards("n", sets.into()).into_iter().map(|s| s.id).collect();
        assert_eq!(ids, ["metadata", "metadata_", "metadata__"]);
    }

    #[test]
    fn descriptions_lie_at_the_top() {
        assert_eq!(name_of("2026-01-05T14:00:00Z.pbm.json"), Some(NAME));
        for other in [".pbm.json", ".pbm.init", "a/b.pbm.json", "x.json"] {
            assert_eq!(name_of(other), None);
        }
    }
}
