//! One error type for the whole program: what failed, for which path, why, and what to do about it.
//!
//! A [`Kind`] says what the failure means; two small tables turn it into an errno for the kernel
//! and into a retry decision for callers. `Display` is one line without secrets: whoever builds an
//! error passes remote text through [`one_line`] and addresses through [`crate::secret::SafeUrl`].

use std::fmt;
use std::time::Duration;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a failure means. Closed on purpose: a new kind needs a line in both tables below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Something would have changed the tree; it is read-only.
    ReadOnly,
    /// A complete listing said that there is no such name.
    NotFound,
    /// A directory was expected.
    NotDirectory,
    /// A file was expected.
    IsDirectory,
    /// The name exceeds what a path component may hold.
    NameTooLong,
    /// No such extended attribute.
    NoAttribute,
    /// The handle or inode number is not one we gave out.
    BadHandle,
    /// Spending is not allowed here: by `on_open`, `deny_processes`, `spend_uids`, a limit.
    Denied,
    /// The provider refused the credentials or lacks a permission.
    Credentials,
    /// The instance is busy with another task past the wait.
    Busy,
    /// The caller asked not to wait and the task is not ready.
    NotReady,
    /// The task or the operation was not ready in time.
    TimedOut,
    /// The task ended without an artifact.
    TaskFailed,
    /// The provider no longer holds the artifact of this task.
    Expired,
    /// The artifact changed or was removed under an open handle.
    Changed,
    /// This backup cannot be downloaded at all.
    Unsupported,
    /// The caller has a signal pending, or is gone.
    Interrupted,
    /// The mount is shutting down.
    Stopping,
    /// The peer said something that the protocol does not allow.
    Protocol,
    /// The peer could not be reached or broke off; nothing can be said about the request's effect
    /// unless it was idempotent.
    Unreachable,
    /// The peer answered with a passing failure (5xx).
    Unavailable,
    /// The peer asks to slow down.
    Throttled,
    /// A signed link was refused: expired, not valid yet, or not for us.
    LinkRefused,
    /// A create request whose outcome is unknown: it may have been carried out.
    OutcomeUnknown,
    /// The local cache failed; never fatal to a read.
    Cache,
    /// The task ledger failed or is damaged: no new task may be created.
    Ledger,
    /// The configuration is wrong.
    Config,
    /// The command line is wrong.
    Usage,
    /// The machine lacks something: a mountpoint, /dev/fuse, fusermount3.
    Environment,
    /// A bug of ours: a panic or a broken invariant.
    Internal,
}

/// What a caller may do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request would fail again.
    Never,
    /// Try again after a back-off.
    Backoff,
    /// Ask for a fresh link once, then try again.
    RefreshLink,
}

impl Kind {
    /// The errno the kernel is told.
    pub fn errno(self) -> i32 {
        match self {
            Kind::ReadOnly => libc::EROFS,
            Kind::NotFound => libc::ENOENT,
            Kind::NotDirectory => libc::ENOTDIR,
            Kind::IsDirectory => libc::EISDIR,
            Kind::NameTooLong => libc::ENAMETOOLONG,
            Kind::NoAttribute => libc::ENODATA,
            Kind::BadHandle => libc::EBADF,
            Kind::Denied | Kind::Credentials => libc::EACCES,
            Kind::Busy => libc::EBUSY,
            Kind::NotReady => libc::EAGAIN,
            Kind::TimedOut => libc::ETIMEDOUT,
            Kind::Changed => libc::ESTALE,
            Kind::Unsupported => libc::EOPNOTSUPP,
            Kind::Interrupted => libc::EINTR,
            Kind::Stopping => libc::ENODEV,
            Kind::TaskFailed
            | Kind::Expired
            | Kind::Protocol
            | Kind::Unreachable
            | Kind::Unavailable
            | Kind::Throttled
            | Kind::LinkRefused
            | Kind::OutcomeUnknown
            | Kind::Cache
            | Kind::Ledger
            | Kind::Config
            | Kind::Usage
            | Kind::Environment
            | Kind::Internal => libc::EIO,
        }
    }

    /// Whether an idempotent request may be tried again.
    pub fn retry(self) -> Retry {
        match self {
            Kind::Unreachable | Kind::Unavailable | Kind::Throttled => Retry::Backoff,
            Kind::LinkRefused => Retry::RefreshLink,
            _ => Retry::Never,
        }
    }

    /// Exit code of a command that ends with this kind: 2 for usage and configuration, else 1.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Config | Kind::Usage => 2,
            _ => 1,
        }
    }
}

/// A failure with its meaning, its words and its cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    context: Vec<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of `kind`; `message` says what happened and, where there is one, the cure.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: one_line(&message.into()),
            context: Vec::new(),
            retry_after: None,
            source: None,
        }))
    }

    /// Keeps the cause for logs. The cause must not print secrets: strip addresses first.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says what was being done, outermost last: "opening /atlas/c0/…".
    #[must_use]
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        self.0.context.push(one_line(&doing.into()));
        self
    }

    /// How long the peer asked us to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// What the failure means.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// How long the peer asked us to wait, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The errno for the kernel.
    pub fn errno(&self) -> i32 {
        self.0.kind.errno()
    }

    /// A copy for another waiter of the same shared work. The source chain is flattened to text.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Error(Box::new(Inner {
            kind: self.0.kind,
            message: match &self.0.source {
                Some(source) => format!("{}: {}", self.0.message, chain(source.as_ref())),
                None => self.0.message.clone(),
            },
            context: self.0.context.clone(),
            retry_after: self.0.retry_after,
            source: None,
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for doing in self.0.context.iter().rev() {
            write!(f, "{doing}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {}", chain(source.as_ref()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

/// `source` and its causes, as one line.
fn chain(source: &(dyn std::error::Error + 'static)) -> String {
    let mut text = one_line(&source.to_string());
    let mut next = source.source();
    while let Some(cause) = next {
        let words = one_line(&cause.to_string());
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// Remote or foreign text made safe for one log line: control characters become spaces, at most
/// 500 characters are kept.
pub fn one_line(text: &str) -> String {
    const LIMIT: usize = 500;
    let mut line: String = text
        .trim()
        .chars()
        .take(LIMIT)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.trim().chars().nth(LIMIT).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_with_context_outermost_first() {
        let error = Error::new(Kind::Protocol, "bad\nanswer")
            .context("reading b")
            .context("copying a");
        assert_eq!(error.to_string(), "copying a: reading b: bad answer");
    }

    #[test]
    fn duplicate_keeps_kind_words_and_wait() {
        let error = Error::new(Kind::Throttled, "slow down")
            .with_source(std::io::Error::other("why"))
            .with_retry_after(Duration::from_secs(3));
        let copy = error.duplicate();
        assert_eq!(copy.kind(), Kind::Throttled);
        assert_eq!(copy.to_string(), "slow down: why");
        assert_eq!(copy.retry_after(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn only_passing_failures_are_retried() {
        assert_eq!(Kind::Unavailable.retry(), Retry::Backoff);
        assert_eq!(Kind::LinkRefused.retry(), Retry::RefreshLink);
        for kind in [
            Kind::OutcomeUnknown,
            Kind::Changed,
            Kind::Protocol,
            Kind::Credentials,
        ] {
            assert_eq!(kind.retry(), Retry::Never, "{kind:?}");
        }
    }

    #[test]
    fn long_remote_text_is_cut() {
        let line = one_line(&"x".repeat(10_000));
        assert_eq!(line.chars().count(), 501);
    }
}
