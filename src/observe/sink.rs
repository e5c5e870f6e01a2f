//! Where log lines go: stderr, a file, or the system's log.
//!
//! A file can be opened again while lines are written, so that it can be renamed meanwhile. The
//! system's log is the socket `/dev/log`, in the form of RFC 3164, which journald and every syslog
//! daemon read; without anybody behind it lines are lost. Each place has one lock, for one line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Where the system's log listens.
const SYSTEM_LOG: &str = "/dev/log";
/// Facility 3 of RFC 3164: system daemons.
const DAEMON: u8 = 3 << 3;

/// A place for log lines. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sink(Arc<Place>);

#[derive(Debug)]
enum Place {
    Stderr,
    File(PathBuf, Mutex<File>),
    System(Mutex<Option<UnixDatagram>>),
}

impl Sink {
    /// Standard error.
    pub fn stderr() -> Self {
        Sink(Arc::new(Place::Stderr))
    }

    /// The file at `path`, which is made for its owner only if it is not there.
    pub fn file(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let file = Mutex::new(open(&path)?);
        Ok(Sink(Arc::new(Place::File(path, file))))
    }

    /// The system's log.
    pub fn system() -> Self {
        Sink(Arc::new(Place::System(Mutex::new(None))))
    }

    /// Opens the file anew by its name; nothing to do for the others.
    pub fn reopen(&self) -> io::Result<()> {
        if let Place::File(path, file) = &*self.0 {
            let again = open(path)?;
            *file.lock().unwrap_or_else(PoisonError::into_inner) = again;
        }
        Ok(())
    }

    fn line(&self, level: Level) -> Line<'_> {
        Line {
            place: &self.0,
            level,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        self.line(Level::INFO)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        self.line(*meta.level())
    }
}

/// One line being written.
#[derive(Debug)]
pub struct Line<'a> {
    place: &'a Place,
    level: Level,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.place {
            Place::Stderr => io::stderr().write(bytes),
            Place::File(_, file) => file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(bytes),
            Place::System(socket) => {
                let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
                let message = message(self.level, bytes);
                // The daemon behind it may have been started again since the last line.
                let sent = socket
                    .as_ref()
                    .is_some_and(|open| open.send(&message).is_ok());
                if !sent {
                    *socket = connected().ok();
                    if let Some(open) = &*socket {
                        // Nobody is left to tell.
                        let _lost = open.send(&message);
                    }
                }
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connected() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(SYSTEM_LOG)?;
    // A log that does not keep up must not hold up the mount.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `<priority>mongo-backupfs[pid]: line`.
fn message(level: Level, line: &[u8]) -> Vec<u8> {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    let priority = DAEMON | severity;
    let mut message = format!("<{priority}>mongo-backupfs[{}]: ", std::process::id()).into_bytes();
    message.extend_from_slice(line.trim_ascii_end());
    message
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_renamed_file_is_left_alone_once_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let sink = Sink::file(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        writeln!(sink.make_writer(), "one").unwrap();
        fs::rename(&path, &old).unwrap();
        writeln!(sink.make_writer(), "two").unwrap();
        sink.reopen().unwrap();
        writeln!(sink.make_writer(), "three").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn the_systems_log_gets_a_priority() {
        let text = |level| String::from_utf8(message(level, b"a line\n")).unwrap();
        let pid = std::process::id();
        assert_eq!(
            text(Level::ERROR),
            format!("<27>mongo-backupfs[{pid}]: a line")
        );
        assert_eq!(
            text(Level::INFO),
            format!("<30>mongo-backupfs[{pid}]: a line")
        );
        assert_eq!(
            text(Level::TRACE),
            format!("<31>mongo-backupfs[{pid}]: a line")
        );
    }
}
