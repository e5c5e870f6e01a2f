//! Backups in folders that a pattern describes. Whatever lies below a shard's folder is a file of
//! that shard; what lies beside is not shown.
//!
//! Only folders are listed on the way down. A backup's name tells when it began, if it holds a time;
//! otherwise that is when the oldest of its objects was written, for which all of them are listed
//! once. [`Folders`] owns these times: one lock, never held across an await.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::store::{Object, Operation, Store};
use super::times;
use crate::config::{Field, Folder, Names, Pattern};
use crate::error::{Error, Kind, Result};
use crate::model::{Backup, Facts, Instance, RemoteFile, Shard, ShardRef};

/// Most listings at once.
const AT_ONCE: usize = 8;
/// Fact of a shard: its folder, with a slash at the end.
const FOLDER: &str = "folder";

/// Backups by a pattern.
#[derive(Debug)]
pub(super) struct Folders {
    pattern: Pattern,
    /// What the only instance is called where the pattern names none.
    bucket: String,
    /// When backups began and ended whose names do not tell, by instance and backup.
    times: Mutex<HashMap<(String, String), (Timestamp, Timestamp)>>,
}

/// A folder on the way down, and what is known there.
#[derive(Debug, Clone, Default)]
struct Place {
    names: Names,
    /// Its key, with a slash at the end unless it is empty.
    key: String,
}

impl Folders {
    pub(super) fn new(pattern: Pattern, bucket: String) -> Self {
        Folders {
            pattern,
            bucket,
            times: Mutex::default(),
        }
    }

    pub(super) async fn instances(&self, store: &Store) -> Result<Vec<Instance>> {
        let operation = store.operation();
        let depth = self.pattern.depth(&[Field::Instance]);
        let places = self.below(Place::default(), depth, &operation).await?;
        let ids = places
            .iter()
            .filter_map(|place| place.names.get(Field::Instance));
        let mut ids: Vec<String> = ids.map(str::to_owned).collect();
        if !self.pattern.has(Field::Instance) {
            ids.push(self.bucket.clone());
        }
        ids.sort();
        ids.dedup();
        let instances = ids.into_iter().map(|id| Instance {
            id,
            created: None,
            facts: Facts::new(),
        });
        Ok(instances.collect())
    }

    pub(super) async fn backups(&self, of: &Instance, store: &Store) -> Result<Vec<Backup>> {
        let operation = store.operation();
        let start = Place {
            names: Names::default().with(Field::Instance, &of.id),
            key: String::new(),
        };
        let depth = self.pattern.depth(&Field::EACH);
        let places = self.below(start, depth, &operation).await?;
        let mut found: BTreeMap<String, Vec<Shard>> = BTreeMap::new();
        for place in places {
            let Some(backup) = place.names.get(Field::Backup) else {
                return Err(Error::new(Kind::Internal, "a folder lost its backup"));
            };
            // Without a folder of its own a shard is called like its instance.
            let shard = place.names.get(Field::Shard).unwrap_or(&of.id);
            let folder = self.whole(&place)?;
            found.entry(backup.to_owned()).or_default().push(Shard {
                id: shard.to_owned(),
                facts: Facts::from([(FOLDER, folder)]),
            });
        }
        self.forget_others(of, &found);
        let backups =
            stream::iter(found).map(|(id, shards)| self.backup(of, id, shards, &operation));
        let backups: Vec<Option<Backup>> = backups.buffered(AT_ONCE).try_collect().await?;
        Ok(backups.into_iter().flatten().collect())
    }

    pub(super) async fn files(&self, of: &ShardRef, store: &Store) -> Result<Vec<RemoteFile>> {
        let folder = folder(&of.shard)?;
        let objects = store.operation().objects(folder).await?;
        let files = objects.into_iter().filter_map(|object| {
            let path = object.key.strip_prefix(folder)?.to_owned();
            (!path.is_empty()).then(|| object.file(&path))
        });
        Ok(files.collect())
    }

    /// A backup with its time; none for folders without any object.
    async fn backup(
        &self,
        of: &Instance,
        id: String,
        shards: Vec<Shard>,
        operation: &Operation<'_>,
    ) -> Result<Option<Backup>> {
        let times = match times::of_name(&id) {
            Some(time) => Some((time, time)),
            None => self.written(of, &id, &shards, operation).await?,
        };
        Ok(times.map(|(started, finished)| Backup {
            id,
            started,
            finished,
            status: "stored".to_owned(),
            successful: true,
            method: None,
            version: None,
            trigger: None,
            not_downloadable: None,
            shards,
            facts: Facts::new(),
        }))
    }

    /// When the oldest and the newest object of a backup were written. Asked once, so that a
    /// backup keeps its name while it grows.
    async fn written(
        &self,
        of: &Instance,
        id: &str,
        shards: &[Shard],
        operation: &Operation<'_>,
    ) -> Result<Option<(Timestamp, Timestamp)>> {
        let key = (of.id.clone(), id.to_owned());
        if let Some(known) = self.times().get(&key) {
            return Ok(Some(*known));
        }
        let mut written = Vec::new();
        for shard in shards {
            let objects = operation.objects(folder(shard)?).await?;
            let marks = objects.iter().filter(|object| !object.key.ends_with('/'));
            written.extend(marks.filter_map(|object: &Object| object.modified));
        }
        let times = written
            .iter()
            .min()
            .copied()
            .zip(written.iter().max().copied());
        if let Some(times) = times {
            self.times().insert(key, times);
        }
        Ok(times)
    }

    fn times(&self) -> MutexGuard<'_, HashMap<(String, String), (Timestamp, Timestamp)>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the times of backups of `of` that are no longer there.
    fn forget_others<T>(&self, of: &Instance, found: &BTreeMap<String, T>) {
        self.times()
            .retain(|(instance, backup), _| *instance != of.id || found.contains_key(backup));
    }

    /// The folders below `start` that fit the pattern, `depth` deep.
    async fn below(
        &self,
        start: Place,
        depth: usize,
        operation: &Operation<'_>,
    ) -> Result<Vec<Place>> {
        let mut places = vec![start];
        for folder in &self.pattern.folders()[..depth] {
            let next = stream::iter(places).map(|place| step(folder, place, operation));
            let next: Vec<Vec<Place>> = next.buffered(AT_ONCE).try_collect().await?;
            places = next.into_iter().flatten().collect();
        }
        Ok(places)
    }

    /// The key of a shard's folder, where all names are known.
    fn whole(&self, place: &Place) -> Result<String> {
        let folders = self.pattern.folders().iter();
        let names = folders.map(|folder| folder.name(&place.names));
        let names: std::result::Result<Vec<String>, String> = names.collect();
        match names {
            Ok(names) => Ok(format!("{}/", names.join("/"))),
            Err(_) => Err(Error::new(
                Kind::Internal,
                "a folder's name is not known whole",
            )),
        }
    }
}

/// The folders named by `folder` directly in `place`. Nobody is asked for one whose name is known.
async fn step(folder: &Folder, place: Place, operation: &Operation<'_>) -> Result<Vec<Place>> {
    let Place { names, key } = place;
    let beginning = match folder.name(&names) {
        Ok(name) => {
            let key = format!("{key}{name}/");
            return Ok(vec![Place { names, key }]);
        }
        Err(beginning) => beginning,
    };
    let listed = operation.list(&format!("{key}{beginning}")).await?;
    let fitting = listed.names(&key).into_iter().filter_map(|name| {
        Some(Place {
            names: folder.read(&name, &names)?,
            key: format!("{key}{name}/"),
        })
    });
    Ok(fitting.collect())
}

fn folder(shard: &Shard) -> Result<&str> {
    let folder = shard.facts.get(FOLDER).map(String::as_str);
    folder.ok_or_else(|| Error::new(Kind::Internal, "a shard lost its folder"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::providers::bucket::local::Local;

    fn store(root: &Path, files: &[&str]) -> Store {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        Store::Local(Local::new(root))
    }

    fn folders(pattern: &str) -> Folders {
        Folders::new(Pattern::parse(pattern).unwrap(), "bucket".to_owned())
    }

    /// Every file of the tree, as `instance/backup/shard/path`.
    async fn tree(folders: &Folders, store: &Store) -> Vec<String> {
        let mut tree = Vec::new();
        for instance in folders.instances(store).await.unwrap() {
            for backup in folders.backups(&instance, store).await.unwrap() {
                for shard in &backup.shards {
                    let of = ShardRef {
                        provider: "p".into(),
                        instance: Arc::new(instance.clone()),
                        backup: Arc::new(backup.clone()),
                        shard: shard.clone(),
                    };
                    for file in folders.files(&of, store).await.unwrap() {
                        let (i, b, s) = (&instance.id, &backup.id, &shard.id);
                        tree.push(format!("{i}/{b}/{s}/{}", file.path));
                    }
                }
            }
        }
        tree.sort();
        tree
    }

    #[tokio::test]
    async fn patterns_find_their_folders() {
        for (pattern, files, expected) in [
            (
                "{instance}/{backup}/{shard}/",
                &[
                    "c0/2026-01-05/rs0/a/b.bson",
                    "c0/2026-01-05/rs1/x",
                    "c0/2026-01-05/beside",
                    "c1/20260106/s/y",
                ][..],
                &[
                    "c0/2026-01-05/rs0/a/b.bson",
                    "c0/2026-01-05/rs1/x",
                    "c1/20260106/s/y",
                ][..],
            ),
            (
                "{instance}/{backup}/",
                &["c0/2026-01-05/deep/er/x"],
                &["c0/2026-01-05/c0/deep/er/x"],
            ),
            (
                "{backup}/{shard}/",
                &["2026-01-05/rs0/x", "2026-01-05/rs1/y"],
                &["bucket/2026-01-05/rs0/x", "bucket/2026-01-05/rs1/y"],
            ),
            (
                "mongo/{instance}-{shard}/snapshots/{backup}/data",
                &[
                    "mongo/a-b-rs0/snapshots/1767621600/data/x",
                    "mongo/a-b-rs1/snapshots/1767621600/data/x",
                    "mongo/a-b-rs0/other/1767621600/data/x",
                    "mongo/none/x",
                ],
                &["a-b/1767621600/rs0/x", "a-b/1767621600/rs1/x"],
            ),
            (
                "{backup}/{instance}/",
                &["2026-01-05/c0/x", "2026-01-06/c0/x", "2026-01-06/c1/x"],
                &[
                    "c0/2026-01-05/c0/x",
                    "c0/2026-01-06/c0/x",
                    "c1/2026-01-06/c1/x",
                ],
            ),
        ] {
            let root = tempfile::tempdir().unwrap();
            let store = store(root.path(), files);
            assert_eq!(tree(&folders(pattern), &store).await, expected, "{pattern}");
        }
    }

    #[tokio::test]
    async fn a_backup_without_a_time_began_with_its_oldest_object() {
        let root = tempfile::tempdir().unwrap();
        let store = store(
            root.path(),
            &["c0/weekly/rs0/a", "c0/weekly/rs1/b", "c0/weekly/rs1/c"],
        );
        fs::create_dir_all(root.path().join("c0/empty/rs0")).unwrap();
        for (file, second) in [("rs0/a", 2_000), ("rs1/b", 1_000), ("rs1/c", 3_000)] {
            let path = root.path().join("c0/weekly").join(file);
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
            file.set_modified(time).unwrap();
        }
        let folders = folders("{instance}/{backup}/{shard}");
        let instance = folders.instances(&store).await.unwrap().remove(0);
        let listed = folders.backups(&instance, &store).await.unwrap();
        assert_eq!(listed.len(), 1, "a folder without objects is no backup");
        assert_eq!(listed[0].started.as_second(), 1_000);
        assert_eq!(listed[0].finished.as_second(), 3_000);
        // It keeps its name while the mount lives, whatever is removed of it.
        fs::remove_file(root.path().join("c0/weekly/rs1/b")).unwrap();
        assert_eq!(folders.backups(&instance, &store).await.unwrap(), listed);
        fs::remove_dir_all(root.path().join("c0/weekly")).unwrap();
        assert_eq!(folders.backups(&instance, &store).await.unwrap(), []);
        assert!(folders.times().is_empty());
    }
}
