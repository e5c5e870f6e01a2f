//! Is this answer what was asked for? Pure.
//!
//! [`judge`] looks at status and headers of an answer to a range request before any byte of its
//! body is believed; [`judge_probe`] does so for the first request, which has nothing to compare
//! with yet. Protocol facts are from RFC 9110 (HTTP semantics); the error codes of
//! [`link_is_over`] are those of the stores' own references (S3, OSS, COS, GCS, Azure).

use std::ops::Range;

use http::StatusCode;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    LAST_MODIFIED,
};

use crate::error::Kind;
use crate::links::Refusal;
use crate::model::Validator;

/// What an answer to a range request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// What was asked for; with what was learnt from it.
    Accept(T),
    /// The store turns the link down.
    Refused(Refusal),
    /// It answers for another version than the pinned one.
    Changed,
    /// A passing failure of this kind.
    Retry(Kind),
    /// An answer that the protocol does not allow here, or a final refusal; why, in words.
    Protocol(String),
}

/// A `Content-Range` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentRange {
    /// `bytes 0-9/100`: the bytes, end exclusive, and the total unless it is `*`.
    Bytes(Range<u64>, Option<u64>),
    /// `bytes */100`: nothing of a file this long.
    Unsatisfied(u64),
}

/// Where an accepted body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// With the wanted range.
    Exact,
    /// Later: the server sends the whole file although only its beginning was asked.
    Longer,
}

/// Reads a `Content-Range` value strictly (RFC 9110 14.4): one range in bytes, decimal digits
/// only, first <= last < total.
pub fn content_range(value: &str) -> Option<ContentRange> {
    let (unit, rest) = value.split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, total) = rest.split_once('/')?;
    if range == "*" {
        return Some(ContentRange::Unsatisfied(decimal(total)?));
    }
    let (first, last) = range.split_once('-')?;
    let (first, end) = (decimal(first)?, decimal(last)?.checked_add(1)?);
    let total = match total {
        "*" => None,
        digits => Some(decimal(digits)?),
    };
    let fits = first < end && total.is_none_or(|total| end <= total);
    fits.then_some(ContentRange::Bytes(first..end, total))
}

/// Decimal digits and nothing else, not even a sign.
fn decimal(digits: &str) -> Option<u64> {
    let only_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    only_digits.then(|| digits.parse().ok())?
}

/// Judges the answer to a request for `wanted` (not empty, within the size) of the version
/// `pinned`. `code` is the store's error code from the body, where there was one.
pub fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    code: Option<&str>,
    wanted: &Range<u64>,
    pinned: &Validator,
) -> Verdict<Body> {
    match status {
        StatusCode::PARTIAL_CONTENT => judge_partial(headers, wanted, pinned),
        StatusCode::OK => judge_whole(headers, wanted, pinned),
        StatusCode::PRECONDITION_FAILED => Verdict::Changed,
        StatusCode::RANGE_NOT_SATISFIABLE => match single(headers, &CONTENT_RANGE) {
            Ok(Some(value))
                if content_range(value) == Some(ContentRange::Unsatisfied(pinned.size)) =>
            {
                Verdict::Protocol("the server refuses a range that lies within the file".into())
            }
            _ => Verdict::Changed,
        },
        _ => judge_failure(status, code),
    }
}

fn judge_partial(headers: &HeaderMap, wanted: &Range<u64>, pinned: &Validator) -> Verdict<Body> {
    let (got, total) = match ranged(headers) {
        Ok(it) => it,
        Err(why) => return Verdict::Protocol(why),
    };
    match same_version(headers, pinned) {
        Version::Same => {}
        Version::Other => return Verdict::Changed,
        Version::Unsaid => return Verdict::Protocol(UNSAID.into()),
    }
    match total {
        Some(total) if total == pinned.size => {}
        // Without validators the size is all that was pinned.
        Some(_) if pinned.etag.is_none() && pinned.last_modified.is_none() => {
            return Verdict::Changed;
        }
        _ => return Verdict::Protocol("the server names another total length".into()),
    }
    if got != *wanted {
        return Verdict::Protocol("the server sent another range than asked".into());
    }
    match length(headers) {
        Ok(None) => Verdict::Accept(Body::Exact),
        Ok(Some(length)) if length == wanted.end - wanted.start => Verdict::Accept(Body::Exact),
        Ok(Some(_)) => Verdict::Protocol("the body's length is not the length of its range".into()),
        Err(why) => Verdict::Protocol(why),
    }
}

/// A 200 is as good as a 206 only where the wanted range begins the file and the file is provably
/// the pinned one.
fn judge_whole(headers: &HeaderMap, wanted: &Range<u64>, pinned: &Validator) -> Verdict<Body> {
    if let Err(why) = identity(headers) {
        return Verdict::Protocol(why);
    }
    match same_version(headers, pinned) {
        Version::Other => return Verdict::Changed,
        Version::Same if wanted.start == 0 && length(headers) == Ok(Some(pinned.size)) => {}
        _ => return Verdict::Protocol("the server ignores ranges: it answered 200".into()),
    }
    Verdict::Accept(if wanted.end < pinned.size {
        Body::Longer
    } else {
        Body::Exact
    })
}

/// Judges the answer to a request for `bytes=0-0` when nothing is pinned yet: the
/// file's length. Never [`Verdict::Changed`].
pub fn judge_probe(status: StatusCode, headers: &HeaderMap, code: Option<&str>) -> Verdict<u64> {
    let learnt = match status {
        StatusCode::PARTIAL_CONTENT => ranged(headers).and_then(|it| match it {
            (Range { start: 0, end: 1 }, Some(total)) => match length(headers)? {
                None | Some(1) => Ok(total),
                Some(_) => Err("the body's length is not the length of its range".into()),
            },
            (_, None) => Err("the server does not tell the file's length".into()),
            _ => Err("the server sent another range than asked".into()),
        }),
        StatusCode::RANGE_NOT_SATISFIABLE => match single(headers, &CONTENT_RANGE) {
            Ok(Some(value)) if content_range(value) == Some(ContentRange::Unsatisfied(0)) => Ok(0),
            _ => Err("the server refuses even the first byte (416)".into()),
        },
        // All of a file of one byte or none is what was asked for.
        StatusCode::OK => identity(headers).and_then(|()| match length(headers)? {
            Some(size @ 0..=1) => Ok(size),
            _ => Err("the server ignores ranges: it answered 200".into()),
        }),
        _ => return judge_failure(status, code),
    };
    match learnt {
        Ok(size) if i64::try_from(size).is_ok() => Verdict::Accept(size),
        Ok(_) => Verdict::Protocol("the server names a length beyond 2^63".into()),
        Err(why) => Verdict::Protocol(why),
    }
}

/// Every status that carries no content of the file.
fn judge_failure<T>(status: StatusCode, code: Option<&str>) -> Verdict<T> {
    match status.as_u16() {
        400 if code.is_some_and(link_is_over) => Verdict::Refused(Refusal::Denied),
        401 | 403 => Verdict::Refused(Refusal::Denied),
        404 | 410 => Verdict::Refused(Refusal::Gone),
        407 => Verdict::Protocol("the proxy asks for credentials (407)".into()),
        429 => Verdict::Retry(Kind::Throttled),
        // S3 and OSS ask to slow down with 503.
        503 if code == Some("SlowDown") => Verdict::Retry(Kind::Throttled),
        408 | 425 | 500 | 502..=504 | 507..=599 => Verdict::Retry(Kind::Unavailable),
        number => Verdict::Protocol(match code {
            Some(code) => format!("the server answered {number} {code}"),
            None => format!("the server answered {number}"),
        }),
    }
}

/// Error codes by which stores say with a 400 that a signed link no longer, or not yet, works.
fn link_is_over(code: &str) -> bool {
    const CODES: [&str; 9] = [
        "AccessDenied",
        "AuthenticationFailed",
        "AuthorizationQueryParametersError",
        "ExpiredRequest",
        "ExpiredToken",
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    ];
    CODES.contains(&code) || code.contains("Expired")
}

/// The error code in the body of a refused request: `<Code>…</Code>` of the S3 family, `"code":
/// "…"` of JSON answers, or "Request has expired" in plain words. Only a short identifier is
/// believed; the rest of the body may repeat the signature.
pub fn store_code(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let between = |open: &str, close: char| {
        let (_, rest) = text.split_once(open)?;
        let code = rest.split_once(close)?.0.trim();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let believed = (1..=64).contains(&code.len()) && code.bytes().all(plain);
        believed.then(|| code.to_owned())
    };
    between("<Code>", '<')
        .or_else(|| between("\"code\":\"", '"'))
        .or_else(|| between("\"code\": \"", '"'))
        .or_else(|| {
            let words = text.to_ascii_lowercase();
            words
                .contains("request has expired")
                .then(|| "RequestExpired".to_owned())
        })
}

const UNSAID: &str = "the server leaves out the version of what it sent";

/// The range and total of a 206 whose body is exactly one range of plain bytes.
fn ranged(headers: &HeaderMap) -> Result<(Range<u64>, Option<u64>), String> {
    identity(headers)?;
    let value = single(headers, &CONTENT_RANGE)?.ok_or("the server sent no Content-Range")?;
    match content_range(value) {
        Some(ContentRange::Bytes(range, total)) => Ok((range, total)),
        _ => Err("the server sent a malformed Content-Range".into()),
    }
}

/// Neither encoded nor in several parts. Decoding would make every length and offset a lie.
fn identity(headers: &HeaderMap) -> Result<(), String> {
    for encoding in headers.get_all(CONTENT_ENCODING) {
        let word = encoding.to_str().unwrap_or("?").trim();
        if !word.is_empty() && !word.eq_ignore_ascii_case("identity") {
            return Err(format!(
                "the server encoded the bytes ({word}) although they were asked for as they are"
            ));
        }
    }
    let multipart = headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.len() >= 20 && kind[..20].eq_ignore_ascii_case(b"multipart/byteranges")
    });
    if multipart {
        return Err("the server answered one range in several parts".into());
    }
    Ok(())
}

/// `Content-Length`, if there is one.
fn length(headers: &HeaderMap) -> Result<Option<u64>, String> {
    match single(headers, &CONTENT_LENGTH)? {
        None => Ok(None),
        Some(value) => match decimal(value.trim()) {
            Some(length) => Ok(Some(length)),
            None => Err("the server sent a malformed Content-Length".into()),
        },
    }
}

/// The value of a header that may occur once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(format!("the server sent a malformed {name}")),
        },
        (Some(_), Some(_)) => Err(format!("the server sent more than one {name}")),
    }
}

/// Which version an answer is of.
#[derive(Debug, PartialEq, Eq)]
enum Version {
    Same,
    Other,
    /// Something was pinned and the answer says nothing to compare with.
    Unsaid,
}

/// Compares entity tags, verbatim; Last-Modified where there is no tag, or only a weak one.
fn same_version(headers: &HeaderMap, pinned: &Validator) -> Version {
    let compare = |name: &HeaderName, pinned: &Option<String>| {
        let said = headers.get(name).map(|value| value.as_bytes());
        match (pinned, said) {
            (Some(pinned), Some(said)) => Some(pinned.as_bytes() == said),
            _ => None,
        }
    };
    let tag = compare(&ETAG, &pinned.etag);
    let time = compare(&LAST_MODIFIED, &pinned.last_modified);
    match (tag, time) {
        (Some(false), _) => Version::Other,
        (Some(true), Some(false)) if pinned.strong_etag().is_none() => Version::Other,
        (Some(true), _) => Version::Same,
        (None, Some(false)) => Version::Other,
        (None, Some(true)) => Version::Same,
        (None, None) if pinned.etag.is_none() && pinned.last_modified.is_none() => Version::Same,
        (None, None) => Version::Unsaid,
    }
}
