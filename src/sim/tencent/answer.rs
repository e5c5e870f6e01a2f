//! Answers of the API: always HTTP 200, always a `Response` with a `RequestId`, errors inside it.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

/// An error of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: String,
    message: String,
}

impl ApiError {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        ApiError {
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// A parameter that must be there is not.
    pub(super) fn missing(name: &str) -> Self {
        Self::new(
            "MissingParameter",
            format!("The request is missing a required parameter `{name}`."),
        )
    }

    /// A parameter is of another type than documented.
    pub(super) fn malformed(name: &str) -> Self {
        Self::new(
            "InvalidParameter",
            format!("The type of the parameter `{name}` is wrong."),
        )
    }
}

/// The document of `outcome`. The official Python client looks for errors only when the media type
/// is exactly this.
pub(super) fn response(outcome: Result<Map<String, Value>, ApiError>, id: &str) -> Response {
    let mut inner = match outcome {
        Ok(fields) => fields,
        Err(ApiError { code, message }) => {
            let error = json!({"Code": code, "Message": message});
            Map::from_iter([("Error".to_owned(), error)])
        }
    };
    inner.insert("RequestId".to_owned(), id.into());
    let body = json!({"Response": inner}).to_string();
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
