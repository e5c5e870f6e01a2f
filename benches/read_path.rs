//! The pieces of the read path that run for every request, one by one: what a reader is recognised
//! by, the window arithmetic, the block map, the checksum, and a read that is served from the cache.
//!
//! `cargo bench` measures, `cargo bench -- --test` runs each once.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::{hint, io, thread};

use async_trait::async_trait;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mongo_backupfs::cache::{BLOCK_SIZE, Budget, Cache};
use mongo_backupfs::clock::SystemClock;
use mongo_backupfs::error::Result;
use mongo_backupfs::fetch::{FetchOptions, Fetcher};
use mongo_backupfs::links::{LinkSource, Links};
use mongo_backupfs::model::{ArtifactKey, Link, LinkMode, TaskKey, Validator};
use mongo_backupfs::reader::pattern::Pattern;
use mongo_backupfs::reader::window::{Bounds, Window};
use mongo_backupfs::reader::{ArtifactSpec, Handle, Readers};
use mongo_backupfs::secret::SafeUrl;

const MIB: u64 = 1 << 20;

/// Size of the artifact that is read.
const SIZE: u64 = 64 * MIB;

const BOUNDS: Bounds = Bounds {
    room: 64 * MIB,
    part: 8 * MIB,
};

/// The reads of a copying program.
fn sequential() -> impl Iterator<Item = Range<u64>> {
    (0..SIZE / MIB).map(|number| number * MIB..(number + 1) * MIB)
}

fn arithmetic(c: &mut Criterion) {
    c.bench_function("window: advance by 1 MiB, 64 times", |b| {
        b.iter(|| {
            let mut window = Window::closed(0);
            window.open(MIB, MIB);
            for read in sequential() {
                hint::black_box(window.advance(read.end, SIZE, BOUNDS));
            }
        });
    });
    c.bench_function("pattern: observe 64 sequential reads", |b| {
        b.iter(|| {
            let mut pattern = Pattern::new(SIZE);
            for read in sequential() {
                hint::black_box(pattern.observe(&read, BOUNDS));
            }
        });
    });
    c.bench_function("pattern: observe 64 scattered reads", |b| {
        b.iter(|| {
            let mut pattern = Pattern::new(SIZE);
            for number in 0..64 {
                let start = number * 37 % 64 * MIB;
                hint::black_box(pattern.observe(&(start..start + 4096), BOUNDS));
            }
        });
    });
}

fn checksum(c: &mut Criterion) {
    let block = vec![7; BLOCK_SIZE as usize];
    let mut group = c.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(BLOCK_SIZE));
    group.bench_function("CRC32C of a block", |b| {
        b.iter(|| crc32c::crc32c(hint::black_box(&block)));
    });
    group.finish();
}

fn cached(c: &mut Criterion) {
    let world = World::new();
    let cached = world.cache.artifact(&world.key, &world.validator);
    c.bench_function("block map: look up 512 blocks", |b| {
        b.iter(|| (0..SIZE / BLOCK_SIZE).all(|block| cached.has(hint::black_box(block))));
    });
    for (name, len) in [("4 KiB", 4 << 10), ("128 KiB", 128 << 10), ("1 MiB", MIB)] {
        let mut group = c.benchmark_group("cached read");
        group.throughput(Throughput::Bytes(len));
        let mut offset = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                offset = (offset + len) % SIZE;
                let bytes = world.handle.read_now(offset, len as u32);
                bytes.expect("cached").expect("readable").len()
            });
        });
        group.finish();
    }
}

/// A cache that holds all of one artifact, and an open handle of it.
struct World {
    handle: Handle,
    cache: Cache,
    key: ArtifactKey,
    validator: Validator,
    _runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let cache = Cache::open(dir.path(), 1 << 40).expect("a cache");
        let budget = Budget::new(256 * MIB);
        let key = ArtifactKey {
            task: TaskKey {
                provider: "p".to_owned(),
                instance: "i".to_owned(),
                backup: "b".to_owned(),
                shard: "s".to_owned(),
            },
            file: "f".to_owned(),
        };
        let validator = Validator {
            etag: Some("\"1\"".to_owned()),
            last_modified: None,
            size: SIZE,
            download: None,
        };
        let source = Source(serve_zeros().expect("a server"));
        let fetcher = Fetcher::new(FetchOptions {
            allow_http: true,
            ..FetchOptions::default()
        });
        let spec = ArtifactSpec {
            key: key.clone(),
            validator: validator.clone(),
            links: Arc::new(Links::new(source, Arc::new(SystemClock))),
            fetcher: fetcher.expect("a client"),
        };
        let handle = runtime.block_on(async {
            let handle = Readers::new(cache.clone(), budget.clone()).open(spec);
            for read in sequential() {
                let bytes = handle.read(read.start, MIB as u32).await;
                assert_eq!(bytes.expect("readable").len() as u64, MIB);
            }
            handle
        });
        // What is in memory only is not what shall be measured.
        while budget.used() > 0 {
            thread::yield_now();
        }
        World {
            handle,
            cache,
            key,
            validator,
            _runtime: runtime,
            _dir: dir,
        }
    }
}

/// The address of a server of zeros.
#[derive(Debug)]
struct Source(String);

#[async_trait]
impl LinkSource for Source {
    async fn fresh(&self) -> Result<Link> {
        Ok(Link {
            url: SafeUrl::parse(&self.0).expect("an address"),
            headers: Vec::new(),
            expires: None,
            mode: LinkMode::Ranged,
        })
    }
}

/// Starts a server of [`SIZE`] zeros that knows one kind of request: a GET of a range.
fn serve_zeros() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("http://{}/", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is none of the server's business.
            thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(url)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let zeros = vec![0; MIB as usize];
    loop {
        let (mut first, mut last) = (0, SIZE - 1);
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some((from, to)) = line
                .strip_prefix("range: bytes=")
                .and_then(|range| range.split_once('-'))
            {
                first = from.parse().unwrap_or(first);
                last = to.parse().unwrap_or(last);
            } else if line.is_empty() {
                break;
            }
        }
        let mut left = (last + 1 - first) as usize;
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nETag: \"1\"\r\nContent-Length: {left}\r\n\
             Content-Range: bytes {first}-{last}/{SIZE}\r\n\r\n"
        )?;
        while left > 0 {
            let piece = left.min(zeros.len());
            stream.write_all(&zeros[..piece])?;
            left -= piece;
        }
    }
}

criterion_group!(benches, arithmetic, checksum, cached);
criterion_main!(benches);
