//! Rows and their Rust shapes: the SQL of the ledger, each statement once.
//!
//! A row carries a checksum, because a flipped bit in an id or a state could cost a second task
//! and SQLite itself would not notice it.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::model::{ArtifactKey, Task, TaskKey, TaskState, Validator};

/// What the ledger holds of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The last task known; `None` when none was ever seen.
    pub task: Option<Task>,
    /// The open intent: a request may have been sent and its outcome is not known.
    pub intent: Option<Intent>,
    /// When the intent was written, or the task adopted.
    pub since: Timestamp,
    /// When the task's state was first seen.
    pub changed: Timestamp,
    /// When the provider last spoke of the task, as far as this process knows.
    pub checked: Timestamp,
    /// How often readers found the artifact gone.
    pub reports: u8,
    /// Grows with every change, so that a writer knows that it changes what it saw.
    pub revision: u64,
}

/// A create that is about to be sent, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The process that wrote it.
    pub owner: String,
    /// When.
    pub at: Timestamp,
}

/// What is remembered of an artifact for ever: its exact size and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactRecord {
    /// The version.
    pub validator: Validator,
    /// The task it came from; empty for objects.
    pub task_id: String,
    /// The provider's own file name.
    pub source_name: Option<String>,
    /// A digest that the store publishes, `algorithm:value`.
    pub digest: Option<String>,
    /// Whether the bytes were once read whole and found to have that digest.
    pub verified: bool,
}

const TASK_COLUMNS: &str = "provider, instance, backup, shard, revision, state, task_id, expires, \
                            message, since, changed, reports, intent_owner, intent_at, sum";
const ARTIFACT_COLUMNS: &str = "provider, instance, backup, shard, file, size, etag, \
                                last_modified, task_id, source_name, sum, digest, \
                                verified, download";

/// The word of a state in the ledger and in `user.backupfs.state`.
pub(crate) fn word(state: TaskState) -> &'static str {
    match state {
        TaskState::Queued => "queued",
        TaskState::Running => "running",
        TaskState::Ready => "ready",
        TaskState::Expired => "expired",
        TaskState::Failed => "failed",
    }
}

fn state(word: &str) -> Option<TaskState> {
    [
        TaskState::Queued,
        TaskState::Running,
        TaskState::Ready,
        TaskState::Expired,
        TaskState::Failed,
    ]
    .into_iter()
    .find(|state| self::word(*state) == word)
}

pub(super) fn task(db: &Connection, key: &TaskKey) -> rusqlite::Result<Option<Record>> {
    db.prepare_cached(&format!(
        "SELECT {TASK_COLUMNS} FROM tasks
         WHERE provider = ?1 AND instance = ?2 AND backup = ?3 AND shard = ?4"
    ))?
    .query_row(
        params![key.provider, key.instance, key.backup, key.shard],
        |row| read_task(row).map(|(_, record)| record),
    )
    .optional()
}

/// Every task, up to the first row that cannot be read: then `Err`.
pub(super) fn tasks(
    db: &Connection,
    each: &mut dyn FnMut(TaskKey, Record),
) -> rusqlite::Result<()> {
    let mut all = db.prepare(&format!("SELECT {TASK_COLUMNS} FROM tasks"))?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let (key, record) = read_task(row)?;
        each(key, record);
    }
    Ok(())
}

pub(super) fn put_task(db: &Connection, key: &TaskKey, record: &Record) -> rusqlite::Result<()> {
    let task = record.task.as_ref();
    db.prepare_cached(&format!(
        "INSERT OR REPLACE INTO tasks ({TASK_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    ))?
    .execute(params![
        key.provider,
        key.instance,
        key.backup,
        key.shard,
        record.revision,
        task.map_or("none", |task| word(task.state)),
        task.map_or("", |task| &task.id),
        task.and_then(|task| task.expires).map(micros),
        task.and_then(|task| task.message.as_deref()),
        micros(record.since),
        micros(record.changed),
        record.reports,
        record.intent.as_ref().map(|intent| &intent.owner),
        record.intent.as_ref().map(|intent| micros(intent.at)),
        task_sum(key, record),
    ])?;
    Ok(())
}

fn read_task(row: &Row<'_>) -> rusqlite::Result<(TaskKey, Record)> {
    let word: String = row.get(5)?;
    let known = state(&word);
    if known.is_none() && word != "none" {
        return Err(unreadable(5, format!("task state `{word}`")));
    }
    let (id, expires, message) = (row.get(6)?, time(row, 7)?, row.get(8)?);
    let changed = required_time(row, 10)?;
    let intent = match (row.get(12)?, time(row, 13)?) {
        (Some(owner), Some(at)) => Some(Intent { owner, at }),
        _ => None,
    };
    let record = Record {
        task: known.map(|state| Task {
            id,
            state,
            percent: None,
            expires,
            message,
        }),
        intent,
        since: required_time(row, 9)?,
        changed,
        checked: changed,
        reports: row.get(11)?,
        revision: row.get(4)?,
    };
    let key = key(row)?;
    match row.get::<_, u32>(14)? == task_sum(&key, &record) {
        true => Ok((key, record)),
        false => Err(unreadable(14, "the row's checksum does not fit it".into())),
    }
}

/// The checksum of all that a row of `tasks` holds.
fn task_sum(key: &TaskKey, record: &Record) -> u32 {
    let task = record.task.as_ref();
    let intent = record.intent.as_ref();
    sum(&(
        parts(key),
        record.revision,
        task.map(|task| (word(task.state), &task.id, &task.message)),
        task.and_then(|task| task.expires).map(micros),
        micros(record.since),
        micros(record.changed),
        record.reports,
        intent.map(|intent| (&intent.owner, micros(intent.at))),
    ))
}

/// CRC32C of `columns` in a form that keeps them apart.
fn sum(columns: &impl Serialize) -> u32 {
    // Plain data always has a JSON form; without one the sum of nothing protects nothing.
    crc32c::crc32c(&serde_json::to_vec(columns).unwrap_or_default())
}

fn parts(key: &TaskKey) -> [&str; 4] {
    [&key.provider, &key.instance, &key.backup, &key.shard]
}

/// Counts a create that is about to be sent; one whose outcome was unknown is disproved by it.
pub(super) fn count_create(db: &Connection, key: &TaskKey, at: Timestamp) -> rusqlite::Result<()> {
    uncount_create(db, key)?;
    db.execute(
        "INSERT INTO creates (at, provider, instance, backup, shard, answered)
         VALUES (?1, ?2, ?3, ?4, ?5, 0)",
        params![
            micros(at),
            key.provider,
            key.instance,
            key.backup,
            key.shard
        ],
    )?;
    Ok(())
}

/// The create was not carried out.
pub(super) fn uncount_create(db: &Connection, key: &TaskKey) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM creates WHERE answered = 0
         AND provider = ?1 AND instance = ?2 AND backup = ?3 AND shard = ?4",
        params![key.provider, key.instance, key.backup, key.shard],
    )?;
    Ok(())
}

/// The create was carried out: its answer came, or its task was found.
pub(super) fn answer_create(db: &Connection, key: &TaskKey) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE creates SET answered = 1 WHERE answered = 0
         AND provider = ?1 AND instance = ?2 AND backup = ?3 AND shard = ?4",
        params![key.provider, key.instance, key.backup, key.shard],
    )?;
    Ok(())
}

/// Creates sent after `start`; one whose outcome is unknown counts.
pub(super) fn creates_since(db: &Connection, start: Timestamp) -> rusqlite::Result<u32> {
    db.query_row(
        "SELECT count(*) FROM creates WHERE at > ?1",
        [micros(start)],
        |row| row.get(0),
    )
}

/// Creates that were carried out, in the ledger's whole life.
pub(super) fn creates_total(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row(
        "SELECT count(*) FROM creates WHERE answered = 1",
        [],
        |row| row.get(0),
    )
}

pub(super) fn artifacts(
    db: &Connection,
    each: &mut dyn FnMut(ArtifactKey, ArtifactRecord),
) -> rusqlite::Result<()> {
    let mut all = db.prepare(&format!("SELECT {ARTIFACT_COLUMNS} FROM artifacts"))?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let (key, record) = read_artifact(row)?;
        each(key, record);
    }
    Ok(())
}

fn read_artifact(row: &Row<'_>) -> rusqlite::Result<(ArtifactKey, ArtifactRecord)> {
    let key = ArtifactKey {
        task: key(row)?,
        file: row.get(4)?,
    };
    let mut record = ArtifactRecord {
        validator: Validator {
            size: row.get(5)?,
            etag: row.get(6)?,
            last_modified: row.get(7)?,
            download: row.get(13)?,
        },
        task_id: row.get(8)?,
        source_name: row.get(9)?,
        digest: row.get(11)?,
        verified: row.get(12)?,
    };
    if row.get::<_, u32>(10)? != artifact_sum(&key, &record) {
        return Err(unreadable(10, "the row's checksum does not fit it".into()));
    }
    // Without a digest nothing can have been verified, and the checksum does not cover the mark.
    record.verified &= record.digest.is_some();
    Ok((key, record))
}

/// The checksum of all that a row of `artifacts` holds.
fn artifact_sum(key: &ArtifactKey, record: &ArtifactRecord) -> u32 {
    let first = (
        parts(&key.task),
        &key.file,
        record.validator.size,
        &record.validator.etag,
        &record.validator.last_modified,
        &record.task_id,
        &record.source_name,
    );
    match (&record.digest, &record.validator.download) {
        // As in rows from before there were digests, and downloads.
        (None, None) => sum(&first),
        (Some(digest), None) => sum(&(first, digest, record.verified)),
        (digest, Some(download)) => sum(&(first, digest, record.verified, download)),
    }
}

pub(super) fn put_artifact(
    db: &Connection,
    key: &ArtifactKey,
    record: &ArtifactRecord,
) -> rusqlite::Result<()> {
    db.prepare_cached(&format!(
        "INSERT OR REPLACE INTO artifacts ({ARTIFACT_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
    ))?
    .execute(params![
        key.task.provider,
        key.task.instance,
        key.task.backup,
        key.task.shard,
        key.file,
        record.validator.size,
        record.validator.etag,
        record.validator.last_modified,
        record.task_id,
        record.source_name,
        artifact_sum(key, record),
        record.digest,
        record.verified,
        record.validator.download,
    ])?;
    Ok(())
}

pub(super) fn delete_artifact(db: &Connection, key: &ArtifactKey) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM artifacts
         WHERE provider = ?1 AND instance = ?2 AND backup = ?3 AND shard = ?4 AND file = ?5",
        params![
            key.task.provider,
            key.task.instance,
            key.task.backup,
            key.task.shard,
            key.file
        ],
    )?;
    Ok(())
}

fn key(row: &Row<'_>) -> rusqlite::Result<TaskKey> {
    Ok(TaskKey {
        provider: row.get(0)?,
        instance: row.get(1)?,
        backup: row.get(2)?,
        shard: row.get(3)?,
    })
}

/// The ledger's unit of time, so that a time read back equals the one written.
pub(super) fn rounded(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(micros(time)).unwrap_or(time)
}

/// `age` before `now`; the beginning of time if there is no such moment.
pub(super) fn before(now: Timestamp, age: Duration) -> Timestamp {
    now.checked_sub(age).unwrap_or(Timestamp::MIN)
}

fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    row.get::<_, Option<i64>>(column)?
        .map(|micros| {
            Timestamp::from_microsecond(micros)
                .map_err(|error| unreadable(column, error.to_string()))
        })
        .transpose()
}

fn required_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    time(row, column)?.ok_or_else(|| unreadable(column, "no time".into()))
}

fn unreadable(column: usize, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}
