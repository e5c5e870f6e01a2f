//! Directory answers, filled from a snapshot. Offsets are places in it, so they stay valid for the
//! life of the handle: 0 is `.`, 1 is `..`, child i is i + 2; each entry tells the place after it.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::convert::{self, GENERATION};
use super::serve::Service;
use crate::fs::Fs;
use crate::tree::Child;

/// Places before the first child.
const DOTS: u64 = 2;

/// Adds what fits of directory `ino` from `offset` on.
pub(super) fn fill(reply: &mut ReplyDirectory, fs: &Fs, ino: u64, offset: u64, children: &[Child]) {
    for (place, name, dot) in dots(fs, ino, offset) {
        if reply.add(INodeNo(dot), place + 1, FileType::Directory, name) {
            return;
        }
    }
    for (place, child) in from(children, offset) {
        let kind = convert::file_type(crate::fs::kind(&child.node));
        if reply.add(INodeNo(child.ino), place + 1, kind, &child.name) {
            return;
        }
    }
}

/// Adds what fits of directory `ino` from `offset` on, with attributes: as good as lookups.
pub(super) fn fill_plus(
    reply: &mut ReplyDirectoryPlus,
    service: &Service,
    ino: u64,
    offset: u64,
    children: &[Child],
) {
    for (place, name, dot) in dots(&service.fs, ino, offset) {
        // The kernel takes no more than number and kind of these two, and no reference.
        let attr = directory(dot);
        if reply.add(
            attr.ino,
            place + 1,
            name,
            &Duration::ZERO,
            &attr,
            GENERATION,
        ) {
            return;
        }
    }
    for (place, child) in from(children, offset) {
        let entry = service.fs.entry(child);
        // One life for name and attributes: the shorter.
        let ttl = entry.ttl.min(entry.attr.ttl);
        let attr = service.tell(&entry.attr);
        if reply.add(attr.ino, place + 1, &child.name, &ttl, &attr, GENERATION) {
            // Not in this answer, so the kernel holds no reference.
            service.fs.forget(entry.attr.ino, 1);
            return;
        }
    }
}

/// `.` and `..` with their places and numbers, from `offset` on.
fn dots(fs: &Fs, ino: u64, offset: u64) -> impl Iterator<Item = (u64, &'static str, u64)> {
    let dots = [(0, ".", ino), (1, "..", fs.parent(ino))];
    dots.into_iter().filter(move |(place, ..)| *place >= offset)
}

/// The children with their places, from `offset` on.
fn from<T>(children: &[T], offset: u64) -> impl Iterator<Item = (u64, &T)> {
    let skip = usize::try_from(offset.saturating_sub(DOTS)).unwrap_or(usize::MAX);
    (DOTS..).zip(children).skip(skip)
}

/// Attributes of a directory of which only the number matters.
fn directory(ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_goes_on_where_the_last_answer_ended() {
        let rest = |offset| -> Vec<(u64, char)> {
            from(&['a', 'b', 'c'], offset)
                .map(|(at, &child)| (at, child))
                .collect()
        };
        let all: Vec<(u64, char)> = vec![(2, 'a'), (3, 'b'), (4, 'c')];
        for offset in 0..=2 {
            assert_eq!(all, rest(offset), "{offset}");
        }
        assert_eq!(all[1..], *rest(3));
        assert_eq!(rest(5), vec![]);
        assert_eq!(rest(u64::MAX), vec![]);
    }
}
