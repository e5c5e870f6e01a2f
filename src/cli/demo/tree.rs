//! The mounted tree in memory and as an overview.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

/// One entry and what is below it.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    kind: FileType,
    below: Vec<Entry>,
}

impl Entry {
    fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
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
    let kind = fs::symlink_metadata(&path)?.file_type();
    Ok(Entry {
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

/// One line for each account, with the names of its instances.
pub(super) fn overview(accounts: &[Entry]) -> String {
    let width = accounts
        .iter()
        .map(|account| account.name().chars().count());
    let width = width.max().unwrap_or_default();
    let lines = accounts.iter().map(|account| {
        let instances: Vec<String> = account.below.iter().map(Entry::name).collect();
        format!("  {:<width$}  {}\n", account.name(), instances.join(", "))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_told_with_their_instances() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["atlas/orders/1", "atlas/visits/1", "pbm/shop/1"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
            fs::write(dir.path().join(path).join("file"), "12345").unwrap();
        }
        std::os::unix::fs::symlink("1", dir.path().join("atlas/orders/latest")).unwrap();
        let entries = list(dir.path()).unwrap();
        assert_eq!(files(&entries).len(), 3);
        assert_eq!(
            overview(&entries),
            "  atlas  orders, visits\n  pbm    shop\n"
        );
    }
}
