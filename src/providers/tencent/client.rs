//! Asking the API: signed POSTs within its limits, answers as values or as refusals. Knows no
//! Provider.
//!
//! Owns one rate limiter per action. The API's own limit is 20 calls per second and action; calls
//! above it would be refused and would take the share of other programs of the account.

use std::num::NonZeroU32;

use async_trait::async_trait;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderValue, header};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::refusal::Refusal;
use super::sign::{Canonical, Signer, sha256_hex};
use crate::error::{Error, Kind, Result};
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Effect, Verdict};
use crate::secret::Secret;

const VERSION: &str = "2019-07-25";
const SERVICE: &str = "mongodb";
const CONTENT_TYPE: &str = "application/json";

/// Calls of one action per second, and at once: together less than the API's 20 per second.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(12).unwrap();
const AT_ONCE: NonZeroU32 = NonZeroU32::new(6).unwrap();

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The instances of a region.
    Instances,
    /// The backups of an instance.
    Backups,
    /// Pack a backup for download: the only call that may cost money.
    CreateTask,
    /// How downloads stand.
    Tasks,
}

impl Action {
    /// Its name in the API.
    pub(super) fn name(self) -> &'static str {
        match self {
            Action::Instances => "DescribeDBInstances",
            Action::Backups => "DescribeDBBackups",
            Action::CreateTask => "CreateBackupDownloadTask",
            Action::Tasks => "DescribeBackupDownloadTask",
        }
    }

    fn effect(self) -> Effect {
        match self {
            Action::CreateTask => Effect::Creates,
            _ => Effect::Idempotent,
        }
    }
}

/// The account's keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) secret_id: Secret,
    pub(super) secret_key: Secret,
    /// Of temporary keys.
    pub(super) token: Option<Secret>,
}

/// One account's API.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) api: Api,
    endpoint: Url,
    keys: Keys,
    limiters: [DefaultDirectRateLimiter; 4],
}

impl Client {
    pub(super) fn new(api: Api, endpoint: Url, keys: Keys) -> Self {
        let limiter = || RateLimiter::direct(Quota::per_second(PER_SECOND).allow_burst(AT_ONCE));
        Client {
            api,
            endpoint,
            keys,
            limiters: std::array::from_fn(|_| limiter()),
        }
    }

    /// Asks `action` with `parameters` in `region`. What the API refuses by a code is the inner
    /// error; the outer one is everything else.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        action: Action,
        region: &str,
        parameters: &impl Serialize,
        budget: &mut Budget,
    ) -> Result<Result<T, Refusal>> {
        let body = serde_json::to_string(parameters)
            .map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        let call = Call::post(self.endpoint.clone(), action.effect(), CONTENT_TYPE, body);
        let question = Question {
            client: self,
            action,
            region,
        };
        let answer = self.api.call(&call, &question, budget).await?;
        if let Some(refusal) = Refusal::of(&answer) {
            return Ok(Err(refusal));
        }
        if !answer.status.is_success() {
            return Err(Error::new(
                Kind::Protocol,
                format!(
                    "{} answered {}: check `endpoint`",
                    answer.origin, answer.status
                ),
            ));
        }
        let mut whole: Value = answer.json()?;
        let inner = whole.get_mut("Response").map(Value::take).unwrap_or(whole);
        let known = serde_json::from_value(inner).map_err(|_| {
            // The decoder's own words would quote the value, which may be a signed link.
            let origin = &answer.origin;
            let words = format!(
                "{origin} answered {} in another shape than documented",
                action.name()
            );
            Error::new(Kind::Protocol, words)
        })?;
        Ok(Ok(known))
    }
}

/// One call on its way: how it is signed and what its answer means for retries.
struct Question<'a> {
    client: &'a Client,
    action: Action,
    region: &'a str,
}

#[async_trait]
impl Dialect for Question<'_> {
    /// Whether the cloud refused the time of a signature once.
    type Session = bool;

    async fn sign(
        &self,
        call: &mut Call,
        _session: &mut bool,
        now: Timestamp,
        _budget: &mut Budget,
    ) -> Result<()> {
        self.client.limiters[self.action as usize]
            .until_ready()
            .await;
        let keys = &self.client.keys;
        let host = host(&call.url);
        let signer = Signer {
            secret_id: &keys.secret_id,
            secret_key: &keys.secret_key,
            service: SERVICE,
            now,
        };
        let authorization = signer.authorization(&Canonical {
            method: call.method.as_str(),
            query: "",
            headers: &[("content-type", CONTENT_TYPE), ("host", &host)],
            payload: &sha256_hex(&call.body),
        });
        call.authorize(&authorization)?;
        let second = now.as_second().to_string();
        for (name, value) in [
            ("x-tc-action", self.action.name()),
            ("x-tc-version", VERSION),
            ("x-tc-timestamp", &second),
            ("x-tc-region", self.region),
            ("x-tc-language", "en-US"),
        ] {
            call.headers.insert(name, plain(value)?);
        }
        if let Some(token) = &keys.token {
            let mut value = plain(token.expose())?;
            value.set_sensitive(true);
            call.headers.insert("x-tc-token", value);
        }
        call.headers
            .insert(header::ACCEPT, HeaderValue::from_static(CONTENT_TYPE));
        Ok(())
    }

    fn judge(&self, answer: &Answer, signed_again: &mut bool) -> Verdict {
        let Some(refusal) = Refusal::of(answer) else {
            return Verdict::of_status(answer.status);
        };
        let verdict = refusal.verdict(*signed_again);
        *signed_again |= verdict == Verdict::SignAgain;
        verdict
    }

    fn complaint(&self, answer: &Answer) -> String {
        match Refusal::of(answer) {
            Some(refusal) => refusal.code,
            None => answer.status.to_string(),
        }
    }
}

/// The Host header that a request to `url` carries: with the port unless it is the scheme's own.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn plain(value: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(value).map_err(|_| {
        let words = "a region or token holds a character that cannot be sent";
        Error::new(Kind::Config, words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_host_is_the_one_that_is_sent() {
        for (url, expected) in [
            (
                "https://mongodb.tencentcloudapi.com",
                "mongodb.tencentcloudapi.com",
            ),
            (
                "https://mongodb.tencentcloudapi.com:443/",
                "mongodb.tencentcloudapi.com",
            ),
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("https://[::1]:8443/x", "[::1]:8443"),
        ] {
            assert_eq!(host(&url.parse().unwrap()), expected);
        }
    }

    #[test]
    fn the_limit_is_below_that_of_the_api() {
        assert!(PER_SECOND.get() + AT_ONCE.get() < 20);
    }
}
