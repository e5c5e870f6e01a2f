//! Asking until an answer is accepted: the loop that probes and parts share.
//!
//! [`Attempts`] owns the lease in use and what patience is left. Only time spent waiting for the
//! network counts against the retry budget, neither the queue for a free slot nor the time that a
//! reader takes between two pieces.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use reqwest::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::debug;

use super::client::{Shared, Wanted};
use super::retry::{Patience, http_date, retry_after};
use super::validate::{Verdict, disguised, store_code};
use crate::error::{Error, Kind, Result, Retry};
use crate::links::{Lease, Links, Refusal};

/// The most that is read of an error's body.
const LONGEST_REFUSAL: usize = 64 << 10;
/// The longest that an error's body is waited for: its status already says enough.
const REFUSAL_WAIT: Duration = Duration::from_secs(5);

/// So many answers in a row may be not as the protocol wants them: a proxy or a server in trouble
/// may answer rightly on another connection, but whoever is wrong this often is wrong for good.
const MOST_MISTAKES: u32 = 5;

/// One answer that was accepted, the lease it came by, and the slot its body occupies.
pub(super) struct Accepted<T> {
    pub(super) answer: Response,
    pub(super) learnt: T,
    pub(super) lease: Lease,
    pub(super) slot: OwnedSemaphorePermit,
}

/// The tries of one probe or part.
pub(super) struct Attempts {
    shared: Arc<Shared>,
    lease: Option<Lease>,
    patience: Patience,
    /// Time spent waiting for the network.
    spent: Duration,
    /// Answers in a row that were not as the protocol wants them, and how many are final.
    mistakes: u32,
    most_mistakes: u32,
}

impl Attempts {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let options = &shared.options;
        Attempts {
            patience: Patience::new(options.retry_budget, options.min_rate),
            shared,
            lease: None,
            spent: Duration::ZERO,
            mistakes: 0,
            most_mistakes: MOST_MISTAKES,
        }
    }

    /// Tries of a link that each answer may use up.
    pub(super) fn without_second_chance(shared: Arc<Shared>) -> Self {
        Attempts {
            most_mistakes: 1,
            ..Attempts::new(shared)
        }
    }

    /// `bytes` came after waiting for them for `wait`.
    pub(super) fn gained(&mut self, wait: Duration, bytes: u64) {
        self.spent += wait;
        if bytes > 0 {
            self.mistakes = 0;
            self.patience.gained(self.spent, bytes);
        }
    }

    /// Asks for what is `wanted` until `judge` accepts an answer or the failure is final.
    pub(super) async fn ask<T>(
        &mut self,
        links: &Links,
        slots: &Arc<Semaphore>,
        wanted: &Wanted<'_>,
        judge: impl Fn(StatusCode, &HeaderMap, Option<&str>) -> Verdict<T>,
    ) -> Result<Accepted<T>> {
        loop {
            let lease = match self.lease.take() {
                Some(renewed) => renewed,
                None => links.lease().await?,
            };
            if links.clock_jumped() {
                self.shared.reconnect();
            }
            let slot = Arc::clone(slots).acquire_owned().await.map_err(|_| {
                // Nobody closes it; said for completeness.
                Error::new(Kind::Stopping, "the mount is shutting down")
            })?;
            let start = Instant::now();
            self.shared.paused().await;
            let sent = Instant::now();
            let answer = self.shared.get(&lease.link, wanted).await;
            self.spent += start.elapsed();
            let mut answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    drop(slot);
                    self.failed(error).await?;
                    continue;
                }
            };
            self.observe(links, &answer);
            let status = answer.status();
            let failed = status.is_client_error() || status.is_server_error();
            let mut code = match failed {
                true => refusal_code(&mut answer).await,
                false => None,
            };
            let mut verdict = judge(status, answer.headers(), code.as_deref());
            if !failed && matches!(verdict, Verdict::Protocol(_)) && is_json(answer.headers()) {
                code = refusal_code(&mut answer).await;
                if let Some(how) = code.as_deref().and_then(disguised) {
                    verdict = Verdict::Refused(how);
                }
            }
            match verdict {
                Verdict::Accept(learnt) => {
                    links.worked(&lease);
                    self.shared.sizing().answered(sent.elapsed());
                    return Ok(Accepted {
                        answer,
                        learnt,
                        lease,
                        slot,
                    });
                }
                Verdict::Refused(how) => {
                    drop(slot);
                    self.lease = Some(self.refused(links, &lease, how, status, code).await?);
                }
                Verdict::Changed => {
                    return Err(Error::new(
                        Kind::Changed,
                        "the artifact was replaced at the provider since it was opened; open it \
                         again for the new version",
                    ));
                }
                Verdict::Retry(kind) => {
                    drop(slot);
                    let error = self.passing(links, &answer, kind, code);
                    drop(answer);
                    self.failed(error).await?;
                }
                Verdict::Protocol(why) => {
                    drop((slot, answer));
                    self.failed(Error::new(Kind::Protocol, why)).await?;
                }
            }
        }
    }

    /// A try failed. Returns after the back-off if there is to be another, else with the error.
    pub(super) async fn failed(&mut self, error: Error) -> Result<()> {
        let again = match error.kind() {
            Kind::Protocol => {
                self.shared.stats.protocol_errors.add(1);
                self.mistakes += 1;
                self.mistakes < self.most_mistakes
            }
            kind => kind.retry() == Retry::Backoff,
        };
        if !again {
            return Err(error);
        }
        // Without randomness, waits are merely less spread.
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        let asked = error.retry_after();
        let Some(wait) = self.patience.failed(self.spent, asked, random) else {
            let budget = self.shared.options.retry_budget;
            return Err(error.context(format!("gave up within {budget:?}")));
        };
        debug!(%error, ?wait, "trying again");
        self.shared.stats.retries.add(1);
        tokio::time::sleep(wait).await;
        self.spent += wait;
        Ok(())
    }

    async fn refused(
        &self,
        links: &Links,
        lease: &Lease,
        how: Refusal,
        status: StatusCode,
        code: Option<String>,
    ) -> Result<Lease> {
        self.shared.stats.refused.add(1);
        let code = code.unwrap_or_default();
        debug!(status = status.as_u16(), %code, "link refused");
        let renewed = links.refused(lease, how).await.map_err(|error| {
            let said = format!("{} {code}", status.as_u16());
            error.context(format!("the store answered {}", said.trim_end()))
        })?;
        self.shared.stats.retries.add(1);
        Ok(renewed)
    }

    /// A passing failure in words, with the wait that the store asks of everybody.
    fn passing(&self, links: &Links, answer: &Response, kind: Kind, code: Option<String>) -> Error {
        let status = answer.status().as_u16();
        let code = code.map(|code| format!(" {code}")).unwrap_or_default();
        let error = Error::new(kind, format!("the store answered {status}{code}"));
        let asked = answer.headers().get(RETRY_AFTER);
        let asked = asked.and_then(|value| retry_after(value.to_str().ok()?, links.host_now()));
        match asked {
            Some(wait) => {
                if wait < self.shared.options.retry_budget {
                    self.shared.pause(wait);
                }
                error.with_retry_after(wait)
            }
            None => error,
        }
    }

    fn observe(&self, links: &Links, answer: &Response) {
        let date = answer.headers().get(DATE);
        if let Some(date) = date.and_then(|value| http_date(value.to_str().ok()?)) {
            links.observe_date(date);
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

/// The store's error code, from a bounded part of the body. Not to get one is no failure.
async fn refusal_code(answer: &mut Response) -> Option<String> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(piece)) = answer.chunk().await {
            let room = LONGEST_REFUSAL - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() == LONGEST_REFUSAL {
                break;
            }
        }
    };
    // What came until then is judged either way.
    let _in_time = tokio::time::timeout(REFUSAL_WAIT, read).await;
    store_code(&body)
}
