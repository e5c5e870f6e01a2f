//! What an artifact version that nobody has open takes on disk, and what it has of its bytes.

use std::io;

use rustix::fs::{self, AtFlags, OFlags};
use rustix::io::Errno;

use super::directory::Directory;
use super::extents::Geometry;
use super::files::{DATA, DEAR, MAP, blocks_of, file_name, open_own, read_map, shelf};
use super::identity::Name;

/// What the scan and the eviction know of an artifact version that nobody has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footprint {
    /// Bytes of disk that both files take.
    pub(super) disk: u64,
    /// When it was last used, in seconds since 1970.
    pub(super) used: i64,
    /// Whether its bytes cannot be fetched again by ranges.
    pub(super) is_dear: bool,
}

/// The bytes present of the artifact version `name`, by its map; 0 when there is none.
pub(super) fn present_bytes(directory: &Directory, name: &Name) -> io::Result<u64> {
    let Some(shelf) = shelf(directory, name)? else {
        return Ok(0);
    };
    let Some(map) = open_own(&shelf, &file_name(name, MAP), OFlags::RDONLY)? else {
        return Ok(0);
    };
    let mut bytes = 0;
    let found = read_map(&map, |identity, block, _| {
        let geometry = Geometry {
            size: identity.size,
        };
        bytes += geometry.block_len(block);
    })?;
    Ok(found.map_or(
        0,
        |identity| {
            if identity.name() == *name { bytes } else { 0 }
        },
    ))
}

/// What `name` takes; `None` if there is nothing.
pub(super) fn of(directory: &Directory, name: &Name) -> io::Result<Option<Footprint>> {
    let Some(shelf) = shelf(directory, name)? else {
        return Ok(None);
    };
    let mut found = None;
    for suffix in [DATA, MAP] {
        match fs::statat(&shelf, file_name(name, suffix), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let mut footprint = found.unwrap_or(Footprint {
                    disk: 0,
                    used: i64::MIN,
                    is_dear: false,
                });
                footprint.disk += blocks_of(&stat);
                footprint.used = footprint.used.max(stat.st_mtime);
                found = Some(footprint);
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(footprint) = &mut found
        && let Some(map) = open_own(&shelf, &file_name(name, MAP), OFlags::RDONLY)?
    {
        footprint.is_dear = fs::fgetxattr(&map, DEAR, &mut [0u8; 1][..]).is_ok();
    }
    Ok(found)
}
