//! From a request to its answer: the checks in the order the real service makes them (key, path,
//! version, rate limit), then what `account.rs` does, then the headers that every answer has.

use std::collections::HashMap;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::{ACCEPT, SERVER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use jiff::Timestamp;

use super::answer::{self, ApiError, Flags};
use super::call::{Call, Edition, Version};
use super::fields::Fields;
use super::knobs::{Knobs, TenantApi};
use super::{Atlas, lock};
use crate::clock::Clock;
use crate::sim::faults::{Fault, Injected};

/// Longest request body read.
const MOST_BODY: usize = 64 * 1024;

impl Atlas {
    /// The paths of the API.
    pub(in crate::sim) fn router(&self) -> Router {
        Router::new()
            .route("/api/oauth/token", post(token))
            .route("/api/oauth/revoke", post(revoke))
            .fallback(call)
            .with_state(self.clone())
    }
}

async fn token(State(atlas): State<Atlas>, headers: HeaderMap, body: bytes::Bytes) -> Response {
    let now = atlas.0.site.clock.now();
    atlas.0.keys.token(&headers, &body, now, &atlas.knobs())
}

async fn revoke(State(atlas): State<Atlas>, headers: HeaderMap, body: bytes::Bytes) -> Response {
    atlas.0.keys.revoke(&headers, &body)
}

async fn call(State(atlas): State<Atlas>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MOST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let asked = Asked {
        now: atlas.0.site.clock.now(),
        knobs: atlas.knobs(),
        atlas: &atlas,
    };
    let mut response = asked.answer(&request, &body);
    for (name, value) in [
        (SERVER, "mdbws"),
        (HeaderName::from_static("x-frame-options"), "DENY"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (
            HeaderName::from_static("strict-transport-security"),
            "max-age=31536000; includeSubdomains;",
        ),
    ] {
        answer::set(&mut response, name, value);
    }
    response
}

/// One request's moment: the time and the knobs stay the same throughout.
pub(super) struct Asked<'a> {
    pub(super) atlas: &'a Atlas,
    pub(super) now: Timestamp,
    pub(super) knobs: Knobs,
}

impl Asked<'_> {
    fn answer(&self, request: &Parts, body: &[u8]) -> Response {
        let faults = match request.extensions.get::<Injected>() {
            Some(injected) => injected.0.as_slice(),
            None => &[],
        };
        let keys = &self.atlas.0.keys;
        if let Some(challenge) = keys.challenge(request, faults, self.now, &self.knobs) {
            return challenge;
        }
        let (call, version) = match self.route(request) {
            Ok(routed) => routed,
            Err(error) => return error.into_response(),
        };
        let limit = self.knobs.limits.of(call.class());
        let left = lock(&self.atlas.0.buckets).take(call.class(), limit, self.now);
        let mut response = match left {
            Err(wait) => ApiError::rate_limited(request.uri.path(), wait, limit).into_response(),
            Ok(_) => self.carry_out(call, version, request, body, faults),
        };
        for (name, value) in [
            ("ratelimit-limit", limit.capacity),
            ("ratelimit-remaining", left.unwrap_or(0)),
        ] {
            let name = HeaderName::from_static(name);
            answer::set(&mut response, name, &value.to_string());
        }
        response
    }

    /// Which call it is and the shape of its answer.
    fn route(&self, request: &Parts) -> Result<(Call, Version), ApiError> {
        let (edition, call) = Call::parse(&request.method, request.uri.path())
            .ok_or_else(ApiError::no_such_resource)?;
        let served = match edition {
            Edition::V1 => self.knobs.v1,
            Edition::V2 => self.knobs.v2,
        };
        match self.knobs.tenant_api {
            _ if !served => return Err(ApiError::no_such_resource()),
            TenantApi::NotFound if call.is_tenant() => return Err(ApiError::no_such_resource()),
            TenantApi::Gone if call.is_tenant() => return Err(ApiError::version_gone()),
            _ => {}
        }
        let accept = header(&request.headers, ACCEPT);
        let version = call.version(edition, accept)?;
        Ok((call, version))
    }

    fn carry_out(
        &self,
        call: Call,
        version: Version,
        request: &Parts,
        body: &[u8],
        faults: &[Fault],
    ) -> Response {
        let base = &self.atlas.0.base;
        let root = format!("{base}{}", version.edition.path());
        let address = format!("{base}{}", request.uri.path());
        let query: HashMap<_, _> =
            url::form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        self.atlas.0.site.meter.call(call.kind());
        let injected = faults.iter().find_map(|fault| match fault {
            Fault::ApiError { status, code } => {
                let detail = "Refused by a simulated fault.".to_owned();
                Some(ApiError::new(*status, code, detail, Vec::new()))
            }
            _ => None,
        });
        let result = match injected {
            Some(error) => Err(error),
            None => Flags::parse(&query).and_then(|flags| {
                let fields = Fields::parse(&request.headers, body);
                Ok((self.reply(call, version.date, &root, flags, fields)?, flags))
            }),
        };
        match result {
            Ok((reply, flags)) => answer::render(reply, version, flags, &address),
            Err(error) => error.into_response(),
        }
    }
}

/// The text of a header.
pub(super) fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
