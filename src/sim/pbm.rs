//! A storage as Percona Backup for MongoDB leaves it, as plain files in a directory: a snapshot a
//! day, one of which was cancelled, and what is there of one that still runs.

use std::fs;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::dump;

/// Writes the storage into the directory `root`, which it makes. The newest snapshot began at `last`.
pub fn pbm_storage(root: &Path, last: Timestamp) -> io::Result<()> {
    let ended = [(3, "done"), (2, "canceled"), (1, "done"), (0, "done")];
    fs::create_dir(root)?;
    fs::write(root.join(".pbm.init"), "2.12.0")?;
    for (days, status) in ended {
        let started = last - SignedDuration::from_hours(24 * days);
        let name = snapshot(root, started, 800 + days.unsigned_abs())?;
        let description = serde_json::json!({
            "type": "logical",
            "name": name,
            "replsets": [{"name": "rs0", "status": status, "node": "db0:27017"}],
            "compression": "gzip",
            "mongodb_version": "7.0.14-8",
            "start_ts": started.as_second(),
            "last_transition_ts": started.as_second() + 420,
            "last_write_ts": {"T": started.as_second() + 410, "I": 1},
            "status": status,
            "pbm_version": "2.12.0",
        });
        fs::write(
            root.join(format!("{name}.pbm.json")),
            description.to_string(),
        )?;
    }
    // Not described yet, so not shown.
    snapshot(root, last + SignedDuration::from_hours(1), 810).map(drop)
}

/// Writes the files of a snapshot, whose name is returned.
fn snapshot(root: &Path, started: Timestamp, seed: u64) -> io::Result<String> {
    let name = started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let place = root.join(&name).join("rs0");
    fs::create_dir_all(&place)?;
    for (path, data) in dump::folder(seed) {
        let (_, path) = path.split_once('/').unwrap_or_default();
        fs::write(place.join(path.replace('/', ".")), data)?;
    }
    Ok(name)
}
