//! The HTTP clients of one account and their connections.
//!
//! Data travels over HTTP/1.1 on purpose: parallel parts then have a TCP connection each, so none
//! waits behind another's lost packet or flow-control window. [`Pool`] owns the clients and
//! replaces them, idle connections and all, when a connection turned out to be dead.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, redirect::Policy};

use super::client::FetchOptions;
use super::redirect::PublicNames;
use crate::error::{Error, Kind, Result};

/// Stores close idle connections after 5 to 60 s; a request on one just closed costs a round trip.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// To a link, or where its redirects may lead anywhere.
    Link,
    /// To a host that only a redirect named: its name must stand for a public address.
    Abroad,
}

/// The clients in use.
pub(super) struct Pool {
    certificates: Vec<Certificate>,
    current: Mutex<Clients>,
}

struct Clients {
    link: Client,
    abroad: Client,
    /// How many clients there were before.
    age: u64,
}

impl Pool {
    pub(super) fn new(options: &FetchOptions) -> Result<Self> {
        let certificates = certificates(options)?;
        let clients = Clients::build(options, &certificates, 0)?;
        Ok(Pool {
            certificates,
            current: Mutex::new(clients),
        })
    }

    /// The client to use, and which it is.
    pub(super) fn client(&self, to: To) -> (Client, u64) {
        let clients = self.lock();
        let client = match to {
            To::Link => &clients.link,
            To::Abroad => &clients.abroad,
        };
        (client.clone(), clients.age)
    }

    /// A request of the client `age` met silence. After a suspended machine or a changed network
    /// all idle connections are like that, and each would cost another time-out: the next request
    /// starts from none. Bodies under way are not touched.
    pub(super) fn distrust(&self, age: u64, options: &FetchOptions) {
        let mut clients = self.lock();
        if clients.age == age {
            self.replace(&mut clients, options);
        }
    }

    /// The next request starts from no idle connection.
    pub(super) fn renew(&self, options: &FetchOptions) {
        self.replace(&mut self.lock(), options);
    }

    fn replace(&self, clients: &mut Clients, options: &FetchOptions) {
        match Clients::build(options, &self.certificates, clients.age + 1) {
            Ok(fresh) => *clients = fresh,
            Err(error) => tracing::debug!(%error, "keeping the old connections"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        // Replaced whole or not at all.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    fn build(options: &FetchOptions, certificates: &[Certificate], age: u64) -> Result<Self> {
        let builder = || builder(options, certificates);
        let link = build(builder(), options)?;
        let abroad = match options.allow_http {
            true => link.clone(),
            false => build(builder().dns_resolver(PublicNames), options)?,
        };
        Ok(Clients { link, abroad, age })
    }
}

/// No decoders (not even if another dependency switches their features on), no cookies, no
/// redirects, no referer; proxies from the environment.
fn builder(options: &FetchOptions, certificates: &[Certificate]) -> ClientBuilder {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Client::builder()
        .user_agent(concat!("mongo-backupfs/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .redirect(Policy::none())
        .referer(false)
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(options.connect_timeout)
        .pool_max_idle_per_host(options.in_flight)
        .pool_idle_timeout(POOL_IDLE)
        .tls_certs_merge(certificates.iter().cloned())
}

fn certificates(options: &FetchOptions) -> Result<Vec<Certificate>> {
    let Some(path) = &options.ca_file else {
        return Ok(Vec::new());
    };
    let unusable = |why: String| {
        let words = format!("ca_file `{}` cannot be used: {why}", path.display());
        Error::new(Kind::Config, words)
    };
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
    match certificates.is_empty() {
        true => Err(unusable("it holds no PEM certificate".into())),
        false => Ok(certificates),
    }
}

fn build(builder: ClientBuilder, options: &FetchOptions) -> Result<Client> {
    builder.build().map_err(|error| {
        let (kind, words) = match &options.ca_file {
            Some(path) => (
                Kind::Config,
                format!("ca_file `{}` cannot be used", path.display()),
            ),
            None => (
                Kind::Environment,
                "no certificate authorities can be loaded: install ca-certificates".into(),
            ),
        };
        Error::new(kind, words).with_source(error.without_url())
    })
}

/// A request that got no answer. A certificate that is not accepted stays so; a head that is not
/// HTTP, or longer than any honest one, is an answer that the protocol does not allow.
pub(super) fn unsent(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let causes = || {
        let first: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        std::iter::successors(first, |cause| cause.source())
    };
    // What TLS does not accept is invalid data, wrapped once more by the connector.
    let is_invalid = |outer: &io::Error| {
        let inner = outer.get_ref().and_then(|inner| inner.downcast_ref());
        let kind = inner.unwrap_or(outer).kind();
        kind == io::ErrorKind::InvalidData
    };
    let untrusted = causes().any(|cause| cause.downcast_ref().is_some_and(is_invalid));
    let garbled = causes().any(|cause| cause.downcast_ref().is_some_and(hyper::Error::is_parse));
    let (kind, words) = match error.is_connect() {
        true if untrusted => (
            Kind::Protocol,
            "no secure connection to the store; if it has its own certificate authority, set \
             ca_file",
        ),
        true => (Kind::Unreachable, "the store cannot be reached"),
        false if garbled => (Kind::Protocol, "the store's answer has no proper head"),
        false => (
            Kind::Unreachable,
            "the store broke off before it had answered",
        ),
    };
    Error::new(kind, words).with_source(error)
}
