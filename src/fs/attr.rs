//! What stat shows of a node: a pure function of the node and of what is known of its size.
//!
//! Times come from the provider and are the same after a remount; a time of "now" would make
//! rsync copy everything again. Directories have the size that du and friends expect.

use std::time::Duration;

use jiff::Timestamp;

use super::{Attr, FileKind};
use crate::model::{RemoteFile, Size};
use crate::tree::Node;

/// How long the kernel may believe attributes that cannot change behind its back.
const SETTLED_TTL: Duration = Duration::from_secs(60);

/// Size of every directory.
const DIRECTORY_SIZE: u64 = 4096;

/// What all attributes of a mount share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Permission bits of files.
    pub(super) file_mode: u16,
    /// Permission bits of directories.
    pub(super) dir_mode: u16,
    /// When the filesystem was opened: the time of the documents in `.backupfs`.
    pub(super) since: Timestamp,
}

/// Kind of a node, as stat and directories tell it.
pub fn kind(node: &Node) -> FileKind {
    match node {
        Node::Latest { .. } => FileKind::Symlink,
        Node::File(_) | Node::MetaFile(_) => FileKind::File,
        Node::Root
        | Node::Meta
        | Node::Provider(_)
        | Node::Instance { .. }
        | Node::Backup { .. }
        | Node::Shard(_)
        | Node::Directory { .. } => FileKind::Directory,
    }
}

/// The attributes of `node`; `size` matters for files only.
pub(super) fn attributes(ino: u64, node: &Node, size: Size, shape: Shape) -> Attr {
    let kind = kind(node);
    let (bytes, mode, nlink) = match (kind, node) {
        (FileKind::Directory, _) => (DIRECTORY_SIZE, shape.dir_mode, 2),
        (FileKind::Symlink, Node::Latest { target, .. }) => (target.len() as u64, 0o777, 1),
        _ => (size.bytes(), shape.file_mode, 1),
    };
    let settled = kind != FileKind::File || matches!(size, Size::Exact(_));
    Attr {
        ino,
        kind,
        size: bytes,
        blocks: bytes.div_ceil(512),
        time: time(node, shape.since),
        mode,
        nlink,
        ttl: if settled { SETTLED_TTL } else { Duration::ZERO },
    }
}

/// The size a listing declares, unless no file can have it.
pub(super) fn declared(file: &RemoteFile) -> Size {
    match file.size {
        Size::Exact(n) | Size::Declared(n) if i64::try_from(n).is_err() => Size::Unknown,
        size => size,
    }
}

/// The mtime of what a provider lists.
pub fn modified(node: &Node) -> Timestamp {
    time(node, Timestamp::UNIX_EPOCH)
}

fn time(node: &Node, since: Timestamp) -> Timestamp {
    match node {
        Node::Root | Node::Meta | Node::Provider(_) => Timestamp::UNIX_EPOCH,
        Node::MetaFile(_) => since,
        Node::Instance { instance, .. } => instance.created.unwrap_or(Timestamp::UNIX_EPOCH),
        Node::Latest { finished, .. } => *finished,
        Node::Backup { backup, .. } => backup.finished,
        Node::Shard(shard) | Node::Directory { shard, .. } => shard.backup.finished,
        Node::File(node) => node.file.modified.unwrap_or(node.shard.backup.finished),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::ShardRef;
    use crate::tree::FileNode;
    use crate::tree::fake::{backup, file, instance};

    const SHAPE: Shape = Shape {
        file_mode: 0o440,
        dir_mode: 0o550,
        since: Timestamp::UNIX_EPOCH,
    };

    fn shard() -> Arc<ShardRef> {
        let backup = backup("b", "2024-01-01T00:00:00Z");
        Arc::new(ShardRef {
            provider: "p".into(),
            instance: Arc::new(instance("i")),
            shard: backup.shards[0].clone(),
            backup: Arc::new(backup),
        })
    }

    #[test]
    fn a_file_shows_its_size_once_it_is_exact_for_good() {
        let node = Node::File(Arc::new(FileNode {
            shard: shard(),
            file: file("f"),
        }));
        for (size, bytes, blocks, ttl) in [
            (Size::Unknown, 0, 0, Duration::ZERO),
            (Size::Declared(513), 513, 2, Duration::ZERO),
            (Size::Exact(512), 512, 1, SETTLED_TTL),
            (Size::Exact(0), 0, 0, SETTLED_TTL),
        ] {
            let attr = attributes(9, &node, size, SHAPE);
            assert_eq!((attr.size, attr.blocks, attr.ttl), (bytes, blocks, ttl));
            assert_eq!(
                (attr.kind, attr.mode, attr.nlink),
                (FileKind::File, 0o440, 1)
            );
            assert_eq!(attr.time, shard().backup.finished);
        }
    }

    #[test]
    fn a_file_shows_its_own_time_where_it_has_one() {
        let modified = Timestamp::from_second(1).unwrap();
        let node = Node::File(Arc::new(FileNode {
            shard: shard(),
            file: RemoteFile {
                modified: Some(modified),
                ..file("f")
            },
        }));
        assert_eq!(attributes(9, &node, Size::Unknown, SHAPE).time, modified);
    }

    #[test]
    fn directories_and_the_symlink_are_what_tools_expect() {
        let attr = attributes(9, &Node::Shard(shard()), Size::Unknown, SHAPE);
        assert_eq!((attr.size, attr.blocks, attr.nlink), (4096, 8, 2));
        assert_eq!((attr.mode, attr.kind), (0o550, FileKind::Directory));
        assert_eq!(attr.time, shard().backup.finished);

        let latest = Node::Latest {
            target: "20240101T000000Z-b".into(),
            finished: shard().backup.finished,
        };
        let attr = attributes(9, &latest, Size::Unknown, SHAPE);
        assert_eq!((attr.size, attr.mode), (18, 0o777));
        assert_eq!(
            (attr.kind, attr.time),
            (FileKind::Symlink, shard().backup.finished)
        );
    }

    #[test]
    fn case_50_a_size_that_no_file_can_have_is_unknown() {
        let mut huge = file("f");
        huge.size = Size::Declared(u64::MAX);
        assert_eq!(declared(&huge), Size::Unknown);
        huge.size = Size::Declared(i64::MAX as u64);
        assert_eq!(declared(&huge), huge.size);
    }
}
