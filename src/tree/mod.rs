//! The tree of names: stable inode numbers and cached listings.
//!
//! A node names a provider, an instance, a backup, a shard, a directory or a file; what a file is
//! made of is not assumed to be one whole artifact. Listings are asked at most once per
//! `list_ttl`, by one caller for all (single-flight), and the last good one is served when the
//! provider fails. Works without a mount: `ls` and `get` walk the same tree.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::SharedClock;
use crate::error::Result;
use crate::model::{Backup, Instance, RemoteFile, ShardRef};
use crate::providers::Provider;

/// Inode number of the root.
pub const ROOT: u64 = 1;

/// What a node is.
#[derive(Debug, Clone)]
pub enum Node {
    /// The mountpoint.
    Root,
    /// `.backupfs`.
    Meta,
    /// One of the documents in `.backupfs`.
    MetaFile(MetaFile),
    /// A configured account.
    Provider(Arc<str>),
    /// An instance.
    Instance {
        /// Whose.
        provider: Arc<str>,
        /// Which.
        instance: Arc<Instance>,
    },
    /// `latest`: a relative symlink to the newest successful backup.
    Latest {
        /// The directory name it points to.
        target: String,
        /// The backup's finish time.
        finished: Timestamp,
    },
    /// A backup.
    Backup {
        /// Whose.
        provider: Arc<str>,
        /// Of which instance.
        instance: Arc<Instance>,
        /// Which.
        backup: Arc<Backup>,
    },
    /// A shard.
    Shard(Arc<ShardRef>),
    /// A directory inside a shard.
    Directory {
        /// Below which shard.
        shard: Arc<ShardRef>,
        /// Remote path below the shard.
        path: String,
    },
    /// A file.
    File(Arc<FileNode>),
}

/// A file of a shard.
#[derive(Debug, Clone)]
pub struct FileNode {
    /// Below which shard.
    pub shard: Arc<ShardRef>,
    /// What the provider listed.
    pub file: RemoteFile,
}

/// The documents in `.backupfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetaFile {
    /// `status.json`
    Status,
    /// `tasks.json`
    Tasks,
    /// `metrics`
    Metrics,
    /// `events.log`
    Events,
}

/// A node found by name.
#[derive(Debug, Clone)]
pub struct Found {
    /// Stable inode number: the same after a remount.
    pub ino: u64,
    /// The node.
    pub node: Node,
    /// How long the kernel may believe the name.
    pub ttl: Duration,
}

/// One entry of a directory.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its name, a safe path component.
    pub name: String,
    /// Its inode number.
    pub ino: u64,
    /// What it is.
    pub node: Node,
}

/// The tree. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tree {}

impl Tree {
    /// A tree over the named providers; asks nothing yet.
    pub fn new(
        _providers: Vec<(Arc<str>, Arc<dyn Provider>)>,
        _list_ttl: Duration,
        _clock: SharedClock,
    ) -> Self {
        todo!()
    }

    /// The node of a number the kernel holds; `BadHandle`/`Changed` if it is unknown.
    pub fn node(&self, _ino: u64) -> Result<Node> {
        todo!()
    }

    /// The child `name` of `parent`; counts a kernel reference.
    pub async fn lookup(&self, _parent: u64, _name: &str) -> Result<Found> {
        todo!()
    }

    /// The kernel dropped `count` references.
    pub fn forget(&self, _ino: u64, _count: u64) {
        todo!()
    }

    /// One more kernel reference (readdirplus).
    pub fn remember(&self, _child: &Child) {
        todo!()
    }

    /// All children of a directory but the hidden ones, ordered by name.
    pub async fn children(&self, _ino: u64) -> Result<Arc<Vec<Child>>> {
        todo!()
    }
}
