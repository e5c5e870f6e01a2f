//! The cache directory: ours alone, private, and still where it was.
//!
//! ```text
//! cache_dir/lock              locked while in use; holds the owner's process id
//! cache_dir/v1/CACHEDIR.TAG   says whose cache this is, and to backup programs that it is one
//! cache_dir/v1/ab/abcd….data  sparse copy of one artifact version
//! cache_dir/v1/ab/abcd….map   which blocks of it are present
//! ```
//!
//! Cached bytes are as private as the database they come from, so a directory that others may
//! write to or that someone else planted is refused rather than repaired. Everything is opened
//! relative to descriptors held from the start and never through a symbolic link.

use std::fmt::Display;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{geteuid, getpid};

use super::map::FORMAT_VERSION;
use crate::error::{Error, Kind, Result};

const LOCK: &str = "lock";

/// Marks a cache directory as such (Cache Directory Tagging Specification,
/// <https://bford.info/cachedir/>). Only directories with exactly this tag are ever removed.
const TAG: &str = "CACHEDIR.TAG";
const TAG_CONTENT: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n\
    # This file is a cache directory tag created by mongo-backupfs.\n\
    # For information about cache directory tags, see https://bford.info/cachedir/\n";

/// Directories and files that only we may touch.
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
pub(super) const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Flags for every open: never follow a link, never leak into a child, never wait for a FIFO.
pub(super) const CAREFULLY: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Bytes of the filesystem that holds the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Its size.
    pub(super) total: u64,
    /// What we may still use.
    pub(super) available: u64,
}

/// The locked directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    root: OwnedFd,
    version: OwnedFd,
    /// Holds the lock as long as it is open; without it the directory is only looked at.
    lock: Option<OwnedFd>,
    can_punch: bool,
}

impl Directory {
    /// Opens or creates `path` and locks it. Fails with [`Kind::Environment`] and a cure when the
    /// directory is not private to us, or in use by another process.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| trouble(path, "resolve", error))?;
        DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE_DIRECTORY.bits())
            .create(&path)
            .map_err(|error| trouble(&path, "create", error))?;
        let root = open_root(&path).map_err(|error| not_opened(&path, error))?;
        let stat = fs::fstat(&root).map_err(|error| trouble(&path, "examine", error))?;
        refuse_shared(&path, &stat)?;
        let lock = take_lock(&path, &root)?;
        let version = open_version(&path, &root)?;
        let can_punch = can_punch(&lock).map_err(|error| trouble(&path, "write to", error))?;
        if !can_punch {
            tracing::warn!(
                "cache directory {}: its filesystem has no sparse files, so each cached file may \
                 take its full size; set cache_dir to ext4, xfs, btrfs or tmpfs",
                path.display()
            );
        }
        Ok(Directory {
            can_punch,
            path,
            root,
            version,
            lock: Some(lock),
        })
    }

    /// Opens `path` to look at it, whoever has the lock; `None` where no cache is. Makes and
    /// changes nothing.
    pub(super) fn look(path: &Path) -> Result<Option<Self>> {
        let path = std::path::absolute(path).map_err(|error| trouble(path, "resolve", error))?;
        let open = |parent: &OwnedFd, name: &str| {
            let flags = OFlags::DIRECTORY | CAREFULLY;
            match fs::openat(parent, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(trouble(&path, "open", error)),
                Ok(directory) => Ok(Some(directory)),
            }
        };
        examine_root(&path)?;
        let root = match open_root(&path) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(|error| not_opened(&path, error))?,
        };
        let version = open(&root, &version_name(FORMAT_VERSION))?;
        Ok(version.map(|version| Directory {
            path,
            root,
            version,
            lock: None,
            can_punch: false,
        }))
    }

    /// Whether it is ours alone now, and not merely looked at.
    pub(super) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// The process that has the lock, as far as /proc/locks (proc_locks(5)) tells.
    pub(super) fn owner(&self) -> Option<u32> {
        let stat = fs::statat(&self.root, LOCK, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let held = std::fs::read_to_string("/proc/locks").ok()?;
        held.lines().find_map(|line| {
            // `1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`
            let mut fields = line.split_whitespace().skip(1);
            let is_flock = fields.next() == Some("FLOCK");
            let pid = fields.nth(2)?.parse().ok()?;
            let inode: u64 = fields.next()?.rsplit(':').next()?.parse().ok()?;
            (is_flock && inode == stat.st_ino).then_some(pid)
        })
    }

    /// Where it is, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of this format version.
    pub(super) fn version(&self) -> &OwnedFd {
        &self.version
    }

    /// Whether blocks can be given back to the filesystem without removing the file.
    pub(super) fn can_punch(&self) -> bool {
        self.can_punch
    }

    /// Whether the path still leads to the directory that we locked. If its filesystem was
    /// unmounted or the directory removed, writing on would fill space that nobody can see.
    pub(super) fn is_in_place(&self) -> bool {
        let Some(lock) = &self.lock else {
            return true;
        };
        let ours = fs::fstat(lock);
        let there = fs::lstat(self.path.join(LOCK));
        matches!((ours, there), (Ok(a), Ok(b)) if same_file(&a, &b))
    }

    /// The space of its filesystem.
    pub(super) fn space(&self) -> io::Result<Space> {
        let stat = fs::fstatvfs(&self.root)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    /// Our directories for other versions of the format.
    pub(super) fn other_versions(&self) -> io::Result<Vec<String>> {
        let mut others = Vec::new();
        for entry in fs::Dir::read_from(&self.root)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            let number = name.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
            if number.is_some_and(|n| n != FORMAT_VERSION && name == version_name(n))
                && let Ok(directory) = subdirectory(&self.root, name)
                && is_tagged(&directory)?
            {
                others.push(name.to_owned());
            }
        }
        Ok(others)
    }
}

/// Refuses `path` if it is there and not a directory of ours alone.
pub(super) fn examine_root(path: &Path) -> Result<()> {
    let root = match open_root(path) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.map_err(|error| not_opened(path, error))?,
    };
    let stat = fs::fstat(&root).map_err(|error| trouble(path, "examine", error))?;
    refuse_shared(path, &stat)
}

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    fs::open(path, OFlags::DIRECTORY | CAREFULLY, Mode::empty())
}

fn not_opened(path: &Path, error: Errno) -> Error {
    match error {
        Errno::LOOP | Errno::NOTDIR => refusal(
            path,
            "is a symbolic link or not a directory; set cache_dir to the directory itself",
        ),
        error => trouble(path, "open", error),
    }
}

/// Gives blocks back to the filesystem, leaving the file's length.
pub(super) const PUNCH: FallocateFlags =
    FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

fn version_name(version: u32) -> String {
    format!("v{version}")
}

/// Opens or creates the directory of this format version.
fn open_version(path: &Path, root: &OwnedFd) -> Result<OwnedFd> {
    let name = version_name(FORMAT_VERSION);
    let failed = |error: io::Error| trouble(path, "write to", error);
    let directory = subdirectory(root, &name).map_err(failed)?;
    if is_tagged(&directory).map_err(failed)? {
        return Ok(directory);
    }
    if !holds_only_tag(&directory).map_err(failed)? {
        return Err(refusal(
            path,
            format_args!("holds a directory {name} that is not a cache; set another cache_dir"),
        ));
    }
    write_tag(&directory).map_err(failed)?;
    Ok(directory)
}

fn is_tagged(directory: &OwnedFd) -> io::Result<bool> {
    match fs::openat(directory, TAG, OFlags::RDONLY | CAREFULLY, Mode::empty()) {
        Ok(tag) => {
            let mut content = [0; TAG_CONTENT.len() + 1];
            let len = rustix::io::pread(&tag, &mut content, 0)?;
            Ok(content[..len] == *TAG_CONTENT)
        }
        Err(Errno::NOENT | Errno::LOOP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is nothing but perhaps a tag that a crash left unfinished.
fn holds_only_tag(directory: &OwnedFd) -> io::Result<bool> {
    for entry in fs::Dir::read_from(directory)? {
        if ![".", "..", TAG]
            .map(str::as_bytes)
            .contains(&entry?.file_name().to_bytes())
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_tag(directory: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | CAREFULLY;
    let tag = fs::openat(directory, TAG, flags, PRIVATE_FILE)?;
    rustix::io::pwrite(&tag, TAG_CONTENT, 0)?;
    Ok(())
}

/// Opens the private directory `name` below `parent`, creating it if need be.
pub(super) fn subdirectory(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    match fs::mkdirat(&parent, name, PRIVATE_DIRECTORY) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = fs::openat(parent, name, OFlags::DIRECTORY | CAREFULLY, Mode::empty())?;
    if fs::fstat(&directory)?.st_uid != geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    Ok(directory)
}

/// Whether this is a plain file of ours.
pub(super) fn is_own_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_uid == geteuid().as_raw()
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

fn refuse_shared(path: &Path, stat: &Stat) -> Result<()> {
    let (owner, us) = (stat.st_uid, geteuid().as_raw());
    if owner != us {
        return Err(refusal(
            path,
            format_args!(
                "belongs to user {owner}, not to user {us} who runs this; set cache_dir to a directory of your own"
            ),
        ));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(refusal(
            path,
            "may be written by others; run chmod go-w on it or set another cache_dir",
        ));
    }
    Ok(())
}

fn take_lock(path: &Path, root: &OwnedFd) -> Result<OwnedFd> {
    let failed = |error: Errno| trouble(path, "lock", error);
    let flags = OFlags::RDWR | OFlags::CREATE | CAREFULLY;
    let lock = fs::openat(root, LOCK, flags, PRIVATE_FILE).map_err(failed)?;
    if !is_own_file(&fs::fstat(&lock).map_err(failed)?) {
        return Err(refusal(
            path,
            "holds a file `lock` that is not ours; remove it",
        ));
    }
    match fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut owner = [0; 20];
            let len = rustix::io::pread(&lock, &mut owner, 0).unwrap_or(0);
            let owner = str::from_utf8(&owner[..len]).unwrap_or_default().trim();
            let owner = match owner.parse::<u32>() {
                Ok(pid) => format!("process {pid}"),
                Err(_) => "another process".to_owned(),
            };
            return Err(refusal(
                path,
                format_args!("is in use by {owner}; stop it or set another cache_dir"),
            ));
        }
        Err(error) => return Err(failed(error)),
    }
    // The lock counts only if the next process will find this very file.
    let there = fs::statat(root, LOCK, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    if !same_file(&fs::fstat(&lock).map_err(failed)?, &there) {
        return Err(refusal(
            path,
            "changed while it was being opened; try again",
        ));
    }
    let pid = format!("{}\n", getpid());
    let named = fs::ftruncate(&lock, 0)
        .and_then(|()| rustix::io::pwrite(&lock, pid.as_bytes(), 0).map(drop));
    match named {
        // The lock holds without a name on it, and a full disk keeps no mount from starting.
        Ok(()) | Err(Errno::NOSPC | Errno::DQUOT) => Ok(lock),
        Err(error) => Err(failed(error)),
    }
}

/// Whether the filesystem can leave holes in a file and make new ones, tried beyond what the lock
/// file holds.
pub(super) fn can_punch(lock: &OwnedFd) -> io::Result<bool> {
    let before = fs::fstat(lock)?;
    fs::ftruncate(lock, 1 << 20)?;
    let punched = fs::fallocate(lock, PUNCH, 1 << 19, 1 << 19).is_ok();
    let sparse = fs::fstat(lock)?.st_blocks < (1 << 20) / 512;
    fs::ftruncate(lock, before.st_size as u64)?;
    Ok(punched && sparse)
}

fn refusal(path: &Path, why: impl Display) -> Error {
    let message = format!("cache directory {} {why}", path.display());
    Error::new(Kind::Environment, message)
}

pub(super) fn trouble(path: &Path, doing: &str, error: impl Into<io::Error>) -> Error {
    let path = path.display();
    let message =
        format!("cannot {doing} cache directory {path}; check it or set another cache_dir");
    Error::new(Kind::Environment, message).with_source(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::{Permissions, create_dir, read_to_string, rename, set_permissions, write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    #[test]
    fn a_new_directory_is_private_and_names_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("parent/cache");
        let directory = Directory::open(&path).unwrap();
        for private in [path.clone(), path.join("v1"), path.join("..")] {
            assert_eq!(private.metadata().unwrap().mode() & 0o777, 0o700);
        }
        assert_eq!(path.join("lock").metadata().unwrap().mode() & 0o777, 0o600);
        let owner = read_to_string(path.join("lock")).unwrap();
        assert_eq!(owner.trim(), std::process::id().to_string());
        assert!(directory.is_in_place());
        let space = directory.space().unwrap();
        assert!(space.available > 0 && space.available <= space.total);
    }

    #[test]
    fn case_45_a_second_owner_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap();
        let refused = Directory::open(dir.path()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Environment);
        let words = refused.to_string();
        assert!(
            words.contains(&format!("process {}", std::process::id())),
            "{words}"
        );
        assert!(words.contains(dir.path().to_str().unwrap()), "{words}");
        drop(first);
        Directory::open(dir.path()).unwrap();
    }

    #[test]
    fn case_46_a_directory_that_others_may_write_to_is_refused() {
        for mode in [0o720, 0o702, 0o777, 0o1777] {
            let dir = tempfile::tempdir().unwrap();
            set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            let refused = Directory::open(dir.path()).unwrap_err();
            assert!(
                refused.to_string().contains("written by others"),
                "{refused}"
            );
            assert!(!dir.path().join("lock").exists());
        }
    }

    #[test]
    fn case_46_links_and_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        create_dir(&target).unwrap();
        let link = dir.path().join("link");
        symlink(&target, &link).unwrap();
        let refused = Directory::open(&link).unwrap_err();
        assert!(refused.to_string().contains("symbolic link"), "{refused}");
        let file = dir.path().join("file");
        write(&file, "").unwrap();
        assert_eq!(
            Directory::open(&file).unwrap_err().kind(),
            Kind::Environment
        );
    }

    #[test]
    fn case_46_planted_locks_and_versions_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        write(&victim, "precious").unwrap();
        let cache = dir.path().join("cache");
        create_dir(&cache).unwrap();
        symlink(&victim, cache.join("lock")).unwrap();
        assert_eq!(
            Directory::open(&cache).unwrap_err().kind(),
            Kind::Environment
        );
        assert_eq!(read_to_string(&victim).unwrap(), "precious");
        std::fs::remove_file(cache.join("lock")).unwrap();
        symlink(dir.path(), cache.join("v1")).unwrap();
        assert_eq!(
            Directory::open(&cache).unwrap_err().kind(),
            Kind::Environment
        );
    }

    #[test]
    fn case_46_a_directory_of_someone_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        if chown(dir.path(), Some(12345), None).is_err() {
            eprintln!("skipped: only root can give a directory away");
            return;
        }
        let refused = Directory::open(dir.path()).unwrap_err();
        assert!(refused.to_string().contains("user 12345"), "{refused}");
    }

    #[test]
    fn case_44_a_directory_taken_away_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let directory = Directory::open(&path).unwrap();
        rename(&path, dir.path().join("elsewhere")).unwrap();
        assert!(!directory.is_in_place());
        create_dir(&path).unwrap();
        write(path.join("lock"), "1\n").unwrap();
        assert!(!directory.is_in_place());
    }

    #[test]
    fn case_47_only_our_other_versions_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["v0", "v7", "v07", "vx", "v2", "photos"] {
            create_dir(dir.path().join(name)).unwrap();
            if name != "v2" {
                write(dir.path().join(name).join("CACHEDIR.TAG"), TAG_CONTENT).unwrap();
            }
        }
        symlink(dir.path().join("v7"), dir.path().join("v3")).unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let mut others = directory.other_versions().unwrap();
        others.sort();
        assert_eq!(others, ["v0", "v7"]);
    }

    #[test]
    fn case_46_a_directory_of_other_things_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("v1");
        create_dir(&theirs).unwrap();
        write(theirs.join("main.c"), "int main;").unwrap();
        let refused = Directory::open(dir.path()).unwrap_err();
        assert!(refused.to_string().contains("not a cache"), "{refused}");
        assert!(!theirs.join("CACHEDIR.TAG").exists());
    }

    #[test]
    fn case_41_an_unfinished_tag_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        drop(Directory::open(dir.path()).unwrap());
        let tag = dir.path().join("v1/CACHEDIR.TAG");
        write(&tag, &TAG_CONTENT[..10]).unwrap();
        drop(Directory::open(dir.path()).unwrap());
        assert_eq!(std::fs::read(&tag).unwrap(), TAG_CONTENT);
    }

    #[test]
    fn case_45_other_processes_see_the_lock_and_we_see_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let ours = Directory::open(dir.path()).unwrap();
        let lock = dir.path().join("lock");
        let flock = |command: &[&str]| {
            let mut flock = std::process::Command::new("flock");
            flock.arg("--nonblock").arg(&lock).args(command);
            flock.stdin(std::process::Stdio::piped());
            flock.stdout(std::process::Stdio::piped());
            flock.spawn().expect("util-linux is installed")
        };
        assert_eq!(flock(&["true"]).wait().unwrap().code(), Some(1));
        drop(ours);
        // `cat` lives until its input ends, and answers once the lock is taken.
        let mut theirs = flock(&["cat"]);
        let (mut input, output) = (theirs.stdin.take().unwrap(), theirs.stdout.take().unwrap());
        io::Write::write_all(&mut input, b"!\n").unwrap();
        io::BufRead::read_line(&mut io::BufReader::new(output), &mut String::new()).unwrap();
        let refused = Directory::open(dir.path()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Environment);
        assert!(
            refused.to_string().contains("in use by process"),
            "{refused}"
        );
        drop(input);
        assert!(theirs.wait().unwrap().success());
        Directory::open(dir.path()).unwrap();
    }
}
