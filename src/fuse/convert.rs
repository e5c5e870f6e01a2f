//! Plain types of [`crate::fs`] to the types of fuser and back. Pure.

use std::time::SystemTime;

use fuser::{FileAttr, FileType, FopenFlags, Generation, INodeNo, OpenAccMode, OpenFlags, Request};

use crate::fs::{Attr, Caller, FileKind};

/// Inode numbers are never used again for something else.
pub(super) const GENERATION: Generation = Generation(0);
/// What `st_blksize` says of files: tools read in pieces of this many bytes, and it is the most
/// that the kernel asks for at once.
const FILE_BLOCK: u32 = 1 << 20;
/// The same of everything else.
const OTHER_BLOCK: u32 = 4096;

/// Who asks.
pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        pid: request.pid(),
        uid: request.uid(),
        gid: request.gid(),
    }
}

/// What stat shows; `owner` is user and group id.
pub(super) fn attributes(attr: &Attr, owner: (u32, u32)) -> FileAttr {
    let time = SystemTime::from(attr.time);
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: owner.0,
        gid: owner.1,
        rdev: 0,
        blksize: match attr.kind {
            FileKind::File => FILE_BLOCK,
            FileKind::Directory | FileKind::Symlink => OTHER_BLOCK,
        },
        flags: 0,
    }
}

/// Kind of a node.
pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
    }
}

/// Whether an open wants to change something.
pub(super) fn wants_to_write(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0
}

/// How the kernel shall treat an open file. There is nothing to flush at close.
pub(super) fn open_flags(keep_cache: bool, direct_io: bool) -> FopenFlags {
    let mut flags = FopenFlags::FOPEN_NOFLUSH;
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, direct_io);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_plain_reading_is_allowed() {
        for (flags, writes) in [
            (libc::O_RDONLY, false),
            (
                libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_APPEND,
                false,
            ),
            (libc::O_WRONLY, true),
            (libc::O_RDWR, true),
            (libc::O_RDONLY | libc::O_TRUNC, true),
            (libc::O_WRONLY | libc::O_APPEND, true),
        ] {
            assert_eq!(wants_to_write(OpenFlags(flags)), writes, "{flags:o}");
        }
    }

    #[test]
    fn times_before_and_after_the_epoch_are_kept() {
        for text in ["1969-12-31T23:59:58.5Z", "2026-11-22T03:04:05Z"] {
            let attr = Attr {
                ino: 5,
                kind: FileKind::File,
                size: 1025,
                blocks: 3,
                time: text.parse().unwrap(),
                mode: 0o400,
                nlink: 1,
                ttl: Duration::ZERO,
            };
            let shown = attributes(&attr, (1000, 100));
            assert_eq!(jiff::Timestamp::try_from(shown.mtime).unwrap(), attr.time);
            assert_eq!((shown.uid, shown.gid, shown.blksize), (1000, 100, 1 << 20));
            assert_eq!((shown.blocks, shown.size, shown.perm), (3, 1025, 0o400));
        }
    }

    #[test]
    fn the_kernel_keeps_pages_only_when_told() {
        let both = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_DIRECT_IO;
        assert!(!open_flags(false, false).intersects(both));
        assert_eq!(open_flags(true, false) & both, FopenFlags::FOPEN_KEEP_CACHE);
        assert_eq!(open_flags(false, true) & both, FopenFlags::FOPEN_DIRECT_IO);
    }
}
