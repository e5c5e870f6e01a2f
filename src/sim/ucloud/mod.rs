//! The simulated UCloud: the calls of UMongoDB that backups need, and the US3 that links lead to.
//!
//! Owns the account, the knobs, the recent calls and the keys of files that were linked before, each
//! under a lock of its own. Locks are taken in the order estate, linked, then the store's.

mod calls;
mod estate;
mod knobs;
mod s3;
mod service;
mod signature;
mod us3;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub use self::estate::{Account, Backup, Instance};
pub use self::knobs::{Addresses, EmptyList, Knobs, Oplogs, ShortLife, Style};
use self::us3::Us3;
use super::content::Content;
use super::{Site, hex, random};
use crate::secret::Secret;

/// The bucket that backups lie in.
const BUCKET: &str = "udbbackup";
/// The account's only project, unless it says otherwise.
const PROJECT: &str = "org-sim";

/// The service. Clones share it.
#[derive(Debug, Clone)]
pub struct Ucloud(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: String,
    site: Site,
    keys: (String, Secret),
    project: String,
    store: Us3,
    serial: AtomicU64,
    knobs: Arc<Mutex<Knobs>>,
    recent: Mutex<VecDeque<Timestamp>>,
    linked: Mutex<HashSet<String>>,
    estate: Mutex<Vec<Instance>>,
}

impl Ucloud {
    /// The service at `base` whose store is at `store`.
    pub(super) fn new(
        base: String,
        store: String,
        site: Site,
        account: Account,
    ) -> io::Result<Self> {
        let drawn = |prefix: &str| {
            let secret = hex(&random::<20>()?);
            Ok::<_, io::Error>((
                format!("{prefix}{}", hex(&random::<8>()?)),
                Secret::new(secret),
            ))
        };
        let keys = account.keys.map_or_else(|| drawn("sim@example.com"), Ok)?;
        let knobs: Arc<Mutex<Knobs>> = Arc::default();
        let signers = [drawn("TOKEN_")?, keys.clone()];
        for (_, secret) in &signers {
            site.meter.secrets().add(secret.expose());
        }
        let ucloud = Ucloud(Arc::new(Inner {
            base,
            store: Us3::new(store, site.clone(), signers, Arc::clone(&knobs)),
            site,
            keys,
            project: account.project.unwrap_or_else(|| PROJECT.to_owned()),
            serial: AtomicU64::new(0),
            knobs,
            recent: Mutex::default(),
            linked: Mutex::default(),
            estate: Mutex::new(numbered(account.instances)),
        }));
        for instance in ucloud.estate().iter() {
            for backup in &instance.backups {
                for (key, content) in files(instance, backup) {
                    ucloud.store().put(&key, content, backup.finished());
                }
            }
        }
        Ok(ucloud)
    }

    /// The API's address: the provider's `endpoint`.
    pub fn endpoint(&self) -> &str {
        &self.0.base
    }

    /// The account's public key.
    pub fn public_key(&self) -> &str {
        &self.0.keys.0
    }

    /// Its private key.
    pub fn private_key(&self) -> &str {
        self.0.keys.1.expose()
    }

    /// Changes how the service behaves from now on.
    pub fn adjust(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut lock(&self.0.knobs));
    }

    /// What a file reads as, by its place in the tree: `backup` is the id in a directory's name.
    pub fn artifact(
        &self,
        instance: &str,
        backup: &str,
        shard: &str,
        file: &str,
    ) -> Option<Content> {
        let estate = self.estate();
        let found = estate.iter().find(|one| one.id == instance)?;
        let mut backups = found.backups.iter();
        let backup = backups.find(|one| one.batch() == backup || one.row(0) == backup)?;
        let mut parts = backup.contents.iter().enumerate();
        let log = file
            .strip_prefix("oplog-")
            .and_then(|rest| rest.strip_suffix(".gz"));
        let content = match log {
            Some(id) => {
                let mut logs = backup.oplogs.iter().enumerate();
                logs.find(|(log, _)| backup.package(*log).to_string() == id)
            }
            None => parts.find(|(part, _)| found.shard_name(backup, *part) == shard),
        };
        content.map(|(_, content)| content.clone())
    }

    /// The ids of an instance's backups as the tree names them, in the order they were added.
    pub fn backup_ids(&self, instance: &str) -> Vec<String> {
        let estate = self.estate();
        let found = estate.iter().find(|one| one.id == instance);
        let ids = found.into_iter().flat_map(|one| {
            one.backups.iter().map(|backup| match one.sharded {
                true => backup.batch(),
                false => backup.row(0),
            })
        });
        ids.collect()
    }

    /// Deletes the `number`-th backup of an instance with its files, as the end of its retention
    /// does. False when there is none.
    pub fn delete_backup(&self, instance: &str, number: usize) -> bool {
        let mut estate = self.estate();
        let found = estate.iter_mut().find(|one| one.id == instance);
        let Some(found) = found.filter(|one| number < one.backups.len()) else {
            return false;
        };
        let backup = found.backups.remove(number);
        for (key, _) in files(found, &backup) {
            self.store().remove(&key);
        }
        true
    }

    /// Ends the `number`-th backup of an instance, which was running.
    pub fn finish_backup(&self, instance: &str, number: usize) {
        let mut estate = self.estate();
        let found = estate.iter_mut().find(|one| one.id == instance);
        if let Some(backup) = found.and_then(|one| one.backups.get_mut(number)) {
            backup.running = false;
        }
    }

    /// The addresses and keys, for another process.
    pub(super) fn describe(&self) -> Value {
        json!({
            "endpoint": self.endpoint(),
            "store": self.store().base(),
            "bucket": BUCKET,
            "region": estate::REGION,
            "project_id": self.project(),
            "public_key": self.public_key(),
            "private_key": self.private_key(),
        })
    }

    /// The store's host.
    pub(super) fn files(&self) -> Router {
        self.store().router()
    }

    pub(super) fn knobs(&self) -> Knobs {
        lock(&self.0.knobs).clone()
    }

    fn store(&self) -> &Us3 {
        &self.0.store
    }

    fn project(&self) -> &str {
        &self.0.project
    }

    fn site(&self) -> &Site {
        &self.0.site
    }

    fn keys(&self) -> (&str, &str) {
        (self.public_key(), self.private_key())
    }

    fn request_id(&self) -> String {
        let number = self.0.serial.fetch_add(1, Ordering::Relaxed);
        format!("c10d0000-0000-4000-8000-{number:012x}")
    }

    /// Whether a call is within the limit, which it then counts for.
    fn admit(&self, limit: usize, now: Timestamp) -> bool {
        let mut recent = lock(&self.0.recent);
        let over = |at: &Timestamp| now.duration_since(*at) >= SignedDuration::from_secs(1);
        while recent.front().is_some_and(over) {
            recent.pop_front();
        }
        let admitted = recent.len() < limit;
        if admitted {
            recent.push_back(now);
        }
        admitted
    }

    /// Counts a link to `key`, if there was one before.
    fn bill_link(&self, key: &str) {
        let renewed = !lock(&self.0.linked).insert(key.to_owned());
        self.0.site.meter.bill().link_refreshes += u64::from(renewed);
    }

    fn estate(&self) -> MutexGuard<'_, Vec<Instance>> {
        lock(&self.0.estate)
    }
}

/// Gives each backup its number.
fn numbered(mut instances: Vec<Instance>) -> Vec<Instance> {
    let backups = instances.iter_mut().flat_map(|one| &mut one.backups);
    for (number, backup) in (1..).zip(backups) {
        backup.number = number;
    }
    instances
}

/// Where the file of a row lies.
fn key(of: &Instance, backup: &Backup, part: usize) -> String {
    format!("{}/{}.tgz", of.id, backup.row(part))
}

/// Where a log of operations lies.
fn oplog_key(of: &Instance, backup: &Backup, log: usize) -> String {
    format!("{}/oplog/{}.gz", of.id, backup.package(log))
}

/// The files of a backup, by their keys.
fn files(of: &Instance, backup: &Backup) -> Vec<(String, Content)> {
    let parts = backup.contents.iter().enumerate();
    let parts = parts.map(|(part, content)| (key(of, backup, part), content.clone()));
    let logs = backup.oplogs.iter().enumerate();
    let logs = logs.map(|(log, content)| (oplog_key(of, backup, log), content.clone()));
    parts.chain(logs).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
