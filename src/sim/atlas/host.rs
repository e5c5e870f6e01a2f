//! The restore host: where the links of dedicated clusters' jobs lead. The real one is a machine that
//! packs the archive as it is read, for one reader, once; whatever is not documented of it is a
//! knob ([`RestoreHost`]).
//!
//! Owns the deliveries, one for each link ever made, behind one lock, which is held for single
//! looks and changes.

use std::sync::{Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::{Stream, TryStreamExt};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, StatusCode};
use jiff::Timestamp;

use super::super::content::Content;
use super::super::faults::Injected;
use super::super::object::Object;
use super::{Atlas, RestoreHost, lock};
use crate::clock::Clock;

/// What one link leads to.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// `<secret>/<file>`, by which the link is known.
    pub(super) path: String,
    /// The object whose bytes it has, or had when the job was made.
    pub(super) object: String,
    /// The job and the replica set, for the bill.
    pub(super) label: String,
    pub(super) content: Content,
    pub(super) modified: Timestamp,
    pub(super) ready: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) transfer: Transfer,
}

/// What became of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    /// It was not used.
    None,
    /// Its bytes are on their way.
    UnderWay,
    /// Its reader went away before the end.
    BrokenOff,
    /// Its reader has them all, or asked for something else than the bytes.
    Done,
    /// The job was cancelled.
    Cancelled,
}

/// The host.
#[derive(Debug)]
pub(super) struct Host {
    base: String,
    deliveries: Mutex<Vec<Delivery>>,
}

impl Host {
    pub(super) fn new(base: String) -> Self {
        Host {
            base,
            deliveries: Mutex::default(),
        }
    }

    /// The link to a delivery.
    pub(super) fn link(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    pub(super) fn add(&self, delivery: Delivery) {
        self.deliveries().push(delivery);
    }

    /// What became of the link of `path`.
    pub(super) fn transfer(&self, path: &str) -> Transfer {
        self.with(path, |delivery| delivery.transfer)
            .unwrap_or(Transfer::Cancelled)
    }

    /// Ends the link of `path`.
    pub(super) fn cancel(&self, path: &str) {
        self.with(path, |delivery| delivery.transfer = Transfer::Cancelled);
    }

    /// What all jobs ever packed of `object`, oldest first.
    pub(super) fn packed(&self, object: &str) -> Vec<Content> {
        let deliveries = self.deliveries();
        let own = deliveries.iter().filter(|each| each.object == object);
        own.map(|each| each.content.clone()).collect()
    }

    fn with<T>(&self, path: &str, change: impl FnOnce(&mut Delivery) -> T) -> Option<T> {
        let mut deliveries = self.deliveries();
        let found = deliveries.iter_mut().find(|each| each.path == path);
        found.map(change)
    }

    fn deliveries(&self) -> MutexGuard<'_, Vec<Delivery>> {
        lock(&self.deliveries)
    }
}

impl Delivery {
    /// Whether the link may be used now, by whoever asks for the bytes.
    fn is_good(&self, now: Timestamp, knobs: RestoreHost) -> bool {
        let usable = match self.transfer {
            Transfer::None => true,
            Transfer::BrokenOff => knobs.restarts || knobs.ranges,
            Transfer::UnderWay | Transfer::Done => knobs.ranges,
            Transfer::Cancelled => false,
        };
        usable && self.ready <= now && now < self.expires
    }
}

impl Atlas {
    /// The restore host's paths.
    pub(in crate::sim) fn restore_host(&self) -> Router {
        Router::new().fallback(deliver).with_state(self.clone())
    }

    /// The whole archive, as fast as it is taken.
    fn stream(
        &self,
        delivery: &Delivery,
        size: u64,
    ) -> impl Stream<Item = std::io::Result<bytes::Bytes>> + Send + use<> {
        let mut reading = Reading {
            atlas: self.clone(),
            path: delivery.path.clone(),
            left: size,
        };
        delivery
            .content
            .stream(0..size)
            .inspect_ok(move |piece| reading.took(piece.len() as u64))
    }
}

async fn deliver(State(atlas): State<Atlas>, request: Request) -> Response {
    let knobs = atlas.knobs().restore_host;
    let now = atlas.0.site.clock.now();
    let gone = StatusCode::from_u16(knobs.used_status).unwrap_or(StatusCode::NOT_FOUND);
    let path = request.uri().path().trim_start_matches('/');
    let wants_bytes = request.method() == Method::GET;
    let delivery = atlas.0.host.with(path, |delivery| {
        let found = delivery.clone();
        if found.is_good(now, knobs) && !knobs.ranges {
            delivery.transfer = match wants_bytes {
                true => Transfer::UnderWay,
                // Whatever comes first uses a link up.
                false => Transfer::Done,
            };
        }
        found
    });
    let Some(delivery) = delivery else {
        return StatusCode::NOT_FOUND.into_response();
    };
    {
        let mut bill = atlas.0.site.meter.bill();
        *bill.deliveries.entry(delivery.label.clone()).or_default() += 1;
        bill.expired_link_uses += u64::from(delivery.expires <= now);
    }
    if request.headers().contains_key(AUTHORIZATION) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    if !delivery.is_good(now, knobs) {
        return gone.into_response();
    }
    if !wants_bytes {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if knobs.ranges {
        let object = Object {
            etag: format!("\"{}\"", delivery.label.replace('/', "-")),
            content: delivery.content,
            modified: delivery.modified,
        };
        let injected = request.extensions().get::<Injected>();
        let answer = object.answer(request.headers().clone(), injected).await;
        return answer.unwrap_or_else(|_| StatusCode::RANGE_NOT_SATISFIABLE.into_response());
    }
    // The size of content that is made on demand takes work to know.
    let content = delivery.content.clone();
    let sized = tokio::task::spawn_blocking(move || content.size()).await;
    let Ok(size) = sized else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let body = Body::from_stream(atlas.stream(&delivery, size));
    let mut answer = ([(CONTENT_TYPE, "application/x-gzip")], body).into_response();
    if knobs.tells_length {
        answer.headers_mut().insert(CONTENT_LENGTH, size.into());
    }
    answer
}

/// A transfer under way: when it is dropped, whether it came to its end is known.
struct Reading {
    atlas: Atlas,
    path: String,
    left: u64,
}

impl Reading {
    fn took(&mut self, bytes: u64) {
        self.left -= bytes;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let how = match self.left {
            0 => Transfer::Done,
            _ => Transfer::BrokenOff,
        };
        self.atlas.0.host.with(&self.path, |delivery| {
            if delivery.transfer == Transfer::UnderWay {
                delivery.transfer = how;
            }
        });
    }
}
