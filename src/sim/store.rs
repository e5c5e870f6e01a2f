//! The object store: the host that signed links lead to, as exact about HTTP as S3 and its like.
//!
//! A link is signed over method, path, expiry and serial number by HMAC-SHA-256; errors are S3's
//! XML documents. Owns the objects (one lock, held only to look one up or change it).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, SERVER};
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

use super::Site;
use super::content::Content;
use super::faults::Injected;
use super::object::{Failure, Object, answer_to};
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
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let expires = expires.as_millisecond().to_string();
        let path = format!("/{}", utf8_percent_encode(key, ESCAPED));
        let signature = self.signature("GET", &path, &expires, &serial.to_string());
        self.0.site.meter.signed(&signature);
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
    let method = request.method().clone();
    let answer = serve(&store, request).await;
    answer_to(&method, answer.unwrap_or_else(IntoResponse::into_response))
}

async fn serve(store: &Store, request: Request) -> Result<Response, Refusal> {
    store.admit(&request)?;
    let key = percent_decode_str(request.uri().path().trim_start_matches('/'))
        .decode_utf8_lossy()
        .into_owned();
    let object = store.objects().get(&key).cloned();
    let object = object.ok_or(Refusal::NO_SUCH_KEY)?;
    let injected = request.extensions().get::<Injected>();
    let mut answer = match object.answer(request.headers().clone(), injected).await {
        Ok(answer) => answer,
        Err(Failure::Precondition) => return Err(Refusal::PRECONDITION_FAILED),
        Err(Failure::Internal) => return Err(Refusal::INTERNAL),
        Err(Failure::Range(size)) => {
            let unsatisfied = [(CONTENT_RANGE, format!("bytes */{size}"))];
            (unsatisfied, Refusal::INVALID_RANGE).into_response()
        }
    };
    let name = HeaderValue::from_static("simulated-object-store");
    answer.headers_mut().insert(SERVER, name);
    Ok(answer)
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
