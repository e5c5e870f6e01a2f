//! The object store: the host that links lead to, with the rules that differ from other stores.
//!
//! A range that is not wholly inside the object is ignored and the whole object sent with 200,
//! unless `x-oss-range-behavior: standard` is asked for, which no link allows because that header
//! would have to be signed. A link signed for GET is refused to HEAD. Owns the objects (one lock,
//! held only to look one up or change it).

mod admit;
mod list;
mod refusal;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header;
use jiff::Timestamp;
use md5::{Digest, Md5};
use percent_encoding::utf8_percent_encode;

use self::admit::Asked;
use self::refusal::Refusal;
use super::estate::Keys;
use super::signature::RESERVED_IN_PATH;
use crate::clock::Clock;
use crate::sim::content::Content;
use crate::sim::faults::Injected;
use crate::sim::object::{Checksum, Object, answer_to};
use crate::sim::{Site, hex};

const REGION: &str = "cn-hangzhou";

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
    /// The account's bucket and key.
    own: Option<(String, Keys)>,
    /// Whether the checksums that are told are wrong.
    wrong_checksums: AtomicBool,
    objects: Mutex<BTreeMap<Place, Stored>>,
}

/// An object and how long it is there.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    object: Object,
    /// When it is deleted.
    until: Option<Timestamp>,
    crc64: Checksum,
}

impl Oss {
    /// An empty store, reached at `base`.
    pub(super) fn new(
        base: String,
        site: Site,
        service: Keys,
        own: Option<(String, Keys)>,
    ) -> Self {
        Oss(Arc::new(Shared {
            base,
            site,
            service,
            own,
            wrong_checksums: AtomicBool::new(false),
            objects: Mutex::default(),
        }))
    }

    /// The account's bucket and its address.
    pub(super) fn bucket(&self) -> Option<(&str, String)> {
        let (name, _) = self.0.own.as_ref()?;
        Some((name, format!("{}/{name}", self.0.base)))
    }

    /// What lies in the account's bucket.
    pub(super) fn own(&self) -> Vec<(String, Content)> {
        let objects = self.listed("");
        let objects = objects.into_iter();
        objects
            .map(|(place, object)| (place.key, object.content))
            .collect()
    }

    /// The objects of the account's bucket whose keys begin with `prefix`, in their order.
    pub(super) fn listed(&self, prefix: &str) -> Vec<(Place, Object)> {
        let now = self.0.site.clock.now();
        let objects = self.objects();
        let objects = objects.iter().filter(|(place, object)| {
            let own = self
                .0
                .own
                .as_ref()
                .is_some_and(|(name, _)| *name == place.bucket);
            own && place.key.starts_with(prefix) && object.is_there(now)
        });
        objects
            .map(|(place, stored)| (place.clone(), stored.object.clone()))
            .collect()
    }

    /// The key that opens `bucket`: the service's for its own ones, the account's for any other.
    pub(super) fn keys(&self, bucket: &str) -> &Keys {
        let of_service = || {
            let objects = self.objects();
            objects.keys().any(|place| place.bucket == bucket)
        };
        match &self.0.own {
            Some((name, keys)) if name == bucket || !of_service() => keys,
            _ => &self.0.service,
        }
    }

    /// Puts `content` at `place`, as of `modified`, before which it is not there.
    pub(super) fn put(&self, place: &Place, content: Content, modified: Timestamp) {
        let name = format!("{}/{}:{modified}", place.bucket, place.key);
        let stored = Stored {
            object: Object {
                content,
                etag: format!("\"{}-2\"", hex(&Md5::digest(name)).to_ascii_uppercase()),
                modified,
            },
            until: None,
            crc64: Checksum::default(),
        };
        self.objects().insert(place.clone(), stored);
    }

    /// Whether the checksums told from now on are wrong.
    pub(super) fn tell_wrong_checksums(&self, wrong: bool) {
        self.0.wrong_checksums.store(wrong, Ordering::Relaxed);
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
                admit::of_link(place, &query).v4(secret.expose(), &date, &scope, &[], true);
            self.0.site.meter.signed(&signature);
            query.push(("x-oss-signature".to_owned(), signature));
        } else {
            let expires = ((ends.as_millisecond() + 999) / 1000).to_string();
            let signature = admit::of_link(place, &[]).v1(secret.expose(), &expires);
            self.0.site.meter.signed(&signature);
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

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Place, Stored>> {
        let objects = &self.0.objects;
        objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(oss): State<Oss>, request: Request) -> Response {
    let method = request.method().clone();
    let answer = serve(&oss, request).await;
    answer_to(&method, answer.unwrap_or_else(IntoResponse::into_response))
}

async fn serve(oss: &Oss, request: Request) -> Result<Response, Refusal> {
    let (request, _) = request.into_parts();
    let asked = Asked::of(&request);
    let now = oss.0.site.clock.now();
    if let Err(refusal) = asked.check(oss.keys(&asked.place.bucket), now) {
        let mut bill = oss.0.site.meter.bill();
        bill.expired_link_uses += u64::from(refusal == Refusal::EXPIRED);
        bill.forged_link_uses += u64::from(refusal == Refusal::FORGED);
        return Err(refusal);
    }
    if asked.place.key.is_empty() {
        let own = oss
            .bucket()
            .is_some_and(|(name, _)| name == asked.place.bucket);
        return match own {
            true => list::answer(oss, &asked),
            false => Err(Refusal::DENIED),
        };
    }
    let found = oss.objects().get(&asked.place).cloned();
    let found = found.filter(|object| object.is_there(now));
    let Stored { object, crc64, .. } = found.ok_or(Refusal::NO_SUCH_KEY)?;
    let content = object.content.clone();
    let size = tokio::task::spawn_blocking(move || content.size()).await;
    let size = size.map_err(|_| Refusal::INTERNAL)?;
    let mut headers = request.headers.clone();
    if asked.header("x-oss-range-behavior") != "standard"
        && inside(asked.header("range"), size).is_none()
    {
        headers.remove(header::RANGE);
    }
    let wrong = u64::from(oss.0.wrong_checksums.load(Ordering::Relaxed));
    let crc64 = crc64.of(&object.content).await? ^ wrong;
    let injected = request.extensions.get::<Injected>();
    let mut answer = object.answer(headers, injected).await?;
    for (name, value) in [
        ("server", "AliyunOSS"),
        ("x-oss-request-id", "SIM"),
        ("x-oss-object-type", "Multipart"),
        ("x-oss-hash-crc64ecma", &crc64.to_string()),
    ] {
        if let Ok(value) = value.try_into() {
            answer.headers_mut().insert(name, value);
        }
    }
    Ok(answer)
}

impl Stored {
    fn is_there(&self, now: Timestamp) -> bool {
        now >= self.object.modified && self.until.is_none_or(|until| now < until)
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
