//! The nouns that every room of the house shares. Plain data: no I/O, no clock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::secret::{SafeUrl, Secret};

/// Facts that only the provider who wrote them reads again (a region, an internal id).
pub type Facts = BTreeMap<&'static str, String>;

/// A managed MongoDB: one directory below its provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The provider's instance id (Atlas: the cluster's name), as remote text.
    pub id: String,
    /// When it was created, where the listing says so: the directory's mtime.
    pub created: Option<Timestamp>,
    /// What the provider needs to find it again.
    pub facts: Facts,
}

/// A finished backup of an instance: one directory below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The shortest stable id the provider has, as remote text.
    pub id: String,
    /// When the backup began: its directory name starts with it.
    pub started: Timestamp,
    /// When it finished: mtime and ctime of everything below.
    pub finished: Timestamp,
    /// The provider's word for its state, for `user.backupfs.status`.
    pub status: String,
    /// Whether it succeeded: only such a backup can be `latest`.
    pub successful: bool,
    /// logical, physical, snapshot …, for `user.backupfs.method`.
    pub method: Option<String>,
    /// The server's version, for `user.backupfs.version`.
    pub version: Option<String>,
    /// automatic, manual …, for `user.backupfs.type`.
    pub trigger: Option<String>,
    /// Why it cannot be downloaded, if it cannot: opening a file answers EOPNOTSUPP with this.
    pub not_downloadable: Option<String>,
    /// Its shards; a replica set is one shard.
    pub shards: Vec<Shard>,
    /// What the provider needs to find it again.
    pub facts: Facts,
}

/// One replica set of a backup: one directory, one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The provider's shard, replica set or node id, as remote text.
    pub id: String,
    /// What the provider needs to find it again.
    pub facts: Facts,
}

/// A shard with everything above it: what providers are asked about.
#[derive(Debug, Clone)]
pub struct ShardRef {
    /// The configured provider name: the top-level directory.
    pub provider: Arc<str>,
    /// The instance.
    pub instance: Arc<Instance>,
    /// The backup.
    pub backup: Arc<Backup>,
    /// The shard.
    pub shard: Shard,
}

impl ShardRef {
    /// The key under which the ledger knows this shard's task.
    pub fn key(&self) -> TaskKey {
        TaskKey {
            provider: self.provider.to_string(),
            instance: self.instance.id.clone(),
            backup: self.backup.id.clone(),
            shard: self.shard.id.clone(),
        }
    }
}

/// Identity of a download task: at most one is ever paid for per key. All parts are remote text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    /// The configured provider name.
    pub provider: String,
    /// Instance id.
    pub instance: String,
    /// Backup id.
    pub backup: String,
    /// Shard id.
    pub shard: String,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            provider,
            instance,
            backup,
            shard,
        } = self;
        write!(f, "{provider}/{instance}/{backup}/{shard}")
    }
}

/// Identity of one file's artifact, whatever its version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArtifactKey {
    /// The task (or, for objects, merely the place) it belongs to.
    pub task: TaskKey,
    /// [`RemoteFile::path`].
    pub file: String,
}

/// What is known of a file's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Learnt from the artifact itself.
    Exact(u64),
    /// The provider documents it, in bytes, for the file itself.
    Declared(u64),
    /// Not known before the artifact exists.
    Unknown,
}

impl Size {
    /// What stat shows.
    pub fn bytes(self) -> u64 {
        match self {
            Size::Exact(n) | Size::Declared(n) => n,
            Size::Unknown => 0,
        }
    }

    /// The word in `user.backupfs.size`.
    pub fn word(self) -> &'static str {
        match self {
            Size::Exact(_) => "exact",
            Size::Declared(_) => "declared",
            Size::Unknown => "unknown",
        }
    }
}

/// Where a file's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A download task must be ready first.
    Task,
    /// It already lies in a store: a link suffices.
    Object,
}

/// One file below a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Place below the shard, remote text, components separated by `/`. It never changes once
    /// listed, whatever name the provider gives the artifact later. An empty object whose path
    /// ends with `/` marks a directory.
    pub path: String,
    /// Its size as far as the listing knows it.
    pub size: Size,
    /// Its own time, where it has one; else the backup's finish time is shown.
    pub modified: Option<Timestamp>,
    /// Where its bytes come from.
    pub origin: Origin,
    /// Its version as the listing tells it, an ETag with its quotes.
    pub etag: Option<String>,
    /// A digest published by the provider, `algorithm:hex`.
    pub digest: Option<String>,
    /// What the provider needs to find it again.
    pub facts: Facts,
}

/// A provider's download task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The provider's task id; empty where it has none.
    pub id: String,
    /// Where it stands.
    pub state: TaskState,
    /// Progress, 0 to 100, where the provider tells.
    pub percent: Option<u8>,
    /// When the artifact will be gone, where the provider tells.
    pub expires: Option<Timestamp>,
    /// The provider's words about a failure.
    pub message: Option<String>,
}

/// Where a provider's task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Accepted, not started.
    Queued,
    /// In progress.
    Running,
    /// The artifact can be linked.
    Ready,
    /// The artifact is gone.
    Expired,
    /// It ended without an artifact.
    Failed,
}

/// Answer to "is there a task already?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is one; it is adopted. An active or ready task is preferred over an expired or failed.
    Task(Task),
    /// A complete listing has none.
    Nothing,
    /// This provider cannot tell.
    CannotTell,
}

/// Where to GET an artifact, for a while.
#[derive(Debug, Clone)]
pub struct Link {
    /// The address, signature included.
    pub url: SafeUrl,
    /// Headers to send with each request, their values private.
    pub headers: Vec<(String, Secret)>,
    /// When it stops working, by the provider's clock, where known.
    pub expires: Option<Timestamp>,
    /// Whether ranges may be asked.
    pub mode: LinkMode,
}

/// How a link may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkMode {
    /// Any number of range requests.
    Ranged,
    /// One sequential GET (the spool class).
    Once,
}

/// The version of an artifact, pinned at open: every later answer must match it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Validator {
    /// Strong or weak ETag, verbatim with its quotes.
    pub etag: Option<String>,
    /// Last-Modified, verbatim.
    pub last_modified: Option<String>,
    /// Length in bytes.
    pub size: u64,
    /// Which download brought it, where a link works once only; see [`LinkMode::Once`]. Such a
    /// version is gone with its bytes: no range of it can be asked for again. Two downloads are two
    /// versions unless every byte of the second was found equal to the first.
    pub download: Option<String>,
}

impl Validator {
    /// The entity tag if it is a strong one: only such a tag may be sent in If-Match (RFC 9110
    /// 13.1.1).
    pub fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| tag.starts_with('"'))
    }
}
