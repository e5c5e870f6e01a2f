//! The gate in front of every host: makes faults happen, sets the date, counts what passes.
//!
//! Owns no state of its own. Faults that need the host's knowledge (its errors, its nonces, its
//! objects) travel on to it as [`Injected`].

use std::ops::ControlFlow;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, DATE, IF_MATCH, IF_RANGE, LOCATION, RANGE, RETRY_AFTER,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use super::Site;
use super::clock::http_date;
use super::faults::{Fault, Injected, Phase, Side};
use crate::clock::Clock;

/// Marks an answer in whose place the connection is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Severed;

/// One host's gate.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    /// What a request to the host is.
    pub(super) side: fn(&Uri) -> Side,
    pub(super) site: Site,
}

/// A gate that one request passes.
#[derive(Debug)]
struct Passage {
    side: Side,
    site: Site,
}

/// The middleware.
pub(super) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let gate = Passage {
        side: (gate.side)(request.uri()),
        site: gate.site,
    };
    let method = request.method().to_string();
    let target = target(&request);
    if gate.side == Side::Data && is_unpinned(request.headers()) {
        gate.site.meter.bill().unpinned_ranges += 1;
    }
    let answer = match before(&gate, &method, &target, &mut request).await {
        ControlFlow::Break(answer) => answer,
        ControlFlow::Continue(()) => {
            let answer = with_known_length(next.run(request).await);
            if answer.status().is_success() {
                after(&gate, &method, &target, answer).await
            } else {
                answer
            }
        }
    };
    gate.count(&method, with_known_length(answer))
}

/// Path and query, and the name of the call where that stands in a header.
fn target(request: &Request) -> String {
    let actions = ["x-acs-action", "x-tc-action"].iter();
    let action = actions
        .filter_map(|name| request.headers().get(*name))
        .next();
    let action = action.and_then(|value| value.to_str().ok());
    format!("{}{}", request.uri(), action.unwrap_or_default())
}

/// Whether a range is asked for without its version. The first byte is how a version is learnt.
fn is_unpinned(headers: &HeaderMap) -> bool {
    let pinned = headers.contains_key(IF_MATCH) || headers.contains_key(IF_RANGE);
    headers
        .get(RANGE)
        .is_some_and(|range| range != "bytes=0-0" && !pinned)
}

impl Passage {
    fn meet(&self, phase: Phase, method: &str, target: &str) -> Vec<Fault> {
        let met = self.site.faults.meet(phase, self.side, method, target);
        self.site.meter.bill().faults += met.len() as u64;
        met
    }

    fn tally(&self, method: &str, outcome: &str) {
        let mut bill = self.site.meter.bill();
        let requests = match self.side {
            Side::Api => &mut bill.api_requests,
            Side::Data => &mut bill.data_requests,
        };
        *requests.entry(format!("{method} {outcome}")).or_default() += 1;
    }

    /// A request that gets no answer until its connection ends.
    async fn hang<T>(&self, method: &str) -> T {
        self.tally(method, "hung");
        std::future::pending().await
    }

    fn count(&self, method: &str, mut answer: Response) -> Response {
        if let Ok(date) = HeaderValue::try_from(http_date(self.site.clock.now())) {
            answer.headers_mut().insert(DATE, date);
        }
        let severed = answer.extensions().get::<Severed>().is_some();
        let outcome = match severed {
            true => "cut".to_owned(),
            false => answer.status().as_u16().to_string(),
        };
        self.tally(method, &outcome);
        if self.side == Side::Api || severed {
            return answer;
        }
        let meter = self.site.meter.clone();
        answer.map(|body| {
            Body::from_stream(body.into_data_stream().inspect(move |piece| {
                if let Ok(piece) = piece {
                    meter.bill().bytes_served += piece.len() as u64;
                }
            }))
        })
    }
}

async fn before(
    gate: &Passage,
    method: &str,
    target: &str,
    request: &mut Request,
) -> ControlFlow<Response> {
    let mut injected = Injected::default();
    for fault in gate.meet(Phase::Request, method, target) {
        match fault {
            Fault::Latency { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Fault::Hang => gate.hang(method).await,
            Fault::Status { code, retry_after } => {
                let mut answer = (status(code), "the service is unavailable\n").into_response();
                if let Some(value) = retry_after {
                    set(answer.headers_mut(), RETRY_AFTER, &value);
                }
                return ControlFlow::Break(answer);
            }
            Fault::Sever => return ControlFlow::Break(severed()),
            Fault::Redirect { code, location } => {
                let mut answer = status(code).into_response();
                set(answer.headers_mut(), LOCATION, &location);
                return ControlFlow::Break(answer);
            }
            Fault::LoginPage => {
                const PAGE: &str = "<!DOCTYPE html><title>Log in</title><form method=post></form>";
                return ControlFlow::Break(axum::response::Html(PAGE).into_response());
            }
            other => injected.0.push(other),
        }
    }
    request.extensions_mut().insert(injected);
    ControlFlow::Continue(())
}

async fn after(gate: &Passage, method: &str, target: &str, mut answer: Response) -> Response {
    for fault in gate.meet(Phase::Answer, method, target) {
        answer = match fault {
            Fault::LoseAnswer { code } => (status(code), "the answer was lost\n").into_response(),
            Fault::SeverAnswer => severed(),
            Fault::HoldAnswer => gate.hang(method).await,
            Fault::Cut { after } => {
                answer.map(|body| Body::from_stream(cut(body.into_data_stream(), after)))
            }
            Fault::Throttle { bytes_per_second } => answer
                .map(|body| Body::from_stream(throttle(body.into_data_stream(), bytes_per_second))),
            Fault::ShiftRange { by } => {
                shift_range(answer.headers_mut(), by);
                answer
            }
            Fault::ShortBody { by } => with_length(answer, |length| length.saturating_sub(by)),
            Fault::LongBody { by } => with_length(answer, |length| length + by),
            Fault::Header { name, value } => {
                if let Ok(name) = HeaderName::try_from(name) {
                    match value.as_str() {
                        "" => drop(answer.headers_mut().remove(name)),
                        value => set(answer.headers_mut(), name, value),
                    }
                }
                answer
            }
            _ => answer,
        };
    }
    answer
}

fn severed() -> Response {
    let mut answer = Response::default();
    answer.extensions_mut().insert(Severed);
    answer
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Writes down the length that the body knows, which it will not once it has become a stream.
fn with_known_length(mut answer: Response) -> Response {
    if let Some(length) = answer.body().size_hint().exact()
        && answer.status() != StatusCode::NO_CONTENT
        && !answer.headers().contains_key(CONTENT_LENGTH)
    {
        set(answer.headers_mut(), CONTENT_LENGTH, &length.to_string());
    }
    answer
}

/// The body up to byte `after`, then an error, on which hyper closes the connection.
fn cut(
    body: impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static,
    after: u64,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    let broken = stream::once(async {
        // Lets hyper send what it holds: it drops that when the body fails.
        tokio::task::yield_now().await;
        Err(axum::Error::new("cut by a fault"))
    });
    first(body, after).chain(broken)
}

/// The first `length` bytes of `body`.
fn first(
    body: impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static,
    length: u64,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    body.scan(length, |left, piece| {
        let piece = piece.map(|mut piece| {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
            piece
        });
        // An empty piece means that nothing is left to send.
        let more = !matches!(&piece, Ok(piece) if piece.is_empty());
        std::future::ready(more.then_some(piece))
    })
}

/// The body in pieces of about a twentieth of a second each.
fn throttle(
    body: impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static,
    bytes_per_second: u64,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    let rate = bytes_per_second.max(1);
    let step = usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1);
    body.flat_map(move |piece| match piece {
        Ok(mut piece) => {
            let mut parts = Vec::new();
            while !piece.is_empty() {
                parts.push(Ok(piece.split_to(step.min(piece.len()))));
            }
            stream::iter(parts)
        }
        Err(error) => stream::iter(vec![Err(error)]),
    })
    .then(move |part| async move {
        if let Ok(part) = &part {
            let time = part.len() as f64 / rate as f64;
            tokio::time::sleep(Duration::from_secs_f64(time)).await;
        }
        part
    })
}

/// `bytes a-b/size` becomes `bytes (a+by)-(b+by)/size`.
fn shift_range(headers: &mut HeaderMap, by: u64) {
    let shifted = headers
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|value| value.split_once('/'))
        .and_then(|(range, size)| {
            let (first, last) = range.split_once('-')?;
            let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
            Some(format!("bytes {}-{}/{size}", first + by, last + by))
        });
    if let Some(shifted) = shifted {
        set(headers, CONTENT_RANGE, &shifted);
    }
}

/// The same answer, complete in itself, with a body of another length; what is added are zeros.
fn with_length(mut answer: Response, change: impl FnOnce(u64) -> u64) -> Response {
    let length = answer
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    let Some(length) = length else { return answer };
    let wanted = change(length);
    set(answer.headers_mut(), CONTENT_LENGTH, &wanted.to_string());
    answer.map(|body| {
        let surplus = Bytes::from(vec![0; wanted.saturating_sub(length) as usize]);
        let padded = body
            .into_data_stream()
            .chain(stream::once(async { Ok(surplus) }));
        Body::from_stream(first(padded, wanted))
    })
}
