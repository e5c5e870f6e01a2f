//! The link of a task whose artifact ends with it: asked for once, it must outlive the process. It is
//! in no view and no error, and gone from the file when it has ended.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::model::{Link, LinkMode, TaskKey};
use crate::secret::SafeUrl;

/// Keeps `link`, which ends at `end`, in place of any other one of `key`.
pub(super) fn put(
    db: &Connection,
    key: &TaskKey,
    task_id: &str,
    link: &Link,
    end: Timestamp,
) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO links VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            key.provider,
            key.instance,
            key.backup,
            key.shard,
            task_id,
            link.url.expose(),
            end.as_microsecond(),
        ])?;
    Ok(())
}

/// Drops the links that have ended at `now`.
pub(super) fn drop_ended(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let ended = "DELETE FROM links WHERE expires <= ?1";
    db.execute(ended, [now.as_microsecond()])?;
    Ok(())
}

/// The link of the task `task_id` of `key`; one that cannot be read is none.
pub(super) fn get(db: &Connection, key: &TaskKey, task_id: &str) -> rusqlite::Result<Option<Link>> {
    let found: Option<(String, i64)> = db
        .query_row(
            "SELECT url, expires FROM links WHERE provider = ?1 AND instance = ?2
             AND backup = ?3 AND shard = ?4 AND task_id = ?5",
            params![key.provider, key.instance, key.backup, key.shard, task_id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(found.and_then(|(url, end)| {
        Some(Link {
            url: SafeUrl::parse(&url).ok()?,
            headers: Vec::new(),
            expires: Some(Timestamp::from_microsecond(end).ok()?),
            mode: LinkMode::Ranged,
        })
    }))
}
