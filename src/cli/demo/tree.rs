//! The mounted tree in memory and as a drawing.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

/// Sub-directories of one directory that are drawn; the others are counted.
const DRAWN: usize = 3;

/// One entry and what is below it.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    kind: FileType,
    size: u64,
    /// Target, of a symlink.
    target: Option<PathBuf>,
    below: Vec<Entry>,
}

/// Everything below `directory`, by name.
pub(super) fn list(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut paths = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(entry).collect()
}

fn entry(path: PathBuf) -> io::Result<Entry> {
    let metadata = fs::symlink_metadata(&path)?;
    let kind = metadata.file_type();
    Ok(Entry {
        size: metadata.len(),
        target: kind
            .is_symlink()
            .then(|| fs::read_link(&path))
            .transpose()?,
        below: if kind.is_dir() {
            list(&path)?
        } else {
            Vec::new()
        },
        kind,
        path,
    })
}

/// All files, in the order of their paths.
pub(super) fn files(entries: &[Entry]) -> Vec<PathBuf> {
    entries
        .iter()
        .flat_map(|entry| match entry.kind.is_file() {
            true => vec![entry.path.clone()],
            false => files(&entry.below),
        })
        .collect()
}

/// One line for each entry, indented by `depth`. Of many directories beside each other only the
/// last are drawn: backups are named by time, so these are the newest.
pub(super) fn draw(entries: &[Entry], depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let directories = entries.iter().filter(|entry| entry.kind.is_dir()).count();
    let hidden = directories.saturating_sub(DRAWN);
    let mut text = match hidden {
        0 => String::new(),
        _ => format!("{indent}… {hidden} more\n"),
    };
    let mut to_hide = hidden;
    for entry in entries {
        if entry.kind.is_dir() && to_hide > 0 {
            to_hide -= 1;
            continue;
        }
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
        let details = match &entry.target {
            Some(target) => format!(" -> {}", target.display()),
            None if entry.kind.is_dir() => "/".to_owned(),
            None if entry.size == 0 => "  (its size is known once it is opened)".to_owned(),
            None => format!("  {} bytes", entry.size),
        };
        text.push_str(&format!("{indent}{name}{details}\n"));
        text.push_str(&draw(&entry.below, depth + 1));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_many_directories_are_drawn_and_the_others_counted() {
        let dir = tempfile::tempdir().unwrap();
        for day in 1..=5 {
            let backup = dir.path().join(format!("a/{day}"));
            fs::create_dir_all(&backup).unwrap();
            fs::write(backup.join("f"), "12345").unwrap();
        }
        std::os::unix::fs::symlink("5", dir.path().join("a/latest")).unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        let entries = list(dir.path()).unwrap();
        assert_eq!(files(&entries).len(), 5);
        let drawn = "a/\n  … 2 more\n  3/\n    f  5 bytes\n  4/\n    f  5 bytes\n  5/\n    \
                     f  5 bytes\n  latest -> 5\nb/\n";
        assert_eq!(draw(&entries, 0), drawn);
    }
}
