//! What the API's return codes mean, and what to do about them. Pure.
//!
//! Errors come with HTTP 200 and a `RetCode` that is not 0. The codes below 1000 are those of "Public
//! return codes" (docs.ucloud.cn/api/summary); those of the product are not documented.

use super::client::Action;
use super::wire::Envelope;
use crate::error::{Error, Kind};
use crate::providers::http::{Answer, Verdict, refusal_words};

/// The API said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: i64,
    message: String,
    request_id: String,
}

impl Refusal {
    /// The refusal that `answer` is, whatever its status.
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        let envelope: Envelope = serde_json::from_slice(&answer.body).ok()?;
        let request_id = answer.headers.get("x-ucloud-request-uuid");
        let request_id = request_id.and_then(|id| id.to_str().ok());
        Some(Refusal {
            code: envelope.ret_code.filter(|code| *code != 0)?,
            message: envelope.message.unwrap_or_default(),
            request_id: request_id.unwrap_or_default().to_owned(),
        })
    }

    /// What it means for another attempt.
    pub(super) fn verdict(&self) -> Verdict {
        match self.code {
            153 => Verdict::Throttled,
            110 | 130 | 150 => Verdict::Unavailable,
            _ => Verdict::Final,
        }
    }

    /// Whether its code says nothing that is documented: it may be about the backup itself.
    pub(super) fn is_undocumented(&self) -> bool {
        meaning(self.code).0 == Kind::Protocol && !matches!(self.code, 160 | 161)
    }

    /// Whether the account is not served this call at all, or may not make it.
    pub(super) fn is_about_the_call(&self) -> bool {
        matches!(self.code, 160 | 161 | 291 | 293 | 299)
    }

    /// In its own words, with the code.
    pub(super) fn words(&self) -> String {
        let code = format!("RetCode {}", self.code);
        refusal_words(&self.message, &code, &self.request_id)
    }

    /// As an error with its cure.
    pub(super) fn into_error(self, action: Action) -> Error {
        let (kind, cure) = meaning(self.code);
        let cure = cure.replace("{action}", action.name());
        let name = action.name();
        Error::new(
            kind,
            format!("UCloud refuses {name}: {}{cure}", self.words()),
        )
    }
}

/// Kind and cure of a code. A cure begins with its own separator.
fn meaning(code: i64) -> (Kind, &'static str) {
    match code {
        160 | 161 => (
            Kind::Protocol,
            "; the endpoint does not serve this call: check `endpoint`",
        ),
        170 => (
            Kind::Credentials,
            "; check `endpoint`: the signature was lost on the way",
        ),
        171 => (
            Kind::Credentials,
            "; check `private_key`: it does not belong to this `public_key`",
        ),
        172 => (
            Kind::Credentials,
            "; check `public_key`: it may be misspelt, disabled or deleted",
        ),
        174 => (
            Kind::Credentials,
            "; the token of these keys is not known or has expired",
        ),
        291 | 299 => (
            Kind::Credentials,
            "; allow the owner of this key `{action}` in the access management (IAM) console",
        ),
        292 => (
            Kind::Credentials,
            "; check `project_id`: the key does not belong to such a project",
        ),
        293 => (
            Kind::Credentials,
            "; check `regions` and `zones`: the account may not use this one",
        ),
        294 => (
            Kind::Credentials,
            "; allow this machine's address in the API key's settings",
        ),
        295 => (
            Kind::Credentials,
            "; the account is under a security lock: see its console",
        ),
        _ => (Kind::Protocol, ""),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn answer(body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("x-ucloud-request-uuid", HeaderValue::from_static("u-1"));
        Answer {
            status: StatusCode::OK,
            headers,
            body: body.to_owned().into(),
            origin: "https://api.example".into(),
        }
    }

    fn refusal(code: i64) -> Refusal {
        let body = format!(r#"{{"RetCode":{code},"Action":"XResponse","Message":"No."}}"#);
        Refusal::of(&answer(&body)).unwrap()
    }

    #[test]
    fn codes_decide() {
        for (code, kind, verdict) in [
            (110, Kind::Protocol, Verdict::Unavailable),
            (130, Kind::Protocol, Verdict::Unavailable),
            (150, Kind::Protocol, Verdict::Unavailable),
            (153, Kind::Protocol, Verdict::Throttled),
            (160, Kind::Protocol, Verdict::Final),
            (161, Kind::Protocol, Verdict::Final),
            (170, Kind::Credentials, Verdict::Final),
            (171, Kind::Credentials, Verdict::Final),
            (172, Kind::Credentials, Verdict::Final),
            (174, Kind::Credentials, Verdict::Final),
            (230, Kind::Protocol, Verdict::Final),
            (291, Kind::Credentials, Verdict::Final),
            (292, Kind::Credentials, Verdict::Final),
            (293, Kind::Credentials, Verdict::Final),
            (294, Kind::Credentials, Verdict::Final),
            (295, Kind::Credentials, Verdict::Final),
            (299, Kind::Credentials, Verdict::Final),
            (8123, Kind::Protocol, Verdict::Final),
        ] {
            let refusal = refusal(code);
            assert_eq!(refusal.verdict(), verdict, "{code}");
            let error = refusal.into_error(Action::Link);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(
                error.to_string().contains(&format!("RetCode {code}")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_text_names_the_call_to_allow_and_the_request() {
        assert_eq!(
            refusal(299).into_error(Action::Link).to_string(),
            "UCloud refuses DescribeUMongoDBBackupURL: No (RetCode 299, request u-1); allow the owner of this key `DescribeUMongoDBBackupURL` in the access management (IAM) console"
        );
    }

    #[test]
    fn codes_may_be_text_and_zero_is_none() {
        let text = Refusal::of(&answer(r#"{"RetCode":"171","Message":null}"#)).unwrap();
        assert_eq!(text.code, 171);
        for fine in [
            r#"{"RetCode":0,"Message":"OK"}"#,
            r#"{"RetCode":"0"}"#,
            r#"{"RetCode":null}"#,
            "{}",
            "[]",
            "<html>",
        ] {
            assert_eq!(Refusal::of(&answer(fine)), None, "{fine}");
        }
    }
}
