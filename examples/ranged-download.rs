//! The yardstick of cold copies: a bare parallel download of one file by ranges, straight to disk.
//!
//! Blocking sockets and pwrite, nothing else: no checks, no retries, no cache. What it reaches is
//! what the machine and the connections allow; plain http only.
//!
//! ```console
//! $ cargo run --release --example ranged-download -- http://127.0.0.1:8080/file /tmp/file
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use clap::Parser;
use url::Url;

/// Bytes written at a time.
const PIECE: usize = 1 << 20;

/// Downloads one file over several connections.
#[derive(Debug, Parser)]
struct Options {
    /// What to download.
    url: Url,

    /// Where to.
    file: PathBuf,

    /// How many connections.
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    connections: usize,

    /// MiB asked in one request; 0 for one request per connection.
    #[arg(long, value_name = "MEBIBYTES", default_value_t = 4)]
    part: u64,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let connections = options.connections.max(1);
    let (_, size) = Connection::open(&options.url)?.ask(&(0..1))?;
    let part = match options.part {
        0 => size.div_ceil(connections as u64).max(1),
        mebibytes => mebibytes << 20,
    };
    let file = File::create(&options.file)?;
    file.set_len(size)?;

    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        let downloads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| download(&options.url, &file, size, part, &next)))
            .collect();
        downloads.into_iter().try_for_each(|download| {
            download
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a download panicked")))
        })
    })
}

/// Downloads one part after another until none is left.
fn download(url: &Url, file: &File, size: u64, part: u64, next: &AtomicU64) -> io::Result<()> {
    let mut connection = Connection::open(url)?;
    let mut buffer = vec![0; PIECE];
    loop {
        let start = next.fetch_add(part, Relaxed);
        if start >= size {
            return Ok(());
        }
        let end = (start + part).min(size);
        connection.ask(&(start..end))?;
        let mut at = start;
        while at < end {
            let most = buffer.len().min((end - at) as usize);
            connection.0.read_exact(&mut buffer[..most])?;
            file.write_all_at(&buffer[..most], at)?;
            at += most as u64;
        }
    }
}

/// A connection that is kept from request to request.
struct Connection<'a>(BufReader<TcpStream>, &'a Url);

impl<'a> Connection<'a> {
    fn open(url: &'a Url) -> io::Result<Self> {
        let address = url
            .socket_addrs(|| None)?
            .into_iter()
            .next()
            .ok_or_else(|| io::Error::other("the URL names no host"))?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        // Heads are small; bodies go past this buffer.
        Ok(Connection(BufReader::with_capacity(4096, stream), url))
    }

    /// Asks for `range`; the body then follows. Answers its length and that of the file.
    fn ask(&mut self, range: &Range<u64>) -> io::Result<(u64, u64)> {
        let (host, path) = (self.1.host_str().unwrap_or_default(), self.1.path());
        let (first, last) = (range.start, range.end - 1);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={first}-{last}\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;

        let mut status = String::new();
        self.0.read_line(&mut status)?;
        if !status.contains(" 206 ") {
            let why = format!("not a partial answer: {}", status.trim_end());
            return Err(io::Error::other(why));
        }
        let mut size = None;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-range") => {
                    size = value.rsplit('/').next().and_then(|size| size.parse().ok());
                }
                Some(_) => {}
                None => break,
            }
        }
        let size = size.ok_or_else(|| io::Error::other("the answer names no size"))?;
        Ok((range.end - range.start, size))
    }
}
