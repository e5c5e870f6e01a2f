//! One account's data client: its options, its limits, and one request with its redirects.
//!
//! [`Fetcher`] owns the limit of requests in flight, a pause that a store may ask for, what was
//! measured on the way to the store, and the connections of `pool`. Two locks, never held together.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LOCATION, RANGE,
};
use reqwest::Response;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::download::{Ask, Download};
use super::local;
use super::part::Part;
use super::pool::{self, Pool, To};
use super::probe::{self, Probe};
use super::redirect::{self, MOST_HOPS};
use super::sizing::{MOST_PARTS, Plan, Sizing};
use super::stats::FetchStats;
use crate::directory::Directory;
use crate::error::{Error, Kind, Result};
use crate::links::Links;
use crate::model::{Link, LinkMode, Validator};

/// Probes do not queue behind parts: an open needs its answer now.
const PROBES_IN_FLIGHT: usize = 4;

/// Downloads that come as one stream last long; the service that makes most of them allows 20 at a
/// time (MongoDB Atlas, limits of snapshot downloads).
const STREAMS_IN_FLIGHT: usize = 20;

/// What one GET asks for.
#[derive(Debug)]
pub(super) enum Wanted<'a> {
    /// A range (not empty) of this version, if one is pinned.
    Range(&'a Range<u64>, Option<&'a Validator>),
    /// Everything that a link leads to, or the rest of it.
    All(&'a Ask),
}

/// Limits of one account's data connections.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Plain http and redirects to local addresses are allowed.
    pub allow_http: bool,
    /// Extra certificate authority (PEM).
    pub ca_file: Option<PathBuf>,
    /// The local directory that links may name files of.
    pub directory: Option<PathBuf>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Longest silence in a body or before headers.
    pub idle_timeout: Duration,
    /// Slowest acceptable rate, bytes per second, over `slow_window`.
    pub min_rate: u64,
    /// The window for `min_rate`.
    pub slow_window: Duration,
    /// All retries of one part together: time without progress.
    pub retry_budget: Duration,
    /// Most parts in flight.
    pub in_flight: usize,
}

impl Default for FetchOptions {
    fn default() -> Self {
        FetchOptions {
            allow_http: false,
            ca_file: None,
            directory: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
            min_rate: 16 << 10,
            slow_window: Duration::from_secs(30),
            retry_budget: Duration::from_secs(120),
            in_flight: MOST_PARTS as usize,
        }
    }
}

/// One account's data client. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) options: FetchOptions,
    pub(super) stats: FetchStats,
    pub(super) parts: Arc<Semaphore>,
    pub(super) probes: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    /// A store that names no version was met, and it was said.
    pub(super) unnamed: AtomicBool,
    pool: Pool,
    pause: Mutex<Option<Instant>>,
    sizing: Mutex<Sizing>,
}

impl Fetcher {
    /// Builds the client: no decoders, no cookies, own redirect rules, proxies from the
    /// environment. [`Kind::Config`] when `ca_file` cannot be used.
    pub fn new(options: FetchOptions) -> Result<Self> {
        Ok(Fetcher {
            shared: Arc::new(Shared {
                stats: FetchStats::default(),
                parts: Arc::new(Semaphore::new(options.in_flight.max(1))),
                probes: Arc::new(Semaphore::new(PROBES_IN_FLIGHT)),
                streams: Arc::new(Semaphore::new(STREAMS_IN_FLIGHT)),
                unnamed: AtomicBool::new(false),
                pool: Pool::new(&options)?,
                pause: Mutex::default(),
                sizing: Mutex::default(),
                options,
            }),
        })
    }

    /// Asks `bytes=0-0` and pins what it learns. Never HEAD, which signed links rarely allow.
    ///
    /// [`Kind::Protocol`] when the store serves no ranges; [`Kind::Unsupported`] for a link that
    /// works once only, which is left untouched.
    pub async fn probe(&self, links: &Links) -> Result<Probe> {
        probe::probe(&self.shared, links).await
    }

    /// Starts to fetch exactly `range` (non-empty, within the size) of the version `validator`.
    /// Nothing is sent before the first [`Part::next`]; dropping the part ends its request.
    pub fn part(&self, links: Arc<Links>, validator: Arc<Validator>, range: Range<u64>) -> Part {
        Part::new(Arc::clone(&self.shared), links, validator, range)
    }

    /// Starts to read what `links` lead to as one stream. Nothing is sent before [`Download::ask`].
    pub fn download(&self, links: Arc<Links>) -> Download {
        Download::new(Arc::clone(&self.shared), links)
    }

    /// How long reads should be cut into parts, and how much should be under way, by what was
    /// measured lately; `room` is the memory there is for one of them, in bytes.
    pub fn plan(&self, room: u64) -> Plan {
        self.shared.sizing().plan(room)
    }

    /// What was done so far.
    pub fn stats(&self) -> &FetchStats {
        &self.shared.stats
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("options", &self.shared.options)
            .field("stats", &self.shared.stats)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Sends one GET for what is `wanted` and follows its redirects. The answer is unjudged; an error here
    /// is [`Kind::Unreachable`], or [`Kind::Protocol`] for what must not be asked or followed.
    pub(super) async fn get(&self, link: &Link, wanted: &Wanted<'_>) -> Result<Response> {
        let protocol = |words: &str| Error::new(Kind::Protocol, words);
        if link.mode == LinkMode::Once && matches!(wanted, Wanted::Range(..)) {
            return Err(Error::new(
                Kind::Unsupported,
                "the provider's link works once only: it cannot be read in ranges",
            ));
        }
        if let (Some(path), Some(directory), Wanted::Range(range, pinned)) =
            (link.url.local_path(), &self.options.directory, wanted)
        {
            self.stats.requests.add(1);
            let directory = Directory::new(directory);
            return local::answer(directory, path, (*range).clone(), *pinned).await;
        }
        let allow_http = self.options.allow_http;
        let home = link.url.url();
        redirect::check_link(&home, allow_http).map_err(protocol)?;
        let lenient = allow_http || redirect::is_local(&home);
        let mut url = home.clone();
        for _hop in 0..=MOST_HOPS {
            let at_home = redirect::same_origin(&home, &url);
            let to = match at_home || lenient {
                true => To::Link,
                false => To::Abroad,
            };
            let private = at_home.then_some(link);
            let headers = headers(private, wanted)?;
            let answer = self.send(to, url.clone(), headers).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION);
            let location = location.ok_or_else(|| {
                let words = format!("the server answered {}", answer.status().as_u16());
                Error::new(Kind::Protocol, words)
            })?;
            url = redirect::target(&url, location.as_bytes(), allow_http, lenient)
                .map_err(protocol)?;
        }
        Err(protocol("the server redirects too often"))
    }

    async fn send(&self, to: To, url: Url, headers: HeaderMap) -> Result<Response> {
        self.stats.requests.add(1);
        let (client, age) = self.pool.client(to);
        let request = client.get(url).headers(headers).send();
        match tokio::time::timeout(self.options.idle_timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(pool::unsent(error)),
            Err(_) => {
                self.pool.distrust(age, &self.options);
                Err(Error::new(
                    Kind::Unreachable,
                    "the store does not answer in time",
                ))
            }
        }
    }

    /// The next request starts without idle connections.
    pub(super) fn reconnect(&self) {
        self.pool.renew(&self.options);
    }

    /// What was measured.
    pub(super) fn sizing(&self) -> MutexGuard<'_, Sizing> {
        self.sizing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All requests of this account wait for `wait` from now: the store asked for it.
    pub(super) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        *pause = (*pause).max(Some(until));
    }

    /// Waits for the end of the pause, if there is one.
    pub(super) async fn paused(&self) {
        let until = *self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }
}

fn headers(private: Option<&Link>, wanted: &Wanted<'_>) -> Result<HeaderMap> {
    let malformed = || Error::new(Kind::Protocol, "the link asks for a malformed header");
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| malformed());
    let mut headers = HeaderMap::new();
    for (name, secret) in private.iter().flat_map(|link| &link.headers) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
        let mut secret = value(secret.expose())?;
        secret.set_sensitive(true);
        headers.insert(name, secret);
    }
    match wanted {
        Wanted::Range(range, pinned) => {
            let range = format!("bytes={}-{}", range.start, range.end - 1);
            headers.insert(RANGE, value(&range)?);
            match pinned.map(|pinned| (pinned.strong_etag(), &pinned.last_modified)) {
                Some((Some(etag), _)) => headers.insert(IF_MATCH, value(etag)?),
                Some((None, Some(time))) => headers.insert(IF_UNMODIFIED_SINCE, value(time)?),
                Some((None, None)) | None => None,
            };
        }
        Wanted::All(Ask::Whole) => {}
        Wanted::All(Ask::Rest { from, if_range }) => {
            headers.insert(RANGE, value(&format!("bytes={from}-"))?);
            if let Some(tag) = if_range {
                headers.insert(IF_RANGE, value(tag)?);
            }
        }
    }
    Ok(headers)
}
