//! Artifact bytes over HTTP from a hostile data host: the right bytes or an error, in bounded time.

#[path = "support/hostile.rs"]
mod hostile;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mongo_backupfs::clock::SystemClock;
use mongo_backupfs::error::Result;
use mongo_backupfs::fetch::{FetchOptions, Fetcher, Part};
use mongo_backupfs::links::{LinkSource, Links};
use mongo_backupfs::model::{Link, LinkMode, Validator};
use mongo_backupfs::secret::{SafeUrl, Secret};

use hostile::{Hostile, Object, Reply};

/// A provider that hands out `<base>?link=<n>`, counting from 0.
#[derive(Debug)]
struct Numbered {
    base: String,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl LinkSource for Numbered {
    async fn fresh(&self) -> Result<Link> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(Link {
            url: SafeUrl::parse(&format!("{}?link={number}", self.base)).unwrap(),
            headers: vec![("X-Private".into(), Secret::new("for the store only"))],
            expires: None,
            mode: LinkMode::Ranged,
        })
    }
}

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
        script: impl Fn(&Object, &hostile::Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let stored = object.clone();
        let host = Hostile::start(move |request, n| script(&stored, request, n)).await;
        let source = Numbered {
            base: host.url("/dump/backup%2Fone.archive.gz"),
            asked: Arc::default(),
        };
        Bench {
            fetcher: Fetcher::new(options()).unwrap(),
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
        })
    }

    fn part(&self, range: std::ops::Range<u64>) -> Part {
        self.fetcher
            .part(Arc::clone(&self.links), self.pinned(), range)
    }

    /// The bytes of `range`, or the error.
    async fn read(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
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
