//! The filesystem's operations on plain types; knows no fuser.
//!
//! Every method is async and cancel-safe: the adapter drops the future when its caller is
//! interrupted or its deadline passes, and shared work (a task, a fetch, a listing) goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::clock::SharedClock;
use crate::config::Config;
use crate::error::Result;
use crate::tree::Child;

/// Who asks, as far as the kernel tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller {
    /// Thread id in our pid namespace; 0 when it is not visible there.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Directory.
    Directory,
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
}

/// What stat shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Kind.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Units of 512 bytes: ceil(size / 512).
    pub blocks: u64,
    /// mtime, ctime and atime.
    pub time: Timestamp,
    /// Permission bits.
    pub mode: u16,
    /// Link count.
    pub nlink: u32,
    /// How long the kernel may believe this: zero until a file's size is exact.
    pub ttl: Duration,
}

/// A name and what it leads to.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Attributes.
    pub attr: Attr,
    /// How long the kernel may believe the name.
    pub ttl: Duration,
}

/// An open file.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// Handle.
    pub handle: u64,
    /// The kernel may keep the pages it has: same version as the last open of this inode.
    pub keep_cache: bool,
    /// No page cache: for documents whose length changes.
    pub direct_io: bool,
}

/// statfs numbers, from memory.
#[derive(Debug, Clone, Copy)]
pub struct Statfs {
    /// Block size in bytes.
    pub block_size: u32,
    /// Total blocks.
    pub blocks: u64,
    /// Known files.
    pub files: u64,
}

/// The filesystem.
#[derive(Debug, Clone)]
pub struct Fs {}

impl Fs {
    /// Everything below the adapter, built from the configuration: ledger, cache, providers, tree.
    /// Asks no provider anything. Must be called within a tokio runtime.
    pub fn open(_config: &Config, _clock: SharedClock) -> Result<Self> {
        todo!()
    }

    /// Name to node.
    pub async fn lookup(&self, _parent: u64, _name: &str) -> Result<Entry> {
        todo!()
    }

    /// The kernel dropped references.
    pub fn forget(&self, _ino: u64, _count: u64) {
        todo!()
    }

    /// Attributes; with `handle` those of the open version.
    pub async fn getattr(&self, _ino: u64, _handle: Option<u64>) -> Result<Attr> {
        todo!()
    }

    /// Target of `latest`.
    pub async fn readlink(&self, _ino: u64) -> Result<String> {
        todo!()
    }

    /// Opens a directory: its listing is a snapshot for the life of the handle.
    pub async fn opendir(&self, _ino: u64) -> Result<u64> {
        todo!()
    }

    /// The snapshot of an open directory (without `.` and `..`).
    pub fn directory(&self, _handle: u64) -> Result<Arc<Vec<Child>>> {
        todo!()
    }

    /// A child as readdirplus shows it; counts a kernel reference.
    pub fn entry(&self, _child: &Child) -> Entry {
        todo!()
    }

    /// Parent directory's number, for `..`.
    pub fn parent(&self, _ino: u64) -> u64 {
        todo!()
    }

    /// Closes a directory.
    pub fn releasedir(&self, _handle: u64) {
        todo!()
    }

    /// Opens a file for reading; may create its task and wait for it.
    pub async fn open_file(&self, _ino: u64, _nonblock: bool, _caller: &Caller) -> Result<Opened> {
        todo!()
    }

    /// A read that needs no waiting, if it is one.
    pub fn read_now(&self, _handle: u64, _offset: u64, _len: u32) -> Option<Result<Bytes>> {
        todo!()
    }

    /// Reads `len` bytes, short only at the end of the file.
    pub async fn read(&self, _handle: u64, _offset: u64, _len: u32) -> Result<Bytes> {
        todo!()
    }

    /// Closes a file.
    pub fn release(&self, _handle: u64) {
        todo!()
    }

    /// Value of an extended attribute.
    pub async fn getxattr(&self, _ino: u64, _name: &str) -> Result<Vec<u8>> {
        todo!()
    }

    /// Names of the extended attributes.
    pub async fn listxattr(&self, _ino: u64) -> Result<Vec<&'static str>> {
        todo!()
    }

    /// From memory.
    pub fn statfs(&self) -> Statfs {
        todo!()
    }

    /// One failed operation, for the log and `events.log`: said once per path and kind.
    pub fn failed(
        &self,
        _operation: &'static str,
        _ino: u64,
        _caller: &Caller,
        _error: &crate::error::Error,
    ) {
        todo!()
    }

    /// Ends all waits, flushes the cache; handles answer `Stopping` afterwards.
    pub async fn stop(&self) {
        todo!()
    }
}
