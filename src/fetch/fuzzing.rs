//! What a store, or whoever stands in its place, answers to a request for bytes.

use std::ops::Range;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue};
use http::{HeaderName, StatusCode};
use url::Url;

use super::validate::{
    Body, ContentRange, Verdict, content_range as parse, judge, judge_probe, store_code,
};
use super::{redirect, retry};
use crate::fuzzing::{Input, NOW, assert_one_line};
use crate::model::Validator;
use crate::providers::http::retry as api_retry;

/// An answer as text: `<status> <first>-<last> of <size> <etag>`, headers, an empty line, the
/// body. Where it is accepted, it says what was asked for; the first line is also taken for a
/// `Content-Range`.
pub fn content_range(data: &[u8]) {
    let mut input = Input(data);
    let first = input.line();
    assert_strict(&first);
    let Some((status, wanted, pinned)) = question(&first) else {
        return;
    };
    let mut headers = HeaderMap::new();
    loop {
        let line = input.line();
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let name = HeaderName::from_bytes(name.trim().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value.trim())) {
            headers.append(name, value);
        }
    }
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let code = store_code(input.0);
    if let Some(code) = &code {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(
            (1..=64).contains(&code.len()) && code.chars().all(plain),
            "{code:?}"
        );
    }
    let length = text(CONTENT_LENGTH).and_then(|length| length.trim().parse::<u64>().ok());
    match judge(status, &headers, code.as_deref(), &wanted, &pinned) {
        Verdict::Accept(body) => {
            let encoding = text(CONTENT_ENCODING).unwrap_or_default().trim();
            assert!(encoding.is_empty() || encoding.eq_ignore_ascii_case("identity"));
            if let (Some(etag), Some(pinned)) = (text(ETAG), &pinned.etag) {
                assert_eq!(etag, pinned);
            }
            if status == StatusCode::OK {
                assert_eq!((wanted.start, length), (0, Some(pinned.size)));
                assert_eq!(body == Body::Longer, wanted.end < pinned.size);
            } else {
                assert_eq!(status, StatusCode::PARTIAL_CONTENT);
                let told = text(CONTENT_RANGE).and_then(parse);
                let whole = ContentRange::Bytes(wanted.clone(), Some(pinned.size));
                assert_eq!(told, Some(whole));
                assert!(length.is_none_or(|length| length == wanted.end - wanted.start));
            }
        }
        Verdict::Protocol(why) => assert_one_line(&why),
        _ => {}
    }
    match judge_probe(status, &headers, code.as_deref()) {
        Verdict::Accept(size) => assert!(i64::try_from(size).is_ok()),
        Verdict::Changed => panic!("nothing was pinned"),
        Verdict::Protocol(why) => assert_one_line(&why),
        _ => {}
    }
}

/// Status, wanted range and pinned version of a first line.
fn question(line: &str) -> Option<(StatusCode, Range<u64>, Validator)> {
    let mut words = line.splitn(5, ' ');
    let status = StatusCode::from_bytes(words.next()?.as_bytes()).ok()?;
    let (first, last) = words.next()?.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let size: u64 = words.nth(1)?.parse().ok()?;
    let wanted = first..last.checked_add(1)?;
    // Nobody asks for nothing, or for more than there is.
    let asked = wanted.start < wanted.end && wanted.end <= size && i64::try_from(size).is_ok();
    asked.then(|| {
        let etag = words.next().filter(|etag| !etag.is_empty());
        let validator = Validator {
            etag: etag.map(str::to_owned),
            last_modified: None,
            size,
            download: None,
        };
        (status, wanted, validator)
    })
}

/// What is read as a `Content-Range` is not empty, lies within the file, and is written the same.
fn assert_strict(value: &str) {
    match parse(value) {
        None => {}
        Some(ContentRange::Unsatisfied(size)) => {
            assert_eq!(parse(&format!("bytes */{size}")), parse(value));
        }
        Some(ContentRange::Bytes(range, total)) => {
            assert!(range.start < range.end && total.is_none_or(|total| range.end <= total));
            let total = total.map_or("*".to_owned(), |total| total.to_string());
            let written = format!("bytes {}-{}/{total}", range.start, range.end - 1);
            assert_eq!(parse(&written), parse(value));
        }
    }
}

/// A `Retry-After` of digits always counts, and both readers of it agree.
pub fn retry_after(data: &[u8]) {
    let value = String::from_utf8_lossy(data);
    let (artifact, api) = (
        retry::retry_after(&value, NOW),
        api_retry::retry_after(&value, NOW),
    );
    if artifact.is_some() {
        assert_eq!(artifact, api);
    }
    let digits = value.trim();
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        assert!(artifact.is_some());
    }
}

/// Where a redirect leads is https, public, without a password, whatever `Location` says.
pub fn redirects(data: &[u8]) {
    let at = Url::parse("https://store.example/a/b?sig=1").expect("it is an address");
    if let Ok(to) = redirect::target(&at, data, false, false) {
        assert_eq!(to.scheme(), "https");
        assert!(to.username().is_empty() && to.password().is_none());
        assert!(to.host().is_some() && !redirect::is_local(&to), "{to}");
        assert!(redirect::check_link(&to, false).is_ok());
        let again = redirect::target(&at, to.as_str().as_bytes(), false, false);
        // Percent-escapes may make it too long to be written again.
        assert!(again.is_err() || again == Ok(to));
    }
    if let Ok(to) = redirect::target(&at, data, true, true) {
        assert!(matches!(to.scheme(), "http" | "https"));
    }
}
