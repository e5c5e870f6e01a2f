//! The signature of Tencent COS, `q-sign-algorithm=sha1` ("Request signature",
//! cloud.tencent.com/document/product/436/7778). Pure: time and keys are parameters.
//!
//! The crate for it reads the machine's clock, whose difference from the store's is known here and
//! must count: hence these few lines.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha1::{Digest, Sha1};
use url::Url;

use super::address::{self, escaped};
use super::{Cures, Keys};
use crate::providers::hex::hex;

/// What to do about its refusals.
pub(super) const CURES: Cures = Cures {
    bucket: "check `bucket`, with its APPID, and `region`",
    id: "check `secret_id`",
    secret: "check `secret_key`",
    token: "renew `token` together with its keys",
    permission: "allow this key to list and read the bucket (cos:GetBucket, cos:GetObject), and this machine's address to reach it",
};
const TOKEN: &str = "x-cos-security-token";

/// The query that lets anybody GET `url` from `start` to `end`.
pub(super) fn link(url: &Url, keys: &Keys, start: Timestamp, end: Timestamp) -> String {
    let token = keys.token.as_ref().map(|token| (TOKEN, token.expose()));
    let parameters: Vec<(&str, &str)> = token.into_iter().collect();
    let proof = Request {
        method: "get",
        path: &address::decoded_path(url),
        parameters: &parameters,
        headers: &[("host", &address::host(url))],
    }
    .signed(keys, start, end);
    address::query(&proof.into_pairs(&parameters))
}

/// Headers that sign a GET of `url` with `parameters`.
pub(super) fn headers(
    url: &Url,
    parameters: &[(&str, &str)],
    keys: &Keys,
    start: Timestamp,
    end: Timestamp,
) -> Vec<(&'static str, String)> {
    let host = address::host(url);
    let token = keys.token.as_ref().map(|token| (TOKEN, token.expose()));
    let mut signed = vec![("host", host.as_str())];
    signed.extend(token);
    let proof = Request {
        method: "get",
        path: &address::decoded_path(url),
        parameters,
        headers: &signed,
    }
    .signed(keys, start, end);
    let mut headers = vec![("authorization", proof.into_header())];
    headers.extend(token.map(|(name, token)| (name, token.to_owned())));
    headers
}

/// What is signed of a request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The verb, in lower case. It is part of the signature: a link for GET refuses HEAD.
    pub(super) method: &'a str,
    /// The path, decoded.
    pub(super) path: &'a str,
    /// Query parameters, decoded.
    pub(super) parameters: &'a [(&'a str, &'a str)],
    /// Headers. Others may be added to the request freely.
    pub(super) headers: &'a [(&'a str, &'a str)],
}

/// A signature and what it says it signs, in the order of the documentation.
#[derive(Debug)]
pub(super) struct Proof([(&'static str, String); 7]);

impl Request<'_> {
    /// Signs for the time from `start` to `end`, whole seconds.
    pub(super) fn signed(&self, keys: &Keys, start: Timestamp, end: Timestamp) -> Proof {
        let window = format!("{};{}", start.as_second(), end.as_second());
        let (parameter_list, parameters) = canonical(self.parameters);
        let (header_list, headers) = canonical(self.headers);
        let Request { method, path, .. } = self;
        let request = format!("{method}\n{path}\n{parameters}\n{headers}\n");
        let digest = hex(&Sha1::digest(request.as_bytes()));
        let key = mac(keys.secret.expose().as_bytes(), &window);
        let signature = mac(key.as_bytes(), &format!("sha1\n{window}\n{digest}\n"));
        Proof([
            ("q-sign-algorithm", "sha1".to_owned()),
            ("q-ak", keys.id.expose().to_owned()),
            ("q-sign-time", window.clone()),
            ("q-key-time", window),
            ("q-header-list", header_list),
            ("q-url-param-list", parameter_list),
            ("q-signature", signature),
        ])
    }
}

impl Proof {
    /// As the value of the Authorization header, which is not escaped.
    pub(super) fn into_header(self) -> String {
        let pairs = self.0.map(|(name, value)| format!("{name}={value}"));
        pairs.join("&")
    }

    /// As query parameters, followed by the signed ones.
    pub(super) fn into_pairs(self, signed: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = self
            .0
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let signed = signed
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        own.chain(signed).collect()
    }
}

/// The names as a list, and the pairs, both escaped and ordered.
fn canonical(pairs: &[(&str, &str)]) -> (String, String) {
    let mut pairs: Vec<(String, String)> = pairs
        .iter()
        .map(|(name, value)| (escaped(name).to_ascii_lowercase(), escaped(value)))
        .collect();
    pairs.sort();
    let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    let joined: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
    (names.join(";"), joined.join("&"))
}

/// HMAC-SHA1 in lower-case hex.
fn mac(key: &[u8], text: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const HOST: (&str, &str) = (
        "host",
        "mongodb-backup-1250000000.cos.ap-guangzhou.myqcloud.com",
    );
    const TAR_HOST: (&str, &str) = (
        "host",
        "mongodb-backup-tar-1250000000.cos.ap-guangzhou.myqcloud.com",
    );
    const FILE: &str = "/cmongo_backup/cmgo-abcd1234_0/snapshot/1714957200/db1/c1.bson.gz";
    const TAR: &str = "/cmgo-abcd1234_2024-05-06 01:02/cmgo-abcd1234_0.tar";
    const TOKEN: (&str, &str) = ("x-cos-security-token", "STS+TOKEN/EXAMPLE==");
    const RANGE: (&str, &str) = ("range", "bytes=0-1048575");

    fn proof(
        (method, path): (&str, &str),
        parameters: &[(&str, &str)],
        headers: &[(&str, &str)],
        life: i64,
    ) -> Proof {
        let keys = Keys {
            id: Secret::new("AKIDEXAMPLEmongobackupfs000000000001"),
            secret: Secret::new("EXAMPLEsecretkeymongobackupfs000"),
            token: None,
        };
        let now = 1_714_957_323;
        let request = Request {
            method,
            path,
            parameters,
            headers,
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        request.signed(&keys, at(now - 60), at(now + life))
    }

    /// Signatures that the official Python SDK makes with its clock stopped.
    #[test]
    fn the_signatures_of_the_official_sdk() {
        let signature = |proof: Proof| proof.0[6].1.clone();
        let list = [
            (
                "prefix",
                "cmongo_backup/cmgo-abcd1234_0/snapshot/1714957200/",
            ),
            ("delimiter", ""),
            ("marker", ""),
            ("max-keys", "1000"),
            ("encoding-type", "url"),
        ];
        let c1 = proof(("get", "/"), &list, &[HOST], 10_000);
        assert_eq!(c1.0[4].1, "host");
        assert_eq!(c1.0[5].1, "delimiter;encoding-type;marker;max-keys;prefix");
        assert_eq!(signature(c1), "2d4fb8a7bca20a359ed30807ef00c85f3b023472");
        for (request, headers, expected) in [
            (
                ("head", FILE),
                &[HOST][..],
                "146ce0b5eb879a208f218709a7fdfdbc29d9f9cd",
            ),
            (
                ("get", FILE),
                &[HOST, RANGE],
                "1a620ab5b64263f3e19862f3888ea6c4ddbda1ff",
            ),
            (
                ("get", FILE),
                &[HOST, RANGE, TOKEN],
                "ac32c5af5219aefec390b61df39d4a3b73e80057",
            ),
            (
                ("get", "/目录/a b+c%d(1)!.bson"),
                &[HOST],
                "e70c305f2f569e779d2a0649b3ffe8aee05c034e",
            ),
        ] {
            let signed = proof(request, &[], headers, 10_000);
            assert_eq!(signature(signed), expected, "{request:?}");
        }
    }

    #[test]
    fn the_links_of_the_official_sdk() {
        let signature = |proof: Proof| proof.0[6].1.clone();
        let get = proof(("get", TAR), &[], &[TAR_HOST], 86_400);
        let pairs = get.into_pairs(&[]);
        assert_eq!(
            super::super::address::query(&pairs),
            "q-sign-algorithm=sha1&q-ak=AKIDEXAMPLEmongobackupfs000000000001&q-sign-time=1714957263%3B1715043723&q-key-time=1714957263%3B1715043723&q-header-list=host&q-url-param-list=&q-signature=3c7e81338c3998609c6d62a2d6c67cffa33b593c"
        );
        let head = proof(("head", TAR), &[], &[TAR_HOST], 86_400);
        assert_eq!(signature(head), "4369cd74e9f7f8279a57cf6fde9dcd2c7c179215");
        let tokened = proof(("get", TAR), &[TOKEN], &[TAR_HOST], 86_400);
        assert_eq!(tokened.0[5].1, "x-cos-security-token");
        let pairs = tokened.into_pairs(&[TOKEN]);
        let query = super::super::address::query(&pairs);
        assert!(
            query.ends_with("&q-signature=8010ac1bff829edc883c02205a75ea8075031947&x-cos-security-token=STS%2BTOKEN%2FEXAMPLE%3D%3D"),
            "{query}"
        );
        let hostless = proof(("get", "/a.tar"), &[], &[], 86_400);
        assert_eq!(
            signature(hostless),
            "b9046212c0c56dd562c42d333ab24e5e845b6e48"
        );
    }
}
