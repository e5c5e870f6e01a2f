//! A simulated US3: the file store that links to backups lead to, with what differs from other
//! stores ("API signature" and "Error codes", docs.ucloud.cn/ufile).
//!
//! A link is signed for its verb; its time is looked at before its signature. A range behind the end
//! gets the whole file, with 206 and no Content-Range. Requests may name the bucket as the first part
//! of the host, or any other host. Owns the files: one lock, held only to look one up or change it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use hmac::{Hmac, KeyInit, Mac};
use http::header::{CONTENT_RANGE, CONTENT_TYPE, HOST, RANGE, SERVER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use sha1::{Digest, Sha1};
use url::form_urlencoded;

use super::knobs::{Knobs, Style};
use super::s3;
use super::{BUCKET, lock};
use crate::clock::Clock;
use crate::secret::Secret;
use crate::sim::Site;
use crate::sim::content::Content;
use crate::sim::faults::{Fault, Injected};
use crate::sim::object::{Failure, Object, answer_to};

/// The block that an entity tag counts.
const BLOCK: u64 = 4 << 20;

/// The store. Clones share the files.
#[derive(Debug, Clone)]
pub(super) struct Us3(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    base: String,
    site: Site,
    /// Who signs links: the service, then the account.
    keys: [(String, Secret); 2],
    knobs: Arc<Mutex<Knobs>>,
    serial: AtomicU64,
    objects: Mutex<HashMap<String, Object>>,
}

impl Us3 {
    /// An empty store, reached at `base`.
    pub(super) fn new(
        base: String,
        site: Site,
        keys: [(String, Secret); 2],
        knobs: Arc<Mutex<Knobs>>,
    ) -> Self {
        Us3(Arc::new(Shared {
            base,
            site,
            keys,
            knobs,
            serial: AtomicU64::new(0),
            objects: Mutex::default(),
        }))
    }

    pub(super) fn base(&self) -> &str {
        &self.0.base
    }

    /// Puts `content` at `key` in place of what was there. Every version has its own ETag, in the
    /// store's form: base64 of the number of blocks and of a SHA-1.
    pub(super) fn put(&self, key: &str, content: Content, modified: Timestamp) {
        let version = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let blocks = u32::try_from(content.size().div_ceil(BLOCK)).unwrap_or(u32::MAX);
        let mut tag = blocks.to_le_bytes().to_vec();
        tag.extend(Sha1::digest(format!("{key}:{version}")));
        let object = Object {
            etag: format!("\"{}\"", URL_SAFE.encode(tag)),
            content,
            modified,
        };
        self.objects().insert(key.to_owned(), object);
    }

    /// Removes the file at `key`.
    pub(super) fn remove(&self, key: &str) {
        self.objects().remove(key);
    }

    /// A link that reads the file at `key` by GET until `expires`, as raw as the API gives it.
    pub(super) fn link(
        &self,
        key: &str,
        expires: Timestamp,
        now: Timestamp,
        knobs: &Knobs,
    ) -> String {
        let (id, secret) = &self.0.keys[0];
        let base = &self.0.base;
        if knobs.style == Style::S3 {
            let host = base.trim_start_matches("http://");
            let (path, signature) = s3::presign(host, key, (id, secret), now, expires);
            self.0.site.meter.signed(&signature);
            return format!("{base}{path}{}{signature}", s3::SIGNATURE);
        }
        let end = expires.as_second().to_string();
        let signature = signature(secret, "GET", &HeaderMap::new(), &end, BUCKET, key);
        self.0.site.meter.signed(&signature);
        let signature = match knobs.escaped_signature {
            true => form_urlencoded::byte_serialize(signature.as_bytes()).collect(),
            false => signature,
        };
        format!("{base}/{key}?UCloudPublicKey={id}&Expires={end}&Signature={signature}")
    }

    /// The host.
    pub(super) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<String, Object>> {
        lock(&self.0.objects)
    }

    /// Whether the request's link is good, and if not, why.
    fn admit(&self, request: &Parts, bucket: &str, key: &str) -> Result<(), Refusal> {
        let query = request.uri.query().unwrap_or_default();
        let site = &self.0.site;
        let now = site.clock.now();
        let over = |refusal: Refusal| {
            site.meter.bill().expired_link_uses += 1;
            refusal
        };
        let forged = |refusal: Refusal| {
            site.meter.bill().forged_link_uses += 1;
            refusal
        };
        if query.contains("X-Amz-Signature=") {
            let (id, secret) = &self.0.keys[0];
            return match s3::check(request, (id, secret), now) {
                s3::Verdict::Good => Ok(()),
                s3::Verdict::Over => Err(over(Refusal::xml("AccessDenied", "Request has expired"))),
                s3::Verdict::Forged => {
                    Err(forged(Refusal::xml("SignatureDoesNotMatch", "Forged.")))
                }
            };
        }
        // Links are sent as they were made: a plus stays one.
        let claimed: BTreeMap<&str, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| {
                let value = percent_decode_str(value).decode_utf8_lossy();
                (name, value.into_owned())
            })
            .collect();
        let (Some(id), Some(end), Some(claim)) = (
            claimed.get("UCloudPublicKey"),
            claimed.get("Expires"),
            claimed.get("Signature"),
        ) else {
            return Err(Refusal::new(401, -148_643, "no authorization found"));
        };
        let status = lock(&self.0.knobs).expired_status;
        let ahead = |end: i64| now.as_second() < end;
        if !end.parse().is_ok_and(ahead) {
            return Err(over(Refusal::new(status, -148_660, "token expires")));
        }
        let method = request.method.as_str();
        let signed = |(known, secret): &(String, Secret)| {
            known == id && signature(secret, method, &request.headers, end, bucket, key) == *claim
        };
        match self.0.keys.iter().any(signed) {
            true => Ok(()),
            false => Err(forged(Refusal::new(
                403,
                -148_643,
                "signature does not match",
            ))),
        }
    }

    async fn serve(&self, request: &Parts) -> Result<Response, Refusal> {
        let key = percent_decode_str(request.uri.path().trim_start_matches('/'));
        let key = key.decode_utf8_lossy();
        let bucket = bucket(&request.headers);
        self.admit(request, bucket, &key)?;
        if bucket != BUCKET {
            return Err(Refusal::new(400, -148_653, "bucket not exist"));
        }
        let injected = request.extensions.get::<Injected>();
        for fault in injected.map(|injected| &injected.0).into_iter().flatten() {
            if let Fault::ApiError { status, code } = fault {
                let code = code.parse().unwrap_or(-1);
                return Err(Refusal::new(*status, code, "injected"));
            }
        }
        let object = self.objects().get(&*key).cloned();
        let object = object.ok_or(Refusal::new(404, -148_654, "file not exist"))?;
        let mut headers = request.headers.clone();
        match object.clone().answer(headers.clone(), injected).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Precondition) => Err(Refusal::new(412, -148_655, "precondition failed")),
            Err(Failure::Internal) => Err(Refusal::new(500, -1, "internal error")),
            Err(Failure::Range(size)) => {
                if !lock(&self.0.knobs).whole_for_no_range {
                    let unsatisfied = [(CONTENT_RANGE, format!("bytes */{size}"))];
                    let refusal = Refusal::new(416, -1, "range not satisfiable");
                    return Ok((unsatisfied, refusal.into_response()).into_response());
                }
                headers.remove(RANGE);
                let whole = object.answer(headers, injected).await;
                let mut whole = whole.map_err(|_| Refusal::new(500, -1, "internal error"))?;
                *whole.status_mut() = StatusCode::PARTIAL_CONTENT;
                Ok(whole)
            }
        }
    }
}

async fn answer(State(store): State<Us3>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let mut answer = match store.serve(&request).await {
        Ok(answer) => answer,
        Err(refusal) => {
            let id = store.0.serial.fetch_add(1, Ordering::Relaxed);
            let session = HeaderName::from_static("x-sessionid");
            ([(session, format!("sim-{id}"))], refusal.into_response()).into_response()
        }
    };
    let name = HeaderValue::from_static("nginx/1.10.2");
    answer.headers_mut().insert(SERVER, name);
    answer_to(&request.method, answer)
}

/// The bucket that the first part of the host names; without one, that of the backups.
fn bucket(headers: &HeaderMap) -> &str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let named = host.and_then(|host| host.split_once('.'));
    match named {
        Some((first, _)) if !first.bytes().all(|byte| byte.is_ascii_digit()) => first,
        _ => BUCKET,
    }
}

/// The signature of a request, in base64: of its verb, the headers that count, its end and its file.
fn signature(
    secret: &Secret,
    method: &str,
    headers: &HeaderMap,
    end: &str,
    bucket: &str,
    key: &str,
) -> String {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    };
    let (digest, kind) = (header("content-md5"), header("content-type"));
    let text = format!("{method}\n{digest}\n{kind}\n{end}\n/{bucket}/{key}");
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// An error document: JSON as US3 writes it, or XML as S3 does.
#[derive(Debug, Clone)]
struct Refusal {
    status: u16,
    kind: &'static str,
    body: String,
}

impl Refusal {
    fn new(status: u16, code: i64, message: &str) -> Self {
        Refusal {
            status,
            kind: "application/json",
            body: format!("{{\"RetCode\":{code},\"ErrMsg\":\"{message}\"}}"),
        }
    }

    fn xml(code: &str, message: &str) -> Self {
        Refusal {
            status: 403,
            kind: "application/xml",
            body: format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            ),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::FORBIDDEN);
        (status, [(CONTENT_TYPE, self.kind)], self.body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signatures made by the official client.
    #[test]
    fn the_verb_is_part_of_the_signature() {
        let secret = Secret::new("00000000-0000-0000-0000-000000000000");
        let key = "umongodb-abc/umongodb-bk-1.tgz";
        for (method, expected) in [
            ("GET", "vw2zLqwmuAqmATDDfs5flj6glVQ="),
            ("HEAD", "NRYYKAcaYjua0QPrncMiabqlp/Q="),
        ] {
            let none = HeaderMap::new();
            let made = signature(&secret, method, &none, "1700000000", "udbbackup", key);
            assert_eq!(made, expected, "{method}");
        }
    }

    #[test]
    fn the_host_may_name_the_bucket() {
        for (host, expected) in [
            ("udbbackup.cn-bj.ufileos.com", "udbbackup"),
            ("other.localhost:8080", "other"),
            ("127.0.0.1:8080", "udbbackup"),
            ("localhost:8080", "udbbackup"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            assert_eq!(bucket(&headers), expected, "{host}");
        }
    }
}
