//! Who asks, and what: the two signatures of RPC calls, the clock, the nonces, the permissions.
//!
//! Accepted are version 3 (`ACS3-HMAC-SHA256` in a header) and the classic one (HMAC-SHA1 in the
//! query); both are checked over the decoded parameters, because the official clients write a
//! space as `+` and sign it as `%20`. Owns nothing: what must be remembered is handed in.

use std::collections::{BTreeMap, HashSet};

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::estate::Keys;
use crate::sim::hex;

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// How far the clocks may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(15);

/// A call whose sender is known.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) action: String,
    pub(super) version: String,
    pub(super) parameters: BTreeMap<String, String>,
}

impl Call {
    /// A parameter that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.parameters.get(name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// The permission that it takes.
    pub(super) fn permission(&self) -> String {
        let product = match self.version.as_str() {
            super::DBS_VERSION => "dbs",
            _ => "dds",
        };
        format!("{product}:{}", self.action)
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    /// Milliseconds to wait.
    retry_after: Option<i128>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &str, message: &str) -> Self {
        Refusal {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
            retry_after: None,
        }
    }

    /// The account called too often and is to wait.
    pub(super) fn throttled(wait: SignedDuration) -> Self {
        let words = "Request was denied due to user flow control.";
        Refusal {
            retry_after: Some(wait.as_millis()),
            ..Self::new(429, "Throttling.User", words)
        }
    }

    /// A business error of dbs, which comes with HTTP 200.
    pub(super) fn business(code: &str, message: &str) -> Self {
        Self::new(200, code, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal {
            status,
            code,
            message,
            retry_after,
        } = self;
        let body = match status {
            200 => json!({
                "RequestId": "SIM", "Success": "false", "Code": code, "ErrCode": code,
                "Message": message, "ErrMessage": message,
            }),
            _ => json!({
                "RequestId": "SIM", "HostId": "sim.aliyuncs.com", "Code": code, "Message": message,
            }),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let wait = retry_after.map(|millis| [("x-acs-retry-after", millis.to_string())]);
        match wait {
            Some(wait) => (wait, answer(status, body)).into_response(),
            None => answer(status, body),
        }
    }
}

/// `document` as the service may also write it.
pub(super) fn odd(document: Value) -> Value {
    match document {
        Value::Null => json!(""),
        Value::Bool(true) => json!("True"),
        Value::Bool(false) => json!(0),
        Value::Number(number) => json!(number.to_string()),
        Value::String(text) => match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => json!(number),
            _ if text.is_empty() => Value::Null,
            _ => json!(text),
        },
        Value::Array(items) if items.is_empty() => Value::Null,
        Value::Array(items) => items.into_iter().map(odd).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let value = match (name.as_str(), value) {
                    ("DownloadStatus", Value::String(word)) => {
                        json!(word.replace("queueing", "Queuing").to_uppercase())
                    }
                    ("ExpirationTime", Value::Number(seconds)) => {
                        json!(seconds.as_i64().unwrap_or(0) * 1000)
                    }
                    (_, value) => odd(value),
                };
                (name, value)
            });
            fields
                .chain([("Unheard".to_owned(), json!({"Of": [1]}))])
                .collect()
        }
    }
}

/// A JSON answer.
pub(super) fn answer(status: StatusCode, body: Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json;charset=utf-8")];
    (status, kind, body.to_string()).into_response()
}

/// The call that `request` makes, once it has proved who sends it.
pub(super) fn admit(
    request: &Parts,
    body: &[u8],
    keys: &Keys,
    nonces: &mut HashSet<String>,
    now: Timestamp,
) -> Result<Call, Refusal> {
    let query = request.uri.query().unwrap_or_default();
    let mut parameters: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let headers = &request.headers;
    if text(headers, "authorization").is_empty() {
        let form = url::form_urlencoded::parse(body);
        parameters.extend(form.into_owned());
        return classic(request, parameters, keys, nonces, now);
    }
    let proof = Proof::read(text(headers, "authorization"))?;
    if proof.credential != keys.id {
        return Err(no_such_key());
    }
    let date = text(headers, "x-acs-date");
    check_date(date, now)?;
    let payload = hex(&Sha256::digest(body));
    let host = match text(headers, "host") {
        "" => request.uri.authority().map_or("", |host| host.as_str()),
        host => host,
    };
    let must_be_signed = headers
        .keys()
        .map(|name| name.as_str())
        .filter(|name| name.starts_with("x-acs-"))
        .chain(["host"]);
    let mut missing = must_be_signed.filter(|name| !proof.signed.contains(name));
    if missing.next().is_some() || payload != text(headers, "x-acs-content-sha256") {
        return Err(forged());
    }
    let lines: String = proof
        .signed
        .iter()
        .map(|name| match *name {
            "host" => format!("host:{host}\n"),
            name => format!("{name}:{}\n", text(headers, name).trim()),
        })
        .collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{}\n{payload}",
        request.method,
        request.uri.path(),
        canonical(&parameters),
        proof.signed.join(";"),
    );
    let to_sign = format!("ACS3-HMAC-SHA256\n{}", hex(&Sha256::digest(canonical)));
    let mut mac = Hmac::<Sha256>::new_from_slice(keys.secret.expose().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(to_sign.as_bytes());
    if hex(&mac.finalize().into_bytes()) != proof.signature {
        return Err(forged());
    }
    check_token(text(headers, "x-acs-security-token"), keys)?;
    check_nonce(text(headers, "x-acs-signature-nonce"), nonces)?;
    Ok(Call {
        action: text(headers, "x-acs-action").to_owned(),
        version: text(headers, "x-acs-version").to_owned(),
        parameters: parameters.into_iter().collect(),
    })
}

/// The Authorization header of version 3.
struct Proof<'a> {
    credential: &'a str,
    signed: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Proof<'a> {
    fn read(header: &'a str) -> Result<Self, Refusal> {
        let fields = header
            .strip_prefix("ACS3-HMAC-SHA256 ")
            .ok_or_else(forged)?;
        let field = |name: &str| {
            let mut fields = fields.split(',');
            fields.find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let (credential, signed, signature) = (
            field("Credential"),
            field("SignedHeaders"),
            field("Signature"),
        );
        Ok(Proof {
            credential: credential.ok_or_else(forged)?,
            signed: signed.ok_or_else(forged)?.split(';').collect(),
            signature: signature.ok_or_else(forged)?,
        })
    }
}

/// The classic signature, whose proof travels among the parameters.
fn classic(
    request: &Parts,
    parameters: Vec<(String, String)>,
    keys: &Keys,
    nonces: &mut HashSet<String>,
    now: Timestamp,
) -> Result<Call, Refusal> {
    let map: BTreeMap<String, String> = parameters.iter().cloned().collect();
    let get = |name: &str| map.get(name).map(String::as_str).unwrap_or_default();
    if get("Signature").is_empty() || get("SignatureMethod") != "HMAC-SHA1" {
        return Err(Refusal::new(400, "MissingParameter", "No signature."));
    }
    if get("AccessKeyId") != keys.id {
        return Err(no_such_key());
    }
    check_date(get("Timestamp"), now)?;
    let signed: Vec<_> = parameters
        .into_iter()
        .filter(|(name, _)| name != "Signature")
        .collect();
    let to_sign = format!(
        "{}&%2F&{}",
        request.method,
        utf8_percent_encode(&canonical(&signed), RESERVED)
    );
    if classic_signature(&to_sign, keys.secret.expose()) != get("Signature") {
        return Err(forged());
    }
    check_token(get("SecurityToken"), keys)?;
    check_nonce(get("SignatureNonce"), nonces)?;
    Ok(Call {
        action: get("Action").to_owned(),
        version: get("Version").to_owned(),
        parameters: map,
    })
}

fn classic_signature(to_sign: &str, secret: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(format!("{secret}&").as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(to_sign.as_bytes());
    BASE64.encode(mac.finalize().into_bytes())
}

fn canonical(parameters: &[(String, String)]) -> String {
    let mut pairs: Vec<_> = parameters.iter().collect();
    pairs.sort_unstable();
    let encoded = |text| utf8_percent_encode(text, RESERVED);
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    pairs.join("&")
}

fn check_date(date: &str, now: Timestamp) -> Result<(), Refusal> {
    let date: Option<Timestamp> = date.parse().ok();
    match date {
        Some(date) if date.duration_since(now).abs() <= SKEW => Ok(()),
        _ => Err(Refusal::new(
            400,
            "InvalidTimeStamp.Expired",
            "Specified time stamp or date value is expired.",
        )),
    }
}

fn check_token(token: &str, keys: &Keys) -> Result<(), Refusal> {
    let expected = keys.token.as_ref().map_or("", |token| token.expose());
    match token {
        token if token == expected => Ok(()),
        "" => Err(Refusal::new(
            400,
            "MissingSecurityToken",
            "A token is required.",
        )),
        _ => Err(Refusal::new(
            400,
            "InvalidSecurityToken.MismatchWithAccessKey",
            "The token does not belong to this key.",
        )),
    }
}

fn check_nonce(nonce: &str, nonces: &mut HashSet<String>) -> Result<(), Refusal> {
    match !nonce.is_empty() && nonces.insert(nonce.to_owned()) {
        true => Ok(()),
        false => Err(Refusal::new(
            400,
            "SignatureNonceUsed",
            "Specified signature nonce was used already.",
        )),
    }
}

fn no_such_key() -> Refusal {
    Refusal::new(
        404,
        "InvalidAccessKeyId.NotFound",
        "Specified access key is not found.",
    )
}

/// The signature does not fit the request.
pub(super) fn forged() -> Refusal {
    Refusal::new(
        400,
        "SignatureDoesNotMatch",
        "Specified signature is not matched with our calculation.",
    )
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the official signers; the first one is printed in Alibaba Cloud's description.
    #[test]
    fn the_official_vectors_of_the_classic_signature() {
        let sign = |method: &str, secret: &str, parameters: &[(&str, &str)]| {
            let parameters: Vec<(String, String)> = parameters
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect();
            let query = canonical(&parameters);
            let to_sign = format!("{method}&%2F&{}", utf8_percent_encode(&query, RESERVED));
            classic_signature(&to_sign, secret)
        };
        let printed = [
            ("Timestamp", "2016-02-23T12:46:24Z"),
            ("Format", "XML"),
            ("AccessKeyId", "testid"),
            ("Action", "DescribeRegions"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ("Version", "2014-05-26"),
            ("SignatureVersion", "1.0"),
        ];
        assert_eq!(
            sign("GET", "testsecret", &printed),
            "OLeaidS1JvxuMvnyHOwuJ+uX5qY="
        );
        let common = [
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("AccessKeyId", "LTAI5tSimAccessKeyId01"),
            ("Timestamp", "2026-03-28T08:00:00Z"),
            ("SignatureNonce", "3156853299f313e23d1673dc12e1703d"),
        ];
        let backups = [
            ("Action", "DescribeBackups"),
            ("Version", "2015-12-01"),
            ("DBInstanceId", "dds-bp1sim"),
            ("StartTime", "2026-03-01T00:00Z"),
            ("EndTime", "2026-03-28T00:00Z"),
        ];
        let download = [
            ("Action", "CreateDownload"),
            ("Version", "2021-01-01"),
            ("RegionCode", "cn-hangzhou"),
            ("InstanceName", "dds-bp1sim"),
            ("BakSetId", "190700001"),
            ("BakSetType", "full"),
            ("FormatType", "bson"),
            ("TargetType", "OSS"),
            ("TargetBucket", "my-bucket"),
            ("TargetOssRegion", "cn-hangzhou"),
            ("TargetPath", "mongo backups/a+b~c*d/备份"),
            ("SecurityToken", "CAISsimSecurityToken=="),
        ];
        let json = [("Format", "json")];
        let old_client = [
            ("Format", "JSON"),
            ("RegionId", "cn-hangzhou"),
            ("SignatureType", ""),
        ];
        for (method, own, format, signature) in [
            (
                "POST",
                &backups[..],
                &json[..],
                "CqA3xFB3IA7ubVAjFDhG2pOxZ7U=",
            ),
            (
                "GET",
                &backups[..],
                &json[..],
                "V9NbuHaz81K+MAfAH/fZ5NP7IMk=",
            ),
            (
                "GET",
                &download[..],
                &json[..],
                "Zic2LVNCkReTpgmEnOwkysqJTCA=",
            ),
            (
                "POST",
                &backups[..],
                &old_client[..],
                "WgJg9OU2UDszmzrwYa1bJkXqPtE=",
            ),
        ] {
            let all = [&common[..], own, format].concat();
            let secret = "SimAccessKeySecret0000000000001";
            assert_eq!(sign(method, secret, &all), signature, "{method} {format:?}");
        }
    }
}
