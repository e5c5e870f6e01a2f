//! One attempt at one call: limits, typed failures, and what each answer teaches about the clock.
//!
//! Owns the connection pool and the measured clock skew; has no lock and retries nothing. Redirects
//! are failures, answers are never decoded, and plain http is refused unless configured.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};

use super::call::{Answer, Call};
use super::retry::{http_date, retry_after};
use crate::clock::SharedClock;
use crate::config::ProviderConfig;
use crate::error::{Error, Kind, Result, one_line};
use crate::secret::SafeUrl;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Below the keep-alive of common gateways, so that a create seldom meets a closing connection.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;
const LARGEST_REFUSAL: usize = 64 * 1024;
/// A Date header has whole seconds and travels a while: smaller differences are noise.
const SKEW_NOISE: SignedDuration = SignedDuration::from_secs(2);
const USER_AGENT: &str = concat!("mongo-backupfs/", env!("CARGO_PKG_VERSION"));

/// An attempt without a usable answer.
pub(super) struct Trouble {
    pub(super) error: Error,
    /// The request was surely not carried out.
    pub(super) harmless: bool,
}

impl Trouble {
    fn harmless(error: Error) -> Self {
        Trouble {
            error,
            harmless: true,
        }
    }

    fn unclear(error: Error) -> Self {
        Trouble {
            error,
            harmless: false,
        }
    }
}

/// The way to one account's endpoints.
pub(super) struct Transport {
    client: reqwest::Client,
    allow_http: bool,
    clock: SharedClock,
    /// Milliseconds that the cloud's clock is ahead of ours.
    skew: AtomicI64,
    answered: AtomicBool,
}

impl Transport {
    pub(super) fn new(config: &ProviderConfig, clock: SharedClock) -> Result<Self> {
        let authorities = match &config.ca_file {
            Some(path) => authorities(path)?,
            None => Vec::new(),
        };
        let client = client(&authorities, false)
            // A machine without any certificate authority can still talk plain http.
            .or_else(|error| match config.allow_http {
                true => client(&authorities, true),
                false => Err(error),
            })
            .map_err(|error| {
                Error::new(
                    Kind::Environment,
                    "TLS cannot be set up: install the package `ca-certificates`, or set `ca_file`",
                )
                .with_source(error.without_url())
            })?;
        Ok(Transport {
            client,
            allow_http: config.allow_http,
            clock,
            skew: AtomicI64::new(0),
            answered: AtomicBool::new(false),
        })
    }

    /// The time by the cloud's clock.
    pub(super) fn now(&self) -> Timestamp {
        let skew = SignedDuration::from_millis(self.skew.load(Ordering::Relaxed));
        let now = self.clock.now();
        now.checked_add(skew).unwrap_or(now)
    }

    /// Whether anything ever answered.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) async fn attempt(&self, call: Call) -> Result<Answer, Trouble> {
        let origin = call.origin();
        if call.url.scheme() != "https" && !self.allow_http {
            return Err(Trouble::harmless(Error::new(
                Kind::Config,
                format!(
                    "{origin} is not https: change `endpoint`, or set `allow_http = true` if this is a private gateway"
                ),
            )));
        }
        let deadline = Instant::now() + ATTEMPT_TIMEOUT;
        let silence = || {
            Trouble::unclear(Error::new(
                Kind::Unreachable,
                format!("{origin} did not answer within {ATTEMPT_TIMEOUT:?}"),
            ))
        };
        let mut request = reqwest::Request::new(call.method, call.url);
        *request.headers_mut() = call.headers;
        if !call.body.is_empty() {
            *request.body_mut() = Some(call.body.into());
        }
        let response = match timeout_at(deadline, self.client.execute(request)).await {
            Err(_) => return Err(silence()),
            Ok(Err(error)) => return Err(unreachable(&origin, error)),
            Ok(Ok(response)) => response,
        };
        self.answered.store(true, Ordering::Relaxed);
        self.learn_skew(response.headers());
        let status = response.status();
        let headers = response.headers().clone();
        if status.is_redirection() {
            return Err(Trouble::harmless(redirected(&origin, &headers)));
        }
        let refused = status.is_client_error() || status.is_server_error();
        let body = match timeout_at(deadline, read(response, refused)).await {
            Ok(Ok(body)) => body,
            // The status of a refusal says enough.
            _ if refused => Bytes::new(),
            Ok(Err(error)) => return Err(error.into_trouble(&origin)),
            Err(_) => return Err(silence()),
        };
        Ok(Answer {
            status,
            headers,
            body,
            origin: origin.into(),
        })
    }

    /// The Retry-After of `answer`, if it has a usable one.
    pub(super) fn retry_after(&self, answer: &Answer) -> Option<Duration> {
        retry_after(answer.header(header::RETRY_AFTER)?, self.now())
    }

    fn learn_skew(&self, headers: &header::HeaderMap) {
        let date = headers.get(header::DATE).and_then(|v| v.to_str().ok());
        // A stored answer carries the date of its making.
        if let Some(date) = date.and_then(http_date)
            && !headers.contains_key(header::AGE)
        {
            let ahead = skew(date, self.clock.now());
            let millis = i64::try_from(ahead.as_millis()).unwrap_or(0);
            self.skew.store(millis, Ordering::Relaxed);
        }
    }
}

/// How far `theirs`, a Date header, is ahead of `ours`; zero within the noise.
fn skew(theirs: Timestamp, ours: Timestamp) -> SignedDuration {
    let ahead = theirs.duration_since(ours);
    if ahead.abs() <= SKEW_NOISE {
        SignedDuration::ZERO
    } else {
        ahead
    }
}

fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let refuse =
        |why: String| Error::new(Kind::Config, format!("`ca_file` {} {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let authorities = reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|_| refuse("is not in PEM form".to_owned()))?;
    if authorities.is_empty() {
        return Err(refuse("holds no PEM certificate".to_owned()));
    }
    Ok(authorities)
}

fn client(
    authorities: &[reqwest::Certificate],
    only_these: bool,
) -> Result<reqwest::Client, reqwest::Error> {
    let builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // Attempts are counted and judged by the caller alone.
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_CONNECTION);
    let authorities = authorities.iter().cloned();
    if only_these {
        builder.tls_certs_only(authorities).build()
    } else {
        builder.tls_certs_merge(authorities).build()
    }
}

/// A body that did not arrive.
enum Unread {
    TooLarge,
    Broken(reqwest::Error),
}

impl Unread {
    fn into_trouble(self, origin: &str) -> Trouble {
        match self {
            Unread::TooLarge => Trouble::unclear(Error::new(
                Kind::Protocol,
                format!(
                    "{origin} answered more than {} MiB to an API call: check `endpoint`",
                    LARGEST_ANSWER / (1024 * 1024)
                ),
            )),
            Unread::Broken(error) => unreachable(origin, error),
        }
    }
}

/// The body up to its limit. That of a refusal is cut there; any other is an error beyond it.
async fn read(mut response: reqwest::Response, refused: bool) -> Result<Bytes, Unread> {
    let limit = if refused {
        LARGEST_REFUSAL
    } else {
        LARGEST_ANSWER
    };
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= limit => body.extend_from_slice(&chunk),
            Ok(Some(chunk)) if refused => {
                body.extend_from_slice(&chunk[..limit - body.len()]);
                return Ok(body.freeze());
            }
            Ok(Some(_)) => return Err(Unread::TooLarge),
            Ok(None) => return Ok(body.freeze()),
            Err(_) if refused => return Ok(body.freeze()),
            Err(error) => return Err(Unread::Broken(error)),
        }
    }
}

fn unreachable(origin: &str, error: reqwest::Error) -> Trouble {
    let why = root_cause(&error);
    if !error.is_connect() {
        return Trouble::unclear(Error::new(
            Kind::Unreachable,
            format!("the connection to {origin} broke: {why}"),
        ));
    }
    let cure = if why.contains("certificate") {
        "if it uses a private certificate authority, name that in `ca_file`"
    } else {
        "check `endpoint`, the network, and the proxy settings"
    };
    Trouble::harmless(Error::new(
        Kind::Unreachable,
        format!("cannot reach {origin}: {why}; {cure}"),
    ))
}

/// The innermost cause. The outer ones print the address.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    let mut text = "no cause given".to_owned();
    while let Some(error) = cause {
        text = one_line(&error.to_string());
        cause = error.source();
    }
    text
}

fn redirected(origin: &str, headers: &header::HeaderMap) -> Error {
    let target = headers
        .get(header::LOCATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|to| SafeUrl::parse(to).ok());
    let whither = match target {
        Some(to) => format!(" to {to}"),
        None => String::new(),
    };
    Error::new(
        Kind::Protocol,
        format!(
            "{origin} redirects{whither}: API calls follow no redirect; set `endpoint` to the final address, or leave the login page in between"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_useless_ca_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.pem");
        let (empty, garbage) = (folder.path().join("empty"), folder.path().join("garbage"));
        std::fs::write(&empty, "no certificate").unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        std::fs::write(&garbage, pem).unwrap();
        for path in [missing, empty, garbage] {
            let error = authorities(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(
                error.to_string().contains(path.to_str().unwrap()),
                "{error}"
            );
        }
    }

    #[test]
    fn skew_is_learnt_beyond_the_noise_of_a_date_header() {
        let ours: Timestamp = "2026-01-05T14:00:00.9Z".parse().unwrap();
        let at = |text: &str| skew(http_date(text).unwrap(), ours).as_secs();
        assert_eq!(at("Mon, 05 Jan 2026 14:00:00 GMT"), 0);
        assert_eq!(at("Mon, 05 Jan 2026 14:10:01 GMT"), 600);
        assert_eq!(at("Mon, 05 Jan 2026 13:50:00 GMT"), -600);
    }
}
