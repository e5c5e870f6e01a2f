//! Open files and directories, and which version of each file the kernel's pages hold.
//!
//! The kernel keeps pages and size by inode, not by handle. So only one version of an inode is
//! served at a time: when a newer one is pinned, the handles of older ones answer ESTALE from then
//! on, or their bytes would be served to readers of the new one. As long as they are open, nothing
//! of the new one may enter the kernel's pages, and its size is told anew each time, or readers of
//! the old one would be served from these without our knowing.
//!
//! One lock, held for moments only.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Opened;
use super::digest::{self, Check};
use crate::error::{Error, Kind, Result};
use crate::model::{ArtifactKey, Validator};
use crate::reader;
use crate::tree::Child;

/// An open file.
#[derive(Debug)]
pub(super) enum OpenFile {
    /// A document of `.backupfs` as it was at open.
    Document(Bytes),
    /// A pinned artifact version.
    Artifact(Box<OpenArtifact>),
}

/// A pinned artifact version.
#[derive(Debug)]
pub(super) struct OpenArtifact {
    pub(super) ino: u64,
    pub(super) key: ArtifactKey,
    /// The task it came from; empty for objects.
    pub(super) task_id: String,
    pub(super) validator: Validator,
    pub(super) reader: reader::Handle,
    /// Set when this version can no longer be served under this inode.
    changed: AtomicBool,
    /// Compares what is read with the digest of the store, until that is known to be right.
    pub(super) digest: Option<Check>,
    /// Set when the bytes turned out to be other than the store says.
    damaged: AtomicBool,
}

impl OpenArtifact {
    pub(super) fn new(
        ino: u64,
        key: ArtifactKey,
        task_id: String,
        validator: Validator,
        reader: reader::Handle,
        digest: Option<Check>,
    ) -> Self {
        OpenArtifact {
            ino,
            key,
            task_id,
            validator,
            reader,
            changed: AtomicBool::new(false),
            digest,
            damaged: AtomicBool::new(false),
        }
    }

    /// [`Kind::Changed`] once another version was seen, [`Kind::Protocol`] once the bytes turned
    /// out to be damaged: for the rest of this handle's life.
    pub(super) fn check(&self) -> Result<()> {
        if self.damaged.load(Ordering::SeqCst) {
            return Err(digest::damaged());
        }
        match self.changed.load(Ordering::SeqCst) {
            true => Err(Error::new(
                Kind::Changed,
                "the artifact was replaced since the file was opened; open it again",
            )),
            false => Ok(()),
        }
    }

    /// The same, its bytes known to be right.
    pub(super) fn checked(self) -> Self {
        OpenArtifact {
            digest: None,
            ..self
        }
    }

    pub(super) fn mark_damaged(&self) {
        self.damaged.store(true, Ordering::SeqCst);
    }

    pub(super) fn mark_changed(&self) {
        self.changed.store(true, Ordering::SeqCst);
    }
}

/// Everything open.
#[derive(Default)]
pub(super) struct Handles {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    files: HashMap<u64, Arc<OpenFile>>,
    directories: HashMap<u64, Arc<Vec<Child>>>,
    /// By inode: the version pinned last, as long as the kernel knows the inode.
    versions: HashMap<u64, Validator>,
    /// Inodes of which handles of another version than that are open.
    outdated: HashSet<u64>,
    /// By inode: why the last open or read failed, until an open succeeds.
    failures: HashMap<u64, String>,
}

impl Handles {
    /// A handle for an open document.
    pub(super) fn add_document(&self, content: Bytes) -> u64 {
        self.state().add(OpenFile::Document(content))
    }

    /// A handle for an open artifact, whose version is the inode's from now on.
    pub(super) fn add_artifact(&self, artifact: OpenArtifact) -> Opened {
        let mut state = self.state();
        let ino = artifact.ino;
        let size = Some(artifact.reader.size());
        state.failures.remove(&ino);
        let before = state.versions.insert(ino, artifact.validator.clone());
        let keep_cache = before.as_ref() == Some(&artifact.validator);
        let handle = state.add(OpenFile::Artifact(Box::new(artifact)));
        if !keep_cache {
            state.older(ino).for_each(OpenArtifact::mark_changed);
        }
        state.review(ino);
        Opened {
            handle,
            size,
            keep_cache,
            direct_io: state.outdated.contains(&ino),
        }
    }

    /// Whether handles of an older version of `ino` are open.
    pub(super) fn is_outdated(&self, ino: u64) -> bool {
        self.state().outdated.contains(&ino)
    }

    /// A handle for a directory's snapshot.
    pub(super) fn add_directory(&self, children: Arc<Vec<Child>>) -> u64 {
        let mut state = self.state();
        state.last += 1;
        let handle = state.last;
        state.directories.insert(handle, children);
        handle
    }

    pub(super) fn file(&self, handle: u64) -> Result<Arc<OpenFile>> {
        self.state().files.get(&handle).cloned().ok_or_else(unknown)
    }

    pub(super) fn directory(&self, handle: u64) -> Result<Arc<Vec<Child>>> {
        let state = self.state();
        state.directories.get(&handle).cloned().ok_or_else(unknown)
    }

    pub(super) fn remove_file(&self, handle: u64) {
        let mut state = self.state();
        let removed = state.files.remove(&handle);
        if let Some(OpenFile::Artifact(artifact)) = removed.as_deref() {
            state.review(artifact.ino);
        }
        drop(state);
        // The last user of an artifact closes its cache files: not under the lock.
        drop(removed);
    }

    pub(super) fn remove_directory(&self, handle: u64) {
        self.state().directories.remove(&handle);
    }

    /// The version of `ino` that was pinned last.
    pub(super) fn version(&self, ino: u64) -> Option<Validator> {
        self.state().versions.get(&ino).cloned()
    }

    /// `validator` is no longer what `ino` is: the next open must not keep pages.
    pub(super) fn outdate(&self, ino: u64, validator: &Validator) {
        let mut state = self.state();
        if state.versions.get(&ino) == Some(validator) {
            state.versions.remove(&ino);
            state.review(ino);
        }
    }

    /// The kernel forgot `ino` and with it all its pages.
    pub(super) fn forget(&self, ino: u64) {
        let mut state = self.state();
        state.versions.remove(&ino);
        state.failures.remove(&ino);
    }

    /// Remembers why an open or a read of `ino` failed.
    pub(super) fn note_failure(&self, ino: u64, why: String) {
        self.state().failures.insert(ino, why);
    }

    /// Why the last open or read of `ino` failed, unless one succeeded to open it since.
    pub(super) fn failure(&self, ino: u64) -> Option<String> {
        self.state().failures.get(&ino).cloned()
    }

    /// How many files are open.
    pub(super) fn open_files(&self) -> usize {
        self.state().files.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, file: OpenFile) -> u64 {
        self.last += 1;
        self.files.insert(self.last, Arc::new(file));
        self.last
    }

    /// The open handles of `ino` that are not of the version pinned last.
    fn older(&self, ino: u64) -> impl Iterator<Item = &OpenArtifact> {
        let current = self.versions.get(&ino);
        self.files.values().filter_map(move |file| match &**file {
            OpenFile::Artifact(artifact)
                if artifact.ino == ino && Some(&artifact.validator) != current =>
            {
                Some(&**artifact)
            }
            _ => None,
        })
    }

    /// Finds out anew whether `ino` is outdated.
    fn review(&mut self, ino: u64) {
        if self.older(ino).next().is_some() {
            self.outdated.insert(ino);
        } else {
            self.outdated.remove(&ino);
        }
    }
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles")
            .field("open_files", &self.open_files())
            .finish_non_exhaustive()
    }
}

fn unknown() -> Error {
    Error::new(Kind::BadHandle, "the file is not open")
}
