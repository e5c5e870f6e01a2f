//! From a request to its answer: the checks in the order of the real gateway (signature, version,
//! rate limit), then what `calls.rs` does.

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::answer::{self, ApiError};
use super::knobs::Knobs;
use super::parameters::Parameters;
use super::{Tencent, tc3};
use crate::clock::Clock;
use crate::sim::faults::{Fault, Injected};

/// Longest request body read.
const MOST_BODY: usize = 64 * 1024;
/// DescribeDBBackups may be called this much more often than the others.
const BACKUPS_FACTOR: usize = 7;

/// A request and what it is judged by.
pub(super) struct Asked<'a> {
    pub(super) now: Timestamp,
    pub(super) knobs: Knobs,
    pub(super) cloud: &'a Tencent,
    pub(super) region: &'a str,
}

impl Tencent {
    /// The service's one path.
    pub(in crate::sim) fn router(&self) -> Router {
        Router::new().fallback(call).with_state(self.clone())
    }
}

async fn call(State(cloud): State<Tencent>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MOST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    if request.uri.path() != "/" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let outcome = handle(&cloud, &request, &body);
    answer::response(outcome, &cloud.request_id())
}

fn handle(cloud: &Tencent, request: &Parts, body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let header = |name: &str| {
        request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let query = request.uri.query().unwrap_or_default();
    let now = cloud.site().clock.now();
    let asked = tc3::Asked {
        method: request.method.as_str(),
        query,
        headers: &request.headers,
        body,
    };
    tc3::check(&asked, &cloud.keys(), now)?;
    let action = header("x-tc-action").ok_or_else(|| ApiError::missing("Action"))?;
    match header("x-tc-version") {
        Some("2019-07-25") => {}
        Some(_) => {
            return Err(ApiError::new(
                "NoSuchVersion",
                "The version does not exist.",
            ));
        }
        None => return Err(ApiError::missing("Version")),
    }
    let region = header("x-tc-region").ok_or_else(|| ApiError::missing("Region"))?;
    for fault in request
        .extensions
        .get::<Injected>()
        .map(|i| &i.0)
        .into_iter()
        .flatten()
    {
        if let Fault::ApiError { code, .. } = fault {
            return Err(ApiError::new(code, "Injected."));
        }
    }
    let knobs = cloud.knobs();
    let limit = match action {
        "DescribeDBBackups" => knobs.calls_per_second * BACKUPS_FACTOR,
        _ => knobs.calls_per_second,
    };
    if !cloud.admit(action, limit, now) {
        return Err(ApiError::new(
            "RequestLimitExceeded",
            "The frequency limit is exceeded.",
        ));
    }
    cloud.site().meter.call(action);
    let given = match request.method {
        Method::GET => Parameters::of_query(query),
        _ if header(CONTENT_TYPE.as_str())
            .is_some_and(|kind| kind.starts_with("application/json")) =>
        {
            Parameters::of_body(body)?
        }
        _ => {
            return Err(ApiError::new(
                "InvalidParameter",
                "The content type is not served.",
            ));
        }
    };
    let asked = Asked {
        now,
        knobs,
        cloud,
        region,
    };
    asked.reply(action, &given)
}
