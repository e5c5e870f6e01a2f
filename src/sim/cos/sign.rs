//! The signature of COS, made and checked: `q-sign-algorithm=sha1` ("Request signature",
//! cloud.tencent.com/document/product/436/7778). Pure.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha1::{Digest, Sha1};

use super::super::hex;

const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// `text` escaped as in signatures and links.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The signature over decoded parts; `window` is `<start>;<end>`.
pub(super) fn signature(
    secret: &str,
    window: &str,
    method: &str,
    path: &str,
    parameters: &[(String, String)],
    headers: &[(String, String)],
) -> String {
    let pairs = |pairs: &[(String, String)]| {
        let mut pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(name, value)| (escape(name).to_lowercase(), escape(value)))
            .collect();
        pairs.sort();
        let joined: Vec<String> = pairs.into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        joined.join("&")
    };
    let request = format!(
        "{}\n{path}\n{}\n{}\n",
        method.to_lowercase(),
        pairs(parameters),
        pairs(headers)
    );
    let digest = hex(&Sha1::digest(request.as_bytes()));
    let key = mac(secret, window);
    mac(&key, &format!("sha1\n{window}\n{digest}\n"))
}

fn mac(key: &str, text: &str) -> String {
    let mut mac =
        Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// What a signature says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) key_id: String,
    pub(super) window: String,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) headers: Vec<String>,
    pub(super) parameters: Vec<String>,
    pub(super) signature: String,
}

impl Claim {
    /// From the `q-…` pairs, decoded. `None` if one is missing or malformed.
    pub(super) fn read(pairs: &BTreeMap<String, String>) -> Option<Self> {
        let list = |name: &str| -> Option<Vec<String>> {
            let names = pairs.get(name)?.split(';').filter(|name| !name.is_empty());
            Some(names.map(str::to_owned).collect())
        };
        let window = pairs.get("q-sign-time")?;
        if pairs.get("q-sign-algorithm")? != "sha1" || pairs.get("q-key-time")? != window {
            return None;
        }
        let (start, end) = window.split_once(';')?;
        Some(Claim {
            key_id: pairs.get("q-ak")?.clone(),
            window: window.clone(),
            start: start.parse().ok()?,
            end: end.parse().ok()?,
            headers: list("q-header-list")?,
            parameters: list("q-url-param-list")?,
            signature: pairs.get("q-signature")?.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    /// Signatures of the official Python SDK, captured on the wire.
    #[test]
    fn captured_requests_verify() {
        let host = ("host", "sim-1250000000.cos.ap-guangzhou.myqcloud.com");
        let token = ("x-cos-security-token", "STSTOKEN+/=abc");
        let window = "1795307563;1795317623";
        let secret = "simulatorSecretKey0000000000000001";
        let list = own(&[
            (
                "prefix",
                "cmongo_backup/cmgo-sim00001_0/snapshot/1544517026/",
            ),
            ("delimiter", ""),
            ("marker", ""),
            ("max-keys", "1000"),
            ("encoding-type", "url"),
        ]);
        let made = signature(secret, window, "GET", "/", &list, &own(&[host, token]));
        assert_eq!(made, "c3769f7d0803e9f39cfe3d8a7dd940160debf3b0");
        let path = "/cmongo_backup/cmgo-sim00001_0/snapshot/1544517026/db1/c1.bson.gz";
        let headers = own(&[host, ("range", "bytes=10-19"), token]);
        let made = signature(secret, window, "GET", path, &[], &headers);
        assert_eq!(made, "b2118dc4a6855419fbea975667ccf77a6b23517a");
    }

    #[test]
    fn a_claim_is_read_whole_or_not_at_all() {
        let header = "q-sign-algorithm=sha1&q-ak=AK&q-sign-time=1;2&q-key-time=1;2&q-header-list=host;range&q-url-param-list=&q-signature=x";
        let pairs = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
            pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
        };
        let claim = Claim::read(&pairs(header)).unwrap();
        assert_eq!((claim.start, claim.end), (1, 2));
        assert_eq!(claim.headers, ["host", "range"]);
        assert!(claim.parameters.is_empty());
        for broken in ["q-key-time=1;2", "q-signature=x", "q-ak=AK", "sha1"] {
            let text = header.replace(broken, "");
            assert_eq!(Claim::read(&pairs(&text)), None, "{broken}");
        }
    }
}
