//! Faults at random, the same for the same seed: what a hostile data host does to one request in
//! so many.
//!
//! Which fault meets which request depends on the seed and the number of the request alone. The
//! seed is printed when a test fails; `HOSTILE_SEED` sets it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::dice::mixed;
use crate::hostile::{Object, Reply, Request};

/// Makes [`Fault`] of its kinds, and the list of them all.
macro_rules! faults {
    ($($kind:ident),+ $(,)?) => {
        /// One way to spoil an answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($kind),+
        }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$kind),+];
        }
    };
}

faults! {
    AnotherCode,
    AnotherLength,
    AnotherRange,
    AnotherTotal,
    AnotherVersion,
    BrokenChunks,
    ClosedBeforeAnswer,
    Conflict,
    CutBody,
    Drip,
    EmptyBody,
    Encoded,
    EndlessHeaders,
    Garbage,
    GatewayPage,
    HungBody,
    LoginPage,
    ManyHeaders,
    MalformedRange,
    NoRange,
    Overloaded,
    RefusedLink,
    RedirectLoop,
    ResetBody,
    ResetBeforeBody,
    SecondLength,
    SeveralParts,
    Silence,
    SlowDown,
    SurplusInChunks,
    SurplusOnTheWire,
    UndeclaredEnd,
    UnlawfulRedirect,
    UnsatisfiedRange,
    WholeFile,
}

use Fault::*;

impl Fault {
    /// Whether it says that there is another version now: then the reader is to be told, not the
    /// request to be made again.
    pub fn is_a_change(self) -> bool {
        matches!(self, AnotherVersion | Conflict | UnsatisfiedRange)
    }

    /// What the host answers instead of what it should; `dice` decides details.
    fn reply(self, object: &Object, request: &Request, dice: u64) -> Reply {
        let honest = Reply::honest(object, request);
        let asked = request.range().map_or(1, |range| range.end - range.start);
        let at = (dice % asked.max(1)) as usize;
        match self {
            AnotherCode => Reply::new(418, "short and stout"),
            AnotherLength => honest.with("Content-Length", (asked + 1).to_string()),
            AnotherRange => honest.with("Content-Range", "bytes 1-10/11"),
            AnotherTotal => {
                let range = request.range().unwrap_or(0..1);
                let (first, last) = (range.start, range.end - 1);
                let total = object.bytes.len() + 1;
                honest.with("Content-Range", format!("bytes {first}-{last}/{total}"))
            }
            AnotherVersion => honest.with("ETag", "\"v2\""),
            BrokenChunks => honest.chunked().reset(at),
            ClosedBeforeAnswer => Reply::close(),
            Conflict => Reply::new(412, ""),
            CutBody => honest.cut(at),
            Drip => honest.drip(1, Duration::from_millis(20)),
            EmptyBody => honest.with("Content-Length", "0").cut(0),
            Encoded => {
                let codings = ["gzip", "br", "zstd", "deflate"];
                honest.with("Content-Encoding", codings[at % codings.len()])
            }
            EndlessHeaders => Reply::endless_headers(),
            Garbage => Reply::garbage(),
            GatewayPage => Reply::new(502, "<html>Bad Gateway</html>"),
            HungBody => honest.hang(at),
            LoginPage => Reply::new(200, "<html>Sign in</html>").with("Content-Type", "text/html"),
            ManyHeaders => (0..200).fold(honest, |reply, n| reply.add(&format!("X-{n}"), "x")),
            MalformedRange => {
                let values = [
                    "bytes 0-18446744073709551616/*",
                    "items 0-1/2",
                    "bytes -1/2",
                ];
                honest.with("Content-Range", values[at % values.len()])
            }
            NoRange => honest.without("Content-Range"),
            Overloaded => Reply::new(503, "").with("Retry-After", "0"),
            RefusedLink => Reply::refusal(403, "AccessDenied"),
            RedirectLoop => Reply::redirect(302, request.target.clone()),
            ResetBody => honest.reset(at),
            ResetBeforeBody => honest.reset(0),
            SecondLength => honest.add("Content-Length", "7"),
            SeveralParts => honest.with("Content-Type", "multipart/byteranges; boundary=b"),
            Silence => Reply::silence(),
            SlowDown => Reply::refusal(503, "SlowDown"),
            SurplusInChunks => honest.longer(b"and more").chunked(),
            SurplusOnTheWire => honest.longer(b"HTTP/1.1 206 Smuggled\r\n\r\n"),
            UndeclaredEnd => honest.without("Content-Length").cut(at),
            UnlawfulRedirect => Reply::redirect(307, "ftp://127.0.0.1/artifact"),
            UnsatisfiedRange => Reply::new(416, "").with("Content-Range", "bytes */1"),
            WholeFile => Reply::whole(object),
        }
    }
}

/// Which requests are spoilt, and how; counts them.
#[derive(Debug)]
pub struct Mixture {
    seed: u64,
    /// Of a hundred requests.
    spoilt: u64,
    asked: AtomicU64,
    met: Mutex<BTreeMap<Fault, u64>>,
}

impl Mixture {
    /// Spoils `spoilt` of a hundred requests.
    pub fn of(spoilt: u64) -> Self {
        let seed = std::env::var("HOSTILE_SEED").ok();
        Mixture {
            seed: seed.map_or(8, |text| text.parse().expect("a number as the seed")),
            spoilt,
            asked: AtomicU64::new(0),
            met: Mutex::default(),
        }
    }

    /// The answer to request number `n`.
    pub fn answer(&self, object: &Object, request: &Request, n: usize) -> Reply {
        self.asked.fetch_add(1, Relaxed);
        let dice = mixed(self.seed ^ mixed(n as u64));
        if dice % 100 >= self.spoilt {
            return Reply::honest(object, request);
        }
        let fault = Fault::ALL[(dice >> 8) as usize % Fault::ALL.len()];
        *self.met.lock().unwrap().entry(fault).or_default() += 1;
        fault.reply(object, request, dice >> 32)
    }

    /// How many requests there were so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    /// How often each fault was met so far.
    pub fn met(&self) -> BTreeMap<Fault, u64> {
        self.met.lock().unwrap().clone()
    }
}

impl Drop for Mixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to have these faults again: HOSTILE_SEED={}", self.seed);
        }
    }
}
