//! The filesystem's operations on plain types; knows no fuser.
//!
//! Every method is cancel-safe: the adapter drops the future when its caller is interrupted or its
//! deadline passes, and shared work (a task, a fetch, a listing) goes on. Looking costs nothing:
//! only [`Fs::open_file`] leads to a download task or a data request.

mod ahead;
mod attr;
mod build;
mod digest;
mod flight;
#[cfg(test)]
mod flight_tests;
mod handles;
mod live;
mod meta;
mod open;
mod spender;
mod spooling;
mod types;
mod verify;
mod xattr;

use std::collections::HashMap;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cache::{Budget, Lent};
use crate::error::{Error, Kind, Result};
use crate::model::Size;
use crate::observe::events::{self, Events};
use crate::observe::kernel::Kernel;
use crate::observe::metrics;
use crate::observe::status::Status;
use crate::tasks::Wait;
use crate::tree::{Child, FileNode, MetaFile, Node, Tree};

use attr::Shape;
use handles::{Handles, OpenArtifact, OpenFile};
use open::Opener;

pub use ahead::{Ahead, Outlook, Wanted};
pub use attr::{kind, modified};
pub use build::tree;
pub use digest::{Check, Verdict, promised};
pub use spender::process_name;
pub use types::{Attr, Caller, Entry, FileKind, Opened, Statfs};

/// How long [`Fs::stop`] waits for a create under way, and then for the cache's disk.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// The filesystem. Cheap to clone.
#[derive(Clone)]
pub struct Fs {
    inner: Arc<Inner>,
}

struct Inner {
    tree: Tree,
    opener: Opener,
    handles: Handles,
    budget: Budget,
    events: Events,
    kernel: Kernel,
    shape: Shape,
    mountpoint: OnceLock<PathBuf>,
    /// Size of each document when it was last opened.
    documents: Mutex<HashMap<MetaFile, u64>>,
    stopped: CancellationToken,
}

impl Fs {
    /// What `status.json` says.
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// What is agreed with the kernel, as the status document shows it.
    pub fn kernel(&self) -> &Kernel {
        &self.inner.kernel
    }

    /// Tells the status document where it is mounted; the first call counts.
    pub fn mounted_at(&self, mountpoint: &Path) {
        self.inner.mountpoint.get_or_init(|| mountpoint.to_owned());
    }

    /// Serves Prometheus text at `http://<address>/metrics` until [`Fs::stop`].
    ///
    /// # Errors
    /// [`Kind::Config`] when nothing can listen there.
    pub fn serve_metrics(&self, address: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind(address).map_err(|error| {
            Error::new(
                Kind::Config,
                format!("metrics cannot be served at {address}: choose another `mount.metrics`"),
            )
            .with_source(error)
        })?;
        let inner = Arc::downgrade(&self.inner);
        let text = move || {
            let inner = inner.upgrade();
            inner.map_or_else(Bytes::new, |inner| inner.document(MetaFile::Metrics))
        };
        metrics::serve(listener, text, self.inner.stopped.clone())
    }

    /// The tree of names below it.
    pub fn tree(&self) -> &Tree {
        &self.inner.tree
    }

    /// Name to node.
    pub async fn lookup(&self, parent: u64, name: &str) -> Result<Entry> {
        let found = self.inner.tree.lookup(parent, name).await?;
        Ok(Entry {
            attr: self.inner.attr(found.ino, &found.node),
            ttl: found.ttl,
        })
    }

    /// The kernel dropped references.
    pub fn forget(&self, ino: u64, count: u64) {
        if self.inner.tree.forget(ino, count) {
            self.inner.handles.forget(ino);
        }
    }

    /// Attributes; with `handle` those of the open version.
    ///
    /// # Errors
    /// [`Kind::Changed`] with the handle of a version that is gone: the kernel asks at the end of
    /// the file as it knows it, which by then may be the end of another version.
    pub async fn getattr(&self, ino: u64, handle: Option<u64>) -> Result<Attr> {
        let node = self.inner.tree.node(ino)?;
        if let Some(handle) = handle
            && kind(&node) == FileKind::File
        {
            let size = match &*self.inner.handles.file(handle)? {
                OpenFile::Document(content) => Size::Declared(content.len() as u64),
                OpenFile::Artifact(artifact) => {
                    artifact.check()?;
                    Size::Exact(artifact.reader.size())
                }
            };
            return Ok(self.inner.attr_of(ino, &node, size));
        }
        Ok(self.inner.attr(ino, &node))
    }

    /// Target of `latest`.
    pub async fn readlink(&self, ino: u64) -> Result<String> {
        match self.inner.tree.node(ino)? {
            Node::Latest { target, .. } => Ok(target),
            _ => Err(Error::new(Kind::BadHandle, "not a symbolic link")),
        }
    }

    /// Opens a directory: its listing is a snapshot for the life of the handle.
    pub async fn opendir(&self, ino: u64) -> Result<u64> {
        let children = self.inner.tree.children(ino).await?;
        Ok(self.inner.handles.add_directory(children))
    }

    /// The snapshot of an open directory (without `.` and `..`).
    pub fn directory(&self, handle: u64) -> Result<Arc<Vec<Child>>> {
        self.inner.handles.directory(handle)
    }

    /// A child as readdirplus shows it; counts a kernel reference.
    pub fn entry(&self, child: &Child) -> Entry {
        let found = self.inner.tree.remember(child);
        Entry {
            attr: self.inner.attr(found.ino, &found.node),
            ttl: found.ttl,
        }
    }

    /// Parent directory's number, for `..`.
    pub fn parent(&self, ino: u64) -> u64 {
        self.inner.tree.parent(ino)
    }

    /// Closes a directory.
    pub fn releasedir(&self, handle: u64) {
        self.inner.handles.remove_directory(handle);
    }

    /// Opens a file for reading; may create its task and wait for it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] when the backup cannot be downloaded, [`Kind::Denied`] when it may not
    /// be paid for here, [`Kind::NotReady`] with `nonblock` when its task is not ready, and what
    /// [`crate::tasks::Engine::ready`] and [`crate::fetch::Fetcher::probe`] say.
    pub async fn open_file(&self, ino: u64, nonblock: bool, caller: &Caller) -> Result<Opened> {
        let inner = &self.inner;
        inner.running()?;
        match inner.tree.node(ino)? {
            Node::MetaFile(which) => {
                let content = inner.document(which);
                let size = content.len() as u64;
                inner.documents().insert(which, size);
                Ok(Opened {
                    handle: inner.handles.add_document(content),
                    size: None,
                    keep_cache: false,
                    direct_io: true,
                })
            }
            Node::File(node) => {
                let wait = match nonblock {
                    true => Wait::No,
                    false => Wait::UntilReady,
                };
                let artifact = inner
                    .opener
                    .open(ino, &node, wait, caller)
                    .await
                    .map_err(|error| error.context(format!("opening {}", inner.tree.path(ino))))?;
                inner.opener.activity.opens.add(1);
                Ok(inner.handles.add_artifact(artifact))
            }
            Node::Latest { .. } => Err(Error::new(Kind::Unsupported, "a symlink is not opened")),
            _ => Err(Error::new(Kind::IsDirectory, "a directory is not read")),
        }
    }

    /// A read that needs no waiting, if it is one.
    pub fn read_now(&self, handle: u64, offset: u64, len: u32) -> Option<Result<Bytes>> {
        let file = match self.inner.readable(handle) {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        match &*file {
            OpenFile::Document(content) => Some(Ok(slice(content, offset, len))),
            OpenFile::Artifact(artifact) => {
                let read = artifact.reader.read_now(offset, len)?;
                Some(read.and_then(|bytes| self.inner.deliver(artifact, offset, bytes)))
            }
        }
    }

    /// Reads `len` bytes, short only at the end of the file.
    ///
    /// # Errors
    /// [`Kind::Changed`] once the version of this handle is gone, and then for ever; otherwise why
    /// the bytes could not be had.
    pub async fn read(&self, handle: u64, offset: u64, len: u32) -> Result<Bytes> {
        let file = self.inner.readable(handle)?;
        match &*file {
            OpenFile::Document(content) => Ok(slice(content, offset, len)),
            OpenFile::Artifact(artifact) => {
                let read = tokio::select! {
                    read = artifact.reader.read(offset, len) => read,
                    () = self.inner.stopped.cancelled() => Err(stopping()),
                };
                if let Err(error) = &read {
                    self.inner.after_failure(artifact, error.kind()).await;
                }
                self.inner.deliver(artifact, offset, read.map_err(stale)?)
            }
        }
    }

    /// Whether reads of this file may have to wait for a stream that brings everything in its own
    /// order, as long as an open may have to wait for its task.
    pub fn is_flowing(&self, handle: u64) -> bool {
        match self.inner.handles.file(handle).as_deref() {
            Ok(OpenFile::Artifact(artifact)) => artifact.reader.artifact().is_flowing(),
            _ => false,
        }
    }

    /// Whoever opened this artifact is known to read all of it.
    pub fn expect_whole(&self, handle: u64) {
        if let Ok(file) = self.inner.readable(handle)
            && let OpenFile::Artifact(artifact) = &*file
        {
            artifact.reader.expect_whole();
        }
    }

    /// The cache's file behind an open artifact, if it is complete and proven: for the kernel to
    /// read without asking. Never waits.
    pub fn lend(&self, handle: u64) -> Option<Lent> {
        match &*self.inner.readable(handle).ok()? {
            OpenFile::Document(_) => None,
            // What the kernel reads by itself cannot be checked.
            OpenFile::Artifact(artifact) if artifact.digest.is_some() => None,
            OpenFile::Artifact(artifact) => artifact.reader.artifact().lend(),
        }
    }

    /// Closes a file.
    pub fn release(&self, handle: u64) {
        self.inner.handles.remove_file(handle);
    }

    /// Value of an extended attribute.
    ///
    /// # Errors
    /// [`Kind::NoAttribute`] when the node has none of this name, or it has no value now.
    pub async fn getxattr(&self, ino: u64, name: &str) -> Result<Vec<u8>> {
        // The kernel asks for capabilities and access lists all the time.
        if name.starts_with(xattr::PREFIX) {
            let found = self.inner.xattrs(ino).await?;
            if let Some((_, value)) = found.into_iter().find(|(known, _)| *known == name) {
                return Ok(value.into_bytes());
            }
        }
        Err(Error::new(Kind::NoAttribute, "no such attribute"))
    }

    /// Names of the extended attributes.
    pub async fn listxattr(&self, ino: u64) -> Result<Vec<&'static str>> {
        let found = self.inner.xattrs(ino).await?;
        Ok(found.into_iter().map(|(name, _)| name).collect())
    }

    /// From memory.
    pub fn statfs(&self) -> Statfs {
        const BLOCK_SIZE: u32 = 4096;
        Statfs {
            block_size: BLOCK_SIZE,
            blocks: self.inner.opener.cache.used().div_ceil(BLOCK_SIZE.into()),
            files: self.inner.tree.known_nodes() as u64,
        }
    }

    /// One failed operation, for the log and `events.log`: said once per path and kind. Everyday
    /// answers, such as an unknown name, are neither said nor counted.
    pub fn failed(&self, operation: &'static str, ino: u64, caller: &Caller, error: &Error) {
        let inner = &self.inner;
        let errno = events::errno_name(error.errno());
        tracing::trace!(operation, ino, pid = caller.pid, uid = caller.uid, errno);
        let level = events::Level::of(operation, error.kind());
        // Of a file that was found, these tell why it cannot be had.
        let about_file = matches!(error.kind(), Kind::Unsupported | Kind::NotFound);
        let lasting = level == events::Level::Warn || about_file;
        if lasting && matches!(operation, "open" | "read") {
            inner.handles.note_failure(ino, error.to_string());
        }
        if level != events::Level::Debug {
            inner.opener.activity.failed(errno);
        }
        inner.events.failed(operation, &inner.tree.path(ino), error);
    }

    /// Ends all waits, flushes the cache; handles answer `Stopping` afterwards. Takes at most
    /// ten seconds: a provider or a disk that hangs is left to itself, which the ledger and
    /// the cache survive.
    pub async fn stop(&self) {
        self.inner.stopped.cancel();
        let opener = &self.inner.opener;
        opener.engine.stop();
        opener.spools.stop();
        let settled = async { tokio::join!(opener.engine.settled(), opener.spools.settled()) };
        if timeout(STOP_WAIT, settled).await.is_err() {
            tracing::warn!(
                "a task is still being created; it will be looked for at the next start"
            );
        }
        if timeout(STOP_WAIT, opener.cache.flush()).await.is_err() {
            tracing::warn!("the cache disk hangs; what it did not take will be fetched again");
        }
    }
}

impl Inner {
    fn attr(&self, ino: u64, node: &Node) -> Attr {
        let size = match node {
            Node::File(file) => self.size_of(ino, file),
            Node::MetaFile(which) => {
                Size::Declared(self.documents().get(which).copied().unwrap_or(0))
            }
            _ => Size::Unknown,
        };
        self.attr_of(ino, node, size)
    }

    fn attr_of(&self, ino: u64, node: &Node, size: Size) -> Attr {
        let mut attr = attr::attributes(ino, node, size, self.shape);
        if self.handles.is_outdated(ino) {
            attr.ttl = Duration::ZERO;
        }
        attr
    }

    /// What is known of a file's size: by the version pinned last, or remembered, or declared.
    fn size_of(&self, ino: u64, node: &FileNode) -> Size {
        let pinned = self.handles.version(ino);
        let known = pinned.or_else(|| {
            let record = self.opener.ledger.artifact(&open::artifact_key(node))?;
            Some(record.validator)
        });
        known.map_or_else(|| attr::declared(&node.file), |v| Size::Exact(v.size))
    }

    fn running(&self) -> Result<()> {
        match self.stopped.is_cancelled() {
            true => Err(stopping()),
            false => Ok(()),
        }
    }

    /// An open file whose version may still be served.
    fn readable(&self, handle: u64) -> Result<Arc<OpenFile>> {
        self.running()?;
        let file = self.handles.file(handle)?;
        if let OpenFile::Artifact(artifact) = &*file {
            artifact.check()?;
        }
        Ok(file)
    }

    /// Lets pass what was read at `offset`, unless its version was replaced meanwhile or, with this
    /// read, turned out to be damaged.
    fn deliver(&self, artifact: &OpenArtifact, offset: u64, bytes: Bytes) -> Result<Bytes> {
        artifact.check()?;
        if let Some(check) = &artifact.digest {
            match check.take(offset, &bytes) {
                Verdict::Open => {}
                Verdict::Right => self.opener.note_verified(artifact),
                Verdict::Wrong => {
                    artifact.mark_damaged();
                    // The kernel's pages and the cache's blocks go with it.
                    self.handles.outdate(artifact.ino, &artifact.validator);
                    drop(self.opener.discard(artifact));
                    return Err(digest::damaged());
                }
            }
        }
        let activity = &self.opener.activity;
        activity.reads.add(1);
        activity.read_bytes.add(bytes.len() as u64);
        Ok(bytes)
    }

    /// Draws the consequences of a failed read, before the reader hears of it: its next open must
    /// not find what has just turned out to be gone.
    async fn after_failure(&self, artifact: &OpenArtifact, kind: Kind) {
        match kind {
            Kind::Changed => {
                artifact.mark_changed();
                self.handles.outdate(artifact.ino, &artifact.validator);
                self.opener.forget(artifact).await;
            }
            // A spool has reported it already.
            Kind::Expired if artifact.validator.download.is_none() => {
                self.opener.report_expired(artifact).await;
            }
            _ => {}
        }
    }

    fn documents(&self) -> MutexGuard<'_, HashMap<MetaFile, u64>> {
        self.documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fs")
            .field("tree", &self.inner.tree)
            .field("handles", &self.inner.handles)
            .finish_non_exhaustive()
    }
}

fn slice(content: &Bytes, offset: u64, len: u32) -> Bytes {
    let start = usize::try_from(offset).map_or(content.len(), |at| at.min(content.len()));
    let end = start.saturating_add(len as usize).min(content.len());
    content.slice(start..end)
}

/// What a reader is told: an artifact that was removed, alone or with its backup, is as stale as one
/// that was replaced.
fn stale(error: Error) -> Error {
    match error.kind() {
        Kind::Expired | Kind::NotFound => {
            Error::new(Kind::Changed, format!("{error}; open the file again"))
        }
        _ => error,
    }
}

fn stopping() -> Error {
    Error::new(Kind::Stopping, "the mount is shutting down")
}

#[cfg(test)]
mod tests;
