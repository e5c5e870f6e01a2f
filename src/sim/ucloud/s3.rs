//! Links in the way of S3, which US3 speaks as well: signature version 4 in the query, made and
//! checked ("Authenticating Requests: Using Query Parameters", docs.aws.amazon.com/AmazonS3). Pure.

use hmac::{Hmac, KeyInit, Mac};
use http::header::HOST;
use http::request::Parts;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::secret::Secret;
use crate::sim::hex;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const REGION: &str = "cn-bj";
/// What precedes the signature in a link.
pub(super) const SIGNATURE: &str = "&X-Amz-Signature=";

/// What is escaped in a query.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// What a link is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Over,
    Forged,
}

/// Path and signed query of a link that reads `key` by GET from `now` to `expires`, and its signature.
/// Keys need no escape.
pub(super) fn presign(
    host: &str,
    key: &str,
    (id, secret): (&str, &Secret),
    now: Timestamp,
    expires: Timestamp,
) -> (String, String) {
    let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let life = expires.duration_since(now).as_secs().max(1);
    let credential = format!("{id}/{}/{REGION}/s3/aws4_request", &date[..8]);
    let credential = utf8_percent_encode(&credential, ESCAPED);
    let query = format!(
        "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={credential}&X-Amz-Date={date}&X-Amz-Expires={life}&X-Amz-SignedHeaders=host"
    );
    let path = format!("/{key}");
    let signature = signature("GET", host, &path, &query, &date, secret);
    (format!("{path}?{query}"), signature)
}

/// Whether the link of `request` is good at `now`.
pub(super) fn check(request: &Parts, (_, secret): (&str, &Secret), now: Timestamp) -> Verdict {
    let query = request.uri.query().unwrap_or_default();
    let Some((signed, claim)) = query.rsplit_once(SIGNATURE) else {
        return Verdict::Forged;
    };
    let parameter = |name: &str| {
        let pairs = signed.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let life = parameter("X-Amz-Expires").and_then(|life| life.parse::<i64>().ok());
    let (Some(date), Some(life)) = (parameter("X-Amz-Date"), life) else {
        return Verdict::Forged;
    };
    let signed_at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC));
    let Ok(signed_at) = signed_at else {
        return Verdict::Forged;
    };
    if now.as_second() >= signed_at.timestamp().as_second() + life {
        return Verdict::Over;
    }
    let host = request.headers.get(HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (method, path) = (request.method.as_str(), request.uri.path());
    match signature(method, host, path, signed, date, secret) == claim {
        true => Verdict::Good,
        false => Verdict::Forged,
    }
}

fn signature(
    method: &str,
    host: &str,
    path: &str,
    query: &str,
    date: &str,
    secret: &Secret,
) -> String {
    let day = date.get(..8).unwrap_or(date);
    let request = format!("{method}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
    let digest = hex(&Sha256::digest(request));
    let text = format!("{ALGORITHM}\n{date}\n{day}/{REGION}/s3/aws4_request\n{digest}");
    let first = format!("AWS4{}", secret.expose());
    let key = [day, REGION, "s3", "aws4_request"]
        .into_iter()
        .fold(first.into_bytes(), |key, part| mac(&key, part));
    hex(&mac(&key, &text))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn the_link_is_good_for_its_verb_file_and_time() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let keys = ("AKIAIOSFODNN7EXAMPLE", &secret);
        let end = now + SignedDuration::from_secs(60);
        let (path, signature) = presign("h:1", "a/b.tgz", keys, now, end);
        let link = format!("{path}{SIGNATURE}{signature}");
        let judge = |method: &str, link: &str, at| {
            let request = http::Request::builder().method(method).uri(link);
            let (request, ()) = request.header(HOST, "h:1").body(()).unwrap().into_parts();
            check(&request, keys, at)
        };
        assert_eq!(judge("GET", &link, now), Verdict::Good);
        assert_eq!(judge("HEAD", &link, now), Verdict::Forged);
        assert_eq!(
            judge("GET", &link.replace("/a/", "/b/"), now),
            Verdict::Forged
        );
        assert_eq!(judge("GET", &link, end), Verdict::Over);
    }
}
