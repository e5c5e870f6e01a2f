//! Backups kept as folders in COS: `<root>/<replica set>/snapshot/<seconds since 1970>/…`, as the
//! console's older "download" pointed at ("Getting Backup Download Link",
//! intl.cloud.tencent.com/document/product/240/34708). They join the tree of the API's backups.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::clock::SharedClock;
use crate::config::{CosConfig, ProviderConfig, TencentConfig};
use crate::error::{Error, Kind, Result};
use crate::model::{Backup, Facts, Instance, Link, Origin, RemoteFile, Shard, ShardRef, Size};
use crate::providers::http::Budget;
use crate::providers::objects::{Bucket, Flavour, Keys};

/// Fact of an instance: its replica sets that have a folder.
const SETS: &str = "cos-replica-sets";
/// Fact of a backup: it is a folder of this name.
const FOLDER: &str = "cos-folder";
/// Fact of a file: its key.
const KEY: &str = "key";

/// The folders of one bucket.
#[derive(Debug)]
pub(super) struct Folders {
    bucket: Bucket,
    /// Empty, or ending with a slash.
    root: String,
}

/// Whether `backup` is a folder.
pub(super) fn holds(backup: &Backup) -> bool {
    backup.facts.contains_key(FOLDER)
}

impl Folders {
    pub(super) fn new(
        common: &ProviderConfig,
        account: &TencentConfig,
        config: &CosConfig,
        clock: SharedClock,
    ) -> Result<Self> {
        let keys = Keys {
            id: account.secret_id.clone(),
            secret: account.secret_key.clone(),
            token: account.token.clone(),
        };
        let slash = if config.root.is_empty() { "" } else { "/" };
        Ok(Folders {
            bucket: Bucket::new(common, config.endpoint.clone(), keys, Flavour::Cos, clock)?,
            root: format!("{}{slash}", config.root),
        })
    }

    /// Adds the instances whose replica sets have folders.
    pub(super) async fn add_instances(
        &self,
        instances: &mut BTreeMap<String, Instance>,
        budget: &mut Budget,
    ) -> Result<()> {
        let sets = self.bucket.folders(&self.root, budget).await?;
        for set in sets {
            let id = instance_of(&set);
            let instance = instances.entry(id.to_owned()).or_insert_with(|| Instance {
                id: id.to_owned(),
                created: None,
                facts: Facts::new(),
            });
            let known = instance.facts.entry(SETS).or_default();
            if !known.is_empty() {
                known.push('\n');
            }
            known.push_str(&set);
        }
        Ok(())
    }

    /// Adds the folders of `of`: those of one time are one backup.
    pub(super) async fn add_backups(&self, of: &Instance, backups: &mut Vec<Backup>) -> Result<()> {
        let Some(sets) = of.facts.get(SETS) else {
            return Ok(());
        };
        let mut budget = self.bucket.budget();
        let mut found: BTreeMap<String, Vec<Shard>> = BTreeMap::new();
        for set in sets.lines() {
            let place = format!("{}{set}/snapshot/", self.root);
            for folder in self.bucket.folders(&place, &mut budget).await? {
                found.entry(folder).or_default().push(Shard {
                    id: set.to_owned(),
                    facts: Facts::new(),
                });
            }
        }
        for (folder, shards) in found {
            let taken = backups.iter().any(|backup| backup.id == folder);
            backups.push(backup(folder, shards, taken));
        }
        Ok(())
    }

    /// What lies in the folder of a shard.
    pub(super) async fn files(&self, of: &ShardRef) -> Result<Vec<RemoteFile>> {
        let folder = of.backup.facts.get(FOLDER).map(String::as_str);
        let folder = folder.ok_or_else(|| Error::new(Kind::Internal, "a folder lost its name"))?;
        let place = format!("{}{}/snapshot/{folder}/", self.root, of.shard.id);
        let mut budget = self.bucket.budget();
        let objects = self.bucket.objects(&place, &mut budget).await?;
        let files = objects.into_iter().filter_map(|object| {
            let path = object.key.strip_prefix(&place)?.to_owned();
            (!path.is_empty()).then(|| RemoteFile {
                path,
                size: Size::Exact(object.size),
                modified: object.modified,
                origin: Origin::Object,
                etag: object.etag,
                digest: None,
                facts: Facts::from([(KEY, object.key)]),
            })
        });
        Ok(files.collect())
    }

    /// A link to one of those files.
    pub(super) fn link(&self, file: &RemoteFile) -> Result<Link> {
        let key = file.facts.get(KEY).map(String::as_str);
        self.bucket
            .link(key.ok_or_else(|| Error::new(Kind::Internal, "an object lost its key"))?)
    }
}

/// The instance of a replica set: `cmgo-abcd1234` of `cmgo-abcd1234_0`.
fn instance_of(set: &str) -> &str {
    match set.rsplit_once('_') {
        Some((id, number))
            if !id.is_empty()
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            id
        }
        _ => set,
    }
}

/// The backup that folders named `folder` are; `taken` when the API lists another one of that id.
fn backup(folder: String, shards: Vec<Shard>, taken: bool) -> Backup {
    let time = time_of(&folder).unwrap_or(Timestamp::UNIX_EPOCH);
    Backup {
        id: match taken {
            true => format!("snapshot/{folder}"),
            false => folder.clone(),
        },
        started: time,
        finished: time,
        status: "success".to_owned(),
        successful: true,
        method: None,
        version: None,
        trigger: None,
        not_downloadable: None,
        shards,
        facts: Facts::from([(FOLDER, folder)]),
    }
}

/// The time that names a folder: seconds, or milliseconds, since 1970.
fn time_of(folder: &str) -> Option<Timestamp> {
    let number: i64 = folder.parse().ok()?;
    match folder.len() {
        13 => Timestamp::from_millisecond(number).ok(),
        _ => Timestamp::from_second(number).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_set_belongs_to_its_instance() {
        for (set, instance) in [
            ("cmgo-pfsumk5l_0", "cmgo-pfsumk5l"),
            ("cmgo-pfsumk5l_12", "cmgo-pfsumk5l"),
            ("cmgo-pfsumk5l", "cmgo-pfsumk5l"),
            ("shard_a", "shard_a"),
            ("_0", "_0"),
        ] {
            assert_eq!(instance_of(set), instance);
        }
    }

    #[test]
    fn a_folder_is_named_by_its_time() {
        let time = |folder: &str| time_of(folder).map(|time| time.to_string());
        assert_eq!(time("1544517026").as_deref(), Some("2018-12-11T08:30:26Z"));
        assert_eq!(
            time("1544517026220").as_deref(),
            Some("2018-12-11T08:30:26.22Z")
        );
        assert_eq!(time("manual"), None);
        let shown = backup("1544517026".into(), Vec::new(), true);
        assert_eq!(shown.id, "snapshot/1544517026");
    }
}
