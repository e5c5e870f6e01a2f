//! Asking Alibaba Cloud: signed calls at a rate that it bears, and complete lists. Knows no Provider.
//!
//! Owns one rate limiter per action. The limits count per action, region and main account, and are
//! not published for these calls; what is refused above them would take the share of other programs.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use url::Url;

use super::actions::{Action, Product};
use super::refusal::{self, Refusal};
use super::sign::{canonical_query, sign};
use super::wire::Keyed;
use crate::error::{Error, Kind, Result};
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Effect, Verdict};
use crate::providers::objects::Keys;

/// Entries asked for per page: the most that ApsaraDB for MongoDB gives.
const PAGE_SIZE: u32 = 100;
/// Bounds a server that never comes to the end of a list.
const MOST_PAGES: usize = 1000;

/// Calls of one action per second, and at once.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// The parameters of a call.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// Why a call brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The service refuses.
    Refused(Refusal),
    /// There is no answer to interpret.
    Failed(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.error(),
            Failure::Failed(error) => error,
        }
    }
}

/// A page of a list.
pub(super) struct Page<T> {
    /// Nothing where the answer has no list, which is not the same as an empty one.
    pub(super) items: Option<Vec<T>>,
    /// Entries in all pages, where the answer says so.
    pub(super) total: Option<u64>,
}

/// One account's way to the two services.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) api: Arc<Api>,
    keys: Keys,
    limiters: [DefaultDirectRateLimiter; Action::ALL.len()],
    dds: Url,
    dbs: Url,
}

impl Client {
    pub(super) fn new(api: Arc<Api>, keys: Keys, dds: Url, dbs: Url) -> Self {
        Client {
            api,
            keys,
            limiters: std::array::from_fn(|_| RateLimiter::direct(Quota::per_second(PER_SECOND))),
            dds,
            dbs,
        }
    }

    /// The answer to `action`, read as `T`.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        action: Action,
        parameters: &Parameters,
        budget: &mut Budget,
    ) -> Result<T, Failure> {
        let call = self.call(action, parameters);
        let signer = Signer {
            keys: &self.keys,
            limiter: &self.limiters[action as usize],
        };
        let answer = self.api.call(&call, &signer, budget).await?;
        match Refusal::of(action, &answer) {
            Some(refusal) => Err(Failure::Refused(refusal)),
            None => Ok(answer.json()?),
        }
    }

    /// All entries of a list whose pages are numbered by the parameter `page`.
    ///
    /// It ends with the last announced entry or, where no number is announced, with a page that has
    /// nothing new. Such a page before the last announced entry makes the list incomplete, which is
    /// an error.
    pub(super) async fn list<P: DeserializeOwned, T: Keyed>(
        &self,
        action: Action,
        parameters: &Parameters,
        page: &'static str,
        budget: &mut Budget,
        read: impl Fn(P) -> Page<T>,
    ) -> Result<Vec<T>, Failure> {
        let mut items: Vec<T> = Vec::new();
        for number in 1..=MOST_PAGES {
            let mut parameters = parameters.clone();
            parameters.push((page, number.to_string()));
            parameters.push(("PageSize", PAGE_SIZE.to_string()));
            let answer: P = self.ask(action, &parameters, budget).await?;
            let page = read(answer);
            let total = page.total;
            // Behind the last page there need not be one.
            if page.items.is_none() && number == 1 && total != Some(0) {
                return Err(Failure::Failed(Error::new(
                    Kind::Protocol,
                    format!("Alibaba Cloud answered {} without a list", action.name()),
                )));
            }
            let before = items.len();
            for item in page.items.into_iter().flatten() {
                // What was inserted at the front meanwhile pushes others onto the next page.
                let known = |seen: &T| seen.key().is_some() && seen.key() == item.key();
                if !items.iter().any(known) {
                    items.push(item);
                }
            }
            let seen = items.len() as u64;
            let nothing_new = items.len() == before;
            if total.map_or(nothing_new, |total| seen >= total) {
                return Ok(items);
            }
            if let Some(total) = total.filter(|_| nothing_new) {
                return Err(Failure::Failed(Error::new(
                    Kind::Protocol,
                    format!(
                        "{} announces {total} entries and gives {seen}: the list is not complete",
                        action.name()
                    ),
                )));
            }
        }
        Err(Failure::Failed(Error::new(
            Kind::Protocol,
            format!("{} does not come to an end", action.name()),
        )))
    }

    fn call(&self, action: Action, parameters: &Parameters) -> Call {
        let mut url = match action.product() {
            Product::Dds => self.dds.clone(),
            Product::Dbs => self.dbs.clone(),
        };
        url.set_query(Some(&canonical_query(parameters)));
        let mut call = Call {
            method: Method::POST,
            effect: match action {
                Action::CreateDownload => Effect::Creates,
                _ => Effect::Idempotent,
            },
            ..Call::get(url)
        }
        .accept("application/json");
        for (name, value) in [
            ("x-acs-action", action.name()),
            ("x-acs-version", action.product().version()),
        ] {
            let name = HeaderName::from_static(name);
            call.headers.insert(name, HeaderValue::from_static(value));
        }
        // Some gateways answer 411 to a POST that does not say that it has no body.
        let none = HeaderValue::from_static("0");
        call.headers.insert(header::CONTENT_LENGTH, none);
        call
    }
}

/// Signs calls of one action when there is room for them, and knows which answers are worth another
/// try.
struct Signer<'a> {
    keys: &'a Keys,
    limiter: &'a DefaultDirectRateLimiter,
}

/// What one call remembers from attempt to attempt.
#[derive(Default)]
pub(super) struct Attempts {
    /// The date was refused once; the answer's own date has corrected it.
    redated: bool,
}

#[async_trait]
impl Dialect for Signer<'_> {
    type Session = Attempts;

    async fn sign(
        &self,
        call: &mut Call,
        _session: &mut Attempts,
        now: Timestamp,
        _budget: &mut Budget,
    ) -> Result<()> {
        self.limiter.until_ready().await;
        sign(call, self.keys, now, &nonce()?)
    }

    fn judge(&self, answer: &Answer, session: &mut Attempts) -> Verdict {
        if refusal::is_throttled(answer) {
            return Verdict::Throttled;
        }
        if refusal::is_skewed(answer) && !session.redated {
            session.redated = true;
            return Verdict::SignAgain;
        }
        if refusal::is_broken(answer) {
            return Verdict::Unavailable;
        }
        Verdict::of_status(answer.status)
    }

    fn asked_wait(&self, answer: &Answer) -> Option<Duration> {
        refusal::retry_after_millis(answer).map(Duration::from_millis)
    }
}

/// 128 random bits, in hex: never the same twice.
fn nonce() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|_| Error::new(Kind::Environment, "this machine gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
