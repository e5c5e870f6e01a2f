//! The tables, their version, and the proof that a file holds them whole.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// What `user_version` says of a current ledger.
pub(super) const VERSION: i64 = 4;

/// One script per version: `MIGRATIONS[n]` leads from version n to n + 1. Never changed once
/// released, only added to. Times are microseconds since 1970 in UTC.
const MIGRATIONS: [&str; VERSION as usize] = ["
CREATE TABLE tasks (
    provider TEXT NOT NULL,
    instance TEXT NOT NULL,
    backup   TEXT NOT NULL,
    shard    TEXT NOT NULL,
    revision INTEGER NOT NULL,      -- grows with every change of the row
    state    TEXT NOT NULL CHECK (state IN ('none', 'queued', 'running', 'ready', 'expired', 'failed')),
    task_id  TEXT NOT NULL,         -- empty while the state is none, and where the provider has no ids
    expires  INTEGER,
    message  TEXT,
    since    INTEGER NOT NULL,      -- when the intent was written, or the task adopted
    changed  INTEGER NOT NULL,      -- when the state was first seen
    reports  INTEGER NOT NULL,      -- how often readers found the artifact gone
    intent_owner TEXT,              -- the process that wrote the open intent
    intent_at    INTEGER,
    sum      INTEGER NOT NULL,      -- CRC32C of the columns before
    PRIMARY KEY (provider, instance, backup, shard),
    CHECK ((intent_owner IS NULL) = (intent_at IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE creates (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    provider TEXT NOT NULL,
    instance TEXT NOT NULL,
    backup   TEXT NOT NULL,
    shard    TEXT NOT NULL,
    answered INTEGER NOT NULL       -- 0 while the outcome is unknown
) STRICT;
CREATE INDEX creates_at ON creates (at);

CREATE TABLE artifacts (
    provider TEXT NOT NULL,
    instance TEXT NOT NULL,
    backup   TEXT NOT NULL,
    shard    TEXT NOT NULL,
    file     TEXT NOT NULL,
    size     INTEGER NOT NULL CHECK (size >= 0),
    etag     TEXT,
    last_modified TEXT,
    task_id  TEXT NOT NULL,
    source_name TEXT,
    sum      INTEGER NOT NULL,
    PRIMARY KEY (provider, instance, backup, shard, file)
) STRICT, WITHOUT ROWID;
", "
ALTER TABLE artifacts ADD COLUMN digest TEXT;
ALTER TABLE artifacts ADD COLUMN verified INTEGER NOT NULL DEFAULT 0;
", "
CREATE TABLE links (
    provider TEXT NOT NULL,
    instance TEXT NOT NULL,
    backup   TEXT NOT NULL,
    shard    TEXT NOT NULL,
    task_id  TEXT NOT NULL,
    url      TEXT NOT NULL,         -- signed: whoever has it may read the artifact until it ends
    expires  INTEGER NOT NULL,
    PRIMARY KEY (provider, instance, backup, shard)
) STRICT, WITHOUT ROWID;
", "
ALTER TABLE artifacts ADD COLUMN download TEXT; -- which one brought it, where a link works once only
"];

/// Brings an open database to [`VERSION`], from nothing if it is new.
pub(super) fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&step)?;
    for (number, script) in (1..).zip(MIGRATIONS) {
        if number > found {
            step.execute_batch(script)?;
        }
    }
    set_version(&step, found.max(VERSION))?;
    step.commit()
}

/// The version of the schema in the file; 0 when there is none.
pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn set_version(db: &Transaction<'_>, version: i64) -> rusqlite::Result<()> {
    db.pragma_update(None, "user_version", version)
}

/// Reads the whole file and checks every page and row; the complaint, if there is one.
pub(super) fn complaint(db: &Connection) -> rusqlite::Result<Option<String>> {
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((verdict != "ok").then_some(verdict))
}
