//! A directory of this machine as a store: files are opened by their path below it and never outside
//! it, whatever symlinks and `..` say. The kernel keeps that promise (openat2(2), since Linux 5.6).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};

use crate::error::{Error, Kind};

/// The directory. Nothing of it is kept open.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at `path`, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Directory { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what is at `path` below it; the directory itself for an empty path.
    pub fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let top = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(&self.path, top, Mode::empty())?;
        beneath(&top, path, flags)
    }

    /// Opens the regular file at `path` for reading.
    ///
    /// [`Kind::NotFound`] when there is none, [`Kind::Denied`] when it leads out of the directory,
    /// [`Kind::Credentials`] when it may not be read.
    pub fn open_file(&self, path: &str) -> Result<(OwnedFd, Version), Error> {
        // Without NONBLOCK the open of a FIFO would wait for a writer.
        let opened = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK);
        let seen = opened.and_then(|file| Ok((Version::of(&file)?, file)));
        match seen {
            Ok((Some(version), file)) => Ok((file, version)),
            Ok((None, _)) => Err(Error::new(Kind::NotFound, "it is no regular file any more")),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Opens what is at `path` below the open directory `top`.
pub fn beneath(top: impl AsFd, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(
        top,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

/// Why something in the directory cannot be had. `error` names no path.
pub fn failed(error: io::Error) -> Error {
    let (kind, words) = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => (Kind::NotFound, "it is not there"),
        Some(libc::EXDEV | libc::ELOOP) => (Kind::Denied, "a symlink leads out of the directory"),
        Some(libc::EACCES | libc::EPERM) => (
            Kind::Credentials,
            "this user may not read it: change its owner or permissions",
        ),
        Some(libc::ENOSYS) => (Kind::Environment, "openat2 is needed: Linux 5.6 or newer"),
        Some(libc::EIO | libc::ESTALE) => (Kind::Unavailable, "the disk does not answer rightly"),
        _ => (Kind::Unreachable, "it cannot be read"),
    };
    Error::new(kind, words).with_source(error)
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    inode: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    /// Length in bytes.
    pub size: u64,
}

impl Version {
    /// The version of an open file; `None` if it is no regular file.
    pub fn of(file: impl AsFd) -> io::Result<Option<Self>> {
        Ok(Self::from_stat(&rustix::fs::fstat(file)?))
    }

    /// The version that `stat` tells; `None` if it is no regular file.
    pub fn from_stat(stat: &Stat) -> Option<Self> {
        let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        is_file.then(|| Version {
            inode: stat.st_ino,
            modified: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
            size: u64::try_from(stat.st_size).unwrap_or(0),
        })
    }

    /// When it was last written.
    pub fn modified(&self) -> Option<Timestamp> {
        Timestamp::from_nanosecond(self.modified).ok()
    }

    /// The same as a strong entity tag.
    pub fn etag(&self) -> String {
        format!("\"{:x}-{:x}-{:x}\"", self.inode, self.modified, self.size)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_is_opened() {
        let around = tempfile::tempdir().unwrap();
        let root = around.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/f"), "inside").unwrap();
        fs::write(around.path().join("secret"), "outside").unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("a/f", root.join("within")).unwrap();
        symlink("..", root.join("a/parent")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let directory = Directory::new(&root);
        let kind = |path: &str| directory.open_file(path).map(drop).map_err(|e| e.kind());
        assert_eq!(kind("a/f"), Ok(()));
        assert_eq!(kind("within"), Ok(()));
        assert_eq!(kind("a/parent/a/f"), Ok(()), "that stays inside");
        for path in [
            "up",
            "absolute",
            "../secret",
            "a/../../secret",
            "a/parent/../secret",
            "loop",
        ] {
            assert_eq!(kind(path), Err(Kind::Denied), "{path}");
        }
        assert_eq!(kind("/etc/passwd"), Err(Kind::Denied));
        assert_eq!(kind("none"), Err(Kind::NotFound));
        assert_eq!(kind("a"), Err(Kind::NotFound), "a directory is no file");
        let none = Directory::new(root.join("none"));
        assert_eq!(none.open_file("x").unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn another_content_is_another_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let version = || {
            let file = fs::File::open(&path).unwrap();
            Version::of(&file).unwrap().unwrap()
        };
        fs::write(&path, "12345").unwrap();
        let first = version();
        assert_eq!(first, version());
        assert_eq!(first.size, 5);
        fs::write(directory.path().join("g"), "12345").unwrap();
        fs::rename(directory.path().join("g"), &path).unwrap();
        assert_ne!(
            first.etag(),
            version().etag(),
            "replaced by one of the same size"
        );
        let second = version();
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .set_len(4)
            .unwrap();
        assert_ne!(second.etag(), version().etag());
        let folder = fs::File::open(directory.path()).unwrap();
        assert_eq!(Version::of(&folder).unwrap(), None);
    }
}
