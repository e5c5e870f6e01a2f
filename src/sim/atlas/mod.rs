//! The simulated MongoDB Atlas: the Administration API, legacy (v1.0) and versioned (v2), as far as
//! backups need it.
//!
//! A request passes the key check, the path and version table, the rate limit, and then reaches
//! the account. Owns the account's projects and downloads (`estate`), the knobs and the buckets,
//! each under a lock of its own. Locks are taken in the order knobs, buckets; and estate, deliveries
//! (`host`) or store, bill.

mod account;
mod answer;
mod auth;
mod call;
mod dedicated;
mod digest;
mod downloads;
mod estate;
mod fields;
mod host;
mod inventory;
mod knobs;
mod limits;
mod service;
mod tenant;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use md5::{Digest, Md5};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use self::auth::Keys;
use self::dedicated::Job;
pub(in crate::sim) use self::estate::Account;
use self::estate::Topology;
pub use self::estate::{Cluster, Project, Snapshot, Status, Tier};
use self::host::Host;
pub use self::knobs::{Knobs, RestoreHost, TenantApi, UsedJob};
use self::limits::Buckets;
pub use self::limits::{Limit, Limits};
use self::tenant::Restore;
use super::content::Content;
use super::store::Store;
use super::{Site, hex};
use crate::clock::Clock;

/// The service. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Atlas(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: String,
    site: Site,
    store: Store,
    host: Host,
    keys: Keys,
    first_project: String,
    knobs: Mutex<Knobs>,
    buckets: Mutex<Buckets>,
    estate: Mutex<Estate>,
}

#[derive(Debug)]
struct Estate {
    projects: Vec<Project>,
    restores: Vec<Restore>,
    jobs: Vec<Job>,
}

impl Atlas {
    /// The service at `base`, whose links lead to `store` and, for dedicated clusters, to
    /// `restore_host`, the address of a host of its own.
    pub(super) fn new(
        base: String,
        restore_host: String,
        site: Site,
        store: Store,
        account: Account,
        knobs: Knobs,
    ) -> io::Result<Self> {
        let keys = Keys::of(&account, site.meter.secrets())?;
        let first_project = account.projects.first().map(|p| p.id.clone());
        let atlas = Atlas(Arc::new(Inner {
            base,
            site,
            store,
            host: Host::new(restore_host),
            keys,
            first_project: first_project.unwrap_or_default(),
            knobs: Mutex::new(knobs),
            buckets: Mutex::default(),
            estate: Mutex::new(Estate {
                projects: account.projects,
                restores: Vec::new(),
                jobs: Vec::new(),
            }),
        }));
        for project in &atlas.estate().projects {
            for cluster in &project.clusters {
                for snapshot in &cluster.snapshots {
                    atlas.put(project, cluster, snapshot);
                }
            }
        }
        Ok(atlas)
    }

    pub(super) fn public_key(&self) -> &str {
        &self.0.keys.public
    }

    pub(super) fn private_key(&self) -> &str {
        self.0.keys.private.expose()
    }

    pub(super) fn client_id(&self) -> &str {
        &self.0.keys.client_id
    }

    pub(super) fn client_secret(&self) -> &str {
        self.0.keys.client_secret.expose()
    }

    pub(super) fn first_project(&self) -> &str {
        &self.0.first_project
    }

    pub(super) fn forget_sessions(&self) {
        self.0.keys.forget_sessions();
    }

    pub(super) fn knobs(&self) -> Knobs {
        lock(&self.0.knobs).clone()
    }

    pub(super) fn adjust(&self, change: impl FnOnce(&mut Knobs)) {
        let mut knobs = lock(&self.0.knobs);
        let limits = knobs.limits;
        change(&mut knobs);
        if knobs.limits != limits {
            // Buckets of another size start full.
            *lock(&self.0.buckets) = Buckets::default();
        }
    }

    /// The ids of all snapshots, by cluster.
    pub(super) fn snapshots(&self) -> BTreeMap<String, Vec<String>> {
        let estate = self.estate();
        let snapshots = estate.clusters().map(|(_, cluster)| {
            let ids = cluster.snapshots.iter().map(|s| s.id.clone());
            (cluster.name.clone(), ids.collect())
        });
        snapshots.collect()
    }

    /// The ids of the snapshots of the first cluster named `cluster`.
    pub(super) fn snapshot_ids(&self, cluster: &str) -> Vec<String> {
        let estate = self.estate();
        let snapshots = estate
            .clusters()
            .find(|(_, found)| found.name == cluster)
            .map(|(_, found)| found.snapshots.as_slice());
        let ids = snapshots.unwrap_or_default().iter().map(|s| s.id.clone());
        ids.collect()
    }

    /// Adds a snapshot to the first cluster named `cluster`; its id, when there is such a cluster.
    pub(super) fn add_snapshot(&self, cluster: &str, mut snapshot: Snapshot) -> Option<String> {
        let mut estate = self.estate();
        let (project, found) = estate.projects.iter_mut().enumerate().find_map(|(at, p)| {
            let found = p.clusters.iter().position(|c| c.name == cluster)?;
            Some((at, found))
        })?;
        let id = {
            let cluster = &mut estate.projects[project].clusters[found];
            snapshot.settle_id(&cluster.id);
            let id = snapshot.id.clone();
            cluster.snapshots.push(snapshot.clone());
            id
        };
        let project = &estate.projects[project];
        self.put(project, &project.clusters[found], &snapshot);
        Some(id)
    }

    /// What the downloads of a snapshot contain; of a sharded cluster, of its first shard.
    pub(super) fn artifact(&self, cluster: &str, snapshot_id: &str) -> Option<Content> {
        let key = self.estate().key_of(cluster, snapshot_id, None)?;
        self.0.store.content(&key)
    }

    /// What the downloads of one replica set of a snapshot contain.
    pub(super) fn part(&self, cluster: &str, snapshot_id: &str, set: &str) -> Option<Content> {
        let key = self.estate().key_of(cluster, snapshot_id, Some(set))?;
        self.0.store.content(&key)
    }

    /// What all jobs ever packed of one replica set of a snapshot, oldest first.
    pub(super) fn packed(&self, cluster: &str, snapshot_id: &str, set: &str) -> Vec<Content> {
        let key = self.estate().key_of(cluster, snapshot_id, Some(set));
        key.map_or_else(Vec::new, |key| self.0.host.packed(&key))
    }

    /// Replaces or removes what the downloads of a snapshot contain; false when there is none such.
    pub(super) fn replace_artifact(
        &self,
        cluster: &str,
        snapshot_id: &str,
        content: Option<Content>,
    ) -> bool {
        let Some(key) = self.estate().key_of(cluster, snapshot_id, None) else {
            return false;
        };
        match content {
            Some(content) => {
                let now = self.0.site.clock.now();
                self.0.store.put(&key, content, now);
            }
            None => self.0.store.remove(&key),
        }
        true
    }

    fn put(&self, project: &Project, cluster: &Cluster, snapshot: &Snapshot) {
        for (part, set) in cluster.replica_sets().iter().enumerate() {
            let key = object_key(project, cluster, &snapshot.id, set);
            let content = snapshot.part(part);
            self.0.store.put(&key, content, snapshot.finished());
        }
    }

    fn estate(&self) -> MutexGuard<'_, Estate> {
        lock(&self.0.estate)
    }
}

impl Estate {
    fn clusters(&self) -> impl Iterator<Item = (&Project, &Cluster)> {
        self.projects.iter().flat_map(|project| {
            project
                .clusters
                .iter()
                .map(move |cluster| (project, cluster))
        })
    }

    /// Where the download of a snapshot lies in the store, or that of one replica set of it.
    fn key_of(&self, cluster: &str, snapshot_id: &str, set: Option<&str>) -> Option<String> {
        self.clusters().find_map(|(project, found)| {
            let has_it = found.snapshots.iter().any(|s| s.id == snapshot_id);
            let sets = found.replica_sets();
            let set = match set {
                Some(set) => sets.iter().find(|known| *known == set)?,
                None => sets.first()?,
            };
            (found.name == cluster && has_it).then(|| object_key(project, found, snapshot_id, set))
        })
    }
}

/// The object that the download of a replica set is made of.
fn object_key(project: &Project, cluster: &Cluster, snapshot_id: &str, set: &str) -> String {
    // An id like `../x` must not become a path that clients resolve.
    let id = utf8_percent_encode(snapshot_id, NON_ALPHANUMERIC);
    let file = match (cluster.tier, cluster.topology) {
        (Tier::M10, Topology::ReplicaSet) => format!("{id}.tar.gz"),
        (Tier::M10, _) => format!("{id}/{set}.tar.gz"),
        _ => format!("{id}.tgz"),
    };
    format!("atlas-snapshots/{}/{}/{file}", project.id, cluster.id)
}

/// 24 hexadecimal digits: a time, as in MongoDB's own ids, and a digest of `names`.
fn object_id(seconds: u32, names: &[&str]) -> String {
    let digest = Md5::digest(names.join("\n"));
    format!("{seconds:08x}{}", hex(&digest[..8]))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
