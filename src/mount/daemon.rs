//! `mount --daemon`: the serving process in the background, the caller's told how it went.
//!
//! The caller starts this program again, in a session of its own and without a terminal, and waits
//! for the line by which a mount says that it is ready, or for its end. A process with threads must
//! not fork, hence a new one. The child knows its part by [`CHILD`] in its environment.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::process::{Command, Stdio};

use crate::error::{Error, Kind, Result, one_line};

/// The variable that tells a process that it is the one in the background.
pub const CHILD: &str = "MONGO_BACKUPFS_DAEMON";

/// How a start in the background ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Started {
    /// It is mounted, and served by another process.
    Ready,
    /// It is not: that process's last words, and its exit code.
    Failed(String, u8),
}

/// Starts this program again with `arguments` in the background, and waits until it serves.
///
/// # Errors
/// [`Kind::Environment`] when no process can be started.
pub fn start(arguments: &[OsString]) -> Result<Started> {
    let failed = |error| {
        Error::new(
            Kind::Environment,
            "cannot start a process in the background",
        )
        .with_source(error)
    };
    // What it says on stderr is for us until it serves; later nobody reads it, and nothing fails.
    let mut words = tempfile::tempfile().map_err(failed)?;
    // By its name, by which `unmount` and people know it; unless that was replaced meanwhile.
    let program = std::env::current_exe()
        .ok()
        .filter(|program| program.exists());
    let mut child = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()))
        .args(arguments)
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(words.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // Not to hear it is to hear of its end.
        let _ = BufReader::new(stdout).read_line(&mut line);
    }
    if line.ends_with('\n') {
        return Ok(Started::Ready);
    }
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let said = last_line(&mut words).unwrap_or_else(|| {
        format!("mongo-backupfs: the mount ended before it was ready ({status})")
    });
    // Ended by a signal, or with success although it did not serve: a failure all the same.
    Ok(Started::Failed(
        said,
        code.filter(|code| *code != 0).unwrap_or(1),
    ))
}

fn last_line(words: &mut File) -> Option<String> {
    let mut bytes = Vec::new();
    words.rewind().ok()?;
    words.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let last = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(one_line(last))
}

/// Leaves the terminal and the session of who started us.
pub(super) fn leave_terminal() -> Result<()> {
    rustix::process::setsid()
        .map(drop)
        .map_err(|error| Error::new(Kind::Environment, "cannot begin a session").with_source(error))
}
