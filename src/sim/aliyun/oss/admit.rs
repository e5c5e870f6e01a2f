//! Who asks the store for what: both signature versions, in a link or in a header.

use http::request::Parts;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;
use super::{Network, Place};
use crate::sim::aliyun::estate::Keys;
use crate::sim::aliyun::signature::Signed;

/// How far the clocks may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(15);

/// One request.
#[derive(Debug)]
pub(super) struct Asked {
    method: String,
    pub(super) place: Place,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn of(request: &Parts) -> Self {
        let path = percent_decode_str(request.uri.path()).decode_utf8_lossy();
        let path = path.trim_start_matches('/');
        let inside = Network::Internal.path().trim_start_matches('/');
        let path = path
            .strip_prefix(inside)
            .and_then(|path| path.strip_prefix('/'))
            .unwrap_or(path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let headers = request.headers.iter().filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.to_string(), value.to_owned()))
        });
        Asked {
            method: request.method.to_string(),
            place: Place {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
            },
            query: parameters(request.uri.query().unwrap_or_default()),
            headers: headers.collect(),
        }
    }

    /// A header; empty if there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        value(&self.headers, name).unwrap_or_default()
    }

    /// A query parameter; empty if there is none.
    pub(super) fn parameter(&self, name: &str) -> &str {
        value(&self.query, name).unwrap_or_default()
    }

    /// Whether `keys` made the request's signature, and whether it is still valid.
    pub(super) fn check(&self, keys: &Keys, now: Timestamp) -> Result<(), Refusal> {
        let authorization = self.header("authorization");
        let linked = ["Signature", "x-oss-signature"]
            .into_iter()
            .any(|name| !self.parameter(name).is_empty());
        match (authorization, linked) {
            ("", false) => Err(Refusal::INCOMPLETE),
            ("", true) => self.check_link(keys, now),
            (_, true) => Err(Refusal::INVALID_ARGUMENT),
            (header, false) => self.check_header(header, keys, now),
        }
    }

    fn check_link(&self, keys: &Keys, now: Timestamp) -> Result<(), Refusal> {
        let secret = keys.secret.expose();
        let number = |name| self.parameter(name).parse::<i64>();
        let (ends, id, fits) = if self.parameter("x-oss-signature").is_empty() {
            let expires = self.parameter("Expires");
            let fits = self.signed().v1(secret, expires) == self.parameter("Signature");
            let ends = number("Expires").map_err(|_| Refusal::INCOMPLETE)?;
            (ends, self.parameter("OSSAccessKeyId"), fits)
        } else {
            let date = self.parameter("x-oss-date");
            let signed_at = compact(date).ok_or(Refusal::INCOMPLETE)?;
            let life = number("x-oss-expires").map_err(|_| Refusal::INCOMPLETE)?;
            let credential = self.parameter("x-oss-credential").split_once('/');
            let (id, scope) = credential.ok_or(Refusal::INCOMPLETE)?;
            let fits = self.fits_v4(secret, date, scope, "", self.parameter("x-oss-signature"));
            (signed_at.as_second() + life, id, fits)
        };
        if now.as_millisecond() >= ends * 1000 {
            return Err(Refusal::EXPIRED);
        }
        let token = match self.parameter("security-token") {
            "" => self.parameter("x-oss-security-token"),
            token => token,
        };
        identified(id, token, fits, keys)
    }

    fn check_header(&self, header: &str, keys: &Keys, now: Timestamp) -> Result<(), Refusal> {
        let secret = keys.secret.expose();
        let token = match self.header("x-oss-security-token") {
            "" => self.header("security-token"),
            token => token,
        };
        if let Some(fields) = header.strip_prefix("OSS4-HMAC-SHA256 ") {
            let field = |name: &str| {
                let mut fields = fields.split(',');
                fields.find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
            };
            let (Some(credential), Some(signature)) = (field("Credential"), field("Signature"))
            else {
                return Err(Refusal::FORGED);
            };
            let (id, scope) = credential.split_once('/').ok_or(Refusal::FORGED)?;
            let date = self.header("x-oss-date");
            check_date(compact(date), now)?;
            let additional = field("AdditionalHeaders").unwrap_or_default();
            let fits = self.fits_v4(secret, date, scope, additional, signature);
            return identified(id, token, fits, keys);
        }
        let proof = header
            .strip_prefix("OSS ")
            .and_then(|proof| proof.split_once(':'));
        let (id, signature) = proof.ok_or(Refusal::FORGED)?;
        let date = match self.header("x-oss-date") {
            "" => self.header("date"),
            date => date,
        };
        let signed_at = rfc2822::parse(date).ok().map(|date| date.timestamp());
        check_date(signed_at, now)?;
        identified(id, token, self.signed().v1(secret, date) == signature, keys)
    }

    fn fits_v4(
        &self,
        secret: &str,
        date: &str,
        scope: &str,
        additional: &str,
        given: &str,
    ) -> bool {
        let additional: Vec<&str> = additional
            .split(';')
            .filter(|name| !name.is_empty())
            .collect();
        [true, false]
            .into_iter()
            .any(|bare| self.signed().v4(secret, date, scope, &additional, bare) == given)
    }

    fn signed(&self) -> Signed<'_> {
        Signed {
            method: &self.method,
            bucket: &self.place.bucket,
            key: &self.place.key,
            query: &self.query,
            headers: &self.headers,
        }
    }
}

/// What the signature of a link to `place` is about.
pub(super) fn of_link<'a>(place: &'a Place, query: &'a [(String, String)]) -> Signed<'a> {
    Signed {
        method: "GET",
        bucket: &place.bucket,
        key: &place.key,
        query,
        headers: &[],
    }
}

fn identified(id: &str, token: &str, fits: bool, keys: &Keys) -> Result<(), Refusal> {
    let expected = keys.token.as_ref().map_or("", |token| token.expose());
    match (id == keys.id && token == expected, fits) {
        (false, _) => Err(Refusal::NO_SUCH_ID),
        (true, false) => Err(Refusal::FORGED),
        (true, true) => Ok(()),
    }
}

fn check_date(date: Option<Timestamp>, now: Timestamp) -> Result<(), Refusal> {
    match date {
        Some(date) if date.duration_since(now).abs() <= SKEW => Ok(()),
        _ => Err(Refusal::SKEWED),
    }
}

/// `20260328T080000Z`
fn compact(date: &str) -> Option<Timestamp> {
    let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).ok()?;
    Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
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
