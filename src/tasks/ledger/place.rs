//! Where the ledger lies and who may touch it.
//!
//! The directory must be ours alone. One that others may only read is closed to them, one that
//! others may write is refused, because what lies in it cannot be believed.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Kind, Result};
use crate::tasks::ledger::schema;

/// Bits that let others write.
const OTHERS_WRITE: u32 = 0o022;
/// Bits that let others do anything.
const OTHERS: u32 = 0o077;

/// The paths below a state directory.
#[derive(Debug, Clone)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    pub(super) fn new(state_dir: &Path) -> Self {
        Place {
            dir: state_dir.to_owned(),
        }
    }

    /// The database.
    pub(super) fn file(&self) -> PathBuf {
        self.dir.join("ledger.sqlite3")
    }

    /// Its path as an SQLite URI has it.
    pub(super) fn escaped_file(&self) -> String {
        percent_encode(self.file().as_os_str().as_bytes(), NON_ALPHANUMERIC).to_string()
    }

    /// Its write-ahead log, as SQLite names it.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("ledger.sqlite3-wal")
    }

    /// Where live processes hold their locks.
    pub(super) fn owners(&self) -> PathBuf {
        self.dir.join("owners")
    }

    /// Makes the directory, or checks the one that is there and closes it to others.
    pub(super) fn prepare(&self) -> Result<()> {
        let dir = &self.dir;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        if let Err(error) = made
            && fs::symlink_metadata(dir).is_err()
        {
            return Err(Error::new(
                Kind::Config,
                format!(
                    "state_dir {} cannot be made: {error}; choose another state_dir",
                    dir.display()
                ),
            ));
        }
        let meta = self.inspect(dir, "a directory", Metadata::is_dir)?;
        if meta.mode() & OTHERS != 0 {
            if self
                .holds_foreign_files()
                .map_err(|e| unreadable(dir, &e))?
            {
                if meta.mode() & OTHERS_WRITE != 0 {
                    return Err(too_open(dir, "700"));
                }
            } else {
                close(dir, 0o700)?;
            }
        }
        Ok(())
    }

    /// Checks the place like [`Place::prepare`] and [`Place::is_there`] and changes nothing.
    pub(super) fn examine(&self) -> Result<()> {
        let dir = &self.dir;
        if fs::symlink_metadata(dir).is_err() {
            let above = dir.ancestors().find(|above| above.is_dir());
            let above = above.unwrap_or(Path::new("/"));
            return writable(above).map_err(|error| unreadable(dir, &error));
        }
        let meta = self.inspect(dir, "a directory", Metadata::is_dir)?;
        let foreign = || self.holds_foreign_files();
        if meta.mode() & OTHERS_WRITE != 0 && foreign().map_err(|e| unreadable(dir, &e))? {
            return Err(too_open(dir, "700"));
        }
        writable(dir).map_err(|error| unreadable(dir, &error))?;
        let file = self.file();
        if fs::symlink_metadata(&file).is_ok() {
            let meta = self.inspect(&file, "a regular file", Metadata::is_file)?;
            if meta.mode() & OTHERS_WRITE != 0 {
                return Err(too_open(&file, "600"));
            }
        }
        Ok(())
    }

    /// Whether the database is there; it is checked and closed to others.
    pub(super) fn is_there(&self) -> Result<bool> {
        let file = self.file();
        match fs::symlink_metadata(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unreadable(&file, &error)),
            Ok(_) => {}
        }
        let meta = self.inspect(&file, "a regular file", Metadata::is_file)?;
        if meta.mode() & OTHERS_WRITE != 0 {
            return Err(too_open(&file, "600"));
        }
        if meta.mode() & OTHERS != 0 {
            close(&file, 0o600)?;
        }
        Ok(true)
    }

    /// Makes an empty database that appears whole or not at all, so that a short file is known to
    /// be damaged. Losing the race against another process is success.
    pub(super) fn create(&self) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(
                Kind::Ledger,
                format!("{} cannot be made: {error}", self.file().display()),
            )
        };
        let unique = getrandom::u64().map_err(|e| failed(&e))?;
        let draft = self.dir.join(format!("ledger.new.{unique:016x}"));
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .map_err(|e| failed(&e))?;
        let placed = fill(&draft).map_err(|e| failed(&e)).and_then(|()| {
            match fs::hard_link(&draft, self.file()) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed(&error)),
                _ => Ok(()),
            }
        });
        let removed = fs::remove_file(&draft);
        placed?;
        removed
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(|e| failed(&e))
    }

    /// Whether others' files lie in the directory: then its permissions are not ours to change.
    fn holds_foreign_files(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let ours = name.to_string_lossy().starts_with("ledger.") || name == "owners";
            if !ours {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What lies at `path`, if it is of the right type and ours; links are not followed.
    fn inspect(&self, path: &Path, what: &str, is: fn(&Metadata) -> bool) -> Result<Metadata> {
        let meta = fs::symlink_metadata(path).map_err(|e| unreadable(path, &e))?;
        if !is(&meta) {
            return Err(Error::new(
                Kind::Config,
                format!(
                    "{} is not {what}; symbolic links are not followed here: name the place itself \
                     as state_dir",
                    path.display()
                ),
            ));
        }
        let own = rustix::process::geteuid().as_raw();
        if meta.uid() != own {
            return Err(Error::new(
                Kind::Config,
                format!(
                    "{} belongs to user {}, not to user {own} who runs this; choose another \
                     state_dir",
                    path.display(),
                    meta.uid()
                ),
            ));
        }
        Ok(meta)
    }
}

/// Makes an empty ledger of an empty file; closing it leaves no log beside it.
fn fill(draft: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(draft, flags)?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    schema::migrate(&mut db)?;
    db.close().map_err(|(_, error)| error)
}

fn writable(dir: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(dir, rustix::fs::Access::WRITE_OK)?)
}

fn close(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| unreadable(path, &e))
}

fn too_open(path: &Path, mode: &str) -> Error {
    Error::new(
        Kind::Config,
        format!(
            "{0} can be written by other users, so the tasks in it cannot be believed; \
             `chmod {mode} {0}` once you have seen that nobody did, or choose another state_dir",
            path.display()
        ),
    )
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::Config,
        format!("{} cannot be used: {error}", path.display()),
    )
}
