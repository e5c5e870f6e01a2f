//! Calls with retries: an idempotent call is tried again within its budget, a creating call only
//! while it surely had no effect. A "slow down" pauses every call of the account.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::call::{Answer, Call, Effect};
use super::retry::{Budget, backoff, throttle_backoff};
use super::transport::{Transport, Trouble};
use crate::clock::SharedClock;
use crate::config::ProviderConfig;
use crate::error::{Error, Kind, Result, Retry, one_line};

/// Most calls of one account in flight.
const IN_FLIGHT: usize = 8;
/// Longest pause of the account: a longer Retry-After is reported, and then asked about again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A host that never answered is more likely misspelt than down: it is given up after this time.
const FIRST_CONTACT: Duration = Duration::from_secs(5);
/// Bounds a dialect that never gets enough of signing.
const MOST_SIGNATURES: u32 = 4;

/// What differs between clouds: how a call is signed and what its answer means for retries.
#[async_trait]
pub trait Dialect: Send + Sync {
    /// What one call remembers from attempt to attempt.
    type Session: Default + Send;

    /// Makes `call` ready to send; asked again before every attempt. May change address, headers
    /// and body. `now` is the time by the cloud's clock; a signature that itself needs a call
    /// spends the same `budget`.
    async fn sign(
        &self,
        call: &mut Call,
        session: &mut Self::Session,
        now: Timestamp,
        budget: &mut Budget,
    ) -> Result<()>;

    /// What to do about `answer`. The default knows the usual statuses; a cloud that reports
    /// failures in the body of a 200 looks there.
    fn judge(&self, answer: &Answer, session: &mut Self::Session) -> Verdict {
        let _ = session;
        Verdict::of_status(answer.status)
    }

    /// How long `answer` asks to wait, where the cloud says so otherwise than by `Retry-After`.
    fn asked_wait(&self, answer: &Answer) -> Option<Duration> {
        let _ = answer;
        None
    }

    /// What a passing failure is called.
    fn complaint(&self, answer: &Answer) -> String {
        answer.status.to_string()
    }
}

/// What to do about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it to the caller, success or refusal.
    Final,
    /// It was refused for its signature alone, without effect: sign again and send at once.
    SignAgain,
    /// It was refused without effect, and everybody is asked to slow down.
    Throttled,
    /// A passing failure, perhaps with an effect.
    Unavailable,
}

impl Verdict {
    /// The meaning of a status alone.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Verdict::Throttled,
            StatusCode::REQUEST_TIMEOUT => Verdict::Unavailable,
            status if status.is_server_error() => Verdict::Unavailable,
            _ => Verdict::Final,
        }
    }
}

/// One account's way to its cloud.
pub struct Api {
    transport: Transport,
    retry_budget: Duration,
    pause: Pause,
    permits: Semaphore,
}

impl Api {
    /// An account as configured; connects to nothing yet.
    pub fn new(config: &ProviderConfig, clock: SharedClock) -> Result<Self> {
        Ok(Api {
            transport: Transport::new(config, clock)?,
            retry_budget: config.retry_budget,
            pause: Pause::default(),
            permits: Semaphore::new(IN_FLIGHT),
        })
    }

    /// The time by the cloud's clock, as far as its answers have shown it.
    pub fn now(&self) -> Timestamp {
        self.transport.now()
    }

    /// The configured budget, for one operation.
    pub fn budget(&self) -> Budget {
        Budget::new(self.retry_budget)
    }

    /// Sends `call` until there is an answer for the caller to interpret: any status but 3xx, 408,
    /// 429 and 5xx, unless the dialect judges otherwise.
    ///
    /// Errors: [`Kind::Unreachable`], [`Kind::Unavailable`], [`Kind::Throttled`] when the budget is
    /// spent; [`Kind::OutcomeUnknown`] for a creating call that may have been carried out;
    /// [`Kind::Protocol`] for redirects and oversize answers; whatever signing fails with.
    pub async fn call<D: Dialect>(
        &self,
        call: &Call,
        dialect: &D,
        budget: &mut Budget,
    ) -> Result<Answer> {
        let mut session = D::Session::default();
        let mut failures = 0;
        let mut signatures = 0;
        let begun = Instant::now();
        loop {
            self.pause.pass(budget).await?;
            let mut signed = call.clone();
            dialect
                .sign(&mut signed, &mut session, self.now(), budget)
                .await?;
            let sent = Instant::now();
            let result = {
                let _permit = self
                    .permits
                    .acquire()
                    .await
                    .map_err(|_| Error::new(Kind::Internal, "the call permits were closed"))?;
                self.transport.attempt(signed).await
            };
            let took = sent.elapsed();
            let trouble = match result {
                Err(trouble) => {
                    debug!(?call, ?took, error = %trouble.error, "API call failed");
                    trouble
                }
                Ok(answer) => {
                    let verdict = dialect.judge(&answer, &mut session);
                    debug!(
                        ?call,
                        ?took,
                        status = answer.status.as_u16(),
                        ?verdict,
                        "API call"
                    );
                    match verdict {
                        Verdict::Final => return Ok(answer),
                        Verdict::SignAgain if signatures < MOST_SIGNATURES => {
                            signatures += 1;
                            continue;
                        }
                        Verdict::SignAgain => return Ok(answer),
                        Verdict::Throttled => {
                            self.throttled(self.asked_wait(&answer, dialect), failures)
                        }
                        Verdict::Unavailable => {
                            let asked = self.asked_wait(&answer, dialect);
                            self.unavailable(&answer, &dialect.complaint(&answer), asked)
                        }
                    }
                }
            };
            budget.lose(took);
            self.ready_again(call, trouble, failures, begun, budget)
                .await?;
            failures += 1;
        }
    }

    /// Waits until the call may be sent again, or fails with what stands in the way.
    async fn ready_again(
        &self,
        call: &Call,
        trouble: Trouble,
        failures: u32,
        begun: Instant,
        budget: &mut Budget,
    ) -> Result<()> {
        let Trouble { error, harmless } = trouble;
        if call.effect == Effect::Creates && !harmless {
            return Err(Error::new(
                Kind::OutcomeUnknown,
                format!("{error}; the request may have been carried out, so it is not sent again"),
            ));
        }
        if error.kind().retry() != Retry::Backoff {
            return Err(error);
        }
        let own = backoff(failures, random());
        let wait = error.retry_after().map_or(own, |asked| asked.max(own));
        // Whoever is throttled waits in `Pause::pass`, with everybody else.
        if error.kind() == Kind::Throttled && budget.covers(wait) {
            return Ok(());
        }
        let first_contact =
            !self.transport.has_answered() && begun.elapsed() + wait > FIRST_CONTACT;
        if first_contact || !budget.afford(wait) {
            return Err(match failures {
                0 => error,
                _ => error.context(format!("given up after {} attempts", failures + 1)),
            });
        }
        sleep(wait).await;
        Ok(())
    }

    fn asked_wait<D: Dialect>(&self, answer: &Answer, dialect: &D) -> Option<Duration> {
        let own = dialect.asked_wait(answer);
        own.or_else(|| self.transport.retry_after(answer))
    }

    /// A "slow down": pauses the account.
    fn throttled(&self, asked: Option<Duration>, failures: u32) -> Trouble {
        let own = throttle_backoff(failures, random());
        let wait = match asked {
            Some(asked) => asked.max(backoff(failures, random())),
            None => own,
        };
        self.pause.extend(wait);
        Trouble {
            error: slow_down(wait),
            harmless: true,
        }
    }

    fn unavailable(&self, answer: &Answer, complaint: &str, asked: Option<Duration>) -> Trouble {
        let error = Error::new(
            Kind::Unavailable,
            format!("{} answered {}", answer.origin, one_line(complaint)),
        );
        Trouble {
            error: match asked {
                Some(wait) => error.with_retry_after(wait),
                None => error,
            },
            harmless: false,
        }
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("retry_budget", &self.retry_budget)
            .finish_non_exhaustive()
    }
}

fn slow_down(wait: Duration) -> Error {
    Error::new(
        Kind::Throttled,
        format!(
            "the cloud limits the rate of API calls and asks to wait {} s",
            wait.as_secs_f64().ceil()
        ),
    )
    .with_retry_after(wait)
}

/// Uniform in `0..1`; a machine without randomness gets no jitter.
fn random() -> f64 {
    let bits = getrandom::u32().unwrap_or(u32::MAX);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

/// Until when the whole account is silent.
#[derive(Default)]
struct Pause {
    until: Mutex<Option<Instant>>,
}

impl Pause {
    fn extend(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_PAUSE);
        let mut current = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *current = (*current).max(Some(until));
    }

    fn left(&self) -> Option<Duration> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until?
            .checked_duration_since(Instant::now())
            .filter(|d| !d.is_zero())
    }

    /// Returns once there is no pause. One that exceeds `budget` is [`Kind::Throttled`] at once.
    async fn pass(&self, budget: &mut Budget) -> Result<()> {
        while let Some(wait) = self.left() {
            if !budget.afford(wait) {
                return Err(slow_down(wait));
            }
            sleep(wait).await;
        }
        Ok(())
    }
}
