//! From a request to its answer: who asks, may they, how often, then what `calls.rs` does. Errors
//! come with HTTP 200.

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Ucloud;
use super::knobs::Knobs;
use super::signature::Parameters;
use crate::clock::Clock;
use crate::sim::faults::{Fault, Injected};

/// Longest request body read.
const MOST_BODY: usize = 64 * 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ucloud-request-uuid");

/// A call's moment and what it is judged by.
pub(super) struct Asked<'a> {
    pub(super) cloud: &'a Ucloud,
    pub(super) now: Timestamp,
    pub(super) knobs: Knobs,
}

/// A code of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    code: i64,
    message: String,
}

impl Refusal {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Refusal {
            status: 200,
            code,
            message: message.into(),
        }
    }
}

impl Ucloud {
    /// The API's one path.
    pub(in crate::sim) fn router(&self) -> Router {
        Router::new().fallback(call).with_state(self.clone())
    }
}

async fn call(State(cloud): State<Ucloud>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MOST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    if request.uri.path() != "/" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let Some(given) = parameters(&request, &body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let asked = Asked {
        cloud: &cloud,
        now: cloud.site().clock.now(),
        knobs: cloud.knobs(),
    };
    let action = given.get("Action").unwrap_or_default();
    let outcome = asked.admit(action, &given, &request);
    let outcome = outcome.and_then(|()| asked.reply(action, &given));
    asked.answer(action, outcome)
}

/// The parameters of a request: those of the query, unless there is a body.
fn parameters(request: &Parts, body: &[u8]) -> Option<Parameters> {
    let query = request.uri.query().unwrap_or_default();
    let kind = request.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok());
    match (&request.method, kind.unwrap_or_default()) {
        (&Method::GET, _) => Some(Parameters::of_form(query.as_bytes())),
        (&Method::POST, kind) if kind.starts_with("application/json") => Parameters::of_json(body),
        (&Method::POST, kind) if kind.starts_with("application/x-www-form-urlencoded") => {
            Some(Parameters::of_form(body))
        }
        _ => None,
    }
}

impl Asked<'_> {
    fn admit(&self, action: &str, given: &Parameters, request: &Parts) -> Result<(), Refusal> {
        let (public, private) = self.cloud.keys();
        if action.is_empty() {
            return Err(Refusal::new(160, "Missing Action"));
        }
        let signature = given.get("Signature");
        let signature = signature.ok_or_else(|| Refusal::new(170, "Missing Signature"))?;
        if given.get("PublicKey") != Some(public) {
            return Err(Refusal::new(172, "User not found"));
        }
        if !given.are_signed(signature, private) {
            return Err(Refusal::new(171, "Signature VerifyAC Error"));
        }
        let injected = request.extensions.get::<Injected>();
        for fault in injected.map(|injected| &injected.0).into_iter().flatten() {
            if let Fault::ApiError { status, code } = fault {
                return Err(Refusal {
                    status: *status,
                    code: code.parse().unwrap_or(8000),
                    message: "Injected".to_owned(),
                });
            }
        }
        if !self.cloud.admit(self.knobs.calls_per_second, self.now) {
            return Err(Refusal::new(153, "Request too frequent"));
        }
        self.cloud.site().meter.call(action);
        let project = given.get("ProjectId").unwrap_or_default();
        if !project.is_empty() && project != self.cloud.project() {
            return Err(Refusal::new(292, "Project not found"));
        }
        if self.knobs.denied.iter().any(|denied| denied == action) {
            return Err(Refusal::new(299, "IAM permission error"));
        }
        Ok(())
    }

    fn answer(&self, action: &str, outcome: Result<Map<String, Value>, Refusal>) -> Response {
        let name = format!("{action}Response");
        let (status, mut document) = match outcome {
            Ok(fields) => {
                let mut document = json!({"RetCode": 0, "Action": name});
                if let Value::Object(whole) = &mut document {
                    whole.extend(fields);
                }
                (200, document)
            }
            Err(Refusal {
                status,
                code,
                message,
            }) => (
                status,
                json!({"RetCode": code, "Action": name, "Message": message}),
            ),
        };
        if self.knobs.numbers_as_text {
            numbers_to_text(&mut document);
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let headers = [
            (CONTENT_TYPE, "application/json".to_owned()),
            (REQUEST_ID, self.cloud.request_id()),
        ];
        (status, headers, document.to_string()).into_response()
    }
}

fn numbers_to_text(value: &mut Value) {
    match value {
        Value::Number(number) => *value = number.to_string().into(),
        Value::Array(list) => list.iter_mut().for_each(numbers_to_text),
        Value::Object(fields) => fields.values_mut().for_each(numbers_to_text),
        _ => {}
    }
}
