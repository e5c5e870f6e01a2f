//! The tree of names: stable inode numbers and cached listings.
//!
//! A node names a provider, an instance, a backup, a shard, a directory or a file; what a file is
//! made of is not assumed to be one whole artifact. Listings are asked at most once per
//! `list_ttl`, by one caller for all (single-flight), and the last good one is served when the
//! provider fails. Works without a mount: `ls` and `get` walk the same tree.
//!
//! Locks: the table of numbers, and one inside each listing; neither is taken while the other is
//! held, nor kept across an await.

#[cfg(test)]
pub(crate) mod fake;
mod health;
mod inodes;
mod leaves;
mod listing;
mod node;
mod walk;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::observe::events::Events;
use crate::providers::Provider;

use inodes::{Contents, Inodes};
use listing::{Listing, Need, Served, Terms};
use node::Sketch;

pub use health::ProviderHealth;
pub use inodes::ROOT;
pub use leaves::{Leaf, Leaves};
pub use node::{Child, FileNode, Found, MetaFile, Node};

/// How long the kernel may believe a name that only a new configuration can change.
const FIXED_TTL: Duration = Duration::from_secs(3600);

/// A year stands for "for ever": instants that far ahead can still be computed.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How the tree treats its listings.
#[derive(Debug, Clone)]
pub struct TreeOptions {
    /// How long a listing is served before it is asked again.
    pub list_ttl: Duration,
    /// How long a caller waits for a listing that was never served before it is an error.
    pub patience: Duration,
    /// Where failed listings are told.
    pub events: Events,
}

/// The tree. Cheap to clone.
#[derive(Clone)]
pub struct Tree {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<Inodes>,
    providers: HashMap<Arc<str>, Arc<dyn Provider>>,
    terms: Terms,
    events: Events,
    clock: SharedClock,
}

impl Tree {
    /// A tree over the named providers; asks nothing yet.
    pub fn new(
        providers: Vec<(Arc<str>, Arc<dyn Provider>)>,
        options: TreeOptions,
        clock: SharedClock,
    ) -> Self {
        let entries = node::providers(providers.iter().map(|(name, _)| Arc::clone(name)));
        Tree {
            shared: Arc::new(Shared {
                table: Mutex::new(Inodes::new(entries)),
                providers: providers.into_iter().collect(),
                terms: Terms {
                    ttl: options.list_ttl.min(LONGEST),
                    patience: options.patience.min(LONGEST),
                },
                events: options.events,
                clock,
            }),
        }
    }

    /// The node of a number the kernel holds; [`Kind::Changed`] if it is unknown.
    pub fn node(&self, ino: u64) -> Result<Node> {
        self.shared.node(ino)
    }

    /// The directory that has `ino`; the root's parent is the root.
    pub fn parent(&self, ino: u64) -> u64 {
        self.shared.table().parent(ino).unwrap_or(ROOT)
    }

    /// The path of `ino` from the root, for people: `/provider/instance/…`.
    pub fn path(&self, ino: u64) -> String {
        let path = self.shared.table().path(ino);
        path.unwrap_or_else(|| format!("(node {ino:#x}, no longer listed)"))
    }

    /// The child `name` of `parent`; counts a kernel reference.
    ///
    /// # Errors
    /// [`Kind::NotFound`] only when a complete and current listing has no such name; otherwise why
    /// that could not be found out.
    pub async fn lookup(&self, parent: u64, name: &str) -> Result<Found> {
        let (child, ttl) = self.find(parent, name).await?;
        let (ino, node) = self.shared.table().hold(&child);
        Ok(Found { ino, node, ttl })
    }

    /// The kernel dropped `count` references; true when it holds none any more.
    pub fn forget(&self, ino: u64, count: u64) -> bool {
        self.shared.table().release(ino, count)
    }

    /// One more kernel reference (readdirplus). Tells the child's newest meaning, which may have
    /// changed since `child` was listed.
    pub fn remember(&self, child: &Child) -> Found {
        let ttl = self.shared.fresh_for(child.parent);
        let (ino, node) = self.shared.table().hold(child);
        Found { ino, node, ttl }
    }

    /// All children of a directory but the hidden ones, ordered by name.
    ///
    /// # Errors
    /// Only when the directory was never listed: why it could not be.
    pub async fn children(&self, ino: u64) -> Result<Arc<Vec<Child>>> {
        self.listed(ino, Need::Any).await.map(|served| served.value)
    }

    /// How many nodes are known.
    pub fn known_nodes(&self) -> usize {
        self.shared.table().len()
    }

    /// The children of directory `ino` with what is known of their being current.
    async fn listed(&self, ino: u64, need: Need) -> Result<Served<Vec<Child>>> {
        let shared = &self.shared;
        match shared.node(ino)? {
            Node::Root | Node::Meta => {
                let table = shared.table();
                let contents = table.contents(ino).and_then(|contents| contents.of(ino));
                Ok(Served {
                    value: contents.map(Arc::clone).unwrap_or_default(),
                    fresh_for: FIXED_TTL,
                    stale: None,
                })
            }
            Node::Provider(_) | Node::Instance { .. } | Node::Shard(_) => {
                let served = shared.refreshed(ino, need).await?;
                served.map(|contents| contents.of(ino))
            }
            Node::Backup { .. } => {
                // Shards come with their backup; only proof that one does not exist asks again.
                let (fresh_for, stale) = match need {
                    Need::Known | Need::Any => (shared.terms.ttl, Some(unproven())),
                    Need::Current => {
                        let served = shared.refreshed(self.parent(ino), need).await?;
                        (served.fresh_for, served.stale)
                    }
                };
                let mut table = shared.table();
                let contents = match table.contents(ino) {
                    Some(contents) => Some(Arc::clone(contents)),
                    None => table.install_shards(ino),
                };
                Served {
                    value: contents.ok_or_else(gone)?,
                    fresh_for,
                    stale,
                }
                .map(|contents| contents.of(ino))
            }
            Node::Directory { .. } => {
                let served = shared.refreshed(shared.shard_above(ino)?, need).await?;
                served.map(|contents| contents.of(ino))
            }
            Node::MetaFile(_) | Node::Latest { .. } | Node::File(_) => Err(Error::new(
                Kind::NotDirectory,
                format!("{} is not a directory", self.path(ino)),
            )),
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Inodes> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, ino: u64) -> Result<Node> {
        self.table().node(ino).cloned().ok_or_else(gone)
    }

    /// How long the names in a directory may still be believed; from memory.
    fn fresh_for(&self, directory: u64) -> Duration {
        let owner = match self.node(directory) {
            Ok(Node::Root | Node::Meta) => return FIXED_TTL,
            Ok(Node::Backup { .. }) => return self.terms.ttl,
            Ok(Node::Directory { .. }) => self.shard_above(directory),
            _ => Ok(directory),
        };
        let listing = owner.ok().and_then(|owner| self.table().listing(owner));
        listing.map_or(Duration::ZERO, |listing| listing.fresh_for(self.terms))
    }

    /// The shard above a directory inside it.
    fn shard_above(&self, ino: u64) -> Result<u64> {
        let table = self.table();
        let mut at = ino;
        loop {
            match table.node(at) {
                Some(Node::Directory { .. }) => at = table.parent(at).ok_or_else(gone)?,
                Some(Node::Shard(_)) => return Ok(at),
                _ => return Err(gone()),
            }
        }
    }

    /// The listing of a directory that its provider must be asked about.
    async fn refreshed(self: &Arc<Self>, ino: u64, need: Need) -> Result<Served<Contents>> {
        let listing: Arc<Listing<Contents>> = self.table().listing(ino).ok_or_else(gone)?;
        let load = || {
            let shared = Arc::clone(self);
            async move { shared.load(ino).await }
        };
        listing.get(self.terms, need, &self.clock, load).await
    }

    /// Asks the provider about directory `ino` and installs the answer.
    async fn load(&self, ino: u64) -> Result<Arc<Contents>> {
        let (node, path) = {
            let table = self.table();
            let node = table.node(ino).cloned().ok_or_else(gone)?;
            (node, table.path(ino).unwrap_or_default())
        };
        match self.ask(&node).await {
            Ok(entries) => self.table().install(ino, entries).ok_or_else(gone),
            Err(error) => {
                let error = of_listing(error).context(format!("listing {path}"));
                self.events.failed("list", &path, &error);
                Err(error)
            }
        }
    }

    async fn ask(&self, node: &Node) -> Result<Vec<Sketch>> {
        let provider = owner(node)
            .and_then(|name| self.providers.get(name))
            .ok_or_else(gone)?;
        match node {
            Node::Provider(name) => Ok(node::instances(name, provider.instances().await?)),
            Node::Instance {
                provider: name,
                instance,
            } => Ok(node::backups(
                name,
                instance,
                provider.backups(instance).await?,
            )),
            Node::Shard(shard) => Ok(node::files(shard, provider.files(shard).await?)),
            _ => Err(gone()),
        }
    }
}

impl Served<Contents> {
    /// The part of a listing that one directory shows.
    fn map<'a, F>(&'a self, part: F) -> Result<Served<Vec<Child>>>
    where
        F: FnOnce(&'a Contents) -> Option<&'a Arc<Vec<Child>>>,
    {
        Ok(Served {
            value: part(&self.value).map(Arc::clone).ok_or_else(gone)?,
            fresh_for: self.fresh_for,
            stale: self.stale.as_ref().map(Error::duplicate),
        })
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("providers", &self.shared.providers.keys())
            .field("nodes", &self.known_nodes())
            .finish_non_exhaustive()
    }
}

/// The provider a node belongs to.
fn owner(node: &Node) -> Option<&Arc<str>> {
    match node {
        Node::Root | Node::Meta | Node::MetaFile(_) | Node::Latest { .. } => None,
        Node::Provider(name) => Some(name),
        Node::Instance { provider, .. } | Node::Backup { provider, .. } => Some(provider),
        Node::Shard(shard) | Node::Directory { shard, .. } => Some(&shard.provider),
        Node::File(file) => Some(&file.shard.provider),
    }
}

/// A failed listing is never "no such name": that it fails says nothing about what exists.
fn of_listing(error: Error) -> Error {
    match error.kind() {
        Kind::Credentials | Kind::Stopping => error,
        kind if kind.errno() == libc::EIO => error,
        _ => Error::new(Kind::Unavailable, error.to_string()),
    }
}

fn gone() -> Error {
    Error::new(Kind::Changed, "the provider no longer lists it")
}

fn unproven() -> Error {
    Error::new(Kind::Unavailable, "the listing of the instance is needed")
}

#[cfg(test)]
mod tests;
