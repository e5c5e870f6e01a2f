//! The object store: the host that signed links lead to, as exact about HTTP as S3 and its like.
//!
//! A link is signed over method, path, expiry and serial number by HMAC-SHA-256. Ranges,
//! conditions and their order follow RFC 9110 (sections 13.2.2 and 14); errors are S3's XML
//! documents. Owns the objects (one lock, held only to look one up or change it).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, SERVER,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

use super::Site;
use super::clock::http_date;
use super::content::Content;
use super::faults::{Fault, Injected};
use super::ranges::{Wanted, wanted};
use crate::clock::Clock;

/// What is escaped in the path of a link.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.');

/// The store. Clones share the objects.
#[derive(Debug, Clone)]
pub(super) struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    base: String,
    site: Site,
    signing_key: [u8; 32],
    serial: AtomicU64,
    objects: Mutex<HashMap<String, Object>>,
}

#[derive(Debug, Clone)]
struct Object {
    content: Content,
    etag: String,
    modified: Timestamp,
}

impl Store {
    /// An empty store, reached at `base`.
    pub(super) fn new(base: String, site: Site, signing_key: [u8; 32]) -> Self {
        Store(Arc::new(Shared {
            base,
            site,
            signing_key,
            serial: AtomicU64::new(0),
            objects: Mutex::default(),
        }))
    }

    /// Puts `content` at `key` in place of what was there. Every version has its own ETag.
    pub(super) fn put(&self, key: &str, content: Content, modified: Timestamp) {
        let version = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let digest = Md5::digest(format!("{key}:{version}"));
        let object = Object {
            content,
            etag: format!("\"{}\"", super::hex(&digest)),
            modified,
        };
        self.objects().insert(key.to_owned(), object);
    }

    /// Removes the object at `key`; links to it answer 404.
    pub(super) fn remove(&self, key: &str) {
        self.objects().remove(key);
    }

    /// What is at `key`.
    pub(super) fn content(&self, key: &str) -> Option<Content> {
        self.objects().get(key).map(|o| o.content.clone())
    }

    /// A link that reads the object at `key` by GET until `expires`. No two links are equal.
    pub(super) fn sign(&self, key: &str, expires: Timestamp) -> String {
        self.0.site.meter.bill().links_signed += 1;
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let expires = expires.as_millisecond().to_string();
        let path = format!("/{}", utf8_percent_encode(key, ESCAPED));
        let signature = self.signature("GET", &path, &expires, &serial.to_string());
        format!(
            "{}{path}?expires={expires}&serial={serial}&signature={signature}",
            self.0.base
        )
    }

    fn signature(&self, method: &str, path: &str, expires: &str, serial: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0.signing_key)
            .expect("HMAC takes a key of any length");
        mac.update(format!("{method}\n{path}\n{expires}\n{serial}").as_bytes());
        super::hex(&mac.finalize().into_bytes())
    }

    /// The host.
    pub(super) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// Whether the request's link is good, and if not, why: S3's order of checks.
    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        if request.headers().contains_key(AUTHORIZATION) {
            return Err(Refusal::TWO_PROOFS);
        }
        let query: HashMap<_, _> =
            url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
                .collect();
        let (Some(expires), Some(serial), Some(signature)) = (
            query.get("expires"),
            query.get("serial"),
            query.get("signature"),
        ) else {
            return Err(Refusal::ACCESS_DENIED);
        };
        let path = request.uri().path();
        if self.signature(request.method().as_str(), path, expires, serial) != **signature {
            self.0.site.meter.bill().forged_link_uses += 1;
            return Err(Refusal::FORGED);
        }
        let now = self.0.site.clock.now().as_millisecond();
        if expires.parse().is_ok_and(|expires: i64| now < expires) {
            Ok(())
        } else {
            self.0.site.meter.bill().expired_link_uses += 1;
            Err(Refusal::EXPIRED)
        }
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<String, Object>> {
        self.0
            .objects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(store): State<Store>, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    let answer = serve(&store, request)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    if head {
        answer.map(|_| Body::empty())
    } else {
        answer
    }
}

async fn serve(store: &Store, request: Request) -> Result<Response, Refusal> {
    store.admit(&request)?;
    let key = percent_decode_str(request.uri().path().trim_start_matches('/'))
        .decode_utf8_lossy()
        .into_owned();
    let mut object = store
        .objects()
        .get(&key)
        .cloned()
        .ok_or(Refusal::NO_SUCH_KEY)?;
    let mut headers = request.headers().clone();
    for fault in request
        .extensions()
        .get::<Injected>()
        .map(|i| i.0.as_slice())
        .unwrap_or_default()
    {
        match fault {
            Fault::IgnoreRange => drop(headers.remove(RANGE)),
            Fault::OtherEtag { etag } => {
                headers.remove(IF_MATCH);
                object.etag = etag.clone();
            }
            _ => {}
        }
    }
    // The size of content that is made on demand takes work to know.
    let content = object.content.clone();
    let size = tokio::task::spawn_blocking(move || content.size())
        .await
        .map_err(|_| Refusal::INTERNAL)?;
    let common = [
        (ETAG, object.etag.clone()),
        (LAST_MODIFIED, http_date(object.modified)),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (SERVER, "simulated-object-store".to_owned()),
    ];
    if object.is_unchanged(&headers)? {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let range = object
        .may_send_part(&headers)
        .then(|| text(&headers, RANGE));
    let (status, range) = match wanted(range.flatten(), size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Unsatisfiable => {
            let unsatisfied = [(CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((unsatisfied, Refusal::INVALID_RANGE).into_response());
        }
    };
    let length = range.end - range.start;
    let named = (status == StatusCode::PARTIAL_CONTENT)
        .then(|| format!("bytes {}-{}/{size}", range.start, range.end - 1))
        .map(|value| [(CONTENT_RANGE, value)]);
    let body = Body::from_stream(object.content.stream(range));
    let mut response = (status, common, body).into_response();
    for (name, value) in named.into_iter().flatten().chain([
        (CONTENT_LENGTH, length.to_string()),
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
    ]) {
        if let Ok(value) = value.try_into() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

impl Object {
    /// The conditions of RFC 9110, section 13.2.2, in its order: an error for a precondition that
    /// failed, true for 304.
    fn is_unchanged(&self, headers: &HeaderMap) -> Result<bool, Refusal> {
        if let Some(tags) = text(headers, IF_MATCH) {
            if !self.is_among(tags) {
                return Err(Refusal::PRECONDITION_FAILED);
            }
        } else if let Some(date) = date(headers, IF_UNMODIFIED_SINCE)
            && self.modified.as_second() > date.as_second()
        {
            return Err(Refusal::PRECONDITION_FAILED);
        }
        if let Some(tags) = text(headers, IF_NONE_MATCH) {
            return Ok(self.is_among(tags));
        }
        Ok(date(headers, IF_MODIFIED_SINCE)
            .is_some_and(|date| self.modified.as_second() <= date.as_second()))
    }

    /// Whether `If-Range` allows a partial answer: the same ETag, or exactly the same date.
    fn may_send_part(&self, headers: &HeaderMap) -> bool {
        text(headers, IF_RANGE)
            .is_none_or(|value| value == self.etag || value == http_date(self.modified))
    }

    fn is_among(&self, tags: &str) -> bool {
        tags.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag == self.etag)
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let date = rfc2822::parse(text(headers, name)?).ok()?;
    Some(date.timestamp())
}

/// An S3 error document.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

impl Refusal {
    const TWO_PROOFS: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "InvalidArgument",
        "Only one auth mechanism allowed",
    );
    const ACCESS_DENIED: Self = Self::new(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied");
    const EXPIRED: Self = Self::new(StatusCode::FORBIDDEN, "AccessDenied", "Request has expired");
    const FORGED: Self = Self::new(
        StatusCode::FORBIDDEN,
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided.",
    );
    const NO_SUCH_KEY: Self = Self::new(
        StatusCode::NOT_FOUND,
        "NoSuchKey",
        "The specified key does not exist.",
    );
    const PRECONDITION_FAILED: Self = Self::new(
        StatusCode::PRECONDITION_FAILED,
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
    );
    const INVALID_RANGE: Self = Self::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "InvalidRange",
        "The requested range is not satisfiable",
    );
    const INTERNAL: Self = Self::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalError",
        "We encountered an internal error. Please try again.",
    );

    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Refusal {
            status,
            code,
            message,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>",
            self.code, self.message
        );
        (self.status, [(CONTENT_TYPE, "application/xml")], body).into_response()
    }
}
