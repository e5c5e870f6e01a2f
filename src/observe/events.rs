//! The last failures, as `events.log` shows them, and the rule that each is said only once.
//!
//! Owns the ring of the last lines and the table of what was said lately. A failure is one line:
//! `RFC 3339 time, level, operation, path, errno, message`. The same operation on the same path
//! failing in the same way is said again only after [`QUIET`], with the number of repetitions, in
//! the ring and in the log alike. Messages come from [`Error`], which holds no secret.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::error::{Error, Kind};
use crate::names;

/// How long a repeated failure stays unsaid.
const QUIET: Duration = Duration::from_secs(300);

/// Lines kept.
const LINES: usize = 1000;

/// Most different failures remembered as said; beyond it the oldest may be said again early.
const REMEMBERED: usize = 4096;

/// How much a failure matters to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everyday answers (an unknown name, an interrupted wait): logged for debugging, no event.
    Debug,
    /// Expected, but worth a line.
    Info,
    /// Something failed that should not.
    Warn,
}

impl Level {
    /// How much it matters that `operation` failed with `kind`.
    pub fn of(operation: &str, kind: Kind) -> Self {
        match kind {
            // A file that was listed is gone when it is opened.
            Kind::NotFound if operation == "open" => Level::Warn,
            Kind::ReadOnly
            | Kind::NotFound
            | Kind::NotDirectory
            | Kind::IsDirectory
            | Kind::NameTooLong
            | Kind::NoAttribute
            | Kind::Interrupted
            | Kind::Stopping => Level::Debug,
            Kind::NotReady | Kind::Unsupported => Level::Info,
            _ => Level::Warn,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
        }
    }
}

/// The ring. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    state: Arc<Mutex<State>>,
    clock: SharedClock,
    logged: bool,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    said: HashMap<Said, Repeats>,
    total: u64,
    last: Option<LastError>,
}

#[derive(PartialEq, Eq, Hash)]
struct Said {
    operation: &'static str,
    path: String,
    kind: Kind,
}

struct Repeats {
    since: Instant,
    unsaid: u64,
}

/// The most recent failure that mattered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LastError {
    /// When.
    pub time: Timestamp,
    /// Which operation.
    pub operation: &'static str,
    /// On which path of the tree.
    pub path: String,
    /// What and why.
    pub message: String,
}

impl Events {
    /// An empty ring; what enters it is logged too.
    pub fn new(clock: SharedClock) -> Self {
        Events {
            state: Arc::default(),
            clock,
            logged: true,
        }
    }

    /// An empty ring for a command, which says itself what failed.
    pub fn unlogged(clock: SharedClock) -> Self {
        Events {
            logged: false,
            ..Self::new(clock)
        }
    }

    /// Takes note of a failed `operation` on `path`.
    pub fn failed(&self, operation: &'static str, path: &str, error: &Error) {
        let level = Level::of(operation, error.kind());
        if level == Level::Debug {
            tracing::debug!(operation, path = %names::display(path), %error, "failed");
            return;
        }
        let Some(unsaid) = self.state().say(operation, path, error.kind()) else {
            return;
        };
        let time = self.clock.now();
        let path = names::display(path);
        let mut message = names::display(&error.to_string());
        if unsaid > 0 {
            message.push_str(&format!(
                " ({unsaid} more like this since it was last said)"
            ));
        }
        if !self.logged || error.kind() == Kind::Denied {
            // A denial was logged by whoever denied it, once per process and not for each path.
            tracing::debug!(operation, path, error = message, "failed");
        } else if level == Level::Warn {
            tracing::warn!(operation, path, error = message, "failed");
        } else {
            tracing::info!(operation, path, error = message, "failed");
        }
        let line = format!(
            "{time:.3} {} {operation} {path} {} {message}",
            level.word(),
            errno_name(error.errno()),
        );
        self.state().push(
            line,
            LastError {
                time,
                operation,
                path,
                message,
            },
        );
    }

    /// All lines, oldest first, each ended by a newline.
    pub fn text(&self) -> String {
        self.state()
            .lines
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect()
    }

    /// How many lines were ever written.
    pub fn total(&self) -> u64 {
        self.state().total
    }

    /// The most recent failure.
    pub fn last(&self) -> Option<LastError> {
        self.state().last.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// `None` when this was said lately; else how often it was left unsaid since then.
    fn say(&mut self, operation: &'static str, path: &str, kind: Kind) -> Option<u64> {
        let now = Instant::now();
        let said = Said {
            operation,
            path: path.to_owned(),
            kind,
        };
        if let Some(repeats) = self.said.get_mut(&said) {
            if now < repeats.since + QUIET {
                repeats.unsaid += 1;
                return None;
            }
            repeats.since = now;
            return Some(std::mem::take(&mut repeats.unsaid));
        }
        if self.said.len() >= REMEMBERED {
            self.said.retain(|_, repeats| now < repeats.since + QUIET);
        }
        if self.said.len() >= REMEMBERED {
            self.said.clear();
        }
        self.said.insert(
            said,
            Repeats {
                since: now,
                unsaid: 0,
            },
        );
        Some(0)
    }

    fn push(&mut self, line: String, last: LastError) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.total += 1;
        self.last = Some(last);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("total", &self.total())
            .finish_non_exhaustive()
    }
}

/// The symbolic name of an errno that [`Kind::errno`] can give.
pub fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::EROFS => "EROFS",
        libc::ENOENT => "ENOENT",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ENODATA => "ENODATA",
        libc::EBADF => "EBADF",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::EAGAIN => "EAGAIN",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ESTALE => "ESTALE",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EINTR => "EINTR",
        libc::ENODEV => "ENODEV",
        _ => "EIO",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl crate::clock::Clock for Fixed {
        fn now(&self) -> Timestamp {
            "2024-05-06T07:08:09.5Z".parse().unwrap()
        }
    }

    fn events() -> Events {
        Events::new(Arc::new(Fixed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_said_once_and_counted_until_it_is_said_again() {
        let events = events();
        let error = Error::new(Kind::Unreachable, "no route to host");
        for _ in 0..5 {
            events.failed("open", "/a/b", &error);
        }
        assert_eq!(
            events.text(),
            "2024-05-06T07:08:09.500Z warn open /a/b EIO no route to host\n"
        );
        tokio::time::advance(QUIET).await;
        events.failed("open", "/a/b", &error);
        assert!(
            events
                .text()
                .ends_with("no route to host (4 more like this since it was last said)\n")
        );
        assert_eq!(events.total(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn another_path_operation_or_kind_is_another_failure() {
        let events = events();
        for (operation, path, kind) in [
            ("open", "/a", Kind::Unreachable),
            ("open", "/b", Kind::Unreachable),
            ("read", "/a", Kind::Unreachable),
            ("open", "/a", Kind::Denied),
        ] {
            events.failed(operation, path, &Error::new(kind, "x"));
        }
        assert_eq!(events.total(), 4);
        assert_eq!(events.last().unwrap().path, "/a");
    }

    #[tokio::test(start_paused = true)]
    async fn everyday_answers_are_no_events() {
        let events = events();
        events.failed("lookup", "/x", &Error::new(Kind::NotFound, "no such name"));
        events.failed("read", "/x", &Error::new(Kind::Interrupted, "signal"));
        assert_eq!(events.text(), "");
        events.failed("open", "/x", &Error::new(Kind::NotFound, "it was deleted"));
        assert!(
            events
                .text()
                .ends_with(" warn open /x ENOENT it was deleted\n")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_ring_and_the_memory_of_what_was_said_are_bounded() {
        let events = events();
        let error = Error::new(Kind::Unreachable, "x");
        for n in 0..REMEMBERED + 10 {
            events.failed("open", &format!("/{n}"), &error);
        }
        assert_eq!(events.text().lines().count(), LINES);
        assert!(events.state().said.len() <= REMEMBERED);
    }

    #[tokio::test(start_paused = true)]
    async fn remote_text_cannot_forge_a_line() {
        let events = events();
        events.failed(
            "open",
            "/a\u{202e}b\nc",
            &Error::new(Kind::Unreachable, "one\ntwo"),
        );
        assert_eq!(events.text().lines().count(), 1);
        assert!(!events.text().contains('\u{202e}'));
    }
}
