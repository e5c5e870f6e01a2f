//! Range requests over reqwest, resumed at the first missing byte.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Result;
use crate::links::Links;
use crate::model::Validator;

/// Limits of one account's data connections.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Plain http and loopback addresses are allowed.
    pub allow_http: bool,
    /// Extra certificate authority.
    pub ca_file: Option<PathBuf>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Longest silence in a body or before headers.
    pub idle_timeout: Duration,
    /// Slowest acceptable rate, bytes per second, over `slow_window`.
    pub min_rate: u64,
    /// The window for `min_rate`.
    pub slow_window: Duration,
    /// All retries of one part together.
    pub retry_budget: Duration,
}

/// What the first request learnt.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The version to pin.
    pub validator: Validator,
    /// The provider's own file name, from Content-Disposition or the link's path.
    pub source_name: Option<String>,
    /// A digest the store publishes, `algorithm:value`.
    pub digest: Option<String>,
}

/// One account's data client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {}

impl Fetcher {
    /// Builds the client: no decoders, no cookies, own redirect rules.
    pub fn new(_options: FetchOptions) -> Result<Self> {
        todo!()
    }

    /// Asks `bytes=0-0` and pins what it learns. Never HEAD.
    pub async fn probe(&self, _links: &Links) -> Result<Probe> {
        todo!()
    }

    /// Starts to fetch exactly `range` (non-empty, within the size) of the version `validator`.
    pub fn part(&self, _links: Arc<Links>, _validator: Arc<Validator>, _range: Range<u64>) -> Part {
        todo!()
    }
}

/// A range being fetched.
#[derive(Debug)]
pub struct Part {}

impl Part {
    /// The next bytes in order; `None` exactly when the whole range was delivered. After an error
    /// the part is over.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        todo!()
    }
}
