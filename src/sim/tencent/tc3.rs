//! Checking TC3-HMAC-SHA256 ("Signature v3", cloud.tencent.com/document/api/240/31809). Pure.

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::super::hex;
use super::answer::ApiError;

/// How far a request's time may be from now.
const TOLERANCE: i64 = 300;
const SERVICE: &str = "mongodb";

/// What a signature is checked against.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// An account's keys.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    pub(super) id: &'a str,
    pub(super) key: &'a str,
    pub(super) token: Option<&'a str>,
}

/// Whether `asked` is signed with `keys`, about `now`.
pub(super) fn check(asked: &Asked<'_>, keys: &Keys<'_>, now: Timestamp) -> Result<(), ApiError> {
    let header = |name: &str| {
        let value = asked.headers.get(name)?;
        // Signed by some clients with an address as host: any text will do.
        std::str::from_utf8(value.as_bytes()).ok()
    };
    let malformed = || {
        ApiError::new(
            "AuthFailure.InvalidAuthorization",
            "The Authorization header is malformed.",
        )
    };
    let authorization = header(AUTHORIZATION.as_str()).ok_or_else(malformed)?;
    let claim = authorization
        .strip_prefix("TC3-HMAC-SHA256 ")
        .ok_or_else(malformed)?;
    let part = |name: &str| {
        let mut parts = claim.split(',').map(str::trim);
        parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    };
    let (Some(credential), Some(names), Some(signature)) =
        (part("Credential"), part("SignedHeaders"), part("Signature"))
    else {
        return Err(malformed());
    };
    let scope: Vec<&str> = credential.split('/').collect();
    let [id, date, service, "tc3_request"] = scope[..] else {
        return Err(malformed());
    };
    let timestamp = header("x-tc-timestamp").ok_or_else(|| ApiError::missing("Timestamp"))?;
    let at: i64 = timestamp.parse().map_err(|_| malformed())?;
    if id != keys.id {
        return Err(ApiError::new(
            "AuthFailure.SecretIdNotFound",
            "The SecretId is not found.",
        ));
    }
    if (now.as_second() - at).abs() > TOLERANCE {
        return Err(ApiError::new(
            "AuthFailure.SignatureExpire",
            "The signature is expired: the timestamp is too far from the server's time.",
        ));
    }
    if header("x-tc-token") != keys.token {
        return Err(ApiError::new(
            "AuthFailure.TokenFailure",
            "The token is wrong.",
        ));
    }
    let refused = || {
        ApiError::new(
            "AuthFailure.SignatureFailure",
            "The signature does not match.",
        )
    };
    if service != SERVICE
        || Timestamp::from_second(at)
            .map(|at| at.strftime("%Y-%m-%d").to_string())
            .ok()
            .as_deref()
            != Some(date)
    {
        return Err(refused());
    }
    let signed = match names {
        "content-type;host" => vec![CONTENT_TYPE.as_str(), HOST.as_str()],
        "content-type;host;x-tc-action" => {
            vec![CONTENT_TYPE.as_str(), HOST.as_str(), "x-tc-action"]
        }
        _ => return Err(refused()),
    };
    let mut text = format!("{}\n/\n{}\n", asked.method, asked.query);
    for name in &signed {
        let value = header(name).ok_or_else(refused)?.trim();
        let value = match *name {
            "x-tc-action" => value.to_lowercase(),
            _ => value.to_owned(),
        };
        text.push_str(&format!("{name}:{value}\n"));
    }
    let unsigned = header("x-tc-content-sha256") == Some("UNSIGNED-PAYLOAD");
    let payload = match unsigned {
        true => hex(&Sha256::digest("UNSIGNED-PAYLOAD")),
        false => hex(&Sha256::digest(asked.body)),
    };
    text.push_str(&format!("\n{names}\n{payload}"));
    let scope = format!("{date}/{service}/tc3_request");
    let digest = hex(&Sha256::digest(text.as_bytes()));
    let to_sign = format!("TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{digest}");
    let mut key = format!("TC3{}", keys.key).into_bytes();
    for part in [date, service, "tc3_request", &to_sign] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    match hex(&key) == signature {
        true => Ok(()),
        false => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of the official Python SDK, captured on the wire.
    fn captured() -> (HeaderMap, &'static [u8]) {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("host", "127.0.0.1:18080"),
            ("x-tc-action", "CreateBackupDownloadTask"),
            ("x-tc-timestamp", "1795307463"),
            ("x-tc-token", "TOKEN123"),
            (
                "authorization",
                "TC3-HMAC-SHA256 Credential=AKIDsimulator000000000000000000000001/2026-11-22/mongodb/tc3_request, SignedHeaders=content-type;host, Signature=2cf47f1c1a1757f50e994281489ace58e7ebce7b51f1cab66a84357d2feed1e1",
            ),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        (headers, br#"{"InstanceId": "cmgo-sim00001", "BackupName": "cmgo-sim00001_2024-05-06 01:02", "BackupSets": [{"ReplicaSetId": "cmgo-sim00001_0"}]}"#)
    }

    fn verdict(headers: &HeaderMap, body: &[u8], after: i64) -> Result<(), String> {
        let asked = Asked {
            method: "POST",
            query: "",
            headers,
            body,
        };
        let keys = Keys {
            id: "AKIDsimulator000000000000000000000001",
            key: "simulatorSecretKey0000000000000001",
            token: Some("TOKEN123"),
        };
        let now = Timestamp::from_second(1_795_307_463 + after).unwrap();
        check(&asked, &keys, now).map_err(|error| error.code)
    }

    #[test]
    fn a_captured_request_verifies_and_every_change_is_found() {
        let (headers, body) = captured();
        assert_eq!(verdict(&headers, body, 299), Ok(()));
        let code = |name: &'static str, value: &str| {
            let mut headers = headers.clone();
            headers.insert(name, value.parse().unwrap());
            verdict(&headers, body, 0).unwrap_err()
        };
        assert_eq!(code("host", "127.0.0.1"), "AuthFailure.SignatureFailure");
        assert_eq!(
            code("content-type", "application/json; charset=utf-8"),
            "AuthFailure.SignatureFailure"
        );
        assert_eq!(
            code("x-tc-timestamp", "1795307464"),
            "AuthFailure.SignatureFailure"
        );
        assert_eq!(code("x-tc-token", "other"), "AuthFailure.TokenFailure");
        assert_eq!(
            code("authorization", "Basic x"),
            "AuthFailure.InvalidAuthorization"
        );
        let other = captured().0["authorization"]
            .to_str()
            .unwrap()
            .replace("0001/", "0002/");
        assert_eq!(
            code("authorization", &other),
            "AuthFailure.SecretIdNotFound"
        );
        assert_eq!(
            verdict(&headers, b"{}", 0).unwrap_err(),
            "AuthFailure.SignatureFailure"
        );
        for late in [301, -301] {
            assert_eq!(
                verdict(&headers, body, late).unwrap_err(),
                "AuthFailure.SignatureExpire"
            );
        }
    }
}
