//! What the store refuses: its XML error documents.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use crate::sim::object::Failure;

/// An error document of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

impl Refusal {
    pub(super) const INVALID_ARGUMENT: Self = Self::new(400, "InvalidArgument", "Two signatures.");
    pub(super) const INCOMPLETE: Self = Self::new(
        403,
        "AccessDenied",
        "Query-string authentication requires the Signature, Expires and OSSAccessKeyId parameters",
    );
    pub(super) const DENIED: Self = Self::new(
        403,
        "AccessDenied",
        "You have no right to access this object because of bucket acl.",
    );
    pub(super) const EXPIRED: Self = Self::new(403, "AccessDenied", "Request has expired.");
    pub(super) const FORGED: Self = Self::new(
        403,
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided.",
    );
    pub(super) const NO_SUCH_KEY: Self =
        Self::new(404, "NoSuchKey", "The specified key does not exist.");
    pub(super) const PRECONDITION_FAILED: Self = Self::new(
        412,
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold.",
    );
    pub(super) const INVALID_RANGE: Self = Self::new(
        416,
        "InvalidRange",
        "The requested range cannot be satisfied.",
    );
    pub(super) const SKEWED: Self = Self::new(
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    );
    pub(super) const NO_SUCH_ID: Self = Self::new(
        403,
        "InvalidAccessKeyId",
        "The OSS Access Key Id you provided does not exist in our records.",
    );
    pub(super) const INTERNAL: Self = Self::new(500, "InternalError", "Please try again.");

    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        let status = match StatusCode::from_u16(status) {
            Ok(status) => status,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal {
            status,
            code,
            message,
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Precondition => Refusal::PRECONDITION_FAILED,
            Failure::Range(_) => Refusal::INVALID_RANGE,
            Failure::Internal => Refusal::INTERNAL,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n  <Code>{}</Code>\n  <Message>{}</Message>\n  <RequestId>SIM</RequestId>\n</Error>\n",
            self.code, self.message
        );
        let kind = [(header::CONTENT_TYPE, "application/xml")];
        (self.status, kind, body).into_response()
    }
}
