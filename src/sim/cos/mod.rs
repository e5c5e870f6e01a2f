//! A simulated COS: one bucket whose objects are listed, and one that packed backups lie in, reached
//! at one address. Strict about both forms of its signature.
//!
//! Requests may name the bucket as the official clients do (`<bucket>.cos.<region>.myqcloud.com`,
//! also through a proxy) or any other host. Owns the objects: one lock, held only to look one up, to
//! list, or to change them. Facts: "GET Bucket", "GET Object" and "Error Codes" in
//! cloud.tencent.com/document/product/436.

mod list;
mod sign;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HOST, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use jiff::Timestamp;
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use self::sign::{Claim, escape};
use super::content::Content;
use super::faults::{Fault, Injected, Side};
use super::object::{Checksum, Failure, Object, answer_to};
use super::{Site, hex};
use crate::clock::Clock;
use crate::secret::Secret;

/// The keys that open the buckets.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Secret,
    /// Demanded with every request that is signed with the keys, if there is one.
    pub(super) token: Option<Secret>,
}

/// The store. Clones share the objects.
#[derive(Debug, Clone)]
pub(super) struct Cos(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    base: String,
    bucket: String,
    keys: Keys,
    site: Site,
    serial: AtomicU64,
    /// Whether the digests that are told are right.
    right_digests: AtomicBool,
    objects: Mutex<BTreeMap<String, Stored>>,
}

#[derive(Debug, Clone)]
struct Stored {
    object: Object,
    /// Whether listings show it: packed backups lie in a bucket of their own.
    listed: bool,
    crc64: Checksum,
}

impl Cos {
    /// An empty store reached at `base`, with a bucket of this name.
    pub(super) fn new(base: String, bucket: String, keys: Keys, site: Site) -> Self {
        Cos(Arc::new(Shared {
            base,
            bucket,
            keys,
            site,
            serial: AtomicU64::new(0),
            right_digests: AtomicBool::new(true),
            objects: Mutex::default(),
        }))
    }

    pub(super) fn base(&self) -> &str {
        &self.0.base
    }

    pub(super) fn bucket(&self) -> &str {
        &self.0.bucket
    }

    /// Puts `content` at `key` in place of what was there. Every version has its own ETag.
    pub(super) fn put(&self, key: &str, content: Content, modified: Timestamp, listed: bool) {
        let version = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let digest = Md5::digest(format!("{key}:{version}"));
        let stored = Stored {
            object: Object {
                content,
                etag: format!("\"{}\"", hex(&digest)),
                modified,
            },
            listed,
            crc64: Checksum::default(),
        };
        self.objects().insert(key.to_owned(), stored);
    }

    /// Whether the digests told from now on are `right`.
    pub(super) fn tell_digests(&self, right: bool) {
        self.0.right_digests.store(right, Ordering::Relaxed);
    }

    /// Removes the object at `key`.
    pub(super) fn remove(&self, key: &str) {
        self.objects().remove(key);
    }

    /// What is at `key`.
    pub(super) fn content(&self, key: &str) -> Option<Content> {
        let objects = self.objects();
        objects.get(key).map(|stored| stored.object.content.clone())
    }

    /// The keys that begin with `prefix`.
    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.objects();
        let keys = objects
            .iter()
            .filter(|(key, stored)| stored.listed && key.starts_with(prefix));
        keys.map(|(key, _)| key.clone()).collect()
    }

    /// A link that reads the object at `key` by GET until `end`, in the form that download tasks
    /// give: the whole key is escaped, slashes too.
    pub(super) fn sign(&self, key: &str, start: Timestamp, end: Timestamp) -> String {
        let Shared {
            base, keys, site, ..
        } = &*self.0;
        let window = format!("{};{}", start.as_second(), end.as_second());
        let host = base
            .split_once("://")
            .map_or(base.as_str(), |(_, host)| host);
        let headers = [("host".to_owned(), host.to_owned())];
        let path = format!("/{key}");
        let signature = sign::signature(keys.secret.expose(), &window, "get", &path, &[], &headers);
        site.meter.signed(&signature);
        let window = escape(&window);
        format!(
            "{base}/{}?q-sign-algorithm=sha1&q-ak={}&q-sign-time={window}&q-key-time={window}&q-header-list=host&q-url-param-list=&q-signature={signature}",
            escape(key),
            keys.id
        )
    }

    /// The host.
    pub(super) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.0
            .objects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the request proves who sent it, and if not, why.
    fn admit(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let header = asked.header(&AUTHORIZATION);
        let by_link = asked
            .parameters
            .iter()
            .any(|(name, _)| name == "q-signature");
        let claimed: BTreeMap<String, String> = match (header, by_link) {
            (Some(_), true) => return Err(Refusal::TWO_PROOFS),
            (None, false) => return Err(Refusal::ANONYMOUS),
            (None, true) => asked.parameters.iter().cloned().collect(),
            (Some(header), false) => header
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        };
        let claim = Claim::read(&claimed).ok_or(Refusal::MALFORMED)?;
        let Shared { keys, site, .. } = &*self.0;
        if claim.key_id != keys.id {
            return Err(Refusal::UNKNOWN_KEY);
        }
        if !asked.is_signed_by(&claim, keys.secret.expose()) {
            site.meter.bill().forged_link_uses += u64::from(by_link);
            return Err(Refusal::FORGED);
        }
        // Links of download tasks are signed by the service, which needs no token.
        let needs_token = !by_link || !claim.parameters.is_empty();
        if let Some(token) = keys.token.as_ref().filter(|_| needs_token)
            && asked.token() != Some(token.expose())
        {
            return Err(Refusal::TOKEN);
        }
        let now = site.clock.now().as_second();
        if (claim.start..=claim.end).contains(&now) {
            return Ok(());
        }
        site.meter.bill().expired_link_uses += u64::from(by_link);
        Err(Refusal::EXPIRED)
    }

    async fn serve(&self, asked: &Asked<'_>) -> Result<Response, Refusal> {
        if asked.bucket().is_some_and(|named| named != self.0.bucket) {
            return Err(Refusal::NO_SUCH_BUCKET);
        }
        self.admit(asked)?;
        for fault in asked.injected.map(|i| &i.0).into_iter().flatten() {
            if let Fault::ApiError { status, code } = fault {
                return Err(Refusal::injected(*status, code));
            }
        }
        if !matches!(*asked.method, Method::GET | Method::HEAD) {
            return Err(Refusal::METHOD);
        }
        let key = asked.path.trim_start_matches('/');
        if key.is_empty() {
            let objects = self.objects();
            let listed = objects
                .iter()
                .filter(|(_, stored)| stored.listed)
                .map(|(key, stored)| (key.as_str(), &stored.object));
            return list::page(&self.0.bucket, &asked.parameters, listed);
        }
        let stored = self.objects().get(key).cloned();
        let stored = stored.ok_or(Refusal::NO_SUCH_KEY)?;
        // Stricter than COS: a packed backup is there only at the very address that its link names.
        if !stored.listed && asked.raw_path != format!("/{}", escape(key)) {
            return Err(Refusal::OTHER_ADDRESS);
        }
        let wrong = u64::from(!self.0.right_digests.load(Ordering::Relaxed));
        let crc64 = stored.crc64.of(&stored.object.content).await;
        let crc64 = crc64.map_err(|_| Refusal::INTERNAL)? ^ wrong;
        let answer = stored.object.answer(asked.headers.clone(), asked.injected);
        let mut answer = match answer.await {
            Ok(answer) => answer,
            Err(Failure::Precondition) => return Err(Refusal::PRECONDITION_FAILED),
            Err(Failure::Internal) => return Err(Refusal::INTERNAL),
            Err(Failure::Range(size)) => {
                let unsatisfied = [(CONTENT_RANGE, format!("bytes */{size}"))];
                return Ok(
                    (unsatisfied, asked.refuse(self, Refusal::INVALID_RANGE)).into_response()
                );
            }
        };
        set(&mut answer, "x-cos-hash-crc64ecma", &crc64.to_string());
        Ok(answer)
    }
}

/// What a request to the host is: a listing asks about names, like a call to an API.
pub(super) fn side(uri: &Uri) -> Side {
    match uri.path() {
        "" | "/" => Side::Api,
        _ => Side::Data,
    }
}

async fn answer(State(cos): State<Cos>, request: Request) -> Response {
    let path = percent_decode_str(request.uri().path())
        .decode_utf8_lossy()
        .into_owned();
    let query = request.uri().query().unwrap_or_default();
    let asked = Asked {
        method: request.method(),
        raw_path: request.uri().path(),
        path,
        // A space comes as `+` from the official clients.
        parameters: form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        headers: request.headers(),
        injected: request.extensions().get::<Injected>(),
    };
    let mut answer = match cos.serve(&asked).await {
        Ok(answer) => answer,
        Err(refusal) => asked.refuse(&cos, refusal),
    };
    let id = cos.0.serial.fetch_add(1, Ordering::Relaxed);
    let id = format!("NjU{id:013x}");
    set(&mut answer, "x-cos-request-id", &id);
    answer
        .headers_mut()
        .insert(SERVER, HeaderValue::from_static("tencent-cos"));
    answer_to(request.method(), answer)
}

/// A request, decoded once.
struct Asked<'a> {
    method: &'a Method,
    /// As it came.
    raw_path: &'a str,
    path: String,
    parameters: Vec<(String, String)>,
    headers: &'a HeaderMap,
    injected: Option<&'a Injected>,
}

impl Asked<'_> {
    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn token(&self) -> Option<&str> {
        let header = self.headers.get("x-cos-security-token");
        let header = header.and_then(|value| value.to_str().ok());
        header.or_else(|| self.parameter("x-cos-security-token"))
    }

    /// The bucket that the host names, if it is a host of COS.
    fn bucket(&self) -> Option<&str> {
        let (bucket, _) = self.header(&HOST)?.split_once(".cos.")?;
        Some(bucket)
    }

    /// Whether `claim` is true of this request. Some clients sign the host without its port.
    fn is_signed_by(&self, claim: &Claim, secret: &str) -> bool {
        let parameters: Option<Vec<(String, String)>> = claim
            .parameters
            .iter()
            .map(|name| {
                let decoded = percent_decode_str(name).decode_utf8().ok()?;
                let same = |known: &str| known.eq_ignore_ascii_case(&decoded);
                self.parameters
                    .iter()
                    .find(|(known, _)| same(known))
                    .cloned()
            })
            .collect();
        let headers: Option<Vec<(String, String)>> = claim
            .headers
            .iter()
            .map(|name| {
                let value = self.headers.get(name.as_str())?.to_str().ok()?;
                Some((name.clone(), value.to_owned()))
            })
            .collect();
        let (Some(parameters), Some(headers)) = (parameters, headers) else {
            return false;
        };
        let portless = headers.iter().map(|(name, value)| {
            let host = value
                .rsplit_once(':')
                .map_or(value.as_str(), |(host, _)| host);
            let value = if name == "host" { host } else { value };
            (name.clone(), value.to_owned())
        });
        let portless: Vec<(String, String)> = portless.collect();
        [headers, portless].iter().any(|headers| {
            let method = self.method.as_str();
            let path = &self.path;
            let made = sign::signature(secret, &claim.window, method, path, &parameters, headers);
            made == claim.signature
        })
    }

    fn refuse(&self, cos: &Cos, refusal: Refusal) -> Response {
        let resource = format!("{}.cos.sim{}", cos.0.bucket, self.path);
        let resource = resource.replace('&', "&amp;").replace('<', "&lt;");
        let body = format!(
            "<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>{}</Code><Message>{}</Message><Resource>{resource}</Resource><RequestId>NjU=</RequestId><TraceId>OGVm</TraceId></Error>\n",
            refusal.code, refusal.message
        );
        (refusal.status, [(CONTENT_TYPE, "application/xml")], body).into_response()
    }
}

fn set(answer: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// An error document.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    status: StatusCode,
    code: std::borrow::Cow<'static, str>,
    message: &'static str,
}

impl Refusal {
    const TWO_PROOFS: Self = Self::new(400, "InvalidArgument", "Only one proof is allowed");
    const BAD_ARGUMENT: Self = Self::new(400, "InvalidArgument", "A parameter is out of range");
    const ANONYMOUS: Self = Self::new(403, "AccessDenied", "Access Denied.");
    const MALFORMED: Self = Self::new(403, "AccessDenied", "The signature is malformed.");
    const UNKNOWN_KEY: Self = Self::new(
        403,
        "InvalidAccessKeyId",
        "The Access Key Id does not exist.",
    );
    const FORGED: Self = Self::new(
        403,
        "SignatureDoesNotMatch",
        "The Signature you specified is invalid.",
    );
    const OTHER_ADDRESS: Self = Self::new(
        403,
        "AccessDenied",
        "The address is not the one that was given.",
    );
    const TOKEN: Self = Self::new(403, "AccessDenied", "The token is missing or wrong.");
    const EXPIRED: Self = Self::new(403, "AccessDenied", "Request has expired");
    const NO_SUCH_BUCKET: Self =
        Self::new(404, "NoSuchBucket", "The specified bucket does not exist.");
    const NO_SUCH_KEY: Self = Self::new(404, "NoSuchKey", "The specified key does not exist.");
    const METHOD: Self = Self::new(405, "MethodNotAllowed", "The method is not allowed.");
    const PRECONDITION_FAILED: Self =
        Self::new(412, "PreconditionFailed", "A precondition did not hold.");
    const INVALID_RANGE: Self = Self::new(
        416,
        "InvalidRange",
        "The requested range is not satisfiable",
    );
    const INTERNAL: Self = Self::new(500, "InternalError", "We encountered an internal error.");

    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        let status = match StatusCode::from_u16(status) {
            Ok(status) => status,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal {
            status,
            code: std::borrow::Cow::Borrowed(code),
            message,
        }
    }

    fn injected(status: u16, code: &str) -> Self {
        Refusal {
            code: code.to_owned().into(),
            ..Self::new(status, "", "Injected.")
        }
    }
}
