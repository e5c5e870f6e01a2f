//! Where the objects are: an object store or a local directory. Both list folders and objects by
//! their keys, read small objects and give links to large ones.

use bytes::Bytes;
use jiff::Timestamp;

use super::local::Local;
use super::remote::Remote;
use super::requests::Sender;
use crate::clock::SharedClock;
use crate::config::{BucketConfig, BucketService, ProviderConfig};
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Facts, Link, Origin, RemoteFile, Size};

/// Fact of a file: its key.
const KEY: &str = "key";

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) key: String,
    /// In bytes.
    pub(super) size: u64,
    /// When it was written.
    pub(super) modified: Option<Timestamp>,
    /// Its version, with its quotes.
    pub(super) etag: Option<String>,
}

impl Object {
    /// The object as a file at `path` of its shard.
    pub(super) fn file(self, path: &str) -> RemoteFile {
        RemoteFile {
            path: path.to_owned(),
            size: Size::Exact(self.size),
            modified: self.modified,
            origin: Origin::Object,
            etag: self.etag,
            digest: None,
            facts: Facts::from([(KEY, self.key)]),
        }
    }
}

/// What a listing brought.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Keys of folders, with a slash at the end.
    pub(super) folders: Vec<String>,
    pub(super) objects: Vec<Object>,
}

impl Listed {
    /// The names of the folders directly below `prefix`.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        let names = self.folders.iter().filter_map(|key| {
            let name = key.strip_prefix(prefix)?.strip_suffix('/')?;
            (!name.is_empty()).then(|| name.to_owned())
        });
        names.collect()
    }
}

/// The store.
#[derive(Debug)]
pub(super) enum Store {
    Remote(Remote),
    Local(Local),
}

/// One operation on a store: its requests share a retry budget.
pub(super) enum Operation<'a> {
    Remote(&'a Remote, Sender),
    Local(&'a Local),
}

impl Store {
    /// The store as configured; asks nothing yet.
    pub(super) fn new(
        common: &ProviderConfig,
        config: &BucketConfig,
        clock: SharedClock,
    ) -> Result<Self> {
        match common.directory() {
            Some(directory) => Ok(Store::Local(Local::new(directory))),
            None => Remote::new(common, config, clock).map(Store::Remote),
        }
    }

    /// What it takes to list, as the store's console names it.
    pub(super) fn listing_permission(&self) -> Option<&'static str> {
        match self {
            Store::Remote(remote) => Some(match remote.service() {
                BucketService::S3 => "s3:ListBucket",
                BucketService::Cos => "cos:GetBucket",
                BucketService::Oss => "oss:ListObjects",
                BucketService::Gcs => "storage.objects.list",
                BucketService::Azblob => "list (`l`) on the container",
                BucketService::Fs => return None,
            }),
            Store::Local(_) => None,
        }
    }

    /// The time by the store's clock.
    pub(super) fn cloud_time(&self) -> Option<Timestamp> {
        match self {
            Store::Remote(remote) => Some(remote.cloud_time()),
            Store::Local(_) => None,
        }
    }

    pub(super) fn operation(&self) -> Operation<'_> {
        match self {
            Store::Remote(remote) => Operation::Remote(remote, remote.sender()),
            Store::Local(local) => Operation::Local(local),
        }
    }
}

impl Operation<'_> {
    /// What is directly below `prefix`, folders and objects. `prefix` need not end with a slash.
    pub(super) async fn list(&self, prefix: &str) -> Result<Listed> {
        self.listed(prefix, false).await
    }

    /// Every object whose key begins with `prefix`.
    pub(super) async fn objects(&self, prefix: &str) -> Result<Vec<Object>> {
        Ok(self.listed(prefix, true).await?.objects)
    }

    async fn listed(&self, prefix: &str, all_below: bool) -> Result<Listed> {
        let listed = match self {
            Operation::Remote(remote, sender) => remote.list(prefix, all_below, sender).await,
            Operation::Local(local) => local.list(prefix, all_below).await,
        };
        listed.map_err(|error| error.context(format!("listing {}", place(prefix))))
    }

    /// The object at `key`, which must be small.
    pub(super) async fn read(&self, key: &str) -> Result<Bytes> {
        let read = match self {
            Operation::Remote(remote, sender) => remote.read(key, sender).await,
            Operation::Local(local) => local.read(key).await,
        };
        read.map_err(|error| error.context(format!("reading {}", place(key))))
    }

    /// A link to a file that was made of an [`Object`].
    pub(super) async fn link(&self, file: &RemoteFile) -> Result<Link> {
        let key = file.facts.get(KEY).map(String::as_str);
        let key = key.ok_or_else(|| Error::new(Kind::Internal, "an object lost its key"))?;
        match self {
            Operation::Remote(remote, sender) => remote.link(key, sender).await,
            Operation::Local(local) => Ok(local.link(key)),
        }
    }
}

/// `key` in words.
fn place(key: &str) -> String {
    match key {
        "" => "the bucket".to_owned(),
        key => one_line(key),
    }
}
