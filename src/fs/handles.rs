//! Open files and directories, and which version of each file the kernel's pages hold.
//!
//! The kernel caches pages by inode, not by handle. So all open handles of one inode must be of
//! one version: when a newer one is pinned, the handles of older ones answer ESTALE from then on,
//! or their bytes would be served to readers of the new one.
//!
//! One lock, held for moments only.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

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
}

impl OpenArtifact {
    pub(super) fn new(
        ino: u64,
        key: ArtifactKey,
        task_id: String,
        validator: Validator,
        reader: reader::Handle,
    ) -> Self {
        OpenArtifact {
            ino,
            key,
            task_id,
            validator,
            reader,
            changed: AtomicBool::new(false),
        }
    }

    /// [`Kind::Changed`] once another version was seen: for the rest of this handle's life.
    pub(super) fn check(&self) -> Result<()> {
        match self.changed.load(Ordering::SeqCst) {
            true => Err(Error::new(
                Kind::Changed,
                "the artifact was replaced since the file was opened; open it again",
            )),
            false => Ok(()),
        }
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
}

impl Handles {
    /// A handle for an open document.
    pub(super) fn add_document(&self, content: Bytes) -> u64 {
        self.state().add(OpenFile::Document(content))
    }

    /// A handle for an open artifact, and whether the kernel's pages of this inode are of the same
    /// version.
    pub(super) fn add_artifact(&self, artifact: OpenArtifact) -> (u64, bool) {
        let mut state = self.state();
        let before = state
            .versions
            .insert(artifact.ino, artifact.validator.clone());
        let same = before.as_ref() == Some(&artifact.validator);
        if !same {
            for file in state.files.values() {
                if let OpenFile::Artifact(other) = &**file
                    && other.ino == artifact.ino
                    && other.validator != artifact.validator
                {
                    other.mark_changed();
                }
            }
        }
        (state.add(OpenFile::Artifact(Box::new(artifact))), same)
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
        let removed = self.state().files.remove(&handle);
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
        }
    }

    /// The kernel forgot `ino` and with it all its pages.
    pub(super) fn forget(&self, ino: u64) {
        self.state().versions.remove(&ino);
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
