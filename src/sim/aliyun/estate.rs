//! What the simulated account owns, as tests describe it.

use jiff::{SignedDuration, Timestamp};

use crate::secret::Secret;
use crate::sim::content::Content;

/// An access key of the account.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Secret,
    pub(super) token: Option<Secret>,
}

/// The account: its key and its instances.
#[derive(Debug, Clone, Default)]
pub struct Account {
    pub(super) token: Option<Secret>,
    pub(super) bucket: Option<String>,
    pub(super) instances: Vec<Instance>,
}

impl Account {
    /// Without instances; the key is drawn at the start.
    pub fn new() -> Self {
        Account::default()
    }

    /// Calls need the token of temporary credentials.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(Secret::new(token));
        self
    }

    /// It has a bucket of this name in OSS.
    pub fn bucket(mut self, name: &str) -> Self {
        self.bucket = Some(name.to_owned());
        self
    }

    /// Adds an instance.
    pub fn instance(mut self, instance: Instance) -> Self {
        self.instances.push(instance);
        self
    }
}

/// How an instance is backed up and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    Cloud,
    Local,
}

/// A managed MongoDB.
#[derive(Debug, Clone)]
pub struct Instance {
    pub(super) id: String,
    pub(super) region: String,
    pub(super) disk: Disk,
    pub(super) status: String,
    pub(super) version: String,
    pub(super) nodes: u8,
    pub(super) encrypted: bool,
    /// Ids of the shards; none for a replica set.
    pub(super) shards: Vec<String>,
    /// Whether the shards are backed up together.
    pub(super) whole: bool,
    pub(super) backups: Vec<Backup>,
}

impl Instance {
    /// A replica set of three on cloud disks.
    pub fn replica_set(id: &str) -> Self {
        Instance {
            id: id.to_owned(),
            region: "cn-hangzhou".to_owned(),
            disk: Disk::Cloud,
            status: "Running".to_owned(),
            version: "7.0".to_owned(),
            nodes: 3,
            encrypted: false,
            shards: Vec::new(),
            whole: false,
            backups: Vec::new(),
        }
    }

    /// A sharded cluster on cloud disks, whose shards are backed up together.
    pub fn sharded(id: &str, shards: usize) -> Self {
        let name = id.trim_start_matches("dds-");
        Instance {
            shards: (1..=shards).map(|n| format!("d-{name}{n:02}")).collect(),
            whole: true,
            ..Self::replica_set(id)
        }
    }

    /// Each shard is backed up by itself.
    pub fn shard_by_shard(mut self) -> Self {
        self.whole = false;
        self
    }

    /// It lies on local disks: backups come with links.
    pub fn on_local_disk(mut self, version: &str) -> Self {
        self.disk = Disk::Local;
        self.version = version.to_owned();
        self
    }

    /// It has a single node.
    pub fn single_node(mut self) -> Self {
        self.nodes = 1;
        self
    }

    /// Its disks are encrypted.
    pub fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }

    /// It is in another region than `cn-hangzhou`.
    pub fn in_region(mut self, region: &str) -> Self {
        self.region = region.to_owned();
        self
    }

    /// Its state.
    pub fn status(mut self, status: &str) -> Self {
        self.status = status.to_owned();
        self
    }

    /// Adds a backup.
    pub fn backup(mut self, backup: Backup) -> Self {
        self.backups.push(backup);
        self
    }

    /// What is backed up by itself: the shards, or the one replica set.
    pub(super) fn members(&self) -> Vec<String> {
        match self.shards.as_slice() {
            [] => vec![self.replica_set_name()],
            shards => shards.to_vec(),
        }
    }

    pub(super) fn replica_set_name(&self) -> String {
        format!("mgset-{}", self.id.trim_start_matches("dds-"))
    }
}

/// A backup: one content per shard.
#[derive(Debug, Clone)]
pub struct Backup {
    pub(super) id: u64,
    pub(super) started: Timestamp,
    pub(super) method: String,
    pub(super) extension: Option<String>,
    pub(super) failed: bool,
    pub(super) time_series: bool,
    /// The size that listings tell of a file on local disks, where that is another one.
    pub(super) declared: Option<u64>,
    pub(super) contents: Vec<Content>,
}

impl Backup {
    /// A snapshot taken at `started`.
    pub fn at(started: Timestamp) -> Self {
        Backup {
            id: 0,
            started,
            method: "Snapshot".to_owned(),
            extension: None,
            failed: false,
            time_series: false,
            declared: None,
            contents: Vec::new(),
        }
    }

    /// What the next shard's download reads as.
    pub fn content(mut self, content: Content) -> Self {
        self.contents.push(content);
        self
    }

    /// A physical backup, as local disks have it; its file ends with `extension`.
    pub fn physical(mut self, extension: &str) -> Self {
        self.method = "Physical".to_owned();
        self.extension = Some(extension.to_owned());
        self
    }

    /// A logical backup, as local disks have it.
    pub fn logical(self) -> Self {
        Backup {
            method: "Logical".to_owned(),
            ..self.physical(".ar")
        }
    }

    /// Listings tell another size than its file has.
    pub fn declared(mut self, size: u64) -> Self {
        self.declared = Some(size);
        self
    }

    /// It holds time-series collections.
    pub fn with_time_series(mut self) -> Self {
        self.time_series = true;
        self
    }

    /// It failed.
    pub fn failed(mut self) -> Self {
        self.failed = true;
        self
    }

    pub(super) fn finished(&self) -> Timestamp {
        self.started + SignedDuration::from_secs(310)
    }

    /// The id of its set of the member at `index`.
    pub(super) fn set(&self, index: usize) -> String {
        (self.id + index as u64).to_string()
    }

    /// The id of the backup of a whole cluster.
    pub(super) fn cluster_id(&self) -> String {
        format!("cb-{}", self.id)
    }
}
