//! A data host that misbehaves to order: HTTP/1.1 over a bare socket, so that nothing between the
//! test and the wire corrects it.
//!
//! A script is a function from the request and its number to a [`Reply`]. [`Reply::honest`] is what
//! a strict object store answers; its methods spoil it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Which connection it came on, from 0.
    pub connection: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The range it asks for, end exclusive.
    pub fn range(&self) -> Option<Range<u64>> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
    }
}

/// What is stored behind every path.
#[derive(Debug, Clone)]
pub struct Object {
    pub bytes: Bytes,
    pub etag: Option<&'static str>,
    pub last_modified: Option<&'static str>,
}

impl Object {
    /// `size` bytes, no two stretches of which are alike, with a strong tag.
    pub fn new(size: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let bytes = (0..size).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        Object {
            bytes: bytes.collect::<Vec<u8>>().into(),
            etag: Some("\"v1\""),
            last_modified: Some("Sun, 22 Nov 2026 10:00:00 GMT"),
        }
    }

    pub fn slice(&self, range: Range<u64>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }
}

/// What comes first.
#[derive(Debug, Clone)]
enum Opening {
    /// Status line and headers.
    Head,
    /// Nothing at all; the connection stays open.
    Silence,
    /// Nothing at all; the connection is closed.
    Close,
    /// Headers without end.
    Endless,
    /// What is not HTTP.
    Garbage,
}

/// How the body travels.
#[derive(Debug, Clone)]
enum Ending {
    /// As promised; the connection stays open.
    Kept,
    /// The connection is closed in an orderly way after so many bytes of the body.
    Cut(usize),
    /// It is reset after so many bytes.
    Reset(usize),
    /// It stays open but nothing more comes after so many bytes.
    Hang(usize),
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    ending: Ending,
    /// Pieces of so many bytes with a pause after each.
    drip: Option<(usize, Duration)>,
    chunked: bool,
    opening: Opening,
}

impl Reply {
    /// An answer with this status, body and its Content-Length.
    pub fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        Reply::of(status, Bytes::copy_from_slice(body.as_ref()))
    }

    fn of(status: u16, body: Bytes) -> Self {
        Reply {
            status,
            headers: vec![("Content-Length".into(), body.len().to_string())],
            body,
            ending: Ending::Kept,
            drip: None,
            chunked: false,
            opening: Opening::Head,
        }
    }

    /// What a strict store answers.
    pub fn honest(object: &Object, request: &Request) -> Self {
        let size = object.bytes.len() as u64;
        let matching = request.header("if-match");
        if matching.is_some_and(|tag| Some(tag) != object.etag) {
            return Reply::new(412, "");
        }
        let since = request.header("if-unmodified-since");
        if since.is_some_and(|time| Some(time) != object.last_modified) {
            return Reply::new(412, "");
        }
        let reply = match request.range() {
            None => Reply::of(200, object.bytes.clone()),
            Some(range) if range.start >= size => {
                Reply::new(416, "").with("Content-Range", format!("bytes */{size}"))
            }
            Some(range) => {
                let range = range.start..range.end.min(size);
                let part = range.start as usize..range.end as usize;
                Reply::of(206, object.bytes.slice(part)).with(
                    "Content-Range",
                    format!("bytes {}-{}/{size}", range.start, range.end - 1),
                )
            }
        };
        reply.versioned(object)
    }

    /// The whole object, as by a server that knows no ranges.
    pub fn whole(object: &Object) -> Self {
        Reply::of(200, object.bytes.clone()).versioned(object)
    }

    /// A refusal as stores of the S3 family word it.
    pub fn refusal(status: u16, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        Reply::new(status, body).with("Content-Type", "application/xml")
    }

    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Reply::new(status, "").with("Location", location)
    }

    fn versioned(mut self, object: &Object) -> Self {
        if let Some(etag) = object.etag {
            self = self.with("ETag", etag);
        }
        if let Some(time) = object.last_modified {
            self = self.with("Last-Modified", time);
        }
        self
    }

    /// Adds a header.
    pub fn add(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets a header.
    pub fn with(self, name: &str, value: impl Into<String>) -> Self {
        self.without(name).add(name, value)
    }

    /// Leaves a header out.
    pub fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        self
    }

    /// Sends `extra` after the body without announcing it, where `Content-Length` allows that.
    pub fn longer(mut self, extra: &[u8]) -> Self {
        self.body = [&self.body[..], extra].concat().into();
        self
    }

    /// Closes after `at` bytes of the body.
    pub fn cut(mut self, at: usize) -> Self {
        self.ending = Ending::Cut(at);
        self
    }

    /// Resets after `at` bytes of the body.
    pub fn reset(mut self, at: usize) -> Self {
        self.ending = Ending::Reset(at);
        self
    }

    /// Sends nothing more after `at` bytes of the body.
    pub fn hang(mut self, at: usize) -> Self {
        self.ending = Ending::Hang(at);
        self
    }

    /// Sends pieces of `bytes` with a pause after each.
    pub fn drip(mut self, bytes: usize, pause: Duration) -> Self {
        self.drip = Some((bytes, pause));
        self
    }

    /// Sends the body in chunks, without Content-Length.
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self.without("Content-Length")
            .with("Transfer-Encoding", "chunked")
    }

    /// Accepts the request and says nothing.
    pub fn silence() -> Self {
        Reply::opening(Opening::Silence)
    }

    /// Accepts the request and closes the connection.
    pub fn close() -> Self {
        Reply::opening(Opening::Close)
    }

    /// Headers that never end.
    pub fn endless_headers() -> Self {
        Reply::opening(Opening::Endless)
    }

    /// Bytes that are no answer.
    pub fn garbage() -> Self {
        Reply::opening(Opening::Garbage)
    }

    fn opening(opening: Opening) -> Self {
        Reply {
            opening,
            ..Reply::new(206, "")
        }
    }
}

/// So many requests are kept for [`Hostile::requests`].
const MOST_KEPT: usize = 10_000;

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Hostile {
    scheme: &'static str,
    address: SocketAddr,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

impl Hostile {
    /// Answers each request as `script` says; requests are numbered from 0 over all connections.
    pub async fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Hostile::listen(None, Arc::new(script)).await
    }

    /// The same behind TLS. Resets are not possible there.
    pub async fn start_tls(
        acceptor: TlsAcceptor,
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Hostile::listen(Some(acceptor), Arc::new(script)).await
    }

    async fn listen(acceptor: Option<TlsAcceptor>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let log = Arc::clone(&seen);
        let scheme = acceptor.as_ref().map_or("http", |_| "https");
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = tokio::task::JoinSet::new();
            let mut number = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&log));
                let acceptor = acceptor.clone();
                // Head and body are written apart: they must not wait for each other's receipt.
                stream.set_nodelay(true).unwrap();
                connections.spawn(async move {
                    match acceptor {
                        None => {
                            if let Next::Reset = serve(&mut stream, number, script, seen).await {
                                stream.set_zero_linger().unwrap();
                            }
                        }
                        Some(acceptor) => {
                            if let Ok(mut stream) = acceptor.accept(stream).await {
                                serve(&mut stream, number, script, seen).await;
                            }
                        }
                    }
                });
                number += 1;
            }
        });
        Hostile {
            scheme,
            address,
            seen,
            accepting,
        }
    }

    /// Its address with `path`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// What was asked so far, in order: the first ten thousand.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.first.lock().unwrap().clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What was asked.
#[derive(Debug, Default)]
struct Seen {
    count: AtomicUsize,
    first: Mutex<Vec<Request>>,
}

impl Seen {
    /// Notes a request and gives it its number.
    fn note(&self, request: &Request) -> usize {
        let mut first = self.first.lock().unwrap();
        if first.len() < MOST_KEPT {
            first.push(request.clone());
        }
        self.count.fetch_add(1, Ordering::SeqCst)
    }
}

type Script = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// What becomes of a connection after a reply.
enum Next {
    Keep,
    Close,
    Reset,
}

async fn serve(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    connection: usize,
    script: Arc<Script>,
    seen: Arc<Seen>,
) -> Next {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(stream, &mut buffer, connection).await {
        let number = seen.note(&request);
        let reply = script(&request, number);
        match send(stream, reply).await {
            Ok(Next::Keep) => {}
            Ok(next) => return next,
            // The client left.
            Err(_) => break,
        }
    }
    Next::Close
}

/// The next request's head, if the connection brings one. Bodies are not expected.
async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Some(Request {
        method,
        target,
        headers,
        connection,
    })
}

async fn send(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    reply: Reply,
) -> std::io::Result<Next> {
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
    match reply.opening {
        Opening::Head => {}
        Opening::Silence => return hang(stream).await,
        Opening::Close => return Ok(Next::Close),
        Opening::Endless => {
            stream.write_all(head.as_bytes()).await?;
            for number in 0u64.. {
                let line = format!("X-Endless-{number}: {}\r\n", "x".repeat(1000));
                stream.write_all(line.as_bytes()).await?;
            }
        }
        Opening::Garbage => {
            stream
                .write_all(b"220 welcome to another service\r\n")
                .await?;
            return Ok(Next::Close);
        }
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    let until = match reply.ending {
        Ending::Kept => reply.body.len(),
        Ending::Cut(at) | Ending::Reset(at) | Ending::Hang(at) => at.min(reply.body.len()),
    };
    let (piece, pause) = reply.drip.unwrap_or((1 << 20, Duration::ZERO));
    for piece in reply.body[..until].chunks(piece) {
        if reply.chunked {
            let head = format!("{:x}\r\n", piece.len());
            stream.write_all(head.as_bytes()).await?;
        }
        stream.write_all(piece).await?;
        if reply.chunked {
            stream.write_all(b"\r\n").await?;
        }
        if !pause.is_zero() {
            stream.flush().await?;
            tokio::time::sleep(pause).await;
        }
    }
    match reply.ending {
        Ending::Kept => {
            if reply.chunked {
                stream.write_all(b"0\r\n\r\n").await?;
            }
            stream.flush().await?;
            Ok(Next::Keep)
        }
        Ending::Cut(_) => {
            stream.shutdown().await?;
            Ok(Next::Close)
        }
        Ending::Reset(_) => {
            // The peer must have read what came before: a reset discards what it has not.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(Next::Reset)
        }
        Ending::Hang(_) => hang(stream).await,
    }
}

/// Keeps the connection open without a word until the peer leaves.
async fn hang(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<Next> {
    stream.flush().await?;
    let mut byte = [0];
    while stream.read(&mut byte).await? > 0 {}
    Ok(Next::Close)
}
