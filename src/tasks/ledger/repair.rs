//! A look at a ledger that changes nothing, and a damaged one made anew from what it still tells.
//!
//! What can be read is worth keeping: an intent whose outcome is unknown must not be forgotten
//! where the provider cannot list its tasks, or it would be paid twice.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error::{Error, Kind, Result};
use crate::tasks::ledger::mirror::Mirror;
use crate::tasks::ledger::open::{Fault, read_only};
use crate::tasks::ledger::place::Place;
use crate::tasks::ledger::{Ledger, owner, record};

/// What became of a damaged ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Tasks that could be read.
    pub tasks: usize,
    /// Artifacts that could be read.
    pub artifacts: usize,
    /// Where the damaged file is now.
    pub moved_to: PathBuf,
}

/// A row of `creates`: when, whose four parts, and whether it was answered.
type Create = (i64, [String; 4], bool);

impl Ledger {
    /// Whether the ledger in `state_dir` can be used: how many tasks it knows, or `None` when there
    /// is none yet and one can be made. Changes nothing.
    ///
    /// # Errors
    /// [`Kind::Config`] when the place cannot be used or trusted, [`Kind::Ledger`] when the file is
    /// damaged; each with its cure.
    pub fn examine(state_dir: &Path) -> Result<Option<usize>> {
        let place = Place::new(state_dir);
        place.examine()?;
        Ok(look(&place)?.map(|mirror| mirror.tasks.len()))
    }

    /// Makes a damaged ledger anew from what can be read of it; `None` when it is not damaged.
    ///
    /// # Errors
    /// As [`Ledger::examine`]; [`Kind::Environment`] while a process has it, [`Kind::Ledger`] when
    /// the new file cannot be made.
    pub fn repair(state_dir: &Path) -> Result<Option<Repaired>> {
        let place = Place::new(state_dir);
        place.examine()?;
        match look(&place) {
            Ok(_) => return Ok(None),
            Err(error) if error.kind() != Kind::Ledger => return Err(error),
            Err(_) => {}
        }
        if let Some(name) = owner::any_alive(&place.owners()) {
            let words = format!(
                "a process has the task ledger (its lock is {}): end every mount and every other \
                 command first",
                place.owners().join(name).display()
            );
            return Err(Error::new(Kind::Environment, words));
        }
        let (mirror, creates) = salvage(&place);
        let moved_to = aside(&place)?;
        let failed = |error: rusqlite::Error| {
            let words = format!(
                "the new task ledger cannot be written: {error}; the damaged one is {}",
                moved_to.display()
            );
            Error::new(Kind::Ledger, words)
        };
        place.create()?;
        fill(&place, &mirror, &creates).map_err(failed)?;
        Ok(Some(Repaired {
            tasks: mirror.tasks.len(),
            artifacts: mirror.artifacts.len(),
            moved_to,
        }))
    }
}

/// What a whole ledger holds.
fn look(place: &Place) -> Result<Option<Mirror>> {
    let failed = |fault: &Fault| {
        let file = place.file();
        let words = format!("{} {fault}; {}", file.display(), fault.cure());
        Error::new(
            if fault.damaged {
                Kind::Ledger
            } else {
                Kind::Config
            },
            words,
        )
    };
    if !place.file().exists() {
        return match place.log().exists() {
            true => Err(failed(&Fault::damage(
                "it is missing, but its log is there",
            ))),
            false => Ok(None),
        };
    }
    read_only(place).map(Some).map_err(|fault| failed(&fault))
}

/// Every row that can be read.
fn salvage(place: &Place) -> (Mirror, Vec<Create>) {
    let mut mirror = Mirror::default();
    let mut creates = Vec::new();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    if let Ok(db) = Connection::open_with_flags(place.file(), flags) {
        // Whatever stops the reading of one table, the rows before it and the others count.
        let _ = record::tasks(&db, &mut |key, record| {
            mirror.tasks.insert(key, record);
        });
        let _ = record::artifacts(&db, &mut |key, record| {
            mirror.artifacts.insert(key, record);
        });
        let _ = read_creates(&db, &mut creates);
    }
    (mirror, creates)
}

fn read_creates(db: &Connection, creates: &mut Vec<Create>) -> rusqlite::Result<()> {
    let columns = "at, provider, instance, backup, shard, answered";
    let mut all = db.prepare(&format!("SELECT {columns} FROM creates"))?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let key = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
        creates.push((row.get(0)?, key, row.get(5)?));
    }
    Ok(())
}

/// Gives the damaged file and what belongs to it other names.
fn aside(place: &Place) -> Result<PathBuf> {
    let file = place.file();
    let named = |number: u32| {
        let mut name = file.clone().into_os_string();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    let free = (1..)
        .map(named)
        .find(|path| fs::symlink_metadata(path).is_err());
    let free = free.unwrap_or_else(|| named(0));
    for suffix in ["", "-wal", "-shm"] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        match fs::rename(with(&file), with(&free)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let words = format!("{} cannot be moved aside", with(&file).display());
                return Err(Error::new(Kind::Ledger, words).with_source(error));
            }
            _ => {}
        }
    }
    Ok(free)
}

fn fill(place: &Place, mirror: &Mirror, creates: &[Create]) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(place.file(), flags)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (key, record) in &mirror.tasks {
        record::put_task(&step, key, record)?;
    }
    for (key, record) in &mirror.artifacts {
        record::put_artifact(&step, key, record)?;
    }
    for (at, [provider, instance, backup, shard], answered) in creates {
        step.execute(
            "INSERT INTO creates (at, provider, instance, backup, shard, answered)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            rusqlite::params![at, provider, instance, backup, shard, answered],
        )?;
    }
    step.commit()
}
