//! One object and how it is read: ranges, conditions and their order follow RFC 9110 (sections
//! 13.2.2 and 14). What all simulated stores share; each has errors of its own.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use crc_fast::{CrcAlgorithm, Digest as Crc};
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::clock::http_date;
use super::content::Content;
use super::faults::{Fault, Injected};
use super::ranges::{Wanted, wanted};

/// Bytes digested at a time.
const PIECE: u64 = 1 << 20;

/// One version of an object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) content: Content,
    pub(super) etag: String,
    pub(super) modified: Timestamp,
}

/// CRC-64/XZ of the whole content of one version, worked out once. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Checksum(Arc<OnceLock<u64>>);

impl Checksum {
    /// The checksum of `content`, which is that of every call.
    pub(super) async fn of(&self, content: &Content) -> Result<u64, Failure> {
        if let Some(known) = self.0.get() {
            return Ok(*known);
        }
        let (content, known) = (content.clone(), Arc::clone(&self.0));
        let work = move || {
            let mut crc = Crc::new(CrcAlgorithm::Crc64Xz);
            let (mut at, size) = (0, content.size());
            while at < size {
                let piece = content.read(at..at + PIECE).ok()?;
                crc.update(&piece);
                at += piece.len() as u64;
            }
            Some(*known.get_or_init(|| crc.finalize()))
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.ok().flatten().ok_or(Failure::Internal)
    }
}

/// Why an object is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// A condition of the request does not hold: 412.
    Precondition,
    /// The range begins behind the end of the object, which has this size: 416.
    Range(u64),
    /// The content cannot be had: 500.
    Internal,
}

/// `answer` as a request by `method` gets it: HEAD without a body.
pub(super) fn answer_to(method: &Method, answer: Response) -> Response {
    match *method {
        Method::HEAD => answer.map(|_| Body::empty()),
        _ => answer,
    }
}

impl Object {
    /// The answer to a GET with these headers, as far as `injected` lets it be right.
    pub(super) async fn answer(
        mut self,
        mut headers: HeaderMap,
        injected: Option<&Injected>,
    ) -> Result<Response, Failure> {
        for fault in injected.map(|injected| &injected.0).into_iter().flatten() {
            match fault {
                Fault::IgnoreRange => drop(headers.remove(RANGE)),
                Fault::OtherEtag { etag } => {
                    headers.remove(IF_MATCH);
                    self.etag = etag.clone();
                }
                _ => {}
            }
        }
        // The size of content that is made on demand takes work to know.
        let content = self.content.clone();
        let size = tokio::task::spawn_blocking(move || content.size())
            .await
            .map_err(|_| Failure::Internal)?;
        let common = [
            (ETAG, self.etag.clone()),
            (LAST_MODIFIED, http_date(self.modified)),
            (ACCEPT_RANGES, "bytes".to_owned()),
        ];
        if self.is_unchanged(&headers)? {
            return Ok((StatusCode::NOT_MODIFIED, common).into_response());
        }
        let range = self.may_send_part(&headers).then(|| text(&headers, RANGE));
        let (status, range) = match wanted(range.flatten(), size) {
            Wanted::Whole => (StatusCode::OK, 0..size),
            Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Wanted::Unsatisfiable => return Err(Failure::Range(size)),
        };
        let length = range.end - range.start;
        let named = (status == StatusCode::PARTIAL_CONTENT)
            .then(|| format!("bytes {}-{}/{size}", range.start, range.end - 1))
            .map(|value| [(CONTENT_RANGE, value)]);
        let body = Body::from_stream(self.content.stream(range));
        let mut response = (status, common, body).into_response();
        for (name, value) in named.into_iter().flatten().chain([
            (CONTENT_LENGTH, length.to_string()),
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
        ]) {
            if let Ok(value) = value.try_into() {
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }

    /// The conditions of RFC 9110, section 13.2.2, in its order: an error for a precondition that
    /// failed, true for 304.
    fn is_unchanged(&self, headers: &HeaderMap) -> Result<bool, Failure> {
        if let Some(tags) = text(headers, IF_MATCH) {
            if !self.is_among(tags) {
                return Err(Failure::Precondition);
            }
        } else if let Some(date) = date(headers, IF_UNMODIFIED_SINCE)
            && self.modified.as_second() > date.as_second()
        {
            return Err(Failure::Precondition);
        }
        if let Some(tags) = text(headers, IF_NONE_MATCH) {
            return Ok(self.is_among(tags));
        }
        Ok(date(headers, IF_MODIFIED_SINCE)
            .is_some_and(|date| self.modified.as_second() <= date.as_second()))
    }

    /// Whether `If-Range` allows a partial answer: the same ETag, or exactly the same date.
    fn may_send_part(&self, headers: &HeaderMap) -> bool {
        text(headers, IF_RANGE)
            .is_none_or(|value| value == self.etag || value == http_date(self.modified))
    }

    fn is_among(&self, tags: &str) -> bool {
        tags.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag == self.etag)
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let date = rfc2822::parse(text(headers, name)?).ok()?;
    Some(date.timestamp())
}
