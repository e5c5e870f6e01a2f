//! Signatures of OSS, versions 1 and 4, in a header or in a link. Pure: both the links of the
//! simulated service and the check of every request come from here.
//!
//! Source: "Signature version 1" and "Signature version 4" of Object Storage Service
//! (alibabacloud.com/help). Neither covers the host or the Range header.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::sim::hex;

/// Escaped in a canonical query.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// Escaped in a canonical path.
pub(super) const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Query parameters that version 1 signs, as far as reading is concerned.
const SIGNED_PARAMETERS: [&str; 22] = [
    "acl",
    "bucketInfo",
    "continuation-token",
    "location",
    "objectMeta",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "security-token",
    "stat",
    "symlink",
    "tagging",
    "versionId",
    "versioning",
    "versions",
    "x-oss-process",
    "x-oss-request-payer",
    "x-oss-traffic-limit",
];

/// What a signature is about: names are decoded, header names in lower case.
#[derive(Debug, Clone)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    pub(super) query: &'a [(String, String)],
    pub(super) headers: &'a [(String, String)],
}

impl Signed<'_> {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.trim())
    }

    /// Version 1; `date` is the Date header, `x-oss-date` or, in a link, the expiry.
    pub(super) fn v1(&self, secret: &str, date: &str) -> String {
        let mut headers: Vec<String> = self
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-oss-"))
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        headers.sort_unstable();
        let mut parameters: Vec<String> = self
            .query
            .iter()
            .filter(|(name, _)| SIGNED_PARAMETERS.contains(&name.as_str()))
            .map(|(name, value)| match value.as_str() {
                "" => name.clone(),
                value => format!("{name}={value}"),
            })
            .collect();
        parameters.sort_unstable();
        let mut resource = format!("/{}/{}", self.bucket, self.key);
        if !parameters.is_empty() {
            resource = format!("{resource}?{}", parameters.join("&"));
        }
        let text = format!(
            "{}\n{}\n{}\n{date}\n{}{resource}",
            self.method,
            self.header("content-md5"),
            self.header("content-type"),
            headers.concat(),
        );
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes())
            .expect("HMAC takes a key of any length");
        mac.update(text.as_bytes());
        BASE64.encode(mac.finalize().into_bytes())
    }

    /// Version 4 of `date` (`20260328T080000Z`) within `scope` (`20260328/cn-hangzhou/oss/…`).
    /// `additional` names further signed headers. Clients disagree on whether an empty parameter
    /// keeps its `=`; `bare` is without.
    pub(super) fn v4(
        &self,
        secret: &str,
        date: &str,
        scope: &str,
        additional: &[&str],
        bare: bool,
    ) -> String {
        let path = match self.bucket {
            "" => "/".to_owned(),
            bucket => format!("/{bucket}/{}", self.key),
        };
        let encoded = |text| utf8_percent_encode(text, RESERVED).to_string();
        let mut query: Vec<(String, String)> = self
            .query
            .iter()
            .filter(|(name, _)| name != "x-oss-signature")
            .map(|(name, value)| (encoded(name), encoded(value)))
            .collect();
        query.sort_unstable();
        let query: Vec<String> = query
            .into_iter()
            .map(|(name, value)| match value.as_str() {
                "" if bare => name,
                value => format!("{name}={value}"),
            })
            .collect();
        let mut headers: Vec<String> = self
            .headers
            .iter()
            .filter(|(name, _)| {
                name.starts_with("x-oss-")
                    || matches!(name.as_str(), "content-type" | "content-md5")
                    || additional.contains(&name.as_str())
            })
            .map(|(name, value)| format!("{name}:{}\n", value.trim()))
            .collect();
        headers.sort_unstable();
        let request = format!(
            "{}\n{}\n{}\n{}\n{}\nUNSIGNED-PAYLOAD",
            self.method,
            utf8_percent_encode(&path, RESERVED_IN_PATH),
            query.join("&"),
            headers.concat(),
            additional.join(";"),
        );
        let text = format!(
            "OSS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            hex(&Sha256::digest(request))
        );
        let mut key = format!("aliyun_v4{secret}").into_bytes();
        for part in scope.split('/') {
            key = keyed(&key, part);
        }
        hex(&keyed(&key, &text))
    }
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "SimAccessKeySecret0000000000001";
    const TOKEN: &str = "CAISsimSecurityToken==";
    const KEY: &str = "dir a/b+c~d*e&f.tar.zst";
    const DATE: &str = "20260328T080000Z";
    const SCOPE: &str = "20260328/cn-hangzhou/oss/aliyun_v4_request";
    const GMT: &str = "Sat, 28 Mar 2026 08:00:00 GMT";

    type Pairs = Vec<(String, String)>;

    fn pairs(of: &[(&str, &str)]) -> Pairs {
        of.iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    fn signed<'a>(
        method: &'a str,
        key: &'a str,
        query: &'a Pairs,
        headers: &'a Pairs,
    ) -> Signed<'a> {
        Signed {
            method,
            bucket: "sim-bucket",
            key,
            query,
            headers,
        }
    }

    /// Made by the official signers of oss2 2.19.1 and alibabacloud-oss-v2 1.4.1, which agree.
    #[test]
    fn the_official_vectors_of_version_1() {
        let none = Pairs::new();
        let standard = pairs(&[("x-oss-range-behavior", "standard"), ("range", "bytes=0-1")]);
        let sts = pairs(&[("x-oss-security-token", TOKEN)]);
        let in_link = pairs(&[("security-token", TOKEN)]);
        let page = pairs(&[
            ("list-type", "2"),
            ("prefix", ""),
            ("delimiter", "/"),
            ("continuation-token", "ZGlyIGEv"),
        ]);
        let first = pairs(&[("list-type", "2"), ("continuation-token", "")]);
        for (name, method, key, query, headers, date, signature) in [
            (
                "O1",
                "HEAD",
                KEY,
                &none,
                &none,
                GMT,
                "5qTAzEdk7OSAmyBee/yJPXe47xA=",
            ),
            (
                "O2",
                "GET",
                KEY,
                &none,
                &none,
                GMT,
                "lCsBVz6W5D0TAtkQ9+y+ulryvXA=",
            ),
            (
                "O3",
                "GET",
                KEY,
                &none,
                &standard,
                GMT,
                "lXUgXrfOPkAk/IR+g13n046d2y0=",
            ),
            (
                "O4",
                "GET",
                KEY,
                &none,
                &sts,
                GMT,
                "pqTpU4uHmMBzxe0KJBHDsKRuJF4=",
            ),
            (
                "O5",
                "GET",
                "",
                &page,
                &none,
                GMT,
                "p/GWYDITZHC8fnBPEGGBcga/ls4=",
            ),
            (
                "O6",
                "GET",
                "",
                &first,
                &none,
                GMT,
                "FV3uJq2AroD7AOLQpixO8l9xb6c=",
            ),
            (
                "O7",
                "GET",
                KEY,
                &none,
                &none,
                "1774692000",
                "Mgzw4hOyIgGcuWSNbRF1/LLJwtI=",
            ),
            (
                "O8",
                "GET",
                KEY,
                &in_link,
                &none,
                "1774692000",
                "LyNaaiblDYQvqixsMFSwQCJS4EA=",
            ),
        ] {
            let signed = signed(method, key, query, headers);
            assert_eq!(signed.v1(SECRET, date), signature, "{name}");
        }
    }

    #[test]
    fn the_official_vectors_of_version_4() {
        let none = Pairs::new();
        let payload = ("x-oss-content-sha256", "UNSIGNED-PAYLOAD");
        let date = ("x-oss-date", DATE);
        let plain = pairs(&[payload, date]);
        let standard = pairs(&[payload, date, ("x-oss-range-behavior", "standard")]);
        let sts = pairs(&[payload, date, ("x-oss-security-token", TOKEN)]);
        let list = pairs(&[
            ("list-type", "2"),
            ("prefix", ""),
            ("delimiter", "/"),
            ("continuation-token", ""),
            ("start-after", ""),
            ("fetch-owner", "false"),
            ("max-keys", "2"),
            ("encoding-type", "url"),
        ]);
        let credential = format!("LTAI5tSimAccessKeyId01/{SCOPE}");
        let link = pairs(&[
            ("x-oss-signature-version", "OSS4-HMAC-SHA256"),
            ("x-oss-credential", &credential),
            date,
            ("x-oss-expires", "7200"),
        ]);
        let mut link_with_token = link.clone();
        link_with_token.push(("x-oss-security-token".into(), TOKEN.into()));
        for (name, method, key, query, headers, signature) in [
            (
                "O9",
                "HEAD",
                KEY,
                &none,
                &plain,
                "bbafdda1768a364789e08562f832c45b6812c6aecff33535bb83ef184a7fe494",
            ),
            (
                "O10",
                "GET",
                KEY,
                &none,
                &plain,
                "f804a37b8bc137210837737d38ef6f75a8c227512162cc546f1f3a2ca7d22f0e",
            ),
            (
                "O11",
                "GET",
                KEY,
                &none,
                &standard,
                "b4853005127c5a3bcd251fa6f35f2c43db92b2cf619fa6541185840889852336",
            ),
            (
                "O12",
                "HEAD",
                KEY,
                &none,
                &sts,
                "b977339f8f2c37345f60d8f7a49c2b04b6bcba360c3f555222fc6dae4d2ddf21",
            ),
            (
                "O13",
                "GET",
                "",
                &list,
                &plain,
                "cb070126f48b6d90319fa24e2adecc902a5d5e2fa046f3d7993b29a10bf5b002",
            ),
            (
                "O14",
                "GET",
                KEY,
                &link,
                &none,
                "8e36b899e8d97660056134bf04b141f82381cef389c93ccdc799ece4653e10c9",
            ),
            (
                "O15",
                "GET",
                KEY,
                &link_with_token,
                &none,
                "6c81c3856bce0e5bb2c614a6ee1ec8a86d23ff538f7b8cbff591fabd414e9763",
            ),
        ] {
            let signed = signed(method, key, query, headers);
            assert_eq!(
                signed.v4(SECRET, DATE, SCOPE, &[], true),
                signature,
                "{name}"
            );
        }
    }
}
