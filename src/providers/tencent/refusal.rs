//! What the API's error codes mean, and what to do about them. Pure.
//!
//! Errors come with HTTP 200 and a code such as `InvalidParameterValue.NotFoundInstance`. Codes are
//! those of "Error Codes" (cloud.tencent.com/document/api/240/32152) and of the official SDK's
//! `errorcodes.py`.

use serde_json::Value;

use super::client::Action;
use super::wire;
use crate::error::{Error, Kind};
use crate::providers::http::{Answer, Verdict, refusal_words};

/// The API said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: String,
    message: String,
    request_id: String,
}

impl Refusal {
    /// The refusal that `answer` is, whatever its status.
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        let whole: Value = serde_json::from_slice(&answer.body).ok()?;
        let inner = whole.get("Response").unwrap_or(&whole);
        let error = inner.get("Error").filter(|error| error.is_object())?;
        let error: wire::Refusal = serde_json::from_value(error.clone()).ok()?;
        let request_id = inner.get("RequestId").and_then(Value::as_str);
        Some(Refusal {
            code: error
                .code
                .unwrap_or_else(|| "an error without a code".to_owned()),
            message: error.message.unwrap_or_default(),
            request_id: request_id.unwrap_or_default().to_owned(),
        })
    }

    /// What it means for another attempt; `signed_again` when the clock was taken from the cloud
    /// for this one already.
    pub(super) fn verdict(&self, signed_again: bool) -> Verdict {
        let code = self.code.as_str();
        if code == "AuthFailure.SignatureExpire" && !signed_again {
            return Verdict::SignAgain;
        }
        if is(code, "RequestLimitExceeded") || code == "LimitExceeded.TooManyRequests" {
            return Verdict::Throttled;
        }
        match code {
            "InternalError.CheckAppIdFailed" | "InternalError.FindInstanceFailed" => Verdict::Final,
            code if is(code, "InternalError") => Verdict::Unavailable,
            _ => Verdict::Final,
        }
    }

    /// Whether a parameter's value was not to its taste, rather than the caller.
    pub(super) fn is_about_a_parameter(&self) -> bool {
        let code = self.code.as_str();
        let family = [
            "InvalidParameter",
            "InvalidParameterValue",
            "UnsupportedOperation",
        ];
        family.iter().any(|family| is(code, family))
            && meaning(code).0 != Kind::NotFound
            && meaning(code).0 != Kind::Credentials
    }

    /// As an error with its cure.
    pub(super) fn into_error(self, action: Action) -> Error {
        let (kind, cure) = meaning(&self.code);
        let cure = cure.replace("{action}", action.name());
        let words = refusal_words(&self.message, &self.code, &self.request_id);
        Error::new(kind, format!("Tencent Cloud refuses: {words}{cure}"))
    }
}

/// Whether `code` is `family` or one of its members.
fn is(code: &str, family: &str) -> bool {
    code.strip_prefix(family)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

const PERMISSION: &str =
    "; allow this key `mongodb:{action}` on the instance in the access management (CAM) console";
const GONE: &str =
    "; the backup was deleted, its retention has ended, or it does not hold this shard";
const BUSY: &str = "; the instance is busy, the request may be repeated later";
const NONE: &str = "";

/// Kind and cure of a code. A cure begins with its own separator.
fn meaning(code: &str) -> (Kind, &'static str) {
    match code {
        "AuthFailure.SecretIdNotFound" | "AuthFailure.InvalidSecretId" => (
            Kind::Credentials,
            "; check `secret_id`: the key may be misspelt, disabled or deleted",
        ),
        "AuthFailure.SignatureFailure" => (
            Kind::Credentials,
            "; check `secret_key`: it does not belong to this `secret_id`",
        ),
        "AuthFailure.SignatureExpire" => (
            Kind::Credentials,
            "; set this machine's clock: it may differ by five minutes at most",
        ),
        "AuthFailure.TokenFailure" => (
            Kind::Credentials,
            "; renew `token` together with `secret_id` and `secret_key`: temporary keys expire",
        ),
        "InvalidParameter.PermissionDenied" | "AuthFailure.UnauthorizedOperation" => {
            (Kind::Credentials, PERMISSION)
        }
        "InternalError.CheckAppIdFailed" => (
            Kind::Credentials,
            "; the account of this key does not own the instance",
        ),
        "InvalidParameterValue.BackupFileNotFound" => (Kind::NotFound, GONE),
        "InvalidParameterValue.ReplicaNotFound" => (
            Kind::NotFound,
            "; this backup has no such shard: the cluster got it later",
        ),
        "InvalidParameterValue.NotFoundInstance"
        | "InvalidParameterValue.InstanceHasBeenDeleted"
        | "InvalidParameterValue.InstanceHasBeenIsolated"
        | "InternalError.FindInstanceFailed" => {
            (Kind::NotFound, "; the instance was deleted or isolated")
        }
        "InvalidParameterValue.IllegalInstanceStatus"
        | "InvalidParameterValue.StatusAbnormal"
        | "InvalidParameterValue.LockFailed"
        | "FailedOperation.OperationNotAllowedInInstanceLocking" => (Kind::Busy, BUSY),
        "FailedOperation.TransparentDataEncryptionAlreadyOpen" => (
            Kind::Unsupported,
            "; an instance with transparent data encryption has no such download",
        ),
        "InvalidParameterValue.RegionError" => (
            Kind::Config,
            "; check `regions`: each is a code such as ap-guangzhou",
        ),
        "InvalidParameter.ActionNotFound" => (Kind::Protocol, "; check `endpoint`"),
        _ => by_family(code),
    }
}

fn by_family(code: &str) -> (Kind, &'static str) {
    let family = code.split('.').next().unwrap_or_default();
    match family {
        "UnauthorizedOperation" => (Kind::Credentials, PERMISSION),
        "AuthFailure" => (Kind::Credentials, "; check `secret_id` and `secret_key`"),
        "UnsupportedOperation" => (Kind::Unsupported, NONE),
        "UnsupportedRegion" => (
            Kind::Config,
            "; check `regions`: each is a code such as ap-guangzhou",
        ),
        "ResourceNotFound" => (Kind::NotFound, "; it was deleted"),
        "ResourceInUse" | "ResourceInsufficient" | "ResourceUnavailable" | "LimitExceeded" => {
            (Kind::Busy, BUSY)
        }
        "InvalidAction" | "NoSuchVersion" | "ActionOffline" => (
            Kind::Protocol,
            "; the endpoint does not serve this call: check `endpoint`",
        ),
        _ => (Kind::Protocol, NONE),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn refusal(code: &str) -> Refusal {
        let answer = Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: format!(
                r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"No."}},"RequestId":"r-1"}}}}"#
            )
            .into(),
            origin: "https://mongodb.example".into(),
        };
        Refusal::of(&answer).unwrap()
    }

    #[test]
    fn codes_decide() {
        for (code, kind) in [
            ("AuthFailure.SecretIdNotFound", Kind::Credentials),
            ("AuthFailure.SignatureFailure", Kind::Credentials),
            ("AuthFailure.TokenFailure", Kind::Credentials),
            ("AuthFailure.MFAFailure", Kind::Credentials),
            ("AuthFailure.UnauthorizedOperation", Kind::Credentials),
            ("UnauthorizedOperation.NoAccess", Kind::Credentials),
            ("InvalidParameter.PermissionDenied", Kind::Credentials),
            ("InvalidParameterValue.BackupFileNotFound", Kind::NotFound),
            ("InvalidParameterValue.ReplicaNotFound", Kind::NotFound),
            ("InvalidParameterValue.NotFoundInstance", Kind::NotFound),
            ("InvalidParameterValue.LockFailed", Kind::Busy),
            ("ResourceInUse", Kind::Busy),
            ("UnsupportedOperation", Kind::Unsupported),
            ("UnsupportedOperation.VersionNotSupport", Kind::Unsupported),
            ("UnsupportedRegion", Kind::Config),
            ("InvalidAction", Kind::Protocol),
            ("InvalidParameterValue.LimitParaOutOfRange", Kind::Protocol),
            ("SomethingNew.Entirely", Kind::Protocol),
        ] {
            let error = refusal(code).into_error(Action::CreateTask);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(code), "{error}");
        }
    }

    #[test]
    fn the_text_names_the_call_to_allow() {
        let error = refusal("InvalidParameter.PermissionDenied").into_error(Action::CreateTask);
        assert_eq!(
            error.to_string(),
            "Tencent Cloud refuses: No (InvalidParameter.PermissionDenied, request r-1); allow this key `mongodb:CreateBackupDownloadTask` on the instance in the access management (CAM) console"
        );
    }

    #[test]
    fn some_refusals_pass() {
        for (code, verdict) in [
            ("RequestLimitExceeded", Verdict::Throttled),
            ("RequestLimitExceeded.UinLimitExceeded", Verdict::Throttled),
            ("LimitExceeded.TooManyRequests", Verdict::Throttled),
            ("LimitExceeded", Verdict::Final),
            ("InternalError", Verdict::Unavailable),
            ("InternalError.CosError", Verdict::Unavailable),
            ("InternalError.CheckAppIdFailed", Verdict::Final),
            ("AuthFailure.SignatureExpire", Verdict::SignAgain),
            ("AuthFailure.SignatureFailure", Verdict::Final),
        ] {
            assert_eq!(refusal(code).verdict(false), verdict, "{code}");
        }
        let again = refusal("AuthFailure.SignatureExpire").verdict(true);
        assert_eq!(again, Verdict::Final);
    }

    #[test]
    fn a_method_that_an_instance_does_not_have_is_about_a_parameter() {
        for (code, about) in [
            ("InvalidParameter", true),
            ("InvalidParameterValue.BackupMethod", true),
            ("UnsupportedOperation", true),
            ("InvalidParameter.PermissionDenied", false),
            ("InvalidParameterValue.NotFoundInstance", false),
            ("AuthFailure.SignatureFailure", false),
        ] {
            assert_eq!(refusal(code).is_about_a_parameter(), about, "{code}");
        }
    }
}
