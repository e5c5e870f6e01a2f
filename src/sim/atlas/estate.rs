//! What an Atlas account consists of: projects, clusters and their snapshots, as a test describes
//! them and as the service keeps them.

use jiff::{SignedDuration, Timestamp};

use super::super::content::Content;
use super::object_id;
use crate::secret::Secret;

/// An account: its keys and projects. What is `None` is drawn at the start.
#[derive(Debug, Clone, Default)]
pub(in crate::sim) struct Account {
    pub(in crate::sim) public_key: Option<String>,
    pub(in crate::sim) private_key: Option<Secret>,
    pub(in crate::sim) client_id: Option<String>,
    pub(in crate::sim) client_secret: Option<Secret>,
    pub(in crate::sim) projects: Vec<Project>,
}

/// A project, also called a group.
#[derive(Debug, Clone)]
pub struct Project {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) clusters: Vec<Cluster>,
}

impl Project {
    /// An empty project whose id is a function of its name.
    pub fn new(name: &str) -> Self {
        Project {
            id: object_id(0x5d03_a6a1, &["project", name]),
            name: name.to_owned(),
            clusters: Vec::new(),
        }
    }

    /// Gives the project this id: 24 hexadecimal digits.
    pub fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// Adds a cluster.
    pub fn cluster(mut self, mut cluster: Cluster) -> Self {
        let life = if cluster.deleted {
            "deleted"
        } else {
            "cluster"
        };
        cluster.id = object_id(0x5d03_a6a2, &[life, &self.id, &cluster.name]);
        for snapshot in &mut cluster.snapshots {
            snapshot.settle_id(&cluster.id);
        }
        self.clusters.push(cluster);
        self
    }
}

/// The size of a cluster, which decides how it is backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Free: no backups.
    M0,
    /// Shared: one snapshot a day.
    M2,
    /// Shared: one snapshot a day.
    M5,
    /// What became of the shared sizes: one snapshot a day, an API of its own.
    Flex,
    /// Dedicated: cloud backups.
    M10,
}

impl Tier {
    pub(super) fn name(self) -> &'static str {
        match self {
            Tier::M0 => "M0",
            Tier::M2 => "M2",
            Tier::M5 => "M5",
            Tier::Flex => "FLEX",
            Tier::M10 => "M10",
        }
    }

    pub(super) fn disk_gb(self) -> f64 {
        match self {
            Tier::M0 => 0.5,
            Tier::M2 => 2.0,
            Tier::M5 | Tier::Flex => 5.0,
            Tier::M10 => 10.0,
        }
    }

    /// Whether the cluster shares its hosts with others.
    pub(super) fn is_shared(self) -> bool {
        self != Tier::M10
    }

    pub(super) fn has_backups(self) -> bool {
        self != Tier::M0
    }
}

/// How many replica sets a cluster consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topology {
    ReplicaSet,
    Sharded(usize),
    GeoSharded(usize),
}

impl Topology {
    /// The word in `clusterType`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Topology::ReplicaSet => "REPLICASET",
            Topology::Sharded(_) => "SHARDED",
            Topology::GeoSharded(_) => "GEOSHARDED",
        }
    }

    /// Shards, without the config servers.
    pub(super) fn shards(self) -> usize {
        match self {
            Topology::ReplicaSet => 1,
            Topology::Sharded(shards) | Topology::GeoSharded(shards) => shards,
        }
    }
}

/// A replica set, or a sharded cluster of them.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) tier: Tier,
    pub(super) topology: Topology,
    /// Only its backups are left.
    pub(super) deleted: bool,
    pub(super) version: String,
    pub(super) snapshots: Vec<Snapshot>,
}

impl Cluster {
    /// A replica set without snapshots.
    pub fn new(name: &str, tier: Tier) -> Self {
        Cluster {
            id: String::new(),
            name: name.to_owned(),
            tier,
            topology: Topology::ReplicaSet,
            deleted: false,
            version: "7.0.14".to_owned(),
            snapshots: Vec::new(),
        }
    }

    /// Makes it a cluster of so many shards, `<name>-shard-0` and so on, and `config`.
    pub fn sharded(mut self, shards: usize) -> Self {
        self.topology = Topology::Sharded(shards);
        self
    }

    /// The same over several zones of the world.
    pub fn geo_sharded(mut self, shards: usize) -> Self {
        self.topology = Topology::GeoSharded(shards);
        self
    }

    /// Deletes the cluster; its backups are retained.
    pub fn deleted(mut self) -> Self {
        self.deleted = true;
        self
    }

    /// The names of its replica sets: one directory of a backup each.
    pub(super) fn replica_sets(&self) -> Vec<String> {
        match self.topology {
            Topology::ReplicaSet => vec![self.name.clone()],
            Topology::Sharded(shards) | Topology::GeoSharded(shards) => (0..shards)
                .map(|shard| format!("{}-shard-{shard}", self.name))
                .chain(["config".to_owned()])
                .collect(),
        }
    }

    /// Adds a snapshot.
    pub fn snapshot(mut self, snapshot: Snapshot) -> Self {
        self.snapshots.push(snapshot);
        self
    }

    /// Adds `count` finished snapshots a day apart, the last one at `newest`; `content` gives each
    /// its bytes, counted from 0 for the oldest.
    pub fn daily(
        mut self,
        count: u32,
        newest: Timestamp,
        content: impl Fn(u64) -> Content,
    ) -> Self {
        for number in 0..count {
            let age = SignedDuration::from_hours(24 * i64::from(count - 1 - number));
            let snapshot = Snapshot::at(newest - age).content(content(number.into()));
            self.snapshots.push(snapshot);
        }
        self
    }

    /// Names the MongoDB version.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not begun.
    Pending,
    /// About to begin.
    Queued,
    /// Being taken.
    Running,
    /// Broken off.
    Failed,
    /// Finished.
    Completed,
}

impl Status {
    /// The word of the shared tier's API.
    pub(super) fn tenant_word(self) -> &'static str {
        match self {
            Status::Pending => "PENDING",
            Status::Queued => "QUEUED",
            Status::Running => "RUNNING",
            Status::Failed => "FAILED",
            Status::Completed => "COMPLETED",
        }
    }

    /// The word of the dedicated clusters' API.
    pub(super) fn dedicated_word(self) -> &'static str {
        match self {
            Status::Pending | Status::Queued => "queued",
            Status::Running => "inProgress",
            Status::Failed => "failed",
            Status::Completed => "completed",
        }
    }
}

/// A snapshot of a cluster.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) id: String,
    pub(super) started: Timestamp,
    pub(super) status: Status,
    /// One for each replica set; where there are too few, others are made up.
    contents: Vec<Content>,
    pub(super) on_demand: bool,
    pub(super) encrypted: bool,
    pub(super) download_fails: bool,
}

impl Snapshot {
    /// A finished snapshot begun at `started`, of one MiB, whose id is a function of its cluster
    /// and time.
    pub fn at(started: Timestamp) -> Self {
        Snapshot {
            id: String::new(),
            started,
            status: Status::Completed,
            contents: Vec::new(),
            on_demand: false,
            encrypted: false,
            download_fails: false,
        }
    }

    /// Gives the snapshot this id: 24 hexadecimal digits.
    pub fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// Sets how far it is.
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Sets what its download contains.
    pub fn content(mut self, content: Content) -> Self {
        self.contents = vec![content];
        self
    }

    /// Sets what its downloads contain: one of each shard in turn, then of the config servers.
    pub fn contents(mut self, contents: impl IntoIterator<Item = Content>) -> Self {
        self.contents = contents.into_iter().collect();
        self
    }

    /// Says that somebody asked for it.
    pub fn on_demand(mut self) -> Self {
        self.on_demand = true;
        self
    }

    /// Makes its downloads refused for encryption.
    pub fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }

    /// What the download of replica set number `part` contains.
    pub(super) fn part(&self, part: usize) -> Content {
        let made_up = || {
            let seed = self.started.as_second().unsigned_abs() + part as u64;
            Content::noise(seed, 1 << 20)
        };
        self.contents.get(part).cloned().unwrap_or_else(made_up)
    }

    /// The id of the part of a sharded cluster's snapshot that is one replica set.
    pub(super) fn member_id(&self, replica_set: &str) -> String {
        let time = self.started.as_second();
        object_id(time as u32, &["member", &self.id, replica_set])
    }

    /// Makes every download of it end in `FAILED`.
    pub fn download_fails(mut self) -> Self {
        self.download_fails = true;
        self
    }

    /// When it was finished: half a minute after its start.
    pub(super) fn finished(&self) -> Timestamp {
        self.started + SignedDuration::from_secs(31)
    }

    /// When it will be removed: eight days after its start.
    pub(super) fn expires(&self) -> Timestamp {
        self.started + SignedDuration::from_hours(8 * 24)
    }

    pub(super) fn settle_id(&mut self, cluster_id: &str) {
        if self.id.is_empty() {
            let time = self.started.as_second();
            let text = self.started.as_nanosecond().to_string();
            self.id = object_id(time as u32, &["snapshot", cluster_id, &text]);
        }
    }
}
