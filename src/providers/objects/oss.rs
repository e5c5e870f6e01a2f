//! Signature version 4 of OSS, OSS4-HMAC-SHA256, in a header or in a link ("Signature version 4",
//! alibabacloud.com/help). Pure: the time is a parameter.
//!
//! The crate for it reads the machine's clock, whose difference from the store's is known here and
//! must count: hence these few lines. Bucket and key are signed, the host is not.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::address::{escaped_key, query, sorted};
use super::{Cures, Keys, Named};
use crate::providers::hex::hex;
use crate::providers::mac::hmac_sha256;

const ALGORITHM: &str = "OSS4-HMAC-SHA256";

/// What to do about its refusals.
pub(super) const CURES: Cures = Cures {
    bucket: "check `bucket` and `region` of `[provider.oss]`",
    id: "check `access_key_id`",
    secret: "check `access_key_secret`, and that `endpoint` leads to `bucket`",
    token: "renew `security_token` together with its keys",
    permission: "grant the RAM user oss:ListObjects and oss:GetObject on the bucket of `[provider.oss]`",
};

/// Where and when a signature is valid, and whose it is.
pub(super) struct Signer<'a> {
    pub(super) keys: &'a Keys,
    pub(super) named: &'a Named,
    pub(super) now: Timestamp,
}

impl Signer<'_> {
    /// Query parameters that let anybody GET the object at `key` for `seconds`.
    pub(super) fn link(&self, key: &str, seconds: i64) -> Vec<(&'static str, String)> {
        let mut query = vec![
            ("x-oss-signature-version", ALGORITHM.to_owned()),
            ("x-oss-credential", self.credential()),
            ("x-oss-date", self.date()),
            ("x-oss-expires", seconds.to_string()),
        ];
        let token = self.keys.token.as_ref();
        query.extend(token.map(|token| ("x-oss-security-token", token.expose().to_owned())));
        let signature = self.signature(key, &query, &[]);
        query.push(("x-oss-signature", signature));
        query
    }

    /// Headers that sign a GET of the bucket itself with `query`, the Authorization header last.
    pub(super) fn headers(&self, query: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("x-oss-content-sha256", "UNSIGNED-PAYLOAD".to_owned()),
            ("x-oss-date", self.date()),
        ];
        let token = self.keys.token.as_ref();
        headers.extend(token.map(|token| ("x-oss-security-token", token.expose().to_owned())));
        let signature = self.signature("", query, &headers);
        let credential = self.credential();
        let value = format!("{ALGORITHM} Credential={credential},Signature={signature}");
        headers.push(("authorization", value));
        headers
    }

    fn signature(
        &self,
        key: &str,
        parameters: &[(impl AsRef<str>, impl AsRef<str>)],
        headers: &[(&'static str, String)],
    ) -> String {
        let path = format!("/{}/{key}", self.named.bucket);
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        // No header but those of OSS itself is signed: the list of others is empty.
        let request = format!(
            "GET\n{}\n{}\n{lines}\n\nUNSIGNED-PAYLOAD",
            escaped_key(&path),
            query(&sorted(parameters)),
        );
        let text = format!(
            "{ALGORITHM}\n{}\n{}\n{}",
            self.date(),
            self.scope(),
            hex(&Sha256::digest(request))
        );
        let mut signing = format!("aliyun_v4{}", self.keys.secret.expose()).into_bytes();
        for part in self.scope().split('/') {
            signing = hmac_sha256(&signing, part);
        }
        hex(&hmac_sha256(&signing, &text))
    }

    fn credential(&self) -> String {
        format!("{}/{}", self.keys.id.expose(), self.scope())
    }

    fn scope(&self) -> String {
        let day = self.now.strftime("%Y%m%d");
        format!("{day}/{}/oss/aliyun_v4_request", self.named.region)
    }

    fn date(&self) -> String {
        self.now.strftime("%Y%m%dT%H%M%SZ").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const KEY: &str = "dir a/b+c~d*e&f.tar.zst";

    fn named(bucket: &str) -> Named {
        Named {
            bucket: bucket.into(),
            region: "cn-hangzhou".into(),
        }
    }

    fn signature(token: Option<&str>, of: impl Fn(&Signer<'_>) -> String) -> String {
        let keys = Keys {
            id: Secret::new("LTAI5tSimAccessKeyId01"),
            secret: Secret::new("SimAccessKeySecret0000000000001"),
            token: token.map(Secret::new),
        };
        of(&Signer {
            keys: &keys,
            named: &named("sim-bucket"),
            now: "2026-03-28T08:00:00Z".parse().unwrap(),
        })
    }

    /// Made by the official signers of oss2 2.19.1 and alibabacloud-oss-v2 1.4.1, which agree.
    #[test]
    fn the_official_vectors() {
        let token = Some("CAISsimSecurityToken==");
        let link = |signer: &Signer<'_>| signer.link(KEY, 7200).pop().unwrap().1;
        assert_eq!(
            signature(None, link),
            "8e36b899e8d97660056134bf04b141f82381cef389c93ccdc799ece4653e10c9"
        );
        assert_eq!(
            signature(token, link),
            "6c81c3856bce0e5bb2c614a6ee1ec8a86d23ff538f7b8cbff591fabd414e9763"
        );
        let download = |signer: &Signer<'_>| {
            let key = "dt-sim00001/dbs_target_file_path/dds-bp1sim_20260328.tar.zst";
            let named = named("dbs-1234567890123456-cn-hangzhou-1iv12nblwsim");
            let signer = Signer {
                named: &named,
                ..*signer
            };
            signer.link(key, 7200).pop().unwrap().1
        };
        assert_eq!(
            signature(None, download),
            "8059c7bf585f35dc78fce5639b45c9cff5bbb531eed2acf676f5cabf6be0911d"
        );
        let get = |signer: &Signer<'_>| {
            let headers = [
                ("x-oss-content-sha256", "UNSIGNED-PAYLOAD".to_owned()),
                ("x-oss-date", signer.date()),
            ];
            signer.signature(KEY, &[] as &[(&str, &str)], &headers)
        };
        assert_eq!(
            signature(None, get),
            "f804a37b8bc137210837737d38ef6f75a8c227512162cc546f1f3a2ca7d22f0e"
        );
    }

    #[test]
    fn a_listing_is_signed_in_a_header() {
        let header = signature(Some("token"), |signer| {
            let headers = signer.headers(&[("list-type", "2")]);
            assert_eq!(headers[2], ("x-oss-security-token", "token".to_owned()));
            headers.last().unwrap().1.clone()
        });
        assert!(header.starts_with(
            "OSS4-HMAC-SHA256 Credential=LTAI5tSimAccessKeyId01/20260328/cn-hangzhou/oss/aliyun_v4_request,Signature="
        ));
    }
}
