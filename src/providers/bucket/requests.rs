//! OpenDAL's requests, sent over the account's own HTTP: the same limits, proxies, retries and
//! back-off as for every other API, and refusals as this program's errors.
//!
//! A [`Sender`] lives as long as one operation and owns its retry budget, behind one lock that is
//! never held across an await.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream;
use http::{Request, Response};
use jiff::Timestamp;
use opendal::{Buffer, HttpBody, HttpTransport};
use url::Url;

use super::refusal;
use crate::clock::SharedClock;
use crate::config::{BucketService, ProviderConfig};
use crate::error::{Error, Kind, Result};
use crate::providers::http::{Answer, Api, Budget, Call, Dialect, Effect, Verdict};

/// Where virtual machines and containers are told the keys of their role. These addresses answer
/// plain http, and only on the machine's own link.
const METADATA: [&str; 5] = [
    "100.100.100.200",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "metadata.google.internal",
];
/// A machine without such a service must not wait for it long.
const METADATA_BUDGET: Duration = Duration::from_secs(1);

/// The ways out of one account.
pub(super) struct Apis {
    store: Api,
    metadata: Api,
    pub(super) service: BucketService,
}

impl Apis {
    pub(super) fn new(
        config: &ProviderConfig,
        service: BucketService,
        clock: SharedClock,
    ) -> Result<Self> {
        let local = ProviderConfig {
            allow_http: true,
            retry_budget: METADATA_BUDGET,
            ..config.clone()
        };
        Ok(Apis {
            store: Api::new(config, Arc::clone(&clock))?,
            metadata: Api::new(&local, clock)?,
            service,
        })
    }

    /// The time by the store's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// The configured budget, for one operation.
    pub(super) fn budget(&self) -> Budget {
        self.store.budget()
    }
}

/// Sends the requests of one operation. Clones share its budget.
#[derive(Clone)]
pub(super) struct Sender {
    apis: Arc<Apis>,
    budget: Arc<Mutex<Budget>>,
}

impl Sender {
    pub(super) fn new(apis: Arc<Apis>) -> Self {
        Sender {
            budget: Arc::new(Mutex::new(apis.budget())),
            apis,
        }
    }

    fn left(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request<Buffer>) -> Result<Answer> {
        let (parts, body) = request.into_parts();
        let call = Call {
            method: parts.method,
            url: address(&parts.uri)?,
            headers: parts.headers,
            body: body.to_bytes(),
            effect: Effect::Idempotent,
        };
        let is_metadata = call
            .url
            .host_str()
            .is_some_and(|host| METADATA.contains(&host));
        if is_metadata {
            let api = &self.apis.metadata;
            return api.call(&call, &AsSigned, &mut api.budget()).await;
        }
        // Requests beside each other lose time together: each begins with what was left then.
        let before = self.left().clone();
        let mut budget = before.clone();
        let answer = self.apis.store.call(&call, &AsSigned, &mut budget).await;
        self.left()
            .lose(before.left().saturating_sub(budget.left()));
        let answer = answer?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(refusal::error(self.apis.service, &answer)),
        }
    }
}

impl HttpTransport for Sender {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let Answer {
            status,
            headers,
            body,
            ..
        } = self.send(request).await.map_err(carried)?;
        let size = body.len() as u64;
        let body = HttpBody::new(stream::iter([Ok(Buffer::from(body))]), Some(size));
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// The address that `uri` is, if it says the same to the HTTP client: `..` in a key would not.
pub(super) fn address(uri: &http::Uri) -> Result<Url> {
    let text = uri.to_string();
    let url = Url::parse(&text).ok();
    url.filter(|url| url.path() == uri.path()).ok_or_else(|| {
        Error::new(
            Kind::Unsupported,
            "its name holds `.` or `..` as a part, which no address can say",
        )
    })
}

/// `error` on its way through OpenDAL.
fn carried(error: Error) -> opendal::Error {
    opendal::Error::new(opendal::ErrorKind::Unexpected, "a request failed").set_source(error)
}

/// What an operation of OpenDAL failed with: our own error where it carries one. Its own words are
/// not repeated beyond the first, because they quote addresses with their signatures.
pub(super) fn uncarried(error: &opendal::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(own) = error.downcast_ref::<Error>() {
            return own.duplicate();
        }
        cause = error.source();
    }
    let kind = match error.kind() {
        opendal::ErrorKind::ConfigInvalid => Kind::Config,
        opendal::ErrorKind::PermissionDenied => Kind::Credentials,
        opendal::ErrorKind::NotFound => Kind::NotFound,
        opendal::ErrorKind::Unsupported => Kind::Unsupported,
        _ => Kind::Protocol,
    };
    Error::new(
        kind,
        format!(
            "the store cannot be asked: {}; check `options`",
            error.message()
        ),
    )
}

/// Requests come signed. The signature outlives the retries.
struct AsSigned;

#[async_trait]
impl Dialect for AsSigned {
    type Session = ();

    async fn sign(
        &self,
        _call: &mut Call,
        _session: &mut (),
        _now: Timestamp,
        _budget: &mut Budget,
    ) -> Result<()> {
        Ok(())
    }

    fn judge(&self, answer: &Answer, _session: &mut ()) -> Verdict {
        match !answer.status.is_success() && refusal::is_throttling(answer) {
            true => Verdict::Throttled,
            false => Verdict::of_status(answer.status),
        }
    }
}
