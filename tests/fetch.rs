//! Artifact bytes over HTTP from a hostile data host: the right bytes or an error, in bounded time.

#[path = "support/authority.rs"]
mod authority;
#[path = "support/dice.rs"]
mod dice;
#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/mixture.rs"]
mod mixture;
#[path = "fetch/random.rs"]
mod random;
#[path = "fetch/spool.rs"]
mod spool;

use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::clock::{Clock, SystemClock};
use mongo_backupfs::error::{Error, Kind, Result};
use mongo_backupfs::fetch::{FetchOptions, Fetcher, Part};
use mongo_backupfs::links::{LinkSource, Links};
use mongo_backupfs::model::{Link, LinkMode, Validator};
use mongo_backupfs::secret::{SafeUrl, Secret};

use authority::Authority;
use hostile::{Hostile, Object, Reply, Request};

/// A provider that hands out `<base>?link=<n>`, counting from 0 by `step`.
#[derive(Debug)]
struct Numbered {
    base: String,
    asked: AtomicUsize,
    step: usize,
    mode: LinkMode,
}

impl Numbered {
    fn at(base: String) -> Self {
        Numbered {
            base,
            asked: AtomicUsize::new(0),
            step: 1,
            mode: LinkMode::Ranged,
        }
    }
}

#[async_trait]
impl LinkSource for Numbered {
    async fn fresh(&self) -> Result<Link> {
        let number = self.asked.fetch_add(self.step, Ordering::SeqCst);
        Ok(Link {
            url: SafeUrl::parse(&format!("{}?link={number}", self.base)).unwrap(),
            headers: vec![("X-Private".into(), Secret::new("for the store only"))],
            expires: None,
            mode: self.mode,
        })
    }
}

/// How often it is asked again whose answers are against the protocol.
const TRIES: usize = 5;

/// Time-outs short enough for a test, long enough for a busy machine.
fn options() -> FetchOptions {
    FetchOptions {
        allow_http: true,
        idle_timeout: Duration::from_millis(500),
        slow_window: Duration::from_millis(600),
        retry_budget: Duration::from_secs(5),
        ..FetchOptions::default()
    }
}

/// One artifact as its readers see it.
struct Bench {
    host: Hostile,
    fetcher: Fetcher,
    links: Arc<Links>,
    object: Object,
}

impl Bench {
    async fn new(
        object: Object,
        script: impl Fn(&Object, &Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Bench::with(options(), object, script).await
    }

    async fn with(
        options: FetchOptions,
        object: Object,
        script: impl Fn(&Object, &Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let stored = object.clone();
        let host = Hostile::start(move |request, n| script(&stored, request, n)).await;
        let source = Numbered::at(host.url("/dump/backup%2Fone.archive.gz"));
        Bench {
            fetcher: Fetcher::new(options).unwrap(),
            links: Arc::new(Links::new(source, Arc::new(SystemClock))),
            host,
            object,
        }
    }

    fn pinned(&self) -> Arc<Validator> {
        Arc::new(Validator {
            etag: self.object.etag.map(str::to_owned),
            last_modified: self.object.last_modified.map(str::to_owned),
            size: self.object.bytes.len() as u64,
            download: None,
        })
    }

    fn part(&self, range: Range<u64>) -> Part {
        self.fetcher
            .part(Arc::clone(&self.links), self.pinned(), range)
    }

    /// The bytes of `range`, or the error.
    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let mut part = self.part(range);
        let mut bytes = Vec::new();
        while let Some(piece) = part.next().await? {
            assert!(!piece.is_empty());
            bytes.extend_from_slice(&piece);
        }
        assert!(part.next().await?.is_none(), "the end stays the end");
        Ok(bytes)
    }
}

#[tokio::test]
async fn an_honest_store_is_probed_and_read() {
    let bench = Bench::new(Object::new(3_000_000), |object, request, _| {
        Reply::honest(object, request)
    })
    .await;
    let probe = bench.fetcher.probe(&bench.links).await.unwrap();
    assert_eq!(probe.validator, *bench.pinned());
    assert_eq!(probe.source_name.as_deref(), Some("one.archive.gz"));
    for range in [0..1, 0..3_000_000, 2_999_999..3_000_000, 7..1_048_583] {
        let got = bench.read(range.clone()).await.unwrap();
        assert!(got == bench.object.slice(range.clone()), "{range:?}");
    }
    let requests = bench.host.requests();
    assert_eq!(requests.len(), 5);
    assert!(requests.iter().all(|r| r.connection == 0), "one connection");
    for request in &requests {
        assert_eq!(request.method, "GET");
        assert_eq!(request.target, "/dump/backup%2Fone.archive.gz?link=0");
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        assert_eq!(request.header("x-private"), Some("for the store only"));
        for absent in ["cookie", "referer", "authorization"] {
            assert_eq!(request.header(absent), None);
        }
    }
    assert_eq!(requests[0].header("if-match"), None);
    assert_eq!(requests[1].header("if-match"), Some("\"v1\""));
    assert_eq!(bench.links.refreshes(), 0);
}

/// A failure says nothing of the link.
fn assert_private(error: &Error) {
    for text in [format!("{error}"), format!("{error:?}")] {
        assert!(
            !text.contains("link=") && !text.contains("backup%2F"),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
    }
}

/// Reads `range` from a store that answers by `script`, which must fail; with the requests made.
async fn failing(
    range: Range<u64>,
    script: impl Fn(&Object, &Request, usize) -> Reply + Send + Sync + 'static,
) -> (Error, usize) {
    let bench = Bench::new(Object::new(1000), script).await;
    let error = bench.read(range).await.unwrap_err();
    assert_private(&error);
    (error, bench.host.requests().len())
}

/// Reads all of a small object from a store that answers by `script`, which must succeed.
async fn succeeding(
    script: impl Fn(&Object, &Request, usize) -> Reply + Send + Sync + 'static,
) -> Bench {
    let bench = Bench::new(Object::new(1000), script).await;
    let got = bench.read(0..1000).await.unwrap();
    assert!(got == bench.object.slice(0..1000));
    bench
}

#[tokio::test]
async fn case_13_a_whole_answer_serves_only_from_its_first_byte() {
    let bench = succeeding(|object, _, _| Reply::whole(object)).await;
    assert_eq!(bench.read(0..10).await.unwrap(), bench.object.slice(0..10));
    let (error, requests) = failing(1..10, |object, _, _| Reply::whole(object)).await;
    assert_eq!((error.kind(), requests), (Kind::Protocol, TRIES));
    assert!(error.to_string().contains("ignores ranges"), "{error}");
    let other = |_: &Object, _: &Request, _| Reply::whole(&Object::new(999)).without("ETag");
    let (error, _) = failing(0..10, other).await;
    assert_eq!(error.kind(), Kind::Protocol);
}

#[tokio::test]
async fn case_14_a_wrong_range_is_asked_again_a_few_times_then_refused() {
    for wrong in [
        "bytes 0-999/1000",
        "bytes 101-200/1000",
        "bytes 100-199/1001",
        "bytes 100-199/*",
        "bytes 100-199/18446744073709551616",
        "items 100-199/1000",
        "",
    ] {
        let spoil = move |object: &Object, request: &Request, _| {
            Reply::honest(object, request).with("Content-Range", wrong)
        };
        let (error, requests) = failing(100..200, spoil).await;
        assert_eq!((error.kind(), requests), (Kind::Protocol, TRIES), "{wrong}");
    }
    let (error, _) = failing(100..200, |object, request, _| {
        Reply::honest(object, request).without("Content-Range")
    })
    .await;
    assert_eq!(error.kind(), Kind::Protocol);
    let bench = succeeding(|object, request, n| match n {
        0 => Reply::honest(object, request).with("Content-Range", "bytes 1-1000/1000"),
        _ => Reply::honest(object, request),
    })
    .await;
    assert_eq!(bench.fetcher.stats().protocol_errors(), 1);
}

#[tokio::test]
async fn case_15_a_cut_or_reset_body_goes_on_at_the_first_missing_byte() {
    for at in [0, 1, 2, 3, 499, 998, 999] {
        for reset in [false, true] {
            let bench = succeeding(move |object, request, n| {
                let honest = Reply::honest(object, request);
                match (n, reset) {
                    (0, false) => honest.cut(at),
                    (0, true) => honest.reset(at),
                    _ => honest,
                }
            })
            .await;
            let requests = bench.host.requests();
            assert_eq!(requests.len(), 2, "at {at}");
            assert_eq!(requests[1].range(), Some(at as u64..1000));
            assert_eq!(bench.fetcher.stats().bytes(), 1000);
        }
    }
    // A body that ends early in an orderly way, with a length that does not give it away.
    let bench = succeeding(|object, request, n| {
        let honest = Reply::honest(object, request);
        match n {
            0..3 => honest.chunked().cut(100),
            3 => honest.without("Content-Length").cut(200),
            _ => honest,
        }
    })
    .await;
    assert_eq!(bench.host.requests()[4].range(), Some(500..1000));
}

#[tokio::test]
async fn case_15_a_store_that_never_gets_further_is_given_up() {
    let bench = Bench::with(
        FetchOptions {
            retry_budget: Duration::from_millis(300),
            ..options()
        },
        Object::new(100_000),
        |object, request, _| Reply::honest(object, request).cut(1),
    )
    .await;
    let error = bench.read(0..100_000).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.to_string().contains("gave up"), "{error}");
    assert_private(&error);
}

#[tokio::test]
async fn case_16_bytes_beyond_the_promise_are_not_delivered() {
    let bench =
        succeeding(|object, request, _| Reply::honest(object, request).longer(b"more").chunked())
            .await;
    let again = bench.read(0..1000).await.unwrap();
    assert!(again == bench.object.slice(0..1000));
    assert_eq!(bench.fetcher.stats().protocol_errors(), 2);

    // Beyond Content-Length the surplus would be the next answer: it must not be taken for one.
    let bench = succeeding(|object, request, n| match n {
        0 => Reply::honest(object, request).longer(b"HTTP/1.1 206 Smuggled\r\n\r\n"),
        _ => Reply::honest(object, request),
    })
    .await;
    let again = bench.read(0..1000).await.unwrap();
    assert!(again == bench.object.slice(0..1000));
}

#[tokio::test]
async fn case_17_a_drip_is_left_for_a_new_connection() {
    let bench = succeeding(|object, request, n| match n {
        0 => Reply::honest(object, request).drip(1, Duration::from_millis(100)),
        _ => Reply::honest(object, request),
    })
    .await;
    let requests = bench.host.requests();
    assert_eq!(requests.len(), 2);
    let resumed = requests[1].range().unwrap().start;
    assert!((1..20).contains(&resumed), "resumed at {resumed}");
}

#[tokio::test]
async fn case_18_headers_without_end_are_refused() {
    let (error, requests) = failing(0..10, |_, _, _| Reply::endless_headers()).await;
    assert_eq!((error.kind(), requests), (Kind::Protocol, TRIES), "{error}");
    let many = |object: &Object, request: &Request, _| {
        (0..10_000).fold(Reply::honest(object, request), |reply, n| {
            reply.add(&format!("X-{n}"), "x")
        })
    };
    let (error, requests) = failing(0..10, many).await;
    assert_eq!((error.kind(), requests), (Kind::Protocol, TRIES), "{error}");
}

#[tokio::test]
async fn case_19_silence_ends_in_a_new_connection() {
    let bench = succeeding(|object, request, n| match n {
        0 => Reply::silence(),
        1 => Reply::honest(object, request).hang(300),
        _ => Reply::honest(object, request),
    })
    .await;
    let requests = bench.host.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[2].range(), Some(300..1000));
    assert_eq!(requests[2].connection, 2);
}

#[tokio::test]
async fn case_20_an_encoded_answer_is_refused_not_decoded() {
    for encoding in ["gzip", "br", "zstd", "deflate"] {
        let spoil = move |object: &Object, request: &Request, _| {
            Reply::honest(object, request).with("Content-Encoding", encoding)
        };
        let (error, _) = failing(0..100, spoil).await;
        assert_eq!(error.kind(), Kind::Protocol);
        assert!(error.to_string().contains(encoding), "{error}");
    }
}

/// With a decoder built in, a decoded body loses its Content-Length and its Content-Encoding, and
/// with them every check of this module.
#[test]
fn case_20_the_client_is_built_without_decoders() {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().unwrap();
    let reqwest = &manifest["dependencies"]["reqwest"];
    assert_eq!(reqwest["default-features"].as_bool(), Some(false));
    for feature in reqwest["features"].as_array().unwrap() {
        let feature = feature.as_str().unwrap();
        let decoder = ["gzip", "brotli", "zstd", "deflate", "cookies"].contains(&feature);
        assert!(!decoder, "{feature}");
    }
}

#[tokio::test]
async fn case_21_a_chunked_range_is_as_good() {
    let bench = succeeding(|object, request, _| Reply::honest(object, request).chunked()).await;
    assert_eq!(bench.fetcher.stats().protocol_errors(), 0);
}

#[tokio::test]
async fn case_22_several_parts_are_refused() {
    let (error, _) = failing(0..100, |object, request, _| {
        Reply::honest(object, request).with("Content-Type", "multipart/byteranges; boundary=x")
    })
    .await;
    assert_eq!(error.kind(), Kind::Protocol);
}

#[tokio::test]
async fn case_23_a_replaced_artifact_is_a_change() {
    let (error, requests) = failing(0..100, |object, request, _| {
        let replaced = Object {
            etag: Some("\"v2\""),
            ..object.clone()
        };
        Reply::honest(&replaced, request)
    })
    .await;
    assert_eq!((error.kind(), requests), (Kind::Changed, 1));

    // The fresh link leads to another version.
    let (error, _) = failing(0..100, |object, request, _| {
        let replaced = Object {
            etag: Some("\"v2\""),
            ..object.clone()
        };
        match request.target.ends_with("link=0") {
            true => Reply::refusal(403, "AccessDenied"),
            false => Reply::honest(&replaced, request),
        }
    })
    .await;
    assert_eq!(error.kind(), Kind::Changed);

    // In the middle of a part: what was delivered before is the old version, nothing after it is.
    let bench = Bench::new(Object::new(1000), |object, request, n| match n {
        0 => Reply::honest(object, request).cut(400),
        _ => Reply::new(412, ""),
    })
    .await;
    let mut part = bench.part(0..1000);
    let mut got = Vec::new();
    let error = loop {
        match part.next().await {
            Ok(piece) => got.extend_from_slice(&piece.unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Changed);
    assert_eq!(got, bench.object.slice(0..400));
    assert!(part.next().await.is_err(), "the part is over");
}

#[tokio::test]
async fn case_24_a_store_that_ignores_conditions_is_compared() {
    let newer = [("ETag", "\"v2\""), ("ETag", "W/\"v1\"")];
    for (name, value) in newer {
        let spoil = move |object: &Object, request: &Request, _| {
            Reply::honest(object, request).with(name, value)
        };
        let (error, requests) = failing(0..100, spoil).await;
        assert_eq!((error.kind(), requests), (Kind::Changed, 1));
    }
    let (error, _) = failing(0..100, |object, request, _| {
        Reply::honest(object, request)
            .without("ETag")
            .with("Last-Modified", "Sun, 22 Nov 2026 11:00:00 GMT")
    })
    .await;
    assert_eq!(error.kind(), Kind::Changed);
}

#[tokio::test]
async fn case_23_a_weak_tag_is_compared_but_not_sent() {
    let object = Object {
        etag: Some("W/\"v1\""),
        ..Object::new(1000)
    };
    let bench = Bench::new(object, |object, request, _| Reply::honest(object, request)).await;
    let probe = bench.fetcher.probe(&bench.links).await.unwrap();
    assert_eq!(probe.validator, *bench.pinned());
    assert!(bench.read(0..1000).await.unwrap() == bench.object.slice(0..1000));
    let request = &bench.host.requests()[1];
    assert_eq!(request.header("if-match"), None);
    assert_eq!(
        request.header("if-unmodified-since"),
        bench.object.last_modified
    );
}

#[tokio::test]
async fn case_25_without_validators_the_size_is_pinned() {
    let object = Object {
        etag: None,
        last_modified: None,
        ..Object::new(1000)
    };
    let bench = Bench::new(object, |object, request, n| match n {
        0 | 1 => Reply::honest(object, request),
        _ => Reply::honest(&Object::new(999), request),
    })
    .await;
    let probe = bench.fetcher.probe(&bench.links).await.unwrap();
    assert_eq!(probe.validator, *bench.pinned());
    assert!(bench.read(0..500).await.is_ok());
    let error = bench.read(500..900).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Changed, "{error}");
}

/// What a program's log would hold.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn case_25_a_store_that_names_no_version_is_warned_of_once() {
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || written.clone())
        .finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let object = Object {
        etag: None,
        last_modified: None,
        ..Object::new(1000)
    };
    let bench = Bench::new(object, |object, request, _| Reply::honest(object, request)).await;
    for _ in 0..3 {
        bench.fetcher.probe(&bench.links).await.unwrap();
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("only the size is pinned").count(), 1, "{text}");
}

#[tokio::test]
async fn case_26_a_range_beyond_the_end_is_a_change_or_our_bug() {
    let shorter =
        |_: &Object, _: &Request, _| Reply::new(416, "").with("Content-Range", "bytes */10");
    let (error, _) = failing(100..200, shorter).await;
    assert_eq!(error.kind(), Kind::Changed);
    for range in [1000..1001, 0..1001, 5..5] {
        let (error, requests) = failing(range, shorter).await;
        assert_eq!((error.kind(), requests), (Kind::Internal, 0));
    }
}

#[tokio::test]
async fn case_27_redirects_are_few_and_carry_nothing_private() {
    let elsewhere = Arc::new(Object::new(1000));
    let stored = Arc::clone(&elsewhere);
    let other = Hostile::start(move |request, _| Reply::honest(&stored, request)).await;
    let there = other.url("/moved?token=1");
    let bench = succeeding(move |_, _, n| match n {
        0 => Reply::redirect(307, "/hop"),
        _ => Reply::redirect(302, &there),
    })
    .await;
    let hops = bench.host.requests();
    assert_eq!(hops.len(), 2);
    assert_eq!(hops[1].target, "/hop");
    assert!(hops[1].header("x-private").is_some(), "the same origin");
    let request = &other.requests()[0];
    assert_eq!(request.header("x-private"), None, "another origin");
    assert_eq!(request.header("if-match"), Some("\"v1\""));
    assert_eq!(request.range(), Some(0..1000));

    let (error, requests) = failing(0..10, |_, _, _| Reply::redirect(301, "/again")).await;
    assert_eq!((error.kind(), requests), (Kind::Protocol, 4 * TRIES));
    for bad in [
        "https://user:secret@example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
    ] {
        let (error, _) = failing(0..10, move |_, _, _| Reply::redirect(302, bad)).await;
        assert_eq!(error.kind(), Kind::Protocol);
    }
}

#[tokio::test]
async fn case_28_retry_after_is_kept_within_the_budget() {
    let bench = Bench::new(Object::new(1000), |object, request, n| match n {
        0 => Reply::new(503, "").with("Retry-After", "1"),
        _ => Reply::honest(object, request),
    })
    .await;
    let start = Instant::now();
    let first = bench.read(0..500);
    let second = async {
        // Asked for once the store has said its word: the pause is everybody's.
        while bench.host.requests().is_empty() || bench.fetcher.stats().retries() == 0 {
            tokio::task::yield_now().await;
        }
        bench.read(500..1000).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.unwrap() == bench.object.slice(0..500));
    assert!(second.unwrap() == bench.object.slice(500..1000));
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(bench.host.requests().len(), 3);

    for value in [
        "86400",
        "99999999999999999999",
        "Sun, 22 Nov 2099 10:00:00 GMT",
    ] {
        let (error, requests) = failing(0..10, move |_, _, _| {
            Reply::new(429, "").with("Retry-After", value)
        })
        .await;
        assert_eq!((error.kind(), requests), (Kind::Throttled, 1), "{value}");
        assert!(error.retry_after() > Some(Duration::from_secs(86_000)));
    }
    for value in ["0", "soon", "Sun, 22 Nov 1999 10:00:00 GMT"] {
        succeeding(move |object, request, n| match n {
            0..3 => Reply::new(429, "").with("Retry-After", value),
            _ => Reply::honest(object, request),
        })
        .await;
    }
}

#[tokio::test]
async fn passing_failures_are_outlasted() {
    let bench = succeeding(|object, request, n| match n {
        0 => Reply::new(500, "oops"),
        1 => Reply::new(502, "<html>"),
        2 => Reply::new(504, ""),
        3 => Reply::refusal(503, "SlowDown"),
        _ => Reply::honest(object, request),
    })
    .await;
    assert_eq!(bench.fetcher.stats().retries(), 4);
}

#[tokio::test]
async fn case_31_only_a_trusted_certificate_for_this_host_is_accepted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let fetcher = Fetcher::new(FetchOptions {
        allow_http: false,
        ca_file: Some(ca_file),
        ..options()
    })
    .unwrap();
    let object = Object::new(1000);
    for (acceptor, trusted) in [
        (authority.acceptor("127.0.0.1", 2100, &[]), true),
        (authority.acceptor("127.0.0.1", 2020, &[]), false),
        (authority.acceptor("store.example.com", 2100, &[]), false),
        (stranger.acceptor("127.0.0.1", 2100, &[]), false),
    ] {
        let stored = object.clone();
        let script = move |request: &Request, _| Reply::honest(&stored, request);
        let host = Hostile::start_tls(acceptor, script).await;
        let links = Links::new(Numbered::at(host.url("/x")), Arc::new(SystemClock));
        let probe = fetcher.probe(&links).await;
        assert_eq!(host.requests().len(), usize::from(trusted));
        match probe {
            Ok(probe) => assert!(trusted && probe.validator.size == 1000),
            Err(error) => {
                assert!(!trusted, "{error}");
                assert_eq!(error.kind(), Kind::Protocol, "{error}");
                assert!(error.to_string().contains("ca_file"), "{error}");
                assert_eq!(fetcher.stats().bytes(), 0);
            }
        }
    }

    // Without TLS the link is not even tried.
    let host = Hostile::start(|_, _| Reply::new(200, "")).await;
    let links = Links::new(Numbered::at(host.url("/x")), Arc::new(SystemClock));
    let error = fetcher.probe(&links).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(error.to_string().contains("allow_http"), "{error}");
    assert_eq!(host.requests().len(), 0);
}

#[tokio::test]
async fn case_27_a_link_leads_to_no_service_of_this_machine() {
    let service = Hostile::start(|_, _| Reply::new(200, "private")).await;
    let fetcher = Fetcher::new(FetchOptions {
        allow_http: false,
        ..options()
    })
    .unwrap();
    for link in [
        service.url("/latest/meta-data/"),
        "https://169.254.169.254/latest/meta-data/".to_owned(),
        "http://metadata.google.internal/computeMetadata/v1/".to_owned(),
    ] {
        let links = Links::new(Numbered::at(link), Arc::new(SystemClock));
        let error = fetcher.probe(&links).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol, "{error}");
    }
    assert_eq!(service.requests().len(), 0);
}

/// Nobody else's redirect may: see the table of `fetch::redirect`.
#[tokio::test]
async fn case_27_a_local_link_may_lead_to_a_local_address() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let fetcher = Fetcher::new(FetchOptions {
        allow_http: false,
        ca_file: Some(ca_file),
        ..options()
    })
    .unwrap();
    let honest = |request: &Request, _| Reply::honest(&Object::new(1000), request);
    let inner = Hostile::start_tls(authority.acceptor("localhost", 2100, &[]), honest).await;
    let target = inner
        .url("/latest/meta-data")
        .replace("127.0.0.1", "localhost");
    let there = target.clone();
    let local = Hostile::start_tls(authority.acceptor("127.0.0.1", 2100, &[]), move |_, _| {
        Reply::redirect(302, &there)
    })
    .await;
    let links = Links::new(Numbered::at(local.url("/x")), Arc::new(SystemClock));
    assert_eq!(fetcher.probe(&links).await.unwrap().validator.size, 1000);
    assert_eq!(inner.requests().len(), 1);
}

#[tokio::test]
async fn case_32_a_connection_closed_while_idle_is_not_noticed() {
    let bench = Bench::new(Object::new(1000), |object, request, _| {
        // The whole body, then a close that nothing announced.
        Reply::honest(object, request).cut(usize::MAX)
    })
    .await;
    for start in 0..20 {
        let range = start..start + 10;
        let got = bench.read(range.clone()).await.unwrap();
        assert_eq!(got, bench.object.slice(range));
    }
}

#[tokio::test]
async fn case_34_an_unreachable_store_is_given_up_within_the_budget() {
    let host = Hostile::start(|_, _| Reply::new(200, "")).await;
    let base = host.url("/x");
    drop(host);
    let fetcher = Fetcher::new(FetchOptions {
        retry_budget: Duration::from_millis(300),
        ..options()
    });
    let links = Links::new(Numbered::at(base), Arc::new(SystemClock));
    let error = fetcher.unwrap().probe(&links).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert_private(&error);
}

#[tokio::test]
async fn case_34_a_store_whose_packets_are_dropped_ends_with_the_time_to_connect() {
    let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: the descriptor is open; listening again only shortens its queue.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let address = full.local_addr().unwrap();
    // Nobody accepts: with the queue full, the kernel drops what comes.
    let mut waiting = Vec::new();
    let moment = Duration::from_millis(200);
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, moment) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue has no end");
    }
    let fetcher = Fetcher::new(FetchOptions {
        connect_timeout: moment,
        idle_timeout: Duration::from_secs(120),
        retry_budget: Duration::from_secs(1),
        ..options()
    });
    let begun = Instant::now();
    let links = Links::new(
        Numbered::at(format!("http://{address}/x")),
        Arc::new(SystemClock),
    );
    let error = fetcher.unwrap().probe(&links).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    assert_private(&error);
}

/// A provider whose links the store honours for `life` only.
#[derive(Debug)]
struct Brief {
    base: String,
    life: Duration,
    issued: Arc<Mutex<Vec<Instant>>>,
}

#[async_trait]
impl LinkSource for Brief {
    async fn fresh(&self) -> Result<Link> {
        let mut issued = self.issued.lock().unwrap();
        issued.push(Instant::now());
        Ok(Link {
            url: SafeUrl::parse(&format!("{}?link={}", self.base, issued.len() - 1)).unwrap(),
            headers: Vec::new(),
            expires: Some(SystemClock.now() + self.life),
            mode: LinkMode::Ranged,
        })
    }
}

#[tokio::test]
async fn case_35_a_slow_copy_outlives_its_links() {
    let life = Duration::from_millis(300);
    let object = Object::new(200_000);
    let issued: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let (stored, honoured) = (object.clone(), Arc::clone(&issued));
    let host = Hostile::start(move |request, _| {
        let (_, number) = request.target.split_once("link=").unwrap();
        let since = honoured.lock().unwrap()[number.parse::<usize>().unwrap()];
        match since.elapsed() < life {
            true => Reply::honest(&stored, request).drip(2500, Duration::from_millis(50)),
            false => Reply::refusal(403, "AccessDenied"),
        }
    })
    .await;
    let fetcher = Fetcher::new(options()).unwrap();
    let source = Brief {
        base: host.url("/x"),
        life,
        issued: Arc::clone(&issued),
    };
    let links = Arc::new(Links::new(source, Arc::new(SystemClock)));
    let pinned = Arc::new(fetcher.probe(&links).await.unwrap().validator);
    let mut copy = Vec::new();
    // Four parts at a time, each as long as two thirds of a link's life.
    for window in (0..200_000).step_by(40_000) {
        let parts = (0..4).map(|n| {
            let start = window + n * 10_000;
            let mut part = fetcher.part(
                Arc::clone(&links),
                Arc::clone(&pinned),
                start..start + 10_000,
            );
            async move {
                let mut bytes = Vec::new();
                while let Some(piece) = part.next().await? {
                    bytes.extend_from_slice(&piece);
                }
                Ok::<_, Error>(bytes)
            }
        });
        for part in futures::future::join_all(parts).await {
            copy.extend(part.unwrap());
        }
    }
    assert!(copy == *object.bytes);
    let issued = issued.lock().unwrap().clone();
    assert!(issued.len() >= 3, "{} links", issued.len());
    assert_eq!(links.refreshes() as usize, issued.len() - 1);
    for (number, pair) in issued.windows(2).enumerate() {
        let used = pair[1] - pair[0];
        assert!(
            used >= life * 8 / 10,
            "link {number} given up after {used:?}"
        );
    }
}

#[tokio::test]
async fn case_36_parts_that_meet_one_expiry_cost_one_refresh() {
    let bench = Bench::new(Object::new(32_000), |object, request, n| {
        // The first link serves ten requests, then it is over.
        match request.target.ends_with("link=0") && n >= 10 {
            true => Reply::refusal(403, "AccessDenied"),
            false => Reply::honest(object, request),
        }
    })
    .await;
    let parts = (0..32).map(|n| bench.read(n * 1000..(n + 1) * 1000));
    let parts = futures::future::join_all(parts).await;
    let whole: Vec<u8> = parts.into_iter().flat_map(Result::unwrap).collect();
    assert!(whole == *bench.object.bytes);
    assert_eq!(bench.links.refreshes(), 1);
    assert!(bench.fetcher.stats().refused() >= 1);
}

#[tokio::test]
async fn case_37_a_refused_link_is_renewed_whatever_form_it_takes() {
    let forms: [fn() -> Reply; 6] = [
        || Reply::refusal(400, "ExpiredToken"),
        || Reply::refusal(401, ""),
        || Reply::refusal(403, "RequestExpired"),
        || Reply::refusal(403, "SignatureDoesNotMatch"),
        || Reply::new(404, ""),
        || Reply::new(410, "gone"),
    ];
    for form in forms {
        let bench = succeeding(move |object, request, n| match n {
            0 => Reply::honest(object, request).cut(100),
            _ if request.target.ends_with("link=0") => form(),
            _ => Reply::honest(object, request),
        })
        .await;
        assert_eq!(bench.links.refreshes(), 1);
        assert_eq!(bench.host.requests()[2].range(), Some(100..1000));
    }
}

#[tokio::test]
async fn case_38_a_place_that_is_empty_now_is_expired() {
    let object = Object::new(10);
    let host = Hostile::start(move |request, n| match n {
        0 => Reply::honest(&object, request),
        _ => Reply::refusal(404, "NoSuchKey"),
    })
    .await;
    let one_address = Numbered {
        step: 0,
        ..Numbered::at(host.url("/x"))
    };
    let links = Arc::new(Links::new(one_address, Arc::new(SystemClock)));
    let fetcher = Fetcher::new(options()).unwrap();
    let pinned = fetcher.probe(&links).await.unwrap().validator;
    let mut part = fetcher.part(Arc::clone(&links), Arc::new(pinned), 0..10);
    let error = part.next().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Expired);
    assert!(error.to_string().contains("404 NoSuchKey"), "{error}");
    assert_private(&error);
    assert_eq!((host.requests().len(), links.refreshes()), (3, 1));
}

#[tokio::test]
async fn case_50_sizes_are_learnt_or_refused() {
    let probe = |script: fn(&Object, &Request) -> Reply| async move {
        let bench = Bench::new(Object::new(10), move |object, request, _| {
            script(object, request)
        })
        .await;
        let probe = bench.fetcher.probe(&bench.links).await;
        (probe.map(|p| p.validator.size), bench.host.requests().len())
    };
    let empty = probe(|_, request| Reply::honest(&Object::new(0), request)).await;
    assert_eq!(empty.0.unwrap(), 0, "416 with its length");
    let empty = probe(|_, _| Reply::whole(&Object::new(0))).await;
    assert_eq!(empty.0.unwrap(), 0, "200 without a body");
    let one = probe(|_, request| Reply::honest(&Object::new(1), request)).await;
    assert_eq!(one.0.unwrap(), 1);
    let huge = probe(|object, request| {
        Reply::honest(object, request).with("Content-Range", "bytes 0-0/9223372036854775808")
    })
    .await;
    assert_eq!(huge.0.unwrap_err().kind(), Kind::Protocol);
    let unranged = probe(|object, _| Reply::whole(object)).await;
    let error = unranged.0.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(error.to_string().contains("ignores ranges"), "{error}");
}

/// After a suspend every idle connection is dead, and none of them says so.
#[tokio::test]
async fn case_39_after_one_silence_no_idle_connection_is_used() {
    let dead = |request: &Request| request.connection < 4;
    let bench = Bench::new(Object::new(4000), move |object, request, n| match n {
        0..4 => Reply::honest(object, request).drip(500, Duration::from_millis(20)),
        _ if dead(request) => Reply::silence(),
        _ => Reply::honest(object, request),
    })
    .await;
    let parts = (0..4).map(|n| bench.read(n * 1000..(n + 1) * 1000));
    for part in futures::future::join_all(parts).await {
        part.unwrap();
    }
    let requests = bench.host.requests();
    assert!(requests.iter().all(dead) && requests.len() == 4);
    assert!(bench.read(0..4000).await.unwrap() == *bench.object.bytes);
    let silent = bench.host.requests().split_off(4);
    assert_eq!(silent.iter().filter(|request| dead(request)).count(), 1);
}

/// A clock that can be set.
struct Settable(AtomicI64);

impl Clock for Settable {
    fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.0.load(Ordering::SeqCst));
        SystemClock.now() + ahead
    }
}

#[tokio::test]
async fn case_39_after_a_suspend_no_idle_connection_is_used_at_all() {
    let asleep = Arc::new(AtomicUsize::new(usize::MAX));
    let dead = Arc::clone(&asleep);
    let bench = Bench::new(Object::new(4000), move |object, request, _| {
        match request.connection < dead.load(Ordering::SeqCst) {
            true => Reply::honest(object, request).drip(500, Duration::from_millis(20)),
            false => Reply::honest(object, request),
        }
    })
    .await;
    let clock = Arc::new(Settable(AtomicI64::new(0)));
    let source = Numbered::at(bench.host.url("/x"));
    let links = Arc::new(Links::new(source, clock.clone()));
    let read = |range| {
        let mut part = bench
            .fetcher
            .part(Arc::clone(&links), bench.pinned(), range);
        async move {
            while part.next().await?.is_some() {}
            Ok::<_, Error>(())
        }
    };
    for part in futures::future::join_all((0..4).map(|n| read(n * 1000..(n + 1) * 1000))).await {
        part.unwrap();
    }
    let awake = bench.host.requests();
    let before = awake
        .iter()
        .map(|request| request.connection)
        .max()
        .unwrap()
        + 1;
    assert!(before > 1, "several connections are idle");
    asleep.store(before, Ordering::SeqCst);
    clock.0.store(8 * 3600, Ordering::SeqCst);
    for part in futures::future::join_all((0..4).map(|n| read(n * 1000..(n + 1) * 1000))).await {
        part.unwrap();
    }
    let after = bench.host.requests().split_off(awake.len());
    assert!(after.iter().all(|request| request.connection >= before));
    assert_eq!(links.refreshes(), 1, "the link was asked for again");
}

#[tokio::test]
async fn case_33_parts_travel_apart_even_where_the_store_offers_http_2() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let acceptor = authority.acceptor("127.0.0.1", 2100, &["h2", "http/1.1"]);
    let object = Object::new(4000);
    let stored = object.clone();
    let host = Hostile::start_tls(acceptor, move |request, n| {
        let honest = Reply::honest(&stored, request);
        // One body stalls as if its window were closed.
        if n == 1 { honest.hang(10) } else { honest }
    })
    .await;
    let fetcher = Fetcher::new(FetchOptions {
        allow_http: false,
        ca_file: Some(ca_file),
        idle_timeout: Duration::from_secs(60),
        ..options()
    })
    .unwrap();
    let links = Arc::new(Links::new(
        Numbered::at(host.url("/x")),
        Arc::new(SystemClock),
    ));
    let pinned = Arc::new(fetcher.probe(&links).await.unwrap().validator);
    let part = |range| fetcher.part(Arc::clone(&links), Arc::clone(&pinned), range);
    let mut stalled = part(0..1000);
    assert!(stalled.next().await.unwrap().is_some());
    for n in 1..4 {
        let range = n * 1000..(n + 1) * 1000;
        let mut flowing = part(range.clone());
        let mut got = Vec::new();
        while let Some(piece) = flowing.next().await.unwrap() {
            got.extend_from_slice(&piece);
        }
        assert!(got == object.slice(range));
    }
    let requests = host.requests();
    let stalled = requests[1].connection;
    assert!(requests[2..].iter().all(|it| it.connection != stalled));
}

#[tokio::test]
async fn a_link_that_works_once_is_not_spent() {
    let host = Hostile::start(|_, _| Reply::new(200, "")).await;
    let once = Numbered {
        mode: LinkMode::Once,
        ..Numbered::at(host.url("/x"))
    };
    let links = Links::new(once, Arc::new(SystemClock));
    let fetcher = Fetcher::new(options()).unwrap();
    let error = fetcher.probe(&links).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(host.requests().len(), 0);
}

#[tokio::test]
async fn parts_in_flight_are_bounded_and_a_dropped_part_makes_room() {
    let bench = Bench::with(
        FetchOptions {
            in_flight: 2,
            idle_timeout: Duration::from_secs(60),
            ..options()
        },
        Object::new(1000),
        |object, request, n| match n {
            0 | 1 => Reply::honest(object, request).hang(100),
            _ => Reply::honest(object, request),
        },
    )
    .await;
    let mut stuck = [bench.part(0..1000), bench.part(0..1000)];
    for part in &mut stuck {
        assert!(part.next().await.unwrap().is_some());
    }
    let third = bench.read(0..1000);
    tokio::pin!(third);
    let short = Duration::from_millis(100);
    assert!(tokio::time::timeout(short, &mut third).await.is_err());
    assert_eq!(bench.host.requests().len(), 2, "the third waits its turn");
    bench.fetcher.probe(&bench.links).await.unwrap();
    drop(stuck);
    assert!(third.await.unwrap() == bench.object.slice(0..1000));
}

#[tokio::test]
async fn a_laggard_is_left_at_its_next_missing_byte_once_others_are_known_to_be_faster() {
    const PART: u64 = 1 << 20;
    const SENT: u64 = 5000;
    let object = Object::new(8 * PART as usize);
    let patient = FetchOptions {
        idle_timeout: Duration::from_secs(60),
        slow_window: Duration::from_secs(60),
        ..options()
    };
    let bench = Bench::with(patient, object, |object, request, n| {
        let honest = Reply::honest(object, request);
        match n {
            5 => honest.hang(SENT as usize),
            6 => honest.drip(SENT as usize, Duration::from_millis(500)),
            _ => honest,
        }
    })
    .await;
    for part in 0..5 {
        bench.read(part * PART..(part + 1) * PART).await.unwrap();
    }
    let last = 5 * PART..6 * PART;
    let read = bench.read(last.clone()).await.unwrap();
    assert!(read == bench.object.slice(last.clone()));
    let requests = bench.host.requests();
    let asked: Option<Vec<_>> = requests[5..].iter().map(|r| r.range()).collect();
    let asked = asked.unwrap();
    assert_eq!(asked[..2], [last.clone(), last.start + SENT..last.end]);
    // Slow, but not silent: what it sent meanwhile is not asked again.
    let [_, _, third] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert!(
        third.start > asked[1].start && third.end == last.end,
        "{asked:?}"
    );
    assert_eq!((third.start - asked[1].start) % SENT, 0);
    assert_eq!(bench.fetcher.stats().bytes(), 6 * PART);
    assert_eq!(bench.fetcher.stats().retries(), 2);
}

#[tokio::test]
async fn an_abandoned_wait_loses_no_bytes() {
    let bench = Bench::new(Object::new(1000), |object, request, _| {
        Reply::honest(object, request).drip(50, Duration::from_millis(10))
    })
    .await;
    let mut part = bench.part(0..1000);
    let mut got = Vec::new();
    loop {
        // Each wait is dropped after a moment, wherever it stands.
        let wait = tokio::time::timeout(Duration::from_millis(3), part.next());
        match wait.await {
            Ok(piece) => match piece.unwrap() {
                Some(piece) => got.extend_from_slice(&piece),
                None => break,
            },
            Err(_) => continue,
        }
    }
    assert!(got == bench.object.slice(0..1000));
    assert_eq!(bench.host.requests().len(), 1);
}

#[test]
fn an_unusable_authority_is_a_configuration_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.pem");
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "no certificate\n").unwrap();
    for path in [missing, empty] {
        let error = Fetcher::new(FetchOptions {
            ca_file: Some(path.clone()),
            ..options()
        });
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}
