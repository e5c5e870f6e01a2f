//! Answers: documents, lists in pages, envelopes, and the errors of "Atlas Administration API Error
//! Codes" (mongodb.com/docs). Pure.

use std::collections::HashMap;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::call::{Edition, Version};

/// What a call that succeeded answers.
#[derive(Debug)]
pub(super) enum Reply {
    /// One document.
    One(Value),
    /// A list, in pages as the request asks.
    Paged(Vec<Value>),
    /// A list that knows no pages.
    Whole(Vec<Value>),
    /// 204.
    Nothing,
}

/// What a call that failed answers.
#[derive(Debug, PartialEq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    code: String,
    detail: String,
    parameters: Vec<Value>,
    retry_after: Option<u64>,
}

impl ApiError {
    /// An error of `status` with Atlas' own `code`; `parameters` are the values named in `detail`.
    pub(super) fn new(status: u16, code: &str, detail: String, parameters: Vec<Value>) -> Self {
        ApiError {
            status,
            code: code.to_owned(),
            detail,
            parameters,
            retry_after: None,
        }
    }

    pub(super) fn no_such_resource() -> Self {
        let detail = "Cannot find resource.".to_owned();
        ApiError::new(404, "RESOURCE_NOT_FOUND", detail, Vec::new())
    }

    pub(super) fn not_acceptable() -> Self {
        let detail = "Invalid accept header or version date.".to_owned();
        ApiError::new(406, "INVALID_VERSION_DATE", detail, Vec::new())
    }

    pub(super) fn version_gone() -> Self {
        let detail = "The requested version of this resource was removed.".to_owned();
        ApiError::new(410, "VERSION_GONE", detail, Vec::new())
    }

    /// A field of the request that is unknown, missing or wrong.
    pub(super) fn attribute(code: &str, name: &str) -> Self {
        let detail = format!("The attribute {name} is unknown, missing or not acceptable.");
        ApiError::new(400, code, detail, vec![name.into()])
    }

    /// A token bucket is empty.
    pub(super) fn rate_limited(path: &str, wait: u64, limit: super::limits::Limit) -> Self {
        let super::limits::Limit { capacity, refill } = limit;
        let detail = format!(
            "Rate limit exceeded for {path}. Please retry after {wait} seconds. \
             Request capacity: {capacity}. Refill rate: {refill} per 60 seconds."
        );
        // Numbers among strings, as recorded.
        let parameters = vec![
            path.into(),
            wait.into(),
            capacity.into(),
            refill.into(),
            60.into(),
        ];
        ApiError {
            retry_after: Some(wait),
            ..ApiError::new(429, "RATE_LIMITED_TOKEN_BUCKET", detail, parameters)
        }
    }

    /// The answer; errors are `application/json` whatever was accepted.
    pub(super) fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let document = json!({
            "detail": self.detail,
            "error": self.status,
            "errorCode": self.code,
            "parameters": self.parameters,
            "reason": status.canonical_reason().unwrap_or_default(),
        });
        let mut answer = json_response(status, "application/json", document.to_string());
        set(
            &mut answer,
            HeaderName::from_static("x-error-code"),
            &self.code,
        );
        if let Some(seconds) = self.retry_after {
            set(&mut answer, RETRY_AFTER, &seconds.to_string());
        }
        answer
    }
}

/// The recorded body of every challenge, byte for byte.
pub(super) const CHALLENGE_BODY: &str = "{\n  \"error\" : 401,\n  \"reason\" : \"Unauthorized\",\n  \"detail\" : \"You are not authorized for this resource.\",\n  \"errorCode\" : \"UNEXPECTED_ERROR\"\n}";

/// 401 with the `WWW-Authenticate` value `challenge`.
pub(super) fn challenge(challenge: &str) -> Response {
    let mut answer = json_response(
        StatusCode::UNAUTHORIZED,
        "application/json",
        CHALLENGE_BODY.to_owned(),
    );
    set(&mut answer, WWW_AUTHENTICATE, challenge);
    answer
}

/// The query parameters every endpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags {
    pretty: bool,
    envelope: bool,
    include_count: bool,
    page: usize,
    per_page: usize,
    /// Whether clusters of which only backups are left are listed too.
    pub(super) with_deleted: bool,
}

impl Flags {
    /// Reads them; 400 for a page that cannot be.
    pub(super) fn parse(query: &HashMap<String, String>) -> Result<Flags, ApiError> {
        let flag = |name: &str, default| query.get(name).map_or(default, |value| value == "true");
        let number = |name: &str, default, most| match query.get(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if (1..=most).contains(&number) => Ok(number),
                _ => Err(ApiError::attribute("VALIDATION_ERROR", name)),
            },
        };
        Ok(Flags {
            pretty: flag("pretty", false),
            envelope: flag("envelope", false),
            include_count: flag("includeCount", true),
            page: number("pageNum", 1, usize::MAX)?,
            per_page: number("itemsPerPage", 100, 500)?,
            with_deleted: flag("includeDeletedWithRetainedBackups", false),
        })
    }
}

/// Writes `reply` in the shape of `version`. `address` is the request's own, without its query.
pub(super) fn render(reply: Reply, version: Version, flags: Flags, address: &str) -> Response {
    let document = match reply {
        Reply::Nothing => return status_only(StatusCode::NO_CONTENT),
        Reply::One(document) if flags.envelope => json!({"status": 200, "content": document}),
        Reply::One(document) => document,
        Reply::Whole(items) => {
            let count = items.len();
            list(items, count, vec![link(address, "self")], flags)
        }
        Reply::Paged(items) => page(items, flags, address),
    };
    let text = match flags.pretty {
        true => format!("{document:#}"),
        false => document.to_string(),
    };
    let media = match version.edition {
        Edition::V1 => "application/json".to_owned(),
        Edition::V2 => format!("application/vnd.atlas.{}+json;charset=utf-8", version.date),
    };
    let mut answer = json_response(StatusCode::OK, &media, text);
    if version.edition == Edition::V2 && version.superseded {
        let deprecation = HeaderName::from_static("deprecation");
        set(&mut answer, deprecation, "Mon, 5 Aug 2024 00:00:00 GMT");
        let sunset = HeaderName::from_static("sunset");
        set(&mut answer, sunset, "Thu, 1 Jul 2027 00:00:00 GMT");
    }
    answer
}

/// One page; the order of the parameters differs between the links, as recorded.
fn page(items: Vec<Value>, flags: Flags, address: &str) -> Value {
    let Flags {
        include_count,
        page,
        per_page,
        ..
    } = flags;
    let count = items.len();
    let start = (page - 1).saturating_mul(per_page).min(count);
    let end = start.saturating_add(per_page).min(count);
    let own =
        format!("{address}?includeCount={include_count}&pageNum={page}&itemsPerPage={per_page}");
    let other = |page| {
        format!("{address}?includeCount={include_count}&itemsPerPage={per_page}&pageNum={page}")
    };
    let mut links = vec![link(&own, "self")];
    if page > 1 {
        links.push(link(&other(page - 1), "previous"));
    }
    if end < count {
        links.push(link(&other(page + 1), "next"));
    }
    let items = items.into_iter().take(end).skip(start).collect();
    list(items, count, links, flags)
}

fn list(items: Vec<Value>, count: usize, links: Vec<Value>, flags: Flags) -> Value {
    let mut document = json!({"links": links, "results": items});
    if flags.include_count {
        document["totalCount"] = count.into();
    }
    if flags.envelope {
        document["status"] = 200.into();
    }
    document
}

/// A member of `links`.
pub(super) fn link(address: &str, rel: &str) -> Value {
    json!({"href": address, "rel": rel})
}

fn status_only(status: StatusCode) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

fn json_response(status: StatusCode, media: &str, text: String) -> Response {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    set(&mut answer, CONTENT_TYPE, media);
    answer
}

/// Sets a header; a value that cannot be one is left out.
pub(super) fn set(answer: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(query: &str) -> Result<Flags, ApiError> {
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned();
        Flags::parse(&query.collect())
    }

    fn rels(document: &Value) -> Vec<(&str, &str)> {
        let links = document["links"].as_array().unwrap().iter();
        links
            .map(|l| (l["rel"].as_str().unwrap(), l["href"].as_str().unwrap()))
            .collect()
    }

    #[test]
    fn the_challenge_s_body_is_as_long_as_recorded() {
        assert_eq!(CHALLENGE_BODY.len(), 142);
    }

    #[test]
    fn pages_follow_each_other() {
        let items: Vec<Value> = (0..5).map(Value::from).collect();
        let ask = |query: &str| page(items.clone(), flags(query).unwrap(), "http://h/x");
        let first = ask("itemsPerPage=2");
        assert_eq!(first["results"], json!([0, 1]));
        assert_eq!(first["totalCount"], 5);
        assert_eq!(
            rels(&first),
            [
                (
                    "self",
                    "http://h/x?includeCount=true&pageNum=1&itemsPerPage=2"
                ),
                (
                    "next",
                    "http://h/x?includeCount=true&itemsPerPage=2&pageNum=2"
                ),
            ]
        );
        let last = ask("itemsPerPage=2&pageNum=3&includeCount=false&envelope=true");
        assert_eq!(last["results"], json!([4]));
        assert_eq!(last.get("totalCount"), None);
        assert_eq!(last["status"], 200);
        let names: Vec<&str> = rels(&last).into_iter().map(|(rel, _)| rel).collect();
        assert_eq!(names, ["self", "previous"]);
        assert_eq!(ask("pageNum=18446744073709551615")["results"], json!([]));
    }

    #[test]
    fn pages_that_cannot_be_are_refused() {
        for query in [
            "pageNum=0",
            "pageNum=x",
            "itemsPerPage=0",
            "itemsPerPage=501",
        ] {
            assert_eq!(flags(query).unwrap_err().status, 400, "{query}");
        }
    }
}
