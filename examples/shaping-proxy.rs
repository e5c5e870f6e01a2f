//! A proxy that makes loopback behave like a distant object store: each request waits for a round
//! trip, each connection has a top speed.
//!
//! Prints its address, then serves until its standard input ends:
//!
//! ```console
//! $ cargo run --release --example shaping-proxy -- --upstream 127.0.0.1:8080 --latency 20 --rate 50
//! 127.0.0.1:40123
//! ```
//!
//! It understands as much of HTTP/1.1 as it needs: requests without a body, one after another on a
//! connection. A new connection costs one more round trip, as a TCP handshake does. Bodies never
//! enter this process: splice(2) moves them from socket to socket, so that sixteen connections at
//! full speed leave the machine to what is measured. Two threads carry a connection.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

/// Bytes moved at a time, and how far a connection may run ahead of its rate.
const PIECE: usize = 256 * 1024;

/// The longest request head passed on.
const LONGEST_HEAD: usize = 64 * 1024;

/// Delays requests and caps the speed of connections.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// The server behind this one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    upstream: SocketAddr,

    /// Milliseconds of a round trip: before each request is passed on, and once per connection.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0.0)]
    latency: f64,

    /// Most megabytes (10^6) per second and connection; 0 for no limit.
    #[arg(long, value_name = "MEGABYTES", default_value_t = 0.0)]
    rate: f64,
}

impl Options {
    fn round_trip(&self) -> Duration {
        Duration::from_secs_f64(self.latency / 1e3)
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let options = options.clone();
            thread::spawn(move || {
                // Either side may go away at any moment; the other then learns it.
                let _ = carry(client, &options);
            });
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Carries one connection until either side ends it.
fn carry(client: TcpStream, options: &Options) -> io::Result<()> {
    thread::sleep(options.round_trip());
    let server = TcpStream::connect(options.upstream)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (client, server) = (Arc::new(client), Arc::new(server));
    let answers = {
        let (client, server, rate) = (client.clone(), server.clone(), options.rate);
        thread::spawn(move || {
            let _ = pass_answers(&server, &client, rate);
            // Without its answers a connection is over, in both directions.
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        })
    };
    let passed = pass_requests(&client, &server, options.round_trip());
    let _ = server.shutdown(Shutdown::Write);
    let _ = answers.join();
    passed
}

/// Passes each request on when its round trip is over.
fn pass_requests(mut client: &TcpStream, mut server: &TcpStream, trip: Duration) -> io::Result<()> {
    let mut head = vec![0; LONGEST_HEAD];
    loop {
        let mut length = 0;
        while !head[..length].ends_with(b"\r\n\r\n") {
            match client.read(&mut head[length..])? {
                0 => return Ok(()),
                read => length += read,
            }
        }
        thread::sleep(trip);
        server.write_all(&head[..length])?;
    }
}

/// Moves answers at `rate` megabytes per second.
fn pass_answers(server: &TcpStream, client: &TcpStream, rate: f64) -> io::Result<()> {
    let (out, into): (PipeReader, PipeWriter) = io::pipe()?;
    let (out, into) = (
        File::from(OwnedFd::from(out)),
        File::from(OwnedFd::from(into)),
    );
    widen(&into)?;
    let mut pace = Pace::new(rate * 1e6);
    loop {
        let moved = splice(server, &into)?;
        if moved == 0 {
            return Ok(());
        }
        pace.wait(moved);
        let mut left = moved;
        while left > 0 {
            left -= splice_at_most(&out, client, left)?;
        }
    }
}

/// A token bucket that holds one piece.
#[derive(Debug)]
struct Pace {
    /// Bytes per second; 0 for no limit.
    rate: f64,
    /// When everything passed so far has had its time.
    due: Instant,
}

impl Pace {
    fn new(rate: f64) -> Self {
        Pace {
            rate,
            due: Instant::now(),
        }
    }

    /// Waits until `bytes` more may pass.
    fn wait(&mut self, bytes: usize) {
        if self.rate <= 0.0 {
            return;
        }
        let time = |bytes: usize| Duration::from_secs_f64(bytes as f64 / self.rate);
        let now = Instant::now();
        let idle = now - time(PIECE).min(now.duration_since(self.due));
        self.due = self.due.max(idle) + time(bytes);
        thread::sleep(self.due.saturating_duration_since(now));
    }
}

/// Makes room for a whole piece in a pipe.
fn widen(pipe: &File) -> io::Result<()> {
    // SAFETY: F_SETPIPE_SZ takes an open descriptor and an int, and touches no memory of ours.
    match unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, PIECE as libc::c_int) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn splice(from: &impl AsRawFd, to: &impl AsRawFd) -> io::Result<usize> {
    splice_at_most(from, to, PIECE)
}

/// Moves up to `most` bytes within the kernel; one side must be a pipe. 0 at the end.
fn splice_at_most(from: &impl AsRawFd, to: &impl AsRawFd, most: usize) -> io::Result<usize> {
    loop {
        // SAFETY: both descriptors are open as long as they are borrowed; null offsets are allowed
        // for pipes and sockets; no memory of ours is touched.
        let moved = unsafe {
            libc::splice(
                from.as_raw_fd(),
                std::ptr::null_mut(),
                to.as_raw_fd(),
                std::ptr::null_mut(),
                most,
                libc::SPLICE_F_MOVE,
            )
        };
        match usize::try_from(moved) {
            Ok(moved) => return Ok(moved),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}
