//! The object store: the host that links lead to, with the rules that differ from other stores.
//!
//! A range that is not wholly inside the object is ignored and the whole object sent with 200,
//! unless `x-oss-range-behavior: standard` is asked for, which no link allows because that header
//! would have to be signed. A link signed for GET is refused to HEAD. Owns the objects (one lock,
//! held only to look one up or change it).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use crc_fast::{CrcAlgorithm, Digest as Crc};
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{Method, StatusCode};
use jiff::Timestamp;
use md5::{Digest, Md5};
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::estate::Keys;
use super::signature::{RESERVED_IN_PATH, Signed};
use crate::clock::Clock;
use crate::sim::clock::http_date;
use crate::sim::content::Content;
use crate::sim::faults::{Fault, Injected};
use crate::sim::{Site, hex};

const REGION: &str = "cn-hangzhou";
/// Bytes hashed at a time.
const PIECE: u64 = 1 << 20;

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) key: String,
}

/// Which of the two hosts a link names. Here it is one host, and the path tells: no signature
/// covers what stands before the bucket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Network {
    /// `<bucket>.oss-<region>.aliyuncs.com`
    Public,
    /// `<bucket>.oss-<region>-internal.aliyuncs.com`
    Internal,
}

impl Network {
    fn path(self) -> &'static str {
        match self {
            Network::Public => "",
            Network::Internal => "/internal",
        }
    }
}

/// The store. Clones share the objects.
#[derive(Debug, Clone)]
pub(super) struct Oss(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    base: String,
    site: Site,
    service: Keys,
    objects: Mutex<BTreeMap<Place, Object>>,
}

#[derive(Debug, Clone)]
struct Object {
    content: Content,
    etag: String,
    modified: Timestamp,
    /// When it is deleted.
    until: Option<Timestamp>,
    crc: Arc<OnceLock<u64>>,
}

impl Oss {
    /// An empty store, reached at `base`.
    pub(super) fn new(base: String, site: Site, service: Keys) -> Self {
        Oss(Arc::new(Shared {
            base,
            site,
            service,
            objects: Mutex::default(),
        }))
    }

    /// Puts `content` at `place`, as of `modified`.
    pub(super) fn put(&self, place: &Place, content: Content, modified: Timestamp) {
        let name = format!("{}/{}:{modified}", place.bucket, place.key);
        let object = Object {
            content,
            etag: format!("\"{}-2\"", hex(&Md5::digest(name)).to_ascii_uppercase()),
            modified,
            until: None,
            crc: Arc::default(),
        };
        self.objects().insert(place.clone(), object);
    }

    /// The object at `place` is deleted at `until`.
    pub(super) fn keep_until(&self, place: &Place, until: Timestamp) {
        if let Some(object) = self.objects().get_mut(place) {
            object.until = Some(until);
        }
    }

    /// A link that reads the object at `place` by GET until `ends`.
    pub(super) fn link(
        &self,
        place: &Place,
        network: Network,
        now: Timestamp,
        ends: Timestamp,
        v4: bool,
    ) -> String {
        self.0.site.meter.bill().links_signed += 1;
        let Keys { id, secret, .. } = &self.0.service;
        let mut query: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, value: String| query.push((name.to_owned(), value));
        if v4 {
            let day = now.strftime("%Y%m%d").to_string();
            let scope = format!("{day}/{REGION}/oss/aliyun_v4_request");
            let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
            // Whole seconds: rounded up, so that the link lives as long as its object.
            let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
            let life = (ends.duration_since(whole).as_millis() + 999) / 1000;
            add("x-oss-signature-version", "OSS4-HMAC-SHA256".to_owned());
            add("x-oss-credential", format!("{id}/{scope}"));
            add("x-oss-date", date.clone());
            add("x-oss-expires", life.to_string());
            let signature =
                signed("GET", place, &query).v4(secret.expose(), &date, &scope, &[], true);
            query.push(("x-oss-signature".to_owned(), signature));
        } else {
            let expires = ((ends.as_millisecond() + 999) / 1000).to_string();
            let signature = signed("GET", place, &[]).v1(secret.expose(), &expires);
            add("Expires", expires);
            add("OSSAccessKeyId", id.clone());
            add("Signature", signature);
            // Not signed, as in the links of local disks.
            add("Region", REGION.to_owned());
        }
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(query)
            .finish();
        let path = utf8_percent_encode(&place.key, RESERVED_IN_PATH);
        let base = &self.0.base;
        format!("{base}{}/{}/{path}?{query}", network.path(), place.bucket)
    }

    /// The host.
    pub(super) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Place, Object>> {
        let objects = &self.0.objects;
        objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object that `request` may read.
    fn admit(&self, request: &Parts) -> Result<Object, Refusal> {
        let path = percent_decode_str(request.uri.path()).decode_utf8_lossy();
        let path = path.trim_start_matches('/');
        let inside = Network::Internal.path().trim_start_matches('/');
        let path = path
            .strip_prefix(inside)
            .map_or(path, |path| path.trim_start_matches('/'));
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let place = Place {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        };
        let query = parameters(request.uri.query().unwrap_or_default());
        let get = |name: &str| {
            let found = query.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        if request.headers.contains_key(header::AUTHORIZATION) {
            return Err(Refusal::INVALID_ARGUMENT);
        }
        let headers: Vec<(String, String)> = request
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect();
        let secret = self.0.service.secret.expose();
        let by = Signed {
            headers: &headers,
            ..signed(request.method.as_str(), &place, &query)
        };
        let now = self.0.site.clock.now().as_millisecond();
        let (over, fits) = if let Some(signature) = get("x-oss-signature") {
            let (Some(date), Some(life), Some(credential)) = (
                get("x-oss-date"),
                get("x-oss-expires"),
                get("x-oss-credential"),
            ) else {
                return Err(Refusal::INCOMPLETE);
            };
            let signed_at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
                .and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC))
                .map_err(|_| Refusal::INCOMPLETE)?;
            let life: i64 = life.parse().map_err(|_| Refusal::INCOMPLETE)?;
            let (_, scope) = credential.split_once('/').ok_or(Refusal::INCOMPLETE)?;
            let over = now >= signed_at.timestamp().as_millisecond() + life * 1000;
            (over, by.v4(secret, date, scope, &[], true) == signature)
        } else {
            let (Some(expires), Some(_), Some(signature)) =
                (get("Expires"), get("OSSAccessKeyId"), get("Signature"))
            else {
                return Err(Refusal::INCOMPLETE);
            };
            let until: i64 = expires.parse().map_err(|_| Refusal::INCOMPLETE)?;
            (now >= until * 1000, by.v1(secret, expires) == signature)
        };
        if over {
            self.0.site.meter.bill().expired_link_uses += 1;
            return Err(Refusal::EXPIRED);
        }
        let found = self.objects().get(&place).cloned();
        let is_there = |object: &Object| {
            object
                .until
                .is_none_or(|until| now < until.as_millisecond())
        };
        if !fits {
            self.0.site.meter.bill().forged_link_uses += 1;
            return Err(Refusal::FORGED);
        }
        found.filter(is_there).ok_or(Refusal::NO_SUCH_KEY)
    }
}

fn signed<'a>(method: &'a str, place: &'a Place, query: &'a [(String, String)]) -> Signed<'a> {
    Signed {
        method,
        bucket: &place.bucket,
        key: &place.key,
        query,
        headers: &[],
    }
}

/// Decoded; a plus is a plus.
fn parameters(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

async fn answer(State(oss): State<Oss>, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    let answer = serve(&oss, request)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    if head {
        answer.map(|_| Body::empty())
    } else {
        answer
    }
}

async fn serve(oss: &Oss, request: Request) -> Result<Response, Refusal> {
    let (request, _) = request.into_parts();
    let mut object = oss.admit(&request)?;
    let text = |name: HeaderName| request.headers.get(name)?.to_str().ok();
    let mut range_header = text(header::RANGE);
    let mut if_match = text(header::IF_MATCH);
    let injected = request.extensions.get::<Injected>();
    for fault in injected
        .map(|faults| faults.0.as_slice())
        .unwrap_or_default()
    {
        match fault {
            Fault::IgnoreRange => range_header = None,
            Fault::OtherEtag { etag } => {
                if_match = None;
                object.etag = etag.clone();
            }
            _ => {}
        }
    }
    if if_match.is_some_and(|tag| tag != object.etag && tag != "*") {
        return Err(Refusal::PRECONDITION_FAILED);
    }
    let measured = object.clone();
    let (size, crc) = tokio::task::spawn_blocking(move || measured.measure())
        .await
        .map_err(|_| Refusal::INTERNAL)?;
    let part = range_header.and_then(|header| inside(header, size));
    let status = match part {
        Some(_) => StatusCode::PARTIAL_CONTENT,
        None => StatusCode::OK,
    };
    let range = part.unwrap_or(0..size);
    let mut headers = vec![
        (header::SERVER, "AliyunOSS".to_owned()),
        (header::ETAG, object.etag.clone()),
        (header::LAST_MODIFIED, http_date(object.modified)),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (
            header::CONTENT_LENGTH,
            (range.end - range.start).to_string(),
        ),
        (
            HeaderName::from_static("x-oss-request-id"),
            "SIM".to_owned(),
        ),
        (
            HeaderName::from_static("x-oss-object-type"),
            "Multipart".to_owned(),
        ),
        (
            HeaderName::from_static("x-oss-hash-crc64ecma"),
            crc.to_string(),
        ),
    ];
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        headers.push((header::CONTENT_RANGE, value));
    }
    let body = Body::from_stream(object.content.stream(range));
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        if let Ok(value) = value.try_into() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

impl Object {
    /// Size and CRC-64; the second is computed once.
    fn measure(&self) -> (u64, u64) {
        let size = self.content.size();
        let crc = self.crc.get_or_init(|| {
            let mut crc = Crc::new(CrcAlgorithm::Crc64Xz);
            let mut at = 0;
            while at < size {
                // A file that cannot be read has no checksum that would ever be compared.
                let Ok(piece) = self.content.read(at..at + PIECE) else {
                    break;
                };
                crc.update(&piece);
                at += piece.len() as u64;
            }
            crc.finalize()
        });
        (size, *crc)
    }
}

/// The range that `header` wants, if all of it lies inside an object of `size` bytes.
fn inside(header: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last && last < size => first..last + 1,
        (Ok(first), Err(_)) if last.is_empty() && first < size => first..size,
        (Err(_), Ok(length)) if first.is_empty() && (1..=size).contains(&length) => {
            size - length..size
        }
        _ => return None,
    };
    Some(range)
}

/// An error document of the store.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

impl Refusal {
    const INVALID_ARGUMENT: Self = Self::new(400, "InvalidArgument", "Two signatures.");
    const INCOMPLETE: Self = Self::new(
        403,
        "AccessDenied",
        "Query-string authentication requires the Signature, Expires and OSSAccessKeyId parameters",
    );
    const EXPIRED: Self = Self::new(403, "AccessDenied", "Request has expired.");
    const FORGED: Self = Self::new(
        403,
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided.",
    );
    const NO_SUCH_KEY: Self = Self::new(404, "NoSuchKey", "The specified key does not exist.");
    const PRECONDITION_FAILED: Self = Self::new(
        412,
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold.",
    );
    const INTERNAL: Self = Self::new(500, "InternalError", "Please try again.");

    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        let status = match StatusCode::from_u16(status) {
            Ok(status) => status,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
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
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n  <Code>{}</Code>\n  <Message>{}</Message>\n  <RequestId>SIM</RequestId>\n</Error>\n",
            self.code, self.message
        );
        let kind = [(header::CONTENT_TYPE, "application/xml")];
        (self.status, kind, body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_inside_the_object_count() {
        for (header, size, expected) in [
            ("bytes=0-0", 10, Some(0..1)),
            ("bytes=9-9", 10, Some(9..10)),
            ("bytes=4-", 10, Some(4..10)),
            ("bytes=-3", 10, Some(7..10)),
            ("bytes=4-10", 10, None),
            ("bytes=10-", 10, None),
            ("bytes=-11", 10, None),
            ("bytes=5-4", 10, None),
            ("bytes=0-0", 0, None),
            ("bytes=a-b", 10, None),
        ] {
            assert_eq!(inside(header, size), expected, "{header} of {size}");
        }
    }
}
