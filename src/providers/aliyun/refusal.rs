//! What Alibaba Cloud refuses, and what to do about it: by code first ("Error codes" of ApsaraDB for
//! MongoDB and of "CreateDownload"), by status where there is none. Pure.
//!
//! The download API reports most of its refusals with HTTP 200 and `Success: "false"`.

use http::StatusCode;

use super::actions::{Action, Product, to_grant};
use super::wire::Envelope;
use crate::error::{Error, Kind, one_line};
use crate::providers::http::Answer;

/// The answer to a create while the instance has another task.
pub(super) const BUSY: &str = "DBS.DownloadTask.OnlyOneRunningOrFailedTask";
const NO_TASK: &str = "DBS.DownloadTask.CannotFind";
const NO_SOURCE: &str = "DBS.NotExists";
/// Codes that tell of an instance or a parameter that the service does not know.
const MISNAMED: [&str; 6] = [
    NO_SOURCE,
    "Forbidden.InstanceNotFound",
    "DBS.ParamIsInValid",
    "DBS.DownloadTask.CustinIdNotSupport",
    "DBS.DownloadTask.CustinNameNotSupport",
    "DBS.DownloadTask.InstanceInfoNotSupport",
];
const SKEWED: &str = "InvalidTimeStamp.Expired";
const BROKEN: [&str; 3] = ["DBS.InternalError", "InternalError", "ServiceUnavailable"];

/// A refusal in the service's own words.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    action: Action,
    status: StatusCode,
    code: String,
    message: String,
    origin: String,
}

impl Refusal {
    /// The refusal that `answer` is, if it is one.
    pub(super) fn of(action: Action, answer: &Answer) -> Option<Self> {
        let envelope = envelope(answer);
        let refused = match envelope.success {
            _ if !answer.status.is_success() => true,
            Some(success) => !success,
            // The service for instances says nothing of its successes.
            None => action.product() == Product::Dbs && code(&envelope).is_some_and(is_failure),
        };
        refused.then(|| Refusal {
            action,
            status: answer.status,
            code: code(&envelope).unwrap_or_default().to_owned(),
            message: envelope
                .message
                .or(envelope.err_message)
                .unwrap_or_default(),
            origin: answer.origin.to_string(),
        })
    }

    /// Whether it carries `code`.
    pub(super) fn is(&self, code: &str) -> bool {
        self.code.eq_ignore_ascii_case(code)
    }

    /// Whether it says that there is no such download task, or no task ever.
    pub(super) fn is_unknown_task(&self) -> bool {
        self.is(NO_TASK) || self.is(NO_SOURCE)
    }

    /// Whether it may be about the name of what was asked for, where there are several ways to name
    /// it.
    pub(super) fn may_be_misnamed(&self) -> bool {
        MISNAMED.iter().any(|code| self.is(code))
    }

    /// Whether the account may not make this call.
    pub(super) fn is_forbidden(&self) -> bool {
        self.meaning().0 == Kind::Credentials
    }

    /// It as an error with its cure.
    pub(super) fn error(&self) -> Error {
        let (kind, cure) = self.meaning();
        let message = one_line(&self.message);
        let message = match message.trim_end_matches('.') {
            "" => self.status.canonical_reason().unwrap_or("no reason given"),
            words => words,
        };
        let label = match self.code.as_str() {
            "" => format!("{} {}", self.origin, self.status.as_u16()),
            code => format!("{} {}", self.status.as_u16(), one_line(code)),
        };
        let name = self.action.name();
        Error::new(
            kind,
            format!("Alibaba Cloud refuses {name}: {message} ({label}){cure}"),
        )
    }

    /// Kind and cure. A cure begins with its own separator.
    fn meaning(&self) -> (Kind, String) {
        let cure = |text: &str| text.to_owned();
        let code = self.code.to_ascii_lowercase();
        let task = code.strip_prefix("dbs.downloadtask.");
        match task {
            Some("onlyonerunningorfailedtask") => {
                return (
                    Kind::Busy,
                    cure("; an instance has one download task at a time"),
                );
            }
            Some("jobalreadyexist") => {
                return (
                    Kind::Busy,
                    cure("; this backup was converted in recent days and its task is not listed"),
                );
            }
            Some("cannotfind") => return (Kind::NotFound, String::new()),
            Some("ossforbid") => {
                return (
                    Kind::Credentials,
                    cure(
                        "; authorize ApsaraDB for MongoDB once in its console, which creates the role AliyunDBSDefaultRole",
                    ),
                );
            }
            Some("ossstoragetypeinvalid") => {
                return (
                    Kind::Unsupported,
                    cure("; the bucket of `[provider.oss]` must be of the Standard class"),
                );
            }
            Some(other) => return (Kind::Unsupported, cure(unsupported(other))),
            None => {}
        }
        match code.as_str() {
            "request.forbidden" | "dbs.nopermissionexception" => {
                return (Kind::Credentials, self.grant());
            }
            "forbidden.instancenotfound" | "dbs.notexists" => {
                return (Kind::NotFound, cure("; the instance was released"));
            }
            "invalidregion.notfound" | "invalidregionid.notfound" => {
                return (Kind::Config, cure("; check `regions`"));
            }
            "invalidtimestamp.expired" | "invalidtimestamp.format" => {
                return (
                    Kind::Environment,
                    cure("; this machine's clock is wrong: set it, for example by NTP"),
                );
            }
            "invalidaction.notfound" | "invalidversion" => {
                return (
                    Kind::Protocol,
                    cure(
                        "; the endpoint does not serve this call: check `endpoint` and `dbs_endpoint`",
                    ),
                );
            }
            "invalidbackupsetid.notfound" | "invalidbackupid.notfound" => {
                return (Kind::NotFound, cure("; its retention has ended"));
            }
            "incorrectdbinstancestate" | "incorrectdbinstancetype" | "incorrectbackupsetstate" => {
                return (Kind::Unsupported, String::new());
            }
            _ => {}
        }
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| code.starts_with(prefix));
        if begins(&[
            "invalidaccesskey",
            "signaturedoesnotmatch",
            "incompletesignature",
        ]) {
            return (
                Kind::Credentials,
                cure(
                    "; check `access_key_id` and `access_key_secret`: they may be wrong, disabled or deleted",
                ),
            );
        }
        if begins(&["invalidsecuritytoken", "missingsecuritytoken"]) {
            return (
                Kind::Credentials,
                cure("; check `security_token`: it is wrong or over, or belongs to another key"),
            );
        }
        if begins(&["invaliddbinstance", "invalidinstanceid"]) {
            return (Kind::NotFound, cure("; it was released"));
        }
        if begins(&["forbidden", "nopermission", "unauthorized"])
            || matches!(
                self.status,
                StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED
            )
        {
            return (Kind::Credentials, self.grant());
        }
        (Kind::Protocol, String::new())
    }

    fn grant(&self) -> String {
        format!("; grant the RAM user {}", to_grant(self.action))
    }
}

/// Why a backup cannot be converted, by the code without its prefix, in lower case. The codes'
/// names are documented, which rule each stands for is not: the ones that are not named after
/// their rule get the rules of the help page "Download backup files".
fn unsupported(code: &str) -> &'static str {
    match code {
        "bakseterror" => {
            "; only full backups that succeeded, are not encrypted and hold no time-series collections can be converted"
        }
        "instancestoragetypenotsupport" => "; only instances on ESSD cloud disks are served",
        "instanceversionnotsupport" => "; its MongoDB version is not served",
        "regionnotsupport" => "; downloads are not offered in its region",
        "dbtypenotsupport" | "usernotsupport" => "",
        _ => {
            "; it must be a replica set of several nodes or a sharded cluster, on ESSD cloud disks, and Running"
        }
    }
}

/// Whether `answer` asks to slow down, which it does without effect.
pub(super) fn is_throttled(answer: &Answer) -> bool {
    let envelope = envelope(answer);
    let failed = !answer.status.is_success() || envelope.success == Some(false);
    let named = code(&envelope).is_some_and(|code| {
        let code = code.to_ascii_lowercase();
        code.starts_with("throttling") || code.contains("flowcontrol")
    });
    failed && (named || answer.status.is_client_error() && retry_after_millis(answer).is_some())
}

/// Whether `answer` is a failure of the service itself.
pub(super) fn is_broken(answer: &Answer) -> bool {
    let envelope = envelope(answer);
    let failed = !answer.status.is_success() || envelope.success == Some(false);
    failed
        && code(&envelope)
            .is_some_and(|code| BROKEN.iter().any(|known| known.eq_ignore_ascii_case(code)))
}

/// Whether `answer` refuses the date of the request.
pub(super) fn is_skewed(answer: &Answer) -> bool {
    !answer.status.is_success()
        && code(&envelope(answer)).is_some_and(|code| code.eq_ignore_ascii_case(SKEWED))
}

/// `x-acs-retry-after`: milliseconds, as the official SDK takes it.
pub(super) fn retry_after_millis(answer: &Answer) -> Option<u64> {
    let value = answer.headers.get("x-acs-retry-after")?.to_str().ok()?;
    value.trim().parse().ok().filter(|millis| *millis > 0)
}

fn envelope(answer: &Answer) -> Envelope {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| {
        // The gateway answers XML to who asks for nothing else.
        let body = String::from_utf8_lossy(&answer.body);
        Envelope {
            code: element(&body, "Code"),
            message: element(&body, "Message"),
            ..Envelope::default()
        }
    })
}

/// The text of the first element `name`.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once("</")?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn code(envelope: &Envelope) -> Option<&str> {
    let usual = envelope.code.as_deref().filter(|code| is_failure(code));
    usual.or(envelope.err_code.as_deref().filter(|code| is_failure(code)))
}

fn is_failure(code: &str) -> bool {
    !code.eq_ignore_ascii_case("success") && code != "200"
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
            origin: "https://dbs.example".into(),
        }
    }

    fn refused(action: Action, status: u16, code: &str) -> Error {
        let body = format!(r#"{{"Success":"false","Code":"{code}","Message":"No."}}"#);
        Refusal::of(action, &answer(status, &body)).unwrap().error()
    }

    #[test]
    fn success_decides_before_the_code() {
        use Action::{CreateDownload, DescribeBackups};
        let of = |action, body: &str| Refusal::of(action, &answer(200, body)).is_some();
        for (action, body, expected) in [
            (
                CreateDownload,
                r#"{"Success":"true","Code":"DBS.Odd"}"#,
                false,
            ),
            (
                CreateDownload,
                r#"{"Success":"True","Code":"Success"}"#,
                false,
            ),
            (CreateDownload, r#"{"Success":true}"#, false),
            (CreateDownload, r#"{"Code":"200","Data":{}}"#, false),
            (CreateDownload, r#"{"Success":"false","Code":"x"}"#, true),
            (CreateDownload, r#"{"Success":false}"#, true),
            (
                CreateDownload,
                r#"{"Code":"DBS.DownloadTask.CannotFind"}"#,
                true,
            ),
            (
                CreateDownload,
                r#"{"ErrCode":"DBS.DownloadTask.CannotFind"}"#,
                true,
            ),
            (DescribeBackups, r#"{"Code":"Odd","Backups":{}}"#, false),
        ] {
            assert_eq!(of(action, body), expected, "{body}");
        }
    }

    #[test]
    fn codes_say_what_it_means() {
        use Action::{CreateDownload, DescribeBackups, DescribeDownloadTask};
        for (action, status, code, kind) in [
            (CreateDownload, 200, BUSY, Kind::Busy),
            (
                CreateDownload,
                200,
                "DBS.DownloadTask.JobAlreadyExist",
                Kind::Busy,
            ),
            (
                CreateDownload,
                200,
                "DBS.DownloadTask.BakSetError",
                Kind::Unsupported,
            ),
            (
                CreateDownload,
                200,
                "DBS.DownloadTask.RegionNotSupport",
                Kind::Unsupported,
            ),
            (
                CreateDownload,
                200,
                "DBS.DownloadTask.InstanceParamNotSupport",
                Kind::Unsupported,
            ),
            (
                CreateDownload,
                200,
                "DBS.DownloadTask.OssForbid",
                Kind::Credentials,
            ),
            (
                CreateDownload,
                200,
                "Forbidden.InstanceNotFound",
                Kind::NotFound,
            ),
            (CreateDownload, 200, "DBS.ParamIsInValid", Kind::Protocol),
            (
                DescribeDownloadTask,
                403,
                "Request.Forbidden",
                Kind::Credentials,
            ),
            (DescribeBackups, 403, "Forbidden.RAM", Kind::Credentials),
            (DescribeBackups, 403, "", Kind::Credentials),
            (
                DescribeBackups,
                404,
                "InvalidDBInstanceId.NotFound",
                Kind::NotFound,
            ),
            (
                DescribeBackups,
                404,
                "InvalidDbInstanceId.NotFound",
                Kind::NotFound,
            ),
            (
                DescribeBackups,
                400,
                "InvalidDBInstance.Malformed",
                Kind::NotFound,
            ),
            (
                DescribeBackups,
                404,
                "InvalidAccessKeyId.NotFound",
                Kind::Credentials,
            ),
            (
                DescribeBackups,
                400,
                "SignatureDoesNotMatch",
                Kind::Credentials,
            ),
            (
                DescribeBackups,
                400,
                "InvalidSecurityToken.Expired",
                Kind::Credentials,
            ),
            (
                DescribeBackups,
                404,
                "InvalidAction.NotFound",
                Kind::Protocol,
            ),
        ] {
            let error = refused(action, status, code);
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn a_missing_permission_is_named() {
        let error = refused(Action::DescribeDownloadTask, 403, "Request.Forbidden");
        assert_eq!(
            error.to_string(),
            "Alibaba Cloud refuses DescribeDownloadTask: No (403 Request.Forbidden); grant the RAM user dbs:DescribeDownloadTask, dbs:RetryDownloadTask, dbs:DescribeDownloadBackupSetStorageInfo"
        );
    }

    #[test]
    fn throttling_is_known_by_code_or_header() {
        assert!(is_throttled(&answer(400, r#"{"Code":"Throttling.User"}"#)));
        assert!(is_throttled(&answer(
            200,
            r#"{"Success":"false","Code":"Throttling"}"#
        )));
        assert!(!is_throttled(&answer(
            400,
            r#"{"Code":"InvalidParameter"}"#
        )));
        let mut asked = answer(429, "{}");
        asked
            .headers
            .insert("x-acs-retry-after", "1500".parse().unwrap());
        assert!(is_throttled(&asked));
        assert_eq!(retry_after_millis(&asked), Some(1500));
        assert!(is_broken(&answer(
            200,
            r#"{"Success":"false","Code":"DBS.InternalError"}"#
        )));
    }

    #[test]
    fn xml_is_understood_as_far_as_it_matters() {
        let body =
            "<Error><Code>InvalidAccessKeyId.NotFound</Code><Message>No such key</Message></Error>";
        let refusal = Refusal::of(Action::DescribeBackups, &answer(404, body)).unwrap();
        assert_eq!(refusal.error().kind(), Kind::Credentials);
        assert!(refusal.error().to_string().contains("No such key"));
    }
}
