//! What a store's refusal means and what to do about it. Codes: "Error responses" of Amazon S3,
//! Tencent COS, Alibaba OSS and Azure Blob Storage; Google answers in JSON. Pure.

use http::StatusCode;
use serde::Deserialize;

use crate::config::BucketService;
use crate::error::{Error, Kind};
use crate::providers::http::Answer;
use crate::providers::objects::{self, complaint};

/// Code and message of a refusal; empty where there is none.
pub(super) fn said(answer: &Answer) -> (String, String) {
    #[derive(Deserialize)]
    struct Google {
        error: Inside,
    }
    #[derive(Deserialize)]
    struct Inside {
        #[serde(default)]
        message: String,
        #[serde(default)]
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(default)]
        reason: String,
    }
    match serde_json::from_slice::<Google>(&answer.body) {
        Ok(Google { error }) => {
            let reason = error.errors.into_iter().next();
            (
                reason.map_or_else(String::new, |first| first.reason),
                error.message,
            )
        }
        Err(_) => complaint(answer),
    }
}

/// Whether the store asks to slow down.
pub(super) fn is_throttling(answer: &Answer) -> bool {
    let (code, _) = said(answer);
    matches!(
        code.as_str(),
        "SlowDown" | "ServerBusy" | "TooManyRequests" | "rateLimitExceeded"
    )
}

/// A refused request as an error with its cure.
pub(super) fn error(service: BucketService, answer: &Answer) -> Error {
    let (code, message) = said(answer);
    let Options { id, key, bucket } = Options::of(service);
    let credentials = |cure: String| (Kind::Credentials, cure);
    let (kind, cure) = match (answer.status, code.as_str()) {
        (_, "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName") => {
            (Kind::Config, format!("check `{bucket}` and `endpoint`"))
        }
        (_, "NoSuchKey" | "BlobNotFound") => (Kind::NotFound, "it was removed".to_owned()),
        (_, "InvalidAccessKeyId") => credentials(format!("check `{id}`")),
        (_, "SignatureDoesNotMatch" | "AuthenticationFailed") => {
            credentials(format!("check `{key}`, and that it was copied whole"))
        }
        (_, "RequestTimeTooSkewed") => credentials("set this machine's clock".to_owned()),
        (_, "ExpiredToken" | "InvalidToken" | "SecurityTokenExpired" | "InvalidSecurityToken") => {
            credentials("the temporary keys are over: get new ones".to_owned())
        }
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") => {
            (Kind::Config, "check `region`".to_owned())
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => credentials(format!(
            "check `{id}` and `{key}`, and that they may list and read `{bucket}`"
        )),
        (StatusCode::NOT_FOUND, _) => (
            Kind::Config,
            format!("check `{bucket}`, `root` and `endpoint`"),
        ),
        _ => (Kind::Protocol, "check `endpoint` and `region`".to_owned()),
    };
    objects::refusal(kind, answer, &code, &message, &cure)
}

/// What the options of a service are called.
struct Options {
    id: &'static str,
    key: &'static str,
    bucket: &'static str,
}

impl Options {
    fn of(service: BucketService) -> Self {
        let (id, key, bucket) = match service {
            BucketService::S3 => ("access_key_id", "secret_access_key", "bucket"),
            BucketService::Cos => ("secret_id", "secret_key", "bucket"),
            BucketService::Oss => ("access_key_id", "access_key_secret", "bucket"),
            BucketService::Gcs => ("credential", "credential_path", "bucket"),
            BucketService::Azblob => ("account_name", "account_key", "container"),
            BucketService::Fs => ("root", "root", "root"),
        };
        Options { id, key, bucket }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.to_owned().into(),
            origin: "https://store.example".into(),
        }
    }

    #[test]
    fn refusals_name_their_cure() {
        let xml = |code: &str| format!("<Error><Code>{code}</Code><Message>No.</Message></Error>");
        let google = r#"{"error":{"code":403,"message":"u lacks storage.objects.list","errors":[{"reason":"forbidden"}]}}"#;
        for (service, status, body, kind, word) in [
            (
                BucketService::S3,
                404,
                xml("NoSuchBucket"),
                Kind::Config,
                "`bucket`",
            ),
            (
                BucketService::S3,
                403,
                xml("InvalidAccessKeyId"),
                Kind::Credentials,
                "`access_key_id`",
            ),
            (
                BucketService::S3,
                403,
                xml("SignatureDoesNotMatch"),
                Kind::Credentials,
                "`secret_access_key`",
            ),
            (
                BucketService::S3,
                403,
                xml("RequestTimeTooSkewed"),
                Kind::Credentials,
                "clock",
            ),
            (
                BucketService::S3,
                400,
                xml("AuthorizationHeaderMalformed"),
                Kind::Config,
                "`region`",
            ),
            (
                BucketService::S3,
                404,
                xml("NoSuchKey"),
                Kind::NotFound,
                "removed",
            ),
            (
                BucketService::Oss,
                403,
                xml("AccessDenied"),
                Kind::Credentials,
                "`access_key_secret`",
            ),
            (
                BucketService::Cos,
                403,
                String::new(),
                Kind::Credentials,
                "`secret_key`",
            ),
            (
                BucketService::Azblob,
                404,
                xml("ContainerNotFound"),
                Kind::Config,
                "`container`",
            ),
            (
                BucketService::Azblob,
                403,
                xml("AuthenticationFailed"),
                Kind::Credentials,
                "`account_key`",
            ),
            (
                BucketService::Gcs,
                403,
                google.to_owned(),
                Kind::Credentials,
                "storage.objects.list",
            ),
            (
                BucketService::S3,
                400,
                "what?".to_owned(),
                Kind::Protocol,
                "400 Bad Request",
            ),
        ] {
            let error = error(service, &answer(status, &body));
            assert_eq!(error.kind(), kind, "{error}");
            let words = error.to_string();
            assert!(
                words.contains(word) && words.contains("https://store.example"),
                "{words}"
            );
        }
        assert!(is_throttling(&answer(503, &xml("SlowDown"))));
        assert!(!is_throttling(&answer(503, &xml("InternalError"))));
    }
}
