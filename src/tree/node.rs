//! What the tree is made of, and how a provider's answers become named entries. Pure.
//!
//! Every entry gets a name that is unique in its directory and the same each time the provider
//! says the same. What shares a provider's identity is one thing, however often it is listed: two
//! entries with one identity would share one download task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Backup, Instance, Origin, RemoteFile, ShardRef};
use crate::names;

/// Directories below a shard are at most this deep; what is deeper stays in one escaped name, so
/// that a hostile listing cannot exhaust the stack of whoever walks the tree.
const MAX_DEPTH: usize = 32;

/// Name of the hidden directory in the root.
pub(super) const META_NAME: &str = ".backupfs";

/// Name of the symlink to the newest successful backup.
pub(super) const LATEST: &str = "latest";

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

impl Node {
    /// Whether it has children.
    pub fn is_directory(&self) -> bool {
        !matches!(
            self,
            Node::MetaFile(_) | Node::Latest { .. } | Node::File(_)
        )
    }
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

impl MetaFile {
    /// All of them.
    pub const ALL: [MetaFile; 4] = [
        MetaFile::Events,
        MetaFile::Metrics,
        MetaFile::Status,
        MetaFile::Tasks,
    ];

    /// Its file name.
    pub fn name(self) -> &'static str {
        match self {
            MetaFile::Status => "status.json",
            MetaFile::Tasks => "tasks.json",
            MetaFile::Metrics => "metrics",
            MetaFile::Events => "events.log",
        }
    }
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
    /// Inode number of the directory.
    pub parent: u64,
    /// Its name, a safe path component.
    pub name: String,
    /// Its inode number.
    pub ino: u64,
    /// What it is.
    pub node: Node,
}

/// An entry that has a name but no number yet.
#[derive(Debug)]
pub(super) struct Sketch {
    pub(super) name: String,
    pub(super) node: Node,
    pub(super) below: Vec<Sketch>,
}

impl Sketch {
    fn leaf(name: String, node: Node) -> Self {
        Sketch {
            name,
            node,
            below: Vec::new(),
        }
    }
}

/// The root's entries.
pub(super) fn providers(names: impl Iterator<Item = Arc<str>>) -> Vec<Sketch> {
    named(
        names
            .map(|name| {
                (
                    names::component(&name),
                    name.to_string(),
                    Node::Provider(name),
                )
            })
            .collect(),
    )
}

/// The entries of `.backupfs`.
pub(super) fn documents() -> Vec<Sketch> {
    MetaFile::ALL
        .into_iter()
        .map(|file| Sketch::leaf(file.name().to_owned(), Node::MetaFile(file)))
        .collect()
}

/// A provider's entries.
pub(super) fn instances(provider: &Arc<str>, listed: Vec<Instance>) -> Vec<Sketch> {
    let listed = distinct(listed, |instance| instance.id.clone());
    named(
        listed
            .into_iter()
            .map(|(id, instance)| {
                let node = Node::Instance {
                    provider: Arc::clone(provider),
                    instance: Arc::new(instance),
                };
                (names::component(&id), id, node)
            })
            .collect(),
    )
}

/// An instance's entries: its backups and, if one succeeded, `latest`.
pub(super) fn backups(
    provider: &Arc<str>,
    instance: &Arc<Instance>,
    listed: Vec<Backup>,
) -> Vec<Sketch> {
    let listed = distinct(listed, |backup| backup.id.clone());
    let mut entries = named(
        listed
            .into_iter()
            .map(|(id, backup)| {
                let name = names::backup_name(backup.started, &id);
                let node = Node::Backup {
                    provider: Arc::clone(provider),
                    instance: Arc::clone(instance),
                    backup: Arc::new(backup),
                };
                (name, id, node)
            })
            .collect(),
    );
    entries.extend(latest(&entries));
    entries
}

fn latest(backups: &[Sketch]) -> Option<Sketch> {
    let newest = backups
        .iter()
        .filter_map(|entry| match &entry.node {
            Node::Backup { backup, .. } if backup.successful => Some((entry, backup)),
            _ => None,
        })
        .max_by_key(|(_, backup)| (backup.started, &backup.id))?;
    let (entry, backup) = newest;
    Some(Sketch::leaf(
        LATEST.to_owned(),
        Node::Latest {
            target: entry.name.clone(),
            finished: backup.finished,
        },
    ))
}

/// A backup's entries, known from the listing of its instance.
pub(super) fn shards(
    provider: &Arc<str>,
    instance: &Arc<Instance>,
    backup: &Arc<Backup>,
) -> Vec<Sketch> {
    let listed = distinct(backup.shards.clone(), |shard| shard.id.clone());
    named(
        listed
            .into_iter()
            .map(|(id, shard)| {
                let node = Node::Shard(Arc::new(ShardRef {
                    provider: Arc::clone(provider),
                    instance: Arc::clone(instance),
                    backup: Arc::clone(backup),
                    shard,
                }));
                (names::component(&id), id, node)
            })
            .collect(),
    )
}

/// A shard's entries: remote paths become directories and files.
pub(super) fn files(shard: &Arc<ShardRef>, listed: Vec<RemoteFile>) -> Vec<Sketch> {
    let mut top = Folder::default();
    for (path, file) in distinct(listed, |file| file.path.clone()) {
        top.add(&path, file);
    }
    top.sketch(shard, "")
}

/// Whether an object only says that its directory exists: it has no content and its key ends with
/// a slash.
fn is_directory_mark(file: &RemoteFile) -> bool {
    file.origin == Origin::Object && file.size.bytes() == 0 && file.path.ends_with('/')
}

/// One directory of remote paths, by remote component.
#[derive(Default)]
struct Folder {
    files: BTreeMap<String, RemoteFile>,
    folders: BTreeMap<String, Folder>,
}

impl Folder {
    fn add(&mut self, path: &str, file: RemoteFile) {
        let mut folder = self;
        let mut parts = path.splitn(MAX_DEPTH, '/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                if part.is_empty() && is_directory_mark(&file) {
                    return;
                }
                folder.files.insert(part.to_owned(), file);
                return;
            }
            folder = folder.folders.entry(part.to_owned()).or_default();
        }
    }

    fn sketch(self, shard: &Arc<ShardRef>, prefix: &str) -> Vec<Sketch> {
        let mut below: BTreeMap<String, Vec<Sketch>> = BTreeMap::new();
        let mut entries = Vec::with_capacity(self.files.len() + self.folders.len());
        for (part, file) in self.files {
            let node = Node::File(Arc::new(FileNode {
                shard: Arc::clone(shard),
                file,
            }));
            entries.push((names::component(&part), part, node));
        }
        for (part, folder) in self.folders {
            let path = format!("{prefix}{part}");
            // `a` and `a/` may both exist; as identities they tell the file from the directory.
            let identity = format!("{part}/");
            below.insert(identity.clone(), folder.sketch(shard, &format!("{path}/")));
            let node = Node::Directory {
                shard: Arc::clone(shard),
                path,
            };
            entries.push((names::component(&part), identity, node));
        }
        let identities: Vec<String> = entries.iter().map(|(_, id, _)| id.clone()).collect();
        let mut sketches = named(entries);
        for (sketch, identity) in sketches.iter_mut().zip(identities) {
            if let Some(inside) = below.remove(&identity) {
                sketch.below = inside;
            }
        }
        sketches
    }
}

/// What was listed, by identity; of several with one identity the last is kept.
fn distinct<T>(listed: Vec<T>, identity: impl Fn(&T) -> String) -> BTreeMap<String, T> {
    let count = listed.len();
    let distinct: BTreeMap<String, T> = listed
        .into_iter()
        .map(|item| (identity(&item), item))
        .collect();
    if distinct.len() < count {
        tracing::debug!(
            listed = count,
            distinct = distinct.len(),
            "the provider listed some things more than once"
        );
    }
    distinct
}

/// Entries of (component, identity, node) with unique names, in the order given.
fn named(entries: Vec<(String, String, Node)>) -> Vec<Sketch> {
    let (keys, nodes): (Vec<(String, String)>, Vec<Node>) = entries
        .into_iter()
        .map(|(name, identity, node)| ((name, identity), node))
        .unzip();
    names::unique(&keys)
        .into_iter()
        .zip(nodes)
        .map(|(name, node)| Sketch::leaf(name, node))
        .collect()
}
