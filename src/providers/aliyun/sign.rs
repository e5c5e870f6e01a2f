//! Signature version 3 of Alibaba Cloud's RPC calls, ACS3-HMAC-SHA256 ("Request syntax and signature
//! method V3", alibabacloud.com/help). Pure: time and nonce are parameters.
//!
//! The parameters travel in the query string of a POST without a body. What is sent is the canonical
//! form itself, so that nobody has to agree on how a space is written. Signed are `host` and every
//! `x-acs-*` header, which is the least that the protocol asks for.

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::providers::hex::hex;
use crate::providers::http::Call;
use crate::providers::mac::hmac_sha256;
use crate::providers::objects::Keys;

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// Everything but what RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The canonical query string of `parameters`: sorted by name, percent-encoded.
pub(super) fn canonical_query(parameters: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    let mut pairs: Vec<(&str, &str)> = parameters
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()))
        .collect();
    pairs.sort_unstable();
    let encoded = |text| utf8_percent_encode(text, RESERVED);
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    pairs.join("&")
}

/// Adds to `call`, whose query is canonical and whose headers name action and version, what proves
/// who sends it.
pub(super) fn sign(call: &mut Call, keys: &Keys, now: Timestamp, nonce: &str) -> Result<()> {
    let body = hex(&Sha256::digest(&call.body));
    let date = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut add = |name: &'static str, value: &str, private: bool| -> Result<()> {
        let mut value = HeaderValue::from_str(value).map_err(|_| unsendable())?;
        value.set_sensitive(private);
        call.headers.insert(HeaderName::from_static(name), value);
        Ok(())
    };
    add("x-acs-date", &date, false)?;
    add("x-acs-signature-nonce", nonce, false)?;
    add("x-acs-content-sha256", &body, false)?;
    if let Some(token) = &keys.token {
        add("x-acs-accesskey-id", keys.id.expose(), true)?;
        add("x-acs-security-token", token.expose(), true)?;
    }
    let signed = signed_headers(&call.url, &call.headers)?;
    let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = signed
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let request = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{body}",
        call.method,
        call.url.path(),
        call.url.query().unwrap_or_default(),
    );
    let text = format!("{ALGORITHM}\n{}", hex(&Sha256::digest(request)));
    let signature = hex(&hmac_sha256(keys.secret.expose().as_bytes(), &text));
    call.authorize(&format!(
        "{ALGORITHM} Credential={},SignedHeaders={names},Signature={signature}",
        keys.id.expose()
    ))
}

/// `host`, `content-type` and the `x-acs-*` headers, sorted by name.
fn signed_headers(url: &Url, headers: &HeaderMap) -> Result<Vec<(String, String)>> {
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let mut signed = vec![("host".to_owned(), host)];
    for (name, value) in headers {
        let name = name.as_str();
        if name.starts_with("x-acs-") || name == "content-type" {
            let value = value.to_str().map_err(|_| unsendable())?.trim();
            signed.push((name.to_owned(), value.to_owned()));
        }
    }
    signed.sort_unstable();
    Ok(signed)
}

fn unsendable() -> Error {
    Error::new(
        Kind::Config,
        "an access key or token holds a character that cannot be sent: check that it was copied whole and without a line break",
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, header};
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;

    const NONCE: &str = "3156853299f313e23d1673dc12e1703d";

    fn keys(token: Option<&str>) -> Keys {
        Keys {
            id: Secret::new("LTAI5tSimAccessKeyId01"),
            secret: Secret::new("SimAccessKeySecret0000000000001"),
            token: token.map(Secret::new),
        }
    }

    struct Vector<'a> {
        method: Method,
        host: &'a str,
        action: &'static str,
        version: &'static str,
        parameters: &'a [(&'a str, &'a str)],
        body: &'static str,
        date: &'a str,
    }

    impl Vector<'_> {
        fn signature(&self, keys: &Keys) -> String {
            let mut url: Url = format!("https://{}/", self.host).parse().unwrap();
            if !self.parameters.is_empty() {
                url.set_query(Some(&canonical_query(self.parameters)));
            }
            let mut call = Call {
                method: self.method.clone(),
                body: Bytes::from_static(self.body.as_bytes()),
                ..Call::get(url)
            };
            let headers = &mut call.headers;
            headers.insert("x-acs-action", HeaderValue::from_static(self.action));
            headers.insert("x-acs-version", HeaderValue::from_static(self.version));
            if !self.body.is_empty() {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(header::CONTENT_TYPE, form);
            }
            sign(&mut call, keys, self.date.parse().unwrap(), NONCE).unwrap();
            let authorization = call.headers[header::AUTHORIZATION].to_str().unwrap();
            let (_, signature) = authorization.rsplit_once("Signature=").unwrap();
            signature.to_owned()
        }
    }

    const DDS: Vector<'_> = Vector {
        method: Method::POST,
        host: "mongodb.aliyuncs.com",
        action: "DescribeBackups",
        version: "2015-12-01",
        parameters: &[],
        body: "",
        date: "2026-03-28T08:00:00Z",
    };

    /// Made by the official Python SDK's signer (alibabacloud_tea_openapi 0.4.6), the first one
    /// printed in Alibaba Cloud's own description of the signature.
    #[test]
    fn the_official_vectors() {
        let example = Keys {
            id: Secret::new("YourAccessKeyId"),
            secret: Secret::new("YourAccessKeySecret"),
            token: None,
        };
        let vector = Vector {
            host: "ecs.cn-shanghai.aliyuncs.com",
            action: "RunInstances",
            version: "2014-05-26",
            parameters: &[
                ("RegionId", "cn-shanghai"),
                (
                    "ImageId",
                    "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
                ),
            ],
            date: "2023-10-26T10:22:32Z",
            ..DDS
        };
        assert_eq!(
            vector.signature(&example),
            "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
        );
        let backups = Vector {
            parameters: &[
                ("DBInstanceId", "dds-bp1sim"),
                ("NodeId", "d-bp1sim01"),
                ("StartTime", "2026-03-01T00:00Z"),
                ("EndTime", "2026-03-28T00:00Z"),
                ("PageNumber", "1"),
                ("PageSize", "30"),
            ],
            ..DDS
        };
        let regions = Vector {
            method: Method::GET,
            action: "DescribeRegions",
            ..DDS
        };
        let download = Vector {
            host: "dbs-api.cn-hangzhou.aliyuncs.com",
            action: "CreateDownload",
            version: "2021-01-01",
            parameters: &[
                ("RegionCode", "cn-hangzhou"),
                ("InstanceName", "dds-bp1sim"),
                ("BakSetId", "190700001"),
                ("BakSetType", "full"),
                ("FormatType", "bson"),
                ("TargetType", "OSS"),
                ("TargetBucket", "my-bucket"),
                ("TargetOssRegion", "cn-hangzhou"),
                ("TargetPath", "mongo backups/a+b~c*d/备份"),
            ],
            ..DDS
        };
        let form = Vector {
            body: "DBInstanceId=dds-bp1sim&PageSize=30",
            ..DDS
        };
        for (vector, signature) in [
            (
                backups,
                "1961328ea35238699450bd0a667b02a7a1e95e65d617e5e08844d87286344afa",
            ),
            (
                regions,
                "f94dacfd7add3c5004efb5c0cc2967a70373424f9e0fd18358c8b4ac7da26ae5",
            ),
            (
                download,
                "946e32ea8e00df055deb35086d54a7dad6cd5b08a7485cda7f1b5283cdfe1379",
            ),
            (
                form,
                "2c0368a945f1e31cdf6de43740d651549eab12c64f53a7a54e1fdc33377fe7f0",
            ),
        ] {
            assert_eq!(
                vector.signature(&keys(None)),
                signature,
                "{}",
                vector.action
            );
        }
        let link = Vector {
            host: "dbs-api.cn-hangzhou.aliyuncs.com",
            action: "DescribeDownloadBackupSetStorageInfo",
            version: "2021-01-01",
            parameters: &[
                ("Duration", "7200"),
                ("RegionCode", "cn-hangzhou"),
                ("TaskId", "dt-sim00001"),
            ],
            ..DDS
        };
        assert_eq!(
            link.signature(&keys(Some("CAISsimSecurityToken=="))),
            "3bae8f512cfe62922a5eb6b04c6ff978cbd6f423be1dd445cfc1d88c34b7cca2"
        );
    }

    #[test]
    fn a_key_with_a_line_break_is_a_mistake_in_the_configuration() {
        let mut call = Call::get("https://mongodb.aliyuncs.com/".parse().unwrap());
        let error = sign(&mut call, &keys(Some("a\nb")), Timestamp::UNIX_EPOCH, NONCE).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(!error.to_string().contains('a') || !error.to_string().contains("a b"));
    }

    proptest! {
        #[test]
        fn any_query_is_read_back_as_it_was_meant(pairs in proptest::collection::btree_map(".{1,8}", ".{0,12}", 0..6)) {
            let pairs: Vec<(String, String)> = pairs.into_iter().collect();
            let mut url: Url = "https://h/".parse().unwrap();
            url.set_query(Some(&canonical_query(&pairs)));
            let mut read: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            read.sort();
            prop_assert_eq!(read, pairs);
        }
    }
}
