//! TC3-HMAC-SHA256, the signature of Tencent Cloud's API 3.0 ("Signature v3",
//! cloud.tencent.com/document/api/240/31809). Pure: time and keys are parameters.
//!
//! A request's method, query, chosen headers and body digest are put in a canonical form; its
//! digest is signed with a key derived from the secret key, the UTC date and the service.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::providers::hex::hex;
use crate::providers::mac::hmac_sha256;
use crate::secret::Secret;

const ALGORITHM: &str = "TC3-HMAC-SHA256";

/// What is signed of a request. Its path is always `/`.
#[derive(Debug)]
pub(super) struct Canonical<'a> {
    /// The verb, in upper case.
    pub(super) method: &'a str,
    /// The raw query of a GET; empty for a POST.
    pub(super) query: &'a str,
    /// Names in lower case and values as they are sent, ordered by name.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// Lower-case hex of the body's SHA-256.
    pub(super) payload: &'a str,
}

/// Who signs, for which service and when, by the cloud's clock.
#[derive(Debug)]
pub(super) struct Signer<'a> {
    pub(super) secret_id: &'a Secret,
    pub(super) secret_key: &'a Secret,
    pub(super) service: &'a str,
    pub(super) now: Timestamp,
}

impl Signer<'_> {
    /// The Authorization header of `request`.
    pub(super) fn authorization(&self, request: &Canonical<'_>) -> String {
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let mut text = format!("{}\n/\n{}\n", request.method, request.query);
        for (name, value) in request.headers {
            text.push_str(&format!("{name}:{}\n", value.trim()));
        }
        text.push_str(&format!("\n{names}\n{}", request.payload));

        // The date is that of UTC: another one is refused for part of the day.
        let date = self.now.strftime("%Y-%m-%d").to_string();
        let scope = format!("{date}/{}/tc3_request", self.service);
        let digest = sha256_hex(text.as_bytes());
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{digest}", self.now.as_second());

        let first = format!("TC3{}", self.secret_key.expose());
        let parts = [date.as_str(), self.service, "tc3_request", to_sign.as_str()];
        let signature = parts
            .iter()
            .fold(first.into_bytes(), |key, part| hmac_sha256(&key, part));
        format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={}",
            self.secret_id.expose(),
            hex(&signature)
        )
    }
}

/// Lower-case hex of the SHA-256 of `bytes`.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AKIDEXAMPLEmongobackupfs000000000001";
    const KEY: &str = "EXAMPLEsecretkeymongobackupfs000";
    const JSON: &str = "application/json";
    const MAINLAND: &str = "mongodb.tencentcloudapi.com";

    struct Case<'a> {
        id: &'a str,
        key: &'a str,
        service: &'a str,
        at: i64,
        method: &'a str,
        query: &'a str,
        headers: &'a [(&'a str, &'a str)],
        payload: String,
    }

    fn case<'a>(headers: &'a [(&'a str, &'a str)], body: &str) -> Case<'a> {
        Case {
            id: ID,
            key: KEY,
            service: "mongodb",
            at: 1_714_957_323,
            method: "POST",
            query: "",
            headers,
            payload: sha256_hex(body.as_bytes()),
        }
    }

    fn authorization(case: &Case<'_>) -> String {
        let signer = Signer {
            secret_id: &Secret::new(case.id),
            secret_key: &Secret::new(case.key),
            service: case.service,
            now: Timestamp::from_second(case.at).unwrap(),
        };
        signer.authorization(&Canonical {
            method: case.method,
            query: case.query,
            headers: case.headers,
            payload: &case.payload,
        })
    }

    fn signature(case: &Case<'_>) -> String {
        let header = authorization(case);
        header.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    /// The example of the documentation, in its older and its newer edition.
    #[test]
    fn the_documented_examples() {
        let body = r#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;
        assert_eq!(
            sha256_hex(body.as_bytes()),
            "35e9c5b0e3ae67532d3c9f17ead6c90222632e5b1ff7f6e89887f1398934f064"
        );
        let cvm = ("host", "cvm.tencentcloudapi.com");
        let charset = ("content-type", "application/json; charset=utf-8");
        fn of(key: &str, headers: &[(&str, &str)], body: &str) -> String {
            signature(&Case {
                id: "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
                key,
                service: "cvm",
                at: 1_551_113_065,
                ..case(headers, body)
            })
        }
        let key = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";
        assert_eq!(
            of(key, &[charset, cvm], body),
            "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"
        );
        assert_eq!(
            of(key, &[("content-type", JSON), cvm], body),
            "683bd0b53659853c39699162253251192320a09b3937e27bf8e08a559b1465b8"
        );
        let action = ("x-tc-action", "describeinstances");
        assert_eq!(
            of(&"*".repeat(32), &[charset, cvm, action], body),
            "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f"
        );
    }

    /// Signatures that the official Python SDK makes with its clock stopped.
    #[test]
    fn the_signatures_of_the_official_sdk() {
        let mainland = [("content-type", JSON), ("host", MAINLAND)];
        let abroad = [
            ("content-type", JSON),
            ("host", "mongodb.intl.tencentcloudapi.com"),
        ];
        let local = [("content-type", JSON), ("host", "127.0.0.1:9000")];
        let form = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", MAINLAND),
        ];
        let instance = r#"{"InstanceId": "cmgo-abcd1234"}"#;
        let cases = [
            (
                case(&mainland, r#"{"Limit": 100, "Offset": 0}"#),
                "6b249b9c51a729f9b94e09e910e4187cf9ab8b952e719fd5a3355b5c56e908ef",
            ),
            (
                case(
                    &mainland,
                    r#"{"InstanceId": "cmgo-abcd1234", "BackupName": "cmgo-abcd1234_2024-05-06 01:02", "BackupSets": [{"ReplicaSetId": "cmgo-abcd1234_0"}, {"ReplicaSetId": "cmgo-abcd1234_1"}]}"#,
                ),
                "42268c3363d6019d2c7d54fe03fa7b0696eda810d03bff40ab6b81e4fd2cbfa8",
            ),
            (
                case(
                    &abroad,
                    r#"{"InstanceId": "cmgo-abcd1234", "BackupName": "cmgo-abcd1234_2024-05-06 01:02", "Limit": 100, "Offset": 0, "Status": [2, 3]}"#,
                ),
                "451c7ad9254901932d98195be34c50de45db9ac5265ffae9142e9631bd48b40b",
            ),
            (
                case(&local, instance),
                "454b71404c55993c15924093f48da3f2c375eb34ba02f8683a9fb3423e5d7c2c",
            ),
            (
                Case {
                    method: "GET",
                    query: "InstanceId=cmgo-abcd1234&Limit=100&Offset=0",
                    ..case(&form, "")
                },
                "a626a6ba20c9ba546518fa834b74f812649d8601b0071292fee62b34188235c9",
            ),
            (
                Case {
                    at: 1_714_926_600,
                    ..case(&mainland, instance)
                },
                "4fa653ce2fb17d94a6ff94a7b640420bd7e1049993ded09d6bdc12ba733f1af9",
            ),
            (
                case(&mainland, "UNSIGNED-PAYLOAD"),
                "8c65270ab0283767f9d100503f741aaaa2b70600f66c8006eacbc630d779d30b",
            ),
        ];
        for (number, (case, expected)) in cases.iter().enumerate() {
            assert_eq!(signature(case), *expected, "V{}", number + 1);
        }
        assert_eq!(
            authorization(&cases[0].0),
            "TC3-HMAC-SHA256 Credential=AKIDEXAMPLEmongobackupfs000000000001/2024-05-06/mongodb/tc3_request, SignedHeaders=content-type;host, Signature=6b249b9c51a729f9b94e09e910e4187cf9ab8b952e719fd5a3355b5c56e908ef"
        );
        // In China this moment belongs to the next day.
        assert!(authorization(&cases[5].0).contains("/2024-05-05/mongodb/"));
    }
}
