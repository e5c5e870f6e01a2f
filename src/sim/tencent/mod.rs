//! A simulated TencentDB for MongoDB: the API 3.0 calls that backups need, version 2019-07-25, and
//! a COS that packed backups and backup folders lie in.
//!
//! Owns the account (`estate`), the knobs and the recent calls of each action, each under a lock of
//! its own. Locks are taken in the order knobs, recent; and estate, store, bill.

mod answer;
mod calls;
mod estate;
mod knobs;
mod parameters;
mod service;
mod tasks;
mod tc3;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

pub(in crate::sim) use self::estate::Account;
pub use self::estate::{Backup, Instance, Method};
pub use self::knobs::Knobs;
use self::tasks::{Task, key};
use super::content::Content;
use super::cos::{self, Cos};
use super::{Site, hex, random};
use crate::secret::Secret;

/// The name of the bucket that folders lie in.
const BUCKET: &str = "sim-1250000000";

/// The service. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Tencent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: String,
    site: Site,
    store: Cos,
    secret_id: String,
    secret_key: Secret,
    token: Option<Secret>,
    serial: AtomicU64,
    knobs: Mutex<Knobs>,
    recent: Mutex<HashMap<String, VecDeque<Timestamp>>>,
    estate: Mutex<Estate>,
}

#[derive(Debug)]
struct Estate {
    instances: Vec<Instance>,
    tasks: Vec<Task>,
}

impl Tencent {
    /// The service at `base`, whose COS is reached at `store_base`.
    pub(super) fn new(
        base: String,
        store_base: String,
        site: Site,
        account: Account,
        knobs: Knobs,
    ) -> io::Result<Self> {
        let drawn = |prefix: &str| Ok::<_, io::Error>(format!("{prefix}{}", hex(&random::<16>()?)));
        let secret_id = account.secret_id.map_or_else(|| drawn("AKID"), Ok)?;
        let secret_key = account
            .secret_key
            .map_or_else(|| drawn("").map(Secret::new), Ok)?;
        let token = account.token.as_ref().map_or("", Secret::expose);
        for part in [secret_key.expose(), token] {
            site.meter.secrets().add(part);
        }
        let keys = cos::Keys {
            id: secret_id.clone(),
            secret: secret_key.clone(),
            token: account.token.clone(),
        };
        let store = Cos::new(store_base, BUCKET.to_owned(), keys, site.clone());
        store.tell_digests(knobs.right_digests);
        for (key, content, modified) in account.objects {
            store.put(&key, content, modified, true);
        }
        Ok(Tencent(Arc::new(Inner {
            base,
            site,
            store,
            secret_id,
            secret_key,
            token: account.token,
            serial: AtomicU64::new(0),
            knobs: Mutex::new(knobs),
            recent: Mutex::default(),
            estate: Mutex::new(Estate {
                instances: account.instances,
                tasks: Vec::new(),
            }),
        })))
    }

    pub(super) fn base(&self) -> &str {
        &self.0.base
    }

    pub(super) fn secret_id(&self) -> &str {
        &self.0.secret_id
    }

    pub(super) fn secret_key(&self) -> &str {
        self.0.secret_key.expose()
    }

    pub(super) fn store(&self) -> &Cos {
        &self.0.store
    }

    pub(super) fn knobs(&self) -> Knobs {
        lock(&self.0.knobs).clone()
    }

    pub(super) fn adjust(&self, change: impl FnOnce(&mut Knobs)) {
        let mut knobs = lock(&self.0.knobs);
        change(&mut knobs);
        self.0.store.tell_digests(knobs.right_digests);
    }

    /// The names of an instance's backups, in the order they were added.
    pub(super) fn backup_names(&self, instance: &str) -> Vec<String> {
        let estate = self.estate();
        let found = estate.instances.iter().find(|known| known.id == instance);
        let backups = found.into_iter().flat_map(|found| &found.backups);
        backups.map(|backup| backup.name(instance)).collect()
    }

    /// What the download of a shard contains.
    pub(super) fn artifact(&self, instance: &str, backup: &str, shard: usize) -> Option<Content> {
        let estate = self.estate();
        let found = estate.instances.iter().find(|known| known.id == instance)?;
        let found = found
            .backups
            .iter()
            .find(|known| known.name(instance) == backup)?;
        found.contents.get(shard).cloned()
    }

    /// What the download of the shard `shard` of the backup with this id contains.
    pub(super) fn packed(&self, instance: &str, back_id: &str, shard: &str) -> Option<Content> {
        let estate = self.estate();
        let found = estate.instances.iter().find(|known| known.id == instance)?;
        let mut numbered = found.backups.iter().enumerate();
        let (_, backup) = numbered.find(|(at, backup)| backup.id(*at).to_string() == back_id)?;
        let at = (0..found.shards).find(|at| found.shard_id(*at) == shard)?;
        backup.contents.get(at).cloned()
    }

    /// Deletes a backup with its downloads, as the end of its retention does.
    pub(super) fn delete_backup(&self, instance: &str, backup: &str) -> bool {
        let mut estate = self.estate();
        let Some(found) = estate
            .instances
            .iter_mut()
            .find(|known| known.id == instance)
        else {
            return false;
        };
        let before = found.backups.len();
        found.backups.retain(|known| known.name(instance) != backup);
        let deleted = found.backups.len() < before;
        for shard in 0..found.shards {
            let shard = found.shard_id(shard);
            self.0.store.remove(&key(backup, &shard));
        }
        estate.tasks.retain(|task| task.backup != backup);
        deleted
    }

    /// Removes the packed shard that a finished task's links lead to.
    pub(super) fn remove_packed(&self, backup: &str, shard: &str) {
        self.0.store.remove(&key(backup, shard));
    }

    fn site(&self) -> &Site {
        &self.0.site
    }

    fn keys(&self) -> tc3::Keys<'_> {
        tc3::Keys {
            id: &self.0.secret_id,
            key: self.0.secret_key.expose(),
            token: self.0.token.as_ref().map(Secret::expose),
        }
    }

    fn request_id(&self) -> String {
        let number = self.0.serial.fetch_add(1, Ordering::Relaxed);
        format!("5117a7e0-0000-4000-8000-{number:012x}")
    }

    /// Whether a call of `action` is within its limit, which it then counts for.
    fn admit(&self, action: &str, limit: usize, now: Timestamp) -> bool {
        let mut recent = lock(&self.0.recent);
        let calls = recent.entry(action.to_owned()).or_default();
        while calls
            .front()
            .is_some_and(|at| now.duration_since(*at) >= SignedDuration::from_secs(1))
        {
            calls.pop_front();
        }
        let admitted = calls.len() < limit;
        if admitted {
            calls.push_back(now);
        }
        admitted
    }

    /// Whether the next task is one of those that fail.
    fn spend_failure(&self) -> bool {
        let mut knobs = lock(&self.0.knobs);
        let fails = knobs.failing_tasks > 0;
        knobs.failing_tasks = knobs.failing_tasks.saturating_sub(1);
        fails
    }

    fn bill_task(&self) {
        self.0.site.meter.bill().tasks_created += 1;
    }

    fn bill_link(&self, renewed: bool) {
        self.0.site.meter.bill().link_refreshes += u64::from(renewed);
    }

    fn estate(&self) -> MutexGuard<'_, Estate> {
        lock(&self.0.estate)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
