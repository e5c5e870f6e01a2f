//! An artifact read as one stream, from its beginning to its end: for links that work once only.
//!
//! [`Download`] owns the connection in use and the patience that is left. What to ask after a break
//! is the caller's decision; nothing is asked of a link by way of trial, and an answer that the
//! protocol does not allow is not asked for again, because each request may be the last that the
//! link answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::attempts::{Accepted, Attempts};
use super::client::{Shared, Wanted};
pub use super::head::{Ask, Head};
use super::{head, probe};
use crate::error::{Error, Kind, Result};
use crate::links::Links;

/// How long a server is given to notice that its connection broke off: until then it may hold the
/// link for still in use, and refuse the next request.
const NOTICE: Duration = Duration::from_millis(300);

/// A link being read.
pub struct Download {
    shared: Arc<Shared>,
    links: Arc<Links>,
    attempts: Attempts,
    flow: Option<(Response, OwnedSemaphorePermit)>,
}

/// An answer whose body is about to be read.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What it says of its body.
    pub head: Head,
    /// The provider's own file name.
    pub source_name: Option<String>,
    /// A digest the store publishes, `algorithm:value`.
    pub digest: Option<String>,
}

impl Download {
    pub(super) fn new(shared: Arc<Shared>, links: Arc<Links>) -> Self {
        Download {
            attempts: Attempts::without_second_chance(Arc::clone(&shared)),
            shared,
            links,
            flow: None,
        }
    }

    /// Sends one GET, and another one only where no answer came or the answer was to come again. The
    /// body is read by [`Download::next`].
    ///
    /// [`Kind::Changed`] when the rest cannot be had and all must be asked anew; [`Kind::Expired`]
    /// when the link is used up; [`Kind::Credentials`] and [`Kind::Protocol`] are final; else the
    /// last failure before the budget was spent.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Answer> {
        self.flow = None;
        let accepted = self
            .attempts
            .ask(
                &self.links,
                &self.shared.streams,
                &Wanted::All(ask),
                |status, headers, code| head::judge(status, headers, code, ask),
            )
            .await;
        let Accepted {
            answer,
            learnt,
            lease,
            slot,
        } = accepted.map_err(|error| error.context("reading a link that works once only"))?;
        let (source_name, digest) = probe::described(answer.headers(), &lease.link.url.url());
        self.flow = Some((answer, slot));
        Ok(Answer {
            head: learnt,
            source_name,
            digest,
        })
    }

    /// The next bytes of the body; `None` at an end that the protocol vouches for.
    ///
    /// [`Kind::Unreachable`] when the body broke off: see [`Download::broken`].
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some((answer, _)) = &mut self.flow else {
            return Ok(None);
        };
        let broken = |words: &str| Err(Error::new(Kind::Unreachable, words));
        let begun = Instant::now();
        let piece = tokio::time::timeout(self.shared.options.idle_timeout, answer.chunk()).await;
        let bytes = match &piece {
            Ok(Ok(Some(piece))) => piece.len() as u64,
            _ => 0,
        };
        self.attempts.gained(begun.elapsed(), bytes);
        self.shared.stats.bytes.add(bytes);
        match piece {
            Ok(Ok(Some(piece))) => return Ok(Some(piece)),
            Ok(Ok(None)) => {
                self.flow = None;
                return Ok(None);
            }
            _ => self.flow = None,
        }
        match piece {
            Ok(_) => broken("the connection to the server broke off"),
            Err(_) => broken("the server fell silent"),
        }
    }

    /// The body broke off by `error`: returns after a pause if there is to be another try, else with
    /// the error.
    pub async fn broken(&mut self, error: Error) -> Result<()> {
        self.flow = None;
        tokio::time::sleep(NOTICE).await;
        self.attempts.failed(error).await
    }
}

/// A name that no other download has.
pub fn fresh_name() -> Result<String> {
    let number = getrandom::u64().map_err(|error| {
        Error::new(Kind::Environment, "the machine gives no random numbers").with_source(error)
    })?;
    Ok(format!("{number:016x}"))
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("flowing", &self.flow.is_some())
            .finish_non_exhaustive()
    }
}
