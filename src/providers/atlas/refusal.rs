//! What Atlas refuses, and what to do about it: by error code first ("Atlas Administration API Error
//! Codes"), by status where there is none. Pure.

use http::StatusCode;

use super::wire::Refusal;
use crate::error::{Error, Kind, one_line};
use crate::providers::http::Answer;

/// The errorCode of a refusal, from the body or the header that repeats it.
pub(super) fn error_code(answer: &Answer) -> Option<String> {
    let body: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
    let header = || {
        Some(
            answer
                .headers
                .get("x-error-code")?
                .to_str()
                .ok()?
                .to_owned(),
        )
    };
    body.error_code
        .or_else(header)
        .filter(|code| !code.is_empty())
}

/// `answer`, which is not a success, as an error with its cure.
pub(super) fn refused(answer: &Answer) -> Error {
    let body: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
    let status = answer.status;
    let code = error_code(answer).unwrap_or_default();
    let (kind, cure) = meaning(status, &code);
    let detail = body.detail.or(body.error_description).or(body.reason);
    let detail = match (detail, body.error.as_str()) {
        (Some(detail), _) => detail,
        (None, Some(word)) => word.to_owned(),
        (None, None) => status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_owned(),
    };
    let detail = one_line(&detail);
    let detail = detail.trim_end_matches('.');
    let label = match code.as_str() {
        "" => format!("{} {}", answer.origin, status.as_u16()),
        code => format!("{} {code}", status.as_u16()),
    };
    let cure = match body.parameters.as_deref() {
        Some([address, ..]) if is_access_list(&code) && address.is_string() => cure.replace(
            "this machine's address",
            &one_line(address.as_str().unwrap_or_default()),
        ),
        _ => cure.to_owned(),
    };
    Error::new(kind, format!("Atlas refuses: {detail} ({label}){cure}"))
}

fn is_access_list(code: &str) -> bool {
    matches!(
        code,
        "IP_ADDRESS_NOT_ON_ACCESS_LIST" | "IP_ADDRESS_NOT_ON_WHITELIST"
    )
}

const ROLES: &str = "; listing needs the role Project Read Only (dedicated clusters: Project Backup Manager), downloading needs Project Backup Export Operator (M2 and M5: Project Owner)";
const NONE: &str = "";

/// Kind and cure of a refusal. A cure begins with its own separator.
fn meaning(status: StatusCode, code: &str) -> (Kind, &'static str) {
    if is_access_list(code) {
        return (
            Kind::Credentials,
            "; add this machine's address to the API access list of the API key or service account",
        );
    }
    match code {
        // Its exact spelling is not documented.
        code if code.starts_with("ORG_REQUIRES_") && code.ends_with("ACCESS_LIST") => (
            Kind::Credentials,
            "; give the API key an API access list that holds this machine's address",
        ),
        "USER_UNAUTHORIZED"
        | "NOT_IN_GROUP"
        | "USER_CANNOT_ACCESS_GROUP"
        | "TENANT_SNAPSHOT_ACCESS_DENIED"
        | "ACCESS_FORBIDDEN" => (Kind::Credentials, ROLES),
        "ACCOUNT_SUSPENDED" => (
            Kind::Credentials,
            "; settle the organization's invoices in the Atlas console",
        ),
        "ATLAS_NETWORK_PERMISSIONS_SIZE_EXCEEDED" => (
            Kind::Credentials,
            "; shorten the project's IP access list: Atlas ties downloads to it",
        ),
        "FEATURE_UNSUPPORTED" | "CANNOT_DOWNLOAD_SNAPSHOT_WITH_ENCRYPTION" => {
            (Kind::Unsupported, NONE)
        }
        "CANNOT_USE_FLEX_CLUSTER_IN_CLUSTER_API" => {
            (Kind::NotFound, "; it is a Flex cluster now: list again")
        }
        "GROUP_NOT_FOUND" | "INVALID_GROUP_ID" => (
            Kind::Config,
            "; check `project_id`: it is the 24-digit id in the project's address",
        ),
        "CLUSTER_NOT_FOUND" => (Kind::NotFound, "; it was deleted or renamed"),
        "SNAPSHOT_NOT_FOUND"
        | "TENANT_SNAPSHOT_NOT_FOUND"
        | "INVALID_SNAPSHOT_ID"
        | "CANNOT_START_RESTORE_JOB_FOR_DELETED_SNAPSHOT" => {
            (Kind::NotFound, "; its retention has ended")
        }
        "RESTORE_JOB_NOT_FOUND" | "TENANT_RESTORE_NOT_FOUND" | "INVALID_JOB_ID" => {
            (Kind::Expired, NONE)
        }
        "CANNOT_DOWNLOAD_SNAPSHOT_CONCURRENTLY" => (
            Kind::Busy,
            "; another download of this snapshot is under way",
        ),
        "TOO_MANY_SNAPSHOT_DOWNLOADS" => (
            Kind::Busy,
            "; wait until other downloads of the project have ended",
        ),
        "CANNOT_DOWNLOAD_INCOMPLETE_SNAPSHOT" => (Kind::Busy, "; it is still being taken"),
        _ => by_status(status),
    }
}

fn by_status(status: StatusCode) -> (Kind, &'static str) {
    match status {
        StatusCode::UNAUTHORIZED => (
            Kind::Credentials,
            "; check `public_key` and `private_key`, or `client_id` and `client_secret`: they may be wrong, revoked or expired",
        ),
        StatusCode::FORBIDDEN => (Kind::Credentials, ROLES),
        StatusCode::PAYMENT_REQUIRED => (
            Kind::Credentials,
            "; settle the organization's invoices in the Atlas console",
        ),
        StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::NOT_ACCEPTABLE
        | StatusCode::GONE => (
            Kind::Protocol,
            "; the endpoint does not serve this call: check `endpoint`",
        ),
        StatusCode::CONFLICT => (Kind::Busy, NONE),
        _ => (Kind::Protocol, NONE),
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
            origin: "https://cloud.example".into(),
        }
    }

    #[test]
    fn codes_decide_before_statuses() {
        for (status, code, kind) in [
            (401, "UNEXPECTED_ERROR", Kind::Credentials),
            (401, "USER_UNAUTHORIZED", Kind::Credentials),
            (402, "ACCOUNT_SUSPENDED", Kind::Credentials),
            (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", Kind::Credentials),
            (403, "FEATURE_UNSUPPORTED", Kind::Unsupported),
            (404, "GROUP_NOT_FOUND", Kind::Config),
            (404, "CLUSTER_NOT_FOUND", Kind::NotFound),
            (404, "TENANT_SNAPSHOT_NOT_FOUND", Kind::NotFound),
            (404, "TENANT_RESTORE_NOT_FOUND", Kind::Expired),
            (404, "RESOURCE_NOT_FOUND", Kind::Protocol),
            (400, "CANNOT_DOWNLOAD_SNAPSHOT_CONCURRENTLY", Kind::Busy),
            (400, "TOO_MANY_SNAPSHOT_DOWNLOADS", Kind::Busy),
            (409, "CANNOT_DOWNLOAD_INCOMPLETE_SNAPSHOT", Kind::Busy),
            (400, "INVALID_JSON", Kind::Protocol),
            (403, "SOMETHING_NEW", Kind::Credentials),
            (403, "ORG_REQUIRES_ACCESS_LIST", Kind::Credentials),
            (403, "ORG_REQUIRES_IP_ACCESS_LIST", Kind::Credentials),
            (
                403,
                "ATLAS_NETWORK_PERMISSIONS_SIZE_EXCEEDED",
                Kind::Credentials,
            ),
            (
                400,
                "CANNOT_DOWNLOAD_SNAPSHOT_WITH_ENCRYPTION",
                Kind::Unsupported,
            ),
            (
                409,
                "CANNOT_START_RESTORE_JOB_FOR_DELETED_SNAPSHOT",
                Kind::NotFound,
            ),
        ] {
            let body = format!(r#"{{"error":{status},"errorCode":"{code}","detail":"No."}}"#);
            let error = refused(&answer(status, &body));
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(code), "{error}");
        }
    }

    #[test]
    fn the_access_list_error_names_the_address() {
        let error = refused(&answer(
            403,
            r#"{"error":403,"errorCode":"IP_ADDRESS_NOT_ON_ACCESS_LIST","detail":"IP address 203.0.113.7 is not allowed to access this resource.","parameters":["203.0.113.7"],"reason":"Forbidden"}"#,
        ));
        assert_eq!(
            error.to_string(),
            "Atlas refuses: IP address 203.0.113.7 is not allowed to access this resource (403 IP_ADDRESS_NOT_ON_ACCESS_LIST); add 203.0.113.7 to the API access list of the API key or service account"
        );
    }

    #[test]
    fn a_refusal_without_json_goes_by_its_status() {
        for (status, kind) in [
            (401, Kind::Credentials),
            (403, Kind::Credentials),
            (404, Kind::Protocol),
            (418, Kind::Protocol),
        ] {
            let error = refused(&answer(status, "<html>no</html>"));
            assert_eq!(error.kind(), kind, "{error}");
            assert!(
                error.to_string().contains("https://cloud.example"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_token_endpoint_is_understood() {
        let body =
            r#"{"error":"invalid_client","error_description":"Invalid credentials provided."}"#;
        let error = refused(&answer(401, body));
        assert_eq!(error.kind(), Kind::Credentials);
        assert!(
            error.to_string().contains("Invalid credentials provided"),
            "{error}"
        );
    }

    #[test]
    fn the_code_may_stand_in_the_header_only() {
        let mut refusal = answer(404, "");
        refusal
            .headers
            .insert("x-error-code", "CLUSTER_NOT_FOUND".parse().unwrap());
        assert_eq!(error_code(&refusal).as_deref(), Some("CLUSTER_NOT_FOUND"));
        assert_eq!(refused(&refusal).kind(), Kind::NotFound);
    }
}
