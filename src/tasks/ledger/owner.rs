//! Which live process is between an intent and its answer.
//!
//! Each open ledger holds the lock of one small file; the kernel lets go of it when the process
//! dies, however it dies, in whatever container it ran. An intent names that file: as long as its
//! lock cannot be taken, its owner may still be waiting for an answer.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A process as the others see it. Dropping it releases the lock and removes the file.
#[derive(Debug)]
pub(super) struct Owner {
    name: String,
    path: PathBuf,
    _locked: File,
}

impl Owner {
    /// Registers this process below `dir`, and removes what dead ones left there.
    pub(super) fn register(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        sweep(dir)?;
        loop {
            let name = format!("{:016x}", getrandom::u64().map_err(io::Error::other)?);
            let path = dir.join(&name);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            match file.try_lock() {
                // Another process may sweep between the creation and the lock.
                Ok(()) if file.metadata()?.nlink() > 0 => {
                    return Ok(Owner {
                        name,
                        path,
                        _locked: file,
                    });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// The name that intents carry.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // One that stays is swept by the next process.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the owner called `name` lives. When that cannot be told, it is taken to live.
pub(super) fn is_alive(dir: &Path, name: &str) -> bool {
    // A name from the ledger must not lead elsewhere.
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return false;
    }
    match File::open(dir.join(name)) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
        },
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The name of an owner that lives, if one does.
pub(super) fn any_alive(dir: &Path) -> Option<String> {
    let entries = fs::read_dir(dir).ok()?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.find(|name| is_alive(dir, name))
}

fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if file.try_lock().is_ok() {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_lives_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let first = Owner::register(dir.path()).unwrap();
        let second = Owner::register(dir.path()).unwrap();
        let name = first.name().to_owned();
        assert!(is_alive(dir.path(), &name));
        assert!(is_alive(dir.path(), second.name()));
        drop(first);
        assert!(!is_alive(dir.path(), &name));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_dead_and_swept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("00000000000000aa"), "").unwrap();
        assert!(!is_alive(dir.path(), "00000000000000aa"));
        let owner = Owner::register(dir.path()).unwrap();
        assert!(!dir.path().join("00000000000000aa").exists());
        assert!(is_alive(dir.path(), owner.name()));
    }

    #[test]
    fn hostile_names_are_nobody() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "..", "../x", "/etc/passwd"] {
            assert!(!is_alive(dir.path(), name), "{name}");
        }
    }
}
