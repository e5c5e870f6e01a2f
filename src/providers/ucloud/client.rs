//! Asking the API: signed forms within a modest rate, answers as values or as refusals. Knows no
//! Provider.
//!
//! Owns the account's rate limiter. The API's own limits are not documented; calls above them are
//! refused with a code of their own.

use std::num::NonZeroU32;

use async_trait::async_trait;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use url::Url;

use super::refusal::Refusal;
use super::sign::{self, Parameters};
use super::wire::Envelope;
use crate::error::{Error, Kind, Result};
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Effect, Verdict};
use crate::secret::Secret;

const FORM: &str = "application/x-www-form-urlencoded";

/// Calls per second, and at once.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
const AT_ONCE: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// What is asked. All of it is free and may be asked twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The instances of a region.
    Instances,
    /// The backups of an instance.
    Backups,
    /// The packed logs of an instance.
    Packages,
    /// Links to a backup.
    Link,
}

impl Action {
    /// Its name in the API.
    pub(super) fn name(self) -> &'static str {
        match self {
            Action::Instances => "ListUMongoDBInstances",
            Action::Backups => "ListUMongoDBBackup",
            Action::Packages => "ListUMongoDBLogPackage",
            Action::Link => "DescribeUMongoDBBackupURL",
        }
    }
}

/// One account's API.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) api: Api,
    endpoint: Url,
    public_key: Secret,
    private_key: Secret,
    project: Option<String>,
    limiter: DefaultDirectRateLimiter,
}

impl Client {
    pub(super) fn new(
        api: Api,
        endpoint: Url,
        public_key: Secret,
        private_key: Secret,
        project: Option<String>,
    ) -> Self {
        Client {
            api,
            endpoint,
            public_key,
            private_key,
            project,
            limiter: RateLimiter::direct(Quota::per_second(PER_SECOND).allow_burst(AT_ONCE)),
        }
    }

    /// Asks `action`. What the API refuses by a code is the inner error; the outer one is everything
    /// else.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        action: Action,
        mut parameters: Parameters,
        budget: &mut Budget,
    ) -> Result<Result<T, Refusal>> {
        parameters.push(("Action", action.name().to_owned()));
        parameters.extend(self.project.clone().map(|id| ("ProjectId", id)));
        let form = sign::form(parameters, &self.public_key, &self.private_key);
        let call = Call::post(self.endpoint.clone(), Effect::Idempotent, FORM, form);
        let answer = self.api.call(&call, self, budget).await?;
        if let Some(refusal) = Refusal::of(&answer) {
            return Ok(Err(refusal));
        }
        if !answer.status.is_success() {
            let (origin, status) = (&answer.origin, answer.status);
            let words = format!("{origin} answered {status}: check `endpoint`");
            return Err(Error::new(Kind::Protocol, words));
        }
        let envelope: Envelope = answer.json()?;
        if envelope.ret_code.is_none() && envelope.action.is_none() {
            let origin = &answer.origin;
            let words = format!("{origin} answered what no UCloud API does: check `endpoint`");
            return Err(Error::new(Kind::Protocol, words));
        }
        Ok(Ok(answer.json()?))
    }
}

#[async_trait]
impl Dialect for Client {
    type Session = ();

    /// A form stays signed for ever; only its turn has to come.
    async fn sign(
        &self,
        _call: &mut Call,
        _session: &mut (),
        _now: Timestamp,
        _budget: &mut Budget,
    ) -> Result<()> {
        self.limiter.until_ready().await;
        Ok(())
    }

    fn judge(&self, answer: &Answer, _session: &mut ()) -> Verdict {
        match (Verdict::of_status(answer.status), Refusal::of(answer)) {
            (Verdict::Final, Some(refusal)) => refusal.verdict(),
            (by_status, _) => by_status,
        }
    }

    fn complaint(&self, answer: &Answer) -> String {
        match Refusal::of(answer) {
            Some(refusal) => refusal.words(),
            None => answer.status.to_string(),
        }
    }
}
