//! The mounts of this program on this machine, and what each says of itself.
//!
//! Asked through the mount like anybody else would, by a thread that is left behind if the mount
//! hangs: whoever asks never does.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, io, thread};

use serde::Serialize;
use serde_json::Value;

use super::mountinfo;
use crate::error::{Error, Kind, Result};

/// How long a mount may take to answer. It does so from memory.
const ANSWER: Duration = Duration::from_secs(5);

/// What one mount says: its documents as they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// `status.json`.
    pub status: Value,
    /// `tasks.json`.
    pub tasks: Value,
}

/// Where this program is mounted, in the order of the mounts.
pub fn mountpoints() -> Result<Vec<PathBuf>> {
    let entries = mountinfo::mounts()?;
    let ours = entries.into_iter().filter(|entry| entry.is_ours());
    Ok(ours.map(|entry| entry.mountpoint).collect())
}

/// The mount that has the block cache in `cache_dir`, if one does that can be asked.
pub fn serving(cache_dir: &Path) -> Result<Option<PathBuf>> {
    let Ok(wanted) = fs::canonicalize(cache_dir) else {
        return Ok(None);
    };
    let serves = |place: &PathBuf| {
        let report = ask(place).ok()?;
        let used = report.status.pointer("/cache/directory")?.as_str()?;
        (fs::canonicalize(used).ok()? == wanted).then_some(())
    };
    let places = mountpoints()?;
    Ok(places.into_iter().find(|place| serves(place).is_some()))
}

/// Asks the mount at `mountpoint`.
///
/// # Errors
/// [`Kind::Environment`] when nothing of ours is mounted there, its process is gone, or it does not
/// answer; each with its cure.
pub fn ask(mountpoint: &Path) -> Result<Report> {
    let place = mountinfo::resolve(mountpoint)?;
    let shown = place.display();
    let failed = |words: String| Error::new(Kind::Environment, words);
    match mountinfo::mount_at(&place)? {
        None => return Err(failed(format!("{shown} is not mounted"))),
        Some(entry) if !entry.is_ours() => {
            let words = format!(
                "{shown} is not a mount of mongo-backupfs but of type {}",
                entry.kind
            );
            return Err(failed(words));
        }
        Some(_) => {}
    }
    let document = |name: &str| -> Result<Value> {
        let read = read_within(place.join(".backupfs").join(name), ANSWER);
        let bytes = match read {
            None => {
                let words = format!("{shown} does not answer within {ANSWER:?}: its process hangs");
                return Err(failed(words));
            }
            Some(Err(error)) if error.raw_os_error() == Some(libc::ENOTCONN) => {
                let words = format!(
                    "the process of {shown} is gone: `mongo-backupfs unmount {shown}`, then mount again"
                );
                return Err(failed(words));
            }
            Some(Err(error)) => {
                return Err(failed(format!("{shown} cannot be asked: {error}")));
            }
            Some(Ok(bytes)) => bytes,
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| failed(format!("{shown} says what cannot be read: {error}")))
    };
    Ok(Report {
        status: document("status.json")?,
        tasks: document("tasks.json")?,
        mountpoint: place.clone(),
    })
}

/// A file's content, unless reading it takes longer than `limit`.
pub(super) fn read_within(path: PathBuf, limit: Duration) -> Option<io::Result<Vec<u8>>> {
    let (send, receive) = mpsc::channel();
    // Its own thread, left behind if the mount hangs.
    let spawned = thread::Builder::new().spawn(move || {
        // Nobody listens any more when the time is over.
        let _ = send.send(fs::read(path));
    });
    match spawned {
        Ok(_) => receive.recv_timeout(limit).ok(),
        Err(error) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_said_to_be_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = ask(dir.path()).unwrap_err();
        assert!(error.to_string().contains("is not mounted"), "{error}");
        let error = ask(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("of type proc"), "{error}");
        let error = ask(&dir.path().join("a/b")).unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
    }

    #[test]
    fn a_file_that_never_comes_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(read_within(pipe, Duration::from_millis(20)).is_none());
        let content = read_within("/proc/self/comm".into(), ANSWER);
        assert!(!content.unwrap().unwrap().is_empty());
    }
}
