//! What the operations take and answer, in plain types.

use std::time::Duration;

use jiff::Timestamp;

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
    /// How long the kernel may believe this: zero until a file's size is exact, and while several
    /// versions of it are open.
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
    /// Exact length of the version that is open; `None` for a document, whose length changes.
    pub size: Option<u64>,
    /// The kernel may keep the pages it has: same version as the last open of this inode.
    pub keep_cache: bool,
    /// No page cache: for documents, and while an older version of the file is still open.
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
