//! Opening a ledger: whole, for reading only, or what is left of a damaged one.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{Error, Kind, Result};
use crate::tasks::ledger::mirror::Mirror;
use crate::tasks::ledger::owner::Owner;
use crate::tasks::ledger::place::Place;
use crate::tasks::ledger::{Ledger, Shared, Store, record, schema};

/// How long a write waits for another process to finish its own.
const BUSY: Duration = Duration::from_secs(10);

impl Ledger {
    /// Opens or creates `state_dir/ledger.sqlite3`; the directory is made 0700.
    ///
    /// `Config` when the place cannot be used or trusted, `Ledger` when a new file cannot be made.
    /// A damaged file is not an error here: the ledger opens [closed](Ledger::closed).
    pub fn open(state_dir: &Path) -> Result<Self> {
        let place = Place::new(state_dir);
        place.prepare()?;
        if !place.is_there()? {
            if place.log().exists() {
                let fault = Fault::damage("it is missing, but its log is there");
                return Ok(Self::without_file(&place, &fault));
            }
            place.create()?;
            // Another process may have been first: what it made is checked like any other.
            place.is_there()?;
        }
        let owner = Owner::register(&place.owners()).map_err(|error| {
            Error::new(
                Kind::Config,
                format!("{} cannot be used: {error}", place.owners().display()),
            )
        })?;
        Ok(match read_write(&place) {
            Ok((db, mirror)) => Self::assemble(&place, Some(db), Some(owner), mirror, None),
            Err(fault) => Self::without_file(&place, &fault),
        })
    }

    /// Opens for reading only, without creating anything; `None` when there is no ledger yet.
    pub fn open_read_only(state_dir: &Path) -> Result<Option<Self>> {
        let place = Place::new(state_dir);
        if !place.file().exists() {
            return Ok(None);
        }
        let closed = format!("{} was opened for reading only", place.file().display());
        Ok(Some(match read_only(&place) {
            Ok(mirror) => Self::assemble(&place, None, None, mirror, Some(closed)),
            Err(fault) => Self::without_file(&place, &fault),
        }))
    }

    /// A ledger in memory, of what can still be read of a file with `fault`.
    fn without_file(place: &Place, fault: &Fault) -> Self {
        let mut mirror = Mirror::default();
        if let Ok(db) = Connection::open_with_flags(place.file(), OpenFlags::SQLITE_OPEN_READ_ONLY)
        {
            // Whatever stops the reading, the rows before it are worth having.
            let _ = fill(&db, &mut mirror);
        }
        let closed = format!(
            "the task ledger {file} {fault}: no download task is created, existing ones are used; \
             {cure}",
            file = place.file().display(),
            cure = fault.cure(),
        );
        tracing::error!("{closed}");
        Self::assemble(place, None, None, mirror, Some(closed))
    }

    fn assemble(
        place: &Place,
        db: Option<Connection>,
        owner: Option<Owner>,
        mirror: Mirror,
        closed: Option<String>,
    ) -> Self {
        let name = owner.as_ref().map(Owner::name).unwrap_or_default();
        Ledger {
            shared: Arc::new(Shared {
                owner: name.to_owned(),
                owners: place.owners(),
                db: Mutex::new(Store { db, _owner: owner }),
                mirror: Mutex::new(mirror),
                closed,
            }),
        }
    }
}

/// Why a file cannot serve as a ledger.
#[derive(Debug)]
pub(super) struct Fault {
    words: String,
    /// Whether the file itself is at fault, rather than what surrounds it.
    pub(super) damaged: bool,
}

impl Fault {
    pub(super) fn damage(words: impl Into<String>) -> Self {
        Fault {
            words: words.into(),
            damaged: true,
        }
    }

    pub(super) fn cure(&self) -> &'static str {
        match self.damaged {
            false => "once that is put right, start again",
            true => {
                "end every mount and run `mongo-backupfs doctor --repair-ledger`: it keeps what can be \
                 read, and existing tasks are adopted"
            }
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let passing = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::PermissionDenied
                    | ErrorCode::ReadOnly
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::DiskFull
                    | ErrorCode::CannotOpen
                    | ErrorCode::OutOfMemory
            )
        );
        Fault {
            words: error.to_string(),
            damaged: !passing,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.damaged {
            "is damaged"
        } else {
            "cannot be used"
        };
        write!(f, "{verb} ({})", self.words)
    }
}

/// Opens, checks, migrates and reads the file.
fn read_write(place: &Place) -> std::result::Result<(Connection, Mirror), Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(place.file(), flags)?;
    db.busy_timeout(BUSY)?;
    // Nothing is written before the file has been found whole.
    if check(&db, place)? < schema::VERSION {
        schema::migrate(&mut db)?;
    }
    let mut mirror = Mirror::default();
    fill(&db, &mut mirror)?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // An intent must outlive a power cut, and each commit goes on into the main file at once.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update_and_check(None, "wal_autocheckpoint", 1, |_| Ok(()))?;
    Ok((db, mirror))
}

/// Reads the file, and makes none beside it where there is none.
pub(super) fn read_only(place: &Place) -> std::result::Result<Mirror, Fault> {
    // Without a log nobody has it open, and `immutable` keeps SQLite from making one.
    let immutable = match place.log().exists() {
        true => "",
        false => "?immutable=1",
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let address = format!("file:{}{immutable}", place.escaped_file());
    let db = Connection::open_with_flags(address, flags)?;
    db.busy_timeout(BUSY)?;
    check(&db, place)?;
    let mut mirror = Mirror::default();
    fill(&db, &mut mirror)?;
    Ok(mirror)
}

/// The version of a file that is whole and that we know how to read.
fn check(db: &Connection, place: &Place) -> std::result::Result<i64, Fault> {
    // What is missing of the last page would be read as zeroes.
    let page: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let length = std::fs::metadata(place.file()).map_or(0, |found| found.len());
    if page > 0 && !length.is_multiple_of(page.unsigned_abs()) {
        return Err(Fault::damage("its last page is cut short"));
    }
    let version = schema::version(db)?;
    if version > schema::VERSION {
        return Err(Fault {
            words: format!(
                "a newer version of this program wrote it: its schema is {version}, ours {}",
                schema::VERSION
            ),
            damaged: false,
        });
    }
    if version < 1 {
        return Err(Fault::damage("it holds no ledger"));
    }
    match schema::complaint(db)? {
        Some(complaint) => Err(Fault::damage(complaint)),
        None => Ok(version),
    }
}

fn fill(db: &Connection, mirror: &mut Mirror) -> rusqlite::Result<()> {
    record::tasks(db, &mut |key, record| {
        mirror.tasks.insert(key, record);
    })?;
    record::artifacts(db, &mut |key, record| {
        mirror.artifacts.insert(key, record);
    })?;
    mirror.created = record::creates_total(db)?;
    Ok(())
}
