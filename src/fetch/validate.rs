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

use crate::error::{Kind, one_line};
use crate::links::Refusal;
use crate::model::Validator;
use crate::planted;

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
        StatusCode::OK if planted::is("whole-for-part") => Verdict::Accept(Body::Longer),
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
        // US3 sends the whole file, with this status, where nothing of the range is there.
        StatusCode::PARTIAL_CONTENT
            if !headers.contains_key(CONTENT_RANGE) && length(headers) == Ok(Some(0)) =>
        {
            identity(headers).map(|()| 0)
        }
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
            // COS may leave it out; that not even the first byte is there says as much.
            Ok(None) if code == Some("InvalidRange") => Ok(0),
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
pub(super) fn judge_failure<T>(status: StatusCode, code: Option<&str>) -> Verdict<T> {
    if let Some(how) = code.and_then(disguised) {
        return Verdict::Refused(how);
    }
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

/// What a refusal by US3 is, whatever its status: its error documents are said to come with 200 as
/// well ("Error codes", docs.ucloud.cn/ufile).
pub fn disguised(code: &str) -> Option<Refusal> {
    match code {
        // No permission, another signature, the link's time is over.
        "-148643" | "-148658" | "-148660" => Some(Refusal::Denied),
        // No such bucket, no such file.
        "-148653" | "-148654" => Some(Refusal::Gone),
        _ => None,
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
/// "…"` of JSON answers, `"RetCode":-1` of US3, or "Request has expired" in plain words. Only a short identifier is
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
            let (_, rest) = text.split_once("\"RetCode\":")?;
            let number = rest.split([',', '}']).next()?.trim().trim_matches('"');
            let number: i64 = number.parse().ok()?;
            Some(number.to_string())
        })
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
pub(super) fn identity(headers: &HeaderMap) -> Result<(), String> {
    for encoding in headers.get_all(CONTENT_ENCODING) {
        let word = encoding.to_str().unwrap_or("?").trim();
        if !word.is_empty() && !word.eq_ignore_ascii_case("identity") {
            let word = one_line(word);
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
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, String> {
    match single(headers, &CONTENT_LENGTH)? {
        None => Ok(None),
        Some(value) => match decimal(value.trim()) {
            Some(length) => Ok(Some(length)),
            None => Err("the server sent a malformed Content-Length".into()),
        },
    }
}

/// The value of a header that may occur once.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, String> {
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
        _ if planted::is("any-version") => Version::Same,
        (Some(false), _) => Version::Other,
        (Some(true), Some(false)) if pinned.strong_etag().is_none() => Version::Other,
        (Some(true), _) => Version::Same,
        (None, Some(false)) => Version::Other,
        (None, Some(true)) => Version::Same,
        (None, None) if pinned.etag.is_none() && pinned.last_modified.is_none() => Version::Same,
        (None, None) => Version::Unsaid,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: &str = "Sun, 22 Nov 2026 10:00:00 GMT";

    fn pinned(etag: Option<&str>, last_modified: Option<&str>) -> Validator {
        Validator {
            etag: etag.map(str::to_owned),
            last_modified: last_modified.map(str::to_owned),
            size: 100,
            download: None,
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        map
    }

    /// The answer to a request for 10..20 of the version `"a"`, with `changed` headers replaced
    /// (or, without a value, left out).
    fn partial(changed: &[(&str, Option<&str>)]) -> Verdict<Body> {
        let mut map = headers(&[
            ("content-range", "bytes 10-19/100"),
            ("content-length", "10"),
            ("etag", "\"a\""),
            ("last-modified", TIME),
        ]);
        for (name, value) in changed {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            match value {
                Some(value) => map.insert(name, value.parse().unwrap()),
                None => map.remove(name),
            };
        }
        let version = pinned(Some("\"a\""), Some(TIME));
        judge(StatusCode::PARTIAL_CONTENT, &map, None, &(10..20), &version)
    }

    fn failed(number: u16, code: Option<&str>) -> Verdict<Body> {
        let status = StatusCode::from_u16(number).unwrap();
        let version = pinned(None, None);
        judge(status, &HeaderMap::new(), code, &(10..20), &version)
    }

    fn is_protocol<T>(verdict: &Verdict<T>) -> bool {
        matches!(verdict, Verdict::Protocol(_))
    }

    #[test]
    fn case_14_content_range_is_read_strictly() {
        let max = u64::MAX;
        for (value, want) in [
            ("bytes 0-9/100", Some((0..10, Some(100)))),
            ("BYTES 0-99/100", Some((0..100, Some(100)))),
            ("bytes 5-5/*", Some((5..6, None))),
            ("bytes 0-0/18446744073709551615", Some((0..1, Some(max)))),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes 0-9/18446744073709551616", None),
            ("bytes 9-0/100", None),
            ("bytes 0-100/100", None),
            ("bytes 0-9/0", None),
            ("bytes -1-9/100", None),
            ("bytes +0-9/100", None),
            ("bytes 0-9", None),
            ("bytes 0-/100", None),
            ("bytes -9/100", None),
            ("bytes=0-9/100", None),
            ("bytes  0-9/100", None),
            ("bytes 0 - 9/100", None),
            ("bytes 0-9 /100", None),
            ("bytes 0-9/ 100", None),
            ("bytes 0-9/100 ", None),
            ("bytes 0-9,20-29/100", None),
            ("bytes 0x0-9/100", None),
            ("items 0-9/100", None),
            ("", None),
        ] {
            let want = want.map(|(range, total)| ContentRange::Bytes(range, total));
            assert_eq!(content_range(value), want, "{value:?}");
        }
        assert_eq!(
            content_range("bytes */100"),
            Some(ContentRange::Unsatisfied(100))
        );
        assert_eq!(content_range("bytes */*"), None);
    }

    #[test]
    fn an_exact_answer_is_accepted() {
        assert_eq!(partial(&[]), Verdict::Accept(Body::Exact));
        // Case 21: chunked, with the length told by Content-Range alone.
        let chunked = partial(&[("content-length", None)]);
        assert_eq!(chunked, Verdict::Accept(Body::Exact));
        let said = partial(&[("content-encoding", Some("identity"))]);
        assert_eq!(said, Verdict::Accept(Body::Exact));
    }

    #[test]
    fn case_14_any_other_range_is_refused() {
        for value in [
            "bytes 11-20/100",
            "bytes 10-18/100",
            "bytes 10-20/100",
            "bytes 0-99/100",
            "bytes 10-19/101",
            "bytes 10-19/*",
            "bytes */100",
            "nonsense",
        ] {
            let verdict = partial(&[("content-range", Some(value))]);
            assert!(is_protocol(&verdict), "{value}: {verdict:?}");
        }
        assert!(is_protocol(&partial(&[("content-range", None)])));
        assert!(is_protocol(&partial(&[("content-length", Some("11"))])));
        assert!(is_protocol(&partial(&[("content-length", Some("+10"))])));
        let twice = headers(&[
            ("content-range", "bytes 10-19/100"),
            ("content-range", "bytes 10-19/100"),
        ]);
        let version = pinned(None, None);
        let status = StatusCode::PARTIAL_CONTENT;
        assert!(is_protocol(&judge(
            status,
            &twice,
            None,
            &(10..20),
            &version
        )));
    }

    #[test]
    fn case_20_and_22_encoded_and_multipart_answers_are_refused() {
        for encoding in ["gzip", "br", "zstd", "deflate", "x-gzip", "identity, gzip"] {
            let verdict = partial(&[("content-encoding", Some(encoding))]);
            assert!(is_protocol(&verdict), "{encoding}");
        }
        for kind in ["multipart/byteranges; boundary=x", "Multipart/ByteRanges"] {
            assert!(is_protocol(&partial(&[("content-type", Some(kind))])));
        }
        let plain = partial(&[("content-type", Some("application/gzip"))]);
        assert_eq!(plain, Verdict::Accept(Body::Exact));
    }

    #[test]
    fn case_23_and_24_another_version_is_a_change() {
        assert_eq!(partial(&[("etag", Some("\"b\""))]), Verdict::Changed);
        assert_eq!(partial(&[("etag", Some("W/\"a\""))]), Verdict::Changed);
        assert_eq!(failed(412, None), Verdict::Changed);
        // The strong tag is equal: some stores' machines disagree about the time.
        let time = "Sun, 22 Nov 2026 10:00:01 GMT";
        let other_time = partial(&[("last-modified", Some(time))]);
        assert_eq!(other_time, Verdict::Accept(Body::Exact));
        let no_tag = partial(&[("etag", None), ("last-modified", Some(time))]);
        assert_eq!(no_tag, Verdict::Changed);
        let unsaid = partial(&[("etag", None), ("last-modified", None)]);
        assert!(is_protocol(&unsaid));
    }

    #[test]
    fn a_weak_tag_needs_the_time_too() {
        let version = pinned(Some("W/\"a\""), Some(TIME));
        let answer = |time| {
            let map = headers(&[
                ("content-range", "bytes 10-19/100"),
                ("etag", "W/\"a\""),
                ("last-modified", time),
            ]);
            judge(StatusCode::PARTIAL_CONTENT, &map, None, &(10..20), &version)
        };
        assert_eq!(answer(TIME), Verdict::Accept(Body::Exact));
        assert_eq!(answer("Sun, 22 Nov 2026 10:00:01 GMT"), Verdict::Changed);
    }

    #[test]
    fn case_25_without_validators_the_size_is_compared() {
        let version = pinned(None, None);
        let answer = |range| {
            let map = headers(&[("content-range", range)]);
            judge(StatusCode::PARTIAL_CONTENT, &map, None, &(10..20), &version)
        };
        assert_eq!(answer("bytes 10-19/100"), Verdict::Accept(Body::Exact));
        assert_eq!(answer("bytes 10-19/101"), Verdict::Changed);
    }

    #[test]
    fn case_13_a_200_counts_only_from_the_first_byte_of_the_pinned_file() {
        let version = pinned(Some("\"a\""), None);
        let answer = |wanted: Range<u64>, length: &str, etag: &str| {
            let map = headers(&[("content-length", length), ("etag", etag)]);
            judge(StatusCode::OK, &map, None, &wanted, &version)
        };
        let accepted = Verdict::Accept(Body::Longer);
        assert_eq!(answer(0..10, "100", "\"a\""), accepted);
        let exact = Verdict::Accept(Body::Exact);
        assert_eq!(answer(0..100, "100", "\"a\""), exact);
        assert!(is_protocol(&answer(1..10, "100", "\"a\"")));
        assert!(is_protocol(&answer(0..10, "10", "\"a\"")));
        assert_eq!(answer(0..10, "100", "\"b\""), Verdict::Changed);
        let unsized_ = headers(&[("etag", "\"a\"")]);
        assert!(is_protocol(&judge(
            StatusCode::OK,
            &unsized_,
            None,
            &(0..10),
            &version
        )));
    }

    #[test]
    fn case_26_a_416_within_the_size_is_a_change() {
        let answer = |value| {
            let map = headers(&[("content-range", value)]);
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            judge(status, &map, None, &(10..20), &pinned(None, None))
        };
        assert_eq!(answer("bytes */5"), Verdict::Changed);
        assert_eq!(answer("nonsense"), Verdict::Changed);
        assert!(is_protocol(&answer("bytes */100")));
    }

    #[test]
    fn case_37_refused_links_by_status_and_code() {
        let denied = Verdict::Refused(Refusal::Denied);
        let gone = Verdict::Refused(Refusal::Gone);
        for (number, code, want) in [
            (403, Some("AccessDenied"), &denied),
            (403, Some("SignatureDoesNotMatch"), &denied),
            (403, Some("InvalidAccessKeyId"), &denied),
            (403, None, &denied),
            (401, None, &denied),
            (400, Some("ExpiredToken"), &denied),
            (400, Some("ExpiredRequest"), &denied),
            (400, Some("AuthorizationQueryParametersError"), &denied),
            (404, Some("NoSuchKey"), &gone),
            (404, None, &gone),
            (410, None, &gone),
        ] {
            assert_eq!(failed(number, code), *want, "{number} {code:?}");
        }
        assert!(is_protocol(&failed(400, Some("InvalidArgument"))));
        assert!(is_protocol(&failed(400, None)));
    }

    #[test]
    fn passing_failures_are_retried_others_not() {
        for number in [408, 425, 500, 502, 503, 504, 520, 599] {
            let verdict = failed(number, None);
            assert_eq!(verdict, Verdict::Retry(Kind::Unavailable), "{number}");
        }
        assert_eq!(failed(429, None), Verdict::Retry(Kind::Throttled));
        let slow = failed(503, Some("SlowDown"));
        assert_eq!(slow, Verdict::Retry(Kind::Throttled));
        for number in [201, 204, 304, 402, 405, 407, 411, 418, 451, 501, 505] {
            assert!(is_protocol(&failed(number, None)), "{number}");
        }
    }

    #[test]
    fn store_codes_are_short_identifiers() {
        let code = |body: &str| store_code(body.as_bytes());
        let some = |code: &str| Some(code.to_owned());
        let xml = "<?xml version='1.0'?><Error>\n <Code>ExpiredToken</Code><Message>m</Message>";
        assert_eq!(code(xml), some("ExpiredToken"));
        assert_eq!(code(r#"{"code":"Gone"}"#), some("Gone"));
        assert_eq!(code(r#"{"error": {"code": "Gone"}}"#), some("Gone"));
        let words = "<h1>Request has expired</h1>";
        assert_eq!(code(words), some("RequestExpired"));
        for nothing in [
            "",
            "<Code>",
            "<Code></Code>",
            "<Code>see https://host/key?sig=1</Code>",
            "{\"code\":403}",
        ] {
            assert_eq!(code(nothing), None, "{nothing}");
        }
        assert_eq!(code(&format!("<Code>{}</Code>", "A".repeat(65))), None);
    }

    #[test]
    fn the_probe_learns_the_size_or_says_why_not() {
        let ask = |number: u16, pairs: &[(&str, &str)]| {
            let status = StatusCode::from_u16(number).unwrap();
            judge_probe(status, &headers(pairs), None)
        };
        let range = |value| ask(206, &[("content-range", value)]);
        assert_eq!(range("bytes 0-0/1"), Verdict::Accept(1));
        let most = "bytes 0-0/9223372036854775807";
        assert_eq!(range(most), Verdict::Accept(i64::MAX as u64));
        assert!(is_protocol(&range("bytes 0-0/9223372036854775808")));
        assert!(is_protocol(&range("bytes 0-0/*")));
        assert!(is_protocol(&range("bytes 0-1/10")));
        assert!(is_protocol(&range("bytes 1-1/10")));
        assert!(is_protocol(&ask(206, &[])));
        let empty = ask(416, &[("content-range", "bytes */0")]);
        assert_eq!(empty, Verdict::Accept(0));
        assert!(is_protocol(&ask(416, &[("content-range", "bytes */9")])));
        assert!(is_protocol(&ask(416, &[])));
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        let told = judge_probe(status, &HeaderMap::new(), Some("InvalidRange"));
        assert_eq!(told, Verdict::Accept(0), "COS says so of an empty object");
        assert_eq!(ask(200, &[("content-length", "0")]), Verdict::Accept(0));
        assert_eq!(ask(200, &[("content-length", "1")]), Verdict::Accept(1));
        assert!(is_protocol(&ask(200, &[("content-length", "2")])));
        assert!(is_protocol(&ask(200, &[])));
        assert_eq!(ask(403, &[]), Verdict::Refused(Refusal::Denied));
        // What US3 answers of an empty file; of another one, it would not be its size.
        assert_eq!(ask(206, &[("content-length", "0")]), Verdict::Accept(0));
        assert!(is_protocol(&ask(206, &[("content-length", "9")])));
    }

    #[test]
    fn us3_refuses_by_its_code_whatever_the_status() {
        for (body, code, how) in [
            (
                r#"{"RetCode":-148660,"ErrMsg":"token expires"}"#,
                "-148660",
                Some(Refusal::Denied),
            ),
            (
                r#"{"ErrMsg":"", "RetCode": -148643 }"#,
                "-148643",
                Some(Refusal::Denied),
            ),
            (r#"{"RetCode":"-148658"}"#, "-148658", Some(Refusal::Denied)),
            (r#"{"RetCode":-148653}"#, "-148653", Some(Refusal::Gone)),
            (r#"{"RetCode":-148654}"#, "-148654", Some(Refusal::Gone)),
            (r#"{"RetCode":-15036}"#, "-15036", None),
        ] {
            assert_eq!(store_code(body.as_bytes()).as_deref(), Some(code), "{body}");
            assert_eq!(disguised(code), how, "{body}");
            for status in [400, 401, 403] {
                let told = failed(status, Some(code));
                match how {
                    Some(how) => assert_eq!(told, Verdict::Refused(how), "{status} {body}"),
                    None => assert_ne!(told, Verdict::Refused(Refusal::Gone), "{status} {body}"),
                }
            }
        }
        assert_eq!(store_code(br#"{"RetCode":"CANARY"}"#), None);
    }

    proptest! {
        #[test]
        fn content_range_round_trips(first in any::<u64>(), length in 1..u64::MAX, beyond in any::<u64>()) {
            let end = first.checked_add(length);
            let total = end.and_then(|end| end.checked_add(beyond));
            if let (Some(end), Some(total)) = (end, total) {
                let text = format!("bytes {first}-{}/{total}", end - 1);
                prop_assert_eq!(
                    content_range(&text),
                    Some(ContentRange::Bytes(first..end, Some(total)))
                );
            }
        }

        #[test]
        fn content_range_never_panics_nor_lies(text in "(bytes)? ?[0-9*+-]{0,24}-?[0-9]{0,22}/?[0-9*]{0,22}") {
            if let Some(ContentRange::Bytes(range, total)) = content_range(&text) {
                prop_assert!(range.start < range.end);
                prop_assert!(total.is_none_or(|total| range.end <= total));
                let total = total.map_or("*".to_owned(), |total| total.to_string());
                let canonical = format!("{}-{}/{total}", range.start, range.end - 1);
                let stripped: String = text[6..].to_owned();
                // Equal but for leading zeros.
                let numbers = |text: &str| -> Vec<String> {
                    text.split(['-', '/']).map(|n| n.trim_start_matches('0').to_owned()).collect()
                };
                prop_assert_eq!(numbers(&stripped), numbers(&canonical));
            }
        }

        /// Whatever a server says, only the exact range of the pinned version is accepted.
        #[test]
        fn nothing_but_the_wanted_range_is_accepted(
            status in prop::sample::select(vec![200u16, 206]),
            first in 0u64..30, last in 0u64..40, total in 0u64..120,
            length in prop::option::of(0u64..120),
            etag in prop::sample::select(vec!["\"a\"", "\"b\""]),
        ) {
            let mut pairs = vec![
                ("content-range", format!("bytes {first}-{last}/{total}")),
                ("etag", etag.to_owned()),
            ];
            pairs.extend(length.map(|length| ("content-length", length.to_string())));
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let verdict = judge(
                StatusCode::from_u16(status).unwrap(),
                &headers(&pairs),
                None,
                &(0..20),
                &pinned(Some("\"a\""), None),
            );
            if let Verdict::Accept(_) = verdict {
                prop_assert_eq!(etag, "\"a\"");
                match status {
                    206 => prop_assert_eq!(
                        (first, last, total, length.unwrap_or(20)),
                        (0, 19, 100, 20)
                    ),
                    _ => prop_assert_eq!(length, Some(100)),
                }
            }
        }

        #[test]
        fn store_code_never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(code) = store_code(&body) {
                prop_assert!((1..=64).contains(&code.len()));
            }
        }
    }
}
