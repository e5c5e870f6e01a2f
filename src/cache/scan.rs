//! The thread that finds out at the start what the directory holds, while readers already read.

use std::io;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};

use super::backlog::Turn;
use super::directory::CAREFULLY;
use super::files;
use super::footprint;
use super::lock;
use super::store::Core;

/// The scan thread.
pub(super) fn run(core: &Core) {
    if let Err(error) = scan(core) {
        core.health.failed("listing", error);
    }
    // The limit may have been lowered since the last run.
    core.backlog.push(Turn::MakeRoom);
}

fn scan(core: &Core) -> io::Result<()> {
    for version in core.directory.other_versions()? {
        let disk = disk_below(&core.directory.path().join(&version));
        lock(&core.index).found_other_version(version, disk);
    }
    for shelf in fs::Dir::read_from(core.directory.version())? {
        let shelf = shelf?;
        let shelf = shelf.file_name().to_bytes();
        if shelf.starts_with(b".") {
            continue;
        }
        let flags = OFlags::DIRECTORY | CAREFULLY;
        // Not a directory: not ours.
        let Ok(shelf) = fs::openat(core.directory.version(), shelf, flags, Mode::empty()) else {
            continue;
        };
        for entry in fs::Dir::new(shelf)? {
            if core.backlog.is_stopped() {
                return Ok(());
            }
            let entry = entry?;
            let name = entry.file_name().to_str().ok();
            let Some((name, gone)) = name.and_then(files::parse_file_name) else {
                continue;
            };
            if gone {
                files::sweep(&core.directory, &name)?;
                continue;
            }
            // Under the lock nobody can take or remove the name meanwhile.
            let mut index = lock(&core.index);
            if !index.knows(&name)
                && let Some(footprint) = footprint::of(&core.directory, &name)?
            {
                index.found(name, footprint);
            }
        }
    }
    Ok(())
}

/// Bytes of disk below a directory; what cannot be examined counts nothing.
fn disk_below(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    let disk = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_below(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    disk.sum()
}
