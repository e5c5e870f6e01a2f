//! What is wrong with an installation, and the cure of each: what `doctor` tells.
//!
//! Everything asked here is free: no task is created and no artifact is read. The machine is
//! looked at in [`machine`], each account in [`account`]; nothing is changed.

mod account;
mod machine;
mod proxy;

use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::Error;

pub use account::accounts;
pub use machine::machine;
pub use proxy::proxies;

/// How long a host may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Whether `place`, a host and a port, accepts connections, or in words what it does instead.
/// Nothing is asked of it.
async fn reach(place: &str) -> Result<(), String> {
    match timeout(CONNECT, TcpStream::connect(place)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("cannot be reached: {error}")),
        Err(_) => Err(format!("does not answer within {CONNECT:?}")),
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works, but not as it could.
    Warning,
    /// Something cannot work.
    Failure,
}

/// One thing that was looked at. As JSON, keys are added to, never renamed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: `configuration`, `/dev/fuse`, the name of an account and so on.
    pub subject: String,
    /// What was found, in one line.
    pub what: String,
    /// What to do about it; null where nothing is to be done.
    pub cure: Option<String>,
}

impl Finding {
    fn ok(subject: &str, what: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Ok,
            subject: subject.to_owned(),
            what: what.into(),
            cure: None,
        }
    }

    fn warning(subject: &str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Warning,
            subject: subject.to_owned(),
            what: what.into(),
            cure: Some(cure.into()),
        }
    }

    fn failure(subject: &str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Failure,
            ..Finding::warning(subject, what, cure)
        }
    }

    /// What an error says: most name their cure in their last words. `otherwise` is the cure where
    /// one does not.
    pub fn of_error(subject: &str, error: &Error, otherwise: &str) -> Self {
        let text = error.to_string();
        if let Some((what, cure)) = text.rsplit_once("; ") {
            return Finding::failure(subject, what, cure);
        }
        match text.rsplit_once(": run ") {
            Some((what, cure)) => Finding::failure(subject, what, format!("run {cure}")),
            None => Finding::failure(subject, text, otherwise),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_cure_is_taken_from_an_errors_last_words() {
        for (text, what, cure) in [
            ("it fails; do this", "it fails", "do this"),
            ("a; b; do this", "a; b", "do this"),
            ("/x is dead: run `y` again", "/x is dead", "run `y` again"),
            ("it fails", "it fails", "look there"),
        ] {
            let error = Error::new(Kind::Environment, text);
            let found = Finding::of_error("s", &error, "look there");
            assert_eq!(
                (found.what.as_str(), found.cure.as_deref()),
                (what, Some(cure))
            );
        }
    }
}
