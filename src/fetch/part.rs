//! A range being fetched: pieces in order, resumed at the first missing byte.
//!
//! [`Part`] owns the body it reads and the position of the first byte it has not delivered. Every
//! interruption (a cut, a reset, silence, a crawl, a passing failure, an expired link) ends in a
//! new request from there, as long as the retry budget allows. So does a connection that lags far
//! behind its fellows: what it still owes is asked of another one, never of both.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::attempts::{Accepted, Attempts};
use super::client::{Shared, Wanted};
use super::retry::Pace;
use super::validate::{self, judge};
use crate::error::{Error, Kind, Result};
use crate::links::Links;
use crate::model::Validator;

/// How long the end of a complete body is waited for, so that its connection can be used again.
pub(super) const END_WAIT: Duration = Duration::from_millis(250);

/// How long a connection may lag behind the others before it is given up.
const LAG_WINDOW: Duration = Duration::from_secs(2);

/// Connections that one part gives up for lagging; the next one is good enough.
const MOST_LAGGARDS: u32 = 2;

/// A range being fetched. Whoever polls [`Part::next`] drives it; dropping it ends its request.
pub struct Part {
    shared: Arc<Shared>,
    links: Arc<Links>,
    validator: Arc<Validator>,
    /// What is still to be delivered.
    missing: Range<u64>,
    attempts: Attempts,
    flow: Option<Flow>,
    /// The last flow was given up for its pace, with its bytes delivered.
    crawled: bool,
    /// Flows given up because others were much faster.
    laggards: u32,
    over: bool,
}

/// A body being read.
struct Flow {
    answer: Response,
    body: validate::Body,
    /// When its head came, and how many bytes since.
    since: Instant,
    carried: u64,
    pace: Pace,
    /// What is expected of it beside the others, if that is known.
    lag: Option<Pace>,
    _slot: OwnedSemaphorePermit,
}

impl Part {
    pub(super) fn new(
        shared: Arc<Shared>,
        links: Arc<Links>,
        validator: Arc<Validator>,
        range: Range<u64>,
    ) -> Self {
        Part {
            attempts: Attempts::new(Arc::clone(&shared)),
            shared,
            links,
            over: range.is_empty() || range.end > validator.size,
            validator,
            missing: range,
            flow: None,
            crawled: false,
            laggards: 0,
        }
    }

    /// The next bytes in order; `None` exactly when the whole range was delivered. After an error
    /// the part is over.
    ///
    /// [`Kind::Changed`] when the store has another version now; [`Kind::Expired`] and
    /// [`Kind::Credentials`] when no link works; else the last failure before the budget was spent.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.over {
            return Err(Error::new(
                Kind::Internal,
                "a part was read after its end or asked for bytes outside the file",
            ));
        }
        match self.advance().await {
            Ok(piece) => Ok(piece),
            Err(error) => {
                self.over = true;
                self.flow = None;
                let at = self.missing.start;
                Err(error.context(format!("reading at byte {at}")))
            }
        }
    }

    /// Cancel-safe: once bytes are counted in, they are returned without another await.
    async fn advance(&mut self) -> Result<Option<Bytes>> {
        if std::mem::take(&mut self.crawled) {
            self.interrupted("the store sends too slowly").await?;
        }
        while !self.missing.is_empty() {
            let flow = match &mut self.flow {
                Some(flow) => flow,
                None => {
                    let flow = self.open().await?;
                    self.flow.insert(flow)
                }
            };
            let start = Instant::now();
            let idle = match flow.lag {
                Some(_) => self.shared.options.idle_timeout.min(LAG_WINDOW),
                None => self.shared.options.idle_timeout,
            };
            let piece = tokio::time::timeout(idle, flow.answer.chunk()).await;
            let wait = start.elapsed();
            let interruption = match piece {
                Ok(Ok(Some(piece))) if piece.is_empty() => continue,
                Ok(Ok(Some(piece))) => {
                    let bytes = piece.len() as u64;
                    flow.carried += bytes;
                    let slow = flow.pace.is_slow(wait, bytes);
                    let lags = flow
                        .lag
                        .as_mut()
                        .is_some_and(|lag| lag.is_slow(wait, bytes));
                    let piece = self.take(wait, piece);
                    if (slow || lags) && !self.missing.is_empty() {
                        self.give_up_flow();
                        self.crawled = slow;
                        self.overtaken(lags);
                    }
                    return Ok(Some(piece));
                }
                Err(_) if flow.lag.is_some() => {
                    self.attempts.gained(wait, 0);
                    self.give_up_flow();
                    self.overtaken(true);
                    continue;
                }
                Ok(Ok(None)) => "the store ended the body too early",
                Ok(Err(_)) => "the connection to the store broke off",
                Err(_) => "the store fell silent",
            };
            self.attempts.gained(wait, 0);
            self.give_up_flow();
            self.interrupted(interruption).await?;
        }
        Ok(None)
    }

    /// Ends the flow before its range is complete. What is missing will be asked anew.
    fn give_up_flow(&mut self) {
        if let Some(flow) = self.flow.take() {
            flow.measure(&self.shared);
        }
    }

    /// Notes whether the flow just given up lagged behind others: that is nobody's failure, so the
    /// next one begins at once.
    fn overtaken(&mut self, lagged: bool) {
        if lagged {
            self.laggards += 1;
            self.shared.stats.retries.add(1);
        }
    }

    async fn interrupted(&mut self, why: &str) -> Result<()> {
        let error = Error::new(Kind::Unreachable, why);
        self.attempts.failed(error).await
    }

    /// Counts `piece` in, cut to what is missing. Ends the flow with the range.
    fn take(&mut self, wait: Duration, mut piece: Bytes) -> Bytes {
        let room = self.missing.end - self.missing.start;
        let surplus = piece.len() as u64 > room;
        if surplus {
            // `room` is less than a length in memory.
            piece.truncate(room as usize);
        }
        let length = piece.len() as u64;
        self.missing.start += length;
        self.attempts.gained(wait, length);
        self.shared.stats.bytes.add(length);
        if self.missing.is_empty()
            && let Some(flow) = self.flow.take()
        {
            flow.measure(&self.shared);
            match flow.body {
                validate::Body::Exact if surplus => self.shared.stats.protocol_errors.add(1),
                validate::Body::Exact => {
                    tokio::spawn(flow.end(Arc::clone(&self.shared)));
                }
                validate::Body::Longer => {}
            }
        }
        piece
    }

    async fn open(&mut self) -> Result<Flow> {
        let options = &self.shared.options;
        let pace = Pace::new(options.min_rate, options.slow_window);
        let usual = self.shared.sizing().lagging();
        let lag = usual
            .filter(|_| self.laggards < MOST_LAGGARDS)
            .map(|rate| Pace::new(rate, LAG_WINDOW));
        let (wanted, pinned) = (&self.missing, &*self.validator);
        let Accepted {
            answer,
            learnt,
            slot,
            ..
        } = self
            .attempts
            .ask(
                &self.links,
                &self.shared.parts,
                &Wanted::Range(wanted, Some(pinned)),
                |status, headers, code| judge(status, headers, code, wanted, pinned),
            )
            .await?;
        Ok(Flow {
            answer,
            body: learnt,
            since: Instant::now(),
            carried: 0,
            pace,
            lag,
            _slot: slot,
        })
    }
}

impl Flow {
    /// Notes how fast it was.
    fn measure(&self, shared: &Shared) {
        shared.sizing().carried(self.since.elapsed(), self.carried);
    }

    /// Reads the end of a complete body. If bytes come instead, or nothing in time, the connection
    /// is dropped.
    async fn end(mut self, shared: Arc<Shared>) {
        let end = tokio::time::timeout(END_WAIT, self.answer.chunk()).await;
        if matches!(end, Ok(Ok(Some(piece))) if !piece.is_empty()) {
            shared.stats.protocol_errors.add(1);
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("missing", &self.missing)
            .field("flowing", &self.flow.is_some())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}
