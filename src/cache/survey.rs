//! What operators see of a cache directory and do to it without a mount.
//!
//! Looking takes no lock and disturbs nobody: what a mount changes meanwhile is looked at again
//! before it is called damaged. Whatever removes something takes the lock, so that a directory in
//! use is refused.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{self, Mode, OFlags};
use serde::Serialize;

use super::directory::{CAREFULLY, Directory};
use super::extents::{Geometry, MapRun};
use super::files::{self, DATA, Files, MAP};
use super::footprint;
use super::identity::{Identity, Name, UNSEALED};
use super::slab::Slabs;
use super::store::BLOCK_SIZE;
use crate::error::{Error, Kind, Result};
use crate::names;

/// A cache directory.
#[derive(Debug, Serialize)]
pub struct Survey {
    /// Where it is.
    pub directory: PathBuf,
    /// The process that has it.
    pub owner: Option<u32>,
    /// Bytes of disk that it takes.
    pub used: u64,
    /// Bytes of its filesystem.
    pub filesystem_size: u64,
    /// Bytes of its filesystem that are free.
    pub filesystem_free: u64,
    /// What is in it, by path.
    pub artifacts: Vec<Entry>,
}

/// One version of a file in the cache.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Provider, instance, backup, shard and file by the provider's own ids.
    pub path: String,
    /// Its size in bytes; null while that is not known.
    pub size: Option<u64>,
    /// Bytes that are here.
    pub cached: u64,
    /// Whether all are here and each was verified since the file last changed.
    pub verified: bool,
    /// Whether they cost a new download task once they are gone.
    pub dear: bool,
    /// Bytes of disk that it takes.
    pub disk: u64,
    /// When it was used last.
    pub used: Option<Timestamp>,
}

/// Blocks of one version of a file that are not what they were when they came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// As [`Entry::path`]; the local name where even that is damaged.
    pub path: String,
    /// Where the damaged blocks begin, in bytes.
    pub offsets: Vec<u64>,
}

/// What is in the cache directory `dir`; `None` when there is none yet.
///
/// # Errors
/// [`Kind::Environment`] when it cannot be read, or is not ours alone.
pub fn survey(dir: &Path) -> Result<Option<Survey>> {
    let Some(directory) = Directory::look(dir)? else {
        return Ok(None);
    };
    let failed = |error| unreadable(&directory, error);
    let mut artifacts = Vec::new();
    for name in names_in(&directory).map_err(failed)? {
        artifacts.extend(entry(&directory, name).map_err(failed)?);
    }
    artifacts.sort_by(|a, b| a.path.cmp(&b.path));
    let space = directory.space().map_err(failed)?;
    Ok(Some(Survey {
        owner: directory.owner(),
        used: artifacts.iter().map(|entry| entry.disk).sum(),
        filesystem_size: space.total,
        filesystem_free: space.available,
        artifacts,
        directory: directory.path().to_owned(),
    }))
}

/// Checks every block in the cache directory `dir` and tells those that are damaged; they are
/// dropped unless another process has the directory, which drops them itself when it reads them.
/// Also tells how many blocks are right.
///
/// # Errors
/// As [`survey`].
pub fn verify(dir: &Path) -> Result<(u64, Vec<Damage>)> {
    let Some(looked) = Directory::look(dir)? else {
        return Ok((0, Vec::new()));
    };
    let directory = match looked.owner() {
        Some(_) => looked,
        None => Directory::open(dir)?,
    };
    let failed = |error| unreadable(&directory, error);
    let (mut right, mut damages) = (0, Vec::new());
    for name in names_in(&directory).map_err(failed)? {
        let (good, damage) = verify_one(&directory, &name).map_err(failed)?;
        right += good;
        damages.extend(damage);
    }
    damages.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((right, damages))
}

/// Removes what `wanted` says from the cache directory `dir`; tells what is gone. The space is given
/// back, nothing is overwritten.
///
/// # Errors
/// As [`survey`], and [`Kind::Environment`] with the process that has the directory.
pub fn purge(dir: &Path, wanted: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>> {
    if Directory::look(dir)?.is_none() {
        return Ok(Vec::new());
    }
    let directory = Directory::open(dir)?;
    let failed = |error| unreadable(&directory, error);
    let mut gone = Vec::new();
    for name in names_in(&directory).map_err(failed)? {
        let Some(entry) = entry(&directory, name).map_err(failed)? else {
            continue;
        };
        if wanted(&entry) {
            remove(&directory, &name).map_err(failed)?;
            gone.push(entry);
        }
    }
    gone.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(gone)
}

/// A place in the tree and everything below it. The time before a backup's id may be left out, and
/// each part may hold `*`, `?` and `[…]`.
#[derive(Debug)]
pub struct Place(Vec<(String, glob::Pattern)>);

impl Place {
    /// The place that `path` names.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a malformed pattern.
    pub fn parse(path: &str) -> Result<Self> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let parts = parts.map(|part| {
            let glob = glob::Pattern::new(part).map_err(|error| {
                let words = format!("{}: {}", names::display(path), error.msg);
                Error::new(Kind::Usage, words)
            })?;
            Ok((part.to_owned(), glob))
        });
        parts.collect::<Result<_>>().map(Place)
    }

    /// Whether `entry` is there.
    pub fn has(&self, entry: &Entry) -> bool {
        /// Where the backup stands in a path.
        const BACKUP: usize = 2;
        let parts: Vec<String> = entry.path.split('/').map(names::component).collect();
        self.0.iter().enumerate().all(|(at, (wanted, glob))| {
            parts.get(at).is_some_and(|part| {
                let timed = wanted.split_once("Z-").map(|(_, id)| id);
                glob.matches(part) || wanted == part || at == BACKUP && timed == Some(part)
            })
        })
    }
}

/// The artifact versions that have files.
fn names_in(directory: &Directory) -> io::Result<Vec<Name>> {
    let mut found = Vec::new();
    for shelf in fs::Dir::read_from(directory.version())? {
        let shelf = shelf?;
        let shelf = shelf.file_name().to_bytes();
        let flags = OFlags::DIRECTORY | CAREFULLY;
        // Not a directory of ours.
        if shelf.starts_with(b".") {
            continue;
        }
        let Ok(shelf) = fs::openat(directory.version(), shelf, flags, Mode::empty()) else {
            continue;
        };
        for file in fs::Dir::new(shelf)? {
            let file = file?;
            let name = file.file_name().to_str().ok();
            found.extend(name.and_then(files::parse_file_name).map(|(name, _)| name));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What is known of `name`; `None` if it has gone meanwhile.
fn entry(directory: &Directory, name: Name) -> io::Result<Option<Entry>> {
    let Some(footprint) = footprint::of(directory, &name)? else {
        return Ok(None);
    };
    let mut cached = 0;
    let identity = read_map(directory, &name, |identity, block, _| {
        cached += geometry(identity).block_len(block);
    })?;
    let sealed = |identity: &Identity| {
        let files = Files::open(directory, &name, identity.salt())
            .ok()
            .flatten();
        files.is_some_and(|files| files.is_sealed())
    };
    Ok(Some(Entry {
        size: identity
            .as_ref()
            .map(|i| i.size)
            .filter(|size| *size != UNSEALED),
        verified: identity
            .as_ref()
            .is_some_and(|i| cached == i.size && sealed(i)),
        path: identity.map_or_else(|| name.to_string(), |identity| shown(&identity)),
        cached,
        dear: footprint.is_dear,
        disk: footprint.disk,
        used: Timestamp::from_second(footprint.used).ok(),
    }))
}

/// The label without the task that tells nameless versions apart.
fn shown(identity: &Identity) -> String {
    let label = identity.label.split('\0').next();
    label.unwrap_or_default().to_owned()
}

fn geometry(identity: &Identity) -> Geometry {
    Geometry {
        size: identity.size,
    }
}

/// Reads the map of `name`; `None` when there is none that can be believed.
fn read_map(
    directory: &Directory,
    name: &Name,
    entry: impl FnMut(&Identity, u64, u32),
) -> io::Result<Option<Identity>> {
    let Some(shelf) = files::shelf(directory, name)? else {
        return Ok(None);
    };
    let map = files::open_own(&shelf, &files::file_name(name, MAP), OFlags::RDONLY)?;
    let Some(map) = map else {
        return Ok(None);
    };
    let identity = files::read_map(&map, entry)?;
    Ok(identity.filter(|identity| identity.name() == *name))
}

/// Checks the blocks of `name`: how many are right, and which are not.
fn verify_one(directory: &Directory, name: &Name) -> io::Result<(u64, Option<Damage>)> {
    let mut blocks = Vec::new();
    let identity = read_map(directory, name, |_, block, crc| blocks.push((block, crc)))?;
    let owned = directory.is_locked();
    let Some(identity) = identity else {
        // A map that says nothing makes its data useless; without any data nothing is lost.
        let Some(shelf) = files::shelf(directory, name)? else {
            return Ok((0, None));
        };
        let data = files::open_own(&shelf, &files::file_name(name, DATA), OFlags::RDONLY)?;
        if data.is_none() || !owned {
            return Ok((0, None));
        }
        remove(directory, name)?;
        let damage = Damage {
            path: name.to_string(),
            offsets: Vec::new(),
        };
        return Ok((0, Some(damage)));
    };
    let Some(files) = Files::open(directory, name, identity.salt())? else {
        return Ok((0, None));
    };
    let mut bad = Vec::new();
    let slabs = Slabs::default();
    for (block, crc) in &blocks {
        let len = geometry(&identity).block_len(*block) as usize;
        let mut slab = slabs.take(len);
        let read = files.read(&mut slab, block * BLOCK_SIZE, len);
        let content = slab.split();
        if read.is_err() || content.len() != len || crc32c::crc32c(&content) != *crc {
            bad.push((*block, *crc));
        }
    }
    let right = (blocks.len() - bad.len()) as u64;
    if !owned && !bad.is_empty() {
        // What left or was replaced meanwhile is not damaged.
        let mut now = Vec::new();
        read_map(directory, name, |_, block, crc| now.push((block, crc)))?;
        bad.retain(|entry| now.binary_search(entry).is_ok());
    }
    if bad.is_empty() {
        return Ok((right, None));
    }
    if owned {
        for (block, _) in &bad {
            let forgotten = MapRun {
                first: *block,
                crcs: vec![None],
            };
            files.write_map(&[forgotten])?;
        }
        files.sync_map()?;
        for (block, _) in &bad {
            // Only its space stays where that is refused.
            let _ = files.punch(block * BLOCK_SIZE, geometry(&identity).block_len(*block));
        }
    }
    let damage = Damage {
        path: shown(&identity),
        offsets: bad.iter().map(|(block, _)| block * BLOCK_SIZE).collect(),
    };
    Ok((right, Some(damage)))
}

fn remove(directory: &Directory, name: &Name) -> io::Result<()> {
    files::retire(directory, name)?;
    files::sweep(directory, name)
}

fn unreadable(directory: &Directory, error: io::Error) -> Error {
    let words = format!(
        "cannot read cache directory {}; check it or set another cache_dir",
        directory.path().display()
    );
    Error::new(Kind::Environment, words).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            size: Some(1),
            cached: 1,
            verified: true,
            dear: false,
            disk: 1,
            used: None,
        }
    }

    #[test]
    fn entries_are_named_by_paths_of_the_tree() {
        let entry = entry("atlas/M2/6b02/shard-0/a/b.tar");
        for (path, named) in [
            ("", true),
            ("atlas", true),
            ("atlas/", true),
            ("atl", false),
            ("atlas/M2/6b02", true),
            ("atlas/M2/20260105T140000Z-6b02/shard-0", true),
            ("atlas/M2/20260105T140000Z-6b03", false),
            ("*/*/6b*", true),
            ("atlas/M2/6b02/shard-0/a/b.tar", true),
            ("atlas/M2/6b02/shard-0/a/b.tar/c", false),
            ("tencent", false),
        ] {
            assert_eq!(Place::parse(path).unwrap().has(&entry), named, "{path}");
        }
        assert_eq!(Place::parse("a/[x").unwrap_err().kind(), Kind::Usage);
    }
}
