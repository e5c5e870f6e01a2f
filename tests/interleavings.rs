//! Work that is shared is begun once and heard of by all, in whatever order things happen.
//!
//! The modules under test are compiled into this program with the lock and the tasks of a model
//! checker (shuttle), which then plays thousands of orders of every step between two of them. An
//! order in which somebody waits for ever is a failure too. A failing order is printed and can be
//! replayed with `shuttle::replay`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use mongo_backupfs::error;
use shuttle::future::{block_on, yield_now};
use shuttle::thread;

use drives::{Drives, Running, Seat, Stage};
use flight::Flights;

#[path = "../src/tasks/drives.rs"]
mod drives;
#[path = "../src/fs/flight.rs"]
mod flight;

/// Stands for `src/sync.rs`.
mod sync {
    use std::future::Future;

    pub use shuttle::sync::{Mutex, MutexGuard};

    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub fn spawn<F: Future<Output = ()> + Send + 'static>(work: F) {
        drop(shuttle::future::spawn(work));
    }
}

/// Orders of events that each test plays.
const ORDERS: usize = 5000;

/// How much of something goes on at the same time.
#[derive(Debug, Default)]
struct Gauge {
    now: AtomicUsize,
    total: AtomicUsize,
}

impl Gauge {
    fn begin(&self) {
        assert_eq!(self.now.fetch_add(1, SeqCst), 0, "begun twice");
        self.total.fetch_add(1, SeqCst);
    }

    fn end(&self) {
        self.now.fetch_sub(1, SeqCst);
    }
}

async fn work(gauge: Arc<Gauge>) -> error::Result<usize> {
    gauge.begin();
    yield_now().await;
    gauge.end();
    Ok(gauge.total.load(SeqCst))
}

#[test]
fn concurrent_callers_share_one_flight() {
    shuttle::check_random(
        || {
            let flights = Arc::new(Flights::default());
            let gauge = Arc::new(Gauge::default());
            let callers: Vec<_> = (0..3)
                .map(|_| {
                    let (flights, gauge) = (Arc::clone(&flights), Arc::clone(&gauge));
                    thread::spawn(move || {
                        let joined = flights.join((), || work(Arc::clone(&gauge)));
                        assert!(block_on(joined).unwrap() >= 1);
                    })
                })
                .collect();
            for caller in callers {
                caller.join().unwrap();
            }
        },
        ORDERS,
    );
}

/// A single flight with the mistake that it looks and enters in two steps.
#[derive(Debug, Default)]
struct Hasty {
    under_way: sync::Mutex<bool>,
}

impl Hasty {
    async fn join(&self, gauge: Arc<Gauge>) {
        if *sync::lock(&self.under_way) {
            return;
        }
        *sync::lock(&self.under_way) = true;
        work(gauge).await.unwrap();
        *sync::lock(&self.under_way) = false;
    }
}

#[test]
#[should_panic(expected = "begun twice")]
fn a_planted_race_is_found() {
    shuttle::check_random(
        || {
            let (hasty, gauge) = (Arc::new(Hasty::default()), Arc::new(Gauge::default()));
            let other = (Arc::clone(&hasty), Arc::clone(&gauge));
            let caller = thread::spawn(move || block_on(other.0.join(other.1)));
            block_on(hasty.join(gauge));
            caller.join().unwrap();
        },
        ORDERS,
    );
}

/// Waits for what a drive says in the end.
async fn ended(seat: Seat<u8, u8>) -> u8 {
    let mut stage = seat.stage;
    let over = stage
        .wait_for(|stage| matches!(stage, Stage::Ended(_)))
        .await;
    match *over.expect("a drive tells its openers before it is gone") {
        Stage::Ended(outcome) => outcome,
        Stage::Begun | Stage::Started(_) => unreachable!("it was waited for"),
    }
}

/// A drive of a few steps that ends early once nobody wants it.
async fn drive(running: Running<u8, u8, u8>, gauge: Arc<Gauge>) {
    gauge.begin();
    for step in 0..2 {
        yield_now().await;
        if !running.is_wanted() {
            // From here on another may begin, and this one does nothing more.
            gauge.end();
            return;
        }
        running.drive.start(step);
    }
    gauge.end();
    running.finish(7);
}

fn enter(drives: &Arc<Drives<u8, u8, u8>>, gauge: &Arc<Gauge>) -> Option<Seat<u8, u8>> {
    let (seat, running) = drives.join(&1, Some("reason".to_owned()), 99)?;
    assert!(seat.adopt_only);
    if let Some(running) = running {
        assert_eq!(running.key, 1);
        sync::spawn(drive(running, Arc::clone(gauge)));
    }
    Some(seat)
}

#[test]
fn openers_that_come_and_go_share_one_drive() {
    shuttle::check_random(
        || {
            let drives = Arc::new(Drives::new());
            let gauge = Arc::new(Gauge::default());
            let openers: Vec<_> = (0..4)
                .map(|number| {
                    let (drives, gauge) = (Arc::clone(&drives), Arc::clone(&gauge));
                    thread::spawn(move || {
                        let seat = enter(&drives, &gauge).expect("not closed");
                        assert!(drives.waiting(&1) <= 4);
                        // Every other one leaves at once.
                        if number % 2 == 0 {
                            assert_eq!(block_on(ended(seat)), 7);
                        }
                    })
                })
                .collect();
            for opener in openers {
                opener.join().unwrap();
            }
        },
        ORDERS,
    );
}

#[test]
fn a_drive_that_breaks_off_tells_everybody_and_can_be_begun_anew() {
    shuttle::check_random(
        || {
            let drives: Arc<Drives<u8, u8, u8>> = Arc::new(Drives::new());
            let openers: Vec<_> = (0..3)
                .map(|_| {
                    let drives = Arc::clone(&drives);
                    thread::spawn(move || {
                        let (seat, running) = drives.join(&1, None, 99).expect("not closed");
                        // As a panic would.
                        drop(running);
                        assert_eq!(block_on(ended(seat)), 99);
                    })
                })
                .collect();
            for opener in openers {
                opener.join().unwrap();
            }
            assert!(!drives.contains(&1));
        },
        ORDERS,
    );
}

#[test]
fn nothing_begins_once_closed() {
    shuttle::check_random(
        || {
            let drives = Arc::new(Drives::new());
            let gauge = Arc::new(Gauge::default());
            let (others, theirs) = (Arc::clone(&drives), Arc::clone(&gauge));
            let opener = thread::spawn(move || {
                if let Some(seat) = enter(&others, &theirs) {
                    block_on(ended(seat));
                }
            });
            drives.close();
            let begun = gauge.total.load(SeqCst);
            assert!(enter(&drives, &gauge).is_none());
            opener.join().unwrap();
            assert!(gauge.total.load(SeqCst) <= begun + 1);
        },
        ORDERS,
    );
}
