//! The first request: how long is the artifact, which version is it, what does the store call it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::header::{CONTENT_DISPOSITION, ETAG, HeaderMap, HeaderName, LAST_MODIFIED};
use percent_encoding::percent_decode_str;
use tracing::warn;
use url::Url;

use super::attempts::Attempts;
use super::client::{Shared, Wanted};
use super::part::END_WAIT;
use super::validate::judge_probe;
use crate::error::Result;
use crate::links::Links;
use crate::model::Validator;

/// A longer header is not a validator, name or digest.
const LONGEST: usize = 1024;

/// What the first request learnt.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The version to pin.
    pub validator: Validator,
    /// The provider's own file name, from Content-Disposition or the link's path.
    pub source_name: Option<String>,
    /// A digest the store publishes, `algorithm:value`.
    pub digest: Option<String>,
}

pub(super) async fn probe(shared: &Arc<Shared>, links: &Links) -> Result<Probe> {
    let mut attempts = Attempts::new(Arc::clone(shared));
    let accepted = attempts
        .ask(
            links,
            &shared.probes,
            &Wanted::Range(&(0..1), None),
            judge_probe,
        )
        .await
        .map_err(|error| error.context("asking for the artifact's size"))?;
    let mut answer = accepted.answer;
    let headers = answer.headers();
    let validator = Validator {
        etag: text(headers, &ETAG),
        last_modified: text(headers, &LAST_MODIFIED),
        size: accepted.learnt,
        download: None,
    };
    let is_named = validator.etag.is_some() || validator.last_modified.is_some();
    // Where there is no byte, none can be of another version.
    if !is_named && validator.size > 0 && !shared.unnamed.swap(true, Relaxed) {
        warn!(
            "the store names no version (neither ETag nor Last-Modified): only the size is pinned"
        );
    }
    let (source_name, digest) = described(headers, &accepted.lease.link.url.url());
    let probe = Probe {
        validator,
        source_name,
        digest,
    };
    // One byte at most: with its end read, the first part finds the connection open.
    let end = async {
        while let Ok(Some(piece)) = answer.chunk().await {
            if piece.len() > 1 {
                break;
            }
        }
    };
    let _in_time = tokio::time::timeout(END_WAIT, end).await;
    Ok(probe)
}

/// The provider's own name of a file and the digest that its store publishes, by the headers of an
/// answer of the link `url`.
pub(super) fn described(headers: &HeaderMap, url: &Url) -> (Option<String>, Option<String>) {
    let name = text(headers, &CONTENT_DISPOSITION)
        .and_then(|value| disposition_name(&value))
        .or_else(|| path_name(url));
    (name, digest(headers))
}

/// A header as text, if it is short and printable.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    let usable = !text.is_empty() && text.len() <= LONGEST;
    usable.then(|| text.to_owned())
}

/// The file name of a Content-Disposition value (RFC 6266): `filename*` before `filename`.
fn disposition_name(value: &str) -> Option<String> {
    let mut plain = None;
    for (name, value) in parameters(value) {
        if name.eq_ignore_ascii_case("filename*") {
            // charset'language'value, RFC 8187.
            let mut fields = value.splitn(3, '\'');
            let charset = fields.next()?;
            let encoded = fields.nth(1);
            if let (true, Some(encoded)) = (charset.eq_ignore_ascii_case("utf-8"), encoded)
                && let Some(name) = file_name(&percent_decode_str(encoded).decode_utf8_lossy())
            {
                return Some(name);
            }
        } else if name.eq_ignore_ascii_case("filename") {
            plain = plain.or_else(|| file_name(&value));
        }
    }
    plain
}

/// The `; name=value` parameters of a header, quotes and escapes taken away.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = header;
    // What comes before the first `;` is the disposition itself.
    while let Some((_, parameter)) = split_outside_quotes(rest) {
        rest = parameter;
        let one = split_outside_quotes(rest).map_or(rest, |(one, _)| one);
        if let Some((name, value)) = one.split_once('=') {
            found.push((name.trim().to_owned(), unquoted(value.trim())));
        }
    }
    found
}

/// Splits at the first `;` that is not within quotes.
fn split_outside_quotes(text: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            text.push(c);
        }
    }
    text
}

/// The last segment of the link's path, if it looks like a file's name: a segment without a dot may
/// be a token that only the link's holder should know.
fn path_name(url: &Url) -> Option<String> {
    let segment = url.path_segments()?.next_back()?;
    file_name(&percent_decode_str(segment).decode_utf8_lossy()).filter(|name| name.contains('.'))
}

/// The last component of remote text, without control characters.
fn file_name(text: &str) -> Option<String> {
    let name = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let usable = !matches!(name.as_str(), "" | "." | "..") && name.len() <= LONGEST;
    usable.then_some(name)
}

/// A digest of the whole file that the store sends with any answer about it.
///
/// Only headers that are about the whole file even in a 206: Content-MD5 is about the part that was
/// sent, and S3 says with `x-amz-checksum-type` whether a checksum covers the object.
fn digest(headers: &HeaderMap) -> Option<String> {
    for name in ["x-oss-hash-crc64ecma", "x-cos-hash-crc64ecma"] {
        if let Some(value) = text(headers, &HeaderName::from_static(name)) {
            return Some(format!("crc64ecma:{value}"));
        }
    }
    let kind = text(headers, &HeaderName::from_static("x-amz-checksum-type"));
    if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("FULL_OBJECT")) {
        for (name, algorithm) in [
            ("x-amz-checksum-sha256", "sha256"),
            ("x-amz-checksum-crc64nvme", "crc64nvme"),
            ("x-amz-checksum-crc32c", "crc32c"),
            ("x-amz-checksum-sha1", "sha1"),
            ("x-amz-checksum-crc32", "crc32"),
        ] {
            if let Some(value) = text(headers, &HeaderName::from_static(name)) {
                return Some(format!("{algorithm}:{value}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_from_content_disposition() {
        let table = [
            ("attachment; filename=dump.gz", Some("dump.gz")),
            ("attachment; filename=\"a b;c.gz\"", Some("a b;c.gz")),
            ("attachment; filename=\"a\\\"b.gz\"", Some("a\"b.gz")),
            ("attachment;FileName = dump.gz ; x=y", Some("dump.gz")),
            (
                "attachment; filename=\"x\"; filename*=UTF-8''%e5%a4%87%e4%bb%bd.gz",
                Some("备份.gz"),
            ),
            (
                "attachment; filename*=latin1'en'x.gz; filename=y.gz",
                Some("y.gz"),
            ),
            ("attachment; filename=\"../../etc/passwd\"", Some("passwd")),
            ("attachment; filename*=UTF-8''..%2F..", None),
            ("attachment; filename=\"\"", None),
            ("attachment", None),
            ("filename=not-a-parameter", None),
        ];
        for (value, want) in table {
            assert_eq!(disposition_name(value).as_deref(), want, "{value}");
        }
    }

    #[test]
    fn names_from_paths_are_file_names_not_tokens() {
        let name = |text| path_name(&Url::parse(text).unwrap());
        let table = [
            ("https://h/bucket/a%20b.tgz?sig=x", Some("a b.tgz")),
            ("https://h/bucket/dir%2Fb.tgz", Some("b.tgz")),
            (
                "https://h/s3cr3t/restore-1.tar.gz",
                Some("restore-1.tar.gz"),
            ),
            ("https://h/bucket/0f1e2d3c4b5a", None),
            ("https://h/bucket/%2e%2e", None),
            ("https://h/", None),
        ];
        for (url, want) in table {
            assert_eq!(name(url).as_deref(), want, "{url}");
        }
    }

    #[test]
    fn only_digests_of_the_whole_file_are_kept() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, http::HeaderValue::from_static(value))
            });
            digest(&pairs.collect())
        };
        let crc = Some("crc64ecma:17".to_owned());
        assert_eq!(of(&[("x-oss-hash-crc64ecma", "17")]), crc);
        assert_eq!(of(&[("x-cos-hash-crc64ecma", "17")]), crc);
        assert_eq!(of(&[("content-md5", "rL0Y20zC+Fzt72VPzMSk2A==")]), None);
        let sha = ("x-amz-checksum-sha256", "abc=");
        assert_eq!(of(&[sha]), None);
        assert_eq!(of(&[sha, ("x-amz-checksum-type", "COMPOSITE")]), None);
        assert_eq!(
            of(&[sha, ("x-amz-checksum-type", "FULL_OBJECT")]),
            Some("sha256:abc=".to_owned())
        );
    }

    proptest! {
        #[test]
        fn names_never_leave_their_directory(value in ".{0,80}") {
            for name in disposition_name(&value).iter().chain(&file_name(&value)) {
                prop_assert!(!name.contains(['/', '\\']) && name != "." && name != "..");
                prop_assert!(!name.chars().any(char::is_control) && !name.is_empty());
            }
        }
    }
}
